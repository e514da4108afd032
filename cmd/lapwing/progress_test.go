package main

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/trainer"
)

// A training on a device says how busy that is since the stage began, and how much of its memory is held; one without says nothing
// of it, nor does a stage in which the device had no part.
func TestProgressOfADevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := kernels.DeviceStatus{Memory: 15 << 30, Busy: time.Minute}
		p := &progress{a: &app{term: newTerminal(&strings.Builder{}, func(string) string { return "" })}, wanted: true, device: func() kernels.DeviceStatus { return d }}
		fit := trainer.Progress{Stage: "fit", Epoch: 1, Epochs: 3, Train: .5, Validation: .25, SamplesPerSecond: 2e6}
		p.show(fit)
		<-time.After(10 * time.Second)
		if got := p.text(fit); strings.Contains(got, "GPU") {
			t.Errorf("it did nothing since the stage began: %s", got)
		}
		d.Busy, d.Held = d.Busy+9300*time.Millisecond, 3<<29
		if got := p.text(fit); !strings.HasSuffix(got, "  GPU 93 % busy, 1.5 GiB of 15.0 GiB") {
			t.Error(got)
		}
		several := fit
		several.Candidates, several.Running = make([]trainer.Candidate, 3), 2
		for _, r := range []trainer.Progress{several, {Stage: "keys", Records: 2, TotalRecords: 9}} {
			if got := p.text(r); !strings.HasSuffix(got, "  GPU 93 % busy, 1.5 GiB of 15.0 GiB") {
				t.Error(got)
			}
		}
		if got := p.text(trainer.Progress{Stage: "read", Records: 5}); strings.Contains(got, "GPU") {
			t.Errorf("reading takes no GPU: %s", got)
		}
		p.device = nil
		if got := p.text(fit); strings.Contains(got, "GPU") {
			t.Error(got)
		}
	})
}

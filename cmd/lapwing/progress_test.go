package main

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/stream"
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

// A read says which partition is the furthest from its end, and nothing where there is one or all are done.
func TestProgressOfPartitions(t *testing.T) {
	at := func(p int32, at, to int64) trainer.PartitionProgress {
		return trainer.PartitionProgress{Range: stream.Range{Partition: p, From: 100, To: to}, At: at}
	}
	for want, partitions := range map[string][]trainer.PartitionProgress{
		"":                                       {at(0, 100, 200)},
		"  0 of 2 partitions, slowest: 0 at 0 %": {at(0, 100, 200), at(1, 101, 200)},
		"  2 of 3 partitions, slowest: 7 at 99 %": {at(0, 200, 200), at(7, 1099, 1101), at(9, 100, 100)},
		"  1 of 3 partitions, slowest: 9 at 50 %": {at(0, 190, 200), at(7, 1100, 1100), at(9, 150, 200)},
	} {
		if got := behind(partitions); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := behind([]trainer.PartitionProgress{at(0, 200, 200), at(1, 50, 50)}); got != "" {
		t.Errorf("all are done: %q", got)
	}
}

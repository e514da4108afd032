//go:build gpu

package cuda

import (
	"testing"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/compliance"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
)

// open takes the device of the machine, or the emulated one, and gives it back at the end: what is still held then is an
// error of Close.
func open(t testing.TB, o Options) *Device {
	t.Helper()
	d, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return d
}

// engine scores every batch on the device.
func engine(t testing.TB, d *Device) *Engine {
	t.Helper()
	e, err := NewEngine(d, EngineOptions{Beside: cpu.New(), From: 1, SelfTest: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestCompliance(t *testing.T) { compliance.Run(t, engine(t, open(t, Options{}))) }

// TestSameBitsAsTheProcessor_Case4_12: a batch may be scored by either, and a model on either.
func TestSameBitsAsTheProcessor_Case4_12(t *testing.T) {
	compliance.SameBits(t, engine(t, open(t, Options{})), cpu.New())
}

var _ kernels.OnDevice = (*Engine)(nil)

//go:build gpu

package cuda

import (
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
)

//go:embed score.ptx
var scorePTX string

var scoreModule = &module{name: "score", image: scorePTX}

// EngineOptions say how an engine shares its work with the processor.
type EngineOptions struct {
	Beside   kernels.Engine // scores what is not worth a trip to the GPU, and checks it; required
	Fallback bool           // Beside also scores what the GPU fails at; otherwise that is an error; default false
	From     int            // rows of a batch that the GPU scores, 1 = all; 0 = where it was measured to win; default 0
	SelfTest time.Duration  // how often a scorer's numbers are checked, when it is used; default 1m
	Log      *slog.Logger   // default slog.Default()
}

// Engine computes on a Device. It is safe for concurrent use.
type Engine struct {
	d      *Device
	o      EngineOptions
	warned sync.Map // the fallbacks that were said
	stats  struct{ onDevice, beside, fallbacks, splits, corrected atomic.Int64 }
}

// NewEngine computes on a device, which stays its owner's to close. It gives the kernels to the driver, so that a driver
// that is too old for them is known here.
func NewEngine(d *Device, o EngineOptions) (*Engine, error) {
	if o.Beside == nil {
		return nil, errors.New("cuda: EngineOptions.Beside is required")
	}
	o.SelfTest, o.Log = cmp.Or(o.SelfTest, time.Minute), cmp.Or(o.Log, slog.Default())
	e := &Engine{d: d, o: o}
	return e, e.probe()
}

func (e *Engine) Name() string { return "cuda" }

// Level is the compute capability. Results do not depend on it.
func (e *Engine) Level() string { return e.d.info.Capability() }

func (e *Engine) Supports(s kernels.Step) error {
	switch s.(type) {
	case *kernels.Map, *kernels.Gemm, *kernels.Diff, *kernels.Norm, *kernels.Nearest, *kernels.Split, *kernels.Join:
		return nil
	case nil:
		return errors.New("engine cuda: the step is nil")
	}
	return fmt.Errorf("engine cuda does not support the step %q", s.Kind())
}

// DeviceStatus says where rows were scored, and how the device is.
func (e *Engine) DeviceStatus() kernels.DeviceStatus {
	s := kernels.DeviceStatus{
		Name: e.d.info.Name, UUID: e.d.info.UUID, OnDevice: e.stats.onDevice.Load(), Beside: e.stats.beside.Load(),
		Fallbacks: e.stats.fallbacks.Load(), Splits: e.stats.splits.Load(), Corrected: e.stats.corrected.Load(),
		Memory: e.d.info.Memory, Held: e.d.held.Load(), Busy: time.Duration(e.d.busy.Load()),
	}
	if err := e.d.Lost(); err != nil {
		s.Lost = err.Error()
	}
	return s
}

// Device is what the engine computes on.
func (e *Engine) Device() *Device { return e.d }

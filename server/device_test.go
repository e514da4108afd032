package server

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
)

// deviceEngine is an engine with a device of its own that fails on demand: the real engine, but for when.
type deviceEngine struct {
	kernels.Engine
	fails atomic.Int64           // calls that will fail from now on
	lost  atomic.Pointer[string] // the device is lost; nil = it is not
}

func (e *deviceEngine) DeviceStatus() kernels.DeviceStatus {
	s := kernels.DeviceStatus{Name: "Tesla T4", UUID: "GPU-0"}
	if lost := e.lost.Load(); lost != nil {
		s.Lost = *lost
	}
	return s
}

func (e *deviceEngine) Scorer(p *kernels.Program) (kernels.Scorer, error) {
	inner, err := e.Engine.Scorer(p)
	return &deviceScorer{inner, e}, err
}

type deviceScorer struct {
	kernels.Scorer
	e *deviceEngine
}

func (s *deviceScorer) Score(rows []float32, out kernels.Output) error {
	if lost := s.e.lost.Load(); lost != nil {
		return errors.New(*lost)
	}
	if s.e.fails.Load() > 0 && s.e.fails.Add(-1) >= 0 {
		clear(out.Score) // what a failed call leaves must not be taken for scores
		return errors.New("cannot allocate 64 MiB on GPU 0 (Tesla T4): CUDA_ERROR_OUT_OF_MEMORY, CUDA error 2")
	}
	return s.Scorer.Score(rows, out)
}

// TestRetriesBatchThatTheDeviceFailed_Case7_04: its records are read again, none is lost and none has a score of zero.
func TestRetriesBatchThatTheDeviceFailed_Case7_04(t *testing.T) {
	b := newBed(t)
	e := &deviceEngine{Engine: b.engine}
	b.engine = e
	b.topic("cars", 1)
	b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
	s := b.serve(oneStream("cars"))
	s.ready()
	e.fails.Store(3)
	b.produce(b.events("cars", 1, 0, 100)...)
	s.settled(100)
	s.stop()
	seen := map[int64]bool{}
	for _, r := range b.scores("cars.scores") {
		seen[r.Offset] = true
		if r.Score == nil || *r.Score == 0 {
			t.Errorf("offset %d has no score of its own: %s", r.Offset, r.raw.Value)
		}
	}
	if len(seen) != 100 {
		t.Errorf("%d of 100 records are scored", len(seen))
	}
	if e.fails.Load() > 0 {
		t.Error("no call failed")
	}
}

// TestEndsWhenTheDeviceIsLost_Case7_06: serve ends with an error, and commits nothing that was not scored: the next one
// scores it.
func TestEndsWhenTheDeviceIsLost_Case7_06(t *testing.T) {
	b := newBed(t)
	cpu := b.engine
	e := &deviceEngine{Engine: cpu}
	b.engine = e
	b.topic("cars", 1)
	b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
	server := b.server(oneStream("cars"))
	done := make(chan error, 1)
	go func() { done <- server.Run(t.Context()) }()
	await(t, "readiness", func() bool { return server.Status().Ready })
	b.produce(b.events("cars", 1, 0, 50)...)
	await(t, "50 scores", func() bool { return server.Status().Streams[0].RecordsOut == 50 })
	lost := "cannot launch a kernel on GPU 0 (Tesla T4): CUDA_ERROR_LAUNCH_FAILED, CUDA error 719"
	e.lost.Store(&lost)
	b.produce(b.events("cars", 1, 50, 50)...)
	err := <-done
	if err == nil || !strings.Contains(err.Error(), lost) || !strings.Contains(err.Error(), "restart serve") {
		t.Fatalf("serve ended with %v", err)
	}
	if d := server.Status().Device; d == nil || d.Lost != lost {
		t.Errorf("the status says %+v", d)
	}
	b.engine = cpu
	s := b.serve(oneStream("cars"))
	s.ready()
	await(t, "the rest", func() bool { return s.Status().Streams[0].RecordsOut >= 50 })
	s.stop()
	seen := map[int64]bool{}
	for _, r := range b.scores("cars.scores") {
		seen[r.Offset] = true
	}
	if len(seen) != 100 {
		t.Errorf("%d of 100 records are scored", len(seen))
	}
}

package server

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
)

// deviceEngine is an engine with a device of its own that fails on demand: the real engine, but for when.
type deviceEngine struct {
	kernels.Engine
	fails atomic.Int64           // calls that will fail from now on
	full  atomic.Bool            // no program finds memory
	tried atomic.Int64           // programs that found none
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
	if lost := e.lost.Load(); lost != nil {
		return nil, errors.New(*lost)
	}
	if e.full.Load() {
		e.tried.Add(1)
		return nil, fmt.Errorf("cannot allocate 256 bytes on GPU 0 (Tesla T4): %w", kernels.ErrOutOfMemory)
	}
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

// TestModelWaitsForMemory_Case7_04: a model that the device has no memory for is not refused. It goes live once there is some, is
// said once to wait, and its records are scored; the version before goes on where there is one; a newer one takes its place.
func TestModelWaitsForMemory_Case7_04(t *testing.T) {
	b := newBed(t)
	e := &deviceEngine{Engine: b.engine}
	e.full.Store(true)
	b.engine = e
	b.topic("cars", 1)
	b.publish("cars", testModel(t, plainSpec, scaleOf(1), 5), "live")
	b.produce(b.events("cars", 1, 0, 50)...)
	s := b.serve(oneStream("cars"))
	await(t, "a few tries", func() bool { return e.tried.Load() > 3 })
	if code, body := s.get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "version 1 waits for the GPU: cannot allocate") && !strings.Contains(body, "version 1 is loading") {
		t.Errorf("readiness without memory: %d %s", code, body)
	}
	e.full.Store(false)
	s.ready()
	await(t, "the first scores", func() bool { return s.Status().Streams[0].RecordsOut == 50 })

	e.full.Store(true)
	before := e.tried.Load()
	b.publish("cars", testModel(t, plainSpec, scaleOf(2), 5), "live")
	await(t, "the second version is tried", func() bool { return e.tried.Load() > before+1 })
	b.produce(b.events("cars", 1, 50, 50)...)
	await(t, "the first version goes on", func() bool { return s.Status().Streams[0].RecordsOut == 100 })
	b.publish("cars", testModel(t, plainSpec, scaleOf(3), 5), "live")
	await(t, "the third takes its place", func() bool {
		return b.log.count("the GPU has no memory for the model, which is tried again until there is some; version 1 goes on model=cars/3") == 1
	})
	e.full.Store(false)
	await(t, "the third version", func() bool { return s.Status().Streams[0].Version == 3 })
	if st := s.Status().Streams[0]; st.Swaps != 1 || st.Restarts != 0 {
		t.Errorf("%d swaps, %d restarts", st.Swaps, st.Restarts)
	}
	for _, v := range s.Status().Streams[0].Versions {
		if want := map[int]modelState{1: ModelReplaced, 2: ModelOvertaken, 3: ModelLive}[v.Version]; v.State != want {
			t.Errorf("version %d is %s, want %s", v.Version, v.State, want)
		}
	}
	b.produce(b.events("cars", 1, 100, 50)...)
	s.settled(150)
	s.stop()
	for said, want := range map[string]int{"some; records wait model=cars/1": 1, "some; version 1 goes on model=cars/2": 1, "model refused": 0} {
		if n := b.log.count(said); n != want {
			t.Errorf("%q was said %d times, want %d", said, n, want)
		}
	}
	versions := map[int]int{}
	for _, r := range b.scores("cars.scores") {
		versions[r.Version]++
	}
	if versions[1] != 100 || versions[3] != 50 || len(versions) != 2 {
		t.Errorf("scores by version: %v", versions)
	}
}

// TestEndsWhenNoModelFindsADevice_Case7_06: a device that is lost before the first model is live ends serve too.
func TestEndsWhenNoModelFindsADevice_Case7_06(t *testing.T) {
	b := newBed(t)
	e := &deviceEngine{Engine: b.engine}
	lost := "cannot copy to GPU 0 (Tesla T4): CUDA_ERROR_LAUNCH_FAILED, CUDA error 719"
	e.lost.Store(&lost)
	b.engine = e
	b.topic("cars", 1)
	b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
	if err := b.server(oneStream("cars")).Run(t.Context()); err == nil || !strings.Contains(err.Error(), lost) || !strings.Contains(err.Error(), "restart serve") {
		t.Fatalf("serve ended with %v", err)
	}
	if b.log.count("model refused") != 0 {
		t.Error("the model is said to be at fault")
	}
}

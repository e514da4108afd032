package trainer

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/kernels/gorgonia"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/stream"
)

// callingOff is an engine whose trainers call the run off in the middle of the given step, from 1.
type callingOff struct {
	kernels.Engine
	step atomic.Int64
	stop func()
}

type callingOffTrainer struct {
	kernels.Trainer
	engine *callingOff
}

func (e *callingOff) Trainer(p *kernels.Program, o kernels.TrainOptions) (kernels.Trainer, error) {
	t, err := e.Engine.Trainer(p, o)
	return &callingOffTrainer{t, e}, err
}

func (t *callingOffTrainer) Step(rows []float32, rate float32) (float64, error) {
	if t.engine.step.Add(-1) == 0 {
		t.engine.stop()
	}
	return t.Trainer.Step(rows, rate)
}

// interrupt calls a run of o off in the given step that it makes, or where step is 0 at the first report of the given stage.
func (b *bench) interrupt(o Options, step int, stage string) error {
	b.t.Helper()
	ctx, stop := context.WithCancel(b.t.Context())
	defer stop()
	deps := b.deps
	e := &callingOff{Engine: b.deps.Engine, stop: stop}
	e.step.Store(int64(step))
	deps.Engine = e
	deps.Progress = func(p Progress) {
		if p.Stage == stage {
			stop()
		}
	}
	r, err := Run(ctx, deps, o)
	if err == nil {
		b.t.Fatalf("the run was done before it could be called off: %d steps", r.Steps)
	}
	if !errors.Is(err, context.Canceled) {
		b.t.Errorf("called off, it ends with: %v", err)
	}
	return err
}

func slow(topic string) Options {
	o := quick(topic)
	o.Epochs, o.Patience, o.BatchSize, o.Threads = 60, 1000, 16, 1
	return o
}

// Called off in the middle of the fit, once and again, and gone on with on other threads and other memory: the bytes of an unbroken run.
func TestResumedRunGivesTheSameBytes(t *testing.T) {
	b := newBench(t)
	b.topic("h", 3, values(3, machine(4, 3000)...)...)
	for name, change := range map[string]func(*Options){
		"adam": func(o *Options) {}, "sgd": func(o *Options) { o.Optimizer, o.Loss = "sgd", "huber" }, "second try": func(o *Options) { o.LearningRate = 60 },
		"times":    func(o *Options) { o.From, o.Until = "2025-06-15T15:10:00Z", "2025-06-15T15:50:00Z" },
		"gorgonia": func(o *Options) { o.Epochs = 8 },
		// The loss settles soon, and between evaluations whose losses fall: a run that goes on must know that it had settled.
		"settled": func(o *Options) { o.LearningRate, o.Patience = 1, 1 },
	} {
		t.Run(name, func(t *testing.T) {
			b := *b
			b.t = t
			if name == "gorgonia" {
				b.deps.Engine = gorgonia.New()
			}
			o := slow("h")
			o.Model, o.KeepDir = strings.ReplaceAll(name, " ", "-"), t.TempDir()
			change(&o)
			unbroken := o
			unbroken.Model = "whole"
			want := b.mustRun(unbroken)
			if all := 60 * ((want.Rows.Used*9/10 + 15) / 16); name == "settled" && int64(want.Steps) > all/2 {
				t.Fatalf("%d steps of %d: the loss did not settle", want.Steps, all)
			}

			var left *InterruptedError
			if err := b.interrupt(o, 0, "trim"); !errors.As(err, &left) || left.Run != "" || left.Unwritten != nil {
				t.Errorf("called off before anything was learned: %+v", err)
			}
			err := b.interrupt(o, 37, "")
			if !errors.As(err, &left) || left.Run == "" || left.Step == 0 && name != "second try" {
				t.Fatalf("called off: %v\n%s", err, b.log)
			}
			b.produce("h", values(1, `{"load":9,"temp":9,"flow":9,"volts":9}`)...) // what comes later is not read
			o.Resume, o.Threads, o.MaxMemory = Newest, 2, 1<<20
			was := left.Step
			if err := b.interrupt(o, 101, ""); !errors.As(err, &left) || name != "second try" && left.Step != was+101 {
				t.Fatalf("called off again: %v", err)
			}
			run := left.Run
			for _, stage := range []string{"read", "trim", "judge", "publish"} { // while the checkpoint stands, and once nothing is left to learn
				o.Resume, o.Threads = Newest, 3
				if err := b.interrupt(o, 0, stage); !errors.As(err, &left) || left.Run != run {
					t.Fatalf("called off in stage %s: %v", stage, err)
				}
				if done := stage == "judge" || stage == "publish"; done != (left.Step == want.Steps) {
					t.Errorf("called off in stage %s, the checkpoint holds step %d of %d", stage, left.Step, want.Steps)
				}
			}
			o.Resume, o.Threads = left.Run, 3
			got := b.mustRun(o)
			if model.Digest(got.Data) != model.Digest(want.Data) {
				t.Errorf("after two interruptions the model is another")
			}
			o.Resume = left.Run
			if _, err := b.run(o); !errors.Is(err, ErrNoCheckpoint) {
				t.Errorf("the checkpoints of a published model are left: %v", err)
			}
		})
	}
}

// A run goes on at another level of the processor, where it gives the bytes of an unbroken run there; the portable code rounds otherwise.
func TestResumeAtAnotherLevel(t *testing.T) {
	b := newBench(t)
	b.topic("h", 2, values(2, machine(4, 3000)...)...)
	levels := cpu.Levels()
	at := func(level string) *bench {
		b := *b
		e, err := cpu.NewAt(level)
		if err != nil {
			t.Fatal(err)
		}
		b.deps.Engine = e
		return &b
	}
	for _, level := range levels[1:] {
		o := slow("h")
		o.Model, o.KeepDir = level, t.TempDir()
		want := at(level).mustRun(o)
		var left *InterruptedError
		if err := at(levels[0]).interrupt(o, 200, ""); !errors.As(err, &left) || left.Run == "" {
			t.Fatal(err)
		}
		o.Resume = Newest
		got, err := at(level).run(o)
		switch {
		case level == "portable" && (!errors.Is(err, ErrOtherRun) || !strings.Contains(err.Error(), `engine is "cpu/portable", was "cpu"`)):
			t.Errorf("from %s to %s: %v", levels[0], level, err)
		case level != "portable" && (err != nil || model.Digest(got.Data) != model.Digest(want.Data)):
			t.Errorf("from %s to %s the model is another (%v)", levels[0], level, err)
		}
	}
}

// What cannot be gone on from is refused with the reason, and the older slot counts where the newer is torn.
func TestCheckpointsThatDoNotFit(t *testing.T) {
	b := newBench(t)
	b.topic("h", 2, values(2, machine(4, 3000)...)...)
	o := slow("h")
	o.KeepDir = t.TempDir()
	want := b.mustRun(o)
	var first, left *InterruptedError
	if err := b.interrupt(o, 30, ""); !errors.As(err, &first) {
		t.Fatal(err)
	}
	if err := b.interrupt(o, 60, ""); !errors.As(err, &left) || left.Run == first.Run {
		t.Fatal(err)
	}
	again := o
	again.Resume = Newest
	if err := b.interrupt(again, 200, ""); !errors.As(err, &left) {
		t.Fatal(err)
	}
	j := &job{Deps: b.deps, Options: o}
	found, err := j.find(t.Context())
	if err != nil || len(found) != 2 || found[0].run != left.Run || found[1].run != first.Run || len(found[0].at) != 2 {
		t.Fatalf("%d runs, %+v, %v; left %v, first %v\n%s", len(found), found[0].at, err, left, first, b.log)
	}
	_, slot, err := found[0].whole(o.Model)
	if err != nil {
		t.Fatal(err)
	}

	for what, change := range map[string]func(*Options){
		"seed is 2, was 1":           func(o *Options) { o.Seed = 2 },
		"batch_size is 17, was 16":   func(o *Options) { o.BatchSize = 17 },
		"run nowhere left no checkp": func(o *Options) { o.Resume = "nowhere" },
	} {
		other := again
		change(&other)
		var e *InputError
		if _, err := b.run(other); !errors.As(err, &e) || !strings.Contains(err.Error(), what) || e.Next == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
	none := again
	none.Model = "another"
	if r, err := b.run(none); err != nil || model.Digest(r.Data) != model.Digest(want.Data) {
		t.Errorf("no checkpoint: %v", err)
	}

	// Killed between the parts of the newer slot: the older one counts.
	b.produce(CheckpointTopic, stream.Record{Key: []byte(slotKey(o.Model, left.Run, slot) + "/0"), Value: []byte("half of the next one")})
	if found, err = j.find(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, older, err := found[0].whole(o.Model); err != nil || older == slot {
		t.Errorf("slot %d (%v), of which %d is torn", older, err, slot)
	}
	if got := b.mustRun(again); model.Digest(got.Data) != model.Digest(want.Data) {
		t.Error("from the older slot the model is another")
	}
	// The other run is still there; with both slots torn it is refused.
	for slot := range slots {
		b.produce(CheckpointTopic, stream.Record{Key: []byte(slotKey(o.Model, first.Run, slot) + "/0"), Value: []byte("torn")})
	}
	if _, err := b.run(again); err == nil || !strings.Contains(err.Error(), "torn") {
		t.Errorf("both slots torn: %v", err)
	}
}

func aCheckpoint() *checkpoint {
	w := [][]float32{{1, 2, float32(math.NaN())}, {4}}
	return &checkpoint{Model: "m", Ranges: []stream.Range{{Partition: 1, From: 2, To: 30}}, From: -1, Until: -1, Steps: 100, State: descentState{
		Rate: .003, Step: 12, Order: place{1 << 63, 5}, Untrained: 3.5, Lowest: 1. / 3, Best: 1, Sum: 1e-300, Summed: 2, Curve: []model.Epoch{{Epoch: 1, Train: .1}},
		Weights: w, Moments: kernels.Moments{Steps: 12, First: w, Second: w}, BestWeights: w,
	}}
}

func TestCheckpointRoundTrip(t *testing.T) {
	for _, c := range []*checkpoint{aCheckpoint(), {State: descentState{Untrained: math.NaN(), Lowest: math.Inf(1), Weights: [][]float32{{1}}}}, ofSeveral()} {
		data, err := c.encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeCheckpoint(data)
		if err != nil {
			t.Fatal(err)
		}
		again, err := got.encode()
		if err != nil || !slices.Equal(data, again) {
			t.Errorf("another checkpoint comes back (%v)", err)
		}
		for n := range data {
			if _, err := decodeCheckpoint(data[:n]); err == nil {
				t.Fatalf("%d of %d bytes are taken", n, len(data))
			}
		}
	}
}

func FuzzCheckpoint(f *testing.F) {
	data, err := aCheckpoint().encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	if data, err = ofSeveral().encode(); err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(checkpointMagic + "\x02\x00\x00\x00{}"))
	f.Add([]byte(checkpointMagic + "\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := decodeCheckpoint(data)
		if err != nil {
			return
		}
		again, err := c.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeCheckpoint(again); err != nil {
			t.Fatal(err)
		}
	})
}

package trainer

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/model"
)

// faultyEngine is one whose device computes wrong numbers, or fails.
type faultyEngine struct {
	*holdingEngine
	// walk and loss come before each such call: it is spoiled, or fails; nil = nothing.
	walk, loss func(t *faultyTrainer) (spoiled bool, err error)
	made       int      // trainers
	wrong      []string // how wrong numbers showed
}

type faultyTrainer struct {
	*holdingTrainer
	engine *faultyEngine
	number int // of the trainer, from 1
}

func newFaulty(room int) *faultyEngine {
	return &faultyEngine{holdingEngine: &holdingEngine{Engine: cpu.New(), room: room}}
}

func (e *faultyEngine) Trainer(p *kernels.Program, o kernels.TrainOptions) (kernels.Trainer, error) {
	t, err := e.holdingEngine.Trainer(p, o)
	e.made++
	return &faultyTrainer{holdingTrainer: t.(*holdingTrainer), engine: e, number: e.made}, err
}

func (t *faultyTrainer) Wrong(how string) error {
	if t.engine.wrong = append(t.engine.wrong, how); len(t.engine.wrong) > 1 {
		return errors.New("device 0 is given up")
	}
	return nil
}

func (t *faultyTrainer) Walk(order []int32, sizes []int, rates []float32) ([]float64, error) {
	if t.engine.walk != nil {
		if spoiled, err := t.engine.walk(t); err != nil {
			return nil, err
		} else if spoiled {
			return []float64{math.NaN()}, nil
		}
	}
	return t.holdingTrainer.Walk(order, sizes, rates)
}

func (t *faultyTrainer) Loss(rows []float32) (float64, error) {
	if t.engine.loss != nil {
		if spoiled, err := t.engine.loss(t); spoiled || err != nil {
			return 7, err
		}
	}
	return t.holdingTrainer.Loss(rows)
}

var errBroken = errors.New("cannot finish what it was given on GPU 0: CUDA error 719")

// learnsOnly fails once it has made a trainer.
type learnsOnly struct {
	kernels.Engine
	learned bool
}

func (e *learnsOnly) Trainer(p *kernels.Program, o kernels.TrainOptions) (kernels.Trainer, error) {
	e.learned = true
	return e.Engine.Trainer(p, o)
}

func (e *learnsOnly) Scorer(p *kernels.Program) (kernels.Scorer, error) {
	if e.learned {
		return nil, errBroken
	}
	return e.Engine.Scorer(p)
}

// A device that computes wrong numbers once is noticed however that shows, and the run comes to the bytes of an undisturbed one; one that
// does so again ends it, and what is kept is what was proved.
func TestDeviceComputesWrongNumbers_Case7_07(t *testing.T) {
	b := newBench(t)
	b.topic("t", 3, values(3, machine(1, 1500)...)...)
	o := quick("t")
	o.Epochs = 9
	want := b.mustRun(o)
	type spoil = func(t *faultyTrainer) (bool, error)
	spoilt := func(*faultyTrainer) (bool, error) { return true, nil }
	grow := func(by float32) spoil {
		return func(t *faultyTrainer) (bool, error) {
			m, w := t.Moments(), t.Parameters()
			w[len(w)-1][0] += by // the output's bias: the hidden layers' activation would bound it
			return false, errors.Join(t.SetParameters(w), t.SetMoments(m))
		}
	}
	for i, tt := range []struct {
		name       string
		walk, loss spoil // a walk, or the losses from one on: constants stay wrong until they are loaded anew
		shows      string
	}{
		{"a loss of a step is none", spoilt, nil, "training diverged in step"},
		{"weights leave all bounds", grow(1e36), nil, "training diverged in step"},
		{"weights are large", grow(1e4), nil, "training diverged in step"},
		{"losses are others", nil, spoilt, "its loss is 7 and the CPU's"},
	} {
		for _, again := range []bool{false, true} { // with the next trainer
			t.Run(fmt.Sprint(tt.name, ", again ", again), func(t *testing.T) {
				b := *b
				b.t = t
				e := newFaulty(1500)
				calls, of := 0, 0
				at := func(do spoil, lasts bool) spoil {
					if do == nil {
						return nil
					}
					return func(t *faultyTrainer) (bool, error) {
						if t.number != of {
							calls, of = 0, t.number
						}
						calls++
						// What goes wrong again does so elsewhere: the same divergence twice would be the data's.
						when := 5 + t.number
						if t.number == 1 && !lasts {
							when = 2 // no evaluation follows at once, but a comparison
						}
						if calls < when || calls > when && !lasts || !again && t.number > 1 {
							return false, nil
						}
						return do(t)
					}
				}
				e.walk, e.loss = at(tt.walk, false), at(tt.loss, true)
				b.deps.Engine = e
				o := o
				o.Model = fmt.Sprintf("m%d-%v", i, again)
				r, err := b.run(o)
				if len(e.wrong) == 0 || !strings.Contains(e.wrong[0], tt.shows) {
					t.Errorf("it showed: %q", e.wrong)
				}
				if !again {
					if err != nil || model.Digest(r.Data) != model.Digest(want.Data) {
						t.Errorf("another model than undisturbed: %v", err)
					}
					if len(e.wrong) != 1 || !strings.Contains(b.log.String(), "the GPU computed wrong numbers") {
						t.Errorf("wrong %q\n%s", e.wrong, b.log)
					}
					return
				}
				if err == nil || !strings.Contains(err.Error(), "device 0 is given up") || len(e.wrong) != 2 {
					t.Fatalf("wrong %q, and then: %v", e.wrong, err)
				}
				b.deps.Engine = cpu.New()
				o.Resume = Newest
				if r, err := b.run(o); err != nil || model.Digest(r.Data) != model.Digest(want.Data) {
					t.Errorf("what was kept gives another model (%v)", err)
				}
			})
		}
	}
}

// However seldom the device is compared, no model comes of numbers that were not, and no checkpoint is written with them.
func TestNothingLeavesUnproved_Case7_07(t *testing.T) {
	b := newBench(t)
	b.topic("t", 3, values(3, machine(1, 1500)...)...)
	o := quick("t")
	o.Epochs = 9
	want := b.mustRun(o)
	found := map[time.Duration]int{} // checkpoint interval → step after which wrong losses were seen
	for _, every := range []time.Duration{time.Hour, time.Nanosecond} {
		e := newFaulty(1500)
		e.selfTest = time.Hour
		calls := 0
		e.loss = func(t *faultyTrainer) (bool, error) {
			calls++
			return t.number == 1 && calls > 4, nil
		}
		b.deps.Engine = e
		o := o
		o.Model, o.Checkpoint = "every-"+every.String(), every
		r, err := b.run(o)
		if err != nil || len(e.wrong) != 1 || model.Digest(r.Data) != model.Digest(want.Data) {
			t.Fatalf("checkpoints every %v: wrong %q, another model than undisturbed: %v", every, e.wrong, err)
		}
		step := 0
		if _, err := fmt.Sscanf(e.wrong[0], "after step %d", &step); err != nil {
			t.Fatal(err)
		}
		found[every] = step
	}
	if found[time.Nanosecond] >= found[time.Hour] {
		t.Errorf("wrong losses were seen after step %d at the end, and after step %d before a checkpoint", found[time.Hour], found[time.Nanosecond])
	}
}

// There may be no device to go back to: the engine falls back to the CPU, which does not go on with half a run, or the rows cannot be given
// to it again. What is kept is what was proved.
func TestNoDeviceToGoBackTo_Case7_07(t *testing.T) {
	b := newBench(t)
	b.topic("t", 3, values(3, machine(1, 1500)...)...)
	o := quick("t")
	o.Epochs = 9
	want := b.mustRun(o)
	for name, text := range map[string]string{"fallen": "no room any more", "unfilled": errBroken.Error()} {
		e := newFaulty(1500)
		calls := 0
		e.loss = func(t *faultyTrainer) (bool, error) {
			calls++
			return calls > 8, nil
		}
		b.deps.Engine = &onceOnly{e, name == "fallen"}
		o := o
		o.Model = name
		_, err := b.run(o)
		var failed *DeviceError
		if !errors.As(err, &failed) || !strings.Contains(err.Error(), text) || failed.Run == "" || failed.Step == 0 {
			t.Fatalf("%s: it ends with: %v", name, err)
		}
		b.deps.Engine = cpu.New()
		o.Resume = Newest
		if r, err := b.run(o); err != nil || model.Digest(r.Data) != model.Digest(want.Data) {
			t.Errorf("%s: what was kept gives another model (%v)", name, err)
		}
	}
}

// onceOnly has a device for one trainer.
type onceOnly struct {
	*faultyEngine
	fallback bool // to the CPU; else the next has a device that takes no rows
}

func (e *onceOnly) Trainer(p *kernels.Program, o kernels.TrainOptions) (kernels.Trainer, error) {
	t, err := e.faultyEngine.Trainer(p, o)
	switch {
	case e.made == 1:
		return t, err
	case e.fallback:
		return t.(*faultyTrainer).Trainer, err
	}
	return fullTrainer{t.(*faultyTrainer)}, err
}

type fullTrainer struct{ *faultyTrainer }

func (fullTrainer) Put(int, []float32) error { return errBroken }

// A device that fails in the middle, in a step or in an evaluation, takes nothing along: a checkpoint has what it had come to before, the
// error says so, and another run goes on to the same bytes.
func TestDeviceFailsInTheMiddle_Case7_06(t *testing.T) {
	b := newBench(t)
	b.topic("t", 3, values(3, machine(1, 1500)...)...)
	o := quick("t")
	o.Epochs = 9
	want := b.mustRun(o)
	steps := map[int]bool{}
	for _, in := range []string{"walk", "loss"} {
		for _, call := range []int{1, 9, 24} { // of some 30 walks, and 60 losses, every other in an evaluation
			e := newFaulty(1500)
			calls := 0
			fail := func(*faultyTrainer) (bool, error) {
				if calls++; calls >= call {
					return false, errBroken
				}
				return false, nil
			}
			if in == "walk" {
				e.walk = fail
			} else {
				e.loss = fail
			}
			b.deps.Engine = e
			o := o
			o.Model = fmt.Sprint(in, call)
			_, err := b.run(o)
			var failed *DeviceError
			if !errors.Is(err, errBroken) || !errors.As(err, &failed) {
				t.Fatalf("%s %d: it ends with: %v", in, call, err)
			}
			if failed.Run == "" {
				if call > 1 || !strings.HasSuffix(err.Error(), "no checkpoint was written") {
					t.Errorf("%s %d: no word of a checkpoint: %v", in, call, err)
				}
				continue
			}
			if failed.Unwritten != nil || !strings.HasSuffix(err.Error(), fmt.Sprintf("; a checkpoint holds step %d of %d", failed.Step, failed.Steps)) || !strings.Contains(failed.Hint(), "--resume") {
				t.Errorf("%s %d: %+v: %v, %s", in, call, failed, err, failed.Hint())
			}
			steps[failed.Step] = true
			b.deps.Engine = newFaulty(1499)
			o.Resume = Newest
			if r, err := b.run(o); err != nil || model.Digest(r.Data) != model.Digest(want.Data) {
				t.Errorf("%s %d: gone on with, it gives another model (%v)", in, call, err)
			}
		}
	}
	if len(steps) < 3 {
		t.Errorf("it failed after steps %v only", steps)
	}
}

// Learned to the end, a network is not lost by what fails afterwards.
func TestDeviceFailsAfterTraining_Case7_06(t *testing.T) {
	b := newBench(t)
	b.topic("t", 1, values(1, machine(1, 500)...)...)
	o := quick("t")
	want := b.mustRun(o)
	o.Model = "n"
	b.deps.Engine = &learnsOnly{Engine: cpu.New()}
	if _, err := b.run(o); !errors.Is(err, errBroken) {
		t.Fatalf("it ends with: %v", err)
	}
	if !strings.Contains(b.log.String(), "what it had learned before is in its last checkpoint") {
		t.Errorf("no word of a checkpoint:\n%s", b.log)
	}
	b.deps.Engine = cpu.New()
	o.Resume = Newest
	if r, err := b.run(o); err != nil || model.Digest(r.Data) != model.Digest(want.Data) || !strings.Contains(b.log.String(), "going on from a checkpoint") {
		t.Errorf("gone on with, it gives another model (%v)\n%s", err, b.log)
	}
}

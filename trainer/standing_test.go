package trainer

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/model"
)

// Several networks, called off in the middle of the fit, once and again, and gone on with on other threads: the model and the table of
// an unbroken run. Also where some diverge and begin again, where some have ended, and where others are still to come.
func TestResumedCandidatesGiveTheSameBytes_Case4_12(t *testing.T) {
	b := newBench(t)
	b.topic("h", 3, values(3, machine(4, 1500)...)...)
	// Called off by the so-manieth part of all steps, each time from where the last ended. A process's stretches grow by doubling from one
	// step, so those that are under way when it is called off at most double them: none comes to the end, however fast the machine.
	early := []float64{.1, .2, .1}
	for name, change := range map[string]func(*Options){
		"seed": func(o *Options) {},
		// One diverges at once, and begins again when the others have ended.
		"diverged": func(o *Options) { o.Vary, o.Optimizer, o.LearningRate = VaryRate, "sgd", 2 },
		"width":    func(o *Options) { o.Vary, o.Layers = VaryWidth, nil },
		// The first has settled long before the others.
		"settled": func(o *Options) { o.Vary, o.LearningRate, o.Patience = VaryRate, 1, 1 },
		// Two at once, and then one.
		"waves": func(o *Options) { o.Layers, o.MaxMemory, o.Epochs, o.BatchSize = []int{7000, 1, 7000}, 1<<20, 3, 64 },
	} {
		t.Run(name, func(t *testing.T) {
			b := *b
			b.t = t
			o := slow("h")
			o.Epochs, o.Candidates, o.Model, o.KeepDir = 12, 3, name, t.TempDir()
			change(&o)
			unbroken := o
			unbroken.Model, unbroken.Threads = "whole", 2
			b.log.Reset()
			want := b.mustRun(unbroken)
			if together, _ := (&job{Options: o}).together(want.Model.Program.Width); name == "waves" && together != 2 {
				t.Fatalf("%d networks at once", together)
			}
			if n := strings.Count(b.log.String(), "training diverged"); n > 2 || (n > 0) != (name == "diverged") {
				t.Fatalf("%d networks diverged", n)
			}
			all := 0
			for _, k := range want.Candidates.Tried {
				all += k.Steps
			}
			var left *InterruptedError
			run := ""
			parts := early
			if name == "waves" {
				parts = []float64{.1, .3, .29} // the last within the second, which is a third of all
			}
			for i, part := range parts {
				if err := b.interrupt(o, int(part*float64(all)), ""); !errors.As(err, &left) || left.Run == "" || left.Unwritten != nil || i > 0 && left.Run != run {
					t.Fatalf("called off: %v", err)
				}
				run, o.Resume, o.Threads, o.MaxMemory = left.Run, Newest, 1+i%2, 1<<30 // which would hold all at once
			}
			if err := b.interrupt(o, 0, "judge"); !errors.As(err, &left) || left.Run != run {
				t.Fatalf("called off: %v", err)
			}
			o.Threads = 3
			got := b.mustRun(o)
			if !bytes.Equal(got.Data, want.Data) {
				t.Errorf("after the interruptions the model is another")
			}
			for k, c := range got.Candidates.Tried {
				w := want.Candidates.Tried[k]
				if c.Seconds, w.Seconds = 0, 0; c != w {
					t.Errorf("after the interruptions candidate %d is\n%+v, and in one go\n%+v", k+1, c, w)
				}
			}
			j := &job{Deps: b.deps, Options: o}
			if found, err := j.find(t.Context()); err != nil || len(found) > 0 {
				t.Errorf("%d runs with checkpoints are left (%v)", len(found), err)
			}
		})
	}
}

// A checkpoint of several networks is none of another number, and the other way round.
func TestCandidatesGoOnFromTheirOwnCheckpoint(t *testing.T) {
	b := newBench(t)
	b.topic("h", 2, values(2, machine(4, 1500)...)...)
	for _, c := range []struct {
		first, then int
		vary, said  string
	}{
		{1, 3, VarySeed, "candidates is 3, was 0"}, {3, 1, VarySeed, "candidates is 0, was 3"}, {3, 3, VaryRate, `vary is "rate", was "seed"`},
	} {
		o := slow("h")
		o.KeepDir, o.Candidates = t.TempDir(), c.first
		var left *InterruptedError
		if err := b.interrupt(o, 100, ""); !errors.As(err, &left) || left.Run == "" {
			t.Fatal(err)
		}
		o.Candidates, o.Vary, o.Resume = c.then, c.vary, left.Run
		var e *InputError
		if _, err := b.run(o); !errors.As(err, &e) || !errors.Is(err, ErrOtherRun) || !strings.Contains(err.Error(), c.said) {
			t.Errorf("%v; want %s", err, c.said)
		}
	}
}

// What a damaged or foreign checkpoint may say of several networks.
func TestStandingsThatDoNotFit(t *testing.T) {
	all := []varied{{name: "seed 1"}, {name: "seed 2"}, {name: "seed 3"}, {name: "seed 4"}}
	for what, change := range map[string]func(*standing){
		"":                          func(*standing) {},
		"step 101 of":               func(s *standing) { s.Step = 101 },
		"of 0 networks":             func(s *standing) { s.Networks = nil },
		"from number 0 on":          func(s *standing) { s.First = -1 },
		"from number 4 on, 1":       func(s *standing) { s.First = 3 },
		"4 networks from number 2":  func(s *standing) { s.Networks = append(s.Networks, s.Networks...) },
		"candidate 1 is seed 1":     func(s *standing) { s.Tried[0].Varies = "seed 7" },
		"number 2 of 1 is the best": func(s *standing) { s.BestNumber = 1 },
		"step -1 of try 1":          func(s *standing) { s.Networks[1].Step = -1 },
		"of try 5":                  func(s *standing) { s.Networks[0].Try = retries + 1 },
	} {
		s := ofSeveral().Contest
		change(s)
		if err := s.check(all, 100); (err == nil) != (what == "") || err != nil && !strings.Contains(err.Error(), what) {
			t.Errorf("%q: %v", what, err)
		}
	}
	if (*standing)(nil).check(all, 100) == nil {
		t.Error("the checkpoint of one network is taken")
	}
}

// ofSeveral is a checkpoint of the second and third candidate, of which one has diverged, after a first one that is the best.
func ofSeveral() *checkpoint {
	w := [][]float32{{1, 2, float32(math.NaN())}, {4}}
	return &checkpoint{Model: "m", From: -1, Until: -1, Steps: 100, State: descentState{Step: 12, Lowest: math.Inf(1)}, Contest: &standing{
		First: 1, Step: 12, Order: place{1 << 63, 5},
		Networks: []networkStanding{
			{descentState: descentState{Rate: .1, Step: 12, Untrained: 3, Lowest: 1. / 3, Best: 1, Weights: w, Moments: kernels.Moments{Steps: 12, First: w, Second: w}, BestWeights: w}, On: true},
			{descentState: descentState{Rate: .1, Step: 7, Untrained: math.Inf(1), Lowest: math.Inf(1)}, Diverged: &divergence{"loss NaN", 8}, Seconds: .5},
		},
		Tried: []Candidate{{Varies: "seed 1", ValidationLoss: .5, Criterion: .5, Steps: 100}},
		Best:  &descentState{Step: 100, Untrained: 3, Lowest: .5, Best: 2, Curve: []model.Epoch{{Epoch: 1, Train: .1}}, BestWeights: w},
	}}
}

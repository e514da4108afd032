// Package compliance holds every engine to the same results: to float64 arithmetic by the definitions, to
// finite differences, and to Gorgonia's automatic differentiation.
package compliance

import (
	"fmt"
	"math"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
)

var activations = kernels.Activations()

// Run is the whole suite.
func Run(t *testing.T, e kernels.Engine) {
	Scoring(t, e)
	Training(t, e)
}

// Scoring is what Scorers are held to.
func Scoring(t *testing.T, e kernels.Engine) {
	t.Run("Supports", func(t *testing.T) { supports(t, e) })
	t.Run("Maps", func(t *testing.T) { maps(t, e) })
	t.Run("Scores", func(t *testing.T) { scores(t, e) })
	t.Run("Batches", func(t *testing.T) { batches(t, e) })
	t.Run("Guards", func(t *testing.T) { guards(t, e) })
	t.Run("NotFinite", func(t *testing.T) { notFinite(t, e) })
	t.Run("ZeroNorm", func(t *testing.T) { zeroNorm(t, e) })
	t.Run("OnPrototype", func(t *testing.T) { onPrototype(t, e) })
	t.Run("Lengths", func(t *testing.T) { lengths(t, e) })
	t.Run("Copies", func(t *testing.T) { copiesConstants(t, e) })
	t.Run("Concurrent", func(t *testing.T) { concurrent(t, e) })
}

// Training is what Trainers are held to.
func Training(t *testing.T, e kernels.Engine) {
	t.Run("TrainingGuards", func(t *testing.T) { trainingGuards(t, e) })
	t.Run("Gradients", func(t *testing.T) { gradients(t, e) })
	t.Run("Huber", func(t *testing.T) { huber(t, e) })
	t.Run("Adam", func(t *testing.T) { adam(t, e) })
	t.Run("SGD", func(t *testing.T) { sgd(t, e) })
	t.Run("Learns", func(t *testing.T) { learns(t, e) })
	t.Run("Threads", func(t *testing.T) { threads(t, e) })
	t.Run("MadeAtOnce", func(t *testing.T) { madeAtOnce(t, e) })
	t.Run("Cohort", func(t *testing.T) { cohort(t, e) })
	t.Run("NaNLoss", func(t *testing.T) { nanLoss(t, e) })
	t.Run("Parameters", func(t *testing.T) { parameters(t, e) })
	t.Run("Moments", func(t *testing.T) { moments(t, e) })
	t.Run("Refusals", func(t *testing.T) { refusals(t, e) })
}

// nets are the layer shapes of the gradient test: each width from 1 to 33, which passes every remainder of
// a tile of 4, 8, 16 or 32, then deeper ones.
func nets(act kernels.Activation) []*net {
	var all []*net
	for w := 1; w <= 33; w++ {
		all = append(all, autoencoder(w, []int{w/2 + 1}, act))
	}
	for _, s := range []struct {
		width  int
		layers []int
	}{
		{1, []int{1, 1}}, {2, []int{33}}, {5, []int{3, 2, 3}}, {8, []int{4, 4}}, {9, []int{17, 3}},
		{18, []int{14, 7, 7}}, {30, []int{14, 7, 14}}, {12, []int{8, 8, 4, 8, 8}},
	} {
		all = append(all, autoencoder(s.width, s.layers, act))
	}
	return all
}

func supports(t *testing.T, e kernels.Engine) {
	for _, s := range append(branching().p.Steps, nearest(2, 1, 1).p.Steps...) {
		if err := e.Supports(s); err != nil {
			t.Errorf("%s: %v", s.Kind(), err)
		}
	}
	if err := e.Supports(unknown{}); err == nil {
		t.Error("an unknown step is supported")
	}
	if e.Name() == "" || e.Level() == "" {
		t.Errorf("name %q, level %q", e.Name(), e.Level())
	}
}

type unknown struct{}

func (unknown) Reads() []kernels.Value { return nil }
func (unknown) Kind() string           { return "unknown" }

// Tolerances. float32 carries 6e-8 in each operation; sums of up to a hundred terms of either sign lose
// about ten times that of the largest partial sum, and layers pass it on. 2e-5 is what FORMATS allows for a
// score, and leaves an order of magnitude. Sums are compared with the largest of their row, or gradient,
// since entries near zero are differences of larger terms.
const tolerance = 2e-5

func largest(v []float64) float64 {
	most := 0.0
	for _, x := range v {
		most = max(most, math.Abs(x))
	}
	return most
}

// near compares a row (or a gradient) with the oracle's, relative to its largest entry.
func near(t *testing.T, what string, got []float32, want []float64, within float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	scale := within*largest(want) + 1e-7
	for i := range want {
		if d := math.Abs(float64(got[i]) - want[i]); !(d <= scale) {
			t.Fatalf("%s: entry %d is %v, want %v (difference %.3g, allowed %.3g)", what, i, got[i], want[i], d, scale)
		}
	}
}

func scorer(t *testing.T, e kernels.Engine, p *kernels.Program) kernels.Scorer {
	t.Helper()
	s, err := e.Scorer(p)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func trainer(t *testing.T, e kernels.Engine, n *net, o kernels.TrainOptions) kernels.Trainer {
	t.Helper()
	o.Prediction, o.Target = n.prediction, n.target
	tr, err := e.Trainer(n.p, o)
	if err != nil {
		t.Fatalf("%s: %v", n.name, err)
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Errorf("%s: close: %v", n.name, err)
		}
	})
	return tr
}

// all asks for every output.
func all(t *testing.T, s kernels.Scorer, rows []float32, width int) kernels.Output {
	t.Helper()
	n := len(rows) / width
	out := kernels.Output{
		Score:          make([]float32, n),
		Reconstruction: make([]float32, n*width),
		Contributions:  make([]float32, n*width),
	}
	if err := s.Score(rows, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// same tells whether two slices have the same bits, NaN included.
func same(a, b []float32) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			return false
		}
	}
	return true
}

func sameAll(a, b [][]float32) error {
	if len(a) != len(b) {
		return fmt.Errorf("%d slices against %d", len(a), len(b))
	}
	for i := range a {
		if !same(a[i], b[i]) {
			return fmt.Errorf("slice %d differs", i)
		}
	}
	return nil
}

package gorgonia

import (
	"math"
	"math/rand/v2"
	"testing"

	g "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// TestAdamIsGorgonias: step for step the bytes that its own solver makes, gradients of zero among them.
func TestAdamIsGorgonias(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	dense := func(values []float32) *tensor.Dense {
		return tensor.New(tensor.WithShape(len(values)/4, 4), tensor.WithBacking(values))
	}
	draw := func(n int) []float32 {
		out := make([]float32, n)
		for i := range out {
			out[i] = float32(random.NormFloat64() * math.Pow(10, float64(random.IntN(9)-6)))
		}
		out[0] = 0
		return out
	}
	clone := func(v []float32) []float32 { return append([]float32(nil), v...) }
	var ours, theirs []*tensor.Dense
	for _, n := range []int{4, 32, 400} {
		w := draw(n)
		ours, theirs = append(ours, dense(w)), append(theirs, dense(clone(w)))
	}
	mine, definition := &adam{}, g.NewAdamSolver()
	for step := range 300 {
		var a, b []g.ValueGrad
		for i := range ours {
			slopes := draw(len(ours[i].Data().([]float32)))
			a, b = append(a, parameter{ours[i], dense(slopes)}), append(b, parameter{theirs[i], dense(clone(slopes))})
		}
		rate := float32(.003) / float32(1+step)
		mine.setRate(rate)
		g.WithLearnRate(float64(rate))(definition)
		if err := mine.Step(a); err != nil {
			t.Fatal(err)
		}
		if err := definition.Step(b); err != nil {
			t.Fatal(err)
		}
		for i := range ours {
			for k, w := range ours[i].Data().([]float32) {
				if want := theirs[i].Data().([]float32)[k]; math.Float32bits(w) != math.Float32bits(want) {
					t.Fatalf("step %d, parameter %d[%d]: %v, Gorgonia's solver has %v", step+1, i, k, w, want)
				}
			}
		}
	}
}

package gorgonia

import (
	"fmt"
	"math"

	"github.com/lapwing-stream/lapwing/kernels"
	g "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// vanilla is plain descent.
type vanilla struct{ *g.VanillaSolver }

func (v vanilla) setRate(r float32)        { g.WithLearnRate(float64(r))(v.VanillaSolver) }
func (vanilla) moments() kernels.Moments   { return kernels.Moments{} }
func (vanilla) setMoments(kernels.Moments) {}

// adam makes the very steps of Gorgonia's AdamSolver, to the byte (a test compares them). That one keeps its moments to
// itself, and a run that goes on from a checkpoint must set them.
type adam struct {
	rate          float32
	steps         int
	first, second [][]float32
}

func (a *adam) setRate(r float32) { a.rate = r }

func (a *adam) moments() kernels.Moments {
	return kernels.Moments{Steps: a.steps, First: a.first, Second: a.second}
}

func (a *adam) setMoments(m kernels.Moments) { a.steps, a.first, a.second = m.Steps, m.First, m.Second }

// Step is the formula with each operation rounded by itself: the conversions keep compilers from fusing two.
func (a *adam) Step(model []g.ValueGrad) error {
	const beta1, beta2, epsilon = float32(.9), float32(.999), float32(1e-8)
	if a.first == nil {
		a.first, a.second = make([][]float32, len(model)), make([][]float32, len(model))
	}
	a.steps++
	correct1 := 1 / float32(1-math.Pow(.9, float64(a.steps)))
	correct2 := 1 / float32(1-math.Pow(.999, float64(a.steps)))
	for i, p := range model {
		gradient, err := p.Grad()
		if err != nil {
			return err
		}
		w, fits := p.Value().(*tensor.Dense)
		d, also := gradient.(*tensor.Dense)
		if !fits || !also {
			return fmt.Errorf("adam: a parameter is a %T with a %T as gradient", p.Value(), gradient)
		}
		weights, slopes := w.Data().([]float32), d.Data().([]float32)
		if a.first[i] == nil {
			a.first[i], a.second[i] = make([]float32, len(weights)), make([]float32, len(weights))
		}
		m, v := a.first[i], a.second[i]
		for k, s := range slopes {
			m[k] = float32(s*(1-beta1)) + float32(m[k]*beta1)
			v[k] = float32(float32(s*s)*(1-beta2)) + float32(v[k]*beta2)
			length := float32(math.Sqrt(float64(float32(v[k]*correct2)))) + epsilon
			weights[k] += float32(float32(m[k]*correct1)*-a.rate) / length
		}
	}
	return nil
}

// Package gorgonia is the engine that defines what the others must compute: it writes a Program down as a
// Gorgonia graph, and trains with Gorgonia's automatic differentiation and its Adam (whose constants and
// bias correction are those of kernels.TrainOptions). It is slow, single-file and easy to believe.
//
// Map is evaluated outside the graph, by kernels.Column, since Gorgonia has no clip, no selection and no
// piecewise-linear function. So a Map may stand before the graph (it reads the row or another such Map) or
// after it (only Maps read it), not between two steps of the graph. Nearest, a selection too, and its Split
// are evaluated before the graph only.
package gorgonia

import (
	"fmt"

	"github.com/lapwing-stream/lapwing/kernels"
)

// New returns the engine.
func New() kernels.Engine { return engine{} }

type engine struct{}

func (engine) Name() string  { return "gorgonia" }
func (engine) Level() string { return "portable" }

func (engine) Supports(s kernels.Step) error {
	switch s.(type) {
	case *kernels.Map, *kernels.Gemm, *kernels.Diff, *kernels.Norm, *kernels.Nearest, *kernels.Split, *kernels.Join:
		return nil
	case nil:
		return fmt.Errorf("engine gorgonia: the step is nil")
	}
	return fmt.Errorf("engine gorgonia does not support the step %q", s.Kind())
}

func (engine) Scorer(p *kernels.Program) (kernels.Scorer, error) { return newScorer(p) }

func (engine) Trainer(p *kernels.Program, o kernels.TrainOptions) (kernels.Trainer, error) {
	return newTrainer(p, o)
}

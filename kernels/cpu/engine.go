// Package cpu is the engine for processors: at the level of their vector instructions in C, at level "portable" in
// plain Go on every platform.
//
// In Go, a Program becomes a list of ops over a block of rows that stays in the first-level cache. Rows are
// evaluated one by one within each op, in an order that depends on nothing but the program, so a row's
// result is the same alone or in any batch. Training runs the same ops forward on shards of the batch whose
// number and bounds depend only on its size, and adds their gradients in order: any number of threads
// gives the same bytes.
package cpu

import (
	"fmt"

	"github.com/lapwing-stream/lapwing/kernels"
)

// engine computes at one level.
type engine struct{ level level }

func (engine) Name() string    { return "cpu" }
func (e engine) Level() string { return e.level.String() }

func (engine) Supports(s kernels.Step) error {
	switch s.(type) {
	case *kernels.Map, *kernels.Gemm, *kernels.Diff, *kernels.Norm, *kernels.Nearest, *kernels.Split, *kernels.Join:
		return nil
	case nil:
		return fmt.Errorf("engine cpu: the step is nil")
	}
	return fmt.Errorf("engine cpu does not support the step %q", s.Kind())
}

func (e engine) Scorer(p *kernels.Program) (kernels.Scorer, error) {
	if e.level == portableLevel {
		return newScorer(p)
	}
	return newVectorScorer(e.level, p)
}

func (e engine) Trainer(p *kernels.Program, o kernels.TrainOptions) (kernels.Trainer, error) {
	return newTrainer(e.level, p, o)
}

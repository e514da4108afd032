package kernels

import (
	"errors"
	"fmt"
)

// Engine evaluates and trains Programs on one device.
type Engine interface {
	Name() string          // "cpu", "gorgonia", "cuda": what --engine takes
	Level() string         // instruction set or device: "portable"
	Supports(s Step) error // nil, or an error that names the step's kind
	Scorer(p *Program) (Scorer, error)
	Trainer(p *Program, o TrainOptions) (Trainer, error)
}

// Output says which results are wanted: a nil slice is not computed. Lengths for n rows of width D:
// Score n, Reconstruction n·D, Contributions n·D, row-major.
type Output struct {
	Score, Reconstruction, Contributions []float32
}

// Fit reports every length that does not fit: rows values in rows of the given width.
func (o Output) Fit(rows, width int) error {
	if rows%width != 0 {
		return fmt.Errorf("%d values are no whole number of rows of %d", rows, width)
	}
	n := rows / width
	var faults []error
	for _, s := range []struct {
		name   string
		got    []float32
		wanted int
	}{
		{"score", o.Score, n},
		{"reconstruction", o.Reconstruction, n * width},
		{"contributions", o.Contributions, n * width},
	} {
		if s.got != nil && len(s.got) != s.wanted {
			faults = append(faults, fmt.Errorf("%s has room for %d values; %d rows of %d need %d", s.name, len(s.got), n, width, s.wanted))
		}
	}
	return errors.Join(faults...)
}

// Scorer evaluates one Program, whose constants it has copied. It is safe for concurrent use.
type Scorer interface {
	// Score evaluates rows (row-major, n·Width). A row's result does not depend on the rows beside it.
	// On a processor it fails only if lengths do not fit; on a device of its own also where that fails, and then
	// nothing of out may be used. Non-finite results are returned as they are.
	Score(rows []float32, out Output) error
}

// Trainer holds weights and what the optimizer remembers: Adam its moments and the number of steps. It is for one
// goroutine.
type Trainer interface {
	// Step makes one step of the optimizer on a minibatch of raw rows and returns the loss before the step.
	// A loss that is NaN or infinite is returned without touching the weights.
	Step(rows []float32, rate float32) (loss float64, err error)
	// Loss is the mean loss over rows, any number of them, without a step.
	Loss(rows []float32) (float64, error)
	// Gradients returns the loss and d loss / d parameter, in the order of Parameters.
	Gradients(rows []float32) (float64, [][]float32, error)
	// Parameters copies W and B of each trained Gemm, in step order: W0, B0, W1, B1, …
	Parameters() [][]float32
	// SetParameters overwrites them (shapes as Parameters) and makes the optimizer forget.
	SetParameters([][]float32) error
	// Moments copies what the optimizer remembers. A trainer of the same engine and options whose parameters and then
	// moments are set to those of another goes on as that one would, to the byte.
	Moments() Moments
	// SetMoments overwrites them. They must fit as Moments.Fits says.
	SetMoments(Moments) error
	Close() error
}

// Moments are what Adam remembers from step to step; plain descent remembers nothing, and its Moments are zero.
type Moments struct {
	Steps         int         // made so far
	First, Second [][]float32 // means of the gradient and of its square, in the order of Parameters; nil before the first step
}

// Fits tells whether a trainer of such parameters can take the moments.
func (m Moments) Fits(o Optimizer, parameters [][]float32) error {
	switch {
	case m.Steps < 0:
		return fmt.Errorf("moments after %d steps", m.Steps)
	case m.First == nil && m.Second == nil && m.Steps == 0:
		return nil
	case o != Adam:
		return fmt.Errorf("moments are given, and %v remembers nothing", o)
	}
	for _, of := range [][][]float32{m.First, m.Second} {
		if err := SameShape(parameters, of); err != nil {
			return fmt.Errorf("moments: %w", err)
		}
	}
	return nil
}

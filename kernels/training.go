package kernels

import (
	"errors"
	"fmt"
	"math"
)

// Loss is what training minimises, over the residuals e = prediction − target.
type Loss uint8

const (
	MSE   Loss = iota // the mean over rows and columns of e²
	Huber             // the mean of e²/2 where |e| <= Delta, and of Delta·(|e| − Delta/2) beyond
)

// Optimizer turns gradients g into a step of the weights w at a rate.
type Optimizer uint8

const (
	Adam Optimizer = iota // beta1 0.9, beta2 0.999, epsilon 1e-8, bias-corrected
	SGD                   // w − rate·g, without momentum
)

// TrainOptions say what to train, every Gemm step that Prediction depends on, and how. Between such a Gemm and the
// prediction only Gemm, Diff and Join may stand: the other steps have no gradient.
type TrainOptions struct {
	Prediction Value     // what the network makes, such as the last Gemm
	Target     Value     // what it should equal, such as the Map; constant as far as gradients go
	Loss       Loss      // default MSE
	Delta      float32   // where Huber turns from a square into a line, in units of the target; default 1
	Optimizer  Optimizer // default Adam
	MaxBatch   int       // rows; default 256
	Threads    int       // default 1; the result does not depend on it
}

// Resolve gives the options with their defaults, or every reason why the program cannot be trained so. A fault of
// the program is one; the others are not looked for then.
func (o TrainOptions) Resolve(p *Program) (TrainOptions, error) {
	if o.Delta == 0 {
		o.Delta = 1
	}
	if o.MaxBatch == 0 {
		o.MaxBatch = 256
	}
	if o.Threads == 0 {
		o.Threads = 1
	}
	if err := p.Validate(); err != nil {
		return o, err
	}
	var faults []error
	report := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if o.MaxBatch < 0 {
		report("MaxBatch is %d; 1 or more rows are needed", o.MaxBatch)
	}
	if o.Threads < 0 {
		report("Threads is %d; 1 or more are needed", o.Threads)
	}
	if int(o.Loss) >= len(lossNames) {
		report("unknown %v", o.Loss)
	}
	if !(o.Delta > 0) || math.IsInf(float64(o.Delta), 1) {
		report("Delta is %v; it must be above 0 and finite", o.Delta)
	}
	if int(o.Optimizer) >= len(optimizerNames) {
		report("unknown %v", o.Optimizer)
	}
	last := Value(len(p.Steps))
	for _, v := range []Value{o.Prediction, o.Target} {
		if v < 0 || v > last {
			report("value %d does not exist; the last is %d", v, last)
			return o, errors.Join(faults...)
		}
	}
	if a, b := p.WidthOf(o.Prediction), p.WidthOf(o.Target); a != b {
		report("the prediction has width %d, the target %d", a, b)
	}
	if len(p.Gemms(o.Prediction)) == 0 {
		report("value %d, the prediction, depends on no gemm", o.Prediction)
	}
	learns := p.Learns()
	for i, need := range p.Needed(o.Prediction)[1:] {
		if !need || !learns[i+1] {
			continue
		}
		switch s := p.Steps[i].(type) {
		case *Gemm, *Diff, *Join:
		default:
			report("step %d (%s) stands between a gemm and the prediction, and has no gradient", i, s.Kind())
		}
	}
	return o, errors.Join(faults...)
}

// Learns marks, by value, what changes when weights do.
func (p *Program) Learns() []bool {
	learns := make([]bool, len(p.Steps)+1)
	for i, s := range p.Steps {
		_, learns[i+1] = s.(*Gemm)
		for _, v := range s.Reads() {
			learns[i+1] = learns[i+1] || learns[v]
		}
	}
	return learns
}

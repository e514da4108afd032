// Package kernels evaluates, differentiates and steps row-wise programs.
//
// A Program is a short list of steps over rows of float32; an Engine turns it into a Scorer or a Trainer
// for one device. The package knows neither Kafka nor features nor files. Engines live below it
// (kernels/cpu, kernels/gorgonia) and are held to one compliance suite (kernels/compliance).
package kernels

// Value names a row vector while a Program runs: Input is the raw row, and i > 0 is what Steps[i-1] makes.
type Value int

// Input is the raw row, Width columns, NaN where a column is missing.
const Input Value = 0

// Program is a row-wise computation: each step reads values made before it and makes one new value.
// Programs are static single assignment; step i may only read values < i+1.
type Program struct {
	Width int    // columns of the raw row
	Steps []Step // in order of evaluation

	Score          Value // width 1
	Reconstruction Value // width Width, raw units
	Contributions  Value // width Width, each >= 0, summing to the score
}

// Step is one of *Map, *Gemm, *Diff, *Norm, *Nearest, *Split, *Join (pointers, so that a type switch has one case for
// each and a trained Gemm can be written back). The set is closed: a new step is added here,
// to every engine (or declined by Supports), to the ONNX codec and to the compliance suite.
type Step interface {
	Reads() []Value // operands, in order
	Kind() string   // "map", "gemm", …: the name used in errors
}

// Map applies one strictly increasing function to each column.
//
// Forward (Inverse false): NaN becomes Impute; if Log, x becomes sign(x)·ln(1+|x|); x is clipped to [Lo, Hi];
// then the piecewise-linear function (see Column) is applied.
// Inverse (Inverse true): the piecewise-linear function is applied first; then, if Log, y becomes
// sign(y)·(exp(|y|)−1). Impute, Lo and Hi are not used.
// ONNX has neither log1p nor expm1: 1+|x| and exp(|y|) are rounded to float32 before the next operation,
// so that engines agree with ONNX Runtime where |x| is small.
type Map struct {
	In      Value
	Columns []Column // one for each column of In
	Inverse bool
}

// Column is the function of one column: knots (X[k], Y[k]), linear between, slope Before left of the
// first knot and After right of the last. 1 to 64 knots; X and Y strictly increasing; slopes > 0.
type Column struct {
	Impute        float32 // raw units, finite
	Log           bool    // symmetric log1p (forward) or expm1 (inverse)
	Lo, Hi        float32 // clip after Log, before the knots; may be infinite
	X, Y          []float32
	Before, After float32
}

// Gemm is y = act(W·x + b). W is row-major, Out rows of the width of In; B has Out entries.
type Gemm struct {
	In   Value
	Out  int
	W, B []float32
	Act  Activation
}

// Diff is a − b, columnwise.
type Diff struct{ A, B Value }

// Norm is √Σ xⱼ², width 1.
type Norm struct{ In Value }

// Nearest is the mean, over groups of prototypes, of the Euclidean distance to the group's nearest one, width 1.
// Rows holds Groups × K prototypes of In's width, row-major, those of one group together; K follows from the
// lengths.
//
// The nearest of a group is the first with the least ‖c‖²/2 − x·c, in float32 and with HalfSquares: the same
// order as that of the distances, by one matrix product. Its distance is √Σ(xⱼ−cⱼ)², from the differences:
// the expanded square would cancel where x is close to a prototype.
type Nearest struct {
	In     Value
	Groups int
	Rows   []float32
}

// Split divides a distance over the columns of In, the value that it is a distance of. Norm names either
// a Norm n: xⱼ²/n, and 0 where n is 0; or a Nearest: the mean over groups of (xⱼ−cⱼ)²/d, c being the group's
// nearest prototype and d its distance, and 0 for a group where d is 0.
// The parts are >= 0 and add up to the distance.
type Split struct{ In, Norm Value }

// Join is Σₖ Weights[k]·In[k], columnwise; all operands have one width; weights > 0.
type Join struct {
	In      []Value
	Weights []float32
}

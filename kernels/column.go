package kernels

import (
	"errors"
	"fmt"
	"math"
)

// The piecewise-linear function of a Column is, in float32 and in this order,
//
//	y = Y[0] + Before·min(x−X[0], 0) + Σₖ sₖ·min(max(x−X[k], 0), X[k+1]−X[k]) + After·max(x−X[last], 0)
//
// with sₖ = (Y[k+1]−Y[k]) / (X[k+1]−X[k]). No term cancels another, so a value a million deviations away
// keeps its relative accuracy, which the form Σ aₖ·max(x−tₖ, 0) with changes of slope aₖ loses.
// Every term but those left of x is zero, so looking up the segment of x and adding one product to the
// running sum that ends there gives the same bits: Curve does that.

// Curve is a Column made ready for evaluation.
type Curve struct {
	// Segment k covers x from X[k] on: y = Base[k] + Slope[k]·(x − X[k]). Left of X[0] the slope is Before.
	X, Base, Slope []float32
	Before         float32
	Column         Column
}

// Curve precomputes running sums and slopes.
func (c *Column) Curve() Curve {
	n := len(c.X)
	f := Curve{X: c.X, Base: make([]float32, n), Slope: make([]float32, n), Before: c.Before, Column: *c}
	f.Base[0] = c.Y[0]
	for k := range n - 1 {
		width := c.X[k+1] - c.X[k]
		f.Slope[k] = (c.Y[k+1] - c.Y[k]) / width
		// The conversion keeps arm64 from fusing the product into the sum.
		f.Base[k+1] = f.Base[k] + float32(f.Slope[k]*width)
	}
	f.Slope[n-1] = c.After
	return f
}

// At is the piecewise-linear function alone. NaN gives NaN.
func (f *Curve) At(x float32) float32 {
	k := 0
	for lo, hi := 1, len(f.X); lo < hi; {
		mid := int(uint(lo+hi) >> 1)
		if x >= f.X[mid] {
			k, lo = mid, mid+1
		} else {
			hi = mid
		}
	}
	d := x - f.X[k]
	slope := f.Slope[k]
	if d < 0 {
		slope = f.Before
	}
	return f.Base[k] + float32(slope*d)
}

// Forward is what a Map does to one value.
func (f *Curve) Forward(x float32) float32 {
	c := &f.Column
	if x != x {
		x = c.Impute
	}
	if c.Log {
		x = SymmetricLog(x)
	}
	if x < c.Lo {
		x = c.Lo
	}
	if x > c.Hi {
		x = c.Hi
	}
	return f.At(x)
}

// Backward is what an inverse Map does to one value.
func (f *Curve) Backward(x float32) float32 {
	y := f.At(x)
	if f.Column.Log {
		y = SymmetricExp(y)
	}
	return y
}

// Apply is what a Map with this column does to one value, inverse or not. For more than a few values
// take the Curve once.
func (c *Column) Apply(x float32, inverse bool) float32 {
	f := c.Curve()
	if inverse {
		return f.Backward(x)
	}
	return f.Forward(x)
}

// Inverse is the column for the inverse Map: knots and slopes exchanged, no imputation or clip. What
// Forward clipped, Inverse gives back clipped.
func (c *Column) Inverse() Column {
	return Column{
		Log:    c.Log,
		Lo:     float32(math.Inf(-1)),
		Hi:     float32(math.Inf(1)),
		X:      append([]float32(nil), c.Y...),
		Y:      append([]float32(nil), c.X...),
		Before: 1 / c.Before,
		After:  1 / c.After,
	}
}

// Flat is a column for an inverse Map that gives v whatever the network says: a column that was constant
// in the history reconstructs to its constant. Slopes must be positive, so they are too small to matter.
func Flat(v float32) Column {
	const slope = 1e-30
	return Column{
		Lo: float32(math.Inf(-1)), Hi: float32(math.Inf(1)),
		X: []float32{0}, Y: []float32{v},
		Before: slope, After: slope,
	}
}

// SymmetricLog is sign(x)·ln(1+|x|), with 1+|x| rounded to float32.
func SymmetricLog(x float32) float32 {
	if x < 0 {
		return -float32(math.Log(float64(1 - x)))
	}
	return float32(math.Log(float64(1 + x)))
}

// SymmetricExp is sign(y)·(exp(|y|)−1), with exp(|y|) rounded to float32.
func SymmetricExp(y float32) float32 {
	if y < 0 {
		return 1 - float32(math.Exp(float64(-y)))
	}
	return float32(math.Exp(float64(y))) - 1
}

// validate reports every fault. Impute, Lo and Hi count only in a forward map.
func (c *Column) validate(inverse bool) error {
	var faults []error
	report := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if !inverse {
		if !finite(c.Impute) {
			report("imputes %v; it must be finite", c.Impute)
		}
		if !(c.Lo <= c.Hi) {
			report("clips to [%v, %v]; the first must not be above the second", c.Lo, c.Hi)
		}
	}
	for _, s := range []struct {
		name  string
		slope float32
	}{{"before the first knot", c.Before}, {"after the last knot", c.After}} {
		if !(s.slope > 0) || !finite(s.slope) {
			report("slope %v %s; it must be positive and finite", s.slope, s.name)
		}
	}
	if len(c.X) < 1 || len(c.X) > MaxKnots || len(c.X) != len(c.Y) {
		report("%d knots in x and %d in y; both must be the same, 1 to %d", len(c.X), len(c.Y), MaxKnots)
		return errors.Join(faults...)
	}
	if i := firstNotFinite(c.X); i >= 0 {
		report("knot %d is at x = %v", i, c.X[i])
		return errors.Join(faults...)
	}
	if i := firstNotFinite(c.Y); i >= 0 {
		report("knot %d is at y = %v", i, c.Y[i])
		return errors.Join(faults...)
	}
	for k := range len(c.X) - 1 {
		dx, dy := c.X[k+1]-c.X[k], c.Y[k+1]-c.Y[k]
		if !(dx > 0) || !(dy > 0) {
			report("knots %d and %d do not rise: x %v to %v, y %v to %v", k, k+1, c.X[k], c.X[k+1], c.Y[k], c.Y[k+1])
		} else if s := dy / dx; !(s > 0) || !finite(s) || !finite(dx) || !finite(dy) {
			report("the slope between knots %d and %d is %v in float32", k, k+1, s)
		}
	}
	return errors.Join(faults...)
}

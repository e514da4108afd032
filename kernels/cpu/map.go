package cpu

import (
	"math"

	"github.com/lapwing-stream/lapwing/kernels"
)

type mapOp struct {
	in, out             kernels.Value
	inStride, outStride int
	inverse             bool
	curves              []curve
}

// run goes column by column, and within one by short loops over a block of its values: each decides once
// what to do, and its iterations overlap.
func (o *mapOp) run(f frame, n int) {
	var values [block]float32
	for j := range o.curves {
		c, x := &o.curves[j], values[:n]
		in, out := f[o.in][j:], f[o.out][j:]
		at := 0
		for r := range x {
			x[r] = in[at]
			at += o.inStride
		}
		if o.inverse {
			c.evaluate(x)
			if c.log {
				for r := range x {
					x[r] = kernels.SymmetricExp(x[r])
				}
			}
		} else {
			c.prepare(x)
			c.evaluate(x)
		}
		at = 0
		for r := range x {
			out[at] = x[r]
			at += o.outStride
		}
	}
}

// curve is a column with its kernels.Curve in a form that is searched without branches, which the values
// would mispredict: Go turns no comparison of floats into a conditional move, so their order is taken from
// integers. The arithmetic, and so the bits, are those of kernels.Curve.
type curve struct {
	impute, lo, hi float32
	log            bool
	line           bool    // one knot and one slope: nothing to search
	from           []int32 // where segment k begins, as order gives it; the first begins below all
	segments       []segment
}

type segment struct{ x, base, slope float32 }

// order is an integer that compares as x does. NaN comes last, or first; −0 comes just before 0, where the
// segments left and right give the same.
func order(x float32) int32 {
	bits := int32(math.Float32bits(x))
	return bits ^ bits>>31&math.MaxInt32
}

func newCurve(c *kernels.Column) curve {
	f := c.Curve()
	k := curve{
		impute: c.Impute, lo: c.Lo, hi: c.Hi, log: c.Log,
		line:     len(c.X) == 1 && c.Before == c.After,
		from:     []int32{math.MinInt32},
		segments: []segment{{f.X[0], f.Base[0], f.Before}},
	}
	for i, x := range f.X {
		k.from = append(k.from, order(x))
		k.segments = append(k.segments, segment{x, f.Base[i], f.Slope[i]})
	}
	// Filled up to a power of two, so that the search needs no other bound, with copies of the last segment
	// for what NaN may find.
	for last := len(k.segments) - 1; len(k.from)&(len(k.from)-1) != 0; {
		k.from = append(k.from, math.MaxInt32)
		k.segments = append(k.segments, k.segments[last])
	}
	return k
}

// prepare imputes, takes the logarithm and clips.
func (c *curve) prepare(x []float32) {
	impute, lo, hi := c.impute, c.lo, c.hi
	if c.log {
		for r, v := range x {
			if v != v {
				v = impute
			}
			x[r] = kernels.SymmetricLog(v)
		}
	}
	for r, v := range x {
		if v != v {
			x[r] = impute
			v = impute
		}
		if v < lo {
			x[r] = lo
		} else if v > hi {
			x[r] = hi
		}
	}
}

func (c *curve) evaluate(x []float32) {
	s := c.segments[0]
	if c.line {
		for r, v := range x {
			x[r] = s.base + float32(s.slope*(v-s.x))
		}
		return
	}
	from := c.from
	for r, v := range x {
		key, at := int64(order(v)), 0
		for half := len(from) >> 1; half > 0; half >>= 1 {
			below := (key - int64(from[at+half])) >> 63 // all ones where v lies before
			at += half &^ int(below)
		}
		s := &c.segments[at]
		x[r] = s.base + float32(s.slope*(v-s.x))
	}
}

package trainer

import (
	"fmt"
	"math"
	"strconv"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/model"
)

// Summary is what one pass over the history says about a column, in raw units unless Log is set.
// Values that are missing are counted and otherwise ignored.
type Summary struct {
	Count     int64   `json:"count"`
	Missing   int64   `json:"missing"`
	Distinct  int     `json:"distinct"` // exact up to 4096, else a lower bound
	Log       bool    `json:"log1p,omitempty"`
	Min       float64 `json:"min"`
	Max       float64 `json:"max"`
	Mean      float64 `json:"mean"`
	Deviation float64 `json:"deviation"` // over n
	Median    float64 `json:"median"`
	IQR       float64 `json:"iqr"`
	Lower     float64 `json:"lower"` // outer quantiles, see outerShare
	Upper     float64 `json:"upper"`

	inner   float64 // standard deviation of the values winsorised to [Lower, Upper]
	buckets []bucket
}

// column gathers one column. Its state does not depend on the order of values (see sketch and exactSums),
// so each decoding goroutine has its own and they are merged at the end.
type column struct {
	log      bool
	missing  int64
	min, max float32
	sums     exactSums
	sketch   *sketch
}

// statistics gathers all columns of a history.
type statistics []column

func newStatistics(spec *model.Spec) statistics {
	rules := spec.ColumnRules()
	s := make(statistics, len(rules))
	for i := range rules {
		s[i] = column{log: rules[i].Log1p, min: math.MaxFloat32, max: -math.MaxFloat32, sketch: newSketch()}
	}
	return s
}

// add takes one row; NaN is missing, and all else is finite.
func (s statistics) add(row []float32) {
	for i, v := range row {
		c := &s[i]
		if v != v {
			c.missing++
			continue
		}
		if c.log {
			v = float32(symlog(float64(v)))
		}
		c.min, c.max = min(c.min, v), max(c.max, v)
		c.sums.add(v)
		c.sketch.add(v)
	}
}

func (s statistics) merge(o statistics) {
	for i := range s {
		s[i].missing += o[i].missing
		s[i].min, s[i].max = min(s[i].min, o[i].min), max(s[i].max, o[i].max)
		s[i].sums.merge(&o[i].sums)
		s[i].sketch.merge(o[i].sketch)
	}
}

func (s statistics) summaries() []Summary {
	out := make([]Summary, len(s))
	for i := range s {
		out[i] = s[i].summary()
	}
	return out
}

// outerShare is the share of values beyond each outer quantile: 0.1 %, or ten values where that is more, so that a
// handful of gigantic values never decides it, and at most 5 %.
func outerShare(n int64) float64 { return min(max(.001, 10/float64(n)), .05) }

func (c *column) summary() Summary {
	n := c.sketch.n
	s := Summary{Count: n, Missing: c.missing, Distinct: c.sketch.used, Log: c.log, buckets: c.sketch.buckets()}
	if n == 0 {
		return s
	}
	s.Min, s.Max = float64(c.min), float64(c.max)
	s.Mean, s.Deviation = c.sums.moments(n)
	s.Median = s.Quantile(.5)
	s.IQR = s.Quantile(.75) - s.Quantile(.25)
	outer := outerShare(n)
	s.Lower, s.Upper = s.Quantile(outer), s.Quantile(1-outer)
	s.inner = s.winsorised(s.Lower, s.Upper)
	return s
}

// Quantile is the value at share p of the column, exact while it has at most 4096 distinct values.
func (s *Summary) Quantile(p float64) float64 {
	if s.Count == 0 {
		return math.NaN()
	}
	rank := p * float64(s.Count-1)
	before := int64(0)
	for _, b := range s.buckets {
		if rank < float64(before+b.N) {
			v := b.Lo + (b.Hi-b.Lo)*(rank-float64(before)+.5)/float64(b.N)
			return min(max(min(v, b.Hi), s.Min), s.Max)
		}
		before += b.N
	}
	return s.Max
}

// beyond counts the values outside [lo, hi]: exact up to the width of one bucket.
func (s *Summary) beyond(lo, hi float64) (n int64) {
	for _, b := range s.buckets {
		if b.Hi < lo || b.Lo > hi {
			n += b.N
		}
	}
	return n
}

// winsorised is the standard deviation of the values clipped to [lo, hi]; each bucket stands for its middle.
func (s *Summary) winsorised(lo, hi float64) float64 {
	// Measured from the median, as squares of values far from zero cancel.
	var sum, squares float64
	for _, b := range s.buckets {
		v := min(max((max(b.Lo, s.Min)+min(b.Hi, s.Max))/2, lo), hi) - s.Median
		sum += v * float64(b.N)
		squares += v * v * float64(b.N)
	}
	n := float64(s.Count)
	return math.Sqrt(max(squares/n-(sum/n)*(sum/n), 0))
}

// symlog is sign(x)·ln(1+|x|) with the float32 sum 1+|x|, as kernels.Map computes it: statistics must see the very
// values that the network will.
func symlog(x float64) float64 {
	return math.Copysign(math.Log(float64(1+float32(math.Abs(x)))), x)
}

func symexp(y float64) float64 { return math.Copysign(math.Expm1(math.Abs(y)), y) }

// step32 is the distance between float32 values around x, seen towards zero.
func step32(x float64) float64 {
	v := float32(math.Abs(x))
	if v == 0 {
		return math.SmallestNonzeroFloat32
	}
	return float64(v) - float64(math.Nextafter32(v, 0))
}

const (
	// clipUnits is how far beyond an outer quantile values are told apart, in robust units: far enough that an
	// anomaly of eight deviations keeps its rank, near enough that five values of 1e12 do not own the loss.
	clipUnits = 10
	// tinyShare: an IQR below this share of the (winsorised) deviation says little about the spread, as when
	// half of the values are zero.
	tinyShare = .05
	// movedConstant is where a constant column goes when it moves, in robust units (FORMATS, Maps). A category
	// seen once in a million rows must not weigh more than one never seen, so flags are scaled to at most that.
	movedConstant = 3
	// smallest and largest keep slopes and differences within float32.
	smallest = 1e-30
	largest  = 1.5e38
)

// scaled is how one column enters the detector: clipped to [Lo, Hi], then by the map that forward makes.
type scaled struct {
	Centre, Scale, Lo, Hi float64 // after log1p where the column has it
	Constant              bool
	Clipped               int64     // history values outside [Lo, Hi]
	X, Y                  []float64 // knots of a number's map; flags and constants have none
	Unit                  float64   // what one unit is beyond the knots
	Spread                float64   // a number's standard deviation, outliers apart
}

// scale chooses the map of a column; f is the column's rule (model.Spec.ColumnRules).
func scale(s *Summary, f *model.Field) scaled {
	flag := f.Type != model.Number
	out := scaled{Centre: s.Median, Scale: s.IQR / 1.349}
	if flag {
		out.Centre, out.Scale = s.Mean, max(s.Deviation, 1./movedConstant)
	}
	// Of the median: a mean may be far off for the sake of a few gigantic values.
	precision := max(step32(s.Median), smallest)
	if !flag {
		if out.Scale < tinyShare*s.inner || out.Scale <= precision {
			out.Scale = s.inner
		}
		if out.Scale <= precision {
			out.Scale = s.Deviation
		}
	}
	if s.Min == s.Max || out.Scale <= precision {
		// The middle of the range: what looks constant may still jitter by a float32 step.
		c := s.Median
		delta := max(4*step32(c), smallest)
		// Knots beyond float32 would be infinite; a constant that large is told apart on one side only.
		c = min(max(c, delta-math.MaxFloat32), math.MaxFloat32-delta)
		return scaled{Centre: c, Scale: delta / movedConstant, Lo: c - delta, Hi: c + delta, Constant: true,
			Clipped: s.beyond(c-delta, c+delta)}
	}
	out.Centre, out.Scale = min(max(out.Centre, -largest), largest), min(out.Scale, largest)
	if flag {
		out.Lo, out.Hi = min(s.Min, 0), max(s.Max, 1)
	} else {
		out.bend(s)
	}
	if len(f.Clip) == 2 && !flag {
		out.Lo, out.Hi = f.Clip[0], f.Clip[1]
		if s.Log {
			out.Lo, out.Hi = symlog(out.Lo), symlog(out.Hi)
		}
	}
	out.Lo, out.Hi = min(max(out.Lo, -largest), largest), min(max(out.Hi, -largest), largest)
	out.Clipped = s.beyond(out.Lo, out.Hi)
	return out
}

// impute is what stands for a missing value, in raw units: the spec's, else the history's median.
func impute(s *Summary, f *model.Field) float64 {
	switch {
	case f.Missing != nil:
		return *f.Missing
	case s.Log:
		return symexp(s.Median)
	}
	return s.Median
}

// forward is the column's map into the network.
func (c *scaled) forward(s *Summary, f *model.Field) kernels.Column {
	k := kernels.Column{Impute: float32(impute(s, f)), Log: s.Log, Lo: float32(c.Lo), Hi: float32(c.Hi)}
	if !c.Constant {
		if len(c.X) == 0 {
			k.X, k.Y, k.Before = []float32{float32(c.Centre)}, []float32{0}, float32(1/c.Scale)
		}
		for i := range c.X {
			k.X, k.Y, k.Before = append(k.X, float32(c.X[i])), append(k.Y, float32(c.Y[i])), float32(1/c.Unit)
		}
		k.After = k.Before
		return k
	}
	k.X = []float32{float32(c.Lo), float32(c.Centre), float32(c.Hi)}
	k.Y = []float32{-movedConstant, 0, movedConstant}
	k.Before, k.After = movedConstant/(k.X[1]-k.X[0]), movedConstant/(k.X[2]-k.X[1])
	return k
}

// ridge is the variance that a constant or a rare flag is short of one. The residual's covariance gets it back: such a
// column hardly ever moves, and by that alone would count for dozens of others when it does.
func (c *scaled) ridge(s *Summary, f *model.Field) float64 {
	switch {
	case c.Constant:
		return 1
	case f.Type != model.Number:
		v := s.Deviation / c.Scale
		return max(1-v*v, 0)
	}
	return 0
}

// note says what is worth saying about a column; "" = nothing.
func (c *scaled) note(s *Summary) string {
	switch raw := func(v float64) string {
		if s.Log {
			v = symexp(v)
		}
		return strconv.FormatFloat(v, 'g', 6, 64)
	}; {
	case c.Constant && c.Clipped > 0:
		return fmt.Sprintf("constant %s in all but %s; any other value adds at most %d to the residual", raw(c.Centre), plural(c.Clipped, "row"), movedConstant)
	case c.Constant:
		return fmt.Sprintf("constant %s; any other value adds at most %d to the residual", raw(c.Centre), movedConstant)
	case c.Clipped > 0:
		return fmt.Sprintf("extreme values: %s outside %s to %s (found: %s to %s), clipped there", plural(c.Clipped, "row"), raw(c.Lo), raw(c.Hi), raw(s.Min), raw(s.Max))
	case s.Missing > 0:
		return fmt.Sprintf("missing in %d of %d rows, taken as the imputed value", s.Missing, s.Missing+s.Count)
	}
	return ""
}

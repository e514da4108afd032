package trainer

import (
	"math"
	"math/big"
	"slices"
)

// sketchBuckets bounds a sketch: 4096 buckets hold a normal column to about 0.5 % of its value, a narrow column
// far from zero (300 ± 0.5) to a ten-thousandth of its spread, and up to 4096 distinct values exactly.
const sketchBuckets = 4096

// sketchBytes is what one takes at most: a table of twice as many slots, of 4 and 8 bytes.
const sketchBytes = 2 * sketchBuckets * 12

// sketch is a histogram of float32 values over their order-preserving bit patterns, the lowest level bits dropped.
//
// Its state depends only on the multiset of values, never on their order or on how they were merged: level rises
// only when more than sketchBuckets patterns are distinct at the level below, and that number never falls as
// values come in, so the final level is the smallest one at which all values fit. A histogram with fixed
// logarithmic bins would be simpler, but sees a column such as air pressure in one bin.
type sketch struct {
	level  uint
	keys   []uint32
	counts []int64 // 0: the slot is free
	used   int
	n      int64
}

func newSketch() *sketch { return &sketch{keys: make([]uint32, 64), counts: make([]int64, 64)} }

// orderedBits maps finite float32 values to uint32 in their numeric order; both zeros are one.
func orderedBits(v float32) uint32 {
	if v == 0 {
		return 1 << 31
	}
	b := math.Float32bits(v)
	if b>>31 == 1 {
		return ^b
	}
	return b | 1<<31
}

func fromOrderedBits(k uint32) float32 {
	if k>>31 == 1 {
		return math.Float32frombits(k &^ (1 << 31))
	}
	return math.Float32frombits(^k)
}

func (s *sketch) add(v float32) { s.count(orderedBits(v)>>s.level, 1) }

// count adds n values to the bucket key, which is a pattern at the current level.
func (s *sketch) count(key uint32, n int64) {
	s.n += n
	mask := uint32(len(s.keys) - 1)
	at := key * 0x9E3779B1 >> 7 & mask
	for s.counts[at] != 0 {
		if s.keys[at] == key {
			s.counts[at] += n
			return
		}
		at = (at + 1) & mask
	}
	s.keys[at], s.counts[at] = key, n
	s.used++
	switch {
	case s.used > sketchBuckets:
		for s.used > sketchBuckets {
			s.rebuild(s.level+1, len(s.keys))
		}
	case s.used*2 > len(s.keys):
		s.rebuild(s.level, 2*len(s.keys))
	}
}

func (s *sketch) rebuild(level uint, size int) {
	keys, counts, drop := s.keys, s.counts, level-s.level
	s.keys, s.counts, s.used, s.n, s.level = make([]uint32, size), make([]int64, size), 0, 0, level
	for i, c := range counts {
		if c != 0 {
			s.count(keys[i]>>drop, c)
		}
	}
}

func (s *sketch) merge(o *sketch) {
	if o.level > s.level {
		s.rebuild(o.level, len(s.keys))
	}
	for i, c := range o.counts {
		if c != 0 {
			// The level may rise during this loop: count restarts at whatever it is by then.
			s.count(o.keys[i]>>(s.level-o.level), c)
		}
	}
}

// bucket is n values in [Lo, Hi].
type bucket struct {
	Lo, Hi float64
	N      int64
}

// buckets lists the buckets in ascending order.
func (s *sketch) buckets() []bucket {
	keys := make([]uint32, 0, s.used)
	at := make(map[uint32]int64, s.used)
	for i, c := range s.counts {
		if c != 0 {
			keys = append(keys, s.keys[i])
			at[s.keys[i]] = c
		}
	}
	slices.Sort(keys)
	out := make([]bucket, len(keys))
	for i, k := range keys {
		lo := k << s.level
		hi := lo | (1<<s.level - 1)
		out[i] = bucket{finite32(fromOrderedBits(lo)), finite32(fromOrderedBits(hi)), at[k]}
	}
	return out
}

// finite32 brings the edges of the outermost buckets, whose patterns may be infinities or NaN, back to float32.
func finite32(v float32) float64 {
	const limit = math.MaxFloat32
	switch x := float64(v); {
	case math.Abs(x) <= limit:
		return x
	case math.Signbit(x):
		return -limit
	default:
		return limit
	}
}

// exactSums holds Σx and Σx² of float32 values without any rounding, so that the order of values cannot matter and
// a mean of 1e9 does not eat the spread. A float32 is m·2^(e−150) with |m| < 2^24; sums of m, and of the two
// 24-bit halves of m², are kept for each e. An int64 holds 2^39 of them.
type exactSums struct {
	sum, low, high [256]int64
}

func (s *exactSums) add(v float32) {
	b := math.Float32bits(v)
	e, m := b>>23&0xff, int64(b&0x7fffff)
	if e == 0 {
		e = 1
	} else {
		m |= 1 << 23
	}
	q := m * m
	s.low[e] += q & 0xffffff
	s.high[e] += q >> 24
	if b>>31 == 1 {
		m = -m
	}
	s.sum[e] += m
}

func (s *exactSums) merge(o *exactSums) {
	for e := range s.sum {
		s.sum[e] += o.sum[e]
		s.low[e] += o.low[e]
		s.high[e] += o.high[e]
	}
}

// exactPrecision bits hold every sum here exactly: Σx² spans 2^-298 to 2^296.
const exactPrecision = 2048

// moments returns the mean and the standard deviation (over n) of n values.
func (s *exactSums) moments(n int64) (mean, deviation float64) {
	if n == 0 {
		return math.NaN(), math.NaN()
	}
	var sum, squares big.Float
	sum.SetPrec(exactPrecision)
	squares.SetPrec(exactPrecision)
	term := new(big.Float).SetPrec(exactPrecision)
	add := func(to *big.Float, m int64, exponent int) {
		if m != 0 {
			term.SetInt64(m)
			to.Add(to, term.SetMantExp(term, exponent))
		}
	}
	for e := range s.sum {
		add(&sum, s.sum[e], e-150)
		add(&squares, s.low[e], 2*(e-150))
		add(&squares, s.high[e], 2*(e-150)+24)
	}
	count := new(big.Float).SetPrec(exactPrecision).SetInt64(n)
	mean, _ = new(big.Float).SetPrec(exactPrecision).Quo(&sum, count).Float64()

	squares.Mul(&squares, count)
	squares.Sub(&squares, term.Mul(&sum, &sum))
	variance, _ := squares.Quo(&squares, count.Mul(count, count)).Float64()
	return mean, math.Sqrt(max(variance, 0))
}

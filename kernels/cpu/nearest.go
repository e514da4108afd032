package cpu

import (
	"math"

	"github.com/lapwing-stream/lapwing/kernels"
)

// nearestOp finds each group's nearest prototype by −x·c + ‖c‖²/2, packed as dense is, and takes its distance
// from the differences. Search and minimum are one loop, so no row of products is ever stored: 256 groups of 8
// would need 256 KiB of them for a block.
//
// The value has room beside the mean for what a Split needs: 1 + g holds the distance of group g, 1 + groups + g
// the row of its nearest prototype, a whole number below 2^16.
type nearestOp struct {
	in, out             kernels.Value
	inStride, outStride int
	width, groups       int
	perGroup            int
	tiles               int // of each group
	w                   [][4]float32
	half                [][4]float32 // by tile; past the group's last prototype +Inf, which is never the least
	rows                []float32
}

// nearestStride is the room for one row's value.
func nearestStride(groups int) int { return stride(1 + 2*groups) }

func (l *layout) newNearest(s *kernels.Nearest, v kernels.Value) *nearestOp {
	width := l.widths[s.In]
	o := &nearestOp{
		in: s.In, out: v, inStride: l.strides[s.In], outStride: l.strides[v], width: width, groups: s.Groups,
		perGroup: len(s.Rows) / width / s.Groups, rows: append([]float32(nil), s.Rows...),
	}
	o.tiles = stride(o.perGroup) / 4
	o.w = make([][4]float32, s.Groups*o.tiles*width)
	o.half = make([][4]float32, s.Groups*o.tiles)
	for i := range o.half {
		for k := range o.half[i] {
			o.half[i][k] = float32(math.Inf(1))
		}
	}
	for i, half := range s.HalfSquares(width) {
		group, k := i/o.perGroup, i%o.perGroup
		tile := group*o.tiles + k/4
		o.half[tile][k&3] = half
		for j, c := range o.rows[i*width : (i+1)*width] {
			o.w[tile*width+j][k&3] = c
		}
	}
	return o
}

func (o *nearestOp) run(f frame, n int) {
	x, y := f[o.in], f[o.out]
	// Group by group, so that its prototypes stay in the first-level cache for all rows.
	for g := range o.groups {
		for r := range n {
			row := x[r*o.inStride:][:o.width]
			c := g*o.perGroup + o.search(g, row)
			value := y[r*o.outStride:][:o.outStride]
			value[1+g] = float32(math.Sqrt(float64(squaredDistance(row, o.rows[c*o.width:]))))
			value[1+o.groups+g] = float32(c)
		}
	}
	for r := range n {
		value := y[r*o.outStride:]
		sum := 0.0
		for _, d := range value[1 : 1+o.groups] {
			sum += float64(d)
		}
		value[0] = float32(sum / float64(o.groups))
	}
}

// search gives the nearest prototype of group g, the first of equals. Where no comparison holds (the row is
// not finite) it is the first of all, and the distance is as little finite as the row.
func (o *nearestOp) search(g int, row []float32) int {
	least, at := float32(math.Inf(1)), 0
	for t := range o.tiles {
		tile := g*o.tiles + t
		w := o.w[tile*len(row):][:len(row)]
		half := &o.half[tile]
		y0, y1, y2, y3 := half[0], half[1], half[2], half[3]
		for k := range w {
			v, wk := row[k], &w[k]
			y0 -= float32(wk[0] * v)
			y1 -= float32(wk[1] * v)
			y2 -= float32(wk[2] * v)
			y3 -= float32(wk[3] * v)
		}
		if y0 < least {
			least, at = y0, 4*t
		}
		if y1 < least {
			least, at = y1, 4*t+1
		}
		if y2 < least {
			least, at = y2, 4*t+2
		}
		if y3 < least {
			least, at = y3, 4*t+3
		}
	}
	return at
}

// squaredDistance sums in four parts as sumOfSquares does; c has at least the length of x.
func squaredDistance(x, c []float32) float32 {
	c = c[:len(x)]
	var s0, s1, s2, s3 float32
	for len(x) >= 4 && len(c) >= 4 {
		p, q := (*[4]float32)(x), (*[4]float32)(c)
		d0, d1, d2, d3 := p[0]-q[0], p[1]-q[1], p[2]-q[2], p[3]-q[3]
		s0 += float32(d0 * d0)
		s1 += float32(d1 * d1)
		s2 += float32(d2 * d2)
		s3 += float32(d3 * d3)
		x, c = x[4:], c[4:]
	}
	for i, v := range x {
		d := v - c[i]
		s0 += float32(d * d)
	}
	return (s0 + s1) + (s2 + s3)
}

// nearestSplitOp divides a Nearest.
type nearestSplitOp struct {
	*nearestOp
	split kernels.Value
}

func (o *nearestSplitOp) run(f frame, n int) {
	scale := 1 / float32(o.groups)
	for r := range n {
		x := f[o.in][r*o.inStride:][:o.width]
		y := f[o.split][r*stride(o.width):][:len(x)]
		value := f[o.out][r*o.outStride:][:o.outStride]
		clear(y)
		for g := range o.groups {
			d := value[1+g]
			if d == 0 {
				continue
			}
			c := o.rows[int(value[1+o.groups+g])*o.width:][:len(x)]
			for j, v := range x {
				e := v - c[j]
				y[j] += float32(e * e / d)
			}
		}
		for j := range y {
			y[j] *= scale
		}
	}
}

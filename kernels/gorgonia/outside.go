package gorgonia

import (
	"math"

	"github.com/lapwing-stream/lapwing/kernels"
)

// outside evaluates the steps that Gorgonia has no operation for, by their definitions in package kernels.
type outside struct {
	program *kernels.Program
	widths  []int
	curves  [][]kernels.Curve // by step; nil where it is no Map
	halves  [][]float32       // by step: HalfSquares; nil where it is no Nearest
}

func newOutside(p *kernels.Program) *outside {
	o := &outside{program: p, widths: p.Widths(), curves: make([][]kernels.Curve, len(p.Steps)), halves: make([][]float32, len(p.Steps))}
	for i, s := range p.Steps {
		switch s := s.(type) {
		case *kernels.Map:
			for j := range s.Columns {
				o.curves[i] = append(o.curves[i], s.Columns[j].Curve())
			}
		case *kernels.Nearest:
			o.halves[i] = s.HalfSquares(o.widths[s.In])
		}
	}
	return o
}

// before evaluates a value that stands before the graph for one raw row.
func (o *outside) before(v kernels.Value, row, to []float32) {
	if v == kernels.Input {
		copy(to, row)
		return
	}
	switch s := o.program.Steps[v-1].(type) {
	case *kernels.Map:
		o.before(s.In, row, to)
		o.apply(v, to, to)
	case *kernels.Nearest:
		x := make([]float32, o.widths[s.In])
		o.before(s.In, row, x)
		sum := 0.0
		for g := range s.Groups {
			_, d := o.nearest(v, g, x)
			sum += float64(d)
		}
		to[0] = float32(sum / float64(s.Groups))
	case *kernels.Split:
		near := o.program.Steps[s.Norm-1].(*kernels.Nearest)
		x := make([]float32, o.widths[s.In])
		o.before(s.In, row, x)
		clear(to)
		for g := range near.Groups {
			c, d := o.nearest(s.Norm, g, x)
			if d == 0 {
				continue
			}
			for j := range to {
				e := x[j] - c[j]
				to[j] += float32(float32(e*e) / d / float32(near.Groups))
			}
		}
	}
}

// nearest is the prototype of group g that is nearest to x, and its distance; v is the Nearest's value.
func (o *outside) nearest(v kernels.Value, g int, x []float32) (c []float32, d float32) {
	s, half := o.program.Steps[v-1].(*kernels.Nearest), o.halves[v-1]
	perGroup := len(half) / s.Groups
	least, at := float32(math.Inf(1)), g*perGroup
	for i := g * perGroup; i < (g+1)*perGroup; i++ {
		y := half[i]
		for j, w := range s.Rows[i*len(x):][:len(x)] {
			y -= float32(w * x[j])
		}
		if y < least {
			least, at = y, i
		}
	}
	c = s.Rows[at*len(x):][:len(x)]
	sum := float32(0)
	for j := range x {
		e := x[j] - c[j]
		sum += float32(e * e)
	}
	return c, float32(math.Sqrt(float64(sum)))
}

// apply is the Map that makes v, from its operand; to may be from.
func (o *outside) apply(v kernels.Value, from, to []float32) {
	inverse := o.program.Steps[v-1].(*kernels.Map).Inverse
	for j := range o.curves[v-1] {
		c := &o.curves[v-1][j]
		if inverse {
			to[j] = c.Backward(from[j])
		} else {
			to[j] = c.Forward(from[j])
		}
	}
}

package cpu

import (
	"math"

	"github.com/lapwing-stream/lapwing/kernels"
)

// block is the most rows that ops see at once: enough to reuse a tile of weights while it is in the
// first-level cache, few enough for the rows' values to stay there too.
const block = 32

// layout places a program's values. Values stand row by row, each row in strides[v] floats; Input stands
// as the caller gave it, without padding.
type layout struct {
	widths, strides []int
}

func newLayout(p *kernels.Program) layout {
	l := layout{widths: p.Widths()}
	l.strides = make([]int, len(l.widths))
	for v, w := range l.widths {
		l.strides[v] = stride(w)
	}
	l.strides[kernels.Input] = p.Width
	for i, s := range p.Steps {
		if near, ok := s.(*kernels.Nearest); ok {
			l.strides[i+1] = nearestStride(near.Groups)
		}
	}
	return l
}

// frame holds a block's values; nil where the value is not needed.
type frame [][]float32

// newFrame has room for every needed value but Input, which is set for each block.
func (l *layout) newFrame(needed []bool) frame {
	f := make(frame, len(l.widths))
	for v := 1; v < len(f); v++ {
		if needed[v] {
			f[v] = make([]float32, block*l.strides[v])
		}
	}
	return f
}

// op computes one value of n rows, n <= block, from values before it.
type op interface{ run(f frame, n int) }

// newOp compiles the step that makes value v; earlier are the ops of the steps before it, nil where not needed.
// It keeps no memory of the step.
func (l *layout) newOp(s kernels.Step, v kernels.Value, earlier []op) op {
	switch s := s.(type) {
	case *kernels.Map:
		m := &mapOp{in: s.In, out: v, inStride: l.strides[s.In], outStride: l.strides[v], inverse: s.Inverse}
		for j := range s.Columns {
			m.curves = append(m.curves, newCurve(&s.Columns[j]))
		}
		return m
	case *kernels.Gemm:
		g := &gemmOp{in: s.In, out: v, inStride: l.strides[s.In], act: s.Act, dense: newDense(l.widths[s.In], s.Out)}
		g.dense.pack(s.W, s.B)
		return g
	case *kernels.Diff:
		return &diffOp{a: s.A, b: s.B, out: v, aStride: l.strides[s.A], bStride: l.strides[s.B], width: l.widths[v]}
	case *kernels.Norm:
		return &normOp{in: s.In, out: v, inStride: l.strides[s.In], width: l.widths[s.In]}
	case *kernels.Nearest:
		return l.newNearest(s, v)
	case *kernels.Split:
		if near, ok := earlier[s.Norm-1].(*nearestOp); ok {
			return &nearestSplitOp{nearestOp: near, split: v}
		}
		return &splitOp{in: s.In, norm: s.Norm, out: v, inStride: l.strides[s.In], width: l.widths[v]}
	case *kernels.Join:
		j := &joinOp{out: v, width: l.widths[v]}
		for k, in := range s.In {
			j.in = append(j.in, in)
			j.strides = append(j.strides, l.strides[in])
			j.weights = append(j.weights, s.Weights[k])
		}
		return j
	}
	panic("cpu: Supports and newOp disagree on " + s.Kind())
}

type gemmOp struct {
	in, out  kernels.Value
	inStride int
	act      kernels.Activation
	slope    kernels.Value // where act'(x) is left for the backward pass; Input where it follows from the result
	dense    *dense
}

func (o *gemmOp) run(f frame, n int) {
	y := f[o.out]
	o.dense.multiply(y, f[o.in], o.inStride, n)
	// The padding is activated too: harmless, and one call for the whole block.
	y = y[:n*stride(o.dense.out)]
	if o.slope == kernels.Input {
		activate(o.act, y)
		return
	}
	slope := f[o.slope][:len(y)]
	for i, x := range y {
		y[i], slope[i] = gelu(x)
	}
}

type diffOp struct {
	a, b, out        kernels.Value
	aStride, bStride int
	width            int
}

func (o *diffOp) run(f frame, n int) {
	for r := range n {
		a := f[o.a][r*o.aStride:][:o.width]
		b := f[o.b][r*o.bStride:][:len(a)]
		y := f[o.out][r*stride(o.width):][:len(a)]
		for j := range a {
			y[j] = a[j] - b[j]
		}
	}
}

type normOp struct {
	in, out  kernels.Value
	inStride int
	width    int
}

func (o *normOp) run(f frame, n int) {
	for r := range n {
		x := f[o.in][r*o.inStride:][:o.width]
		f[o.out][r*stride(1)] = float32(math.Sqrt(float64(sumOfSquares(x))))
	}
}

// sumOfSquares overflows where float32 does, as ONNX Runtime and the other engines do: such a score is
// infinite, not a little wrong.
func sumOfSquares(x []float32) float32 {
	var s0, s1, s2, s3 float32
	for len(x) >= 4 {
		q := (*[4]float32)(x)
		s0 += float32(q[0] * q[0])
		s1 += float32(q[1] * q[1])
		s2 += float32(q[2] * q[2])
		s3 += float32(q[3] * q[3])
		x = x[4:]
	}
	for _, v := range x {
		s0 += float32(v * v)
	}
	return (s0 + s1) + (s2 + s3)
}

type splitOp struct {
	in, norm, out kernels.Value
	inStride      int
	width         int
}

func (o *splitOp) run(f frame, n int) {
	for r := range n {
		x := f[o.in][r*o.inStride:][:o.width]
		y := f[o.out][r*stride(o.width):][:len(x)]
		norm := f[o.norm][r*stride(1)]
		if norm == 0 {
			clear(y)
			continue
		}
		for j, v := range x {
			y[j] = v * v / norm
		}
	}
}

type joinOp struct {
	in      []kernels.Value
	strides []int
	weights []float32
	out     kernels.Value
	width   int
}

func (o *joinOp) run(f frame, n int) {
	for r := range n {
		y := f[o.out][r*stride(o.width):][:o.width]
		clear(y)
		for k, in := range o.in {
			x := f[in][r*o.strides[k]:][:len(y)]
			w := o.weights[k]
			for j := range y {
				y[j] += float32(w * x[j])
			}
		}
	}
}

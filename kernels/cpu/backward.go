package cpu

import "github.com/lapwing-stream/lapwing/kernels"

// backward is one step of reverse-mode differentiation: it reads the gradient of the value its step made
// and sets or adds to those of the operands. f holds values, d their gradients, both laid out alike.
type backward interface {
	run(f, d frame, gradients []float32, n int)
}

// gemmBackward belongs to a trained Gemm.
type gemmBackward struct {
	*gemmOp
	w, b       int    // where its gradients stand
	transposed *dense // nil where the operand needs no gradient
	add        bool   // to the operand's gradient, where another step has set it
	wide       int    // stride of the operand's gradient
}

func (o *gemmBackward) run(f, d frame, gradients []float32, n int) {
	dy := d[o.out]
	dyStride := stride(o.dense.out)
	differentiate(o.act, dy[:n*dyStride], f[o.out])
	in, out := o.dense.in, o.dense.out
	weightGradient(gradients[o.w:][:out*in], dy, dyStride, f[o.in], o.inStride, in, out, n)
	biasGradient(gradients[o.b:][:out], dy, dyStride, n)
	switch {
	case o.transposed == nil:
	case o.add:
		scratch := d[len(d)-1]
		o.transposed.multiply(scratch, dy, dyStride, n)
		addScaled(d[o.in][:n*o.wide], scratch, 1)
	default:
		o.transposed.multiply(d[o.in], dy, dyStride, n)
	}
}

// weightGradient adds Σ over rows of dyᵀ·x to g, out rows of in. Eight inputs at a time, so that eight sums
// stay in registers; the last tile reads the padding of x, and drops what comes of it.
func weightGradient(g, dy []float32, dyStride int, x []float32, xStride, in, out, n int) {
	for i := 0; i < in; i += 8 {
		for o := range out {
			var g0, g1, g2, g3, g4, g5, g6, g7 float32
			xs, ds := x[i:], dy[o:]
			for r := range n {
				v := ds[r*dyStride]
				q := (*[8]float32)(xs[r*xStride:])
				g0 += float32(q[0] * v)
				g1 += float32(q[1] * v)
				g2 += float32(q[2] * v)
				g3 += float32(q[3] * v)
				g4 += float32(q[4] * v)
				g5 += float32(q[5] * v)
				g6 += float32(q[6] * v)
				g7 += float32(q[7] * v)
			}
			row := g[o*in:][:in][i:]
			if len(row) >= 8 {
				q := (*[8]float32)(row)
				q[0] += g0
				q[1] += g1
				q[2] += g2
				q[3] += g3
				q[4] += g4
				q[5] += g5
				q[6] += g6
				q[7] += g7
				continue
			}
			sums := [8]float32{g0, g1, g2, g3, g4, g5, g6, g7}
			for k := range row {
				row[k] += sums[k]
			}
		}
	}
}

func biasGradient(g, dy []float32, dyStride, n int) {
	for r := range n {
		row := dy[r*dyStride:][:len(g)]
		for o := range g {
			g[o] += row[o]
		}
	}
}

// joinBackward belongs to a Join or Diff: each operand's gradient is the result's times a constant.
type joinBackward struct {
	out      kernels.Value
	stride   int
	operands []joinOperand
}

type joinOperand struct {
	v      kernels.Value
	weight float32
	add    bool
}

func (o *joinBackward) run(_, d frame, _ []float32, n int) {
	dy := d[o.out][:n*o.stride]
	for _, to := range o.operands {
		dx := d[to.v][:len(dy)]
		if !to.add {
			clear(dx)
		}
		addScaled(dx, dy, to.weight)
	}
}

func addScaled(to, from []float32, weight float32) {
	from = from[:len(to)]
	for i := range to {
		to[i] += float32(weight * from[i])
	}
}

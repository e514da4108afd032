package cpu

import "github.com/lapwing-stream/lapwing/kernels"

// backward is one step of reverse-mode differentiation: it reads the gradient of the value its step made
// and sets or adds to those of the operands.
type backward interface {
	run(w *worker, gradients []float32, n int)
}

// gemmBackward belongs to a trained Gemm.
type gemmBackward struct {
	*gemmOp
	w, b       int    // where its gradients stand
	transposed *dense // nil where the operand needs no gradient
	add        bool   // to the operand's gradient, where another step has set it
	wide       int    // stride of the operand's gradient
}

func (o *gemmBackward) run(w *worker, gradients []float32, n int) {
	f, d := w.values, w.gradients
	dy := d[o.out]
	dyStride := stride(o.dense.out)
	if o.slope == kernels.Input {
		differentiate(o.act, dy[:n*dyStride], f[o.out])
	} else {
		multiply(dy[:n*dyStride], f[o.slope])
	}
	in, out := o.dense.in, o.dense.out
	panels := w.panels[:stride(in)/4*n]
	packPanels(panels, f[o.in], o.inStride, n)
	weightGradient(gradients[o.w:][:out*in], dy, dyStride, panels, in, out, n)
	biasGradient(gradients[o.b:][:out], dy, dyStride, n)
	switch {
	case o.transposed == nil:
	case o.add:
		o.transposed.multiply(w.scratch, dy, dyStride, n)
		addScaled(d[o.in][:n*o.wide], w.scratch, 1)
	default:
		o.transposed.multiply(d[o.in], dy, dyStride, n)
	}
}

// packPanels lays x out for weightGradient: four columns of all n rows, then the next four. Padding comes
// along.
func packPanels(panels [][4]float32, x []float32, xStride, n int) {
	for i := 0; len(panels) > 0; i += 4 {
		panel := panels[:n]
		for r := range panel {
			panel[r] = *(*[4]float32)(x[r*xStride+i:])
		}
		panels = panels[n:]
	}
}

// weightGradient adds Σ over rows of dyᵀ·x to g, out rows of in. Four inputs at a time, so that the sums
// stay in registers; what comes of the last panel's padding is dropped.
func weightGradient(g, dy []float32, dyStride int, panels [][4]float32, in, out, n int) {
	for i := 0; i < in; i += 4 {
		panel := panels[i/4*n:][:n]
		for o := range out {
			var g0, g1, g2, g3 float32
			at := o
			for r := range panel {
				v, x := dy[at], &panel[r]
				g0 += float32(x[0] * v)
				g1 += float32(x[1] * v)
				g2 += float32(x[2] * v)
				g3 += float32(x[3] * v)
				at += dyStride
			}
			row := g[o*in:][:in][i:]
			if len(row) >= 4 {
				q := (*[4]float32)(row)
				q[0] += g0
				q[1] += g1
				q[2] += g2
				q[3] += g3
				continue
			}
			sums := [4]float32{g0, g1, g2, g3}
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

func (o *joinBackward) run(w *worker, _ []float32, n int) {
	d := w.gradients
	dy := d[o.out][:n*o.stride]
	for _, to := range o.operands {
		dx := d[to.v][:len(dy)]
		if !to.add {
			clear(dx)
		}
		addScaled(dx, dy, to.weight)
	}
}

func multiply(to, by []float32) {
	by = by[:len(to)]
	for i := range to {
		to[i] *= by[i]
	}
}

func addScaled(to, from []float32, weight float32) {
	from = from[:len(to)]
	for i := range to {
		to[i] += float32(weight * from[i])
	}
}

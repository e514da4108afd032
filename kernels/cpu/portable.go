package cpu

import (
	"math"

	"github.com/lapwing-stream/lapwing/kernels"
)

// portable is the network in plain Go: the scorer's ops forward, and one step of backward for each of them.
type portable struct {
	layout   layout
	options  kernels.TrainOptions
	forward  []op
	backward []backward
	trained  []*gemmBackward
	views    [][]float32 // of the trainer's parameters
	workers  []worker
}

// worker is what one thread needs for one block.
type worker struct {
	values, gradients frame        // laid out alike
	scratch           []float32    // as wide as the widest value
	panels            [][4]float32 // the same, for packPanels
}

func newPortable(p *kernels.Program, o kernels.TrainOptions, trained []trainedGemm, parameters []float32) *portable {
	t := &portable{layout: newLayout(p), options: o}
	t.layout.strides[kernels.Input] = stride(p.Width) // packPanels reads padding

	needed := p.Needed(o.Prediction, o.Target)
	ops := make([]op, len(p.Steps))
	for i, s := range p.Steps {
		if needed[i+1] {
			ops[i] = t.layout.newOp(s, kernels.Value(i+1), ops)
			t.forward = append(t.forward, ops[i])
			if g, ok := ops[i].(*gemmOp); ok && g.act == kernels.GELU {
				g.slope = kernels.Value(len(needed))
				needed = append(needed, true)
				t.layout.widths = append(t.layout.widths, s.(*kernels.Gemm).Out)
				t.layout.strides = append(t.layout.strides, stride(s.(*kernels.Gemm).Out))
			}
		}
	}
	t.planBackward(p, ops, trained)
	for _, g := range trained {
		t.views = append(t.views, parameters[g.w:g.b], parameters[g.b:g.end])
	}
	widest := 0
	for v, n := range t.layout.strides {
		if needed[v] {
			widest = max(widest, n)
		}
	}
	for range min(o.Threads, maxShards) {
		w := worker{values: t.layout.newFrame(needed), gradients: t.layout.newFrame(needed)}
		w.values[kernels.Input] = make([]float32, block*t.layout.strides[kernels.Input])
		w.scratch, w.panels = make([]float32, block*widest), make([][4]float32, block*widest/4)
		t.workers = append(t.workers, w)
	}
	return t
}

// planBackward lists the backward steps in order.
func (t *portable) planBackward(p *kernels.Program, ops []op, trained []trainedGemm) {
	needed := p.Needed(t.options.Prediction)
	learns := p.Learns()
	at := make([]trainedGemm, len(p.Steps))
	for _, g := range trained {
		at[g.step] = g
	}
	set := make([]bool, len(p.Steps)+1) // gradients already set by a later step
	for i := len(p.Steps) - 1; i >= 0; i-- {
		v := kernels.Value(i + 1)
		if !needed[v] || !learns[v] {
			continue
		}
		join := &joinBackward{out: v, stride: t.layout.strides[v]}
		operand := func(v kernels.Value, weight float32) {
			if learns[v] {
				join.operands = append(join.operands, joinOperand{v: v, weight: weight, add: set[v]})
				set[v] = true
			}
		}
		switch s := p.Steps[i].(type) {
		case *kernels.Gemm:
			g := &gemmBackward{gemmOp: ops[i].(*gemmOp), w: at[i].w, b: at[i].b, wide: t.layout.strides[s.In]}
			if learns[s.In] {
				g.transposed = newDense(s.Out, t.layout.widths[s.In])
				g.add = set[s.In]
				set[s.In] = true
			}
			t.backward = append(t.backward, g)
			t.trained = append([]*gemmBackward{g}, t.trained...)
			continue
		case *kernels.Diff:
			operand(s.A, 1)
			operand(s.B, -1)
		case *kernels.Join:
			for k, in := range s.In {
				operand(in, s.Weights[k])
			}
		}
		t.backward = append(t.backward, join)
	}
}

// changed brings the parameters into the form that the kernels read.
func (t *portable) changed() {
	for i, g := range t.trained {
		g.dense.pack(t.views[2*i], t.views[2*i+1])
		if g.transposed != nil {
			g.transposed.packTransposed(t.views[2*i])
		}
	}
}

func (t *portable) block() int { return block }

func (t *portable) run(worker int, rows []float32, scale float32, gradient []float32, add bool) float64 {
	w := &t.workers[worker]
	width, padded := t.layout.widths[kernels.Input], t.layout.strides[kernels.Input]
	n := len(rows) / width
	input := w.values[kernels.Input]
	for r := range n {
		copy(input[r*padded:][:width], rows[r*width:])
	}
	for _, o := range t.forward {
		o.run(w.values, n)
	}
	sum := t.loss(w, n, scale)
	if gradient == nil {
		return sum
	}
	if !add {
		clear(gradient)
	}
	for _, o := range t.backward {
		o.run(w, gradient, n)
	}
	return sum
}

// loss sums in float64, where not even the square of 1e30 overflows, and leaves the scaled gradient of the
// prediction.
func (t *portable) loss(w *worker, n int, scale float32) float64 {
	p, y := t.options.Prediction, t.options.Target
	width, pStride, yStride := t.layout.widths[p], t.layout.strides[p], t.layout.strides[y]
	sum := 0.0
	for r := range n {
		predicted := w.values[p][r*pStride:][:width]
		target := w.values[y][r*yStride:][:len(predicted)]
		d := w.gradients[p][r*pStride:][:len(predicted)]
		if t.options.Loss == kernels.Huber {
			sum += huber(predicted, target, d, t.options.Delta, scale)
		} else {
			sum += squares(predicted, target, d, 2*scale)
		}
	}
	return sum
}

func squares(predicted, target, d []float32, scale float32) float64 {
	sum := 0.0
	for j := range predicted {
		e := predicted[j] - target[j]
		sum += float64(float64(e) * float64(e))
		d[j] = e * scale
	}
	return sum
}

// huber: with q = e clipped to ±delta, the loss is q·(e − q/2) and its derivative q. A NaN is not clipped.
func huber(predicted, target, d []float32, delta, scale float32) float64 {
	sum := 0.0
	for j := range predicted {
		e := predicted[j] - target[j]
		q := e
		if q > delta {
			q = delta
		}
		if q < -delta {
			q = -delta
		}
		sum += float64(float64(q) * (float64(e) - float64(0.5*float64(q))))
		d[j] = q * scale
	}
	return sum
}

func (*portable) update(t *trainer, lo, hi int) {
	t.sum(lo, hi)
	g := t.gradient[lo:hi]
	if t.options.Optimizer == kernels.SGD {
		addScaled(t.parameters[lo:hi], g, -t.step.rate)
		return
	}
	w, m, v := t.parameters[lo:hi][:len(g)], t.moment1[lo:hi][:len(g)], t.moment2[lo:hi][:len(g)]
	c1, c2, rate := t.step.correction1, t.step.correction2, t.step.rate
	for i, x := range g {
		a := float32(beta1*m[i]) + float32((1-beta1)*x)
		b := float32(beta2*v[i]) + float32((1-beta2)*float32(x*x))
		m[i], v[i] = a, b
		root := float32(math.Sqrt(float64(float32(b * c2))))
		w[i] -= float32(rate * float32(a*c1) / (root + epsilon))
	}
}

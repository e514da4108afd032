package cpu

import (
	"errors"
	"fmt"
	"math"

	"github.com/lapwing-stream/lapwing/kernels"
)

// A minibatch is cut into blocks of rows, and those into at most maxShards runs, each with a gradient of
// its own. Both depend on the number of rows alone; threads only decide who works on which shard.
const maxShards = 16

// Ranges of parameters that one worker reduces and updates at a time. Elementwise, so that the cut does
// not matter to the result; large, because below this a hand-over costs more than the arithmetic.
const updateRange = 1 << 14

const (
	beta1   = float32(0.9)
	beta2   = float32(0.999)
	epsilon = float32(1e-8)
)

type trainer struct {
	layout  layout
	program *kernels.Program
	options kernels.TrainOptions

	forward  []op
	backward []backward
	trained  []*gemmBackward

	parameters       []float32 // W0, B0, W1, B1, …
	views            [][]float32
	moment1, moment2 []float32 // Adam's
	steps            int
	gradient         []float32   // of the whole batch
	shards           [][]float32 // by shard
	losses           []float64   // by shard, sums

	team    *team
	workers []worker

	// What the current job works on.
	rows        []float32
	blocks      int
	scale       float32 // of the loss's gradient
	learn       bool
	active      int // shards
	rate        float32
	correction1 float32
	correction2 float32
	closed      bool

	shardJob, reduceJob, updateJob func(worker, part int)
}

// worker is what one thread needs for one block.
type worker struct {
	values, gradients frame        // laid out alike
	scratch           []float32    // as wide as the widest value
	panels            [][4]float32 // the same, for packPanels
}

func newTrainer(p *kernels.Program, o kernels.TrainOptions) (*trainer, error) {
	o, err := o.Resolve(p)
	if err != nil {
		return nil, fmt.Errorf("engine cpu cannot train this program: %w", err)
	}
	p = p.Clone()
	t := &trainer{layout: newLayout(p), program: p, options: o}
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
	size := t.planBackward(ops)
	t.parameters = make([]float32, size)
	t.moment1, t.moment2 = make([]float32, size), make([]float32, size)
	t.gradient = make([]float32, size)
	t.views = viewsOf(t.trained, t.parameters)
	for i, s := range p.Parameters(o.Prediction) {
		copy(t.views[i], s)
	}
	t.repack()

	shards := min(maxShards, (o.MaxBatch+block-1)/block)
	t.losses = make([]float64, shards)
	for range shards {
		t.shards = append(t.shards, make([]float32, size))
	}
	threads := min(o.Threads, shards)
	widest := 0
	for v, n := range t.layout.strides {
		if needed[v] {
			widest = max(widest, n)
		}
	}
	for range threads {
		w := worker{values: t.layout.newFrame(needed), gradients: t.layout.newFrame(needed)}
		w.values[kernels.Input] = make([]float32, block*t.layout.strides[kernels.Input])
		w.scratch, w.panels = make([]float32, block*widest), make([][4]float32, block*widest/4)
		t.workers = append(t.workers, w)
	}
	t.team = newTeam(threads)
	t.shardJob, t.reduceJob, t.updateJob = t.runShard, t.reduce, t.update
	return t, nil
}

// planBackward lists the backward steps in order and places the parameters; it returns their number.
func (t *trainer) planBackward(ops []op) int {
	p := t.program
	needed := p.Needed(t.options.Prediction)
	learns := p.Learns()
	size := 0
	at := make([]int, len(p.Steps))
	for i, s := range p.Steps {
		if g, ok := s.(*kernels.Gemm); ok && needed[i+1] {
			at[i] = size
			size += len(g.W) + len(g.B)
		}
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
			g := &gemmBackward{gemmOp: ops[i].(*gemmOp), w: at[i], b: at[i] + len(s.W), wide: t.layout.strides[s.In]}
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
	return size
}

// viewsOf cuts flat into W0, B0, W1, B1, …
func viewsOf(trained []*gemmBackward, flat []float32) [][]float32 {
	var views [][]float32
	for _, g := range trained {
		views = append(views, flat[g.w:g.b:g.b], flat[g.b:g.b+g.dense.out:g.b+g.dense.out])
	}
	return views
}

// repack brings the parameters into the form that the kernels read.
func (t *trainer) repack() {
	for i, g := range t.trained {
		g.dense.pack(t.views[2*i], t.views[2*i+1])
		if g.transposed != nil {
			g.transposed.packTransposed(t.views[2*i])
		}
	}
}

// pass runs the network over rows, at most MaxBatch, and returns the summed loss; where learn is set the
// gradient of the mean over of rows is left in the shards.
func (t *trainer) pass(rows []float32, of int, learn bool) float64 {
	n := len(rows) / t.program.Width
	t.rows, t.learn = rows, learn
	t.blocks = (n + block - 1) / block
	t.active = min(maxShards, t.blocks)
	t.scale = float32(1 / (float64(of) * float64(t.layout.widths[t.options.Prediction])))
	t.team.run(t.active, t.shardJob)
	t.rows = nil
	sum := 0.0
	for _, l := range t.losses[:t.active] {
		sum += l
	}
	return sum
}

func (t *trainer) runShard(worker, shard int) {
	w := &t.workers[worker]
	width, padded := t.program.Width, t.layout.strides[kernels.Input]
	n := len(t.rows) / width
	gradient := t.shards[shard]
	if t.learn {
		clear(gradient)
	}
	sum := 0.0
	from, to := shard*t.blocks/t.active, (shard+1)*t.blocks/t.active
	for at := from * block; at < min(to*block, n); at += block {
		k := min(block, n-at)
		input := w.values[kernels.Input]
		for r := range k {
			copy(input[r*padded:][:width], t.rows[(at+r)*width:])
		}
		for _, o := range t.forward {
			o.run(w.values, k)
		}
		sum += t.loss(w, k)
		if t.learn {
			for _, o := range t.backward {
				o.run(w, gradient, k)
			}
		}
	}
	t.losses[shard] = sum
}

// loss sums in float64, where not even the square of 1e30 overflows, and leaves the scaled gradient of the
// prediction.
func (t *trainer) loss(w *worker, n int) float64 {
	p, y := t.options.Prediction, t.options.Target
	width, pStride, yStride := t.layout.widths[p], t.layout.strides[p], t.layout.strides[y]
	sum := 0.0
	for r := range n {
		predicted := w.values[p][r*pStride:][:width]
		target := w.values[y][r*yStride:][:len(predicted)]
		d := w.gradients[p][r*pStride:][:len(predicted)]
		if t.options.Loss == kernels.Huber {
			sum += huber(predicted, target, d, t.options.Delta, t.scale)
		} else {
			sum += squares(predicted, target, d, 2*t.scale)
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

func (t *trainer) check(rows []float32, most int) (int, error) {
	if t.closed {
		return 0, errors.New("engine cpu: the trainer is closed")
	}
	width := t.program.Width
	n := len(rows) / width
	if n == 0 || len(rows)%width != 0 {
		return 0, fmt.Errorf("engine cpu: %d values are no whole number of rows of %d", len(rows), width)
	}
	if n > most {
		return 0, fmt.Errorf("engine cpu: %d rows in one step; MaxBatch is %d", n, most)
	}
	return n, nil
}

func (t *trainer) Step(rows []float32, rate float32) (float64, error) {
	n, err := t.check(rows, t.options.MaxBatch)
	if err != nil {
		return 0, err
	}
	loss := t.mean(t.pass(rows, n, true), n)
	if math.IsNaN(loss) || math.IsInf(loss, 0) {
		return loss, nil
	}
	t.steps++
	t.rate = rate
	t.correction1 = 1 / float32(1-math.Pow(0.9, float64(t.steps)))
	t.correction2 = 1 / float32(1-math.Pow(0.999, float64(t.steps)))
	t.team.run(t.ranges(), t.updateJob)
	t.repack()
	return loss, nil
}

func (t *trainer) mean(sum float64, n int) float64 {
	return sum / (float64(n) * float64(t.layout.widths[t.options.Prediction]))
}

func (t *trainer) ranges() int { return (len(t.parameters) + updateRange - 1) / updateRange }

// reduce adds the shards of one range of parameters in order.
func (t *trainer) reduce(_, part int) {
	lo := part * updateRange
	hi := min(lo+updateRange, len(t.parameters))
	total := t.gradient[lo:hi]
	copy(total, t.shards[0][lo:hi])
	for _, s := range t.shards[1:t.active] {
		s = s[lo:hi][:len(total)]
		for i := range total {
			total[i] += s[i]
		}
	}
}

// update makes the optimizer's step on one range.
func (t *trainer) update(worker, part int) {
	t.reduce(worker, part)
	lo := part * updateRange
	hi := min(lo+updateRange, len(t.parameters))
	g := t.gradient[lo:hi]
	if t.options.Optimizer == kernels.SGD {
		addScaled(t.parameters[lo:hi], g, -t.rate)
		return
	}
	w, m, v := t.parameters[lo:hi][:len(g)], t.moment1[lo:hi][:len(g)], t.moment2[lo:hi][:len(g)]
	c1, c2, rate := t.correction1, t.correction2, t.rate
	for i, x := range g {
		a := float32(beta1*m[i]) + float32((1-beta1)*x)
		b := float32(beta2*v[i]) + float32((1-beta2)*float32(x*x))
		m[i], v[i] = a, b
		root := float32(math.Sqrt(float64(float32(b * c2))))
		w[i] -= float32(rate * float32(a*c1) / (root + epsilon))
	}
}

func (t *trainer) Loss(rows []float32) (float64, error) {
	n, err := t.check(rows, math.MaxInt)
	if err != nil {
		return 0, err
	}
	sum, chunk := 0.0, t.options.MaxBatch*t.program.Width
	for at := 0; at < len(rows); at += chunk {
		sum += t.pass(rows[at:min(at+chunk, len(rows))], n, false)
	}
	return t.mean(sum, n), nil
}

func (t *trainer) Gradients(rows []float32) (float64, [][]float32, error) {
	n, err := t.check(rows, t.options.MaxBatch)
	if err != nil {
		return 0, nil, err
	}
	loss := t.mean(t.pass(rows, n, true), n)
	t.team.run(t.ranges(), t.reduceJob)
	return loss, copies(viewsOf(t.trained, t.gradient)), nil
}

func (t *trainer) Parameters() [][]float32 { return copies(t.views) }

func (t *trainer) SetParameters(from [][]float32) error {
	if err := kernels.SameShape(t.views, from); err != nil {
		return fmt.Errorf("engine cpu: %w", err)
	}
	for i := range from {
		copy(t.views[i], from[i])
	}
	clear(t.moment1)
	clear(t.moment2)
	t.steps = 0
	t.repack()
	return nil
}

// Close ends the workers. Parameters stay readable.
func (t *trainer) Close() error {
	if !t.closed {
		t.closed = true
		t.team.close()
	}
	return nil
}

func copies(from [][]float32) [][]float32 {
	to := make([][]float32, len(from))
	for i := range from {
		to[i] = append([]float32(nil), from[i]...)
	}
	return to
}

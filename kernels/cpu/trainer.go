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

// trainer is what both ways of training share: parameters, shards, threads and the order of sums.
type trainer struct {
	network network
	options kernels.TrainOptions
	width   int // of a row
	columns int // of the prediction

	trained          []trainedGemm
	parameters       []float32 // W0, B0, W1, B1, …, then padding
	views            [][]float32
	moment1, moment2 []float32 // Adam's
	steps            int
	gradient         []float32 // of the whole batch
	shards           []float32 // a gradient for each shard, side by side
	losses           []float64 // by shard, sums

	team   *team
	closed bool

	// What the current job works on.
	rows   []float32
	blocks int
	scale  float32 // of the loss's gradient
	learn  bool
	active int // shards
	step   step

	shardJob, reduceJob, updateJob func(worker, part int)
}

// network evaluates and differentiates a program block by block. It reads the parameters from the slice that it
// was made with.
type network interface {
	// block is the most rows of a call of run.
	block() int
	// run returns the summed loss of rows. Where gradient is not nil it is set to the loss's gradient times scale,
	// or has it added. Calls with different workers may run at once.
	run(worker int, rows []float32, scale float32, gradient []float32, add bool) float64
	// update makes the optimizer's step on parameters lo to hi.
	update(t *trainer, lo, hi int)
	// changed is called after the parameters have been set or stepped.
	changed()
}

// trainedGemm says where the parameters of step, a Gemm, begin.
type trainedGemm struct{ step, w, b, end int }

// step is one step of the optimizer.
type step struct{ rate, correction1, correction2 float32 }

// parametersPadding is what the number of parameters is a multiple of, so that updates go by whole vectors.
const parametersPadding = 16

func newTrainer(l level, p *kernels.Program, o kernels.TrainOptions) (*trainer, error) {
	o, err := o.Resolve(p)
	if err != nil {
		return nil, fmt.Errorf("engine cpu cannot train this program: %w", err)
	}
	p = p.Clone()
	t := &trainer{options: o, width: p.Width, columns: p.WidthOf(o.Prediction)}
	size := 0
	for i, need := range p.Needed(o.Prediction)[1:] {
		if g, ok := p.Steps[i].(*kernels.Gemm); ok && need {
			at := trainedGemm{step: i, w: size, b: size + len(g.W), end: size + len(g.W) + len(g.B)}
			t.trained = append(t.trained, at)
			size = at.end
		}
	}
	size = (size + parametersPadding - 1) / parametersPadding * parametersPadding
	t.parameters = make([]float32, size)
	t.moment1, t.moment2 = make([]float32, size), make([]float32, size)
	t.gradient = make([]float32, size)
	t.views = t.viewsOf(t.parameters)
	for i, s := range p.Parameters(o.Prediction) {
		copy(t.views[i], s)
	}
	if t.network = newVectorNetwork(l, p, o, t.trained, t.parameters); t.network == nil {
		t.network = newPortable(p, o, t.trained, t.parameters)
	}
	t.network.changed()

	shards := t.shardsOf(o.MaxBatch)
	t.losses = make([]float64, maxShards)
	t.shards = make([]float32, shards*size)
	t.team = newTeam(min(o.Threads, maxShards))
	t.shardJob, t.reduceJob, t.updateJob = t.runShard, t.reduce, t.update
	return t, nil
}

func (t *trainer) shardsOf(rows int) int {
	block := t.network.block()
	return min(maxShards, (rows+block-1)/block)
}

// viewsOf cuts flat into W0, B0, W1, B1, …
func (t *trainer) viewsOf(flat []float32) [][]float32 {
	var views [][]float32
	for _, g := range t.trained {
		views = append(views, flat[g.w:g.b:g.b], flat[g.b:g.end:g.end])
	}
	return views
}

// pass runs the network over rows and returns the summed loss; where learn is set, for at most MaxBatch rows, the
// gradient of the mean over of rows is left in the shards.
func (t *trainer) pass(rows []float32, of int, learn bool) float64 {
	n, block := len(rows)/t.width, t.network.block()
	t.rows, t.learn = rows, learn
	t.blocks = (n + block - 1) / block
	t.active = t.shardsOf(n)
	t.scale = float32(1 / (float64(of) * float64(t.columns)))
	t.team.run(t.active, t.shardJob)
	t.rows = nil
	sum := 0.0
	for _, l := range t.losses[:t.active] {
		sum += l
	}
	return sum
}

func (t *trainer) runShard(worker, shard int) {
	n, block, size := len(t.rows)/t.width, t.network.block(), len(t.parameters)
	var gradient []float32
	if t.learn {
		gradient = t.shards[shard*size:][:size]
	}
	sum := 0.0
	from, to := shard*t.blocks/t.active, (shard+1)*t.blocks/t.active
	for b := from; b < to; b++ {
		rows := t.rows[b*block*t.width : min((b+1)*block, n)*t.width]
		sum += t.network.run(worker, rows, t.scale, gradient, b > from)
	}
	t.losses[shard] = sum
}

func (t *trainer) check(rows []float32, most int) (int, error) {
	if t.closed {
		return 0, errors.New("engine cpu: the trainer is closed")
	}
	width := t.width
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
	t.step = step{
		rate:        rate,
		correction1: 1 / float32(1-math.Pow(0.9, float64(t.steps))),
		correction2: 1 / float32(1-math.Pow(0.999, float64(t.steps))),
	}
	t.team.run(t.ranges(), t.updateJob)
	t.network.changed()
	return loss, nil
}

func (t *trainer) mean(sum float64, n int) float64 {
	return sum / (float64(n) * float64(t.columns))
}

func (t *trainer) ranges() int { return (len(t.parameters) + updateRange - 1) / updateRange }

// reduce adds the shards of one range of parameters in order.
func (t *trainer) reduce(_, part int) {
	lo := part * updateRange
	hi := min(lo+updateRange, len(t.parameters))
	t.sum(lo, hi)
}

func (t *trainer) sum(lo, hi int) {
	size := len(t.parameters)
	total := t.gradient[lo:hi]
	copy(total, t.shards[lo:hi])
	for s := 1; s < t.active; s++ {
		shard := t.shards[s*size:][lo:hi][:len(total)]
		for i := range total {
			total[i] += shard[i]
		}
	}
}

func (t *trainer) update(_, part int) {
	lo := part * updateRange
	t.network.update(t, lo, min(lo+updateRange, len(t.parameters)))
}

func (t *trainer) Loss(rows []float32) (float64, error) {
	n, err := t.check(rows, math.MaxInt)
	if err != nil {
		return 0, err
	}
	// Without a gradient there is no bound but that of the shards' number.
	sum, chunk := 0.0, maxShards*t.network.block()*t.width
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
	return loss, copies(t.viewsOf(t.gradient)), nil
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
	t.network.changed()
	return nil
}

func (t *trainer) Moments() kernels.Moments {
	if t.options.Optimizer != kernels.Adam || t.steps == 0 {
		return kernels.Moments{}
	}
	return kernels.Moments{Steps: t.steps, First: copies(t.viewsOf(t.moment1)), Second: copies(t.viewsOf(t.moment2))}
}

func (t *trainer) SetMoments(m kernels.Moments) error {
	if err := m.Fits(t.options.Optimizer, t.views); err != nil {
		return fmt.Errorf("engine cpu: %w", err)
	}
	clear(t.moment1)
	clear(t.moment2)
	for i, at := range t.viewsOf(t.moment1)[:len(m.First)] {
		copy(at, m.First[i])
	}
	for i, at := range t.viewsOf(t.moment2)[:len(m.Second)] {
		copy(at, m.Second[i])
	}
	t.steps = m.Steps
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

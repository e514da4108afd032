package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
)

// walker is a trainer that has rows in memory of its own: so lapwing train uses it.
type walker interface {
	kernels.Trainer
	Hold(n int) (bool, error)
	Put(first int, rows []float32) error
	Walk(order []int32, sizes []int, rates []float32) ([]float64, error)
}

// holder is a cohort that has rows in such memory, once for all networks.
type holder interface {
	Hold(n int) (bool, error)
	Put(first int, rows []float32) error
	Walk(order []int32, sizes []int, rates [][]float32) ([][]float64, error)
}

// Rows that are trained on stay in the order in which they are, in as many minibatches as keep them below mostTrainRows.
const mostTrainRows = 1 << 20

// lesson is what all subjects of a cell train on: minibatches in turn, from the same weights. Losses are compared after one pass.
type lesson struct {
	p             *kernels.Program
	rows          []float32
	batch, chunks int
}

func (r *run) lesson(layers []int, batch int) lesson {
	l := lesson{p: plainProgram(layers[0], layers[1:], hiddenTanh), batch: batch, chunks: max(2, min(trainChunks, mostTrainRows/batch))}
	if r.Smoke {
		l.chunks = 2
	}
	l.rows = hiddenCauses(layers[0], l.chunks*batch, 1)
	return l
}

func (l *lesson) judged() []float32 { return l.rows[:l.batch*l.p.Width] }

// held is a trainer of the device that has the rows there.
func (l *lesson) held(g *GPU, p *kernels.Program) (walker, error) {
	t, err := newTrainer(g.Engine, p.Clone(), l.batch, 1)
	if err != nil {
		return nil, err
	}
	w, ok := t.(walker)
	if !ok {
		return nil, errors.Join(fmt.Errorf("engine %s trains step by step only", g.Engine.Name()), t.Close())
	}
	fits, err := w.Hold(len(l.rows) / p.Width)
	if err == nil && !fits {
		err = fmt.Errorf("the GPU has no memory for %d rows", len(l.rows)/p.Width)
	}
	if err == nil {
		err = w.Put(0, l.rows)
	}
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// passes makes so many over all minibatches, in calls of a size that a host can prepare without being felt.
func (l *lesson) passes(w walker, n int) error {
	const mostOrder = 1 << 22
	rows := l.chunks * l.batch
	at := max(1, min(n, mostOrder/rows))
	order, sizes, rates := make([]int32, 0, at*rows), make([]int, 0, at*l.chunks), make([]float32, 0, at*l.chunks)
	for range at {
		for i := range rows {
			order = append(order, int32(i))
		}
		for range l.chunks {
			sizes, rates = append(sizes, l.batch), append(rates, trainRate)
		}
	}
	for ; n > 0; n -= at {
		k := min(n, at)
		if losses, err := w.Walk(order[:k*rows], sizes[:k*l.chunks], rates[:k*l.chunks]); err != nil {
			return err
		} else if len(losses) < k*l.chunks {
			return fmt.Errorf("the loss is not finite after %d steps", len(losses))
		}
	}
	return nil
}

// stepped is one pass of a trainer that is given each minibatch.
func (l *lesson) stepped(t kernels.Trainer) error {
	size := l.batch * l.p.Width
	for at := 0; at < len(l.rows); at += size {
		if _, err := t.Step(l.rows[at:at+size], trainRate); err != nil {
			return err
		}
	}
	return nil
}

// Bounds of what rounding may do to a loss after a pass: the engines differ in the order of sums alone, PyTorch in its functions too.
const (
	engineBound = 1e-3
	peerBound   = 1e-2
)

// sameLosses holds what others came to after one pass to ours.
func sameLosses(kase string, losses map[string]float64) error {
	ours, ok := losses[Ours]
	for name, loss := range losses {
		bound := peerBound
		if name == onCPU {
			bound = engineBound
		}
		if ok && !(math.Abs(ours-loss) <= bound*loss) {
			return fmt.Errorf("%w: %s: after one pass %s has the loss %v, we have %v: more than %v %% apart", errDiffers, kase, name, loss, ours, 100*bound)
		}
	}
	return nil
}

// trainingWork is of a sample in multiply-adds: the products forward, and twice as many backward.
func trainingWork(p *kernels.Program) (sum float64) {
	widths := p.Widths()
	for _, s := range p.Steps {
		if g, ok := s.(*kernels.Gemm); ok {
			sum += 3 * float64(g.Out*widths[g.In])
		}
	}
	return sum
}

// trainLimits are what the device could train at best: by its multiply-adds, and where each step is a launch.
func (r *run) trainLimits(p *kernels.Program, batch, networks int) (limits []subject) {
	g := r.GPU
	if g.MultiplyAdds > 0 {
		limits = append(limits, subject{name: addsLimit, role: Limit, once: one("samples/s", func(context.Context) (float64, error) { return g.MultiplyAdds / trainingWork(p), nil })})
	}
	return append(limits, subject{name: launchLimit, role: Limit, once: one("samples/s", func(ctx context.Context) (float64, error) {
		times, err := r.paced(ctx, func(times int) (time.Duration, error) { return g.LaunchTime(times, false) })
		return times * float64(batch*networks), err
	})})
}

var gpuTrainMetrics = []metric{{name: "samples/s", unit: "1/s"}, {name: "loss", lower: true, bound: 1}}

// gpuTrain compares minibatch steps on rows in device memory with PyTorch's, and with all processors.
func (r *run) gpuTrain(ctx context.Context, torch *torch) error {
	batches := []int{256, 1024, 4096, 16384, 65536}
	if r.Smoke {
		batches = batches[:3]
	}
	for _, layers := range [][]int{{30, 14, 7, 14}, {18, 14, 7, 7}} {
		for _, batch := range batches {
			if err := r.gpuTrainNet(ctx, layers, batch, torch); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *run) gpuTrainNet(ctx context.Context, layers []int, batch int, torch *torch) error {
	g, l := r.GPU, r.lesson(layers, batch)
	name := fmt.Sprintf("%d-%d-%d-%d-%d", layers[0], layers[1], layers[2], layers[3], layers[0])
	c := cell{suite: "gpu", group: "train " + name, x: float64(batch), xName: "batch", kase: fmt.Sprintf("train %s, batch %d", name, batch)}
	losses := map[string]float64{}
	us := subject{name: Ours, once: func(ctx context.Context) (figures, error) {
		w, err := l.held(g, l.p)
		if err != nil {
			return nil, err
		}
		defer w.Close()
		if err := l.passes(w, 1); err != nil {
			return nil, err
		}
		if losses[Ours], err = w.Loss(l.judged()); err != nil {
			return nil, err
		}
		times, err := r.paced(ctx, func(times int) (time.Duration, error) { return since(func() error { return l.passes(w, times) }) })
		return figures{"samples/s": times * float64(l.chunks*batch), "loss": losses[Ours]}, err
	}}
	subjects := []subject{us, r.cpuTrains(&l, losses)}
	more, err := torch.timedSubjects(ctx, []*kernels.Program{l.p}, &l, losses)
	if err != nil {
		return err
	}
	subjects = append(subjects, more...)
	subjects = append(subjects, r.trainLimits(l.p, batch, 1)...)
	m, err := r.measure(ctx, c, gpuTrainMetrics, subjects...)
	if err != nil {
		return err
	}
	if err := sameLosses(c.kase, losses); err != nil {
		return err
	}
	if layers[0] == 30 && (batch == 256 || batch == 4096) {
		graphs := map[int]float64{256: 8, 4096: 10}[batch]
		r.targetRatio(c.kase+", times PyTorch eager, on the GPU", 40, m, Ours, torchEager, "samples/s", false)
		r.targetRatio(c.kase+", times PyTorch with CUDA graphs, on the GPU", graphs, m, Ours, torchGraphs, "samples/s", false)
		if batch == 4096 && g.is("H100") {
			r.target(c.kase+", on the GPU", .3e9, m.value(Ours, "samples/s"), "1/s", false).Noisy = m.row(Ours, "samples/s").Noisy != ""
		}
	}
	return nil
}

// cpuTrains is the engine for processors on all of them.
func (r *run) cpuTrains(l *lesson, losses map[string]float64) subject {
	return subject{name: onCPU, once: func(ctx context.Context) (figures, error) {
		t, err := newTrainer(cpu.New(), l.p.Clone(), l.batch, runtime.GOMAXPROCS(0))
		if err != nil {
			return nil, err
		}
		defer t.Close()
		if err := l.stepped(t); err != nil {
			return nil, err
		}
		if losses[onCPU], err = t.Loss(l.judged()); err != nil {
			return nil, err
		}
		passes, err := r.perSecond(ctx, func() error { return l.stepped(t) })
		return figures{"samples/s": passes * float64(l.chunks*l.batch), "loss": losses[onCPU]}, err
	}}
}

// oneAlone is what many networks at once are held to, in the same rounds.
const oneAlone = "lapwing, one network"

// gpuCandidates trains many networks at once over the same minibatches. PyTorch gets them as products of stacks of matrices.
func (r *run) gpuCandidates(ctx context.Context, torch *torch) error {
	const batch = 256
	counts := []int{1, 32, 256, 1024}
	if r.Smoke {
		counts = counts[:2]
	}
	g, l := r.GPU, r.lesson([]int{30, 14, 7, 14}, batch)
	var programs []*kernels.Program
	for k := range counts[len(counts)-1] {
		p := l.p.Clone()
		kernels.Initialise(p, uint64(k+1))
		programs = append(programs, p)
	}
	for _, n := range counts {
		c := cell{suite: "gpu", group: "train networks of 30-14-7-14-30 at once, batch 256", x: float64(n), xName: "networks", kase: fmt.Sprintf("train %d networks of 30-14-7-14-30 at once, batch %d", n, batch)}
		losses := map[string]float64{}
		subjects := []subject{{name: Ours, once: r.cohort(&l, programs[:n], losses)}}
		if n > 1 {
			subjects = append(subjects, subject{name: oneAlone, once: r.cohort(&l, programs[:1], nil)})
		}
		last := l
		last.p = programs[n-1] // the last one stands for all: each is trained on its own
		processor := r.cpuTrains(&last, losses)
		if n > 1 {
			// Not timed: networks are trained one after another there, and the row of one says it.
			if _, err := processor.once(ctx); err != nil {
				return err
			}
		} else {
			subjects = append(subjects, processor)
		}
		more, err := torch.timedSubjects(ctx, programs[:n], &l, losses)
		if err != nil {
			return err
		}
		subjects = append(subjects, more...)
		subjects = append(subjects, r.trainLimits(l.p, batch, n)...)
		m, err := r.measure(ctx, c, []metric{{name: "samples/s", unit: "1/s"}, {name: "step", unit: "µs", lower: true}}, subjects...)
		if err != nil {
			return err
		}
		if err := sameLosses(c.kase, losses); err != nil {
			return err
		}
		if n > 1 && (n <= g.SMs || n == 256) {
			waves := math.Ceil(float64(n) / float64(g.SMs))
			r.targetRatio(fmt.Sprintf("train %d networks at once on %d SMs, times the time of one", n, g.SMs), 1.15*waves, m, Ours, oneAlone, "step", true)
		}
	}
	return nil
}

// cohort trains networks side by side; the loss is the last one's.
func (r *run) cohort(l *lesson, programs []*kernels.Program, losses map[string]float64) func(context.Context) (figures, error) {
	return func(ctx context.Context) (figures, error) {
		target, prediction, _ := l.p.Residual()
		c, err := kernels.NewCohort(r.GPU.Engine, programs, kernels.TrainOptions{Target: target, Prediction: prediction, MaxBatch: l.batch, Threads: 1})
		if err != nil {
			return nil, err
		}
		defer c.Close()
		n := len(programs)
		steps, err := l.stepsOf(c)
		if err != nil {
			return nil, err
		}
		passes := func(times int) error {
			for range times {
				rates := make([][]float32, n) // its own each time: what stops is cut short there
				for k := range rates {
					for range l.chunks {
						rates[k] = append(rates[k], trainRate)
					}
				}
				if err := steps(rates); err != nil {
					return err
				}
			}
			return nil
		}
		if err := passes(1); err != nil {
			return nil, err
		}
		if losses != nil {
			of := make([]bool, n)
			of[n-1] = true
			found, err := c.Loss(l.judged(), of)
			if err != nil {
				return nil, err
			}
			losses[Ours] = found[n-1]
		}
		times, err := r.paced(ctx, func(times int) (time.Duration, error) { return since(func() error { return passes(times) }) })
		return figures{"samples/s": times * float64(n*l.chunks*l.batch), "step": 1e6 / (times * float64(l.chunks))}, err
	}
}

// stepsOf makes the networks of a cohort step over the lesson, whose rows it holds where it can.
func (l *lesson) stepsOf(c kernels.Cohort) (func(rates [][]float32) error, error) {
	h, ok := c.(holder)
	rows := len(l.rows) / l.p.Width
	if ok {
		var err error
		if ok, err = h.Hold(rows); err == nil && ok {
			err = h.Put(0, l.rows)
		}
		if err != nil {
			return nil, err
		}
	}
	if !ok {
		return func(rates [][]float32) error { _, err := c.Steps(l.rows, l.batch, rates); return err }, nil
	}
	order, sizes := make([]int32, rows), make([]int, l.chunks)
	for i := range order {
		order[i] = int32(i)
	}
	for i := range sizes {
		sizes[i] = l.batch
	}
	return func(rates [][]float32) error { _, err := h.Walk(order, sizes, rates); return err }, nil
}

// gpuToLoss is how long each takes to the validation loss that a number of steps give the engine for processors, from the same
// weights, the rows being on the device, and asked every 100 steps.
func (r *run) gpuToLoss(ctx context.Context, torch *torch) error {
	const batch, every = 256, 100
	rounds := 20
	if r.Smoke {
		rounds = 1
	}
	l := r.lesson([]int{30, 14, 7, 14}, batch)
	l.chunks = trainChunks
	l.rows = hiddenCauses(30, l.chunks*batch, 1)
	held := hiddenCauses(30, 2048, 9)
	t, err := newTrainer(cpu.New(), l.p.Clone(), batch, 1)
	if err != nil {
		return err
	}
	defer t.Close()
	for n := range rounds * every {
		at := n % l.chunks * batch * l.p.Width
		if _, err := t.Step(l.rows[at:at+batch*l.p.Width], trainRate); err != nil {
			return err
		}
	}
	goal, err := t.Loss(held)
	if err != nil {
		return err
	}
	goal *= 1.005 // the others round in another order
	us := subject{name: Ours, once: one("time", func(ctx context.Context) (float64, error) {
		w, err := l.held(r.GPU, l.p)
		if err != nil {
			return 0, err
		}
		defer w.Close()
		sizes, rates := make([]int, every), make([]float32, every)
		for i := range every {
			sizes[i], rates[i] = batch, trainRate
		}
		order := make([]int32, every*batch)
		began, loss := time.Now(), math.Inf(1)
		for n := 0; n < 2*rounds && loss > goal; n++ {
			for s := range every {
				for i := range batch {
					order[s*batch+i] = int32((n*every+s)%l.chunks*batch + i)
				}
			}
			if _, err := w.Walk(order, sizes, rates); err != nil {
				return 0, err
			}
			if loss, err = w.Loss(held); err != nil {
				return 0, err
			}
			if err := ctx.Err(); err != nil {
				return 0, err
			}
		}
		if loss > goal {
			return 0, fmt.Errorf("%w: the loss is %v after %d steps, not %v", errDiffers, loss, 2*rounds*every, goal)
		}
		return 1e3 * time.Since(began).Seconds(), nil
	})}
	subjects := append([]subject{us}, torch.untilSubjects(ctx, l.p, l.rows, held, batch, every, 2*rounds, goal)...)
	_, err = r.measure(ctx, cell{suite: "gpu", kase: fmt.Sprintf("train 30-14-7-14-30, batch %d: to the validation loss that %d steps give", batch, rounds*every)},
		[]metric{{name: "time", unit: "ms", lower: true}}, subjects...)
	return err
}

// timedSubjects are PyTorch's ways on the device, with rows and networks there, and fused Adam. Each first makes one pass, after which its
// loss goes into losses: the last network's, where there are several.
func (t *torch) timedSubjects(ctx context.Context, networks []*kernels.Program, l *lesson, losses map[string]float64) ([]subject, error) {
	var subjects []subject
	for _, mode := range t.modes {
		s := subject{name: mode.name, role: Peer, absent: t.absent}
		if s.absent == nil {
			request, err := t.networks(networks, l.rows)
			if err != nil {
				return nil, err
			}
			request["op"], request["name"], request["batch"], request["rate"], request["how"], request["judged"] = "train", mode.name, l.batch, trainRate, mode.how, l.batch
			var a struct{ Loss float64 }
			if s.absent = t.ask(ctx, request, &a); s.absent == nil {
				s.absent = t.ask(ctx, map[string]any{"op": "steps", "name": mode.name, "steps": l.chunks}, &a)
			}
			if s.absent == nil {
				losses[mode.name] = a.Loss
			}
		}
		s.once = func(ctx context.Context) (figures, error) {
			var a struct{ Seconds, Steps float64 }
			if err := t.ask(ctx, map[string]any{"op": "timed", "name": mode.name, "seconds": t.sample.Seconds()}, &a); err != nil {
				return nil, err
			}
			return figures{"samples/s": a.Steps * float64(l.batch*len(networks)) / a.Seconds, "step": 1e6 * a.Seconds / a.Steps, "loss": losses[mode.name]}, nil
		}
		subjects = append(subjects, s)
	}
	return subjects, nil
}

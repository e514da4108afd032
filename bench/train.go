package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/kernels/gorgonia"
)

// Training from the same weights on the same minibatches with the same rate: the losses must agree too.
const (
	trainRate   = 1e-3
	trainChunks = 64 // minibatches, taken in turn
)

var trainMetrics = []metric{{name: "samples/s", unit: "1/s"}, {name: "loss", lower: true, bound: 1}}

// trainSuite compares minibatch steps with Gorgonia's and PyTorch's: eager with fused Adam, and compiled.
func trainSuite(ctx context.Context, r *run) error {
	torch := r.startTorch(ctx, "cpu")
	defer torch.close()
	for _, layers := range [][]int{{30, 14, 7, 14}, {18, 14, 7, 7}} {
		for _, batch := range []int{256, 1024} {
			for _, threads := range r.scoreThreads() {
				if err := r.trainNet(ctx, layers, batch, threads, torch); err != nil {
					return err
				}
			}
		}
	}
	return r.timeToLoss(ctx, torch)
}

func (r *run) trainNet(ctx context.Context, layers []int, batch, threads int, torch *torch) error {
	width := layers[0]
	name := fmt.Sprintf("%d-%d-%d-%d-%d", layers[0], layers[1], layers[2], layers[3], layers[0])
	steps := 400 * 256 / batch
	if r.Smoke || r.Records < 100_000 {
		steps = 20 // whether losses agree needs no more
	}
	data := hiddenCauses(width, trainChunks*batch, 1)
	p := plainProgram(width, layers[1:], hiddenTanh)
	losses := map[string]float64{}
	engine := func(e kernels.Engine) func(context.Context) (figures, error) {
		return func(ctx context.Context) (figures, error) {
			t, err := newTrainer(e, p.Clone(), batch, threads)
			if err != nil {
				return nil, err
			}
			defer t.Close()
			n := 0
			start := time.Now()
			for time.Since(start) < r.Sample && !r.Smoke || n == 0 {
				// The loss is compared after the first steps; whoever is faster goes on until the sample is long enough.
				for s := range steps {
					at := (n + s) % trainChunks * batch * width
					if _, err := t.Step(data[at:at+batch*width], trainRate); err != nil {
						return nil, err
					}
				}
				n += steps
				if losses[e.Name()] == 0 {
					if losses[e.Name()], err = t.Loss(data[:batch*width]); err != nil {
						return nil, err
					}
					start, n = time.Now(), 0
				}
				if err := ctx.Err(); err != nil {
					return nil, err
				}
			}
			seconds := time.Since(start).Seconds()
			return figures{"samples/s": float64(n) * float64(batch) / seconds, "loss": losses[e.Name()]}, nil
		}
	}
	ours, theirs := cpu.New(), gorgonia.New()
	subjects := []subject{{name: Ours, once: engine(ours)}}
	if batch == 256 {
		subjects = append(subjects, subject{name: "gorgonia", role: Peer, rounds: 3, once: engine(theirs)}) // slow, and steady
	}
	more, err := torch.trainSubjects(ctx, p, data, batch, threads, steps, losses)
	if err != nil {
		return err
	}
	subjects = append(subjects, more...)
	c := cell{suite: "train", kase: fmt.Sprintf("%s, batch %d, %s", name, batch, plural(threads, "thread"))}
	m, err := r.measure(ctx, c, trainMetrics, subjects...)
	if err != nil {
		return err
	}
	for peer, loss := range losses {
		// Where ours failed its row says so. A loss that is NaN agrees with nothing.
		if a, ok := losses[ours.Name()]; ok && !(math.Abs(a-loss) <= .01*loss) {
			return fmt.Errorf("%w: %s: after %d steps %s has the loss %v, we have %v: more than 1 %% apart", errDiffers, c.kase, steps, peer, loss, a)
		}
	}
	if batch == 256 && threads == min(2, runtime.GOMAXPROCS(0)) {
		r.targetRatio(fmt.Sprintf("train %s, times the Gorgonia engine", c.kase), 30, m, Ours, "gorgonia", "samples/s", false)
	}
	if threads == 1 {
		best := torchEager
		if c := m.value(torchCompiled, "samples/s"); c > 0 && !(m.value(torchEager, "samples/s") >= c) { // NaN where one failed
			best = torchCompiled
		}
		want := 8.
		if batch == 1024 {
			want = 4
		}
		r.targetRatio(fmt.Sprintf("train %s, times the best of PyTorch", c.kase), want, m, Ours, best, "samples/s", false)
	}
	return nil
}

func newTrainer(e kernels.Engine, p *kernels.Program, batch, threads int) (kernels.Trainer, error) {
	target, prediction, ok := p.Residual()
	if !ok {
		return nil, fmt.Errorf("the program has no residual to train on")
	}
	return e.Trainer(p, kernels.TrainOptions{Target: target, Prediction: prediction, MaxBatch: batch, Threads: threads})
}

// timeToLoss is how long each takes to the validation loss that Lapwing has after a number of steps, from the same weights.
// Every engine makes the same steps, and tells the loss as often.
func (r *run) timeToLoss(ctx context.Context, torch *torch) error {
	const batch, width, every = 256, 30, 100
	rounds := 20
	if r.Smoke || r.Records < 100_000 {
		rounds = 1
	}
	data, held := hiddenCauses(width, trainChunks*batch, 1), hiddenCauses(width, 2048, 9)
	p := plainProgram(width, []int{14, 7, 14}, hiddenTanh)
	train := func(e kernels.Engine, until func() float64, most int) (float64, float64, error) {
		t, err := newTrainer(e, p.Clone(), batch, 1)
		if err != nil {
			return 0, 0, err
		}
		defer t.Close()
		start, loss := time.Now(), math.Inf(1)
		for n := 0; n < most && loss > until(); n++ {
			for s := range every {
				at := (n*every + s) % trainChunks * batch * width
				if _, err := t.Step(data[at:at+batch*width], trainRate); err != nil {
					return 0, 0, err
				}
			}
			if loss, err = t.Loss(held); err != nil {
				return 0, 0, err
			}
			if err := ctx.Err(); err != nil {
				return 0, 0, err
			}
		}
		return time.Since(start).Seconds(), loss, nil
	}
	_, goal, err := train(cpu.New(), func() float64 { return 0 }, rounds)
	if err != nil {
		return err
	}
	goal *= 1.005 // the others round in another order
	timed := func(e kernels.Engine) func(context.Context) (figures, error) {
		return one("time", func(context.Context) (float64, error) {
			seconds, loss, err := train(e, func() float64 { return goal }, 2*rounds)
			if err == nil && loss > goal {
				err = fmt.Errorf("the loss is %v after %d steps, not %v", loss, 2*rounds*every, goal)
			}
			return 1000 * seconds, err
		})
	}
	subjects := []subject{{name: Ours, once: timed(cpu.New())}, {name: "gorgonia", role: Peer, rounds: 3, once: timed(gorgonia.New())}}
	subjects = append(subjects, torch.untilSubjects(ctx, p, data, held, batch, every, 2*rounds, goal)...)
	_, err = r.measure(ctx, cell{suite: "train", kase: fmt.Sprintf("30-14-7-14-30, batch %d, 1 thread: to the validation loss that %d steps give", batch, rounds*every)},
		[]metric{{name: "time", unit: "ms", lower: true}}, subjects...)
	return err
}

// trainSubjects are PyTorch with fused Adam, eager and compiled. Their losses after the steps go into losses.
func (t *torch) trainSubjects(ctx context.Context, p *kernels.Program, data []float32, batch, threads, steps int, losses map[string]float64) ([]subject, error) {
	var subjects []subject
	for _, mode := range t.modes {
		name := mode.name
		s := subject{name: name, role: Peer, absent: t.absent}
		if s.absent == nil && mode.compiled() && threads > 1 {
			s.absent = errors.New("compiled for one thread only: it takes up to half a minute each time")
		}
		if s.absent == nil {
			request, err := t.layers(p, data)
			if err != nil {
				return nil, err
			}
			request["op"], request["name"], request["batch"], request["threads"], request["rate"] = "train", name, batch, threads, trainRate
			request["how"], request["judged"] = mode.how, batch
			var nothing struct{}
			s.absent = t.ask(ctx, request, &nothing)
		}
		s.once = func(ctx context.Context) (figures, error) {
			var a struct{ Seconds, Loss float64 }
			if err := t.ask(ctx, map[string]any{"op": "steps", "name": name, "steps": steps, "threads": threads}, &a); err != nil {
				return nil, err
			}
			losses[name] = a.Loss
			return figures{"samples/s": float64(steps*batch) / a.Seconds, "loss": a.Loss}, nil
		}
		subjects = append(subjects, s)
	}
	return subjects, nil
}

// untilSubjects are PyTorch's times to a loss over held rows.
func (t *torch) untilSubjects(ctx context.Context, p *kernels.Program, data, held []float32, batch, every, most int, goal float64) []subject {
	var subjects []subject
	for _, mode := range t.modes {
		name := mode.name
		s := subject{name: name, role: Peer, absent: t.absent}
		if s.absent == nil {
			request, err := t.layers(p, slices.Concat(data, held))
			if err == nil {
				request["op"], request["name"], request["batch"], request["rate"], request["how"] = "train", name, batch, trainRate, mode.how
				request["judged"], request["held"] = batch, len(held)/p.Width
				var nothing struct{}
				err = t.ask(ctx, request, &nothing)
			}
			s.absent = err
		}
		s.once = one("time", func(ctx context.Context) (float64, error) {
			var a struct{ Seconds, Loss float64 }
			err := t.ask(ctx, map[string]any{"op": "steps", "name": name, "steps": every * most, "every": every, "goal": goal}, &a)
			if err == nil && a.Loss > goal {
				err = fmt.Errorf("the loss is %v after %d steps, not %v", a.Loss, every*most, goal)
			}
			return 1000 * a.Seconds, err
		})
		subjects = append(subjects, s)
	}
	return subjects
}

package bench

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/kernels/gorgonia"
)

// trainSuite compares minibatch steps of the fused engine with the Gorgonia engine.
func trainSuite(ctx context.Context, r *run) error {
	const width, batch, rate = 30, 256, 1e-3
	steps := max(20, min(200, r.Records/1000)) // a smoke test need not learn
	rng := rand.New(rand.NewPCG(1, 2))
	data := make([]float32, 64*batch*width)
	for i := 0; i < len(data); i += width { // five hidden causes and some noise: something to learn
		var cause [5]float64
		for k := range cause {
			cause[k] = rng.NormFloat64()
		}
		for j := range width {
			data[i+j] = float32(cause[j%5] + .5*cause[(j+1)%5]*cause[j%3] + .1*rng.NormFloat64())
		}
	}
	columns := make([]kernels.Column, width)
	for j := range columns {
		columns[j] = kernels.Column{Lo: float32(math.Inf(-1)), Hi: float32(math.Inf(1)), X: []float32{0}, Y: []float32{0}, Before: 1, After: 1}
	}
	threads := min(2, runtime.GOMAXPROCS(0))
	losses := map[string]float64{}
	once := func(e kernels.Engine) func(context.Context) (figures, error) {
		return one("samples/s", func(ctx context.Context) (float64, error) {
			p := kernels.Autoencoder(columns, []int{14, 7, 14}, []kernels.Activation{kernels.Tanh, kernels.Linear, kernels.Tanh})
			kernels.Initialise(p, 1)
			target, prediction, ok := p.Residual()
			if !ok {
				return 0, fmt.Errorf("the program has no residual to train on")
			}
			t, err := e.Trainer(p, kernels.TrainOptions{Target: target, Prediction: prediction, MaxBatch: batch, Threads: threads})
			if err != nil {
				return 0, err
			}
			defer t.Close()
			start := time.Now()
			for s := range steps {
				if err := ctx.Err(); err != nil {
					return 0, err
				}
				at := s % 64 * batch * width
				if _, err := t.Step(data[at:at+batch*width], rate); err != nil {
					return 0, err
				}
			}
			seconds := time.Since(start).Seconds()
			loss, err := t.Loss(data[:batch*width])
			losses[e.Name()] = loss
			return float64(steps) * batch / seconds, err
		})
	}
	m, err := r.measure(ctx, cell{suite: "train", kase: fmt.Sprintf("30-14-7-14-30, batch %d, %d threads", batch, threads)}, []metric{{name: "samples/s", unit: "1/s"}},
		subject{name: Ours, once: once(cpu.New())}, subject{name: "gorgonia", role: Peer, once: once(gorgonia.New())})
	if err != nil {
		return err
	}
	a, b := losses[cpu.New().Name()], losses[gorgonia.New().Name()]
	if math.Abs(a-b) > .01*b {
		return fmt.Errorf("%w: after %d steps the losses differ by more than 1 %%: %v and %v", errDiffers, steps, a, b)
	}
	r.targetRatio("training, times the Gorgonia engine", 2, m, Ours, "gorgonia", "samples/s", false)
	return nil
}

package trainer

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/model"
)

const (
	// A run without Epochs makes usualEpochs passes, but leastSteps to mostSteps of Adam, and never fewer than leastEpochs.
	// By experiment: of 40,000 rows of the generated fleet 1,000 steps leave faults unseen (recall 0.90 to 0.97 on three
	// seeds, five minutes to detection) that 2,800 find (1.00, three and a half). On nine adbench sets of 129 to 7,200 rows, a
	// tenth or more of them anomalous, 3,000 steps learn the anomalies too (mean average precision 0.42, with 1,000 0.52).
	usualEpochs = 20
	leastSteps  = 1000
	mostSteps   = 3000
	leastEpochs = 3
	warmUpSteps = 50 // from 0 to the full rate; then a cosine to 0
	evaluations = 30 // of the validation loss in a run, at most
	// validationRows bounds what an evaluation costs; beyond it, evenly spread rows stand for all.
	validationRows = 16384
	// A run whose validation loss is this many times that of the untrained network has diverged, even if finite.
	divergedFactor = 10
	retries        = 3 // with a quarter of the rate each
)

// narrow chooses the widths for n columns that vary: n → h → k → h → n. One column leaves nothing to compress:
// its score is the distance from the middle, in robust units, and there is no network.
//
// By experiment on the generated fleet (18 columns, two seeds, 80 episodes, alarms after three records): a code of half
// the columns finds 0.96 of the faults, a third 0.62, two ninths 0.34, as what a narrower code cannot hold of normal
// rows drowns a broken relation; hidden layers of 3/2 of the columns do as well as of twice, those of once find 0.89.
func narrow(n int) []int {
	if n < 2 {
		return nil
	}
	h := min(max(3*n/2, 16), 64)
	return []int{h, n / 2, h}
}

// activations are tanh, but linear for the code (the first of the narrowest) and for the output.
func activations(layers []int) []kernels.Activation {
	acts := make([]kernels.Activation, len(layers)+1)
	code := 0
	for i := range layers {
		acts[i] = kernels.Tanh
		if layers[i] < layers[code] {
			code = i
		}
	}
	acts[code] = kernels.Linear
	acts[len(layers)] = kernels.Linear
	return acts
}

func layerNames(layers []int) string {
	if len(layers) == 0 {
		return "none"
	}
	names := make([]string, len(layers))
	for i, w := range layers {
		names[i] = strconv.Itoa(w)
	}
	return strings.Join(names, ",")
}

// fitted is a trained program and how it came about.
type fitted struct {
	program          *kernels.Program
	layers           []int
	steps            int
	batch            int
	rate             float64 // used
	curve            []model.Epoch
	validation       int // rows
	loss             float64
	untrained        float64
	best             int // epoch of the weights taken
	samplesPerSecond float64
}

// program builds the untrained network for the given columns.
func (j *job) program(columns []kernels.Column, constant []bool) (*kernels.Program, []int, error) {
	layers := j.Layers
	if layers == nil {
		varying := 0
		for _, c := range constant {
			if !c {
				varying++
			}
		}
		layers = narrow(varying)
	}
	all := append(append([]int{len(columns)}, layers...), len(columns))
	if bytes := weightBytes(all); bytes > maxWeightBytes {
		return nil, nil, weightError(all, bytes)
	}
	p := kernels.Autoencoder(columns, layers, activations(layers))
	inverse := p.Steps[p.Reconstruction-1].(*kernels.Map)
	for i, c := range constant {
		if c {
			inverse.Columns[i] = kernels.Flat(columns[i].X[1])
		}
	}
	if err := p.Validate(); err != nil {
		return nil, nil, fmt.Errorf("the network for layers %s: %w", layerNames(layers), err)
	}
	return p, layers, nil
}

// fit trains the network; it tries again with a lower rate where training diverges.
func (j *job) fit(ctx context.Context, h *history, c *columns) (*fitted, error) {
	program, layers, err := j.program(c.forward, c.constant)
	if err != nil {
		return nil, err
	}
	f := &fitted{program: program, layers: layers}
	if len(layers) == 0 {
		f.validation = 0
		return f, nil
	}
	train, validation := h.split()
	f.validation = validation.n
	f.batch = min(j.BatchSize, train.n)

	target, prediction, ok := program.Residual()
	if !ok {
		return nil, fmt.Errorf("the network for layers %s has no residual to train", layerNames(layers))
	}
	kernels.Initialise(program, j.Seed)
	trainer, err := j.Engine.Trainer(program, kernels.TrainOptions{
		Prediction: prediction, Target: target, Loss: kernels.MSE, MaxBatch: f.batch, Threads: j.Threads,
	})
	if err != nil {
		return nil, err
	}
	defer trainer.Close()
	initial := trainer.Parameters()

	rows := validation.spread(validationRows)
	if len(rows) == 0 {
		rows = train.spread(validationRows)
	}
	held, err := h.gather(rows, nil)
	if err != nil {
		return nil, err
	}
	f.rate = j.LearningRate
	for try := 0; ; try++ {
		weights, err := j.descend(ctx, h, trainer, train, held, f)
		if err == nil {
			return f, adopt(program, weights)
		}
		if d := (*divergence)(nil); !asDivergence(err, &d) {
			return nil, err
		} else if try == retries {
			return nil, &InputError{
				What:  fmt.Sprintf("training diverged %d times, last at rate %.3g: %s in step %d", try+1, f.rate, d.what, d.step),
				Place: "topic " + j.Topic,
				Next:  "lower the learning rate, or look for columns with extreme values (lapwing train --dry-run)", Kind: ErrDiverged,
			}
		} else {
			j.Log.Warn("training diverged; trying again with a lower rate", "what", d.what, "step", d.step, "rate", f.rate, "next_rate", f.rate/4)
		}
		f.rate /= 4
		if err := trainer.SetParameters(initial); err != nil {
			return nil, err
		}
	}
}

// divergence says when the loss left all bounds.
type divergence struct {
	what string
	step int
}

func (d *divergence) Error() string { return d.what }

func asDivergence(err error, to **divergence) bool {
	d, ok := err.(*divergence)
	*to = d
	return ok
}

// schedule is the share of the full rate at a step: linear warm-up, then half a cosine.
func schedule(step, total int) float64 {
	warm := min(warmUpSteps, total/10)
	if step < warm {
		return float64(step+1) / float64(warm)
	}
	return .5 * (1 + math.Cos(math.Pi*float64(step-warm)/float64(max(total-warm, 1))))
}

// descend runs Adam once and returns the weights with the lowest validation loss.
func (j *job) descend(ctx context.Context, h *history, t kernels.Trainer, train *rowSet, held []float32, f *fitted) ([][]float32, error) {
	perEpoch := (train.n + f.batch - 1) / f.batch
	total := max(leastSteps, min(usualEpochs*perEpoch, mostSteps), leastEpochs*perEpoch)
	if j.Epochs > 0 {
		total = j.Epochs * perEpoch
	}
	epochs := (total + perEpoch - 1) / perEpoch
	every := max(total/evaluations, 1)

	order := h.epochs(train, j.Seed)
	rows := make([]float32, 0, f.batch*h.width)
	started := time.Now()
	samples := int64(0)

	untrained, err := t.Loss(held)
	if err != nil {
		return nil, err
	}
	f.untrained, f.loss, f.curve, f.steps = untrained, math.Inf(1), nil, 0
	p := Progress{Stage: "fit", Epoch: 1, Epochs: epochs, Validation: untrained, Train: untrained}
	var best [][]float32
	worse := 0
	var sum float64
	var summed int
	for step := range total {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		if rows, err = order.next(f.batch, rows); err != nil {
			return nil, err
		}
		loss, err := t.Step(rows, float32(f.rate*schedule(step, total)))
		if err != nil {
			return nil, err
		}
		if math.IsNaN(loss) || math.IsInf(loss, 0) {
			return nil, &divergence{fmt.Sprintf("loss %v", loss), step + 1}
		}
		sum += loss
		summed++
		samples += int64(len(rows) / h.width)
		f.steps = step + 1
		p.Epoch = step/perEpoch + 1
		if s := time.Since(started).Seconds(); s > 0 {
			p.SamplesPerSecond = float64(samples) / s
			p.Left = time.Duration(s / float64(step+1) * float64(total-step-1) * float64(time.Second))
		}
		if (step+1)%every != 0 && step+1 != total {
			p.Records = samples
			j.report(p, false)
			continue
		}
		validation, err := t.Loss(held)
		if err != nil {
			return nil, err
		}
		if math.IsNaN(validation) || validation > divergedFactor*max(untrained, 1) {
			return nil, &divergence{fmt.Sprintf("validation loss %.3g (untrained: %.3g)", validation, untrained), step + 1}
		}
		p.Train, p.Validation = sum/float64(summed), validation
		f.curve = append(f.curve, model.Epoch{Epoch: p.Epoch, Train: p.Train, Validation: validation, Rate: f.rate * schedule(step, total)})
		sum, summed = 0, 0
		j.report(p, step+1 == total)
		if validation < f.loss {
			f.loss, f.best, best, worse = validation, p.Epoch, t.Parameters(), 0
		} else if worse++; worse >= j.Patience {
			j.report(p, true)
			break
		}
	}
	f.samplesPerSecond = p.SamplesPerSecond
	return best, nil
}

// adopt copies trained weights (W0, B0, W1, B1, …) into the program's Gemms.
func adopt(p *kernels.Program, weights [][]float32) error {
	for _, s := range p.Steps {
		g, ok := s.(*kernels.Gemm)
		if !ok {
			continue
		}
		if len(weights) < 2 || len(weights[0]) != len(g.W) || len(weights[1]) != len(g.B) {
			return fmt.Errorf("the trained weights do not fit the network")
		}
		copy(g.W, weights[0])
		copy(g.B, weights[1])
		weights = weights[2:]
	}
	return nil
}

// sequence is xorshift64*: our own, since math/rand may change between Go versions, and a seed must give the same
// shuffle for ever.
type sequence struct{ state uint64 }

func newSequence(seed uint64) *sequence {
	// Any state but zero will do; the odd constant spreads small seeds over all bits.
	return &sequence{seed*0x9E3779B97F4A7C15 | 1}
}

func (s *sequence) next() uint64 {
	s.state ^= s.state >> 12
	s.state ^= s.state << 25
	s.state ^= s.state >> 27
	return s.state * 0x2545F4914F6CDD1D
}

// below draws from 0 to n−1. The high bits of the product are uniform up to n/2^32, which no shuffle of rows notices.
func (s *sequence) below(n int) int { return int((s.next() >> 32) * uint64(n) >> 32) }

func shuffle[T any](s *sequence, rows []T) {
	for i := len(rows) - 1; i > 0; i-- {
		k := s.below(i + 1)
		rows[i], rows[k] = rows[k], rows[i]
	}
}

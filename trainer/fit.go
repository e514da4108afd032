package trainer

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/model"
)

const (
	// A run without Epochs makes leastSteps, or leastEpochs passes where those are more. On the adbench sets 300
	// steps are nearly as good as 1000, and 3000 learn the anomalies too.
	leastSteps  = 1000
	leastEpochs = 3
	warmUpSteps = 50 // from 0 to the full rate; then a cosine to 0
	evaluations = 30 // of the validation loss in a run, at most
	// validationRows and validationValues bound what an evaluation costs and holds, the latter where rows are wide: then
	// validationLeast rows do. Evenly spread rows stand for all.
	validationRows   = 16384
	validationValues = 1 << 24
	validationLeast  = 1024
	// A run whose validation loss is this many times that of the untrained network has diverged, even if finite.
	divergedFactor = 10
	retries        = 3 // with a quarter of the rate each

	// codeShare of the variance is what a linear code as wide as the network's would hold.
	codeShare = .5
)

// narrow chooses the widths for n columns that vary: n → h → k → h → n, where k principal components hold codeShare of
// their variance. One column leaves nothing to compress: it is judged by itself, and there is no network.
//
// A wide code rebuilds anomalies as well as anything else: on the adbench sets it brings the mean AUC of an autoencoder
// from .85 down to .79. What the narrow one cannot hold of normal rows is taken back by the whitening of its residual.
func narrow(n, k int) []int {
	if n < 2 {
		return nil
	}
	h := min(max(2*n, 16), 64)
	return []int{h, max(min(k, n-1, h-1), 1), h}
}

// highestRate is what a run takes that asks for none. A step of Adam is about as long as the rate says; that of plain
// descent is the gradient's length times it, and the gradient of a mean over rows and columns is short.
var highestRate = map[kernels.Optimizer]float64{kernels.Adam: 3e-3, kernels.SGD: .3}

// vocabulary is what the network is made of and trained by.
type vocabulary struct {
	activation kernels.Activation
	loss       kernels.Loss
	optimizer  kernels.Optimizer
	rate       float64 // the highest
}

// vocabulary reads the names that the options give.
func (o *Options) vocabulary() (v vocabulary, faults []error) {
	read := func(err error) {
		if err != nil {
			faults = append(faults, err)
		}
	}
	var err error
	v.activation, err = kernels.ParseActivation(o.Activation)
	read(err)
	v.loss, err = kernels.ParseLoss(o.Loss)
	read(err)
	v.optimizer, err = kernels.ParseOptimizer(o.Optimizer)
	read(err)
	if v.rate = o.LearningRate; v.rate == 0 {
		v.rate = highestRate[v.optimizer]
	}
	return v, faults
}

// activations are act, but linear for the code (the first of the narrowest) and for the output.
func activations(layers []int, act kernels.Activation) []kernels.Activation {
	acts := make([]kernels.Activation, len(layers)+1)
	code := 0
	for i := range layers {
		acts[i] = act
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
	validation       int // rows set aside, trimmed ones among them
	loss             float64
	untrained        float64
	best             int // epoch of the weights taken
	samplesPerSecond float64
	trimmed          *trimmed
	parts            map[string]int64 // rows that each part of the detector has seen
	explained        float64          // of a number's variance by the others, see explained
	trim             float64          // share that was trimmed
	weight           float64          // of the prototypes
	candidates       *Candidates      // nil: one was trained
}

// layers are the hidden widths for the given columns; sound are kept rows in the maps' units.
func (j *job) layers(constant []bool, sound []float32) ([]int, error) {
	if j.Layers != nil {
		return j.Layers, nil
	}
	varying := 0
	for _, c := range constant {
		if !c {
			varying++
		}
	}
	if varying < 2 {
		return nil, nil
	}
	k, err := principal(sound, len(constant), codeShare)
	return narrow(varying, k), err
}

// program builds the untrained network for the given columns.
func (j *job) program(columns []kernels.Column, constant []bool, layers []int) (*kernels.Program, error) {
	all := append(append([]int{len(columns)}, layers...), len(columns))
	if bytes := weightBytes(all); bytes > maxWeightBytes {
		return nil, weightError(all, bytes)
	}
	v, _ := j.vocabulary()
	p := kernels.Autoencoder(columns, layers, activations(layers, v.activation))
	inverse := p.Steps[p.Reconstruction-1].(*kernels.Map)
	for i, c := range constant {
		if c {
			inverse.Columns[i] = kernels.Flat(columns[i].X[1])
		}
	}
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("the network for layers %s: %w", layerNames(layers), err)
	}
	return p, nil
}

// fit makes the detector, but for the weights of its heads, which the scores of the history give: see judge.
func (j *job) fit(ctx context.Context, h *history, c *columns, r *Report) (*fitted, error) {
	f, raw, err := j.outline(ctx, h, c)
	if err == nil && len(f.layers) > 0 {
		err = j.learn(ctx, h, c, f, r, raw)
	}
	if err != nil {
		return nil, err
	}
	return f, j.complete(ctx, f, c, raw)
}

// outline is all of a fit that comes before the network learns. raw are the rows of the sample that were kept.
func (j *job) outline(ctx context.Context, h *history, c *columns) (f *fitted, raw []float32, err error) {
	t, err := j.draw(h)
	if err != nil {
		return nil, nil, err
	}
	f = &fitted{trimmed: t, trim: j.Trim, weight: prototypeWeight}
	if t.mapped, err = j.mapped(ctx, t.raw, c.forward); err != nil {
		return nil, nil, err
	}
	if f.explained, err = explained(t.mapped, h.width, c.numbers); err != nil {
		return nil, nil, err
	}
	related := f.explained >= relatedLeast
	byRarity := f.trim
	if related {
		f.trim, f.weight, byRarity = min(f.trim, relatedTrim), relatedPrototypes, 0
		c.straighten()
		if t.mapped, err = j.mapped(ctx, t.raw, c.forward); err != nil {
			return nil, nil, err
		}
	}
	if err := j.trim(ctx, h, c.forward, t, byRarity); err != nil {
		return nil, nil, err
	}
	if related && f.trim > 0 {
		if err := j.trimUnrelated(ctx, h, c, t, f.trim); err != nil {
			return nil, nil, err
		}
	}
	raw = t.sound(t.raw)
	sound := t.sound(t.mapped)
	kept := int64(len(raw) / h.width)
	f.parts = map[string]int64{"trim": 0, "prototypes": kept, "autoencoder": 0, "whitening": kept}
	if f.trim > 0 {
		f.parts["trim"] = int64(len(t.sample))
	}
	if f.layers, err = j.layers(c.constant, sound); err != nil {
		return nil, nil, err
	}
	f.program, err = j.program(c.forward, c.constant, f.layers)
	return f, raw, err
}

// complete is what comes after.
func (j *job) complete(ctx context.Context, f *fitted, c *columns, raw []float32) (err error) {
	if len(f.layers) > 0 {
		deafen(f.program, c.constant)
	}
	f.program, err = j.whitened(ctx, f.program, c, raw)
	return err
}

// whitened weighs the program's residual by what it leaves of sound rows.
func (j *job) whitened(ctx context.Context, p *kernels.Program, c *columns, raw []float32) (*kernels.Program, error) {
	residual := p.Clone()
	residual.Reconstruction = residual.Steps[residual.Score-1].(*kernels.Norm).In
	left, err := j.reconstruct(ctx, residual, raw)
	if err != nil {
		return nil, err
	}
	return whiten(p, left, c.ridge)
}

// deafen takes away the weights of constant columns. They have learned nothing, as their input was 0: when the column
// moves one day they would only stir up the residuals of all others.
func deafen(p *kernels.Program, constant []bool) {
	first := p.Steps[1].(*kernels.Gemm)
	for i := range first.W {
		if constant[i%p.Width] {
			first.W[i] = 0
		}
	}
}

// lesson takes the kept rows apart: those to learn from, and those that the loss is measured on.
func (j *job) lesson(h *history, f *fitted) (*lesson, error) {
	train, validation := h.split()
	f.validation = validation.n
	train.retain(f.trimmed.kept)
	validation.retain(f.trimmed.kept)
	if train.n == 0 { // all that was kept is in the last tenth
		train = validation
	}
	f.parts["autoencoder"] = int64(train.n)
	f.batch = min(j.BatchSize, train.n)
	most := min(validationRows, max(validationValues/h.width, validationLeast))
	rows := validation.spread(most)
	if len(rows) == 0 {
		rows = train.spread(most)
	}
	held, err := h.gather(rows, nil)
	return &lesson{train: train, held: held, numbers: rows, batch: f.batch}, err
}

// learn trains the network on the kept rows, or the best of several; it tries again with a lower rate where training diverges.
func (j *job) learn(ctx context.Context, h *history, c *columns, f *fitted, r *Report, raw []float32) error {
	l, err := j.lesson(h, f)
	if err != nil {
		return err
	}
	if j.Candidates > 1 {
		return j.compete(ctx, h, c, f, r, l, raw)
	}
	target, prediction, ok := f.program.Residual()
	if !ok {
		return fmt.Errorf("the network for layers %s has no residual to train", layerNames(f.layers))
	}
	kernels.Initialise(f.program, j.Seed)
	v, _ := j.vocabulary()
	made := func() (kernels.Trainer, error) {
		return j.Engine.Trainer(f.program, kernels.TrainOptions{
			Prediction: prediction, Target: target, Loss: v.loss, Delta: float32(j.HuberDelta), Optimizer: v.optimizer,
			MaxBatch: f.batch, Threads: j.Threads,
		})
	}
	trainer, err := made()
	if err != nil {
		return err
	}
	initial := trainer.Parameters()
	d := j.newDescent(h, trainer, l.train, l.held, l.batch)
	d.proof.renew = made
	defer func() { d.trainer.Close() }()
	if err := d.onDevice(ctx); err != nil {
		return err
	}
	d.begin(v.rate)
	if err := j.start(d.total, r, h, l); err != nil {
		return err
	}
	if c := j.resumed; c != nil {
		if err := d.restore(c.State); err != nil {
			return j.misfit(err)
		}
	}
	for {
		err := d.trusted(ctx)
		j.checkpoints.keep(ctx, d.fill, err)
		if err == nil {
			d.result(f)
			return adopt(f.program, d.BestWeights)
		}
		if diverged := (*divergence)(nil); !asDivergence(err, &diverged) {
			return err
		} else if d.Try == retries {
			return &InputError{
				What:  fmt.Sprintf("training diverged %d times, last at rate %.3g: %s in step %d", d.Try+1, d.Rate, diverged.what, diverged.step),
				Place: "topic " + j.Topic,
				Next:  "lower the learning rate, or look for columns with extreme values (lapwing train --dry-run)", Kind: ErrDiverged,
			}
		} else {
			j.Log.Warn("training diverged; trying again with a lower rate", "what", diverged.what, "step", diverged.step, "rate", d.Rate, "next_rate", d.Rate/4)
		}
		if err := d.trainer.SetParameters(initial); err != nil {
			return err
		}
		d.again()
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

package trainer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
)

// Models of keys learn abreast where the engine's device can: the keys are taken in waves, and networks of one shape in the same launches, each
// over its key's rows. A network comes out as it would alone, to the byte. Whatever is out of the ordinary with one, a loss that is not finite,
// numbers that the processor does not come to, rows that cannot be read, takes it out of its cohort, and it learns by itself when the others have
// ended: there a rate is lowered, a device's numbers are proved and a fault is worded, and nothing of that is done twice here.

const (
	// waveKeys is the most keys of a wave: a block each on two GPUs as large as there are today.
	waveKeys = 256
	// sampleCopies are those of a key's sample that it holds until it is judged: as drawn, mapped, kept, and the rows of the validation.
	sampleCopies = 4
	// windowRowBytes is what a row takes in the window of an epoch.
	windowRowBytes = 8
	// orderBytes bounds the row numbers that a stretch takes to the device, as long as it has more than a step of each network.
	orderBytes = 16 << 20
)

// abreastEngine is what a kernels.Engine may be beside: one whose cohorts are abreast. An error says that the device cannot take the networks.
type abreastEngine interface {
	Abreast(programs []*kernels.Program, o kernels.TrainOptions) (kernels.Cohort, error)
}

// abreast is a cohort whose networks have each rows of its own on the device.
type abreast interface {
	kernels.Cohort
	// Hold makes room for n raw rows, numbered from 0; false where there is not enough.
	Hold(n int) (bool, error)
	// PutOf copies rows of network k to the number first and on.
	PutOf(k, first int, rows []float32) error
	// WalkEach makes a step with every network k at each of rates[k] on minibatches of held rows, whose numbers orders[k] has one after another,
	// sizes[k][i] of them for step i. A loss that is not finite is a network's last; its step is not made. Where it fails no step is made.
	WalkEach(orders [][]int32, sizes [][]int, rates [][]float32) ([][]float64, error)
	// LossEach is the mean loss of every network k over the held rows orders[k]; 0 where those are none.
	LossEach(orders [][]int32) ([]float64, error)
	// Beside is the loss over rows that a processor comes to with network k's weights.
	Beside(k int, rows []float32) (float64, error)
	// Wrong notes that the device's numbers were wrong, and how that showed. An error says that the device is not to be used any more.
	Wrong(how string) error
}

// waves makes the models of the keys, a wave after another.
func (j *job) waves(ctx context.Context, e abreastEngine, h *history, r *Report, todo []*keyRows, done *keysDone) error {
	for len(todo) > 0 {
		n := j.waveOf(h.width, todo)
		if err := j.wave(ctx, e, h, r, todo[:n], done); err != nil {
			return err
		}
		todo = todo[n:]
	}
	return nil
}

// waveOf is how many of the keys the next wave takes: those whose rows, samples and networks half of max_memory holds, and as many as there are
// threads in any case.
func (j *job) waveOf(width int, todo []*keyRows) int {
	left := j.MaxMemory / 2
	for n, k := range todo {
		rows := int64(len(k.rows))
		sample := min(rows, int64(min(max(sampleValues/width, sampleLeast), sampleMost)))
		left -= min(rows*int64(4*width+sideBytes+keyBytes), j.keyMemory()) + min(rows, windowRows)*windowRowBytes + sampleCopies*sample*int64(4*width) + j.networkBytes(width)
		if n == waveKeys || left < 0 && n >= j.Threads {
			return n
		}
	}
	return len(todo)
}

// wave makes the models of keys whose networks of one shape learn abreast.
func (j *job) wave(ctx context.Context, e abreastEngine, h *history, r *Report, keys []*keyRows, done *keysDone) error {
	runs := make([]*keyRun, len(keys)) // nil: it has a fault
	defer func() {
		for _, x := range runs {
			if x != nil {
				x.close()
			}
		}
	}()
	drop := func(i int, err error) error {
		runs[i].tell(done, keyParts)
		runs[i].close()
		runs[i] = nil
		done.keys.Add(1)
		return keys[i].fault(err)
	}
	err := j.spread(ctx, len(keys), func(ctx context.Context, i int) (err error) {
		if runs[i], err = j.begin(ctx, h, r, keys[i]); err != nil {
			return drop(i, err)
		}
		runs[i].tell(done, keyBegun)
		return nil
	})
	if err != nil {
		return err
	}
	var shapes []string
	of := map[string][]*keyRun{}
	for _, x := range runs {
		if x == nil || len(x.fitted.layers) == 0 {
			continue
		}
		shape := layerNames(x.fitted.layers)
		if of[shape] == nil {
			shapes = append(shapes, shape)
		}
		of[shape] = append(of[shape], x)
	}
	for _, shape := range shapes {
		if err := j.learnAbreast(ctx, e, of[shape], done); err != nil {
			return err
		}
	}
	return j.spread(ctx, len(keys), func(ctx context.Context, i int) error {
		if runs[i] == nil {
			return nil
		}
		return drop(i, runs[i].end(ctx))
	})
}

// learnAbreast trains networks of one shape in the same launches, in halves where the device has too little memory. What has not learned then
// is left to learn by itself.
func (j *job) learnAbreast(ctx context.Context, e abreastEngine, runs []*keyRun, done *keysDone) error {
	if len(runs) < 2 {
		return nil
	}
	c := &keyCohort{job: j, done: done}
	err := c.enrol(runs)
	if err == nil {
		err = c.train(ctx, e)
	}
	if !errors.Is(err, kernels.ErrOutOfMemory) {
		return err
	}
	rest := slices.DeleteFunc(slices.Clone(runs), func(x *keyRun) bool { return x.learned || x.alone })
	if len(rest) < 2 {
		return nil
	}
	half := len(rest) / 2
	j.Log.Info("the device's memory does not hold these keys at once: they learn in halves", "keys", len(rest), "reason", err)
	if err := j.learnAbreast(ctx, e, rest[:half], done); err != nil {
		return err
	}
	return j.learnAbreast(ctx, e, rest[half:], done)
}

// keyCohort is networks of several keys on their way.
type keyCohort struct {
	*job
	cohort   abreast
	learners []*learner
	done     *keysDone
	orders   [][]int32 // by network: of the rows of a stretch
	sizes    [][]int
	rates    [][]float32
}

// learner is one of them.
type learner struct {
	x     *keyRun
	d     *descent // of which the trainer is not used
	first int      // number of its first row on the device
	held  []int32  // numbers there of the rows of the validation
	on    bool     // still learning here
}

// enrol plans each network's descent.
func (c *keyCohort) enrol(runs []*keyRun) error {
	v, _ := c.vocabulary()
	first := 0
	for _, x := range runs {
		l := &learner{x: x, first: first, on: true}
		c.learners = append(c.learners, l)
		lesson, err := x.lesson(x.part, x.fitted)
		if err != nil {
			c.leave(l)
			continue
		}
		kernels.Initialise(x.fitted.program, x.Seed)
		l.d = x.newDescent(x.part, nil, lesson.train, lesson.held, lesson.batch)
		l.d.begin(v.rate)
		for _, g := range lesson.numbers {
			l.held = append(l.held, int32(first+g))
		}
		if first += x.part.n; first > math.MaxInt32 {
			return fmt.Errorf("%d rows: %w", first, kernels.ErrOutOfMemory)
		}
	}
	return nil
}

// leave takes a network out: it learns by itself later.
func (c *keyCohort) leave(l *learner) { l.on, l.x.alone = false, true }

// train takes the networks through all their steps.
func (c *keyCohort) train(ctx context.Context, e abreastEngine) error {
	var programs []*kernels.Program
	batch, rows := 0, 0
	for _, l := range c.learners {
		programs = append(programs, l.x.fitted.program)
		batch, rows = max(batch, l.x.fitted.batch), l.first+l.x.part.n
	}
	target, prediction, ok := programs[0].Residual()
	if !ok {
		return nil // whoever trains it alone says so
	}
	v, _ := c.vocabulary()
	made, err := e.Abreast(programs, kernels.TrainOptions{
		Prediction: prediction, Target: target, Loss: v.loss, Delta: float32(c.HuberDelta), Optimizer: v.optimizer, MaxBatch: batch, Threads: c.Threads,
	})
	if err != nil {
		if errors.Is(err, kernels.ErrOutOfMemory) {
			return err
		}
		return nil // as for one alone, which may go to the processor
	}
	defer made.Close()
	c.cohort, ok = made.(abreast)
	if !ok {
		return nil
	}
	err = c.hold(ctx, rows)
	if err == nil {
		err = c.descend(ctx)
	}
	if err == nil || errors.Is(err, kernels.ErrOutOfMemory) || ctx.Err() != nil {
		return err
	}
	if failed := (*DeviceError)(nil); errors.As(err, &failed) {
		return err
	}
	return &DeviceError{Cause: err}
}

// hold hands the keys' rows to the device.
func (c *keyCohort) hold(ctx context.Context, rows int) error {
	fits, err := c.cohort.Hold(rows)
	if err == nil && !fits {
		err = fmt.Errorf("%d rows: %w", rows, kernels.ErrOutOfMemory)
	}
	if err != nil {
		return err
	}
	for k, l := range c.learners {
		if !l.on {
			continue
		}
		var failed error // of the device
		err := l.x.part.pass(ctx, 1, func(_, first int, rows []float32) error {
			failed = c.cohort.PutOf(k, l.first+first, rows)
			return failed
		})
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case failed != nil:
			return failed
		case err != nil: // a file
			c.leave(l)
		}
	}
	return nil
}

// losses are those over the validation rows of some networks, the first most of each.
func (c *keyCohort) losses(most int, of func(*learner) bool) ([]float64, error) {
	orders := make([][]int32, len(c.learners))
	for k, l := range c.learners {
		if of(l) {
			orders[k] = l.held[:min(len(l.held), most)]
		}
	}
	return c.cohort.LossEach(orders)
}

// descend makes the steps.
func (c *keyCohort) descend(ctx context.Context) error {
	untrained, err := c.losses(math.MaxInt, func(l *learner) bool { return l.on })
	if err != nil {
		return err
	}
	for k, l := range c.learners {
		if l.on {
			l.d.Untrained = untrained[k]
		}
	}
	n := len(c.learners)
	c.orders, c.sizes, c.rates = make([][]int32, n), make([][]int, n), make([][]float32, n)
	for length := 1; ; {
		running, batch := 0, 1
		for _, l := range c.learners {
			if l.on {
				running, batch = running+1, max(batch, l.d.batch)
			}
		}
		if running == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		began, asked := time.Now(), min(length, max(orderBytes/4/batch/running, 1))
		if err := c.stretch(ctx, asked); err != nil {
			return err
		}
		if took := time.Since(began); took < stretchTime/2 && asked == length {
			length *= 2
		} else if took > 2*stretchTime {
			length = max(length/2, 1)
		}
		if err := c.evaluate(); err != nil {
			return err
		}
	}
}

// stretch makes up to most steps with each network that is on, none of them beyond its next evaluation.
func (c *keyCohort) stretch(ctx context.Context, most int) error {
	// A device takes steps faster than one thread shuffles their rows.
	err := c.spread(ctx, len(c.learners), func(_ context.Context, k int) (err error) {
		l := c.learners[k]
		c.orders[k], c.sizes[k], c.rates[k] = c.orders[k][:0], nil, c.rates[k][:0]
		if !l.on {
			return nil
		}
		d := l.d
		steps := min(most, min(d.Step/d.every*d.every+d.every, d.total)-d.Step)
		if c.orders[k], c.sizes[k], err = d.order.number(steps, d.batch, c.orders[k]); err != nil { // a file
			c.leave(l)
			c.orders[k], c.sizes[k] = c.orders[k][:0], nil
			return nil
		}
		for i := range c.orders[k] {
			c.orders[k][i] += int32(l.first)
		}
		for i := range c.sizes[k] {
			c.rates[k] = append(c.rates[k], d.rateOf(d.Step+i))
		}
		return nil
	})
	if err != nil {
		return err
	}
	losses, err := c.cohort.WalkEach(c.orders, c.sizes, c.rates)
	if err != nil {
		return err
	}
	for k, l := range c.learners {
		for _, loss := range losses[k] {
			if !finite(loss) {
				c.leave(l)
				break
			}
			l.d.Sum += loss
			l.d.Summed++
			l.d.Step++
		}
	}
	return nil
}

// evaluate takes the validation losses that are due, and lets those go that have ended.
func (c *keyCohort) evaluate() error {
	due := func(l *learner) bool {
		return l.on && l.d.Summed > 0 && (l.d.Step%l.d.every == 0 || l.d.Step == l.d.total)
	}
	losses, err := c.losses(math.MaxInt, due)
	if err != nil {
		return err
	}
	ended := map[*learner]bool{}
	for k, l := range c.learners {
		if !due(l) {
			continue
		}
		d := l.d
		if d.enter(&d.descentState, (d.Step-1)/d.perEpoch+1, losses[k], func() [][]float32 { return c.cohort.Parameters(k) }) != nil { // a divergence
			c.leave(l)
			continue
		}
		ended[l] = d.Step == d.total || d.settled(&d.descentState)
		l.x.tell(c.done, int64(keyBegun+(keyLearned-keyBegun)*d.Step/d.total))
	}
	return c.prove(ended)
}

// prove holds those that have ended to the processor, as a descent by itself is, and takes their weights.
func (c *keyCohort) prove(ended map[*learner]bool) error {
	losses, err := c.losses(proofRows, func(l *learner) bool { return ended[l] })
	if err != nil {
		return err
	}
	for k, l := range c.learners {
		if !ended[l] {
			continue
		}
		d := l.d
		want, err := c.cohort.Beside(k, d.held[:min(len(d.held), proofRows*d.h.width)])
		if err != nil {
			return err
		}
		if !closeTo(losses[k], want) {
			how := fmt.Sprintf("after step %d of key %s its loss is %.6g and the CPU's %.6g with the same weights", d.Step, l.x.k.Key, losses[k], want)
			c.leave(l)
			if err := c.cohort.Wrong(how); err != nil {
				return &DeviceError{Cause: err}
			}
			c.Log.Warn("the GPU computed wrong numbers; the key's network learns again, by itself", "how", how, "key", l.x.k.Key)
			continue
		}
		if s := time.Since(d.started).Seconds(); s > 0 {
			d.speed = float64(d.samples(d.Step)) / s
		}
		d.result(l.x.fitted)
		if err := adopt(l.x.fitted.program, d.BestWeights); err != nil {
			return err
		}
		l.on, l.x.learned = false, true
		l.x.tell(c.done, keyLearned)
	}
	return nil
}

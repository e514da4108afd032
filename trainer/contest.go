package trainer

import (
	"context"
	"fmt"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
)

const (
	// Where rows are given (where the device holds them, only stretchTime bounds a stretch) stretchBatches minibatches at most are gathered at a time, as many as stretchBytes hold: enough that a call of the engine outweighs the
	// waiting for the slowest network at its end, and few enough that progress and an interruption are not kept waiting.
	stretchBatches = 64
	stretchBytes   = 4 << 20
)

// lesson is what networks learn from and are held to.
type lesson struct {
	train   *rowSet
	held    []float32 // rows of the validation
	numbers []int     // of those
	batch   int       // rows
}

// contest is several networks on their way, over the same minibatches.
type contest struct {
	*job
	plan    *descent // how many steps, and when to evaluate; each runner has a state of its own
	runners []*competitor
	all     []Candidate // of the whole run, for progress
	first   int         // which of those runners[0] is
	best    *competitor // of those before

	cohort kernels.Cohort
	holder holder  // nil where the cohort does not hold the history
	on     []bool  // still running
	order  *epochs // nil before a lap begins

	step     int           // made in this lap
	diverged []*divergence // in it
	rows     []float32     // the buffer of a stretch
	numbers  []int32       // of its rows, where they are held
	began    time.Time
	from     int // step of the lap at which this process began
	pace     *pace
	samples  float64 // of all networks
	seconds  float64
}

// run trains the networks. One that diverges begins again with a quarter of its rate, as it would alone, when the others have ended;
// one that does so too often gets a fault. from is where they go on; nil is the beginning.
func (c *contest) run(ctx context.Context, from *standing) (err error) {
	target, prediction, ok := c.runners[0].program.Residual()
	if !ok {
		return fmt.Errorf("the network for layers %s has no residual to train", layerNames(c.runners[0].layers))
	}
	var programs []*kernels.Program
	for _, k := range c.runners {
		programs = append(programs, k.program)
		k.state = begun(0, k.rate)
	}
	v, _ := c.vocabulary()
	c.cohort, err = kernels.NewCohort(c.Engine, programs, kernels.TrainOptions{
		Prediction: prediction, Target: target, Loss: v.loss, Delta: float32(c.HuberDelta), Optimizer: v.optimizer,
		MaxBatch: c.plan.batch, Threads: c.Threads,
	})
	if err != nil {
		return err
	}
	defer c.cohort.Close()
	if t, ok := c.cohort.(holder); ok {
		held, err := c.hold(ctx, c.plan.h, t)
		if err != nil {
			return err
		}
		if held {
			c.holder = t
		}
	}
	c.began = time.Now()
	defer func() { c.seconds = time.Since(c.began).Seconds() }()
	c.on, c.diverged = make([]bool, len(c.runners)), make([]*divergence, len(c.runners))
	for k := range c.on {
		c.on[k] = true
	}
	if from != nil {
		if err := c.restore(from); err != nil {
			return c.misfit(err)
		}
	}
	for again := true; again && err == nil; {
		if err = c.lap(ctx); err == nil {
			again, err = c.again(prediction)
		}
	}
	c.checkpoints.keep(ctx, c.fill, err)
	return err
}

// again makes those that diverged begin anew; false: none does.
func (c *contest) again(prediction kernels.Value) (again bool, err error) {
	for i, d := range c.diverged {
		k := c.runners[i]
		s := &k.state
		if d == nil {
			continue
		}
		if s.Try == retries {
			k.Fault = fmt.Sprintf("diverged %d times, last at rate %.3g: %s in step %d", s.Try+1, s.Rate, d.what, d.step)
			continue
		}
		c.Log.Warn("training diverged; trying again with a lower rate", "candidate", k.Varies, "what", d.what, "step", d.step, "rate", s.Rate, "next_rate", s.Rate/4)
		*s = begun(s.Try+1, s.Rate/4)
		if err := c.cohort.SetParameters(i, k.program.Parameters(prediction)); err != nil {
			return false, err
		}
		c.on[i], again = true, true
	}
	clear(c.diverged)
	if again {
		c.order, c.step = nil, 0
	}
	return again, nil
}

// lap takes the networks that are on through all steps.
func (c *contest) lap(ctx context.Context) error {
	if c.order == nil {
		untrained, err := c.cohort.Loss(c.plan.held, c.on)
		if err != nil {
			return err
		}
		for k, on := range c.on {
			if on {
				c.runners[k].state.Untrained = untrained[k]
			}
		}
		c.order = c.plan.h.epochs(c.plan.train, c.Seed)
	}
	c.from = c.step
	c.pace = newPace(int64(c.plan.total-c.from), time.Now())
	length := 1
	for c.step < c.plan.total && c.running() > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		c.checkpoints.tick(ctx, c.job, c.fill)
		next := min(c.step/c.plan.every*c.plan.every+c.plan.every, c.plan.total) // evaluation
		began, asked := time.Now(), min(length, next-c.step)
		losses, steps, n, err := c.stretch(c.step, asked)
		if err != nil {
			return err
		}
		if took := time.Since(began); took < stretchTime/2 && asked == length {
			length *= 2
		} else if took > 2*stretchTime {
			length = max(length/2, 1)
		}
		for k := range losses {
			s := &c.runners[k].state
			for _, loss := range losses[k] {
				if !finite(loss) {
					c.diverged[k] = &divergence{fmt.Sprintf("loss %v", loss), s.Step + 1}
					c.stop(k)
					break
				}
				s.Sum += loss
				s.Summed++
				s.Step++
			}
			if c.on[k] {
				c.samples += float64(n)
			}
		}
		if c.step += steps; c.step == next {
			if err := c.evaluate(c.step); err != nil {
				return err
			}
		}
		c.progress(c.step)
	}
	for k, on := range c.on {
		if on {
			c.stop(k)
		}
	}
	return nil
}

// stretch makes up to most steps with the networks that are on: steps of them, over n rows.
func (c *contest) stretch(from, most int) (losses [][]float64, steps, n int, err error) {
	width, batch := c.plan.h.width, c.plan.batch
	if c.holder != nil {
		var sizes []int
		if c.numbers, sizes, err = c.order.number(most, batch, c.numbers[:0]); err != nil {
			return nil, 0, 0, err
		}
		losses, err = c.holder.Walk(c.numbers, sizes, c.rates(from, len(sizes)))
		return losses, len(sizes), len(c.numbers), err
	}
	most = min(most, max(stretchBytes/(4*width*batch), 1), stretchBatches)
	if c.rows, err = c.order.next(most*batch, c.rows); err != nil {
		return nil, 0, 0, err
	}
	n = len(c.rows) / width
	steps = (n + batch - 1) / batch
	losses, err = c.cohort.Steps(c.rows, batch, c.rates(from, steps))
	return losses, steps, n, err
}

// rates are those of n steps of the networks that are on.
func (c *contest) rates(from, n int) [][]float32 {
	rates := make([][]float32, len(c.runners))
	for k := range rates {
		for i := 0; c.on[k] && i < n; i++ {
			rates[k] = append(rates[k], float32(c.runners[k].state.Rate*schedule(from+i, c.plan.total)))
		}
	}
	return rates
}

func (c *contest) running() (n int) {
	for _, on := range c.on {
		if on {
			n++
		}
	}
	return n
}

// stop takes a network out.
func (c *contest) stop(k int) {
	c.on[k] = false
	r := c.runners[k]
	r.Seconds, r.Steps = time.Since(c.began).Seconds(), r.state.Step
}

// evaluate takes the validation losses of those that are on, and stops those that have not improved for long enough.
func (c *contest) evaluate(step int) error {
	losses, err := c.cohort.Loss(c.plan.held, c.on)
	if err != nil {
		return err
	}
	epoch := (step-1)/c.plan.perEpoch + 1
	for k, on := range c.on {
		if !on {
			continue
		}
		s := &c.runners[k].state
		err := c.plan.enter(s, epoch, losses[k], func() [][]float32 { return c.cohort.Parameters(k) })
		if d := (*divergence)(nil); asDivergence(err, &d) {
			c.diverged[k] = d
		}
		if err != nil || c.plan.settled(s) {
			c.stop(k)
		}
		if s.Curve != nil {
			c.all[c.first+k].ValidationLoss = s.Lowest
		}
	}
	return nil
}

// progress shows the networks of all waves, as far as they have come.
func (c *contest) progress(step int) {
	if c.Progress == nil {
		return
	}
	now := time.Now()
	for i, k := range c.runners {
		c.all[c.first+i].Steps = k.state.Step
	}
	p := Progress{
		Stage: "fit", Epoch: (step-1)/c.plan.perEpoch + 1, Epochs: (c.plan.total + c.plan.perEpoch - 1) / c.plan.perEpoch, Candidates: c.all, Running: c.running(),
	}
	for i := range c.all { // the leader's
		if v := c.all[i].ValidationLoss; v > 0 && (p.Validation == 0 || v < p.Validation) {
			p.Validation, p.Leader = v, c.all[i].Varies
		}
	}
	if s := now.Sub(c.began).Seconds(); s > 0 {
		p.SamplesPerSecond = c.samples / s
	}
	// The waves are alike: what is done of all of them.
	lap := float64(step) / float64(c.plan.total)
	p.Done = (float64(c.first) + lap*float64(len(c.runners))) / float64(len(c.all))
	if left := c.pace.left(int64(step-c.from), now); left > 0 || step == c.plan.total {
		rest := float64(len(c.all)-c.first-len(c.runners)) / float64(len(c.runners))
		p.Left = left + time.Duration(rest*float64(now.Sub(c.began)+left))
	}
	c.job.report(p, step == c.plan.total)
}

package trainer

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/model"
)

// stretchTime is how long a stretch of steps takes, about: between two of them progress is shown and an interruption noticed.
const stretchTime = 100 * time.Millisecond

// descent is a run of the optimizer, over all tries.
type descent struct {
	descentState
	job     *job
	trainer kernels.Trainer
	held    []float32 // rows of the validation
	train   *rowSet
	order   *epochs
	h       *history

	batch    int // rows
	perEpoch int // steps
	total    int // steps
	every    int // steps from one evaluation to the next

	device   device // nil where the trainer has none
	resident bool   // it holds the history
	proof    proof  // of the device's numbers

	rows    []float32 // the buffer of a minibatch, or of those that a device is given
	numbers []int32   // of the rows that a device holds
	length  int       // of the next stretch, steps
	pace    *pace
	started time.Time
	from    int // step at which this process began
	speed   float64
}

// descentState is all that a descent has come to after a step. With the same rows and settings another process goes on from it to
// the same bytes. Nothing of it depends on the clock or on how steps were cut into stretches.
type descentState struct {
	Try   int     // from 0
	Rate  float64 // the highest of this try
	Step  int     // made in this try
	Order place   // of the training rows

	Untrained float64       // validation loss before the first step
	Lowest    float64       // validation loss so far; +Inf before the first evaluation
	Best      int           // epoch of it
	Worse     int           // evaluations since
	Sum       float64       // of the training losses since the last evaluation
	Summed    int           // how many those are
	Curve     []model.Epoch // one entry an evaluation

	Weights     [][]float32 // filled by save alone: they are the trainer's
	Moments     kernels.Moments
	BestWeights [][]float32 // nil before the first evaluation
}

// newDescent plans the steps. Call begin or restore before run.
func (j *job) newDescent(h *history, t kernels.Trainer, train *rowSet, held []float32, batch int) *descent {
	d := &descent{job: j, trainer: t, held: held, train: train, h: h, batch: batch}
	d.perEpoch = (train.n + batch - 1) / batch
	d.total = max(leastSteps, leastEpochs*d.perEpoch)
	if j.Epochs > 0 {
		d.total = j.Epochs * d.perEpoch
	}
	d.every = max(d.total/evaluations, 1)
	d.rows = make([]float32, 0, batch*h.width)
	return d
}

// begun is the state at the beginning of a try.
func begun(try int, rate float64) descentState {
	return descentState{Try: try, Rate: rate, Lowest: math.Inf(1), Untrained: math.NaN()}
}

// begin is the first try, from the weights that the trainer has.
func (d *descent) begin(rate float64) {
	d.descentState = begun(0, rate)
	d.order = d.h.epochs(d.train, d.job.Seed)
	d.resumed()
	d.proved()
}

// again is the next try, with a lower rate, from the weights that the trainer has.
func (d *descent) again() {
	try, rate := d.Try+1, d.Rate/4
	d.begin(rate)
	d.Try = try
}

// save is the state as it stands, a copy.
func (d *descent) save() descentState {
	s := d.descentState
	s.Order = d.order.place()
	s.Weights, s.Moments = d.trainer.Parameters(), d.trainer.Moments()
	s.Curve = append([]model.Epoch(nil), s.Curve...)
	return s // BestWeights are never written to, but replaced
}

func (d *descent) fill(to *checkpoint) { to.State = d.save() }

// restore makes the descent go on from s.
func (d *descent) restore(s descentState) error {
	if s.Step < 0 || s.Step > d.total || s.Try < 0 || s.Try > retries {
		return fmt.Errorf("step %d of try %d; there are %d steps and %d tries", s.Step, s.Try+1, d.total, retries+1)
	}
	if s.BestWeights != nil {
		if err := kernels.SameShape(d.trainer.Parameters(), s.BestWeights); err != nil {
			return fmt.Errorf("the best weights: %w", err)
		}
	}
	if err := d.trainer.SetParameters(s.Weights); err != nil {
		return err
	}
	if err := d.trainer.SetMoments(s.Moments); err != nil {
		return err
	}
	d.order = d.h.epochs(d.train, d.job.Seed)
	if err := d.order.seek(s.Order); err != nil {
		return err
	}
	d.descentState = s
	d.Weights, d.Moments = nil, kernels.Moments{}
	d.resumed()
	d.proved()
	return nil
}

func (d *descent) resumed() {
	d.length, d.from, d.started = 1, d.Step, time.Now()
	d.pace = newPace(int64(d.total-d.from), d.started)
}

// run makes the steps that are left. BestWeights then are those with the lowest validation loss.
func (d *descent) run(ctx context.Context) error {
	if d.Step == 0 {
		untrained, err := d.trainer.Loss(d.held)
		if err != nil {
			return err
		}
		d.Untrained = untrained
	}
	p := Progress{Stage: "fit", Epochs: (d.total + d.perEpoch - 1) / d.perEpoch, Validation: d.Untrained, Train: d.Untrained}
	if n := len(d.Curve); n > 0 {
		p.Train, p.Validation = d.Curve[n-1].Train, d.Curve[n-1].Validation
	}
	for {
		// Where a device failed while it evaluated, a resumed run owes that evaluation.
		if d.Summed > 0 && (d.Step%d.every == 0 || d.Step == d.total) {
			if err := d.evaluate((d.Step-1)/d.perEpoch + 1); err != nil {
				return err
			}
			last := d.Curve[len(d.Curve)-1]
			p.Epoch, p.Train, p.Validation = last.Epoch, last.Train, last.Validation
			d.job.report(p, d.Step == d.total || d.settled(&d.descentState))
		}
		if d.Step == d.total || d.settled(&d.descentState) {
			return d.prove(true)
		}
		// Only what was proved is written: a later run would go on from wrong numbers.
		if err := d.prove(d.job.checkpoints.due()); err != nil {
			return err
		}
		d.job.checkpoints.tick(ctx, d.job, d.fill)
		next := min(d.Step/d.every*d.every+d.every, d.total) // evaluation
		began, asked := time.Now(), min(d.length, next-d.Step)
		losses, err := d.stretch(ctx, asked)
		for _, loss := range losses {
			if !finite(loss) {
				return &divergence{fmt.Sprintf("loss %v", loss), d.Step + 1}
			}
			d.Sum += loss
			d.Summed++
			d.Step++
		}
		if err != nil {
			return err
		}
		now := time.Now()
		if took := now.Sub(began); took < stretchTime/2 && asked == d.length {
			d.length *= 2
		} else if took > 2*stretchTime {
			d.length = max(d.length/2, 1)
		}
		p.Epoch = (d.Step-1)/d.perEpoch + 1
		p.Records = d.samples(d.Step)
		if s := now.Sub(d.started).Seconds(); s > 0 {
			d.speed = float64(p.Records-d.samples(d.from)) / s
			p.SamplesPerSecond = d.speed
		}
		p.Done, p.Left = float64(d.Step)/float64(d.total), d.pace.left(int64(d.Step-d.from), now)
		if d.Step < next {
			d.job.report(p, false)
		}
	}
}

// stretch makes up to n steps and returns the loss of each before it. Fewer than n come with the error that ended it, ctx's cause
// among them, or with a last loss that is not finite, whose step was not made. When it is ctx that ends it, trainer and order stand
// after the steps that were made, so that save has a state to go on from.
func (d *descent) stretch(ctx context.Context, n int) (losses []float64, err error) {
	if d.device != nil {
		return d.walk(ctx, n)
	}
	for range n {
		if ctx.Err() != nil {
			return losses, context.Cause(ctx)
		}
		if d.rows, err = d.order.next(d.batch, d.rows); err != nil {
			return losses, err
		}
		loss, err := d.trainer.Step(d.rows, d.rateOf(d.Step+len(losses)))
		if err != nil {
			return losses, err
		}
		losses = append(losses, loss)
		if !finite(loss) {
			break
		}
	}
	return losses, nil
}

// rateOf is the rate of a step, from 0.
func (d *descent) rateOf(step int) float32 { return float32(d.Rate * schedule(step, d.total)) }

// samples is how many rows so many steps have seen.
func (d *descent) samples(steps int) int64 {
	return int64(steps/d.perEpoch)*int64(d.train.n) + int64(steps%d.perEpoch)*int64(d.batch)
}

// settled: the validation loss of s has not fallen for long enough, and every row has been seen. Only an evaluation can tell: Summed is 0 after it.
func (d *descent) settled(s *descentState) bool {
	return s.Summed == 0 && s.Worse >= d.job.Patience && s.Step >= d.perEpoch
}

// evaluate takes the validation loss.
func (d *descent) evaluate(epoch int) error {
	validation, err := d.trainer.Loss(d.held)
	if err != nil {
		return err
	}
	return d.enter(&d.descentState, epoch, validation, d.trainer.Parameters)
}

// enter notes a validation loss in s, whose weights are at hand where it is the lowest.
func (d *descent) enter(s *descentState, epoch int, validation float64, weights func() [][]float32) error {
	if math.IsNaN(validation) || validation > divergedFactor*max(s.Untrained, 1) {
		return &divergence{fmt.Sprintf("validation loss %.3g (untrained: %.3g)", validation, s.Untrained), s.Step}
	}
	s.Curve = append(s.Curve, model.Epoch{Epoch: epoch, Train: s.Sum / float64(s.Summed), Validation: validation, Rate: s.Rate * schedule(s.Step-1, d.total)})
	s.Sum, s.Summed = 0, 0
	if validation < s.Lowest {
		s.Lowest, s.Best, s.BestWeights, s.Worse = validation, epoch, weights(), 0
		return nil
	}
	s.Worse++
	return nil
}

// result fills in what the descent came to.
func (d *descent) result(f *fitted) {
	f.rate, f.curve, f.steps, f.samplesPerSecond = d.Rate, d.Curve, d.Step, d.speed
	f.loss, f.best, f.untrained = d.Lowest, d.Best, d.Untrained
}

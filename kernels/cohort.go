package kernels

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// Cohort trains several networks over the same minibatches: candidates of which one will be taken. Each comes out as a
// Trainer of its own would make it, to the byte, whatever the others do. It is for one goroutine.
//
// A call is many steps of many networks, so that it may be one launch on a device, a block a network.
type Cohort interface {
	// Steps makes steps with every network k that has rates[k]: one for each of its rates, over the minibatches that rows
	// holds one after another, of batch rows each, the last of as many as are left. losses[k] are those before each step.
	// One that is not finite is a network's last: its step is not made, and none after it.
	Steps(rows []float32, batch int, rates [][]float32) (losses [][]float64, err error)
	// Loss is the mean loss over rows of every network k with of[k], without a step; 0 for the others.
	Loss(rows []float32, of []bool) ([]float64, error)
	// Those of network k, as a Trainer has them.
	Parameters(k int) [][]float32
	SetParameters(k int, to [][]float32) error
	Moments(k int) Moments
	SetMoments(k int, to Moments) error
	Close() error
}

// CohortEngine is what an Engine may be beside: one that has a way of its own to train programs that differ in nothing
// but their weights.
type CohortEngine interface {
	Cohort(programs []*Program, o TrainOptions) (Cohort, error)
}

// NewCohort makes the engine's own cohort where it has one and the programs are of one shape. Else every network gets a
// Trainer, and those are spread over o.Threads goroutines.
func NewCohort(e Engine, programs []*Program, o TrainOptions) (Cohort, error) {
	if len(programs) == 0 {
		return nil, errors.New("a cohort of no network")
	}
	if own, ok := e.(CohortEngine); ok && sameWidths(programs, o.Prediction) {
		return own.Cohort(programs, o)
	}
	c := &trainers{threads: min(max(o.Threads, 1), len(programs)), width: programs[0].Width}
	// More threads than networks help within each of them; fewer would only wait for one another there.
	o.Threads = max(o.Threads/len(programs), 1)
	for k, p := range programs {
		if p.Width != c.width {
			return nil, errors.Join(fmt.Errorf("program %d takes rows of %d columns, the first %d", k, p.Width, c.width), c.Close())
		}
		t, err := e.Trainer(p, o)
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c.of = append(c.of, t)
	}
	return c, nil
}

func sameWidths(programs []*Program, v Value) bool {
	first := programs[0].Parameters(v)
	for _, p := range programs[1:] {
		if SameShape(first, p.Parameters(v)) != nil {
			return false
		}
	}
	return true
}

// walker is a Trainer that makes many steps in one go: a step at each rate, over the minibatches that rows has one after another,
// sizes[i] rows for step i. A loss that is not finite is the last; its step is not made.
type walker interface {
	WalkOver(rows []float32, sizes []int, rates []float32) (losses []float64, err error)
}

// trainers are a cohort of single Trainers.
type trainers struct {
	of      []Trainer
	threads int
	width   int
}

// each calls do for every network, on the cohort's threads; it returns when all calls have.
func (c *trainers) each(do func(k int) error) error {
	var next atomic.Int64
	errs := make([]error, c.threads)
	work := func(at int) {
		for errs[at] == nil {
			k := int(next.Add(1)) - 1
			if k >= len(c.of) {
				return
			}
			errs[at] = do(k)
		}
	}
	var group sync.WaitGroup
	for at := 1; at < c.threads; at++ {
		group.Go(func() { work(at) })
	}
	work(0)
	group.Wait()
	return errors.Join(errs...)
}

func (c *trainers) Steps(rows []float32, batch int, rates [][]float32) ([][]float64, error) {
	if batch < 1 || len(rates) != len(c.of) {
		return nil, fmt.Errorf("minibatches of %d rows, rates for %d networks of %d", batch, len(rates), len(c.of))
	}
	size := batch * c.width
	batches := (len(rows) + size - 1) / size
	losses := make([][]float64, len(c.of))
	return losses, c.each(func(k int) error {
		if len(rates[k]) > batches {
			return fmt.Errorf("%d steps over %d minibatches", len(rates[k]), batches)
		}
		if w, ok := c.of[k].(walker); ok && len(rates[k]) > 0 {
			some := rows[:min(len(rates[k])*size, len(rows))]
			var sizes []int
			for left := len(some) / c.width; left > 0; left -= batch {
				sizes = append(sizes, min(left, batch))
			}
			var err error
			losses[k], err = w.WalkOver(some, sizes, rates[k])
			return err
		}
		for i, rate := range rates[k] {
			loss, err := c.of[k].Step(rows[i*size:min((i+1)*size, len(rows))], rate)
			if err != nil {
				return err
			}
			losses[k] = append(losses[k], loss)
			if loss-loss != 0 {
				return nil
			}
		}
		return nil
	})
}

func (c *trainers) Loss(rows []float32, of []bool) ([]float64, error) {
	if len(of) != len(c.of) {
		return nil, fmt.Errorf("the loss of %d networks is asked for; there are %d", len(of), len(c.of))
	}
	losses := make([]float64, len(c.of))
	return losses, c.each(func(k int) (err error) {
		if of[k] {
			losses[k], err = c.of[k].Loss(rows)
		}
		return err
	})
}

func (c *trainers) Parameters(k int) [][]float32 { return c.of[k].Parameters() }

func (c *trainers) SetParameters(k int, to [][]float32) error { return c.of[k].SetParameters(to) }

func (c *trainers) Moments(k int) Moments { return c.of[k].Moments() }

func (c *trainers) SetMoments(k int, to Moments) error { return c.of[k].SetMoments(to) }

func (c *trainers) Close() error {
	var errs []error
	for _, t := range c.of {
		errs = append(errs, t.Close())
	}
	return errors.Join(errs...)
}

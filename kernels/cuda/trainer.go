//go:build gpu

package cuda

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
)

// trainer is a cohort of one network.
type trainer struct {
	c      *cohort
	make   func() (kernels.Trainer, error) // of the processor
	beside kernels.Trainer                 // made when it is first asked for
}

// Trainer trains on the device. Where the engine may fall back and the device cannot take the network, the processor trains it.
func (e *Engine) Trainer(p *kernels.Program, o kernels.TrainOptions) (kernels.Trainer, error) {
	if _, err := o.Resolve(p); err != nil {
		return nil, fmt.Errorf("engine cuda cannot train this program: %w", err)
	}
	c, err := newCohort(e, []*kernels.Program{p}, o)
	if err == nil {
		return &trainer{c: c, make: func() (kernels.Trainer, error) {
			o.MaxBatch = 1 // no steps are asked of it
			return e.o.Beside.Trainer(p, o)
		}}, nil
	}
	if !e.o.Fallback {
		return nil, err
	}
	e.fellBack(err, trainsInstead)
	return e.o.Beside.Trainer(p, o)
}

// SelfTest is how often the device's numbers are to be compared with the processor's.
func (t *trainer) SelfTest() time.Duration { return t.c.e.o.SelfTest }

// Beside is the loss over rows that the processor comes to with the weights as they are. Sums have another order there.
func (t *trainer) Beside(rows []float32) (loss float64, err error) {
	if t.beside == nil {
		if t.beside, err = t.make(); err != nil {
			return 0, err
		}
	}
	if err := t.beside.SetParameters(t.Parameters()); err != nil {
		return 0, err
	}
	return t.beside.Loss(rows)
}

// Wrong notes that the device computed wrong numbers, and how that showed. The second time, in scoring or in training, it is given up.
func (t *trainer) Wrong(how string) error { return t.c.Wrong(how) }

// Cohort trains networks of one shape in the same launches. Where the engine may fall back and the device cannot take them all, the
// processor trains them.
func (e *Engine) Cohort(programs []*kernels.Program, o kernels.TrainOptions) (kernels.Cohort, error) {
	c, err := newCohort(e, programs, o)
	if err == nil && len(c.maps) > 1 { // rows are prepared once for all
		err = errors.Join(errors.New("engine cuda: the networks of a cohort map rows in different ways"), c.Close())
	}
	if err == nil {
		return c, nil
	}
	if !e.o.Fallback {
		return nil, err
	}
	e.fellBack(err, trainsInstead)
	return kernels.NewCohort(e.o.Beside, programs, o)
}

var errClosedTrainer = errors.New("engine cuda: the trainer is closed")

func (c *cohort) check(rows []float32, most int) (int, error) {
	if c.closed {
		return 0, errClosedTrainer
	}
	width := c.t.width
	n := len(rows) / width
	if n == 0 || len(rows)%width != 0 {
		return 0, fmt.Errorf("engine cuda: %d values are no whole number of rows of %d", len(rows), width)
	}
	if n > most {
		return 0, fmt.Errorf("engine cuda: %d rows in one step; MaxBatch is %d", n, most)
	}
	return n, nil
}

// over does a walk over rows of the caller's, in pieces that the device has memory for; each is whole steps, so that the pieces
// change nothing but time.
func (c *cohort) over(rows []float32, sizes []int, of []int, rates [][]float32, phases int) ([][]float64, error) {
	losses := make([][]float64, len(of))
	piece := max(walkBytes/wordSize/c.t.pitch, 1)
	for done := 0; done < len(sizes); {
		n, count := 0, 0
		for count < len(sizes)-done && (count == 0 || n+sizes[done+count] <= piece) {
			n += sizes[done+count]
			count++
		}
		w := walk{rows: &c.m.prepared, sizes: slices.Repeat([][]int{sizes[done : done+count]}, len(of)), of: of, phases: phases, order: make([]int32, n)}
		for i := range w.order {
			w.order[i] = int32(i)
		}
		for _, r := range rates {
			w.rates = append(w.rates, r[min(done, len(r)):min(done+count, len(r))])
		}
		var got [][]float64
		err := c.on(func(s *session) (err error) {
			if err = s.alloc(&c.m.prepared, int64(n)*int64(c.t.pitch)*wordSize); err != nil {
				return err
			}
			if err = c.prepare(s, &c.m.prepared, 0, of[0], rows[:n*c.t.width]); err != nil {
				return err
			}
			got, err = c.run(s, w)
			return err
		})
		if errors.Is(err, kernels.ErrOutOfMemory) && count > 1 {
			piece = n / 2
			c.e.stats.splits.Add(1)
			continue
		}
		if err != nil {
			return losses, err
		}
		stopped := 0
		for i, l := range got {
			losses[i] = append(losses[i], l...)
			if k := len(losses[i]); k > 0 && losses[i][k-1]-losses[i][k-1] != 0 && phases&doStep != 0 {
				stopped++
				if rates != nil {
					rates[i] = rates[i][:min(k, len(rates[i]))]
				}
			}
		}
		if stopped == len(of) {
			break
		}
		rows = rows[n*c.t.width:]
		done += count
	}
	return losses, nil
}

// mean is the mean loss over rows of networks, without a step.
func (c *cohort) mean(rows []float32, of []int) ([]float64, error) {
	n, err := c.check(rows, math.MaxInt)
	if err != nil {
		return nil, err
	}
	sizes := lots(n)
	losses, err := c.over(rows, sizes, of, nil, doForward|doLoss)
	if err != nil {
		return nil, err
	}
	means := make([]float64, len(of))
	for i := range of {
		means[i] = mean(losses[i], sizes)
	}
	return means, nil
}

// lots are the sizes of those that n rows are taken in for a loss without a step.
func lots(n int) (sizes []int) {
	for ; n > 0; n -= lossRows {
		sizes = append(sizes, min(n, lossRows))
	}
	return sizes
}

// mean is that of losses over lots of such sizes.
func mean(losses []float64, sizes []int) float64 {
	sum, n := 0.0, 0
	for i, l := range losses {
		sum += l * float64(sizes[i])
		n += sizes[i]
	}
	return sum / float64(n)
}

// views cuts a flat copy into W0, B0, W1, B1, …
func (t *training) views(flat []float32) [][]float32 {
	flat = append([]float32(nil), flat...)
	var views [][]float32
	for _, n := range t.shapes {
		views = append(views, flat[:n:n])
		flat = flat[n:]
	}
	return views
}

func flat(from [][]float32) (all []float32) {
	for _, v := range from {
		all = append(all, v...)
	}
	return all
}

const allSteps = doForward | doBackward | doLoss | doStep

func (t *trainer) Step(rows []float32, rate float32) (float64, error) {
	n, err := t.c.check(rows, t.c.t.options.MaxBatch)
	if err != nil {
		return 0, err
	}
	losses, err := t.c.over(rows, []int{n}, []int{0}, [][]float32{{rate}}, allSteps)
	if err != nil {
		return 0, err
	}
	return losses[0][0], nil
}

func (t *trainer) Loss(rows []float32) (float64, error) {
	means, err := t.c.mean(rows, []int{0})
	if err != nil {
		return 0, err
	}
	return means[0], nil
}

func (t *trainer) Gradients(rows []float32) (float64, [][]float32, error) {
	c := t.c
	n, err := c.check(rows, c.t.options.MaxBatch)
	if err != nil {
		return 0, nil, err
	}
	losses, err := c.over(rows, []int{n}, []int{0}, nil, doForward|doBackward|doLoss|doGradient)
	if err != nil {
		return 0, nil, err
	}
	g := make([]float32, c.t.parameters)
	if err := c.on(func(s *session) error { return download(s, g, &c.m.gradient, 0) }); err != nil {
		return 0, nil, err
	}
	return losses[0][0], c.t.views(g), nil
}

func (t *trainer) Parameters() [][]float32 { return t.c.Parameters(0) }

func (t *trainer) SetParameters(from [][]float32) error { return t.c.SetParameters(0, from) }

func (t *trainer) Moments() kernels.Moments { return t.c.Moments(0) }

func (t *trainer) SetMoments(m kernels.Moments) error { return t.c.SetMoments(0, m) }

func (t *trainer) Close() error {
	err := t.c.Close()
	if t.beside != nil {
		err = errors.Join(err, t.beside.Close())
		t.beside = nil
	}
	return err
}

func (t *trainer) Hold(n int) (bool, error) { return t.c.Hold(n) }

func (t *trainer) Put(first int, rows []float32) error { return t.c.Put(first, rows) }

func (t *trainer) Walk(order []int32, sizes []int, rates []float32) ([]float64, error) {
	if len(rates) != len(sizes) {
		return nil, fmt.Errorf("engine cuda: %d rates for %d steps", len(rates), len(sizes))
	}
	losses, err := t.c.Walk(order, sizes, [][]float32{rates})
	if err != nil {
		return nil, err
	}
	return losses[0], nil
}

// Hold makes room on the device for n raw rows, which then are numbered from 0: once for all networks. It says false where there is
// not enough: then steps are made over rows that are given with them.
func (c *cohort) Hold(n int) (bool, error) {
	if c.closed || n > math.MaxInt32 {
		return false, nil
	}
	err := c.on(func(s *session) error {
		s.free(&c.m.held)
		return s.alloc(&c.m.held, int64(n)*int64(c.t.pitch)*wordSize)
	})
	c.rows = 0
	if errors.Is(err, kernels.ErrOutOfMemory) {
		return false, nil
	}
	if err == nil {
		c.rows = n
	}
	return err == nil, err
}

// Put copies rows to the number first and on. They are mapped there, once.
func (c *cohort) Put(first int, rows []float32) error { return c.PutOf(0, first, rows) }

// Walk makes a step with every network k at each of rates[k], on minibatches of held rows, whose numbers order has one after another:
// sizes[i] of them are step i's. A loss that is not finite is a network's last; its step is not made. Where Walk fails, no step is made.
func (c *cohort) Walk(order []int32, sizes []int, rates [][]float32) ([][]float64, error) {
	all := make([][]float64, len(c.members))
	if c.closed {
		return all, errClosedTrainer
	}
	if err := c.fits(len(order), sizes); err != nil {
		return all, err
	}
	if err := c.holds(order); err != nil {
		return all, err
	}
	of, each, err := c.asked(rates, len(sizes))
	if err != nil || len(of) == 0 {
		return all, err
	}
	var losses [][]float64
	err = c.on(func(s *session) (err error) {
		losses, err = c.run(s, walk{rows: &c.m.held, order: order, sizes: slices.Repeat([][]int{sizes}, len(of)), of: of, rates: each, phases: allSteps})
		return err
	})
	if err != nil {
		return all, err
	}
	for i, k := range of {
		all[k] = losses[i]
	}
	return all, nil
}

func (c *cohort) holds(order []int32) error {
	for _, r := range order {
		if r < 0 || int(r) >= c.rows {
			return fmt.Errorf("engine cuda: row %d is not among the %d that the GPU holds", r, c.rows)
		}
	}
	return nil
}

// asked are the networks that make steps, and their rates.
func (c *cohort) asked(rates [][]float32, steps int) (of []int, each [][]float32, err error) {
	if len(rates) != len(c.members) {
		return nil, nil, fmt.Errorf("engine cuda: rates for %d networks; there are %d", len(rates), len(c.members))
	}
	for k, r := range rates {
		if len(r) > steps {
			return nil, nil, fmt.Errorf("engine cuda: %d steps over %d minibatches", len(r), steps)
		}
		if len(r) > 0 {
			of, each = append(of, k), append(each, r)
		}
	}
	return of, each, nil
}

// WalkOver is the same over rows that are given.
func (t *trainer) WalkOver(rows []float32, sizes []int, rates []float32) ([]float64, error) {
	c := t.c
	n, err := c.check(rows, math.MaxInt)
	if err != nil {
		return nil, err
	}
	if err := c.fits(n, sizes); err != nil {
		return nil, err
	}
	if len(rates) != len(sizes) {
		return nil, fmt.Errorf("engine cuda: %d rates for %d steps", len(rates), len(sizes))
	}
	before := c.members[0]
	losses, err := c.over(rows, sizes, []int{0}, [][]float32{rates}, allSteps)
	if err != nil { // pieces before may have been made
		before.dirty = true
		c.members[0] = before
		return nil, err
	}
	return losses[0], nil
}

// fits tells whether so many rows are those of the steps.
func (c *cohort) fits(n int, sizes []int) error {
	all := 0
	for _, size := range sizes {
		if size < 1 || size > c.t.options.MaxBatch {
			return fmt.Errorf("engine cuda: %d rows in one step; 1 to %d, as MaxBatch is", size, c.t.options.MaxBatch)
		}
		all += size
	}
	if all != n {
		return fmt.Errorf("engine cuda: %d rows for %d steps of %d rows", n, len(sizes), all)
	}
	return nil
}

func (c *cohort) Steps(rows []float32, batch int, rates [][]float32) ([][]float64, error) {
	all := make([][]float64, len(c.members))
	if batch < 1 || batch > c.t.options.MaxBatch {
		return all, fmt.Errorf("engine cuda: minibatches of %d rows; MaxBatch is %d", batch, c.t.options.MaxBatch)
	}
	n, err := c.check(rows, math.MaxInt)
	if err != nil {
		return all, err
	}
	var sizes []int
	for left := n; left > 0; left -= batch {
		sizes = append(sizes, min(left, batch))
	}
	of, each, err := c.asked(rates, len(sizes))
	if err != nil || len(of) == 0 {
		return all, err
	}
	losses, err := c.over(rows, sizes, of, each, allSteps)
	for i, k := range of {
		all[k] = losses[i]
	}
	return all, err
}

func (c *cohort) Loss(rows []float32, of []bool) ([]float64, error) {
	all := make([]float64, len(c.members))
	if len(of) != len(all) {
		return all, fmt.Errorf("the loss of %d networks is asked for; there are %d", len(of), len(all))
	}
	var some []int
	for k, yes := range of {
		if yes {
			some = append(some, k)
		}
	}
	if len(some) == 0 {
		return all, nil
	}
	means, err := c.mean(rows, some)
	for i, m := range means {
		all[some[i]] = m
	}
	return all, err
}

func (c *cohort) Parameters(k int) [][]float32 { return c.t.views(c.members[k].parameters) }

func (c *cohort) SetParameters(k int, from [][]float32) error {
	if err := kernels.SameShape(c.Parameters(k), from); err != nil {
		return fmt.Errorf("engine cuda: %w", err)
	}
	c.members[k] = member{
		parameters: flat(from), moment1: make([]float32, c.t.parameters), moment2: make([]float32, c.t.parameters), dirty: true,
	}
	return nil
}

func (c *cohort) Moments(k int) kernels.Moments {
	b := &c.members[k]
	if c.t.options.Optimizer != kernels.Adam || b.steps == 0 {
		return kernels.Moments{}
	}
	return kernels.Moments{Steps: b.steps, First: c.t.views(b.moment1), Second: c.t.views(b.moment2)}
}

func (c *cohort) SetMoments(k int, m kernels.Moments) error {
	if err := m.Fits(c.t.options.Optimizer, c.Parameters(k)); err != nil {
		return fmt.Errorf("engine cuda: %w", err)
	}
	b := &c.members[k]
	b.moment1, b.moment2, b.steps, b.dirty = make([]float32, c.t.parameters), make([]float32, c.t.parameters), m.Steps, true
	copy(b.moment1, flat(m.First))
	copy(b.moment2, flat(m.Second))
	return nil
}

// Close gives the memory back. Parameters stay readable.
func (c *cohort) Close() error {
	if c.closed {
		return nil
	}
	c.closed = true
	err := c.on(func(s *session) error { c.release(s); return nil })
	if errors.Is(err, errClosed) || c.e.d.Lost() != nil {
		return nil // the device has gone, and its memory with it
	}
	return err
}

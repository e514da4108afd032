//go:build gpu

package cuda

import (
	"errors"
	"fmt"

	"github.com/lapwing-stream/lapwing/kernels"
)

// Networks that learn abreast have one shape and nothing else in common: each has rows, maps and minibatches of its own, such as those of
// a model for every key. The rows of all are held in one store, a range for each network, and a launch makes steps of all of them.

// Abreast makes a cohort for such networks: its PutOf, WalkEach and LossEach take the place of Put, Walk and Loss. There is no fallback:
// whoever asks can train each network by itself, and that falls back.
func (e *Engine) Abreast(programs []*kernels.Program, o kernels.TrainOptions) (kernels.Cohort, error) {
	if len(programs) == 0 {
		return nil, errors.New("engine cuda: a cohort of no network")
	}
	return newCohort(e, programs, o)
}

// PutOf copies rows of network k to the number first and on. They are mapped there, once, as that network maps them.
func (c *cohort) PutOf(k, first int, rows []float32) error {
	if k < 0 || k >= len(c.members) || first < 0 {
		return fmt.Errorf("engine cuda: rows of network %d to the number %d; there are %d networks", k, first, len(c.members))
	}
	n, err := c.check(rows, c.rows-first)
	if err != nil || n == 0 {
		return err
	}
	return c.on(func(s *session) error { return c.prepare(s, &c.m.held, first, k, rows) })
}

// WalkEach makes a step with every network k at each of rates[k], on minibatches of held rows, whose numbers orders[k] has one after another:
// sizes[k][i] of them are step i's. A loss that is not finite is a network's last; its step is not made. Where it fails, no step is made.
func (c *cohort) WalkEach(orders [][]int32, sizes [][]int, rates [][]float32) ([][]float64, error) {
	if len(orders) != len(c.members) || len(sizes) != len(c.members) || len(rates) != len(c.members) {
		return nil, fmt.Errorf("engine cuda: rows, sizes and rates for %d, %d and %d networks; there are %d", len(orders), len(sizes), len(rates), len(c.members))
	}
	w := walk{phases: allSteps}
	for k, r := range rates {
		if len(r) != len(sizes[k]) {
			return nil, fmt.Errorf("engine cuda: %d rates for %d steps of network %d", len(r), len(sizes[k]), k)
		}
		if err := c.fits(len(orders[k]), sizes[k]); err != nil {
			return nil, err
		}
		if len(r) > 0 {
			w.add(k, orders[k], sizes[k])
			w.rates = append(w.rates, r)
		}
	}
	return c.walkHeld(w)
}

// LossEach is the mean loss of every network k over the held rows orders[k], without a step; 0 where those are none.
func (c *cohort) LossEach(orders [][]int32) ([]float64, error) {
	if len(orders) != len(c.members) {
		return nil, fmt.Errorf("engine cuda: the losses of %d networks are asked for; there are %d", len(orders), len(c.members))
	}
	w := walk{phases: doForward | doLoss}
	for k, order := range orders {
		if len(order) > 0 {
			w.add(k, order, lots(len(order)))
		}
	}
	losses, err := c.walkHeld(w)
	if err != nil {
		return nil, err
	}
	means := make([]float64, len(orders))
	for i, k := range w.of {
		means[k] = mean(losses[k], w.sizes[i])
	}
	return means, nil
}

// add is network k's part of a walk.
func (w *walk) add(k int, order []int32, sizes []int) {
	w.of, w.starts, w.sizes = append(w.of, k), append(w.starts, len(w.order)), append(w.sizes, sizes)
	w.order = append(w.order, order...)
}

// walkHeld does a walk over held rows. losses[k] are those of network k.
func (c *cohort) walkHeld(w walk) ([][]float64, error) {
	all := make([][]float64, len(c.members))
	if c.closed {
		return nil, errClosedTrainer
	}
	if err := c.holds(w.order); err != nil || len(w.of) == 0 {
		return all, err
	}
	w.rows = &c.m.held
	var losses [][]float64
	if err := c.on(func(s *session) (err error) { losses, err = c.run(s, w); return err }); err != nil {
		return nil, err
	}
	for i, k := range w.of {
		all[k] = losses[i]
	}
	return all, nil
}

// Beside is the loss over raw rows that the processor comes to with the weights that network k has. Sums have another order there.
func (c *cohort) Beside(k int, rows []float32) (loss float64, err error) {
	o := c.t.options
	o.MaxBatch = 1 // no steps are asked of it
	t, err := c.e.o.Beside.Trainer(c.programs[k], o)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	if err := t.SetParameters(c.Parameters(k)); err != nil {
		return 0, err
	}
	return t.Loss(rows)
}

// Wrong notes that the device computed wrong numbers, and how that showed. The second time, in scoring or in training, it is given up.
func (c *cohort) Wrong(how string) error {
	if c.e.stats.corrected.Add(1) > 1 {
		return c.e.d.distrust("it has computed wrong numbers for the second time: " + how)
	}
	return nil
}

package trainer

import (
	"context"
	"errors"
	"math"
	"time"
)

// memory is what an engine's device keeps rows in.
type memory interface {
	// Hold makes room for n raw rows, numbered from 0; false where there is not enough.
	Hold(n int) (bool, error)
	// Put copies rows to the number first and on.
	Put(first int, rows []float32) error
}

// device is what a kernels.Trainer may be beside: one with memory of its own, which makes many steps in one go.
type device interface {
	memory
	// Walk makes a step at each rate on minibatches of held rows, whose numbers order has one after another: sizes[i] of them
	// are step i's. A loss that is not finite is the last; its step is not made. Where it fails no step is made.
	Walk(order []int32, sizes []int, rates []float32) (losses []float64, err error)
	// WalkOver is the same over rows that are given.
	WalkOver(rows []float32, sizes []int, rates []float32) (losses []float64, err error)

	// SelfTest is how often its numbers are to be compared with a processor's.
	SelfTest() time.Duration
	// Beside is the loss over rows that a processor comes to, with the weights as they are.
	Beside(rows []float32) (float64, error)
	// Wrong notes that its numbers were wrong, and how that showed. An error says that the device is not to be used any more.
	Wrong(how string) error
}

// holder is what a kernels.Cohort may be beside: one that holds the rows once for all networks. Walk is Steps over held rows, whose
// numbers order has one after another, sizes[i] of them for step i. Where it fails no step is made.
type holder interface {
	memory
	Walk(order []int32, sizes []int, rates [][]float32) (losses [][]float64, err error)
}

// givenBytes bounds the rows that a device is given for a stretch, where it cannot hold the history.
const givenBytes = 16 << 20

// hold hands the history to a device, once: all of it, so that a row has the same number there as here. What went there early is not sent
// again. Where the history does not fit every stretch takes its rows along.
func (j *job) hold(ctx context.Context, h *history, m memory) (bool, error) {
	defer h.store.early.close() // who fills a device again does so with rows of which no bit has changed there
	if h.n > math.MaxInt32 {
		return false, nil
	}
	fits, err := m.Hold(h.n)
	if err != nil {
		return false, err
	}
	if !fits {
		j.Log.Info("the history does not fit the device's memory: rows go there step by step", "rows", h.n)
		return false, nil
	}
	there, err := h.take(m)
	if err != nil {
		return false, err
	}
	left := func(b *block) bool { return !there || b.early == nowhere }
	return true, h.passSome(ctx, 1, left, func(_, first int, rows []float32) error { return m.Put(first, rows) })
}

// onDevice gives a trainer that has a device the history.
func (d *descent) onDevice(ctx context.Context) (err error) {
	t, ok := d.trainer.(device)
	if !ok {
		return nil
	}
	d.device = t
	d.resident, err = d.job.hold(ctx, d.h, t)
	return err
}

// walk makes up to n steps on the device: the minibatches that stretch would have taken one by one.
func (d *descent) walk(ctx context.Context, n int) ([]float64, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if !d.resident {
		n = max(1, min(n, givenBytes/4/d.h.width/d.batch))
	}
	before := d.order.place()
	rates := make([]float32, n)
	for i := range rates {
		rates[i] = d.rateOf(d.Step + i)
	}
	sizes, err := d.deal(n)
	if err != nil {
		return nil, errors.Join(err, d.order.seek(before))
	}
	var losses []float64
	if d.resident {
		losses, err = d.device.Walk(d.numbers, sizes, rates)
	} else {
		losses, err = d.device.WalkOver(d.rows, sizes, rates)
	}
	if err == nil && len(losses) == n {
		return losses, nil
	}
	// The order goes back to where the weights are.
	made := len(losses)
	if made > 0 && !finite(losses[made-1]) {
		made--
	}
	if back := d.order.seek(before); back != nil {
		return losses, errors.Join(err, back)
	}
	if _, again := d.deal(made); again != nil {
		return losses, errors.Join(err, again)
	}
	return losses, err
}

// number appends the numbers of the rows of the next n minibatches to numbers.
func (e *epochs) number(n, batch int, numbers []int32) (_ []int32, sizes []int, err error) {
	for range n {
		size := 0
		for size < batch {
			dealt, err := e.deal(batch-size, size > 0)
			if err != nil {
				return numbers, nil, err
			}
			if len(dealt) == 0 {
				break
			}
			size += len(dealt)
			for _, g := range dealt {
				numbers = append(numbers, int32(g))
			}
		}
		sizes = append(sizes, size)
	}
	return numbers, sizes, nil
}

// deal takes the next n minibatches: their rows' numbers where the device holds the history, else the rows.
func (d *descent) deal(n int) (sizes []int, err error) {
	if d.resident {
		d.numbers, sizes, err = d.order.number(n, d.batch, d.numbers[:0])
		return sizes, err
	}
	d.rows = d.rows[:0]
	for range n {
		size := 0
		for size < d.batch {
			dealt, err := d.order.deal(d.batch-size, size > 0)
			if err != nil {
				return nil, err
			}
			if len(dealt) == 0 {
				break
			}
			size += len(dealt)
			had := len(d.rows)
			d.rows = append(d.rows, make([]float32, len(dealt)*d.h.width)...)
			if _, err := d.h.gather(dealt, d.rows[had:len(d.rows):cap(d.rows)]); err != nil {
				return nil, err
			}
		}
		sizes = append(sizes, size)
	}
	return sizes, nil
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

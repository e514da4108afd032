//go:build gpu

package cuda

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
)

// Resident is rows in device memory that are scored again and again, by the launches that Scorer makes, into device memory: what
// the kernels do where no copy is waited for. It is for one goroutine.
type Resident struct {
	s    *scorer
	slot *slot
	rows int
}

// Resident copies rows to the device. Where the engine may fall back and the device cannot take the program, that is an error here.
func (e *Engine) Resident(p *kernels.Program, rows []float32) (*Resident, error) {
	made, err := e.Scorer(p)
	if err != nil {
		return nil, err
	}
	r := &Resident{s: made.(*scorer), slot: &slot{}, rows: len(rows) / p.Width}
	if r.rows < 1 || len(rows)%p.Width != 0 || r.rows > math.MaxInt32 {
		return nil, errors.New("engine cuda: no whole number of rows to hold")
	}
	rows = slices.Clone(rows) // a copy that hangs outlives this call
	err = e.d.do(context.Background(), func(d *session) error {
		err := r.s.load(d) // what fell back has not
		if err == nil {
			err = d.alloc(&r.slot.in, int64(len(rows)*wordSize))
		}
		if err == nil {
			err = d.alloc(&r.slot.out, int64(r.rows*wordSize))
		}
		if err == nil {
			err = upload(d, &r.slot.in, 0, rows)
		}
		if err != nil {
			r.free(d)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Score scores all rows times times, one launch after another, and says how long that took.
func (r *Resident) Score(times int) (took time.Duration, err error) {
	err = r.s.e.d.do(context.Background(), func(d *session) error {
		st, err := d.stream(0)
		if err != nil {
			return err
		}
		began := time.Now()
		for range times {
			if err := r.s.launch(d, r.slot, st, r.rows, wantScore); err != nil {
				d.synchronize()
				return err
			}
		}
		err = d.wait(st)
		took = time.Since(began)
		return err
	})
	return took, err
}

// Scores are those of the last Score.
func (r *Resident) Scores() ([]float32, error) {
	scores := make([]float32, r.rows)
	return scores, r.s.e.d.do(context.Background(), func(d *session) error { return download(d, scores, &r.slot.out, 0) })
}

// Close gives the memory back.
func (r *Resident) Close() error {
	err := r.s.e.d.do(context.Background(), func(d *session) error {
		r.free(d)
		return nil
	})
	if errors.Is(err, errClosed) || r.s.e.d.Lost() != nil {
		return nil // the device has gone, and its memory with it
	}
	return err
}

func (r *Resident) free(d *session) {
	for _, b := range []*buffer{&r.slot.in, &r.slot.out, &r.slot.scratch} {
		d.free(b)
	}
}

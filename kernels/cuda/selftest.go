//go:build gpu

package cuda

import (
	"fmt"
	"math"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
)

// selfTest notices a device that computes wrong numbers without an error. What the program made of a few rows when it was
// first loaded, checked against the processor, is what it must make of them ever after, to the bit.
type selfTest struct {
	rows   []float32
	want   []float32 // all outputs
	passed time.Time // of the device's goroutine
}

const selfTestRows = 64

// newSelfTest draws rows around the knots of the program's maps, where its columns have their values.
func newSelfTest(p *kernels.Program) *selfTest {
	t := &selfTest{rows: make([]float32, selfTestRows*p.Width)}
	var columns []kernels.Column
	for _, s := range p.Steps {
		if m, ok := s.(*kernels.Map); ok && m.In == kernels.Input && !m.Inverse {
			columns = m.Columns
			break
		}
	}
	state := uint64(1)
	for i := range t.rows {
		// Knuth's generator (MMIX): any spread of numbers will do.
		state = state*6364136223846793005 + 1442695040888963407
		u := float32(state>>40)/(1<<23) - 1
		t.rows[i] = 2 * u
		if columns != nil {
			c := &columns[i%p.Width]
			low, high := c.X[0], c.X[len(c.X)-1]
			// A slope turns a unit of the map into so much of the column.
			x := low + (high-low)*(u+1)/2 + 2*u/c.After
			if c.Log {
				x = kernels.SymmetricExp(x)
			}
			if x-x == 0 {
				t.rows[i] = x
			}
		}
	}
	return t
}

func (t *selfTest) outputs() (all []float32, out kernels.Output) {
	n := len(t.rows)
	all = make([]float32, selfTestRows+2*n)
	return all, kernels.Output{Score: all[:selfTestRows], Reconstruction: all[selfTestRows : selfTestRows+n], Contributions: all[selfTestRows+n:]}
}

// first takes down what the device makes of the rows, and holds the scores to the processor's.
func (t *selfTest) first(d *session, s *scorer) error {
	all, out := t.outputs()
	if err := s.run(d, t.rows, out); err != nil {
		return err
	}
	want := make([]float32, selfTestRows)
	if err := s.beside.Score(t.rows, kernels.Output{Score: want}); err != nil {
		return err
	}
	for i, w := range want {
		off := math.Abs(float64(out.Score[i]) - float64(w))
		if finite := w-w == 0; finite && !(off <= 1e-4*math.Abs(float64(w))+1e-4) {
			return t.fault(d, fmt.Sprintf("row %d of its self-test scores %v there and %v on the CPU", i, out.Score[i], w))
		}
	}
	t.want, t.passed = all, time.Now()
	return nil
}

// due repeats the test if it is time to. Numbers that are wrong may be those of the constants in device memory, which are
// loaded anew; a device that is wrong again has had its chance.
func (t *selfTest) due(d *session, s *scorer) error {
	if time.Since(t.passed) < s.e.o.SelfTest {
		return nil
	}
	at, err := t.wrong(d, s)
	if err != nil {
		return err
	}
	if at >= 0 {
		if s.e.stats.corrected.Add(1) > 1 {
			return t.fault(d, "its self-test has failed for the second time")
		}
		d.d.log.Warn("the GPU computed wrong numbers; its model is loaded anew, and scores since the last self-test may be wrong",
			"gpu", d.d.info.Title(), "uuid", d.d.info.UUID, "last_self_test", t.passed.UTC())
		if err := s.load(d); err != nil {
			return err
		}
		if at, err = t.wrong(d, s); err != nil {
			return err
		}
		if at >= 0 {
			return t.fault(d, "its self-test fails with a model just loaded")
		}
	}
	t.passed = time.Now()
	return nil
}

// wrong is the first word that is not as it was, or -1.
func (t *selfTest) wrong(d *session, s *scorer) (int, error) {
	all, out := t.outputs()
	if err := s.run(d, t.rows, out); err != nil {
		return 0, err
	}
	for i, x := range all {
		if math.Float32bits(x) != math.Float32bits(t.want[i]) {
			return i, nil
		}
	}
	return -1, nil
}

// fault marks the device bad.
func (t *selfTest) fault(d *session, detail string) error { return d.d.distrust(detail) }

// distrust gives the device up for its numbers.
func (d *Device) distrust(detail string) error {
	e := &Error{What: "trust the numbers", Device: d.info.Title(), Detail: detail, Next: "take the card out of use and test it (dcgmi diag -r 3); compute on the CPU with --engine cpu", lost: true}
	d.lose(e)
	return e
}

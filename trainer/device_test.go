package trainer

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
)

// holdingEngine is the CPU's with a memory for rows of its own, as a GPU has.
type holdingEngine struct {
	kernels.Engine
	room     int           // rows
	walks    int           // calls over held rows
	given    int           // over rows that came along
	put      int           // rows that went there when training began
	taken    int           // rows that were there already
	selfTest time.Duration // between two comparisons with the processor; 0 = at every turn
}

func (e *holdingEngine) Trainer(p *kernels.Program, o kernels.TrainOptions) (kernels.Trainer, error) {
	t, err := e.Engine.Trainer(p, o)
	return &holdingTrainer{t, heldRows{e: e, width: p.Width}}, err
}

func (e *holdingEngine) Cohort(programs []*kernels.Program, o kernels.TrainOptions) (kernels.Cohort, error) {
	c, err := kernels.NewCohort(e.Engine, programs, o)
	return &holdingCohort{Cohort: c, heldRows: heldRows{e: e, width: programs[0].Width}}, err
}

// heldRows are in the memory of a device.
type heldRows struct {
	e     *holdingEngine
	width int
	rows  []float32
}

func (t *heldRows) Hold(n int) (bool, error) {
	if n > t.e.room {
		return false, nil
	}
	t.rows = make([]float32, n*t.width)
	return true, nil
}

func (t *heldRows) Put(first int, rows []float32) error {
	copy(t.rows[first*t.width:], rows)
	t.e.put += len(rows) / t.width
	return nil
}

func (t *heldRows) Take(from kernels.RawRows, first []int) (bool, error) {
	blocks := from.(*earlyRows).blocks
	if blocks == nil {
		return false, nil
	}
	for i, at := range first {
		copy(t.rows[at*t.width:], blocks[i])
		t.e.taken += len(blocks[i]) / t.width
	}
	return true, nil
}

func (t *heldRows) of(order []int32) (rows []float32) {
	for _, g := range order {
		rows = append(rows, t.rows[int(g)*t.width:][:t.width]...)
	}
	return rows
}

type holdingCohort struct {
	kernels.Cohort
	heldRows
}

func (c *holdingCohort) Walk(order []int32, sizes []int, rates [][]float32) ([][]float64, error) {
	c.e.walks++
	losses := make([][]float64, len(rates))
	for i, n := range sizes {
		one := make([][]float32, len(rates))
		for k, l := range losses {
			if len(l) == i && i < len(rates[k]) && (i == 0 || finite(l[i-1])) {
				one[k] = rates[k][i : i+1]
			}
		}
		some, err := c.Steps(c.of(order[:n]), n, one)
		if err != nil {
			return nil, err
		}
		for k := range some {
			losses[k] = append(losses[k], some[k]...)
		}
		order = order[n:]
	}
	return losses, nil
}

type holdingTrainer struct {
	kernels.Trainer
	heldRows
}

func (t *holdingTrainer) SelfTest() time.Duration { return t.e.selfTest }

func (t *holdingTrainer) Beside(rows []float32) (float64, error) { return t.Trainer.Loss(rows) }

func (t *holdingTrainer) Wrong(how string) error { return errors.New(how) }

func (t *holdingTrainer) Walk(order []int32, sizes []int, rates []float32) ([]float64, error) {
	t.e.walks++
	return t.steps(t.of(order), sizes, rates)
}

func (t *holdingTrainer) WalkOver(rows []float32, sizes []int, rates []float32) ([]float64, error) {
	t.e.given++
	return t.steps(rows, sizes, rates)
}

func (t *holdingTrainer) steps(rows []float32, sizes []int, rates []float32) (losses []float64, err error) {
	if len(sizes) != len(rates) {
		return nil, fmt.Errorf("%d sizes, %d rates", len(sizes), len(rates))
	}
	for i, n := range sizes {
		loss, err := t.Step(rows[:n*t.width], rates[i])
		if err != nil {
			return nil, err
		}
		rows = rows[n*t.width:]
		if losses = append(losses, loss); !finite(loss) {
			return losses, nil
		}
	}
	if len(rows) > 0 {
		return nil, fmt.Errorf("%d values too many", len(rows))
	}
	return losses, nil
}

// A device that holds the history, one that is given the rows, and a trainer without a device see the same minibatches: the same
// bytes, for one network and for several. Also where a rate lets training diverge and begin again.
func TestDeviceSeesTheSameMinibatches_Case4_12(t *testing.T) {
	b := newBench(t)
	b.topic("t", 3, values(3, machine(1, 1500)...)...)
	for _, candidates := range []int{1, 3} {
		deviceSeesTheSame(t, b, candidates, 0)
		deviceSeesTheSame(t, b, candidates, 20)
	}
}

func deviceSeesTheSame(t *testing.T, b *bench, candidates int, rate float64) {
	run := func(e kernels.Engine) []byte {
		t.Helper()
		b.deps.Engine = e
		o := quick("t")
		o.Epochs, o.Candidates, o.Vary = 7, candidates, VaryRate
		if rate > 0 {
			o.Optimizer, o.LearningRate = "sgd", rate
		}
		m := b.mustRun(o).Model
		m.Lineage.Metrics = nil
		data, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	plain := run(cpu.New())
	holding, given := &holdingEngine{Engine: cpu.New(), room: 1500}, &holdingEngine{Engine: cpu.New(), room: 1499}
	for _, e := range []*holdingEngine{holding, given} {
		if !bytes.Equal(run(e), plain) {
			t.Errorf("room for %d rows: another model than without a device", e.room)
		}
	}
	if holding.walks == 0 || holding.given != 0 || given.walks != 0 || (given.given == 0) != (candidates > 1) {
		t.Errorf("%d and %d walks over held rows, %d and %d over given ones", holding.walks, given.walks, holding.given, given.given)
	}
}

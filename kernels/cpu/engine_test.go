package cpu_test

import (
	"math"
	"runtime"
	"testing"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/compliance"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
)

// TestCompliance runs the suite at every level that this machine has.
func TestCompliance(t *testing.T) {
	for _, l := range cpu.Levels() {
		t.Run(l, func(t *testing.T) { compliance.Run(t, at(t, l)) })
	}
}

func at(t testing.TB, level string) kernels.Engine {
	e, err := cpu.NewAt(level)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func BenchmarkScore(b *testing.B) {
	for _, l := range cpu.Levels() {
		b.Run(l, func(b *testing.B) { compliance.BenchmarkScore(b, at(b, l)) })
	}
}

func BenchmarkTrainStep(b *testing.B) {
	for _, l := range cpu.Levels() {
		b.Run(l, func(b *testing.B) { compliance.BenchmarkTrainStep(b, at(b, l)) })
	}
}

func small() (*kernels.Program, kernels.TrainOptions) {
	var columns []kernels.Column
	for range 6 {
		columns = append(columns, kernels.Column{
			Lo: -100, Hi: 100, X: []float32{0, 1}, Y: []float32{0, 2}, Before: 1, After: 1,
		})
	}
	p := kernels.Autoencoder(columns, []int{3}, []kernels.Activation{kernels.Tanh})
	kernels.Initialise(p, 1)
	target, prediction, _ := p.Residual()
	return p, kernels.TrainOptions{Prediction: prediction, Target: target, MaxBatch: 128, Threads: 3}
}

func TestNoAllocation(t *testing.T) {
	p, o := small()
	s, err := cpu.New().Scorer(kernels.Blended(p, 2, []float32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, 1, 1))
	if err != nil {
		t.Fatal(err)
	}
	rows := make([]float32, 100*p.Width)
	out := kernels.Output{
		Score: make([]float32, 100), Reconstruction: make([]float32, len(rows)), Contributions: make([]float32, len(rows)),
	}
	// The average rounds down, so a collection that empties the pool does not count.
	if n := testing.AllocsPerRun(100, func() {
		if err := s.Score(rows, out); err != nil {
			t.Fatal(err)
		}
	}); n > 0 && !raceEnabled {
		t.Errorf("%v allocations for a call of Score", n)
	}
	tr, err := cpu.New().Trainer(p, o)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	if n := testing.AllocsPerRun(100, func() {
		if _, err := tr.Step(rows, 1e-3); err != nil {
			t.Fatal(err)
		}
		if _, err := tr.Loss(rows); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations for a step and a loss", n)
	}
}

// TestCloseEndsWorkers: every goroutine of a trainer ends with it.
func TestCloseEndsWorkers(t *testing.T) {
	p, o := small()
	before := runtime.NumGoroutine()
	for range 20 {
		tr, err := cpu.New().Trainer(p, o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tr.Step(make([]float32, 100*p.Width), 1e-3); err != nil {
			t.Fatal(err)
		}
		if err := tr.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// Close waits for the workers' last word, not for the runtime to forget them.
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

// TestLossOfHugeRow: squares that float32 cannot hold still give a loss.
func TestLossOfHugeRow(t *testing.T) {
	p, o := small()
	for j := range p.Steps[0].(*kernels.Map).Columns {
		c := &p.Steps[0].(*kernels.Map).Columns[j]
		c.Lo, c.Hi = -1e30, 1e30
	}
	tr, err := cpu.New().Trainer(p, o)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	loss, err := tr.Loss([]float32{1e30, 0, 0, 0, 0, 0})
	if err != nil {
		t.Fatal(err)
	}
	if want := 1e60 / 6; math.Abs(loss/want-1) > 1e-5 {
		t.Errorf("loss %v, want %v", loss, want)
	}
}

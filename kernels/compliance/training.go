package compliance

import (
	"fmt"
	"math"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/gorgonia"
)

// gradients compares loss and every gradient with finite differences and with Gorgonia's automatic
// differentiation.
func gradients(t *testing.T, e kernels.Engine) {
	tests := []*net{branching(), blended(7, 3, 4, []int{5, 2, 5}, kernels.Tanh)}
	for _, act := range activations {
		tests = append(tests, nets(act)...)
	}
	for _, n := range tests {
		t.Run(n.name, func(t *testing.T) { differentiates(t, e, n, kernels.TrainOptions{MaxBatch: 37}) })
	}
}

// huber is the same for that loss, with a delta that about half of the residuals are beyond, and with all of them
// within or beyond it.
func huber(t *testing.T, e kernels.Engine) {
	for _, n := range []*net{
		branching(), autoencoder(1, []int{1}, kernels.Linear), autoencoder(9, []int{17, 3}, kernels.GELU),
		autoencoder(18, []int{14, 7, 7}, kernels.Tanh), blended(7, 3, 4, []int{5, 2, 5}, kernels.ELU),
	} {
		for _, delta := range []float32{1e-3, 0.5, 1e3} {
			t.Run(fmt.Sprintf("%s delta %v", n.name, delta), func(t *testing.T) {
				differentiates(t, e, n, kernels.TrainOptions{MaxBatch: 37, Loss: kernels.Huber, Delta: delta})
			})
		}
	}
	// 1 where none is asked for.
	n := autoencoder(5, []int{3}, kernels.Tanh)
	rows := n.rows(20)
	named, err := trainer(t, e, n, kernels.TrainOptions{Loss: kernels.Huber, Delta: 1}).Loss(rows)
	if err != nil {
		t.Fatal(err)
	}
	if unnamed, err := trainer(t, e, n, kernels.TrainOptions{Loss: kernels.Huber}).Loss(rows); err != nil || unnamed != named {
		t.Errorf("loss %v without a delta (%v), %v with 1", unnamed, err, named)
	}
}

// differentiates compares loss and gradients of one net.
func differentiates(t *testing.T, e kernels.Engine, n *net, options kernels.TrainOptions) {
	tr := trainer(t, e, n, options)
	rows := n.rows(2)
	o, residual := newOracle(n.p, n.prediction), residualLoss{options}
	loss, got, err := tr.Gradients(rows)
	if err != nil {
		t.Fatal(err)
	}
	if want := o.loss(rows, n.prediction, n.target, residual); math.Abs(loss-want) > tolerance*want {
		t.Errorf("loss %v, want %v", loss, want)
	}
	want := o.gradients(rows, n.prediction, n.target, residual)
	if len(got) != len(want) {
		t.Fatalf("%d gradients, want %d", len(got), len(want))
	}
	for i := range want {
		near(t, names(i)+" against finite differences", got[i], want[i], 2*tolerance)
	}
	// 37 rows: more than one block, and not a whole number of them.
	definition := trainer(t, gorgonia.New(), n, options)
	for _, count := range []int{1, 37} {
		rows := n.rows(count)
		wantLoss, want, err := definition.Gradients(rows)
		if err != nil {
			t.Fatal(err)
		}
		loss, got, err := tr.Gradients(rows)
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(loss-wantLoss) > tolerance*wantLoss {
			t.Errorf("%d rows: loss %v, Gorgonia %v", count, loss, wantLoss)
		}
		for i := range want {
			near(t, names(i)+" against Gorgonia", got[i], wide(want[i]), 2*tolerance)
		}
	}
}

func names(i int) string {
	return string("WB"[i%2]) + string(rune('0'+i/2))
}

// adam applies the formula in float64 to the engine's own gradients.
func adam(t *testing.T, e kernels.Engine) {
	n := autoencoder(7, []int{5}, kernels.Tanh)
	tr := trainer(t, e, n, kernels.TrainOptions{MaxBatch: 64})
	const rate = 0.01
	var m, v [][]float64
	for step := 1; step <= 5; step++ {
		rows := n.rows(50)
		loss, g, err := tr.Gradients(rows)
		if err != nil {
			t.Fatal(err)
		}
		before := tr.Parameters()
		stepLoss, err := tr.Step(rows, rate)
		if err != nil {
			t.Fatal(err)
		}
		if stepLoss != loss {
			t.Errorf("step %d: loss %v, from Gradients %v", step, stepLoss, loss)
		}
		after := tr.Parameters()
		for i := range g {
			if step == 1 {
				m, v = append(m, make([]float64, len(g[i]))), append(v, make([]float64, len(g[i])))
			}
			for k, x := range wide(g[i]) {
				m[i][k] = 0.9*m[i][k] + 0.1*x
				v[i][k] = 0.999*v[i][k] + 0.001*x*x
				mHat := m[i][k] / (1 - math.Pow(0.9, float64(step)))
				vHat := v[i][k] / (1 - math.Pow(0.999, float64(step)))
				want := float64(before[i][k]) - rate*mHat/(math.Sqrt(vHat)+1e-8)
				// 0.999 and 1 − 0.999 in float32 are off by up to 1.4e-5 of the step.
				if d := math.Abs(float64(after[i][k]) - want); d > 5e-5*rate+1e-7*math.Abs(want) {
					t.Fatalf("step %d: %s[%d] is %v, want %v", step, names(i), k, after[i][k], want)
				}
			}
		}
	}
}

// sgd applies the formula in float64 to the engine's own gradients, and remembers nothing.
func sgd(t *testing.T, e kernels.Engine) {
	n := autoencoder(7, []int{5}, kernels.Tanh)
	tr := trainer(t, e, n, kernels.TrainOptions{MaxBatch: 64, Optimizer: kernels.SGD})
	for step := 1; step <= 5; step++ {
		rows, rate := n.rows(50), 0.1*float32(step)
		loss, g, err := tr.Gradients(rows)
		if err != nil {
			t.Fatal(err)
		}
		before := tr.Parameters()
		if stepLoss, err := tr.Step(rows, rate); err != nil || stepLoss != loss {
			t.Errorf("step %d: loss %v, from Gradients %v (%v)", step, stepLoss, loss, err)
		}
		after := tr.Parameters()
		for i := range g {
			for k, x := range wide(g[i]) {
				want := float64(before[i][k]) - float64(rate)*x
				if d := math.Abs(float64(after[i][k]) - want); d > 1e-7*(math.Abs(want)+math.Abs(float64(rate)*x)) {
					t.Fatalf("step %d: %s[%d] is %v, want %v", step, names(i), k, after[i][k], want)
				}
			}
		}
	}
}

// learns: after the same steps on the same rows the loss is Gorgonia's within 1 %, and well below the first.
func learns(t *testing.T, e kernels.Engine) {
	for _, tt := range []struct {
		act  kernels.Activation
		o    kernels.TrainOptions
		rate float32
	}{
		{kernels.Tanh, kernels.TrainOptions{}, 0.01},
		{kernels.LeakyReLU, kernels.TrainOptions{}, 0.01},
		{kernels.ELU, kernels.TrainOptions{Loss: kernels.Huber, Delta: 0.5}, 0.01},
		{kernels.GELU, kernels.TrainOptions{}, 0.01},
		{kernels.Tanh, kernels.TrainOptions{Optimizer: kernels.SGD}, 0.5},
		{kernels.GELU, kernels.TrainOptions{Optimizer: kernels.SGD, Loss: kernels.Huber}, 0.5},
	} {
		t.Run(fmt.Sprintf("%v %v %v", tt.act, tt.o.Loss, tt.o.Optimizer), func(t *testing.T) { learnsBy(t, e, tt.act, tt.o, tt.rate) })
	}
}

func learnsBy(t *testing.T, e kernels.Engine, act kernels.Activation, o kernels.TrainOptions, rate float32) {
	o.MaxBatch = 64
	n := autoencoder(6, []int{3}, act)
	tr := trainer(t, e, n, o)
	definition := trainer(t, gorgonia.New(), n, o)
	rows := n.rows(200)
	var first, a, b float64
	for step := range 200 {
		from, to := step%4*64, min(step%4*64+64, 200) // the last batch has 8 rows
		var err error
		if a, err = tr.Step(rows[from*6:to*6], rate); err != nil {
			t.Fatal(err)
		}
		if b, err = definition.Step(rows[from*6:to*6], rate); err != nil {
			t.Fatal(err)
		}
		if step == 0 {
			first = a
		}
		if math.Abs(a-b) > 0.01*b {
			t.Fatalf("step %d: loss %v, Gorgonia %v", step, a, b)
		}
	}
	whole, err := tr.Loss(rows) // more rows than MaxBatch
	if err != nil {
		t.Fatal(err)
	}
	p := n.p.Clone()
	if err := p.SetParameters(n.prediction, tr.Parameters()); err != nil {
		t.Fatal(err)
	}
	if o.Delta == 0 {
		o.Delta = 1
	}
	if want := newOracle(p, n.prediction).loss(rows, n.prediction, n.target, residualLoss{o}); math.Abs(whole-want) > tolerance*want {
		t.Errorf("loss over all rows %v, want %v", whole, want)
	}
	if whole > first*0.8 {
		t.Errorf("the loss went from %v to %v", first, whole)
	}
}

// threads: the same bytes for any number of them, and in every run.
func threads(t *testing.T, e kernels.Engine) {
	n := autoencoder(18, []int{14, 7, 7}, kernels.Tanh)
	sizes := []int{256, 1, 31, 100, 255, 256, 33}
	var batches [][]float32
	for _, s := range sizes {
		batches = append(batches, n.rows(s))
	}
	var want [][]float32
	var losses []float64
	for run, count := range []int{1, 1, 2, 3, 16} {
		tr := trainer(t, e, n, kernels.TrainOptions{Threads: count})
		for i, rows := range batches {
			loss, err := tr.Step(rows, 0.01)
			if err != nil {
				t.Fatal(err)
			}
			if run == 0 {
				losses = append(losses, loss)
			} else if loss != losses[i] {
				t.Errorf("%d threads: loss %d is %v, was %v", count, i, loss, losses[i])
			}
		}
		if got := tr.Parameters(); run == 0 {
			want = got
		} else if err := sameAll(got, want); err != nil {
			t.Errorf("%d threads: parameters: %v", count, err)
		}
	}
}

// nanLoss: a step that cannot be taken leaves weights and moments as they were.
func nanLoss(t *testing.T, e kernels.Engine) {
	n := autoencoder(5, []int{3}, kernels.Sigmoid)
	a := trainer(t, e, n, kernels.TrainOptions{MaxBatch: 64, Threads: 2})
	b := trainer(t, e, n, kernels.TrainOptions{MaxBatch: 64})
	step := func(tr kernels.Trainer, rows []float32) float64 {
		loss, err := tr.Step(rows, 0.01)
		if err != nil {
			t.Fatal(err)
		}
		return loss
	}
	rows := n.rows(40)
	for range 2 {
		step(a, rows)
		step(b, rows)
	}
	before := a.Parameters()
	bad := append([]float32(nil), rows...)
	bad[3] = infinite
	if loss := step(a, bad); !math.IsNaN(loss) && !math.IsInf(loss, 0) {
		t.Errorf("loss of a row with an infinity: %v", loss)
	}
	if err := sameAll(a.Parameters(), before); err != nil {
		t.Errorf("a step whose loss is not finite changed the weights: %v", err)
	}
	for range 2 {
		step(a, rows)
		step(b, rows)
	}
	if err := sameAll(a.Parameters(), b.Parameters()); err != nil {
		t.Errorf("a step whose loss is not finite left traces: %v", err)
	}
}

// parameters: they are copies, in the program's order, and setting them starts afresh.
func parameters(t *testing.T, e kernels.Engine) {
	for _, n := range []*net{autoencoder(9, []int{5, 2, 5}, kernels.Tanh), branching()} {
		tr := trainer(t, e, n, kernels.TrainOptions{})
		if err := sameAll(tr.Parameters(), n.p.Parameters(n.prediction)); err != nil {
			t.Errorf("%s: parameters of a fresh trainer: %v", n.name, err)
		}
		rows := n.rows(100)
		initial := tr.Parameters()
		run := func() [][]float32 {
			for range 3 {
				if _, err := tr.Step(rows, 0.01); err != nil {
					t.Fatal(err)
				}
			}
			return tr.Parameters()
		}
		once := run()
		if sameAll(initial, once) == nil {
			t.Errorf("%s: three steps changed nothing", n.name)
		}
		if err := sameAll(initial, n.p.Parameters(n.prediction)); err != nil {
			t.Errorf("%s: training changed the program or copies taken before: %v", n.name, err)
		}
		if err := tr.SetParameters(initial); err != nil {
			t.Fatal(err)
		}
		if err := sameAll(tr.Parameters(), initial); err != nil {
			t.Errorf("%s: parameters do not come back as they were set: %v", n.name, err)
		}
		if err := sameAll(run(), once); err != nil {
			t.Errorf("%s: training again from the same parameters: %v", n.name, err)
		}
		if err := tr.SetParameters(initial[1:]); err == nil {
			t.Errorf("%s: parameters of another shape are taken", n.name)
		}
		// What was trained scores as the trainer's loss says.
		trained := n.p.Clone()
		if err := trained.SetParameters(n.prediction, once); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Scorer(trained); err != nil {
			t.Error(err)
		}
	}
}

// moments: a trainer that is given another's parameters and moments goes on as that one does, on any number of threads.
func moments(t *testing.T, e kernels.Engine) {
	for _, n := range []*net{autoencoder(9, []int{5, 2, 5}, kernels.Tanh), branching()} {
		for _, o := range []kernels.TrainOptions{{}, {Optimizer: kernels.SGD}, {Loss: kernels.Huber}} {
			t.Run(fmt.Sprintf("%s %v %v", n.name, o.Optimizer, o.Loss), func(t *testing.T) { goesOn(t, e, n, o) })
		}
	}
}

func goesOn(t *testing.T, e kernels.Engine, n *net, o kernels.TrainOptions) {
	a := trainer(t, e, n, o)
	fresh := a.Moments()
	if fresh.Steps != 0 || fresh.First != nil || fresh.Second != nil {
		t.Errorf("moments before the first step: %v", fresh)
	}
	step := func(tr kernels.Trainer, rows []float32) {
		t.Helper()
		if _, err := tr.Step(rows, 0.01); err != nil {
			t.Fatal(err)
		}
	}
	for _, count := range []int{100, 256, 3} {
		step(a, n.rows(count))
	}
	weights, m := a.Parameters(), a.Moments()
	if adam := o.Optimizer == kernels.Adam; adam != (m.Steps == 3) || adam != (m.First != nil) || adam != (m.Second != nil) {
		t.Fatalf("moments after three steps: %v", m)
	}
	again := n.rows(64)
	step(a, again)
	after := a.Parameters()
	last := a.Moments()

	o.Threads = 3
	b := trainer(t, e, n, o)
	step(b, n.rows(10)) // its own past must leave no trace
	if err := b.SetParameters(weights); err != nil {
		t.Fatal(err)
	}
	if err := b.SetMoments(m); err != nil {
		t.Fatal(err)
	}
	kept := b.Moments()
	step(b, again)
	if err := sameAll(b.Parameters(), after); err != nil {
		t.Errorf("parameters after going on: %v", err)
	}
	got := b.Moments()
	for i, of := range [][2][][]float32{{got.First, last.First}, {got.Second, last.Second}, {kept.First, m.First}, {kept.Second, m.Second}} {
		if err := sameAll(of[0], of[1]); err != nil {
			t.Errorf("moments, comparison %d: %v", i, err)
		}
	}
	if got.Steps != last.Steps {
		t.Errorf("%d steps remembered, want %d", got.Steps, last.Steps)
	}

	// Set to nothing, the optimizer has forgotten.
	if err := a.SetParameters(weights); err != nil {
		t.Fatal(err)
	}
	step(a, again)
	want := a.Parameters()
	if err := b.SetParameters(weights); err != nil {
		t.Fatal(err)
	}
	if err := b.SetMoments(m); err != nil {
		t.Fatal(err)
	}
	if err := b.SetMoments(kernels.Moments{}); err != nil {
		t.Fatal(err)
	}
	step(b, again)
	if err := sameAll(b.Parameters(), want); err != nil {
		t.Errorf("parameters after forgetting: %v", err)
	}
	bad := []kernels.Moments{{Steps: -1}, {Steps: 3}, {Steps: 1, First: weights, Second: weights[1:]}}
	if o.Optimizer == kernels.SGD {
		bad = append(bad, kernels.Moments{Steps: 1, First: weights, Second: weights})
	}
	for _, m := range bad {
		if err := b.SetMoments(m); err == nil {
			t.Errorf("moments that do not fit are taken: %d steps, %d and %d slices", m.Steps, len(m.First), len(m.Second))
		}
	}
}

// refusals: bad programs, options and rows are errors.
func refusals(t *testing.T, e kernels.Engine) {
	n := autoencoder(4, []int{2}, kernels.ReLU)
	broken := n.p.Clone()
	broken.Steps[1].(*kernels.Gemm).W = nil
	if _, err := e.Scorer(broken); err == nil {
		t.Error("a broken program gets a scorer")
	}
	for _, tt := range []struct {
		name string
		p    *kernels.Program
		o    kernels.TrainOptions
	}{
		{"broken program", broken, kernels.TrainOptions{Prediction: n.prediction, Target: n.target}},
		{"no such value", n.p, kernels.TrainOptions{Prediction: 99, Target: n.target}},
		{"widths differ", n.p, kernels.TrainOptions{Prediction: 2, Target: n.target}},
		{"nothing to train", n.p, kernels.TrainOptions{Prediction: n.target, Target: n.target}},
		{"no gradient through a map", n.p, kernels.TrainOptions{Prediction: n.p.Reconstruction, Target: kernels.Input}},
		{"negative batch", n.p, kernels.TrainOptions{Prediction: n.prediction, Target: n.target, MaxBatch: -1}},
		{"negative threads", n.p, kernels.TrainOptions{Prediction: n.prediction, Target: n.target, Threads: -1}},
		{"unknown loss", n.p, kernels.TrainOptions{Prediction: n.prediction, Target: n.target, Loss: 77}},
		{"unknown optimizer", n.p, kernels.TrainOptions{Prediction: n.prediction, Target: n.target, Optimizer: 77}},
		{"negative delta", n.p, kernels.TrainOptions{Prediction: n.prediction, Target: n.target, Loss: kernels.Huber, Delta: -1}},
		{"infinite delta", n.p, kernels.TrainOptions{Prediction: n.prediction, Target: n.target, Loss: kernels.Huber, Delta: infinite}},
	} {
		if tr, err := e.Trainer(tt.p, tt.o); err == nil {
			t.Errorf("%s: no error", tt.name)
			tr.Close()
		}
	}
	tr := trainer(t, e, n, kernels.TrainOptions{MaxBatch: 8})
	for _, length := range []int{0, 3, 9 * 4} {
		if _, err := tr.Step(make([]float32, length), 0.01); err == nil {
			t.Errorf("a step on %d values of rows of 4, at most 8, is taken", length)
		}
	}
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
	if err := tr.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
	if _, err := tr.Step(make([]float32, 4), 0.01); err == nil {
		t.Error("a closed trainer takes a step")
	}
}

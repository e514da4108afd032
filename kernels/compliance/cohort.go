package compliance

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
)

// cohort: every network of a cohort, of one shape or of several, comes out as a trainer of its own makes it, to the
// byte, with any number of threads, also where others are left alone, diverge or begin anew.
func cohort(t *testing.T, e kernels.Engine) {
	same := [][]int{{7, 3, 7}, {7, 3, 7}, {7, 3, 7}, {7, 3, 7}, {7, 3, 7}}
	sgd := kernels.TrainOptions{Loss: kernels.Huber, Optimizer: kernels.SGD}
	for _, tt := range []struct {
		name    string
		widths  [][]int
		o       kernels.TrainOptions
		threads int
	}{
		{"one", same[:1], kernels.TrainOptions{}, 2},
		{"same widths", same, kernels.TrainOptions{}, 1},
		{"same widths", same, kernels.TrainOptions{}, 2},
		{"same widths", same, kernels.TrainOptions{}, 3},
		{"same widths", same[:3], sgd, 2},
		{"other widths", [][]int{{7, 3, 7}, {4, 1, 9}, {17, 5, 17}}, kernels.TrainOptions{}, 2},
	} {
		t.Run(fmt.Sprintf("%s %v %d threads", tt.name, tt.o.Optimizer, tt.threads), func(t *testing.T) { cohortOf(t, e, tt.widths, tt.o, tt.threads) })
	}
	if a, ok := e.(abreastEngine); ok {
		t.Run("abreast", func(t *testing.T) { learnAbreast(t, e, a) })
	}
}

// madeAtOnce: scorers and trainers of one engine are made, used and closed by several goroutines that share nothing else, as
// trainings of candidates and the loading of a model beside them are; each gets what it gets alone. What an engine keeps for the
// whole process is found by the race detector here.
func madeAtOnce(t *testing.T, e kernels.Engine) {
	const batch = 32
	n := autoencoder(5, []int{4, 2, 4}, kernels.ReLU)
	kernels.Initialise(n.p, 1)
	rows, o := n.rows(2*batch+3), kernels.TrainOptions{Loss: kernels.Huber, Prediction: n.prediction, Target: n.target, MaxBatch: batch}
	run := func() (scores, parameters []float32, err error) {
		s, err := e.Scorer(n.p)
		if err != nil {
			return nil, nil, err
		}
		scores = make([]float32, len(rows)/n.p.Width)
		if err := s.Score(rows, kernels.Output{Score: scores}); err != nil {
			return nil, nil, err
		}
		tr, err := e.Trainer(n.p, o)
		if err != nil {
			return nil, nil, err
		}
		defer func() { err = errors.Join(err, tr.Close()) }()
		for at := 0; at < len(rows); at += batch * n.p.Width {
			if _, err := tr.Step(rows[at:min(at+batch*n.p.Width, len(rows))], .01); err != nil {
				return nil, nil, err
			}
		}
		return scores, slices.Concat(tr.Parameters()...), nil
	}
	scores, parameters, err := run()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for k := range 3 {
		wg.Go(func() {
			got, learnt, err := run()
			if err != nil {
				t.Errorf("goroutine %d: %v", k, err)
			} else if !same(got, scores) || !same(learnt, parameters) {
				t.Errorf("goroutine %d: scores or parameters differ from those of one alone", k)
			}
		})
	}
	wg.Wait()
}

func cohortOf(t *testing.T, e kernels.Engine, widths [][]int, o kernels.TrainOptions, threads int) {
	const width, batch = 6, 48
	var programs []*kernels.Program
	var alone []kernels.Trainer
	var n *net
	for k, layers := range widths {
		n = autoencoder(width, layers, kernels.Tanh)
		o.Target, o.Prediction, o.MaxBatch, o.Threads = n.target, n.prediction, batch, threads
		kernels.Initialise(n.p, uint64(k+1))
		programs = append(programs, n.p)
		single := o
		single.Threads = 1
		alone = append(alone, trainer(t, e, n, single))
	}
	c, err := kernels.NewCohort(e, programs, o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}()
	initial := c.Parameters(0)
	every := make([]bool, len(programs))
	for k := range every {
		every[k] = true
	}
	held := n.rows(100)
	spoilt := n.rows(batch)
	spoilt[3] = float32(math.Inf(1)) // straight maps let it through: the loss is not finite
	calls := [][]float32{n.rows(3 * batch), n.rows(2*batch + 17), append(append(n.rows(batch), spoilt...), n.rows(batch)...), n.rows(5)}
	step := 0
	for call, rows := range calls {
		steps := (len(rows) + batch*width - 1) / (batch * width)
		rates := make([][]float32, len(programs))
		for k := range rates {
			if k == 1 && call == 1 { // left alone
				continue
			}
			for i := range steps {
				rates[k] = append(rates[k], .01*float32(k+1)/float32(step+i+1))
			}
		}
		step += steps
		losses, err := c.Steps(rows, batch, rates)
		if err != nil {
			t.Fatal(err)
		}
		validation, err := c.Loss(held, every)
		if err != nil {
			t.Fatal(err)
		}
		for k, tr := range alone {
			var want []float64
			for i, rate := range rates[k] {
				loss, err := tr.Step(rows[i*batch*width:min((i+1)*batch*width, len(rows))], rate)
				if err != nil {
					t.Fatal(err)
				}
				want = append(want, loss)
				if loss-loss != 0 {
					break
				}
			}
			if call == 2 && len(want) != 2 {
				t.Fatalf("%d steps with a row that is not finite", len(want))
			}
			if len(losses[k]) != len(want) {
				t.Fatalf("call %d, network %d: %d losses, want %d", call, k, len(losses[k]), len(want))
			}
			for i := range want {
				if math.Float64bits(losses[k][i]) != math.Float64bits(want[i]) && !(math.IsNaN(want[i]) && math.IsNaN(losses[k][i])) {
					t.Errorf("call %d, network %d: loss %d is %v, alone %v", call, k, i, losses[k][i], want[i])
				}
			}
			if err := sameAll(c.Parameters(k), tr.Parameters()); err != nil {
				t.Errorf("call %d, network %d: %v", call, k, err)
			}
			if alone, err := tr.Loss(held); err != nil || alone != validation[k] {
				t.Errorf("call %d, network %d: validation loss %v, alone %v (%v)", call, k, validation[k], alone, err)
			}
		}
		if call == 1 { // the first begins anew, its optimizer too
			for _, set := range []func([][]float32) error{func(p [][]float32) error { return c.SetParameters(0, p) }, alone[0].SetParameters} {
				if err := set(initial); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	// Another cohort goes on from what each has come to.
	again, err := kernels.NewCohort(e, programs, o)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	for k, tr := range alone {
		got, want := c.Moments(k), tr.Moments()
		if err := errors.Join(sameAll(got.First, want.First), sameAll(got.Second, want.Second)); err != nil || got.Steps != want.Steps {
			t.Errorf("network %d remembers %d steps, alone %d (%v)", k, got.Steps, want.Steps, err)
		}
		if err := errors.Join(again.SetParameters(k, c.Parameters(k)), again.SetMoments(k, got)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.SetMoments(0, kernels.Moments{Steps: -1}); err == nil {
		t.Error("moments after fewer than no steps are taken")
	}
	walks(t, again, alone, n, batch)
	none, err := c.Loss(held, make([]bool, len(programs)))
	for _, loss := range none {
		if loss != 0 || err != nil {
			t.Errorf("loss %v of a network that nobody asked for (%v)", loss, err)
		}
	}
	if _, err := c.Steps(held, batch, make([][]float32, len(programs)+1)); err == nil {
		t.Error("rates for a network that there is not are taken")
	}
	if _, err := kernels.NewCohort(e, nil, o); err == nil {
		t.Error("a cohort of no network is made")
	}
}

// held is what a cohort may be beside: one whose device holds rows, once for all networks.
type held interface {
	Hold(n int) (bool, error)
	Put(first int, rows []float32) error
	Walk(order []int32, sizes []int, rates [][]float32) ([][]float64, error)
}

// walks: minibatches of any sizes, of rows that are held where the cohort can hold any and given where not, change each network as a
// trainer of its own; the first network is left alone and another stops early.
func walks(t *testing.T, c kernels.Cohort, alone []kernels.Trainer, n *net, batch int) {
	const rows = 130
	width := n.p.Width
	values := n.rows(rows)
	sizes := []int{batch, batch, 1, batch, 17}
	var order []int32
	var given []float32
	for i := range 3*batch + 18 {
		at := i * 37 % rows
		order = append(order, int32(at))
		given = append(given, values[at*width:][:width]...)
	}
	rates := make([][]float32, len(alone))
	for k := range rates {
		for i := range sizes {
			if k != 0 && (k != 2 || i < 3) {
				rates[k] = append(rates[k], .02/float32(k+i+1))
			}
		}
	}
	var losses [][]float64
	h, holds := c.(held)
	if holds {
		room, err := h.Hold(rows)
		if err != nil || !room {
			t.Fatalf("room for %d rows: %v, %v", rows, room, err)
		}
		for first := 0; first < rows; first += 50 {
			if err := h.Put(first, values[first*width:min(first+50, rows)*width]); err != nil {
				t.Fatal(err)
			}
		}
		if losses, err = h.Walk(order, sizes, rates); err != nil {
			t.Fatal(err)
		}
		for what, err := range map[string]error{
			"a row that is not held":      second(h.Walk([]int32{rows}, []int{1}, make([][]float32, len(alone)))),
			"rows of no step":             second(h.Walk(order[:5], []int{4}, make([][]float32, len(alone)))),
			"rates for too many networks": second(h.Walk(order[:5], []int{5}, make([][]float32, len(alone)+1))),
		} {
			if err == nil {
				t.Errorf("%s is taken", what)
			}
		}
	} else {
		losses = make([][]float64, len(alone))
		rest, left := given, make([][]float32, len(alone))
		for i, size := range sizes {
			for k := range left {
				left[k] = rates[k][min(i, len(rates[k])):min(i+1, len(rates[k]))]
			}
			some, err := c.Steps(rest[:size*width], batch, left)
			if err != nil {
				t.Fatal(err)
			}
			for k := range some {
				losses[k] = append(losses[k], some[k]...)
			}
			rest = rest[size*width:]
		}
	}
	for k, tr := range alone {
		rest := given
		if len(losses[k]) != len(rates[k]) {
			t.Fatalf("network %d: %d losses of %d steps", k, len(losses[k]), len(rates[k]))
		}
		for i, rate := range rates[k] {
			want, err := tr.Step(rest[:sizes[i]*width], rate)
			if err != nil {
				t.Fatal(err)
			}
			if losses[k][i] != want {
				t.Errorf("held %v, network %d: loss %d is %v, alone %v", holds, k, i, losses[k][i], want)
			}
			rest = rest[sizes[i]*width:]
		}
		got, want := c.Moments(k), tr.Moments()
		if err := errors.Join(sameAll(c.Parameters(k), tr.Parameters()), sameAll(got.First, want.First), sameAll(got.Second, want.Second)); err != nil || got.Steps != want.Steps {
			t.Errorf("held %v, network %d: %d steps, alone %d (%v)", holds, k, got.Steps, want.Steps, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

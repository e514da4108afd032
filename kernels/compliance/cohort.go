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

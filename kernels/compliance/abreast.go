package compliance

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
)

// abreastEngine is what an engine may be beside: one whose cohorts are abreast.
type abreastEngine interface {
	Abreast(programs []*kernels.Program, o kernels.TrainOptions) (kernels.Cohort, error)
}

// abreast is a cohort whose networks have each maps, rows and minibatches of its own.
type abreast interface {
	kernels.Cohort
	Hold(n int) (bool, error)
	PutOf(k, first int, rows []float32) error
	WalkEach(orders [][]int32, sizes [][]int, rates [][]float32) ([][]float64, error)
	LossEach(orders [][]int32) ([]float64, error)
	Beside(k int, rows []float32) (float64, error)
}

// learnAbreast: each of several networks that have nothing but their shape in common comes out as a trainer of its own makes it, to the byte,
// with as many steps, of minibatches as large, as suit it, and whatever becomes of the others.
func learnAbreast(t *testing.T, e kernels.Engine, engine abreastEngine) {
	const width, batch = 6, 48
	counts := []int{70, 45, 190, 64}
	var programs []*kernels.Program
	var alone []kernels.Trainer
	var rows [][]float32
	var firsts []int
	var o kernels.TrainOptions
	all := 0
	for k, count := range counts {
		n := autoencoder(width, []int{7, 3, 7}, kernels.Tanh)
		if k != 3 { // the last has the first one's
			columns := n.p.Steps[0].(*kernels.Map).Columns
			for j := range columns {
				columns[j] = straight(float32(k)/8, .5+float32(k*j)/16)
			}
		} else {
			copy(n.p.Steps[0].(*kernels.Map).Columns, programs[0].Steps[0].(*kernels.Map).Columns)
		}
		kernels.Initialise(n.p, uint64(k+1))
		o = kernels.TrainOptions{Target: n.target, Prediction: n.prediction, MaxBatch: batch}
		programs, alone = append(programs, n.p), append(alone, trainer(t, e, n, o))
		rows, firsts = append(rows, n.rows(count + k)[k*width:]), append(firsts, all)
		all += count
	}
	made, err := engine.Abreast(programs, o)
	if err != nil {
		t.Fatal(err)
	}
	c, ok := made.(abreast)
	if !ok {
		t.Fatalf("a %T is no cohort of networks that learn abreast", made)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}()
	if room, err := c.Hold(all); err != nil || !room {
		t.Fatalf("room for %d rows: %v, %v", all, room, err)
	}
	rows[1][5*width] = float32(math.Inf(1)) // straight maps let it through: the loss is not finite
	for k := range counts {
		for at := 0; at < counts[k]; at += 40 {
			if err := c.PutOf(k, firsts[k]+at, rows[k][at*width:min(at+40, counts[k])*width]); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Minibatches of rows by turns, but those that a network is not to see yet.
	deal := func(k int, sizes []int, without int) (order []int32, given []float32) {
		n := 0
		for _, size := range sizes {
			n += size
		}
		for at := 0; len(order) < n; at += 37 {
			if g := at % counts[k]; g != without {
				order, given = append(order, int32(firsts[k]+g)), append(given, rows[k][g*width:][:width]...)
			}
		}
		return order, given
	}
	for call, of := range [][][]int{
		{{48, 48, 17}, {20}, {48, 48, 48, 5, 48}, {1}},
		{nil, {45, 45, 45}, {1, 2, 3}, {48, 48, 48, 48, 48, 48, 48}}, // the first is left alone; the second meets a loss that is not finite
		{{48}, {30}, {48}, nil},
	} {
		without := 5 // of the second
		if call == 1 {
			without = -1
		}
		orders, given, rates := make([][]int32, len(counts)), make([][]float32, len(counts)), make([][]float32, len(counts))
		for k := range counts {
			spoilt := -1
			if k == 1 {
				spoilt = without
			}
			orders[k], given[k] = deal(k, of[k], spoilt)
			for i := range of[k] {
				rates[k] = append(rates[k], .01*float32(k+1)/float32(call+i+1))
			}
		}
		losses, err := c.WalkEach(orders, of, rates)
		if err != nil {
			t.Fatal(err)
		}
		for k, tr := range alone {
			rest := given[k]
			var want []float64
			for i, size := range of[k] {
				loss, err := tr.Step(rest[:size*width], rates[k][i])
				if err != nil {
					t.Fatal(err)
				}
				rest = rest[size*width:]
				if want = append(want, loss); loss-loss != 0 {
					break
				}
			}
			if call == 1 && k == 1 && (len(want) != 1 || want[0]-want[0] == 0) {
				t.Fatalf("losses %v with a row that is not finite", want)
			}
			if !slices.EqualFunc(losses[k], want, func(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) }) {
				t.Errorf("call %d, network %d: losses %v, alone %v", call, k, losses[k], want)
			}
			got, moments := c.Moments(k), tr.Moments()
			if err := errors.Join(sameAll(c.Parameters(k), tr.Parameters()), sameAll(got.Second, moments.Second)); err != nil || got.Steps != moments.Steps {
				t.Errorf("call %d, network %d: %d steps, alone %d (%v)", call, k, got.Steps, moments.Steps, err)
			}
		}
	}
	// Losses of more rows than are added up at a time, of some of the networks.
	orders, lengths := make([][]int32, len(counts)), []int{2500, 0, 9, 1024}
	var given [][]float32
	for k, n := range lengths {
		order, some := deal(k, []int{n}, -1)
		orders[k], given = order, append(given, some)
	}
	losses, err := c.LossEach(orders)
	if err != nil {
		t.Fatal(err)
	}
	for k, n := range lengths {
		want := 0.
		if n > 0 {
			if want, err = alone[k].Loss(given[k]); err != nil {
				t.Fatal(err)
			}
			if beside, err := c.Beside(k, given[k]); err != nil || math.Abs(beside-want) > 1e-4*want {
				t.Errorf("network %d: loss %v, on the processor %v (%v)", k, want, beside, err)
			}
		}
		if losses[k] != want {
			t.Errorf("network %d: loss %v over %d rows, alone %v", k, losses[k], n, want)
		}
	}
	none := func() [][]int32 { return make([][]int32, len(counts)) }
	one := func(order []int32) [][]int32 { return append([][]int32{order}, none()[1:]...) }
	sizes := func(of ...int) [][]int { return append([][]int{of}, make([][]int, len(counts)-1)...) }
	rate := append([][]float32{{.1}}, make([][]float32, len(counts)-1)...)
	for what, err := range map[string]error{
		"a row that is not held":         second(c.WalkEach(one([]int32{int32(all)}), sizes(1), rate)),
		"a loss of such a row":           second(c.LossEach(one([]int32{-1}))),
		"rows of no step":                second(c.WalkEach(one([]int32{1, 2}), sizes(1), rate)),
		"a step without a rate":          second(c.WalkEach(one([]int32{1}), sizes(1), make([][]float32, len(counts)))),
		"rows of too few networks":       second(c.WalkEach(none()[1:], sizes(), rate)),
		"losses of too few networks":     second(c.LossEach(none()[1:])),
		"rows of a network there is not": c.PutOf(len(counts), 0, rows[0]),
		"rows beyond the last":           c.PutOf(0, all-1, rows[0]),
		"no network":                     second(engine.Abreast(nil, o)),
		"networks of several shapes":     second(engine.Abreast([]*kernels.Program{programs[0], autoencoder(width, []int{7, 2, 7}, kernels.Tanh).p}, o)),
		"a cohort of several maps":       second(kernels.NewCohort(e, programs, o)),
		"networks of several activations": second(engine.Abreast([]*kernels.Program{programs[0],
			autoencoder(width, []int{7, 3, 7}, kernels.ReLU).p}, o)),
	} {
		if err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	for k, tr := range alone {
		if err := sameAll(c.Parameters(k), tr.Parameters()); err != nil {
			t.Errorf("after refusals, network %d: %v", k, err)
		}
	}
}

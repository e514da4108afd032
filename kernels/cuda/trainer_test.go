//go:build gpu

package cuda

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
)

// sensors is an autoencoder of the given widths and rows for it, one value in fifty missing.
func sensors(rows int, widths ...int) (*kernels.Program, kernels.TrainOptions, []float32) {
	var columns []kernels.Column
	for j := range widths[0] {
		columns = append(columns, kernels.Column{
			Impute: .5, Log: j%3 == 0, Lo: -4, Hi: 4, X: []float32{-1, 0, 1}, Y: []float32{-2, 0, 1.5}, Before: .5, After: .25,
		})
	}
	acts := make([]kernels.Activation, len(widths)-1)
	for i := range acts[:len(acts)-1] {
		acts[i] = kernels.Tanh
	}
	p := kernels.Autoencoder(columns, widths[1:len(widths)-1], acts)
	kernels.Initialise(p, 1)
	target, prediction, _ := p.Residual()
	r := rand.New(rand.NewPCG(1, 2))
	values := make([]float32, rows*widths[0])
	for i := range values {
		values[i] = float32(r.NormFloat64())
		if r.IntN(50) == 0 {
			values[i] = float32(math.NaN())
		}
	}
	return p, kernels.TrainOptions{Prediction: prediction, Target: target}, values
}

func newTrainer(t *testing.T, e kernels.Engine, p *kernels.Program, o kernels.TrainOptions) *trainer {
	t.Helper()
	tr, err := e.Trainer(p, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return tr.(*trainer)
}

// fit walks two epochs and a part over rows in a shuffled order, and gives the losses and what the network has come to.
func fit(t *testing.T, tr *trainer, rows []float32, batch int, held bool) (losses []float64, after [][]float32) {
	t.Helper()
	width := tr.c.t.width
	n := len(rows) / width
	if held {
		if ok, err := tr.Hold(n); !ok || err != nil {
			t.Fatalf("room for %d rows: %v, %v", n, ok, err)
		}
		for first := 0; first < n; first += 100 {
			if err := tr.Put(first, rows[first*width:min(first+100, n)*width]); err != nil {
				t.Fatal(err)
			}
		}
	}
	r := rand.New(rand.NewPCG(3, 4))
	for stretch := range 3 {
		order := r.Perm(n)
		var numbers []int32
		var given []float32
		for _, g := range order {
			numbers, given = append(numbers, int32(g)), append(given, rows[g*width:][:width]...)
		}
		var sizes []int
		var rates []float32
		for left := n; left > 0; left -= batch {
			sizes, rates = append(sizes, min(left, batch)), append(rates, .01/float32(1+stretch))
		}
		var l []float64
		var err error
		if held {
			l, err = tr.Walk(numbers, sizes, rates)
		} else {
			l, err = tr.WalkOver(given, sizes, rates)
		}
		if err != nil {
			t.Fatal(err)
		}
		losses = append(losses, l...)
	}
	return losses, append(tr.Parameters(), tr.Moments().Second...)
}

// TestTrainingIsTheSameEverywhere_Case4_12: any device, any grid, cooperative launches or none, rows that are held or given, in
// one piece or many: the same bytes; and the CPU's numbers but for rounding.
func TestTrainingIsTheSameEverywhere_Case4_12(t *testing.T) {
	for _, shape := range []struct {
		name   string
		widths []int
		batch  int
	}{
		{"small batch", []int{30, 14, 7, 14, 30}, 256}, {"large batch", []int{18, 14, 7, 7, 18}, 700},
		{"weights beside", []int{60, 200, 60}, 128}, {"wide", []int{300, 420, 300}, 64},
	} {
		t.Run(shape.name, func(t *testing.T) {
			rows := 1500
			if shape.widths[1] > 100 {
				rows = 160
			}
			p, o, values := sensors(rows, shape.widths...)
			o.MaxBatch = shape.batch
			var losses []float64
			var after [][]float32
			kernelsUsed := map[string]bool{}
			for _, x := range []struct {
				settings   string
				held, each bool
			}{{"", true, false}, {"", false, false}, {"sms=3", true, false}, {"sms=7", true, true}, {"device=h100", false, false}} {
				fake(t, x.settings)
				tr := newTrainer(t, engine(t, open(t, Options{})), p, o)
				tr.c.each = tr.c.each || x.each
				kernelsUsed[tr.c.kernel] = true
				l, a := fit(t, tr, values, shape.batch, x.held)
				if losses == nil {
					losses, after = l, a
				} else if !slices.Equal(l, losses) || !sameFloats(a, after) {
					t.Errorf("%q, held %v, each %v (%s, lot %d): other bytes", x.settings, x.held, x.each, tr.c.kernel, tr.c.lot)
				}
			}
			t.Log(kernelsUsed)
			there, err := cpu.New().Trainer(p, o)
			if err != nil {
				t.Fatal(err)
			}
			defer there.Close()
			r := rand.New(rand.NewPCG(3, 4))
			for step := 0; step < len(losses); {
				order := r.Perm(rows)
				stretch := step
				for at := 0; at < rows; at += shape.batch {
					var some []float32
					for _, g := range order[at:min(at+shape.batch, rows)] {
						some = append(some, values[g*shape.widths[0]:][:shape.widths[0]]...)
					}
					per := (rows + shape.batch - 1) / shape.batch
					want, err := there.Step(some, .01/float32(1+stretch/per))
					if err != nil {
						t.Fatal(err)
					}
					if d := math.Abs(losses[step] - want); d > 1e-3*want {
						t.Fatalf("step %d: loss %v, on the CPU %v", step, losses[step], want)
					}
					step++
				}
			}
		})
	}
}

func sameFloats(a, b [][]float32) bool {
	return slices.EqualFunc(a, b, func(a, b []float32) bool {
		return slices.EqualFunc(a, b, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) })
	})
}

// TestTrainingWithoutMemory_Case7_04: where another process takes the memory in the middle of an epoch, rows go to the device in
// smaller pieces; what comes out is the same.
func TestTrainingWithoutMemory_Case7_04(t *testing.T) {
	p, o, values := sensors(20000, 30, 14, 7, 14, 30)
	fake(t, "")
	want, after := fit(t, newTrainer(t, engine(t, open(t, Options{})), p, o), values, 256, false)

	fake(t, "")
	d := open(t, Options{})
	tr := newTrainer(t, engine(t, d), p, o)
	var taken int64
	if err := d.do(t.Context(), func(s *session) (err error) { taken, err = s.freeMemory(); return err }); err != nil {
		t.Fatal(err)
	}
	fake(t, "reserve="+strconv.FormatInt(taken-(2<<20), 10))
	if ok, err := tr.Hold(20000 * 100); ok || err != nil {
		t.Errorf("two million rows in two megabytes: %v, %v", ok, err)
	}
	got, again := fit(t, tr, values, 256, false)
	if !slices.Equal(got, want) || !sameFloats(again, after) {
		t.Error("with little memory: other bytes")
	}
	if d := tr.c.e.DeviceStatus(); d.Splits == 0 {
		t.Error("nothing was split: the test does not test")
	}

	// Smaller than one minibatch: an error that says what to do, and the network as it was.
	before := tr.Parameters()
	tr2 := newTrainer(t, tr.c.e, p, o)
	fake(t, "reserve="+strconv.FormatInt(1<<40, 10))
	if _, err := tr2.Step(values[:256*30], .01); err == nil {
		t.Error("a step without memory")
	}
	if !sameFloats(tr.Parameters(), before) {
		t.Error("the weights changed")
	}
	fake(t, "")
	if _, err := tr2.Step(values[:256*30], .01); err != nil {
		t.Errorf("memory is there again: %v", err)
	}
}

// TestTooManyOperations: a block has its operations in shared memory; a network of more than that holds is refused before a launch is.
func TestTooManyOperations(t *testing.T) {
	fake(t, "device=t4")
	widths := slices.Repeat([]int{2}, 360)
	p, o, _ := sensors(1, widths...)
	_, err := engine(t, open(t, Options{})).Trainer(p, o)
	if err == nil || !strings.Contains(err.Error(), "718 operations a row, forward and back; the shared memory of this GPU holds 679") {
		t.Error(err)
	}
	p, o, _ = sensors(1, widths[:330]...)
	newTrainer(t, engine(t, open(t, Options{})), p, o)
}

// TestTrainingWrongNumbers_Case7_07: losses are the processor's but for the order of sums, until a bit of the device's memory changes, be
// it of the maps' constants or of the weights. A trainer that is made then has memory of its own; the second time the device is given up.
func TestTrainingWrongNumbers_Case7_07(t *testing.T) {
	p, o, rows := sensors(200, 12, 6, 3, 6, 12)
	o.MaxBatch = 64
	d := open(t, Options{})
	e := newEngine(t, d, EngineOptions{From: 1})
	apart := func(tr *trainer) float64 {
		t.Helper()
		loss, err := tr.Loss(rows)
		want, beside := tr.Beside(rows)
		if err := errors.Join(err, beside); err != nil {
			t.Fatal(err)
		}
		return math.Abs(math.Sqrt(loss)-math.Sqrt(want)) / (1 + math.Sqrt(want))
	}
	made := func() *trainer {
		t.Helper()
		tr := newTrainer(t, e, p, o)
		if _, err := tr.Step(rows[:64*p.Width], .01); err != nil {
			t.Fatal(err)
		}
		if by := apart(tr); by > 1e-5 {
			t.Errorf("undisturbed, losses are %v apart", by)
		}
		return tr
	}
	flip := func(b *buffer, at int, was float32, bits uint32) {
		t.Helper()
		if err := d.do(t.Context(), func(s *session) error {
			return upload(s, b, at, []float32{math.Float32frombits(math.Float32bits(was) ^ bits)})
		}); err != nil {
			t.Fatal(err)
		}
	}
	constants := made()
	of := constants.c.t.passes[0].code.constants
	at := slices.Index(of, -4) // where the map of a column begins
	flip(&constants.c.m.codes[0].constants, at, of[at], 1<<30)
	if by := apart(constants); by < 1e-3 {
		t.Errorf("with one constant for another losses are %v apart", by)
	}
	if err := constants.Wrong("so"); err != nil {
		t.Error(err)
	}
	weights := made()
	layout, weight := weights.c.t.places[0], weights.c.members[0].parameters[0]
	flip(&weights.c.m.layout, int(layout), weight, 1<<30)
	if by := apart(weights); by < 1e-3 {
		t.Errorf("with one weight for another losses are %v apart", by)
	}
	if s := e.DeviceStatus(); s.Corrected != 1 || s.Lost != "" {
		t.Errorf("the status is %+v", s)
	}
	if err := weights.Wrong("and so"); !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), "for the second time: and so") {
		t.Errorf("the second time: %v", err)
	}
	if _, err := weights.Loss(rows); !errors.Is(err, ErrLost) {
		t.Errorf("of a device that is given up: %v", err)
	}
}

package model

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
)

var inf = float32(math.Inf(1))

// column is a forward column for values around mid with deviation scale.
func column(mid, scale float32) kernels.Column {
	return kernels.Column{Impute: mid, Lo: -inf, Hi: inf, X: []float32{mid}, Y: []float32{0}, Before: 1 / scale, After: 1 / scale}
}

// numbers is a spec of n number fields.
func numbers(n int) Spec {
	s := Spec{Format: "json"}
	for j := range n {
		s.Fields = append(s.Fields, Field{Name: fmt.Sprintf("f%d", j), Type: Number})
	}
	return s
}

// complete puts a valid model around a program: the engine's scores of rows give self-test, quantiles and threshold.
func complete(t testing.TB, p *kernels.Program, rows []float32) *Model {
	t.Helper()
	s, err := cpu.New().Scorer(p)
	if err != nil {
		t.Fatal(err)
	}
	scores := make([]float32, len(rows)/p.Width)
	if err := s.Score(rows, kernels.Output{Score: scores}); err != nil {
		t.Fatal(err)
	}
	var usable SelfTest
	for i, x := range scores {
		if row := rows[i*p.Width : (i+1)*p.Width]; finite(float64(x)) && noInf(row) {
			usable.Rows = append(usable.Rows, row)
			usable.Scores = append(usable.Scores, x)
		}
	}
	if len(usable.Scores) == 0 {
		t.Fatal("no row has a finite score")
	}
	return wrap(p, usable)
}

// wrap makes a model of a program and its scores of some rows.
func wrap(p *kernels.Program, scored SelfTest) *Model {
	m := &Model{Program: p, Spec: numbers(p.Width), Lineage: Lineage{
		Cluster: "c1", Topic: "cars", Partitions: []PartitionRange{{Partition: 0, From: 0, To: 100, Records: 98, Lost: 2}},
		Rows:   Rows{Read: 98, Used: 97, Validation: 9, LeftOut: map[string]int64{"tombstone": 1}},
		Engine: "cpu/portable", Seed: 1, Settings: map[string]string{"layers": "3,2,3"},
		Metrics: map[string]float64{"validation_loss": 0.125}, Curve: []Epoch{{Epoch: 1, Train: 0.5, Validation: 0.25, Rate: 0.001}},
		Notes: []ColumnNote{{Name: "f0", Note: "a <b> & c"}},
	}}
	n := min(len(scored.Rows), MaxSelfTest)
	m.SelfTest = SelfTest{Rows: scored.Rows[:n:n], Scores: scored.Scores[:n:n]}
	scores := make([]float64, len(scored.Scores))
	for i, x := range scored.Scores {
		scores[i] = float64(x)
	}
	slices.Sort(scores)
	m.Quantiles = Quantiles(scores)
	m.Threshold = scores[len(scores)/2] + 1e-6
	return m
}

func noInf(row []float32) bool {
	for _, x := range row {
		if math.IsInf(float64(x), 0) {
			return false
		}
	}
	return true
}

// tiny is a model of three columns that uses most of what a plain model has: a line, knots with a clip, a
// logarithm, an activation. Its scores are written down, so that no engine's last bit can change the golden files.
func tiny(testing.TB) *Model {
	columns := []kernels.Column{
		column(10, 2),
		{Impute: 1, Lo: -4, Hi: 9, X: []float32{-1, 0, 2}, Y: []float32{-2, 0, 1}, Before: 0.5, After: 0.25},
		{Impute: 5, Log: true, Lo: -inf, Hi: inf, X: []float32{1}, Y: []float32{0}, Before: 2, After: 3},
	}
	p := kernels.Autoencoder(columns, []int{2}, []kernels.Activation{kernels.Tanh})
	kernels.Initialise(p, 7)
	nan := inf - inf
	return wrap(p, SelfTest{
		Rows:   [][]float32{{10, 0, 1}, {12, 1, 0.5}, {8, -1, 100}, {11, nan, 3}, {nan, 8, -2}, {13, 20, nan}},
		Scores: []float32{1.4108542, 2.9237435, 12.863557, 2.140494, 6.333502, 3.3642523},
	})
}

// activated is tiny's columns through a layer of each activation that tiny does not have.
func activated(t testing.TB) *Model {
	columns := tiny(t).Program.Steps[0].(*kernels.Map).Columns
	acts := []kernels.Activation{kernels.ReLU, kernels.LeakyReLU, kernels.ELU, kernels.GELU, kernels.Sigmoid}
	p := kernels.Autoencoder(columns, []int{3, 3, 2, 3}, acts)
	kernels.Initialise(p, 7)
	nan := inf - inf
	return wrap(p, SelfTest{
		Rows:   [][]float32{{10, 0, 1}, {12, 1, 0.5}, {8, -1, 100}, {11, nan, 3}, {nan, 8, -2}, {13, 20, nan}},
		Scores: []float32{1.2728558, 1.6161001, 11.260661, 0.69212013, 4.8008776, 3.0950234},
	})
}

// blended is tiny's network with whitened error and two groups of two prototypes beside it, one of which stands
// twice in its group. As in tiny, the scores are written down.
func blended(t testing.TB) *Model {
	p := kernels.Whitened(tiny(t).Program, []float32{1, 0.25, 0, 0.25, 2, -0.5, 0, -0.5, 0.75})
	p = kernels.Blended(p, 2, []float32{0, 0, 0, 1, -1, 0.5, 0.5, 0.25, -2, 0.5, 0.25, -2}, 0.75, 0.5)
	nan := inf - inf
	return wrap(p, SelfTest{
		Rows:   [][]float32{{10, 0, 1}, {12, 1, 0.5}, {8, -1, 100}, {11, nan, 3}, {nan, 8, -2}, {13, 20, nan}},
		Scores: []float32{1.2211449, 2.2958508, 15.911198, 2.3659384, 7.429741, 5.1018004},
	})
}

// randomProgram is any valid program, of every kind of step, wired at random.
func randomProgram(r *rand.Rand) *kernels.Program {
	p := &kernels.Program{Width: 1 + r.IntN(6)}
	widths := []int{p.Width}
	add := func(s kernels.Step, width int) kernels.Value {
		p.Steps = append(p.Steps, s)
		widths = append(widths, width)
		return kernels.Value(len(p.Steps))
	}
	any := func() kernels.Value { return kernels.Value(r.IntN(len(widths))) }
	for range r.IntN(10) {
		v := any()
		w := widths[v]
		switch r.IntN(7) {
		case 0:
			m := &kernels.Map{In: v, Inverse: r.IntN(2) == 0}
			simple := r.IntN(3) == 0
			for range w {
				c := randomColumn(r, simple)
				if m.Inverse {
					c.Impute, c.Lo, c.Hi = 0, -inf, inf
				}
				m.Columns = append(m.Columns, c)
			}
			add(m, w)
		case 1:
			g := &kernels.Gemm{In: v, Out: 1 + r.IntN(6), Act: kernels.Activations()[r.IntN(len(kernels.Activations()))]}
			for range g.Out * w {
				g.W = append(g.W, float32(r.NormFloat64()))
			}
			for range g.Out {
				g.B = append(g.B, float32(r.NormFloat64()))
			}
			add(g, g.Out)
		case 2:
			u := any()
			if widths[u] != w {
				u = v
			}
			add(&kernels.Diff{A: v, B: u}, w)
		case 3:
			n := add(&kernels.Norm{In: v}, 1)
			if r.IntN(2) == 0 {
				add(&kernels.Split{In: v, Norm: n}, w)
			}
		case 4:
			near := &kernels.Nearest{In: v, Groups: 1 + r.IntN(3)}
			for range near.Groups * (1 + r.IntN(3)) * w {
				near.Rows = append(near.Rows, float32(r.NormFloat64()))
			}
			n := add(near, 1)
			if r.IntN(2) == 0 {
				add(&kernels.Split{In: v, Norm: n}, w)
			}
		default:
			j := &kernels.Join{In: []kernels.Value{v}, Weights: []float32{0.1 + r.Float32()}}
			for range r.IntN(4) {
				if u := any(); widths[u] == w {
					j.In, j.Weights = append(j.In, u), append(j.Weights, 0.1+r.Float32())
				}
			}
			add(j, w)
		}
	}
	pick := func(width int) kernels.Value {
		var fit []kernels.Value
		for v, w := range widths {
			if w == width {
				fit = append(fit, kernels.Value(v))
			}
		}
		if len(fit) == 0 {
			return add(&kernels.Norm{In: kernels.Input}, 1)
		}
		return fit[r.IntN(len(fit))]
	}
	p.Score, p.Reconstruction, p.Contributions = pick(1), pick(p.Width), pick(p.Width)
	return p
}

func randomColumn(r *rand.Rand, simple bool) kernels.Column {
	c := kernels.Column{Impute: float32(r.NormFloat64()), Log: r.IntN(3) == 0, Lo: -inf, Hi: inf, Before: 0.01 + r.Float32()}
	c.After = c.Before
	n := 1
	if !simple {
		n, c.After = 1+r.IntN(kernels.MaxKnots), 0.01+r.Float32()
		if r.IntN(2) == 0 {
			c.Lo, c.Hi = -3, 1e6
		}
	}
	x, y := float32(r.NormFloat64()), float32(r.NormFloat64())
	for range n {
		c.X, c.Y = append(c.X, x), append(c.Y, y)
		x += 0.1 + float32(math.Exp(2*r.NormFloat64()))
		y += 0.1 + float32(math.Exp(2*r.NormFloat64()))
	}
	return c
}

package kernels

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var inf = float32(math.Inf(1))

func line(x, slope float32) Column {
	return Column{Impute: x, Lo: -inf, Hi: inf, X: []float32{x}, Y: []float32{0}, Before: slope, After: slope}
}

func plain() *Program {
	p := Autoencoder([]Column{line(1, 2), line(-3, 0.5), line(0, 1)}, []int{2}, []Activation{Tanh})
	Initialise(p, 1)
	return p
}

func TestAutoencoder(t *testing.T) {
	p := plain()
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, s := range p.Steps {
		kinds = append(kinds, s.Kind())
	}
	if diff := cmp.Diff([]string{"map", "gemm", "gemm", "diff", "norm", "split", "map"}, kinds); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]int{3, 3, 2, 3, 3, 1, 3, 3}, p.Widths()); diff != "" {
		t.Error(diff)
	}
	target, prediction, ok := p.Residual()
	if !ok || target != 1 || prediction != 3 {
		t.Errorf("residual: target %d, prediction %d, %v", target, prediction, ok)
	}
	if got := p.Steps[1].(*Gemm).Act; got != Tanh {
		t.Errorf("hidden layer is %v", got)
	}
	if got := p.Steps[2].(*Gemm).Act; got != Linear {
		t.Errorf("last layer is %v", got)
	}
	if n := len(p.Parameters(prediction)); n != 4 {
		t.Errorf("%d parameter slices, want 4", n)
	}
	if w := p.WidthOf(99); w != 0 {
		t.Errorf("a value that does not exist has width %d", w)
	}
	if err := Autoencoder([]Column{line(0, 1)}, []int{0, -3}, nil).Validate(); err == nil {
		t.Error("layers of width 0 and -3 are valid")
	}
}

// TestValidateReportsEveryFault breaks a valid program in one way each, then in several at once.
func TestValidateReportsEveryFault(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(p *Program)
		want  []string
	}{
		{"width", func(p *Program) { p.Width = 0 }, []string{"0 columns"}},
		{"huge width", func(p *Program) { p.Width = MaxWidth + 1 }, []string{"65537 columns"}},
		{"nil step", func(p *Program) { p.Steps[3] = nil }, []string{"step 3 is nil"}},
		{"typed nil step", func(p *Program) { p.Steps[3] = (*Diff)(nil) }, []string{"step 3 is nil"}},
		{"reads itself", func(p *Program) { p.Steps[1].(*Gemm).In = 2 }, []string{"step 1 (gemm) reads [2]"}},
		{"reads below", func(p *Program) { p.Steps[0].(*Map).In = -1 }, []string{"step 0 (map) reads [-1]"}},
		{"columns", func(p *Program) { p.Steps[0].(*Map).Columns = nil }, []string{"0 columns for a value of width 3"}},
		{"weights", func(p *Program) { g := p.Steps[1].(*Gemm); g.W = g.W[1:] }, []string{"step 1 (gemm): 5 weights; 2·3 = 6"}},
		{"biases", func(p *Program) { p.Steps[1].(*Gemm).B = nil }, []string{"0 biases; 2"}},
		{"output width", func(p *Program) { p.Steps[1].(*Gemm).Out = -1 }, []string{"output width -1"}},
		{"NaN weight", func(p *Program) { p.Steps[1].(*Gemm).W[4] = float32(math.NaN()) }, []string{"weight 4 is NaN"}},
		{"infinite bias", func(p *Program) { p.Steps[1].(*Gemm).B[1] = inf }, []string{"bias 1 is +Inf"}},
		{"activation", func(p *Program) { p.Steps[1].(*Gemm).Act = 9 }, []string{"unknown activation 9"}},
		{"diff", func(p *Program) { p.Steps[3].(*Diff).B = 2 }, []string{"width 3 and 2"}},
		{"split of no norm", func(p *Program) { p.Steps[5].(*Split).Norm = 4 }, []string{"value 4 is neither a norm nor a nearest distance"}},
		{"split of another norm", func(p *Program) { p.Steps[5].(*Split).In = 1 }, []string{"norm is that of value 4, not of 1"}},
		{"score", func(p *Program) { p.Score = 1 }, []string{"score (value 1) has width 3"}},
		{"contributions", func(p *Program) { p.Contributions = 5 }, []string{"contributions (value 5) has width 1"}},
		{"reconstruction", func(p *Program) { p.Reconstruction = 8 }, []string{"reconstruction is value 8"}},
		{"impute", func(p *Program) { p.Steps[0].(*Map).Columns[1].Impute = inf }, []string{"column 1: imputes +Inf"}},
		{"clip", func(p *Program) { p.Steps[0].(*Map).Columns[1].Lo = inf; p.Steps[0].(*Map).Columns[1].Hi = 1 }, []string{"clips to [+Inf, 1]"}},
		{"slope", func(p *Program) { p.Steps[0].(*Map).Columns[2].After = 0 }, []string{"column 2: slope 0 after"}},
		{"no knots", func(p *Program) { p.Steps[0].(*Map).Columns[2].X = nil }, []string{"0 knots in x and 1 in y"}},
		{"too many knots", func(p *Program) {
			c := &p.Steps[0].(*Map).Columns[2]
			c.X, c.Y = make([]float32, 65), make([]float32, 65)
		}, []string{"65 knots"}},
		{"infinite knot", func(p *Program) { p.Steps[0].(*Map).Columns[2].Y[0] = -inf }, []string{"y = -Inf"}},
		{"falling knots", func(p *Program) {
			c := &p.Steps[0].(*Map).Columns[2]
			c.X, c.Y = []float32{0, 1, 1}, []float32{0, 1, 2}
		}, []string{"knots 1 and 2 do not rise"}},
		{"slope out of float32", func(p *Program) {
			c := &p.Steps[0].(*Map).Columns[2]
			c.X, c.Y = []float32{0, 1e-30}, []float32{0, 1e30}
		}, []string{"slope between knots 0 and 1 is +Inf"}},
		{"several", func(p *Program) {
			p.Steps[1].(*Gemm).B = nil
			p.Steps[3].(*Diff).B = 2
			p.Score = 1
		}, []string{"0 biases", "width 3 and 2", "score (value 1)"}},
		{"join", func(p *Program) {
			p.Steps = append(p.Steps,
				&Join{In: []Value{1, 2}, Weights: []float32{1, -1}},
				&Join{In: []Value{1}},
				&Join{})
		}, []string{"operand 1 has width 2", "weight 1 is -1", "1 operands and 0 weights", "no operands"}},
		{"unknown step", func(p *Program) { p.Steps = append(p.Steps, alien{}) }, []string{"step 7 (alien): unknown kind"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := plain()
			tt.spoil(p)
			err := p.Validate()
			if err == nil {
				t.Fatal("no fault found")
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q is missing in:\n%v", w, err)
				}
			}
		})
	}
}

// blend is plain() whitened, with two groups of two prototypes beside it.
func blend() *Program {
	return Blended(Whitened(plain(), []float32{1, 0, 0, 0, 2, 0, 0, 0, 3}), 2, []float32{0, 0, 0, 1, 1, 1, 2, 0, 0, 0, 2, 0}, 0.5, 0.25)
}

func TestBlended(t *testing.T) {
	p := plain()
	q := blend()
	if err := q.Validate(); err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, s := range q.Steps {
		kinds = append(kinds, s.Kind())
	}
	if diff := cmp.Diff([]string{"map", "gemm", "gemm", "diff", "map", "gemm", "norm", "split", "nearest", "split", "join", "join"}, kinds); diff != "" {
		t.Error(diff)
	}
	// The plain error's norm and split are gone, and what training trains is what it was: not the whitening.
	target, prediction, ok := q.Residual()
	if !ok || target != 1 || prediction != 3 {
		t.Errorf("residual: target %d, prediction %d, %v", target, prediction, ok)
	}
	if diff := cmp.Diff(p.Parameters(3), q.Parameters(prediction)); diff != "" {
		t.Error(diff)
	}
	if len(p.Steps) != 7 || p.Validate() != nil {
		t.Error("the autoencoder was changed")
	}
	if _, _, ok := Prototypes([]Column{line(0, 1)}, 1, []float32{1}).Residual(); ok {
		t.Error("prototypes alone have a residual")
	}
	c := q.Clone()
	c.Steps[8].(*Nearest).Rows[0] = 9
	if q.Steps[8].(*Nearest).Rows[0] != 0 {
		t.Error("a clone shares its prototypes")
	}
}

func TestValidatePrototypes(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(n *Nearest, s *Split)
		want  string
	}{
		{"no groups", func(n *Nearest, _ *Split) { n.Groups = 0 }, "step 8 (nearest): 0 groups; 1 to 65536 are allowed"},
		{"no rows", func(n *Nearest, _ *Split) { n.Rows = nil }, "0 values of prototypes; a whole number of 2·3 = 6 is needed"},
		{"part of a row", func(n *Nearest, _ *Split) { n.Rows = n.Rows[1:] }, "11 values of prototypes"},
		{"uneven groups", func(n *Nearest, _ *Split) { n.Groups = 3 }, "12 values of prototypes; a whole number of 3·3 = 9"},
		{"too many", func(n *Nearest, _ *Split) { n.Rows = make([]float32, 6*40000) }, "80000 prototypes; at most 65536"},
		{"NaN", func(n *Nearest, _ *Split) { n.Rows[5] = float32(math.NaN()) }, "prototype value 5 is NaN"},
		{"far", func(n *Nearest, _ *Split) { n.Rows[5] = 1e30 }, "prototype 1 is too far from 0"},
		{"split of another value", func(_ *Nearest, s *Split) { s.In = 4 }, "step 9 (split): the nearest distance is that of value 1, not of 4"},
		{"reads too late", func(n *Nearest, _ *Split) { n.In = 9 }, "step 8 (nearest) reads [9]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := blend()
			tt.spoil(p.Steps[8].(*Nearest), p.Steps[9].(*Split))
			if err := p.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%q is missing in: %v", tt.want, err)
			}
		})
	}
}

type alien struct{}

func (alien) Reads() []Value { return nil }
func (alien) Kind() string   { return "alien" }

func TestInverseMapNeedsNoImputationOrClip(t *testing.T) {
	p := plain()
	m := p.Steps[6].(*Map)
	m.Columns[0].Impute, m.Columns[0].Lo, m.Columns[0].Hi = float32(math.NaN()), 1, -1
	if err := p.Validate(); err != nil {
		t.Error(err)
	}
}

func TestCloneSharesNothing(t *testing.T) {
	p := plain()
	p.Steps = append(p.Steps, &Join{In: []Value{1, 3}, Weights: []float32{1, 2}})
	c := p.Clone()
	if diff := cmp.Diff(p, c); diff != "" {
		t.Fatal(diff)
	}
	want := p.Clone()
	for _, s := range c.Steps {
		switch s := s.(type) {
		case *Map:
			s.Columns[0].X[0], s.Columns[0].Y[0], s.Columns[1].Before = 99, 99, 99
		case *Gemm:
			s.W[0], s.B[0], s.In = 99, 99, 0
		case *Diff:
			s.A = 0
		case *Norm:
			s.In = 0
		case *Split:
			s.In = 0
		case *Join:
			s.In[0], s.Weights[0] = 0, 99
		}
	}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Errorf("the original changed with its clone:\n%s", diff)
	}
}

// TestInitialiseIsStable pins the bytes: a model trained from a seed today must come out of the same seed
// under another Go version or processor.
func TestInitialiseIsStable(t *testing.T) {
	p := plain()
	g := p.Steps[1].(*Gemm)
	var bits []uint32
	for _, w := range g.W {
		bits = append(bits, math.Float32bits(w))
		if limit := math.Sqrt(6.0 / 5); math.Abs(float64(w)) > limit {
			t.Errorf("weight %v beyond ±%v", w, limit)
		}
	}
	if diff := cmp.Diff(goldenWeights, bits); diff != "" {
		t.Error(diff)
	}
	again := plain()
	if diff := cmp.Diff(p, again); diff != "" {
		t.Error(diff)
	}
	Initialise(again, 2)
	if cmp.Equal(p.Steps[1].(*Gemm).W, again.Steps[1].(*Gemm).W) {
		t.Error("another seed gives the same weights")
	}
}

func TestSetParameters(t *testing.T) {
	p, q := plain(), plain()
	Initialise(q, 7)
	if err := p.SetParameters(3, q.Parameters(3)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(q, p); diff != "" {
		t.Error(diff)
	}
	if err := p.SetParameters(3, q.Parameters(2)); err == nil {
		t.Error("too few slices are taken")
	}
	short := q.Parameters(3)
	short[2] = short[2][1:]
	if err := p.SetParameters(3, short); err == nil || !strings.Contains(err.Error(), "slice 2 has 5 entries; 6") {
		t.Errorf("a short slice: %v", err)
	}
}

// sum is the definition of the piecewise-linear function, term by term.
func sum(c *Column, x float32) float32 {
	last := len(c.X) - 1
	y := c.Y[0] + c.Before*min(x-c.X[0], 0)
	for k := range last {
		width := c.X[k+1] - c.X[k]
		y += float32((c.Y[k+1] - c.Y[k]) / width * min(max(x-c.X[k], 0), width))
	}
	return y + float32(c.After*max(x-c.X[last], 0))
}

// FuzzCurve: looking a segment up gives the bits of the whole sum, and the function never falls.
func FuzzCurve(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed, float32(seed)/10)
	}
	f.Add(uint64(1), inf)
	f.Add(uint64(2), -inf)
	f.Add(uint64(3), float32(math.NaN()))
	f.Fuzz(func(t *testing.T, seed uint64, x float32) {
		r := rand.New(rand.NewPCG(seed, 1))
		c := Column{Lo: -inf, Hi: inf, Before: 0.01 + r.Float32(), After: 0.01 + r.Float32()}
		at, y := float32(r.NormFloat64()), float32(r.NormFloat64())
		for range 1 + r.IntN(MaxKnots) {
			c.X, c.Y = append(c.X, at), append(c.Y, y)
			at += 0.001 + r.Float32()
			y += 0.001 + r.Float32()
		}
		if err := c.validate(false); err != nil {
			t.Fatal(err)
		}
		curve := c.Curve()
		values := append([]float32{x, 0, 1e6, -1e6}, c.X...)
		for range 50 {
			values = append(values, float32(r.NormFloat64())*20)
		}
		for _, x := range values {
			got, want := curve.At(x), sum(&c, x)
			if math.Float32bits(got) != math.Float32bits(want) && !(got != got && want != want) {
				t.Fatalf("at %v: %v, the sum is %v", x, got, want)
			}
		}
		inverse := c.Inverse()
		if err := inverse.validate(true); err != nil {
			t.Fatal(err)
		}
		for _, x := range values[2:] {
			back := inverse.Apply(c.Apply(x, false), true)
			if math.Abs(float64(back-x)) > 1e-4*(math.Abs(float64(x))+70) {
				t.Fatalf("%v comes back as %v", x, back)
			}
		}
	})
}

func TestColumnApply(t *testing.T) {
	nan := float32(math.NaN())
	log := line(0, 1)
	log.Log, log.Impute = true, 3
	clip := line(0, 2)
	clip.Lo, clip.Hi, clip.Impute = -1, 1, 0.5
	constant := Flat(7)
	tests := []struct {
		name    string
		c       Column
		x, want float32
		inverse bool
	}{
		{"impute", line(5, 2), nan, 0, false},
		{"impute, then clip", clip, nan, 1, false},
		{"impute, then log", log, nan, float32(math.Log(4)), false},
		{"clip low", clip, -9, -2, false},
		{"clip high", clip, inf, 2, false},
		{"log", log, float32(math.E) - 1, 1, false},
		{"log of a negative", log, 1 - float32(math.E), -1, false},
		{"exp", log, 1, float32(math.E) - 1, true},
		{"exp of a negative", log, -1, 1 - float32(math.E), true},
		{"inverse clips nothing", clip, 9, 18, true},
		{"flat", constant, 1e6, 7, true},
	}
	for _, tt := range tests {
		if got := tt.c.Apply(tt.x, tt.inverse); math.Abs(float64(got-tt.want)) > 1e-6*math.Abs(float64(tt.want)) {
			t.Errorf("%s: %v becomes %v, want %v", tt.name, tt.x, got, tt.want)
		}
	}
	unit := line(1, 1)
	if got := unit.Apply(nan, true); got == got {
		t.Errorf("the inverse of NaN is %v", got)
	}
}

var goldenWeights = []uint32{1041585211, 1057610211, 1065620941, 3187255349, 3187283147, 1058239220}

package compliance

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
)

// maps checks the piecewise-linear functions in both directions, far outside the knots too.
func maps(t *testing.T, e kernels.Engine) {
	r := rand.New(rand.NewPCG(3, 4))
	clipped := knotted(r, 5, false)
	clipped.Lo, clipped.Hi = -1, 1.5
	clippedLog := knotted(r, 3, true)
	clippedLog.Lo, clippedLog.Hi = -3, 3
	bent := straight(1, 2)
	bent.Before = 0.5
	constant := straight(7, 1)
	constant.Lo, constant.Hi = 6.9, 7.1
	tests := []struct {
		name   string
		column kernels.Column
	}{
		{"one knot", straight(0.5, 2)},
		{"one knot, two slopes", bent},
		{"two knots", knotted(r, 2, false)},
		{"three knots", knotted(r, 3, false)},
		{"64 knots", knotted(r, 64, false)},
		{"log", straightLog(r)},
		{"log, 64 knots", knotted(r, 64, true)},
		{"clip", clipped},
		{"log and clip", clippedLog},
		{"constant column", constant},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := tt.column
			p := mapsOnly([]kernels.Column{c})
			s := scorer(t, e, p)
			values := []float32{0, float32(math.NaN()), 1e6, -1e6, 1e-6, -1e-6, c.Impute, 7}
			values = append(values, c.X...)
			for range 200 {
				values = append(values, float32(r.NormFloat64())*3)
			}
			out := all(t, s, values, 1)
			o := newOracle(p, p.Score)
			for i, x := range values {
				v := o.values([]float32{x})
				forward, back := v[1][0], v[2][0]
				// Relative to the value and to the knots that it was computed from.
				if d := math.Abs(float64(out.Contributions[i]) - forward); d > 1e-6*(math.Abs(forward)+4) {
					t.Errorf("%v becomes %v, want %v", x, out.Contributions[i], forward)
				}
				if d := math.Abs(float64(out.Reconstruction[i]) - back); d > tolerance*(math.Abs(back)+1) {
					t.Errorf("%v comes back as %v, want %v", x, out.Reconstruction[i], back)
				}
				inside := x == x && float64(x) >= float64(c.Lo) && float64(x) <= float64(c.Hi)
				if inside && !c.Log {
					if d := math.Abs(float64(out.Reconstruction[i]) - float64(x)); d > tolerance*(math.Abs(float64(x))+1) {
						t.Errorf("%v comes back as %v", x, out.Reconstruction[i])
					}
				}
			}
		})
	}
	t.Run("flat", func(t *testing.T) {
		p := mapsOnly([]kernels.Column{straight(7, 1)})
		p.Steps[1].(*kernels.Map).Columns[0] = kernels.Flat(7)
		for i, y := range all(t, scorer(t, e, p), []float32{7, 7.5, 1e9}, 1).Reconstruction {
			if y != 7 {
				t.Errorf("row %d: a constant column reconstructs to %v", i, y)
			}
		}
	})
}

func straightLog(r *rand.Rand) kernels.Column {
	c := knotted(r, 1, true)
	c.After = c.Before
	return c
}

// scores checks every output against the oracle, outliers of a million deviations included.
func scores(t *testing.T, e kernels.Engine) {
	tests := []*net{branching()}
	for _, act := range activations {
		for _, s := range []struct {
			width  int
			layers []int
		}{{1, []int{1}}, {3, []int{2}}, {8, []int{8}}, {18, []int{14, 7, 7}}, {30, []int{14, 7, 14}}, {67, []int{33, 5, 70}}} {
			tests = append(tests, autoencoder(s.width, s.layers, act))
		}
	}
	// Groups larger than a register's look-up table, and rows wider than a tile's share of a cache.
	tests = append(tests, nearest(5, 2, 17), nearest(3, 4, 40), nearest(6, 3, 70), autoencoder(1030, []int{17}, kernels.Tanh))
	// Every remainder of a tile of prototypes, and of columns.
	for i, width := range []int{1, 2, 3, 4, 7, 18, 33} {
		for k := 1; k <= 9; k += 1 + i%2 {
			tests = append(tests, nearest(width, 1+(width+k)%5, k))
		}
		tests = append(tests, whitened(width, []int{width}, activations[i%len(activations)]), blended(width, 32, 8, []int{2 * width, width, 2 * width}, activations[i%len(activations)]))
	}
	for _, n := range tests {
		t.Run(n.name, func(t *testing.T) {
			rows := n.rows(50)
			for j := range n.p.Width {
				rows[j] *= 1e6
				rows[n.p.Width+j] *= 1e3
			}
			rows[2*n.p.Width] = -2e6
			out := all(t, scorer(t, e, n.p), rows, n.p.Width)
			o := newOracle(n.p, n.prediction)
			for i := range out.Score {
				v := o.values(rows[i*n.p.Width : (i+1)*n.p.Width])
				want := v[n.p.Score][0]
				// 1e-5 of a threshold of 1: the scaled columns deviate by about one.
				if d := math.Abs(float64(out.Score[i]) - want); d > 2e-5*want+1e-5 {
					t.Errorf("row %d: score %v, want %v", i, out.Score[i], want)
				}
				if !nearTie(n.p, v) {
					near(t, fmt.Sprintf("row %d: contributions", i), out.Contributions[i*n.p.Width:(i+1)*n.p.Width], v[n.p.Contributions], tolerance)
				}
				near(t, fmt.Sprintf("row %d: reconstruction", i), out.Reconstruction[i*n.p.Width:(i+1)*n.p.Width], v[n.p.Reconstruction], tolerance)
				sum := 0.0
				for _, c := range out.Contributions[i*n.p.Width : (i+1)*n.p.Width] {
					if c < 0 {
						t.Errorf("row %d: negative contribution %v", i, c)
					}
					sum += float64(c)
				}
				if math.Abs(sum-float64(out.Score[i])) > tolerance*sum+1e-6 {
					t.Errorf("row %d: contributions add up to %v, the score is %v", i, sum, out.Score[i])
				}
			}
		})
	}
}

// nearTie tells whether some group has two prototypes whose distances are within 1e-4 of each other, though not
// equal: rounding may then find either, which the score does not notice but the contributions do.
func nearTie(p *kernels.Program, v [][]float64) bool {
	for _, s := range p.Steps {
		if s, ok := s.(*kernels.Nearest); ok {
			for _, n := range nearest64(s, v[s.In]) {
				if n.next != n.distance && n.next-n.distance < 1e-4 {
					return true
				}
			}
		}
	}
	return false
}

// batches: 0 to 33 rows pass every remainder of a block; each row's bits must be those it has alone, with
// any outputs asked for.
func batches(t *testing.T, e kernels.Engine) {
	nets := []*net{
		autoencoder(18, []int{14, 7, 7}, kernels.Tanh), branching(), blended(18, 32, 8, []int{16, 4, 16}, kernels.Tanh),
		nearest(7, 9, 20), nearest(5, 3, 70), whitened(33, []int{67}, kernels.ReLU),
	}
	for _, act := range activations {
		nets = append(nets, autoencoder(3, []int{9, 5}, act))
	}
	for _, n := range nets {
		w := n.p.Width
		s := scorer(t, e, n.p)
		rows := n.rows(150)
		alone := kernels.Output{}
		for i := range 150 {
			one := all(t, s, rows[i*w:(i+1)*w], w)
			alone.Score = append(alone.Score, one.Score...)
			alone.Reconstruction = append(alone.Reconstruction, one.Reconstruction...)
			alone.Contributions = append(alone.Contributions, one.Contributions...)
		}
		counts := []int{63, 64, 65, 95, 96, 97, 127, 128, 129, 150}
		for count := range 34 {
			counts = append(counts, count)
		}
		for _, count := range counts {
			for mask := range 8 {
				var out kernels.Output
				if mask&1 != 0 {
					out.Score = make([]float32, count)
				}
				if mask&2 != 0 {
					out.Reconstruction = make([]float32, count*w)
				}
				if mask&4 != 0 {
					out.Contributions = make([]float32, count*w)
				}
				if err := s.Score(rows[:count*w], out); err != nil {
					t.Fatal(err)
				}
				if mask&1 != 0 && !same(out.Score, alone.Score[:count]) {
					t.Errorf("%s: %d rows, outputs %b: scores differ from those of single rows", n.name, count, mask)
				}
				if mask&2 != 0 && !same(out.Reconstruction, alone.Reconstruction[:count*w]) {
					t.Errorf("%s: %d rows, outputs %b: reconstructions differ from those of single rows", n.name, count, mask)
				}
				if mask&4 != 0 && !same(out.Contributions, alone.Contributions[:count*w]) {
					t.Errorf("%s: %d rows, outputs %b: contributions differ from those of single rows", n.name, count, mask)
				}
			}
		}
	}
}

// guarded is a slice between words that must not change.
type guarded struct {
	whole, inner []float32
}

const margin = 67 // not a whole vector, so that no buffer begins at a vector's boundary

var guardWord = math.Float32frombits(0x7fc0beef) // a NaN, which spreads if it is read

func newGuarded(n int) guarded {
	whole := make([]float32, n+2*margin)
	for i := range whole {
		whole[i] = guardWord
	}
	return guarded{whole, whole[margin : margin+n]} // capacity reaches into the margin on purpose
}

func (g guarded) intact(t *testing.T, what string) {
	t.Helper()
	for i, x := range g.whole {
		if (i < margin || i >= len(g.whole)-margin) && math.Float32bits(x) != math.Float32bits(guardWord) {
			t.Errorf("%s: word %d from its start was overwritten", what, i-margin)
		}
	}
}

// guardedNets and guardedCounts are what both guards try.
func guardedNets() []*net {
	return []*net{autoencoder(5, []int{3}, kernels.Sigmoid), autoencoder(18, []int{14, 7, 7}, kernels.Tanh), branching(), blended(18, 32, 8, []int{16, 4, 16}, kernels.Tanh)}
}

var guardedCounts = []int{0, 1, 7, 32, 33, 70}

// present draws rows without missing values.
func (n *net) present(count int) []float32 {
	rows := n.rows(count)
	for i := range rows {
		if rows[i] != rows[i] {
			rows[i] = 0
		}
	}
	return rows
}

// guards plants words around every slice that a scorer is given.
func guards(t *testing.T, e kernels.Engine) {
	for _, n := range guardedNets() {
		w := n.p.Width
		s := scorer(t, e, n.p)
		for _, count := range guardedCounts {
			original := n.present(count)
			rows, score, reconstruction, contributions := newGuarded(count*w), newGuarded(count), newGuarded(count*w), newGuarded(count*w)
			copy(rows.inner, original)
			if err := s.Score(rows.inner, kernels.Output{Score: score.inner, Reconstruction: reconstruction.inner, Contributions: contributions.inner}); err != nil {
				t.Fatal(err)
			}
			rows.intact(t, "rows")
			score.intact(t, "score")
			reconstruction.intact(t, "reconstruction")
			contributions.intact(t, "contributions")
			if !same(rows.inner, original) {
				t.Errorf("%s: the rows were changed", n.name)
			}
			for _, v := range []guarded{score, reconstruction, contributions} {
				for i, x := range v.inner {
					if x != x {
						t.Fatalf("%s: %d rows: word %d was not written", n.name, count, i)
					}
				}
			}
		}
	}
}

// trainingGuards does the same for what a trainer is given.
func trainingGuards(t *testing.T, e kernels.Engine) {
	for _, n := range guardedNets() {
		tr := trainer(t, e, n, kernels.TrainOptions{MaxBatch: 70})
		for _, count := range guardedCounts[1:] {
			original := n.present(count)
			rows := newGuarded(count * n.p.Width)
			copy(rows.inner, original)
			loss, err := tr.Loss(rows.inner)
			if err != nil || math.IsNaN(loss) {
				t.Fatalf("loss %v, %v", loss, err)
			}
			if loss, _, err = tr.Gradients(rows.inner); err != nil || math.IsNaN(loss) {
				t.Fatalf("loss %v, %v", loss, err)
			}
			rows.intact(t, "rows")
			if !same(rows.inner, original) {
				t.Errorf("%s: the rows were changed", n.name)
			}
		}
	}
}

// SameBits holds two engines to one another, to the bit: so may a batch be scored by either.
func SameBits(t *testing.T, a, b kernels.Engine) {
	nets := []*net{
		branching(), autoencoder(1030, []int{17}, kernels.Tanh), whitened(33, []int{67}, kernels.ReLU), nearest(7, 9, 20), nearest(5, 3, 70),
		blended(18, 32, 8, []int{16, 4, 16}, kernels.Tanh), blended(3, 300, 5, []int{2}, kernels.Tanh),
	}
	for _, act := range activations {
		nets = append(nets, autoencoder(30, []int{14, 7, 14}, act), autoencoder(3, []int{9, 5}, act), blended(13, 5, 6, []int{26, 13, 26}, act))
	}
	r := rand.New(rand.NewPCG(8, 9))
	for _, knots := range []int{1, 2, 3, 8, 9, 64} {
		for _, log := range []bool{false, true} {
			c := knotted(r, knots, log)
			c.Lo, c.Hi = -3, 4
			nets = append(nets, &net{name: fmt.Sprintf("%d knots, log %v", knots, log), p: mapsOnly([]kernels.Column{c, knotted(r, knots, log)}), random: r})
		}
	}
	for _, n := range nets {
		w := n.p.Width
		rows := n.rows(300)
		for j := range w {
			rows[j] *= 1e6
			rows[w+j] = infinite
		}
		rows[2*w] = -2e6
		got, want := all(t, scorer(t, a, n.p), rows, w), all(t, scorer(t, b, n.p), rows, w)
		for _, o := range []struct {
			name      string
			got, want []float32
		}{{"score", got.Score, want.Score}, {"reconstruction", got.Reconstruction, want.Reconstruction}, {"contributions", got.Contributions, want.Contributions}} {
			for i, x := range o.got {
				// One NaN is as good as another.
				if y := o.want[i]; math.Float32bits(x) != math.Float32bits(y) && (x == x || y == y) {
					t.Errorf("%s: %s %d is %v on %s/%s and %v on %s/%s", n.name, o.name, i, x, a.Name(), a.Level(), y, b.Name(), b.Level())
					break
				}
			}
		}
	}
}

// notFinite: a missing value is its imputation; an infinite one spoils its own row and no other. Cases
// 3.04, 4.10.
func notFinite(t *testing.T, e kernels.Engine) {
	n := autoencoder(6, []int{4}, kernels.Tanh)
	w := n.p.Width
	s := scorer(t, e, n.p)
	rows := n.rows(40)
	for i := range rows {
		if rows[i] != rows[i] {
			rows[i] = 1
		}
	}
	clean := all(t, s, rows, w)
	columns := n.p.Steps[0].(*kernels.Map).Columns
	missing, imputed := append([]float32(nil), rows...), append([]float32(nil), rows...)
	for i := range rows {
		if i%7 == 0 {
			missing[i] = float32(math.NaN())
			imputed[i] = columns[i%w].Impute
		}
	}
	a, b := all(t, s, missing, w), all(t, s, imputed, w)
	if !same(a.Score, b.Score) || !same(a.Reconstruction, b.Reconstruction) || !same(a.Contributions, b.Contributions) {
		t.Error("missing values score otherwise than what is imputed for them")
	}
	for _, inf := range []float32{infinite, -infinite} {
		spoiled := append([]float32(nil), rows...)
		spoiled[17*w+2] = inf
		out := all(t, s, spoiled, w)
		for i, x := range out.Score {
			finite := !math.IsNaN(float64(x)) && !math.IsInf(float64(x), 0)
			if i == 17 && finite {
				t.Errorf("a row with %v scores %v", inf, x)
			}
			if i != 17 && math.Float32bits(x) != math.Float32bits(clean.Score[i]) {
				t.Errorf("row %d beside a row with %v scores %v, else %v", i, inf, x, clean.Score[i])
			}
		}
	}
	// A clip makes infinite input finite, as it does any outlier.
	clipped := autoencoder(6, []int{4}, kernels.Tanh)
	for j := range clipped.p.Steps[0].(*kernels.Map).Columns {
		clipped.p.Steps[0].(*kernels.Map).Columns[j].Lo = -10
		clipped.p.Steps[0].(*kernels.Map).Columns[j].Hi = 10
	}
	row := append([]float32(nil), rows[:w]...)
	row[1], row[2] = infinite, -infinite
	limit := append([]float32(nil), rows[:w]...)
	limit[1], limit[2] = 10, -10
	s = scorer(t, e, clipped.p)
	if a, b := all(t, s, row, w), all(t, s, limit, w); !same(a.Score, b.Score) {
		t.Errorf("clipped infinities score %v, the limits %v", a.Score, b.Score)
	}
}

// zeroNorm: a row without error has no contributions, and not NaN.
func zeroNorm(t *testing.T, e kernels.Engine) {
	p := &kernels.Program{
		Width: 3,
		Steps: []kernels.Step{
			&kernels.Map{In: kernels.Input, Columns: []kernels.Column{straight(0, 1), straight(0, 1), straight(0, 1)}},
			&kernels.Gemm{In: 1, Out: 3, W: []float32{1, 0, 0, 0, 1, 0, 0, 0, 0}, B: make([]float32, 3)},
			&kernels.Diff{A: 1, B: 2},
			&kernels.Norm{In: 3},
			&kernels.Split{In: 3, Norm: 4},
		},
		Score: 4, Contributions: 5, Reconstruction: 2,
	}
	out := all(t, scorer(t, e, p), []float32{1, 2, 0, 1, 2, 3, -1, 5, -4}, 3)
	if want := []float32{0, 3, 4}; !same(out.Score, want) {
		t.Errorf("scores %v, want %v", out.Score, want)
	}
	if want := []float32{0, 0, 0, 0, 0, 3, 0, 0, 4}; !same(out.Contributions, want) {
		t.Errorf("contributions %v, want %v", out.Contributions, want)
	}
}

// onPrototype: a row that equals a prototype is no distance from it, and has no contribution in that group; of
// equal prototypes, and of prototypes equally far, the first counts.
func onPrototype(t *testing.T, e kernels.Engine) {
	columns := []kernels.Column{straight(0, 1), straight(0, 1)}
	p := kernels.Prototypes(columns, 2, []float32{
		3, 4, 0, 0, 3, 4,
		0, 5, 5, 0, 3, 4,
	})
	out := all(t, scorer(t, e, p), []float32{0, 0, 3, 4}, 2)
	if want := []float32{2.5, 0}; !same(out.Score, want) {
		t.Errorf("scores %v, want %v", out.Score, want)
	}
	if want := []float32{0, 2.5, 0, 0}; !same(out.Contributions, want) {
		t.Errorf("contributions %v, want %v", out.Contributions, want)
	}
}

// lengths: what does not fit is refused, with nothing written.
func lengths(t *testing.T, e kernels.Engine) {
	n := autoencoder(4, []int{2}, kernels.ReLU)
	s := scorer(t, e, n.p)
	for _, tt := range []struct {
		name string
		rows int
		out  kernels.Output
	}{
		{"part of a row", 7, kernels.Output{}},
		{"short score", 8, kernels.Output{Score: make([]float32, 1)}},
		{"long score", 8, kernels.Output{Score: make([]float32, 3)}},
		{"short reconstruction", 8, kernels.Output{Reconstruction: make([]float32, 7)}},
		{"short contributions", 8, kernels.Output{Contributions: make([]float32, 4)}},
	} {
		if err := s.Score(make([]float32, tt.rows), tt.out); err == nil {
			t.Errorf("%s: no error", tt.name)
		}
	}
	if err := s.Score(make([]float32, 8), kernels.Output{}); err != nil {
		t.Errorf("no outputs: %v", err)
	}
	if err := s.Score(nil, kernels.Output{Score: []float32{}}); err != nil {
		t.Errorf("no rows: %v", err)
	}
}

// copiesConstants: a scorer must not change when its program does.
func copiesConstants(t *testing.T, e kernels.Engine) {
	n := blended(4, 2, 3, []int{3}, kernels.Tanh)
	s := scorer(t, e, n.p)
	rows := n.rows(5)
	first := all(t, s, rows, 4)
	for _, st := range n.p.Steps {
		switch st := st.(type) {
		case *kernels.Gemm:
			clear(st.W)
		case *kernels.Nearest:
			clear(st.Rows)
		case *kernels.Map:
			for j := range st.Columns {
				st.Columns[j].X[0] += 3
				st.Columns[j].Impute = 9
			}
		}
	}
	if second := all(t, s, rows, 4); !same(first.Score, second.Score) || !same(first.Reconstruction, second.Reconstruction) {
		t.Error("the scorer follows changes of the program it was made from")
	}
}

// concurrent: one scorer, many goroutines, different batches.
func concurrent(t *testing.T, e kernels.Engine) {
	n := blended(18, 5, 7, []int{14, 7, 7}, kernels.Tanh)
	w := n.p.Width
	s := scorer(t, e, n.p)
	rows := n.rows(90)
	want := all(t, s, rows, w)
	var wg sync.WaitGroup
	for k := range 8 {
		wg.Go(func() {
			for i := range 10 {
				from, to := (k*7+i*3)%40, 50+(k*5+i)%40
				out := kernels.Output{Score: make([]float32, to-from), Contributions: make([]float32, (to-from)*w)}
				if err := s.Score(rows[from*w:to*w], out); err != nil {
					t.Error(err)
				}
				if !same(out.Score, want.Score[from:to]) || !same(out.Contributions, want.Contributions[from*w:to*w]) {
					t.Errorf("goroutine %d: rows %d to %d differ", k, from, to)
				}
			}
		})
	}
	wg.Wait()
}

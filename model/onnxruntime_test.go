package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
)

// python finds a Python with the packages of onnxcheck/requirements.txt: $LAPWING_PYTHON, else build/py.
func python(t *testing.T) string {
	t.Helper()
	if p := os.Getenv("LAPWING_PYTHON"); p != "" {
		return p
	}
	p, err := filepath.Abs(filepath.Join("..", "build", "py", "bin", "python"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(p); errors.Is(err, os.ErrNotExist) {
		t.Skipf("SKIPPED-ONNX: ONNX Runtime check: no Python with model/onnxcheck/requirements.txt; set LAPWING_PYTHON or make %s", p)
	}
	return p
}

// Case 5.01, with the runtime that model/onnxcheck/requirements.txt names: IR 8 and opset 17 load and agree.
//
// TestONNXRuntime holds the portable engine and ONNX Runtime to the tolerance of docs/formats.md, and every file
// to onnx.checker, over programs of many shapes and rows of many kinds.
func TestONNXRuntime(t *testing.T) {
	python := python(t)
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(6, 7))
	models := 120
	if testing.Short() {
		models = 30
	}
	for i := range models {
		writeCase(t, r, filepath.Join(dir, fmt.Sprintf("%03d", i)), i)
	}
	out, err := exec.Command(python, filepath.Join("onnxcheck", "check.py"), "cases", dir).CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("check.py: %v", err)
	}
}

func writeCase(t *testing.T, r *rand.Rand, dir string, i int) {
	t.Helper()
	width := 1 + i%64
	g := newGenerator(r, width)
	p := g.program(i)
	if err := p.Validate(); err != nil {
		t.Fatalf("case %d: %v", i, err)
	}
	rows := g.rows(60)
	out := kernels.Output{
		Score:          make([]float32, len(rows)/width),
		Reconstruction: make([]float32, len(rows)),
		Contributions:  make([]float32, len(rows)),
	}
	s, err := cpu.New().Scorer(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Score(rows, out); err != nil {
		t.Fatal(err)
	}
	m := complete(t, p, rows)
	data := encode(t, m)
	pruned, err := Prune(data, "score")
	if err != nil {
		t.Fatal(err)
	}
	about, err := json.Marshal(map[string]any{"threshold": m.Threshold, "ties": nearTies(p, rows)})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"model.onnx": data, "pruned.onnx": pruned, "case.json": about, "rows.f32": float32Bytes(rows), "score.f32": float32Bytes(out.Score),
		"reconstruction.f32": float32Bytes(out.Reconstruction), "contributions.f32": float32Bytes(out.Contributions),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// generator makes columns as training makes them, from values that it draws, and rows of the same and worse.
type generator struct {
	r       *rand.Rand
	columns []kernels.Column
	inverse []kernels.Column
	draw    []func() float32
	spread  []float32 // a deviation of each column, in raw units
	raw     []float32 // a row that is a prototype, in raw units; nil where there is none
}

func newGenerator(r *rand.Rand, width int) *generator {
	g := &generator{r: r}
	for range width {
		scale := math.Pow(10, 6*r.Float64()-3)
		mid := scale * 10 * r.NormFloat64()
		normal := func() float32 { return float32(mid + scale*r.NormFloat64()) }
		switch r.IntN(6) {
		case 0: // a line without a clip
			c := column(float32(mid), float32(scale))
			g.add(c, c.Inverse(), normal, float32(scale))
		case 1: // a line that is clipped
			c := column(float32(mid), float32(scale))
			c.Lo, c.Hi = float32(mid-10*scale), float32(mid+10*scale)
			g.add(c, c.Inverse(), normal, float32(scale))
		case 2: // a logarithm, always clipped
			draw := func() float32 { return float32(scale * math.Exp(r.NormFloat64())) }
			c := column(float32(math.Log1p(scale)), float32(0.01+0.5*min(scale, 1)))
			c.Impute, c.Log = float32(scale), true
			c.Lo, c.Hi = c.X[0]-5/c.Before, c.X[0]+5/c.Before
			g.add(c, c.Inverse(), draw, float32(scale))
		case 3: // one-hot
			c := column(0, 0.5)
			c.Lo, c.Hi = 0, 1
			g.add(c, c.Inverse(), func() float32 { return float32(r.IntN(2)) }, 1)
		case 4: // constant
			c := column(float32(mid), 1)
			g.add(c, kernels.Flat(float32(mid)), func() float32 { return float32(mid) }, 1)
		case 5: // knots at quantiles
			sample := make([]float32, 64)
			for i := range sample {
				sample[i] = normal()
			}
			slices.Sort(sample)
			n := 1 + r.IntN(kernels.MaxKnots)
			c := kernels.Column{Impute: float32(mid), Lo: -inf, Hi: inf, Before: float32(0.5 / scale), After: float32(0.7 / scale)}
			if r.IntN(2) == 0 {
				c.Lo, c.Hi = sample[0]-float32(5*scale), sample[63]+float32(5*scale)
			}
			y := float32(-2)
			for _, x := range sample[:n] {
				if len(c.X) > 0 && x-c.X[len(c.X)-1] < float32(1e-3*scale) {
					continue
				}
				c.X, c.Y = append(c.X, x), append(c.Y, y)
				y += 0.02 + 0.2*r.Float32()
			}
			g.add(c, c.Inverse(), normal, float32(scale))
		}
	}
	return g
}

func (g *generator) add(c, inverse kernels.Column, draw func() float32, spread float32) {
	g.columns, g.inverse = append(g.columns, c), append(g.inverse, inverse)
	g.draw, g.spread = append(g.draw, draw), append(g.spread, spread)
}

// program is a plain autoencoder, two of them joined, one with whitened error, the same blended with prototypes, or
// prototypes alone.
func (g *generator) program(i int) *kernels.Program {
	acts := kernels.Activations()
	n := len(acts)
	code := 1 + g.r.IntN(8)
	p := kernels.Autoencoder(g.columns, []int{2 * code, code, 2 * code}, []kernels.Activation{acts[i%n], acts[i/n%n], acts[(i+i/n)%n]})
	inverse := p.Steps[p.Reconstruction-1].(*kernels.Map)
	inverse.Columns = g.inverse
	kernels.Initialise(p, uint64(i))
	d := len(g.columns)
	// A symmetric matrix, as whitening is.
	white := make([]float32, d*d)
	for j := range d {
		for k := range j {
			white[j*d+k] = float32(g.r.NormFloat64() / math.Sqrt(float64(d)))
			white[k*d+j] = white[j*d+k]
		}
		white[j*d+j] = 1
	}
	switch i % 5 {
	case 0:
		return p
	case 1:
		return g.joined(p)
	case 2:
		return kernels.Whitened(p, white)
	case 3:
		return kernels.Blended(kernels.Whitened(p, white), 32, g.prototypes(32*8), 0.7, 0.3)
	}
	groups := 1 + g.r.IntN(5)
	return kernels.Prototypes(g.columns, groups, g.prototypes(groups*(1+g.r.IntN(9))))
}

// prototypes draws n rows as training does, from the usual ones in scaled units; the second is the first again.
func (g *generator) prototypes(n int) []float32 {
	var rows []float32
	for i := range n {
		row := g.usual()
		if i == 0 {
			g.raw = row
		}
		if i == 1 {
			row = g.raw
		}
		for j := range row {
			c := g.columns[j].Curve()
			rows = append(rows, c.Forward(row[j]))
		}
	}
	return rows
}

// joined is p with a second error beside its own.
func (g *generator) joined(p *kernels.Program) *kernels.Program {
	add := func(s kernels.Step) kernels.Value {
		p.Steps = append(p.Steps, s)
		return kernels.Value(len(p.Steps))
	}
	scaled := kernels.Value(1)
	w := make([]float32, len(g.columns)*len(g.columns))
	for j := range w {
		w[j] = float32(g.r.NormFloat64()) / float32(math.Sqrt(float64(len(g.columns))))
	}
	other := add(&kernels.Gemm{In: scaled, Out: len(g.columns), W: w, B: make([]float32, len(g.columns))})
	residual := add(&kernels.Diff{A: scaled, B: other})
	norm := add(&kernels.Norm{In: residual})
	split := add(&kernels.Split{In: residual, Norm: norm})
	weights := []float32{2.0 / 3, 1.0 / 3}
	p.Score = add(&kernels.Join{In: []kernels.Value{p.Score, norm}, Weights: weights})
	p.Contributions = add(&kernels.Join{In: []kernels.Value{p.Contributions, split}, Weights: weights})
	return p
}

func (g *generator) usual() []float32 {
	row := make([]float32, len(g.columns))
	for j := range row {
		row[j] = g.draw[j]()
	}
	return row
}

// nearTies are the rows for which some group's two nearest prototypes are within 1e-4 of each other, yet not the
// same: there rounding may find either, which contributions show.
func nearTies(p *kernels.Program, rows []float32) []int {
	ties := []int{}
	for _, s := range p.Steps {
		near, ok := s.(*kernels.Nearest)
		if !ok {
			continue
		}
		columns := p.Steps[near.In-1].(*kernels.Map).Columns
		d := len(columns)
		k := len(near.Rows) / d / near.Groups
		for i := range len(rows) / d {
			x := make([]float64, d)
			for j := range x {
				c := columns[j].Curve()
				x[j] = float64(c.Forward(rows[i*d+j]))
			}
			for g := range near.Groups {
				least, next := math.Inf(1), math.Inf(1)
				for c := range k {
					sum := 0.0
					for j, v := range near.Rows[(g*k+c)*d:][:d] {
						sum += (x[j] - float64(v)) * (x[j] - float64(v))
					}
					switch distance := math.Sqrt(sum); {
					case distance < least:
						least, next = distance, least
					case distance > least:
						next = min(next, distance)
					}
				}
				if next-least < 1e-4 {
					ties = append(ties, i)
					break
				}
			}
		}
	}
	return ties
}

// rows are n of the usual kind and n that are not: missing values, zeros, a million deviations away, ±1e30, beyond
// float32, at a knot, at a prototype.
func (g *generator) rows(n int) []float32 {
	width := len(g.columns)
	var rows []float32
	for range n {
		rows = append(rows, g.usual()...)
	}
	for i := range n {
		row := g.usual()
		j := g.r.IntN(width)
		sign := float32(1 - 2*g.r.IntN(2))
		switch i % 11 {
		case 0:
			row[j] = inf - inf
		case 1:
			for j := range row {
				row[j] = inf - inf
			}
		case 2:
			row[j] += sign * 1e6 * g.spread[j]
		case 3:
			for j := range row {
				row[j] += sign * 1e6 * g.spread[j]
			}
		case 4:
			row[j] = sign * 1e30
		case 5:
			for j := range row {
				row[j] = sign * 1e30
			}
		case 6:
			clear(row)
		case 7: // at a knot
			row[j] = g.columns[j].X[g.r.IntN(len(g.columns[j].X))]
		case 8:
			row[j] = sign * 1e-30
		case 9:
			row[j] = sign * inf
		case 10:
			if g.raw != nil {
				row = g.raw
			}
		}
		rows = append(rows, row...)
	}
	return rows
}

// TestScoreMode runs the piece that live runs use to compare their scores with ONNX Runtime's.
func TestScoreMode(t *testing.T) {
	python := python(t)
	dir := t.TempDir()
	m := tiny(t)
	var rows []float32
	for _, row := range m.SelfTest.Rows {
		rows = append(rows, row...)
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(file("m.onnx"), encode(t, m), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file("rows.f32"), float32Bytes(rows), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(python, filepath.Join("onnxcheck", "check.py"), "score", file("m.onnx"), file("rows.f32"), file("out.f32")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got, err := os.ReadFile(file("out.f32"))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 4*len(m.SelfTest.Scores) || !bytes.Contains(out, []byte("6 rows scored")) {
		t.Fatalf("%d bytes of scores: %s", len(got), out)
	}
}

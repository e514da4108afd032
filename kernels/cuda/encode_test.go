//go:build gpu

package cuda

import (
	"errors"
	"math"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
)

func dense(width int, layers ...int) *kernels.Program {
	columns := make([]kernels.Column, width)
	for i := range columns {
		columns[i] = kernels.Column{Lo: -8, Hi: 8, X: []float32{0}, Y: []float32{0}, Before: 1, After: 1}
	}
	acts := make([]kernels.Activation, len(layers))
	for i := range acts {
		acts[i] = kernels.Tanh
	}
	p := kernels.Autoencoder(columns, layers, acts)
	kernels.Initialise(p, 5)
	return p
}

// TestShapes: each kernel has programs that need it, and gives the processor's bits for them.
func TestShapes(t *testing.T) {
	d := open(t, Options{})
	e := newEngine(t, d, EngineOptions{From: 1})
	many := make([]float32, 300*5*3)
	for i := range many {
		many[i] = float32(i%101) / 20
	}
	for _, tt := range []struct {
		name   string
		p      *kernels.Program
		kernel string
		rows   int // of a tile
		height int
	}{
		// The prediction takes no columns: the gemm that makes it subtracts.
		{"30-14-7-14-30", dense(30, 14, 7, 14), "score_shared", 256, 30 + 14 + 14},
		{"18-4-18", dense(18, 4), "score_shared", 128, 18 + 4 + 18},
		{"one column", dense(1, 1), "score_shared", 128, 0},
		{"300 groups", kernels.Prototypes(dense(3, 1).Steps[0].(*kernels.Map).Columns, 300, many), "score_constants", 128, 0},
		{"300-64-300", dense(300, 64), "score_wide", 64, 0},
		{"1030-17-1030", dense(1030, 17), "score_wide", 64, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScorer(t, e, tt.p)
			sh, plan := s.shapes[wantScore], s.code.plans[wantScore]
			if sh.kernel != tt.kernel || sh.rows != tt.rows {
				t.Errorf("%s with %d rows a tile of %d columns, want %s with %d", sh.kernel, sh.rows, plan.height, tt.kernel, tt.rows)
			}
			if sh.shared > d.info.Shared {
				t.Errorf("%d bytes of shared memory", sh.shared)
			}
			if tt.height > 0 && plan.height > tt.height {
				t.Errorf("a tile of %d columns, want %d", plan.height, tt.height)
			}
			for _, n := range []int{1, 31, 127, 128, 129, 300, 1000} {
				sameScores(t, s, tt.p, n)
			}
		})
	}
}

// TestTanhOfEveryMagnitude: what takes the place of a division gives its bits, from the smallest numbers to the largest.
func TestTanhOfEveryMagnitude(t *testing.T) {
	inf := float32(math.Inf(1))
	p := kernels.Autoencoder([]kernels.Column{{Lo: -inf, Hi: inf, X: []float32{0}, Y: []float32{0}, Before: 1, After: 1}}, []int{1}, []kernels.Activation{kernels.Tanh})
	for _, s := range p.Steps {
		if g, ok := s.(*kernels.Gemm); ok {
			g.W[0], g.B[0] = 1, 0 // the reconstruction is tanh of the row
		}
	}
	s := newScorer(t, newEngine(t, open(t, Options{}), EngineOptions{From: 1}), p)
	beside, err := cpu.New().Scorer(p)
	if err != nil {
		t.Fatal(err)
	}
	const step = 8209
	rows := make([]float32, 1<<32/step)
	for i := range rows {
		rows[i] = math.Float32frombits(uint32(i * step))
	}
	got, want := unwritten(len(rows)), make([]float32, len(rows))
	if err := errors.Join(s.Score(rows, kernels.Output{Reconstruction: got}), beside.Score(rows, kernels.Output{Reconstruction: want})); err != nil {
		t.Fatal(err)
	}
	for i, x := range rows {
		if x == x && math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Fatalf("tanh of %v is %v, want %v", x, got[i], want[i])
		}
	}
}

// TestShapeKeepsWarps: of tiles that fit, the one that keeps most warps on an SM.
func TestShapeKeepsWarps(t *testing.T) {
	t4, h100 := 64<<10, 227<<10
	for _, c := range []struct {
		height, constants, most int
		want                    shape
	}{
		// Two warps would fit in tiles of 128 rows, with 30 KB to spare.
		{51, 1944, t4, shape{kernel: "score_shared", rows: 256, constants: 1944}},
		{51, 1944, h100, shape{kernel: "score_shared", rows: 128, constants: 1944}},
		// Constants of 23 KB are in the way of the tiles.
		{42, 6000, t4, shape{kernel: "score_shared", rows: 192, constants: 6000}},
		{81, 6000, t4, shape{kernel: "score_constants", rows: 192}},
		{81, 6000, h100, shape{kernel: "score_shared", rows: 256, constants: 6000}},
		// No constants at all.
		{8, 0, t4, shape{kernel: "score_shared", rows: 128}},
		{51, 40000, h100, shape{kernel: "score_constants", rows: 128}},
		// Not even the smallest tile.
		{1000, 40000, h100, shape{kernel: "score_wide", rows: 64}},
	} {
		got := shapeOf(&plan{height: c.height}, c.constants, c.most)
		if got.kernel != c.want.kernel || got.rows != c.want.rows || got.constants != c.want.constants {
			t.Errorf("height %d, %d constants, %d bytes: %+v; wanted %+v", c.height, c.constants, c.most, got, c.want)
		}
		if got.shared > c.most || got.kernel != "score_wide" && got.shared != (got.tile+got.constants)*wordSize {
			t.Errorf("height %d: %+v of %d bytes", c.height, got, c.most)
		}
	}
}

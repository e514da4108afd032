//go:build cgo && (amd64 || arm64)

package cpu

import (
	"fmt"
	"math"
	"runtime"
	"sync"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
)

// function is one of vec.h's with its reference, in float64: cheap where the answer is plain, since the exhaustive
// test asks for four thousand million values.
type function struct {
	name   string
	number int
	want   func(float64) float64
	from   float32 // least x; below it the function is not used
}

var functions = []function{
	{name: "tanh", number: fnTanh, want: func(x float64) float64 {
		switch a := math.Abs(x); {
		case a < 1.0/4096:
			return x - x*x*x/3
		case a > 20:
			return math.Copysign(1, x)
		}
		return math.Tanh(x)
	}},
	{name: "sigmoid", number: fnSigmoid, want: func(x float64) float64 {
		switch {
		case x > 40:
			return 1
		case x < -40:
			return 0
		case math.Abs(x) < 1.0/4096:
			return 0.5 + x/4
		}
		return 1 / (1 + math.Exp(-x))
	}},
	{name: "exp", number: fnExp, want: func(x float64) float64 {
		switch {
		case x > 88.722840:
			return math.Exp(x)
		case x < -87.33655: // would be denormal
			return 0
		case math.Abs(x) < 1.0/4096:
			return 1 + x + x*x/2
		}
		return math.Exp(x)
	}},
	{name: "log", number: fnLog, from: 1, want: func(x float64) float64 { return math.Log(x) }},
	{name: "elu", number: fnELU, want: func(x float64) float64 {
		switch {
		case x >= 0:
			return x
		case x < -40:
			return -1
		case x > -1.0/4096:
			return x + x*x/2 + x*x*x/6
		}
		return math.Expm1(x)
	}},
	{name: "gelu", number: fnGELU, want: func(x float64) float64 {
		switch {
		case x > 10:
			return x
		case x < -10:
			return 0
		case math.Abs(x) < 1.0/4096:
			return x/2 + kernels.GELUScale*x*x/2
		}
		return x / (1 + math.Exp(-2*kernels.GELUScale*(x+kernels.GELUCubic*x*x*x)))
	}},
}

// off is how far got is from want, as a share of what is allowed: 4 units in the last place or 1e-7. Where that is
// no more than worst it may say more than it is.
func (f *function) off(x, got float32, worst float64) float64 {
	if x != x {
		if got == got {
			return math.Inf(1)
		}
		return 0
	}
	want := f.want(float64(x))
	off := math.Abs(float64(got) - want)
	if off <= worst*1e-7 || got == float32(want) {
		return 0
	}
	if got-got != 0 || want-want != 0 {
		return math.Inf(1)
	}
	ulp := math.Ldexp(1, max(math.Ilogb(want), -126)-23)
	return off / max(4*ulp, 1e-7)
}

// walk evaluates f at the given numbers of float32, every stride-th, at all levels, and gives the worst share.
func (f *function) walk(first, last, stride uint64) (worst float64, at float32, err error) {
	const chunk = 1 << 14
	x := make([]float32, 0, chunk)
	y := make([][]float32, len(levels)-1)
	for i := range y {
		y[i] = make([]float32, chunk)
	}
	check := func() error {
		for i := range y {
			apply(levels[i], f.number, x, y[i][:len(x)])
		}
		for k, v := range x {
			got := y[0][k]
			for i := 1; i < len(y); i++ {
				if other := y[i][k]; math.Float32bits(other) != math.Float32bits(got) && (got == got || other == other) {
					return fmt.Errorf("%s(%v) is %v at level %v and %v at level %v", f.name, v, got, levels[0], other, levels[i])
				}
			}
			if off := f.off(v, got, worst); off > worst {
				worst, at = off, v
			}
		}
		x = x[:0]
		return nil
	}
	for b := first; b < last; b += stride {
		v := math.Float32frombits(uint32(b))
		if v < f.from && f.from > 0 {
			continue
		}
		x = append(x, v)
		if len(x) == chunk {
			if err := check(); err != nil {
				return worst, at, err
			}
		}
	}
	return worst, at, check()
}

// walkAll spreads a walk over all float32 over the processors.
func (f *function) walkAll(t *testing.T, stride uint64) {
	if len(levels) == 1 {
		t.Skip("SKIPPED-SIMD: this processor has none of AVX-512, AVX2 and NEON")
	}
	parts := uint64(runtime.GOMAXPROCS(0)) * 8
	var wait sync.WaitGroup
	var mu sync.Mutex
	worst, at := 0.0, float32(0)
	next := uint64(0)
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for {
				mu.Lock()
				part := next
				next++
				mu.Unlock()
				if part >= parts {
					return
				}
				w, a, err := f.walk(part<<32/parts, (part+1)<<32/parts, stride)
				mu.Lock()
				if err != nil {
					t.Error(err)
				}
				if w > worst {
					worst, at = w, a
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	t.Logf("worst at %v: %.3f of what is allowed", at, worst)
	if worst > 1 {
		t.Errorf("%s(%v) is off by %.3g of what is allowed", f.name, at, worst)
	}
}

// TestFunctions walks over all magnitudes in strides; TestFunctionsExhaustive leaves none out.
func TestFunctions(t *testing.T) {
	for i := range functions {
		t.Run(functions[i].name, func(t *testing.T) { functions[i].walkAll(t, 4099) })
	}
}

// TestFunctionsLimits: what no stride is sure to meet.
func TestFunctionsLimits(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, l := range levels[:len(levels)-1] {
		for _, tt := range []struct {
			number  int
			x, want float32
		}{
			{fnTanh, inf, 1}, {fnTanh, -inf, -1}, {fnTanh, 0, 0}, {fnSigmoid, inf, 1}, {fnSigmoid, -inf, 0}, {fnSigmoid, 0, 0.5},
			{fnExp, inf, inf}, {fnExp, -inf, 0}, {fnExp, 0, 1}, {fnLog, inf, inf}, {fnLog, 1, 0},
			{fnELU, inf, inf}, {fnELU, -inf, -1}, {fnELU, 0, 0}, {fnGELU, inf, inf}, {fnGELU, -inf, 0}, {fnGELU, 0, 0},
			{fnTanh, nan, nan}, {fnSigmoid, nan, nan}, {fnExp, nan, nan}, {fnLog, nan, nan}, {fnELU, nan, nan}, {fnGELU, nan, nan},
		} {
			got := []float32{0}
			apply(l, tt.number, []float32{tt.x}, got)
			if got[0] != tt.want && !(math.Abs(float64(got[0]-tt.want)) <= 1e-7) && (tt.want == tt.want || got[0] == got[0]) {
				t.Errorf("%v, function %d of %v: %v, want %v", l, tt.number, tt.x, got[0], tt.want)
			}
		}
	}
}

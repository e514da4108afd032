package cpu

import (
	"math"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
)

// TestActivationAccuracy walks over all magnitudes of float32, and densely over the range that matters.
func TestActivationAccuracy(t *testing.T) {
	tests := []struct {
		act  kernels.Activation
		want func(float64) float64
	}{
		{kernels.Tanh, math.Tanh},
		{kernels.Sigmoid, func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }},
		{kernels.ReLU, func(x float64) float64 { return max(x, 0) }},
		{kernels.Linear, func(x float64) float64 { return x }},
		{kernels.LeakyReLU, func(x float64) float64 { return max(x, 0.01*x) }},
		{kernels.ELU, func(x float64) float64 {
			if x > 0 {
				return x
			}
			return math.Expm1(x)
		}},
		{kernels.GELU, func(x float64) float64 {
			return x / (1 + math.Exp(-2*math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
		}},
	}
	var grid []float32
	for bits := uint32(0); bits < 0x7f800000; bits += 4099 {
		x := math.Float32frombits(bits)
		grid = append(grid, x, -x)
	}
	for x := float32(-20); x <= 20; x += 1.0 / 8192 {
		grid = append(grid, x)
	}
	for _, tt := range tests {
		t.Run(tt.act.String(), func(t *testing.T) {
			got := append([]float32(nil), grid...)
			activate(tt.act, got)
			worst, at := 0.0, float32(0)
			for i, x := range grid {
				want := tt.want(float64(x))
				ulp := float64(math.Nextafter32(float32(math.Abs(want)), infinity) - float32(math.Abs(want)))
				allowed := max(4*ulp, 1e-7)
				if e := math.Abs(float64(got[i])-want) / allowed; e > worst {
					worst, at = e, x
				}
				if tt.act == kernels.Tanh && !(math.Abs(float64(got[i])) <= 1) {
					t.Fatalf("tanh(%v) = %v: 1 − y² must not be negative", x, got[i])
				}
			}
			if worst > 1 {
				t.Errorf("%v(%v) is off by %.3g of what is allowed", tt.act, at, worst)
			}
		})
	}
}

var infinity = float32(math.Inf(1))

func TestActivationLimits(t *testing.T) {
	nan := float32(math.NaN())
	tests := []struct {
		act         kernels.Activation
		x, want     float32
		derivatives float32 // at want
	}{
		{kernels.Tanh, infinity, 1, 0},
		{kernels.Tanh, -infinity, -1, 0},
		{kernels.Tanh, 0, 0, 1},
		{kernels.Sigmoid, infinity, 1, 0},
		{kernels.Sigmoid, -infinity, 0, 0},
		{kernels.Sigmoid, 0, 0.5, 0.25},
		{kernels.ReLU, infinity, infinity, 1},
		{kernels.ReLU, -infinity, 0, 0},
		{kernels.ReLU, 0, 0, 0},
		{kernels.Linear, -infinity, -infinity, 1},
		{kernels.LeakyReLU, infinity, infinity, 1},
		{kernels.LeakyReLU, -infinity, -infinity, 0.01},
		{kernels.LeakyReLU, 0, 0, 0.01},
		{kernels.ELU, infinity, infinity, 1},
		{kernels.ELU, -infinity, -1, 0},
		{kernels.ELU, 0, 0, 1},
	}
	for _, tt := range tests {
		v, d := []float32{tt.x, nan}, []float32{1, 1}
		activate(tt.act, v)
		if v[0] != tt.want && !(math.Abs(float64(v[0]-tt.want)) <= 1e-7) {
			t.Errorf("%v(%v) = %v, want %v", tt.act, tt.x, v[0], tt.want)
		}
		if v[1] == v[1] {
			t.Errorf("%v(NaN) = %v", tt.act, v[1])
		}
		differentiate(tt.act, d, v)
		if !(math.Abs(float64(d[0]-tt.derivatives)) <= 1e-7) {
			t.Errorf("%v'(%v) = %v, want %v", tt.act, tt.x, d[0], tt.derivatives)
		}
	}
}

// TestGELU: its derivative is left with the value, and both hold at the ends.
func TestGELU(t *testing.T) {
	for _, tt := range []struct{ x, want, slope float32 }{
		{0, 0, 0.5}, {1, 0.841192, 1.082964}, {-1, -0.158808, -0.082964}, {infinity, infinity, 1}, {-infinity, 0, 0}, {1e30, 1e30, 1}, {-1e30, 0, 0},
	} {
		y, slope := gelu(tt.x)
		if y != tt.want && !(math.Abs(float64(y-tt.want)) <= 1e-6) || !(math.Abs(float64(slope-tt.slope)) <= 1e-6) {
			t.Errorf("gelu(%v) = %v with the derivative %v, want %v and %v", tt.x, y, slope, tt.want, tt.slope)
		}
	}
	if y, slope := gelu(float32(math.NaN())); y == y || slope == slope {
		t.Errorf("gelu(NaN) = %v with the derivative %v", y, slope)
	}
}

package cpu

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
)

// FuzzMap: the searched form has the bits of kernels.Curve, at knots, between them and far away.
func FuzzMap(f *testing.F) {
	for seed := range uint64(70) {
		f.Add(seed, float32(seed)/10, seed%2 == 0)
	}
	f.Fuzz(func(t *testing.T, seed uint64, x float32, log bool) {
		r := rand.New(rand.NewPCG(seed, 2))
		c := kernels.Column{
			Impute: float32(r.NormFloat64()), Log: log, Lo: -20, Hi: 20,
			Before: 0.01 + r.Float32(), After: 0.01 + r.Float32(),
		}
		if seed%3 == 0 {
			c.Lo, c.Hi = -infinity, infinity
		}
		at, y := float32(r.NormFloat64()), float32(r.NormFloat64())
		for k := range 1 + int(seed%kernels.MaxKnots) {
			if k == 1 {
				at = 0 // a knot where −0 and 0 meet
			}
			c.X, c.Y = append(c.X, at), append(c.Y, y)
			at = max(at, 0) + 0.001 + r.Float32()
			y += 0.001 + r.Float32()
		}
		if len(c.X) > 1 && c.X[0] >= 0 {
			c.X[0] = -1
		}
		if seed%5 == 0 {
			c.After = c.Before
		}
		values := append([]float32{
			x, -x, 0, float32(math.Copysign(0, -1)), infinity, -infinity, float32(math.NaN()), 1e6, -1e6, 1e-40,
		}, c.X...)
		for len(values)%block != 0 {
			values = append(values, float32(r.NormFloat64())*10)
		}
		curve := c.Curve()
		for _, inverse := range []bool{false, true} {
			p := &kernels.Program{Width: 1, Steps: []kernels.Step{&kernels.Map{Columns: []kernels.Column{c}, Inverse: inverse}}}
			l := newLayout(p)
			o := l.newOp(p.Steps[0], 1, nil)
			for from := 0; from < len(values); from += block {
				frame := l.newFrame([]bool{true, true})
				frame[0] = values[from : from+block]
				o.run(frame, block)
				for i, v := range frame[0] {
					want := curve.Forward(v)
					if inverse {
						want = curve.Backward(v)
					}
					got := frame[1][i*stride(1)]
					if math.Float32bits(got) != math.Float32bits(want) && !(got != got && want != want) {
						t.Fatalf("%v (inverse %v) becomes %v, by kernels.Curve %v", v, inverse, got, want)
					}
				}
			}
		}
	})
}

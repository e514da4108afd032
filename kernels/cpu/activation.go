package cpu

import "github.com/lapwing-stream/lapwing/kernels"

// tanh(x) = x·P(x²)/Q(x²), a fit of least maximum relative error over 0 to tanhLimit (2.1e-8, iteratively
// reweighted least squares in 60-digit arithmetic). All coefficients are positive, so no sum cancels; in
// float64 what is left is the fit's error and the last rounding, under one unit in the last place.
// Beyond the limit tanh is 1 to within half a unit.
const (
	tanhLimit = 9

	tanhP0 = 0.999999979922783
	tanhP1 = 0.13381025219060746
	tanhP2 = 0.003495582740723559
	tanhP3 = 2.0608818919153297e-05
	tanhP4 = 1.3354006616329247e-08

	tanhQ1 = 0.46714341042833341
	tanhQ2 = 0.02587697412099977
	tanhQ3 = 0.0003285618196241787
	tanhQ4 = 7.7763496698087154e-07
)

// Products are converted before they are added wherever fusing them (arm64) could change a result: the
// same model then gives the same bits on amd64 and arm64.

// tanh of an x that limited has been over. It is in float64, which costs no more than float32 would with a clamp that
// keeps its rounding from passing 1. The two are apart so that both are inlined.
func tanh(x float64) float64 {
	u := x * x
	w := u * u
	high := float64(tanhP4*w) + (float64(tanhP3*u) + tanhP2)
	p := float64(high*w) + (float64(tanhP1*u) + tanhP0)
	high = float64(tanhQ4*w) + (float64(tanhQ3*u) + tanhQ2)
	q := float64(high*w) + (float64(tanhQ1*u) + 1)
	return x * p / q
}

// limited clips x to where tanh is fitted. NaN stays NaN.
func limited(x float64) float64 {
	if x > tanhLimit {
		x = tanhLimit
	}
	if x < -tanhLimit {
		x = -tanhLimit
	}
	return x
}

// activate applies act in place. NaN stays NaN.
func activate(act kernels.Activation, v []float32) {
	switch act {
	case kernels.ReLU:
		for i, x := range v {
			// Not max(): a NaN must go through, and -0 may stay.
			if x < 0 {
				v[i] = 0
			}
		}
	case kernels.LeakyReLU:
		for i, x := range v {
			if x < 0 {
				v[i] = kernels.LeakySlope * x
			}
		}
	case kernels.Tanh:
		for i, x := range v {
			v[i] = float32(tanh(limited(float64(x))))
		}
	case kernels.Sigmoid:
		// ½ + ½·tanh(x/2): exact to 1e-7 absolute, not relative, for very negative x.
		for i, x := range v {
			v[i] = float32(float64(0.5*tanh(limited(0.5*float64(x)))) + 0.5)
		}
	case kernels.ELU:
		for i, x := range v {
			if x < 0 {
				// eˣ − 1 = 2t/(1 − t) with t = tanh(x/2): where x is near 0 nothing cancels.
				t := tanh(limited(0.5 * float64(x)))
				v[i] = float32(2 * t / (1 - t))
			}
		}
	case kernels.GELU:
		for i, x := range v {
			v[i], _ = gelu(x)
		}
	}
}

// gelu is the value and the derivative. Beyond tanh's limit the gate is open or shut: what tanh lacks of 1 there
// would let a share of a large x through.
func gelu(x float32) (y, slope float32) {
	z := float64(x)
	square := z * z
	u := kernels.GELUScale * z * (1 + float64(kernels.GELUCubic*square))
	switch {
	case u > tanhLimit:
		return x, 1
	case u < -tanhLimit:
		return 0, 0
	}
	t := tanh(u)
	du := kernels.GELUScale * (1 + float64(3*kernels.GELUCubic*square))
	gate := float64(0.5*t) + 0.5
	return float32(z * gate), float32(gate + float64(0.5*z*(1-float64(t*t))*du))
}

// differentiate multiplies d by act'(x), given y = act(x). GELU's derivative does not follow from y, which has two
// x where it is negative: the forward pass of training leaves it beside y, see gemmOp.slope.
func differentiate(act kernels.Activation, d, y []float32) {
	y = y[:len(d)]
	switch act {
	case kernels.ReLU:
		for i := range d {
			if !(y[i] > 0) {
				d[i] = 0
			}
		}
	case kernels.LeakyReLU:
		for i := range d {
			if !(y[i] > 0) {
				d[i] *= kernels.LeakySlope
			}
		}
	case kernels.ELU:
		for i := range d {
			if !(y[i] > 0) {
				d[i] *= y[i] + 1
			}
		}
	case kernels.Tanh:
		for i := range d {
			d[i] *= 1 - float32(y[i]*y[i])
		}
	case kernels.Sigmoid:
		for i := range d {
			d[i] *= y[i] * (1 - y[i])
		}
	}
}

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

// bend makes each x of v into offset + scale·tanh(factor·x). NaN stays NaN. float64 costs no more than
// float32 would with the clamp that keeps its rounding from passing 1.
func bend(v []float32, factor, scale, offset float64) {
	for i, f := range v {
		x := factor * float64(f)
		if x > tanhLimit {
			x = tanhLimit
		}
		if x < -tanhLimit {
			x = -tanhLimit
		}
		u := x * x
		w := u * u
		high := float64(tanhP4*w) + (float64(tanhP3*u) + tanhP2)
		p := float64(high*w) + (float64(tanhP1*u) + tanhP0)
		high = float64(tanhQ4*w) + (float64(tanhQ3*u) + tanhQ2)
		q := float64(high*w) + (float64(tanhQ1*u) + 1)
		v[i] = float32(float64(scale*(x*p/q)) + offset)
	}
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
	case kernels.Tanh:
		bend(v, 1, 1, 0)
	case kernels.Sigmoid:
		// ½ + ½·tanh(x/2): exact to 1e-7 absolute, not relative, for very negative x.
		bend(v, 0.5, 0.5, 0.5)
	}
}

// differentiate multiplies d by act'(x), given y = act(x).
func differentiate(act kernels.Activation, d, y []float32) {
	y = y[:len(d)]
	switch act {
	case kernels.ReLU:
		for i := range d {
			if !(y[i] > 0) {
				d[i] = 0
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

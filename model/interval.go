package model

import (
	"math"
	"strconv"
)

// Confidence is how sure an interval is: the true share lies within it in 95 of a hundred histories of that size.
const Confidence = 0.95

// RateInterval is the interval of Clopper and Pearson (1934) for the true share of records above a score that above of n
// rows exceed: exact, whatever the scores' distribution, for rows that come independently. It widens for nothing else:
// a future unlike the history is outside it. No rows: 0 to 1.
func RateInterval(above, n int64) (low, high float64) {
	if n < 1 {
		return 0, 1
	}
	k := min(max(above, 0), n)
	const outside = (1 - Confidence) / 2
	low, high = 0, 1
	if k > 0 {
		low = betaQuantile(float64(k), float64(n-k+1), outside)
	}
	if k < n {
		high = betaQuantile(float64(k+1), float64(n-k), 1-outside)
	}
	return Digits(low, 3), Digits(high, 3)
}

// Digits rounds to n significant digits: what stands in a model's bytes must not depend on the last bit of a logarithm,
// which differs between processors.
func Digits(v float64, n int) float64 {
	r, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', n, 64), 64)
	if err != nil {
		return v
	}
	return r
}

// betaQuantile inverts the regularised incomplete beta function by bisection of log x, as x may be 1e-8.
func betaQuantile(a, b, p float64) float64 {
	low, high := math.Log(1e-18), 0.
	for range 80 {
		mid := (low + high) / 2
		if betaShare(a, b, math.Exp(mid)) < p {
			low = mid
		} else {
			high = mid
		}
	}
	return math.Exp((low + high) / 2)
}

// betaShare is the regularised incomplete beta function I_x(a, b), by its continued fraction (Abramowitz and Stegun
// 26.5.8), which converges fast left of the mean and is mirrored right of it.
func betaShare(a, b, x float64) float64 {
	switch {
	case x <= 0:
		return 0
	case x >= 1:
		return 1
	case x > (a+1)/(a+b+2):
		return 1 - betaShare(b, a, 1-x)
	}
	la, _ := math.Lgamma(a)
	lb, _ := math.Lgamma(b)
	lab, _ := math.Lgamma(a + b)
	front := math.Exp(lab-la-lb+a*math.Log(x)+b*math.Log1p(-x)) / a
	// Evaluated from the front by ratios of consecutive convergents (Lentz); none may become zero.
	const least = 1e-300
	bound := func(v float64) float64 {
		if math.Abs(v) < least {
			return least
		}
		return v
	}
	c, d := 1., 1/bound(1-(a+b)*x/(a+1))
	value := d
	for m := 1.; m < 100_000; m++ {
		even := m * (b - m) * x / ((a + 2*m - 1) * (a + 2*m))
		d = 1 / bound(1+even*d)
		c = bound(1 + even/c)
		value *= c * d
		odd := -(a + m) * (a + b + m) * x / ((a + 2*m) * (a + 2*m + 1))
		d = 1 / bound(1+odd*d)
		c = bound(1 + odd/c)
		step := c * d
		value *= step
		if math.Abs(step-1) < 1e-12 {
			break
		}
	}
	return front * value
}

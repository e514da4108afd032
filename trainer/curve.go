package trainer

import "math"

// curveKnots of a number's map are as many as are worth it: twice as many change no measure on the adbench sets.
const curveKnots = 32

// bend gives a number's column its map, the mean of two opinions: how many robust units a value lies from the median
// (a = asinh((x − Centre)/Scale)), and the normal score of its rank (b), so that neither a lopsided nor a lumpy
// distribution makes one column outshout the others. It is sampled at up to curveKnots places between the outer
// quantiles, evenly in b. The whole is divided by its own standard deviation over the history. Beyond the knots, where
// ranks say nothing, it goes on in standard deviations of the (winsorised) column, and is clipped clipUnits further out.
//
// Everything comes from the histogram of the whole history, so nothing depends on the order of rows.
func (c *scaled) bend(s *Summary) {
	add := func(at float64) {
		at = float64(float32(min(max(at, -largest), largest)))
		v := (math.Asinh((at-c.Centre)/c.Scale) + normalScore(s.rank(at))) / 2
		if n := len(c.X); n == 0 || rises(at-c.X[n-1], v-c.Y[n-1]) {
			c.X, c.Y = append(c.X, at), append(c.Y, v)
		}
	}
	if s.Distinct <= curveKnots {
		for _, b := range s.buckets {
			if b.Lo >= s.Lower && b.Hi <= s.Upper {
				add(b.Lo)
			}
		}
	} else {
		end := normalScore(1 - outerShare(s.Count))
		for i := range curveKnots {
			add(s.Quantile(normalShare(end * (2*float64(i)/(curveKnots-1) - 1))))
		}
	}
	if len(c.X) == 0 { // two values, and neither outer quantile at one of them
		c.X, c.Y = []float64{c.Centre}, []float64{0}
	}
	// A heavy tail is wider than the middle half says.
	c.Spread = min(max(c.Scale, s.inner), largest)
	deviation := max(c.deviation(s, c.Spread), leastDeviation)
	for i := range c.Y {
		c.Y[i] /= deviation
	}
	c.Unit = min(c.Spread*deviation, largest)
	c.Lo, c.Hi = c.X[0]-clipUnits*c.Unit, c.X[len(c.X)-1]+clipUnits*c.Unit
}

// deviation is that of the map's values over the history, unit being what one is beyond the knots.
func (c *scaled) deviation(s *Summary, unit float64) float64 {
	var sum, squares float64
	last := len(c.X) - 1
	i := 0
	for _, b := range s.buckets {
		x := (max(b.Lo, s.Min) + min(b.Hi, s.Max)) / 2
		for i <= last && x > c.X[i] {
			i++
		}
		var y float64
		switch {
		case i == 0:
			y = c.Y[0] - min((c.X[0]-x)/unit, clipUnits)
		case i > last:
			y = c.Y[last] + min((x-c.X[last])/unit, clipUnits)
		default:
			y = c.Y[i-1] + (c.Y[i]-c.Y[i-1])*(x-c.X[i-1])/(c.X[i]-c.X[i-1])
		}
		sum += y * float64(b.N)
		squares += y * y * float64(b.N)
	}
	n := float64(s.Count)
	return math.Sqrt(max(squares/n-(sum/n)*(sum/n), 0))
}

// leastDeviation is the least that a map is divided by: a column that leaves its one usual value in a row of a million
// has next to none.
const leastDeviation = .1

// rises tells whether a segment is one that float32 can walk in both directions.
func rises(dx, dy float64) bool {
	const least, most = 1e-36, 1e36
	return dx > 0 && dy > 1e-5 && dy/dx > least && dy/dx < most && dx <= math.MaxFloat32
}

// rank is the share of values below x, and half of those equal to it; never 0 or 1.
func (s *Summary) rank(x float64) float64 {
	var below float64
	for _, b := range s.buckets {
		if x < b.Lo {
			break
		}
		switch {
		case x > b.Hi:
			below += float64(b.N)
		case b.Lo == b.Hi:
			below += float64(b.N) / 2
		default:
			below += float64(b.N) * (x - b.Lo) / (b.Hi - b.Lo)
		}
	}
	n := float64(s.Count)
	return min(max(below/n, .5/n), 1-.5/n)
}

// normalScore is the standard normal quantile of p in (0, 1), normalShare its inverse.
func normalScore(p float64) float64 { return math.Sqrt2 * math.Erfinv(2*p-1) }
func normalShare(z float64) float64 { return math.Erfc(-z/math.Sqrt2) / 2 }

package model

import (
	"fmt"
	"math"
	"slices"
)

// DefaultRate is the share of the history that may lie above the threshold where nothing was asked.
const DefaultRate = 1e-4

// enough is how many history rows have to lie above the threshold before an asked rate can be trusted.
const enough = 10

// roots are 2^(−j/8). Constants, because math.Exp2 is assembly on some processors and may differ in the
// last bit: quantile levels stand in the model's bytes.
var roots = [8]float64{
	1, 0.9170040432046712, 0.8408964152537145, 0.7711054127039704,
	0.7071067811865476, 0.6484197773255048, 0.5946035575013605, 0.5452538663326288,
}

// Levels are the 257 shares at which a model keeps quantiles: i/128 for i = 0 to 127, then
// 1 − 2^−(7+i/8) for i = 1 to 128, which resolves the upper tail down to one in 2^23, then 1.
func Levels() []float64 {
	p := make([]float64, 0, 257)
	for i := range 128 {
		p = append(p, float64(i)/128)
	}
	for i := 1; i <= 128; i++ {
		p = append(p, 1-math.Ldexp(roots[i%8], -7-i/8))
	}
	return append(p, 1)
}

// Quantiles are the quantiles of scores, which must ascend, at Levels: the smallest score that at least the
// share P scored at or below. With n scores, levels past 1 − 1/n repeat the highest. No scores, no quantiles.
func Quantiles[F float32 | float64](sorted []F) []Quantile {
	n := len(sorted)
	if n == 0 {
		return nil
	}
	levels := Levels()
	q := make([]Quantile, len(levels))
	for i, p := range levels {
		rank := int(math.Ceil(p * float64(n)))
		q[i] = Quantile{P: p, Score: float64(sorted[min(max(rank-1, 0), n-1)])}
	}
	return q
}

// Percentile is 100 times the share of the history that scored at or below score, by the model's quantiles:
// linear between two of them, the upper share where several have the same score. NaN has no percentile: NaN.
func (m *Model) Percentile(score float64) float64 {
	q := m.Quantiles
	if math.IsNaN(score) || len(q) == 0 {
		return math.NaN()
	}
	// Not sort.Search: its call of a function for each step is most of what a record's percentile costs.
	above := 0
	for n := len(q); n > 0; {
		if half := n / 2; q[above+half].Score <= score {
			above += half + 1
			n -= half + 1
		} else {
			n = half
		}
	}
	switch {
	case above == 0:
		return 0
	case above == len(q):
		return 100 * q[above-1].P
	}
	a, b := q[above-1], q[above]
	// Halves, so that the difference of two finite scores stays finite.
	share := (score/2 - a.Score/2) / (b.Score/2 - a.Score/2)
	return 100 * (a.P + share*(b.P-a.P))
}

// rank gives the rate that Threshold uses and how many rows of n may exceed the chosen score.
func rank(n int64, rate float64) (used float64, exceed int64) {
	// A rate is meant in decimal: 0.29 of 100 rows is 29 of them, though the binary number lies below.
	const decimal = 1 + 1e-12
	switch {
	case n <= 0 || rate <= 0:
		return 0, 0
	case rate*float64(n)*decimal >= enough:
		return rate, int64(rate * float64(n) * decimal)
	case n >= 100*enough:
		return float64(enough) / float64(n), enough
	default:
		return 0.01, n / 100
	}
}

// Keep is how many of the highest scores Threshold needs for n rows, with as many again to count ties.
func Keep(n int64, rate float64) int {
	_, exceed := rank(n, rate)
	return int(2*exceed) + enough + 1
}

// Threshold chooses the threshold from the highest scores of the whole history: top holds the Keep(n, rate)
// highest of n (all, where there are fewer), in any order. Let s be the smallest history score that at most
// rate·n rows exceed; the threshold lies above it by 1e-4 of the larger of s and the median score, and by at
// least 1e-6, so that neither ties nor another engine's rounding raise an alarm.
//
// With fewer than 10/rate rows the rate used is 10/n, at most 1 %; an asked rate of 0 stays 0 and makes s the
// highest score. above is how many history rows score strictly above the threshold, ties how many of top are
// exactly s. Scores that are not finite are anomalies anyway: they count as above, and s is finite.
func Threshold(top []float64, n int64, rate, median float64) (threshold, used float64, above, ties int64, err error) {
	if !(rate >= 0 && rate < 1) {
		return 0, 0, 0, 0, fmt.Errorf("alarm rate %v: it must be at least 0 and below 1", rate)
	}
	used, exceed := rank(n, rate)
	if n < 1 || int64(len(top)) > n || int64(len(top)) <= exceed {
		return 0, 0, 0, 0, fmt.Errorf("threshold of %d rows at rate %v needs their %d highest scores; %d were kept", n, used, exceed+1, len(top))
	}
	scores := slices.Clone(top)
	slices.SortFunc(scores, func(a, b float64) int {
		// NaN first, as if it were the highest.
		switch {
		case math.IsNaN(a) || math.IsNaN(b):
			return boolInt(math.IsNaN(b)) - boolInt(math.IsNaN(a))
		case a > b:
			return -1
		case a < b:
			return 1
		}
		return 0
	})
	k := int(exceed)
	for k < len(scores) && (math.IsNaN(scores[k]) || math.IsInf(scores[k], 1)) {
		k++
	}
	if k == len(scores) || math.IsInf(scores[k], 0) || !(math.Abs(median) < math.Inf(1)) {
		return 0, 0, 0, 0, fmt.Errorf("more than %d of %d history rows have a score that is not finite", exceed, n)
	}
	s := scores[k]
	threshold = s + margin(s, median)
	for _, x := range scores {
		if !(x <= threshold) {
			above++
		}
		if x == s {
			ties++
		}
	}
	return threshold, used, above, ties, nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

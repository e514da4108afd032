package model

import (
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"
)

func TestLevels(t *testing.T) {
	p := Levels()
	if len(p) != 257 || p[0] != 0 || p[127] != 127.0/128 || p[128] != 1-math.Exp2(-7.125) || p[256] != 1 {
		t.Fatalf("%d levels: %v, %v, %v … %v", len(p), p[0], p[127], p[128], p[256])
	}
	for i := 1; i <= 128; i++ {
		if want := 1 - math.Exp2(-7-float64(i)/8); math.Abs(p[127+i]-want) > 1e-16 {
			t.Errorf("level %d is %v, want %v", 127+i, p[127+i], want)
		}
	}
	if !slices.IsSorted(p) || len(slices.Compact(slices.Clone(p))) != 257 {
		t.Error("levels do not rise")
	}
}

func TestQuantiles(t *testing.T) {
	scores := make([]float64, 1000)
	for i := range scores {
		scores[i] = float64(i + 1)
	}
	for _, q := range Quantiles(scores) {
		// By definition: the smallest score that the share P scored at or below.
		want := scores[sort.Search(len(scores)-1, func(i int) bool { return float64(i+1) >= q.P*1000 })]
		if q.Score != want {
			t.Errorf("quantile %v is %v, want %v", q.P, q.Score, want)
		}
		if q.P > 1-1.0/1000 && q.Score != 1000 {
			t.Errorf("level %v is past 1 − 1/n and has %v, not the highest", q.P, q.Score)
		}
	}
	if Quantiles[float64](nil) != nil {
		t.Error("quantiles of nothing")
	}
	for _, q := range Quantiles([]float64{3}) {
		if q.Score != 3 {
			t.Errorf("one score: %v", q)
		}
	}
}

func TestPercentile(t *testing.T) {
	m := &Model{Quantiles: []Quantile{{0, 1}, {0.25, 2}, {0.5, 2}, {0.75, 4}, {1, 8}}}
	for _, c := range []struct{ score, want float64 }{
		{0, 0}, {1, 0}, {1.5, 12.5}, {2, 50}, {3, 62.5}, {4, 75}, {6, 87.5}, {8, 100}, {9, 100},
		{math.Inf(1), 100}, {math.Inf(-1), 0},
	} {
		if got := m.Percentile(c.score); got != c.want {
			t.Errorf("score %v: %v, want %v", c.score, got, c.want)
		}
	}
	if !math.IsNaN(m.Percentile(math.NaN())) || !math.IsNaN((&Model{}).Percentile(1)) {
		t.Error("a percentile of nothing")
	}
	huge := &Model{Quantiles: []Quantile{{0, -math.MaxFloat64}, {1, math.MaxFloat64}}}
	if got := huge.Percentile(0); got != 50 {
		t.Errorf("between the largest numbers: %v", got)
	}
}

func TestThreshold(t *testing.T) {
	ascending := func(n int) []float64 {
		v := make([]float64, n)
		for i := range v {
			v[i] = float64(i + 1)
		}
		return v
	}
	for _, c := range []struct {
		name            string
		scores          []float64
		rate, median    float64
		s, used, margin float64
		above, ties     int64
	}{
		{"enough rows: the asked rate", ascending(100000), 1e-3, 50000, 99900, 1e-3, 9.99, 91, 1},
		{"exactly 10/rate rows", ascending(100000), 1e-4, 50000, 99990, 1e-4, 9.999, 1, 1},
		{"fewer: 10/n", ascending(2000), 1e-4, 1, 1990, 0.005, 0.199, 10, 1},
		{"few: 1 %", ascending(300), 1e-4, 1, 297, 0.01, 0.0297, 3, 1},
		{"under a hundred: the highest", ascending(50), 1e-4, 1, 50, 0.01, 0.005, 0, 1},
		{"one row", []float64{3}, 1e-4, 3, 3, 0.01, 3e-4, 0, 1},
		{"asked 0 stays 0", ascending(100000), 0, 1, 100000, 0, 10, 0, 1},
		{"decimal rates", ascending(100), 0.29, 1, 71, 0.29, 0.0071, 29, 1},
		{"margin from the median", []float64{0, 0, 0}, 0, 5, 0, 0, 5e-4, 0, 3},
		{"least margin", []float64{0, 0, 0}, 0, 0, 0, 0, 1e-6, 0, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := int64(len(c.scores))
			slices.Sort(c.scores)
			top := slices.Clone(c.scores[max(0, len(c.scores)-Keep(n, c.rate)):])
			rand.New(rand.NewPCG(1, 1)).Shuffle(len(top), func(i, j int) { top[i], top[j] = top[j], top[i] })
			threshold, used, above, ties, err := Threshold(top, n, c.rate, c.median)
			if err != nil {
				t.Fatal(err)
			}
			if want := c.s + c.margin; math.Abs(threshold-want) > 1e-9*want || used != c.used || above != c.above || ties != c.ties {
				t.Errorf("threshold %v, rate %v, above %d, ties %d; want %v, %v, %d, %d", threshold, used, above, ties, want, c.used, c.above, c.ties)
			}
		})
	}
}

// The rule by its definition, on scores with many ties.
func TestThresholdAgainstDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 3))
	for range 300 {
		n := 1 + r.IntN(4000)
		scores := make([]float64, n)
		for i := range scores {
			scores[i] = float64(r.IntN(1 + r.IntN(50)))
		}
		slices.Sort(scores)
		rate := []float64{0, 1e-4, 0.005, 0.01, 0.25}[r.IntN(5)]
		threshold, used, above, _, err := Threshold(scores[max(0, n-Keep(int64(n), rate)):], int64(n), rate, 0)
		if err != nil {
			t.Fatal(err)
		}
		exceed := func(x float64) int { return n - sort.Search(n, func(i int) bool { return scores[i] > x }) }
		s := scores[sort.Search(n, func(i int) bool { return float64(exceed(scores[i])) <= used*float64(n)+1e-6 })]
		if want := s + max(1e-4*s, 1e-6); threshold != want || above != int64(exceed(threshold)) {
			t.Fatalf("n %d, rate %v: threshold %v with %d above; want %v with %d", n, rate, threshold, above, want, exceed(want))
		}
	}
}

func TestThresholdFaults(t *testing.T) {
	inf := math.Inf(1)
	for name, f := range map[string]func() error{
		"negative rate":   func() error { _, _, _, _, err := Threshold([]float64{1}, 1, -1, 0); return err },
		"rate not number": func() error { _, _, _, _, err := Threshold([]float64{1}, 1, math.NaN(), 0); return err },
		"no rows":         func() error { _, _, _, _, err := Threshold(nil, 0, 0, 0); return err },
		"too few kept":    func() error { _, _, _, _, err := Threshold([]float64{1}, 2000, 1e-4, 0); return err },
		"none finite":     func() error { _, _, _, _, err := Threshold([]float64{inf, math.NaN()}, 2, 0, 0); return err },
	} {
		if f() == nil {
			t.Errorf("%s: no error", name)
		}
	}
	threshold, _, above, _, err := Threshold([]float64{1, inf, math.NaN()}, 3, 0, 1)
	if err != nil || threshold != 1+1e-4 || above != 2 {
		t.Errorf("scores that are not finite: threshold %v, above %d, %v", threshold, above, err)
	}
}

package model

import (
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// scored is a model that knows nothing but the scores of its history.
func scored(scores []float64) *Model {
	slices.Sort(scores)
	m := &Model{Quantiles: Quantiles(scores)}
	m.Lineage.Rows.Used = int64(len(scores))
	m.Lineage.Metrics = map[string]float64{}
	return m
}

func drawn(seed uint64, n int, draw func(*rand.Rand) float64) []float64 {
	r := rand.New(rand.NewPCG(seed, 77))
	s := make([]float64, n)
	for i := range s {
		s[i] = draw(r)
	}
	return s
}

// The intervals of other programs (R's binom.test, Clopper and Pearson).
func TestRateInterval(t *testing.T) {
	for _, c := range []struct {
		above, n  int64
		low, high float64
	}{
		{10, 1000, .00481, .0183},
		{5, 10, .187, .813},
		{0, 100, 0, .0362},
		{100, 100, .964, 1},
		{1, 1, .025, 1},
		{0, 0, 0, 1},
		{500_000, 50_000_000, .00997, .01},
		{10, 50_000_000, 9.59e-8, 3.68e-7},
	} {
		low, high := RateInterval(c.above, c.n)
		if math.Abs(low-c.low) > .002*c.low || math.Abs(high-c.high) > .002*c.high {
			t.Errorf("%d of %d: %v to %v, want %v to %v", c.above, c.n, low, high, c.low, c.high)
		}
	}
}

func TestScoreAboveAndShareAboveAgree(t *testing.T) {
	m := scored(drawn(1, 50_000, (*rand.Rand).ExpFloat64))
	for _, share := range []float64{.9, .5, .1, .013, .01, .0031, 1e-3, 2e-4} {
		s := m.ScoreAbove(share)
		if want := -math.Log(share); math.Abs(s-want) > .15*want+.02 {
			t.Errorf("share %v: score %v, want about %v", share, s, want)
		}
		if back := m.ShareAbove(s); math.Abs(back-share) > 1e-9 {
			t.Errorf("share %v gives score %v gives share %v", share, s, back)
		}
	}
	if m.ScoreAbove(0) != m.Highest() || m.ShareAbove(m.Highest()) != 0 || m.ShareAbove(-1) != 1 {
		t.Error("the ends")
	}
	// Never more rows than the share above the score, ties and all, at the levels themselves.
	steps := drawn(2, 10_000, func(r *rand.Rand) float64 { return math.Floor(3 * r.ExpFloat64()) })
	m = scored(steps)
	for _, l := range Levels() {
		s := m.ScoreAbove(1 - l)
		at, _ := slices.BinarySearch(steps, math.Nextafter(s, 9e9))
		if above := float64(len(steps) - at); above > (1-l)*float64(len(steps))+1e-6 {
			t.Fatalf("share %v: %v rows above score %v", 1-l, above, s)
		}
	}
}

func TestChoose(t *testing.T) {
	ramp := make([]float64, 20_000)
	for i := range ramp {
		ramp[i] = float64(i+1) / 1000
	}
	m := scored(ramp)
	m.Lineage.Span = &Span{RecordsPerDay: 86_400}
	unknown := *m
	unknown.Lineage.Span = nil
	short := scored(slices.Clone(ramp[:500]))
	for _, c := range []struct {
		name      string
		m         *Model
		ask       Ask
		threshold float64
		used      float64
		few       bool
		fault     string
	}{
		{"a level of the quantiles", m, Ask{ByQuantile, 1. / 128}, 19.844 + .0019844, 1. / 128, false, ""},
		{"between two", m, Ask{ByQuantile, .01}, 19.800 + .00198, .01, false, ""},
		{"too few rows", m, Ask{ByQuantile, 1e-4}, 19.990 + .001999, 5e-4, true, ""},
		{"far too few", short, Ask{ByQuantile, 1e-4}, .4955, .01, true, ""},
		{"none of it", m, Ask{ByQuantile, 0}, 20.002, 0, false, ""},
		{"alarms a day", m, Ask{ByAlarms, 864}, 19.800 + .00198, .01, false, ""},
		{"alarms a day, rate unknown", &unknown, Ask{ByAlarms, 10}, 0, 0, false, "do not say how many records a day"},
		{"too many alarms", m, Ask{ByAlarms, 80_000}, 0, 0, false, "more than half"},
		{"negative alarms", m, Ask{ByAlarms, -1}, 0, 0, false, "0 or more"},
		{"by hand", m, Ask{ByScore, 19}, 19, .05, false, ""},
		{"beyond all", m, Ask{ByScore, 1e9}, 1e9, 0, false, ""},
		{"a negative score", m, Ask{ByScore, -1}, 0, 0, false, "not negative"},
		{"a factor", m, Ask{ByFactor, 1.5}, 30, 0, false, ""},
		{"a factor below 1", m, Ask{ByFactor, .9}, 0, 0, false, "at least 1"},
		{"a rate beyond half", m, Ask{ByQuantile, .6}, 0, 0, false, "0 to 0.5"},
		{"no number", m, Ask{ByQuantile, math.NaN()}, 0, 0, false, "no number"},
		{"no method", m, Ask{"by luck", 1}, 0, 0, false, "no method"},
		{"a tail that is too wide", m, Ask{ByTail, .2}, 0, 0, false, "where the tail begins"},
	} {
		t.Run(c.name, func(t *testing.T) {
			threshold, got, err := c.m.Choose(c.ask)
			if c.fault != "" {
				if err == nil || !strings.Contains(err.Error(), c.fault) {
					t.Errorf("%v, want %q", err, c.fault)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if math.Abs(threshold-c.threshold) > .001*c.threshold || math.Abs(got.Used-c.used) > .01*c.used || got.Few != c.few {
				t.Errorf("threshold %v, used %v, few %v; want %v, %v, %v", threshold, got.Used, got.Few, c.threshold, c.used, c.few)
			}
			if !(got.Low <= got.Above && got.Above <= got.High) || got.Rows != c.m.Lineage.Rows.Used {
				t.Errorf("%+v", got)
			}
		})
	}
}

// Case 4.04: no row of the history is above 1.1 times its highest score, and at a factor of 1 none is either.
func TestFactor_Case4_04(t *testing.T) {
	scores := drawn(3, 5000, (*rand.Rand).ExpFloat64)
	m := scored(scores)
	for _, factor := range []float64{1, 1.1, 3} {
		threshold, c, err := m.Choose(Ask{ByFactor, factor})
		if err != nil || c.Above != 0 || c.Low != 0 || !(c.High > 0) {
			t.Fatalf("%+v, %v", c, err)
		}
		if n := len(scores); scores[n-1] > threshold || threshold < factor*scores[n-1] {
			t.Errorf("factor %v: threshold %v, highest %v", factor, threshold, scores[n-1])
		}
	}
}

// A choice that was taken survives its file, and the file that it was derived from is named.
func TestWithAnotherThreshold(t *testing.T) {
	m := tiny(t)
	m.Lineage.Metrics = map[string]float64{"recall": .5, "auc": .9, "share_above": .1}
	before, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	threshold, c, err := m.Choose(Ask{ByFactor, 1.1})
	if err != nil {
		t.Fatal(err)
	}
	data, err := m.With(threshold, c, Digest(before)).Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if again.Threshold != threshold || again.Lineage.Parent != Digest(before) || again.Lineage.Threshold == nil || !reflect.DeepEqual(*again.Lineage.Threshold, c) {
		t.Errorf("threshold %v, lineage %+v", again.Threshold, again.Lineage)
	}
	if _, stale := again.Lineage.Metrics["recall"]; stale || again.Lineage.Metrics["auc"] != .9 || again.Lineage.Metrics["share_above"] != c.Above {
		t.Errorf("metrics %v", again.Lineage.Metrics)
	}
	if m.Lineage.Parent != "" || m.Lineage.Metrics["recall"] != .5 {
		t.Error("the model it was derived from has changed")
	}
	for i, q := range again.Quantiles {
		if q != m.Quantiles[i] {
			t.Fatalf("quantile %d: %v, was %v", i, q, m.Quantiles[i])
		}
	}
}

// What the page on thresholds promises: with ten rows above it, a quantile is within a factor of two of what was asked in
// at least 78 of a hundred histories; with three in far fewer.
func TestTenRowsAboveHoldWithinTwo(t *testing.T) {
	const draws = 100
	within := func(n int, rate float64) (share, covered float64) {
		for i := range draws {
			scores := drawn(uint64(i), n, (*rand.Rand).ExpFloat64)
			slices.Sort(scores)
			top := scores[n-min(Keep(int64(n), rate), n):]
			threshold, used, above, _, err := Threshold(top, int64(n), rate, scores[n/2])
			if err != nil {
				t.Fatal(err)
			}
			truth := math.Exp(-threshold)
			if truth > used/2 && truth < 2*used {
				share += 1. / draws
			}
			if low, high := RateInterval(above, int64(n)); low <= truth && truth <= high {
				covered += 1. / draws
			}
		}
		return share, covered
	}
	for _, c := range []struct {
		n    int
		rate float64
	}{{1000, .01}, {5000, .002}, {20_000, .001}} {
		share, covered := within(c.n, c.rate)
		if share < .78 {
			t.Errorf("%d rows, rate %v: within a factor of two in %.2f of the draws", c.n, c.rate, share)
		}
		if covered < .9 {
			t.Errorf("%d rows, rate %v: the interval holds the truth in %.2f of the draws", c.n, c.rate, covered)
		}
	}
}

// distribution has a tail whose truth is known.
type distribution struct {
	name  string
	draw  func(*rand.Rand) float64
	above func(float64) float64
}

var smooth = []distribution{
	{"exponential", (*rand.Rand).ExpFloat64, func(x float64) float64 { return math.Exp(-x) }},
	{"rayleigh", func(r *rand.Rand) float64 { return math.Sqrt(2 * r.ExpFloat64()) }, func(x float64) float64 { return math.Exp(-x * x / 2) }},
	{"lognormal", func(r *rand.Rand) float64 { return math.Exp(r.NormFloat64()) }, func(x float64) float64 { return math.Erfc(math.Log(x)/math.Sqrt2) / 2 }},
	{"pareto", func(r *rand.Rand) float64 { return math.Pow(1-r.Float64(), -.25) }, func(x float64) float64 { return math.Pow(x, -4) }},
}

// On smooth tails the fit is closer to the truth than the quantile where only three rows lie above, and its interval holds.
func TestFitBeatsTheQuantileOnSmoothTails(t *testing.T) {
	const draws, n, rate = 100, 3000, .001
	for _, d := range smooth {
		t.Run(d.name, func(t *testing.T) {
			var quantile, fit float64
			fitted, covered := 0., 0.
			for i := range draws {
				m := scored(drawn(uint64(i), n, d.draw))
				off := func(score float64) float64 { return math.Abs(math.Log(d.above(score) / rate)) }
				threshold, c, err := m.Choose(Ask{ByTail, rate})
				if err != nil {
					continue
				}
				fitted++
				quantile += off(m.ScoreAbove(rate))
				fit += off(threshold)
				if truth := d.above(threshold); c.Low <= truth && truth <= c.High {
					covered++
				}
				if c.Few || c.Used != rate || c.Tail == nil {
					t.Fatalf("%+v", c)
				}
			}
			if fitted < .9*draws {
				t.Fatalf("%v of %v were fitted", fitted, draws)
			}
			if fit > .95*quantile {
				t.Errorf("the fit is off by a factor of %.2f, the quantile by %.2f", math.Exp(fit/fitted), math.Exp(quantile/fitted))
			}
			if covered < .85*fitted {
				t.Errorf("the interval holds the truth in %.2f of the draws", covered/fitted)
			}
		})
	}
}

// The quantiles stand for the rows: the fit that they give is that of all rows in the tail.
func TestFitFromQuantilesIsThatOfTheRows(t *testing.T) {
	for _, d := range smooth {
		for _, n := range []int{2000, 50_000} {
			scores := drawn(5, n, d.draw)
			m := scored(scores)
			fit, err := m.FitTail()
			if err != nil {
				t.Fatalf("%s, %d rows: %v", d.name, n, err)
			}
			rows := scores[n-int(fit.Rows):]
			var a0, a1 float64
			for i, s := range rows {
				a0 += s - fit.From
				a1 += (s - fit.From) * (float64(len(rows)-i) - .5) / float64(len(rows))
			}
			shape, scale := fromMoments(a0/float64(len(rows)), a1/float64(len(rows)))
			if math.Abs(shape-fit.Shape) > .06 || math.Abs(scale-fit.Scale) > .06*scale {
				t.Errorf("%s, %d rows: shape %v, scale %v; of the rows %v, %v", d.name, n, fit.Shape, fit.Scale, shape, scale)
			}
		}
	}
}

func TestSteppedTailsAreRefused(t *testing.T) {
	rayleigh := smooth[1].draw
	for name, draw := range map[string]func(*rand.Rand) float64{
		"whole numbers": func(r *rand.Rand) float64 { return math.Floor(3 * r.ExpFloat64()) },
		"a rare category": func(r *rand.Rand) float64 {
			if r.Float64() < .005 {
				return 8 + .1*rayleigh(r)
			}
			return rayleigh(r)
		},
		"three categories": func(r *rand.Rand) float64 {
			x := .3 * rayleigh(r)
			for k, p := range []float64{.02, .01, .005} {
				if r.Float64() < p {
					x = math.Hypot(x, float64(3+2*k))
				}
			}
			return x
		},
		"a cluster": func(r *rand.Rand) float64 {
			if r.Float64() < .03 {
				return 10 + .2*r.NormFloat64()
			}
			return rayleigh(r)
		},
		"all the same": func(*rand.Rand) float64 { return 1 },
		"too heavy":    func(r *rand.Rand) float64 { return math.Pow(1-r.Float64(), -1.5) },
	} {
		_, c, err := scored(drawn(6, 10_000, draw)).Choose(Ask{ByTail, .001})
		if !errors.Is(err, ErrNotSmooth) {
			t.Errorf("%s: %+v, %v", name, c, err)
		} else if name == "whole numbers" && !strings.Contains(err.Error(), "share their score") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := scored(drawn(7, 300, rayleigh)).Choose(Ask{ByTail, .01}); err == nil || errors.Is(err, ErrNotSmooth) || !strings.Contains(err.Error(), "300") {
		t.Errorf("300 rows: %v", err)
	}
	if _, c, err := scored(drawn(7, 2000, rayleigh)).Choose(Ask{ByTail, 1e-4}); err != nil || !c.Few || c.Used != 3./2000 {
		t.Errorf("too few for the rate: %+v, %v", c, err)
	}
}

func TestContamination(t *testing.T) {
	clean := scored(drawn(8, 10_000, smooth[1].draw))
	if labelled, suspicious := clean.Contamination(1e-3); labelled || suspicious {
		t.Error("a clean history")
	}
	clean.Lineage.Metrics["base_rate"], clean.Lineage.Metrics["labelled"] = .01, 10_000
	if labelled, suspicious := clean.Contamination(1e-3); !labelled || suspicious {
		t.Error("labelled anomalies")
	}
	dirty := scored(drawn(9, 10_000, func(r *rand.Rand) float64 {
		if r.Float64() < .03 {
			return 20
		}
		return smooth[1].draw(r)
	}))
	if labelled, suspicious := dirty.Contamination(1e-3); labelled || !suspicious {
		t.Errorf("3 %% far off: suspicious %v", dirty.Suspicious())
	}
	if _, suspicious := dirty.Contamination(.05); suspicious {
		t.Error("a rate that has room for them")
	}
}

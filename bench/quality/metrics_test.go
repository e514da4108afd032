package quality

import (
	"math"
	"testing"
)

// near holds a figure against what was worked out by hand; NaN means that there must be none.
func near(t *testing.T, name string, got *float64, want float64) {
	t.Helper()
	switch {
	case math.IsNaN(want) && got != nil:
		t.Errorf("%s is %v, want none", name, *got)
	case math.IsNaN(want):
	case got == nil:
		t.Errorf("%s is missing, want %v", name, want)
	case math.Abs(*got-want) > 1e-12:
		t.Errorf("%s is %v, want %v", name, *got, want)
	}
}

func TestMeasure(t *testing.T) {
	none := math.NaN()
	for _, c := range []struct {
		name                           string
		scores                         []float64
		bad                            []bool
		threshold                      float64
		auc, ap, atN, recall, false10k float64
	}{
		{"perfect", []float64{1, 2, 3, 4}, []bool{false, false, true, true}, 2.5, 1, 1, 1, 1, 0},
		{"reversed", []float64{4, 3, 2, 1}, []bool{false, false, true, true}, 2.5, 0, (1./3 + 2./4) / 2, 0, 0, 1e4},
		// By hand: pairs won 1, 2 of 3 each; precisions 1/1 and 2/3.
		{"mixed", []float64{5, 4, 3, 2}, []bool{true, false, true, false}, 3.5, 3. / 4, (1 + 2./3) / 2, .5, .5, 5e3},
		// All equal: one step of the curve, in whatever order the rows lie.
		{"all tied", []float64{1, 1, 1, 1}, []bool{true, false, false, false}, 0, .5, .25, .25, 1, 1e4},
		{"tied across n", []float64{3, 2, 2, 2, 1}, []bool{true, true, false, false, false}, 2, (1*3 + (1*2*.5 + 1)) / 6, (1 + 2./4) / 2, (1 + 1./3) / 2, .5, 0},
		{"at the threshold is no alarm", []float64{1, 2}, []bool{false, true}, 2, 1, 1, 1, 0, 0},
		{"only normal rows", []float64{1, 2}, []bool{false, false}, 1.5, none, none, none, none, 5e3},
		{"only anomalies", []float64{1, 2}, []bool{true, true}, 1.5, none, none, none, .5, none},
		{"no rows", nil, nil, 1, none, none, none, none, none},
		// What has no number is an anomaly, as serve has it.
		{"not a number", []float64{math.NaN(), 5, 1}, []bool{true, false, false}, 9, 1, 1, 1, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := measure(c.scores, c.bad, c.threshold)
			near(t, "AUC", m.AUC, c.auc)
			near(t, "AP", m.AP, c.ap)
			near(t, "precision at n", m.PAtN, c.atN)
			near(t, "recall", m.Recall, c.recall)
			near(t, "false alarms", m.FalseAlarms, c.false10k)
		})
	}
}

func TestQuantileThreshold(t *testing.T) {
	history := make([]float64, 2000)
	for i := range history {
		history[i] = float64((i*7919)%2000 + 1) // 1 to 2000, each once
	}
	for _, c := range []struct {
		n    int
		rate float64
		want float64
	}{
		{2000, .01, 1980},   // 20 rows above
		{2000, .0001, 1990}, // too few rows for the rate: 10 above
		{2000, 0, 2000},     // none above
	} {
		got := quantileThreshold(history[:c.n], c.rate)
		if got != c.want {
			t.Errorf("rate %v of %d rows: threshold %v, want %v", c.rate, c.n, got, c.want)
		}
	}
	if got := rateUsed(100, 1e-4); got != .01 {
		t.Errorf("100 rows use rate %v, want at most 1 %%", got)
	}
}

func TestMeanOf(t *testing.T) {
	m := meanOf([]Metrics{{AUC: value(.5), Recall: value(1)}, {AUC: value(.7)}})
	near(t, "AUC", m.AUC, .6)
	near(t, "recall", m.Recall, 1) // over the splits that have one
	near(t, "AP", m.AP, math.NaN())
	if m = meanOf([]Metrics{{AUC: value(.5)}, {Error: "no answer"}}); m.AUC != nil || m.Error != "no answer" {
		t.Errorf("a mean over a split that failed: %+v", m)
	}
}

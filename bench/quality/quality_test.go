package quality

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// machines writes rows of four related columns; in every 25th the relation is broken, though where the load is about a
// sixth nobody can see it.
func machines(n int) string {
	r := rand.New(rand.NewPCG(5, 5))
	return lines("load,temp,flow,volts,label", n, func(i int) string {
		load := r.Float64()
		flow, label := 5-3*load, 0
		if i%25 == 0 {
			flow, label = 2+3*load+2, 1
		}
		return fmt.Sprintf("%.4f,%.3f,%.3f,%.4f,%d", load, 60+20*load+.3*r.NormFloat64(), flow+.05*r.NormFloat64(), 12+.2*r.NormFloat64(), label)
	})
}

// From files to figures: one set that can be learnt, one that is shuffled noise, one that cannot be learnt at all.
func TestRun(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	dir := folder(t, map[string]string{
		"manifest.json": `[
 {"file": "m/machines.csv", "set": "m", "kind": "tabular", "features": ["load", "temp", "flow", "volts"], "label": "label", "order": "as published"},
 {"file": "m/series.csv", "set": "m", "kind": "multivariate series", "features": ["load", "temp", "flow", "volts"], "label": "label", "order": "time", "train_rows": 300},
 {"file": "m/noise.csv", "set": "m", "kind": "tabular", "features": ["a", "b"], "label": "label", "order": "as published"},
 {"file": "m/flat.csv", "set": "m", "kind": "tabular", "features": ["a"], "label": "label", "order": "as published"}
]`,
		"m/machines.csv": machines(1800), "m/series.csv": machines(500),
		"m/noise.csv": lines("a,b,label", 500, func(i int) string { return fmt.Sprintf("%.4f,%.4f,%d", r.NormFloat64(), r.NormFloat64(), i%10/9) }),
		"m/flat.csv":  lines("a,label", 300, func(i int) string { return fmt.Sprintf("5,%d", i%10/9) }),
	})
	var log strings.Builder
	got, err := Run(t.Context(), Options{Data: dir, Splits: 2, Threads: 2, Log: &log})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Sets) != 4 {
		t.Fatalf("%d sets", len(got.Sets))
	}
	m := got.Sets[0].Subjects[Lapwing]
	if m.Error != "" || *m.AUC < .8 || *m.AP < .4 || *m.Seconds <= 0 || got.Sets[0].Splits != 2 || got.Sets[0].Trained != 1080 {
		t.Errorf("machines: %+v, AUC %s, AP %s %s", got.Sets[0], digits(m.AUC), digits(m.AP), m.Error)
	}
	// At the stored threshold: 10 of the 1,080 rows of a history may score above it, and most of those are anomalies.
	if *m.Recall <= 0 || *m.FalseAlarms > 500 {
		t.Errorf("recall %v, %v false alarms of 10,000", *m.Recall, *m.FalseAlarms)
	}
	if s := got.Sets[1]; s.Splits != 1 || s.Trained != 300 || *s.Subjects[Lapwing].AUC < .7 {
		t.Errorf("series: %+v", s)
	}
	if noise := got.Sets[2].Subjects[Lapwing]; *noise.AUC < .3 || *noise.AUC > .7 {
		t.Errorf("labels that mean nothing are ranked with AUC %v", *noise.AUC)
	}
	flat := got.Sets[3].Subjects[Lapwing]
	if flat.Error == "" || flat.AUC != nil || !slices.Equal(got.losses(), []string{}) || !strings.Contains(log.String(), "failed: ") {
		t.Errorf("a set that cannot be learnt: %+v\n%s", flat, log.String())
	}
	if len(got.Series) != 4 || got.Series[0].Files != 1 || got.Series[2].Rolling != 10 || *got.Series[2].AUC < .7 {
		t.Errorf("series after a clean history: %+v", got.Series)
	}
	if len(got.Alarms) != 1 || got.Alarms[0].Each[0].Set != "m/machines" || got.Alarms[0].Each[0].Rate > .05 {
		t.Errorf("alarms on normal rows: %+v", got.Alarms)
	}
	if mean := got.Mean[Lapwing]; mean.Sets != 3 {
		t.Errorf("mean %+v", mean)
	}
}

func TestAlarms(t *testing.T) {
	c := alarmCounts{{{"a", 1000, .005, 400}, {"b", 1000, .02, 400}, {"c", 1000, .0201, 400}, {"d", 1000, .0049, 400}}, nil}
	got := c.report()
	if len(got) != 1 || got[0].Sets != 4 || got[0].Within != 2 || got[0].Rate != .01 {
		t.Errorf("%+v", got)
	}
}

func TestSeries(t *testing.T) {
	var c seriesCounts
	c.add("s", 0, &learned{history: []float64{1, 2, 3}, live: []float64{5, 1, 6, 9}, threshold: 4}, []bool{true, true, false, false})
	c.add("s", 0, &learned{history: []float64{1, 2, 3}, live: []float64{1, 8}, threshold: 4}, []bool{false, true})
	c.add("s", lookBack, &learned{history: []float64{1}, live: []float64{math.NaN()}, threshold: 4}, []bool{true})
	got := c.report()
	if len(got) != 4 || got[0].Files != 2 || got[0].Rule != "stored" || got[2].Rolling != lookBack {
		t.Fatalf("%+v", got)
	}
	// Pooled: 2 of 3 anomalies found, 2 of 3 normal rows alarm.
	near(t, "F1", got[0].F1, 4./7)
	near(t, "recall", got[0].Recall, 2./3)
	near(t, "precision", got[0].Precision, .5)
	near(t, "false alarm rate", got[0].FalseRate, 2./3)
	near(t, "AUC", got[0].AUC, (0+1.)/2)
	near(t, "recall of what has no number", got[2].Recall, 1)
	near(t, "false alarm rate without normal rows", got[2].FalseRate, math.NaN())
}

func TestValidate(t *testing.T) {
	err := Options{Splits: -1, Threads: -2, Rate: 2, Peers: []string{"iforest", "oracle"}}.Validate()
	for _, want := range []string{"no data folder", "splits is -1", "threads is -2", "alarm rate is 2", "need a folder", `no peer "oracle"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwant %s among it", err, want)
		}
	}
}

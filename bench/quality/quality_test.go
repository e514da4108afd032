package quality

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// machines writes rows of four related columns; in every 25th the relation is broken.
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
 {"file": "m/series.csv", "set": "m", "kind": "multivariate series", "features": ["load", "temp", "flow", "volts"], "label": "label", "order": "time"},
 {"file": "m/noise.csv", "set": "m", "kind": "tabular", "features": ["a", "b"], "label": "label", "order": "as published"},
 {"file": "m/flat.csv", "set": "m", "kind": "tabular", "features": ["a"], "label": "label", "order": "as published"}
]`,
		"m/machines.csv": machines(1000), "m/series.csv": machines(500),
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
	if m.Error != "" || *m.AUC < .9 || *m.AP < .4 || *m.Seconds <= 0 || got.Sets[0].Splits != 2 || got.Sets[0].Trained != 600 {
		t.Errorf("machines: %+v %s", got.Sets[0], m.Error)
	}
	// At the stored threshold: 10 of the 600 rows of a history may score above it, and most of those are anomalies.
	if *m.Recall <= 0 || *m.FalseAlarms > 500 {
		t.Errorf("recall %v, %v false alarms of 10,000", *m.Recall, *m.FalseAlarms)
	}
	if s := got.Sets[1]; s.Splits != 1 || s.Trained != 300 || *s.Subjects[Lapwing].AUC < .8 {
		t.Errorf("series: %+v", s)
	}
	if noise := got.Sets[2].Subjects[Lapwing]; *noise.AUC < .3 || *noise.AUC > .7 {
		t.Errorf("labels that mean nothing are ranked with AUC %v", *noise.AUC)
	}
	flat := got.Sets[3].Subjects[Lapwing]
	if flat.Error == "" || flat.AUC != nil || !slices.Equal(got.losses(), []string{}) || !strings.Contains(log.String(), "failed: ") {
		t.Errorf("a set that cannot be learnt: %+v\n%s", flat, log.String())
	}
	if mean := got.Mean[Lapwing]; mean.Sets != 3 {
		t.Errorf("mean %+v", mean)
	}
}

func TestValidate(t *testing.T) {
	err := Options{Splits: -1, Threads: -2, Rate: 2, Peers: []string{"iforest", "oracle"}}.Validate()
	for _, want := range []string{"no data folder", "splits is -1", "threads is -2", "alarm rate is 2", "need a folder", `no peer "oracle"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwant %s among it", err, want)
		}
	}
}

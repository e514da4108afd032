package quality

import (
	"bytes"
	"encoding/json"
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write golden files anew")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (go test -update writes it anew):\n%s", name, d)
	}
}

func full(auc, ap, atN float64) Metrics {
	return Metrics{AUC: value(auc), AP: value(ap), PAtN: value(atN), Recall: value(.25), FalseAlarms: value(12.34), Seconds: value(1.25)}
}

// reported is a report with all that can stand in one: a set that Lapwing loses, a peer that failed, a set without anomalies.
func reported() *Report {
	r := &Report{
		Machine: "linux/amd64, 2 processors, go1.26.0", Splits: 3, Threads: 2, Subjects: []string{Lapwing, "iforest", "vae"},
		Versions: map[string]string{"scikit-learn": "1.9.1", "pyod": "3.6.7", "numpy": "2.4.6"}, Unlabelled: []string{"cars/all"},
		Sets: []Set{
			{Name: "adbench/cardio", Collection: "adbench", Rows: 1831, Features: 21, Anomalies: 176, Trained: 1098, Splits: 3,
				Subjects: map[string]Metrics{Lapwing: full(.86, .5, .4), "iforest": full(.94, .55, .5), "vae": {Error: "not installed: pip: no network\nmore"}}},
			{Name: "adbench/shuttle", Collection: "adbench", Rows: 49097, Features: 9, Anomalies: 3511, Trained: 20000, Splits: 3,
				Subjects: map[string]Metrics{Lapwing: full(.999, .98, .97), "iforest": full(.997, .97, .96), "vae": {Error: "not installed: pip: no network\nmore"}}},
			{Name: "nab/flat", Collection: "nab", Rows: 4032, Features: 1, Trained: 2419, Splits: 1,
				Subjects: map[string]Metrics{Lapwing: {Error: "topic history: every column is constant"}, "iforest": {FalseAlarms: value(0), Seconds: value(.1)},
					"vae": {Error: "not installed: pip: no network\nmore"}}},
		},
	}
	r.mean()
	r.Alarms = []Alarms{{Rate: .01, Least: 1000, Sets: 10, Within: 9}, {Rate: .001, Least: 10_000, Sets: 4, Within: 3}}
	r.Series = []Series{
		{Collection: "skab", Files: 26, Rule: "stored", AUC: value(.82), F1: value(.5), Recall: value(.4), Precision: value(.7), FalseRate: value(.01)},
		{Collection: "skab", Files: 26, Rolling: 10, Rule: "stored", AUC: value(.88)},
	}
	return r
}

func TestTables(t *testing.T) {
	var plain, markdown bytes.Buffer
	r := reported()
	if err := r.Write(&plain); err != nil {
		t.Fatal(err)
	}
	golden(t, filepath.Join("testdata", "tables.txt"), plain.Bytes())
	if err := r.Markdown(&markdown, false); err != nil {
		t.Fatal(err)
	}
	golden(t, filepath.Join("testdata", "tables.md"), markdown.Bytes())
	var summary bytes.Buffer
	if err := r.Markdown(&summary, true); err != nil {
		t.Fatal(err)
	}
	if text := summary.String(); strings.Contains(text, "cardio |") || !strings.Contains(text, "| iforest |") || !strings.Contains(text, "10 records") {
		t.Errorf("a summary:\n%s", text)
	}
}

// The JSON that programs read: names, and null where a figure is not defined.
func TestReportJSON(t *testing.T) {
	b, err := json.Marshal(reported())
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Sets []struct {
			Name                      string
			Rows, Features, Anomalies int
			Subjects                  map[string]map[string]any
		}
		Mean map[string]map[string]any
	}
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	first := got.Sets[0]
	if first.Name != "adbench/cardio" || first.Rows != 1831 || first.Features != 21 || first.Anomalies != 176 {
		t.Errorf("%+v", first)
	}
	for name, want := range map[string]any{"auc": .86, "ap": .5, "p_at_n": .4, "recall": .25, "false_alarms_per_10k": 12.34, "seconds": 1.25} {
		if first.Subjects[Lapwing][name] != want {
			t.Errorf("%s is %v, want %v", name, first.Subjects[Lapwing][name], want)
		}
	}
	if v, there := first.Subjects["vae"]["auc"]; !there || v != nil || first.Subjects["vae"]["error"] == nil {
		t.Errorf("a failed peer is %v", first.Subjects["vae"])
	}
	if v, there := got.Mean["vae"]["auc"]; !there || v != nil {
		t.Errorf("the mean of a failed peer is %v", got.Mean["vae"])
	}
	if m := got.Mean["iforest"]; math.Abs(m["auc"].(float64)-(.94+.997)/2) > 1e-12 || m["sets"] != 2. {
		t.Errorf("mean %v", m)
	}
}

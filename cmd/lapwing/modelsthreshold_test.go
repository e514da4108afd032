package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Case 4.05: another threshold is a new version with the same weights whose parent is the old one's digest, and what the
// model says of itself before and after is the same but for the threshold.
func TestCase4_05ThresholdWithoutRetraining(t *testing.T) {
	b := newBed(t)
	b.ok("generate cars --rate 0 --count 4000 --cars 20 --faults 0 --topic cars")
	trained := b.object("train --topic cars --model cars --time time --key car --layers 6,3,6 --epochs 2 --json")
	show := func(ref string) map[string]any { return b.object("models show " + ref + " --json") }
	old := show("cars/1")

	text := b.ok("models threshold cars")
	b.has(text, "cars/1\n", "chosen by quantile", "alarms a day", "needs 10,000 rows of history; this one has 4,000", "false alarms")
	state := b.object("models threshold cars --json")
	if state["threshold"] != trained["threshold"] || len(state["table"].([]any)) < 4 || !(state["records_per_day"].(float64) > 0) {
		t.Errorf("%v", state)
	}
	b.has(b.ok("models threshold cars --rate 1% --dry-run"), "before", "now", "nothing is published")
	if n := len(show("cars")["model"].(map[string]any)["versions"].([]any)); n != 1 {
		t.Fatalf("a dry run published: %d versions", n)
	}

	changed := b.object("models threshold cars --rate 1% --json")
	if changed["version"] != 2.0 || changed["from"] != 1.0 || changed["alias"] != "live" || changed["parent"] != trained["digest"] {
		t.Errorf("%v", changed)
	}
	now := show("cars@live")
	lineage := now["lineage"].(map[string]any)
	if now["version"] != 2.0 || lineage["parent"] != trained["digest"] || now["threshold"] != changed["threshold"] {
		t.Errorf("%v", now)
	}
	if d := cmp.Diff(old["spec"], now["spec"]); d != "" {
		t.Error(d)
	}
	b.ok("models export cars/1 --to a.onnx --outputs score")
	b.ok("models export cars/2 --to b.onnx --outputs score")
	rows := b.ok("tail cars --from-beginning -n 4000 --json")
	var file strings.Builder
	for line := range strings.Lines(rows) {
		var r struct{ Value json.RawMessage }
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		file.Write(append(r.Value, '\n'))
	}
	writeFile(t, "rows.jsonl", file.String())
	type record struct {
		Score, Threshold float64
		Anomaly          bool
	}
	scores := func(ref string) (out []record) {
		b.ok("score rows.jsonl --model " + ref + " --to scores.jsonl")
		data, err := os.ReadFile("scores.jsonl")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			var r record
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatal(err)
			}
			out = append(out, r)
		}
		return out
	}
	before, after := scores("cars/1"), scores("cars/2")
	anomalies := 0
	for i := range before {
		if before[i].Score != after[i].Score {
			t.Fatalf("row %d scores %v, with another threshold %v", i, before[i].Score, after[i].Score)
		}
		if after[i].Anomaly {
			anomalies++
		}
	}
	if len(after) != 4000 || anomalies < 33 || anomalies > 44 {
		t.Errorf("at a rate of 1 %%, %d of %d rows are anomalies", anomalies, len(after))
	}

	// Case 4.04: 1.1 times the highest score; no row of the history alarms.
	b.has(b.ok("models threshold cars --factor 1.1 --alias none"), "cars/3 is published from cars/2", "fragile", "lapwing models move cars@live 3")
	highest := 0.
	for _, r := range scores("cars/3") {
		highest = max(highest, r.Score)
		if r.Anomaly {
			t.Fatalf("a row of the history alarms: %+v", r)
		}
	}
	if got := show("cars/3")["threshold"].(float64); math.Abs(got/(1.1*highest)-1) > 1e-6 {
		t.Errorf("threshold %v, the highest row scores %v", got, highest)
	}
	if show("cars@live")["version"] != 2.0 {
		t.Error("--alias none moved the alias")
	}
	day := b.object("models threshold cars/1 --alarms-per-day 500 --json")
	choice := day["choice"].(map[string]any)
	if day["alias"] != "" || choice["method"] != "alarms_per_day" || math.Abs(choice["used"].(float64)*day["records_per_day"].(float64)-500) > 5 && choice["few"] != true {
		t.Errorf("%v", day)
	}
}

// A labelled file chooses the threshold; the file is judged, and never learnt from.
func TestThresholdByLabelledFile(t *testing.T) {
	b := newBed(t)
	b.ok("generate cars --rate 0 --count 4000 --cars 20 --faults 0 --topic cars")
	b.ok("train --topic cars --model cars --time time --key car --layers 6,3,6 --epochs 2")
	rows := b.ok("tail cars --from-beginning -n 400 --json")
	var file strings.Builder
	i := 0
	for line := range strings.Lines(rows) {
		var r struct{ Value map[string]any }
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		r.Value["broken"] = 0
		if i++; i%10 == 0 {
			r.Value["broken"], r.Value["coolant_temp"], r.Value["oil_pressure"] = 1, 400, 0.01
		}
		one, err := json.Marshal(r.Value)
		if err != nil {
			t.Fatal(err)
		}
		file.Write(append(one, '\n'))
	}
	writeFile(t, "week.jsonl", file.String()+"not JSON\n")
	made := b.object("models threshold cars --labels week.jsonl --label broken --json")
	choice := made["choice"].(map[string]any)
	sample := choice["sample"].(map[string]any)
	if choice["method"] != "label" || choice["goal"] != "f1" || sample["rows"] != 400.0 || sample["anomalies"] != 40.0 || sample["recall"] != 1.0 || sample["precision"] != 1.0 {
		t.Errorf("%v", made)
	}
	if j := made["judgement"].(map[string]any); j["average_precision"] != 1.0 {
		t.Errorf("%v", j)
	}
	b.has(b.ok("models threshold cars --labels week.jsonl --label broken --goal precision=90% --dry-run"), "1 rows have no score", "average precision 1.000", "recall")
	_, stderr := b.fails("models threshold cars --labels week.jsonl --label nothing")
	b.has(stderr, "none of the 401 rows has a score and a readable label nothing", "week.jsonl")
}

// Case 4.05 again, as a running scorer sees it: it takes the new threshold without being told, and no record is lost.
func TestCase4_05RunningServerTakesTheThreshold(t *testing.T) {
	b := newBed(t)
	b.ok("generate cars --rate 0 --count 1000 --cars 20 --topic cars")
	b.ok("train --topic cars --model cars --layers 4 --epochs 1")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var out, errs buffer
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, splitWords(t, "serve --topic cars --model cars --http 127.0.0.1:0 --json"),
			world{in: strings.NewReader(""), out: &out, err: &errs, environ: []string{"LAPWING_KAFKA_BOOTSTRAP_SERVERS=" + b.broker}})
	}()
	awaitTopic(t, b.broker, "cars.scores")
	type record struct {
		Version int
		Score   float64
		Anomaly bool
	}
	read := func(n int) (out []record) {
		for line := range strings.Lines(b.ok(fmt.Sprintf("tail scores --topic cars --from-beginning -n %d --json", n))) {
			var r struct{ Value record }
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatal(err)
			}
			out = append(out, r.Value)
		}
		return out
	}
	n := 1000
	read(n)
	b.ok("models threshold cars --score 0")
	var scores []record
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		b.ok("generate cars --rate 0 --count 100 --cars 20 --topic cars --seed 2")
		n += 100
		if scores = read(n); scores[n-1].Version == 2 {
			break
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	seen := map[int]int{}
	for _, s := range scores {
		seen[s.Version]++
		if s.Version == 2 && !s.Anomaly {
			t.Fatalf("%+v", s)
		}
	}
	if len(scores) != n || seen[1] < 1000 || seen[2] == 0 || seen[1]+seen[2] != n {
		t.Errorf("%d records, by version %v", len(scores), seen)
	}
}

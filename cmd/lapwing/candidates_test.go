package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/lapwing-stream/lapwing/trainer"
)

func TestCandidatesAreShown(t *testing.T) {
	b := newBed(t)
	b.ok("generate cars --rate 0 --count 1000 --cars 5 --topic cars")
	text := b.ok("train --topic cars --model cars --epochs 1 --candidates 3 --vary width")
	b.has(strings.Join(strings.Fields(text), " "), "candidates 3 by width, taken by the highest average precision on anomalies injected into the validation rows: layers ")
	b.has(text, "validation loss  average precision  steps", "\n            *  ", "(no label)", "published   cars/1")
	r := b.object("train --topic cars --model cars --epochs 1 --candidates 22 --json --alias none")
	tried := r["candidates"].(map[string]any)["tried"].([]any)
	if len(tried) != 22 || r["candidates"].(map[string]any)["criterion"] != "validation_loss" {
		t.Errorf("%v", r["candidates"])
	}
	b.has(b.ok("train --topic cars --model cars --epochs 1 --candidates 22 --alias none"), "and 2 more; --json has all")
	b.has(b.ok("models show cars/2"), "candidates=22", "vary=seed", "criterion=validation_loss", "candidate=seed")
	_, stderr, code := runIn(t, []string{"LAPWING_KAFKA_BOOTSTRAP_SERVERS=" + b.broker}, splitWords(t, "train --topic cars --model cars --key car --epochs 1 --per-key --max-keys 1 --alias none --resume")...)
	if code != exitOK || !strings.Contains(stderr, "a run with a model for every key leaves no checkpoint: training begins at the beginning") {
		t.Errorf("--resume: exit %d, %s", code, stderr)
	}
	for line, want := range map[string]string{
		"--candidates 0":                             "0 is too small; the least is 1",
		"--candidates 2000":                          "2000 is too large; the most is 1024",
		"--candidates 12 --vary rate":                "candidates is 12; 1 to 9 by rate",
		"--candidates 3 --vary width --layers 4,2,4": "layers 4,2,4 fix the widths, and candidates by width are asked for: leave one out",
		"--candidates 3 --per-key":                   "several candidates and a model for every key are asked for",
		"--vary colour":                              "colour",
		"--per-key --resume=1f2e3d4c":                "a run with a model for every key leaves no checkpoint",
	} {
		_, stderr, code := runIn(t, []string{"LAPWING_KAFKA_BOOTSTRAP_SERVERS=" + b.broker}, splitWords(t, "train --topic cars --model cars "+line)...)
		if code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit %d, %s\nwant %s", line, code, stderr, want)
		}
	}
}

// Every key's records are scored by the key's own model, in one serve.
func TestAModelForEveryKeyIsServed(t *testing.T) {
	b := newBed(t)
	b.ok("generate cars --rate 0 --count 900 --cars 3 --topic cars")
	text := b.ok("train --topic cars --model cars --key car --time time --epochs 1 --per-key --max-keys 2")
	b.has(text, "models      key   model", "cars.car", "left out", "max_keys is 2, and it is number 3 by rows", "next:", "--where 'event.car == ")
	r := b.object("train --topic cars --model cars --key car --time time --epochs 1 --per-key --json")
	var streams strings.Builder
	rows := map[string]int{}
	for _, k := range r["keys"].([]any) {
		k := k.(map[string]any)
		if k["model"] != "cars."+k["key"].(string) || k["version"].(float64) < 1 {
			t.Errorf("%v", k)
		}
		rows[k["key"].(string)] = int(k["rows"].(float64))
		fmt.Fprintf(&streams, "  - {model: %[1]s.%[2]s, input: {topics: [cars]}, where: 'event.car == \"%[2]s\"', output: cars.%[2]s.scores, alerts: {topic: none}}\n", "cars", k["key"])
	}
	if len(rows) != 3 {
		t.Fatalf("%v", rows)
	}
	writeFile(t, "lapwing.yaml", "http: none\nstreams:\n"+streams.String())
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var out, errs buffer
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, splitWords(t, "serve --config lapwing.yaml"),
			world{in: strings.NewReader(""), out: &out, err: &errs, environ: []string{"LAPWING_KAFKA_BOOTSTRAP_SERVERS=" + b.broker}})
	}()
	for key, n := range rows {
		awaitTopic(t, b.broker, "cars."+key+".scores")
		for line := range strings.Lines(b.ok(fmt.Sprintf("tail cars.%s.scores --from-beginning -n %d --json", key, n))) {
			var got struct {
				Value struct {
					Model string
					Key   string
				}
			}
			if err := json.Unmarshal([]byte(line), &got); err != nil || got.Value.Model != "cars."+key || got.Value.Key != key {
				t.Fatalf("a score of %s: %s (%v)", key, line, err)
			}
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("serve: %v\n%s", err, errs.String())
	}
}

// While they learn a line says how many do and which leads, and one more for each where it stands.
func TestProgressOfCandidates(t *testing.T) {
	r := trainer.Progress{Stage: "fit", Epoch: 2, Epochs: 3, Validation: .25, Leader: "seed 2", SamplesPerSecond: 2e6, Running: 2, Done: .4, Candidates: []trainer.Candidate{
		{Varies: "seed 1", ValidationLoss: .5, Steps: 1200}, {Varies: "seed 2", ValidationLoss: .25, Steps: 1200}, {Varies: "seed 3", Fault: "diverged 4 times"}, {Varies: "seed 4"},
	}}
	if got, want := candidatesText(r), "  4 candidates, 2 learning  epoch 2/3  validation 0.25 (seed 2)  2.00M/s"; got != want {
		t.Errorf("%q\nwant %q", got, want)
	}
	r.Running, r.Done = 1, 1
	if got := candidatesText(r); strings.Contains(got, "learning") {
		t.Errorf("the end: %q", got)
	}
	lines := strings.Join(candidateLines(r), "\n")
	for _, want := range []string{"seed 2           validation 0.25  1,200 steps", "seed 3           diverged", "seed 4           waits"} {
		if !strings.Contains(lines, want) {
			t.Errorf("no %q in\n%s", want, lines)
		}
	}
	r.Candidates = append(r.Candidates, make([]trainer.Candidate, 10)...)
	if got := candidateLines(r); len(got) != 9 || !strings.Contains(got[8], "and 6 more") {
		t.Errorf("%q", got)
	}
}

package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/server"
)

func TestModelsDiffText(t *testing.T) {
	manifest, a, _ := shownModel()
	_, b, _ := shownModel()
	other := manifest
	other.Version, other.Digest, other.Created = 3, strings.Repeat("3c", 32), manifest.Created.AddDate(0, 0, 1)
	b.Threshold, b.Lineage.Seed, b.Lineage.Threshold = 3.5, 8, nil
	b.Spec.Fields = append(b.Spec.Fields[1:], model.Field{Name: "gear\x1b", Type: model.Category, Categories: []string{"d", "r"}})
	b.Lineage.Partitions = append(b.Lineage.Partitions[:1:1], model.PartitionRange{Partition: 4, To: 7, Records: 7})
	b.Lineage.Settings = map[string]string{"alarm_rate": "0.001", "epochs": "20"}
	b.Lineage.Metrics = map[string]float64{"rate_used": .001, "average_precision": .7}
	a.Lineage.Usual, b.Lineage.Usual = map[string]model.Range{"load": {0, 1}, "speed": {0, 240}}, map[string]model.Range{"load": {0, 1}, "speed": {-3, 200}}
	sides := [2]diffSide{{manifest: manifest, model: a}, {manifest: other, model: b}}
	var out bytes.Buffer
	app := &app{world: world{out: &out}}
	app.term = newTerminal(app.out, app.getenv)
	c := model.Compare(a, b)
	app.showComparison(sides, &c)
	r := .91234
	app.showAgreement(sides, &server.Agreement{
		Records: 1000, Scored: 996, Correlation: &r, FlaggedA: 12, FlaggedB: 9, FlaggedBoth: 8, Warming: 40,
		NotScoredA: map[string]int{"not_json": 3, "tombstone": 1}, NotScoredB: map[string]int{"tombstone": 1},
		Most: []server.Disagreement{
			{Topic: "cars", Partition: 2, Offset: 1_234_567, Key: "car-\x1b7", A: server.Verdict{Score: 1.5, Percentile: 71.234}, B: server.Verdict{Score: 9.25, Percentile: 99.99, Anomaly: true}},
			{Topic: "cars", Partition: 0, Offset: 8, A: server.Verdict{Score: 4, Percentile: 99.5, Anomaly: true}, B: server.Verdict{Score: .5, Percentile: 12}},
		},
	}, "cars")
	b.Spec.Rolling = 10
	app.showAgreement(sides, &server.Agreement{Records: 3, Scored: 3}, "cars")
	b.Spec.Rolling = 0
	app.showAgreement(sides, &server.Agreement{Records: 3, NotScoredA: map[string]int{"no_features": 3}}, "cars")
	same := model.Compare(a, a)
	app.showComparison([2]diffSide{sides[0], sides[0]}, &same)
	golden(t, "models_diff.golden", out.Bytes())
}

func TestModelsDiff(t *testing.T) {
	b := newBed(t)
	b.ok("generate cars --rate 0 --count 2000 --cars 10 --topic cars")
	b.ok("train --topic cars --model cars --layers 4 --epochs 1")
	b.ok("train --topic cars --model cars --layers 6,3,6 --epochs 3 --exclude speed --alias canary")
	text := b.ok("models diff cars@live cars@canary")
	b.has(text, "cars/1", "cars/2", "\n* network                    4                              6-3-6\n", "\n* speed                      number", "\nsample      1,000 records of topic cars, spread evenly; 1,000 scored by both\n", "\nranks       correlation 0.", "\ndiffer most ")
	got := b.object("models diff cars/1 cars/2 --sample 300 --json")
	sample := got["sample"].(map[string]any)
	if sample["records"] != 300.0 || sample["scored"] != 300.0 || got["sample_topic"] != "cars" || got["a_name"] != "cars/1" || len(sample["most_different"].([]any)) != 5 {
		t.Errorf("%v", got)
	}
	if again := b.object("models diff cars/1 cars/2 --sample 300 --json")["sample"].(map[string]any); again["rank_correlation"] != sample["rank_correlation"] {
		t.Errorf("the same sample is another one the second time: %v, %v", sample, again)
	}
	if same := b.object("models diff cars/1 cars/1 --json")["sample"].(map[string]any); same["rank_correlation"] != 1.0 || len(same["most_different"].([]any)) != 0 {
		t.Errorf("a model differs from itself: %v", same)
	}
	if none := b.object("models diff cars/1 cars/2 --sample 0 --json"); none["sample"] != nil || none["no_sample"] != "--sample is 0" {
		t.Errorf("%v", none)
	}
	// Models of a topic that is gone are compared all the same; one that was asked for must be there.
	elsewhere := newBed(t)
	for _, name := range []string{"cars", "cars@canary"} {
		file := t.TempDir() + "/m.onnx"
		b.ok("models export " + name + " --to " + file)
		elsewhere.ok("models import " + file + " --model cars")
	}
	elsewhere.has(elsewhere.ok("models diff cars/1 cars/2"), "\nsample      no scores were compared: topic cars does not exist", "\n* network")
	_, stderr := elsewhere.fails("models diff cars/1 cars/2 --topic cars")
	elsewhere.has(stderr, "lapwing: topic cars does not exist")
}

package main

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/registry"
)

// shownModel is a model whose every part has something to show.
func shownModel() (registry.Manifest, *model.Model, *registry.Entry) {
	made := time.Date(2026, 11, 25, 14, 0, 0, 0, time.UTC)
	parent := strings.Repeat("ab", 32)
	m := &model.Model{Program: &kernels.Program{}, Threshold: 2.75}
	m.Spec.Fields = []model.Field{
		{Name: "speed", Type: model.Number}, {Name: "amount", Type: model.Number, Log1p: true}, {Name: "load", Type: model.Number, Log1p: true},
		{Name: "state", Type: model.Category, Categories: []string{"idle", "run"}},
	}
	for i, p := range model.Levels() {
		m.Quantiles = append(m.Quantiles, model.Quantile{P: p, Score: float64(i) / 64})
	}
	m.Lineage = model.Lineage{
		Cluster: "c1", Topic: "cars", Engine: "cpu/portable", Seed: 7, Parent: parent,
		Partitions: []model.PartitionRange{{Partition: 0, From: 120, To: 51_120, Records: 50_000, Lost: 1000}, {Partition: 3, From: 0, To: 9, Records: 9}},
		Rows:       model.Rows{Read: 50_009, Used: 49_990, Validation: 4999, Warming: 45, LeftOut: map[string]int64{"tombstone": 12, "not_json": 7}},
		Settings:   map[string]string{"alarm_rate": "0.0001", "epochs": "20", "detector": "blend"},
		Parts:      map[string]int64{"threshold": 49_990, "trim": 49_990, "prototypes": 37_493, "later": 5, "autoencoder": 300_000},
		Metrics:    map[string]float64{"rate_used": .0002, "share_above": .000186, "validation_loss": .12345678},
		Notes: []model.ColumnNote{
			{Name: "vin", Note: "left out: named like an identifier"}, {Name: "fuel", Note: "constant 7; any other value adds at most 3 to the residual"},
			{Name: "amount", Note: "log1p: the 99th percentile is 812 times the median of the positive values"},
			{Name: "speed", Note: "extreme values: 3 rows outside -5 to 240 (found: -5 to 1e+06), clipped there"},
			{Name: "load", Note: "missing in 40 of 49990 rows, taken as the imputed value"}, {Name: "load", Note: "another type than number in 2 records, taken as missing"},
			{Name: "state\x1b[2J", Note: "mixed types: 2 texts"},
		},
	}
	m.Lineage.Threshold = &model.ThresholdChoice{Method: model.ByQuantile, Asked: 1e-4, Used: 2e-4, Above: 1.86e-4, Low: 8e-5, High: 3.5e-4, Rows: 49_990, Few: true}
	m.Lineage.Span = &model.Span{From: made.Add(-48 * time.Hour).UnixMilli(), To: made.UnixMilli(), RecordsPerDay: 25_000}
	for i := range 100 {
		m.Lineage.Curve = append(m.Lineage.Curve, model.Epoch{Epoch: i + 1, Train: math.Exp(-float64(i) / 10), Validation: 1.1 * math.Exp(-float64(i)/10)})
	}
	manifest := registry.Manifest{Name: "cars", Version: 2, Format: 1, Digest: strings.Repeat("0f", 32), Bytes: 61_234, Parts: 1, Created: made, By: "ann@host", Parent: parent}
	entry := &registry.Entry{Name: "cars", Versions: []registry.Version{{Manifest: registry.Manifest{Name: "cars", Version: 1, Digest: parent, Created: made, By: "bob@host"}}, {Manifest: manifest}}}
	return manifest, m, entry
}

func TestModelsShowText(t *testing.T) {
	manifest, m, entry := shownModel()
	var out bytes.Buffer
	a := &app{world: world{out: &out}}
	a.term = newTerminal(a.out, a.getenv)
	a.describe(manifest, m, entry)
	golden(t, "models_show.golden", out.Bytes())
	out.Reset()
	a.describe(manifest, m, nil)
	if want := "digest " + m.Lineage.Parent + ", which no version has now"; !strings.Contains(out.String(), want) {
		t.Errorf("without the parent's version:\n%s", &out)
	}
}

func TestCurveLine(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   string
	}{
		{[]float64{128, 64, 32, 16, 8, 4, 2, 1}, "█▇▆▅▄▃▂▁"}, {[]float64{0, 1, 2, 7}, "▁▂▃█"}, {[]float64{1, 1, 1}, "▁▁▁"}, {[]float64{2}, "▁"}, {[]float64{1, math.NaN(), 3, math.Inf(1)}, "▁!█!"},
		{[]float64{8, 8, 1, 1, 1, 1, 8, 8, 8, 8, 1, 1, 1, 1, 1, 1}, "█▁▁██▁▁▁"}, {nil, ""},
	} {
		if got := curveLine(c.values, 8); got != c.want {
			t.Errorf("%v: %s, want %s", c.values, got, c.want)
		}
	}
}

// What a training writes about columns is found under its heading: the words that sort notes are those that are written.
func TestModelsShowSortsRealNotes(t *testing.T) {
	b := newBed(t)
	var rows strings.Builder
	rows.WriteString("id,still,skewed,spiked,gaps,plain\n")
	for i := range 800 {
		spike, gap := fmt.Sprint(10+i%7), fmt.Sprint(i%5)
		if i == 99 {
			spike = "1e9"
		}
		if i%50 == 0 {
			gap = ""
		}
		fmt.Fprintf(&rows, "car-%d,7,%g,%s,%s,%d\n", i, math.Exp(float64(i*7919%800)/40), spike, gap, i*31%97)
	}
	writeFile(t, "a.csv", rows.String())
	b.ok("load a.csv --topic t")
	b.ok("train --topic t --model m --layers 4 --epochs 1")
	show := b.ok("models show m/1")
	b.has(show, "\nno feature id: ", "\nskewed     skewed: log1p", "\nclipped    spiked: extreme values", "\nimputed    gaps: missing in 16 of 800 rows", "\nconstant   still: left out: constant 7\n")
	b.has(show, "\nhistory    topic t of cluster ", " partition ", "\nloss       validation ", "\nscores ")
	b.has(show, "\ndetector   blend\n           rows seen by each part: trim ")
	object := b.object("models show m/1 --json")
	scores := object["scores"].([]any)
	columns := object["columns"].(map[string]any)
	if len(scores) != 6 || scores[5].(map[string]any)["p"] != 1.0 || len(columns["skewed"].([]any)) == 0 || len(columns["left out"].([]any)) == 0 {
		t.Errorf("%v %v", scores, columns)
	}
}

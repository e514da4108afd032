package model

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lapwing-stream/lapwing/kernels"
)

func TestCompare(t *testing.T) {
	five := 5.
	a := &Model{Program: &kernels.Program{}, Threshold: 1}
	a.Spec.Fields = []Field{{Name: "same", Type: Number}, {Name: "gone", Type: Boolean}, {Name: "retyped", Type: Number}, {Name: "grown", Type: Category, Categories: []string{"x"}}}
	a.Lineage = Lineage{
		Topic: "t", Seed: 1, Rows: Rows{Read: 10, Used: 9}, Settings: map[string]string{"epochs": "20", "rate": "1", "old": "x"}, Metrics: map[string]float64{"loss": 1},
		Usual:      map[string]Range{"same": {0, 1}, "retyped": {0, 2}},
		Partitions: []PartitionRange{{Partition: 2, To: 5}, {Partition: 10, To: 5}},
	}
	b := &Model{Program: &kernels.Program{}, Threshold: 2}
	b.Spec.Fields = []Field{{Name: "same", Type: Number}, {Name: "retyped", Type: Number, Log1p: true, Clip: []float64{0, 9}, Missing: &five}, {Name: "grown", Type: Category, Categories: []string{"x", "y"}}, {Name: "new", Type: Number}}
	b.Lineage = Lineage{
		Topic: "t", Seed: 1, Rows: Rows{Read: 20, Used: 20}, Settings: map[string]string{"epochs": "20", "rate": "2"}, Metrics: map[string]float64{"loss": 1, "ap": .5},
		Usual:      map[string]Range{"same": {0, 1}, "retyped": {-1, 2}},
		Partitions: []PartitionRange{{Partition: 2, To: 9}}, Threshold: &ThresholdChoice{Method: ByScore},
	}
	c := Compare(a, b)
	text := func(s string) *string { return &s }
	if d := cmp.Diff([]Pair[string]{
		{"gone", text("boolean"), nil}, {"grown", text("category of 1 values"), text("category of 2 values")}, {"new", nil, text("number")},
		{"retyped", text("number"), text("number, log1p, clipped to 0 to 9, 5 where missing")},
	}, c.Features); d != "" || c.SameFields != 1 {
		t.Errorf("features, %d the same: %s", c.SameFields, d)
	}
	if d := cmp.Diff([]Pair[string]{{"old", text("x"), nil}, {"rate", text("1"), text("2")}}, c.Settings); d != "" {
		t.Errorf("settings: %s", d)
	}
	if d := cmp.Diff([]Pair[Range]{{"retyped", &Range{0, 2}, &Range{-1, 2}}}, c.Ranges); d != "" {
		t.Errorf("ranges: %s", d)
	}
	if d := cmp.Diff([]Pair[PartitionRange]{
		{"2", &PartitionRange{Partition: 2, To: 5}, &PartitionRange{Partition: 2, To: 9}}, {"10", &PartitionRange{Partition: 10, To: 5}, nil},
	}, c.Partitions); d != "" {
		t.Errorf("partitions: %s", d)
	}
	if len(c.Metrics) != 2 || c.Metrics[0].A != nil || *c.Metrics[0].B != .5 || *c.Metrics[1].A != 1 {
		t.Errorf("metrics: %+v", c.Metrics)
	}
	if *c.Threshold.A != 1 || *c.Threshold.B != 2 || c.Choice.A != nil || c.Choice.B.Method != ByScore || c.Layers.A != nil {
		t.Errorf("%+v", c)
	}
	if same := Compare(a, a); len(same.Features)+len(same.Settings)+len(same.Ranges) != 0 || same.SameFields != 4 {
		t.Errorf("a model differs from itself: %+v", same)
	}
}

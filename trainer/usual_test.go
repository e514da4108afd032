package trainer

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lapwing-stream/lapwing/model"
)

// The usual range is in raw units, leaves out the outermost values (here ten at each end), and is that of
// numbers alone.
func TestUsualRangesOfAHistory(t *testing.T) {
	b := newBench(t)
	var records []string
	for i := range 2000 {
		records = append(records, fmt.Sprintf(`{"flat":%d,"heavy":%d,"never":null,"mode":"%c","on":%v}`, i, i, "ab"[i%2], i%2 == 0))
	}
	b.topic("t", 2, values(2, records...)...)
	o := quick("t")
	o.Spec = &model.Spec{Format: "json", Fields: []model.Field{
		{Name: "flat", Type: model.Number},
		{Name: "heavy", Type: model.Number, Log1p: true},
		{Name: "mode", Type: model.Category, Categories: []string{"a", "b"}},
		{Name: "on", Type: model.Boolean},
	}}
	got := b.mustRun(o).Model.Lineage.Usual
	for name, r := range got {
		// log1p and back may be a rounding off, and quantiles of many values are of buckets.
		for i, want := range []float32{10, 1989} {
			if d := r[i] - want; d > 2 || d < -2 {
				t.Errorf("%s: %v", name, r)
			}
		}
	}
	if diff := cmp.Diff([]string{"flat", "heavy"}, slices.Sorted(maps.Keys(got))); diff != "" {
		t.Error(diff)
	}
}

package trainer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/stream"
)

// swinging is a history of keys whose signal swings as one: what is odd about a row shows in its neighbours only.
func swinging(seed uint64, n, keys, partitions int) []stream.Record {
	r := rand.New(rand.NewPCG(seed, 9))
	out := make([]stream.Record, n)
	for i := range out {
		key := r.IntN(keys)
		out[i] = stream.Record{
			Partition: int32(key % partitions), Key: fmt.Appendf(nil, "m%d", key), Time: start + int64(i)*1000,
			Value: fmt.Appendf(nil, `{"x":%.4f,"on":%v,"kind":"%c"}`, math.Sin(float64(i)/40)+.1*r.NormFloat64(), r.IntN(9) > 0, "ab"[key%2]),
		}
	}
	return out
}

func rollingOptions(topic string) Options {
	o := quick(topic)
	o.Rolling, o.Epochs, o.Alias = 10, 1, "none"
	return o
}

func TestRolling(t *testing.T) {
	b := newBench(t)
	b.topic("t", 2, swinging(1, 1200, 5, 2)...)
	r := b.mustRun(rollingOptions("t"))
	want := []string{"x", "x.mean10", "x.sd10", "on", "on.mean10", "on.sd10", "kind=a", "kind=b", "kind=?"}
	if got := r.Spec.Columns(); !slices.Equal(got, want) {
		t.Fatalf("columns %q, want %q", got, want)
	}
	// Nine records of each of five keys have fewer than ten to look back on; the first has no deviation.
	if r.Rows.Warming != 45 || r.Rows.Used != 1200 || r.Columns[2].Missing != 5 || r.Columns[1].Missing != 0 {
		t.Errorf("rows %+v; column %+v", r.Rows, r.Columns[2].Summary)
	}
	if x, mean := r.Columns[0], r.Columns[1]; mean.Deviation > .95*x.Deviation || mean.Min == x.Min {
		t.Errorf("the mean of ten varies as the values do: %+v beside %+v", mean.Summary, x.Summary)
	}
	m, err := model.Decode(r.Data)
	if err != nil {
		t.Fatal(err)
	}
	if m.Spec.Rolling != 10 || m.Lineage.Rows.Warming != 45 || m.Lineage.Settings["rolling"] != "10" || m.Lineage.Settings["rolling_keys"] != "100000" {
		t.Errorf("the model says rolling %d, rows %+v, settings %v", m.Spec.Rolling, m.Lineage.Rows, m.Lineage.Settings)
	}
	var text strings.Builder
	if err := r.Write(&text); err != nil || !strings.Contains(text.String(), "a key's last 10 records; 45 rows had fewer") {
		t.Errorf("report: %v\n%s", err, text.String())
	}
}

// A spec that says rolling is enough; the option goes before it.
func TestRollingOfTheSpec(t *testing.T) {
	b := newBench(t)
	b.topic("t", 1, swinging(2, 300, 2, 1)...)
	o := rollingOptions("t")
	o.DryRun, o.Rolling = true, 0
	o.Spec = &model.Spec{Format: "json", Rolling: 4, Fields: []model.Field{{Name: "x", Type: model.Number}}}
	if r := b.mustRun(o); r.Rows.Warming != 6 || r.Spec.Columns()[1] != "x.mean4" {
		t.Errorf("rows %+v, columns %q", r.Rows, r.Spec.Columns())
	}
	o.Rolling = 3
	if r := b.mustRun(o); r.Rows.Warming != 4 || r.Spec.Columns()[1] != "x.mean3" || o.Spec.Rolling != 4 {
		t.Errorf("rows %+v, columns %q", r.Rows, r.Spec.Columns())
	}
	o.Rolling = 1
	if _, err := b.run(o); err == nil || !strings.Contains(err.Error(), "rolling is 1 records; 2 to 1000") {
		t.Errorf("%v", err)
	}
}

// Windows are of records by offset: what a clock says has no part in them.
func TestRollingFollowsOffsets_Case1_13(t *testing.T) {
	b := newBench(t)
	records := swinging(3, 1000, 3, 1)
	odd := slices.Clone(records)
	odd[10].Time, odd[500].Time, odd[20].Time, odd[700].Time = -1, 0, 9_223_372_036_854, 86_400_000
	b.topic("even", 1, records...)
	b.topic("odd", 1, odd...)
	even, got := b.mustRun(rollingOptions("even")), b.mustRun(rollingOptions("odd"))
	if got.Rows.Used != 1000 || got.Rows.Validation != 100 || got.Rows.Warming != 27 {
		t.Errorf("%+v", got.Rows)
	}
	if !reflect.DeepEqual(got.Columns, even.Columns) || got.Threshold != even.Threshold {
		t.Errorf("odd timestamps change columns or threshold: %v, %v without", got.Threshold, even.Threshold)
	}
	// The last tenth by offset, whatever the times: the fit and its validation are the same too.
	if !reflect.DeepEqual(got.Model.Program, even.Model.Program) {
		t.Error("odd timestamps change the program")
	}
}

// A gap in time does not cut a window by records; what is read is the same whatever its threads.
func TestRollingAcrossAGap_Case4_15(t *testing.T) {
	b := newBench(t)
	records := swinging(4, 1000, 2, 1)
	gap := slices.Clone(records)
	for i := 500; i < len(gap); i++ {
		gap[i].Time += 6 * 3600 * 1000
	}
	b.topic("even", 1, records...)
	b.topic("gap", 1, gap...)
	even, got := b.mustRun(rollingOptions("even")), b.mustRun(rollingOptions("gap"))
	if got.Rows.Warming != 18 || !reflect.DeepEqual(got.Columns, even.Columns) {
		t.Errorf("%+v", got.Rows)
	}
}

// Partitions share nothing, and so neither threads nor the order in which they arrive have a say; not even where more
// keys come than are held.
func TestRollingWithAnyThreads_Case8_10(t *testing.T) {
	b := newBench(t)
	b.topic("t", 5, swinging(5, 3000, 40, 5)...)
	o := rollingOptions("t")
	o.RollingKeys = 5
	var digest string
	for _, threads := range []int{1, 2, 5} {
		o.Threads = threads
		r := b.mustRun(o)
		if digest == "" {
			digest = model.Digest(r.Data)
			if r.Rows.Warming < 1000 {
				t.Errorf("%d of 3000 rows are warming: five of eight keys a partition should not do", r.Rows.Warming)
			}
			if !slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.Contains(w, "fewer than 10 records of their key") }) {
				t.Errorf("warnings %q", r.Warnings)
			}
		}
		if got := model.Digest(r.Data); got != digest {
			t.Errorf("%d threads: %s, with one %s", threads, got, digest)
		}
	}
}

// A sensor that repeats its last reading shows no odd value in any record: only its neighbours tell.
func TestRollingFindsWhatNoRowShows(t *testing.T) {
	b := newBench(t)
	r := rand.New(rand.NewPCG(6, 6))
	var rows []string
	for i := range 4000 {
		x, y := r.NormFloat64(), r.NormFloat64()
		stuck := i%1000 >= 900 && i%1000 < 930
		if stuck {
			x = .3
		}
		rows = append(rows, fmt.Sprintf(`{"x":%.3f,"y":%.3f,"stuck":%v}`, x, y, stuck))
	}
	b.topic("t", 1, values(1, rows...)...)
	o := rollingOptions("t")
	o.Label, o.Layers, o.Epochs = "stuck", nil, 20
	with := b.mustRun(o).Judgement.AUC
	o.Rolling = 0
	without := b.mustRun(o).Judgement.AUC
	if with < .7 || without > .5 {
		t.Errorf("area under the ROC curve %.3f with the last ten records, %.3f without", with, without)
	}
	t.Logf("area under the ROC curve %.3f with the last ten records, %.3f without", with, without)
}

package trainer

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/stream"
)

// A topic of several kinds of records with a filter gives what a topic of the one kind gives: spec, rows, threshold, scores.
func TestWhere(t *testing.T) {
	b := newBench(t)
	rows := machine(1, 2000)
	var mixed, plain []stream.Record
	for i, row := range rows {
		at := start + int64(i)*1000
		v := []byte(`{"kind":"reading","site":{"id":7},` + row[1:])
		plain = append(plain, stream.Record{Value: v, Time: at})
		mixed = append(mixed,
			stream.Record{Value: fmt.Appendf(nil, `{"kind":"heartbeat","uptime":%d}`, i), Time: at}, // no features: no dead letters of training either
			stream.Record{Value: v, Time: at},
			stream.Record{Value: fmt.Appendf(nil, `{"kind":"reading","site":{"id":8},"load":%d,"temp":-9,"flow":1e6,"volts":0}`, i), Time: at})
	}
	mixed = append(mixed, stream.Record{Key: []byte("k"), Time: start}, stream.Record{Value: []byte("{"), Time: start})
	b.topic("mixed", 1, mixed...)
	b.topic("plain", 1, plain...)
	o := quick("plain")
	o.Exclude = []string{"site.id"}
	want := b.mustRun(o)
	o.Topic, o.Where, o.Rolling = "mixed", `event.kind == "reading" && event.site.id == 7`, 0
	got := b.mustRun(o)
	if got.Threshold != want.Threshold || !reflect.DeepEqual(got.Model.Quantiles, want.Model.Quantiles) || !reflect.DeepEqual(got.Spec, want.Spec) {
		t.Errorf("filtered: threshold %v, want %v; spec %+v, want %+v", got.Threshold, want.Threshold, got.Spec, want.Spec)
	}
	if got.Rows.Read != 6002 || got.Rows.Used != 2000 || fmt.Sprint(got.Rows.LeftOut) != "map[not_json:1 tombstone:1 where:4000]" {
		t.Errorf("rows %+v", got.Rows)
	}
	if got.Model.Lineage.Settings["where"] != o.Where || got.Model.Lineage.Rows.LeftOut["where"] != 4000 {
		t.Errorf("lineage %+v, %v", got.Model.Lineage.Rows, got.Model.Lineage.Settings)
	}
	var text strings.Builder
	if err := got.Write(&text); err != nil || !strings.Contains(text.String(), "left out    4,000 by the filter\n") {
		t.Errorf("%v\n%s", err, text.String())
	}
	// One record in three that the filter keeps cannot be decoded: the others do not hide that.
	o.Where = `event.kind == "heartbeat" || event.site.id == 7`
	o.Spec = &want.Spec
	if _, err := b.run(o); !errors.Is(err, ErrRejected) {
		t.Errorf("half of what the filter keeps has no features: %v", err)
	}
}

func TestWhereKeepsNextToNothing(t *testing.T) {
	b := newBench(t)
	b.topic("t", 2, values(2, machine(1, 1000)...)...)
	for _, c := range []struct {
		where, what, next string
		kind              error
	}{
		{`event.lod > 0.5`, `field "lod" of the filter is in none of 1000 records, and 0 rows came through`, "did you mean load?", ErrNoField},
		{`event.load > 0.98`, "by the filter; need at least 100", "a wider filter", ErrTooFewRows},
	} {
		o := quick("t")
		o.Where = c.where
		_, err := b.run(o)
		var e *InputError
		if !errors.As(err, &e) || !strings.Contains(e.What, c.what) || !strings.Contains(e.Next, c.next) || !errors.Is(err, c.kind) {
			t.Errorf("%s: %v", c.where, err)
		}
	}
	// A field that is in no record need not be a slip, but is worth a line.
	o := quick("t")
	o.Where = `!has(event.alarm) && event.load <= 1`
	if r := b.mustRun(o); r.Rows.Used != 1000 || len(r.Warnings) == 0 || !strings.Contains(strings.Join(r.Warnings, "\n"), "field alarm of the filter is in none of the 1,000 records") {
		t.Errorf("rows %+v, warnings %q", r.Rows, r.Warnings)
	}
	o.Where = `event.load = 1`
	var fault *events.WhereError
	if err := o.Validate(); !errors.As(err, &fault) || fault.Column != 12 {
		t.Errorf("a broken filter: %v", err)
	}
}

// Windows hold the records of the filter, in the sample or not.
func TestWhereAndSampleWithRollingFeatures(t *testing.T) {
	b := newBench(t)
	var all, kept []stream.Record
	for i, row := range machine(1, 1200) {
		key := fmt.Appendf(nil, "k%d", i%5)
		r := stream.Record{Key: key, Value: []byte(`{"kind":1,` + row[1:]), Time: start + int64(i)*1000}
		kept = append(kept, r)
		all = append(all, r, stream.Record{Key: key, Value: []byte(`{"kind":2,"load":1e9,"temp":0,"flow":0,"volts":0}`), Time: r.Time})
	}
	b.topic("all", 1, all...)
	b.topic("kept", 1, kept...)
	o := quick("kept")
	o.Rolling, o.Exclude = 4, []string{"kind"}
	want := b.mustRun(o)
	o.Topic, o.Where = "all", "event.kind == 1"
	got := b.mustRun(o)
	if got.Threshold != want.Threshold || !reflect.DeepEqual(got.Model.Quantiles, want.Model.Quantiles) {
		t.Errorf("threshold %v, want %v", got.Threshold, want.Threshold)
	}
	o.Topic, o.Where, o.Sample = "kept", "", "50%"
	half := b.mustRun(o)
	// Each sampled row has the windows of the whole: a window of sampled records would be another.
	rows := map[string]bool{}
	for _, p := range fitRows(t, b, want, "kept", 0) {
		rows[p] = true
	}
	for _, p := range half.Model.SelfTest.Rows {
		if !rows[fmt.Sprint(p)] {
			t.Fatalf("row %v of the sample is no row of the whole", p)
		}
	}
}

// fitRows are the rows of a topic as a model's decoder makes them.
func fitRows(t *testing.T, b *bench, r *Report, topic string, partition int32) (out []string) {
	t.Helper()
	d, err := events.Compile(r.Spec)
	if err != nil {
		t.Fatal(err)
	}
	w := events.NewWindows(d, 1000)
	ranges, err := b.client.Ranges(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	h, err := b.client.ReadRanges(t.Context(), topic, ranges[partition:partition+1], stream.HistoryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	row := make([]float32, d.Columns())
	for {
		batch, err := h.Next(t.Context())
		if err != nil {
			return out
		}
		for _, rec := range batch.Records {
			d.DecodeNext(w, rec.Key, rec.Value, row)
			out = append(out, fmt.Sprint(row))
		}
		batch.Release()
	}
}

package trainer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lapwing-stream/lapwing/stream"
)

func TestSelectionReportsEveryFault(t *testing.T) {
	for _, c := range []struct {
		is   Selection
		want []string // of the message; none: valid
	}{
		{Selection{}, nil},
		{Selection{From: "earliest", Until: "2026-11-25", Partitions: "0,3,5-7", Sample: "5%"}, nil},
		{Selection{Last: time.Hour, Until: "2026-11-25", Sample: "1"}, nil},
		{Selection{From: "soon", Until: "earliest", Partitions: "1,x", Sample: "0", Last: -1}, []string{`from: "soon" is no time`, `until: "earliest" is no time`, `"x" is neither`, `sample is "0"`, "last is -1ns"}},
		{Selection{From: "2026-11-25", Until: "2026-11-25"}, []string{"from 2026-11-25 is not before until 2026-11-25"}},
		{Selection{From: "2026-11-25", Last: time.Hour}, []string{"both say where to begin"}},
		{Selection{From: "1969-12-31"}, []string{"lies before 1970"}},
		{Selection{From: "0:1500,1-5:900", Until: "end"}, nil},
		{Selection{From: "0:100,1:100", Until: "0:101,2:0"}, nil},
		{Selection{From: "2026-11-25", Until: "0:100"}, nil},
		{Selection{From: "0:100", Until: "1:50,0:100"}, []string{"from 0:100 is not before until 1:50,0:100"}},
		{Selection{From: "1500"}, []string{`"1500" is no time and names no partition`}},
		{Selection{From: "0:1,0-3:2"}, []string{"partition 0 is named twice"}},
		{Selection{From: "0:x", Until: "1:-5"}, []string{`from: "0:x" is no time`, `until: "1:-5" is no offset of a partition`}},
		{Selection{Last: time.Hour, Until: "0:100"}, []string{"until names offsets"}},
		{Selection{Partitions: "7-5"}, []string{`"7-5"`}},
		{Selection{Partitions: "0-99999999999"}, []string{"99999999999"}},
		{Selection{Partitions: "-1"}, []string{`"-1"`}},
		{Selection{Sample: "120%"}, []string{"sample"}},
		{Selection{Sample: "-3"}, []string{"sample"}},
		{Selection{Sample: "NaN"}, []string{"sample"}},
	} {
		err := c.is.Validate()
		if (err == nil) != (c.want == nil) {
			t.Errorf("%+v: %v", c.is, err)
		}
		for _, w := range c.want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%+v: %v, want %q in it", c.is, err, w)
			}
		}
	}
	if p, err := parsePartitions("5-7, 0,3,6"); err != nil || !slices.Equal(p, []int32{0, 3, 5, 6, 7}) {
		t.Errorf("partitions %v, %v", p, err)
	}
	o := quick("t")
	o.Ranges, o.From = []stream.Range{{To: 5}}, "2026-01-01"
	if err := o.Validate(); err == nil || !strings.Contains(err.Error(), "give one of them") {
		t.Errorf("ranges and a selection: %v", err)
	}
}

// The same choice by hand: of records of one a second over three partitions, those in the time asked.
func TestSelectionFindsItsRecords(t *testing.T) {
	b := newBench(t)
	b.topic("t", 3, values(3, machine(1, 900)...)...)
	at := func(second int) string { return time.UnixMilli(start + int64(second)*1000).UTC().Format(time.RFC3339) }
	for _, c := range []struct {
		name string
		is   Selection
		want string
	}{
		{"all", Selection{}, "[{0 0 300} {1 0 300} {2 0 300}]"},
		{"earliest", Selection{From: Earliest}, "[{0 0 300} {1 0 300} {2 0 300}]"},
		{"from", Selection{From: at(301)}, "[{0 101 300} {1 100 300} {2 100 300}]"},
		{"until, which is not part of it", Selection{Until: at(300)}, "[{0 0 100} {1 0 100} {2 0 100}]"},
		{"both, with an offset", Selection{From: time.UnixMilli(start + 300_000).In(time.FixedZone("", 3600)).Format(time.RFC3339), Until: at(600)}, "[{0 100 200} {1 100 200} {2 100 200}]"},
		{"the last minute, of the latest record and not of today", Selection{Last: time.Minute}, "[{0 280 300} {1 280 300} {2 279 300}]"},
		{"the last minute before a time", Selection{Last: time.Minute, Until: at(300)}, "[{0 80 100} {1 80 100} {2 80 100}]"},
		{"longer than there is", Selection{Last: 100 * 365 * 24 * time.Hour}, "[{0 0 300} {1 0 300} {2 0 300}]"},
		{"partitions", Selection{Partitions: "2,0"}, "[{0 0 300} {2 0 300}]"},
		{"the last of one partition", Selection{Partitions: "0", Last: 3 * time.Second}, "[{0 298 300}]"},
		{"until after the end", Selection{Until: "2100-01-01"}, "[{0 0 300} {1 0 300} {2 0 300}]"},
		{"until the end", Selection{Until: End}, "[{0 0 300} {1 0 300} {2 0 300}]"},
		{"offsets", Selection{From: "0:10,2:30", Until: "1-2:200"}, "[{0 10 300} {1 0 200} {2 30 200}]"},
		{"the end as an offset", Selection{From: "0-1:299", Until: "0-2:300"}, "[{0 299 300} {1 299 300} {2 0 300}]"},
		{"an offset and a time", Selection{From: "0-2:90", Until: at(300)}, "[{0 90 100} {1 90 100} {2 90 100}]"},
		{"an offset behind a time", Selection{From: "0:110", Until: at(300)}, "[{0 110 110} {1 0 100} {2 0 100}]"},
		{"a time and offsets", Selection{From: at(300), Until: "0-1:150"}, "[{0 100 150} {1 100 150} {2 100 300}]"},
	} {
		got, err := c.is.Choose(t.Context(), b.client, "t")
		if err != nil || fmt.Sprint(got.Ranges) != c.want {
			t.Errorf("%s: %v, %v; want %s", c.name, got.Ranges, err, c.want)
		}
	}
	for _, c := range []struct {
		is        Selection
		what, how string
	}{
		{Selection{From: "2100-01-01"}, "no record lies in the time asked: at or after 2100-01-01T00:00:00Z", "from 2025-06-15T15:06:40Z to 2025-06-15T15:21:39Z"},
		{Selection{Until: "2001-01-01"}, "before 2001-01-01T00:00:00Z", "from 2025-06-15T15:06:40Z"},
		{Selection{From: "2001-01-01", Until: "2002-01-01"}, "from 2001-01-01T00:00:00Z to before 2002-01-01T00:00:00Z", "from 2025-06-15T15:06:40Z"},
		{Selection{From: "0:301"}, "offset 301 of partition 0 lies beyond its end: committed records end before offset 300", "t holds offsets 0 to 299 of partition 0, 0 to 299 of partition 1"},
		{Selection{Until: "3:5"}, "partition 3 is named, and is none of those that are read", "0 to 299 of partition 2"},
		{Selection{From: "0:5", Partitions: "1"}, "partition 0 is named, and is none of those", "t holds offsets 0 to 299 of partition 1"},
		{Selection{From: "0-2:300"}, "no record lies from offsets 0-2:300", "ask for others: t holds offsets 0 to 299 of partition 0"},
		{Selection{Partitions: "1,3"}, "topic t has no partition 3: its partitions are 0 to 2", "leave the partitions out"},
	} {
		_, err := c.is.Choose(t.Context(), b.client, "t")
		var e *InputError
		if !errors.As(err, &e) || !strings.Contains(e.What, c.what) || !strings.Contains(e.Next, c.how) {
			t.Errorf("%+v: %v", c.is, err)
		}
	}
}

// A run reads what was selected and nothing else, says so in report and lineage, and comes to the bytes of a topic that holds nothing
// but those records.
func TestRunOnPartOfTheHistory(t *testing.T) {
	b := newBench(t)
	rows := machine(1, 3000)
	b.topic("t", 2, values(2, rows...)...)
	o := quick("t")
	o.From, o.Until, o.Partitions = "2025-06-15T15:20:00Z", "2025-06-15T15:40:00+00:00", "1"
	r := b.mustRun(o)
	l := r.Model.Lineage
	if r.Rows.Read != 600 || len(l.Partitions) != 1 || l.Partitions[0].Partition != 1 || l.Partitions[0].From != 400 || l.Partitions[0].To != 1000 {
		t.Errorf("rows %+v of %+v", r.Rows, l.Partitions)
	}
	for name, want := range map[string]string{"from": o.From, "until": o.Until, "partitions": "1"} {
		if l.Settings[name] != want {
			t.Errorf("the lineage has %s %q, want %q", name, l.Settings[name], want)
		}
	}
	if l := b.mustRun(quick("t")).Model.Lineage; l.Settings["from"] != "" || l.Settings["sample"] != "" {
		t.Errorf("settings of a run over everything: %v", l.Settings)
	}
	var text strings.Builder
	if err := r.Write(&text); err != nil || !strings.Contains(text.String(), "from 2025-06-15T15:20:00Z to before 2025-06-15T15:40:00Z") {
		t.Errorf("%v\n%s", err, text.String())
	}
	o.From, o.Until, o.Partitions, o.Last = "", "2025-06-15T15:40:00", "1", 20*time.Minute
	if again := b.mustRun(o); fmt.Sprint(again.Model.Lineage.Partitions) != fmt.Sprint(l.Partitions) || again.Model.Lineage.Settings["last"] != "20m" {
		t.Errorf("by last: %+v, %v", again.Model.Lineage.Partitions, again.Model.Lineage.Settings)
	}
}

// case 4.15: a gap of six hours in the middle of a long history. The sample is spread over all of it, the same under the seed whatever the
// threads, and as many records as were asked for.
func TestSampleIsSpreadOverGaps_Case4_15(t *testing.T) {
	b := newBench(t)
	recs := values(3, machine(1, 30_000)...)
	for i := len(recs) / 2; i < len(recs); i++ {
		recs[i].Time += 6 * 3600 * 1000
	}
	b.topic("t", 3, recs...)
	o := quick("t")
	o.Sample, o.Epochs = "3000", 1
	r := b.mustRun(o)
	if r.Rows.Used != 3000 || r.Rows.Read != 30_000 || r.Rows.LeftOut["sample"] != 27_000 || r.Model.Lineage.Settings["sample"] != "3000" {
		t.Errorf("rows %+v, settings %v", r.Rows, r.Model.Lineage.Settings)
	}
	o.Threads = 1
	if again := b.mustRun(o); !bytes.Equal(again.Data, r.Data) {
		t.Error("one thread, other bytes")
	}
	o.Seed = 2
	w, _ := o.Selection.read()
	ranges := mustChoose(t, b, o)
	one, err := newSampler(t.Context(), w, ranges, 1)
	if err != nil {
		t.Fatal(err)
	}
	two, _ := newSampler(t.Context(), w, ranges, 2)
	same, tenths := 0, make([]int, 10)
	for p := range int32(3) {
		for o := range int64(10_000) {
			if one.draws(p, o) {
				tenths[o/1000]++
				if two.draws(p, o) {
					same++
				}
			}
		}
	}
	// 300 of each tenth are expected, with a deviation of about 16; 300 are in both samples by chance.
	for _, n := range tenths {
		if n < 220 || n > 380 {
			t.Errorf("of each tenth of the history %v are drawn", tenths)
			break
		}
	}
	if same < 220 || same > 380 {
		t.Errorf("seeds 1 and 2 draw %d records in common; 300 would be chance", same)
	}
}

func mustChoose(t *testing.T, b *bench, o Options) []stream.Range {
	t.Helper()
	chosen, err := o.Selection.Choose(t.Context(), b.client, o.Topic)
	if err != nil {
		t.Fatal(err)
	}
	return chosen.Ranges
}

func TestSamplerMeetsItsCount(t *testing.T) {
	ranges := []stream.Range{{Partition: 0, From: 5, To: 1005}, {Partition: 3, From: 0, To: 1}, {Partition: 9, From: 1 << 40, To: 1<<40 + 70_000}}
	count := func(s *sampler) (n int64) {
		for _, r := range ranges {
			for o := r.From; o < r.To; o++ {
				if s.draws(r.Partition, o) {
					n++
				}
			}
		}
		return n
	}
	for _, want := range []int64{1, 2, 999, 35_000, 71_000} {
		s, err := newSampler(t.Context(), wanted{count: want}, ranges, 7)
		if err != nil || count(s) != want {
			t.Errorf("%d drawn, want %d (%v)", count(s), want, err)
		}
	}
	for _, share := range []float64{.01, .5, .999} {
		s, err := newSampler(t.Context(), wanted{share: share}, ranges, 7)
		want := share * 71_001
		if n := float64(count(s)); err != nil || math.Abs(n-want) > 6*math.Sqrt(want*(1-share))+1 {
			t.Errorf("%v drawn at %v, want about %v (%v)", n, share, want, err)
		}
	}
	for _, w := range []wanted{{count: 71_001}, {count: math.MaxInt64}, {share: 1}} {
		if s, err := newSampler(t.Context(), w, ranges, 7); s != nil || err != nil {
			t.Errorf("%+v is a sample: %v, %v", w, s, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newSampler(ended, wanted{count: 5}, []stream.Range{{To: 1 << 40}}, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("a draw over 2^40 offsets went on after its context: %v", err)
	}
}

// Records that a sample passes over were not looked at: they do not hide that those drawn cannot be decoded.
func TestSampleDoesNotHideRejects(t *testing.T) {
	b := newBench(t)
	v := machine(1, 4000)
	for i := range v {
		if i%5 == 0 {
			v[i] = "{"
		}
	}
	b.topic("t", 1, values(1, v...)...)
	o := quick("t")
	o.Sample = "10%"
	if _, err := b.run(o); !errors.Is(err, ErrRejected) {
		t.Errorf("a fifth of the sample is no JSON: %v", err)
	}
}

package trainer

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/stream"
)

func TestParseTime(t *testing.T) {
	noon := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"2026-11-25T12:00:00Z": noon, "2026-11-25T14:00:00+02:00": noon, "2026-11-25T12:00:00": noon, "2026-11-25 12:00:00": noon,
		"2026-11-25T12:00": noon, "2026-11-25 12:00": noon, "2026-11-25": noon.Add(-12 * time.Hour),
		"2026-11-25T12:00:00.250Z": noon.Add(250 * time.Millisecond), "2026-11-25T06:15:00-05:45": noon,
	} {
		if got, err := ParseTime(text); err != nil || !got.Equal(want) {
			t.Errorf("%s is %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "yesterday", "25.11.2026", "2026-13-01", "2026-11-25T25:00", "1764072000000", "now"} {
		if got, err := ParseTime(text); err == nil {
			t.Errorf("%q is taken as %v", text, got)
		}
	}
}

// What is taken as a time is what RFC 3339 says of it, and offsets are of partitions that can be; nothing takes more memory than its text.
func FuzzParseBound(f *testing.F) {
	for _, text := range []string{"", "earliest", "2026-11-25", "2026-11-25 14:00", "2026-11-25T14:00:00.25+02:00", "0:1500,1-5:900", "0-1048575:7", "1:1,1:2", "0:9223372036854775808", "99999999999:1", "-1:5", "1500", ":", ","} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		b, err := parseBound("from", text, Earliest)
		switch {
		case err != nil:
			if e, ok := err.(*InputError); !ok || e.Next == "" || e.Place != "from" {
				t.Errorf("%q: %v says neither where nor what to do", text, err)
			}
		case b.time >= 0:
			again, err := parseBound("from", time.UnixMilli(b.time).UTC().Format(time.RFC3339Nano), Earliest)
			if b.offsets != nil || err == nil && again.time != b.time || err != nil && time.UnixMilli(b.time).UTC().Year() < 10_000 {
				t.Errorf("%q is %+v, and written anew %+v, %v", text, b, again, err)
			}
		case b.offsets == nil:
			if text != "" && text != Earliest {
				t.Errorf("%q is no bound", text)
			}
		default:
			for i, s := range b.offsets {
				if s.first < 0 || s.last < s.first || s.last >= maxPartition || s.offset < 0 {
					t.Errorf("%q has %+v", text, s)
				}
				if at, named := b.of(s.last); !named || at != s.offset {
					t.Errorf("%q: partition %d is at %d", text, s.last, b.offsets[i].offset)
				}
			}
		}
	})
}

// Offsets in the form that a model's lineage has them read the same records again, and make the same model but for what was asked.
func TestRunFromOffsets(t *testing.T) {
	b := newBench(t)
	b.topic("t", 2, values(2, machine(1, 3000)...)...)
	o := quick("t")
	o.From, o.Until = "2025-06-15T15:20:00Z", "2025-06-15T15:40:00Z"
	byTime := b.mustRun(o)
	o.From, o.Until = "0-1:400", "0-1:1000"
	r := b.mustRun(o)
	l := r.Model.Lineage
	if !slices.Equal(l.Partitions, byTime.Model.Lineage.Partitions) || l.Settings["from"] != o.From || l.Settings["until"] != o.Until {
		t.Errorf("by offsets %+v, %v; by time %+v", l.Partitions, l.Settings, byTime.Model.Lineage.Partitions)
	}
	if r.Threshold != byTime.Threshold || r.ValidationLoss != byTime.ValidationLoss {
		t.Errorf("threshold %v, loss %v; by time %v, %v", r.Threshold, r.ValidationLoss, byTime.Threshold, byTime.ValidationLoss)
	}
	var text strings.Builder
	if err := r.Write(&text); err != nil || !strings.Contains(text.String(), "from offsets 0-1:400, before offsets 0-1:1000") {
		t.Errorf("%v\n%s", err, text.String())
	}
}

// A topic out of order of time: what lies between the two places is read, and what has another time is counted.
func TestRecordsOfAnotherTimeAreCounted(t *testing.T) {
	b := newBench(t)
	records := values(1, machine(1, 600)...)
	for i := 200; i < 210; i++ {
		records[i].Time = start - 1000 // late ones, in the middle of the time asked
	}
	records[250].Time = start + 4_000_000
	b.topic("t", 1, records...)
	o := quick("t")
	o.From, o.Until = time.UnixMilli(start+100_000).UTC().Format(time.RFC3339), time.UnixMilli(start+500_000).UTC().Format(time.RFC3339)
	r := b.mustRun(o)
	// Kafka answers with the first record at or after a time, so the one from ahead ends the range.
	if p := r.Model.Lineage.Partitions[0]; p.From != 100 || p.To != 250 || r.Rows.Read != 150 || r.Outside != 10 {
		t.Errorf("%+v, %d read, %d of another time", p, r.Rows.Read, r.Outside)
	}
	var text strings.Builder
	if err := r.Write(&text); err != nil || !strings.Contains(text.String(), "10 records of another time among them") {
		t.Errorf("%v\n%s", err, text.String())
	}
}

// An offset that retention has deleted is no silent beginning at another: what is gone is counted as lost, and too much of it stops the run.
func TestRunFromDeletedOffsets_Case1_04(t *testing.T) {
	b := newBench(t)
	b.topic("t", 1, values(1, machine(1, 1000)...)...)
	kafka, err := kgo.NewClient(kgo.SeedBrokers(b.client.Brokers()))
	if err != nil {
		t.Fatal(err)
	}
	defer kafka.Close()
	gone := kmsg.NewPtrDeleteRecordsRequest()
	gone.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: "t", Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Partition: 0, Offset: 40}}}}
	if a, err := gone.RequestWith(t.Context(), kafka); err != nil || a.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Fatal(a, err)
	}
	o := quick("t")
	o.From, o.Until = "0:0", "0:900"
	r := b.mustRun(o)
	if p := r.Model.Lineage.Partitions[0]; p != (model.PartitionRange{Partition: 0, From: 0, To: 900, Records: 860, Lost: 40}) {
		t.Errorf("%+v", p)
	}
	o.AllowLoss = .01
	if _, err := b.run(o); err == nil || !strings.Contains(err.Error(), "retention deleted 40 of 900 offsets") {
		t.Error(err)
	}
}

// The progress of a read tells of each partition, passes holes with the reader, and ends with all of them done.
func TestProgressByPartition(t *testing.T) {
	b := newBench(t)
	b.topic("t", 3, append(values(2, machine(1, 2000)...), stream.Record{Partition: 2, Value: []byte(machine(1, 1)[0]), Time: start})...)
	var seen []PartitionProgress
	deps := b.deps
	deps.Progress = func(p Progress) {
		if p.Stage == "read" {
			for i := range p.Partitions {
				if seen != nil && p.Partitions[i].At < seen[i].At || p.Partitions[i].Done() > 1 {
					t.Errorf("%+v after %+v", p.Partitions[i], seen)
				}
			}
			seen = slices.Clone(p.Partitions)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	o := quick("t")
	o.KeepDir, o.Until = t.TempDir(), "0:900"
	if _, err := Run(ctx, deps, o); err != nil {
		t.Fatal(err)
	}
	want := []PartitionProgress{{stream.Range{Partition: 0, To: 900}, 900}, {stream.Range{Partition: 1, To: 1000}, 1000}, {stream.Range{Partition: 2, To: 1}, 1}}
	if !slices.Equal(seen, want) {
		t.Errorf("%+v", seen)
	}
}

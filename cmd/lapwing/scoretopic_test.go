package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/lapwing-stream/lapwing/stream"
)

// scoredLine is what the tests read of a score record.
type scoredLine struct {
	Topic     string   `json:"topic"`
	Partition int32    `json:"partition"`
	Offset    int64    `json:"offset"`
	Key       string   `json:"key"`
	Time      string   `json:"time"`
	Score     *float64 `json:"score"`
	Status    string   `json:"status"`
}

func scoredLines(t *testing.T, out string) (lines []scoredLine) {
	t.Helper()
	for line := range strings.Lines(out) {
		var s scoredLine
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		lines = append(lines, s)
	}
	return lines
}

// linesWithin are the lines between two times, as text.
func linesWithin(t *testing.T, out, from, until string) string {
	t.Helper()
	var b strings.Builder
	for line := range strings.Lines(out) {
		if s := scoredLines(t, line)[0]; s.Time >= from && s.Time < until {
			b.WriteString(line)
		}
	}
	return b.String()
}

// A topic's records get the scores that the whole topic's get, whatever part of it is asked for, in the order of partition and offset, with rolling
// features and without; and what goes to a topic stands as serve would have it.
func TestScoreTopic(t *testing.T) {
	b := newBed(t)
	b.ok("generate cars --rate 0 --count 2400 --cars 20 --faults 2 --start 2026-11-01T00:00:00Z --topic cars --partitions 3")
	b.ok("train --topic cars --model cars --key car --time time --layers 6,3,6 --epochs 2")
	b.ok("train --topic cars --model rolling --key car --time time --layers 6,3,6 --epochs 2 --rolling 4")

	all := b.ok("score --topic cars --model cars --to -")
	lines := scoredLines(t, all)
	if len(lines) != 2400 || !slices.IsSortedFunc(lines, func(a, b scoredLine) int {
		if a.Partition != b.Partition {
			return int(a.Partition - b.Partition)
		}
		return int(a.Offset - b.Offset)
	}) {
		t.Fatalf("%d lines, in order of partition and offset?", len(lines))
	}
	for _, l := range lines {
		if l.Topic != "cars" || l.Score == nil || l.Key == "" || l.Time == "" || l.Status != "ok" {
			t.Fatalf("%+v", l)
		}
	}
	if again := b.ok("score --topic cars --model cars"); again != all {
		t.Error("a second run gives other bytes")
	}
	// The fleet's times are Kafka's too: 20 cars a reading each 10 s, 20 minutes in all.
	const from, until = "2026-11-01T00:05:00", "2026-11-01T00:12:30"
	want := linesWithin(t, all, from, until)
	if n := strings.Count(want, "\n"); n < 700 || n > 1100 {
		t.Fatalf("%d records within the time", n)
	}
	if got := b.ok("score --topic cars --model cars --from " + from + " --until " + until + "Z"); got != want {
		t.Errorf("by time: %d lines, want %d", strings.Count(got, "\n"), strings.Count(want, "\n"))
	}
	if got := b.ok("score --topic cars --model cars --last 450s --until " + until + " --max-batch 7"); got != want {
		t.Errorf("by last: %d lines, want %d", strings.Count(got, "\n"), strings.Count(want, "\n"))
	}
	if got := scoredLines(t, b.ok("score --topic cars --model cars --partitions 1-2")); len(got) == 0 || got[0].Partition != 1 || got[len(got)-1].Partition != 2 {
		t.Errorf("by partition: %d lines", len(got))
	}

	// Rolling features look back on what lies before the range.
	whole := b.ok("score --topic cars --model rolling")
	if got, want := b.ok("score --topic cars --model rolling --from "+from+" --until "+until), linesWithin(t, whole, from, until); got != want {
		t.Error("with rolling features part of the topic scores otherwise than within the whole")
	}
	warming := 0
	for _, l := range scoredLines(t, b.ok("score --topic cars --model rolling --rolling-rewind 1 --from "+from+" --until "+until)) {
		if l.Status == "warming" {
			warming++
		}
	}
	if warming == 0 {
		t.Error("with a rewind of one record none is warming: the test above shows nothing")
	}

	// Into a topic: partition, key and timestamp of the record.
	var summary map[string]any
	if err := json.Unmarshal([]byte(b.ok("score --topic cars --model cars --to cars.again --json")), &summary); err != nil || summary["scored"] != 2400.0 || summary["lost"] != 0.0 {
		t.Fatalf("%v, %v", summary, err)
	}
	in, out := b.records("cars"), b.records("cars.again")
	if len(in) != len(out) {
		t.Fatalf("%d records, %d scores", len(in), len(out))
	}
	for i, r := range in {
		s := out[i]
		if s.Partition != r.Partition || string(s.Key) != string(r.Key) || s.Time != r.Time || string(s.Value)+"\n" != nth(all, i) {
			t.Fatalf("record %d/%d %q at %d has the score %d/%d %q at %d: %s", r.Partition, r.Offset, r.Key, r.Time, s.Partition, s.Offset, s.Key, s.Time, s.Value)
		}
	}

	// A filter leaves records out and says so.
	_, stderr, code := runIn(t, []string{"LAPWING_KAFKA_BOOTSTRAP_SERVERS=" + b.broker}, "score", "--topic", "cars", "--model", "cars", "--where", "event.speed < 0")
	if code != exitFailed || !strings.Contains(stderr, "2,400 left out by the filter") || !strings.Contains(stderr, "the filter left out all of 2,400 records") {
		t.Errorf("exit %d\n%s", code, stderr)
	}
	some := scoredLines(t, b.ok(`score --topic cars --model cars --where "event.speed > 20 || has(event.absent)"`))
	if len(some) == 0 || len(some) == 2400 {
		t.Errorf("%d records go faster than 20", len(some))
	}
}

// What cannot be scored in a topic is counted with its offset, and the rest is scored.
func TestScoreTopicCountsWhatHasNoScore(t *testing.T) {
	b := newBed(t)
	b.ok("generate cars --rate 0 --count 300 --topic cars --partitions 1")
	b.ok("train --topic cars --model cars --key car --time time --layers 4 --epochs 1")
	produce(t, b.broker, "odd", "k", `{"speed":1}`, "null", "{", "")
	out, stderr := b.fails("score --topic odd --model cars")
	if n := len(scoredLines(t, out)); n != 1 {
		t.Errorf("%d scores", n)
	}
	b.has(stderr, "1 rejected: not_json", "partition 0, offset 2", "1 rejected: empty_value", "1 empty", "2 of 4 rows were rejected")
	if _, err := os.Stat("scores.jsonl"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	b.ok("score --topic cars --model cars --to scores.jsonl")
	if size(t, "scores.jsonl") == 0 {
		t.Error("no scores in the file")
	}
}

func nth(text string, n int) string {
	for line := range strings.Lines(text) {
		if n--; n < 0 {
			return line
		}
	}
	return ""
}

// records are all of a topic's, by partition and offset.
func (b *bed) records(topic string) (all []stream.Record) {
	b.t.Helper()
	ctx := b.t.Context()
	c, err := stream.Connect(ctx, stream.Options{Properties: map[string]string{"bootstrap.servers": b.broker}})
	if err != nil {
		b.t.Fatal(err)
	}
	defer c.Close()
	ranges, err := c.Ranges(ctx, topic)
	if err != nil {
		b.t.Fatal(err)
	}
	h, err := c.ReadRanges(ctx, topic, ranges, stream.HistoryOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	defer h.Close()
	for {
		batch, err := h.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			b.t.Fatal(err)
		}
		for _, r := range batch.Records {
			r.Key, r.Value = slices.Clone(r.Key), slices.Clone(r.Value)
			all = append(all, r)
		}
		batch.Release()
	}
	slices.SortFunc(all, func(a, b stream.Record) int {
		if a.Partition != b.Partition {
			return int(a.Partition - b.Partition)
		}
		return int(a.Offset - b.Offset)
	})
	return all
}

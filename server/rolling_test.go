package server

import (
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

// rollingSpec is plainSpec with the mean and deviation of the last n records.
func rollingSpec(n int) model.Spec {
	spec := plainSpec
	spec.Rolling = n
	return spec
}

// wander are records of so many cars whose values are never alike, so that a score tells which records its windows hold.
func wander(topic string, partitions, cars, from, n int) []stream.Record {
	var out []stream.Record
	for i := from; i < from+n; i++ {
		r := rand.New(rand.NewPCG(7, uint64(i)))
		car := r.IntN(cars)
		e := event(topic, car%partitions, i, math.Round(1e4*r.NormFloat64())/1e3, math.Round(1e4*r.Float64())/1e3)
		e.Key = fmt.Appendf(nil, "car-%d", car)
		out = append(out, e)
	}
	return out
}

// byPlace keys scores by where their record stands; what comes twice must be the same both times.
func byPlace(t *testing.T, all []scored) map[place]scored {
	t.Helper()
	out := map[place]scored{}
	for _, s := range all {
		at := place{s.Topic, s.Partition, s.Offset}
		if before, ok := out[at]; ok && string(before.raw.Value) != string(s.raw.Value) {
			t.Errorf("two scores of %v:\n%s\n%s", at, before.raw.Value, s.raw.Value)
		}
		out[at] = s
	}
	return out
}

func outputs(output string) StreamOptions {
	return StreamOptions{Model: "cars", Topics: []string{"cars"}, Output: output, Alerts: output + ".alerts", DLQ: output + ".dlq", AlertRewind: 1}
}

// Stopped and started again in the midst of the stream, the server gives the same scores as one that never stopped, for
// every key with enough records within the rewind; other keys say that they are warming.
func TestRollingOverRestarts(t *testing.T) {
	b := newBed(t)
	b.topic("cars", 2)
	b.publish("cars", testModel(t, rollingSpec(4), 1, 30), "live")
	const total = 3000
	input := wander("cars", 2, 12, 0, total)
	// A rare car comes every 150 records: after a stop the 200 offsets before do not hold four of its records.
	for i := range input {
		if i%150 == 0 {
			input[i].Key, input[i].Partition = []byte("rare"), 0
		}
	}
	options := func(output string) Options {
		return Options{Streams: []StreamOptions{outputs(output)}, MaxBatch: 64, RollingRewind: 200}
	}
	runs := 0
	for from := 0; from < total; from += 700 {
		n := min(700, total-from)
		b.produce(input[from : from+n]...)
		s := b.serve(options("parts"))
		s.settled(int64(n))
		s.stop()
		runs++
	}
	s := b.serve(options("whole"))
	s.settled(total)
	s.stop()
	want := byPlace(t, b.scores("whole"))
	got := byPlace(t, b.scores("parts"))
	if len(got) != total || len(want) != total {
		t.Fatalf("%d scores with restarts, %d without, of %d records", len(got), len(want), total)
	}
	same, warming := 0, 0
	for at, w := range want {
		g := got[at]
		if string(g.raw.Value) == string(w.raw.Value) {
			same++
			continue
		}
		if g.Status != "warming" || *g.Key != "rare" {
			t.Errorf("%v of %s after a restart:\n%s\nunbroken:\n%s", at, *g.Key, g.raw.Value, w.raw.Value)
		}
		warming++
	}
	if warming == 0 || warming > 3*(runs-1) {
		t.Errorf("%d runs, %d scores of the rare car warming, %d as unbroken", runs, warming, same)
	}
	if n := b.log.count("looked back for rolling features"); n != runs+1 {
		t.Errorf("%d of %d starts looked back", n, runs+1)
	}
	first := 0
	for _, w := range want {
		if w.Status == "warming" {
			first++
		}
	}
	if first != 13*3 {
		t.Errorf("%d unbroken scores are warming, want the first 3 of 13 cars", first)
	}
}

// A file in the order of the stream has the scores of the stream.
func TestRollingFileAndStreamAgree(t *testing.T) {
	b := newBed(t)
	b.topic("cars", 1)
	data := testModel(t, rollingSpec(3), 1, 30)
	b.publish("cars", data, "live")
	input := wander("cars", 1, 4, 0, 500)
	b.produce(input...)
	s := b.serve(oneStream("cars"))
	s.settled(500)
	s.stop()
	want := b.scores("cars.scores")

	i := 0
	report, err := ScoreBounded(t.Context(), BoundedOptions{Data: data, Ref: registry.Ref{Name: "cars", Version: 1}, Engine: s.Server.deps.Engine, MaxBatch: 7}, func() (events.Entry, error) {
		if i == len(input) {
			return events.Entry{}, io.EOF
		}
		i++
		return events.Entry{Line: i, Key: input[i-1].Key, Value: input[i-1].Value, Time: input[i-1].Time}, nil
	}, func(e *Scored) error {
		_, score, _ := strings.Cut(string(e.JSON), `"score":`)
		_, streamed, _ := strings.Cut(string(want[e.Line-1].raw.Value), `"score":`)
		if score != streamed || score == "" {
			t.Errorf("line %d: %s; in the stream %s", e.Line, score, streamed)
		}
		return nil
	})
	if err != nil || report.Scored != 500 || report.Warming != 8 {
		t.Errorf("%+v, %v", report, err)
	}
}

// While models change over under load, each record's score is that of its version over an unbroken stream: a version of
// the same windows goes on with them, one of others looks back.
func TestRollingOverSwaps(t *testing.T) {
	b := newBed(t)
	b.topic("cars", 2)
	versions := map[int][]byte{
		1: testModel(t, rollingSpec(3), 1, 30),
		2: testModel(t, rollingSpec(3), 2, 60), // the same windows
		3: testModel(t, rollingSpec(8), 1, 30),
		4: testModel(t, plainSpec, 1, 30),
		5: testModel(t, rollingSpec(5), 1, 30),
	}
	b.publish("cars", versions[1], "live")
	const each = 400
	input := wander("cars", 2, 6, 0, each*(len(versions)+1))
	feed := func(part int) { b.produce(input[part*each : (part+1)*each]...) }
	feed(0)
	s := b.serve(oneStream("cars"))
	s.settled(each)
	for v := 2; v <= len(versions); v++ {
		b.publish("cars", versions[v], "live")
		await(t, fmt.Sprintf("version %d", v), func() bool { return s.Status().Streams[0].Version == v })
		feed(v - 1)
		s.settled(int64(v * each))
	}
	s.stop()
	// Each version alone over the whole of each partition.
	want := map[int]map[place]string{}
	for v, data := range versions {
		want[v] = map[place]string{}
		for p := range int32(2) {
			var lane []stream.Record
			for _, r := range input[:each*len(versions)] {
				if r.Partition == p {
					lane = append(lane, r)
				}
			}
			i := 0
			_, err := ScoreBounded(t.Context(), BoundedOptions{Data: data, Engine: s.Server.deps.Engine}, func() (events.Entry, error) {
				if i == len(lane) {
					return events.Entry{}, io.EOF
				}
				i++
				return events.Entry{Line: i, Key: lane[i-1].Key, Value: lane[i-1].Value, Time: lane[i-1].Time}, nil
			}, func(e *Scored) error {
				_, score, _ := strings.Cut(string(e.JSON), `"score":`)
				want[v][place{"cars", p, int64(e.Line - 1)}] = score
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	seen := map[int]int{}
	for at, g := range byPlace(t, b.scores("cars.scores")) {
		seen[g.Version]++
		if _, score, _ := strings.Cut(string(g.raw.Value), `"score":`); score != want[g.Version][at] {
			t.Errorf("%v by version %d: %s, unbroken %s", at, g.Version, score, want[g.Version][at])
		}
	}
	for v := range versions {
		if seen[v] != each {
			t.Errorf("version %d scored %d records, want %d", v, seen[v], each)
		}
	}
	if n := b.log.count("looked back"); n != 3 {
		t.Errorf("looked back %d times, want once at the start and once for each of versions 3 and 5", n)
	}
}

// Partitions that move to another member and back begin with what the log holds, not with what was left behind.
func TestRollingOverRebalances(t *testing.T) { eachDelivery(t, rollingOverRebalances) }

func rollingOverRebalances(t *testing.T, b *bed) {
	b.topic("cars", 4)
	b.publish("cars", testModel(t, rollingSpec(4), 1, 30), "live")
	o := Options{Streams: []StreamOptions{outputs("moved")}, MaxBatch: 64}
	input := wander("cars", 4, 12, 0, 4000)
	b.produce(input[:1000]...)
	first := b.serve(o)
	first.settled(1000)
	second := b.serve(o)
	await(t, "a share for the second", func() bool { return second.Status().Streams[0].Partitions > 0 })
	b.produce(input[1000:2000]...)
	taken := func(s *serving) int64 { return s.Status().Streams[0].RecordsOut }
	await(t, "all taken", func() bool { return taken(first)+taken(second) >= 2000 })
	second.stop()
	b.produce(input[2000:3000]...)
	await(t, "the rest taken", func() bool { return taken(first)+taken(second) >= 3000 })
	first.stop()
	if taken(second) == 0 {
		t.Fatal("the second member scored nothing")
	}
	s := b.serve(Options{Streams: []StreamOptions{outputs("whole")}})
	s.settled(3000)
	s.stop()
	want := byPlace(t, b.scores("whole"))
	got := byPlace(t, b.scores("moved"))
	if len(got) != 3000 {
		t.Fatalf("%d scores", len(got))
	}
	for at, w := range want {
		if g := got[at]; string(g.raw.Value) != string(w.raw.Value) {
			t.Errorf("%v:\n%s\nunbroken:\n%s", at, g.raw.Value, w.raw.Value)
		}
	}
}

// The rolling columns of a field are part of it: top names the field once, with the whole share.
func TestRollingColumnsAreTheirFields(t *testing.T) {
	lines, _ := scoreTexts(t, BoundedOptions{Data: testModel(t, rollingSpec(2), 1, 1), Contributions: ContributionsAll}, `{"x":0,"y":1}`, `{"x":8,"y":1}`)
	// Row two: x 8, mean 4, deviation 4: 96 of 98 by squares; y 1, mean 1, deviation 0.
	for _, want := range []string{`"feature":"x","value":8,"expected":0,"share":0.9796`, `"feature":"y","value":1,"expected":0,"share":0.0204`} {
		if !strings.Contains(lines[1], want) {
			t.Errorf("%s\nwants %s", lines[1], want)
		}
	}
	if strings.Contains(lines[1], "mean2") || !strings.Contains(lines[0], `"warming"`) || !strings.Contains(lines[1], `"ok"`) {
		t.Error(strings.Join(lines, "\n"))
	}
}

// Of the statuses that apply, a record has the one that says most against its score.
func TestWarmingStatus(t *testing.T) {
	spec := rollingSpec(3)
	spec.Fields = append(slices.Clone(spec.Fields), model.Field{Name: "z", Type: model.Number})
	lines, report := scoreTexts(t, BoundedOptions{Data: testModel(t, spec, 1, 1e6)}, `{"x":1,"y":1,"z":1}`, `{"x":1}`, `{"x":1e99,"y":1,"z":1}`, `{"x":1,"y":1,"z":1}`)
	for i, want := range []string{"warming", "partial", "not_finite", "ok"} {
		if !strings.Contains(lines[i], `"`+want+`"`) {
			t.Errorf("record %d: %s, want %s", i, lines[i], want)
		}
	}
	if report.Warming != 1 || report.Partial != 1 || report.NotFinite != 1 {
		t.Errorf("%+v", report)
	}
}

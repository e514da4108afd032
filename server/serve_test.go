package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/stream"
)

// TestServeEveryRecordHasOneEnd_Case1_07: scores, dead letters and tombstones add up to the input, each in its place;
// and an empty model topic is waited for, with a word (CASES 4.13, 6.06, 6.07).
func TestServeEveryRecordHasOneEnd_Case1_07(t *testing.T) { eachDelivery(t, serveEveryRecordHasOneEnd) }

func serveEveryRecordHasOneEnd(t *testing.T, b *bed) {
	b.topic("cars", 4)
	input := b.events("cars", 4, 0, 900)
	for i := range 100 {
		r := event("cars", i%4, i, 0, 0)
		switch i % 5 {
		case 0, 1:
			r.Value = nil
		case 2:
			r.Value = []byte(`{"x":`)
			r.Headers = []stream.Header{{Key: "trace", Value: []byte("17")}}
		case 3:
			r.Value = []byte(`{"other":1}`)
			r.Key = nil
		case 4:
			r.Value = []byte(`{"x":1e99,"y":2}`)
			r.Time = -1
		}
		input = append(input, r)
	}
	b.produce(input...)

	s := b.serve(oneStream("cars"))
	await(t, "the word on the missing model", func() bool {
		code, body := s.get("/readyz")
		return code == 503 && strings.Contains(body, "no live model for cars@live yet")
	})
	if code, _ := s.get("/healthz"); code != 200 {
		t.Errorf("not alive while waiting for a model: %d", code)
	}
	b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
	s.ready()
	if code, body := s.get("/readyz"); code != 200 || !strings.Contains(body, `"ready":true`) {
		t.Errorf("readyz %d: %s", code, body)
	}
	s.settled(1000)
	s.stop()

	if d := b.audit([]string{"cars"}, "cars.scores", "cars.dlq"); len(d) > 0 {
		t.Errorf("%d records came more than once", len(d))
	}
	st := s.Status().Streams[0]
	got := []int64{st.RecordsIn, st.RecordsOut, st.Bad, st.Tombstones, st.Anomalies}
	if want := []int64{1000, 920, 40, 40, 110}; !cmp.Equal(want, got) {
		t.Errorf("in, out, bad, tombstones, anomalies: %v, want %v", got, want)
	}
	if diff := cmp.Diff(map[string]int64{events.ReasonNotJSON: 20, events.ReasonNoFeatures: 20}, st.BadBy); diff != "" {
		t.Errorf("dead letters by reason (-want +got):\n%s", diff)
	}
	for _, r := range b.read("cars.dlq") {
		if strings.HasPrefix(string(r.Value), `{"x":`) {
			if len(r.Headers) != 6 || r.Headers[0].Key != "trace" || string(r.Headers[5].Value) != "cars/1" {
				t.Fatalf("headers of a dead letter: %v", r.Headers)
			}
		}
	}
	if n := b.log.count("bad record, the first of its kind"); n != 2 {
		t.Errorf("%d lines on bad records, want one a reason", n)
	}
	config, err := b.client.TopicConfig(t.Context(), "cars.alerts")
	if err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]string{"cleanup.policy": "compact,delete", "retention.ms": "2592000000", "min.compaction.lag.ms": "604800000"} {
		if config[k] != want {
			t.Errorf("alerts topic: %s=%q, want %q", k, config[k], want)
		}
	}
	if b.log.count("ERROR") > 0 {
		t.Errorf("errors were logged:\n%s", b.log.all())
	}
}

// A broker deletes by a record's time. The scores of a replayed history bear its times, and are kept as long as it is.
func TestScoresAreKeptAsLongAsTheirRecords(t *testing.T) {
	b := newBed(t)
	if _, err := b.client.CreateTopic(t.Context(), stream.TopicSpec{Name: "old", Partitions: 1, Config: map[string]string{"retention.ms": "-1"}}); err != nil {
		t.Fatal(err)
	}
	b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
	b.produce(b.events("old", 1, 0, 10)...)
	s := b.serve(oneStream("old"))
	await(t, "scores", func() bool { return s.Status().Streams[0].RecordsOut == 10 })
	s.stop()
	for topic, want := range map[string]string{"old.scores": "-1", "old.dlq": "-1", "old.alerts": "2592000000"} {
		config, err := b.client.TopicConfig(t.Context(), topic)
		if err != nil || config["retention.ms"] != want {
			t.Errorf("%s: retention.ms=%q (%v), want %s", topic, config["retention.ms"], err, want)
		}
	}
}

// TestPartitionsAdded_Case1_06: records of partitions that appear while running are all scored, in the same partition
// of the output, whatever the first start was.
func TestPartitionsAdded_Case1_06(t *testing.T) { eachDelivery(t, partitionsAdded) }

func partitionsAdded(t *testing.T, b *bed) {
	b.topic("cars", 2)
	b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
	o := oneStream("cars")
	o.Streams[0].Start = StartLatest
	s := b.serve(o)
	s.ready()
	b.produce(b.events("cars", 2, 0, 100)...)
	s.settled(100)
	if err := b.client.AddPartitions(t.Context(), "cars", 4); err != nil {
		t.Fatal(err)
	}
	var more []stream.Record
	for i := range 100 {
		more = append(more, event("cars", 2, i, 1, 1), event("cars", 3, i, 1, 1))
	}
	b.produce(more...)
	s.settled(300)
	s.stop()
	if d := b.audit([]string{"cars"}, "cars.scores", "cars.dlq"); len(d) > 0 {
		t.Errorf("%d records came more than once", len(d))
	}
	for _, topic := range []string{"cars.scores", "cars.alerts", "cars.dlq"} {
		if n, err := b.client.Partitions(t.Context(), topic); n != 4 || err != nil {
			t.Errorf("%s has %d partitions (%v), want 4", topic, n, err)
		}
	}
}

// TestMissingTopic_Case2_05: one of two input topics does not exist.
func TestMissingTopic_Case2_05(t *testing.T) {
	b := newBed(t)
	b.topic("events-a", 1)
	s := b.server(oneStream("events-a", "events-b"))
	err := s.Run(t.Context())
	if !errors.Is(err, stream.ErrNoTopic) || !strings.Contains(err.Error(), "events-b") {
		t.Errorf("got %v, want an error that names events-b", err)
	}
	if lines := strings.Split(err.Error(), "\n"); len(lines) > 3 {
		t.Errorf("%d lines: %v", len(lines), err)
	}
	topics, err := b.client.Topics(t.Context())
	if err != nil || len(topics) != 1 {
		t.Errorf("topics %v (%v): nothing should have been made", topics, err)
	}
}

// TestOutputOfAnotherModel: a second model on an output is refused at its start; a copy of the first joins.
func TestOutputOfAnotherModel(t *testing.T) {
	b := newBed(t)
	b.topic("events", 2)
	b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
	b.publish("other", testModel(t, plainSpec, 2, 5), "live")
	first := b.serve(oneStream("events"))
	first.ready()
	o := oneStream("events")
	o.Streams[0].Model = "other"
	err := b.server(o).Run(t.Context())
	if err == nil {
		t.Fatal("two models write one output")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 3 || !strings.Contains(lines[0], "events.scores is being written by model cars@live") ||
		!strings.Contains(lines[1], "from 127.0.0.1") || !strings.Contains(lines[2], "--output NAME") {
		t.Errorf("%v", err)
	}
	b.serve(oneStream("events")).ready()
	first.ready()
	first.stop()
}

// TestTwoInputTopics: one stream over two topics of different width, and a second stream beside it.
func TestTwoInputTopics(t *testing.T) {
	b := newBed(t)
	b.topic("a", 1)
	b.topic("b", 3)
	b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
	b.publish("other", testModel(t, plainSpec, 2, 5), "live")
	o := oneStream("a", "b")
	o.Streams = append(o.Streams, StreamOptions{Model: "other", Topics: []string{"a"}, Output: "a.other", DLQ: "a.other.dlq", Alerts: None})
	b.produce(append(b.events("a", 1, 0, 100), b.events("b", 3, 0, 200)...)...)
	s := b.serve(o)
	s.settled(300)
	await(t, "the other stream", func() bool { return s.Status().Streams[1].RecordsOut == 100 })
	s.stop()
	if d := b.audit([]string{"a", "b"}, "all.scores", "all.dlq"); len(d) > 0 {
		t.Errorf("%d records came more than once", len(d))
	}
	b.audit([]string{"a"}, "a.other", "a.other.dlq")
	for _, x := range b.scores("a.other") {
		if x.Model != "other" {
			t.Fatalf("score by %s in the other stream's output", x.Model)
		}
	}
	if n, _ := b.client.Partitions(t.Context(), "all.scores"); n != 3 {
		t.Errorf("output has %d partitions, want those of the largest input", n)
	}
}

// TestLoneRecords_Case6_10: three records, then nothing: they do not wait for a batch.
func TestLoneRecords_Case6_10(t *testing.T) {
	b := newBed(t)
	b.topic("cars", 1)
	b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
	o := oneStream("cars")
	o.MaxBatch = 512
	s := b.serve(o)
	s.ready()
	b.produce(b.events("cars", 1, 0, 3)...)
	s.settled(3)
	await(t, "three scores in the topic", func() bool { return len(b.read("cars.scores")) == 3 })
	await(t, "lag 0", func() bool { return s.Status().Streams[0].Lag == 0 })
}

// TestSameScoresWhateverTheBatches: the same events under other batch sizes, queues, commit intervals and restarts
// give identical scores and alerts.
func TestSameScoresWhateverTheBatches(t *testing.T) {
	b := newBed(t)
	b.topic("cars", 3)
	b.publish("cars", testModel(t, plainSpec, 1.25, 5), "live")
	var input []stream.Record
	for i := range 3000 {
		x := float64(i%13) / 4
		if (i/40)%5 == 4 {
			x = 50
		}
		input = append(input, event("cars", i%3, i, x, float64(i%3)))
	}
	b.produce(input...)
	var want map[place]string
	var wantAlerts map[string]int
	for i, o := range []Options{
		{},
		{MaxBatch: 1, MaxInFlight: 1},
		{MaxBatch: 7, MaxInFlight: 3, Queue: 21},
		{MaxBatch: 1000, Queue: 1, CommitInterval: 1e6},
	} {
		output := fmt.Sprintf("run%d", i)
		o.Streams = []StreamOptions{{Model: "cars", Topics: []string{"cars"}, Output: output, Alerts: output + ".alerts", DLQ: output + ".dlq"}}
		s := b.serve(o)
		s.settled(3000)
		s.stop()
		if d := b.audit([]string{"cars"}, output, output+".dlq"); len(d) > 0 {
			t.Errorf("%+v: %d records came more than once", o, len(d))
		}
		got := map[place]string{}
		for _, x := range b.scores(output) {
			got[place{x.Topic, x.Partition, x.Offset}] = string(x.raw.Value)
		}
		alerts := map[string]int{}
		for _, r := range b.read(output + ".alerts") {
			alerts[string(r.Value)]++
		}
		if i == 0 {
			want, wantAlerts = got, alerts
			if len(alerts) == 0 {
				t.Fatal("no alerts: the comparison says nothing about them")
			}
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%+v: scores differ:\n%.2000s", o, diff)
		}
		if diff := cmp.Diff(wantAlerts, alerts); diff != "" {
			t.Errorf("%+v: alerts differ:\n%.2000s", o, diff)
		}
	}
}

// TestStart: where a group without offsets begins, and that committed ones stand.
func TestStart(t *testing.T) {
	b := newBed(t)
	cluster, err := b.client.ClusterID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.topic("cars", 2)
	b.topic("trucks", 2)
	b.produce(b.events("cars", 2, 0, 100)...) // 50 each, a second apart: even ones in partition 0
	b.produce(b.events("trucks", 2, 0, 100)...)
	b.publish("cars", testModel(t, plainSpec, 1, 5, func(m *model.Model) {
		m.Lineage.Cluster = cluster
		m.Lineage.Partitions = []model.PartitionRange{{Partition: 0, From: 0, To: 30}} // partition 1 came later
	}), "live")
	b.publish("elsewhere", testModel(t, plainSpec, 1, 5, func(m *model.Model) { m.Lineage.Cluster = "another" }), "live")
	for i, c := range []struct {
		start, model, topic string
		want                int64
		says                string
	}{
		{start: StartEarliest, want: 100},
		{start: "", want: 100},
		{start: StartLatest, want: 0},
		{start: StartAfterTraining, want: 20 + 50},
		{start: "2026-11-25T14:01:00Z", want: 40}, // 14:00:00 and 60 s
		{start: "2027-01-01", want: 0},
		{start: "1980-01-01", want: 100},
		{start: StartAfterTraining, topic: "trucks", says: "trained on another topic: cars, this is trucks"},
		{start: StartAfterTraining, model: "elsewhere", says: "trained on another cluster: another, this is"},
	} {
		t.Run(fmt.Sprintf("%s %s %s", c.start, c.model, c.topic), func(t *testing.T) {
			defaulted(&c.model, "cars")
			defaulted(&c.topic, "cars")
			output := fmt.Sprintf("start%d", i)
			o := Options{Streams: []StreamOptions{{Model: c.model, Topics: []string{c.topic}, Output: output, Alerts: None, DLQ: output + ".dlq", Start: c.start}}}
			if c.says != "" {
				err := b.server(o).Run(t.Context())
				if err == nil || !strings.Contains(err.Error(), c.says) || strings.Count(err.Error(), "\n") > 2 {
					t.Fatalf("got %v, want at most three lines that say %q", err, c.says)
				}
				return
			}
			s := b.serve(o)
			s.ready()
			await(t, "the end", func() bool {
				st := s.Status().Streams[0]
				return st.Partitions == 2 && st.Lag == 0 && st.RecordsOut == c.want
			})
			s.stop()
			if got := int64(len(b.read(output))); got != c.want {
				t.Errorf("%d records scored, want %d", got, c.want)
			}
			if c.start != StartLatest {
				return
			}
			// At the second start the committed offsets stand, whatever is asked.
			o.Streams[0].Start = StartEarliest
			s = b.serve(o)
			s.ready()
			await(t, "the end", func() bool { st := s.Status().Streams[0]; return st.Partitions == 2 && st.Lag == 0 })
			s.stop()
			if got := int64(len(b.read(output))); got != c.want {
				t.Errorf("%d records scored after a second start, want %d as before", got, c.want)
			}
		})
	}
}

// TestNotFiniteOverKafka_Case3_04: the other rows of a batch keep their scores, and the output is valid JSON.
func TestNotFiniteOverKafka_Case3_04(t *testing.T) {
	b := newBed(t)
	b.topic("cars", 1)
	b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
	values := []string{`{"x":3,"y":4}`, `{"x":3e38,"y":3e38}`, `{"x":"NaN","y":4}`, `{"x":-1e400,"y":4}`, `{"x":1,"y":null}`, `{"x":4,"y":3}`}
	var input []stream.Record
	for i, v := range values {
		r := event("cars", 0, i, 0, 0)
		r.Value = []byte(v)
		input = append(input, r)
	}
	b.produce(input...)
	s := b.serve(oneStream("cars"))
	s.settled(int64(len(values)))
	s.stop()
	null := float32(math.NaN())
	want := []float32{5, null, 4, null, 1, 5}
	for i, x := range b.scores("cars.scores") {
		if !json.Valid(x.raw.Value) {
			t.Errorf("not JSON: %s", x.raw.Value)
		}
		switch {
		case want[i] != want[i]:
			if x.Score != nil || x.Status != "not_finite" || !x.Anomaly {
				t.Errorf("%s: %s", values[i], x.raw.Value)
			}
		case x.Score == nil || *x.Score != want[i] || x.Status != "ok" || x.Anomaly:
			t.Errorf("%s: %s, want score %v", values[i], x.raw.Value, want[i])
		}
	}
}

func TestOptionsFaultsAtOnce(t *testing.T) {
	err := Options{
		MaxBatch: -1, MaxInFlight: 5000, HTTP: "8080", CommitInterval: -1, Delivery: "at_most_once", CommitRecords: -1, TransactionTimeout: 1, RetryMin: 2e9, RetryMax: 1e9,
		Pyroscope: ProfileOptions{URL: "localhost:4040"},
		Streams: []StreamOptions{
			{Model: "Cars!", Topics: []string{"a"}, Start: "yesterday", Contributions: "some", RaiseAfter: -1},
			{Model: "b", Topics: []string{"a", "b"}},
			{Model: "c", Topics: []string{"a"}, Output: "a.scores", Alerts: "b", Format: "xml"},
			{Model: "d"},
			{Model: "e", Topics: []string{"e"}, Output: "e/scores"},
		},
	}.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	golden(t, "options.txt", err.Error()+"\n")
	one := Options{Streams: []StreamOptions{{Model: "m", Topics: []string{"a"}}}}
	if err := one.Validate(); err != nil {
		t.Errorf("defaults: %v", err)
	}
	one.CommitInterval, one.Delivery = 6*time.Second, AtLeastOnce // no matter without transactions
	if err := one.Validate(); err != nil {
		t.Errorf("a long commit interval: %v", err)
	}
	if err := exactly(one).Validate(); err == nil || !strings.Contains(err.Error(), "transaction_timeout 10s is below twice commit_interval 6s") {
		t.Errorf("an interval that outlives its transactions: %v", err)
	}
}

// TestStreamsMayShareDeadLetters: a header names the model of a dead letter; scores and alerts bear no such mark.
func TestStreamsMayShareDeadLetters(t *testing.T) {
	two := func(change func(*StreamOptions)) error {
		second := StreamOptions{Model: "other", Topics: []string{"a"}, Output: "a.other", Alerts: None}
		change(&second)
		return Options{Streams: []StreamOptions{{Model: "cars", Topics: []string{"a"}}, second}}.Validate()
	}
	if err := two(func(*StreamOptions) {}); err != nil {
		t.Errorf("a shared dlq is refused: %v", err)
	}
	for what, change := range map[string]func(*StreamOptions){
		`output "a.scores" is already written by stream 1`: func(s *StreamOptions) { s.Output = "a.scores" },
		`alerts "a.alerts" is already written by stream 1`: func(s *StreamOptions) { s.Alerts = "a.alerts" },
		`output "a.dlq" is already written by stream 1`:    func(s *StreamOptions) { s.Output, s.DLQ = "a.dlq", "b.dlq" },
		`dlq "a.scores" is already written by stream 1`:    func(s *StreamOptions) { s.DLQ = "a.scores" },
	} {
		if err := two(change); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("got %v, want: %s", err, what)
		}
	}
}

package server

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/lapwing-stream/lapwing/stream"
)

// A stream with a filter scores what it keeps, as if the rest were not there: also in rolling features, and after a restart. The rest is
// counted, has neither score nor dead letter, and is committed.
func TestServeWhere(t *testing.T) {
	b := newBed(t)
	b.topic("cars", 2)
	b.topic("kept", 2)
	b.publish("cars", testModel(t, rollingSpec(3), 1, 30), "live")
	var kept, all []stream.Record
	for i, r := range wander("cars", 2, 6, 0, 600) {
		plain := r
		plain.Topic = "kept"
		kept = append(kept, plain)
		r.Value = []byte(strings.Replace(string(r.Value), "{", `{"kind":"reading",`, 1))
		other := r
		other.Value = []byte(`{"kind":"heartbeat","x":1e6,"y":-3}`)
		if i%7 == 0 {
			other.Value = []byte(`{"kind":"start"}`) // without the filter a dead letter
		}
		all = append(all, r, other)
	}
	all = append(all, stream.Record{Topic: "cars", Key: []byte("car-1"), Time: -1}, stream.Record{Topic: "cars", Value: []byte("{"), Time: -1})
	b.produce(all[:700]...)
	b.produce(kept...)

	o := outputs("cars.scores")
	o.Where = `event.kind == "reading"`
	options := Options{Streams: []StreamOptions{o}, MaxBatch: 32, HTTP: "127.0.0.1:0"}
	s := b.serve(options)
	s.settled(700)
	s.stop()
	b.produce(all[700:]...)
	s = b.serve(options)
	s.settled(502)
	st := s.Status().Streams[0]
	if code, text := s.get("/metrics"); code != 200 || !strings.Contains(text, `lapwing_left_out_total{stream="cars.scores"} 250`) {
		t.Errorf("metrics %d: %s", code, text)
	}
	s.stop()
	if st.RecordsIn != 502 || st.RecordsOut != 250 || st.LeftOut != 250 || st.Bad != 1 || st.Tombstones != 1 {
		t.Errorf("after the restart: %+v", st)
	}
	plain := outputs("kept.scores")
	plain.Topics = []string{"kept"}
	p := b.serve(Options{Streams: []StreamOptions{plain}})
	p.settled(600)
	p.stop()

	// By key and time, since offsets differ.
	type thing struct{ key, time string }
	scores := map[thing]string{}
	read := func(s scored) (thing, string) {
		var r struct {
			Key, Time, Status string
			Score             json.Number
		}
		if err := json.Unmarshal(s.raw.Value, &r); err != nil {
			t.Fatal(err)
		}
		return thing{r.Key, r.Time}, r.Status + " " + r.Score.String()
	}
	for _, s := range b.scores("kept.scores") {
		at, score := read(s)
		scores[at] = score
	}
	got := b.scores("cars.scores")
	if len(got) != 600 || len(scores) != 600 {
		t.Fatalf("%d scores with the filter, %d of the records alone", len(got), len(scores))
	}
	for _, s := range got {
		if at, score := read(s); scores[at] != score {
			t.Fatalf("%v scores %s with the filter, %s alone", at, score, scores[at])
		}
	}
	if n := len(b.read("cars.scores.dlq")); n != 1 {
		t.Errorf("%d dead letters, want the one that is no JSON", n)
	}

	o.Where = `event.kind = "reading"`
	if err := (Options{Streams: []StreamOptions{o}}).Validate(); err == nil || !strings.Contains(err.Error(), "where: event.kind = \"reading\": column 12") {
		t.Errorf("a broken filter: %v", err)
	}
}

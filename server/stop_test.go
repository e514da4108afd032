package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lapwing-stream/lapwing/stream"
)

// TestCleanStop_Case6_08: the server is stopped and started over and over while records flow. A clean stop neither
// doubles nor loses one.
func TestCleanStop_Case6_08(t *testing.T) { eachDelivery(t, cleanStop) }

func cleanStop(t *testing.T, b *bed) {
	b.topic("cars", 4)
	b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
	const total = 16_000
	var feeding sync.WaitGroup
	feeding.Go(func() {
		for from := 0; from < total; from += 2000 {
			b.produce(b.events("cars", 4, from, 2000)...)
		}
	})
	rng := rand.New(rand.NewPCG(6, 8))
	taken := int64(0)
	for taken < total {
		s := b.serve(oneStream("cars"))
		some := min(total-taken, 1+rng.Int64N(total/6))
		s.settled(some)
		s.stop()
		st := s.Status().Streams[0]
		taken += st.RecordsOut
		if st.Ready || len(st.Missing) > 0 || st.Lag < 0 {
			t.Errorf("after a clean stop: ready %v, waits for %v, lag %d", st.Ready, st.Missing, st.Lag)
		}
	}
	feeding.Wait()
	if d := b.audit([]string{"cars"}, "cars.scores", "cars.dlq"); len(d) > 0 {
		t.Errorf("%d records came more than once", len(d))
	}
	if n := len(b.read("cars.scores")); n != total {
		t.Errorf("%d scores for %d records", n, total)
	}
}

// TestStopAtEachStage: ended before the model, before the assignment, and in the midst of the first records; nothing
// is lost, nothing comes twice.
func TestStopAtEachStage(t *testing.T) { eachDelivery(t, stopAtEachStage) }

func stopAtEachStage(t *testing.T, b *bed) {
	b.topic("cars", 2)
	b.produce(b.events("cars", 2, 0, 3000)...)
	waiting := b.serve(oneStream("cars"))
	await(t, "waiting for the model", func() bool { return b.log.count("records wait for a live model") == 1 })
	waiting.stop()
	b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
	taken := int64(0)
	for _, until := range []func(StreamStatus) bool{
		func(s StreamStatus) bool { return true },
		func(s StreamStatus) bool { return s.Version > 0 },
		func(s StreamStatus) bool { return s.Consumes },
		func(s StreamStatus) bool { return s.Partitions > 0 },
		func(s StreamStatus) bool { return s.RecordsIn > 0 },
		func(s StreamStatus) bool { return s.RecordsOut > 0 },
	} {
		o := oneStream("cars")
		o.MaxBatch = 16
		s := b.serve(o)
		await(t, "the stage", func() bool { return until(s.Status().Streams[0]) })
		s.stop()
		taken += s.Status().Streams[0].RecordsOut
	}
	s := b.serve(oneStream("cars"))
	s.settled(3000 - taken)
	s.stop()
	if d := b.audit([]string{"cars"}, "cars.scores", "cars.dlq"); len(d) > 0 {
		t.Errorf("%d records came more than once", len(d))
	}
}

// TestSlowShutdownSaysWhatItGaveUp: a stop that takes longer than it may says how much was left.
func TestSlowShutdownSaysWhatItGaveUp(t *testing.T) {
	err := drainError("cars.scores", 17, errShutdown)
	if lines := strings.Split(err.Error(), "\n"); len(lines) != 3 || !strings.Contains(lines[1], "17 records") {
		t.Errorf("%v", err)
	}
}

// TestMembersComeAndGo_Case6_09: copies join and leave the group under load; nothing is lost, and since each leaves
// cleanly, nothing comes twice.
func TestMembersComeAndGo_Case6_09(t *testing.T) { eachDelivery(t, membersComeAndGo) }

func membersComeAndGo(t *testing.T, b *bed) {
	b.topic("cars", 6)
	b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
	o := oneStream("cars")
	o.MaxBatch = 128
	first := b.serve(o)
	first.ready()
	var feeding sync.WaitGroup
	stop := make(chan struct{})
	total := 0
	feeding.Go(func() {
		for more := true; more; total += 600 {
			b.produce(b.events("cars", 6, total, 600)...)
			select {
			case <-stop:
				more = false
			default:
			}
		}
	})
	taken := func(s *serving) int64 { return s.Status().Streams[0].RecordsOut }
	others := int64(0)
	for range 3 {
		second := b.serve(o)
		await(t, "a share for the second copy", func() bool { return taken(second) > 0 })
		second.stop()
		others += taken(second)
	}
	close(stop)
	feeding.Wait()
	defer func() {
		if t.Failed() {
			st := first.Status().Streams[0]
			st.Latency = LatencyCounts{}
			t.Logf("first copy: %+v\nby others: %d", st, others)
		}
	}()
	await(t, "all records", func() bool { return taken(first)+others >= int64(total) })
	first.stop()
	if d := b.audit([]string{"cars"}, "cars.scores", "cars.dlq"); len(d) > 0 {
		t.Errorf("%d records came more than once", len(d))
	}
	t.Logf("%d by the first copy, %d by others", taken(first), others)
}

// TestAlertsOverRestarts: stopped in the midst of trouble and started again, the stream raises and clears each alert
// once, with the same id as without a stop.
func TestAlertsOverRestarts(t *testing.T) { eachDelivery(t, alertsOverRestarts) }

func alertsOverRestarts(t *testing.T, b *bed) {
	b.topic("cars", 2)
	b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
	var input []stream.Record
	for i := range 1200 {
		x := 1.
		if (i/100)%3 == 1 {
			x = 40 // 100 records: 20 of each of five cars, half of them in each partition
		}
		r := event("cars", i%2, i, x, 1)
		r.Key = fmt.Appendf(nil, "car-%d", i%10/2) // each car in both partitions
		input = append(input, r)
	}
	alerts := func(output string) map[string]int {
		lines := map[string]int{}
		for _, r := range b.read(output + ".alerts") {
			var a alertJSON
			if err := json.Unmarshal(r.Value, &a); err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(string(r.Key), "cars|cars|car-") {
				t.Errorf("key %q", r.Key)
			}
			lines[fmt.Sprintf("%s p%d %s %s at %d", r.Key, r.Partition, a.State, a.ID, a.Source.Offset)]++
		}
		return lines
	}
	options := func(output string) Options {
		return Options{MaxBatch: 16, Streams: []StreamOptions{{Model: "cars", Topics: []string{"cars"}, Output: output, Alerts: output + ".alerts", DLQ: output + ".dlq"}}}
	}
	b.produce(input...)
	s := b.serve(options("whole"))
	s.settled(1200)
	s.stop()
	want := alerts("whole")
	if len(want) < 20 {
		t.Fatalf("only %d alerts: %v", len(want), want)
	}
	taken := int64(0)
	for taken < 1200 {
		s := b.serve(options("parts"))
		s.settled(min(400, 1200-taken))
		s.stop()
		taken += s.Status().Streams[0].RecordsOut
	}
	if diff := cmp.Diff(want, alerts("parts")); diff != "" {
		t.Errorf("alerts with restarts differ (-whole +restarted):\n%s", diff)
	}
	if d := b.audit([]string{"cars"}, "parts", "parts.dlq"); len(d) > 0 {
		t.Errorf("%d records came more than once", len(d))
	}
}

// When the context ends, decode ends first and closes its end; the reader may be on its way to output by itself, and must not find
// it closed. Which of the two the score goroutine sees is chance, so it is asked often.
func TestOutputStaysOpenToTheReader(t *testing.T) {
	broken := errors.New("the commit failed")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(broken)
	for range 200 {
		s := &session{toScore: make(chan *parcel), toOutput: make(chan *parcel, 1)}
		close(s.toScore)
		if err := s.runScore(ctx); !errors.Is(err, broken) {
			t.Fatalf("score ended with %v", err)
		}
		if err := send(context.Background(), s.toOutput, &parcel{}); err != nil {
			t.Fatal(err)
		}
	}
}

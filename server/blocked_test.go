package server

import (
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Cases 2.15 and 8.08: the broker's disk is full, so it refuses what is written while input goes on as usual. The stream
// waits, stays in its group, says since when it is blocked, and goes on by itself when the disk has room again: nothing is
// lost, and at most the documented repeats come.
func TestOutputBlocked(t *testing.T) { deliveries(t, outputBlocked) }

func outputBlocked(t *testing.T, delivery string) {
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SleepOutOfOrder())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	b := bedAt(t, broker.ListenAddrs()[0])
	b.topic("cars", 2)
	b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
	b.produce(b.events("cars", 2, 0, 100)...)
	b.delivery = delivery
	s := b.serve(oneStream("cars"))
	s.settled(100)

	full := broker.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "cars.scores", Err: kerr.KafkaStorageError, Count: -1})
	b.produce(b.events("cars", 2, 100, 5000)...)
	await(t, "readiness that says since when the output is blocked", func() bool {
		code, body := s.get("/readyz")
		return code == 503 && strings.Contains(body, "cars.scores takes no records since")
	})
	_, metrics := s.get("/metrics")
	if !strings.Contains(metrics, `lapwing_output_blocked_seconds{stream="cars.scores"}`) || strings.Contains(metrics, `lapwing_output_blocked_seconds{stream="cars.scores"} 0`+"\n") {
		t.Errorf("the metric does not say that the output is blocked:\n%s", metrics)
	}
	if full.Hits() == 0 {
		t.Fatal("no write was refused")
	}
	in := func() int64 { return s.Status().Streams[0].RecordsIn }
	if n := in(); n > 100+int64(2*s.o.Queue) {
		t.Errorf("%d records taken while none could be written; the queue holds %d", n, s.o.Queue)
	}
	members, err := b.client.Members(t.Context(), "lapwing.cars.scores")
	if err != nil || len(members) != 1 {
		t.Errorf("members while blocked: %v, %v; the scorer should have stayed", members, err)
	}
	full.Remove()
	s.settled(5100)
	await(t, "readiness after the fault", func() bool { return s.Status().Ready })
	s.stop()
	b.audit([]string{"cars"}, "cars.scores", "cars.dlq")
	if s.Status().Streams[0].Lost != 0 {
		t.Errorf("%d lost", s.Status().Streams[0].Lost)
	}
}

// TestScoresGoOnWhileACommitWaits: the group's coordinator does not take the offsets, and the records that come meanwhile are
// scored all the same; what is not committed is, once it does, and a stop waits for that.
func TestScoresGoOnWhileACommitWaits(t *testing.T) {
	t.Parallel()
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SleepOutOfOrder())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	b := bedAt(t, broker.ListenAddrs()[0])
	b.topic("cars", 2)
	b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
	b.produce(b.events("cars", 2, 0, 10)...)
	o := oneStream("cars")
	o.Delivery = AtLeastOnce // a transaction holds its records until it is committed
	s := b.serve(o)
	s.settled(10)

	held, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	broker.ControlKey(int16(kmsg.OffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
		once.Do(func() { close(held) })
		broker.SleepControl(func() { <-release })
		return nil, nil, false
	})
	out := func() int64 { return s.Status().Streams[0].RecordsOut }
	b.produce(b.events("cars", 2, 10, 10)...)
	<-held
	b.produce(b.events("cars", 2, 20, 80)...)
	await(t, "scores beside the commit", func() bool { return out() == 100 })
	if n := s.Status().Streams[0].RecordsOut; n != 100 {
		t.Errorf("%d scores", n)
	}
	close(release)
	s.stop()
	b.audit([]string{"cars"}, "cars.scores", "cars.dlq")
}

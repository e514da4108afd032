package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/lapwing-stream/lapwing/stream"
)

func exactly(o Options) Options {
	o.Delivery = ExactlyOnce
	return o
}

// fakeBed is a bed whose broker takes faults.
func fakeBed(t *testing.T) (*bed, *kfake.Cluster) {
	t.Helper()
	t.Parallel()
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SleepOutOfOrder())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	return bedAt(t, broker.ListenAddrs()[0]), broker
}

// auditExactly holds the committed output against the input: nothing lost, nothing doubled, in order.
func (b *bed) auditExactly(topics []string, output string) {
	b.t.Helper()
	if d := b.audit(topics, output, strings.TrimSuffix(output, ".scores")+".dlq"); len(d) > 0 {
		b.t.Errorf("%d records came more than once: %v", len(d), d)
	}
}

// uncommitted is what stands in a topic beyond what committed readers see.
func (b *bed) uncommitted(topic string) int {
	b.t.Helper()
	b.everything = true
	all := len(b.read(topic))
	b.everything = false
	return all - len(b.read(topic))
}

// TestExactlyOnceStops: stopped and started over and over under load, with tombstones and dead letters; each record ends once, and
// each alert comes once, with the same id as at least once gives without a stop.
func TestExactlyOnceStops(t *testing.T) {
	b := newBed(t)
	b.topic("cars", 3)
	b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
	var input []stream.Record
	for i := range 3000 {
		x := 1.
		if (i/100)%3 == 1 {
			x = 40
		}
		r := event("cars", i%3, i, x, 1)
		switch i % 50 {
		case 7:
			r.Value = nil
		case 8:
			r.Value = []byte("{")
		}
		input = append(input, r)
	}
	b.produce(input...)
	alerts := func(topic string) map[string]int {
		lines := map[string]int{}
		for _, r := range b.read(topic) {
			var a alertJSON
			if err := json.Unmarshal(r.Value, &a); err != nil {
				t.Fatal(err)
			}
			lines[fmt.Sprintf("%s p%d %s %s at %d", r.Key, r.Partition, a.State, a.ID, a.Source.Offset)]++
		}
		return lines
	}
	o := oneStream("cars")
	o.Streams[0].Output, o.Streams[0].Alerts, o.Streams[0].DLQ = "least.scores", "least.alerts", "least.dlq"
	s := b.serve(o)
	s.settled(3000)
	s.stop()
	o = exactly(oneStream("cars"))
	o.MaxBatch = 64
	for taken := int64(0); taken < 3000; {
		s := b.serve(o)
		s.settled(min(700, 3000-taken))
		s.stop()
		st := s.Status().Streams[0]
		taken += st.RecordsOut + st.Bad + st.Tombstones
	}
	b.auditExactly([]string{"cars"}, "cars.scores")
	if diff := cmp.Diff(alerts("least.alerts"), alerts("cars.alerts")); diff != "" {
		t.Errorf("alerts differ (-at least once +exactly once):\n%s", diff)
	}
	if n := b.log.count("ERROR") + b.log.count("aborted"); n > 0 {
		t.Errorf("%d errors or aborts", n)
	}
}

// case 2.03: now and then a transaction is aborted, under load and while models swap. What was on its way is dropped, the group goes
// back to its committed offsets, and alerts and the look-back with it.
func TestExactlyOnceAborts_Case2_03(t *testing.T) {
	for name, fault := range map[string]kfake.Fault{
		"offsets refused":            {Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.IllegalGeneration},
		"output refused":             {Keys: []kmsg.Key{kmsg.Produce}, Topic: "cars.scores", Err: kerr.InvalidRecord},
		"coordinator gone":           {Keys: []kmsg.Key{kmsg.EndTxn, kmsg.AddOffsetsToTxn, kmsg.TxnOffsetCommit}, Err: kerr.NotCoordinator},
		"coordinator busy":           {Keys: []kmsg.Key{kmsg.EndTxn, kmsg.AddOffsetsToTxn, kmsg.AddPartitionsToTxn}, Err: kerr.ConcurrentTransactions},
		"commit stands, answer lost": {Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.RequestTimedOut},
		"fenced":                     {Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.ProducerFenced},
	} {
		t.Run(name, func(t *testing.T) {
			b, broker := fakeBed(t)
			b.topic("cars", 3)
			models := [][]byte{testModel(t, plainSpec, 1, 5), testModel(t, plainSpec, 2, 5)}
			b.publish("cars", models[0], "live")
			o := exactly(oneStream("cars"))
			o.MaxBatch, o.CommitInterval = 64, 20*time.Millisecond
			o.RetryMax = 100 * time.Millisecond
			s := b.serve(o)
			s.ready()
			asked := 0 // on the broker's one goroutine
			fault.When = func(r kmsg.Request) bool {
				if id, ok := transactionOf(r); ok && !strings.HasPrefix(id, "lapwing.cars.scores-") {
					return false // a model's publication
				}
				asked++
				return asked%5 == 0
			}
			fault.Count = 12
			injected := broker.Fault(fault)
			total := 0
			for round := range 200 {
				b.produce(b.events("cars", 3, total, 300)...)
				total += 300
				if round%5 == 4 {
					b.publish("cars", models[round%2], "live")
				}
				if injected.Hits() >= 12 && round > 10 {
					break
				}
			}
			await(t, "all scores", func() bool {
				st := s.Status().Streams[0]
				return st.Partitions == 3 && st.Lag == 0 && st.RecordsOut >= int64(total-1000) && b.scoredUpTo("cars", 3)
			})
			s.stop()
			b.auditExactly([]string{"cars"}, "cars.scores")
			t.Logf("%d records, %d faults, %d aborts, %d restarts, %d records aborted", total, injected.Hits(), b.log.count("a transaction was aborted"),
				b.log.count("the stream failed"), b.uncommitted("cars.scores"))
			if injected.Hits() == 0 {
				t.Error("no fault was injected")
			}
		})
	}
}

// transactionOf gives the transactional id that a request names.
func transactionOf(r kmsg.Request) (id string, ok bool) {
	switch r := r.(type) {
	case *kmsg.EndTxnRequest:
		return r.TransactionalID, true
	case *kmsg.AddOffsetsToTxnRequest:
		return r.TransactionalID, true
	case *kmsg.AddPartitionsToTxnRequest:
		return r.TransactionalID, true
	case *kmsg.TxnOffsetCommitRequest:
		return r.TransactionalID, true
	}
	return "", false
}

// scoredUpTo tells whether the group has committed the ends of all partitions.
func (b *bed) scoredUpTo(topic string, partitions int) bool {
	b.t.Helper()
	at, err := b.client.Committed(b.t.Context(), "lapwing."+topic+".scores", []string{topic})
	if err != nil {
		b.t.Fatal(err)
	}
	ends, err := b.client.Watermarks(b.t.Context(), topic)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, r := range ends {
		if at[stream.TopicPartition{Topic: topic, Partition: r.Partition}] != r.To {
			return false
		}
	}
	return len(ends) == partitions
}

// case 2.02: members come and go while transactions are open.
func TestExactlyOnceRebalances_Case2_02(t *testing.T) {
	b := newBed(t)
	b.topic("cars", 6)
	b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
	o := exactly(oneStream("cars"))
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
	await(t, "all records", func() bool { return taken(first)+others >= int64(total) })
	first.stop()
	b.auditExactly([]string{"cars"}, "cars.scores")
	if n := taken(first) + others; n != int64(total) {
		t.Errorf("%d counted as scored of %d", n, total)
	}
	t.Logf("%d by the first copy, %d by others; %d aborts", taken(first), others, b.log.count("a transaction was aborted"))
}

// A second process with the same instance id takes over; the first leaves what it had open to be aborted, and both end up with each
// record once.
func TestExactlyOnceSecondIncarnation(t *testing.T) {
	b := newBed(t)
	b.topic("cars", 2)
	b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
	o := exactly(oneStream("cars"))
	o.Streams[0].InstanceID = "one"
	// The zombie: it has produced into a transaction of that id, and is not seen again.
	zombie, err := b.client.Transactor(t.Context(), "lapwing.cars.scores-one", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer zombie.Close()
	s := b.serve(o)
	s.ready()
	s.stop()
	if err := zombie.Begin(); err != nil {
		t.Fatal(err)
	}
	err = zombie.Produce(t.Context(), []stream.Record{{Topic: "cars.scores", Value: []byte(`{"torn":true}`), Time: 1}})
	if err == nil {
		err = zombie.Commit(t.Context())
	}
	if !errors.Is(err, stream.ErrFenced) {
		t.Errorf("a zombie committed: %v", err)
	}
	b.produce(b.events("cars", 2, 0, 500)...)
	s = b.serve(o)
	s.settled(500)
	s.stop()
	b.auditExactly([]string{"cars"}, "cars.scores")
}

// Shown before a commit is hidden by it: a reader of committed records sees a lone record soon after the input is drained, long
// before the interval.
func TestExactlyOnceCommitsWhenDrained(t *testing.T) {
	b := newBed(t)
	b.topic("cars", 1)
	b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
	o := exactly(oneStream("cars"))
	o.CommitInterval, o.TransactionTimeout = 5*time.Minute, 11*time.Minute
	s := b.serve(o)
	s.ready()
	for i := range 3 {
		b.produce(b.events("cars", 1, i, 1)...)
		s.settled(int64(i + 1)) // counted when committed
	}
	if n := len(b.scores("cars.scores")); n != 3 {
		t.Errorf("%d committed scores of 3", n)
	}
}

func TestCommitClock(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(1_000_000 + ms)) }
	const ms = time.Millisecond
	for name, c := range map[string]struct {
		eager   bool
		at      int // ms after the first record
		records int
		drained bool
		commit  bool
		wait    time.Duration
	}{
		"nothing produced":               {records: -1},
		"under load":                     {eager: true, at: 30, records: 10, wait: 70 * ms},
		"drained":                        {eager: true, at: 30, records: 10, drained: true, commit: true},
		"drained, at least once":         {at: 30, records: 10, drained: true, wait: 70 * ms},
		"interval":                       {at: 100, records: 10, commit: true},
		"interval, whatever comes later": {eager: true, at: 250, records: 1, commit: true},
		"size":                           {eager: true, at: 1, records: 1000, commit: true},
		"offsets only":                   {at: 40, wait: 60 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			clock := commitClock{interval: 100 * ms, records: 1000, eager: c.eager}
			if c.records >= 0 {
				clock.produced(at(0), c.records)
			}
			commit, wait := clock.due(at(c.at), c.drained)
			if commit != c.commit || wait != c.wait {
				t.Errorf("got %v, %v; want %v, %v", commit, wait, c.commit, c.wait)
			}
			clock.settled()
			if commit, wait := clock.due(at(c.at), true); commit || wait != 0 {
				t.Errorf("after a commit: %v, %v", commit, wait)
			}
			clock.produced(at(c.at), 1) // what was committed does not count again
			if commit, wait := clock.due(at(c.at), false); commit || wait != 100*ms {
				t.Errorf("the first record after a commit: %v, %v", commit, wait)
			}
		})
	}
}

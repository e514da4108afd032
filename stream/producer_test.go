package stream

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// anyTime lets a topic take timestamps far from now: Kafka refuses those more than an hour ahead by default.
var anyTime = []string{"message.timestamp.after.max.ms", "9223372036854775807"}

func TestProducerKeepsWhatARecordIs(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	top := topic(t, c, 3, anyTime...)
	in := []Record{
		{Topic: top, Partition: 2, Key: []byte("k"), Value: []byte("v"), Time: 1_700_000_000_123, Headers: []Header{{"a", []byte("1")}, {"a", nil}, {"b", []byte{}}}},
		{Topic: top, Partition: 2, Key: nil, Value: nil, Time: 1}, // a tombstone without a key
		{Topic: top, Partition: 2, Key: []byte{}, Value: []byte{}, Time: 4_102_444_800_000},
		{Topic: top, Partition: 2, Key: []byte{0, 255}, Value: nil, Time: 9_214_646_400_000}, // in 2262
	}
	produce(t, c, in...)
	got, _ := readHistory(t, c, top)
	for i := range in {
		in[i].Offset = int64(i)
	}
	if d := cmp.Diff(in, got); d != "" {
		t.Error(d)
	}
}

func TestProducerTimesAtTheEdge_Case1_13(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	top := topic(t, c, 1, anyTime...)
	before := time.Now().UnixMilli()
	produce(t, c, Record{Topic: top, Time: 0}, Record{Topic: top, Time: -1}, Record{Topic: top, Time: 1 << 60})
	got, _ := readHistory(t, c, top)
	if got[0].Time != 1 || got[1].Time < before || got[2].Time != maxTime {
		t.Fatalf("times %d %d %d", got[0].Time, got[1].Time, got[2].Time)
	}
}

func TestProducerPartitionsKeysAsJavaDoes(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	top := topic(t, c, 10)
	// murmur2 of Java's DefaultPartitioner, toPositive, modulo 10; values from Kafka's own UtilsTest (murmur2("21") = -973932308,
	// ("foobar") = -790332482, ("a-little-bit-long-string") = -985981536).
	want := map[string]int32{}
	for key, hash := range map[string]int32{"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536} {
		want[key] = (hash & 0x7fffffff) % 10
		produce(t, c, Record{Topic: top, Partition: -1, Key: []byte(key), Value: []byte("x"), Time: -1})
	}
	got, _ := readHistory(t, c, top)
	if len(got) != len(want) {
		t.Fatal(len(got))
	}
	for _, r := range got {
		if r.Partition != want[string(r.Key)] {
			t.Errorf("%s is in partition %d, want %d", r.Key, r.Partition, want[string(r.Key)])
		}
	}
}

func TestProducerQueueIsBounded(t *testing.T) {
	t.Parallel()
	c, k := fake(t)
	top := topic(t, c, 1)
	ctx := ctxOf(t)
	release := make(chan struct{})
	k.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		k.SleepControl(func() { <-release })
		return nil, nil, false
	})
	p, err := c.Producer(ctx, ProducerOptions{MaxQueued: 10})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Produce(ctx, records(top, 0, 0, 10)); err != nil {
		t.Fatal(err)
	}
	full, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := p.Produce(full, records(top, 0, 10, 1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("the eleventh record: %v", err)
	}
	if p.Queued() != 10 {
		t.Fatalf("%d queued", p.Queued())
	}
	if err := p.Flush(full); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	close(release)
	if err := p.Produce(ctx, records(top, 0, 10, 100)); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(ctx); err != nil || p.Queued() != 0 {
		t.Fatal(err, p.Queued())
	}
	if err := p.Produce(ctx, records(top, 0, 0, 1)); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if got, _ := readHistory(t, c, top); len(got) != 110 {
		t.Fatal(len(got))
	}
}

func TestProducerNamesWhatFailed(t *testing.T) {
	t.Parallel()
	c, k := fake(t)
	top := topic(t, c, 2)
	ctx := ctxOf(t)
	p, err := c.Producer(ctx, ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	typo := top + "x"
	if err := p.Produce(ctx, records(typo, 0, 0, 1)); !errors.Is(err, ErrNoTopic) {
		t.Fatal(err)
	}
	if _, err := c.Partitions(ctx, typo); !errors.Is(err, ErrNoTopic) {
		t.Fatal("producing to a missing topic has created it")
	}
	if err := p.Produce(ctx, []Record{{Topic: top, Partition: 1, Value: make([]byte, 2*largestRecord)}}); err == nil {
		t.Fatal("too large a record was taken")
	} else {
		wantText(t, err.Error(), "topic "+top+", partition 1", "message.max.bytes")
	}
	k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: top, Err: kerr.TopicAuthorizationFailed})
	if err := p.Produce(ctx, records(top, 1, 0, 1)); err != nil {
		t.Fatal(err)
	}
	if err := p.Flush(ctx); err == nil {
		t.Fatal("a refused record counts as delivered")
	} else {
		wantText(t, err.Error(), "a record was not delivered", "topic "+top+", partition 1", "WRITE")
	}
	if err := p.Produce(ctx, records(top, 1, 0, 1)); err == nil {
		t.Fatal("the earlier failure is not returned")
	}
	if err := p.Close(ctx); err == nil {
		t.Fatal("Close hides the failure")
	}
}

func TestProducerCloseIsBoundedWhenTheBrokerHasGone_Case8_12(t *testing.T) {
	t.Parallel()
	e, err := Embed(EmbeddedOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c := connect(t, e.Addr(), nil)
	top := topic(t, c, 1)
	p, err := c.Producer(ctxOf(t), ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Produce(ctxOf(t), records(top, 0, 0, 1)); err != nil {
		t.Fatal(err)
	}
	if err := p.Flush(ctxOf(t)); err != nil {
		t.Fatal(err)
	}
	e.Close()
	if err := p.Produce(ctxOf(t), records(top, 0, 1, 5)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	err = p.Close(ctx)
	if err == nil {
		t.Fatal("five records are said to be delivered")
	}
	wantText(t, err.Error(), "not acknowledged", "5 records")
}

// What makes a producer useless is told by what it was, not by what it did to the records.
func TestFatalErrorIsNamed(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	p, err := c.Producer(ctxOf(t), ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(ctxOf(t))
	p.p.TestFatalError(kafka.ErrProducerFenced, "a newer one is at work")
	for _, r := range []report{
		{records: 1, code: kafka.ErrFatal, topic: "t"},
		{records: 1, code: kafka.ErrPurgeQueue, topic: "t", fatal: true},
		{fatal: true},
	} {
		q := &Producer{c: c, p: p.p, wake: make(chan struct{})} // with no reports of its own
		q.reported(r)
		if !errors.Is(q.err, ErrFenced) || q.acked != r.records {
			t.Errorf("%+v: %v after %d records", r, q.err, q.acked)
		}
	}
	top := topic(t, c, 1)
	if err := p.Produce(ctxOf(t), records(top, 0, 0, 1)); !errors.Is(err, ErrFenced) {
		t.Errorf("produce: %v", err)
	}
}

func TestTransactorIsFenced(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	top := topic(t, c, 1)
	ctx := ctxOf(t)
	id := name("tx")
	old, err := c.Transactor(ctx, id, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := errors.Join(old.Begin(), old.Produce(ctx, records(top, 0, 0, 3)), old.p.Flush(ctx)); err != nil {
		t.Fatal(err)
	}
	successor, err := c.Transactor(ctx, id, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer successor.Close()
	if err := old.Commit(ctx); !errors.Is(err, ErrFenced) {
		t.Fatalf("the older one: %v", err)
	}
	if err := errors.Join(successor.Begin(), successor.Produce(ctx, records(top, 0, 10, 2)), successor.Commit(ctx)); err != nil {
		t.Fatal(err)
	}
	// A commit is acknowledged when the coordinator has it in its log; the partition learns of it a moment later.
	got, _ := readHistory(t, c, top)
	for len(got) == 0 && pause(ctx, 10*time.Millisecond) {
		got, _ = readHistory(t, c, top)
	}
	if len(got) != 2 || string(got[0].Value) != "10" {
		t.Fatalf("%d records", len(got))
	}
}

func TestTransactorCommitIsRetriedUntilKnown_Case2_04(t *testing.T) {
	t.Parallel()
	c, k := fake(t)
	top := topic(t, c, 1)
	ctx := ctxOf(t)
	tr, err := c.Transactor(ctx, name("tx"), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	if err := errors.Join(tr.Begin(), tr.Produce(ctx, records(top, 0, 0, 3))); err != nil {
		t.Fatal(err)
	}
	k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.CoordinatorNotAvailable, Count: 2})
	if err := tr.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if got, _ := readHistory(t, c, top); len(got) != 3 {
		t.Fatal(len(got))
	}
	if err := tr.Abort(ctx); err != nil {
		t.Fatal("abort without a transaction:", err)
	}
}

// A producer is led past the bootstrap address before its transactions are initialised: librdkafka may wait 500 ms there.
func TestTransactorMeetsABroker(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	p, err := c.producer(ProducerOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.p.Close()
	p.meet(ctxOf(t))
	if m, err := p.p.GetMetadata(nil, false, 10_000); err != nil || m.OriginatingBroker.ID < 0 {
		t.Fatal(m, err)
	}
}

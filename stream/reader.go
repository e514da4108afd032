package stream

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// pause waits a little between tries; false when ctx ends first. d = 0 is 50 ms.
func pause(ctx context.Context, d time.Duration) bool {
	if d == 0 {
		d = 50 * time.Millisecond
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// readerDefaults hold for every consumer; the user's properties override them.
var readerDefaults = map[string]string{
	// A reader that outruns librdkafka's queue sleeps for this long; the default of 1000 costs three quarters of the throughput.
	"fetch.queue.backoff.ms": "1",
	// Bounds what waits in C memory, for the whole consumer, however many partitions.
	"queued.max.messages.kbytes": "32768",
}

// historyDefaults bound C memory further for reads of history, whose rows want the memory. librdkafka asks for no more than the queue
// holds at once, but what comes is compressed, and each message takes some 400 bytes beside its own: a queue of 8 MiB has grown to
// 60 with two readers. One of 2 MiB reads five million records no slower.
var historyDefaults = map[string]string{"queued.max.messages.kbytes": "2048"}

// groupDefaults keep a group that is behind from reading its queue slowly (intake.c): the queue is short enough, and the reader of it
// seen empty seldom enough, that librdkafka itself stops fetching before it comes to groupSlack times queued.max.messages.kbytes. What
// it holds then lasts longer than fetch.queue.backoff.ms at any rate that was measured.
//
// By a heartbeat's answer a member learns of a rebalance: at librdkafka's 3 s the partitions of a copy that died would wait for up to
// three seconds more than its session.
var groupDefaults = map[string]string{"queued.max.messages.kbytes": "16384", "queued.min.messages": "32768", "fetch.queue.backoff.ms": "10",
	"heartbeat.interval.ms": "1000"}

const groupSlack = 3

// consumer makes a consumer. Ones that only assign still need a group name, but never join it.
//
// fetchWait is how long the broker may hold back an empty answer, milliseconds: the end of a partition is only told in one, so a
// reader that ends there asks for it soon. more are further defaults.
func (c *Client) consumer(role map[string]any, fetchWait string, more map[string]string) (*kafka.Consumer, error) {
	defaults := maps.Clone(readerDefaults)
	defaults["fetch.wait.max.ms"] = fetchWait
	maps.Copy(defaults, more)
	set := map[string]any{
		"group.id":                 "lapwing-reader",
		"enable.auto.commit":       false,
		"enable.auto.offset.store": false,
		"auto.offset.reset":        "error",
		"enable.partition.eof":     true,
		"isolation.level":          "read_committed",
		"allow.auto.create.topics": false,
	}
	k, err := kafka.NewConsumer(c.config(defaults, set, role))
	if err != nil {
		return nil, &Error{What: "the consumer could not be made", Where: c.scrub(err.Error()), Next: "correct the kafka properties", Err: err}
	}
	return k, nil
}

// closeConsumer closes k within limit; a broker that has gone may keep librdkafka's close waiting, which then goes on behind.
func closeConsumer(k *kafka.Consumer, limit time.Duration) error {
	done := make(chan error, 1)
	go func() { done <- k.Close() }()
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case err := <-done:
		return err
	case <-t.C:
		return fmt.Errorf("closing the consumer takes longer than %v: given up", limit)
	}
}

// closeTime is how long the end of a consumer that has been read to its end may take.
const closeTime = 5 * time.Second

// retire closes k, behind, and then does what is left to do. The Go client's Close waits for two threads of its own that look each
// 100 ms whether they are to end: most of the time of a short read, and of a publication, which reads the model topic first. Close of the
// client waits for it.
func (c *Client) retire(k *kafka.Consumer, then func()) {
	c.closing.Go(func() {
		if err := closeConsumer(k, closeTime); err != nil {
			c.log.Warn("history reader", "err", err)
		}
		if then != nil {
			then()
		}
	})
}

var recordPool = sync.Pool{New: func() any { s := make([]Record, 0, 1024); return &s }}

// newBatch takes a slice of records from the pool.
func newBatch() *Batch {
	s := recordPool.Get().(*[]Record)
	b := &Batch{Records: (*s)[:0]}
	b.release = func() {
		clear(b.Records) // or the pool would keep the last batch's bytes alive
		*s = b.Records[:0]
		b.Records = nil
		recordPool.Put(s)
		for _, a := range b.arenas {
			a.release()
		}
		b.arenas = nil
	}
	return b
}

// hold keeps the bytes of a haul until Release.
func (b *Batch) hold(h *haul) {
	for _, a := range h.arenas {
		if !slices.Contains(b.arenas[max(0, len(b.arenas)-2):], a) {
			a.refs.Add(1)
			b.arenas = append(b.arenas, a)
		}
	}
}

func (b *Batch) add(m *kafka.Message) {
	r := Record{Topic: *m.TopicPartition.Topic, Partition: m.TopicPartition.Partition, Offset: int64(m.TopicPartition.Offset), Key: m.Key, Value: m.Value, Time: -1}
	if m.TimestampType != kafka.TimestampNotAvailable {
		r.Time = m.Timestamp.UnixMilli()
	}
	if len(m.Headers) > 0 {
		r.Headers = make([]Header, len(m.Headers))
		for i, h := range m.Headers {
			r.Headers[i] = Header{h.Key, h.Value}
		}
	}
	b.Records = append(b.Records, r)
}

// after chains work onto Release.
func (b *Batch) after(f func()) {
	inner := b.release
	b.release = func() {
		if inner != nil {
			inner()
		}
		f()
	}
}

package stream

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// Rehearsal is a Group without a consumer. Whoever holds it plays the brokers and the client below the group: what the group gives and
// takes away, where partitions begin, which records come. All that a Group keeps about that, and all that its caller meets, is the
// production code. It starts no goroutine and reads no clock, so the same calls have the same outcome.
type Rehearsal struct {
	g *Group
	p *poller
}

// RehearsedBrokers are asked in place of Kafka.
type RehearsedBrokers interface {
	// Membership is the member and generation that go with offsets, as the member knows them now; nil: none.
	Membership() any
	// Commit stores offsets outside a transaction.
	Commit(ctx context.Context, o Offsets) error
}

// RehearsedTransaction is asked in place of a transactional producer. What the methods owe is said at Transactor.
type RehearsedTransaction interface{ transaction }

// RehearsedProducer is asked in place of a producer without transactions.
type RehearsedProducer interface {
	Produce(ctx context.Context, records []Record) error
	Flush(ctx context.Context) error
}

// Rehearse makes the group.
func Rehearse(o GroupOptions, brokers RehearsedBrokers, log *slog.Logger) *Rehearsal {
	g := &Group{c: &Client{log: log}, o: o, known: map[string]int{}, wake: make(chan struct{}, 1), parts: map[TopicPartition]*owned{},
		seeks: map[TopicPartition]int64{}, signal: make(chan struct{}), brokers: brokers}
	return &Rehearsal{g, &poller{g: g, names: map[string]*string{}}}
}

// Group is what the caller under rehearsal has. Its Next must be called with a context that has ended, which makes it look without
// waiting; its Close must not.
func (r *Rehearsal) Group() *Group { return r.g }

// ExactlyOnce is the sink of ExactlyOnceOptions over t.
func (r *Rehearsal) ExactlyOnce(t RehearsedTransaction, now func() time.Time) Sink {
	return &exactlyOnce{t: t, g: r.g, now: now, pause: func(context.Context, time.Duration) bool { return true }}
}

// AtLeastOnce is the sink without transactions over p.
func (r *Rehearsal) AtLeastOnce(p RehearsedProducer) Sink {
	return &atLeastOnce{p: rehearsedProducer{p}, g: r.g}
}

type rehearsedProducer struct{ RehearsedProducer }

func (rehearsedProducer) Close(context.Context) error { return nil }
func (rehearsedProducer) reset()                      {}

// Give assigns partitions to the member.
func (r *Rehearsal) Give(tps []TopicPartition) { r.p.assigned(tps) }

// Unplaced are partitions of which Place has to say where they begin.
func (r *Rehearsal) Unplaced() []TopicPartition { return r.p.fresh }

// Place says where they begin, as the group and the partitions' leaders know it.
func (r *Rehearsal) Place(committed, low, high map[TopicPartition]int64) {
	r.p.place(committed, low, high)
}

// Started are partitions that are to be fetched from now on, from their Offset.
func (r *Rehearsal) Started() []Position {
	acked := r.g.assign
	r.g.assign = nil
	return r.p.mark(acked)
}

// Withdraw takes partitions away: by a rebalance, or, where lost, because the group has gone on without the member. The rebalance may go
// on once left returns true.
func (r *Rehearsal) Withdraw(tps []TopicPartition, lost bool) (left func() bool) {
	acked := r.p.withdraw(tps, lost)
	return func() bool {
		if acked == nil {
			return true
		}
		select {
		case <-acked:
			r.p.forget(tps)
			acked = nil
			return true
		default:
			return false
		}
	}
}

// Rewound are the partitions that the caller has sent back to their committed offsets: they are not fetched any more, and Unplaced.
func (r *Rehearsal) Rewound() []TopicPartition { return r.p.takeBack() }

// Fetched hands in records of one or more partitions, and then where the partitions that have been read to their end stop.
func (r *Rehearsal) Fetched(records []Record, ends map[TopicPartition]int64) {
	r.p.merge(&haul{records: records}, 0, len(records))
	for tp, at := range ends {
		r.p.atEnd(tp, at)
	}
}

// Behind notes that a partition goes on up to end, which a member hears long before it has fetched that.
func (r *Rehearsal) Behind(tp TopicPartition, end int64) {
	if w := r.g.parts[tp]; w != nil && w.started {
		w.end, w.high = max(w.end, end), max(w.high, end)
	}
}

// Full tells whether so much waits for the caller that nothing more is to be handed in.
func (r *Rehearsal) Full() bool { return len(r.g.ready) >= readyMax }

// Idle tells whether the caller's next look would find nothing.
func (r *Rehearsal) Idle() bool {
	g := r.g
	return g.awaiting == nil && len(g.events) == 0 && (g.out >= g.o.MaxInFlight || len(g.ready) == 0 && g.cur == nil)
}

func rehearsedOffsets(o Offsets, set []kafka.TopicPartition) Offsets {
	next := make(map[TopicPartition]int64, len(set))
	for _, tp := range set {
		next[TopicPartition{*tp.Topic, tp.Partition}] = int64(tp.Offset)
	}
	o.next = next
	return o
}

// Membership is what Rehearsed brokers gave.
func (o Offsets) Membership() any { return o.meta }

// Partitions lists what is to be committed, by topic and partition.
func (o Offsets) Partitions() []TopicPartition {
	tps := make([]TopicPartition, 0, len(o.next))
	for tp := range o.next {
		tps = append(tps, tp)
	}
	sortTPs(tps)
	return slices.Clip(tps)
}

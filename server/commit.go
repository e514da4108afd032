package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lapwing-stream/lapwing/stream"
)

// The values of Options.Delivery.
const (
	AtLeastOnce = "at_least_once"
	ExactlyOnce = "exactly_once"
)

// commitClock decides when what was produced is committed. It holds no clock and does no I/O: it is told what happened, and when.
//
// A commit makes at-least-once's results no sooner visible, so there it comes by interval alone. In a transaction it is what a
// reader waits for: when nothing more is to be had at once, it comes at once; under load, by interval and size, since each costs
// the broker a handful of requests and a marker in every partition.
type commitClock struct {
	interval time.Duration
	records  int
	eager    bool // when drained

	open  bool
	since time.Time // when the oldest record that is not committed was produced
	n     int       // records that are not committed
}

func (c *commitClock) produced(now time.Time, records int) {
	if !c.open {
		c.open, c.since = true, now
	}
	c.n += records
}

func (c *commitClock) settled() { c.open, c.n = false, 0 }

// due tells whether to commit now, and if not, when to ask again at the latest; wait 0: when something was produced.
func (c *commitClock) due(now time.Time, drained bool) (commit bool, wait time.Duration) {
	switch left := c.interval - now.Sub(c.since); {
	case !c.open:
		return false, 0
	case left <= 0, c.n >= c.records, c.eager && drained:
		return true, 0
	default:
		return false, left
	}
}

// produced is what has been handed to the sink and is not committed.
type produced struct {
	next    map[stream.TopicPartition]int64 // offsets to be committed
	begun   bool                            // the sink has a transaction
	records []delivered                     // of exactly-once: counted when they are committed
}

// delivered are the scores of one micro-batch.
type delivered struct {
	readAt time.Time
	scored int
}

func (p *produced) clear() {
	clear(p.next)
	p.begun = false
	p.records = p.records[:0]
}

// undoLimit is how many transactions in a row may fail, for other reasons than a rebalance, before the stream is begun anew, which
// waits longer each time.
const undoLimit = 3

// errUndone: the stream ended between an abort and its records' return.
var errUndone = errors.New("the last transaction was aborted")

// drained tells whether everything that can be read has been produced.
func (s *session) drained() bool { return s.inFlight.Load() == 0 && s.group.CaughtUp() }

// count notes delivered scores.
func (s *session) count(now time.Time, d delivered) {
	m := s.r.metrics
	took := now.Sub(d.readAt)
	m.latency.Observe(took.Seconds())
	m.latencies.add(took, d.scored)
	m.out.Add(float64(d.scored))
	m.nOut.Add(int64(d.scored))
}

// sinkCall makes a call of the sink that may wait for the broker, and shows so.
func (s *session) sinkCall(kind int, call func() error) (time.Duration, error) {
	began := time.Now()
	s.r.metrics.blocked[kind].Store(began.UnixNano())
	err := call()
	s.r.metrics.blocked[kind].Store(0)
	return time.Since(began), err
}

// begin opens a transaction where there is none.
func (s *session) begin(ctx context.Context) error {
	if s.pending.begun {
		return nil
	}
	if err := s.sink.Begin(ctx); err != nil {
		return err
	}
	s.pending.begun = true
	return nil
}

// produce hands records to the sink.
func (s *session) produce(ctx context.Context, records []stream.Record) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	took, err := s.sinkCall(blockProduce, func() error { return s.sink.Produce(ctx, records) })
	if err != nil {
		return s.undo(ctx, err)
	}
	s.r.metrics.produce.Observe(took.Seconds())
	return nil
}

// besideCommit is a commit of at-least-once that runs while records are produced on: it waits for acknowledgements and the
// group's coordinator, which the records that come meanwhile need not do. What it commits was produced before it began. At
// most one runs at a time, and none is running when a revocation or a loss comes out of the pipeline.
type besideCommit struct {
	next  map[stream.TopicPartition]int64 // being committed; nil = none is running
	spare map[stream.TopicPartition]int64
	ended chan committed
	run   func(func()) // beside what goes on
	await func(ctx context.Context, ended <-chan committed) (committed, error)
}

func awaitCommitted(ctx context.Context, ended <-chan committed) (committed, error) {
	select {
	case c := <-ended:
		return c, nil
	case <-ctx.Done():
		return committed{}, context.Cause(ctx)
	}
}

type committed struct {
	took time.Duration
	err  error
}

// commitBeside begins one.
func (s *session) commitBeside(ctx context.Context) {
	b := &s.beside
	offsets := s.group.Offsets(s.pending.next)
	if b.spare == nil {
		b.spare = map[stream.TopicPartition]int64{}
	}
	b.next, s.pending.next, b.spare = s.pending.next, b.spare, nil
	s.pending.begun = false
	s.clock.settled()
	b.run(func() {
		took, err := s.sinkCall(blockBeside, func() error { return s.sink.Commit(ctx, offsets) })
		b.ended <- committed{took, err}
	})
}

// besideEnded takes what came of it.
func (s *session) besideEnded(ctx context.Context, c committed) error {
	b, m := &s.beside, s.r.metrics
	m.commit.Observe(c.took.Seconds())
	next := b.next
	b.next = nil
	if c.err == nil {
		m.commits.Inc()
		s.unsettled.Store(s.inFlight.Load() + int64(s.clock.n))
		clear(next)
		b.spare = next
		return nil
	}
	m.commitFailures.Inc()
	if !errors.Is(c.err, stream.ErrNotMember) || ctx.Err() != nil {
		return c.err
	}
	for tp, n := range next {
		if _, newer := s.pending.next[tp]; !newer {
			s.pending.next[tp] = n
		}
	}
	s.notMember(c.err)
	return nil
}

// notMember leaves the offsets pending.
func (s *session) notMember(err error) {
	s.r.log.Warn("offsets not committed: the group is being rebalanced", "stream", s.r.o.name(), "error", err)
	now := s.r.now()
	s.clock.produced(now, 0)
	s.clock.since = now // not again at once
}

// awaitBeside waits for a commit that is running.
func (s *session) awaitBeside(ctx context.Context) error {
	if s.beside.next == nil {
		return nil
	}
	c, err := s.beside.await(ctx, s.beside.ended)
	if err != nil {
		return err
	}
	return s.besideEnded(ctx, c)
}

// commit settles all that was produced. That this member is no longer of the group's generation is no failure: in
// at-least-once the offsets stay pending, and the rebalance that follows says whose the partitions are.
func (s *session) commit(ctx context.Context) error {
	if err := s.awaitBeside(ctx); err != nil {
		return err
	}
	if len(s.pending.next) == 0 && !s.pending.begun {
		return nil
	}
	if err := s.begin(ctx); err != nil {
		return err
	}
	took, err := s.sinkCall(blockProduce, func() error { return s.sink.Commit(ctx, s.group.Offsets(s.pending.next)) })
	s.r.metrics.commit.Observe(took.Seconds())
	if err != nil {
		s.r.metrics.commitFailures.Inc()
		if !s.exact && errors.Is(err, stream.ErrNotMember) && ctx.Err() == nil {
			s.notMember(err)
			return nil
		}
		return s.undo(ctx, err)
	}
	s.r.metrics.commits.Inc()
	now := time.Now()
	for _, d := range s.pending.records {
		s.count(now, d)
	}
	s.pending.clear()
	s.clock.settled()
	s.undos = 0
	s.unsettled.Store(s.inFlight.Load())
	return nil
}

// undo aborts the transaction and sends the group back to its committed offsets. What is on its way from before is dropped
// until the news of that comes out; state goes with the partitions, and comes back with them as it was committed.
// An error means that the session has to end, which has the same effect.
func (s *session) undo(ctx context.Context, cause error) error {
	moved := errors.Is(cause, stream.ErrNotMember)
	if !moved {
		s.undos++
	}
	if !s.exact || ctx.Err() != nil || errors.Is(cause, stream.ErrFenced) || s.undos >= undoLimit {
		return cause
	}
	if err := s.sink.Abort(ctx); err != nil {
		return fmt.Errorf("%w; %w", cause, err)
	}
	s.r.metrics.aborts.Inc()
	s.r.log.Warn("a transaction was aborted; its records are scored again from the committed offsets", "stream", s.r.o.name(), "error", cause)
	s.pending.clear()
	s.clock.settled()
	s.moved = moved
	s.undone = s.group.Rewind()
	return nil
}

// last settles what is left when the stream ends. Where that was undone because other members have the partitions by now, they
// score it.
func (s *session) last(ctx context.Context) error {
	if err := s.commit(ctx); err != nil {
		return err
	}
	if s.undone != 0 && !s.moved {
		return errUndone
	}
	return nil
}

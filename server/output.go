package server

import (
	"context"
	"errors"
	"time"

	"github.com/lapwing-stream/lapwing/stream"
)

// runOutput produces and commits. A commit waits for acknowledgements, so it comes once an interval, not once a
// batch; a stop and a revocation commit at once.
func (s *session) runOutput(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	running := false
	for {
		select {
		case p, ok := <-s.toOutput:
			if !ok {
				return s.commit(ctx)
			}
			if err := s.deliver(ctx, p); err != nil {
				return err
			}
		case <-timer.C:
			running = false
			if err := s.commit(ctx); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if len(s.pending) > 0 && !running {
			timer.Reset(s.r.server.CommitInterval)
			running = true
		}
	}
}

func (s *session) deliver(ctx context.Context, p *parcel) error {
	if p.news != nil {
		if len(p.out) > 0 { // restored alerts beyond alert_keys were cleared
			if err := s.sink.Produce(ctx, p.out); err != nil {
				return err
			}
		}
		return s.pass(ctx, p.news)
	}
	out := p.out
	if gone := s.lost.Load(); gone != nil {
		out = s.withoutLost(p, *gone)
	}
	if !s.begun {
		if err := s.sink.Begin(ctx); err != nil {
			return err
		}
		s.begun = true
	}
	began := time.Now()
	s.r.metrics.blocked.Store(began.UnixNano())
	err := s.sink.Produce(ctx, out)
	s.r.metrics.blocked.Store(0)
	if err != nil {
		return err
	}
	now := time.Now()
	s.r.metrics.produce.Observe(now.Sub(began).Seconds())
	s.r.metrics.latency.Observe(now.Sub(p.readAt).Seconds())
	s.r.metrics.latencies.add(now.Sub(p.readAt), p.scored)
	s.r.metrics.out.Add(float64(p.scored))
	s.r.metrics.nOut.Add(int64(p.scored))
	for tp, next := range p.next {
		s.pending[tp] = next
	}
	for _, b := range p.batches {
		b.Release()
	}
	if s.inFlight.Add(-int64(p.records)) == 0 {
		s.r.metrics.busy.end(time.Now())
	}
	if len(p.next) == 0 {
		s.unsettled.Add(-int64(p.records)) // all of it was read for the alert counts only
	}
	m := p.m
	clear(m.records) // the batches have gone back: hold nothing of theirs
	clear(p.out)
	m.out, m.text = p.out, p.text
	select {
	case s.free <- m:
	default:
	}
	return nil
}

// withoutLost leaves out what belongs to partitions of another member: it scores them itself.
func (s *session) withoutLost(p *parcel, gone map[stream.TopicPartition]bool) []stream.Record {
	for tp := range p.next {
		if gone[tp] {
			delete(p.next, tp)
		}
	}
	// An output record names its partition, not its source topic. With several input topics one partition number may
	// belong to a lost and to a kept partition: then its records stay, and come twice at worst.
	kept := map[int32]bool{}
	for tp := range p.next {
		kept[tp.Partition] = true
	}
	drop := map[int32]bool{}
	for tp := range gone {
		drop[tp.Partition] = !kept[tp.Partition]
	}
	out := p.out[:0]
	for _, r := range p.out {
		if !drop[r.Partition] {
			out = append(out, r)
		}
	}
	return out
}

// pass lets news out at the end of the pipeline.
func (s *session) pass(ctx context.Context, n *news) error {
	for _, a := range n.assigned {
		if a.Recreated {
			// The group's offset is above the end and would be so again at each restart until something is read.
			s.pending[a.TopicPartition] = a.Offset
		}
	}
	if len(n.lost) > 0 {
		for _, tp := range n.lost {
			delete(s.pending, tp)
		}
		s.lost.Store(nil)
	}
	if len(n.revoked) > 0 {
		if err := s.commit(ctx); err != nil {
			return err
		}
		for _, tp := range n.revoked {
			delete(s.pending, tp)
		}
	}
	if n.done != nil {
		close(n.done)
	}
	return nil
}

// commit settles all that was produced. That this member is no longer of the group's generation is no failure: the
// offsets stay pending, and the rebalance that follows says whose the partitions are.
func (s *session) commit(ctx context.Context) error {
	if len(s.pending) == 0 {
		return nil
	}
	began := time.Now()
	s.r.metrics.blocked.Store(began.UnixNano())
	err := s.sink.Commit(ctx, s.group.Offsets(s.pending))
	s.r.metrics.blocked.Store(0)
	s.r.metrics.commit.Observe(time.Since(began).Seconds())
	if err != nil {
		s.r.metrics.commitFailures.Inc()
		if errors.Is(err, stream.ErrNotMember) && ctx.Err() == nil {
			s.r.log.Warn("offsets not committed: the group is being rebalanced", "stream", s.r.o.name(), "error", err)
			return nil
		}
		return err
	}
	s.r.metrics.commits.Inc()
	clear(s.pending)
	s.begun = false
	s.unsettled.Store(s.inFlight.Load())
	return nil
}

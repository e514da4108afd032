package server

import (
	"context"
	"time"

	"github.com/lapwing-stream/lapwing/stream"
)

// runOutput produces and commits. A commit waits for acknowledgements, so it comes once an interval, not once a
// batch, and at-least-once produces on meanwhile; a stop and a revocation commit at once.
func (s *session) runOutput(ctx context.Context) error {
	ctx, end := context.WithCancel(ctx)
	defer func() {
		end()
		if s.beside.next != nil {
			<-s.beside.ended
		}
	}()
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case p, ok := <-s.toOutput:
			if !ok {
				return s.last(ctx)
			}
			if err := s.deliver(ctx, p); err != nil {
				return err
			}
		case <-timer.C:
		case c := <-s.beside.ended:
			if err := s.besideEnded(ctx, c); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		wait, err := s.commitDue(ctx)
		if err != nil {
			return err
		}
		if wait > 0 {
			timer.Reset(wait)
		}
	}
}

// commitDue commits where it is time to. It says when to call it again at the latest; 0: when something has happened.
func (s *session) commitDue(ctx context.Context) (wait time.Duration, err error) {
	if s.beside.next != nil {
		return 0, nil
	}
	commit, wait := s.clock.due(s.r.now(), s.exact && s.drained())
	switch {
	case commit && !s.exact && len(s.pending.next) > 0:
		s.commitBeside(ctx)
		return 0, nil
	case commit:
		if err := s.commit(ctx); err != nil {
			return 0, err
		}
		_, wait = s.clock.due(s.r.now(), false) // open still where the group is being rebalanced
	}
	return wait, nil
}

func (s *session) deliver(ctx context.Context, p *parcel) error {
	if p.news != nil {
		if len(p.out) > 0 && s.undone == 0 { // restored alerts beyond alert_keys were cleared
			if err := s.produce(ctx, p.out); err != nil {
				return err
			}
			if s.undone == 0 {
				s.clock.produced(s.r.now(), len(p.out))
			}
		}
		return s.pass(ctx, p.news)
	}
	if err := s.settle(ctx, p); err != nil {
		return err
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
	m.leave()
	clear(p.out)
	m.out, m.text = p.out, p.text
	select {
	case s.free <- m:
	default:
	}
	return nil
}

// settle produces a parcel, unless it comes from before an abort.
func (s *session) settle(ctx context.Context, p *parcel) error {
	if s.undone != 0 {
		return nil
	}
	out := p.out
	if gone := s.lost.Load(); gone != nil {
		if s.exact {
			if anyGone(p.next, *gone) {
				return s.undo(ctx, stream.ErrNotMember)
			}
		} else {
			out = s.withoutLost(p, *gone)
		}
	}
	if len(out) > 0 {
		if err := s.produce(ctx, out); err != nil || s.undone != 0 {
			return err
		}
	}
	now := s.r.now()
	for tp, next := range p.next {
		s.pending.next[tp] = next
	}
	if len(p.next) > 0 || len(out) > 0 {
		s.clock.produced(now, p.records)
	}
	d := delivered{p.readAt, p.scored}
	if s.exact {
		s.pending.records = append(s.pending.records, d)
	} else {
		s.count(now, d)
	}
	return nil
}

func anyGone(next map[stream.TopicPartition]int64, gone map[stream.TopicPartition]bool) bool {
	for tp := range next {
		if gone[tp] {
			return true
		}
	}
	return false
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
		if a.Recreated && s.undone == 0 {
			// The group's offset is above the end and would be so again at each restart until something is read.
			s.pending.next[a.TopicPartition] = a.Offset
			s.clock.produced(s.r.now(), 0)
		}
	}
	if n.rewound != 0 && n.rewound == s.undone {
		s.undone = 0
		s.unsettled.Store(s.inFlight.Load())
	}
	if len(n.lost) > 0 {
		// Once the news is out the partitions may come back, with offsets that another member has committed meanwhile.
		if err := s.awaitBeside(ctx); err != nil {
			return err
		}
		gone := map[stream.TopicPartition]bool{}
		for _, tp := range n.lost {
			gone[tp] = true
		}
		if s.exact && anyGone(s.pending.next, gone) {
			// Their records are in the open transaction, and cannot be taken out of it.
			if err := s.undo(ctx, stream.ErrNotMember); err != nil {
				return err
			}
		}
		for tp := range gone {
			delete(s.pending.next, tp)
		}
		s.lost.Store(nil)
	}
	if len(n.revoked) > 0 {
		if err := s.commit(ctx); err != nil {
			return err
		}
		for _, tp := range n.revoked {
			delete(s.pending.next, tp)
		}
	}
	if n.done != nil {
		close(n.done)
	}
	return nil
}

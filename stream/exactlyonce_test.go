package stream

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Sent back again and again while records wait everywhere between broker and caller, a group goes on at its committed offsets, with no
// record left out and none of those that were fetched before.
func TestGroupRewind_Case2_03(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	top := topic(t, c, 3)
	const each = 4000
	for p := range int32(3) {
		produce(t, c, records(top, p, 0, each)...)
	}
	m := join(t, c, GroupOptions{Topics: []string{top}, Group: name("g"), MaxBatch: 100})
	m.untilAssigned(3)
	rng := rand.New(rand.NewPCG(2, 3))
	committed := map[TopicPartition]int64{}
	for range 40 {
		before := m.n
		m.until("records", func() bool { return m.n > before+rng.IntN(300) })
		if rng.IntN(2) == 0 {
			m.commit()
			for tp, n := range m.next {
				committed[tp] = n
			}
		}
		n := m.g.Rewind()
		if n != m.g.rewinds {
			t.Fatalf("rewind %d of %d", n, m.g.rewinds)
		}
		// What was handed out before is the caller's to drop.
		ctx, cancel := context.WithTimeout(ctxOf(t), 20*time.Second)
		for {
			e := m.step(ctx)
			if lost, ok := e.(*Lost); ok && lost.Rewound == n {
				if len(lost.Partitions) != 3 {
					t.Fatalf("lost %v, want all three", lost.Partitions)
				}
				break
			}
			if e == nil {
				t.Fatal("the rewind never came")
			}
		}
		cancel()
		m.seen = map[TopicPartition][]int64{}
		m.untilAssigned(3)
		for tp, p := range m.mine {
			if p.Offset != committed[tp] {
				t.Fatalf("%v begins at %d; committed is %d", tp, p.Offset, committed[tp])
			}
		}
		after := m.n
		m.until("records again", func() bool { return m.n > after || allRead(committed, each) })
		m.contiguous(committed)
	}
	m.until("the end", func() bool {
		for p := range int32(3) {
			if tp := (TopicPartition{top, p}); m.next[tp] < each && committed[tp] < each { // nothing comes of one that was committed to its end
				return false
			}
		}
		return true
	})
	m.contiguous(committed)
}

func allRead(at map[TopicPartition]int64, each int64) bool {
	for _, n := range at {
		if n < each {
			return false
		}
	}
	return len(at) > 0
}

// contiguous holds what was seen to begin where it should, without a hole.
func (m *member) contiguous(from map[TopicPartition]int64) {
	m.t.Helper()
	for tp, offsets := range m.seen {
		for i, o := range offsets {
			if o != from[tp]+int64(i) {
				m.t.Fatalf("%v: record %d after the rewind has offset %d; it began at %d", tp, i, o, from[tp])
			}
		}
	}
}

// Records and offsets stand together or not at all; a member that has lost its partitions commits nothing, even where the broker, asked
// with its new membership, would let it.
func TestExactlyOnceSink(t *testing.T) {
	t.Parallel()
	c, k := fake(t)
	in, out := topic(t, c, 1), topic(t, c, 1)
	tp := TopicPartition{in, 0}
	produce(t, c, records(in, 0, 0, 100)...)
	group := name("g")
	m := join(t, c, GroupOptions{Topics: []string{in}, Group: group})
	m.untilAssigned(1)
	m.until("records", func() bool { return m.n == 100 })
	s, err := c.ExactlyOnce(ctxOf(t), m.g, ExactlyOnceOptions{ID: name("tx")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(ctxOf(t))
	wrote := func(n int, next int64) {
		t.Helper()
		if got, _ := readHistory(t, c, out); len(got) != n {
			t.Errorf("%d committed records, want %d", len(got), n)
		}
		at, err := c.Committed(ctxOf(t), group, []string{in})
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := at[tp]; got != next || ok != (next > 0) {
			t.Errorf("committed offset %d (%v), want %d", got, ok, next)
		}
	}
	try := func(next int64) error {
		ctx := ctxOf(t)
		if err := errors.Join(s.Begin(ctx), s.Produce(ctx, records(out, 0, 0, 5))); err != nil {
			t.Fatal(err)
		}
		return s.Commit(ctx, m.g.Offsets(map[TopicPartition]int64{tp: next}))
	}
	if err := try(10); err != nil {
		t.Fatal(err)
	}
	wrote(5, 10)
	refused := func(what string, want error, fault kfake.Fault) {
		t.Helper()
		f := k.Fault(fault)
		if err := try(20); err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
		f.Remove()
		if err := s.Abort(ctxOf(t)); err != nil {
			t.Fatal(what, err)
		}
		wrote(5, 10)
	}
	refused("a generation that has passed", ErrNotMember, kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.IllegalGeneration})
	refused("a member that was put out", ErrNotMember, kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.UnknownMemberID})

	m.g.mu.Lock()
	lost := m.g.parts[tp]
	m.g.parts[tp] = &owned{from: -1} // lost, and assigned again: the caller has not heard of either
	m.g.mu.Unlock()
	if err := try(20); !errors.Is(err, ErrNotMember) {
		t.Errorf("offsets of a partition that was lost: %v", err)
	}
	if err := s.Abort(ctxOf(t)); err != nil {
		t.Fatal(err)
	}
	wrote(5, 10)
	m.g.mu.Lock()
	m.g.parts[tp] = lost
	m.g.mu.Unlock()

	// A coordinator that is gone for a while is waited for.
	k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit, kmsg.AddOffsetsToTxn, kmsg.EndTxn}, Err: kerr.CoordinatorNotAvailable, Count: 5})
	if err := try(10); err != nil {
		t.Fatal(err)
	}
	wrote(10, 10)
	f := k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: out, Err: kerr.MessageTooLarge})
	if err := try(20); err == nil || f.Hits() == 0 {
		t.Errorf("a record that was refused: %v", err)
	}
	if err := s.Abort(ctxOf(t)); err != nil {
		t.Fatal(err)
	}
	wrote(10, 10)
}

// TestExactlyOnceGivesUpACallThatHangs: librdkafka sends offsets to a coordinator that it cannot find for ever, whatever time it was given.
// After each rolling restart of a cluster of three a copy of serve stood still until it was killed.
func TestExactlyOnceGivesUpACallThatHangs(t *testing.T) {
	t.Parallel()
	c, k := fake(t)
	in, out := topic(t, c, 1), topic(t, c, 1)
	tp := TopicPartition{in, 0}
	produce(t, c, records(in, 0, 0, 100)...)
	group, id := name("g"), name("tx")
	m := join(t, c, GroupOptions{Topics: []string{in}, Group: group})
	m.untilAssigned(1)
	m.until("records", func() bool { return m.n == 100 })
	attempt := func() (Sink, error) {
		s, err := c.ExactlyOnce(ctxOf(t), m.g, ExactlyOnceOptions{ID: id, Timeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Begin(ctxOf(t)), s.Produce(ctxOf(t), records(out, 0, 0, 5))); err != nil {
			t.Fatal(err)
		}
		return s, s.Commit(ctxOf(t), m.g.Offsets(map[TopicPartition]int64{tp: 10}))
	}
	gone := k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.FindCoordinator}, Err: kerr.CoordinatorNotAvailable, Count: -1, When: func(r kmsg.Request) bool {
		f, ok := r.(*kmsg.FindCoordinatorRequest)
		return ok && (f.CoordinatorKey == group || slices.Contains(f.CoordinatorKeys, group))
	}})
	s, err := attempt()
	if !errors.Is(err, errHung) {
		t.Errorf("the commit ended with %v", err)
	}
	if err := s.Abort(ctxOf(t)); !errors.Is(err, errHung) {
		t.Errorf("a producer that hangs was asked to abort: %v", err)
	}
	if err := s.Close(ctxOf(t)); err != nil {
		t.Error(err)
	}
	gone.Remove()
	// The next one takes the id over; what the first left open is aborted.
	s, err = attempt()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(ctxOf(t))
	if got, _ := readHistory(t, c, out); len(got) != 5 {
		t.Errorf("%d committed records, want 5", len(got))
	}
	if at, err := c.Committed(ctxOf(t), group, []string{in}); err != nil || at[tp] != 10 {
		t.Errorf("committed %v, %v", at, err)
	}
}

func TestExactlyOnceOptionsFaultsAtOnce(t *testing.T) {
	err := (&ExactlyOnceOptions{Timeout: -1}).Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	wantText(t, err.Error(), "ID is empty", "must not be negative")
}

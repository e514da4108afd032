package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// member drives a group as a server does: it commits what it was given, and drops state on rebalances.
type member struct {
	t    *testing.T
	g    *Group
	seen map[TopicPartition][]int64
	next map[TopicPartition]int64
	mine map[TopicPartition]Position
	n    int
}

func join(t *testing.T, c *Client, o GroupOptions) *member {
	t.Helper()
	g, err := c.Group(ctxOf(t), o)
	if err != nil {
		t.Fatal(err)
	}
	m := &member{t: t, g: g, seen: map[TopicPartition][]int64{}, next: map[TopicPartition]int64{}, mine: map[TopicPartition]Position{}}
	t.Cleanup(func() { g.Close() })
	return m
}

// step takes one event; nil when ctx ended.
func (m *member) step(ctx context.Context) Event {
	e, err := m.g.Next(ctx)
	if err != nil {
		if ctx.Err() == nil {
			m.t.Error(err)
		}
		return nil
	}
	switch e := e.(type) {
	case *Batch:
		for _, r := range e.Records {
			tp := TopicPartition{r.Topic, r.Partition}
			if _, ok := m.mine[tp]; !ok {
				m.t.Errorf("a record of %v, which is not ours", tp)
			}
			m.seen[tp] = append(m.seen[tp], r.Offset)
			m.next[tp] = r.Offset + 1
			m.n++
		}
		e.Release()
	case *Assigned:
		for _, p := range e.Partitions {
			m.mine[p.TopicPartition] = p
		}
	case *Revoked:
		m.commit()
		m.drop(e.Partitions)
	case *Lost:
		m.drop(e.Partitions)
	}
	return e
}

func (m *member) drop(tps []TopicPartition) {
	for _, tp := range tps {
		delete(m.next, tp)
		delete(m.mine, tp)
	}
}

func (m *member) commit() {
	m.t.Helper()
	if err := m.g.commit(ctxOf(m.t), m.g.Offsets(m.next)); err != nil && !errors.Is(err, ErrNotMember) {
		m.t.Error(err)
	}
}

// until steps until done holds.
func (m *member) until(what string, done func() bool) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for !done() {
		short, stop := context.WithTimeout(ctx, 20*time.Millisecond) // some conditions change without an event
		m.step(short)
		stop()
		if ctx.Err() != nil {
			var short []string
			for tp, os := range m.seen {
				short = append(short, fmt.Sprintf("%v: %d records, %d to %d", tp, len(os), os[0], os[len(os)-1]))
			}
			m.t.Fatalf("never: %s (records so far: %d; %v; lag %v)", what, m.n, short, m.g.Lag())
		}
	}
}

func (m *member) untilAssigned(n int) {
	m.t.Helper()
	m.until("assignment", func() bool { return len(m.mine) == n })
}

func TestGroupReadsCommitsAndResumes(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	top := topic(t, c, 3)
	for p := range int32(3) {
		produce(t, c, records(top, p, 0, 500)...)
	}
	o := GroupOptions{Topics: []string{top}, Group: name("g"), MaxBatch: 100}
	m := join(t, c, o)
	m.until("1500 records", func() bool { return m.n == 1500 })
	for tp, offsets := range m.seen {
		for i, o := range offsets {
			if int64(i) != o {
				t.Fatalf("%v: offset %d at place %d", tp, o, i)
			}
		}
	}
	if !m.g.InGroup() {
		t.Error("not in the group")
	}
	m.commit()
	if err := m.g.Close(); err != nil {
		t.Fatal(err)
	}
	if m.g.Close() != nil || errors.Is(m.g.commit(ctxOf(t), Offsets{}), nil) {
		t.Error("closed twice, or a closed group commits")
	}
	at, err := c.Committed(ctxOf(t), o.Group, o.Topics)
	if err != nil || at[TopicPartition{top, 2}] != 500 {
		t.Fatal(at, err)
	}
	produce(t, c, records(top, 1, 500, 10)...)
	m = join(t, c, o)
	m.until("10 records", func() bool { return m.n >= 10 })
	if m.n != 10 || m.seen[TopicPartition{top, 1}][0] != 500 {
		t.Fatalf("%d records, from %v", m.n, m.seen)
	}
	if p := m.mine[TopicPartition{top, 1}]; p.Committed != 500 || p.Offset != 500 || p.High != 510 || p.Low != 0 {
		t.Errorf("%+v", p)
	}
}

func TestGroupNamesMissingTopics_Case2_05(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	top := topic(t, c, 1)
	_, err := c.Group(ctxOf(t), GroupOptions{Topics: []string{top, top + "b"}, Group: name("g")})
	if !errors.Is(err, ErrNoTopic) {
		t.Fatal(err)
	}
	wantText(t, err.Error(), top+"b does not exist", "did you mean "+top)
	if err := (&GroupOptions{Start: "middle", MaxBatch: -1}).Validate(); err == nil || strings.Count(err.Error(), "\n") < 3 {
		t.Errorf("not every fault is reported: %v", err)
	}
}

func TestGroupReadsNewPartitionsFromTheirBeginning_Case1_06(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	c = connect(t, c.Brokers(), map[string]string{"topic.metadata.refresh.interval.ms": "200"})
	top := topic(t, c, 2)
	produce(t, c, records(top, 0, 0, 10)...)
	m := join(t, c, GroupOptions{Topics: []string{top}, Group: name("g"), Start: "latest"})
	m.untilAssigned(2)
	if p := m.mine[TopicPartition{top, 0}]; p.Offset != 10 || p.Committed != -1 {
		t.Fatalf("%+v", p)
	}
	if err := c.AddPartitions(ctxOf(t), top, 4); err != nil {
		t.Fatal(err)
	}
	produce(t, c, append(records(top, 2, 0, 100), records(top, 3, 0, 100)...)...)
	m.until("200 records", func() bool { return m.n >= 200 })
	if m.n != 200 {
		t.Fatal(m.n)
	}
}

func TestGroupLagEndsAtZero_Case1_11(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	top := topic(t, c, 2)
	produce(t, c, records(top, 0, 0, 50)...)
	transact(t, c, true, records(top, 1, 0, 50)...) // ends in a marker
	o := GroupOptions{Topics: []string{top}, Group: name("g")}
	m := join(t, c, o)
	m.until("lag 0", func() bool {
		return m.n == 100 && maps.Equal(m.g.Lag(), map[TopicPartition]int64{{top, 0}: 0, {top, 1}: 0})
	})
	// A real broker writes the marker behind its answer to the commit, so the position passes it a moment later.
	m.until("a commit past the marker, or an outside tool would see lag", func() bool {
		m.commit()
		at, err := c.Committed(ctxOf(t), o.Group, o.Topics)
		return err == nil && at[TopicPartition{top, 0}] == 50 && at[TopicPartition{top, 1}] == 51
	})
}

func TestGroupLagBehindAnOpenTransaction_Case1_12(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	top := topic(t, c, 1)
	produce(t, c, records(top, 0, 0, 300)...)
	ctx := ctxOf(t)
	open, err := c.Transactor(ctx, name("open"), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if err := errors.Join(open.Begin(), open.Produce(ctx, records(top, 0, 300, 1)), open.p.Flush(ctx)); err != nil {
		t.Fatal(err)
	}
	produce(t, c, records(top, 0, 301, 899)...)
	m := join(t, c, GroupOptions{Topics: []string{top}, Group: name("g")})
	tp := TopicPartition{top, 0}
	m.until("lag 0, 900 held back", func() bool { return m.n == 300 && m.g.Lag()[tp] == 0 && m.g.Held()[tp] == 900 })
	if err := open.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	m.until("all", func() bool { return m.n == 1200 && m.g.Lag()[tp] == 0 && m.g.Held()[tp] == 0 })
}

func TestGroupOnARecreatedTopic_Case1_14(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	top := topic(t, c, 1)
	produce(t, c, records(top, 0, 0, 50)...)
	o := GroupOptions{Topics: []string{top}, Group: name("g")}
	// What a topic that was deleted and made anew leaves behind (newer brokers delete the commit with the topic).
	if ok, err := c.CommitInitial(ctxOf(t), o.Group, map[TopicPartition]int64{{top, 0}: 1000}); !ok || err != nil {
		t.Fatal(ok, err)
	}
	var log bytes.Buffer
	c.log = slog.New(slog.NewTextHandler(&log, nil))
	tp := TopicPartition{top, 0}
	m := join(t, c, o)
	m.untilAssigned(1)
	if p := m.mine[tp]; !p.Recreated || p.Offset != 0 || p.Committed != 1000 || p.High != 50 {
		t.Fatalf("%+v", p)
	}
	m.until("50 records", func() bool { return m.n == 50 })
	// The lower offset is written even if the scorer dies before its own commit.
	m.until("the lower commit", func() bool {
		at, err := c.Committed(ctxOf(t), o.Group, o.Topics)
		return err == nil && at[tp] < 1000
	})
	m.commit()
	m.g.Close()
	wantText(t, log.String(), "likely recreated", "position=1000", "end=50")

	m = join(t, c, o)
	m.until("drained", func() bool { return len(m.mine) == 1 && m.g.Lag()[tp] == 0 })
	if m.n != 0 || m.mine[tp].Offset != 50 {
		t.Fatalf("%d records scored again, %+v", m.n, m.mine[tp])
	}
}

func recreate(t *testing.T, c *Client, top string, partitions int) {
	t.Helper()
	ctx := ctxOf(t)
	if err := c.DeleteTopic(ctx, top); err != nil {
		t.Fatal(err)
	}
	for { // the broker deletes behind its answer
		created, err := c.CreateTopic(ctx, TopicSpec{Name: top, Partitions: partitions})
		if created {
			break
		}
		if !pause(ctx, 0) {
			t.Fatal(err)
		}
	}
	if p, ok := producers.LoadAndDelete(c); ok { // its sequence numbers belong to the old topic
		p.(*Producer).destroy()
	}
}

func TestGroupBelowTheLogStart(t *testing.T) {
	t.Parallel()
	c, k := fake(t)
	top := topic(t, c, 1)
	produce(t, c, records(top, 0, 0, 100)...)
	o := GroupOptions{Topics: []string{top}, Group: name("g")}
	tp := TopicPartition{top, 0}
	if ok, err := c.CommitInitial(ctxOf(t), o.Group, map[TopicPartition]int64{tp: 10}); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if err := k.DeleteRecords(top, 0, 60); err != nil {
		t.Fatal(err)
	}
	m := join(t, c, o)
	m.until("40 records", func() bool { return m.n == 40 })
	if p := m.mine[tp]; p.Lost != 50 || p.Offset != 60 || p.Committed != 10 {
		t.Fatalf("%+v", p)
	}
	// A member is there now: the first offsets are no longer ours to set.
	if ok, err := c.CommitInitial(ctxOf(t), o.Group, map[TopicPartition]int64{tp: 0}); ok || err != nil {
		t.Fatal(ok, err)
	}
}

func TestGroupLosesItsPositionWhileRunning(t *testing.T) {
	t.Parallel()
	c, k := fake(t)
	top := topic(t, c, 2)
	produce(t, c, append(records(top, 0, 0, 10), records(top, 1, 0, 10)...)...)
	m := join(t, c, GroupOptions{Topics: []string{top}, Group: name("g")})
	m.until("20 records", func() bool { return m.n == 20 })
	tp := TopicPartition{top, 0}
	// The broker refuses the position once, and by then retention has passed it.
	k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: top, Partitions: []int32{0}, Err: kerr.OffsetOutOfRange})
	hold := k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Err: kerr.LeaderNotAvailable, Count: -1, When: func(kmsg.Request) bool { return false }})
	defer hold.Remove()
	produce(t, c, records(top, 0, 10, 90)...)
	if err := k.DeleteRecords(top, 0, 50); err != nil {
		t.Fatal(err)
	}
	m.until("the rest", func() bool { return slices.Contains(m.seen[tp], 99) })
	if p := m.mine[tp]; p.Lost != 0 && (p.Lost != 40 || p.Offset != 50) {
		t.Fatalf("%+v", p)
	}
	seen := map[int64]bool{}
	for _, o := range m.seen[tp] {
		if seen[o] {
			t.Fatalf("offset %d twice", o)
		}
		seen[o] = true
	}
}

func TestGroupSeeksBetweenAssignedAndNext(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	top := topic(t, c, 1)
	produce(t, c, records(top, 0, 0, 100)...)
	tp := TopicPartition{top, 0}
	g, err := c.Group(ctxOf(t), GroupOptions{Topics: []string{top}, Group: name("g")})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if g.SeekTo(tp, 5) == nil {
		t.Fatal("seek before the assignment")
	}
	e, err := g.Next(ctxOf(t))
	if _, ok := e.(*Assigned); !ok {
		t.Fatalf("%T %v", e, err)
	}
	if err := g.SeekTo(tp, 70); err != nil {
		t.Fatal(err)
	}
	if g.SeekTo(TopicPartition{top, 7}, 0) == nil || g.SeekTo(tp, -1) == nil {
		t.Fatal("bad seeks are taken")
	}
	e, err = g.Next(ctxOf(t))
	b, ok := e.(*Batch)
	if !ok || b.Records[0].Offset != 70 {
		t.Fatalf("%T %v", e, err)
	}
	b.Release()
	if g.SeekTo(tp, 5) == nil {
		t.Fatal("seek after the following Next")
	}
}

func TestGroupHandsPartitionsOver(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	c = connect(t, c.Brokers(), map[string]string{"heartbeat.interval.ms": "200"}) // by heartbeats members learn of rebalances
	top := topic(t, c, 6)
	o := GroupOptions{Topics: []string{top}, Group: name("g"), MaxBatch: 50}
	first := join(t, c, o)
	first.untilAssigned(6)

	ctx, stop := context.WithCancel(ctxOf(t))
	defer stop()
	var wg sync.WaitGroup
	p, err := c.Producer(ctx, ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	each := 0 // records of each partition
	flow, endFlow := context.WithCancel(ctx)
	defer endFlow()
	wg.Go(func() {
		for ; pause(flow, time.Millisecond); each += 10 {
			for part := range int32(6) {
				if err := p.Produce(ctx, records(top, part, each, 10)); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	// The two drive themselves; a second one joins and leaves while records flow.
	run := func(m *member, until func() bool) {
		for ctx.Err() == nil && !until() {
			short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
			m.step(short)
			cancel()
		}
	}
	var mu sync.Mutex
	firstDone := false
	var driver sync.WaitGroup
	driver.Go(func() {
		run(first, func() bool { mu.Lock(); defer mu.Unlock(); return firstDone })
	})
	second := join(t, c, o)
	run(second, func() bool { return len(second.mine) == 3 && second.n > 100 })
	if len(second.mine) != 3 {
		t.Fatalf("the second member has %d partitions", len(second.mine))
	}
	second.commit()
	if err := second.g.Close(); err != nil {
		t.Fatal(err)
	}
	firstAgain := func() bool { return len(first.g.Lag()) == 6 }
	for !firstAgain() && pause(ctx, 0) {
	}
	endFlow()
	wg.Wait()
	all := func() map[TopicPartition]map[int64]int {
		got := map[TopicPartition]map[int64]int{}
		for _, m := range []*member{first, second} {
			for tp, os := range m.seen {
				if got[tp] == nil {
					got[tp] = map[int64]int{}
				}
				for _, o := range os {
					got[tp][o]++
				}
			}
		}
		return got
	}
	ends, err := c.Watermarks(ctx, top)
	if err != nil {
		t.Fatal(err)
	}
	for {
		lag := first.g.Lag()
		var left int64
		for _, l := range lag {
			left += l
		}
		if now, err := c.Watermarks(ctx, top); err == nil {
			ends = now
		}
		if len(lag) == 6 && left == 0 && !slices.ContainsFunc(ends, func(r Range) bool { return r.To != int64(each) }) {
			break
		}
		if !pause(ctx, 0) {
			t.Fatalf("lag %v, ends %v", lag, ends)
		}
	}
	mu.Lock()
	firstDone = true
	mu.Unlock()
	driver.Wait()
	// Lag is up to a second old: what it does not know of yet is still to be read.
	for tp := range first.mine {
		run(first, func() bool { return first.next[tp] >= int64(each) })
	}
	if err := p.Close(ctxOf(t)); err != nil {
		t.Fatal(err)
	}
	for tp, os := range all() {
		if len(os) != each {
			t.Errorf("%v: %d offsets, want %d", tp, len(os), each)
		}
		for o, n := range os {
			if n != 1 { // both commit before they give up: a clean hand-over repeats nothing
				t.Errorf("%v: offset %d came %d times", tp, o, n)
				break
			}
		}
	}
}

func TestGroupStaysInTheGroupWhileTheCallerIsBusy_Case2_01(t *testing.T) {
	t.Parallel()
	c, k := fake(t, kfake.GroupMinSessionTimeout(100*time.Millisecond))
	c = connect(t, c.Brokers(), map[string]string{"max.poll.interval.ms": "2000", "session.timeout.ms": "2000", "heartbeat.interval.ms": "100"})
	top := topic(t, c, 1)
	o := GroupOptions{Topics: []string{top}, Group: name("g"), MaxBatch: 10, MaxInFlight: 1, PauseAfter: 100 * time.Millisecond}
	m := join(t, c, o)
	m.untilAssigned(1)
	produce(t, c, records(top, 0, 0, 200)...)
	var held *Batch
	for held == nil {
		e, err := m.g.Next(ctxOf(t))
		if err != nil {
			t.Fatal(err)
		}
		held, _ = e.(*Batch)
	}
	// Scoring takes longer than max.poll.interval.ms. What shows that time has passed is the broker's count of heartbeats.
	beats := k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Observe: true, Count: -1, Group: o.Group})
	left := k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.LeaveGroup, kmsg.JoinGroup}, Observe: true, Count: -1, Group: o.Group})
	if err := beats.Wait(ctxOf(t), 24); err != nil {
		t.Fatal(err)
	}
	if n := left.Hits(); n != 0 || !m.g.InGroup() {
		t.Fatalf("left or joined anew %d times, in group: %v", n, m.g.InGroup())
	}
	m.n = len(held.Records)
	m.seen[TopicPartition{top, 0}] = []int64{}
	for _, r := range held.Records {
		m.seen[TopicPartition{top, 0}] = append(m.seen[TopicPartition{top, 0}], r.Offset)
	}
	held.Release()
	m.until("the rest", func() bool { return m.n >= 200 })
	for i, o := range m.seen[TopicPartition{top, 0}] {
		if int64(i) != o {
			t.Fatalf("offset %d at place %d: a pause must neither repeat nor skip", o, i)
		}
	}
}

func TestGroupKeepsMaxInFlight(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	top := topic(t, c, 1)
	produce(t, c, records(top, 0, 0, 100)...)
	g, err := c.Group(ctxOf(t), GroupOptions{Topics: []string{top}, Group: name("g"), MaxBatch: 10, MaxInFlight: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	var out []*Batch
	for len(out) < 2 {
		e, err := g.Next(ctxOf(t))
		if err != nil {
			t.Fatal(err)
		}
		if b, ok := e.(*Batch); ok {
			out = append(out, b)
		}
	}
	short, cancel := context.WithTimeout(ctxOf(t), 50*time.Millisecond)
	defer cancel()
	if e, err := g.Next(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a third batch: %T %v", e, err)
	}
	out[0].Release()
	if e, err := g.Next(ctxOf(t)); err != nil {
		t.Fatalf("%T %v", e, err)
	}
	out[1].Release()
}

func TestGroupStaticMemberDoesNotLeave(t *testing.T) {
	t.Parallel()
	c, k := fake(t)
	top := topic(t, c, 2)
	o := GroupOptions{Topics: []string{top}, Group: name("g"), InstanceID: "one"}
	m := join(t, c, o)
	m.untilAssigned(2)
	left := k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.LeaveGroup}, Observe: true, Count: -1, Group: o.Group})
	if err := m.g.Close(); err != nil {
		t.Fatal(err)
	}
	if left.Hits() != 0 {
		t.Fatal("a static member left")
	}
	again := join(t, c, o)
	again.untilAssigned(2)
	o.InstanceID = ""
	o.Group = name("g")
	m = join(t, c, o)
	m.untilAssigned(2)
	left = k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.LeaveGroup}, Observe: true, Count: -1})
	if err := m.g.Close(); err != nil {
		t.Fatal(err)
	}
	if left.Hits() == 0 {
		t.Fatal("a dynamic member did not leave")
	}
}

func TestGroupMembersSayWhatTheyAre(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	top := topic(t, c, 1)
	o := GroupOptions{Topics: []string{top}, Group: name("g"), Member: "cars@live"}
	if ms, err := c.Members(ctxOf(t), o.Group); err != nil || len(ms) != 0 {
		t.Fatal(ms, err)
	}
	m := join(t, c, o)
	m.untilAssigned(1)
	ms, err := c.Members(ctxOf(t), o.Group)
	if err != nil || len(ms) != 1 || ms[0].Is != "cars@live" || ms[0].ClientID != "lapwing/cars@live" || !strings.HasPrefix(ms[0].Host, "127.0.0.1") {
		t.Fatal(ms, err)
	}
	if err := m.g.Close(); err != nil {
		t.Fatal(err)
	}
	if ms, err := c.Members(ctxOf(t), o.Group); err != nil || len(ms) != 0 {
		t.Fatal(ms, err)
	}
}

func TestGroupCloseIsBoundedWhenTheBrokerHasGone_Case8_12(t *testing.T) {
	t.Parallel()
	e, err := Embed(EmbeddedOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c := connect(t, e.Addr(), nil)
	top := topic(t, c, 1)
	produce(t, c, records(top, 0, 0, 10)...)
	m := join(t, c, GroupOptions{Topics: []string{top}, Group: name("g"), CloseTimeout: time.Second})
	m.until("10 records", func() bool { return m.n == 10 })
	e.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := m.g.commit(ctx, m.g.Offsets(m.next)); err == nil {
		t.Error("committed without a broker")
	}
	done := make(chan error, 1)
	go func() { done <- m.g.Close() }()
	select {
	case <-done: // with or without an error: bounded
	case <-time.After(20 * time.Second):
		t.Fatal("Close hangs")
	}
	if _, err := m.g.Next(ctxOf(t)); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

func TestGroupMakesAnotherConsumerWhenFenced_Case2_12(t *testing.T) {
	t.Parallel()
	c, k := fake(t)
	c = connect(t, c.Brokers(), map[string]string{"heartbeat.interval.ms": "200"})
	top := topic(t, c, 1)
	o := GroupOptions{Topics: []string{top}, Group: name("g"), InstanceID: "one"}
	m := join(t, c, o)
	m.untilAssigned(1)
	produce(t, c, records(top, 0, 0, 10)...)
	m.until("10 records", func() bool { return m.n == 10 })
	m.commit()
	k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Err: kerr.FencedInstanceID, Group: o.Group})
	m.until("lost", func() bool { return len(m.mine) == 0 })
	m.untilAssigned(1)
	produce(t, c, records(top, 0, 10, 10)...)
	m.until("10 more", func() bool { return m.n == 20 })
}

func TestGroupGivesRecordsWithNullValues_Case1_07(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	top := topic(t, c, 1)
	produce(t, c, Record{Topic: top, Key: []byte("k"), Time: -1}, Record{Topic: top, Value: []byte{}, Time: -1})
	g, err := c.Group(ctxOf(t), GroupOptions{Topics: []string{top}, Group: name("g")})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	var got []Record
	for len(got) < 2 {
		e, err := g.Next(ctxOf(t))
		if err != nil {
			t.Fatal(err)
		}
		if b, ok := e.(*Batch); ok {
			got = append(got, b.Records...)
		}
	}
	if got[0].Value != nil || got[1].Value == nil || got[1].Key != nil {
		t.Fatalf("%+v", got)
	}
}

func TestAtLeastOnceCommitsOnlyWhatIsAcknowledged(t *testing.T) {
	t.Parallel()
	c, k := fake(t)
	in, out := topic(t, c, 1), topic(t, c, 1)
	produce(t, c, records(in, 0, 0, 10)...)
	o := GroupOptions{Topics: []string{in}, Group: name("g")}
	m := join(t, c, o)
	ctx := ctxOf(t)
	s, err := c.AtLeastOnce(ctx, m.g)
	if err != nil {
		t.Fatal(err)
	}
	m.until("10 records", func() bool { return m.n == 10 })
	k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: out, Err: kerr.InvalidRecord})
	if err := errors.Join(s.Begin(ctx), s.Produce(ctx, records(out, 0, 0, 10))); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(ctx, m.g.Offsets(m.next)); err == nil {
		t.Fatal("committed though the output was refused")
	}
	if at, err := c.Committed(ctx, o.Group, o.Topics); len(at) != 0 || err != nil {
		t.Fatal(at, err)
	}
	if err := errors.Join(s.Abort(ctx), s.Begin(ctx), s.Produce(ctx, records(out, 0, 0, 10)), s.Commit(ctx, m.g.Offsets(m.next))); err != nil {
		t.Fatal(err)
	}
	if at, err := c.Committed(ctx, o.Group, o.Topics); at[TopicPartition{in, 0}] != 10 || err != nil {
		t.Fatal(at, err)
	}
	// Only the first request was refused: where the ten went in two, those of the second stand there twice.
	got, _ := readHistory(t, c, out)
	distinct := map[string]bool{}
	for _, r := range got {
		distinct[string(r.Value)] = true
	}
	if len(distinct) != 10 || len(got) >= 20 {
		t.Fatalf("%d records, %d distinct; want 10 distinct, and fewer than 20", len(got), len(distinct))
	}
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

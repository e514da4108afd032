package stream

import (
	"context"
	"testing"
	"time"
)

// member drives a group as a server does: it commits what it was given, and drops state on rebalances.
type member struct {
	t    *testing.T
	g    *Group
	seen map[TopicPartition][]int64
	next map[TopicPartition]int64
	n    int
}

func join(t *testing.T, c *Client, o GroupOptions) *member {
	t.Helper()
	g, err := c.Group(ctxOf(t), o)
	if err != nil {
		t.Fatal(err)
	}
	m := &member{t: t, g: g, seen: map[TopicPartition][]int64{}, next: map[TopicPartition]int64{}}
	t.Cleanup(func() { g.Close() })
	return m
}

// step takes one event; nil when ctx ended.
func (m *member) step(ctx context.Context) Event {
	m.t.Helper()
	e, err := m.g.Next(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		m.t.Fatal(err)
	}
	switch e := e.(type) {
	case *Batch:
		for _, r := range e.Records {
			tp := TopicPartition{r.Topic, r.Partition}
			m.seen[tp] = append(m.seen[tp], r.Offset)
			m.next[tp] = r.Offset + 1
			m.n++
		}
		e.Release()
	case *Revoked:
		m.commit()
		for _, tp := range e.Partitions {
			delete(m.next, tp)
		}
	case *Lost:
		for _, tp := range e.Partitions {
			delete(m.next, tp)
		}
	}
	return e
}

func (m *member) commit() {
	m.t.Helper()
	if err := m.g.commit(ctxOf(m.t), m.g.Offsets(m.next)); err != nil {
		m.t.Fatal(err)
	}
}

// until steps until done holds.
func (m *member) until(what string, done func() bool) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for !done() {
		if m.step(ctx) == nil {
			m.t.Fatalf("never: %s (records so far: %d)", what, m.n)
		}
	}
}

func TestGroupReadsCommitsAndResumes(t *testing.T) {
	c, _ := broker(t)
	top := topic(t, c, 3)
	for p := range int32(3) {
		produce(t, c, records(top, p, 0, 500)...)
	}
	o := GroupOptions{Topics: []string{top}, Group: name("g")}
	m := join(t, c, o)
	m.until("1500 records", func() bool { return m.n == 1500 })
	m.commit()
	if err := m.g.Close(); err != nil {
		t.Fatal(err)
	}
	produce(t, c, records(top, 1, 500, 10)...)
	m = join(t, c, o)
	m.until("10 records", func() bool { return m.n >= 10 })
	if m.n != 10 || m.seen[TopicPartition{top, 1}][0] != 500 {
		t.Fatalf("%d records, from %v", m.n, m.seen)
	}
}

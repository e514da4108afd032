package stream

import (
	"context"
	"errors"
	"testing"
	"time"
)

type follower struct {
	t         *testing.T
	tl        *Tail
	got       []Record
	ends      int
	recreated []*RecreatedError
}

func follow(t *testing.T, c *Client, topics []string, o TailOptions) *follower {
	t.Helper()
	tl, err := c.Tail(ctxOf(t), topics, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tl.Close)
	return &follower{t: t, tl: tl}
}

func (f *follower) until(what string, done func() bool) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for !done() {
		b, err := f.tl.Next(ctx)
		var re *RecreatedError
		if errors.As(err, &re) {
			f.recreated = append(f.recreated, re)
			continue
		}
		if err != nil {
			f.t.Fatalf("never: %s: %v (%d records, %d ends)", what, err, len(f.got), f.ends)
		}
		f.got = append(f.got, b.Records...)
		if b.AtEnd {
			f.ends++
		}
	}
}

func (f *follower) untilEnd() {
	f.t.Helper()
	before := f.ends
	f.until("the end", func() bool { return f.ends > before })
}

func TestTailTellsEachEnd(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	top, second := topic(t, c, 3), topic(t, c, 1)
	produce(t, c, records(top, 1, 0, 10)...)
	f := follow(t, c, []string{top, second}, TailOptions{Committed: true})
	f.untilEnd()
	if len(f.got) != 10 {
		t.Fatalf("%d records before the end, want 10", len(f.got))
	}
	produce(t, c, records(second, 0, 0, 5)...)
	f.untilEnd()
	if len(f.got) != 15 {
		t.Fatalf("%d records, want 15", len(f.got))
	}
	// What ends a partition without being a record still ends it, and the position says so.
	transact(t, c, false, records(top, 1, 10, 3)...)
	f.until("the position past the abort marker", func() bool { return f.tl.Positions()[TopicPartition{top, 1}] == 14 })
	if len(f.got) != 15 {
		t.Fatal("aborted records came")
	}
	_, err := c.Tail(ctxOf(t), []string{top, name("absent")}, TailOptions{})
	if !errors.Is(err, ErrNoTopic) {
		t.Fatal(err)
	}
	if _, err = c.Tail(ctxOf(t), []string{top}, TailOptions{Start: "yesterday"}); err == nil {
		t.Fatal("a start that does not exist")
	}
	done, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := f.tl.Next(done); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestTailStarts(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	top := topic(t, c, 2)
	produce(t, c, append(records(top, 0, 0, 20), records(top, 1, 0, 20)...)...)
	latest := follow(t, c, []string{top}, TailOptions{Start: "latest"})
	latest.untilEnd()
	at := follow(t, c, []string{top}, TailOptions{Start: "latest", Offsets: map[int32]int64{1: 15}, MaxBatch: 2})
	at.untilEnd()
	if len(latest.got) != 0 || len(at.got) != 5 || at.got[0].Offset != 15 {
		t.Fatalf("%d and %d records", len(latest.got), len(at.got))
	}
	dirty := follow(t, c, []string{top}, TailOptions{Start: "latest"})
	transact(t, c, false, records(top, 0, 0, 3)...)
	dirty.until("aborted records, which an uncommitted tail sees", func() bool { return len(dirty.got) == 3 })
}

func TestTailFollowsARecreatedTopic_Case1_15(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		n    int
	}{{"shorter than before", 1}, {"longer than before", 30}} {
		t.Run(c.name, func(t *testing.T) {
			cl, _ := broker(t)
			top := topic(t, cl, 1)
			produce(t, cl, records(top, 0, 0, 10)...)
			f := follow(t, cl, []string{top}, TailOptions{Committed: true, Recheck: 100 * time.Millisecond})
			f.untilEnd()
			recreate(t, cl, top, 2)
			produce(t, cl, records(top, 0, 100, c.n)...)
			produce(t, cl, records(top, 1, 200, 1)...)
			f.until("the new topic's records", func() bool { return len(f.got) >= 10+c.n+1 })
			f.untilEnd()
			if len(f.got) != 10+c.n+1 || len(f.recreated) != 1 || f.recreated[0].Topic != top {
				t.Fatalf("%d records, %v", len(f.got), f.recreated)
			}
		})
	}
}

func TestTailFindsNewPartitions(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	top := topic(t, c, 1)
	f := follow(t, c, []string{top}, TailOptions{Start: "latest", Recheck: 100 * time.Millisecond})
	f.untilEnd()
	if err := c.AddPartitions(ctxOf(t), top, 3); err != nil {
		t.Fatal(err)
	}
	produce(t, c, records(top, 2, 0, 10)...)
	f.until("10 records", func() bool { return len(f.got) == 10 })
}

func TestTailGoesOnAfterRetention(t *testing.T) {
	t.Parallel()
	c, k := fake(t)
	top := topic(t, c, 1)
	produce(t, c, records(top, 0, 0, 100)...)
	if err := k.DeleteRecords(top, 0, 40); err != nil {
		t.Fatal(err)
	}
	f := follow(t, c, []string{top}, TailOptions{Offsets: map[int32]int64{0: 3}})
	f.untilEnd()
	if len(f.got) != 60 || f.got[0].Offset != 40 {
		t.Fatal(len(f.got))
	}
}

package stream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// transact writes recs, of one partition, in one transaction, committed or aborted, and waits until readers of committed records may pass
// it: a broker has promised the end before it is written.
func transact(t *testing.T, c *Client, commit bool, recs ...Record) {
	t.Helper()
	ctx := ctxOf(t)
	tr, err := c.Transactor(ctx, name("tx"), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	top, p := recs[0].Topic, recs[0].Partition
	marks, err := c.Watermarks(ctx, top)
	if err != nil {
		t.Fatal(err)
	}
	end := tr.Commit
	if !commit {
		end = tr.Abort
	}
	if err := errors.Join(tr.Begin(), tr.Produce(ctx, recs), tr.p.Flush(ctx), end(ctx)); err != nil {
		t.Fatal(err)
	}
	for mustRanges(t, c, top)[p].To < marks[p].To+int64(len(recs)) {
		if !pause(ctx, 0) {
			t.Fatalf("the end of a transaction is not written to %s/%d", top, p)
		}
	}
}

func TestHistoryReadsEveryRecordOnce(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	top := topic(t, c, 5)
	for p := range int32(3) {
		produce(t, c, records(top, p, 0, 1000)...)
	}
	for _, o := range []HistoryOptions{{}, {Readers: 1, MaxBatch: 7, Ahead: 1}, {Readers: 5, MaxBatch: 1000}} {
		got, res := readAll(t, c, top, mustRanges(t, c, top), o)
		if len(got) != 3000 {
			t.Fatalf("%+v: %d records, want 3000", o, len(got))
		}
		for _, r := range res {
			if r.Records != r.To-r.From || r.Lost != 0 {
				t.Errorf("%+v: %+v", o, r)
			}
		}
	}
	// part of it
	got, _ := readAll(t, c, top, []Range{{1, 100, 200}, {0, 5, 5}}, HistoryOptions{})
	if len(got) != 100 || got[0].Offset != 100 || got[99].Offset != 199 {
		t.Fatalf("%d records", len(got))
	}
	for _, bad := range [][]Range{{{9, 0, 1}}, {{0, 0, 1}, {0, 1, 2}}, {{0, -1, 2}}} {
		if _, err := c.ReadRanges(ctxOf(t), top, bad, HistoryOptions{}); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
}

func mustRanges(t *testing.T, c *Client, top string) []Range {
	t.Helper()
	r, err := c.Ranges(ctxOf(t), top)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestHistoryEndsAtCommitMarker_Case1_01(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	top := topic(t, c, 1)
	transact(t, c, true, records(top, 0, 0, 100)...)
	got, res := readHistory(t, c, top)
	if len(got) != 100 || res[0] != (RangeResult{Range{0, 0, 101}, 100, 0}) {
		t.Fatalf("%d records, %+v", len(got), res)
	}
}

func TestHistoryLeavesOutAbortedAndOpenTransactions(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	top := topic(t, c, 2)
	produce(t, c, records(top, 0, 0, 10)...)
	transact(t, c, false, records(top, 0, 10, 20)...)
	transact(t, c, false, records(top, 1, 0, 20)...) // nothing but aborted ones
	ctx := ctxOf(t)
	open, err := c.Transactor(ctx, name("open"), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if err := errors.Join(open.Begin(), open.Produce(ctx, records(top, 0, 30, 5)), open.p.Flush(ctx)); err != nil {
		t.Fatal(err)
	}
	produce(t, c, records(top, 0, 35, 5)...) // behind the open one
	got, res := readHistory(t, c, top)
	if len(got) != 10 || res[0].Range != (Range{0, 0, 31}) || res[1] != (RangeResult{Range{1, 0, 21}, 0, 0}) {
		t.Fatalf("%d records, %+v", len(got), res)
	}
	w, err := c.Watermarks(ctx, top)
	if err != nil || w[0] != (Range{0, 0, 41}) {
		t.Fatal(w, err)
	}
	if err := open.Abort(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestHistoryCrossesCompactedHoles_Case1_02_1_10(t *testing.T) {
	t.Parallel()
	c, k := fake(t)
	top := topic(t, c, 1, "cleanup.policy", "compact", "retention.ms", "-1")
	produce(t, c, Record{Topic: top, Key: []byte("first"), Value: []byte("kept"), Time: -1}) // or kfake moves the log start instead
	for i := range 30 {
		produce(t, c, records(top, 0, i*100, 100)...) // 10 keys over and over
	}
	ranges := mustRanges(t, c, top) // the range is fixed before its records go
	k.Compact()
	got, res := readAll(t, c, top, ranges, HistoryOptions{})
	if len(got) < 2 || len(got) >= 3000 || got[1].Offset < 100 || res[0].Range != (Range{0, 0, 3001}) || res[0].Records != int64(len(got)) || res[0].Lost != 0 {
		t.Fatalf("%d records survive, %+v", len(got), res)
	}
	produce(t, c, records(top, 0, 3000, 5)...)
	if again, _ := readHistory(t, c, top); len(again) < len(got) || again[len(again)-1].Offset != 3005 {
		t.Fatalf("%d records, then %d", len(got), len(again))
	}
}

func TestHistoryEndsOnBusyTopic_Case1_03(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	top := topic(t, c, 2)
	produce(t, c, records(top, 0, 0, 500)...)
	produce(t, c, records(top, 1, 0, 500)...)
	ctx, stop := context.WithCancel(ctxOf(t))
	p, err := c.Producer(ctx, ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var busy sync.WaitGroup
	busy.Go(func() {
		for i := 500; ctx.Err() == nil; i++ {
			_ = p.Produce(ctx, append(records(top, 0, i, 1), records(top, 1, i, 1)...))
		}
	})
	ranges := mustRanges(t, c, top)
	first, res := readAll(t, c, top, ranges, HistoryOptions{})
	second, _ := readAll(t, c, top, ranges, HistoryOptions{})
	stop()
	busy.Wait()
	_ = p.Close(ctxOf(t))
	want := ranges[0].To + ranges[1].To
	if int64(len(first)) != want || len(second) != len(first) {
		t.Fatalf("%d records, then %d, want %d", len(first), len(second), want)
	}
	for _, r := range first {
		if r.Offset >= ranges[r.Partition].To {
			t.Fatalf("partition %d: offset %d is beyond the end %d", r.Partition, r.Offset, ranges[r.Partition].To)
		}
	}
	_ = res
}

func TestHistoryGoesOnAfterRetention_Case1_04(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	// Fetched ahead is read, whatever retention does: make it little, so that the reader is truly behind.
	c = connect(t, c.Brokers(), map[string]string{"queued.min.messages": "10", "queued.max.messages.kbytes": "1", "max.partition.fetch.bytes": "2000", "fetch.max.bytes": "2000", "message.max.bytes": "2000"})
	top := topic(t, c, 2)
	for i := range 100 {
		produce(t, c, records(top, 0, i*50, 50)...)
	}
	produce(t, c, records(top, 1, 0, 50)...)
	ctx := ctxOf(t)
	h, err := c.ReadRanges(ctx, top, mustRanges(t, c, top), HistoryOptions{Readers: 1, MaxBatch: 10, Ahead: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	var n, last int64 = 0, -1
	gap, deleted := int64(0), false
	for {
		b, err := h.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range b.Records {
			if r.Partition != 0 {
				continue
			}
			gap += r.Offset - last - 1
			last = r.Offset
			n++
		}
		b.Release()
		if n >= 100 && !deleted {
			deleted = true
			if _, err := c.admin.DeleteRecords(ctx, []kafka.TopicPartition{{Topic: &top, Partition: 0, Offset: 4000}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	res := h.Results()[0]
	if res.Lost == 0 || res.Lost != gap || res.Records != n || res.Records+res.Lost != 5000 || last != 4999 {
		t.Fatalf("%+v, last offset %d, gap %d", res, last, gap)
	}
}

// A record of 15 MB between small ones, read with the fetch settings as they come.
func TestHistoryReadsALargeRecord_Case1_09(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	top := topic(t, c, 1, "max.message.bytes", "20971520")
	produce(t, c, records(top, 0, 0, 50)...)
	big := connect(t, c.Brokers(), map[string]string{"message.max.bytes": "20971520"})
	produce(t, big, Record{Topic: top, Partition: 0, Value: bytes.Repeat([]byte("x"), 15<<20), Time: 1_700_000_000_000})
	produce(t, c, records(top, 0, 51, 50)...)
	got, res := readHistory(t, c, top)
	if len(got) != 101 || len(got[50].Value) != 15<<20 || got[100].Offset != 100 || res[0] != (RangeResult{Range{0, 0, 101}, 101, 0}) {
		t.Fatalf("%d records, %+v", len(got), res)
	}
}

func TestHistoryOfEmptyPartitions_Case1_05(t *testing.T) {
	t.Parallel()
	c, k := fake(t)
	top := topic(t, c, 5)
	for p := range int32(3) {
		produce(t, c, records(top, p, 0, 50)...)
	}
	if err := k.DeleteRecords(top, 2, 50); err != nil {
		t.Fatal(err)
	}
	got, res := readHistory(t, c, top)
	if len(got) != 100 || res[2].Range != (Range{2, 50, 50}) {
		t.Fatalf("%d records, %+v", len(got), res)
	}
	empty := topic(t, c, 3)
	if got, _ := readHistory(t, c, empty); len(got) != 0 {
		t.Fatal(len(got))
	}
}

func TestHistoryWaitsForAPausedBroker_Case8_14(t *testing.T) {
	t.Parallel()
	c, k := fake(t)
	top := topic(t, c, 1)
	produce(t, c, records(top, 0, 0, 500)...)
	ctx := ctxOf(t)

	// A pause within the bound is waited for.
	release := make(chan struct{})
	held := make(chan struct{})
	var once sync.Once
	k.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		once.Do(func() { close(held) })
		k.SleepControl(func() { <-release })
		return nil, nil, false
	})
	h, err := c.ReadRanges(ctx, top, mustRanges(t, c, top), HistoryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	<-held
	close(release)
	n := 0
	for {
		b, err := h.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		n += len(b.Records)
		b.Release()
	}
	h.Close()
	if n != 500 {
		t.Fatalf("%d records, want 500", n)
	}

	// One beyond it is an error that says how far it came, not a shorter history.
	k.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		return nil, nil, true // never answered
	})
	var log bytes.Buffer
	c.log = slog.New(slog.NewTextHandler(&log, nil))
	if h, err = c.ReadRanges(ctx, top, mustRanges(t, c, top), HistoryOptions{Stall: time.Second}); err != nil {
		t.Fatal(err)
	}
	_, err = h.Next(ctx)
	var lost *LostError
	if !errors.As(err, &lost) || lost.At != 0 || lost.To != 500 {
		t.Fatal(err)
	}
	wantText(t, err.Error(), "the history of "+top+" is incomplete", "partition 0: stopped at offset 0 of 500 after 0 records")
	h.Close()
	wantText(t, log.String(), "no progress", "partition=0")
}

func TestHistoryEndsWithItsContextAndClose(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	top := topic(t, c, 2)
	produce(t, c, records(top, 0, 0, 5000)...)
	h, err := c.ReadRanges(ctxOf(t), top, mustRanges(t, c, top), HistoryOptions{MaxBatch: 10, Ahead: 1})
	if err != nil {
		t.Fatal(err)
	}
	b, err := h.Next(ctxOf(t))
	if err != nil {
		t.Fatal(err)
	}
	kept := string(b.Records[0].Value)
	h.Close()
	if kept != string(b.Records[0].Value) {
		t.Error("a batch that was handed out changed")
	}
	b.Release()
	if _, err := h.Next(ctxOf(t)); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	h, err = c.ReadRanges(ctxOf(t), top, mustRanges(t, c, top), HistoryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if _, err := h.Next(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, err := c.Ranges(ctxOf(t), name("absent")); !errors.Is(err, ErrNoTopic) {
		t.Fatal(err)
	}
}

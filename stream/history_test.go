package stream

import "testing"

func TestHistoryReadsEveryRecordOnce(t *testing.T) {
	c, _ := broker(t)
	top := topic(t, c, 5)
	want := 0
	for p := range int32(3) {
		produce(t, c, records(top, p, 0, 1000)...)
		want += 1000
	}
	got, res := readHistory(t, c, top)
	if len(got) != want {
		t.Fatalf("%d records, want %d", len(got), want)
	}
	for _, r := range res {
		if r.Records != r.To-r.From || r.Lost != 0 {
			t.Errorf("partition %d: %+v", r.Partition, r)
		}
	}
}

func TestHistoryEndsAtCommitMarker_Case1_01(t *testing.T) {
	c, _ := broker(t)
	top := topic(t, c, 1)
	ctx := ctxOf(t)
	tr, err := c.Transactor(ctx, name("tx"), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	if err := tr.Begin(); err != nil {
		t.Fatal(err)
	}
	if err := tr.Produce(ctx, records(top, 0, 0, 100)); err != nil {
		t.Fatal(err)
	}
	if err := tr.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	got, res := readHistory(t, c, top)
	if len(got) != 100 || res[0] != (RangeResult{Range{0, 0, 101}, 100, 0}) {
		t.Fatalf("%d records, %+v", len(got), res)
	}
}

func TestTailTellsTheEnd(t *testing.T) {
	c, _ := broker(t)
	top := topic(t, c, 3)
	produce(t, c, records(top, 1, 0, 10)...)
	ctx := ctxOf(t)
	tl, err := c.Tail(ctx, []string{top}, TailOptions{Committed: true})
	if err != nil {
		t.Fatal(err)
	}
	defer tl.Close()
	n := 0
	for {
		b, err := tl.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		n += len(b.Records)
		end := b.AtEnd
		b.Release()
		if end {
			break
		}
	}
	if n != 10 {
		t.Fatalf("%d records before the end, want 10", n)
	}
}

package stream

import (
	"fmt"
	"testing"
)

func TestSpreadIsEvenAndTheSameEachTime(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	top := topic(t, c, 4) // the last one stays empty
	for p, n := range []int{1000, 2000, 500} {
		produce(t, c, records(top, int32(p), 0, n)...)
	}
	transact(t, c, false, records(top, 0, 1000, 50)...) // aborted: never among them
	for _, o := range []struct {
		n, least int
		gap      int64 // between two neighbours of a partition
	}{
		{40, 40, 150},   // the topic is read whole
		{34, 33, 400},   // too many for that: runs
		{3500, 3500, 1}, // all of it
		{9999, 3500, 1},
		{1, 1, 0},
		{0, 0, 0},
	} {
		got, err := c.Spread(ctxOf(t), top, o.n)
		if err != nil || len(got) < o.least || len(got) > min(o.n, 3500) {
			t.Errorf("%d wanted: %d records, %v; at least %d", o.n, len(got), err, o.least)
			continue
		}
		parts := map[int32]int{}
		seen := map[string]bool{}
		for i, r := range got {
			parts[r.Partition]++
			at := fmt.Sprint(r.Partition, r.Offset)
			if seen[at] {
				t.Errorf("%d wanted: %s twice", o.n, at)
			}
			seen[at] = true
			if i > 0 && got[i-1].Partition == r.Partition && (r.Offset <= got[i-1].Offset || r.Offset-got[i-1].Offset > o.gap) {
				t.Errorf("%d wanted: offset %d of partition %d follows %d", o.n, r.Offset, r.Partition, got[i-1].Offset)
			}
		}
		if o.n >= 30 && (parts[1] < parts[0]*3/2 || parts[2] < 3 || parts[3] != 0) {
			t.Errorf("%d wanted: by partition %v", o.n, parts)
		}
		again, err := c.Spread(ctxOf(t), top, o.n)
		if err != nil || len(again) != len(got) {
			t.Fatalf("%d wanted: %d records and then %d, %v", o.n, len(got), len(again), err)
		}
		for i := range got {
			if got[i].Partition != again[i].Partition || got[i].Offset != again[i].Offset {
				t.Fatalf("%d wanted: record %d is another one the second time", o.n, i)
			}
		}
	}
	if _, err := c.Spread(ctxOf(t), "absent", 10); err == nil {
		t.Error("an absent topic was read")
	}
}

package stream

import (
	"context"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// What was fetched for one assignment must never come after another has begun. Members of several groups join and leave over a
// backlog, begin each assignment at a place of their own, and count for themselves: the first record is the one at that place, and
// each following one the next. A record of an earlier assignment, one left out or one too many breaks the count. Most of the
// assignments come from Rewind, which gives up and assigns anew as a rebalance does; a rebalance by heartbeat takes seconds.
func TestGroupGivesNoStaleRecordOver1000Assignments(t *testing.T) {
	t.Parallel()
	const (
		partitions = 4
		backlog    = 20_000
		groups     = 8
	)
	enough := int64(1000)
	if !batchCalls { // slower, and held to the same
		enough = 200
	}
	c, _ := broker(t)
	c = connect(t, c.Brokers(), map[string]string{"heartbeat.interval.ms": "50"}) // by heartbeats members learn of rebalances
	top := topic(t, c, partitions)
	for p := range int32(partitions) {
		for from := 0; from < backlog; from += 5000 {
			produce(t, c, records(top, p, from, 5000)...)
		}
	}
	ctx, stop := context.WithTimeout(context.Background(), 4*time.Minute)
	defer stop()
	var assigned, revoked, read atomic.Int64
	drive := func(g *Group, seed uint64, until func(assignments, records int) bool) {
		rng := rand.New(rand.NewPCG(seed, 1))
		next := map[TopicPartition]int64{}
		assignments, n := 0, 0
		lose := func(tps []TopicPartition) {
			for _, tp := range tps {
				delete(next, tp)
			}
		}
		for ctx.Err() == nil && !until(assignments, n) {
			e, err := g.Next(ctx)
			if err != nil {
				if ctx.Err() == nil {
					t.Error(err)
				}
				return
			}
			switch e := e.(type) {
			case *Assigned:
				for _, p := range e.Partitions {
					at := rng.Int64N(backlog / 2)
					if err := g.SeekTo(p.TopicPartition, at); err != nil {
						t.Error(err)
					}
					next[p.TopicPartition] = at
				}
				assignments++
				if assigned.Add(1) >= enough {
					stop()
				}
			case *Revoked:
				revoked.Add(1)
				lose(e.Partitions)
			case *Lost:
				lose(e.Partitions)
			case *Batch:
				for i := range e.Records {
					r := &e.Records[i]
					tp := TopicPartition{r.Topic, r.Partition}
					want, ours := next[tp]
					if !ours || r.Offset != want || string(r.Value) != strconv.FormatInt(r.Offset, 10) {
						t.Errorf("assignment %d: record %d of %v with value %s, want %d; ours: %v", assignments, r.Offset, tp, r.Value, want, ours)
						stop()
					}
					next[tp] = r.Offset + 1
				}
				n += len(e.Records)
				read.Add(int64(len(e.Records)))
				e.Release()
				if assignments > 0 && rng.IntN(1000) == 0 {
					g.Rewind()
				}
			}
		}
	}
	var wg sync.WaitGroup
	for i := range uint64(groups) {
		o := GroupOptions{Topics: []string{top}, Group: name("g"), MaxBatch: 500}
		join := func() *Group {
			g, err := c.Group(ctx, o)
			if err != nil && ctx.Err() == nil {
				t.Error(err)
				stop()
			}
			return g
		}
		wg.Go(func() {
			if g := join(); g != nil {
				drive(g, i, func(int, int) bool { return false })
				g.Close()
			}
		})
		wg.Go(func() {
			for round := uint64(1); ctx.Err() == nil; round++ {
				g := join()
				if g == nil {
					return
				}
				drive(g, i+round*groups, func(assignments, n int) bool { return assignments > 0 && n > 0 })
				g.Close()
			}
		})
	}
	wg.Wait()
	if !t.Failed() && (assigned.Load() < enough || revoked.Load() == 0) {
		t.Errorf("%d assignments, %d revocations", assigned.Load(), revoked.Load())
	}
	t.Logf("%d assignments, %d revocations, %d records", assigned.Load(), revoked.Load(), read.Load())
}

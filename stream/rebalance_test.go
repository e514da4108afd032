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

// What was fetched for one assignment must never come after another has begun. Of each of several groups one member stays, and a
// second one joins and leaves over a backlog. Each begins every assignment at a place of its own, and counts for itself: the first
// record is the one at that place, and each following one the next. A record of an earlier assignment, one left out or one too many
// breaks the count. What matters are partitions that a consumer has given up and gets again. Rebalances, which go by heartbeats, give
// some of those; most come from Rewind, which gives up and assigns anew as a rebalance does.
func TestGroupGivesNoStaleRecordOver1000Assignments(t *testing.T) {
	t.Parallel()
	const (
		partitions = 4
		backlog    = 20_000
		groups     = 8
	)
	enough := int64(1000)
	if !batchCalls || poisoned { // slower; the thousand are for the run without the race detector, in test-kafka
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
	var again, rebalanced, revoked, read atomic.Int64
	drive := func(g *Group, seed uint64, whole chan<- struct{}, until func(assignments, records int) bool) {
		rng := rand.New(rand.NewPCG(seed, 1))
		next := map[TopicPartition]int64{}
		had := map[TopicPartition]bool{}
		rewound := map[TopicPartition]bool{} // they come back by no rebalance
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
				moved, back := false, false
				for _, p := range e.Partitions {
					moved = moved || !rewound[p.TopicPartition]
					back = back || had[p.TopicPartition]
					had[p.TopicPartition] = true
					delete(rewound, p.TopicPartition)
					at := rng.Int64N(backlog / 2)
					if err := g.SeekTo(p.TopicPartition, at); err != nil {
						t.Error(err)
					}
					next[p.TopicPartition] = at
				}
				assignments++
				if moved {
					rebalanced.Add(1)
				}
				if back && again.Add(1) >= enough && revoked.Load() >= 2*groups {
					stop()
				}
				if len(next) == partitions {
					select {
					case whole <- struct{}{}:
					default:
					}
				}
			case *Revoked:
				revoked.Add(1)
				lose(e.Partitions)
				for _, tp := range e.Partitions {
					delete(rewound, tp)
				}
			case *Lost:
				lose(e.Partitions)
				for _, tp := range e.Partitions {
					rewound[tp] = e.Rewound != 0
				}
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
				if rng.IntN(20) == 0 {
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
		whole := make(chan struct{}, 1) // the one that stays has all partitions
		wg.Go(func() {
			if g := join(); g != nil {
				drive(g, i, whole, func(int, int) bool { return false })
				g.Close()
			}
		})
		wg.Go(func() {
			for round := uint64(1); ctx.Err() == nil; round++ {
				select {
				case <-whole:
				case <-ctx.Done():
					return
				}
				g := join()
				if g == nil {
					return
				}
				drive(g, i+round*groups, nil, func(assignments, n int) bool { return assignments > 0 && n > 0 })
				g.Close()
			}
		})
	}
	wg.Wait()
	if !t.Failed() && (again.Load() < enough || revoked.Load() < 2*groups) {
		t.Errorf("%d times partitions came again, %d revocations", again.Load(), revoked.Load())
	}
	t.Logf("%d times partitions came again; %d assignments by a rebalance, %d revocations, %d records", again.Load(), rebalanced.Load(), revoked.Load(), read.Load())
}

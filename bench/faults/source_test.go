//go:build e2e

package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// source writes the input: a trickle all the time, and bursts when a fault is about to strike. Its watcher notes when the
// results of what it wrote can be read; whether they are right is for the checker to say. Both use a client that is not Lapwing's.
type source struct {
	client *kgo.Client
	watch  *kgo.Client
	topic  string

	mu         sync.Mutex
	rng        *rand.Rand
	partitions int32
	n          int64               // records written, each a millisecond later than the last
	acked      map[place]time.Time // when it was acknowledged, until its result is seen
	early      map[place]bool      // results seen before the acknowledgement
	waiting    int                 // written, not acknowledged
	longest    time.Duration       // from acknowledgement to result, since it was last asked for
	failed     error

	trickle bool
	changed chan struct{} // closed when something above has changed
	ending  context.CancelFunc
	running sync.WaitGroup
}

func startSource(ctx context.Context, brokers []string, of topics, partitions int32, rng *rand.Rand) (*source, error) {
	s := &source{topic: of.in, rng: rng, partitions: partitions, acked: map[place]time.Time{}, early: map[place]bool{}, changed: make(chan struct{})}
	var err error
	if s.client, err = kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(50*time.Millisecond),
		kgo.MetadataMaxAge(time.Second), kgo.RequiredAcks(kgo.AllISRAcks())); err != nil {
		return nil, err
	}
	if s.watch, err = kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(of.scores, of.dead), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(100*time.Millisecond), kgo.MetadataMinAge(50*time.Millisecond), kgo.MetadataMaxAge(time.Second)); err != nil {
		s.client.Close()
		return nil, err
	}
	ctx, s.ending = context.WithCancel(ctx)
	s.running.Go(func() { s.trickling(ctx) })
	s.running.Go(func() { s.watching(ctx, of) })
	return s, nil
}

func (s *source) close() {
	s.ending()
	s.running.Wait()
	s.client.Close()
	s.watch.Close()
}

// notify wakes who waits; with s.mu held.
func (s *source) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *source) trickling(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.mu.Lock()
			on := s.trickle && s.waiting < 20_000 // a cluster that is down for long is not owed more and more
			s.mu.Unlock()
			if on {
				s.write(ctx, 8, s.reading)
			}
		}
	}
}

// flow switches the trickle.
func (s *source) flow(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trickle = on
}

// reading is a record as the model learned it.
func (s *source) reading(n int64) []byte {
	load := s.rng.Float64()
	return fmt.Appendf(nil, `{"car":"car-%d","speed":%.2f,"rpm":%.1f,"temp":%.2f}`, n%50, 20+90*load+s.rng.NormFloat64(), 900+4000*load+20*s.rng.NormFloat64(), 70+25*load+s.rng.NormFloat64())
}

// poison is a record that cannot be scored, or a tombstone.
func (s *source) poison(n int64) []byte {
	bad := []string{"", `{"car":"car-1","speed":`, `[]`, `null`, `{"car":"car-1"}`, `{"car":"car-1","speed":"fast","rpm":{},"temp":[1,2]}`, "\x00\xff\xfe", `{"speed":1e999,"rpm":1,"temp":1}`}
	if i := s.rng.IntN(len(bad) + 1); i < len(bad) {
		return []byte(bad[i])
	}
	return nil
}

// write hands records to the producer without waiting.
func (s *source) write(ctx context.Context, count int, value func(n int64) []byte) {
	s.mu.Lock()
	records := make([]*kgo.Record, count)
	for i := range records {
		s.n++
		records[i] = &kgo.Record{
			Topic: s.topic, Partition: int32(s.n % int64(s.partitions)), Key: fmt.Appendf(nil, "car-%d", s.n%50), Value: value(s.n),
			Timestamp: time.UnixMilli(1_795_615_200_000 + s.n),
		}
	}
	s.waiting += count
	s.mu.Unlock()
	for _, r := range records {
		s.client.Produce(context.WithoutCancel(ctx), r, s.acknowledged)
	}
}

func (s *source) acknowledged(r *kgo.Record, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting--
	at := place{r.Partition, r.Offset}
	switch {
	case err != nil:
		s.failed = err
	case r.Value == nil: // has no result
	case s.early[at]:
		delete(s.early, at)
	default:
		s.acked[at] = time.Now()
	}
	s.notify()
}

func (s *source) watching(ctx context.Context, of topics) {
	for ctx.Err() == nil {
		fetches := s.watch.PollFetches(ctx)
		now := time.Now()
		s.mu.Lock()
		fetches.EachRecord(func(r *kgo.Record) {
			at := place{-1, -1}
			if r.Topic == of.scores {
				var v struct {
					Partition int32
					Offset    int64
				}
				if json.Unmarshal(r.Value, &v) == nil {
					at = place{v.Partition, v.Offset}
				}
			} else {
				for _, h := range r.Headers {
					switch h.Key {
					case "lapwing.partition":
						fmt.Sscan(string(h.Value), &at.partition)
					case "lapwing.offset":
						fmt.Sscan(string(h.Value), &at.offset)
					}
				}
			}
			if acked, ok := s.acked[at]; ok {
				s.longest = max(s.longest, now.Sub(acked))
				delete(s.acked, at)
			} else {
				s.early[at] = true
			}
		})
		s.notify()
		s.mu.Unlock()
	}
}

// inFlight is how many records are written and have no result that can be read.
func (s *source) inFlight() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting + len(s.acked)
}

// settled returns when all that was written has its result, or when ctx ends.
func (s *source) settled(ctx context.Context) error {
	for {
		s.mu.Lock()
		waiting, unscored, changed, failed := s.waiting, len(s.acked), s.changed, s.failed
		s.mu.Unlock()
		if failed != nil {
			return fmt.Errorf("a record could not be written: %w", failed)
		}
		if waiting+unscored == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%d records are not acknowledged and %d have no result: %w", waiting, unscored, ctx.Err())
		}
	}
}

// forget: records of a partition below an offset were deleted, and need have no result. Nothing is waiting to be acknowledged.
func (s *source) forget(partition int32, below int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for at := range s.acked {
		if at.partition == partition && at.offset < below {
			delete(s.acked, at)
		}
	}
	s.notify()
}

// upTo returns when what was acknowledged before now has its result; more may be on its way.
func (s *source) upTo(ctx context.Context) error {
	now := time.Now()
	return until(ctx, "what was written has its results", func() (bool, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, acked := range s.acked {
			if acked.Before(now) {
				return false, s.failed
			}
		}
		return true, s.failed
	})
}

// written returns when all that was written is acknowledged.
func (s *source) written(ctx context.Context) error {
	return until(ctx, "all is acknowledged", func() (bool, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.waiting == 0, s.failed
	})
}

// pause gives the longest time that a record waited for its result, and begins anew.
func (s *source) pause() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.longest
	for _, acked := range s.acked {
		d = max(d, time.Since(acked))
	}
	s.longest = 0
	return d
}

// tryPartition widens the source to a partition once its client can write there.
func (s *source) tryPartition(ctx context.Context, p int32) (bool, error) {
	s.mu.Lock()
	s.n++
	r := &kgo.Record{Topic: s.topic, Partition: p, Key: []byte("car-0"), Value: s.reading(s.n), Timestamp: time.UnixMilli(1_795_615_200_000 + s.n)}
	s.mu.Unlock()
	if err := s.client.ProduceSync(ctx, r).FirstErr(); err != nil {
		return false, err
	}
	s.mu.Lock()
	s.waiting++ // acknowledged takes it back
	s.partitions = p + 1
	s.mu.Unlock()
	s.acknowledged(r, nil)
	return true, nil
}

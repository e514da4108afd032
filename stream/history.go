package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// HistoryOptions configure a bounded read.
type HistoryOptions struct {
	// MaxBatch bounds a batch. Records; default 4096.
	MaxBatch int
	// Readers is the number of consumers that share the partitions. Default 2, or one a partition if there are fewer: a
	// consumer unpacks what comes from a broker in one thread.
	Readers int
	// Ahead is how many finished batches wait for Next. Batches; default 8.
	Ahead int
	// Stall is how long no partition of a reader may make progress before the read fails. Seconds; default 60s.
	Stall time.Duration
}

// Validate reports every fault of o at once.
func (o *HistoryOptions) Validate() error {
	if o.MaxBatch < 0 || o.Readers < 0 || o.Ahead < 0 || o.Stall < 0 {
		return fmt.Errorf("HistoryOptions %+v: no field may be negative", *o)
	}
	return nil
}

// RangeResult is what became of a Range.
type RangeResult struct {
	Range
	Records int64
	Lost    int64 // offsets that retention deleted before they could be read
}

// History is a bounded read in progress.
type History struct {
	c      *Client
	topic  string
	o      HistoryOptions
	cancel context.CancelFunc
	out    chan *Batch
	parts  []*part

	wg   sync.WaitGroup
	once sync.Once
	mu   sync.Mutex
	err  error
}

// part is one partition's progress; but for passed it is its reader's until out is closed.
type part struct {
	Range
	pos     int64 // next offset wanted: past the last record, or the end that the broker reported
	records int64
	lost    int64
	batch   *Batch
	done    bool
	moved   time.Time
	warned  bool

	passed atomic.Int64 // offset before which all has been handed out, or holds no record; for Positions
}

// ReadRanges reads ranges of topic, all partitions in parallel, committed records only. It ends at the ranges' ends, which do not
// move, however much is produced meanwhile; a range whose last offsets hold no record (transaction markers, compacted, deleted) ends
// when the reader's position has passed it.
func (c *Client) ReadRanges(ctx context.Context, topic string, ranges []Range, o HistoryOptions) (*History, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	n, err := c.Partitions(ctx, topic)
	if err != nil {
		return nil, c.lacks(err, "topic", topic, "READ")
	}
	if o.MaxBatch == 0 {
		o.MaxBatch = 4096
	}
	if o.Readers == 0 {
		o.Readers = 2
	}
	if o.Ahead == 0 {
		o.Ahead = 8
	}
	if o.Stall == 0 {
		o.Stall = time.Minute
	}
	h := &History{c: c, topic: topic, o: o, out: make(chan *Batch, o.Ahead)}
	seen := map[int32]bool{}
	var todo []*part
	for _, r := range ranges {
		if r.Partition < 0 || int(r.Partition) >= n || seen[r.Partition] || r.From < 0 {
			return nil, &Error{What: "the range cannot be read", Where: fmt.Sprintf("topic %s, partition %d, offsets %d to %d", topic, r.Partition, r.From, r.To),
				Next: fmt.Sprintf("name each of the partitions 0 to %d once, with offsets from 0", n-1)}
		}
		seen[r.Partition] = true
		p := &part{Range: r, pos: r.From, done: r.From >= r.To}
		p.passed.Store(r.From)
		h.parts = append(h.parts, p)
		if !p.done {
			todo = append(todo, p)
		}
	}
	ctx, h.cancel = context.WithCancel(context.WithoutCancel(ctx))
	// Largest first, each to the reader with the least to do.
	slices.SortStableFunc(todo, func(a, b *part) int { return int((b.To - b.From) - (a.To - a.From)) })
	shares := make([][]*part, min(o.Readers, len(todo)))
	loads := make([]int64, len(shares))
	for _, p := range todo {
		i := slices.Index(loads, slices.Min(loads))
		shares[i], loads[i] = append(shares[i], p), loads[i]+p.To-p.From
	}
	for _, s := range shares {
		k, err := c.consumer(map[string]any{"group.id": "lapwing-history"}, "20", historyDefaults)
		if err == nil {
			r := &rangeReader{h: h, k: k, in: newIntake(k, 1), parts: s, open: len(s), by: map[int32]*part{}}
			for _, p := range s {
				r.by[p.Partition] = p
			}
			r.in.lead(r.positions(s))
			if err = k.Assign(r.positions(s)); err == nil {
				h.wg.Go(func() { r.run(ctx) })
				continue
			}
			r.in.close()
			k.Close()
		}
		h.cancel()
		h.wg.Wait()
		return nil, err
	}
	go func() {
		h.wg.Wait()
		close(h.out)
	}()
	return h, nil
}

// Next gives the following batch: records of one partition in offset order; partitions interleave. io.EOF at the end.
func (h *History) Next(ctx context.Context) (*Batch, error) {
	select {
	case b, ok := <-h.out:
		if ok {
			return b, nil
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.err != nil {
			return nil, h.err
		}
		return nil, io.EOF
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Positions tells how far each range has been read, in the order given: everything before that offset has been handed out or is about
// to be, holds no record, or was lost. From any goroutine, at any time.
func (h *History) Positions() []int64 {
	out := make([]int64, len(h.parts))
	for i, p := range h.parts {
		out[i] = p.passed.Load()
	}
	return out
}

// Results is what became of each range, in the order given. Only after Next has returned io.EOF.
func (h *History) Results() []RangeResult {
	out := make([]RangeResult, len(h.parts))
	for i, p := range h.parts {
		out[i] = RangeResult{p.Range, p.records, p.lost}
	}
	return out
}

// Close ends the read. Batches that were handed out stay valid.
func (h *History) Close() {
	h.once.Do(func() {
		h.fail(ErrClosed)
		for b := range h.out { // until the readers have seen it and ended
			b.Release()
		}
	})
}

func (h *History) fail(err error) {
	h.mu.Lock()
	if h.err == nil {
		h.err = err
	}
	h.mu.Unlock()
	h.cancel()
}

// rangeReader is one consumer and its share of the partitions.
type rangeReader struct {
	h      *History
	k      *kafka.Consumer
	in     *intake
	parts  []*part
	open   int // parts that are not done
	by     map[int32]*part
	last   *part
	reset  error // an out-of-range report that has not been looked into
	resets int   // such reports in a row without a record between them
}

func (r *rangeReader) positions(parts []*part) []kafka.TopicPartition {
	out := make([]kafka.TopicPartition, len(parts))
	for i, p := range parts {
		out[i] = kafka.TopicPartition{Topic: &r.h.topic, Partition: p.Partition, Offset: kafka.Offset(p.pos)}
	}
	return out
}

func (r *rangeReader) run(ctx context.Context) {
	defer func() {
		r.in.close()
		r.h.c.retire(r.k, giveBack)
	}()
	now := time.Now()
	for _, p := range r.parts {
		p.moved = now
	}
	for r.open > 0 && ctx.Err() == nil {
		wait := 100
		if r.reset != nil {
			wait = 0
		}
		h := r.in.take(r.h.o.MaxBatch, wait)
		if h.empty() {
			err := r.stalled()
			if r.reset != nil {
				reset := r.reset
				r.reset = nil
				err = r.outOfRange(ctx, reset)
			}
			if err != nil {
				if ctx.Err() == nil {
					r.h.fail(err)
				}
				return
			}
			continue
		}
		if err := r.haul(ctx, h); err != nil {
			r.h.fail(err)
			return
		}
		for _, p := range r.parts { // what came is handed out: the following take may wait
			if !r.flush(ctx, p) {
				return
			}
		}
	}
}

// haul deals with what was taken.
func (r *rangeReader) haul(ctx context.Context, h *haul) error {
	at := 0
	for _, m := range h.marks {
		r.records(ctx, h, at, m.at)
		at = m.at
		switch e := m.event.(type) {
		case kafka.PartitionEOF:
			p := r.by[e.Partition]
			if p == nil || p.done {
				continue
			}
			if o := int64(e.Offset); o > p.pos {
				p.pos, p.moved = o, time.Now()
			}
			if p.pos >= p.To {
				r.finish(ctx, p)
			}
		case kafka.Error:
			if err := r.failed(e); err != nil {
				return err
			}
		}
	}
	r.records(ctx, h, at, len(h.records))
	return nil
}

func (r *rangeReader) records(ctx context.Context, h *haul, from, to int) {
	for i := from; i < to; i++ {
		rec := &h.records[i]
		p := r.last
		if i == from || p.Partition != rec.Partition {
			p = r.by[rec.Partition]
			r.last = p
			if p.batch != nil {
				p.batch.hold(h)
			}
		}
		if p.done || rec.Offset < p.pos { // or fetched before the position was moved
			continue
		}
		r.resets = 0
		if rec.Offset < p.To {
			if p.batch == nil {
				p.batch = newBatch()
				p.batch.hold(h)
			}
			p.batch.Records = append(p.batch.Records, *rec)
			p.records++
			p.pos = rec.Offset + 1
		} else {
			p.pos = p.To // the range's last offsets hold no record
		}
		if p.pos >= p.To {
			r.finish(ctx, p)
		}
	}
}

// flush hands out p's batch, if it has one. While the caller is slow this waits, and time that it waits is not a stall.
func (r *rangeReader) flush(ctx context.Context, p *part) bool {
	defer p.passed.Store(p.pos)
	if p.batch == nil {
		return true
	}
	b := p.batch
	p.batch = nil
	select {
	case r.h.out <- b:
	default:
		select {
		case r.h.out <- b:
			now := time.Now()
			for _, q := range r.parts {
				q.moved = now
			}
		case <-ctx.Done():
			b.Release()
			return false
		}
	}
	p.moved, p.warned = time.Now(), false
	return true
}

// finish ends a partition: nothing more is fetched from it.
func (r *rangeReader) finish(ctx context.Context, p *part) {
	p.done = true
	r.open--
	p.pos = min(p.pos, p.To)
	if err := r.k.IncrementalUnassign(r.positions([]*part{p})); err != nil {
		r.h.c.log.Debug("history reader: unassign", "topic", r.h.topic, "partition", p.Partition, "err", err)
	}
	r.flush(ctx, p)
}

// stalled names partitions without progress, and gives up when none has made any for Stall. A broker that merely pauses is waited
// for; a shorter history is never handed out as the whole.
func (r *rangeReader) stalled() error {
	var oldest *part
	newest := time.Time{}
	for _, p := range r.parts {
		if p.done {
			continue
		}
		if p.moved.After(newest) {
			newest = p.moved
		}
		if oldest == nil || p.moved.Before(oldest.moved) {
			oldest = p
		}
		if !p.warned && time.Since(p.moved) > min(10*time.Second, r.h.o.Stall/2) {
			p.warned = true
			r.h.c.log.Warn("no progress: waiting for the broker", "topic", r.h.topic, "partition", p.Partition, "offset", p.pos, "end", p.To)
		}
	}
	if oldest == nil || time.Since(newest) < r.h.o.Stall {
		return nil
	}
	return r.lost(oldest, fmt.Errorf("no answer from %s for %v", r.h.c.Brokers(), r.h.o.Stall))
}

func (r *rangeReader) lost(p *part, err error) error {
	return &LostError{Topic: r.h.topic, Partition: p.Partition, At: p.pos, To: p.To, Records: p.records, Err: err}
}

// failed deals with an error event. An offset out of range waits until the queue is empty: the event does not name its partition,
// and records of another one that retention has overtaken too may still stand in the queue, to be read.
func (r *rangeReader) failed(e kafka.Error) error {
	switch e.Code() {
	case kafka.ErrAutoOffsetReset, kafka.ErrOffsetOutOfRange:
		r.reset = e
		return nil
	case kafka.ErrUnknownTopicOrPart, kafka.ErrUnknownTopic, kafka.ErrUnknownPartition, kafka.ErrTopicAuthorizationFailed, kafka.ErrUnknownTopicID:
		for _, p := range r.parts {
			if !p.done {
				return r.lost(p, r.h.c.lacks(e, "topic", r.h.topic, "READ"))
			}
		}
	}
	if e.IsFatal() {
		return r.lost(r.parts[0], e)
	}
	r.h.c.log.Debug("history reader", "topic", r.h.topic, "err", r.h.c.scrub(e.Error()))
	return nil
}

// outOfRange: retention has deleted what was to be read next. The read goes on at the oldest kept record, and the loss is
// counted; jumping to the end, as the default elsewhere, would leave out everything still kept between.
func (r *rangeReader) outOfRange(ctx context.Context, e error) error {
	var tps []TopicPartition
	for _, p := range r.parts {
		if !p.done {
			tps = append(tps, TopicPartition{r.h.topic, p.Partition})
		}
	}
	if len(tps) == 0 {
		return nil
	}
	actx, cancel := context.WithTimeout(ctx, r.h.o.Stall)
	defer cancel()
	low, high, err := r.h.c.lowHigh(actx, tps, kafka.IsolationLevelReadUncommitted)
	if err != nil {
		return err
	}
	moved := false
	for _, tp := range tps {
		p := r.by[tp.Partition]
		if p.pos > high[tp] {
			return r.lost(p, errors.New("the log is shorter than it was: the topic was likely recreated"))
		}
		if low[tp] <= p.pos {
			continue
		}
		moved = true
		gone := min(low[tp], p.To) - p.pos
		p.lost += gone
		p.pos = min(low[tp], p.To)
		p.moved = time.Now()
		r.h.c.log.Warn("retention deleted records before they were read", "topic", r.h.topic, "partition", p.Partition, "lost", gone, "goes_on_at", p.pos)
		if p.pos >= p.To {
			r.finish(ctx, p)
		} else if err := r.reassign(p); err != nil {
			return r.lost(p, err)
		}
	}
	if moved {
		return nil
	}
	// In range after all (a leader that lags after an election): try again where we are, but not for ever.
	if r.resets++; r.resets > 20 {
		return r.lost(r.by[tps[0].Partition], e)
	}
	pause(ctx, 100*time.Millisecond)
	for _, tp := range tps {
		if err := r.reassign(r.by[tp.Partition]); err != nil {
			return r.lost(r.by[tp.Partition], err)
		}
	}
	return nil
}

func (r *rangeReader) reassign(p *part) error {
	at := r.positions([]*part{p})
	if err := r.k.IncrementalUnassign(at); err != nil {
		return err
	}
	r.in.lead(at)
	return r.k.IncrementalAssign(at)
}

// EachRecord reads ranges to their end and hands out every record, those of one partition in order. A record's bytes are its
// batch's: what is kept has to be copied. It ends with the first error of do.
func (c *Client) EachRecord(ctx context.Context, topic string, ranges []Range, do func(Record) error) error {
	h, err := c.ReadRanges(ctx, topic, ranges, HistoryOptions{})
	if err != nil {
		return err
	}
	defer h.Close()
	for {
		b, err := h.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for i := range b.Records {
			if err := do(b.Records[i]); err != nil {
				b.Release()
				return err
			}
		}
		b.Release()
	}
}

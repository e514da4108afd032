package stream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// TailOptions configure a Tail.
type TailOptions struct {
	// Start is where partitions without an entry in Offsets begin: "earliest" or "latest". Default "earliest".
	Start string
	// Offsets are first offsets by partition, for every topic.
	Offsets map[int32]int64
	// Committed leaves out records of aborted and open transactions.
	Committed bool
	// MaxBatch bounds a batch. Records; default 1024.
	MaxBatch int
	// Recheck is how often topics are looked up, to find new partitions and recreated topics. Seconds; default 5s.
	Recheck time.Duration
}

// Tail reads topics without a group, on and on. One goroutine at a time.
type Tail struct {
	c  *Client
	k  *kafka.Consumer
	in *intake
	o  TailOptions

	topics  map[string]*followed
	parts   map[TopicPartition]*tailed
	ended   int // partitions at their end
	told    bool
	pending []*RecreatedError
	reset   bool
	last    *tailed
	names   map[string]*string

	changes chan kafka.TopicDescription // from the looker
	stop    context.CancelFunc
	looker  sync.WaitGroup
	once    sync.Once
}

type followed struct {
	id      kafka.UUID
	missing bool
}

type tailed struct {
	tp    TopicPartition
	pos   int64
	atEnd bool
}

// Tail starts reading topics from o.Start. A topic that does not exist is an error that wraps ErrNoTopic.
func (c *Client) Tail(ctx context.Context, topics []string, o TailOptions) (*Tail, error) {
	switch o.Start {
	case "":
		o.Start = "earliest"
	case "earliest", "latest":
	default:
		return nil, &Error{What: fmt.Sprintf("start %q is not known", o.Start), Next: "use earliest or latest"}
	}
	if o.MaxBatch == 0 {
		o.MaxBatch = 1024
	}
	if o.Recheck == 0 {
		o.Recheck = 5 * time.Second
	}
	t := &Tail{c: c, o: o, topics: map[string]*followed{}, parts: map[TopicPartition]*tailed{}, names: map[string]*string{}, changes: make(chan kafka.TopicDescription, 16)}
	var tps []TopicPartition
	var missing []error
	for _, name := range topics {
		d, err := c.topic(ctx, name)
		if err != nil {
			missing = append(missing, c.lacks(err, "topic", name, "READ"))
			continue
		}
		t.topics[name] = &followed{id: d.TopicID}
		for _, p := range d.Partitions {
			tps = append(tps, TopicPartition{name, int32(p.Partition)})
		}
	}
	if len(missing) > 0 {
		return nil, errors.Join(missing...)
	}
	level := kafka.IsolationLevelReadUncommitted
	isolation := "read_uncommitted"
	if o.Committed {
		level, isolation = kafka.IsolationLevelReadCommitted, "read_committed"
	}
	lctx, cancel := withDeadline(ctx)
	defer cancel()
	low, high, err := c.lowHigh(lctx, tps, level)
	if err != nil {
		return nil, err
	}
	t.k, err = c.consumer(map[string]any{"group.id": "lapwing-tail", "isolation.level": isolation}, "100", nil)
	if err != nil {
		return nil, err
	}
	var assign []kafka.TopicPartition
	for _, tp := range tps {
		from := low[tp]
		if o.Start == "latest" {
			from = high[tp]
		}
		if at, ok := o.Offsets[tp.Partition]; ok {
			from = max(at, low[tp])
		}
		assign = append(assign, t.add(tp, from))
	}
	t.in = newIntake(t.k, 1)
	t.in.lead(assign)
	if err := t.k.Assign(assign); err != nil {
		t.in.close()
		t.k.Close()
		return nil, c.adminErr("partitions could not be assigned", fmt.Sprint(topics), err)
	}
	lctx, t.stop = context.WithCancel(context.WithoutCancel(ctx))
	t.looker.Go(func() { t.look(lctx, topics) })
	return t, nil
}

func (t *Tail) add(tp TopicPartition, from int64) kafka.TopicPartition {
	p := &tailed{tp: tp, pos: from}
	t.parts[tp] = p
	return t.at(p)
}

func (t *Tail) at(p *tailed) kafka.TopicPartition {
	return kafka.TopicPartition{Topic: intern(t.names, p.tp.Topic), Partition: p.tp.Partition, Offset: kafka.Offset(p.pos)}
}

// look asks for the topics' ids and partitions now and then: a recreated topic whose log has grown past the old position looks
// like the old one to a reader of offsets.
func (t *Tail) look(ctx context.Context, topics []string) {
	for pause(ctx, t.o.Recheck) {
		for _, name := range topics {
			lctx, cancel := context.WithTimeout(ctx, requestTimeout)
			d, err := t.c.describe(lctx, name)
			cancel()
			if err != nil || len(d) != 1 {
				continue
			}
			select {
			case t.changes <- d[0]:
			case <-ctx.Done():
				return
			}
		}
	}
}

// Next gives the following batch; it waits until there is a record or every partition has reached its end anew. AtEnd marks the
// latter, with or without records. When a topic was recreated it returns a *RecreatedError once, and goes on at the beginning.
func (t *Tail) Next(ctx context.Context) (*Batch, error) {
	b := newBatch()
	err := t.fill(ctx, b)
	if err != nil {
		b.Release()
		return nil, err
	}
	return b, nil
}

func (t *Tail) fill(ctx context.Context, b *Batch) error {
	for {
		if err := ctx.Err(); err != nil {
			return t.keep(b, err)
		}
		if len(t.pending) > 0 {
			if len(b.Records) > 0 {
				return nil // these are the old topic's; the error comes between
			}
			e := t.pending[0]
			t.pending = t.pending[1:]
			return e
		}
		select {
		case d := <-t.changes:
			if err := t.changed(ctx, d); err != nil {
				return err
			}
			continue
		default:
		}
		wait := 50
		if t.reset || t.ended == len(t.parts) && !t.told || len(b.Records) > 0 {
			wait = 0
		}
		h := t.in.take(t.o.MaxBatch-len(b.Records), wait)
		if h.empty() {
			switch {
			case t.reset:
				t.reset = false
				if err := t.outOfRange(ctx); err != nil {
					return err
				}
			case t.ended == len(t.parts) && !t.told:
				t.told, b.AtEnd = true, true
				return nil
			case len(b.Records) > 0:
				return nil
			}
			continue
		}
		at := 0
		for _, m := range h.marks {
			t.take(h, at, m.at, b)
			at = m.at
			if err := t.event(m.event); err != nil {
				return err
			}
		}
		if t.take(h, at, len(h.records), b); len(b.Records) >= t.o.MaxBatch {
			return nil
		}
	}
}

// event deals with what is not a record.
func (t *Tail) event(e kafka.Event) error {
	switch e := e.(type) {
	case kafka.PartitionEOF:
		p := t.parts[TopicPartition{*e.Topic, e.Partition}]
		if p == nil {
			return nil
		}
		if o := int64(e.Offset); o > p.pos {
			p.pos, t.told = o, false
		}
		if !p.atEnd {
			p.atEnd, t.told = true, false
			t.ended++
		}
	case kafka.Error:
		switch e.Code() {
		case kafka.ErrAutoOffsetReset, kafka.ErrOffsetOutOfRange:
			t.reset = true
		default:
			if e.IsFatal() || e.Code() == kafka.ErrTopicAuthorizationFailed {
				return t.c.lacks(t.c.adminErr("reading stopped", t.where(), e), "topic", strings.ReplaceAll(t.where(), ", ", " --topic "), "READ")
			}
			t.c.log.Debug("tail", "topics", t.where(), "err", t.c.scrub(e.Error()))
		}
	}
	return nil
}

// keep hands out records that were already taken rather than an error that would drop them.
func (t *Tail) keep(b *Batch, err error) error {
	if len(b.Records) > 0 {
		return nil
	}
	return err
}

// take moves some of what an intake has taken to a batch.
func (t *Tail) take(h *haul, from, to int, b *Batch) {
	b.hold(h)
	for i := from; i < to; i++ {
		r := &h.records[i]
		p := t.last
		if p == nil || p.tp.Partition != r.Partition || p.tp.Topic != r.Topic {
			p = t.parts[TopicPartition{r.Topic, r.Partition}]
			if t.last = p; p == nil {
				continue
			}
		}
		if r.Offset < p.pos {
			continue
		}
		b.Records = append(b.Records, *r)
		p.pos, t.told = r.Offset+1, false
		if p.atEnd {
			p.atEnd = false
			t.ended--
		}
	}
}

func (t *Tail) where() string {
	var s string
	for name := range t.topics {
		if s != "" {
			s += ", "
		}
		s += name
	}
	return s
}

// Positions is the next offset to be read of every partition: past the last record, and past what ends a partition without being
// one (transaction markers, compacted offsets).
func (t *Tail) Positions() map[TopicPartition]int64 {
	out := make(map[TopicPartition]int64, len(t.parts))
	for tp, p := range t.parts {
		out[tp] = p.pos
	}
	return out
}

// KnownEnd is a partition's high watermark by the broker's last answer to a fetch, negative before the first. It is at least what it
// was when the last record of the last batch was fetched; AtEnd comes an empty answer later, and not at all to one that is never empty.
func (t *Tail) KnownEnd(tp TopicPartition) int64 {
	_, high, err := t.k.GetWatermarkOffsets(tp.Topic, tp.Partition)
	if err != nil {
		return -1
	}
	return high
}

// changed compares a topic with what is being read of it.
func (t *Tail) changed(ctx context.Context, d kafka.TopicDescription) error {
	f := t.topics[d.Name]
	if f == nil {
		return nil
	}
	switch d.Error.Code() {
	case kafka.ErrNoError:
	case kafka.ErrUnknownTopicOrPart, kafka.ErrUnknownTopic:
		if !f.missing {
			f.missing = true
			t.c.log.Warn("the topic was deleted; waiting for it", "topic", d.Name)
		}
		return nil
	default:
		return nil
	}
	recreated := d.TopicID != f.id
	f.id, f.missing = d.TopicID, false
	if recreated {
		return t.restart(ctx, d, "its id changed")
	}
	var fresh []kafka.TopicPartition
	for _, p := range d.Partitions {
		if tp := (TopicPartition{d.Name, int32(p.Partition)}); t.parts[tp] == nil {
			fresh = append(fresh, t.add(tp, 0))
		}
	}
	if fresh == nil {
		return nil
	}
	t.told = false
	t.in.lead(fresh)
	if err := t.k.IncrementalAssign(fresh); err != nil {
		return t.c.adminErr("new partitions could not be assigned", "topic "+d.Name, err)
	}
	return nil
}

// restart reads a topic from its beginning, with the partitions it has now.
func (t *Tail) restart(ctx context.Context, d kafka.TopicDescription, why string) error {
	var old, fresh []kafka.TopicPartition
	for tp, p := range maps.Clone(t.parts) {
		if tp.Topic != d.Name {
			continue
		}
		old = append(old, t.at(p))
		if p.atEnd {
			t.ended--
		}
		delete(t.parts, tp)
	}
	var tps []TopicPartition
	for _, p := range d.Partitions {
		tps = append(tps, TopicPartition{d.Name, int32(p.Partition)})
	}
	lctx, cancel := withDeadline(ctx)
	defer cancel()
	low, err := t.c.listOffsets(lctx, tps, kafka.EarliestOffsetSpec, kafka.IsolationLevelReadUncommitted)
	if err != nil {
		low = map[TopicPartition]int64{} // offset 0; out of range will say so if it is not
	}
	for _, tp := range tps {
		fresh = append(fresh, t.add(tp, low[tp]))
	}
	t.last, t.told = nil, false
	if err := t.k.IncrementalUnassign(old); err == nil {
		t.in.lead(fresh)
		err = t.k.IncrementalAssign(fresh)
		if err != nil {
			return t.c.adminErr("the recreated topic could not be assigned", "topic "+d.Name, err)
		}
	} else {
		return t.c.adminErr("the old topic could not be given up", "topic "+d.Name, err)
	}
	t.pending = append(t.pending, &RecreatedError{Topic: d.Name, Why: why})
	return nil
}

// outOfRange finds out which partitions have lost their position: below the log start they go on at it, above the end their topic
// was recreated.
func (t *Tail) outOfRange(ctx context.Context) error {
	var tps []TopicPartition
	for tp := range t.parts {
		tps = append(tps, tp)
	}
	sortTPs(tps)
	lctx, cancel := withDeadline(ctx)
	defer cancel()
	low, high, err := t.c.lowHigh(lctx, tps, kafka.IsolationLevelReadUncommitted)
	if err != nil {
		t.reset = true // the topic may be away just now; the looker will tell
		pause(ctx, 100*time.Millisecond)
		return nil
	}
	for _, tp := range tps {
		p := t.parts[tp]
		if p == nil {
			continue
		}
		switch {
		case p.pos > high[tp]:
			d, err := t.c.describe(lctx, tp.Topic)
			if err != nil || len(d) != 1 || d[0].Error.Code() != kafka.ErrNoError {
				t.reset = true
				pause(ctx, 100*time.Millisecond)
				return nil
			}
			if f := t.topics[tp.Topic]; f != nil {
				f.id, f.missing = d[0].TopicID, false
			}
			return t.restart(ctx, d[0], fmt.Sprintf("offset %d of partition %d is beyond its end %d", p.pos, tp.Partition, high[tp]))
		case p.pos < low[tp]:
			t.c.log.Warn("retention deleted records before they were read", "topic", tp.Topic, "partition", tp.Partition, "lost", low[tp]-p.pos, "goes_on_at", low[tp])
			old := t.at(p)
			p.pos, t.told = low[tp], false
			if p.atEnd {
				p.atEnd = false
				t.ended--
			}
			if err := t.k.IncrementalUnassign([]kafka.TopicPartition{old}); err != nil {
				return t.c.adminErr("reading could not go on", "topic "+tp.Topic, err)
			}
			t.in.lead([]kafka.TopicPartition{t.at(p)})
			if err := t.k.IncrementalAssign([]kafka.TopicPartition{t.at(p)}); err != nil {
				return t.c.adminErr("reading could not go on", "topic "+tp.Topic, err)
			}
		}
	}
	return nil
}

// Close ends the Tail.
func (t *Tail) Close() {
	t.once.Do(func() {
		t.stop()
		t.looker.Wait()
		t.in.close()
		if err := closeConsumer(t.k, 5*time.Second); err != nil {
			t.c.log.Warn("tail", "topics", t.where(), "err", err)
		}
	})
}

package stream

import "context"

// Offsets are what a Sink commits: the next offset to be read of each partition, with the group's metadata (member and generation),
// so that a commit by one who has lost a partition can be refused. Made by Group.Offsets.
type Offsets struct {
	next  map[TopicPartition]int64
	group string
	meta  any  // *kafka.ConsumerGroupMetadata, or a rehearsal's; nil where there is none
	stale bool // a partition is not ours any more. Metadata that is younger than its loss would let it pass at the broker
}

// Len is the number of partitions.
func (o Offsets) Len() int { return len(o.next) }

// Next is the offset of tp.
func (o Offsets) Next(tp TopicPartition) (int64, bool) {
	n, ok := o.next[tp]
	return n, ok
}

// Sink is where results go. Between Begin and Commit or Abort records are produced; Commit makes them and the input's offsets
// stand together, as far as the delivery mode promises. After an error of Produce or Commit, Abort; where that fails too, or the
// error wraps ErrFenced, the sink is done with. One goroutine at a time, but for Commit of AtLeastOnce: it may run beside Produce, and
// is about what was produced before it began.
type Sink interface {
	Begin(ctx context.Context) error
	Produce(ctx context.Context, records []Record) error
	Commit(ctx context.Context, o Offsets) error
	Abort(ctx context.Context) error
	Close(ctx context.Context) error
}

// AtLeastOnce makes a sink that commits offsets of g once every record produced before is acknowledged. After a crash in between,
// records are produced again.
func (c *Client) AtLeastOnce(ctx context.Context, g *Group) (Sink, error) {
	p, err := c.Producer(ctx, ProducerOptions{})
	if err != nil {
		return nil, err
	}
	return &atLeastOnce{p: p, g: g}, nil
}

// deliverer is what the sink asks of its producer: a Producer, or a rehearsal's.
type deliverer interface {
	Produce(ctx context.Context, records []Record) error
	Flush(ctx context.Context) error
	Close(ctx context.Context) error
	reset()
}

type atLeastOnce struct {
	p deliverer
	g *Group
}

func (s *atLeastOnce) Begin(context.Context) error { return nil }

func (s *atLeastOnce) Produce(ctx context.Context, records []Record) error {
	return s.p.Produce(ctx, records)
}

// Commit returns an error that wraps ErrNotMember where the group has moved on: the records stand, their offsets do not.
func (s *atLeastOnce) Commit(ctx context.Context, o Offsets) error {
	if err := s.p.Flush(ctx); err != nil {
		return err
	}
	return s.g.commit(ctx, o)
}

// Abort cannot take records back; it forgets a failed delivery, so that the same input can be tried again.
func (s *atLeastOnce) Abort(context.Context) error {
	s.p.reset()
	return nil
}

func (s *atLeastOnce) Close(ctx context.Context) error { return s.p.Close(ctx) }

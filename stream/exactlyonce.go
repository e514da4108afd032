package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// ExactlyOnceOptions configure a transactional sink.
type ExactlyOnceOptions struct {
	// ID is the transactional.id. Its next owner aborts what the last one left open, so it must be the member's own: the same
	// after its restart, another's never. Text; required.
	ID string
	// Timeout is how long a transaction may stay open before the broker aborts it: so long a dead member's offsets keep its
	// successor waiting. Seconds; default 10s.
	Timeout time.Duration
}

// Validate reports every fault of o at once.
func (o *ExactlyOnceOptions) Validate() error {
	var errs []error
	if o.ID == "" {
		errs = append(errs, errors.New("ExactlyOnceOptions.ID is empty"))
	}
	if o.Timeout < 0 {
		errs = append(errs, fmt.Errorf("ExactlyOnceOptions.Timeout %v must not be negative", o.Timeout))
	}
	return errors.Join(errs...)
}

// ExactlyOnce makes a sink whose records and offsets of g stand together or not at all, as readers of committed records see it. It
// fences an earlier owner of the id.
//
// The group's metadata goes with the offsets (KIP-447), so the broker refuses those of a member that has lost its partitions,
// whatever its transactional id.
func (c *Client) ExactlyOnce(ctx context.Context, g *Group, o ExactlyOnceOptions) (Sink, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	t, err := c.Transactor(ctx, o.ID, o.Timeout)
	if err != nil {
		return nil, err
	}
	return &exactlyOnce{t: t, g: g, now: time.Now, pause: pause}, nil
}

// transaction is what the sink asks of its transactional producer: a Transactor, or a rehearsal's.
type transaction interface {
	Renew(ctx context.Context) error
	Begin() error
	Produce(ctx context.Context, records []Record) error
	Flush(ctx context.Context) error
	SendOffsets(ctx context.Context, o Offsets) error
	Commit(ctx context.Context) error
	Abort(ctx context.Context) error
	Close()
}

type exactlyOnce struct {
	t         transaction
	g         *Group
	now       func() time.Time
	pause     func(context.Context, time.Duration) bool
	committed time.Time // the last transaction
}

// markerTime is how long a broker usually takes to write a transaction's markers once it has promised its commit. Partitions of the
// next transaction that are announced before that are refused, and librdkafka asks again after 20 ms: measured at 1,000 records/s, a
// transaction took 43 ms without this pause, and 19 with it. One that begins later, at low rates, does not wait.
const markerTime = 6 * time.Millisecond

func (s *exactlyOnce) Begin(ctx context.Context) error {
	if d := markerTime - s.now().Sub(s.committed); d > 0 && !s.pause(ctx, d) {
		return ctx.Err()
	}
	if err := s.t.Renew(ctx); err != nil {
		return err
	}
	return s.t.Begin()
}

func (s *exactlyOnce) Produce(ctx context.Context, records []Record) error {
	return s.t.Produce(ctx, records)
}

// Commit waits for the records' acknowledgements, sends the offsets, then commits both. A commit that timed out may stand: it is
// asked again until the broker says which, and only the committed offsets tell what is left to do.
//
// Sending the offsets while records are on their way would save nothing: the coordinator refuses to add them while it adds the
// records' partitions, and librdkafka asks again after retry.backoff.ms (measured: 100 ms a commit in place of 10).
func (s *exactlyOnce) Commit(ctx context.Context, o Offsets) error {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	if err := s.t.Flush(ctx); err != nil {
		return err
	}
	if len(o.next) > 0 {
		if err := s.sendOffsets(ctx, o); err != nil {
			return err
		}
	}
	err := s.t.Commit(ctx)
	s.committed = s.now()
	return err
}

func (s *exactlyOnce) sendOffsets(ctx context.Context, o Offsets) error {
	if o.stale || o.meta == nil {
		return fmt.Errorf("%w: partitions were taken away since their records were read", ErrNotMember)
	}
	return s.t.SendOffsets(ctx, o)
}

// Flush waits until every record of the transaction is acknowledged.
func (t *Transactor) Flush(ctx context.Context) error { return t.p.Flush(ctx) }

// SendOffsets adds offsets to the open transaction. The error wraps ErrNotMember where the group has moved on.
func (t *Transactor) SendOffsets(ctx context.Context, o Offsets) error {
	meta, ok := o.meta.(*kafka.ConsumerGroupMetadata)
	if !ok || meta == nil {
		return fmt.Errorf("%w: there is no group to commit offsets for", ErrNotMember)
	}
	names := map[string]*string{}
	set := make([]kafka.TopicPartition, 0, len(o.next))
	for tp, n := range o.next {
		set = append(set, kafka.TopicPartition{Topic: intern(names, tp.Topic), Partition: tp.Partition, Offset: kafka.Offset(n)})
	}
	ctx, cancel := context.WithTimeout(ctx, t.timeout) // what is open for longer the broker aborts
	defer cancel()
	err := t.retry(ctx, func(ctx context.Context) error { return t.p.p.SendOffsetsToTransaction(ctx, set, meta) })
	switch {
	case err == nil:
		return nil
	case notMember(err):
		return fmt.Errorf("%w: %v", ErrNotMember, err)
	}
	t.p.mu.Lock()
	first := t.p.err
	t.p.mu.Unlock()
	if first != nil && !errors.Is(fromProducer(err), ErrFenced) { // a record that failed has doomed the transaction
		return first
	}
	return t.p.c.lacks(t.explain(fmt.Sprintf("offsets of group %s were not added to the transaction", o.group), err), "group", o.group, "READ")
}

// notMember tells whether the group has moved on without the member that asked.
func notMember(err error) bool {
	switch code(err) {
	case kafka.ErrIllegalGeneration, kafka.ErrUnknownMemberID, kafka.ErrRebalanceInProgress, kafka.ErrFencedInstanceID,
		kafka.ErrAssignmentLost, kafka.ErrStaleMemberEpoch, kafka.ErrFencedMemberEpoch:
		return true
	}
	return false
}

// Abort takes back what was produced since Begin. Positions are the caller's to move back: Group.Rewind.
func (s *exactlyOnce) Abort(ctx context.Context) error { return s.t.Abort(ctx) }

// Close leaves an open transaction to whoever owns the id next.
func (s *exactlyOnce) Close(context.Context) error {
	s.t.Close()
	return nil
}

// TryTransactions initialises transactions under an id and gives it up again: the broker's answer says whether it keeps a
// transaction log and allows this client the id. An id that a sink owns would fence it.
func (c *Client) TryTransactions(ctx context.Context, id string, timeout time.Duration) error {
	t, err := c.Transactor(ctx, id, timeout)
	if err != nil {
		return err
	}
	t.Close()
	return nil
}

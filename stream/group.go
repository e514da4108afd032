package stream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// GroupOptions configure a member of a consumer group.
type GroupOptions struct {
	// Topics to read. Names; required, and all must exist.
	Topics []string
	// Group is the consumer group. A name; required.
	Group string
	// InstanceID makes the member static: it keeps its partitions over a restart, and Close does not leave. A name; default none.
	InstanceID string
	// Member says to others what this member is (see Client.Members): it follows a slash in the consumer's client.id. No slash in it;
	// default none.
	Member string
	// MaxBatch bounds a batch. Records; default 4096.
	MaxBatch int
	// MaxInFlight bounds the batches that the caller holds. Batches; default 4.
	MaxInFlight int
	// Start is where partitions begin that have no committed offset and existed when the group was made: "earliest" or "latest".
	// Default "earliest"; partitions added later always begin at their beginning.
	Start string
	// PauseAfter is how long a full reader waits for a batch to come back before it pauses its partitions and polls on, to stay in
	// the group. Pausing throws away what was fetched ahead, so not at once. Milliseconds; default 500ms.
	PauseAfter time.Duration
	// CloseTimeout bounds Close when the broker is gone. Seconds; default 5s.
	CloseTimeout time.Duration

	censusAfter time.Duration // see census; tests shorten it
}

// Validate reports every fault of o at once.
func (o *GroupOptions) Validate() error {
	var errs []error
	if len(o.Topics) == 0 {
		errs = append(errs, &Error{What: "no input topic was named", Next: "name one with --topic"})
	}
	if o.Group == "" {
		errs = append(errs, errors.New("GroupOptions.Group is empty"))
	}
	switch o.Start {
	case "", "earliest", "latest":
	default:
		errs = append(errs, &Error{What: fmt.Sprintf("start %q is not known", o.Start), Next: "use earliest or latest"})
	}
	if strings.Contains(o.Member, "/") {
		errs = append(errs, fmt.Errorf("GroupOptions.Member %q has a slash in it", o.Member))
	}
	if o.MaxBatch < 0 || o.MaxInFlight < 0 || o.PauseAfter < 0 || o.CloseTimeout < 0 {
		errs = append(errs, fmt.Errorf("GroupOptions: MaxBatch %d, MaxInFlight %d, PauseAfter %v, CloseTimeout %v: none may be negative", o.MaxBatch, o.MaxInFlight, o.PauseAfter, o.CloseTimeout))
	}
	return errors.Join(errs...)
}

// Group is a member of a consumer group. Next, SeekTo and Offsets belong to one goroutine; Release, Lag and InGroup to any.
//
// A goroutine of its own (the poller, poll.go) owns the consumer: it polls on while the caller is busy, so that the member stays in
// the group, and hands events over under mu.
type Group struct {
	c      *Client
	o      GroupOptions
	known  map[string]int // partitions of each topic when the group was made
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{} // the poller has ended
	wake   chan struct{} // to the poller: a slot is free, an event was acknowledged

	commits sync.WaitGroup
	brokers RehearsedBrokers // in place of a consumer; nil but in a Rehearsal

	mu       sync.Mutex
	k        *kafka.Consumer
	in       *intake // k's; wake only
	parts    map[TopicPartition]*owned
	events   []Event  // rebalances that the caller has not seen; they go before batches
	ready    []*Batch // full ones
	cur      *Batch   // the one being filled; nil or not empty
	out      int      // batches that the caller holds
	awaiting Event    // the rebalance that the following Next acknowledges
	acked    chan struct{}
	seeks    map[TopicPartition]int64
	assign   []Position // acknowledged; the poller starts them
	rewinds  int        // asked for by Rewind
	rewound  int        // done
	inGroup  bool
	err      error
	signal   chan struct{} // closed and renewed when something for Next has come
	closing  bool
}

// owned is what is known of a partition of ours.
type owned struct {
	told    bool  // the caller has seen it in an Assigned
	live    bool  // the caller has acknowledged that: it may commit
	started bool  // it is being fetched
	pos     int64 // next offset to be fetched: past the last record, or past the end that the broker reported
	handed  int64 // next offset after the last record that the caller got
	pending int64 // records fetched that the caller has not got
	end     int64 // last stable offset, as far as known
	high    int64 // high watermark, as far as known
	from    int64 // for a partition that lost its position: where it was; -1 otherwise
}

// Group joins a group. Next must be called soon, and again and again: it acknowledges what it handed out before.
func (c *Client) Group(ctx context.Context, o GroupOptions) (*Group, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.MaxBatch == 0 {
		o.MaxBatch = 4096
	}
	if o.MaxInFlight == 0 {
		o.MaxInFlight = 4
	}
	if o.PauseAfter == 0 {
		o.PauseAfter = 500 * time.Millisecond
	}
	if o.CloseTimeout == 0 {
		o.CloseTimeout = 5 * time.Second
	}
	if o.censusAfter == 0 {
		o.censusAfter = censusAfter
	}
	g := &Group{c: c, o: o, known: map[string]int{}, done: make(chan struct{}), wake: make(chan struct{}, 1), parts: map[TopicPartition]*owned{},
		seeks: map[TopicPartition]int64{}, signal: make(chan struct{})}
	var missing []error
	for _, t := range o.Topics {
		n, err := c.Partitions(ctx, t)
		if err != nil {
			missing = append(missing, c.lacks(err, "topic", t, "READ"))
		}
		g.known[t] = n
	}
	if len(missing) > 0 {
		return nil, errors.Join(missing...)
	}
	p := &poller{g: g, names: map[string]*string{}}
	if err := p.open(); err != nil {
		return nil, err
	}
	g.ctx, g.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go p.run()
	return g, nil
}

// Next gives the following event: *Batch, *Assigned, *Revoked or *Lost. It acknowledges the one before. What waits goes at once: a
// batch grows only while the caller is busy.
func (g *Group) Next(ctx context.Context) (Event, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.acknowledge()
	for {
		if e := g.take(); e != nil {
			return e, nil
		}
		if g.err != nil {
			return nil, g.err
		}
		s := g.signal
		g.mu.Unlock()
		select {
		case <-s:
			g.mu.Lock()
		case <-ctx.Done():
			g.mu.Lock()
			return nil, ctx.Err()
		}
	}
}

func (g *Group) acknowledge() {
	switch e := g.awaiting.(type) {
	case *Assigned:
		for _, p := range e.Partitions {
			w := g.parts[p.TopicPartition]
			if w == nil || !w.told || w.live {
				continue // taken away again in the meantime
			}
			if at, ok := g.seeks[p.TopicPartition]; ok {
				p.Offset = at
			}
			w.live, w.pos, w.handed = true, p.Offset, p.Offset
			w.end, w.high = max(w.end, p.Offset), max(w.high, p.High)
			g.assign = append(g.assign, p)
		}
		clear(g.seeks)
	case *Revoked:
		close(g.acked)
	case nil:
		return
	}
	g.awaiting = nil
	g.poke()
}

func (g *Group) take() Event {
	if len(g.events) > 0 {
		e := g.events[0]
		g.events = g.events[1:]
		switch e := e.(type) {
		case *Assigned:
			g.awaiting = e
			for _, p := range e.Partitions {
				if w := g.parts[p.TopicPartition]; w != nil {
					w.told = true
				}
			}
		case *Revoked:
			g.awaiting = e
		}
		return e
	}
	if g.out >= g.o.MaxInFlight {
		return nil
	}
	var b *Batch
	switch {
	case len(g.ready) > 0:
		b = g.ready[0]
		g.ready = g.ready[1:]
	case g.cur != nil:
		b, g.cur = g.cur, nil
	default:
		return nil
	}
	g.out++
	var w *owned
	var at TopicPartition
	for i := range b.Records {
		r := &b.Records[i]
		if tp := (TopicPartition{r.Topic, r.Partition}); w == nil || tp != at {
			w, at = g.parts[tp], tp
		}
		if w != nil {
			w.handed = r.Offset + 1
			w.pending--
		}
	}
	b.after(func() {
		g.mu.Lock()
		g.out--
		g.notify()
		g.mu.Unlock()
	})
	g.poke()
	return b
}

// poke wakes the poller; notify wakes Next. Both under mu.
func (g *Group) poke() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
	if g.in != nil {
		g.in.wake()
	}
}

func (g *Group) notify() {
	close(g.signal)
	g.signal = make(chan struct{})
}

// SeekTo makes a partition begin elsewhere than its Position says. Only between the Assigned that named it and the following Next.
func (g *Group) SeekTo(tp TopicPartition, offset int64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if a, ok := g.awaiting.(*Assigned); ok && offset >= 0 && slices.ContainsFunc(a.Partitions, func(p Position) bool { return p.TopicPartition == tp }) {
		g.seeks[tp] = offset
		return nil
	}
	return fmt.Errorf("seek of topic %s, partition %d to %d: only between Assigned and the following Next, to offsets from 0", tp.Topic, tp.Partition, offset)
}

// Offsets makes what Sink.Commit takes from the next offsets to be read. Where the caller has had everything up to the end of a
// partition, the offset moves past what stands there without being a record (transaction markers), so that lag ends at 0.
func (g *Group) Offsets(next map[TopicPartition]int64) Offsets {
	o := Offsets{next: maps.Clone(next), group: g.o.Group}
	g.mu.Lock()
	defer g.mu.Unlock()
	for tp, n := range o.next {
		w := g.parts[tp]
		if w == nil || !w.live {
			o.stale = true
		} else if w.pending == 0 && n == w.handed && w.pos > n {
			o.next[tp] = w.pos
		}
	}
	if g.brokers != nil {
		o.meta = g.brokers.Membership()
	} else if g.k != nil && !g.closing {
		if m, err := g.k.GetConsumerGroupMetadata(); err == nil {
			o.meta = m
		}
	}
	return o
}

// commit commits the offsets of partitions that are still ours.
func (g *Group) commit(ctx context.Context, o Offsets) error {
	g.mu.Lock()
	k := g.k
	var set []kafka.TopicPartition
	names := map[string]*string{}
	for tp, n := range o.next {
		if w := g.parts[tp]; w != nil && w.live {
			set = append(set, kafka.TopicPartition{Topic: intern(names, tp.Topic), Partition: tp.Partition, Offset: kafka.Offset(n)})
		}
	}
	if g.brokers != nil {
		g.mu.Unlock()
		return g.brokers.Commit(ctx, rehearsedOffsets(o, set))
	}
	if k == nil || g.closing {
		g.mu.Unlock()
		return ErrClosed
	}
	if len(set) == 0 {
		g.mu.Unlock()
		return nil
	}
	g.commits.Add(1)
	g.mu.Unlock()
	// The C call cannot be cancelled: it goes on behind where ctx ends first, and Close waits for it within bounds.
	done := make(chan error, 1)
	go func() {
		defer g.commits.Done()
		res, err := k.CommitOffsets(set)
		for _, tp := range res {
			if err == nil && tp.Error != nil {
				err = tp.Error
			}
		}
		done <- err
	}()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	switch code(err) {
	case kafka.ErrNoError:
		if err == nil {
			return nil
		}
	case kafka.ErrIllegalGeneration, kafka.ErrUnknownMemberID, kafka.ErrRebalanceInProgress, kafka.ErrFencedInstanceID, kafka.ErrState,
		kafka.ErrAssignmentLost, kafka.ErrStaleMemberEpoch, kafka.ErrFencedMemberEpoch:
		return fmt.Errorf("%w: %v", ErrNotMember, err)
	}
	return g.c.lacks(g.c.adminErr("offsets were not committed", fmt.Sprintf("group %s, %d partitions", g.o.Group, len(set)), err), "group", g.o.Group, "READ")
}

// Lag is the number of offsets of each partition that could be read and have not been handed out: exactly 0 when all has been.
// Records behind an open transaction cannot be read yet and do not count; see Held. From kept state, at most a second old.
func (g *Group) Lag() map[TopicPartition]int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make(map[TopicPartition]int64, len(g.parts))
	for tp, w := range g.parts {
		out[tp] = w.pending + max(0, w.end-w.pos)
	}
	return out
}

// Held is the number of offsets of each partition that stand behind a transaction that is still open.
func (g *Group) Held() map[TopicPartition]int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make(map[TopicPartition]int64, len(g.parts))
	for tp, w := range g.parts {
		out[tp] = max(0, w.high-max(w.end, w.pos))
	}
	return out
}

// Member is a member of a consumer group, as the broker knows it.
type Member struct {
	Is         string // what it says it is: GroupOptions.Member; "" = nothing
	Host       string
	ClientID   string
	InstanceID string // of a static member
}

// Members lists the members of a group; one that does not exist has none.
func (c *Client) Members(ctx context.Context, group string) ([]Member, error) {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	for {
		r, err := c.admin.DescribeConsumerGroups(ctx, []string{group})
		if err == nil && len(r.ConsumerGroupDescriptions) == 1 {
			d := r.ConsumerGroupDescriptions[0]
			if d.Error.Code() == kafka.ErrNoError {
				var out []Member
				for _, m := range d.Members {
					one := Member{Host: strings.TrimPrefix(m.Host, "/"), ClientID: m.ClientID, InstanceID: m.GroupInstanceID}
					if i := strings.LastIndexByte(m.ClientID, '/'); i >= 0 {
						one.Is = m.ClientID[i+1:]
					}
					out = append(out, one)
				}
				return out, nil
			}
			err = d.Error
		}
		switch code(err) {
		case kafka.ErrGroupIDNotFound:
			return nil, nil
		case kafka.ErrCoordinatorLoadInProgress, kafka.ErrCoordinatorNotAvailable, kafka.ErrNotCoordinator:
			if pause(ctx, 0) {
				continue
			}
		}
		return nil, c.lacks(c.adminErr("the group's members could not be listed", "group "+group, err), "group", group, "READ")
	}
}

// InGroup tells whether the member has joined and not been put out. From kept state.
func (g *Group) InGroup() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inGroup
}

// Close leaves the group (a static member does not) and ends the reader, within CloseTimeout even when the broker is gone. Offsets
// that were not committed are not.
func (g *Group) Close() error {
	g.mu.Lock()
	if g.closing {
		g.mu.Unlock()
		<-g.done
		return nil
	}
	g.closing = true
	if g.err == nil {
		g.err = ErrClosed
	}
	g.cancel()
	g.notify()
	g.poke()
	g.mu.Unlock()
	<-g.done
	committed := make(chan struct{})
	go func() { g.commits.Wait(); close(committed) }()
	limit := time.NewTimer(g.o.CloseTimeout)
	defer limit.Stop()
	select {
	case <-committed:
	case <-limit.C:
		return fmt.Errorf("group %s: a commit is still waiting for the broker after %v: left behind", g.o.Group, g.o.CloseTimeout)
	}
	if g.k == nil {
		return nil
	}
	g.mu.Lock()
	in := g.in
	g.in = nil
	g.mu.Unlock()
	in.close()
	if err := closeConsumer(g.k, g.o.CloseTimeout); err != nil {
		return fmt.Errorf("group %s: %w", g.o.Group, err)
	}
	return nil
}

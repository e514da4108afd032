package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

// simCluster is Kafka as a simulation needs it: logs with transactions and their markers, transactional ids with epochs, and one
// consumer group with generations. What takes time in Kafka takes steps here: markers are written one by one after a transaction's
// outcome stands, records lie in a producer's queue, and every request may be met by a fault on its way there or back.
type simCluster struct {
	w      *simWorld
	logs   map[stream.TopicPartition]*simLog
	ids    map[string]*simID
	ending []*simTxn // their outcome stands, some markers do not
	live   []*simTxn // begun, without an outcome
	group  simGroup
}

// simLog is one partition.
type simLog struct {
	at      stream.TopicPartition
	entries []simEntry // an entry's index is its offset
	open    []simOpen  // transactions with records here and no marker yet, oldest first
}

type simEntry struct {
	record stream.Record
	txn    *simTxn // nil: stands by itself
	marker bool    // or compacted away: no record
}

type simOpen struct {
	txn   *simTxn
	first int64
}

type simOutcome int

const (
	simUndecided simOutcome = iota
	simCommitted
	simAborted
)

type simTxn struct {
	id      *simID
	outcome simOutcome
	logs    []*simLog // without a marker yet
	offsets map[stream.TopicPartition]int64
	ends    time.Duration // when the coordinator gives it up
}

// simID is a transactional id at its coordinator.
type simID struct {
	epoch int
	txn   *simTxn // open, or ending
}

func newSimCluster(w *simWorld, partitions int) *simCluster {
	c := &simCluster{w: w, logs: map[stream.TopicPartition]*simLog{}, ids: map[string]*simID{}}
	for _, topic := range []string{simInput, simScores, simAlerts, simLetters, simModels} {
		for p := range partitions {
			at := stream.TopicPartition{Topic: topic, Partition: int32(p)}
			c.logs[at] = &simLog{at: at}
			if topic == simModels {
				break
			}
		}
	}
	c.group = newSimGroup(c, partitions)
	return c
}

// stable is the last stable offset.
func (l *simLog) stable() int64 {
	end := int64(len(l.entries))
	for _, o := range l.open {
		end = min(end, o.first)
	}
	return end
}

func (l *simLog) append(r stream.Record, txn *simTxn) {
	offset := int64(len(l.entries))
	if txn != nil && !slices.ContainsFunc(l.open, func(o simOpen) bool { return o.txn == txn }) {
		l.open = append(l.open, simOpen{txn, offset})
		txn.logs = append(txn.logs, l)
	}
	r.Topic, r.Partition, r.Offset = l.at.Topic, l.at.Partition, offset
	r.Key, r.Value = slices.Clone(r.Key), slices.Clone(r.Value) // a producer's caller may use its memory again
	l.entries = append(l.entries, simEntry{record: r, txn: txn})
}

// committed gives up to most records from at on, below end, and the offset that follows.
func (l *simLog) committed(at, end int64, most int) (records []stream.Record, next int64) {
	for ; at < end && len(records) < most; at++ {
		if e := &l.entries[at]; !e.marker && (e.txn == nil || e.txn.outcome == simCommitted) {
			records = append(records, e.record)
		}
	}
	return records, at
}

// compact drops records of which a younger one has the key.
func (l *simLog) compact() {
	last := map[string]bool{}
	for i := l.stable() - 1; i >= 0; i-- {
		e := &l.entries[i]
		if e.marker || e.txn != nil && e.txn.outcome != simCommitted {
			continue
		}
		if key := string(e.record.Key); last[key] {
			e.marker, e.record = true, stream.Record{}
		} else {
			last[key] = true
		}
	}
}

func (c *simCluster) log(topic string, partition int32) *simLog {
	return c.logs[stream.TopicPartition{Topic: topic, Partition: partition}]
}

// decide gives a transaction its outcome. Its records are seen, or never, once their markers are written.
func (c *simCluster) decide(t *simTxn, outcome simOutcome) {
	t.outcome = outcome
	c.live = slices.DeleteFunc(c.live, func(x *simTxn) bool { return x == t })
	c.ending = append(c.ending, t)
}

// mark writes one marker, or the offsets, of a transaction that is ending.
func (c *simCluster) mark(n int) {
	i := n % len(c.ending)
	t := c.ending[i]
	if k := len(t.logs); k > 0 && (len(t.offsets) == 0 || n/len(c.ending)%(k+1) > 0) {
		j := n % k
		l := t.logs[j]
		l.entries = append(l.entries, simEntry{txn: t, marker: true})
		l.open = slices.DeleteFunc(l.open, func(o simOpen) bool { return o.txn == t })
		t.logs = slices.Delete(t.logs, j, j+1)
		c.w.touched(l)
	} else if len(t.offsets) > 0 {
		if t.outcome == simCommitted {
			for _, tp := range sortedPartitions(t.offsets) {
				c.group.commit(tp, t.offsets[tp])
			}
		}
		t.offsets = nil
	}
	if len(t.logs) == 0 && len(t.offsets) == 0 {
		c.ending = slices.Delete(c.ending, i, i+1)
		if t.id.txn == t {
			t.id.txn = nil
		}
	}
}

func sortedPartitions(of map[stream.TopicPartition]int64) []stream.TopicPartition {
	tps := make([]stream.TopicPartition, 0, len(of))
	for tp := range of {
		tps = append(tps, tp)
	}
	slices.SortFunc(tps, func(a, b stream.TopicPartition) int { return int(a.Partition - b.Partition) })
	return tps
}

// expire aborts transactions that were open for too long, and shuts their producers out.
func (c *simCluster) expire() {
	for _, t := range slices.Clone(c.live) {
		if t.ends <= c.w.now {
			t.id.epoch++
			c.decide(t, simAborted)
			c.w.happened("transaction timed out")
		}
	}
}

// simTransactor is a transactional producer: stream.Transactor's part in the simulation.
type simTransactor struct {
	c       *simCluster
	name    string
	id      *simID
	epoch   int
	timeout time.Duration
	queue   []stream.Record
	err     error // of a record: the transaction can only be aborted
	open    bool
}

// transactor initialises transactions under an id.
func (c *simCluster) transactor(ctx context.Context, name string, timeout time.Duration) (*simTransactor, error) {
	if err := c.w.pause(ctx); err != nil {
		return nil, err
	}
	id := c.ids[name]
	if id == nil {
		id = &simID{}
		c.ids[name] = id
	}
	id.epoch++
	epoch := id.epoch
	if id.txn != nil && id.txn.outcome == simUndecided {
		c.decide(id.txn, simAborted)
		c.w.happened("transaction left open was aborted by its successor")
	}
	for id.txn != nil {
		if err := c.w.pause(ctx); err != nil {
			return nil, err
		}
	}
	return &simTransactor{c: c, name: name, id: id, epoch: epoch, timeout: timeout}, nil
}

func (t *simTransactor) fenced() error {
	if t.id.epoch != t.epoch {
		t.c.w.happened("producer fenced")
		return fmt.Errorf("%w: %s", stream.ErrFenced, t.name)
	}
	return nil
}

// txn is the open transaction at the coordinator; nil while the one before it ends.
func (t *simTransactor) txn() (*simTxn, error) {
	if err := t.fenced(); err != nil {
		return nil, err
	}
	switch {
	case t.id.txn == nil:
		t.id.txn = &simTxn{id: t.id, ends: t.c.w.now + t.timeout}
		t.c.live = append(t.c.live, t.id.txn)
	case t.id.txn.outcome != simUndecided:
		return nil, nil
	}
	return t.id.txn, nil
}

// Renew has nothing to do: a request whose answer is lost fails the session here.
func (t *simTransactor) Renew(context.Context) error { return nil }

func (t *simTransactor) Begin() error {
	t.err, t.open = nil, true
	return nil
}

func (t *simTransactor) Produce(ctx context.Context, records []stream.Record) error {
	for _, r := range records {
		r.Key, r.Value = slices.Clone(r.Key), slices.Clone(r.Value)
		t.queue = append(t.queue, r)
	}
	if t.err != nil {
		return t.err
	}
	return t.c.w.pause(ctx)
}

// deliver brings up to n records of the queue to their partitions.
func (t *simTransactor) deliver(n int) {
	for ; n > 0 && len(t.queue) > 0 && t.err == nil; n-- {
		txn, err := t.txn()
		if err == nil && txn == nil {
			return
		}
		if err == nil && t.c.w.fault(simRefusal) {
			err = errors.New("the record was not acknowledged in time")
		}
		if err != nil {
			t.err, t.queue = err, nil
			return
		}
		r := t.queue[0]
		t.queue = t.queue[1:]
		t.c.log(r.Topic, r.Partition).append(r, txn)
	}
}

func (t *simTransactor) Flush(ctx context.Context) error {
	for len(t.queue) > 0 && t.err == nil {
		t.deliver(1 + t.c.w.rand.IntN(8))
		if err := t.c.w.pause(ctx); err != nil {
			return err
		}
	}
	return t.err
}

func (t *simTransactor) SendOffsets(ctx context.Context, o stream.Offsets) error {
	for {
		if err := t.c.w.pause(ctx); err != nil {
			return err
		}
		txn, err := t.txn()
		if err != nil {
			return err
		}
		if txn == nil {
			continue
		}
		if err := t.c.group.refuses(o.Membership()); err != nil {
			return err
		}
		if txn.offsets == nil {
			txn.offsets = map[stream.TopicPartition]int64{}
		}
		for _, tp := range o.Partitions() {
			txn.offsets[tp], _ = o.Next(tp)
		}
		return t.c.w.pause(ctx)
	}
}

func (t *simTransactor) Commit(ctx context.Context) error {
	if err := t.Flush(ctx); err != nil {
		return err
	}
	return t.end(ctx, simCommitted)
}

func (t *simTransactor) Abort(ctx context.Context) error {
	t.queue, t.err = nil, nil
	if !t.open {
		return nil
	}
	return t.end(ctx, simAborted)
}

// end asks for an outcome, and waits until it stands. The question or its answer may be lost: then nobody knows.
func (t *simTransactor) end(ctx context.Context, outcome simOutcome) error {
	w := t.c.w
	if err := w.pause(ctx); err != nil {
		return err
	}
	if w.fault(simLostRequest) {
		return errors.New("the transaction's end was not answered in time")
	}
	if err := t.fenced(); err != nil {
		return err
	}
	if txn := t.id.txn; txn != nil {
		switch {
		case txn.outcome == simUndecided:
			t.c.decide(txn, outcome)
		case txn.outcome != outcome:
			return errors.New("the transaction has ended otherwise")
		}
	}
	if err := w.pause(ctx); err != nil {
		return err
	}
	if w.fault(simLostAnswer) {
		return errors.New("the transaction's end was not answered in time")
	}
	t.open = false
	return nil
}

func (t *simTransactor) Close() { t.queue = nil }

// simProducer is a producer without transactions.
type simProducer struct {
	c     *simCluster
	queue []stream.Record
	err   error
}

func (p *simProducer) Produce(ctx context.Context, records []stream.Record) error {
	if err := p.err; err != nil {
		return err
	}
	for _, r := range records {
		r.Key, r.Value = slices.Clone(r.Key), slices.Clone(r.Value)
		p.queue = append(p.queue, r)
	}
	return p.c.w.pause(ctx)
}

func (p *simProducer) deliver(n int) {
	for ; n > 0 && len(p.queue) > 0 && p.err == nil; n-- {
		if p.c.w.fault(simRefusal) {
			p.err, p.queue = errors.New("the record was not acknowledged in time"), nil
			return
		}
		r := p.queue[0]
		p.queue = p.queue[1:]
		l := p.c.log(r.Topic, r.Partition)
		l.append(r, nil)
		p.c.w.touched(l)
	}
}

// Flush may run beside Produce: it is about what was queued before it began.
func (p *simProducer) Flush(ctx context.Context) error {
	for left := len(p.queue); left > 0 && len(p.queue) > 0 && p.err == nil; {
		before := len(p.queue)
		p.deliver(1 + p.c.w.rand.IntN(8))
		left -= before - len(p.queue)
		if err := p.c.w.pause(ctx); err != nil {
			return err
		}
	}
	return p.err
}

// What registry and restore read.

func (c *simCluster) Partitions(context.Context, string) (int, error) { return 1, nil }
func (c *simCluster) Brokers() string                                 { return "simulated" }

func (c *simCluster) CreateTopic(context.Context, stream.TopicSpec) (bool, error) { return false, nil }

func (c *simCluster) TopicConfig(context.Context, string) (map[string]string, error) {
	return map[string]string{"cleanup.policy": "compact"}, nil
}

func (c *simCluster) Watermarks(ctx context.Context, topic string) ([]stream.Range, error) {
	if err := c.w.pause(ctx); err != nil {
		return nil, err
	}
	var out []stream.Range
	for p := int32(0); c.log(topic, p) != nil; p++ {
		out = append(out, stream.Range{Partition: p, To: int64(len(c.log(topic, p).entries))})
	}
	return out, nil
}

func (c *simCluster) EachRecord(ctx context.Context, topic string, ranges []stream.Range, do func(stream.Record) error) error {
	for _, r := range ranges {
		l := c.log(topic, r.Partition)
		for at := r.From; at < r.To; {
			var records []stream.Record
			if records, at = l.committed(at, min(r.To, l.stable()), 64); len(records) == 0 && at < r.To || c.w.rand.IntN(4) == 0 {
				if err := c.w.pause(ctx); err != nil {
					return err
				}
			}
			for _, rec := range records {
				if err := do(rec); err != nil {
					return err
				}
			}
		}
	}
	return c.w.pause(ctx)
}

func (c *simCluster) Transactor(ctx context.Context, id string, timeout time.Duration) (registry.RehearsedTransactor, error) {
	t, err := c.transactor(ctx, id, min(timeout, simTrainerTimeout))
	if err != nil {
		return nil, err
	}
	return t, nil
}

func (c *simCluster) Pause(ctx context.Context, d time.Duration) error {
	for until := c.w.now + 50*time.Millisecond; c.w.now < until; { // not d: the jitter in it is not the seed's
		if err := c.w.pause(ctx); err != nil {
			return err
		}
	}
	return nil
}

// simGroup is the consumer group at its coordinator: cooperative rebalancing, in which a partition goes to its next owner in a second
// round, when the one before has given it up.
type simGroup struct {
	c          *simCluster
	generation int
	joining    bool // a rebalance waits for every member to join
	members    []*simMember
	owner      []*simMember // by partition: who has it, or is giving it up
	target     []*simMember
	offsets    map[stream.TopicPartition]int64
	ids        int
}

// simMember is a member as the coordinator knows it, and what its client knows of itself.
type simMember struct {
	id      int
	removed bool
	joined  bool          // of the round that is being prepared
	beat    time.Duration // last sign of life
	client  int           // generation that the client knows
}

// simMembership is what goes with offsets.
type simMembership struct{ id, generation int }

func newSimGroup(c *simCluster, partitions int) simGroup {
	return simGroup{c: c, owner: make([]*simMember, partitions), target: make([]*simMember, partitions), offsets: map[stream.TopicPartition]int64{}}
}

func (g *simGroup) join() *simMember {
	g.ids++
	m := &simMember{id: g.ids, beat: g.c.w.now, client: -1}
	g.members = append(g.members, m)
	g.joining = true
	return m
}

// remove takes a member out: it left, or was silent for too long.
func (g *simGroup) remove(m *simMember) {
	if m.removed {
		return
	}
	m.removed = true
	g.members = slices.DeleteFunc(g.members, func(x *simMember) bool { return x == m })
	for p, o := range g.owner {
		if o == m {
			g.owner[p] = nil
		}
	}
	g.joining = true
}

func (g *simGroup) expire() {
	for _, m := range slices.Clone(g.members) {
		if g.c.w.now-m.beat > simSession {
			g.remove(m)
			g.c.w.happened("session expired")
		}
	}
	g.complete()
}

// rebalance begins a round.
func (g *simGroup) rebalance() {
	g.joining = true
	for _, m := range g.members {
		m.joined = false
	}
}

// complete makes a generation once every member has joined the round.
func (g *simGroup) complete() {
	if !g.joining || len(g.members) == 0 {
		return
	}
	for _, x := range g.members {
		if !x.joined {
			return
		}
	}
	g.joining = false
	g.generation++
	for p := range g.target {
		if t := g.target[p]; t == nil || t.removed || g.c.w.rand.IntN(3) == 0 {
			g.target[p] = g.members[g.c.w.rand.IntN(len(g.members))]
		}
	}
	for _, x := range g.members {
		x.joined = false
	}
}

// refuses tells why offsets cannot be taken from who sends them.
func (g *simGroup) refuses(membership any) error {
	m, ok := membership.(simMembership)
	known := ok && slices.ContainsFunc(g.members, func(x *simMember) bool { return x.id == m.id })
	if !known || m.generation != g.generation {
		g.c.w.happened("offsets refused")
		return fmt.Errorf("%w: %v, the group is at generation %d", stream.ErrNotMember, membership, g.generation)
	}
	return nil
}

func (g *simGroup) commit(tp stream.TopicPartition, next int64) {
	g.c.w.check.offsets(tp, g.offsets[tp], next)
	g.offsets[tp] = next
}

// unstable tells whether a transaction that has not ended holds offsets of a partition: the coordinator then says what is committed only later.
func (g *simGroup) unstable(tp stream.TopicPartition) bool {
	for _, list := range [][]*simTxn{g.c.live, g.c.ending} {
		for _, t := range list {
			if _, ok := t.offsets[tp]; ok {
				return true
			}
		}
	}
	return false
}

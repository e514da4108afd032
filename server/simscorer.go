package server

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

var errSimKilled = errors.New("the process was killed")

// simTask is a goroutine of the production code, as a coroutine: it runs until it waits for something, and goes on when the scheduler says.
type simTask struct {
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool
	ended bool // or to be ended: nothing waits any more
}

func (w *simWorld) task(body func()) *simTask {
	t := &simTask{}
	t.next, t.stop = iter.Pull(func(yield func(struct{}) bool) {
		t.yield = yield
		body()
	})
	w.tasks[t] = true
	return t
}

// resume lets a task run to its next wait.
func (w *simWorld) resume(t *simTask) {
	before := w.running
	w.running = t
	if _, ok := t.next(); !ok {
		t.ended = true
		delete(w.tasks, t)
	}
	w.running = before
}

// end ends a task where it waits: whatever it asks for from now on fails.
func (w *simWorld) end(t *simTask) {
	if t == nil || t.ended {
		return
	}
	before := w.running
	w.running, t.ended = t, true
	t.stop()
	delete(w.tasks, t)
	w.running = before
}

// pause is where the production code waits for a broker.
func (w *simWorld) pause(ctx context.Context) error {
	t := w.running
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if t == nil { // called by the scheduler itself
		return nil
	}
	if t.ended || !t.yield(struct{}{}) {
		t.ended = true
		return errSimKilled
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// simScorer is a process that serves: the production session, driven turn by turn.
type simScorer struct {
	w      *simWorld
	number int
	lives  int

	up, frozen bool
	wake       time.Duration // when it is started or thawed

	// Of one life:
	r        *runner
	follower *registry.RehearsedFollower
	models   int64 // next offset of the model topic
	ctx      context.Context
	cancel   context.CancelCauseFunc
	life     *simTask // sessions, one after the other
	follow   *simTask // a change that is being loaded; nil: none

	// Of one session:
	s         *session
	work      context.Context
	failed    error
	reh       *stream.Rehearsal
	member    *simMember
	left      func() bool // a revocation that is being acknowledged
	fetching  map[stream.TopicPartition]int64
	own       map[stream.TopicPartition]bool
	txn       *simTransactor
	producer  *simProducer
	reader    *simTask
	output    *simTask
	beside    *simTask
	reading   bool // the reader is within an event
	writing   bool // output is within a call
	due       time.Duration
	generated int64 // of the alias, at the last swap
}

// ended is a context that lets Group.Next look without waiting.
var simEnded = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

func (p *simScorer) start() {
	w := p.w
	p.up, p.frozen, p.lives = true, false, p.lives+1
	o := w.options
	o.Streams = slices.Clone(o.Streams)
	if w.static {
		o.Streams[0].InstanceID = fmt.Sprintf("scorer-%d", p.number)
	}
	s, err := New(Deps{Engine: w.engine, Log: w.log}, o)
	if err != nil {
		panic(err) // options of the simulation's own
	}
	p.r = s.streams[0]
	p.r.topics, p.r.outputs = w.cluster, 1
	p.r.member = fmt.Sprintf("%d", p.number)
	if !w.static {
		p.r.member = fmt.Sprintf("%d.%d", p.number, p.lives)
	}
	p.r.now = w.clock
	p.follower = w.registry.RehearseFollower(p.r.slot.ref)
	p.models, p.generated = 0, 0
	p.ctx, p.cancel = context.WithCancelCause(context.Background())
	p.life = w.task(p.live)
}

// kill ends the process where it stands.
func (p *simScorer) kill() {
	p.cancel(errSimKilled)
	for _, t := range []*simTask{p.reader, p.output, p.beside, p.follow, p.life} {
		p.w.end(t)
	}
	p.forget()
	p.life, p.follow, p.up, p.frozen = nil, nil, false, false
}

func (p *simScorer) forget() {
	p.s, p.reh, p.member, p.left, p.txn, p.producer, p.reader, p.output, p.beside = nil, nil, nil, nil, nil, nil, nil, nil, nil
	p.fetching, p.own, p.failed, p.reading, p.writing, p.due = nil, nil, nil, false, false, 0
}

// live is the runner's life: sessions, one after the other.
func (p *simScorer) live() {
	for p.w.until(p.ctx, func() bool { return p.r.slot.live.Load() != nil }) == nil {
		err := p.session()
		if p.ctx.Err() != nil || errors.Is(err, errSimKilled) {
			return
		}
		p.w.happened("session failed")
		if !errors.Is(err, stream.ErrNotMember) && !errors.Is(err, stream.ErrFenced) {
			p.w.say("scorer %d: %v", p.number, err)
		}
	}
}

// until waits for a condition.
func (w *simWorld) until(ctx context.Context, holds func() bool) error {
	for !holds() {
		if err := w.pause(ctx); err != nil {
			return err
		}
	}
	return nil
}

// session is runSession with turns in place of goroutines.
func (p *simScorer) session() error {
	w := p.w
	p.forget()
	p.member = w.cluster.group.join()
	p.fetching, p.own = map[stream.TopicPartition]int64{}, map[stream.TopicPartition]bool{}
	p.reh = stream.Rehearse(stream.GroupOptions{MaxBatch: w.options.MaxBatch, MaxInFlight: p.r.server.inFlight(), Group: "scorers", Start: "earliest"}, p, w.log)
	defer func() { p.forget() }()
	var sink stream.Sink
	if p.r.exact() {
		txn, err := w.cluster.transactor(p.ctx, p.r.transactionalID(), p.r.server.TransactionTimeout)
		if err != nil {
			p.leave()
			return err
		}
		p.txn = txn
		sink = p.reh.ExactlyOnce(txn, w.clock)
	} else {
		p.producer = &simProducer{c: w.cluster}
		sink = p.reh.AtLeastOnce(p.producer)
	}
	s := p.r.newSession(p.reh.Group(), sink)
	s.toScore = make(chan *parcel, 2) // a turn of decode may send two
	work, giveUp := context.WithCancelCause(p.ctx)
	defer giveUp(nil)
	p.work = work
	s.fail = func(err error) { p.failed = errors.Join(p.failed, err) }
	s.heard = func(ctx context.Context, done <-chan struct{}) error {
		return w.until(ctx, func() bool {
			select {
			case <-done:
				return true
			default:
				return false
			}
		})
	}
	s.beside.run = func(f func()) { p.beside = w.task(f) }
	s.beside.await = func(ctx context.Context, ended <-chan committed) (committed, error) {
		if err := w.until(ctx, func() bool { return len(ended) > 0 }); err != nil {
			return committed{}, err
		}
		return <-ended, nil
	}
	p.s = s
	p.reader = w.task(func() { p.read(work) })
	p.output = w.task(func() { p.write(work) })
	if err := w.until(p.ctx, func() bool { return p.failed != nil }); err != nil {
		return err
	}
	failed := p.failed
	giveUp(failed)
	for _, t := range []*simTask{p.reader, p.output, p.beside} {
		w.end(t)
	}
	p.reader, p.output, p.beside = nil, nil, nil
	_ = sink.Abort(p.ctx)
	_ = sink.Close(p.ctx)
	p.leave()
	return failed
}

func (p *simScorer) leave() {
	if !p.w.static {
		p.w.cluster.group.remove(p.member)
	}
}

// read is session.read.
func (p *simScorer) read(ctx context.Context) {
	for {
		e, err := p.s.group.Next(simEnded)
		if err == nil {
			p.reading = true
			err = p.s.handOn(ctx, ctx, e)
			p.reading = false
			if err != nil {
				p.s.fail(err)
				return
			}
		}
		if p.w.pause(ctx) != nil {
			return
		}
	}
}

// write is session.runOutput.
func (p *simScorer) write(ctx context.Context) {
	for {
		p.writing = true
		var err error
		select {
		case parcel := <-p.s.toOutput:
			err = p.s.deliver(ctx, parcel)
		default:
			select {
			case c := <-p.s.beside.ended:
				err = p.s.besideEnded(ctx, c)
			default:
			}
		}
		var wait time.Duration
		if err == nil {
			wait, err = p.s.commitDue(ctx)
		}
		if err != nil {
			p.s.fail(err)
			return
		}
		p.writing, p.due = false, 0
		if wait > 0 {
			p.due = p.w.now + wait
		}
		if p.w.pause(ctx) != nil {
			return
		}
	}
}

// Membership is what goes with offsets: the member and generation, as the client knows them.
func (p *simScorer) Membership() any {
	if p.member == nil {
		return nil
	}
	return simMembership{p.member.id, p.member.client}
}

// Commit is at-least-once's commit of offsets. The member and generation are those of the call, as in a request that is on its way.
func (p *simScorer) Commit(ctx context.Context, o stream.Offsets) error {
	membership := p.Membership()
	if err := p.w.pause(ctx); err != nil {
		return err
	}
	g := &p.w.cluster.group
	if err := g.refuses(membership); err != nil {
		return err
	}
	for _, tp := range o.Partitions() {
		n, _ := o.Next(tp)
		g.commit(tp, n)
	}
	return p.w.pause(ctx)
}

// The turns of one scorer. Each does one thing if there is one to be done, and tells.

func (p *simScorer) turn(n int) bool {
	if !p.up || p.frozen {
		return false
	}
	switch n % 10 {
	case 0:
		p.w.resume(p.life)
		return true
	case 1, 2:
		return p.turnModels()
	}
	if p.s == nil {
		return false
	}
	s := p.s
	switch n % 10 {
	case 3:
		if !p.reading && (p.reh.Idle() || len(s.toDecode) == cap(s.toDecode)) {
			return false
		}
		return p.run(p.reader)
	case 4:
		if len(s.toDecode) == 0 || len(s.toScore) > 0 {
			return false
		}
		if err := s.decodeTurn(p.work, <-s.toDecode); err != nil {
			s.fail(err)
		}
		return true
	case 5:
		if len(s.toScore) == 0 || len(s.toOutput) > 0 {
			return false
		}
		if err := s.scoreTurn(p.work, <-s.toScore); err != nil {
			s.fail(err)
		}
		return true
	case 6:
		if !p.writing && len(s.toOutput) == 0 && len(s.beside.ended) == 0 && (p.due == 0 || p.w.now < p.due) {
			return false
		}
		return p.run(p.output)
	case 7:
		if p.beside != nil && !p.beside.ended {
			p.w.resume(p.beside)
			return true
		}
		if p.txn != nil && len(p.txn.queue) > 0 {
			p.txn.deliver(1 + p.w.rand.IntN(4))
			return true
		}
		if p.producer != nil && len(p.producer.queue) > 0 {
			p.producer.deliver(1 + p.w.rand.IntN(4))
			return true
		}
		return false
	}
	return p.turnGroup()
}

func (p *simScorer) run(t *simTask) bool {
	if t == nil || t.ended {
		return false
	}
	p.w.resume(t)
	return true
}

// turnModels reads the model topic, or goes on loading what it says.
func (p *simScorer) turnModels() bool {
	w := p.w
	if p.follow != nil {
		w.resume(p.follow)
		if p.follow.ended {
			p.follow = nil
		}
		return true
	}
	l := w.cluster.log(simModels, 0)
	if p.models < l.stable() {
		records, next := l.committed(p.models, l.stable(), 1+w.rand.IntN(8))
		p.models = next
		p.follower.Read(&stream.Batch{Records: records, AtEnd: next == int64(len(l.entries))}, int64(len(l.entries)))
		return true
	}
	if !p.follower.Pending() {
		return false
	}
	ctx := p.ctx
	p.follow = w.task(func() {
		c, ok, err := p.follower.Look(ctx)
		if err != nil || !ok {
			return
		}
		p.r.slot.post(c)
		c = <-p.r.slot.mail
		before := p.r.slot.live.Load()
		p.r.slot.take(w.engine, c, func() bool {
			_ = w.pause(ctx)
			return ctx.Err() != nil || c.Overtaken()
		})
		if now := p.r.slot.live.Load(); now != before {
			w.happened("model swapped")
			w.check.swapped(p, now, c.Alias.Generation)
		}
	})
	return true
}

// turnGroup is what the consumer below the group does.
func (p *simScorer) turnGroup() bool {
	w, g, m := p.w, &p.w.cluster.group, p.member
	r := p.reh
	if m.removed {
		// The next poll tells that the group has gone on: what was ours is another's. It joins again.
		var tps []stream.TopicPartition
		for tp := range p.own {
			tps = append(tps, tp)
		}
		if p.left != nil {
			if !p.left() {
				return false // the callback of a revocation has not returned
			}
			p.left = nil
		}
		clear(p.own)
		clear(p.fetching)
		p.left = r.Withdraw(tps, true)
		p.left()
		p.left = nil
		p.member = g.join()
		w.happened("partitions lost")
		return true
	}
	m.beat = w.now
	if p.left != nil {
		if !p.left() {
			return false
		}
		p.left = nil
		for part, o := range g.owner {
			if o == m && !p.own[stream.TopicPartition{Topic: simInput, Partition: int32(part)}] {
				g.owner[part] = nil
			}
		}
		g.rebalance()
		return true
	}
	if g.joining && !m.joined {
		m.joined = true
		return true
	}
	if !g.joining && m.client != g.generation {
		p.sync()
		return true
	}
	if tps := r.Rewound(); tps != nil {
		for _, tp := range tps {
			delete(p.fetching, tp)
		}
		w.happened("rewind")
		return true
	}
	if fresh := r.Unplaced(); len(fresh) > 0 && !slices.ContainsFunc(fresh, g.unstable) {
		low, high, committed := map[stream.TopicPartition]int64{}, map[stream.TopicPartition]int64{}, map[stream.TopicPartition]int64{}
		for _, tp := range fresh {
			high[tp] = int64(len(w.cluster.logs[tp].entries))
			low[tp] = 0
			if n, ok := g.offsets[tp]; ok {
				committed[tp] = n
			}
		}
		r.Place(committed, low, high)
		return true
	}
	if started := r.Started(); len(started) > 0 {
		for _, a := range started {
			p.fetching[a.TopicPartition] = a.Offset
		}
		return true
	}
	return p.fetch()
}

// sync takes what the generation gives, and gives up what it does not.
func (p *simScorer) sync() {
	g, m := &p.w.cluster.group, p.member
	m.client = g.generation
	var give, take []stream.TopicPartition
	for part, t := range g.target {
		tp := stream.TopicPartition{Topic: simInput, Partition: int32(part)}
		switch {
		case t == m && !p.own[tp] && g.owner[part] == nil:
			g.owner[part] = m
			p.own[tp] = true
			give = append(give, tp)
		case t != m && p.own[tp]:
			delete(p.own, tp)
			delete(p.fetching, tp)
			take = append(take, tp)
		}
	}
	if len(give) > 0 {
		p.reh.Give(give)
		p.w.happened("partitions assigned")
	}
	if len(take) > 0 {
		p.left = p.reh.Withdraw(take, false)
		p.w.happened("partitions revoked")
	}
}

func (p *simScorer) fetch() bool {
	w := p.w
	if p.reh.Full() {
		return false
	}
	parts := len(w.cluster.group.owner)
	first := w.rand.IntN(parts)
	for i := range parts {
		tp := stream.TopicPartition{Topic: simInput, Partition: int32((first + i) % parts)}
		at, ok := p.fetching[tp]
		l := w.cluster.logs[tp]
		if !ok || at >= l.stable() {
			continue
		}
		records, next := l.committed(at, l.stable(), 1+w.rand.IntN(2*w.options.MaxBatch))
		p.fetching[tp] = next
		ends := map[stream.TopicPartition]int64{}
		if next == l.stable() {
			ends[tp] = next
		}
		p.reh.Fetched(records, ends)
		p.reh.Behind(tp, l.stable())
		return true
	}
	return false
}

// state is a line for a report.
func (p *simScorer) state() string {
	g := &p.w.cluster.group
	s := fmt.Sprintf("scorer %d: up %v, frozen %v, failed %v", p.number, p.up, p.frozen, p.failed)
	if p.s == nil {
		return s + ", no session"
	}
	return s + fmt.Sprintf("; member %+v; group: generation %d, joining %v, %d members; own %v, fetching %v, revoking %v; waiting to be decoded %d, scored %d, output %d; reading %v, writing %v, undone %d, in flight %d",
		*p.member, g.generation, g.joining, len(g.members), p.own, p.fetching, p.left != nil, len(p.s.toDecode), len(p.s.toScore), len(p.s.toOutput), p.reading, p.writing, p.s.undone, p.s.inFlight.Load())
}

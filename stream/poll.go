package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

const (
	readyMax    = 2               // full batches that wait for the caller
	resolveTime = 5 * time.Second // one try to find out where new partitions begin
	refusals    = 5               // fatal errors within refusalSpan after which the group gives up
	refusalSpan = 2 * time.Minute
)

// poller is the goroutine that owns a Group's consumer.
//
// On an assignment it answers librdkafka at once with an empty one, and gives the consumer the real partitions when the caller has
// acknowledged: so nothing is fetched before, no queue has to be emptied after a seek, and polling never stops meanwhile. A
// revocation waits inside librdkafka's callback: the rebalance cannot go on before the caller has drained anyway.
type poller struct {
	g     *Group
	k     *kafka.Consumer
	in    *intake
	names map[string]*string

	fresh  []TopicPartition // assigned by the group; where they begin is not known yet
	reset  bool             // a position was out of range
	full   time.Time        // since when there has been no room; zero: there is
	paused bool
	fatal  error
	fatals []time.Time
	said   map[string]time.Time
	census census
}

func (p *poller) open() error {
	o := &p.g.o
	role := map[string]any{
		"group.id":                      o.Group,
		"partition.assignment.strategy": "cooperative-sticky",
		"statistics.interval.ms":        1000, // for lag
	}
	if o.InstanceID != "" {
		role["group.instance.id"] = o.InstanceID
	}
	if o.Member != "" {
		id := p.g.c.o.Properties["client.id"]
		if id == "" {
			id = clientID
		}
		role["client.id"] = id + "/" + o.Member
	}
	k, err := p.g.c.consumer(role, "500", groupDefaults)
	if err != nil {
		return err
	}
	if err := k.SubscribeTopics(o.Topics, p.rebalance); err != nil {
		k.Close()
		return p.g.c.adminErr("the subscription failed", fmt.Sprintf("group %s, topics %v", o.Group, o.Topics), err)
	}
	p.k, p.in = k, newIntake(k, groupSlack)
	p.census = census{left: p.census.left}
	p.census.after(o.censusAfter)
	p.g.mu.Lock()
	p.g.k, p.g.in = k, p.in
	p.g.mu.Unlock()
	return nil
}

func (p *poller) run() {
	g := p.g
	defer close(g.done)
	p.said = map[string]time.Time{}
	for g.ctx.Err() == nil {
		if p.fatal != nil {
			p.reopen()
			continue
		}
		wait := p.settle()
		if p.room() {
			p.poll(wait)
			continue
		}
		// Full: the caller is busy. First only wait, then pause and poll on.
		if !p.paused && time.Since(p.full) > g.o.PauseAfter {
			p.pauseAll(true)
		}
		if p.paused {
			p.poll(0)
		}
		pauseOr(g.ctx, g.wake, 50*time.Millisecond)
	}
}

func pauseOr(ctx context.Context, wake <-chan struct{}, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-wake:
	case <-t.C:
	case <-ctx.Done():
	}
}

// settle does what rebalances have left to do, and says how long the next poll may wait, in milliseconds.
func (p *poller) settle() int {
	g := p.g
	p.rewind()
	p.count()
	if len(p.fresh) > 0 {
		p.resolve()
	}
	g.mu.Lock()
	acked := g.assign
	g.assign = nil
	waiting := g.awaiting != nil && !p.in.wakes() || len(p.fresh) > 0
	g.mu.Unlock()
	if len(acked) > 0 {
		p.start(acked)
	}
	if waiting {
		return 5 // the acknowledgement cannot interrupt the Go client's poll
	}
	return 100
}

// room tells whether another record may be taken.
func (p *poller) room() bool {
	g := p.g
	g.mu.Lock()
	full := len(g.ready) >= readyMax
	g.mu.Unlock()
	if full {
		if p.full.IsZero() {
			p.full = time.Now()
		}
		return false
	}
	p.full = time.Time{}
	if p.paused {
		p.pauseAll(false)
	}
	return true
}

// poll takes what is there, up to a full batch; where nothing is, it waits.
func (p *poller) poll(wait int) {
	g := p.g
	if p.reset {
		wait = 0
	}
	g.mu.Lock()
	room := g.o.MaxBatch
	if g.cur != nil {
		room -= len(g.cur.Records)
	}
	g.mu.Unlock()
	h := p.in.take(room, wait)
	if h.empty() {
		if p.reset {
			p.reset = false
			p.outOfRange()
		}
		return
	}
	at := 0
	for _, m := range h.marks {
		p.merge(h, at, m.at)
		at = m.at
		p.take(m.event)
	}
	p.merge(h, at, len(h.records))
}

// take deals with an event that is not a record.
func (p *poller) take(e kafka.Event) {
	switch e := e.(type) {
	case *kafka.Message:
		p.say("a record could not be read", e.TopicPartition.Error)
	case kafka.PartitionEOF:
		p.atEnd(TopicPartition{*e.Topic, e.Partition}, int64(e.Offset))
	case *kafka.Stats:
		p.stats(e.String())
	case kafka.Error:
		p.failed(e)
	}
}

// atEnd: everything of tp below offset has been fetched.
func (p *poller) atEnd(tp TopicPartition, offset int64) {
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	if w := p.g.parts[tp]; w != nil && w.started {
		w.pos = max(w.pos, offset)
		w.end = w.pos
		w.high = max(w.high, w.end)
	}
}

// merge moves some of what was taken to where Next finds it.
func (p *poller) merge(h *haul, from, to int) {
	if from == to {
		return
	}
	g := p.g
	g.mu.Lock()
	var w *owned
	var at TopicPartition
	var holds *Batch
	for i := from; i < to; i++ {
		r := &h.records[i]
		if i == from || r.Partition != at.Partition || r.Topic != at.Topic {
			at = TopicPartition{r.Topic, r.Partition}
			w = g.parts[at]
		}
		if w == nil || !w.started || r.Offset < w.pos {
			continue // no longer ours, or fetched twice around a pause
		}
		if g.cur == nil {
			g.cur = newBatch()
		}
		if holds != g.cur {
			g.cur.hold(h)
			holds = g.cur
		}
		g.cur.Records = append(g.cur.Records, *r)
		w.pos = r.Offset + 1
		w.pending++
		if len(g.cur.Records) >= g.o.MaxBatch {
			g.ready, g.cur = append(g.ready, g.cur), nil
		}
	}
	g.notify()
	g.mu.Unlock()
}

// rebalance is librdkafka's callback; it runs inside Poll, or inside Close once the poller has ended.
func (p *poller) rebalance(k *kafka.Consumer, ev kafka.Event) error {
	g := p.g
	g.mu.Lock()
	current := g.k == k
	g.mu.Unlock()
	if !current { // a consumer that was given up, on its way out
		return nil
	}
	switch e := ev.(type) {
	case kafka.AssignedPartitions:
		if err := k.IncrementalAssign([]kafka.TopicPartition{}); err != nil {
			p.say("the assignment could not be answered", err)
		}
		p.assigned(plain(e.Partitions))
	case kafka.RevokedPartitions:
		p.revoke(k, plain(e.Partitions), k.AssignmentLost())
	}
	return nil
}

func plain(partitions []kafka.TopicPartition) []TopicPartition {
	tps := make([]TopicPartition, 0, len(partitions))
	for _, tp := range partitions {
		tps = append(tps, TopicPartition{*tp.Topic, tp.Partition})
	}
	return tps
}

// assigned takes partitions that the group gives.
func (p *poller) assigned(tps []TopicPartition) {
	g := p.g
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inGroup = true
	for _, tp := range tps {
		g.parts[tp] = &owned{from: -1}
		p.fresh = append(p.fresh, tp)
	}
}

func (p *poller) revoke(k *kafka.Consumer, tps []TopicPartition, lost bool) {
	g := p.g
	if acked := p.withdraw(tps, lost); acked != nil {
		select {
		case <-acked:
		case <-g.ctx.Done():
		}
		g.mu.Lock()
		p.forget(tps)
		g.mu.Unlock()
	}
	p.unassign(k, tps)
}

// withdraw takes partitions from the caller, and forgets them. Where it returns a channel, they are to be forgotten once that is closed:
// the caller may still commit what it has of them.
func (p *poller) withdraw(tps []TopicPartition, lost bool) (acked chan struct{}) {
	g := p.g
	sortTPs(tps)
	g.mu.Lock()
	defer g.mu.Unlock()
	told := p.takeAway(tps)
	if lost {
		g.inGroup = false
	}
	if len(told) > 0 && !g.closing {
		if lost {
			g.events = append(g.events, &Lost{Partitions: told})
		} else {
			acked = make(chan struct{})
			g.acked = acked
			g.events = append(g.events, &Revoked{told})
		}
		g.notify()
	}
	if acked == nil {
		p.forget(tps)
	}
	return acked
}

// unassign gives up those of tps that the consumer has: it waits for exactly these before a rebalance or its close can go on, and
// refuses the whole list where one is not its own.
func (p *poller) unassign(k *kafka.Consumer, tps []TopicPartition) {
	has, err := k.Assignment()
	if err == nil {
		err = k.IncrementalUnassign(slices.DeleteFunc(has, func(tp kafka.TopicPartition) bool {
			return !slices.Contains(tps, TopicPartition{*tp.Topic, tp.Partition})
		}))
	}
	if err != nil {
		p.say("partitions could not be given up", err)
	}
}

// takeAway removes what the caller has not seen of tps: records, and assignments. It returns those that the caller knows. Under mu.
func (p *poller) takeAway(tps []TopicPartition) (told []TopicPartition) {
	g := p.g
	gone := make(map[TopicPartition]bool, len(tps))
	for _, tp := range tps {
		gone[tp] = true
		if w := g.parts[tp]; w != nil {
			if w.told {
				told = append(told, tp)
			}
			w.started = false // merge drops what still comes
			// What was fetched and is dropped here counts as unread, or Offsets would take it for read.
			w.pos, w.pending = w.handed, 0
		}
	}
	p.fresh = slices.DeleteFunc(p.fresh, func(tp TopicPartition) bool { return gone[tp] })
	g.assign = slices.DeleteFunc(g.assign, func(x Position) bool { return gone[x.TopicPartition] })
	g.events = slices.DeleteFunc(g.events, func(e Event) bool {
		a, ok := e.(*Assigned)
		if ok {
			a.Partitions = slices.DeleteFunc(a.Partitions, func(x Position) bool { return gone[x.TopicPartition] })
		}
		return ok && len(a.Partitions) == 0
	})
	drop := func(b *Batch) {
		b.Records = slices.DeleteFunc(b.Records, func(r Record) bool { return gone[TopicPartition{r.Topic, r.Partition}] })
	}
	for _, b := range g.ready {
		drop(b)
	}
	g.ready = slices.DeleteFunc(g.ready, func(b *Batch) bool {
		if len(b.Records) == 0 {
			b.Release()
			return true
		}
		return false
	})
	if g.cur != nil {
		if drop(g.cur); len(g.cur.Records) == 0 {
			g.cur.Release()
			g.cur = nil
		}
	}
	return told
}

func (p *poller) forget(tps []TopicPartition) {
	for _, tp := range tps {
		delete(p.g.parts, tp)
	}
}

func (p *poller) at(tps []TopicPartition) []kafka.TopicPartition {
	out := make([]kafka.TopicPartition, 0, len(tps))
	for _, tp := range tps {
		out = append(out, kafka.TopicPartition{Topic: intern(p.names, tp.Topic), Partition: tp.Partition})
	}
	return out
}

// resolve finds out where the fresh partitions begin, and tells the caller.
func (p *poller) resolve() {
	g := p.g
	ctx, cancel := context.WithTimeout(g.ctx, resolveTime)
	defer cancel()
	committed, err := g.c.committed(ctx, p.k, g.o.Group, p.at(p.fresh))
	var low, high map[TopicPartition]int64
	if err == nil {
		low, high, err = g.c.lowHigh(ctx, p.fresh, kafka.IsolationLevelReadUncommitted)
	}
	if err != nil {
		p.say("where new partitions begin is not known yet", err)
		return
	}
	p.place(committed, low, high)
}

// place tells the caller of the fresh partitions.
func (p *poller) place(committed, low, high map[TopicPartition]int64) {
	g := p.g
	a := &Assigned{}
	sortTPs(p.fresh)
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, tp := range p.fresh {
		w := g.parts[tp]
		if w == nil {
			continue
		}
		pos := Position{TopicPartition: tp, Committed: -1, Low: low[tp], High: high[tp]}
		at, ok := committed[tp]
		if ok {
			pos.Committed = at
		}
		if w.from >= 0 {
			at, ok = w.from, true
		}
		switch {
		case !ok && g.o.Start == "latest" && int(tp.Partition) < g.known[tp.Topic]:
			pos.Offset = pos.High
		case !ok:
			pos.Offset = pos.Low
		case at > pos.High:
			pos.Offset, pos.Recreated = pos.Low, true
			g.c.log.Warn("the position is beyond the end: the topic was likely recreated, reading from its beginning",
				"topic", tp.Topic, "partition", tp.Partition, "position", at, "end", pos.High, "goes_on_at", pos.Low)
		case at < pos.Low:
			pos.Offset, pos.Lost = pos.Low, pos.Low-at
			g.c.log.Warn("retention deleted records before they were read",
				"topic", tp.Topic, "partition", tp.Partition, "lost", pos.Lost, "goes_on_at", pos.Low)
		default:
			pos.Offset = at
		}
		w.end, w.high = pos.High, pos.High
		w.pos = pos.Offset
		a.Partitions = append(a.Partitions, pos)
	}
	p.fresh = nil
	if len(a.Partitions) > 0 {
		g.events = append(g.events, a)
		g.notify()
	}
}

// mark notes that those of the acknowledged partitions which are still ours are being fetched, and returns them.
func (p *poller) mark(acked []Position) []Position {
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	return slices.DeleteFunc(acked, func(a Position) bool {
		w := p.g.parts[a.TopicPartition]
		if w == nil || !w.live || w.started {
			return true
		}
		w.started = true
		return false
	})
}

// start fetches partitions that the caller has acknowledged.
func (p *poller) start(acked []Position) {
	g := p.g
	var at, lower []kafka.TopicPartition
	var tps []TopicPartition
	for _, a := range p.mark(acked) {
		k := kafka.TopicPartition{Topic: intern(p.names, a.Topic), Partition: a.Partition, Offset: kafka.Offset(a.Offset)}
		at = append(at, k)
		tps = append(tps, a.TopicPartition)
		if a.Recreated {
			lower = append(lower, kafka.TopicPartition{Topic: k.Topic, Partition: k.Partition, Offset: kafka.Offset(a.Low)})
		}
	}
	if len(at) == 0 {
		return
	}
	p.in.lead(at)
	if err := p.k.IncrementalAssign(at); err != nil {
		p.fatal = fmt.Errorf("partitions could not be assigned: %w", err)
		return
	}
	if p.paused {
		if err := p.k.Pause(p.at(tps)); err != nil {
			p.say("partitions could not be paused", err)
		}
	}
	if len(lower) > 0 { // or every restart would find the old, higher offset again
		k := p.k
		g.mu.Lock()
		if g.closing {
			g.mu.Unlock()
			return
		}
		g.commits.Add(1)
		g.mu.Unlock()
		go func() {
			defer g.commits.Done()
			if _, err := k.CommitOffsets(lower); err != nil {
				g.c.log.Warn("the lower offset of a recreated topic was not committed", "group", g.o.Group, "err", g.c.scrub(err.Error()))
			}
		}()
	}
}

func (p *poller) pauseAll(pause bool) {
	p.g.mu.Lock()
	var tps []TopicPartition
	for tp, w := range p.g.parts {
		if w.started {
			tps = append(tps, tp)
		}
	}
	p.g.mu.Unlock()
	call := p.k.Resume
	if pause {
		call = p.k.Pause
	}
	if err := call(p.at(tps)); err != nil {
		p.say("partitions could not be paused or resumed", err)
	}
	p.paused = pause
}

// outOfRange: partitions whose position is gone are taken from the caller and assigned anew, at the oldest kept record.
func (p *poller) outOfRange() {
	g := p.g
	var tps []TopicPartition
	g.mu.Lock()
	for tp, w := range g.parts {
		if w.started {
			tps = append(tps, tp)
		}
	}
	g.mu.Unlock()
	sortTPs(tps)
	ctx, cancel := context.WithTimeout(g.ctx, resolveTime)
	defer cancel()
	low, high, err := g.c.lowHigh(ctx, tps, kafka.IsolationLevelReadUncommitted)
	if err != nil {
		p.reset = true
		p.say("a position is out of range, and the broker does not say what it holds", err)
		pause(g.ctx, 100*time.Millisecond)
		return
	}
	g.mu.Lock()
	tps = slices.DeleteFunc(tps, func(tp TopicPartition) bool {
		w := g.parts[tp]
		return w == nil || w.pos >= low[tp] && w.pos <= high[tp]
	})
	unread := slices.ContainsFunc(tps, func(tp TopicPartition) bool { return g.parts[tp].pending > 0 })
	if len(tps) == 0 || unread {
		g.mu.Unlock()
		if unread { // fetched before retention came: the caller gets these first
			p.reset = true
			pause(g.ctx, 10*time.Millisecond)
		} else { // in range after all: a leader that lags after an election
			pause(g.ctx, 100*time.Millisecond)
			p.again()
		}
		return
	}
	told := p.takeAway(tps)
	for _, tp := range tps {
		g.parts[tp] = &owned{from: g.parts[tp].pos}
	}
	p.fresh = append(p.fresh, tps...)
	if len(told) > 0 {
		g.events = append(g.events, &Lost{Partitions: told})
		g.notify()
	}
	g.mu.Unlock()
	p.unassign(p.k, tps)
}

// again starts what is being fetched anew, where it is: after an error librdkafka leaves a partition standing.
func (p *poller) again() {
	g := p.g
	var at []kafka.TopicPartition
	var tps []TopicPartition
	g.mu.Lock()
	for tp, w := range g.parts {
		if w.started {
			at = append(at, kafka.TopicPartition{Topic: intern(p.names, tp.Topic), Partition: tp.Partition, Offset: kafka.Offset(w.pos)})
			tps = append(tps, tp)
		}
	}
	g.mu.Unlock()
	p.unassign(p.k, tps)
	p.in.lead(at)
	if err := p.k.IncrementalAssign(at); err != nil {
		p.fatal = fmt.Errorf("partitions could not be assigned: %w", err)
	}
}

func (p *poller) failed(e kafka.Error) {
	switch e.Code() {
	case kafka.ErrAutoOffsetReset, kafka.ErrOffsetOutOfRange:
		p.reset = true
		return
	case kafka.ErrMaxPollExceeded:
		p.g.mu.Lock()
		p.g.inGroup = false
		p.g.mu.Unlock()
	case kafka.ErrAllBrokersDown, kafka.ErrTransport, kafka.ErrResolve:
		return // librdkafka tries on, and its log lines, folded, have said so
	}
	if e.IsFatal() {
		p.fatal = e
		return
	}
	err := p.g.c.lacks(e, "topic", strings.Join(p.g.o.Topics, " --topic "), "READ")
	p.say("consumer", p.g.c.lacks(err, "group", p.g.o.Group, "READ"))
}

// say logs a fault that is being dealt with, the same one at most every foldFor.
func (p *poller) say(what string, err error) {
	text := oneLine(p.g.c.scrub(errText(err)))
	key := what + digits.ReplaceAllString(text, "#")
	if time.Since(p.said[key]) < foldFor {
		return
	}
	if p.said == nil || len(p.said) > 1000 {
		p.said = map[string]time.Time{}
	}
	p.said[key] = time.Now()
	p.g.c.log.Warn(what, "group", p.g.o.Group, "err", text)
}

// reopen replaces a consumer that librdkafka has declared dead (a static member fenced after a broker restart is one), with
// back-off; repeated refusal within a short time ends the group.
func (p *poller) reopen() {
	g := p.g
	cause := p.fatal
	p.fatal, p.reset, p.paused = nil, false, false
	p.fatals = append(slices.DeleteFunc(p.fatals, func(t time.Time) bool { return time.Since(t) > refusalSpan }), time.Now())
	g.mu.Lock()
	var all []TopicPartition
	for tp := range g.parts {
		all = append(all, tp)
	}
	sortTPs(all)
	told := p.takeAway(all)
	p.forget(all)
	g.inGroup = false
	g.k, g.in = nil, nil
	if len(told) > 0 {
		g.events = append(g.events, &Lost{Partitions: told})
	}
	g.notify()
	g.mu.Unlock()
	g.c.log.Warn("the consumer was refused; making another", "group", g.o.Group, "err", oneLine(g.c.scrub(cause.Error())), "times", len(p.fatals))
	if p.census.stop != nil {
		p.census.stop()
	}
	g.commits.Wait()
	// librdkafka refuses to close a consumer after a fatal error, and the Go client then polls it for ever: it is left behind, which
	// refusals keeps rare.
	p.in.close()
	_ = closeConsumer(p.k, 200*time.Millisecond)
	for len(p.fatals) <= refusals {
		if !pause(g.ctx, time.Second<<min(len(p.fatals)-1, 4)) {
			return
		}
		err := p.open()
		if err == nil {
			return
		}
		cause = err
		p.fatals = append(p.fatals, time.Now())
	}
	g.mu.Lock()
	g.err = errors.Join(&Error{What: "the group refuses this member again and again", Where: "group " + g.o.Group + ": " + oneLine(g.c.scrub(cause.Error())),
		Next: "check that no other process uses the same instance id", Err: cause})
	g.notify()
	g.mu.Unlock()
	<-g.ctx.Done()
}

// stats takes ends from librdkafka's statistics: what a caught-up partition would tell by an end-of-partition event, for one that
// is behind.
func (p *poller) stats(text string) {
	var s struct {
		Topics map[string]struct {
			Partitions map[string]struct {
				Partition int32 `json:"partition"`
				High      int64 `json:"hi_offset"`
				Stable    int64 `json:"ls_offset"`
			} `json:"partitions"`
		} `json:"topics"`
	}
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return
	}
	g := p.g
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, t := range s.Topics {
		for _, part := range t.Partitions {
			if w := g.parts[TopicPartition{name, part.Partition}]; w != nil && w.started {
				if part.Stable >= 0 {
					w.end = max(part.Stable, w.pos)
				}
				if part.High >= 0 {
					w.high = max(part.High, w.end)
				}
			}
		}
	}
}

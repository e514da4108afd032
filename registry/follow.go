package registry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lapwing-stream/lapwing/stream"
)

// missingTopicPoll is how often a follower looks for a topic that is not there, or a broker that went away.
const missingTopicPoll = time.Second

// Change is news about one followed reference.
type Change struct {
	Ref      Ref
	Manifest Manifest
	Alias    Alias  // zero for a pinned version
	Data     []byte // not to be changed: the follower may give it again
	Err      error  // the reference means something that cannot be loaded; Data is nil
	Gone     bool   // the alias or version was deleted

	token    uint64
	follower *Follower
}

// Overtaken says that a newer change for the same reference is known by now: a load begun for this one is
// to be dropped.
func (c Change) Overtaken() bool {
	c.follower.mu.Lock()
	defer c.follower.mu.Unlock()
	return c.follower.refs[c.Ref].token != c.token
}

// FollowState is how far a follower has come.
type FollowState struct {
	CaughtUp bool   // the topic was read to its end at least once
	Problem  string // "" or why nothing is being read, such as a missing topic
	Missing  []Ref  // followed references that mean no model (only once caught up)
	Offset   int64  // next offset of the model topic to be read
}

// Follower reads the model topic for as long as its context lives. It decides only at the topic's end, never
// in the middle, so that compaction's order of records and old versions do not show. The end is where the topic ended
// by the answer that brought the last record: one that stays quiet may never come, if somebody writes all the time.
type Follower struct {
	registry *Registry
	want     []Ref
	wake     chan struct{} // capacity 1: something is pending, or the follower has ended

	mu    sync.Mutex
	refs  map[Ref]*following
	index *index
	state FollowState
	ended error
	kept  kept
}

type following struct {
	token   uint64 // grows with each decision
	known   string // what was decided last: version and digest, or the error
	pending bool
	change  Change
	at      []location
}

// Follow begins to read. It ends when ctx does; the goroutine is then gone once Next has returned its error.
// A missing topic is waited for.
func (r *Registry) Follow(ctx context.Context, want ...Ref) *Follower {
	f := r.follower(want)
	go f.run(ctx)
	return f
}

func (r *Registry) follower(want []Ref) *Follower {
	f := &Follower{registry: r, want: want, wake: make(chan struct{}, 1), refs: map[Ref]*following{}, kept: kept{most: keptEach * len(want)}}
	for _, ref := range want {
		f.refs[ref] = &following{}
	}
	return f
}

// State is answered from kept state, without asking the broker.
func (f *Follower) State() FollowState {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.state
	if f.index != nil && s.CaughtUp {
		s.Offset = f.index.next
		for _, ref := range f.want {
			if _, _, err := f.index.resolve(ref); err != nil {
				s.Missing = append(s.Missing, ref)
			}
		}
	}
	return s
}

// Next waits for the next change. Changes of one reference are coalesced: the newest counts. The first ones
// come when the topic has been read to its end.
func (f *Follower) Next(ctx context.Context) (Change, error) {
	for {
		c, ok, err := f.next(ctx)
		if ok || err != nil {
			return c, err
		}
		select {
		case <-f.wake:
		case <-ctx.Done():
			return Change{}, ctx.Err()
		}
	}
}

// next is Next where something is pending; where nothing is, ok is false.
func (f *Follower) next(ctx context.Context) (c Change, ok bool, err error) {
	for {
		c, at, ok, err := f.take()
		if err != nil || !ok {
			return Change{}, false, err
		}
		if c.Err == nil && !c.Gone {
			data, err := f.load(ctx, c.Manifest, at)
			if ctx.Err() != nil {
				return Change{}, false, ctx.Err()
			}
			if c.Overtaken() {
				continue
			}
			c.Data, c.Err = data, err
		}
		return c, true, nil
	}
}

// load gives the bytes of m from what is kept, else from the topic. They are kept even if a newer change has overtaken this one:
// of two versions that take turns faster than they are read, each would be overtaken for ever.
func (f *Follower) load(ctx context.Context, m Manifest, at []location) ([]byte, error) {
	f.mu.Lock()
	data, ok := f.kept.find(m, at)
	f.mu.Unlock()
	if ok {
		return data, nil
	}
	data, err := f.registry.load(ctx, m, at)
	if err == nil {
		f.mu.Lock()
		f.kept.add(m, at, data)
		f.mu.Unlock()
	}
	return data, err
}

func (f *Follower) take() (Change, []location, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, ref := range f.want {
		if s := f.refs[ref]; s.pending {
			s.pending = false
			f.signal() // there may be more
			return s.change, s.at, true, nil
		}
	}
	if f.ended != nil {
		f.signal() // for other callers of Next
	}
	return Change{}, nil, false, f.ended
}

func (f *Follower) signal() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *Follower) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := f.read(ctx)
		if ctx.Err() != nil {
			break
		}
		f.mu.Lock()
		said := f.state.Problem
		f.state.Problem = err.Error()
		f.mu.Unlock()
		if said != err.Error() {
			f.registry.o.Log.Warn("the model topic cannot be followed; trying again", "topic", f.registry.o.Topic, "error", err)
		}
		select {
		case <-time.After(missingTopicPoll):
		case <-ctx.Done():
		}
	}
	f.mu.Lock()
	f.ended = ctx.Err()
	f.mu.Unlock()
	f.signal()
}

// read follows the topic until something fails. What is known stays: a live model goes on being served.
func (f *Follower) read(ctx context.Context) error {
	if _, err := f.registry.log.Partitions(ctx, f.registry.o.Topic); err != nil {
		return stream.Lacks(f.registry.log.Brokers(), err, stream.Right{Kind: "topic", Name: f.registry.o.Topic, Operations: []string{"READ"}})
	}
	tail, err := f.registry.tails.Tail(ctx, []string{f.registry.o.Topic}, stream.TailOptions{Start: "earliest", Committed: true})
	if err != nil {
		return err
	}
	defer tail.Close()
	reading := f.begin()
	for {
		b, err := tail.Next(ctx)
		var recreated *stream.RecreatedError
		if errors.As(err, &recreated) {
			f.registry.o.Log.Warn("the model topic was recreated; reading it from its start, the live models go on", "topic", f.registry.o.Topic)
			reading = f.begin()
			continue
		}
		if err != nil {
			return err
		}
		f.fold(reading, b, tail.KnownEnd(stream.TopicPartition{Topic: f.registry.o.Topic}))
		b.Release()
	}
}

// reading is how far one read of the topic, from its start, has come.
type reading struct {
	index  *index
	caught bool
	first  int64 // the topic's end when its first records came; -1: none have
}

func (f *Follower) begin() *reading {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kept.forget()
	return &reading{index: newIndex(f.registry.o.Log), first: -1}
}

// fold takes in a batch. end is the topic's high watermark as of its last record, negative where it is not known.
func (f *Follower) fold(r *reading, b *stream.Batch, end int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range b.Records {
		r.index.fold(b.Records[i])
	}
	if r.first < 0 {
		r.first = end
	}
	r.caught = r.caught || b.AtEnd || r.first >= 0 && r.index.next >= r.first
	// The last offset is the marker of the transaction that ended there, which is no record. Only after the first end: a
	// writer without transactions has a record there, and what lay in the topic at the start is read to the very last.
	if b.AtEnd || r.caught && end >= 0 && r.index.next >= end-1 {
		f.index = r.index
		f.state.CaughtUp, f.state.Problem = true, ""
		f.decide()
	}
}

// decide compares what each reference means now with what was reported. The caller holds mu.
func (f *Follower) decide() {
	for _, ref := range f.want {
		s := f.refs[ref]
		m, alias, err := f.index.resolve(ref)
		change := Change{Ref: ref, Manifest: m, Alias: alias, follower: f}
		var at []location
		var now string
		var absent *NotFoundError
		switch {
		case errors.As(err, &absent) && (alias.Version == 0 || ref.Version > 0):
			if s.known == "" {
				continue // nothing yet: State says so
			}
			now, change.Gone = "gone", true
		case err != nil:
			now, change.Err = err.Error(), err
		default:
			now = fmt.Sprintf("%d %s", m.Version, m.Digest)
			if at, err = f.index.models[ref.Name].whole(m); err != nil {
				now, change.Err = err.Error(), err
			}
		}
		if now == s.known {
			if !s.pending { // the alias record may carry a new generation; the model is the same
				s.at = at
			}
			continue
		}
		s.token++
		change.token = s.token
		s.known, s.pending, s.change, s.at = now, true, change, at
		f.signal()
	}
}

package registry

import (
	"context"
	"time"

	"github.com/lapwing-stream/lapwing/stream"
)

// RehearsedLog is asked in place of the model topic's brokers. What the methods owe is said at stream.Client and stream.Transactor.
type RehearsedLog interface {
	log
	Transactor(ctx context.Context, id string, timeout time.Duration) (RehearsedTransactor, error)
	Pause(ctx context.Context, d time.Duration) error
}

// RehearsedTransactor is what RehearsedLog opens.
type RehearsedTransactor interface{ transactor }

// Rehearse is Open on a topic that is not Kafka's: Publish, Move, Rollback, Delete and followers are the production code.
func Rehearse(l RehearsedLog, o Options) *Registry {
	r := Open(nil, o)
	r.log, r.pause = l, l.Pause
	r.transactor = func(ctx context.Context, id string, timeout time.Duration) (transactor, error) {
		return l.Transactor(ctx, id, timeout)
	}
	return r
}

// RehearsedFollower is a Follower without a goroutine: whoever holds it reads the topic for it.
type RehearsedFollower struct {
	*Follower
	reading *reading
}

// RehearseFollower is Follow.
func (r *Registry) RehearseFollower(want ...Ref) *RehearsedFollower {
	f := r.follower(want)
	return &RehearsedFollower{f, f.begin()}
}

// Read takes in committed records in offset order, with the topic's high watermark as of the last one.
func (f *RehearsedFollower) Read(b *stream.Batch, end int64) { f.fold(f.reading, b, end) }

// Look is Next, without waiting: ok is false where nothing is pending.
func (f *RehearsedFollower) Look(ctx context.Context) (c Change, ok bool, err error) {
	return f.next(ctx)
}

// RehearsedIndex is what a follower makes of the model topic's records, without a follower.
type RehearsedIndex struct{ x *index }

// RehearseIndex makes an empty one.
func RehearseIndex(o Options) *RehearsedIndex { return &RehearsedIndex{newIndex(Open(nil, o).o.Log)} }

// Fold takes in a committed record, in offset order.
func (i *RehearsedIndex) Fold(r stream.Record) { i.x.fold(r) }

// Meaning gives the version that ref means, and its digest; an error where that cannot be loaded.
func (i *RehearsedIndex) Meaning(ref Ref) (version int, digest string, err error) {
	m, _, err := i.x.resolve(ref)
	if err == nil {
		_, err = i.x.models[ref.Name].whole(m)
	}
	return m.Version, m.Digest, err
}

// Pending tells whether Look would find something.
func (f *RehearsedFollower) Pending() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.refs {
		if s.pending {
			return true
		}
	}
	return false
}

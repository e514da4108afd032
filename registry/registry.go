package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/lapwing-stream/lapwing/stream"
)

// DefaultTopic is where models live unless the configuration says otherwise.
const DefaultTopic = "lapwing.models"

// Options say which model topic to use.
type Options struct {
	Topic string           // default lapwing.models
	Log   *slog.Logger     // default slog.Default()
	Now   func() time.Time // stamps manifests and moves; default time.Now
}

// Registry reads and writes one model topic. It keeps no state between calls: the topic is the state.
type Registry struct {
	log        log
	tails      *stream.Client // for followers
	transactor func(ctx context.Context, id string, timeout time.Duration) (transactor, error)
	pause      func(ctx context.Context, d time.Duration) error
	o          Options
}

// log is what the registry asks of the topic's brokers: a stream.Client, or a rehearsal's.
type log interface {
	CreateTopic(ctx context.Context, spec stream.TopicSpec) (bool, error)
	Partitions(ctx context.Context, topic string) (int, error)
	TopicConfig(ctx context.Context, topic string) (map[string]string, error)
	Watermarks(ctx context.Context, topic string) ([]stream.Range, error)
	EachRecord(ctx context.Context, topic string, ranges []stream.Range, do func(stream.Record) error) error
	Brokers() string
}

// transactor is a stream.Transactor, or a rehearsal's.
type transactor interface {
	Begin() error
	Produce(ctx context.Context, records []stream.Record) error
	Commit(ctx context.Context) error
	Abort(ctx context.Context) error
	Close()
}

// Open does not touch the broker; the topic may be missing until EnsureTopic.
func Open(c *stream.Client, o Options) *Registry {
	if o.Topic == "" {
		o.Topic = DefaultTopic
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Registry{log: c, tails: c, o: o, pause: pause,
		transactor: func(ctx context.Context, id string, timeout time.Duration) (transactor, error) {
			return c.Transactor(ctx, id, timeout)
		}}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Topic is the model topic's name.
func (r *Registry) Topic() string { return r.o.Topic }

// EnsureTopic creates the model topic, or checks that the existing one keeps what is put into it.
func (r *Registry) EnsureTopic(ctx context.Context) error {
	created, err := r.log.CreateTopic(ctx, stream.TopicSpec{
		Name: r.o.Topic, Partitions: 1, Config: map[string]string{
			"cleanup.policy": "compact",
			// Kafka deletes nothing by age where the policy is compact alone; the embedded broker does.
			"retention.ms": "-1",
		},
	})
	if err != nil || created {
		return err
	}
	return r.Check(ctx)
}

// Check tells whether the model topic, which must exist, keeps what is put into it. An error with a Hint is a setting to be changed.
func (r *Registry) Check(ctx context.Context) error {
	n, err := r.log.Partitions(ctx, r.o.Topic)
	if err != nil {
		return stream.Lacks(r.log.Brokers(), err, stream.Right{Kind: "topic", Name: r.o.Topic, Operations: []string{"READ"}})
	}
	if n != 1 {
		return &topicError{
			what: fmt.Sprintf("model topic %s has %d partitions; it must have one, since the order of its records decides which model is live", r.o.Topic, n),
			hint: "name another topic with models_topic; lapwing creates it",
		}
	}
	config, err := r.log.TopicConfig(ctx, r.o.Topic)
	if stream.NotAllowed(err) {
		return nil // no right to look is no fault
	}
	if err != nil {
		return err
	}
	if policy, known := config["cleanup.policy"]; known && policy != "compact" {
		return &topicError{
			what: fmt.Sprintf("model topic %s has cleanup.policy=%s, so the broker deletes models after a while", r.o.Topic, policy),
			hint: fmt.Sprintf("kafka-configs --bootstrap-server %s --alter --entity-type topics --entity-name %s --add-config cleanup.policy=compact", r.log.Brokers(), r.o.Topic),
		}
	}
	return nil
}

type topicError struct{ what, hint string }

func (e *topicError) Error() string { return e.what }
func (e *topicError) Hint() string  { return e.hint }

// read folds the topic up to its high watermark as read_uncommitted sees it. It waits for transactions that
// are open below that mark: a reader that stops at the last stable offset would miss a version committed
// behind another name's open transaction.
func (r *Registry) read(ctx context.Context) (*index, error) {
	x := newIndex(r.o.Log)
	marks, err := r.log.Watermarks(ctx, r.o.Topic)
	if err != nil {
		return nil, err
	}
	err = r.eachRecord(ctx, marks, func(rec stream.Record) { x.fold(rec) })
	return x, err
}

func (r *Registry) eachRecord(ctx context.Context, ranges []stream.Range, do func(stream.Record)) error {
	return r.log.EachRecord(ctx, r.o.Topic, ranges, func(rec stream.Record) error { do(rec); return nil })
}

// load fetches the parts of m again and checks the digest: only that makes a model whole.
func (r *Registry) load(ctx context.Context, m Manifest, at []location) ([]byte, error) {
	low, high := at[0].offset, at[0].offset
	want := make(map[int64]int, len(at))
	for i, l := range at {
		low, high = min(low, l.offset), max(high, l.offset)
		want[l.offset] = i
	}
	parts := make([][]byte, len(at))
	err := r.eachRecord(ctx, []stream.Range{{Partition: 0, From: low, To: high + 1}}, func(rec stream.Record) {
		if i, ok := want[rec.Offset]; ok {
			parts[i] = slices.Clone(rec.Value)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("reading the parts of model %v from topic %s, offsets %d to %d: %w", m, r.o.Topic, low, high, err)
	}
	data := slices.Concat(parts...)
	if got := digestOf(data); got != m.Digest {
		return nil, &DigestError{Manifest: m, Got: got, Size: len(data)}
	}
	return data, nil
}

// Digest names the bytes of a model, as manifests do.
func Digest(data []byte) string { return digestOf(data) }

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Entry is one model name in the topic.
type Entry struct {
	Name     string
	Versions []Version // ascending
	Aliases  map[string]Alias
	Orphans  int // parts that no manifest claims: left by a publisher that died; the next one clears them
}

// Version is one numbered model of an Entry.
type Version struct {
	Manifest
	Fault string // "" = whole as far as its parts' sizes tell; the digest is checked by Get
}

// List gives every model in the topic, by name.
func (r *Registry) List(ctx context.Context) ([]Entry, error) {
	x, err := r.read(ctx)
	if err != nil {
		return nil, err
	}
	var list []Entry
	for name, e := range x.models {
		if len(e.manifests)+len(e.broken)+len(e.aliases) == 0 {
			continue
		}
		it := Entry{Name: name, Aliases: e.aliases, Orphans: len(e.orphans(name))}
		for _, m := range e.manifests {
			v := Version{Manifest: m}
			if _, err := e.whole(m); err != nil {
				v.Fault = err.Error()
			}
			it.Versions = append(it.Versions, v)
		}
		for version, why := range e.broken {
			it.Versions = append(it.Versions, Version{Manifest: Manifest{Name: name, Version: version}, Fault: why})
		}
		slices.SortFunc(it.Versions, func(a, b Version) int { return a.Version - b.Version })
		list = append(list, it)
	}
	slices.SortFunc(list, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// Get loads the model that ref means, digest checked.
func (r *Registry) Get(ctx context.Context, ref Ref) (Manifest, []byte, error) {
	x, err := r.read(ctx)
	if err != nil {
		return Manifest{}, nil, err
	}
	m, _, err := x.resolve(ref)
	if err != nil {
		return Manifest{}, nil, err
	}
	at, err := x.models[m.Name].whole(m)
	if err != nil {
		return m, nil, err
	}
	data, err := r.load(ctx, m, at)
	return m, data, err
}

// Whoami names the person and machine behind a publish or a move, for those who read the log later.
func Whoami() string {
	who := "unknown"
	if u, err := user.Current(); err == nil {
		who = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		who += "@" + host
	}
	return who
}

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/lapwing-stream/lapwing/stream"
)

// A publisher that dies inside its transaction holds every follower back for transactionTimeout, and longer by what its model takes at
// slowestLink: a transaction that ends before its parts are through is lost. Brokers refuse more than longestTransaction, by default.
const (
	transactionTimeout = 20 * time.Second
	slowestLink        = 1 << 20 // bytes per second
	longestTransaction = 15 * time.Minute
)

func timeoutFor(bytes int) time.Duration {
	return min(transactionTimeout+time.Duration(bytes)*time.Second/slowestLink, longestTransaction)
}

// fencedTries bounds how often a fenced writer begins anew.
const fencedTries = 3

// Publication is a finished model on its way to the topic.
type Publication struct {
	Name   string
	Data   []byte // ONNX
	Alias  string // moved to the new version in the same transaction; "" = none
	By     string // who publishes; default Whoami()
	Why    string // for the alias's history
	Parent string // digest of the model it was derived from
}

// Publish writes parts, manifest, head and aliases in one transaction and returns the manifest with its new
// number. The transaction is opened only now, when the bytes are ready. If another publisher of the same name
// gets a version in between, nothing is written and the error is an OvertakenError.
func (r *Registry) Publish(ctx context.Context, p Publication) (Manifest, error) {
	if err := ValidName(p.Name); err != nil {
		return Manifest{}, err
	}
	if p.Alias != "" && !nameForm.MatchString(p.Alias) {
		return Manifest{}, fmt.Errorf("alias %q of model %q is not valid: use live, canary or shadow", p.Alias, p.Name)
	}
	if len(p.Data) == 0 || len(p.Data) > maxBytes {
		return Manifest{}, fmt.Errorf("model %s has %d bytes; a model file has 1 to %d", p.Name, len(p.Data), maxBytes)
	}
	if p.By == "" {
		p.By = Whoami()
	}
	if err := r.EnsureTopic(ctx); err != nil {
		return Manifest{}, err
	}
	var made Manifest
	first := -1 // newest version when the first try looked
	err := r.transact(ctx, p.Name, timeoutFor(len(p.Data)), func(x *index) ([]stream.Record, error) {
		e := x.entry(p.Name)
		if first < 0 {
			first = e.head
		} else if e.head > first {
			if m, ok := e.manifests[e.head]; ok {
				return nil, &OvertakenError{By: m}
			}
		}
		records, m := r.publication(e, p)
		made = m
		return records, nil
	})
	if err != nil {
		return Manifest{}, err
	}
	return made, nil
}

func (r *Registry) publication(e *entry, p Publication) ([]stream.Record, Manifest) {
	now := r.o.Now().UTC().Truncate(time.Millisecond)
	m := Manifest{
		Name: p.Name, Version: e.head + 1, Format: 1, Digest: digestOf(p.Data), Bytes: int64(len(p.Data)),
		Parts: (len(p.Data) + partSize - 1) / partSize, Created: now, Parent: p.Parent, By: p.By,
	}
	var records []stream.Record
	for _, key := range e.orphans(p.Name) {
		records = append(records, r.record(key, nil))
	}
	for i := range m.Parts {
		part := p.Data[i*partSize : min((i+1)*partSize, len(p.Data))]
		records = append(records, r.record(partKeyOf(p.Name, m.Version, m.Digest, i), part))
	}
	records = append(records, r.record(manifestKeyOf(p.Name, m.Version), encode(m)))
	records = append(records, r.record(headKeyOf(p.Name), encode(head{m.Version})))
	for _, alias := range e.aliasNames() {
		if alias != p.Alias { // written again as they are, which heals a mirror that lost one
			records = append(records, r.record(aliasKeyOf(p.Name, alias), encode(e.aliases[alias])))
		}
	}
	if p.Alias != "" {
		a := e.aliases[p.Alias].moved(m.Version, p.By, p.Why, now)
		if old := e.aliases[p.Alias].Version; old > 0 {
			a.Previous = keep(append(a.Previous, old))
		}
		records = append(records, r.record(aliasKeyOf(p.Name, p.Alias), encode(a)))
	}
	return records, m
}

// transact runs one publish or move: fence older writers of this name, read the topic to its end, let decide
// say what to write, commit. Fenced by a newer writer, it begins anew, up to fencedTries times.
func (r *Registry) transact(ctx context.Context, name string, timeout time.Duration, decide func(*index) ([]stream.Record, error)) error {
	for try := 1; ; try++ {
		err := r.transactOnce(ctx, name, timeout, decide)
		if !errors.Is(err, stream.ErrFenced) {
			return err
		}
		if try == fencedTries {
			return fmt.Errorf("writing model %s to topic %s: other publishers of this name were faster %d times: %w", name, r.o.Topic, try, err)
		}
		r.o.Log.Info("another publisher of this model began; trying again", "model", name, "try", try)
		// jitter, so that two that fence each other drift apart
		if err := r.pause(ctx, time.Duration(50+rand.IntN(200*try))*time.Millisecond); err != nil {
			return err
		}
	}
}

func (r *Registry) transactOnce(ctx context.Context, name string, timeout time.Duration, decide func(*index) ([]stream.Record, error)) error {
	t, err := r.transactor(ctx, "lapwing-models-"+name, timeout)
	if err != nil {
		err = stream.Lacks(r.log.Brokers(), err, stream.Right{Kind: "transactional-id", Name: "lapwing-models-", Prefix: true, Operations: []string{"WRITE"}})
		return fmt.Errorf("opening the transaction that publishes model %s: %w", name, err)
	}
	defer t.Close()
	// read only after fencing: whatever an older writer committed is below the mark by now
	x, err := r.read(ctx)
	if err != nil {
		return err
	}
	records, err := decide(x)
	if err != nil || len(records) == 0 {
		return err
	}
	if err := t.Begin(); err != nil {
		return err
	}
	if err := t.Produce(ctx, records); err != nil {
		return errors.Join(err, t.Abort(context.WithoutCancel(ctx)))
	}
	// from here the outcome must be known: a cancelled context must not leave it open
	if err := t.Commit(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("committing model %s to topic %s: %w", name, r.o.Topic, err)
	}
	return nil
}

func (r *Registry) record(key string, value []byte) stream.Record {
	return stream.Record{Topic: r.o.Topic, Partition: 0, Key: []byte(key), Value: value, Time: r.o.Now().UnixMilli()}
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil { // plain structs of our own: cannot fail
		panic(err)
	}
	return b
}

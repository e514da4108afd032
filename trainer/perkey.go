package trainer

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

const (
	// MostKeys is how many keys can have a model of their own in one run, whatever max_keys says: their finished models are in
	// memory until all are published.
	MostKeys = 1024
	// seenKeys of a partition are told apart while it is read; a topic with more has keys that are no things to watch, such as
	// the number of an order.
	seenKeys = 1 << 17
	// keyBytes is what a row costs more in memory where every key has its model: its time, its key, its place among its key's rows.
	keyBytes = 16
)

// noTime stands for a row without one.
const noTime = math.MinInt64

// keyed is what a partition keeps of its rows where every key has a model.
type keyed struct {
	of    []uint32 // by row: index in names + 1; 0 = it has none
	times []int64  // by row, ms, or noTime
	names []string
	index map[string]uint32
	over  bool // more than seenKeys
}

func (k *keyed) add(key []byte, time int64) {
	k.times = append(k.times, time)
	if len(key) == 0 {
		k.of = append(k.of, 0)
		return
	}
	i, ok := k.index[string(key)]
	if !ok {
		if len(k.names) == seenKeys {
			k.over = true
			k.of = append(k.of, 0)
			return
		}
		if k.index == nil {
			k.index = map[string]uint32{}
		}
		name := string(key)
		k.names = append(k.names, name)
		i = uint32(len(k.names))
		k.index[name] = i
	}
	k.of = append(k.of, i)
}

// enterKey notes whose row comes next.
func (w *decodeWorker) enterKey(p *partition, rec *stream.Record, time int64, known bool) {
	if !known {
		time = noTime
	}
	key := rec.Key
	if w.key != nil {
		key = nil
		if text, ok := w.key(rec.Value); ok {
			key = text
		}
	}
	p.keyed.add(key, time)
}

// KeyModel is what became of one key.
type KeyModel struct {
	Key      string // as the records have it
	Name     string // of its model
	Rows     int64
	Fault    string  // why it has no model; "" = it has
	Seconds  float64 // from its first row to its threshold
	Report   *Report // nil without a model; of this key's part of the history
	Manifest registry.Manifest
}

// KeyName is the name of a key's model: MODEL.KEY. What no name may hold becomes a dash, capitals small letters, and eight digits
// of the key's SHA-256 then keep it apart from others.
func KeyName(of, key string) string {
	const most = 100
	plain := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9', r == '.', r == '_', r == '-':
			return r
		case 'A' <= r && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, key)
	if plain == key && len(of)+1+len(key) <= most {
		return of + "." + key
	}
	sum := sha256.Sum256([]byte(key))
	hash := "-" + hex.EncodeToString(sum[:4])
	return of + "." + plain[:min(len(plain), max(most-len(of)-1-len(hash), 0))] + hash
}

// keyRows are the rows of one key, ascending.
type keyRows struct {
	KeyModel
	rows []uint32
}

// keys finds the keys of the history and their rows, by name; those that get no model say why. withoutKey counts rows that have none.
func (j *job) keys(h *history) (all []keyRows, withoutKey int64, err error) {
	counts := map[string]int64{}
	for i := range h.partitions {
		k := &h.partitions[i].keyed
		if k.over {
			return nil, 0, j.tooManyKeysError(h.partitions[i].Partition)
		}
		each := make([]int64, len(k.names)+1)
		for _, at := range k.of {
			each[at]++
		}
		withoutKey += each[0]
		for n, name := range k.names {
			counts[name] += each[n+1]
		}
	}
	if len(counts) == 0 {
		return nil, withoutKey, j.noKeyError(h)
	}
	bySize := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	place := map[string]int{} // in all
	named := map[string]string{}
	for at, key := range bySize {
		k := keyRows{KeyModel: KeyModel{Key: key, Name: KeyName(j.Model, key), Rows: counts[key]}}
		switch other := named[k.Name]; {
		case k.Rows < int64(j.MinRows):
			k.Fault = fmt.Sprintf("%s; a model takes at least %d", plural(k.Rows, "row"), j.MinRows)
		case len(named) == j.MaxKeys:
			k.Fault = fmt.Sprintf("max_keys is %d, and it is number %d by rows", j.MaxKeys, at+1)
		case other != "":
			k.Fault = fmt.Sprintf("key %q has the same model name %s", other, k.Name)
		default:
			named[k.Name] = key
			k.rows = make([]uint32, 0, k.Rows)
		}
		all = append(all, k)
	}
	if len(named) == 0 {
		return nil, withoutKey, j.noKeyRowsError(len(all), all[0].KeyModel)
	}
	slices.SortFunc(all, func(a, b keyRows) int { return strings.Compare(a.Key, b.Key) })
	for i := range all {
		place[all[i].Key] = i
	}
	for i := range h.partitions {
		k := &h.partitions[i].keyed
		places := make([]int, len(k.names)+1)
		for n, name := range k.names {
			places[n+1] = place[name]
		}
		for row, at := range k.of {
			if to := &all[places[at]]; at > 0 && to.Fault == "" {
				to.rows = append(to.rows, uint32(h.starts[i]+row))
			}
		}
		k.of, k.index = nil, nil
	}
	return all, withoutKey, nil
}

// part is the history of some of its rows: what reading those records alone would have given.
func (j *job) part(h *history, rows []uint32) (*history, error) {
	part := &history{spec: h.spec, width: h.width, read: h.read, partitions: make([]partition, len(h.partitions))}
	var err error
	if part.store, err = j.newRowStore(h.width, len(h.partitions), int64(len(rows))); err != nil {
		return nil, err
	}
	all := newStatistics(&h.spec)
	for i := range part.partitions {
		part.partitions[i].Range, part.partitions[i].records = h.partitions[i].Range, h.partitions[i].records
	}
	var values []float32
	numbers := make([]int, 0, chunkRows)
	i := 0 // partition
	for chunk := range slices.Chunk(rows, chunkRows) {
		numbers = numbers[:0]
		for _, g := range chunk {
			numbers = append(numbers, int(g))
		}
		if values, err = h.gather(numbers, values); err != nil {
			return part, err
		}
		for n, g := range numbers {
			for g >= h.starts[i+1] {
				i++
			}
			from, to, row := &h.partitions[i], &part.partitions[i], values[n*h.width:(n+1)*h.width]
			at := from.keyed.times[g-h.starts[i]]
			to.hours.add(to.rows.n, at, at != noTime)
			if at != noTime && to.rows.n%timeEvery == 0 {
				to.times = append(to.times, at)
			}
			if from.labels != nil {
				to.labels = append(to.labels, from.labels[g-h.starts[i]])
			}
			if err := to.rows.add(part.store, row); err != nil {
				return part, err
			}
			all.add(row)
		}
	}
	part.summaries = all.summaries()
	for i := range part.partitions {
		part.starts = append(part.starts, part.n)
		part.n += part.partitions[i].rows.n
	}
	part.starts = append(part.starts, part.n)
	return part, part.finish()
}

// otherKey is the reason why a record is no row of a key's model.
const otherKey = "key"

// keyRun is the model of one key on its way: made as by a run that reads this key's records alone.
type keyRun struct {
	job
	k       *keyRows
	part    *history
	columns *columns
	fitted  *fitted
	raw     []float32 // rows of the sample that were kept
	report  *Report
	started time.Time
	learned bool
	alone   bool  // it is to learn by itself
	told    int64 // parts of the work on it, to keysDone
}

// begin takes a key as far as its network, which has yet to learn. close must follow.
func (j *job) begin(ctx context.Context, h *history, whole *Report, k *keyRows) (*keyRun, error) {
	// Not a copy of j, whose last report is written to meanwhile.
	x := &keyRun{job: job{Deps: j.Deps, Options: j.Options, sampler: j.sampler, where: j.where, saw: j.saw, key: k.Key}, k: k, started: time.Now()}
	x.Model, x.Threads, x.Progress = k.Name, 1, nil
	x.MaxMemory = j.keyMemory()
	var err error
	if x.part, err = x.job.part(h, k.rows); err != nil {
		return x, err
	}
	r := &Report{
		Topic: j.Topic, Name: k.Name, Alias: j.Alias, Cluster: whole.Cluster, Spec: h.spec, Inferred: whole.Inferred, Notes: slices.Clone(whole.Notes),
		From: whole.From, Until: whole.Until, Ranges: whole.Ranges, Rows: model.Rows{Read: h.read, Used: int64(x.part.n), LeftOut: maps.Clone(whole.Rows.LeftOut)},
	}
	if others := int64(h.n - x.part.n); others > 0 {
		if r.Rows.LeftOut == nil {
			r.Rows.LeftOut = map[string]int64{}
		}
		r.Rows.LeftOut[otherKey] = others
	}
	r.time(x.part)
	x.report = r
	if x.columns, err = x.job.columns(x.part, r); err != nil {
		return x, err
	}
	if err = x.askable(x.part, r); err != nil {
		return x, err
	}
	x.fitted, x.raw, err = x.outline(ctx, x.part, x.columns)
	return x, err
}

// end makes the rest of the model. A network that has not learned yet does, by itself.
func (x *keyRun) end(ctx context.Context) error {
	f, r := x.fitted, x.report
	if len(f.layers) > 0 && !x.learned {
		if err := x.learn(ctx, x.part, x.columns, f, r, x.raw); err != nil {
			return err
		}
	}
	if err := x.complete(ctx, f, x.columns, x.raw); err != nil {
		return err
	}
	r.Layers, r.Steps, r.SamplesPerSecond = f.layers, f.steps, f.samplesPerSecond
	if err := x.judge(ctx, x.part, f, r); err != nil {
		return err
	}
	r.Columns = nil // a histogram of each: more than the model itself
	x.k.Report, x.k.Seconds = r, time.Since(x.started).Seconds()
	return nil
}

func (x *keyRun) close() {
	if x.part != nil {
		x.part.store.close()
	}
}

// fault notes what became of a key where err is a fault of its history, which is no other's. What it returns ends the run.
func (k *keyRows) fault(err error) error {
	if input := (*InputError)(nil); errors.As(err, &input) && !errors.Is(err, ErrMemory) {
		k.Fault = input.What
		return nil
	}
	return err
}

// keyMemory is the part of max_memory that a key's rows may take; others go to a file. The whole history has half of it.
func (j *job) keyMemory() int64 { return j.MaxMemory / int64(2*j.Threads) }

// perKey makes a model for every key and publishes them all, once all are finished. A key for which none can be made is left out
// with the reason, and is no error unless every key is. notes are those on the fields, without what the columns of all keys together gave.
func (j *job) perKey(ctx context.Context, h *history, r *Report, notes []model.ColumnNote) error {
	all, without, err := j.keys(h)
	if err != nil {
		return err
	}
	r.WithoutKey = without
	var todo []*keyRows
	for i := range all {
		if all[i].Fault == "" {
			todo = append(todo, &all[i])
		}
	}
	whole := *r
	whole.Notes = notes
	started := time.Now()
	if err := j.eachKey(ctx, h, &whole, todo); err != nil {
		return err
	}
	r.Seconds.Fit = time.Since(started).Seconds()
	for i := range all {
		all[i].rows = nil
		r.Keys = append(r.Keys, all[i].KeyModel)
	}
	if !slices.ContainsFunc(r.Keys, func(k KeyModel) bool { return k.Fault == "" }) {
		return j.noKeyRowsError(len(all), todo[0].KeyModel)
	}
	started = time.Now()
	err = j.publishKeys(ctx, r)
	r.Seconds.Publish = time.Since(started).Seconds()
	return err
}

// keyParts is what the work on a key is divided into, for progress: what comes before the network learns, that, and what comes after.
const keyParts, keyBegun, keyLearned = 100, 20, 80

// keysDone counts what is done of the keys.
type keysDone struct{ keys, parts atomic.Int64 }

// tell counts the work on a key as far as it has come; a network that begins again has come no further.
func (x *keyRun) tell(done *keysDone, parts int64) {
	if parts > x.told {
		done.parts.Add(parts - x.told)
		x.told = parts
	}
}

// eachKey fits the keys: where the engine's device can, many of them learn abreast, else one after another on each thread.
func (j *job) eachKey(ctx context.Context, h *history, r *Report, todo []*keyRows) error {
	done := &keysDone{}
	finished := make(chan error, 1)
	go func() {
		if e, ok := j.Engine.(abreastEngine); ok {
			finished <- j.waves(ctx, e, h, r, todo, done)
		} else {
			finished <- j.spread(ctx, len(todo), func(ctx context.Context, i int) error { return j.ofKey(ctx, h, r, todo[i], done) })
		}
	}()
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	all := int64(len(todo)) * keyParts
	pace := newPace(all, time.Now())
	progress := func(last bool) {
		parts := done.parts.Load()
		p := Progress{Stage: "keys", Records: done.keys.Load(), TotalRecords: int64(len(todo)), Done: float64(parts) / float64(all)}
		p.Left = pace.left(parts, time.Now())
		j.report(p, last)
	}
	progress(true)
	for {
		select {
		case err := <-finished:
			progress(true)
			return err
		case <-tick.C:
			progress(false)
		}
	}
}

// spread calls do for each of n on the job's threads. The first error ends the others' context, and is returned.
func (j *job) spread(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var group sync.WaitGroup
	for range min(j.Threads, n) {
		group.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := do(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	group.Wait()
	return context.Cause(ctx)
}

// ofKey makes the model of one key by itself.
func (j *job) ofKey(ctx context.Context, h *history, whole *Report, k *keyRows, done *keysDone) error {
	x, err := j.begin(ctx, h, whole, k)
	defer x.close()
	if err == nil {
		err = x.end(ctx)
	}
	x.tell(done, keyParts)
	done.keys.Add(1)
	return k.fault(err)
}

// publishKeys publishes the finished models in the order of their keys. One that another trainer has overtaken, or that cannot be
// published, does not keep the others back.
func (j *job) publishKeys(ctx context.Context, r *Report) error {
	var errs []error
	published := 0
	for i := range r.Keys {
		k := &r.Keys[i]
		if k.Report == nil {
			continue
		}
		if ctx.Err() != nil {
			return &InputError{
				What:  fmt.Sprintf("interrupted: %s published, and not that of key %s or later ones", plural(int64(published), "model"), k.Key),
				Place: "topic " + j.Topic, Next: "train again: the same history gives the same models", Kind: context.Cause(ctx),
			}
		}
		one := *j
		one.Model = k.Name
		if err := one.publish(ctx, k.Report); err != nil {
			errs = append(errs, err)
			continue
		}
		k.Manifest, k.Report.Data = k.Report.Manifest, nil
		published++
	}
	r.Published = published > 0
	return errors.Join(errs...)
}

func (j *job) noKeyError(h *history) error {
	e := &InputError{Place: "topic " + j.Topic, Kind: ErrNoField}
	if j.Key == "" {
		e.What = fmt.Sprintf("a model for every key is asked for, and none of the %s has a key", plural(int64(h.n), "record"))
		e.Next = "name the field that tells things apart with --key"
	} else {
		e.What = fmt.Sprintf("a model for every key is asked for, and none of the %s has the field %s", plural(int64(h.n), "record"), j.Key)
		e.Next = "correct --key, or leave it out where the records have keys of their own"
	}
	return e
}

func (j *job) tooManyKeysError(partition int32) error {
	return &InputError{
		What:  fmt.Sprintf("a model for every key is asked for, and there are more than %s keys", thousands(seenKeys)),
		Place: fmt.Sprintf("topic %s, partition %d", j.Topic, partition),
		Next:  "name a field with fewer values with --key, or read part of the topic with --where",
	}
}

func (j *job) noKeyRowsError(keys int, largest KeyModel) error {
	return &InputError{
		What:  fmt.Sprintf("none of the %s can have a model; %s: %s", plural(int64(keys), "key"), largest.Key, largest.Fault),
		Place: "topic " + j.Topic, Kind: ErrTooFewRows,
		Next: "wait for more history, train one model for all (without --per-key), or lower --min-rows",
	}
}

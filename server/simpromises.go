package server

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

// simModelFiles are the models of a simulation. They agree on what is an anomaly and differ in scores, so that a score names its model and
// alerts do not depend on when a model was swapped.
type simModelFiles struct {
	files    [simFileCount][]byte
	byDigest map[string]int
	scores   [simFileCount]map[int]float32 // by file and x
}

const (
	simFileCount = 4
	simUsual     = 4  // values 0 to 3 are usual
	simOdd       = 50 // values from here on are not
)

func newSimModelFiles(engine kernels.Engine) (*simModelFiles, error) {
	f := &simModelFiles{byDigest: map[string]int{}}
	for k := range simFileCount {
		scale := float32(int(1) << k)
		inf := float32(math.Inf(1))
		column := kernels.Column{Lo: -inf, Hi: inf, X: []float32{0}, Y: []float32{0}, Before: scale, After: scale}
		m := &model.Model{
			Program:   kernels.Autoencoder([]kernels.Column{column}, []int{2}, []kernels.Activation{kernels.Tanh}),
			Spec:      model.Spec{Format: "json", Fields: []model.Field{{Name: "x", Type: model.Number}}},
			Threshold: float64(10 * scale),
			Lineage:   model.Lineage{Topic: simInput, Engine: "cpu/portable", Rows: model.Rows{Read: 1000, Used: 1000}},
		}
		quantiles := make([]float64, 1000)
		for i := range quantiles {
			quantiles[i] = m.Threshold * float64(i) / 1000
		}
		m.Quantiles = model.Quantiles(quantiles)
		scorer, err := engine.Scorer(m.Program)
		if err != nil {
			return nil, err
		}
		f.scores[k] = map[int]float32{}
		for _, base := range []int{0, simOdd} {
			for x := base; x < base+simUsual; x++ {
				row, score := []float32{float32(x)}, make([]float32, 1)
				if err := scorer.Score(row, kernels.Output{Score: score}); err != nil {
					return nil, err
				}
				f.scores[k][x] = score[0]
				m.SelfTest.Rows, m.SelfTest.Scores = append(m.SelfTest.Rows, row), append(m.SelfTest.Scores, score[0])
				if odd := float64(score[0]) > m.Threshold; odd != (base == simOdd) {
					return nil, fmt.Errorf("model %d of the simulation scores %d as %g, threshold %g", k, x, score[0], m.Threshold)
				}
			}
		}
		if f.files[k], err = m.Encode(); err != nil {
			return nil, err
		}
		f.byDigest[registry.Digest(f.files[k])] = k
	}
	return f, nil
}

func (f *simModelFiles) pick(w *simWorld) []byte { return f.files[w.rand.IntN(simFileCount)] }

// record makes up an input record.
func (f *simModelFiles) record(w *simWorld) stream.Record {
	r := stream.Record{Key: []byte{'a' + byte(w.rand.IntN(3))}, Time: simEpoch.Add(w.now).UnixMilli()}
	x := w.rand.IntN(simUsual)
	switch n := w.rand.IntN(20); {
	case n == 0:
		return r // a tombstone
	case n == 1:
		r.Value = []byte(`{"x":`)
		return r
	case n < 9:
		x += simOdd
	}
	r.Value = strconv.AppendInt([]byte(`{"x":`), int64(x), 10)
	r.Value = append(r.Value, '}')
	return r
}

// simCheck holds the round to its promises.
type simCheck struct {
	w       *simWorld
	exact   bool // delivery
	parts   []simPart
	pending []*simLog // with news
	broken  *BrokenPromise

	models  int64          // next offset of the model topic
	meant   map[int]string // digest by version, of all that the alias has meant
	topic   *registry.RehearsedIndex
	digests []string // of all versions, from 1
	newest  int      // version
	live    int      // what the alias means; 0: nothing
}

// simPart is one input partition with what came of it.
type simPart struct {
	inputs  []simRecord
	index   map[int64]int    // by offset
	at      map[string]int64 // cursors, by topic
	scored  int              // inputs up to here have their score, or need none
	letters int              // and their dead letter
	keys    map[string]*simKey
}

type simKind int

const (
	simGood simKind = iota
	simBad
	simEmpty
)

type simRecord struct {
	offset int64
	kind   simKind
	x      int
	key    string
}

// simKey is the alert that a key's records call for, and what is seen of it.
type simKey struct {
	odd, usual int
	raised     bool
	due        []simTransition
	seen       bool // the last alert record that is no repetition was a raise
}

type simTransition struct {
	offset int64
	state  AlertState
}

func newSimCheck(w *simWorld, partitions int) *simCheck {
	c := &simCheck{w: w, exact: w.options.Delivery == ExactlyOnce, meant: map[int]string{},
		topic: registry.RehearseIndex(registry.Options{Topic: simModels, Log: w.log})}
	for range partitions {
		c.parts = append(c.parts, simPart{index: map[int64]int{}, at: map[string]int64{}, keys: map[string]*simKey{}})
	}
	return c
}

func (c *simCheck) breaks(promise, format string, args ...any) {
	if c.broken == nil {
		w := c.w
		c.broken = &BrokenPromise{Step: w.step, Promise: promise, What: fmt.Sprintf(format, args...), Last: w.last}
	}
}

func (c *simCheck) touched(l *simLog) { c.pending = append(c.pending, l) }

// step looks at what became readable in the last step.
func (c *simCheck) step() {
	for _, l := range c.pending {
		c.look(l)
	}
	c.pending = c.pending[:0]
}

func (c *simCheck) look(l *simLog) {
	if l.at.Topic == simModels {
		c.lookModels(l)
		return
	}
	p := &c.parts[l.at.Partition]
	records, next := l.committed(p.at[l.at.Topic], l.stable(), math.MaxInt)
	p.at[l.at.Topic] = next
	for i := range records {
		switch r := &records[i]; l.at.Topic {
		case simInput:
			c.input(p, r)
		case simScores:
			c.score(p, r)
		case simLetters:
			c.letter(p, r)
		case simAlerts:
			c.alert(p, r)
		}
	}
}

func (c *simCheck) input(p *simPart, r *stream.Record) {
	in := simRecord{offset: r.Offset, key: string(r.Key)}
	var v struct{ X *int }
	switch {
	case r.Value == nil:
		in.kind = simEmpty
	case json.Unmarshal(r.Value, &v) != nil:
		in.kind = simBad
	default:
		in.x = *v.X
		c.expect(p, &in)
	}
	p.index[in.offset] = len(p.inputs)
	p.inputs = append(p.inputs, in)
}

// expect works out what alert a record calls for.
func (c *simCheck) expect(p *simPart, in *simRecord) {
	k := p.keys[in.key]
	if k == nil {
		k = &simKey{}
		p.keys[in.key] = k
	}
	o := &c.w.options.Streams[0]
	if in.x >= simOdd {
		k.usual = 0
		if k.odd++; !k.raised && k.odd >= o.RaiseAfter {
			k.raised = true
			k.due = append(k.due, simTransition{in.offset, AlertRaised})
		}
		return
	}
	k.odd = 0
	if k.raised {
		if k.usual++; k.usual >= o.ClearAfter {
			k.raised, k.usual = false, 0
			k.due = append(k.due, simTransition{in.offset, AlertCleared})
		}
	}
}

// follows checks that a result for an input record is the next one of its kind, and moves the cursor past it.
func (c *simCheck) follows(p *simPart, cursor *int, kind simKind, offset int64, what string) *simRecord {
	i, ok := p.index[offset]
	if !ok || p.inputs[i].kind != kind {
		c.breaks("each record is scored once, in order", "%s for offset %d, which is no such record", what, offset)
		return nil
	}
	for *cursor < len(p.inputs) && p.inputs[*cursor].kind != kind {
		*cursor++
	}
	switch {
	case i == *cursor:
		*cursor++
	case i < *cursor && c.exact:
		c.breaks("each record is scored once, in order", "%s for offset %d comes again", what, offset)
	case i > *cursor:
		c.breaks("each record is scored once, in order", "%s for offset %d comes before the one for %d", what, offset, p.inputs[*cursor].offset)
	}
	return &p.inputs[i]
}

func (c *simCheck) score(p *simPart, r *stream.Record) {
	var v struct {
		Version int
		Offset  int64
		Score   float32
		Anomaly bool
	}
	if err := json.Unmarshal(r.Value, &v); err != nil {
		c.breaks("scores are JSON", "%v", err)
		return
	}
	in := c.follows(p, &p.scored, simGood, v.Offset, "a score")
	if in == nil {
		return
	}
	digest, ok := c.meant[v.Version]
	if !ok {
		c.breaks("one version that was live scores a record", "offset %d was scored by version %d, which the alias never meant", v.Offset, v.Version)
		return
	}
	if want := c.w.models.scores[c.w.models.byDigest[digest]][in.x]; v.Score != want || v.Anomaly != (in.x >= simOdd) {
		c.breaks("one version that was live scores a record", "offset %d has score %g by version %d, which scores it %g", v.Offset, v.Score, v.Version, want)
	}
	c.w.events["record scored"]++
}

func (c *simCheck) letter(p *simPart, r *stream.Record) {
	for _, h := range r.Headers {
		if h.Key == "lapwing.offset" {
			offset, _ := strconv.ParseInt(string(h.Value), 10, 64)
			c.follows(p, &p.letters, simBad, offset, "a dead letter")
			return
		}
	}
	c.breaks("each record is scored once, in order", "a dead letter names no offset")
}

// exactAlerts tells whether alert counts survive every restart: where all of a partition is read again for them.
func (c *simCheck) exactAlerts() bool { return c.w.options.Streams[0].AlertRewind >= simRewindAll }

const simRewindAll = 1 << 20

func (c *simCheck) alert(p *simPart, r *stream.Record) {
	a, ok := parseAlert(r.Value)
	if !ok {
		c.breaks("alerts are JSON", "%q", r.Value)
		return
	}
	if !c.exact {
		return // they come again with their records
	}
	i, ok := p.index[a.Source.Offset]
	if !ok {
		c.breaks("an alert is raised once, then cleared", "%s for offset %d, which is no record", a.State, a.Source.Offset)
		return
	}
	k := p.keys[p.inputs[i].key]
	switch {
	case a.State == AlertRepeated && k.seen:
		c.w.events["alert repeated"]++
		return
	case a.State == AlertRaised && !k.seen, a.State == AlertCleared && k.seen:
		k.seen = !k.seen
	default:
		c.breaks("an alert is raised once, then cleared", "key %s of partition %d: %s at offset %d, and it was raised: %v", p.inputs[i].key, r.Partition, a.State, a.Source.Offset, k.seen)
		return
	}
	c.w.events["alert "+string(a.State)]++
	if !c.exactAlerts() {
		return
	}
	if got := (simTransition{a.Source.Offset, a.State}); len(k.due) == 0 || k.due[0] != got {
		c.breaks("an alert comes when its rule says", "key %s of partition %d: %v; due: %v", p.inputs[i].key, r.Partition, got, k.due[:min(2, len(k.due))])
		return
	}
	k.due = k.due[1:]
}

// offsets are committed for a partition.
func (c *simCheck) offsets(tp stream.TopicPartition, before, next int64) {
	p := &c.parts[tp.Partition]
	if next < before {
		c.breaks("committed offsets do not go back", "partition %d: from %d to %d", tp.Partition, before, next)
	}
	if c.exact {
		return
	}
	for i := p.scored; i < len(p.inputs) && p.inputs[i].offset < next; i++ {
		if p.inputs[i].kind == simGood {
			c.breaks("offsets are committed once results are acknowledged", "partition %d: offset %d is committed, and %d has no score", tp.Partition, next, p.inputs[i].offset)
			return
		}
	}
}

// lookModels holds the model topic to its promises after each commit.
func (c *simCheck) lookModels(l *simLog) {
	records, next := l.committed(c.models, l.stable(), math.MaxInt)
	c.models = next
	if len(records) == 0 {
		return
	}
	for _, r := range records {
		c.topic.Fold(r)
	}
	for {
		_, digest, err := c.topic.Meaning(registry.Ref{Name: simModel, Version: c.newest + 1})
		if err != nil {
			break
		}
		c.newest++
		c.digests = append(c.digests, digest)
	}
	for i, digest := range c.digests {
		if _, now, err := c.topic.Meaning(registry.Ref{Name: simModel, Version: i + 1}); err == nil && now != digest {
			c.breaks("a version is one model for ever", "version %d was %.8s and is %.8s", i+1, digest, now)
		}
	}
	version, digest, err := c.topic.Meaning(registry.Ref{Name: simModel, Alias: registry.Live})
	if err != nil {
		if c.live != 0 {
			c.breaks("an alias means a version that can be loaded", "%v", err)
		}
		return
	}
	c.live = version
	c.meant[version] = digest
}

// swapped: a scorer's live model is another.
func (c *simCheck) swapped(p *simScorer, l *liveModel, generation int64) {
	if digest, ok := c.meant[l.version]; !ok || digest != l.manifest.Digest {
		c.breaks("one version that was live scores a record", "scorer %d serves version %d, which the alias never meant", p.number, l.version)
	}
	if generation <= p.generated {
		c.breaks("a scorer follows the alias forward", "scorer %d: from the alias's generation %d to %d", p.number, p.generated, generation)
	}
	p.generated = generation
}

func (c *simCheck) versions() (list []int) {
	for v := range c.newest {
		list = append(list, v+1)
	}
	return list
}

func (c *simCheck) published() bool { return c.live != 0 }

// unfinished names something that is still to be done; "" when all is.
func (c *simCheck) unfinished() string {
	w := c.w
	for _, t := range w.trainers {
		if t.task != nil {
			return fmt.Sprintf("trainer %d is at work", t.number)
		}
	}
	if !c.published() {
		return "no model is published"
	}
	if len(w.cluster.ending)+len(w.cluster.live) > 0 {
		return "a transaction is open"
	}
	for _, p := range w.scorers {
		if l := p.r.slot.live.Load(); l == nil || l.version != c.live || p.follow != nil {
			return fmt.Sprintf("scorer %d does not serve version %d", p.number, c.live)
		}
	}
	for i := range c.parts {
		p := &c.parts[i]
		for j := min(p.scored, p.letters); j < len(p.inputs); j++ {
			switch in := &p.inputs[j]; {
			case in.kind == simGood && j >= p.scored:
				return fmt.Sprintf("partition %d, offset %d is not scored", i, in.offset)
			case in.kind == simBad && j >= p.letters:
				return fmt.Sprintf("partition %d, offset %d has no dead letter", i, in.offset)
			}
		}
		if n := len(p.inputs); n > 0 && w.cluster.group.offsets[simStream(int32(i))] <= p.inputs[n-1].offset {
			return fmt.Sprintf("partition %d is committed up to %d of %d", i, w.cluster.group.offsets[simStream(int32(i))], p.inputs[n-1].offset+1)
		}
	}
	return ""
}

// backlog is how many input records are not committed, aborted ones and markers among them.
func (c *simCheck) backlog() (n int64) {
	for i := range c.parts {
		tp := simStream(int32(i))
		n += int64(len(c.w.cluster.logs[tp].entries)) - c.w.cluster.group.offsets[tp]
	}
	return n
}

func (c *simCheck) done() bool { return c.unfinished() == "" }

// final is checked once everything is done.
func (c *simCheck) final() {
	if !c.exact || !c.exactAlerts() {
		return
	}
	for i := range c.parts {
		for _, name := range slices.Sorted(maps.Keys(c.parts[i].keys)) {
			k := c.parts[i].keys[name]
			if len(k.due) > 0 {
				c.breaks("an alert comes when its rule says", "key %s of partition %d: never came: %v", name, i, k.due[0])
				return
			}
		}
	}
}

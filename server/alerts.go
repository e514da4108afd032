package server

import (
	"encoding/json"
	"math"
	"strconv"
	"time"

	"github.com/lapwing-stream/lapwing/stream"
)

// alertRules are the settings of the alert state machine. Times are event time.
type alertRules struct {
	model       string
	raiseAfter  int // consecutive anomalous records of a key
	clearAfter  int // consecutive normal records of a raised key
	repeatEvery int64
	clearSilent int64
	keys        int
}

// observation is one scored record as the alert machine sees it.
type observation struct {
	source    stream.TopicPartition
	offset    int64
	key       []byte // nil: the partition as a whole stands for the key
	time      int64
	timeOK    bool
	score     float32
	anomaly   bool
	threshold float64
	version   int
	top       []Share // borrowed for the call
}

// alertBook holds the alert state of the assigned partitions. It is for one goroutine.
//
// A key has an entry only while it is raised or has a run of anomalous records, so that memory follows trouble,
// not traffic. Entries stand in two lists, both by last activity: the book's, whose head is evicted when there are
// too many, and their partition's, whose head is the first to fall silent.
type alertBook struct {
	rules   alertRules
	emit    func(key string, partition int32, r *AlertRecord) // r is valid for the call
	count   int                                               // entries of all partitions
	recent  ring
	parts   map[stream.TopicPartition]*alertPartition
	last    *alertPartition // the one asked for last
	raised  int
	scratch []byte
}

type alertEntry struct {
	key        string
	part       *alertPartition
	anomalies  int // length of the run; stands still while raised
	normals    int // length of the run of a raised key
	raised     bool
	id         string
	first      int64 // offset of the run's first record
	since      int64
	sinceOK    bool
	emitted    int64 // event time of the last alert record
	emittedOK  bool
	last       int64 // event time of the last record
	lastOK     bool
	lastOffset int64
	score      float32
	threshold  float64
	version    int
	inBook     link
	inPart     link
}

// clockWidth is how many records of a partition must agree before its clock moves past them: one record dated
// to another century must not silence every key.
const clockWidth = 16

// alertPartition has its own entries: a key that stands in two partitions (they were added, or a producer has its own
// way) counts in each apart, since nothing orders the records of one behind those of the other.
type alertPartition struct {
	source   stream.TopicPartition
	entries  map[string]*alertEntry
	quiet    int64            // below this offset records rebuild counts and nothing is emitted
	settled  map[string]int64 // restored keys: records at or below this offset change nothing
	horizon  int64            // largest of settled
	recent   ring
	times    [clockWidth]int64
	timesLen int
	timesAt  int
}

// link and ring are an intrusive list: an entry is in two of them, and moving it must not allocate.
type link struct {
	prev, next *link
	entry      *alertEntry
}

type ring struct{ head link }

func (r *ring) init() { r.head.prev, r.head.next = &r.head, &r.head }

func (r *ring) push(l *link) {
	l.prev, l.next = r.head.prev, &r.head
	l.prev.next, l.next.prev = l, l
}

func (l *link) unlink() {
	l.prev.next, l.next.prev = l.next, l.prev
}

func (r *ring) front() *alertEntry { return r.head.next.entry }

func newAlertBook(rules alertRules, emit func(string, int32, *AlertRecord)) *alertBook {
	b := &alertBook{
		rules: rules, emit: emit,
		parts: map[stream.TopicPartition]*alertPartition{},
	}
	b.recent.init()
	return b
}

// restored is what the alerts topic says about one key.
type restored struct {
	key    string
	record alertJSON
}

// alertJSON is an alert record as it stands in the topic, read back.
type alertJSON struct {
	V         int        `json:"v"`
	ID        string     `json:"id"`
	State     AlertState `json:"state"`
	Since     *time.Time `json:"since"`
	Time      *time.Time `json:"time"`
	Score     *float32   `json:"score"`
	Threshold float64    `json:"threshold"`
	Version   int        `json:"version"`
	Source    struct {
		Topic     string `json:"topic"`
		Partition int32  `json:"partition"`
		Offset    int64  `json:"offset"`
	} `json:"source"`
}

func parseAlert(value []byte) (alertJSON, bool) {
	var r alertJSON
	if err := json.Unmarshal(value, &r); err != nil || r.ID == "" || r.Source.Topic == "" {
		return r, false
	}
	return r, true
}

// assign takes a partition: quiet is the first offset whose alerts are emitted, state what the alerts topic says
// about the partition's keys, high its high watermark: positions at or above it belong to an earlier life of the topic.
func (b *alertBook) assign(source stream.TopicPartition, quiet, high int64, state []restored) {
	b.revoke(source)
	p := b.partition(source)
	p.quiet = quiet
	p.settled = map[string]int64{}
	p.horizon = -1
	for _, s := range state {
		r := &s.record
		at := r.Source.Offset
		if at >= high {
			at = -1
		}
		p.settled[s.key] = at
		p.horizon = max(p.horizon, at)
		if r.State == AlertCleared {
			continue
		}
		e := b.add(s.key, p)
		e.id, e.version, e.threshold = r.ID, r.Version, r.Threshold
		e.anomalies = b.rules.raiseAfter
		e.raised = true
		b.raised++
		e.first, e.lastOffset = r.Source.Offset, at
		if r.Since != nil {
			e.since, e.sinceOK = r.Since.UnixMilli(), true
		}
		if r.Time != nil {
			e.emitted, e.emittedOK = r.Time.UnixMilli(), true
			e.last, e.lastOK = e.emitted, true
		}
		if r.Score != nil {
			e.score = *r.Score
		} else {
			e.score = float32(math.NaN())
		}
	}
	b.evict()
}

// revoke drops the state of a partition without a word: its next owner restores it from the topic.
func (b *alertBook) revoke(source stream.TopicPartition) {
	p := b.parts[source]
	if p == nil {
		return
	}
	for e := p.recent.front(); e != nil; e = p.recent.front() {
		b.remove(e)
	}
	delete(b.parts, source)
	b.last = nil
}

func (b *alertBook) partition(source stream.TopicPartition) *alertPartition {
	if b.last != nil && b.last.source == source {
		return b.last
	}
	p := b.parts[source]
	if p == nil {
		p = &alertPartition{source: source, entries: map[string]*alertEntry{}}
		p.recent.init()
		b.parts[source] = p
	}
	b.last = p
	return p
}

func (b *alertBook) add(key string, p *alertPartition) *alertEntry {
	if e := p.entries[key]; e != nil {
		b.remove(e)
	}
	e := &alertEntry{key: key, part: p}
	e.inBook.entry, e.inPart.entry = e, e
	b.recent.push(&e.inBook)
	p.recent.push(&e.inPart)
	p.entries[key] = e
	b.count++
	return e
}

func (b *alertBook) remove(e *alertEntry) {
	e.inBook.unlink()
	e.inPart.unlink()
	delete(e.part.entries, e.key)
	b.count--
	if e.raised {
		b.raised--
	}
}

// appendAlertKey appends the key of the alerts topic.
func appendAlertKey(b []byte, model string, source stream.TopicPartition, key []byte) []byte {
	b = append(b, model...)
	b = append(b, '|')
	b = append(b, source.Topic...)
	b = append(b, '|')
	if key == nil {
		b = append(b, '#')
		return strconv.AppendInt(b, int64(source.Partition), 10)
	}
	return append(b, key...)
}

// observe feeds one record, in offset order of its partition.
func (b *alertBook) observe(o *observation) {
	p := b.partition(o.source)
	quiet := o.offset < p.quiet
	if o.timeOK {
		p.tick(o.time)
	}
	if !o.anomaly && len(p.entries) == 0 && p.settled == nil {
		return // nothing is wrong and nothing was
	}
	if !quiet {
		b.sweep(p)
	}
	b.scratch = appendAlertKey(b.scratch[:0], b.rules.model, o.source, o.key)
	if p.settled != nil {
		if o.offset > p.horizon {
			p.settled = nil
		} else if at, ok := p.settled[string(b.scratch)]; ok && o.offset <= at {
			return
		}
	}
	e := p.entries[string(b.scratch)]
	if e != nil && !quiet && o.timeOK && e.lastOK && o.time-e.last >= b.rules.clearSilent {
		b.clear(e, ReasonSilent, o.time, true)
		e = nil
	}
	if e == nil {
		if !o.anomaly {
			return
		}
		e = b.add(string(b.scratch), p)
		defer b.evict()
	} else {
		e.inBook.unlink()
		b.recent.push(&e.inBook)
		e.inPart.unlink()
		p.recent.push(&e.inPart)
	}
	e.last, e.lastOK, e.lastOffset = o.time, o.timeOK, o.offset
	e.score, e.threshold, e.version = o.score, o.threshold, o.version
	if o.anomaly {
		b.anomalous(e, o, quiet)
	} else {
		b.normal(e, o, quiet)
	}
}

func (b *alertBook) anomalous(e *alertEntry, o *observation, quiet bool) {
	e.normals = 0
	if !e.raised {
		if e.anomalies == 0 {
			e.first, e.since, e.sinceOK = o.offset, o.time, o.timeOK
		}
		e.anomalies++
		if e.anomalies < b.rules.raiseAfter || quiet {
			return
		}
		e.id = alertID(b.rules.model, o.source, e.first)
		e.raised = true
		b.raised++
		b.report(e, AlertRaised, ReasonAnomaly, o.time, o.timeOK, o.top)
		return
	}
	if !quiet && o.timeOK && e.emittedOK && o.time-e.emitted >= b.rules.repeatEvery {
		b.report(e, AlertRepeated, ReasonAnomaly, o.time, true, o.top)
	}
}

func (b *alertBook) normal(e *alertEntry, o *observation, quiet bool) {
	if !e.raised {
		b.remove(e)
		return
	}
	e.normals++
	if e.normals >= b.rules.clearAfter && !quiet {
		b.clear(e, ReasonNormal, o.time, o.timeOK)
	}
}

// clear ends an entry, with a word where it was raised.
func (b *alertBook) clear(e *alertEntry, reason string, at int64, atOK bool) {
	if e.raised {
		b.report(e, AlertCleared, reason, at, atOK, nil)
	}
	b.remove(e)
}

// report emits a record whose source is the key's own last record, whatever caused it: after a restart, records up
// to there change nothing, and every one of them has been counted.
func (b *alertBook) report(e *alertEntry, state AlertState, reason string, at int64, atOK bool, top []Share) {
	e.emitted, e.emittedOK = at, atOK
	b.emit(e.key, e.part.source.Partition, &AlertRecord{
		ID: e.id, State: state, Reason: reason,
		Since: e.since, SinceOK: e.sinceOK, Time: at, TimeOK: atOK,
		Score: e.score, Threshold: e.threshold, Version: e.version, Top: top,
		Topic: e.part.source.Topic, Partition: e.part.source.Partition, Offset: e.lastOffset,
	})
}

// evict holds the number of entries to the bound. An evicted raised key is cleared even while counts are being
// rebuilt: nobody would remember to do it later.
func (b *alertBook) evict() {
	for b.count > b.rules.keys {
		e := b.recent.front()
		b.clear(e, ReasonEvicted, e.last, e.lastOK)
	}
}

// sweep clears the keys of a partition that have been silent by its clock.
func (b *alertBook) sweep(p *alertPartition) {
	now, ok := p.clock()
	if !ok {
		return
	}
	for e := p.recent.front(); e != nil && e.lastOK && now-e.last >= b.rules.clearSilent; e = p.recent.front() {
		b.clear(e, ReasonSilent, now, true)
	}
}

func (p *alertPartition) tick(ms int64) {
	p.times[p.timesAt] = ms
	p.timesAt = (p.timesAt + 1) % clockWidth
	p.timesLen = min(p.timesLen+1, clockWidth)
}

// clock is the earliest time among the last clockWidth records.
func (p *alertPartition) clock() (ms int64, ok bool) {
	if p.timesLen < clockWidth || p.recent.front() == nil {
		return 0, false
	}
	ms = p.times[0]
	for _, t := range p.times[1:] {
		ms = min(ms, t)
	}
	return ms, true
}

// alertID names an alert by the first record of its run, so that the same trouble has the same id after a restart.
func alertID(model string, source stream.TopicPartition, first int64) string {
	b := append([]byte(model), '/')
	b = append(b, source.Topic...)
	b = append(b, '/')
	b = strconv.AppendInt(b, int64(source.Partition), 10)
	b = append(b, '/')
	return string(strconv.AppendInt(b, first, 10))
}

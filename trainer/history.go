package trainer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/stream"
)

// Labels of rows.
const (
	unlabelled int8 = -1
	normal     int8 = 0
	anomalous  int8 = 1
)

// timeEvery is the share of rows whose time is kept, to find the topic's rate without another 8 bytes a row.
const timeEvery = 16

// partition is what one partition gave, in offset order.
type partition struct {
	stream.Range
	records int64
	rows    partitionRows
	labels  []int8  // one a row, only with a label
	times   []int64 // event time of every timeEvery-th row, ms
	hours   hourRuns
	partial int64 // rows with more than half of their fields missing
	outside int64 // records of another time than was asked for
	leftOut map[string]*LeftOut
	windows *events.Windows // during the pass; nil without rolling features
	warming int64           // rows whose windows were not full yet
	keyed   keyed           // where every key has a model
}

func (p *partition) leave(reason, detail string, offset int64) {
	l := p.leftOut[reason]
	if l == nil {
		l = &LeftOut{Reason: reason}
		p.leftOut[reason] = l
	}
	l.Count++
	if len(l.Examples) < examples {
		l.Examples = append(l.Examples, Example{p.Partition, offset, detail})
	}
}

// examples of each reason are shown.
const examples = 3

// history is the usable part of the topic, in (partition, offset) order.
type history struct {
	spec       model.Spec
	width      int
	store      *rowStore
	partitions []partition // ascending
	starts     []int       // first row of each partition, then n
	n          int
	read       int64
	summaries  []Summary
	fields     []events.FieldCounts // of the whole pass
}

func (h *history) label(g int) int8 {
	p, at := h.locate(g)
	if p.labels != nil {
		return p.labels[at]
	}
	return unlabelled
}

// split gives the training rows and the validation rows: of each partition the last tenth in offset order, and at
// least one row where there are two, whatever the records' own times say.
func (h *history) split() (train, validation *rowSet) {
	train, validation = newRowSet(h.n), newRowSet(h.n)
	for p := range h.partitions {
		n := h.partitions[p].rows.n
		held := (n + 9) / 10
		if n < 2 {
			held = 0
		}
		train.addRange(h.starts[p], h.starts[p]+n-held)
		validation.addRange(h.starts[p]+n-held, h.starts[p]+n)
	}
	train.count()
	validation.count()
	return train, validation
}

// read samples and reads the history, and fills in what the report says about it.
func (j *job) read(ctx context.Context, r *Report) (*history, error) {
	cluster, err := j.Client.ClusterID(ctx)
	if err != nil {
		return nil, err
	}
	r.Cluster = cluster
	ranges, err := j.choose(ctx, r)
	if err != nil {
		return nil, err
	}
	spec, known, err := j.spec(ctx, ranges, r)
	if err != nil {
		return nil, err
	}
	h, err := j.pass(ctx, ranges, spec, r)
	if err == nil {
		err = j.usable(h, known, r)
	}
	return h, err
}

func offsets(ranges []stream.Range) (n int64) {
	for _, r := range ranges {
		n += max(r.To-r.From, 0)
	}
	return n
}

// each reads ranges to their end and hands every batch on; positions tells how far it is.
func (j *job) each(ctx context.Context, ranges []stream.Range, do func(b *stream.Batch, positions func() []int64) error) ([]stream.RangeResult, error) {
	h, err := j.Client.ReadRanges(ctx, j.Topic, ranges, stream.HistoryOptions{Readers: min(2, j.Threads)})
	if err != nil {
		return nil, err
	}
	defer h.Close()
	for {
		b, err := h.Next(ctx)
		if errors.Is(err, io.EOF) {
			return h.Results(), nil
		}
		if err != nil {
			return nil, err
		}
		if err := do(b, h.Positions); err != nil {
			return nil, err
		}
	}
}

// decodeWork is one batch of one partition.
type decodeWork struct {
	batch *stream.Batch
	to    *partition
}

// pass reads everything once: rows into the store, statistics beside them, outcomes counted. The history's store must be
// closed, also after an error.
func (j *job) pass(ctx context.Context, ranges []stream.Range, spec model.Spec, r *Report) (*history, error) {
	first, err := events.Compile(spec)
	if err != nil {
		return nil, fmt.Errorf("the spec for topic %s: %w", j.Topic, err)
	}
	h := &history{spec: spec, width: first.Columns(), partitions: make([]partition, len(ranges))}
	byID := make(map[int32]*partition, len(ranges))
	for i, rg := range ranges {
		h.partitions[i] = partition{Range: rg, leftOut: map[string]*LeftOut{}, windows: events.NewWindows(first, j.RollingKeys)}
		byID[rg.Partition] = &h.partitions[i]
	}

	total := offsets(ranges)
	if h.store, err = j.newRowStore(h.width, len(ranges), total); err != nil {
		return nil, err
	}
	h.store.early = j.early(h.width, h.store.blockRows)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Every partition belongs to one goroutine, so that its rows stay in offset order.
	workers := make([]*decodeWorker, min(j.Threads, len(ranges)))
	var group sync.WaitGroup
	for i := range workers {
		w := &decodeWorker{
			decoder: first, statistics: newStatistics(&spec), row: make([]float32, h.width),
			work: make(chan decodeWork, 2), store: h.store, sampler: j.sampler, from: r.From, until: r.Until,
		}
		if i > 0 {
			w.decoder = first.Clone()
		}
		if j.Label != "" {
			if w.label, err = events.LabelReader(spec, j.Label); err != nil {
				return nil, fmt.Errorf("label of topic %s: %w", j.Topic, err)
			}
		}
		if w.filter, err = j.filter(spec); err != nil {
			return nil, err
		}
		if w.perKey = j.PerKey; w.perKey && spec.Key != "" {
			if w.key, err = events.TextReader(spec, spec.Key); err != nil {
				return nil, fmt.Errorf("key of topic %s: %w", j.Topic, err)
			}
		}
		workers[i] = w
	}
	for _, w := range workers {
		group.Go(func() {
			for work := range w.work {
				if ctx.Err() == nil {
					if err := w.decode(work); err != nil {
						cancel(err)
					}
				}
				work.batch.Release()
			}
		})
	}
	reading := newReading(ranges)
	results, err := j.each(ctx, ranges, func(b *stream.Batch, positions func() []int64) error {
		if len(b.Records) == 0 {
			b.Release()
			return nil
		}
		reading.records += int64(len(b.Records))
		p := byID[b.Records[0].Partition]
		select {
		case workers[int(b.Records[0].Partition)%len(workers)].work <- decodeWork{b, p}:
		case <-ctx.Done():
			b.Release()
			return context.Cause(ctx)
		}
		if j.due() {
			reading.at(positions())
			j.report(reading.progress(), true)
		}
		// Too many rejected records do not end the pass: how many there were, and of what kinds, is then the same every time.
		return nil
	})
	for _, w := range workers {
		close(w.work)
	}
	group.Wait()
	if err == nil || errors.Is(err, context.Canceled) {
		err = cmp.Or(context.Cause(ctx), err)
	}
	if err != nil {
		return h, err
	}
	reading.finish()
	last := reading.progress()
	j.report(last, true)
	h.read, r.RecordsPerSecond = reading.records, last.RecordsPerSecond

	j.saw = nil // the sample's counts give way to those of all records
	all := workers[0].statistics
	h.fields = make([]events.FieldCounts, len(spec.Fields))
	r.TimeProblems = map[string]int64{}
	for i, w := range workers {
		if i > 0 {
			all.merge(w.statistics)
		}
		j.sawFields(w.filter)
		for f, n := range w.decoder.Counts() {
			addCounts(&h.fields[f], n)
		}
		for problem, n := range w.decoder.TimeProblems() {
			r.TimeProblems[problem] += n
		}
	}
	h.summaries = all.summaries()
	for i := range h.partitions {
		h.starts = append(h.starts, h.n)
		h.n += h.partitions[i].rows.n
		r.Outside += h.partitions[i].outside
		h.partitions[i].windows = nil
	}
	h.starts = append(h.starts, h.n)
	if err := h.finish(); err != nil {
		return h, err
	}
	if n := h.store.early.blocks(); n > 0 {
		j.Log.Info("rows went to the device while the topic was read", "topic", j.Topic, "rows", n*int64(h.store.blockRows), "of", h.n)
	}
	if n := h.store.spilled(); n > 0 {
		j.Log.Info("rows beyond max_memory went to a file", "topic", j.Topic, "spilled", mebibytes(n), "folder", h.store.folder())
	}
	j.count(h, results, r)
	return h, nil
}

// reading follows a read of ranges by offsets: of a compacted topic few of them hold records, and the read passes the others too.
type reading struct {
	*pace
	total, passed int64
	partitions    []PartitionProgress
	records       int64
	began         time.Time
}

func newReading(ranges []stream.Range) *reading {
	r := &reading{total: offsets(ranges), began: time.Now()}
	for _, rg := range ranges {
		r.partitions = append(r.partitions, PartitionProgress{Range: rg, At: rg.From})
	}
	r.pace = newPace(r.total, r.began)
	return r
}

// at takes how far each range has been read.
func (r *reading) at(positions []int64) {
	r.passed = 0
	for i := range r.partitions {
		p := &r.partitions[i]
		p.At = min(max(positions[i], p.From), max(p.To, p.From))
		r.passed += p.At - p.From
	}
}

// finish is at the end: everything has been passed, whatever the last offsets hold.
func (r *reading) finish() {
	for i := range r.partitions {
		r.partitions[i].At = r.partitions[i].To
	}
	r.passed = r.total
}

func (r *reading) progress() Progress {
	now := time.Now()
	p := Progress{Stage: "read", Records: r.records, TotalRecords: r.total, Partitions: r.partitions}
	p.Left = r.left(r.passed, now)
	p.Done = float64(r.passed) / float64(max(r.total, 1))
	if s := now.Sub(r.began).Seconds(); s > 0 {
		p.RecordsPerSecond = float64(r.records) / s
	}
	return p
}

// decodeWorker decodes the batches of its partitions.
type decodeWorker struct {
	decoder    *events.Decoder
	label      func([]byte) (positive, ok bool)
	statistics statistics
	row        []float32
	filter     *events.Filter // nil: every record
	sampler    *sampler
	from       int64 // times that the ranges were found by, ms; -1 = open
	until      int64
	work       chan decodeWork
	store      *rowStore // shared
	perKey     bool
	key        func([]byte) ([]byte, bool) // of a record's value; nil: the Kafka key
}

func (w *decodeWorker) decode(work decodeWork) error {
	p := work.to
	for i := range work.batch.Records {
		rec := &work.batch.Records[i]
		p.records++
		if w.until >= 0 && rec.Time >= w.until || rec.Time < w.from {
			p.outside++
		}
		if rec.Value == nil {
			p.leave(tombstone, "", rec.Offset)
			continue
		}
		if w.filter != nil && !w.filter.Keeps(rec.Value) {
			p.leave(filteredOut, "", rec.Offset)
			continue
		}
		drawn := w.sampler.draws(rec.Partition, rec.Offset)
		if !drawn && p.windows == nil {
			p.leave(notInSample, "", rec.Offset)
			continue
		}
		// Every record that the filter keeps, drawn or not, is entered into its key's window, whatever becomes of its row.
		result := w.decoder.DecodeNext(p.windows, rec.Key, rec.Value, w.row)
		if !drawn {
			p.leave(notInSample, "", rec.Offset)
			continue
		}
		switch result.Outcome {
		case events.OK, events.Partial:
		case events.Tombstone:
			p.leave(tombstone, "", rec.Offset)
			continue
		case events.NotFinite:
			// serve gives such a record no score, so it has no part in the distribution of scores either.
			p.leave(notFinite, result.Detail, rec.Offset)
			continue
		default:
			reason := result.Reason
			if reason == "" {
				reason = "rejected"
			}
			p.leave(reason, result.Detail, rec.Offset)
			continue
		}
		if result.Outcome == events.Partial {
			p.partial++
		}
		if result.Warming {
			p.warming++
		}
		at, known := result.Time, result.TimeOK
		if !known {
			at, known = rec.Time, rec.Time >= 0
		}
		p.hours.add(p.rows.n, at, known)
		if known && p.rows.n%timeEvery == 0 {
			p.times = append(p.times, at)
		}
		if w.perKey {
			w.enterKey(p, rec, at, known)
		}
		if err := p.rows.add(w.store, w.row); err != nil {
			return err
		}
		w.statistics.add(w.row)
		if w.label != nil {
			l := unlabelled
			if positive, ok := w.label(rec.Value); ok && positive {
				l = anomalous
			} else if ok {
				l = normal
			}
			p.labels = append(p.labels, l)
		}
	}
	return nil
}

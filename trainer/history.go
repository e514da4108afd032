package trainer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
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

// chunkRows is how many rows are allocated at once for a partition: small enough that a thousand nearly empty
// partitions cost little.
const chunkRows = 512

// timeEvery is the share of rows whose time is kept, to find the topic's rate without another 8 bytes a row.
const timeEvery = 16

// partition is what one partition gave, in offset order.
type partition struct {
	stream.Range
	records int64
	chunks  [][]float32 // chunkRows rows each
	labels  []int8      // one a row, only with a label
	n       int         // rows
	times   []int64     // event time of every timeEvery-th row, ms
	partial int64       // rows with more than half of their fields missing
	leftOut map[string]*LeftOut
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
	partitions []partition // ascending
	starts     []int       // first row of each partition, then n
	n          int
	read       int64
	summaries  []Summary
	fields     []events.FieldCounts // of the whole pass
}

// row returns row g, which must not be changed.
func (h *history) row(g int) []float32 {
	p := sort.SearchInts(h.starts, g+1) - 1
	at := g - h.starts[p]
	c := h.partitions[p].chunks[at/chunkRows]
	from := at % chunkRows * h.width
	return c[from : from+h.width]
}

func (h *history) label(g int) int8 {
	p := sort.SearchInts(h.starts, g+1) - 1
	if l := h.partitions[p].labels; l != nil {
		return l[g-h.starts[p]]
	}
	return unlabelled
}

// gather copies rows into a row-major buffer.
func (h *history) gather(rows []int32, to []float32) []float32 {
	to = to[:0]
	for _, g := range rows {
		to = append(to, h.row(int(g))...)
	}
	return to
}

// split gives the training rows and the validation rows: of each partition the last tenth in offset order, and at
// least one row where there are two, whatever the records' own times say.
func (h *history) split() (train, validation []int32) {
	for p := range h.partitions {
		n := h.partitions[p].n
		held := (n + 9) / 10
		if n < 2 {
			held = 0
		}
		for i := range n {
			g := int32(h.starts[p] + i)
			if i < n-held {
				train = append(train, g)
			} else {
				validation = append(validation, g)
			}
		}
	}
	return train, validation
}

// bytesPerRow is what a row costs at the worst moment: its values, then its score in place (4) and sorted (8), or
// before that twice its number in the shuffle (8), and its label.
func bytesPerRow(width int, label bool) int64 {
	b := int64(4*width + 12)
	if label {
		b++
	}
	return b
}

// read samples and reads the history, and fills in what the report says about it.
func (j *job) read(ctx context.Context, r *Report) (*history, error) {
	cluster, err := j.Client.ClusterID(ctx)
	if err != nil {
		return nil, err
	}
	r.Cluster = cluster
	ranges := j.Ranges
	if ranges == nil {
		// The end is fixed here, once: what producers write from now on is not part of this run.
		if ranges, err = j.Client.Ranges(ctx, j.Topic); err != nil {
			return nil, err
		}
	}
	ranges = slices.Clone(ranges)
	slices.SortFunc(ranges, func(a, b stream.Range) int { return int(a.Partition) - int(b.Partition) })
	if offsets(ranges) == 0 {
		return nil, emptyError(j.Topic, len(ranges))
	}
	spec, known, err := j.spec(ctx, ranges, r)
	if err != nil {
		return nil, err
	}
	h, err := j.pass(ctx, ranges, spec, r)
	if err != nil {
		return nil, err
	}
	return h, j.usable(h, known, r)
}

func offsets(ranges []stream.Range) (n int64) {
	for _, r := range ranges {
		n += max(r.To-r.From, 0)
	}
	return n
}

// each reads ranges to their end and hands every batch on.
func (j *job) each(ctx context.Context, ranges []stream.Range, do func(*stream.Batch) error) ([]stream.RangeResult, error) {
	h, err := j.Client.ReadRanges(ctx, j.Topic, ranges, stream.HistoryOptions{})
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
		if err := do(b); err != nil {
			return nil, err
		}
	}
}

const (
	// sampleRows is how much inference looks at, at least where there is as much and at most twice that.
	sampleRows = 8192
	// sampleWhole: topics up to this many offsets are read whole for the sample, since that takes less time than
	// positioning a consumer for every stripe.
	sampleWhole = 1 << 16
	// sampleStripes are spread over each partition, so that a gap or an odd first hour does not decide.
	sampleStripes = 8
	// sampleBytes bounds the sample where records are large.
	sampleBytes = 64 << 20
)

// stripes cuts ranges into up to sampleStripes short ones for each partition, from its beginning to its end.
func stripes(ranges []stream.Range) [][]stream.Range {
	if offsets(ranges) <= sampleWhole {
		return [][]stream.Range{ranges}
	}
	each := int64(max(sampleRows/sampleStripes/len(ranges), 1))
	out := make([][]stream.Range, sampleStripes)
	for _, r := range ranges {
		if r.To-r.From <= each*sampleStripes {
			out[0] = append(out[0], r)
			continue
		}
		for i := range int64(sampleStripes) {
			from := r.From + (r.To-r.From-each)*i/(sampleStripes-1)
			out[i] = append(out[i], stream.Range{Partition: r.Partition, From: from, To: from + each})
		}
	}
	return out
}

// thinned keeps up to cap values of one partition, evenly spread over what it was given in offset order: when it is
// full, every other one goes and only every second of those to come is taken. How many there will be need not be
// known, which matters where a compacted topic is nearly all holes.
type thinned struct {
	values [][]byte
	every  int
	seen   int
	size   int
}

func (t *thinned) add(value []byte, values, bytes int) {
	t.seen++
	if t.every == 0 {
		t.every = 1
	}
	if (t.seen-1)%t.every != 0 {
		return
	}
	t.values = append(t.values, slices.Clone(value))
	t.size += len(value)
	for len(t.values) > max(values, 1) || t.size > bytes && len(t.values) > 1 {
		kept := t.values[:0]
		t.size = 0
		for i, v := range t.values {
			if i%2 == 0 {
				kept = append(kept, v)
				t.size += len(v)
			}
		}
		clear(t.values[len(kept):])
		t.values = kept
		t.every *= 2
	}
}

// sample reads the values that inference looks at, in (partition, offset) order.
func (j *job) sample(ctx context.Context, ranges []stream.Range) ([][]byte, error) {
	// One list a partition and stripe: what is kept does not depend on which partition came first.
	type place struct {
		partition int32
		stripe    int
	}
	kept := map[place]*thinned{}
	n := 0
	take := func(stripe int, ranges []stream.Range, values, bytes int) error {
		_, err := j.each(ctx, ranges, func(b *stream.Batch) error {
			defer b.Release()
			for _, rec := range b.Records {
				if rec.Value == nil {
					continue
				}
				at := place{rec.Partition, stripe}
				if kept[at] == nil {
					kept[at] = &thinned{}
				}
				kept[at].add(rec.Value, values/len(ranges), bytes/len(ranges))
				n++
			}
			return nil
		})
		return err
	}
	all := stripes(ranges)
	for i, s := range all {
		if len(s) == 0 {
			continue
		}
		j.report(Progress{Stage: "read", TotalRecords: offsets(ranges)}, false)
		if err := take(i, s, 2*sampleRows/len(all), sampleBytes/len(all)); err != nil {
			return nil, err
		}
	}
	if n < j.MinRows && len(all) > 1 {
		// A compacted topic may be nearly all holes: look at everything.
		clear(kept)
		if err := take(0, ranges, 2*sampleRows, sampleBytes); err != nil {
			return nil, err
		}
	}
	places := slices.SortedFunc(maps.Keys(kept), func(a, b place) int {
		return cmp.Or(cmp.Compare(a.partition, b.partition), cmp.Compare(a.stripe, b.stripe))
	})
	var out [][]byte
	for _, p := range places {
		out = append(out, kept[p].values...)
	}
	return out, nil
}

// spec returns the given spec or the inferred one, and the names of all fields that the sample shows.
func (j *job) spec(ctx context.Context, ranges []stream.Range, r *Report) (model.Spec, []string, error) {
	started := time.Now()
	sample, err := j.sample(ctx, ranges)
	if err != nil {
		return model.Spec{}, nil, err
	}
	r.Seconds.Sample = time.Since(started).Seconds()
	o := events.InferOptions{Format: j.Format, Label: j.Label, Exclude: j.Exclude, Key: j.Key, TimeField: j.Time, Header: j.Header, Delimiter: j.Delimiter}
	if j.Spec != nil {
		o.Format, o.Header, o.Delimiter = j.Spec.Format, j.Spec.Header, j.Spec.Delimiter
		for _, f := range j.Spec.Fields {
			if f.Name == j.Label {
				return model.Spec{}, nil, &InputError{
					What: fmt.Sprintf("field %s is the label and a feature: a model that sees the truth learns nothing else", f.Name),
					Next: "remove " + f.Name + " from the spec, or do without the label",
				}
			}
		}
	}
	inferred, notes, err := events.Infer(sample, o)
	if j.Spec == nil && err != nil {
		return model.Spec{}, nil, fmt.Errorf("topic %s: %w", j.Topic, err)
	}
	known := make([]string, 0, len(inferred.Fields)+len(notes))
	for _, f := range inferred.Fields {
		known = append(known, f.Name)
	}
	for _, n := range notes {
		known = append(known, n.Name)
	}
	slices.Sort(known)
	known = slices.Compact(known)
	if j.Spec != nil {
		return *j.Spec, known, nil
	}
	r.Inferred, r.Notes = true, notes
	return inferred, known, nil
}

// decodeWork is one batch of one partition.
type decodeWork struct {
	batch *stream.Batch
	to    *partition
}

// pass reads everything once: rows into memory, statistics beside them, outcomes counted.
func (j *job) pass(ctx context.Context, ranges []stream.Range, spec model.Spec, r *Report) (*history, error) {
	first, err := events.Compile(spec)
	if err != nil {
		return nil, fmt.Errorf("the spec for topic %s: %w", j.Topic, err)
	}
	h := &history{spec: spec, width: first.Columns(), partitions: make([]partition, len(ranges))}
	byID := make(map[int32]*partition, len(ranges))
	for i, rg := range ranges {
		h.partitions[i] = partition{Range: rg, leftOut: map[string]*LeftOut{}}
		byID[rg.Partition] = &h.partitions[i]
	}

	fits := j.MaxMemory / bytesPerRow(h.width, j.Label != "")
	var rows, rejected atomic.Int64
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Every partition belongs to one goroutine, so that its rows stay in offset order.
	workers := make([]*decodeWorker, min(j.Threads, len(ranges)))
	var group sync.WaitGroup
	for i := range workers {
		w := &decodeWorker{
			decoder: first, statistics: newStatistics(&spec), row: make([]float32, h.width),
			work: make(chan decodeWork, 2), rows: &rows, rejected: &rejected, fits: fits,
		}
		if i > 0 {
			w.decoder = first.Clone()
		}
		if j.Label != "" {
			if w.label, err = events.NewLabelReader(spec, j.Label); err != nil {
				return nil, fmt.Errorf("label of topic %s: %w", j.Topic, err)
			}
		}
		workers[i] = w
	}
	for _, w := range workers {
		group.Go(func() {
			for work := range w.work {
				if ctx.Err() == nil {
					w.decode(work)
				}
				work.batch.Release()
			}
		})
	}
	total := offsets(ranges)
	started := time.Now()
	results, err := j.each(ctx, ranges, func(b *stream.Batch) error {
		if len(b.Records) == 0 {
			b.Release()
			return nil
		}
		h.read += int64(len(b.Records))
		p := byID[b.Records[0].Partition]
		select {
		case workers[int(b.Records[0].Partition)%len(workers)].work <- decodeWork{b, p}:
		case <-ctx.Done():
			b.Release()
			return context.Cause(ctx)
		}
		j.report(readProgress(h.read, total, started), false)
		switch {
		case rows.Load() > fits:
			return memoryError(j, fits, h.width)
		case float64(rejected.Load()) > j.MaxRejected*float64(total):
			// Already more than could be forgiven if every offset held a record: the rest cannot help.
			return errTooManyRejected
		}
		return nil
	})
	for _, w := range workers {
		close(w.work)
	}
	group.Wait()
	if err == nil && rows.Load() > fits {
		err = memoryError(j, fits, h.width)
	}
	if err != nil && !errors.Is(err, errTooManyRejected) {
		return nil, err
	}
	j.report(readProgress(h.read, total, started), true)
	if s := time.Since(started).Seconds(); s > 0 {
		r.RecordsPerSecond = float64(h.read) / s
	}

	total = 0
	all := workers[0].statistics
	h.fields = make([]events.FieldCounts, len(spec.Fields))
	r.TimeProblems = map[string]int64{}
	for i, w := range workers {
		if i > 0 {
			all.merge(w.statistics)
		}
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
		h.n += h.partitions[i].n
	}
	h.starts = append(h.starts, h.n)
	j.count(h, results, r)
	if err != nil {
		return nil, rejectedError(j, r)
	}
	return h, nil
}

func addCounts(to *events.FieldCounts, n events.FieldCounts) {
	to.Name = n.Name
	to.Read += n.Read
	to.NumericText += n.NumericText
	to.Absent += n.Absent
	to.Null += n.Null
	to.NotFinite += n.NotFinite
	to.Unseen += n.Unseen
	to.WrongBool += n.WrongBool
	to.WrongText += n.WrongText
	to.WrongObject += n.WrongObject
	to.WrongArray += n.WrongArray
	to.WrongNumber += n.WrongNumber
}

var errTooManyRejected = errors.New("too many undecodable records")

func readProgress(n, total int64, started time.Time) Progress {
	p := Progress{Stage: "read", Records: n, TotalRecords: total}
	if s := time.Since(started).Seconds(); s > 0 && n > 0 {
		p.RecordsPerSecond = float64(n) / s
		p.Left = time.Duration(float64(max(total-n, 0)) / p.RecordsPerSecond * float64(time.Second))
	}
	return p
}

// decodeWorker decodes the batches of its partitions.
type decodeWorker struct {
	decoder        *events.Decoder
	label          func([]byte) (positive, ok bool)
	statistics     statistics
	row            []float32
	work           chan decodeWork
	rows, rejected *atomic.Int64 // shared
	fits           int64
}

func (w *decodeWorker) decode(work decodeWork) {
	p, width := work.to, len(w.row)
	for i := range work.batch.Records {
		rec := &work.batch.Records[i]
		p.records++
		if rec.Value == nil {
			p.leave(tombstone, "", rec.Offset)
			continue
		}
		result := w.decoder.Decode(rec.Value, w.row)
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
			w.rejected.Add(1)
			continue
		}
		if w.rows.Add(1) > w.fits {
			return
		}
		if result.Outcome == events.Partial {
			p.partial++
		}
		at := p.n % chunkRows * width
		if at == 0 {
			p.chunks = append(p.chunks, make([]float32, chunkRows*width))
		}
		copy(p.chunks[len(p.chunks)-1][at:], w.row)
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
		if p.n%timeEvery == 0 {
			switch {
			case result.TimeOK:
				p.times = append(p.times, result.Time)
			case rec.Time >= 0:
				p.times = append(p.times, rec.Time)
			}
		}
		p.n++
	}
}

// count fills in ranges, rows and what was left out.
func (j *job) count(h *history, results []stream.RangeResult, r *Report) {
	lost := map[int32]int64{}
	for _, res := range results {
		lost[res.Range.Partition] += res.Lost
	}
	all := map[string]*LeftOut{}
	for i := range h.partitions {
		p := &h.partitions[i]
		r.Ranges = append(r.Ranges, model.PartitionRange{Partition: p.Partition, From: p.From, To: p.To, Records: p.records, Lost: lost[p.Partition]})
		r.Partial += p.partial
		for reason, l := range p.leftOut {
			to := all[reason]
			if to == nil {
				to = &LeftOut{Reason: reason}
				all[reason] = to
			}
			to.Count += l.Count
			to.Examples = append(to.Examples, l.Examples[:min(len(l.Examples), examples-len(to.Examples))]...)
		}
	}
	r.Rows = model.Rows{Read: h.read, Used: int64(h.n)}
	for _, reason := range slices.Sorted(maps.Keys(all)) {
		if r.Rows.LeftOut == nil {
			r.Rows.LeftOut = map[string]int64{}
		}
		r.Rows.LeftOut[reason] = all[reason].Count
		r.LeftOut = append(r.LeftOut, *all[reason])
	}
	slices.SortStableFunc(r.LeftOut, func(a, b LeftOut) int { return int(min(max(b.Count-a.Count, -1), 1)) })
	r.Spec = h.spec
	r.RecordsPerDay = perDay(h)
}

// perDay is the topic's rate in event time, from the middle nine tenths of the sampled times, so that one record
// dated 2262 changes nothing; 0 = not known.
func perDay(h *history) float64 {
	var times []int64
	for i := range h.partitions {
		times = append(times, h.partitions[i].times...)
	}
	slices.Sort(times)
	if len(times) < 20 {
		return 0
	}
	weight := float64(h.n) / float64(len(times)) // rows that one sampled time stands for
	cut := len(times) / 20
	times = times[cut : len(times)-cut]
	span := float64(times[len(times)-1] - times[0])
	if span <= 0 {
		return 0
	}
	return float64(len(times)-1) * weight / span * 86_400_000
}

// Reasons for which a record is no row although serve makes no dead letter of it.
const (
	tombstone = "tombstone"
	notFinite = "not_finite"
)

func (l *LeftOut) rejected() bool { return l.Reason != tombstone && l.Reason != notFinite }

// rejects counts the records that serve would send to the dead-letter topic.
func rejects(left []LeftOut) (n int64) {
	for _, l := range left {
		if l.rejected() {
			n += l.Count
		}
	}
	return n
}

// usable says whether a model may be made from what was read.
func (j *job) usable(h *history, known []string, r *Report) error {
	if n := rejects(r.LeftOut); float64(n) > j.MaxRejected*float64(r.Rows.Read) {
		return rejectedError(j, r)
	}
	var lost int64
	for _, p := range r.Ranges {
		lost += p.Lost
	}
	if total := offsets(j.ranges(r)); lost > 0 {
		j.Log.Warn("retention deleted records while the history was read", "topic", j.Topic, "lost_offsets", lost, "of", total)
		if float64(lost) > j.MaxLost*float64(total) {
			return lostError(j, lost, total)
		}
	}
	if h.n < j.MinRows {
		return tooFewRowsError(j, r)
	}
	var gone []absentField
	for i := range h.fields {
		c := &h.fields[i]
		if c.Read+c.NumericText+c.NotFinite+c.Unseen == 0 {
			name := h.spec.Fields[i].Name
			gone = append(gone, absentField{name: name, nearest: nearest(name, without(known, name)), wrongType: c.Wrong()})
		}
	}
	if gone != nil {
		return &absentFieldsError{topic: j.Topic, rows: h.n, fields: gone}
	}
	return nil
}

func (j *job) ranges(r *Report) []stream.Range {
	out := make([]stream.Range, len(r.Ranges))
	for i, p := range r.Ranges {
		out[i] = stream.Range{Partition: p.Partition, From: p.From, To: p.To}
	}
	return out
}

func without(names []string, name string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == name })
}

// nearest is the name with the fewest edits, ignoring case and what stands before the last dot; "" without names.
func nearest(name string, names []string) string {
	short := func(s string) string { return strings.ToLower(s[strings.LastIndexByte(s, '.')+1:]) }
	best, at := math.MaxInt, ""
	for _, n := range names {
		if d := min(edits(strings.ToLower(name), strings.ToLower(n)), edits(short(name), short(n))+1); d < best {
			best, at = d, n
		}
	}
	return at
}

// edits is Levenshtein's distance.
func edits(a, b string) int {
	x, y := []rune(a), []rune(b)
	row := make([]int, len(y)+1)
	for i := range row {
		row[i] = i
	}
	for i, c := range x {
		diagonal := row[0]
		row[0] = i + 1
		for k, d := range y {
			cost := diagonal
			if c != d {
				cost++
			}
			diagonal = row[k+1]
			row[k+1] = min(cost, row[k]+1, row[k+1]+1)
		}
	}
	return row[len(y)]
}

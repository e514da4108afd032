package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

// BoundedOptions say how a bounded input is scored.
type BoundedOptions struct {
	Data          []byte         // the model's file; it is held to its self-test first
	Ref           registry.Ref   // model's name and version, as printed; version 0 = none
	Engine        kernels.Engine // what scores it
	Source        string         // shown as the records' topic; their line is shown as the offset
	Key           string         // field shown as the key of entries without one; "" = the model spec's
	Contributions string         // records that carry top: anomalies or all; default anomalies
	MaxBatch      int            // records scored together; default 4096
	RollingKeys   int            // keys of a partition whose last records are held for rolling features; default 100000
	Where         *events.Where  // records that it leaves out are counted, and that is all; nil = none

	// From are the offsets, by partition, before which ScoreRecords only fills the windows of rolling features: nothing
	// comes of those records and nothing is counted. Default none.
	From map[int32]int64
}

// Scored is what became of one entry: a score record, or the reason why there is none.
type Scored struct {
	Line    int // of a file's entry
	Source  stream.TopicPartition
	Offset  int64
	Key     []byte
	Value   []byte  // the entry's own
	Time    int64   // of the entry, ms since 1970; -1 = none
	JSON    []byte  // score record, nil where Reason is set
	Score   float64 // +Inf where the score is not finite, and so an anomaly
	Anomaly bool
	Reason  string // short code: not_json, no_features, tombstone, …
	Detail  string
}

// BoundedReport counts what became of the entries of a bounded input.
type BoundedReport struct {
	Records, Scored, Anomalies, NotFinite, Partial, Warming, Tombstones int64
	LeftOut                                                             int64            // by Where
	Rejected                                                            map[string]int64 // by reason
}

// ScoreBounded scores the entries that next gives, until io.EOF, by the code that scores a stream: the same record
// gets the same score. Rolling features look back on the entries before, in their order: the input stands for one
// partition. emit gets every entry in order; what it gets is valid for the call. A *events.RowError from
// next is an entry that could not be read: it is emitted with its reason and reading goes on.
func ScoreBounded(ctx context.Context, o BoundedOptions, next func() (events.Entry, error), emit func(*Scored) error) (BoundedReport, error) {
	b, err := newBounded(o, emit)
	if err != nil {
		return b.report, err
	}
	for {
		if err := ctx.Err(); err != nil {
			return b.report, err
		}
		e, err := next()
		var row *events.RowError
		switch {
		case errors.Is(err, io.EOF):
			return b.report, b.flush()
		case errors.As(err, &row):
			if err := b.flush(); err != nil {
				return b.report, err
			}
			b.report.Records++
			b.report.Rejected[row.Reason]++
			if err := emit(&Scored{Line: row.Line, Time: -1, Reason: row.Reason, Detail: row.Detail}); err != nil {
				return b.report, err
			}
			continue
		case err != nil:
			return b.report, errors.Join(b.flush(), err)
		}
		if e.Time == events.NoTime {
			e.Time = -1
		}
		b.add(stream.Record{Topic: o.Source, Offset: int64(e.Line), Key: e.Key, Value: e.Value, Time: e.Time})
		if len(b.m.records) == b.o.MaxBatch {
			if err := b.flush(); err != nil {
				return b.report, err
			}
		}
	}
}

// ScoreRecords scores the records of batches that next gives, until io.EOF, as ScoreBounded scores entries; it releases the
// batches. Each partition has windows of its own, so its records must come in offset order; partitions may interleave.
func ScoreRecords(ctx context.Context, o BoundedOptions, next func(context.Context) (*stream.Batch, error), emit func(*Scored) error) (BoundedReport, error) {
	b, err := newBounded(o, emit)
	if err != nil {
		return b.report, err
	}
	for {
		batch, err := next(ctx)
		if errors.Is(err, io.EOF) {
			return b.report, nil
		}
		if err != nil {
			return b.report, err
		}
		for i := range batch.Records {
			b.add(batch.Records[i])
			if len(b.m.records) == b.o.MaxBatch || i == len(batch.Records)-1 {
				if err := b.flush(); err != nil {
					batch.Release()
					return b.report, err
				}
			}
		}
		batch.Release()
	}
}

// bounded is the scoring of one bounded input.
type bounded struct {
	o       BoundedOptions
	report  BoundedReport
	emit    func(*Scored) error
	m       micro
	decoder *events.Decoder
	filter  *events.Filter // nil: every record
	windows map[stream.TopicPartition]*events.Windows
	text    []byte
}

func newBounded(o BoundedOptions, emit func(*Scored) error) (*bounded, error) {
	defaulted(&o.MaxBatch, 4096)
	defaulted(&o.RollingKeys, events.DefaultWindowKeys)
	defaulted(&o.Contributions, ContributionsAnomalies)
	b := &bounded{o: o, emit: emit, report: BoundedReport{Rejected: map[string]int64{}}, windows: map[stream.TopicPartition]*events.Windows{}}
	live, err := loadModel(o.Engine, o.Data, modelNeeds{key: o.Key})
	if err != nil {
		return b, fmt.Errorf("model %s cannot be used: %w", o.Ref, err)
	}
	live.ref, live.version = o.Ref, o.Ref.Version
	b.m.live, b.decoder = live, live.decoder.Clone()
	if o.Where != nil {
		if b.filter, err = o.Where.Filter(live.model.Spec); err != nil {
			return b, fmt.Errorf("the filter %s for model %s: %w", o.Where, o.Ref, err)
		}
	}
	return b, nil
}

// windowsOf makes a partition's windows when its first record comes.
func (b *bounded) windowsOf(tp stream.TopicPartition) *events.Windows {
	w, ok := b.windows[tp]
	if !ok {
		w = events.NewWindows(b.decoder, b.o.RollingKeys)
		b.windows[tp] = w
	}
	return w
}

func (b *bounded) quiet(r *stream.Record) bool { return r.Offset < b.o.From[r.Partition] }

// add takes a record into the batch. What the filter leaves out is no part of its key's window either, as in training.
func (b *bounded) add(r stream.Record) {
	if b.filter != nil && !b.filter.Keeps(r.Value) {
		if !b.quiet(&r) {
			b.report.Records++
			b.report.LeftOut++
		}
		return
	}
	b.m.records = append(b.m.records, r)
}

func (b *bounded) flush() error {
	m, all := &b.m, b.o.Contributions == ContributionsAll
	if len(m.records) == 0 {
		return nil
	}
	m.decode(b.decoder, b.windowsOf)
	if err := m.score(all); err != nil {
		return err
	}
	for i := range m.records {
		r, it := &m.records[i], &m.items[i]
		if b.quiet(r) {
			continue
		}
		b.report.Records++
		out := Scored{Line: int(r.Offset), Source: stream.TopicPartition{Topic: r.Topic, Partition: r.Partition}, Offset: r.Offset, Key: r.Key, Value: r.Value, Time: r.Time}
		switch it.outcome {
		case events.Tombstone:
			b.report.Tombstones++
			out.Reason = events.Tombstone.String()
		case events.Rejected, events.NoFeatures:
			b.report.Rejected[it.reason]++
			out.Reason, out.Detail = it.reason, it.detail
		default:
			record := m.record(i, all)
			b.text = record.AppendJSON(b.text[:0])
			out.JSON, out.Anomaly, out.Score = b.text, it.anomaly, float64(it.score)
			if it.status == StatusNotFinite {
				out.Score = math.Inf(1)
			}
			b.report.Scored++
			b.report.count(it)
		}
		if err := b.emit(&out); err != nil {
			return err
		}
	}
	m.records = m.records[:0]
	return nil
}

func (r *BoundedReport) count(it *item) {
	if it.anomaly {
		r.Anomalies++
	}
	switch it.status {
	case StatusNotFinite:
		r.NotFinite++
	case StatusPartial:
		r.Partial++
	case StatusWarming:
		r.Warming++
	}
}

// Merge adds the counts of another input.
func (r *BoundedReport) Merge(o BoundedReport) {
	r.Records += o.Records
	r.Scored += o.Scored
	r.Anomalies += o.Anomalies
	r.NotFinite += o.NotFinite
	r.Partial += o.Partial
	r.Warming += o.Warming
	r.Tombstones += o.Tombstones
	r.LeftOut += o.LeftOut
	sum := maps.Clone(o.Rejected)
	for k, n := range r.Rejected {
		sum[k] += n
	}
	r.Rejected = sum
}

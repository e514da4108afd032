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
	RollingKeys   int            // keys whose last records are held for rolling features; default 100000
}

// Scored is what became of one entry: a score record, or the reason why there is none.
type Scored struct {
	Line    int
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
	Rejected                                                            map[string]int64 // by reason
}

// ScoreBounded scores the entries that next gives, until io.EOF, by the code that scores a stream: the same record
// gets the same score. Rolling features look back on the entries before, in their order: the input stands for one
// partition. emit gets every entry in order; what it gets is valid for the call. A *events.RowError from
// next is an entry that could not be read: it is emitted with its reason and reading goes on.
func ScoreBounded(ctx context.Context, o BoundedOptions, next func() (events.Entry, error), emit func(*Scored) error) (BoundedReport, error) {
	report := BoundedReport{Rejected: map[string]int64{}}
	defaulted(&o.MaxBatch, 4096)
	defaulted(&o.RollingKeys, events.DefaultWindowKeys)
	defaulted(&o.Contributions, ContributionsAnomalies)
	live, err := loadModel(o.Engine, o.Data, modelNeeds{key: o.Key})
	if err != nil {
		return report, fmt.Errorf("model %s cannot be used: %w", o.Ref, err)
	}
	live.ref, live.version = o.Ref, o.Ref.Version
	b := bounded{o: &o, report: &report, emit: emit, m: micro{live: live}, decoder: live.decoder.Clone()}
	b.windows = events.NewWindows(b.decoder, o.RollingKeys)
	for {
		if err := ctx.Err(); err != nil {
			return report, err
		}
		e, err := next()
		var row *events.RowError
		switch {
		case errors.Is(err, io.EOF):
			return report, b.flush()
		case errors.As(err, &row):
			if err := b.flush(); err != nil {
				return report, err
			}
			report.Records++
			report.Rejected[row.Reason]++
			if err := emit(&Scored{Line: row.Line, Time: -1, Reason: row.Reason, Detail: row.Detail}); err != nil {
				return report, err
			}
			continue
		case err != nil:
			return report, errors.Join(b.flush(), err)
		}
		b.add(e)
		if len(b.m.records) == o.MaxBatch {
			if err := b.flush(); err != nil {
				return report, err
			}
		}
	}
}

type bounded struct {
	o       *BoundedOptions
	report  *BoundedReport
	emit    func(*Scored) error
	m       micro
	decoder *events.Decoder
	windows *events.Windows
	text    []byte
}

func (b *bounded) add(e events.Entry) {
	if e.Time == events.NoTime {
		e.Time = -1
	}
	b.m.records = append(b.m.records, stream.Record{Topic: b.o.Source, Offset: int64(e.Line), Key: e.Key, Value: e.Value, Time: e.Time})
}

func (b *bounded) flush() error {
	m, all := &b.m, b.o.Contributions == ContributionsAll
	if len(m.records) == 0 {
		return nil
	}
	m.decode(b.decoder, func(stream.TopicPartition) *events.Windows { return b.windows })
	if err := m.score(all); err != nil {
		return err
	}
	for i := range m.records {
		r, it := &m.records[i], &m.items[i]
		b.report.Records++
		out := Scored{Line: int(r.Offset), Key: r.Key, Value: r.Value, Time: r.Time}
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
	sum := maps.Clone(o.Rejected)
	for k, n := range r.Rejected {
		sum[k] += n
	}
	r.Rejected = sum
}

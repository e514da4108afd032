package server

import (
	"math"
	"slices"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/stream"
)

// topShares is how many fields an output record names.
const topShares = 3

// leastShare is the smallest share that is named: anything below prints as 0.
const leastShare = 5e-5

// micro is a micro-batch on its way through decode, score and encode. All of it is done by one model. It is for
// one goroutine at a time and is used again.
type micro struct {
	live    *liveModel
	records []stream.Record // the batch's own where there is one only, else copies in joined
	joined  []stream.Record
	filter  *events.Filter // the decode goroutine's own; nil: every record
	items   []item         // one for each of records
	rows    []float32      // row-major, for the items with a row
	scores  []float32      // one a row

	// Of the rows that need more than a score, in order:
	chosen         []int32
	chosenRows     []float32
	contributions  []float32
	reconstruction []float32

	out    []stream.Record // memory of a parcel's output, between parcels
	text   []byte
	second writtenSecond
	head   []byte // what score records of the partition being encoded begin with; empty = not made yet

	shares []Share // scratch: top of the record being encoded
	byPart []float64
}

// item is what became of one record.
type item struct {
	outcome events.Outcome
	reason  string
	detail  string
	time    int64
	timeOK  bool
	row     int32 // index into rows, -1 = none
	chosen  int32 // index into chosen, -1 = none
	score   float32
	status  ScoreStatus
	anomaly bool
	leftOut bool // by the stream's filter: nothing else is set
}

// take makes the micro-batch of the records of batches, which stay theirs.
func (m *micro) take(batches []*stream.Batch) {
	if len(batches) == 1 {
		m.records = batches[0].Records
		return
	}
	m.joined = m.joined[:0]
	for _, b := range batches {
		m.joined = append(m.joined, b.Records...)
	}
	m.records = m.joined
}

// leave forgets the records, which are about to go back.
func (m *micro) leave() {
	clear(m.joined)
	m.records, m.joined = nil, m.joined[:0]
}

// decode fills items and rows. decoder is this goroutine's own of m.live's; windowsOf gives what its rolling features
// look back on.
func (m *micro) decode(decoder *events.Decoder, windowsOf func(stream.TopicPartition) *events.Windows) {
	var at stream.TopicPartition
	var windows *events.Windows
	width := decoder.Columns()
	m.items = slices.Grow(m.items[:0], len(m.records))[:len(m.records)]
	m.rows = slices.Grow(m.rows[:0], len(m.records)*width)[:len(m.records)*width]
	n := 0
	for i := range m.records {
		r := &m.records[i]
		row := m.rows[n*width : (n+1)*width]
		if decoder.Rolling() && (i == 0 || r.Partition != at.Partition || r.Topic != at.Topic) {
			at = stream.TopicPartition{Topic: r.Topic, Partition: r.Partition}
			windows = windowsOf(at)
		}
		it := &m.items[i]
		if m.filter != nil && !m.filter.Keeps(r.Value) {
			*it = item{row: -1, chosen: -1, leftOut: true} // no part of its key's window either, as in training
			continue
		}
		got := decoder.DecodeNext(windows, r.Key, r.Value, row)
		*it = item{outcome: got.Outcome, reason: got.Reason, detail: got.Detail, time: got.Time, timeOK: got.TimeOK, row: -1, chosen: -1}
		if !it.timeOK && r.Time >= 0 {
			it.time, it.timeOK = r.Time, true
		}
		if got.Warming {
			it.status = StatusWarming
		}
		switch got.Outcome {
		case events.Partial:
			it.status = StatusPartial
			fallthrough
		case events.OK:
			it.row = int32(n)
			n++
		case events.NotFinite:
			// The row is kept for naming the fields at fault; its score is never read.
			it.status = StatusNotFinite
			it.anomaly = true
			it.row = int32(n)
			n++
		}
	}
	m.rows = m.rows[:n*width]
}

// score fills scores and, for anomalies or where all is set, the shares of the fields.
func (m *micro) score(all bool) error {
	live := m.live
	n := len(m.rows) / live.width
	m.scores = slices.Grow(m.scores[:0], n)[:n]
	m.chosen, m.chosenRows = m.chosen[:0], m.chosenRows[:0]
	if n == 0 {
		return nil
	}
	if err := live.scorer.Score(m.rows, kernels.Output{Score: m.scores}); err != nil {
		return err
	}
	for i := range m.items {
		it := &m.items[i]
		if it.row < 0 || it.status == StatusNotFinite {
			continue
		}
		it.score = m.scores[it.row]
		if s := float64(it.score); math.IsNaN(s) || math.IsInf(s, 0) {
			it.status, it.anomaly = StatusNotFinite, true
			continue
		}
		it.anomaly = float64(it.score) > live.model.Threshold
		if it.anomaly || all {
			it.chosen = int32(len(m.chosen))
			m.chosen = append(m.chosen, it.row)
			m.chosenRows = append(m.chosenRows, m.row(it)...)
		}
	}
	if len(m.chosen) == 0 {
		return nil
	}
	c := len(m.chosenRows)
	m.contributions = slices.Grow(m.contributions[:0], c)[:c]
	m.reconstruction = slices.Grow(m.reconstruction[:0], c)[:c]
	return live.scorer.Score(m.chosenRows, kernels.Output{Contributions: m.contributions, Reconstruction: m.reconstruction})
}

func (m *micro) row(it *item) []float32 {
	w := m.live.width
	return m.rows[int(it.row)*w : (int(it.row)+1)*w]
}

// record makes the output record of item i; its Top is valid until the next call.
func (m *micro) record(i int, all bool) ScoreRecord {
	r, it := &m.records[i], &m.items[i]
	out := ScoreRecord{
		Model: m.live.ref.Name, Version: m.live.version,
		Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Key: m.live.key(r),
		Time: it.time, TimeOK: it.timeOK,
		Anomaly: it.anomaly, Status: it.status,
		WithTop: it.anomaly || all, second: &m.second,
	}
	if it.status == StatusNotFinite {
		out.Score = float32(math.NaN())
	} else {
		out.Score, out.Digits = it.score, m.live.digits
		out.Percentile = m.live.model.Percentile(float64(it.score))
	}
	if out.WithTop {
		out.Top = m.top(it)
	}
	return out
}

// top names the fields with the largest shares. A record that is not finite has no shares: its infinite
// fields are named, in equal parts.
func (m *micro) top(it *item) []Share {
	live := m.live
	m.shares = m.shares[:0]
	if it.row < 0 {
		return m.shares
	}
	row := m.row(it)
	if it.status == StatusNotFinite {
		for f, columns := range live.columns {
			if math.IsInf(float64(row[columns.from]), 0) {
				m.shares = append(m.shares, Share{Feature: live.model.Spec.Fields[f].Name, Usual: live.usual[f]})
			}
		}
		for i := range m.shares {
			m.shares[i].Share = 1 / float64(len(m.shares))
		}
		return m.shares[:min(topShares, len(m.shares))]
	}
	if it.chosen < 0 {
		return m.shares
	}
	at := int(it.chosen) * live.width
	contributions := m.contributions[at : at+live.width]
	expected := m.reconstruction[at : at+live.width]
	m.byPart = m.byPart[:0]
	for _, c := range live.columns {
		sum := 0.
		for _, v := range contributions[c.from:c.to] {
			sum += float64(v)
		}
		m.byPart = append(m.byPart, sum)
	}
	for range topShares {
		best := -1
		for f, v := range m.byPart {
			if v > leastShare*float64(it.score) && (best < 0 || v > m.byPart[best]) {
				best = f
			}
		}
		if best < 0 {
			break
		}
		c := live.columns[best]
		m.shares = append(m.shares, Share{
			Feature:  live.model.Spec.Fields[best].Name,
			Value:    live.value(best, row[c.from:c.to]),
			Expected: live.value(best, expected[c.from:c.to]),
			Share:    m.byPart[best] / float64(it.score),
			Usual:    live.usual[best],
		})
		m.byPart[best] = 0
	}
	return m.shares
}

// columns of one field in a row: [from, to).
type columnRange struct{ from, to int }

func columnRanges(spec *model.Spec) []columnRange {
	out := make([]columnRange, len(spec.Fields))
	for i := range out {
		out[i].from = -1
	}
	for col, f := range spec.ColumnFields() {
		if out[f].from < 0 {
			out[f].from = col
		}
		out[f].to = col + 1
	}
	return out
}

// value reads a field's columns back as what the record held, or what the model expected.
func (l *liveModel) value(field int, columns []float32) Value {
	f := &l.model.Spec.Fields[field]
	if f.Type == model.Category {
		best := 0
		for i, v := range columns {
			if v > columns[best] {
				best = i
			}
		}
		if best == len(f.Categories) {
			return Value{Kind: TextValue, Text: "?"}
		}
		return Value{Kind: TextValue, Text: f.Categories[best]}
	}
	v := columns[0]
	if v-v != 0 { // NaN or infinite
		return Value{}
	}
	if f.Type == model.Boolean {
		return Value{Kind: BooleanValue, Number: v}
	}
	return Value{Kind: NumberValue, Number: v}
}

// percentDigits is how many decimal places of a percentage n rows tell apart: one row is 100/n percent.
func percentDigits(n int64) int {
	d := 0
	for step := int64(100); step < n && d < 7; step *= 10 {
		d++
	}
	return d
}

package events

import (
	"fmt"
	"math"
	"strings"

	"github.com/lapwing-stream/lapwing/model"
)

// DefaultWindowKeys is how many keys of a partition keep a window unless it is set: ten times the fleet that one
// partition of a busy topic has, and with 20 fields and windows of 10 records at most 100 MB.
const DefaultWindowKeys = 100_000

// rolling is what a spec says about its rolling features. It never changes, so clones share it.
type rolling struct {
	records int     // a window holds so many
	cols    []int32 // first column of each field that has rolling ones; they stand in the next two
	shape   string  // specs of the same shape put the same values into a window
}

// newRolling is nil where the spec has no rolling features.
func newRolling(spec *model.Spec, fields []field) *rolling {
	if spec.Rolling == 0 {
		return nil
	}
	r := &rolling{records: spec.Rolling}
	var shape strings.Builder
	fmt.Fprintf(&shape, "%d %q", spec.Rolling, spec.Key)
	for i, f := range fields {
		if f.kind != model.Category {
			r.cols = append(r.cols, f.col)
			fmt.Fprintf(&shape, " %s %q", f.kind, spec.Fields[i].Name)
		}
	}
	r.shape = shape.String()
	return r
}

// Windows holds, for each key of one partition, the values of its last records: what rolling features are made from.
// It is fed in offset order and is for one goroutine.
//
// The features are computed anew from the held values, oldest first, for every record: running sums would depend on all
// that came before, so that a process that starts from the last records could never reach the same bits.
//
// At most so many keys have a window; the one unseen for longest goes first. A window takes 4 bytes a value, so
// 4 · records · fields, and about 200 bytes beside them.
type Windows struct {
	of      *rolling
	keys    int
	entries map[string]*window
	recent  window // of a ring of windows by last use: recent.newer is the one unseen for longest
	name    []byte
	means   []float64 // scratch, one a field
	squares []float64
	counts  []float64
}

// window is the last records of one key.
type window struct {
	key          string
	values       []float32 // records × fields; NaN = missing
	next         int       // once full: the oldest record, which the next one replaces
	missing      int       // NaN among values
	newer, older *window
}

// NewWindows makes empty windows for records that d, or a decoder of the same rolling features, decodes; keys is how
// many keep one, 1 or more. Nil where the spec has no rolling features.
func NewWindows(d *Decoder, keys int) *Windows {
	if d.rolling == nil {
		return nil
	}
	n := len(d.rolling.cols)
	w := &Windows{
		of: d.rolling, keys: max(keys, 1), entries: map[string]*window{},
		means: make([]float64, n), squares: make([]float64, n), counts: make([]float64, n),
	}
	w.recent.newer, w.recent.older = &w.recent, &w.recent
	return w
}

// Fit tells whether the windows may go on under d: it has the same rolling features of the same fields by the same
// key. Nil fits a spec without any.
func (w *Windows) Fit(d *Decoder) bool {
	if w == nil || d.rolling == nil {
		return w == nil && d.rolling == nil
	}
	return w.of.shape == d.rolling.shape
}

// Keys is the number of keys that have a window.
func (w *Windows) Keys() int { return len(w.entries) }

// Rolling tells whether the spec has rolling features, so that records depend on those before them.
func (d *Decoder) Rolling() bool { return d.rolling != nil }

// DecodeNext is Decode for the next record of a partition: it also enters the record into the window of its key and
// fills in the rolling columns. A record's key is the text of the spec's key field, where the spec names one and the
// record has it; else the Kafka key; else the partition's records without either are one key.
//
// Every record with a row counts, also one that is not finite: an infinite value is missing from the window, as a
// missing one is. A mean of no value and a deviation of fewer than two are NaN, which the model imputes. The deviation
// divides by the number of values: so it is finite whatever the values are. Windows that are nil leave the rolling
// columns NaN.
func (d *Decoder) DecodeNext(w *Windows, key, value []byte, row []float32) Result {
	r := d.Decode(value, row)
	if d.rolling == nil {
		return r
	}
	switch r.Outcome {
	case OK, Partial, NotFinite:
	default:
		return r
	}
	if w == nil {
		r.Warming = true
		return r
	}
	e := w.window(d.keyOf(w.name[:0], key))
	w.enter(e, row)
	w.features(e, row)
	r.Warming = len(e.values) < w.of.records*len(w.of.cols)
	return r
}

// keyOf appends the name of the record's window. Its first byte keeps apart what came from where: a field "7" and a
// Kafka key "7" may be two things.
func (d *Decoder) keyOf(b, key []byte) []byte {
	if d.spec.Key != "" {
		switch d.got[0].kind {
		case kindText, kindNumber, kindTrue, kindFalse:
			if len(d.got[0].text) > 0 {
				return append(append(b, 'f'), d.got[0].text...)
			}
		}
	}
	if key != nil {
		return append(append(b, 'k'), key...)
	}
	return append(b, 'p')
}

// window finds or makes the window of a key and notes its use.
func (w *Windows) window(name []byte) *window {
	w.name = name
	e := w.entries[string(name)]
	switch {
	case e != nil:
		e.unlink()
	case len(w.entries) >= w.keys:
		e = w.recent.newer
		e.unlink()
		delete(w.entries, e.key)
		e.key, e.values, e.next, e.missing = string(name), e.values[:0], 0, 0
		w.entries[e.key] = e
	default:
		e = &window{key: string(name)}
		w.entries[e.key] = e
	}
	last := w.recent.older
	e.older, e.newer = last, &w.recent
	last.newer, w.recent.older = e, e
	return e
}

func (e *window) unlink() { e.older.newer, e.newer.older = e.newer, e.older }

// enter puts the record's values into the window, in place of the oldest where it is full.
func (w *Windows) enter(e *window, row []float32) {
	n, full := len(w.of.cols), w.of.records*len(w.of.cols)
	at := len(e.values)
	if at == full {
		at = e.next * n
		e.next = (e.next + 1) % w.of.records
		for _, v := range e.values[at : at+n] {
			if v != v {
				e.missing--
			}
		}
	} else {
		if cap(e.values) < at+n {
			// A key that is seen once takes the room of one record.
			e.values = append(make([]float32, 0, min(max(2*at, n), full)), e.values...)
		}
		e.values = e.values[:at+n]
	}
	to := e.values[at : at+n]
	for i, c := range w.of.cols {
		v := row[c]
		if v-v != 0 { // NaN or ±Inf
			v = float32(math.NaN())
			e.missing++
		}
		to[i] = v
	}
}

// features fills the rolling columns of row from the window. The order is that of the records, wherever the ring
// begins, and each product is rounded before it is added: the same values give the same bits everywhere.
func (w *Windows) features(e *window, row []float32) {
	n := len(w.of.cols)
	means, squares, counts := w.means[:n], w.squares[:n], w.counts[:n]
	clear(means)
	clear(squares)
	held := len(e.values) / n
	begin := e.next * n
	older, newer := e.values[begin:], e.values[:begin]
	if e.missing == 0 {
		for i := range counts {
			counts[i] = float64(held)
		}
		sum(means, older)
		sum(means, newer)
	} else {
		clear(counts)
		sumPresent(means, counts, older)
		sumPresent(means, counts, newer)
	}
	for i, k := range counts {
		means[i] /= k // of no value: 0/0, which is NaN
	}
	if e.missing == 0 {
		sumSquares(squares, means, older)
		sumSquares(squares, means, newer)
	} else {
		sumSquaresPresent(squares, means, older)
		sumSquaresPresent(squares, means, newer)
	}
	for i, c := range w.of.cols {
		row[c+1], row[c+2] = float32(means[i]), float32(math.NaN())
		if k := counts[i]; k >= 2 {
			row[c+2] = float32(math.Sqrt(squares[i] / k))
		}
	}
}

// The loops over records × fields, each in two forms: most windows have no missing value, and to look for one in every
// value costs more than the sums.

func sum(to []float64, values []float32) {
	for ; len(values) >= len(to); values = values[len(to):] {
		for i, v := range values[:len(to)] {
			to[i] += float64(v)
		}
	}
}

func sumPresent(to, counts []float64, values []float32) {
	counts = counts[:len(to)]
	for ; len(values) >= len(to); values = values[len(to):] {
		for i, v := range values[:len(to)] {
			if v == v {
				to[i] += float64(v)
				counts[i]++
			}
		}
	}
}

func sumSquares(to, means []float64, values []float32) {
	means = means[:len(to)]
	for ; len(values) >= len(to); values = values[len(to):] {
		for i, v := range values[:len(to)] {
			d := float64(v) - means[i]
			to[i] += float64(d * d)
		}
	}
}

func sumSquaresPresent(to, means []float64, values []float32) {
	means = means[:len(to)]
	for ; len(values) >= len(to); values = values[len(to):] {
		for i, v := range values[:len(to)] {
			if v == v {
				d := float64(v) - means[i]
				to[i] += float64(d * d)
			}
		}
	}
}

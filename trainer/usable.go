package trainer

import (
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/stream"
)

// count fills in ranges, rows and what was left out.
func (j *job) count(h *history, results []stream.RangeResult, r *Report) {
	lost := map[int32]int64{}
	for _, res := range results {
		lost[res.Range.Partition] += res.Lost
	}
	all := map[string]*LeftOut{}
	warming := int64(0)
	for i := range h.partitions {
		p := &h.partitions[i]
		r.Ranges = append(r.Ranges, model.PartitionRange{Partition: p.Partition, From: p.From, To: p.To, Records: p.records, Lost: lost[p.Partition]})
		r.Partial += p.partial
		warming += p.warming
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
	r.Rows = model.Rows{Read: h.read, Used: int64(h.n), Warming: warming}
	for _, reason := range slices.Sorted(maps.Keys(all)) {
		if r.Rows.LeftOut == nil {
			r.Rows.LeftOut = map[string]int64{}
		}
		r.Rows.LeftOut[reason] = all[reason].Count
		r.LeftOut = append(r.LeftOut, *all[reason])
	}
	slices.SortStableFunc(r.LeftOut, func(a, b LeftOut) int { return int(min(max(b.Count-a.Count, -1), 1)) })
	r.Spec = h.spec
	r.time(h)
}

// Reasons for which a record is no row although serve makes no dead letter of it.
const (
	tombstone = "tombstone"
	notFinite = "not_finite"

	notInSample = "sample" // not drawn
	filteredOut = "where"  // by the condition
)

func (l *LeftOut) rejected() bool {
	return l.Reason != tombstone && l.Reason != notFinite && !l.passedOver()
}

// passedOver: nobody looked at the record, since the run was told not to.
func (l *LeftOut) passedOver() bool { return l.Reason == notInSample || l.Reason == filteredOut }

// rejects counts the records that serve would send to the dead-letter topic.
func rejects(left []LeftOut) (n int64) {
	for _, l := range left {
		if l.rejected() {
			n += l.Count
		}
	}
	return n
}

// looked counts the records that were looked at: those that a sample passes over say nothing of the others.
func looked(r *Report) int64 {
	n := r.Rows.Read
	for _, l := range r.LeftOut {
		if l.passedOver() {
			n -= l.Count
		}
	}
	return n
}

// usable says whether a model may be made from what was read.
func (j *job) usable(h *history, known []string, r *Report) error {
	gone := absentFields(h, known)
	if n := rejects(r.LeftOut); float64(n) > j.MaxRejected*float64(looked(r)) {
		bare := r.Rows.LeftOut[events.ReasonNoFeatures]
		if gone != nil && 2*bare > n { // it is the spec that does not fit, not the records
			return &absentFieldsError{topic: j.Topic, rows: h.n + int(bare), fields: gone}
		}
		return rejectedError(j, r)
	}
	var lost int64
	for _, p := range r.Ranges {
		lost += p.Lost
	}
	if total := offsets(j.ranges(r)); lost > 0 {
		j.Log.Warn("retention deleted records while the history was read", "topic", j.Topic, "lost_offsets", lost, "of", total)
		if float64(lost) > j.AllowLoss*float64(total) {
			return lostError(j, lost, total)
		}
	}
	if h.n < j.MinRows {
		return j.tooFewRows(known, r)
	}
	if gone != nil {
		return &absentFieldsError{topic: j.Topic, rows: h.n, fields: gone}
	}
	return nil
}

// absentFields are the fields of the spec that no record has with a value of their type.
func absentFields(h *history, known []string) (gone []absentField) {
	for i := range h.fields {
		c := &h.fields[i]
		if c.Read+c.NumericText+c.NotFinite+c.Unseen == 0 {
			name := h.spec.Fields[i].Name
			gone = append(gone, absentField{name: name, nearest: nearest(name, without(known, name)), wrongType: c.Wrong()})
		}
	}
	return gone
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

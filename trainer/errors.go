package trainer

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// What a run may end with, beside errors of the rooms below. All of them have a Hint method: what to do next.
var (
	ErrTooFewRows = errors.New("too few usable rows")
	ErrRejected   = errors.New("too many undecodable records")
	ErrNoField    = errors.New("a field is in no record")
	ErrMemory     = errors.New("the history does not fit in memory")
	ErrLost       = errors.New("retention deleted too much of the history during the read")
	ErrConstant   = errors.New("every feature is constant")
	ErrDiverged   = errors.New("training diverged")
)

// InputError is a fault of the history or of the options that only the history shows.
type InputError struct {
	What, Place, Next string
	Kind              error // one of the variables above, what it comes from, or nil
}

func (e *InputError) Error() string {
	if e.Place == "" {
		return e.What
	}
	return e.Place + ": " + e.What
}
func (e *InputError) Unwrap() error { return e.Kind }

// Where says where it happened; Hint what to do next.
func (e *InputError) Where() string { return e.Place }
func (e *InputError) Hint() string  { return e.Next }

func emptyError(topic string, partitions int) error {
	return &InputError{
		What: fmt.Sprintf("topic %s is empty: none of its %d partitions holds a readable record", topic, partitions),
		Next: "write some history first, such as: lapwing load FILE --topic " + topic, Kind: ErrTooFewRows,
	}
}

// inferError says where what cannot be inferred would have been.
func inferError(j *job, err error) error {
	list := []error{err}
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		list = slices.Clone(several.Unwrap())
	}
	for i, e := range list {
		f := &InputError{What: e.Error(), Place: "topic " + j.Topic, Kind: e}
		if h, ok := e.(interface{ Hint() string }); ok {
			f.Next = h.Hint()
			f.What = strings.TrimSuffix(f.What, "; "+f.Next)
		}
		list[i] = f
	}
	return errors.Join(list...)
}

func tooFewRowsError(j *job, r *Report) error {
	what := fmt.Sprintf("%s of %d read", plural(r.Rows.Used, "usable row"), r.Rows.Read)
	if len(r.LeftOut) > 0 {
		what += ": " + leftOutList(r.LeftOut)
	}
	next := "wait for more history"
	if j.Selection != (Selection{}) {
		next = "read more of the topic: a longer time, a larger sample, a wider filter"
	}
	if n := r.Rows.Used; n > 0 {
		next += fmt.Sprintf(", or add --min-rows %d (with few rows the threshold means little)", n)
	}
	return &InputError{What: what + fmt.Sprintf("; need at least %d", j.MinRows), Place: "topic " + j.Topic, Next: next, Kind: ErrTooFewRows}
}

// leftOutList spells counts as "3 tombstones, 1 not_json".
func leftOutList(left []LeftOut) string {
	parts := make([]string, len(left))
	for i, l := range left {
		name := l.words()
		if l.Reason == filteredOut {
			name = "left out " + name
		}
		if name == tombstone && l.Count != 1 {
			name += "s"
		}
		parts[i] = fmt.Sprintf("%d %s", l.Count, name)
	}
	return strings.Join(parts, ", ")
}

func rejectedError(j *job, r *Report) error {
	place := "topic " + j.Topic
	for _, l := range r.LeftOut {
		if l.rejected() && len(l.Examples) > 0 {
			e := l.Examples[0]
			place = fmt.Sprintf("topic %s, partition %d, offset %d: %s", j.Topic, e.Partition, e.Offset, strings.TrimSpace(l.Reason+" "+e.Detail))
			break
		}
	}
	return &InputError{
		What:  fmt.Sprintf("%d of %d records cannot be decoded, more than max_rejected %s: %s", rejects(r.LeftOut), looked(r), percent(j.MaxRejected), leftOutList(r.LeftOut)),
		Place: place, Kind: ErrRejected,
		Next: "check the format and the spec (lapwing train --dry-run), or raise max_rejected if these may be left out",
	}
}

func lostError(j *job, lost, total int64) error {
	return &InputError{
		What:  fmt.Sprintf("retention deleted %d of %d offsets during the read, more than allow_loss %s", lost, total, percent(j.AllowLoss)),
		Place: "topic " + j.Topic, Kind: ErrLost,
		Next: "run again, now that the oldest records are gone; lengthen the topic's retention, or allow more (--allow-loss)",
	}
}

// memoryError says that not even what every row needs beside its values fits.
func memoryError(s *rowStore) error {
	return &InputError{
		What: fmt.Sprintf("the history does not fit: max_memory of %s holds the scores and labels of %s, and there are more",
			mebibytes(s.asked), plural(s.max/2/s.side, "row")),
		Place: "topic " + s.topic, Kind: ErrMemory,
		Next: fmt.Sprintf("raise max_memory to %s, which is enough for %s", mebibytes(ceilMebibyte(2*s.side*s.expect+s.asked-s.max)), plural(s.expect, "row")),
	}
}

func rowTooWideError(s *rowStore, need int64) error {
	return &InputError{
		What:  fmt.Sprintf("a row of %d columns is too wide: max_memory of %s has no room to keep one of each partition at hand", s.width, mebibytes(s.asked)),
		Place: "topic " + s.topic, Kind: ErrMemory,
		Next: fmt.Sprintf("raise max_memory to %s, or leave out fields that do not matter (--exclude)", mebibytes(ceilMebibyte(need))),
	}
}

func ceilMebibyte(n int64) int64 { return (n + 1<<20 - 1) >> 20 << 20 }

func mebibytes(n int64) string {
	if n >= 1<<30 {
		return fmt.Sprintf("%.3g GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%.3g MiB", float64(n)/(1<<20))
}

type absentField struct {
	name, nearest string
	wrongType     int64
}

type absentFieldsError struct {
	topic  string
	rows   int
	fields []absentField
}

func (e *absentFieldsError) Error() string {
	var parts []string
	for i, f := range e.fields {
		if i == 4 {
			parts = append(parts, fmt.Sprintf("and %d more", len(e.fields)-i))
			break
		}
		s := fmt.Sprintf("field %s: 0 of %d rows have it", f.name, e.rows)
		if f.wrongType > 0 {
			s += fmt.Sprintf(" with the declared type (%d have another)", f.wrongType)
		} else if f.nearest != "" {
			s += fmt.Sprintf(" (nearest existing field: %s)", f.nearest)
		}
		parts = append(parts, s)
	}
	return "topic " + e.topic + ": " + strings.Join(parts, "; ")
}
func (e *absentFieldsError) Unwrap() error { return ErrNoField }

// Hint says what to do next.
func (e *absentFieldsError) Hint() string {
	if e.fields[0].wrongType > 0 {
		return "change the type of " + e.fields[0].name + " in the spec, or remove it"
	}
	return "correct or remove " + e.fields[0].name + " in the spec"
}

func constantError(j *job, features int) error {
	return &InputError{
		What:  fmt.Sprintf("every one of the %d features is constant: there is nothing to learn", features),
		Place: "topic " + j.Topic, Kind: ErrConstant,
		Next: "train on a longer history, or name other fields in the spec (lapwing train --dry-run writes one)",
	}
}

// weightBytes is the size of the weights of consecutive layers, in float32.
func weightBytes(widths []int) (bytes int64) {
	for i := 1; i < len(widths); i++ {
		bytes += 4 * int64(widths[i]) * (int64(widths[i-1]) + 1)
	}
	return bytes
}

func weightError(layers []int, bytes int64) error {
	return &InputError{
		What: fmt.Sprintf("layers %s have %.1f GB of weights; an ONNX file holds 2 GB", layerNames(layers), float64(bytes)/1e9),
		Next: "choose narrower layers, or leave layers out to have them chosen from the number of columns",
	}
}

func percent(share float64) string { return fmt.Sprintf("%g%%", 100*share) }

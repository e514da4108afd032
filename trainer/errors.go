package trainer

import (
	"errors"
	"fmt"
	"strings"

	"github.com/lapwing-stream/lapwing/model"
)

// What a run may end with, beside errors of the rooms below. All of them have a Hint method: what to do next.
var (
	ErrTooFewRows = errors.New("too few usable rows")
	ErrRejected   = errors.New("too many undecodable records")
	ErrNoField    = errors.New("a field is in no record")
	ErrMemory     = errors.New("the history does not fit in memory")
	ErrDiverged   = errors.New("training diverged")
)

// InputError is a fault of the history or of the options that only the history shows.
type InputError struct {
	What, Next string
	Kind       error // one of the variables above, or nil
}

func (e *InputError) Error() string { return e.What }
func (e *InputError) Unwrap() error { return e.Kind }

// Hint says what to do next.
func (e *InputError) Hint() string { return e.Next }

type tooFewRowsError struct {
	topic string
	rows  model.Rows
	left  []LeftOut
	min   int
}

func (e *tooFewRowsError) Error() string {
	s := fmt.Sprintf("%d usable rows of %d read", e.rows.Used, e.rows.Read)
	if len(e.left) > 0 {
		s += ": " + leftOutList(e.left)
	}
	return s + fmt.Sprintf("; topic %s needs at least %d", e.topic, e.min)
}
func (e *tooFewRowsError) Unwrap() error { return ErrTooFewRows }
func (e *tooFewRowsError) Hint() string {
	return "wait for more history, or lower min_rows: with so few rows the threshold means little"
}

// leftOutList spells counts as "3 tombstone, 1 not_json".
func leftOutList(left []LeftOut) string {
	parts := make([]string, len(left))
	for i, l := range left {
		parts[i] = fmt.Sprintf("%d %s", l.Count, l.Reason)
	}
	return strings.Join(parts, ", ")
}

func rejectedError(j *job, r *Report) error {
	n := rejects(r.LeftOut)
	var worst LeftOut
	for _, l := range r.LeftOut {
		if l.Reason != "tombstone" && l.Reason != "not_finite" && l.Count > worst.Count {
			worst = l
		}
	}
	what := fmt.Sprintf("%d of %d records of topic %s cannot be decoded, more than max_rejected %s: %s", n, r.Rows.Read, j.Topic, percent(j.MaxRejected), leftOutList(r.LeftOut))
	if len(worst.Examples) > 0 {
		e := worst.Examples[0]
		what += fmt.Sprintf("\nfirst %s: partition %d, offset %d: %s", worst.Reason, e.Partition, e.Offset, e.Detail)
	}
	return &InputError{What: what, Kind: ErrRejected,
		Next: "check format and spec (lapwing train --dry-run shows what was found), or raise max_rejected if these may be left out"}
}

func memoryError(j *job, fits int64, width int) error {
	return &InputError{
		What: fmt.Sprintf("the history of topic %s does not fit: max_memory of %d MiB holds %d rows of %d columns", j.Topic, j.MaxMemory>>20, fits, width),
		Next: "raise max_memory, or leave out fields that do not matter (--exclude)", Kind: ErrMemory,
	}
}

type absentFieldError struct {
	field, topic, nearest string
	rows                  int
	wrongType             int64
}

func (e *absentFieldError) Error() string {
	s := fmt.Sprintf("field %s: 0 of %d rows of topic %s have it", e.field, e.rows, e.topic)
	switch {
	case e.wrongType > 0:
		s += fmt.Sprintf(" as the declared type (%d values are of another)", e.wrongType)
	case e.nearest != "":
		s += fmt.Sprintf(" (nearest existing field: %s)", e.nearest)
	}
	return s
}
func (e *absentFieldError) Unwrap() error { return ErrNoField }
func (e *absentFieldError) Hint() string {
	if e.wrongType > 0 {
		return "change the type of " + e.field + " in the spec, or leave the field out"
	}
	return "correct or remove " + e.field + " in the spec"
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

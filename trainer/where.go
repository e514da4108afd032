package trainer

import (
	"context"
	"fmt"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/stream"
)

// filter is the run's condition for records as spec has them; nil without one.
func (j *job) filter(spec model.Spec) (*events.Filter, error) {
	if j.where == nil {
		return nil, nil
	}
	f, err := j.where.Filter(spec)
	if err != nil {
		return nil, fmt.Errorf("the filter %s on topic %s: %w", j.where, j.Topic, err)
	}
	return f, nil
}

// sampleFiltered takes the sample again, of what the filter keeps: which fields there are is to be learnt from the records that
// become rows. It takes two reads of the sample, since only the first tells how records are written. It returns the names of
// all fields in the first.
func (j *job) sampleFiltered(ctx context.Context, ranges []stream.Range, o events.InferOptions, s *sampled) ([]string, error) {
	format, err := events.DetectFormat(s.values, o)
	if err != nil {
		return nil, nil // the inference says it better
	}
	filter, err := j.filter(format)
	if err != nil {
		return nil, err
	}
	spec, notes, _ := events.Infer(s.values, events.InferOptions{Format: format.Format, Header: format.Header, Delimiter: format.Delimiter})
	if *s, err = j.sample(ctx, ranges, filter); err != nil {
		return nil, err
	}
	j.saw = nil
	j.sawFields(filter)
	return fieldNames(spec, notes, nil), nil
}

// sawFields adds up how often the filter's fields were there.
func (j *job) sawFields(f *events.Filter) {
	if f == nil {
		return
	}
	if j.saw == nil {
		j.saw = make([]int64, len(f.Seen()))
	}
	for i, n := range f.Seen() {
		j.saw[i] += n
	}
}

// unseen are the filter's fields that no record had.
func (j *job) unseen() (names []string) {
	if j.where == nil || j.saw == nil {
		return nil
	}
	for i, name := range j.where.Fields() {
		if j.saw[i] == 0 {
			names = append(names, name)
		}
	}
	return names
}

// tooFewRows says that they are too few, or, where the filter asks for a field that no record has, that.
func (j *job) tooFewRows(known []string, r *Report) error {
	if unseen := j.unseen(); len(unseen) > 0 {
		name := unseen[0]
		next := "correct the filter, or do without it"
		if n := nearest(name, known); n != "" {
			next = "did you mean " + n + "?"
		}
		return &InputError{
			What:  fmt.Sprintf("field %q of the filter is in none of %d records, and %s came through", name, r.Rows.Read, plural(r.Rows.Used, "row")),
			Place: "where " + j.where.String(), Next: next, Kind: ErrNoField,
		}
	}
	return tooFewRowsError(j, r)
}

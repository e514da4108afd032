package trainer

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/stream"
)

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

// sampled is what inference looks at, in (partition, offset) order, and what it was taken from.
type sampled struct {
	values   [][]byte
	read     int64 // records passed; all there are where fewer than MinRows had a value
	valued   int64 // of those, with a value that the filter keeps
	filtered int64 // left out by the filter
}

// sample reads what inference looks at. The filter may be nil.
func (j *job) sample(ctx context.Context, ranges []stream.Range, filter *events.Filter) (out sampled, err error) {
	// One list a partition and stripe: what is kept does not depend on which partition came first.
	type place struct {
		partition int32
		stripe    int
	}
	kept := map[place]*thinned{}
	take := func(stripe int, ranges []stream.Range, values, bytes int) error {
		_, err := j.each(ctx, ranges, func(b *stream.Batch, _ func() []int64) error {
			defer b.Release()
			out.read += int64(len(b.Records))
			for _, rec := range b.Records {
				if rec.Value == nil {
					continue
				}
				if filter != nil && !filter.Keeps(rec.Value) {
					out.filtered++
					continue
				}
				out.valued++
				at := place{rec.Partition, stripe}
				if kept[at] == nil {
					kept[at] = &thinned{}
				}
				kept[at].add(rec.Value, values/len(ranges), bytes/len(ranges))
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
			return out, err
		}
	}
	if out.valued < int64(j.MinRows) && len(all) > 1 {
		// A compacted topic may be nearly all holes, and a filter may keep next to nothing: look at everything.
		clear(kept)
		out = sampled{}
		if err := take(0, ranges, 2*sampleRows, sampleBytes); err != nil {
			return out, err
		}
	}
	places := slices.SortedFunc(maps.Keys(kept), func(a, b place) int {
		return cmp.Or(cmp.Compare(a.partition, b.partition), cmp.Compare(a.stripe, b.stripe))
	})
	for _, p := range places {
		out.values = append(out.values, kept[p].values...)
	}
	return out, nil
}

// spec returns the given spec or the inferred one, and the names of all fields that the sample shows.
func (j *job) spec(ctx context.Context, ranges []stream.Range, r *Report) (model.Spec, []string, error) {
	started := time.Now()
	s, err := j.sample(ctx, ranges, nil)
	if err != nil {
		return model.Spec{}, nil, err
	}
	r.Seconds.Sample = time.Since(started).Seconds()
	o := events.InferOptions{Format: j.Format, Label: j.Label, Exclude: j.Exclude, Key: j.Key, TimeField: j.Time, Header: j.Header, Delimiter: j.Delimiter}
	if j.Spec != nil {
		// Only what fields there are is asked.
		o = events.InferOptions{Format: j.Spec.Format, Header: j.Spec.Header, Delimiter: j.Spec.Delimiter}
		for _, f := range j.Spec.Fields {
			if f.Name == j.Label {
				return model.Spec{}, nil, &InputError{
					What: fmt.Sprintf("field %s is the label and a feature: a model that sees the truth learns nothing else", f.Name),
					Next: "remove " + f.Name + " from the spec, or do without the label",
				}
			}
		}
	}
	var whole []string // names of fields, those of records that the filter leaves out too
	if j.where != nil {
		if whole, err = j.sampleFiltered(ctx, ranges, o, &s); err != nil {
			return model.Spec{}, nil, err
		}
		r.Seconds.Sample = time.Since(started).Seconds()
	}
	sample := s.values
	inferred, notes, err := events.Infer(sample, o)
	foreign := len(sample) > 0 && events.Fingerprint(sample[0]) != ""
	if err != nil && s.valued < int64(j.MinRows) && !foreign {
		// That there are too few is the plainer truth than what cannot be told from them, unless more of the same would
		// not help.
		r.Rows = model.Rows{Read: s.read, Used: s.valued}
		for _, l := range []LeftOut{{Reason: tombstone, Count: s.read - s.valued - s.filtered}, {Reason: filteredOut, Count: s.filtered}} {
			if l.Count > 0 {
				r.LeftOut = append(r.LeftOut, l)
			}
		}
		return model.Spec{}, nil, j.tooFewRows(whole, r)
	}
	if j.Spec == nil && err != nil {
		return model.Spec{}, nil, inferError(j, err)
	}
	known := fieldNames(inferred, notes, whole)
	if j.Spec != nil {
		if _, found := slices.BinarySearch(known, j.Label); j.Label != "" && !found && len(known) > 0 && !slices.Contains(known, "*") {
			next := "correct --label, or do without it"
			if n := nearest(j.Label, known); n != "" {
				next = "did you mean " + n + "?"
			}
			return model.Spec{}, nil, &InputError{
				What: fmt.Sprintf("label field %q is in none of %d records", j.Label, len(sample)), Place: "topic " + j.Topic, Next: next, Kind: ErrNoField,
			}
		}
		spec := *j.Spec
		if j.Rolling > 0 {
			spec.Rolling = j.Rolling
		}
		return spec, known, nil
	}
	inferred.Rolling = j.Rolling
	r.Inferred, r.Notes = true, notes
	return inferred, known, nil
}

// fieldNames are the names of all fields that an inference has seen, features or not, and more, sorted.
func fieldNames(spec model.Spec, notes []model.ColumnNote, more []string) []string {
	known := slices.Clone(more)
	for _, f := range spec.Fields {
		known = append(known, f.Name)
	}
	for _, n := range notes {
		known = append(known, n.Name)
	}
	slices.Sort(known)
	return slices.Compact(known)
}

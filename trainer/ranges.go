package trainer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/stream"
)

// Selection says which records of a topic are read. The zero value is all of them. What it says stands in the lineage as it was
// asked; the offsets that it came to stand there too.
type Selection struct {
	From       string        // the first record at or after this time, by Kafka timestamp (ParseTime), or offsets such as 0:1500,1-5:900; default earliest
	Until      string        // up to the first record at or after this time, or up to these offsets; default end, the one found at start
	Last       time.Duration // so long before Until, or before the topic's latest record, in place of From; default 0, none
	Partitions string        // numbers and ranges of them, such as 0,3,5-7; default all
	Sample     string        // a number of records, or a share such as 5% or 0.05; default all
	Where      string        // the condition that records must meet (events.ParseWhere); default none
}

// wanted is a Selection, read.
type wanted struct {
	from, until bound
	partitions  []int32
	count       int64   // of records to sample; 0 = by share
	share       float64 // 1 = all
	where       *events.Where
}

// read says everything that is wrong with the selection.
func (s *Selection) read() (wanted, error) {
	w, faults := s.parse()
	return w, errors.Join(faults...)
}

func (s *Selection) parse() (w wanted, faults []error) {
	w = wanted{from: open, until: open, share: 1}
	bad := func(err error) { faults = append(faults, err) }
	var err error
	if w.from, err = parseBound("from", s.From, Earliest); err != nil {
		bad(err)
	}
	if w.until, err = parseBound("until", s.Until, End); err != nil {
		bad(err)
	}
	if why := crossed(w.from, w.until); why != "" && len(faults) == 0 {
		bad(&InputError{What: fmt.Sprintf("from %s is not before until %s", s.From, s.Until), Next: why})
	}
	if s.Last < 0 {
		bad(&InputError{What: fmt.Sprintf("last is %v", s.Last), Next: "give a time above 0"})
	}
	if s.Last > 0 && s.From != "" {
		bad(&InputError{What: "from and last both say where to begin", Next: "give one of them"})
	}
	if s.Last > 0 && w.until.offsets != nil {
		bad(&InputError{What: "last counts back from a time, and until names offsets", Next: "give until as a time, or from as offsets in place of last"})
	}
	if w.partitions, err = parsePartitions(s.Partitions); err != nil {
		bad(err)
	}
	if w.count, w.share, err = parseSample(s.Sample); err != nil {
		bad(err)
	}
	if s.Where != "" {
		if w.where, err = events.ParseWhere(s.Where); err != nil {
			bad(err)
		}
	}
	return w, faults
}

func parsePartitions(text string) ([]int32, error) {
	if text == "" {
		return nil, nil
	}
	var out []int32
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		from, to, ok := partitionSpan(part)
		if !ok {
			return nil, &InputError{What: fmt.Sprintf("%q is neither a partition's number nor a range of them", part), Place: "partitions " + text, Next: "write them such as 0,3,5-7"}
		}
		for p := from; p <= to; p++ {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func parseSample(text string) (count int64, share float64, err error) {
	if text == "" {
		return 0, 1, nil
	}
	number, percent := strings.CutSuffix(text, "%")
	if n, err := strconv.ParseInt(number, 10, 64); err == nil && !percent && n > 0 {
		return n, 0, nil
	}
	share, err = strconv.ParseFloat(number, 64)
	if percent {
		share /= 100
	}
	if err != nil || !(share > 0 && share <= 1) {
		return 0, 1, &InputError{What: fmt.Sprintf("sample is %q", text), Next: "give a number of records such as 100000, or a share above 0 such as 5% or 0.05"}
	}
	return 0, share, nil
}

// Validate reports every fault at once.
func (s *Selection) Validate() error {
	_, err := s.read()
	return err
}

// Chosen is what a Selection came to in a topic.
type Chosen struct {
	Ranges      []stream.Range // ascending, some may be empty
	From, Until int64          // the times they were found by, ms since 1970; -1 = open
}

// Choose finds the offsets of topic that s asks for. Their ends are fixed here, once: what producers write from
// now on is not among them. Times are Kafka's: a range begins at the first record whose timestamp is at or after From and ends
// before the first at or after Until, so that records out of time order within it are read with the rest.
//
// Offsets that are named are taken as they are (cut).
//
// Last counts back from the latest record and not from now: the same topic then gives the same ranges tomorrow.
func (s *Selection) Choose(ctx context.Context, c *stream.Client, topic string) (Chosen, error) {
	w, err := s.read()
	if err != nil {
		return Chosen{}, err
	}
	return s.choose(ctx, c, topic, w)
}

func (s *Selection) choose(ctx context.Context, c *stream.Client, topic string, w wanted) (out Chosen, err error) {
	out.Until = w.until.time
	ranges, err := c.Ranges(ctx, topic)
	if err != nil {
		return out, err
	}
	kept := len(ranges)
	if w.partitions != nil {
		if last := w.partitions[len(w.partitions)-1]; int(last) >= kept {
			return out, &InputError{What: fmt.Sprintf("topic %s has no partition %d: its partitions are 0 to %d", topic, last, kept-1), Place: "partitions " + s.Partitions,
				Next: "name some of those, or leave the partitions out to read all"}
		}
		ranges = slices.DeleteFunc(ranges, func(r stream.Range) bool {
			_, found := slices.BinarySearch(w.partitions, r.Partition)
			return !found
		})
	}
	if offsets(ranges) == 0 {
		return out, emptyError(topic, len(ranges))
	}
	all := slices.Clone(ranges)
	from, until := w.from.time, w.until.time
	if s.Last > 0 {
		end := until
		if end < 0 {
			_, latest, err := c.Times(ctx, topic, partitionsOf(ranges))
			if err != nil {
				return out, &InputError{What: fmt.Sprintf("the time of the latest record could not be found: %v", err), Place: "topic " + topic, Next: "say from and until in place of last", Kind: err}
			}
			if latest < 0 {
				return out, &InputError{What: "no record has a Kafka timestamp to count back from", Place: "topic " + topic, Next: "read all of it: leave last out"}
			}
			end = latest
		}
		from = max(end-s.Last.Milliseconds(), 0)
	}
	for _, bound := range []struct {
		ms  int64
		set func(r *stream.Range, offset int64)
	}{
		{from, func(r *stream.Range, at int64) { r.From = min(max(r.From, at), r.To) }},
		{until, func(r *stream.Range, at int64) { r.To = max(min(r.To, at), r.From) }},
	} {
		if bound.ms < 0 {
			continue
		}
		at, err := c.OffsetsForTime(ctx, topic, bound.ms)
		if err != nil {
			return out, err
		}
		for i := range ranges {
			bound.set(&ranges[i], at[ranges[i].Partition])
		}
	}
	if err := cut(topic, all, ranges, w.from, w.until); err != nil {
		return out, err
	}
	if offsets(ranges) == 0 {
		return out, s.nothing(ctx, c, topic, all, from, until)
	}
	out.Ranges, out.From = ranges, from
	return out, nil
}

// choose fixes what this run reads.
func (j *job) choose(ctx context.Context, r *Report) ([]stream.Range, error) {
	w, err := j.Selection.read()
	if err != nil {
		return nil, err
	}
	j.where = w.where
	ranges := slices.Clone(j.Ranges)
	if c := j.resumed; c != nil {
		ranges, r.From, r.Until = c.Ranges, c.From, c.Until
	} else if ranges == nil {
		chosen, err := j.Selection.choose(ctx, j.Client, j.Topic, w)
		if err != nil {
			return nil, err
		}
		ranges, r.From, r.Until = chosen.Ranges, chosen.From, chosen.Until
	} else {
		r.From, r.Until = -1, -1
		slices.SortFunc(ranges, func(a, b stream.Range) int { return int(a.Partition) - int(b.Partition) })
		if offsets(ranges) == 0 {
			return nil, emptyError(j.Topic, len(ranges))
		}
	}
	r.Asked = j.Selection.asked(r.From, r.Until)
	j.sampler, err = newSampler(ctx, w, ranges, j.Seed)
	return ranges, err
}

func partitionsOf(ranges []stream.Range) []int32 {
	out := make([]int32, len(ranges))
	for i, r := range ranges {
		out[i] = r.Partition
	}
	return out
}

// nothing words a selection that holds no record of a topic that has some: all are those that it has.
func (s *Selection) nothing(ctx context.Context, c *stream.Client, topic string, all []stream.Range, from, until int64) error {
	e := &InputError{Place: "topic " + topic, Kind: ErrTooFewRows}
	if asked := s.asked(from, until); asked != timeSpan(from, until) {
		e.What, e.Next = "no record lies "+asked, "ask for others: "+holds(topic, all)
		return e
	}
	e.What, e.Next = "no record lies in the time asked: "+timeSpan(from, until), "ask for another time"
	if first, latest, err := c.Times(ctx, topic, partitionsOf(all)); err == nil && latest >= 0 {
		e.Next = fmt.Sprintf("ask for another time: the records there are from %s to %s", stamp(first), stamp(latest))
	}
	return e
}

// asked says in words what lies between the times that ranges were found by, or the offsets that are named; "" where all is asked for.
func (s *Selection) asked(from, until int64) string {
	var parts []string
	if from >= 0 || until >= 0 {
		parts = append(parts, timeSpan(from, until))
	}
	w, _ := s.parse()
	if w.from.offsets != nil {
		parts = append(parts, "from offsets "+s.From)
	}
	if w.until.offsets != nil {
		parts = append(parts, "before offsets "+s.Until)
	}
	return strings.Join(parts, ", ")
}

func timeSpan(from, until int64) string {
	switch {
	case from < 0:
		return "before " + stamp(until)
	case until < 0:
		return "at or after " + stamp(from)
	}
	return "from " + stamp(from) + " to before " + stamp(until)
}

func stamp(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }

// settings are the selection's part of the lineage.
func (s *Selection) settings(to map[string]string) {
	for _, set := range []struct{ name, is string }{{"from", s.From}, {"until", s.Until}, {"partitions", s.Partitions}, {"sample", s.Sample}, {"where", s.Where}} {
		if set.is != "" {
			to[set.name] = set.is
		}
	}
	if s.Last > 0 {
		to["last"] = durationText(s.Last)
	}
}

// sampler draws records by a hash of their place: which ones does not depend on what order they come in, and they are spread over the
// whole range, gaps in time or not.
type sampler struct {
	seed  uint64
	limit uint64 // the highest hash that is drawn
}

// newSampler fixes which of the ranges' offsets are drawn. A count is met exactly where each offset holds a record; where compaction or
// transaction markers leave holes, holes are drawn too, and fewer records come out.
func newSampler(ctx context.Context, w wanted, ranges []stream.Range, seed uint64) (*sampler, error) {
	s := &sampler{seed: seed, limit: math.MaxUint64}
	total := offsets(ranges)
	switch {
	case w.count >= total || w.count == 0 && w.share >= 1:
		return nil, nil
	case w.count == 0:
		s.limit = uint64(w.share*(1<<63)) << 1
		return s, nil
	}
	// The count-th lowest hash, found in two passes that keep 2^16 counters and the hashes of one of them: a nanosecond an offset, where
	// reading one takes hundreds.
	const shift = 48
	each := func(do func(hash uint64)) error {
		for _, r := range ranges {
			h := s.partition(r.Partition)
			for o := r.From; o < r.To; o++ {
				if o&(1<<20-1) == 0 && ctx.Err() != nil {
					return context.Cause(ctx)
				}
				do(mix(h + uint64(o)))
			}
		}
		return nil
	}
	counts := make([]int64, 1<<(64-shift))
	if err := each(func(hash uint64) { counts[hash>>shift]++ }); err != nil {
		return nil, err
	}
	left, at := w.count, 0
	for left > counts[at] {
		left -= counts[at]
		at++
	}
	var hashes []uint64
	if err := each(func(hash uint64) {
		if hash>>shift == uint64(at) {
			hashes = append(hashes, hash)
		}
	}); err != nil {
		return nil, err
	}
	slices.Sort(hashes)
	s.limit = hashes[left-1]
	return s, nil
}

func (s *sampler) partition(p int32) uint64 { return mix(mix(s.seed) + uint64(p)) }

// draws says whether a record is in the sample. A nil sampler draws all.
func (s *sampler) draws(partition int32, offset int64) bool {
	return s == nil || mix(s.partition(partition)+uint64(offset)) <= s.limit
}

// mix is a bijection of 64 bits in which every bit of x moves about half of the result's: the finaliser of splitmix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// durationText is a duration with a unit only where it says something: 30d, 12h, 90m, 1h30m10s.
func durationText(d time.Duration) string {
	const day = 24 * time.Hour
	if d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	text := d.String()
	if s, ok := strings.CutSuffix(text, "m0s"); ok {
		text = s + "m"
	}
	if s, ok := strings.CutSuffix(text, "h0m"); ok {
		text = s + "h"
	}
	return text
}

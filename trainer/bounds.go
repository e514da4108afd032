package trainer

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lapwing-stream/lapwing/stream"
)

const (
	// Earliest as a Selection's From is the oldest record that the topic still holds.
	Earliest = "earliest"
	// End as a Selection's Until is the end found at the start.
	End = "end"
)

// times as people write them; the zone is UTC where none is written, whatever the machine's is.
var timeLayouts = []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly}

// ParseTime reads a time as RFC 3339 has it. Without an offset it is UTC; a date alone is its midnight in UTC.
func ParseTime(s string) (time.Time, error) {
	for _, layout := range timeLayouts {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, &InputError{What: fmt.Sprintf("%q is no time", s), Next: "write one such as 2026-11-25 or 2026-11-25T14:00 (both UTC), or 2026-11-25T14:00:00+02:00"}
}

// bound is one end of what is read: a time, offsets, or neither.
type bound struct {
	time    int64 // ms since 1970; -1 = none
	offsets []offsetSpan
}

// offsetSpan is an offset in partitions [first, last].
type offsetSpan struct {
	first, last int32
	offset      int64
}

var open = bound{time: -1}

// of is the offset that b names for a partition.
func (b bound) of(partition int32) (offset int64, named bool) {
	for _, s := range b.offsets {
		if s.first <= partition && partition <= s.last {
			return s.offset, true
		}
	}
	return 0, false
}

// parseBound reads from or until; none is the word for no bound.
func parseBound(what, text, none string) (bound, error) {
	if text == "" || text == none {
		return open, nil
	}
	if strings.ContainsRune(text, ':') && strings.Trim(text, "0123456789,:- ") == "" {
		if _, err := ParseTime(text); err != nil { // 2026-11-01 14:00 is made of the same characters
			offsets, err := parseOffsets(text)
			if err != nil {
				err.Place = what
				return open, err
			}
			return bound{-1, offsets}, nil
		}
	}
	t, err := ParseTime(text)
	if err != nil {
		e := err.(*InputError)
		e.Place = what
		if _, err := strconv.ParseUint(text, 10, 63); err == nil {
			e.What, e.Next = e.What+" and names no partition", "for an offset write it behind its partition, such as 0:"+text+", or 0-5:"+text+" where it holds for several; a time is such as 2026-11-25T14:00"
		} else {
			e.Next += ", or offsets by partition such as 0:1500,1:900"
		}
		return open, e
	}
	if t.UnixMilli() < 0 {
		return open, &InputError{What: text + " lies before 1970", Place: what, Next: "for the beginning of the topic leave it out"}
	}
	return bound{time: t.UnixMilli()}, nil
}

// parseOffsets reads offsets by partition: 0:1500,1:900 or 0-5:1500.
func parseOffsets(text string) ([]offsetSpan, *InputError) {
	var out []offsetSpan
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		of, at, _ := strings.Cut(part, ":")
		first, last, ok := partitionSpan(of)
		offset, err := strconv.ParseInt(at, 10, 64)
		if !ok || err != nil || offset < 0 {
			return nil, &InputError{What: fmt.Sprintf("%q is no offset of a partition", part), Next: "write offsets behind their partitions, such as 0:1500,1:900 or 0-5:1500"}
		}
		for _, s := range out {
			if s.first <= last && first <= s.last {
				return nil, &InputError{What: fmt.Sprintf("partition %d is named twice in %s", max(first, s.first), text), Next: "name each partition once"}
			}
		}
		out = append(out, offsetSpan{first, last, offset})
	}
	return out, nil
}

// maxPartition keeps a slip such as 0-99999999999 from filling memory; Kafka clusters hold fewer partitions in all.
const maxPartition = 1 << 20

// partitionSpan reads a partition's number, or a range of them such as 5-7.
func partitionSpan(text string) (first, last int32, ok bool) {
	low, high, several := strings.Cut(text, "-")
	from, err := strconv.ParseUint(low, 10, 31)
	to := from
	if several && err == nil {
		to, err = strconv.ParseUint(high, 10, 31)
	}
	if err != nil || to < from || to >= maxPartition {
		return 0, 0, false
	}
	return int32(from), int32(to), true
}

// crossed says why nothing can lie between from and until; "" where something may.
func crossed(from, until bound) string {
	if from.time >= 0 && until.time >= 0 && from.time >= until.time {
		return "a range runs from the earlier to the later time; a date is its first moment, so November is from 2026-11-01 until 2026-12-01"
	}
	for _, f := range from.offsets {
		for _, u := range until.offsets {
			if p := max(f.first, u.first); p <= min(f.last, u.last) && f.offset >= u.offset {
				return fmt.Sprintf("partition %d would begin at offset %d and end before offset %d; until names the first offset that is not read", p, f.offset, u.offset)
			}
		}
	}
	return ""
}

// cut moves the ends of ranges to the offsets that are named. An offset that retention has deleted stays the beginning: the reader
// counts what is gone, and allow_loss says whether that may be. One beyond the end is an error, as what was asked for is not there.
//
// kept is what those partitions hold; ranges may be less of them already.
func cut(topic string, kept, ranges []stream.Range, from, until bound) error {
	for _, b := range []struct {
		name string
		is   bound
	}{{"from", from}, {"until", until}} {
		for _, s := range b.is.offsets {
			for p := s.first; p <= s.last; p++ {
				i, found := slices.BinarySearchFunc(kept, p, func(r stream.Range, p int32) int { return int(r.Partition) - int(p) })
				if !found {
					return &InputError{What: fmt.Sprintf("partition %d is named, and is none of those that are read", p), Place: fmt.Sprintf("topic %s, %s", topic, b.name), Next: "topic " + holds(topic, kept)}
				}
				if end := kept[i].To; s.offset > end {
					return &InputError{What: fmt.Sprintf("offset %d of partition %d lies beyond its end: committed records end before offset %d", s.offset, p, end), Place: fmt.Sprintf("topic %s, %s", topic, b.name),
						Next: "name offsets that are there: " + holds(topic, kept), Kind: ErrTooFewRows}
				}
			}
		}
	}
	for i := range ranges {
		r := &ranges[i]
		if at, named := from.of(r.Partition); named {
			r.From = at
		}
		if at, named := until.of(r.Partition); named {
			r.To = at
		}
		r.To = max(r.To, r.From)
	}
	return nil
}

// holds says which offsets a topic has, of the first few partitions.
func holds(topic string, ranges []stream.Range) string {
	const shown = 8
	var parts []string
	for _, r := range ranges[:min(len(ranges), shown)] {
		if r.From < r.To {
			parts = append(parts, fmt.Sprintf("%d to %d of partition %d", r.From, r.To-1, r.Partition))
		} else {
			parts = append(parts, fmt.Sprintf("none of partition %d", r.Partition))
		}
	}
	text := topic + " holds offsets " + strings.Join(parts, ", ")
	if more := len(ranges) - shown; more > 0 {
		text += fmt.Sprintf(", and some of %d more", more)
	}
	return text
}

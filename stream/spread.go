package stream

import (
	"bytes"
	"context"
	"slices"
)

// Spread reads up to n committed records of topic, spread evenly over what its partitions hold now: the same ones for the
// same offsets. A topic of many more records is not read whole: then they are runs of neighbouring records, spread evenly
// over each partition, and where compaction has left holes they may be fewer. In order of partition and offset.
func (c *Client) Spread(ctx context.Context, topic string, n int) ([]Record, error) {
	ranges, err := c.Ranges(ctx, topic)
	if err != nil || n < 1 {
		return nil, err
	}
	var total int64
	for _, r := range ranges {
		total += r.To - r.From
	}
	var picked []Record
	if total <= spreadWhole*int64(n) {
		picked, err = c.spreadPick(ctx, topic, ranges, n)
	} else {
		picked, err = c.spreadRuns(ctx, topic, ranges, n, total)
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(picked, func(a, b Record) int {
		if a.Partition != b.Partition {
			return int(a.Partition - b.Partition)
		}
		return int(a.Offset - b.Offset)
	})
	return picked, nil
}

const (
	spreadWhole  = 100 // a topic of at most this many offsets for each record wanted is read whole: a second for 100,000
	spreadRounds = 20  // reads of a larger topic, each of a run of records in every partition
	spreadHoles  = 4   // offsets that a run may need for each of its records
)

// spreadPick reads everything and keeps evenly spread records: counted by records, since offsets have holes. How many there
// are shows only at the end, so each partition keeps every 1st, then every 2nd, 4th … record, at most 2n of them.
func (c *Client) spreadPick(ctx context.Context, topic string, ranges []Range, n int) ([]Record, error) {
	type thinned struct {
		kept []Record
		seen int
		step int
	}
	parts := map[int32]*thinned{}
	step := 1
	err := c.EachRecord(ctx, topic, ranges, func(r Record) error {
		p := parts[r.Partition]
		if p == nil {
			p = &thinned{step: 1}
			parts[r.Partition] = p
		}
		if p.seen%p.step == 0 {
			p.kept = append(p.kept, kept(r))
		}
		p.seen++
		if len(p.kept) > 2*n {
			p.kept, p.step = everyNth(p.kept, 2), 2*p.step
			step = max(step, p.step)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var all []Record
	for _, r := range ranges {
		if p := parts[r.Partition]; p != nil {
			all = append(all, everyNth(p.kept, step/p.step)...)
		}
	}
	if len(all) <= n {
		return all, nil
	}
	picked := make([]Record, n)
	for i := range picked {
		picked[i] = all[(2*i+1)*len(all)/(2*n)]
	}
	return picked, nil
}

func everyNth(list []Record, step int) []Record {
	var out []Record
	for i := 0; i < len(list); i += step {
		out = append(out, list[i])
	}
	return out
}

func (c *Client) spreadRuns(ctx context.Context, topic string, ranges []Range, n int, total int64) ([]Record, error) {
	var picked []Record
	var before int64 // offsets before this run, counted once a round
	for round := range int64(spreadRounds) {
		var runs []Range
		left := map[int32]int64{}
		for _, r := range ranges {
			size := r.To - r.From
			// This run's share of n; what rounding takes from one run the next one gets.
			want := (before+size)*int64(n)/(total*spreadRounds) - before*int64(n)/(total*spreadRounds)
			if before += size; want < 1 {
				continue
			}
			from := r.From + size*round/spreadRounds
			runs = append(runs, Range{Partition: r.Partition, From: from, To: min(from+want*spreadHoles, r.From+size*(round+1)/spreadRounds)})
			left[r.Partition] = want
		}
		if err := c.EachRecord(ctx, topic, runs, func(r Record) error {
			if left[r.Partition] > 0 {
				left[r.Partition]--
				picked = append(picked, kept(r))
			}
			return nil
		}); err != nil {
			return nil, err
		}
	}
	return picked, nil
}

// kept is a record that outlives its batch.
func kept(r Record) Record {
	r.Key, r.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
	return r
}

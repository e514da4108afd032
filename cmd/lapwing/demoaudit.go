package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/lapwing-stream/lapwing/bench/fleet"
	"github.com/lapwing-stream/lapwing/stream"
)

// demoSummary is the last line of `lapwing demo --json`.
type demoSummary struct {
	Seed          uint64           `json:"seed"`
	RecordsIn     int64            `json:"records_in"`
	RecordsScored int64            `json:"records_scored"` // what the scorer says
	RecordsOut    int64            `json:"records_out"`    // what stands in the scores topic
	Dropped       int64            `json:"dropped"`
	Doubled       int64            `json:"doubled"`
	OutOfOrder    int64            `json:"out_of_order"`
	Swaps         int64            `json:"swaps"`
	ByVersion     map[string]int64 `json:"by_version"`
	Episodes      int              `json:"episodes"`
	Kinds         int              `json:"kinds"` // of fault
	Alerts        int              `json:"alerts"`
	Precision     float64          `json:"precision"`
	Recall        float64          `json:"recall"`
	Detection     float64          `json:"median_detection_s"` // event time from onset to alert
	Hidden        float64          `json:"within_range"`       // share of found episodes with every field inside its history's range when the alert was raised
	RateKept      float64          `json:"rate_while_training"`
	P50           float64          `json:"p50_ms"`
	P99           float64          `json:"p99_ms"`
	P99Swap       float64          `json:"p99_ms_around_swap"`
	Seconds       float64          `json:"seconds"`
}

// demoScore is what the demo reads of a score or an alert record: no more than any other consumer would.
type demoScore struct {
	Version   int     `json:"version"`
	Partition int32   `json:"partition"`
	Offset    int64   `json:"offset"`
	Anomaly   bool    `json:"anomaly"`
	Key       string  `json:"key"`
	State     string  `json:"state"`
	Score     float64 `json:"score"`
	Threshold float64 `json:"threshold"`
	Time      string  `json:"time"`
	Top       []struct {
		Feature  string   `json:"feature"`
		Value    *float64 `json:"value"`
		Expected *float64 `json:"expected"`
		Share    float64  `json:"share"`
	} `json:"top"`
	Source struct {
		Topic     string `json:"topic"`
		Partition int32  `json:"partition"`
		Offset    int64  `json:"offset"`
	} `json:"source"`
}

// tally matches scores with their records. It believes nothing that the scorer says of itself: both topics are read
// again from where the scorer began.
type tally struct {
	from, to   map[int32]int64 // of the input, [from, to)
	seen       map[int32][]uint8
	last       map[int32]int64
	in, out    int64
	doubled    int64
	outOfOrder int64
	strange    int64 // scores of records outside [from, to)
	byVersion  map[int]int64
}

func newTally(from, to []stream.Range) *tally {
	t := &tally{from: map[int32]int64{}, to: map[int32]int64{}, seen: map[int32][]uint8{}, last: map[int32]int64{}, byVersion: map[int]int64{}}
	for _, r := range from {
		t.from[r.Partition] = r.To
	}
	for _, r := range to {
		if _, known := t.from[r.Partition]; !known {
			t.from[r.Partition] = r.From
		}
		t.to[r.Partition] = r.To
		n := max(r.To-t.from[r.Partition], 0)
		t.seen[r.Partition] = make([]uint8, n)
		t.in += n
		t.last[r.Partition] = -1
	}
	return t
}

func (t *tally) score(s demoScore) {
	t.out++
	t.byVersion[s.Version]++
	i := s.Offset - t.from[s.Partition]
	seen := t.seen[s.Partition]
	if i < 0 || i >= int64(len(seen)) {
		t.strange++
		return
	}
	switch {
	case seen[i] > 0:
		t.doubled++
	case s.Offset < t.last[s.Partition]:
		t.outOfOrder++
	}
	seen[i] = 1
	t.last[s.Partition] = max(t.last[s.Partition], s.Offset)
}

func (t *tally) dropped() int64 {
	var n int64
	for _, seen := range t.seen {
		for _, s := range seen {
			if s == 0 {
				n++
			}
		}
	}
	return n
}

// audit reads input, scores and alerts again, and fills in what the summary says of them. began are the end offsets of
// the first model's history, where the scorer started.
func (d *demo) audit(ctx context.Context, began []stream.Range, s *demoSummary) error {
	input, err := d.client.Ranges(ctx, demoTopic)
	if err != nil {
		return err
	}
	t := newTally(began, input)
	scores, err := d.client.Ranges(ctx, demoTopic+".scores")
	if err != nil {
		return err
	}
	err = d.client.EachRecord(ctx, demoTopic+".scores", scores, func(r stream.Record) error {
		var line demoScore
		if err := json.Unmarshal(r.Value, &line); err != nil {
			return fmt.Errorf("topic %s, partition %d, offset %d: %w", r.Topic, r.Partition, r.Offset, err)
		}
		if line.Partition != r.Partition {
			return fmt.Errorf("topic %s, partition %d, offset %d: the score of a record of partition %d", r.Topic, r.Partition, r.Offset, line.Partition)
		}
		t.score(line)
		return nil
	})
	if err != nil {
		return err
	}
	s.RecordsIn, s.RecordsOut, s.Dropped, s.Doubled, s.OutOfOrder = t.in, t.out, t.dropped(), t.doubled+t.strange, t.outOfOrder
	s.ByVersion = map[string]int64{}
	for v, n := range t.byVersion {
		s.ByVersion[fmt.Sprint(v)] = n
	}
	return d.auditAlerts(ctx, input, s)
}

func (d *demo) auditAlerts(ctx context.Context, input []stream.Range, s *demoSummary) error {
	ranges, err := d.client.Ranges(ctx, demoTopic+".alerts")
	if err != nil {
		return err
	}
	type raised struct {
		fleet.Alert
		partition int32
		offset    int64
	}
	var alerts []raised
	err = d.client.EachRecord(ctx, demoTopic+".alerts", ranges, func(r stream.Record) error {
		var line demoScore
		if r.Value == nil {
			return nil
		}
		if err := json.Unmarshal(r.Value, &line); err != nil {
			return fmt.Errorf("topic %s, partition %d, offset %d: %w", r.Topic, r.Partition, r.Offset, err)
		}
		if line.State == "raised" {
			at, err := time.Parse(time.RFC3339, line.Time)
			if err != nil {
				return err
			}
			alerts = append(alerts, raised{fleet.Alert{Car: carOf(r.Key), Time: at}, line.Source.Partition, line.Source.Offset})
		}
		return nil
	})
	if err != nil {
		return err
	}
	episodes := d.episodesBegun()
	plain := make([]fleet.Alert, len(alerts))
	for i, a := range alerts {
		plain[i] = a.Alert
	}
	v := fleet.Judge(episodes, plain)
	s.Episodes, s.Alerts, s.Precision, s.Recall, s.Detection = v.Episodes, v.Alerts, v.Precision, v.Recall, v.Detection.Seconds()
	kinds := map[fleet.Kind]bool{}
	for _, e := range episodes {
		kinds[e.Kind] = true
	}
	s.Kinds = len(kinds)

	// the records that raised an episode's first alert, to see whether any single field gave it away
	wanted := map[stream.TopicPartition][]int64{}
	for _, first := range v.First {
		if first >= 0 {
			tp := stream.TopicPartition{Topic: demoTopic, Partition: alerts[first].partition}
			wanted[tp] = append(wanted[tp], alerts[first].offset)
		}
	}
	var hidden, found int
	err = d.client.EachRecord(ctx, demoTopic, input, func(r stream.Record) error {
		if !slices.Contains(wanted[stream.TopicPartition{Topic: demoTopic, Partition: r.Partition}], r.Offset) {
			return nil
		}
		found++
		if inside, err := d.usual.holds(r.Value); err != nil {
			return err
		} else if inside {
			hidden++
		}
		return nil
	})
	if found > 0 {
		s.Hidden = float64(hidden) / float64(found)
	}
	return err
}

// carOf takes the record's key out of an alert's, MODEL|TOPIC|key.
func carOf(key []byte) string {
	k := string(key)
	for range 2 {
		if i := slices.Index([]byte(k), '|'); i >= 0 {
			k = k[i+1:]
		}
	}
	return k
}

// fieldRanges are the least and the greatest value of each field in the clean history, as training saw it.
type fieldRanges map[string][2]float64

// holds says whether every field of a record is within its range.
func (f fieldRanges) holds(value []byte) (bool, error) {
	var fields map[string]any
	if err := json.Unmarshal(value, &fields); err != nil {
		return false, err
	}
	for name, r := range f {
		// rows are float32, and so are the ranges
		if x, ok := fields[name].(float64); ok && (float64(float32(x)) < r[0] || float64(float32(x)) > r[1]) {
			return false, nil
		}
	}
	return true, nil
}

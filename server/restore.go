package server

import (
	"context"
	"fmt"
	"strings"

	"github.com/lapwing-stream/lapwing/stream"
)

// restoreAlerts reads the alerts topic's partitions up to their high watermark and gives each assignment the state
// of its keys. An open transaction below the watermark is waited for: its owner may have raised something.
func (s *session) restoreAlerts(ctx context.Context, to []assignment) error {
	topic := s.r.o.Alerts
	marks, err := s.r.topics.Watermarks(ctx, topic)
	if err != nil {
		return err
	}
	want := map[int32]bool{}
	state := map[stream.TopicPartition]map[string]alertJSON{}
	for i := range to {
		want[to[i].Partition] = true
		state[to[i].TopicPartition] = map[string]alertJSON{}
	}
	var ranges []stream.Range
	for _, m := range marks {
		if want[m.Partition] && m.To > m.From {
			ranges = append(ranges, m)
		}
	}
	if len(ranges) == 0 {
		return nil
	}
	skipped := 0
	err = s.r.topics.EachRecord(ctx, topic, ranges, func(r stream.Record) error {
		if !keepAlert(state, s.r.o.Model, &r) {
			skipped++
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("alert state of stream %s: %w", s.r.o.name(), err)
	}
	if skipped > 0 {
		s.r.log.Warn("records of the alerts topic that are no alerts of this stream were passed over", "stream", s.r.o.name(), "topic", topic, "records", skipped)
	}
	raised := 0
	for i := range to {
		for key, r := range state[to[i].TopicPartition] {
			to[i].state = append(to[i].state, restored{key: key, record: r})
			if r.State != AlertCleared {
				raised++
			}
		}
	}
	s.r.log.Info("alert state restored", "stream", s.r.o.name(), "partitions", len(ranges), "raised", raised)
	return nil
}

// keepAlert folds one record of the alerts topic into the state of the partitions that are being assigned. It
// returns false for a record that is no alert of this model.
func keepAlert(state map[stream.TopicPartition]map[string]alertJSON, model string, r *stream.Record) bool {
	key := string(r.Key)
	if !strings.HasPrefix(key, model+"|") {
		return false
	}
	if r.Value == nil { // a tombstone, by an operator's hand
		for _, keys := range state {
			delete(keys, key)
		}
		return true
	}
	a, ok := parseAlert(r.Value)
	if !ok {
		return false
	}
	if keys := state[stream.TopicPartition{Topic: a.Source.Topic, Partition: a.Source.Partition}]; keys != nil {
		keys[key] = a
	}
	return true
}

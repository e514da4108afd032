package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/lapwing-stream/lapwing/stream"
)

// restoreAlerts reads the alerts topic's partitions up to their high watermark and gives each assignment the state
// of its keys. An open transaction below the watermark is waited for: its owner may have raised something.
func (s *session) restoreAlerts(ctx context.Context, to []assignment) error {
	topic := s.r.o.Alerts
	marks, err := s.r.client.Watermarks(ctx, topic)
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
	h, err := s.r.client.ReadRanges(ctx, topic, ranges, stream.HistoryOptions{})
	if err != nil {
		return err
	}
	defer h.Close()
	skipped := 0
	for {
		b, err := h.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("alert state of stream %s: %w", s.r.o.name(), err)
		}
		for i := range b.Records {
			if !keepAlert(state, s.r.o.Model, &b.Records[i]) {
				skipped++
			}
		}
		b.Release()
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

package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/stream"
)

// rollingState is what rolling features look back on, for each assigned partition. It belongs to the decode goroutine,
// which sees a partition's records and the news of its coming and going in one order.
type rollingState struct {
	keys   int
	rewind int64
	parts  map[stream.TopicPartition]*rollingPartition
	stale  bool // a partition came or the model changed since lookBack
}

type rollingPartition struct {
	next    int64           // offset of the next record to be decoded, or a bound below it
	windows *events.Windows // nil: the model has no rolling features, or they are yet to be rebuilt
}

func newRollingState(o *Options) *rollingState {
	return &rollingState{keys: o.RollingKeys, rewind: int64(o.RollingRewind), parts: map[stream.TopicPartition]*rollingPartition{}}
}

// hear keeps the state to the assigned partitions. What another member has scored meanwhile is not in the windows that
// were left behind, so a partition that comes back begins with none.
func (r *rollingState) hear(n *news) {
	for _, a := range n.assigned {
		r.stale = true
		r.parts[a.TopicPartition] = &rollingPartition{next: a.from}
	}
	for _, gone := range [][]stream.TopicPartition{n.revoked, n.lost} {
		for _, tp := range gone {
			delete(r.parts, tp)
		}
	}
}

// windows are those of a partition; nil where there are none.
func (r *rollingState) windows(tp stream.TopicPartition) *events.Windows {
	if p := r.parts[tp]; p != nil {
		return p.windows
	}
	return nil
}

// advance notes that records have been decoded.
func (r *rollingState) advance(records []stream.Record) {
	var at stream.TopicPartition
	var p *rollingPartition
	for i := range records {
		if rec := &records[i]; p == nil || rec.Partition != at.Partition || rec.Topic != at.Topic {
			at = stream.TopicPartition{Topic: rec.Topic, Partition: rec.Partition}
			p = r.parts[at]
		}
		if p != nil {
			p.next = records[i].Offset + 1
		}
	}
}

// unfit lists the partitions whose windows d cannot go on with, by topic and partition.
func (r *rollingState) unfit(d *events.Decoder) []stream.TopicPartition {
	var out []stream.TopicPartition
	for tp, p := range r.parts {
		if !p.windows.Fit(d) {
			out = append(out, tp)
		}
	}
	slices.SortFunc(out, func(a, b stream.TopicPartition) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return out
}

// lookBack makes the windows that the decoder wants and that are not there: of partitions that came, and of all of them
// where a model with other rolling features took over. It reads the last rolling_rewind offsets before the next record
// of each partition again, without output.
//
// Reading is a bounded read of its own, beside the group's: the group's position is where the next score comes from,
// and could not be moved once records are on their way.
func (s *session) lookBack(ctx context.Context) error {
	state := s.rolling
	if !state.stale {
		return nil
	}
	unfit := state.unfit(s.decoder)
	state.stale = false
	byTopic := map[string][]stream.TopicPartition{}
	for _, tp := range unfit {
		// A model without rolling features has none to fill.
		state.parts[tp].windows = events.NewWindows(s.decoder, state.keys)
		byTopic[tp.Topic] = append(byTopic[tp.Topic], tp)
	}
	if len(unfit) == 0 || !s.decoder.Rolling() {
		return nil
	}
	records, keys := int64(0), 0
	for _, topic := range slices.Sorted(maps.Keys(byTopic)) {
		n, err := s.readBack(ctx, topic, byTopic[topic])
		if err != nil {
			// Windows that are half full would look whole.
			for _, tp := range unfit {
				state.parts[tp].windows = nil
			}
			return fmt.Errorf("records before the next ones of stream %s, for rolling features: %w", s.r.o.name(), err)
		}
		records += n
	}
	for _, tp := range unfit {
		keys += state.parts[tp].windows.Keys()
	}
	s.r.log.Info("looked back for rolling features", "stream", s.r.o.name(), "model", s.decodes.manifest.String(), "partitions", len(unfit), "records", records, "keys", keys)
	return nil
}

func (s *session) readBack(ctx context.Context, topic string, parts []stream.TopicPartition) (records int64, err error) {
	// Up to where transactions are decided: where a start lies beyond that, to wait for the rest would hold up the stream.
	have, err := s.r.client.Ranges(ctx, topic)
	if err != nil {
		return 0, err
	}
	var ranges []stream.Range
	for _, m := range have {
		tp := stream.TopicPartition{Topic: topic, Partition: m.Partition}
		if !slices.Contains(parts, tp) {
			continue
		}
		next := s.rolling.parts[tp].next
		if r := (stream.Range{Partition: m.Partition, From: max(m.From, next-s.rolling.rewind), To: min(m.To, next)}); r.From < r.To {
			ranges = append(ranges, r)
		}
	}
	if len(ranges) == 0 {
		return 0, nil
	}
	h, err := s.r.client.ReadRanges(ctx, topic, ranges, stream.HistoryOptions{})
	if err != nil {
		return 0, err
	}
	defer h.Close()
	row := make([]float32, s.decoder.Columns())
	for {
		b, err := h.Next(ctx)
		if errors.Is(err, io.EOF) {
			return records, nil
		}
		if err != nil {
			return records, err
		}
		for i := range b.Records {
			r := &b.Records[i]
			if s.filter != nil && !s.filter.Keeps(r.Value) {
				continue
			}
			s.decoder.DecodeNext(s.rolling.windows(stream.TopicPartition{Topic: topic, Partition: r.Partition}), r.Key, r.Value, row)
		}
		records += int64(len(b.Records))
		b.Release()
	}
}

package quality

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"time"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/server"
	"github.com/lapwing-stream/lapwing/stream"
	"github.com/lapwing-stream/lapwing/trainer"
)

// Names of what a split leaves on its broker.
const (
	topicName  = "rows"
	modelName  = "quality"
	partitions = 6 // of a topic whose rows have no order; a series has one
)

// broker is an embedded broker with a client, for one split: nothing of another one is on it.
type broker struct {
	embedded *stream.Embedded
	client   *stream.Client
	engine   kernels.Engine
}

func newBroker(ctx context.Context, engine kernels.Engine) (*broker, error) {
	embedded, err := stream.Embed(stream.EmbeddedOptions{})
	if err != nil {
		return nil, err
	}
	client, err := stream.Connect(ctx, stream.Options{
		Properties: map[string]string{"bootstrap.servers": embedded.Addr()}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		embedded.Close()
		return nil, err
	}
	return &broker{embedded, client, engine}, nil
}

func (b *broker) close() {
	b.client.Close()
	b.embedded.Close()
}

func (b *broker) registry() *registry.Registry {
	return registry.Open(b.client, registry.Options{Log: slog.New(slog.DiscardHandler)})
}

// fill makes a topic of rows and gives each row's place. Retention is off: event times may lie years back.
func (b *broker) fill(ctx context.Context, rows []row, partitions int) ([]place, error) {
	if _, err := b.client.CreateTopic(ctx, stream.TopicSpec{Name: topicName, Partitions: partitions, AnyTime: true, Config: map[string]string{"retention.ms": "-1"}}); err != nil {
		return nil, err
	}
	p, err := b.client.Producer(ctx, stream.ProducerOptions{Linger: 5 * time.Millisecond})
	if err != nil {
		return nil, err
	}
	places := make([]place, len(rows))
	next := make([]int64, partitions)
	batch := make([]stream.Record, 0, 1000)
	for i := range rows {
		r := &rows[i]
		to := i % partitions
		if r.key != nil { // the records of a key stay in order
			h := fnv.New32a()
			h.Write(r.key)
			to = int(h.Sum32() % uint32(partitions))
		}
		places[i] = place{int32(to), next[to]}
		next[to]++
		at := r.time
		if at == events.NoTime {
			at = int64(i) * 1000 // a second apart: the clock of this machine is no part of a measurement
		}
		batch = append(batch, stream.Record{Topic: topicName, Partition: int32(to), Key: r.key, Value: r.value, Time: at})
		if len(batch) == cap(batch) || i == len(rows)-1 {
			if err := p.Produce(ctx, batch); err != nil {
				p.Close(ctx)
				return nil, err
			}
			batch = batch[:0]
		}
	}
	return places, p.Close(ctx)
}

// place is where a record stands in its topic.
type place struct {
	partition int32
	offset    int64
}

// subject is how Lapwing is run on a split.
type subject struct {
	threads   int
	alarmRate float64
	rolling   int  // records of a key that the features look back on; 0 = none
	ordered   bool // the rows' order means something: one partition keeps it
	key, time string
	each      func(*trainer.Options)
}

// learned is what a model, as it lies in the model topic, says of a split.
type learned struct {
	history   []float64 // scores of the rows that it was trained on, in their order
	live      []float64 // of the others
	threshold float64   // as stored
	seconds   float64   // from the first record read to the last score
}

// learn takes a split the whole way: rows into a topic, a model out of its history and into the model topic, the model
// from there, and scores from the code that serves a stream. History and what follows share the topic, as they do
// where a model is served, so that features which look back find the history's last records.
func (b *broker) learn(ctx context.Context, s *split, how subject) (*learned, error) {
	n := partitions
	if how.ordered {
		n = 1
	}
	places, err := b.fill(ctx, append(s.train[:len(s.train):len(s.train)], s.test...), n)
	if err != nil {
		return nil, err
	}
	ranges := make([]stream.Range, n) // the history's
	for i := range ranges {
		ranges[i].Partition = int32(i)
	}
	for _, at := range places[:len(s.train)] {
		ranges[at.partition].To = at.offset + 1
	}
	o := trainer.Defaults()
	o.Topic, o.Model, o.Key, o.Time, o.Seed, o.Threads, o.Rolling, o.Ranges = topicName, modelName, how.key, how.time, s.seed, how.threads, how.rolling, ranges
	o.MinRows = 10 // some public sets are smaller than any real history
	if how.alarmRate > 0 {
		o.AlarmRate = how.alarmRate
	}
	if how.each != nil {
		how.each(&o)
	}
	started := time.Now()
	if _, err := trainer.Run(ctx, trainer.Deps{Client: b.client, Registry: b.registry(), Engine: b.engine, Log: slog.New(slog.DiscardHandler)}, o); err != nil {
		return nil, err
	}
	manifest, data, err := b.registry().Get(ctx, registry.Ref{Name: modelName, Alias: registry.Live})
	if err != nil {
		return nil, err
	}
	m, err := model.Decode(data)
	if err != nil {
		return nil, err
	}
	scores, err := b.scores(ctx, places, manifest, data)
	if err != nil {
		return nil, err
	}
	return &learned{scores[:len(s.train)], scores[len(s.train):], m.Threshold, time.Since(started).Seconds()}, nil
}

// scores reads the topic through the code of serve and gives the score of each place: +Inf where serve calls a record
// an anomaly without a number. A record without a score is an error, since the files' rows are sound.
func (b *broker) scores(ctx context.Context, places []place, m registry.Manifest, data []byte) ([]float64, error) {
	ranges, err := b.client.Ranges(ctx, topicName)
	if err != nil {
		return nil, err
	}
	found := make(map[place]float64, len(places))
	// One partition after the other, since a score record made outside of a stream names a line and no partition.
	for _, r := range ranges {
		h, err := b.client.ReadRanges(ctx, topicName, []stream.Range{r}, stream.HistoryOptions{})
		if err != nil {
			return nil, err
		}
		err = b.partitionScores(ctx, h, r.Partition, m, data, found)
		h.Close()
		if err != nil {
			return nil, err
		}
	}
	out := make([]float64, len(places))
	for i, at := range places {
		s, ok := found[at]
		if !ok {
			return nil, fmt.Errorf("topic %s, partition %d, offset %d has no score", topicName, at.partition, at.offset)
		}
		out[i] = s
	}
	return out, nil
}

func (b *broker) partitionScores(ctx context.Context, h *stream.History, partition int32, m registry.Manifest, data []byte, to map[place]float64) error {
	var queue []events.Entry
	next := func() (events.Entry, error) {
		for len(queue) == 0 {
			batch, err := h.Next(ctx)
			if err != nil {
				return events.Entry{}, err // io.EOF at the end
			}
			for _, r := range batch.Records {
				queue = append(queue, events.Entry{Value: append([]byte(nil), r.Value...), Key: append([]byte(nil), r.Key...), Time: r.Time, Line: int(r.Offset)})
			}
			batch.Release()
		}
		e := queue[0]
		queue = queue[1:]
		return e, nil
	}
	_, err := server.ScoreBounded(ctx, server.BoundedOptions{
		Data: data, Ref: registry.Ref{Name: m.Name, Version: m.Version}, Engine: b.engine, Source: topicName,
	}, next, func(s *server.Scored) error {
		if s.Reason != "" {
			return fmt.Errorf("partition %d, offset %d has no score: %s %s", partition, s.Line, s.Reason, s.Detail)
		}
		to[place{partition, int64(s.Line)}] = s.Score
		return nil
	})
	return err
}

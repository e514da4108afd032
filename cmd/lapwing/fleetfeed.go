package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"time"

	"github.com/lapwing-stream/lapwing/bench/fleet"
	"github.com/lapwing-stream/lapwing/stream"
)

// fleetFeed writes a fleet's records to a topic, keyed by car, and its labels to TOPIC.labels. It is what `generate
// cars` and the demo send with.
type fleetFeed struct {
	cars       *fleet.Fleet
	topic      string
	partitions int
	producer   *stream.Producer
	batch      []stream.Record
	result     feedResult
}

// feedResult is what one batch puts where; it is valid until the next.
type feedResult struct {
	partitions []int32 // of each record, in order
	episodes   []fleet.Episode
	last       time.Time // event time of the last record
	bytes      int64
}

func newFleetFeed(ctx context.Context, c *stream.Client, cars *fleet.Fleet, topic string, partitions int) (*fleetFeed, error) {
	p, err := c.Producer(ctx, stream.ProducerOptions{})
	if err != nil {
		return nil, err
	}
	return &fleetFeed{cars: cars, topic: topic, partitions: partitions, producer: p}, nil
}

// next makes the next n records; push sends them. The Kafka timestamp is the event time.
func (f *fleetFeed) next(n int) feedResult {
	f.batch, f.result.partitions, f.result.episodes, f.result.bytes = f.batch[:0], f.result.partitions[:0], f.result.episodes[:0], 0
	for range n {
		rec, began := f.cars.Next()
		at := partitionOf(rec.Key, f.partitions)
		f.batch = append(f.batch, stream.Record{Topic: f.topic, Partition: at, Key: []byte(rec.Key), Value: rec.Value, Time: rec.Time.UnixMilli()})
		f.result.partitions = append(f.result.partitions, at)
		f.result.episodes = append(f.result.episodes, began...)
		f.result.last = rec.Time
		f.result.bytes += int64(len(rec.Value))
	}
	return f.result
}

// push hands what next made to the producer.
func (f *fleetFeed) push(ctx context.Context) error { return f.producer.Produce(ctx, f.batch) }

// labels writes episodes to the topic beside the records, where no scorer reads them by accident.
func (f *fleetFeed) labels(ctx context.Context, episodes []fleet.Episode) error {
	var records []stream.Record
	for _, e := range episodes {
		value, err := json.Marshal(e)
		if err != nil {
			return err
		}
		records = append(records, stream.Record{Topic: f.topic + ".labels", Partition: 0, Key: []byte(e.Car), Value: value, Time: e.Onset.UnixMilli()})
	}
	if records == nil {
		return nil
	}
	return f.producer.Produce(ctx, records)
}

func (f *fleetFeed) flush(ctx context.Context) error { return f.producer.Flush(ctx) }
func (f *fleetFeed) close(ctx context.Context)       { f.producer.Close(ctx) }

// partitionOf is where Java's producer would put a key: murmur2 (Austin Appleby, seed as in Kafka's Utils), its sign
// bit cleared, modulo the partitions.
func partitionOf(key string, partitions int) int32 {
	const m = 0x5bd1e995
	data := []byte(key)
	h := 0x9747b28c ^ uint32(len(data))
	for ; len(data) >= 4; data = data[4:] {
		k := binary.LittleEndian.Uint32(data) * m
		k = (k ^ k>>24) * m
		h = h*m ^ k
	}
	for i := len(data) - 1; i >= 0; i-- {
		h ^= uint32(data[i]) << (8 * i)
		if i == 0 {
			h *= m
		}
	}
	h = (h ^ h>>13) * m
	h ^= h >> 15
	return int32(h&0x7fffffff) % int32(partitions)
}

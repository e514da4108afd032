// Package passthrough reads a topic and writes its records, unchanged, to another: what a client costs before anything is
// scored. It is the ceiling that the bench holds Lapwing against.
package passthrough

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/lapwing-stream/lapwing/stream"
)

// Options say what to pass through.
type Options struct {
	Brokers     string        // bootstrap.servers; required
	In, Out     string        // topics of as many partitions; required
	Group       string        // consumer group, and transactional id; required
	How         string        // one of Ways; required
	ExactlyOnce bool          // transactions in place of commits after acknowledgement
	Linger      time.Duration // of the producer; default 0
	Commit      time.Duration // time between commits; default 100ms
}

// The ways to pass records through.
const (
	Calls   = "calls"   // confluent-kafka-go as its documentation uses it: one Poll and one Produce a record
	Batches = "batches" // librdkafka's batch calls in a C loop
	Stream  = "stream"  // Lapwing's package stream
)

// Validate reports every fault at once.
func (o *Options) Validate() error {
	var faults []error
	if o.Brokers == "" || o.In == "" || o.Out == "" || o.Group == "" {
		faults = append(faults, errors.New("brokers, in, out and group must be given"))
	}
	switch o.How {
	case Calls, Batches:
	case Stream:
		if o.ExactlyOnce {
			faults = append(faults, errors.New("stream passes through at least once only"))
		}
	default:
		faults = append(faults, fmt.Errorf("how is %q: %s, %s or %s", o.How, Calls, Batches, Stream))
	}
	if o.Linger < 0 || o.Commit < 0 {
		faults = append(faults, errors.New("linger and commit must not be negative"))
	}
	return errors.Join(faults...)
}

// Run passes records through until ctx ends, which is no error.
func Run(ctx context.Context, o Options) error {
	if err := o.Validate(); err != nil {
		return err
	}
	if o.Commit == 0 {
		o.Commit = 100 * time.Millisecond
	}
	var err error
	switch o.How {
	case Calls:
		err = calls(ctx, o)
	case Batches:
		err = batches(ctx, o)
	case Stream:
		err = byStream(ctx, o)
	}
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// settings are those of both clients, so that only the calls differ.
func (o *Options) settings() (reader, writer map[string]string) {
	reader = map[string]string{
		"bootstrap.servers": o.Brokers, "group.id": o.Group, "enable.auto.commit": "false", "enable.auto.offset.store": "false",
		"auto.offset.reset": "earliest", "fetch.queue.backoff.ms": "1", "log_level": "0",
	}
	writer = map[string]string{
		"bootstrap.servers": o.Brokers, "enable.idempotence": "true", "linger.ms": strconv.FormatFloat(o.Linger.Seconds()*1000, 'f', -1, 64), "log_level": "0",
	}
	if o.ExactlyOnce {
		writer["transactional.id"] = o.Group
	}
	return reader, writer
}

func config(settings map[string]string, more map[string]any) *kafka.ConfigMap {
	m := kafka.ConfigMap{}
	for k, v := range settings {
		m[k] = v
	}
	for k, v := range more {
		m[k] = v
	}
	return &m
}

func calls(ctx context.Context, o Options) error {
	reader, writer := o.settings()
	c, err := kafka.NewConsumer(config(reader, nil))
	if err != nil {
		return err
	}
	defer c.Close()
	p, err := kafka.NewProducer(config(writer, map[string]any{"go.delivery.report.fields": "none"}))
	if err != nil {
		return err
	}
	defer p.Close()
	if o.ExactlyOnce {
		if err := p.InitTransactions(ctx); err != nil {
			return err
		}
	}
	if err := c.SubscribeTopics([]string{o.In}, nil); err != nil {
		return err
	}
	// An idempotent producer acknowledges a partition's records in order, so the last report is how far it is.
	acked := make(chan map[int32]int64, 1)
	acked <- map[int32]int64{}
	failed := make(chan error, 1)
	go func() { // ends when p.Close closes the channel
		for e := range p.Events() {
			m, ok := e.(*kafka.Message)
			if !ok {
				continue
			}
			if m.TopicPartition.Error != nil {
				select {
				case failed <- m.TopicPartition.Error:
				default:
				}
				continue
			}
			next := <-acked
			next[m.TopicPartition.Partition] = m.Opaque.(int64)
			acked <- next
		}
	}()
	read := map[int32]int64{}
	begun, due := false, time.Now().Add(o.Commit)
	commit := func() error {
		next := read
		if !o.ExactlyOnce {
			next = <-acked
			defer func() { acked <- map[int32]int64{} }()
		}
		var where []kafka.TopicPartition
		for part, n := range next {
			where = append(where, kafka.TopicPartition{Topic: &o.In, Partition: part, Offset: kafka.Offset(n)})
		}
		if len(where) == 0 {
			return nil
		}
		if !o.ExactlyOnce {
			_, err := c.CommitOffsets(where)
			return err
		}
		meta, err := c.GetConsumerGroupMetadata()
		if err == nil {
			err = p.SendOffsetsToTransaction(ctx, where, meta)
		}
		if err == nil {
			err = p.CommitTransaction(ctx)
		}
		begun = false
		clear(read)
		return err
	}
	for n := 0; ; n++ {
		if n%256 == 0 || begun || len(read) == 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case err := <-failed:
				return err
			default:
			}
		}
		switch m := c.Poll(max(0, min(100, int(time.Until(due).Milliseconds())))).(type) {
		case *kafka.Message:
			if m.TopicPartition.Error != nil {
				return m.TopicPartition.Error
			}
			if o.ExactlyOnce && !begun {
				if err := p.BeginTransaction(); err != nil {
					return err
				}
				begun = true
			}
			next := int64(m.TopicPartition.Offset) + 1
			out := &kafka.Message{TopicPartition: kafka.TopicPartition{Topic: &o.Out, Partition: m.TopicPartition.Partition}, Key: m.Key, Value: m.Value, Opaque: next}
			for {
				err := p.Produce(out, nil)
				if e, is := err.(kafka.Error); is && e.Code() == kafka.ErrQueueFull {
					p.Flush(1)
					continue
				}
				if err != nil {
					return err
				}
				break
			}
			read[m.TopicPartition.Partition] = next
		case kafka.Error:
			if m.IsFatal() {
				return m
			}
		}
		if time.Now().After(due) {
			if err := commit(); err != nil {
				return err
			}
			due = time.Now().Add(o.Commit)
		}
	}
}

func byStream(ctx context.Context, o Options) error {
	client, err := stream.Connect(ctx, stream.Options{Properties: map[string]string{"bootstrap.servers": o.Brokers}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer client.Close()
	g, err := client.Group(ctx, stream.GroupOptions{Topics: []string{o.In}, Group: o.Group})
	if err != nil {
		return err
	}
	defer g.Close()
	sink, err := client.AtLeastOnce(ctx, g)
	if err != nil {
		return err
	}
	defer sink.Close(context.WithoutCancel(ctx))
	pending := map[stream.TopicPartition]int64{}
	var out []stream.Record
	due := time.Now().Add(o.Commit)
	for {
		e, err := g.Next(ctx)
		if err != nil {
			return err
		}
		b, is := e.(*stream.Batch)
		if !is {
			continue
		}
		out = out[:0]
		for i := range b.Records {
			r := b.Records[i]
			pending[stream.TopicPartition{Topic: r.Topic, Partition: r.Partition}] = r.Offset + 1
			r.Topic = o.Out
			out = append(out, r)
		}
		err = sink.Produce(ctx, out)
		b.Release()
		if err == nil && time.Now().After(due) {
			err = sink.Commit(ctx, g.Offsets(pending))
			due = time.Now().Add(o.Commit)
		}
		if err != nil {
			return err
		}
	}
}

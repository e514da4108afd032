package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	apache "github.com/lapwing-stream/lapwing/bench/kafka"
	"github.com/lapwing-stream/lapwing/stream"
)

const partitions = 6

// cluster is a broker on loopback with a client.
type cluster struct {
	broker io.Closer
	addr   string
	kind   string // as tables name it
	real   bool
	client *stream.Client
}

// embedded is the broker of this process, so on the same cores as what is measured.
func embedded(ctx context.Context) (*cluster, error) {
	broker, err := stream.Embed(stream.EmbeddedOptions{})
	if err != nil {
		return nil, err
	}
	return connected(ctx, &cluster{broker: broker, addr: broker.Addr(), kind: "embedded broker"})
}

// cluster is a real Apache Kafka where it is installed, and the embedded broker otherwise, which a note says.
func (r *run) cluster(ctx context.Context, suite string) (*cluster, error) {
	missing := errors.New("no folder of peers is given")
	if r.Peers != "" {
		missing = apache.Broker.Missing(r.Peers)
	}
	if missing != nil {
		r.note("%s: on the embedded broker, which is in the process of the bench: Apache Kafka cannot be used: %v", suite, missing)
		return embedded(ctx)
	}
	broker, err := apache.Start(ctx, apache.Options{Dir: r.Peers})
	if err != nil {
		return nil, err
	}
	r.Versions["Apache Kafka"] = apache.Version
	return connected(ctx, &cluster{broker: broker, addr: broker.Addr(), kind: "Apache Kafka", real: true})
}

func connected(ctx context.Context, c *cluster) (*cluster, error) {
	client, err := stream.Connect(ctx, stream.Options{Properties: map[string]string{"bootstrap.servers": c.addr}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connecting: %w", err), c.broker.Close())
	}
	c.client = client
	return c, nil
}

func (c *cluster) close() {
	c.client.Close()
	c.broker.Close()
}

// topic creates topics.
func (c *cluster) topic(ctx context.Context, names ...string) error {
	for _, name := range names {
		if _, err := c.client.CreateTopic(ctx, stream.TopicSpec{Name: name, Partitions: partitions}); err != nil {
			return err
		}
	}
	return nil
}

// fill creates a topic and puts n records into it, round robin over the partitions, their values in turn: record i is
// in partition i % partitions at offset i / partitions after what was there.
func (c *cluster) fill(ctx context.Context, topic string, values [][]byte, n int) error {
	if err := c.topic(ctx, topic); err != nil {
		return err
	}
	p, err := c.client.Producer(ctx, stream.ProducerOptions{Linger: 5 * time.Millisecond, MaxQueued: 100_000})
	if err != nil {
		return err
	}
	defer p.Close(ctx)
	batch := make([]stream.Record, 0, 6000)
	for i := range n {
		batch = append(batch, record(topic, values, i))
		if len(batch) == cap(batch) || i == n-1 {
			if err := p.Produce(ctx, batch); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	return p.Flush(ctx)
}

// record is the i-th of a topic.
func record(topic string, values [][]byte, i int) stream.Record {
	return stream.Record{Topic: topic, Partition: int32(i % partitions), Key: carKeys[i%len(carKeys)], Value: values[i%len(values)], Time: time.Now().UnixMilli()}
}

// carKeys are keys of as many cars as the fleet has.
var carKeys = func() (keys [100][]byte) {
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "car%02d", i)
	}
	return keys
}()

// count asks the topic, not who wrote it, how many records it has; a transaction's end counts as one.
func (c *cluster) count(ctx context.Context, topic string) (int64, error) {
	ranges, err := c.client.Watermarks(ctx, topic)
	var n int64
	for _, r := range ranges {
		n += r.To - r.From
	}
	return n, err
}

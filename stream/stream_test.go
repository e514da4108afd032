package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/twmb/franz-go/pkg/kfake"
)

// The tests speak the protocol to a broker over TCP: the embedded one, or with LAPWING_TEST_BROKERS=HOST:PORT a real Kafka, whose
// topics and groups then have names of their own for each run. Tests that inject faults always use an embedded broker of their own.
//
// What the embedded broker cannot show, and a real one has to: compaction of closed segments while reading (cases 1.02 and 1.10:
// kfake compacts when told to), retention by time (1.16), leaders that move between brokers (2.13), ACLs by resource as Kafka
// words them (2.07), a frozen process (8.14 here holds back the answers instead).

// broker gives a client of the broker under test, and the embedded cluster, nil for a real one.
func broker(t *testing.T) (*Client, *kfake.Cluster) {
	t.Helper()
	if addr := os.Getenv("LAPWING_TEST_BROKERS"); addr != "" {
		return connect(t, addr, nil), nil
	}
	return fake(t)
}

// fake gives an embedded broker of the test's own.
func fake(t *testing.T, opts ...kfake.Opt) (*Client, *kfake.Cluster) {
	t.Helper()
	e, err := embed(EmbeddedOptions{}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return connect(t, e.Addr(), nil), e.cluster
}

func connect(t *testing.T, addr string, props map[string]string) *Client {
	t.Helper()
	m := map[string]string{"bootstrap.servers": addr}
	for k, v := range props {
		m[k] = v
	}
	c, err := Connect(ctxOf(t), Options{Properties: m, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func ctxOf(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

var serial atomic.Int64

// name makes a topic or group name that no other run has used.
func name(prefix string) string {
	return fmt.Sprintf("%s-%d-%d", prefix, time.Now().UnixMilli(), serial.Add(1))
}

func topic(t *testing.T, c *Client, partitions int, config ...string) string {
	t.Helper()
	n := name("t")
	cfg := map[string]string{}
	for i := 0; i+1 < len(config); i += 2 {
		cfg[config[i]] = config[i+1]
	}
	if _, err := c.CreateTopic(ctxOf(t), TopicSpec{Name: n, Partitions: partitions, Config: cfg}); err != nil {
		t.Fatal(err)
	}
	return n
}

func records(topic string, partition int32, from, n int) []Record {
	out := make([]Record, n)
	for i := range out {
		out[i] = Record{Topic: topic, Partition: partition, Key: fmt.Appendf(nil, "k%d", i%10), Value: fmt.Appendf(nil, "%d", from+i), Time: int64(1_700_000_000_000 + from + i)}
	}
	return out
}

// produce writes recs and waits for them; one producer a client, as making and closing one takes a tenth of a second.
func produce(t *testing.T, c *Client, recs ...Record) {
	t.Helper()
	ctx := ctxOf(t)
	p, ok := producers.Load(c)
	if !ok {
		made, err := c.Producer(ctx, ProducerOptions{})
		if err != nil {
			t.Fatal(err)
		}
		p = made
		producers.Store(c, p)
		t.Cleanup(func() {
			producers.Delete(c)
			made.destroy()
		})
	}
	if err := errors.Join(p.(*Producer).Produce(ctx, recs), p.(*Producer).Flush(ctx)); err != nil {
		t.Fatal(err)
	}
}

var producers sync.Map // *Client -> *Producer

// readAll reads ranges to the end and checks that every partition's records come in offset order, each batch from one partition.
func readAll(t *testing.T, c *Client, topic string, ranges []Range, o HistoryOptions) ([]Record, []RangeResult) {
	t.Helper()
	ctx := ctxOf(t)
	h, err := c.ReadRanges(ctx, topic, ranges, o)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	var all []Record
	next := map[int32]int64{}
	for {
		b, err := h.Next(ctx)
		if errors.Is(err, io.EOF) {
			return all, h.Results()
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range b.Records {
			if r.Partition != b.Records[0].Partition || r.Topic != topic {
				t.Fatalf("a batch mixes %s/%d and %s/%d", b.Records[0].Topic, b.Records[0].Partition, r.Topic, r.Partition)
			}
			if r.Offset < next[r.Partition] {
				t.Fatalf("partition %d: offset %d after %d", r.Partition, r.Offset, next[r.Partition]-1)
			}
			next[r.Partition] = r.Offset + 1
			all = append(all, keep(r))
		}
		b.Release()
	}
}

// keep is a record that outlives its batch.
func keep(r Record) Record {
	r = kept(r)
	r.Headers = slices.Clone(r.Headers)
	for i := range r.Headers {
		r.Headers[i].Value = bytes.Clone(r.Headers[i].Value)
	}
	return r
}

func readHistory(t *testing.T, c *Client, topic string) ([]Record, []RangeResult) {
	t.Helper()
	r, err := c.Ranges(ctxOf(t), topic)
	if err != nil {
		t.Fatal(err)
	}
	return readAll(t, c, topic, r, HistoryOptions{})
}

func logEvent(tag string, level int, format string, args ...any) kafka.LogEvent {
	return kafka.LogEvent{Tag: tag, Level: level, Message: fmt.Sprintf(format, args...)}
}

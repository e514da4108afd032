package stream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"syscall"
	"testing"
	"time"
)

// The benchmarks move b.N records of 300 bytes over 6 partitions; processor time is the process's own, so an embedded broker counts
// with it. Against another broker, both ways:
//
//	bench/kafka/with-kafka go test ./stream -run - -bench . -benchtime 1000000x -count 3

func cpuTime(tb testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measured runs do, which moves b.N records.
func measured(b *testing.B, do func()) {
	b.ResetTimer()
	start, cpu := time.Now(), cpuTime(b)
	do()
	cpu, wall := cpuTime(b)-cpu, time.Since(start)
	b.ReportMetric(cpu.Seconds()*1e6/float64(b.N), "cpu-s/M")
	b.ReportMetric(float64(b.N)/wall.Seconds()/1e3, "krec/s")
	b.ReportMetric(0, "ns/op")
}

func benchTopic(b *testing.B, c *Client, fill bool) string {
	top := name("bench")
	if _, err := c.CreateTopic(b.Context(), TopicSpec{Name: top, Partitions: 6}); err != nil {
		b.Fatal(err)
	}
	if fill {
		p, err := c.Producer(b.Context(), ProducerOptions{Linger: 5 * time.Millisecond})
		if err != nil {
			b.Fatal(err)
		}
		send(b, p.Produce, top)
		if err := p.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	return top
}

// send produces b.N records, 1000 a call.
func send(b *testing.B, produce func(context.Context, []Record) error, top string) {
	value := bytes.Repeat([]byte("x"), 291)
	batch := make([]Record, 0, 1000)
	for i := range b.N {
		batch = append(batch, Record{Topic: top, Partition: int32(i / 100 % 6), Key: []byte("car-00001"), Value: value, Time: 1_700_000_000_000})
		if len(batch) == cap(batch) || i == b.N-1 {
			if err := produce(b.Context(), batch); err != nil {
				b.Fatal(err)
			}
			batch = batch[:0]
		}
	}
}

func benchClient(b *testing.B) *Client {
	addr := os.Getenv("LAPWING_TEST_BROKERS")
	if addr == "" {
		e, err := Embed(EmbeddedOptions{})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { e.Close() })
		addr = e.Addr()
	}
	c, err := Connect(b.Context(), Options{Properties: map[string]string{"bootstrap.servers": addr}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	return c
}

func BenchmarkHistory(b *testing.B) {
	c := benchClient(b)
	top := benchTopic(b, c, true)
	r, err := c.Ranges(b.Context(), top)
	if err != nil {
		b.Fatal(err)
	}
	measured(b, func() {
		h, err := c.ReadRanges(b.Context(), top, r, HistoryOptions{})
		if err != nil {
			b.Fatal(err)
		}
		defer h.Close()
		for {
			batch, err := h.Next(b.Context())
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				b.Fatal(err)
			}
			batch.Release()
		}
	})
}

func BenchmarkProduce(b *testing.B) {
	c := benchClient(b)
	top := benchTopic(b, c, false)
	p, err := c.Producer(b.Context(), ProducerOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close(b.Context())
	measured(b, func() {
		send(b, p.Produce, top)
		if err := p.Flush(b.Context()); err != nil {
			b.Fatal(err)
		}
	})
}

func BenchmarkGroup(b *testing.B) {
	c := benchClient(b)
	through(b, c, benchTopic(b, c, true), nil)
}

func BenchmarkAtLeastOnce(b *testing.B) {
	c := benchClient(b)
	through(b, c, benchTopic(b, c, true), func(g *Group) (Sink, error) { return c.AtLeastOnce(b.Context(), g) })
}

func BenchmarkExactlyOnce(b *testing.B) {
	c := benchClient(b)
	through(b, c, benchTopic(b, c, true), func(g *Group) (Sink, error) {
		return c.ExactlyOnce(b.Context(), g, ExactlyOnceOptions{ID: name("bench")})
	})
}

// through reads a topic by a group, and copies it to another where there is a sink, with a commit every 100 ms.
func through(b *testing.B, c *Client, in string, sink func(*Group) (Sink, error)) {
	ctx := b.Context()
	out := benchTopic(b, c, false)
	g, err := c.Group(ctx, GroupOptions{Topics: []string{in}, Group: name("bench")})
	if err != nil {
		b.Fatal(err)
	}
	defer g.Close()
	var s Sink
	if sink != nil {
		if s, err = sink(g); err != nil {
			b.Fatal(err)
		}
		defer s.Close(ctx)
	}
	e, err := g.Next(ctx) // assigned; read from the following Next on
	if err != nil {
		b.Fatalf("%T %v", e, err)
	}
	measured(b, func() {
		next := map[TopicPartition]int64{}
		begun, last := false, time.Now()
		for n := 0; n < b.N || begun; {
			if begun && (n == b.N || time.Since(last) > 100*time.Millisecond) {
				if err := s.Commit(ctx, g.Offsets(next)); err != nil {
					b.Fatal(err)
				}
				begun, last = false, time.Now()
				continue
			}
			e, err := g.Next(ctx)
			if err != nil {
				b.Fatal(err)
			}
			batch, ok := e.(*Batch)
			if !ok {
				continue
			}
			for i := range batch.Records {
				r := &batch.Records[i]
				next[TopicPartition{r.Topic, r.Partition}] = r.Offset + 1
				r.Topic = out
			}
			n += len(batch.Records)
			if s != nil {
				if !begun {
					if err := s.Begin(ctx); err != nil {
						b.Fatal(err)
					}
					begun = true
				}
				if err := s.Produce(ctx, batch.Records); err != nil {
					b.Fatal(err)
				}
			}
			batch.Release()
		}
	})
}

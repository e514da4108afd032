package server

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

// BenchmarkServe is Kafka to Kafka over the embedded broker, which shares the cores: a backlog of JSON records of 18
// numbers in 6 partitions is scored and committed.
func BenchmarkServe(b *testing.B) {
	broker, err := stream.Embed(stream.EmbeddedOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer broker.Close()
	log := slog.New(slog.DiscardHandler)
	client, err := stream.Connect(b.Context(), stream.Options{Properties: map[string]string{"bootstrap.servers": broker.Addr()}, Log: log})
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	const partitions, backlog = 6, 200_000
	if _, err := client.CreateTopic(b.Context(), stream.TopicSpec{Name: "cars", Partitions: partitions}); err != nil {
		b.Fatal(err)
	}
	spec := model.Spec{Format: "json"}
	for i := range 18 {
		spec.Fields = append(spec.Fields, model.Field{Name: fmt.Sprintf("sensor_%02d", i), Type: model.Number})
	}
	p, err := client.Producer(b.Context(), stream.ProducerOptions{Linger: 5 * time.Millisecond})
	if err != nil {
		b.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	var batch []stream.Record
	for i := range backlog {
		value := []byte{'{'}
		for j, f := range spec.Fields {
			if j > 0 {
				value = append(value, ',')
			}
			value = fmt.Appendf(value, "%q:%.4f", f.Name, rng.NormFloat64())
		}
		batch = append(batch, stream.Record{Topic: "cars", Partition: int32(i % partitions), Key: fmt.Appendf(nil, "car-%d", i%1000), Value: append(value, '}'), Time: int64(i)})
		if len(batch) == 10_000 {
			if err := p.Produce(b.Context(), batch); err != nil {
				b.Fatal(err)
			}
			batch = batch[:0]
		}
	}
	if err := p.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
	r := registry.Open(client, registry.Options{Log: log})
	if err := r.EnsureTopic(b.Context()); err != nil {
		b.Fatal(err)
	}
	if _, err := r.Publish(b.Context(), registry.Publication{Name: "cars", Data: testModel(b, spec, 1, 100), Alias: "live", By: "bench"}); err != nil {
		b.Fatal(err)
	}
	run := 0
	for b.Loop() {
		run++
		out := fmt.Sprintf("out%d", run)
		s, err := New(Deps{Client: client, Registry: r, Engine: cpu.New(), Log: log}, Options{Streams: []StreamOptions{
			{Model: "cars", Topics: []string{"cars"}, Output: out, DLQ: out + ".dlq", Alerts: out + ".alerts"}}})
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		tick := time.NewTicker(time.Millisecond)
		var began time.Time
		for {
			<-tick.C
			n := s.Status().Streams[0].RecordsOut
			if n > 0 && began.IsZero() {
				began = time.Now()
			}
			if n == backlog {
				break
			}
		}
		b.ReportMetric(backlog/time.Since(began).Seconds(), "records/s")
		cancel()
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}

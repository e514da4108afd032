package server

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

// benchBed is an embedded broker with a topic of six partitions and a model of 18 numbers.
func benchBed(b *testing.B) (*stream.Client, *registry.Registry, func(rng *rand.Rand, i int) stream.Record) {
	broker, err := stream.Embed(stream.EmbeddedOptions{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { broker.Close() })
	log := slog.New(slog.DiscardHandler)
	client, err := stream.Connect(b.Context(), stream.Options{Properties: map[string]string{"bootstrap.servers": broker.Addr()}, Log: log})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(client.Close)
	const partitions = 6
	if _, err := client.CreateTopic(b.Context(), stream.TopicSpec{Name: "cars", Partitions: partitions}); err != nil {
		b.Fatal(err)
	}
	spec := model.Spec{Format: "json"}
	for i := range 18 {
		spec.Fields = append(spec.Fields, model.Field{Name: fmt.Sprintf("sensor_%02d", i), Type: model.Number})
	}
	r := registry.Open(client, registry.Options{Log: log})
	if err := r.EnsureTopic(b.Context()); err != nil {
		b.Fatal(err)
	}
	if _, err := r.Publish(b.Context(), registry.Publication{Name: "cars", Data: testModel(b, spec, 1, 100), Alias: "live", By: "bench"}); err != nil {
		b.Fatal(err)
	}
	return client, r, func(rng *rand.Rand, i int) stream.Record {
		value := []byte{'{'}
		for j, f := range spec.Fields {
			if j > 0 {
				value = append(value, ',')
			}
			value = fmt.Appendf(value, "%q:%.4f", f.Name, rng.NormFloat64())
		}
		return stream.Record{Topic: "cars", Partition: int32(i % partitions), Key: fmt.Appendf(nil, "car-%d", i%1000), Value: append(value, '}'), Time: time.Now().UnixMilli()}
	}
}

// benchServe runs a server over the bed until the benchmark's body has ended.
func benchServe(b *testing.B, client *stream.Client, r *registry.Registry, output string, body func(*Server)) {
	s, err := New(Deps{Client: client, Registry: r, Engine: cpu.New(), Log: slog.New(slog.DiscardHandler)}, Options{Streams: []StreamOptions{
		{Model: "cars", Topics: []string{"cars"}, Output: output, DLQ: output + ".dlq", Alerts: output + ".alerts"}}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	body(s)
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

// BenchmarkServe is Kafka to Kafka over the embedded broker, which shares the cores: a backlog of JSON records of 18
// numbers is scored.
func BenchmarkServe(b *testing.B) {
	client, r, record := benchBed(b)
	const backlog = 200_000
	p, err := client.Producer(b.Context(), stream.ProducerOptions{Linger: 5 * time.Millisecond})
	if err != nil {
		b.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range backlog {
		if err := p.Produce(b.Context(), []stream.Record{record(rng, i)}); err != nil {
			b.Fatal(err)
		}
	}
	if err := p.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
	run := 0
	for b.Loop() {
		run++
		benchServe(b, client, r, fmt.Sprint("out", run), func(s *Server) {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			var began time.Time
			for n := int64(0); n < backlog; n = s.Status().Streams[0].RecordsOut {
				<-tick.C
				if n > 0 && began.IsZero() {
					began = time.Now()
				}
			}
			b.ReportMetric(backlog/time.Since(began).Seconds(), "records/s")
		})
	}
}

// BenchmarkServeLatency is the time from produce to score consumed at 1,000 records/s, open loop: a record is due on
// time, whatever became of the one before.
func BenchmarkServeLatency(b *testing.B) {
	client, r, record := benchBed(b)
	p, err := client.Producer(b.Context(), stream.ProducerOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close(b.Context())
	const n, every = 5000, time.Millisecond
	run := 0
	for b.Loop() {
		run++
		output := fmt.Sprint("latency", run)
		benchServe(b, client, r, output, func(s *Server) {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for !s.Status().Ready || s.Status().Streams[0].Partitions == 0 {
				<-tick.C
			}
			tail, err := client.Tail(b.Context(), []string{output}, stream.TailOptions{Start: "earliest"})
			if err != nil {
				b.Fatal(err)
			}
			defer tail.Close()
			ends, err := client.Watermarks(b.Context(), "cars")
			if err != nil {
				b.Fatal(err)
			}
			first := map[int32]int64{}
			for _, e := range ends {
				first[e.Partition] = e.To
			}
			began := time.Now().Add(100 * time.Millisecond)
			due := func(i int) time.Time { return began.Add(time.Duration(i) * every) }
			var feeding sync.WaitGroup
			feeding.Go(func() {
				rng := rand.New(rand.NewPCG(1, 2))
				for i := range n {
					<-time.After(time.Until(due(i)))
					if err := p.Produce(b.Context(), []stream.Record{record(rng, i)}); err != nil {
						b.Error(err)
						return
					}
				}
			})
			var took []float64
			for len(took) < n {
				batch, err := tail.Next(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				now := time.Now()
				for i := range batch.Records {
					var s struct{ Offset int64 }
					if err := json.Unmarshal(batch.Records[i].Value, &s); err != nil {
						b.Fatal(err)
					}
					partition := batch.Records[i].Partition
					if k := s.Offset - first[partition]; k >= 0 { // not what an earlier round left
						took = append(took, now.Sub(due(int(k)*len(ends)+int(partition))).Seconds()*1000)
					}
				}
				batch.Release()
			}
			feeding.Wait()
			slices.Sort(took)
			b.ReportMetric(took[n/2], "p50-ms")
			b.ReportMetric(took[n*99/100], "p99-ms")
		})
	}
}

// BenchmarkStages is what a record costs between Kafka and Kafka: its copy into the micro-batch, decode, score, encode.
func BenchmarkStages(b *testing.B) {
	spec := model.Spec{Format: "json"}
	for i := range 18 {
		spec.Fields = append(spec.Fields, model.Field{Name: fmt.Sprintf("sensor_%02d", i), Type: model.Number})
	}
	live, err := loadModel(cpu.New(), testModel(b, spec, 1, 100), modelNeeds{})
	if err != nil {
		b.Fatal(err)
	}
	live.ref, live.version = registry.Ref{Name: "cars"}, 12
	const batch = 4096
	rng := rand.New(rand.NewPCG(1, 1))
	input := &stream.Batch{}
	for i := range batch {
		value := []byte{'{'}
		for j, f := range spec.Fields {
			if j > 0 {
				value = append(value, ',')
			}
			value = fmt.Appendf(value, "%q:%.4f", f.Name, rng.NormFloat64())
		}
		input.Records = append(input.Records, stream.Record{Topic: "cars", Partition: int32(i / 700), Offset: int64(1_000_000 + i),
			Key: fmt.Appendf(nil, "car-%d", i%1000), Value: append(value, '}'), Time: 1_790_000_000_000 + int64(i)})
	}
	o := Options{Streams: []StreamOptions{{Model: "cars", Topics: []string{"cars"}}}}.withDefaults()
	r := &runner{o: &o.Streams[0], server: &o, log: slog.New(slog.DiscardHandler), metrics: newMetricSet().stream("cars.scores")}
	r.slot = newSlot(r.o, r.log, r.metrics)
	r.slot.live.Store(live)
	s := &session{r: r, free: make(chan *micro, 2), rolling: newRollingState(&o), quiet: map[stream.TopicPartition]int64{}, said: map[string]bool{}}
	s.alerts = newAlertBook(r.o.rules(), s.emitAlert)
	var took [3]time.Duration
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		p := &parcel{batches: []*stream.Batch{input}, records: batch}
		at := time.Now()
		if err := s.decode(b.Context(), p); err != nil {
			b.Fatal(err)
		}
		decoded := time.Now()
		if err := p.m.score(false); err != nil {
			b.Fatal(err)
		}
		scored := time.Now()
		s.encode(p, false)
		took[0] += decoded.Sub(at)
		took[1] += scored.Sub(decoded)
		took[2] += time.Since(scored)
		m := p.m
		m.leave()
		clear(p.out)
		m.out, m.text = p.out, p.text
		s.free <- m
	}
	for i, name := range []string{"decode-ns", "score-ns", "encode-ns"} {
		b.ReportMetric(float64(took[i].Nanoseconds())/float64(n*batch), name)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n*batch), "ns/record")
}

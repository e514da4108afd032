package server

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

// benchBed is a broker, the embedded one unless LAPWING_TEST_BROKERS names another, with a topic of six partitions and a model of 18
// numbers.
type benchBed struct {
	client   *stream.Client
	registry *registry.Registry
	topic    string
	record   func(rng *rand.Rand, i int) stream.Record
}

func newBenchBed(b *testing.B) *benchBed {
	addr := os.Getenv("LAPWING_TEST_BROKERS")
	if addr == "" {
		broker, err := stream.Embed(stream.EmbeddedOptions{})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { broker.Close() })
		addr = broker.Addr()
	}
	log := slog.New(slog.DiscardHandler)
	client, err := stream.Connect(b.Context(), stream.Options{Properties: map[string]string{"bootstrap.servers": addr}, Log: log})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(client.Close)
	const partitions = 6
	topic := fmt.Sprintf("cars-%d", time.Now().UnixNano()) // a broker outlives the run
	if _, err := client.CreateTopic(b.Context(), stream.TopicSpec{Name: topic, Partitions: partitions}); err != nil {
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
	return &benchBed{client, r, topic, func(rng *rand.Rand, i int) stream.Record {
		value := []byte{'{'}
		for j, f := range spec.Fields {
			if j > 0 {
				value = append(value, ',')
			}
			value = fmt.Appendf(value, "%q:%.4f", f.Name, rng.NormFloat64())
		}
		return stream.Record{Topic: topic, Partition: int32(i % partitions), Key: fmt.Appendf(nil, "car-%d", i%1000), Value: append(value, '}'), Time: time.Now().UnixMilli()}
	}}
}

// serve runs a server over the bed until the benchmark's body has ended.
func (bed *benchBed) serve(b *testing.B, delivery, output string, body func(*Server)) {
	s, err := New(Deps{Client: bed.client, Registry: bed.registry, Engine: cpu.New(), Log: slog.New(slog.DiscardHandler)}, Options{Delivery: delivery, Streams: []StreamOptions{
		{Model: "cars", Topics: []string{bed.topic}, Output: output, DLQ: output + ".dlq", Alerts: output + ".alerts"}}})
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

// BenchmarkServe is Kafka to Kafka over a broker that shares the cores: a backlog of JSON records of 18 numbers is scored.
func BenchmarkServe(b *testing.B) {
	bed := newBenchBed(b)
	const backlog = 400_000
	p, err := bed.client.Producer(b.Context(), stream.ProducerOptions{Linger: 5 * time.Millisecond})
	if err != nil {
		b.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range backlog {
		if err := p.Produce(b.Context(), []stream.Record{bed.record(rng, i)}); err != nil {
			b.Fatal(err)
		}
	}
	if err := p.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
	run := 0
	for _, delivery := range []string{AtLeastOnce, ExactlyOnce} {
		b.Run(delivery, func(b *testing.B) {
			for b.Loop() {
				run++
				bed.serve(b, delivery, fmt.Sprint(bed.topic, "-out", run), func(s *Server) {
					tick := time.NewTicker(time.Millisecond)
					defer tick.Stop()
					var began time.Time
					for n := int64(0); n < backlog; n = s.Status().Streams[0].RecordsOut {
						<-tick.C
						if in := s.Status().Streams[0].RecordsIn; in > 0 && began.IsZero() {
							began = time.Now()
						}
					}
					b.ReportMetric(backlog/time.Since(began).Seconds(), "records/s")
				})
			}
		})
	}
}

// BenchmarkServeLatency is the time from produce to committed score consumed at 1,000 records/s, open loop: a record is due on
// time, whatever became of the one before.
func BenchmarkServeLatency(b *testing.B) {
	bed := newBenchBed(b)
	run := 0
	for _, delivery := range []string{AtLeastOnce, ExactlyOnce} {
		b.Run(delivery, func(b *testing.B) {
			for b.Loop() {
				run++
				bed.latency(b, delivery, fmt.Sprint(bed.topic, "-latency", run))
			}
		})
	}
}

func (bed *benchBed) latency(b *testing.B, delivery, output string) {
	p, err := bed.client.Producer(b.Context(), stream.ProducerOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close(b.Context())
	const n, every = 5000, time.Millisecond
	bed.serve(b, delivery, output, func(s *Server) {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for st := s.Status().Streams[0]; !st.Ready || st.Partitions == 0 || st.Lag > 0; st = s.Status().Streams[0] {
			<-tick.C
		}
		tail, err := bed.client.Tail(b.Context(), []string{output}, stream.TailOptions{Start: "earliest", Committed: true})
		if err != nil {
			b.Fatal(err)
		}
		defer tail.Close()
		ends, err := bed.client.Watermarks(b.Context(), bed.topic)
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
				if err := p.Produce(b.Context(), []stream.Record{bed.record(rng, i)}); err != nil {
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

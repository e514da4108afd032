package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/server"
	"github.com/lapwing-stream/lapwing/stream"
	"github.com/lapwing-stream/lapwing/trainer"
)

const partitions = 6

// cluster is an embedded broker with a client: loopback TCP, in this process, so on the same cores as what is measured.
type cluster struct {
	broker *stream.Embedded
	client *stream.Client
}

func newCluster(ctx context.Context) (*cluster, error) {
	broker, err := stream.Embed(stream.EmbeddedOptions{})
	if err != nil {
		return nil, err
	}
	client, err := stream.Connect(ctx, stream.Options{
		Properties: map[string]string{"bootstrap.servers": broker.Addr()}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", closing(err, broker))
	}
	return &cluster{broker, client}, nil
}

func closing(err error, c io.Closer) error {
	if e := c.Close(); e != nil && err == nil {
		return e
	}
	return err
}

func (c *cluster) close() {
	c.client.Close()
	c.broker.Close()
}

// fill creates a topic and puts values into it, round robin over the partitions.
func (c *cluster) fill(ctx context.Context, topic string, values [][]byte) error {
	if _, err := c.client.CreateTopic(ctx, stream.TopicSpec{Name: topic, Partitions: partitions}); err != nil {
		return err
	}
	p, err := c.client.Producer(ctx, stream.ProducerOptions{Linger: 5 * time.Millisecond})
	if err != nil {
		return err
	}
	defer p.Close(ctx)
	batch := make([]stream.Record, 0, 1000)
	for i, v := range values {
		batch = append(batch, stream.Record{Topic: topic, Partition: int32(i % partitions), Value: v, Time: time.Now().UnixMilli()})
		if len(batch) == cap(batch) || i == len(values)-1 {
			if err := p.Produce(ctx, batch); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	return p.Flush(ctx)
}

func historySuite(ctx context.Context, r *run) error {
	c, err := newCluster(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	values, spec, err := fleetValues(r.Records)
	if err != nil {
		return err
	}
	if err := c.fill(ctx, "history", values); err != nil {
		return err
	}
	ranges, err := c.client.Ranges(ctx, "history")
	if err != nil {
		return err
	}
	read := func(each func(*stream.Batch) error) func(context.Context) (figures, error) {
		return one("records/s", func(ctx context.Context) (float64, error) {
			start, n := time.Now(), 0
			h, err := c.client.ReadRanges(ctx, "history", ranges, stream.HistoryOptions{})
			if err != nil {
				return 0, err
			}
			defer h.Close()
			for {
				b, err := h.Next(ctx)
				if err == io.EOF {
					break
				}
				if err != nil {
					return 0, err
				}
				n += len(b.Records)
				if err := each(b); err != nil {
					return 0, err
				}
				b.Release()
			}
			if n != len(values) {
				return 0, fmt.Errorf("read %d records of %d", n, len(values))
			}
			return float64(n) / time.Since(start).Seconds(), nil
		})
	}
	d, err := events.Compile(spec)
	if err != nil {
		return err
	}
	row := make([]float32, d.Columns())
	m, err := r.measure(ctx, cell{suite: "history", kase: fmt.Sprintf("%d records, %d partitions", len(values), partitions)}, []metric{{name: "records/s", unit: "1/s"}},
		subject{name: Ours, once: read(func(*stream.Batch) error { return nil })},
		subject{name: "bare consumer", role: Peer, once: one("records/s", func(ctx context.Context) (float64, error) {
			return bareConsume(ctx, c.broker.Addr(), "history", len(values))
		})},
		subject{name: "lapwing, decoded", once: read(func(b *stream.Batch) error {
			for i := range b.Records {
				if d.Decode(b.Records[i].Value, row).Outcome != events.OK {
					return fmt.Errorf("offset %d did not decode", b.Records[i].Offset)
				}
			}
			return nil
		})})
	if err != nil {
		return err
	}
	r.targetRatio("history read, share of a bare consumer", .7, m, Ours, "bare consumer", "records/s", false)
	return nil
}

// bareConsume is confluent-kafka-go as its documentation uses it, with fetching tuned as ours is: Poll for each message.
func bareConsume(ctx context.Context, brokers, topic string, n int) (float64, error) {
	start := time.Now()
	c, err := kafka.NewConsumer(&kafka.ConfigMap{
		"bootstrap.servers": brokers, "group.id": "bare", "enable.auto.commit": false, "auto.offset.reset": "earliest",
		"fetch.queue.backoff.ms": 1, "queued.max.messages.kbytes": 65536, "queued.min.messages": 100_000, "fetch.wait.max.ms": 10,
		"enable.metrics.push": false, "log_level": 0,
	})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	var assign []kafka.TopicPartition
	for p := range int32(partitions) {
		assign = append(assign, kafka.TopicPartition{Topic: &topic, Partition: p, Offset: kafka.OffsetBeginning})
	}
	if err := c.Assign(assign); err != nil {
		return 0, err
	}
	for got := 0; got < n; {
		switch e := c.Poll(1000).(type) {
		case *kafka.Message:
			if e.TopicPartition.Error != nil {
				return 0, e.TopicPartition.Error
			}
			got++
		case kafka.Error:
			return 0, e
		case nil:
			if err := ctx.Err(); err != nil {
				return 0, err
			}
		}
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

// learn trains a model on topic and publishes it, so that what serves it is what a user would have.
func (c *cluster) learn(ctx context.Context, topic, name string) error {
	o := trainer.Defaults()
	o.Topic, o.Model, o.Key, o.Time = topic, name, "car", "time"
	_, err := trainer.Run(ctx, trainer.Deps{
		Client: c.client, Registry: c.registry(), Engine: cpu.New(), Log: slog.New(slog.DiscardHandler),
	}, o)
	return err
}

func (c *cluster) registry() *registry.Registry {
	return registry.Open(c.client, registry.Options{Log: slog.New(slog.DiscardHandler)})
}

// bulky is a model of about 5 MB for the fleet's fields: wide hidden layers, random weights. What it scores means
// nothing; that each version differs and is as large as it is does.
func bulky(spec model.Spec, seed uint64) ([]byte, error) {
	columns := make([]kernels.Column, len(spec.Columns()))
	for j := range columns {
		columns[j] = kernels.Column{Lo: -1e6, Hi: 1e6, X: []float32{0}, Y: []float32{0}, Before: .01, After: .01}
	}
	p := kernels.Autoencoder(columns, []int{1100, 1100, 8}, []kernels.Activation{kernels.ReLU, kernels.ReLU})
	kernels.Initialise(p, seed)
	s, err := cpu.New().Scorer(p)
	if err != nil {
		return nil, err
	}
	rows := make([]float32, 16*len(columns))
	for i := range rows {
		rows[i] = float32(i % 97)
	}
	scores := make([]float32, 16)
	if err := s.Score(rows, kernels.Output{Score: scores}); err != nil {
		return nil, err
	}
	m := &model.Model{Program: p, Spec: spec, Threshold: 1e9, Quantiles: []model.Quantile{{P: 0, Score: 0}, {P: 1, Score: 1e9}},
		Lineage: model.Lineage{Topic: "bench", Engine: "cpu/portable", Seed: seed}}
	for i := range scores {
		m.SelfTest.Rows = append(m.SelfTest.Rows, rows[i*len(columns):(i+1)*len(columns)])
	}
	m.SelfTest.Scores = scores
	return m.Encode()
}

// scoredBy asks the scores topic, not the scorer, how many records came out.
func (c *cluster) count(ctx context.Context, topic string) (int64, error) {
	ranges, err := c.client.Ranges(ctx, topic)
	var n int64
	for _, r := range ranges {
		n += r.To - r.From
	}
	return n, err
}

// serving is a server in this process.
type serving struct {
	cancel context.CancelFunc
	done   chan error
}

// stop ends it and says how it went.
func (s *serving) stop() error { s.cancel(); return <-s.done }

// ended is nil while it runs.
func (s *serving) ended() error {
	select {
	case err := <-s.done:
		s.done <- err
		return fmt.Errorf("the server ended: %w", err)
	default:
		return nil
	}
}

func (c *cluster) serve(ctx context.Context, o server.StreamOptions) (*serving, error) {
	s, err := server.New(server.Deps{Client: c.client, Registry: c.registry(), Engine: cpu.New(), Log: slog.New(slog.DiscardHandler)},
		server.Options{Streams: []server.StreamOptions{o}})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	run := &serving{cancel, make(chan error, 1)}
	go func() { run.done <- s.Run(ctx) }()
	return run, nil
}

func streamSuite(ctx context.Context, r *run) error {
	c, err := newCluster(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	values, _, err := fleetValues(r.Records)
	if err != nil {
		return err
	}
	if err := c.fill(ctx, "cars", values); err != nil {
		return err
	}
	if err := c.learn(ctx, "cars", "cars"); err != nil {
		return err
	}
	n := 0
	m, err := r.measure(ctx, cell{suite: "stream", kase: fmt.Sprintf("%d JSON records, at least once, from the first score on", len(values))}, []metric{{name: "records/s", unit: "1/s"}},
		subject{name: Ours, once: one("records/s", func(ctx context.Context) (float64, error) {
			n++
			out := fmt.Sprintf("scores%d", n)
			s, err := c.serve(ctx, server.StreamOptions{Model: "cars", Topics: []string{"cars"}, Output: out, Alerts: server.None, DLQ: "cars.dlq"})
			if err != nil {
				return 0, err
			}
			var start time.Time // when the first scores were seen: joining the group and loading the model are no scoring
			var before int64
			for {
				got, err := c.count(ctx, out)
				if err == nil && start.IsZero() && got > 0 {
					start, before = time.Now(), got
				}
				if err == nil && got >= int64(len(values)) {
					break
				}
				if err := s.ended(); err != nil {
					return 0, err
				}
				select {
				case <-ctx.Done():
					return 0, ctx.Err()
				case <-time.After(20 * time.Millisecond):
				}
			}
			seconds := time.Since(start).Seconds()
			if err := s.stop(); err != nil {
				return 0, err
			}
			got, err := c.count(ctx, out)
			if err == nil && got != int64(len(values)) {
				err = fmt.Errorf("%d scores for %d records", got, len(values))
			}
			if err == nil {
				err = c.client.DeleteTopic(ctx, out)
			}
			return float64(int64(len(values))-before) / seconds, err
		})})
	if err != nil {
		return err
	}
	r.target("Kafka to Kafka, records/s on this machine", 100_000, m.value(Ours, "records/s"), "1/s", false)
	return nil
}

// latencySuite sends 1,000 records/s on a schedule and times each from when it was due to when another consumer has
// its score: a slow moment counts for every record that was due in it.
func latencySuite(ctx context.Context, r *run) error {
	c, err := newCluster(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	values, _, err := fleetValues(min(20_000, r.Records))
	if err != nil {
		return err
	}
	if err := c.fill(ctx, "cars", values); err != nil {
		return err
	}
	if err := c.learn(ctx, "cars", "cars"); err != nil {
		return err
	}
	s, err := c.serve(ctx, server.StreamOptions{Model: "cars", Topics: []string{"cars"}, Start: server.StartLatest})
	if err != nil {
		return err
	}
	latencies, err := c.openLoop(ctx, s, values, 1000, 5*time.Second, r.LatencyFor)
	if e := s.stop(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	for _, q := range []struct {
		name string
		p    float64
	}{{"p50", .5}, {"p90", .9}, {"p99", .99}, {"p99.9", .999}} {
		v := latencies[min(int(q.p*float64(len(latencies))), len(latencies)-1)] * 1000
		r.Rows = append(r.Rows, Row{Suite: "latency", Case: "1,000 records/s, at least once", Subject: Ours, Role: Ours, Metric: q.name, Lower: true, Value: v, Unit: "ms", Spread: [2]float64{v, v}, Samples: []float64{v}})
		if q.name == "p99" {
			r.target("p99 from produce to score consumed, ms", 10, v, "ms", true)
		}
	}
	return nil
}

// offsets tells in a score which record it is of.
type scored struct {
	Partition int32 `json:"partition"`
	Offset    int64 `json:"offset"`
}

func (c *cluster) openLoop(ctx context.Context, s *serving, values [][]byte, rate int, warm, measured time.Duration) ([]float64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := c.awaitTopic(ctx, s, "cars.scores"); err != nil {
		return nil, err
	}
	tail, err := c.client.Tail(ctx, []string{"cars.scores"}, stream.TailOptions{Start: "earliest"})
	if err != nil {
		return nil, err
	}
	defer tail.Close()
	marks, err := c.client.Watermarks(ctx, "cars")
	if err != nil {
		return nil, err
	}
	base := map[int32]int64{}
	for _, m := range marks {
		base[m.Partition] = m.To
	}
	p, err := c.client.Producer(ctx, stream.ProducerOptions{})
	if err != nil {
		return nil, err
	}
	defer p.Close(ctx)

	total := int((warm + measured).Seconds() * float64(rate))
	begin := time.Now().Add(100 * time.Millisecond)
	due := func(i int) time.Time { return begin.Add(time.Duration(i) * time.Second / time.Duration(rate)) }
	failed := make(chan error, 1)
	go func() {
		for i := range total {
			if wait := time.Until(due(i)); wait > 0 {
				select {
				case <-time.After(wait):
				case <-ctx.Done():
					failed <- ctx.Err()
					return
				}
			}
			rec := stream.Record{Topic: "cars", Partition: int32(i % partitions), Value: values[i%len(values)], Time: time.Now().UnixMilli()}
			if err := p.Produce(ctx, []stream.Record{rec}); err != nil {
				failed <- err
				return
			}
		}
		failed <- nil
	}()
	var latencies []float64
	for seen := 0; seen < total; {
		wait, stop := context.WithTimeout(ctx, 5*time.Second)
		b, err := tail.Next(wait)
		stop()
		if e := s.ended(); e != nil {
			return nil, e
		}
		if err != nil {
			return nil, fmt.Errorf("%d of %d scores came, then none for 5 s: %w", seen, total, err)
		}
		now := time.Now()
		for i := range b.Records {
			var s scored
			if err := json.Unmarshal(b.Records[i].Value, &s); err != nil {
				return nil, err
			}
			// record i of partition p was number (offset − base)·partitions + p of the schedule
			nth := int(s.Offset-base[s.Partition])*partitions + int(s.Partition)
			if nth < 0 {
				continue
			}
			seen++
			if d := due(nth); d.Sub(begin) >= warm {
				latencies = append(latencies, now.Sub(d).Seconds())
			}
		}
		b.Release()
	}
	slices.Sort(latencies)
	return latencies, <-failed
}

func (c *cluster) awaitTopic(ctx context.Context, s *serving, topic string) error {
	for {
		if err := s.ended(); err != nil {
			return err
		}
		topics, err := c.client.Topics(ctx)
		if err != nil {
			return err
		}
		for _, t := range topics {
			if t.Name == topic {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

package server

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

// bed is an embedded broker with a client of ours, and reads by another client library: what a test counts was not
// counted by the code under test.
type bed struct {
	t        *testing.T
	addr     string
	client   *stream.Client
	registry *registry.Registry
	log      *logBook
	engine   kernels.Engine // of servers made from now on

	delivery   string // of servers made from now on; default the program's
	everything bool   // read also what was taken back, or is not committed yet
}

func newBed(t *testing.T) *bed {
	t.Helper()
	t.Parallel() // most of a test's time is spent waiting for rebalances and transactions
	return embeddedBed(t)
}

func embeddedBed(t *testing.T) *bed {
	t.Helper()
	broker, err := stream.Embed(stream.EmbeddedOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { broker.Close() })
	return bedAt(t, broker.Addr())
}

// eachDelivery runs a test of what both deliveries promise.
func eachDelivery(t *testing.T, run func(t *testing.T, b *bed)) {
	deliveries(t, func(t *testing.T, delivery string) {
		b := embeddedBed(t)
		b.delivery = delivery
		run(t, b)
	})
}

func deliveries(t *testing.T, run func(t *testing.T, delivery string)) {
	t.Parallel()
	for _, delivery := range []string{ExactlyOnce, AtLeastOnce} {
		t.Run(delivery, func(t *testing.T) {
			t.Parallel()
			run(t, delivery)
		})
	}
}

func bedAt(t *testing.T, addr string) *bed {
	b := &bed{t: t, addr: addr, log: &logBook{}, engine: cpu.New()}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log:\n%s", b.log.all())
		}
	})
	b.client = b.connect()
	b.registry = registry.Open(b.client, registry.Options{Log: slog.New(b.log)})
	return b
}

func (b *bed) connect() *stream.Client {
	b.t.Helper()
	c, err := stream.Connect(b.t.Context(), stream.Options{
		// Partitions that are added must be found soon.
		Properties: map[string]string{"bootstrap.servers": b.addr, "topic.metadata.refresh.interval.ms": "200"},
		Log:        slog.New(b.log),
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(c.Close)
	return c
}

func (b *bed) topic(name string, partitions int) {
	b.t.Helper()
	if _, err := b.client.CreateTopic(b.t.Context(), stream.TopicSpec{Name: name, Partitions: partitions}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) produce(records ...stream.Record) {
	b.t.Helper()
	p, err := b.client.Producer(b.t.Context(), stream.ProducerOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	if err := p.Produce(b.t.Context(), records); err != nil {
		b.t.Fatal(err)
	}
	if err := p.Close(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

// event is a record of plainSpec in a partition.
func event(topic string, partition, i int, x, y float64) stream.Record {
	return stream.Record{
		Topic: topic, Partition: int32(partition), Key: fmt.Appendf(nil, "car-%d", i%5),
		Value: fmt.Appendf(nil, `{"x":%v,"y":%v}`, x, y), Time: 1_795_615_200_000 + int64(i)*1000,
	}
}

// events are n of them over the partitions, every tenth anomalous for threshold 5.
func (b *bed) events(topic string, partitions, from, n int) []stream.Record {
	var out []stream.Record
	for i := from; i < from+n; i++ {
		x := float64(i%7) / 2
		if i%10 == 9 {
			x = 30
		}
		out = append(out, event(topic, i%partitions, i, x, 1))
	}
	return out
}

func (b *bed) publish(name string, data []byte, alias string) registry.Manifest {
	b.t.Helper()
	if err := b.registry.EnsureTopic(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	m, err := b.registry.Publish(b.t.Context(), registry.Publication{Name: name, Data: data, Alias: alias, By: "test"})
	if err != nil {
		b.t.Fatal(err)
	}
	return m
}

// scored is a record of a scores topic, read back.
type scored struct {
	V         int
	Model     string
	Version   int
	Topic     string
	Partition int32
	Offset    int64
	Key       *string
	Time      *time.Time
	Score     *float32
	Anomaly   bool
	Status    string
	Top       []struct{ Feature string }

	raw *kgo.Record
}

// read gives everything that stands in a topic now, by a plain consumer without a group.
func (b *bed) read(topic string) []*kgo.Record {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	level := kgo.ReadCommitted()
	if b.everything {
		level = kgo.ReadUncommitted()
	}
	c, err := kgo.NewClient(kgo.SeedBrokers(b.addr), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.KeepControlRecords(), kgo.FetchIsolationLevel(level))
	if err != nil {
		b.t.Fatal(err)
	}
	defer c.Close()
	ends, err := b.client.Watermarks(ctx, topic)
	if err != nil {
		b.t.Fatal(err)
	}
	left := map[int32]int64{}
	for _, r := range ends {
		if r.To > r.From {
			left[r.Partition] = r.To
		}
	}
	var out []*kgo.Record
	for len(left) > 0 {
		fetches := c.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			b.t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if end, ok := left[r.Partition]; ok && r.Offset < end {
				if !r.Attrs.IsControl() {
					out = append(out, r)
				}
				if r.Offset == end-1 {
					delete(left, r.Partition)
				}
			}
		})
	}
	return out
}

func (b *bed) scores(topic string) []scored {
	b.t.Helper()
	var out []scored
	for _, r := range b.read(topic) {
		s := scored{raw: r}
		if err := json.Unmarshal(r.Value, &s); err != nil {
			b.t.Fatalf("%s/%d@%d is not JSON: %v\n%s", r.Topic, r.Partition, r.Offset, err, r.Value)
		}
		out = append(out, s)
	}
	return out
}

// place is where an input record stands.
type place struct {
	topic     string
	partition int32
	offset    int64
}

// audit matches every input record to its score, dead letter or tombstone, and every output to its input; records of
// a partition come in order. It returns how many outputs came more than once, by place.
func (b *bed) audit(topics []string, output, dlq string) (doubled map[place]int) {
	b.t.Helper()
	inputs := map[place]*kgo.Record{}
	for _, t := range topics {
		for _, r := range b.read(t) {
			inputs[place{t, r.Partition, r.Offset}] = r
		}
	}
	seen := map[place]int{}
	last := map[place]int64{} // by topic and partition
	for _, s := range b.scores(output) {
		at := place{s.Topic, s.Partition, s.Offset}
		in := inputs[at]
		if in == nil {
			b.t.Fatalf("score of %v, which is no input", at)
		}
		if s.raw.Partition != in.Partition || string(s.raw.Key) != string(in.Key) || (s.raw.Key == nil) != (in.Key == nil) || !s.raw.Timestamp.Equal(in.Timestamp) {
			b.t.Errorf("score of %v stands at partition %d, key %q, %v; the input at %d, %q, %v", at, s.raw.Partition, s.raw.Key, s.raw.Timestamp, in.Partition, in.Key, in.Timestamp)
		}
		if seen[at] == 0 {
			lane := place{s.Topic, s.Partition, 0}
			if before, ok := last[lane]; ok && s.Offset < before {
				b.t.Errorf("score of %v comes after that of offset %d", at, before)
			}
			last[lane] = s.Offset
		}
		seen[at]++
	}
	for _, r := range b.read(dlq) {
		h := map[string]string{}
		for _, x := range r.Headers {
			h[x.Key] = string(x.Value)
		}
		var at place
		at.topic = h["lapwing.topic"]
		fmt.Sscan(h["lapwing.partition"], &at.partition)
		fmt.Sscan(h["lapwing.offset"], &at.offset)
		if in := inputs[at]; in == nil || string(in.Value) != string(r.Value) || string(in.Key) != string(r.Key) || r.Partition != in.Partition || h["lapwing.reason"] == "" || h["lapwing.model"] == "" {
			b.t.Errorf("dead letter %v with headers %v does not match its input", r.Value, h)
		}
		seen[at]++
	}
	doubled = map[place]int{}
	missing := 0
	for at, in := range inputs {
		n := seen[at]
		if in.Value == nil {
			if n > 0 {
				b.t.Errorf("tombstone %v has an output", at)
			}
			continue
		}
		if n == 0 {
			if missing++; missing < 5 {
				b.t.Errorf("input %v has no output", at)
			}
		}
		if n > 1 {
			doubled[at] = n
		}
	}
	if missing > 0 {
		b.t.Errorf("%d of %d input records have no output", missing, len(inputs))
	}
	return doubled
}

// serving is a running server.
type serving struct {
	*Server
	t      *testing.T
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

func (b *bed) server(o Options) *Server {
	b.t.Helper()
	client := b.connect()
	defaulted(&o.RetryMin, 20*time.Millisecond)
	if b.delivery != "" {
		defaulted(&o.Delivery, b.delivery)
	}
	s, err := New(Deps{
		Client: client, Registry: registry.Open(client, registry.Options{Log: slog.New(b.log)}),
		Engine: b.engine, Log: slog.New(b.log),
	}, o)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

func (b *bed) serve(o Options) *serving {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &serving{Server: b.server(o), t: b.t, cancel: cancel, done: make(chan struct{})}
	go func() {
		s.err = s.Run(ctx)
		if ctx.Err() == nil {
			b.t.Errorf("the server ended by itself: %v", s.err)
		}
		close(s.done)
	}()
	b.t.Cleanup(func() { s.cancel(); <-s.done })
	return s
}

// stop ends the server as SIGTERM does.
func (s *serving) stop() {
	s.t.Helper()
	s.cancel()
	<-s.done
	if s.err != nil {
		s.t.Errorf("Run: %v", s.err)
	}
}

// await waits until ok. What it waits for is stated, for the message of a test that would hang.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("never came: %s", what)
		}
	}
}

// settled waits until n records have been taken.
func (s *serving) settled(n int64) {
	s.t.Helper()
	await(s.t, fmt.Sprintf("%d records taken", n), func() bool {
		st := s.Status().Streams[0]
		return st.RecordsOut+st.Bad+st.Tombstones+st.LeftOut >= n
	})
}

func (s *serving) ready() {
	s.t.Helper()
	await(s.t, "readiness", func() bool { return s.Status().Ready })
}

func (s *serving) get(path string) (int, string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+s.HTTPAddr()+path, nil)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// logBook keeps what was logged.
type logBook struct {
	mu    sync.Mutex
	lines []string
}

func (l *logBook) Enabled(context.Context, slog.Level) bool { return true }
func (l *logBook) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *logBook) WithGroup(string) slog.Handler            { return l }
func (l *logBook) Handle(_ context.Context, r slog.Record) error {
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	l.mu.Lock()
	l.lines = append(l.lines, line)
	l.mu.Unlock()
	return nil
}

func (l *logBook) count(text string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

func (l *logBook) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

func oneStream(topics ...string) Options {
	o := StreamOptions{Model: "cars", Topics: topics}
	if len(topics) > 1 {
		o.Output, o.Alerts, o.DLQ = "all.scores", "all.alerts", "all.dlq"
	}
	return Options{Streams: []StreamOptions{o}, HTTP: "127.0.0.1:0"}
}

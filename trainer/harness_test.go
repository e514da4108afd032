package trainer

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

// bench is an embedded broker with what a run needs.
type bench struct {
	t      testing.TB
	client *stream.Client
	deps   Deps
	log    *strings.Builder
}

// newBench lets the test run beside others: most of its time is spent waiting for the broker.
func newBench(t *testing.T) *bench {
	t.Helper()
	t.Parallel()
	broker, err := stream.Embed(stream.EmbeddedOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { broker.Close() })
	return connect(t, broker.Addr())
}

func connect(t testing.TB, addr string) *bench {
	t.Helper()
	log := &strings.Builder{}
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	client, err := stream.Connect(t.Context(), stream.Options{Properties: map[string]string{"bootstrap.servers": addr}, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &bench{t: t, client: client, log: log, deps: Deps{
		Client: client, Registry: registry.Open(client, registry.Options{Log: quiet}), Engine: cpu.New(),
		Log: slog.New(slog.NewTextHandler(log, nil)),
	}}
}

// topic creates a topic and fills its partitions; records take turns unless they name theirs.
func (b *bench) topic(name string, partitions int, records ...stream.Record) {
	b.t.Helper()
	ctx := b.t.Context()
	if _, err := b.client.CreateTopic(ctx, stream.TopicSpec{Name: name, Partitions: partitions}); err != nil {
		b.t.Fatal(err)
	}
	b.produce(name, records...)
}

func (b *bench) produce(name string, records ...stream.Record) {
	b.t.Helper()
	ctx := b.t.Context()
	p, err := b.client.Producer(ctx, stream.ProducerOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	for i := range records {
		records[i].Topic = name
	}
	for chunk := range slices.Chunk(records, 4096) {
		if err := p.Produce(ctx, chunk); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := p.Close(ctx); err != nil {
		b.t.Fatal(err)
	}
}

// start is the time of the first record of a generated history; one comes each second.
const start = 1_750_000_000_000

// values makes records of the given values, dealt to the partitions in turn.
func values(partitions int, values ...string) []stream.Record {
	out := make([]stream.Record, len(values))
	for i, v := range values {
		out[i] = stream.Record{Partition: int32(i % partitions), Value: []byte(v), Time: start + int64(i)*1000}
	}
	return out
}

// machine is rows of four related columns: load drives temp and flow, volts goes its own way.
func machine(seed uint64, n int) []string {
	r := rand.New(rand.NewPCG(seed, 1))
	out := make([]string, n)
	for i := range out {
		load := r.Float64()
		out[i] = fmt.Sprintf(`{"load":%.4f,"temp":%.3f,"flow":%.3f,"volts":%.4f}`,
			load, 60+20*load+.3*r.NormFloat64(), 5-3*load+.05*r.NormFloat64(), 12+.2*r.NormFloat64())
	}
	return out
}

// quick are options with which a test of something else than the fit takes no time.
func quick(topic string) Options {
	o := Defaults()
	o.Topic, o.Model, o.Epochs, o.Threads = topic, "m", 2, 2
	o.Layers, o.BatchSize = []int{4, 2, 4}, 64
	return o
}

func (b *bench) run(o Options) (*Report, error) {
	b.t.Helper()
	if o.KeepDir == "." {
		o.KeepDir = b.t.TempDir()
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), 2*time.Minute)
	defer cancel()
	return Run(ctx, b.deps, o)
}

func (b *bench) mustRun(o Options) *Report {
	b.t.Helper()
	r, err := b.run(o)
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	apache "github.com/lapwing-stream/lapwing/bench/kafka"
	"github.com/lapwing-stream/lapwing/bench/process"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/server"
)

// names of peers in tables.
const (
	pythonName  = "Python confluent-kafka + onnxruntime, batches of 256"
	streamsName = "Kafka Streams + ONNX Runtime Java"
	callsName   = "bare pass-through, Go calls"
	batchesName = "bare pass-through, librdkafka's batch calls"
)

// bed is what the suites over Kafka share: a cluster, records, and models published there, that the peers have as files.
type bed struct {
	*cluster
	r      *run
	dir    string // temporary: models, the Python program, state of Kafka Streams
	values [][]byte
	spec   model.Spec
	models map[string]*reference
	outs   int // output topics so far: each run has its own
}

// reference is a model with what it says about the bed's values.
type reference struct {
	onnx      string // file, pruned to the score
	scores    []float32
	threshold float64
}

// bed has n records in topic events, and the models named.
func (r *run) bed(ctx context.Context, suite string, models ...string) (_ *bed, err error) {
	if r.Binary == "" {
		return nil, errors.New("the lapwing binary is not known, which must run as its own process here")
	}
	b := &bed{r: r, models: map[string]*reference{}}
	if b.dir, err = os.MkdirTemp("", "lapwing-bench"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.values, b.spec, err = fleetValues(min(r.Records, 20_000)); err != nil {
		return nil, err
	}
	if b.cluster, err = r.cluster(ctx, suite); err != nil {
		return nil, err
	}
	if err := b.topic(ctx, "bench.dlq"); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(b.dir, "peer.py"), apache.PythonPeer, 0o600); err != nil {
		return nil, err
	}
	for _, m := range models {
		if err := b.publish(ctx, m); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (b *bed) close() {
	if b.cluster != nil {
		b.cluster.close()
	}
	os.RemoveAll(b.dir)
}

// The models of a bed.
const (
	plainNet        = "plain"   // 18-14-7-7-18
	defaultDetector = "default" // what lapwing train makes of the records
)

func (b *bed) publish(ctx context.Context, name string) error {
	reg := b.registry()
	if err := reg.EnsureTopic(ctx); err != nil {
		return err
	}
	if name == plainNet {
		data, err := plain(b.spec, b.values, 1)
		if err != nil {
			return err
		}
		if _, err := reg.Publish(ctx, registry.Publication{Name: name, Data: data, Alias: registry.Live, By: "bench"}); err != nil {
			return err
		}
	} else {
		if err := b.fill(ctx, "history", b.values, len(b.values)); err != nil {
			return err
		}
		if err := b.learn(ctx, "history", name); err != nil {
			return err
		}
	}
	_, data, err := reg.Get(ctx, registry.Ref{Name: name, Alias: registry.Live})
	if err != nil {
		return err
	}
	m, err := model.Decode(data)
	if err != nil {
		return err
	}
	rows, err := decoded(b.spec, b.values)
	if err != nil {
		return err
	}
	ref := &reference{onnx: filepath.Join(b.dir, name+".onnx"), threshold: m.Threshold}
	if name == plainNet {
		ref.threshold = 0 // nothing reaches it, so it says nothing about the scores' size
	}
	if ref.scores, err = scoresOf(m.Program, rows); err != nil {
		return err
	}
	pruned, err := model.Prune(data, "score")
	if err != nil {
		return err
	}
	b.models[name] = ref
	return os.WriteFile(ref.onnx, pruned, 0o600)
}

// scorer is a program that reads records and writes scores, or the records again.
type scorer struct {
	name     string
	role     string
	model    string // of the bed; "" = none: the records themselves come out
	exactly  bool   // delivery exactly once
	slowWarm bool   // a JIT needs many records first
	rounds   int    // rounds in which it takes part, if not in all
	share    int    // of a slow one: the clock stops after one part in so many of the records
	absent   error
	start    func(ctx context.Context, b *bed, w wiring) (*process.Process, error)
}

// wiring is what a scorer is connected to.
type wiring struct {
	in, out string
	linger  time.Duration // of the producer
	commit  time.Duration
	asItIs  bool // the client's own settings in place of these two
}

func (b *bed) lapwing(name, model string, exactly bool) scorer {
	return scorer{name: name, role: Ours, model: model, exactly: exactly, start: func(ctx context.Context, b *bed, w wiring) (*process.Process, error) {
		delivery := "at_least_once"
		if exactly {
			delivery = "exactly_once"
		}
		args := []string{"serve", "--brokers", b.addr, "--topic", w.in, "--model", model, "--output", w.out,
			"--alerts", server.None, "--dlq", "bench.dlq", "--http", "none", "--delivery", delivery}
		if !w.asItIs {
			args = append(args, "--commit-interval", w.commit.String())
		}
		return process.Start(ctx, process.Options{Dir: b.dir}, b.r.Binary, args...)
	}}
}

func (b *bed) passThrough(name, how string, exactly bool) scorer {
	return scorer{name: name, role: Limit, exactly: exactly, start: func(ctx context.Context, b *bed, w wiring) (*process.Process, error) {
		args := []string{"bench", "pass-through", "--brokers", b.addr, "--in", w.in, "--out", w.out, "--group", w.out, "--how", how,
			"--linger", w.linger.String(), "--commit", w.commit.String()}
		if exactly {
			args = append(args, "--exactly-once")
		}
		return process.Start(ctx, process.Options{Dir: b.dir}, b.r.Binary, args...)
	}}
}

// python is the virtual environment's interpreter.
func (r *run) python() string { return filepath.Join(r.Peers, "py", "bin", "python") }

// pythonMissing says why the Python peers cannot run.
func (r *run) pythonMissing(ctx context.Context) error {
	if r.Peers == "" {
		return errors.New("not installed: run lapwing bench --install-peers")
	}
	out, err := exec.CommandContext(ctx, r.python(), "-c", `import confluent_kafka as c, numpy, onnxruntime as o, orjson, sys
print(c.__version__, c.libversion()[0], o.__version__, orjson.__version__, sys.version.split()[0], sep="\n")`).CombinedOutput()
	if err != nil {
		return fmt.Errorf("not installed: run lapwing bench --install-peers (%s)", strings.TrimSpace(string(out)+" "+err.Error()))
	}
	for i, v := range strings.Fields(string(out)) {
		r.Versions[[]string{"Python: confluent-kafka", "Python: librdkafka", "Python: onnxruntime", "Python: orjson", "Python"}[i]] = v
	}
	return nil
}

func (b *bed) python(ctx context.Context, model string, exactly bool) scorer {
	s := scorer{name: pythonName, role: Peer, model: model, exactly: exactly, share: 2, absent: b.r.pythonMissing(ctx)}
	s.start = func(ctx context.Context, b *bed, w wiring) (*process.Process, error) {
		args := []string{filepath.Join(b.dir, "peer.py"), "score", "--brokers", b.addr, "--in", w.in, "--out", w.out, "--group", w.out,
			"--model", b.models[model].onnx, "--fields", strings.Join(b.spec.Columns(), ",")}
		if !w.asItIs {
			args = append(args, "--linger", milliseconds(w.linger), "--commit", milliseconds(w.commit))
		}
		if exactly {
			args = append(args, "--exactly-once")
		}
		return process.Start(ctx, process.Options{Dir: b.dir}, b.r.python(), args...)
	}
	return s
}

// streams is a Kafka Streams application with two threads, one for each core of the machine that it is compared on.
func (b *bed) streams(model string, exactly bool) scorer {
	s := scorer{name: streamsName, role: Peer, model: model, exactly: exactly, slowWarm: true, share: 4, absent: errors.New("not installed: run lapwing bench --install-peers")}
	if b.r.Peers != "" {
		s.absent = apache.Streams.Missing(b.r.Peers)
	}
	if b.r.Smoke {
		s.absent = fmt.Errorf("%w: its start alone takes longer than the rest", errNotInSmoke)
	}
	if s.absent == nil && !b.real {
		s.absent = errors.New("needs Apache Kafka, which is not used here")
	}
	s.start = func(ctx context.Context, b *bed, w wiring) (*process.Process, error) {
		args := []string{"-Xmx1g", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", apache.Streams.Jars(b.r.Peers), "StreamsPeer",
			"brokers=" + b.addr, "in=" + w.in, "out=" + w.out, "group=" + w.out, "state=" + filepath.Join(b.dir, "streams"),
			"model=" + b.models[model].onnx, "fields=" + strings.Join(b.spec.Columns(), ","),
			"streams.num.stream.threads=2", "streams.replication.factor=1", "streams.processing.guarantee=at_least_once"}
		if exactly {
			args[len(args)-1] = "streams.processing.guarantee=exactly_once_v2"
		}
		if !w.asItIs {
			args = append(args, "streams.commit.interval.ms="+milliseconds(w.commit), "streams.producer.linger.ms="+milliseconds(w.linger))
		}
		return process.Start(ctx, process.Options{Dir: b.dir}, "java", args...)
	}
	return s
}

func milliseconds(d time.Duration) string { return fmt.Sprint(d.Milliseconds()) }

//go:build e2e

package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/lapwing-stream/lapwing/bench/kafka"
	"github.com/lapwing-stream/lapwing/bench/process"
)

const (
	model   = "cars"
	history = "history"
	session = 6 * time.Second // of a scorer; the least that a broker allows by default
)

// bed is a cluster with a model, and scorers between two topics of it.
type bed struct {
	t       *testing.T
	jars    string
	binary  string
	cluster *kafka.Cluster
	network *network
	papers  papers
	client  *kgo.Client

	trained atomic.Int32 // versions that were published
	seed    uint64
	began   time.Time

	// Of a round:
	of         topics
	partitions int
	rng        *rand.Rand
	source     *source
	books      *ledger
	checker    *reader
	scorers    []*process.Process
	struck     time.Time
	flying     int
	extra      []func() error    // to be undone or awaited before a fault is over
	then       func(tally) error // judges what came of it; nil: nothing more is asked
}

// brokerSettings make a cluster of small brokers notice deaths within seconds.
var brokerSettings = []string{
	"broker.session.timeout.ms=3000",
	"broker.heartbeat.interval.ms=500",
	"transaction.abort.timed.out.transaction.cleanup.interval.ms=1000",
	"num.network.threads=2",
	"num.io.threads=4",
	"log.cleaner.dedupe.buffer.size=4194304",
	"controlled.shutdown.enable=true",
	"num.recovery.threads.per.data.dir=1",
	"group.coordinator.threads=1",
}

func newBed(t *testing.T, seed uint64) *bed {
	t.Helper()
	if _, err := exec.LookPath("kcat"); err != nil {
		t.Fatal("kcat is missing: it checks what became of every record (Debian: kcat)")
	}
	b := &bed{t: t, seed: seed, began: time.Now()}
	var err error
	if b.jars, err = filepath.Abs("../../build/peers"); err != nil {
		t.Fatal(err)
	}
	if b.binary, err = filepath.Abs("../../bin/lapwing"); err != nil {
		t.Fatal(err)
	}
	if err := kafka.Broker.Install(t.Context(), b.jars); err != nil {
		t.Fatal(err)
	}
	b.network, b.papers = newNetwork(), issue(t)
	b.network.show.Store(b.papers.valid)
	t.Cleanup(b.network.close)
	if b.cluster, err = kafka.Start(t.Context(), kafka.Options{Dir: b.jars, Brokers: 3, Heap: 256, Way: b.network.to, Server: brokerSettings}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.cluster.Close() })
	if b.client, err = kgo.NewClient(kgo.SeedBrokers(b.cluster.Brokers()...), kgo.MetadataMinAge(50*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.client.Close)
	b.logf("three brokers answer: %s; scorers and trainers reach them by %s", b.cluster.Addr(), b.cluster.WayAddr())
	return b
}

func (b *bed) logf(format string, args ...any) {
	b.t.Logf("%7.1fs "+format, append([]any{time.Since(b.began).Seconds()}, args...)...)
}

// wait waits for d.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// until asks again and again, until it is true or ctx ends.
func until(ctx context.Context, what string, is func() (bool, error)) error {
	for {
		ok, err := is()
		if ok {
			return nil
		}
		if wait(ctx, 50*time.Millisecond) != nil {
			return fmt.Errorf("waited in vain until %s: %w", what, errors.Join(ctx.Err(), err))
		}
	}
}

// start starts the program, whose connections go through the network that can be cut. It outlives the fault that starts it.
func (b *bed) start(args ...string) (*process.Process, error) {
	args = append(args, "--brokers", b.cluster.WayAddr(), "--log-level", "info", "-X", "security.protocol=ssl", "-X", "ssl.ca.location="+b.papers.authority)
	return process.Start(b.t.Context(), process.Options{Dir: b.t.TempDir(), Keep: 1 << 18}, b.binary, args...)
}

// run runs a command of the program to its end.
func (b *bed) run(args ...string) error {
	p, err := b.start(args...)
	if err != nil {
		return err
	}
	if err := p.Wait(); err != nil {
		return fmt.Errorf("lapwing %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// train starts a training, which publishes a version.
func (b *bed) train(seed int) (*process.Process, error) {
	return b.start("train", "--topic", history, "--model", model, "--key", "car", "--epochs", "3", "--layers", "3,2,3", "--seed", fmt.Sprint(seed), "--json")
}

// learn makes the history and the first two versions.
func (b *bed) learn(ctx context.Context) error {
	if err := b.create(ctx, history, 2); err != nil {
		return err
	}
	s := &source{rng: rand.New(rand.NewPCG(b.seed, 0))}
	records := make([]*kgo.Record, 4000)
	for n := range records {
		records[n] = &kgo.Record{Topic: history, Key: fmt.Appendf(nil, "car-%d", n%50), Value: s.reading(int64(n)), Timestamp: time.UnixMilli(1_795_000_000_000 + 1000*int64(n))}
	}
	if err := b.client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return err
	}
	for seed := range 2 {
		p, err := b.train(seed + 1)
		if err != nil {
			return err
		}
		if err := p.Wait(); err != nil {
			return err
		}
		b.trained.Add(1)
	}
	return nil
}

func (b *bed) create(ctx context.Context, topic string, partitions int) error {
	r := kmsg.NewPtrCreateTopicsRequest()
	r.TimeoutMillis = 15_000
	c := kmsg.NewCreateTopicsRequestTopic()
	c.Topic, c.NumPartitions, c.ReplicationFactor = topic, int32(partitions), 3
	r.Topics = append(r.Topics, c)
	answer, err := r.RequestWith(ctx, b.client)
	if err != nil {
		return err
	}
	if code := answer.Topics[0].ErrorCode; code != 0 {
		return fmt.Errorf("topic %s was not created: error code %d", topic, code)
	}
	return nil
}

// metadata of topics; of all without names.
func (b *bed) metadata(ctx context.Context, names ...string) (*kmsg.MetadataResponse, error) {
	r := kmsg.NewPtrMetadataRequest()
	for _, n := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(n)
		r.Topics = append(r.Topics, t)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return r.RequestWith(ctx, b.client)
}

// whole returns when every partition of every topic has a leader and all its replicas.
func (b *bed) whole(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	return until(ctx, "every replica is in sync", func() (bool, error) {
		md, err := b.metadata(ctx)
		if err != nil || len(md.Brokers) < 3 {
			return false, err
		}
		for _, t := range md.Topics {
			for _, p := range t.Partitions {
				if p.ErrorCode != 0 || p.Leader < 0 || len(p.ISR) < len(p.Replicas) {
					return false, fmt.Errorf("%s/%d: error code %d, leader %d, in sync %v", *t.Topic, p.Partition, p.ErrorCode, p.Leader, p.ISR)
				}
			}
		}
		return true, nil
	})
}

// restart starts a broker again and returns when the cluster is whole.
func (b *bed) restart(ctx context.Context, nodes ...int) error {
	for _, i := range nodes {
		if err := b.cluster.Restart(ctx, i); err != nil {
			return err
		}
	}
	return b.whole(ctx)
}

// serve starts scorer i, as a static member of its own.
func (b *bed) serve(i int) error {
	p, err := b.start("serve", "--json", "--topic", b.of.in, "--model", model, "--delivery", "exactly_once", "--instance-id", fmt.Sprintf("scorer-%d", i),
		"--transaction-timeout", "3s", "--http", "none", "-X", fmt.Sprintf("session.timeout.ms=%d", session.Milliseconds()))
	if err == nil {
		b.scorers[i] = p
	}
	return err
}

// anyScorer is the number of one.
func (b *bed) anyScorer() int { return b.rng.IntN(len(b.scorers)) }

func (b *bed) anyBroker() int { return b.rng.IntN(3) }

// strike sends a burst and returns a moment later, in the middle of its being scored; what follows it is the fault.
func (b *bed) strike(ctx context.Context, what string, args ...any) error {
	what = fmt.Sprintf(what, args...)
	for try := range 5 {
		b.source.write(ctx, 1200, b.source.reading)
		if err := wait(ctx, time.Duration(b.rng.IntN(40))*time.Millisecond); err != nil {
			return err
		}
		if b.flying = b.source.inFlight(); b.flying > 0 || try == 4 {
			break
		}
	}
	b.struck = time.Now()
	b.logf("strikes with %d records in flight: %s", b.flying, what)
	return nil
}

// swap moves the live alias to another version while a fault is on.
func (b *bed) swap() {
	version := 1 + b.rng.IntN(int(b.trained.Load()))
	done := make(chan error, 1)
	go func() { done <- b.run("models", "move", model+"@live", fmt.Sprint(version), "--json") }()
	b.extra = append(b.extra, func() error {
		if err := <-done; err != nil {
			b.logf("the alias was not moved: %v", firstLine(err))
		}
		return nil
	})
}

func firstLine(err error) string {
	lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
	return lines[0] + " … " + lines[len(lines)-1]
}

func signal(p *process.Process, s syscall.Signal) error { return syscall.Kill(p.PID(), s) }

// group tells how the scorers' group stands: its state, its members, and how many partitions each has.
func (b *bed) group(ctx context.Context) (text string, whole bool, err error) {
	r := kmsg.NewPtrDescribeGroupsRequest()
	r.Groups = []string{"lapwing." + b.of.scores}
	answer, err := r.RequestWith(ctx, b.client)
	if err != nil {
		return "", false, err
	}
	g := answer.Groups[0]
	text, assigned := g.State, 0
	for _, m := range g.Members {
		var a kmsg.ConsumerMemberAssignment
		n := 0
		if a.ReadFrom(m.MemberAssignment) == nil {
			for _, t := range a.Topics {
				n += len(t.Partitions)
			}
		}
		assigned += n
		name := m.MemberID
		if m.InstanceID != nil {
			name = *m.InstanceID
		}
		text += fmt.Sprintf(", %s has %d", name, n)
	}
	return fmt.Sprintf("%s, of %d partitions", text, b.partitions), g.State == "Stable" && len(g.Members) == len(b.scorers) && assigned == b.partitions, nil
}

// memory tells how much each scorer holds, and for how long it has run.
func (b *bed) memory() string {
	var out []string
	for i, s := range b.scorers {
		rss, age := s.Resident()
		out = append(out, fmt.Sprintf("scorer %d %d MiB after %v", i, rss>>20, age.Round(time.Second)))
	}
	return strings.Join(out, ", ")
}

// gathered returns when all scorers are in the group and every partition is somebody's.
func (b *bed) gathered(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	return until(ctx, "the group is whole", func() (bool, error) {
		text, whole, err := b.group(ctx)
		if err == nil && !whole {
			err = errors.New(text)
		}
		return whole, err
	})
}

// post has a scorer that did something wrong say where each of its goroutines stands, and writes all that it said to a file.
func (b *bed) post(i int) {
	s := b.scorers[i]
	if s.Ended() == nil {
		if err := signal(s, syscall.SIGQUIT); err == nil {
			s.Wait()
		}
	}
	file := filepath.Join("..", "..", "build", fmt.Sprintf("faults-scorer-%d.log", i))
	if err := os.WriteFile(file, []byte(s.Said()), 0o644); err != nil {
		b.t.Error(err)
	}
	b.t.Logf("what scorer %d said, and where it stood: %s", i, file)
}

// alive starts scorers again that have ended by themselves, which only some faults may make them do.
func (b *bed) alive(mayEnd bool) error {
	var errs []error
	for i, s := range b.scorers {
		if ended := s.Ended(); ended != nil {
			if !mayEnd {
				errs = append(errs, fmt.Errorf("scorer %d ended by itself: %w", i, ended))
			}
			errs = append(errs, b.serve(i))
		}
	}
	return errors.Join(errs...)
}

// versions counts scores by version, to show that versions swapped.
func versions(ctx context.Context, b *bed) (string, error) {
	var out bytes.Buffer
	for p := range b.partitions {
		text, err := kcat(ctx, b.cluster.Addr(), b.of.scores, int32(p), 0, `%s\n`)
		if err != nil {
			return "", err
		}
		turns, last := 0, ""
		for line := range strings.Lines(string(text)) {
			if _, rest, ok := strings.Cut(line, `"version":`); ok {
				if v, _, _ := strings.Cut(rest, ","); v != last {
					turns, last = turns+1, v
				}
			}
		}
		fmt.Fprintf(&out, " %d", turns)
	}
	return out.String(), nil
}

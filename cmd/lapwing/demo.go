package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/lapwing-stream/lapwing/bench/fleet"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/server"
	"github.com/lapwing-stream/lapwing/stream"
	"github.com/lapwing-stream/lapwing/trainer"
)

// The demo's script. A car reports each ten seconds of event time, so at demoRate a hundred cars live through
// some 13 minutes in a second of the wall clock; faults develop over 10 to 20 minutes of theirs.
const (
	demoTopic      = "cars"
	demoModel      = "cars"
	demoPartitions = 6
	demoCars       = 100
	demoHistory    = 150_000 // records before the scorer starts: a bit over four hours of the fleet
	demoRate       = 8_000   // live records/s
	demoLive       = 200_000 // live records
	demoEpisodes   = 30

	// cars/2 is trained after this share of the live records, and faults begin then. A history with faults in it has a
	// threshold among their scores: what is learned from should be sound, or its alarm rate should be asked higher.
	demoRetrainAt = .15
)

type demoOptions struct {
	seed uint64
	keep string
}

func (a *app) demoCommand() *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use: "demo", Short: "See everything work on this machine in under a minute, with nothing to set up", GroupID: groupRun,
		Long: `Starts a broker in this process, writes the history of a simulated fleet of cars, trains a
model, and scores live traffic in which faults begin. While traffic flows it trains a second
model and swaps to it. It ends by reading both topics again and counting.

It uses the same functions as the other commands, and leaves nothing behind unless --keep is given.`,
		Example: `  lapwing demo
  lapwing demo --keep ./demo-data --seed 7
  lapwing demo --json`,
		Args: args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := a.configure(cmd); err != nil {
				return err
			}
			d := &demo{a: a, o: o, started: time.Now()}
			return d.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.Uint64Var(&o.seed, "seed", 1, "`N` decides the fleet, its faults and the models")
	f.StringVar(&o.keep, "keep", "", "keep the broker's topics in the folder `DIR`")
	a.jsonFlag(f, "end with one JSON object that has the counts")
	return cmd
}

// demo is one run of the demo.
type demo struct {
	a       *app
	o       demoOptions
	started time.Time

	client   *stream.Client
	registry *registry.Registry
	server   *server.Server
	brokers  string
	usual    fieldRanges           // least and greatest value of each field in the history
	typical  map[string][2]float64 // usual range: without the outermost values

	view demoView

	mu       sync.Mutex
	episodes []fleet.Episode // begun so far
	sent     [][]int64       // for each partition, when its live records were sent, ns since started
	base     []int64         // for each partition, the offset of its first live record
	sentAll  int64
	latency  latencies
}

func (d *demo) run(ctx context.Context) (err error) {
	d.view.init(d)
	stopView := d.view.start(ctx)
	defer stopView()

	// everything that lives in the background ends with this context, and is waited for
	ctx, cancel := context.WithCancel(ctx)
	var background sync.WaitGroup
	failed := make(chan error, 4)
	spawn := func(what string, f func(context.Context) error) {
		background.Go(func() {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				failed <- fmt.Errorf("%s: %w", what, err)
				cancel()
			}
		})
	}
	defer func() {
		cancel()
		background.Wait()
		select {
		case first := <-failed: // what went wrong first, not the cancellation that followed
			err = first
		default:
		}
	}()

	close, err := d.connect(ctx)
	if err != nil {
		return err
	}
	defer close()

	cars, err := fleet.New(d.fleetOptions())
	if err != nil {
		return err
	}
	if err := d.writeHistory(ctx, cars); err != nil {
		return err
	}
	first, err := d.train(ctx, 1)
	if err != nil {
		return err
	}
	d.learnRanges(first)
	began, err := d.client.Ranges(ctx, demoTopic) // its ends are where the scorer starts
	if err != nil {
		return err
	}

	d.server, err = server.New(server.Deps{Client: d.client, Registry: d.registry, Engine: cpu.New(), Log: quiet(d.a.log)},
		server.Options{Streams: []server.StreamOptions{{Model: demoModel, Topics: []string{demoTopic}, Start: server.StartAfterTraining}}})
	if err != nil {
		return err
	}
	serving, stopServing := context.WithCancel(ctx)
	defer stopServing()
	served := make(chan error, 1)
	spawn("serve", func(context.Context) error {
		err := d.server.Run(serving)
		served <- err
		return err
	})
	spawn("scores", d.watchScores)
	spawn("alerts", d.watchAlerts)
	if err := d.awaitReady(ctx); err != nil {
		return err
	}

	d.prepareLive(began)
	retrain := make(chan struct{})
	trained := make(chan error, 1)
	spawn("train", func(ctx context.Context) error {
		select {
		case <-retrain:
		case <-ctx.Done():
			return ctx.Err()
		}
		_, err := d.train(ctx, 2)
		trained <- err
		return err
	})
	if err := d.playLive(ctx, cars, retrain, trained); err != nil {
		return err
	}
	if err := d.awaitScores(ctx); err != nil {
		return err
	}
	d.view.stage("counting: reading both topics again")
	stopServing()
	if err := <-served; err != nil {
		return err
	}
	s := &demoSummary{Seed: d.o.seed}
	if err := d.audit(ctx, began, s); err != nil {
		return err
	}
	d.summarise(s)
	stopView()
	d.view.last(s)
	if d.a.json {
		if err := json.NewEncoder(d.a.term).Encode(s); err != nil {
			return err
		}
	}
	if s.Dropped+s.Doubled+s.OutOfOrder > 0 {
		return fmt.Errorf("the count does not add up: %d dropped, %d doubled, %d out of order of %d records", s.Dropped, s.Doubled, s.OutOfOrder, s.RecordsIn)
	}
	return nil
}

func (d *demo) connect(ctx context.Context) (close func(), err error) {
	broker, err := stream.Embed(stream.EmbeddedOptions{Dir: d.o.keep})
	if err != nil {
		return nil, err
	}
	d.brokers = broker.Addr()
	d.client, err = stream.Connect(ctx, stream.Options{Properties: map[string]string{"bootstrap.servers": d.brokers}, Log: quiet(d.a.log)})
	if err != nil {
		broker.Close()
		return nil, err
	}
	d.registry = registry.Open(d.client, registry.Options{Log: quiet(d.a.log)})
	return func() { d.client.Close(); broker.Close() }, nil
}

// quiet lets only warnings through: the demo's own lines say what goes on.
func quiet(log *slog.Logger) *slog.Logger { return slog.New(atLeast{log.Handler(), slog.LevelWarn}) }

type atLeast struct {
	slog.Handler
	level slog.Level
}

func (h atLeast) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= h.level && h.Handler.Enabled(ctx, l)
}

func (d *demo) fleetOptions() fleet.Options {
	o := fleet.Options{Seed: d.o.seed, Cars: demoCars}
	sound := int(demoHistory + demoRetrainAt*demoLive)
	o.Faults.Stretches = []fleet.Stretch{{After: o.Span(sound), Over: o.Span(demoHistory+demoLive) - o.Span(sound), Episodes: demoEpisodes}}
	return o
}

func (d *demo) writeHistory(ctx context.Context, cars *fleet.Fleet) error {
	d.view.stage(fmt.Sprintf("writing %s records of history to topic %s", count(demoHistory), demoTopic))
	for _, topic := range []stream.TopicSpec{historyTopic(demoTopic, demoPartitions), historyTopic(demoTopic+".labels", 1)} {
		if _, err := d.client.CreateTopic(ctx, topic); err != nil {
			return err
		}
	}
	p, err := newFleetFeed(ctx, d.client, cars, demoTopic, demoPartitions)
	if err != nil {
		return err
	}
	defer p.close(context.WithoutCancel(ctx))
	for n := 0; n < demoHistory; n += 1000 {
		p.next(min(1000, demoHistory-n))
		if err := p.push(ctx); err != nil {
			return err
		}
		d.view.history(n+1000, demoHistory)
	}
	return p.flush(ctx)
}

// train runs what `lapwing train` runs. While traffic flows it takes one thread, so that the scorer keeps its own.
func (d *demo) train(ctx context.Context, version int) (*trainer.Report, error) {
	o := trainer.Defaults()
	o.Topic, o.Model, o.Key, o.Time, o.Seed, o.By = demoTopic, demoModel, "car", "time", d.o.seed, "lapwing demo"
	o.Threads = runtime.GOMAXPROCS(0)
	o.Checkpoint = 0 // its broker ends with it
	if version > 1 {
		o.Threads = 1
	}
	d.view.training(version, trainer.Progress{Stage: "read"})
	r, err := trainer.Run(ctx, trainer.Deps{
		Client: d.client, Registry: d.registry, Engine: cpu.New(), Log: quiet(d.a.log),
		Progress: func(p trainer.Progress) { d.view.training(version, p) },
	}, o)
	if err == nil {
		d.view.trained(version, r)
	}
	return r, err
}

// learnRanges keeps what the history's values were, for the alerts' sentences and for the audit.
func (d *demo) learnRanges(r *trainer.Report) {
	d.usual, d.typical = fieldRanges{}, map[string][2]float64{}
	for _, c := range r.Columns {
		if !c.Log { // the fleet has no such column
			d.usual[c.Name] = [2]float64{c.Min, c.Max}
			d.typical[c.Name] = [2]float64{c.Lower, c.Upper}
		}
	}
}

func (d *demo) awaitReady(ctx context.Context) error {
	d.view.stage("waiting for the scorer to take " + demoModel + "/1 from the model topic")
	for !d.server.Status().Ready {
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func pause(ctx context.Context, t time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(t):
		return nil
	}
}

func (d *demo) prepareLive(began []stream.Range) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.base = make([]int64, len(began))
	d.sent = make([][]int64, len(began))
	for _, r := range began {
		d.base[r.Partition] = r.To
	}
}

// playLive sends the live records at demoRate, on a schedule that does not wait for anybody. It starts the second
// training on its way, and goes on until that has swapped and every planned record was sent.
func (d *demo) playLive(ctx context.Context, cars *fleet.Fleet, retrain chan<- struct{}, trained <-chan error) error {
	d.view.stage("live")
	feed, err := newFleetFeed(ctx, d.client, cars, demoTopic, demoPartitions)
	if err != nil {
		return err
	}
	defer feed.close(context.WithoutCancel(ctx))
	const tick = 2 * time.Millisecond
	begin := time.Now()
	training := false
	for sent := 0; sent < demoLive || !d.swappedLongEnough(sent); {
		due := int(time.Since(begin).Seconds() * demoRate)
		n := due - sent
		if sent < demoLive {
			n = min(due, demoLive) - sent
		}
		if n <= 0 {
			if err := pause(ctx, tick); err != nil {
				return err
			}
			continue
		}
		n = min(n, 500)
		out := feed.next(n)
		d.noteSent(out) // before they go: a score may be back before push returns
		if err := feed.push(ctx); err != nil {
			return err
		}
		if err := feed.labels(ctx, out.episodes); err != nil {
			return err
		}
		sent += n
		if !training && float64(sent) >= demoRetrainAt*demoLive {
			training = true
			close(retrain)
		}
		d.view.live(sent, max(sent, demoLive))
		select {
		case err := <-trained:
			if err != nil {
				return err
			}
		default:
		}
	}
	return feed.flush(ctx)
}

// swappedLongEnough: on a slow machine the second model comes late, and the traffic goes on until it too has scored
// its share.
func (d *demo) swappedLongEnough(sent int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.latency.swaps > 0 && float64(len(d.latency.at)-d.latency.swappedAt) >= .15*float64(sent)
}

func (d *demo) noteSent(out feedResult) {
	now := int64(time.Since(d.started))
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range out.partitions {
		d.sent[p] = append(d.sent[p], now)
		d.sentAll++
	}
	d.episodes = append(d.episodes, out.episodes...)
}

func (d *demo) episodesBegun() []fleet.Episode {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.episodes)
}

// awaitScores waits until every live record has its score, as another consumer sees it.
func (d *demo) awaitScores(ctx context.Context) error {
	d.view.stage("the last scores arrive")
	for {
		d.mu.Lock()
		missing := d.sentAll - int64(len(d.latency.at))
		d.mu.Unlock()
		if missing <= 0 {
			return nil
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

// watchScores reads the scores topic as any consumer would, and times each from when its record was sent.
func (d *demo) watchScores(ctx context.Context) error {
	return d.watch(ctx, demoTopic+".scores", func(records []stream.Record) error {
		now := int64(time.Since(d.started))
		d.mu.Lock()
		defer d.mu.Unlock()
		for i := range records {
			offset, version, err := scoreHead(records[i].Value)
			if err != nil {
				return fmt.Errorf("topic %s, partition %d, offset %d: %w", records[i].Topic, records[i].Partition, records[i].Offset, err)
			}
			p := records[i].Partition
			if i := offset - d.base[p]; i >= 0 && i < int64(len(d.sent[p])) {
				d.latency.add(now, float32(now-d.sent[p][i])/1e6, version)
			}
		}
		return nil
	})
}

// scoreHead finds the two numbers that the demo needs of each score, without the cost of a JSON decoder: at this rate
// it would compete with the scorer for the processor. The order of keys is the format's.
func scoreHead(value []byte) (offset int64, version int, err error) {
	number := func(key string) (n int64, ok bool) {
		i := strings.Index(string(value[:min(len(value), 300)]), key)
		if i < 0 {
			return 0, false
		}
		for _, c := range value[i+len(key):] {
			if c < '0' || c > '9' {
				break
			}
			n, ok = 10*n+int64(c-'0'), true
		}
		return n, ok
	}
	o, ok1 := number(`"offset":`)
	v, ok2 := number(`"version":`)
	if !ok1 || !ok2 {
		return 0, 0, errors.New("no offset and version in the score")
	}
	return o, int(v), nil
}

func (d *demo) watchAlerts(ctx context.Context) error {
	return d.watch(ctx, demoTopic+".alerts", func(records []stream.Record) error {
		for i := range records {
			if records[i].Value == nil {
				continue
			}
			var line demoScore
			if err := json.Unmarshal(records[i].Value, &line); err != nil {
				return fmt.Errorf("topic %s, partition %d, offset %d: %w", records[i].Topic, records[i].Partition, records[i].Offset, err)
			}
			if line.State == "raised" {
				line.Key = carOf(records[i].Key)
				d.view.alert(line)
			}
		}
		return nil
	})
}

func (d *demo) watch(ctx context.Context, topic string, do func([]stream.Record) error) error {
	for { // the scorer makes its topics as it starts
		if _, err := d.client.Partitions(ctx, topic); err == nil {
			break
		} else if !errors.Is(err, stream.ErrNoTopic) {
			return err
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	tail, err := d.client.Tail(ctx, []string{topic}, stream.TailOptions{Start: "earliest", Committed: true})
	if err != nil {
		return err
	}
	defer tail.Close()
	for {
		b, err := tail.Next(ctx)
		if err != nil {
			return err
		}
		err = do(b.Records)
		b.Release()
		if err != nil {
			return err
		}
	}
}

// summarise adds what the demo measured while it ran to what the audit counted.
func (d *demo) summarise(s *demoSummary) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, st := range d.server.Status().Streams {
		s.RecordsScored, s.Swaps = st.RecordsOut, st.Swaps
	}
	s.P50, s.P99 = d.latency.quantile(.5, 0, 1<<62), d.latency.quantile(.99, 0, 1<<62)
	if at := d.latency.swapped; at > 0 {
		s.P99Swap = d.latency.quantile(.99, at-int64(time.Second), at+int64(time.Second))
	}
	from, to := d.view.trainingSpan(2)
	s.RateKept = d.latency.rate(from, to) / demoRate
	s.Seconds = float64(time.Since(d.started).Round(10*time.Millisecond)) / float64(time.Second)
}

// latencies are times from sent to scored, in the order in which scores arrived.
type latencies struct {
	at        []int64   // ns since the demo started
	ms        []float32 // sent to scored
	version   int
	swapped   int64 // when the first score of another version arrived; 0 = not yet
	swappedAt int   // scores before it
	swaps     int
}

func (l *latencies) add(at int64, ms float32, version int) {
	if l.version != 0 && version > l.version {
		l.swapped, l.swappedAt = at, len(l.at)
		l.swaps++
	}
	l.version = max(l.version, version)
	l.at, l.ms = append(l.at, at), append(l.ms, ms)
}

// within gives the part that arrived in [from, to).
func (l *latencies) within(from, to int64) []float32 {
	i, _ := slices.BinarySearch(l.at, from)
	j, _ := slices.BinarySearch(l.at, to)
	return l.ms[i:j]
}

func (l *latencies) quantile(p float64, from, to int64) float64 {
	part := slices.Clone(l.within(from, to))
	if len(part) == 0 {
		return 0
	}
	slices.Sort(part)
	return float64(part[min(int(p*float64(len(part))), len(part)-1)])
}

// rate is scores/s that arrived in [from, to).
func (l *latencies) rate(from, to int64) float64 {
	if to <= from {
		return 0
	}
	return float64(len(l.within(from, to))) / time.Duration(to-from).Seconds()
}

package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

// SimulationOptions are the settings of Simulate.
type SimulationOptions struct {
	Seed   uint64         // of everything random; default 0
	Steps  int64          // to run; default 1000000
	Engine kernels.Engine // that scores; required
	Log    *slog.Logger   // of the code under test; default none
}

// Validate reports every fault of o at once.
func (o *SimulationOptions) Validate() error {
	var errs []error
	if o.Steps < 0 {
		errs = append(errs, fmt.Errorf("steps %d must not be negative", o.Steps))
	}
	if o.Engine == nil {
		errs = append(errs, errors.New("SimulationOptions.Engine is nil"))
	}
	return errors.Join(errs...)
}

// SimulationReport is what a simulation did.
type SimulationReport struct {
	Seed   uint64           `json:"seed"`
	Steps  int64            `json:"steps"`
	Rounds int              `json:"rounds"`
	Events map[string]int64 `json:"events"` // what happened, and how often
	Broken *BrokenPromise   `json:"broken,omitempty"`
}

// BrokenPromise is what a simulation found.
type BrokenPromise struct {
	Step    int64    `json:"step"`
	Promise string   `json:"promise"`
	What    string   `json:"what"`
	Last    []string `json:"last"` // events before it, oldest first
}

func (b *BrokenPromise) Error() string { return b.Promise + ": " + b.What }

// Names and times of the simulated world. The times are short against a round, so that each of them passes often.
const (
	simInput   = "cars"
	simScores  = "cars.scores"
	simAlerts  = "cars.alerts"
	simLetters = "cars.dlq"
	simModels  = "lapwing.models"
	simModel   = "cars"

	simSession        = 400 * time.Millisecond // of a member without a sign of life
	simTransaction    = time.Second            // transaction_timeout
	simTrainerTimeout = time.Second
	simStorm          = 12_000 // steps of a round with faults
	simPatience       = 60_000 // steps within which everything is done once faults have stopped
	simBacklog        = 120    // records that wait, from where on nobody writes more
	simLast           = 24     // events kept for a report
)

// simFault is a kind of fault that a request may meet.
type simFault int

const (
	simRefusal     simFault = iota // a record is not acknowledged
	simLostRequest                 // a transaction's end is not asked for
	simLostAnswer                  // it is, and nobody hears so
)

var simFaultNames = [...]string{"record refused", "request lost", "answer lost"}

// simWorld is one round: brokers, scorers, trainers and whoever writes the input, under one scheduler. Everything random comes from one
// generator, time moves only with steps, and one thing happens at a time: so the same seed gives the same steps.
type simWorld struct {
	rand    *rand.Rand
	now     time.Duration
	engine  kernels.Engine
	log     *slog.Logger
	options Options
	static  bool
	storm   bool

	cluster  *simCluster
	registry *registry.Registry
	models   *simModelFiles
	scorers  []*simScorer
	trainers []*simTrainer
	client   simClient
	check    *simCheck

	running *simTask
	tasks   map[*simTask]bool

	step   int64
	events map[string]int64
	last   []string
}

var simEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (w *simWorld) clock() time.Time { return simEpoch.Add(w.now) }

func (w *simWorld) happened(what string) {
	w.events[what]++
	w.say("%s", what)
}

func (w *simWorld) say(format string, args ...any) {
	if len(w.last) == simLast {
		w.last = slices.Delete(w.last, 0, 1)
	}
	w.last = append(w.last, fmt.Sprintf("step %d, %v: ", w.step, w.now)+strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " "))
}

// fault decides whether a request meets a fault.
func (w *simWorld) fault(kind simFault) bool {
	if !w.storm || w.rand.IntN(200) != 0 {
		return false
	}
	w.happened(simFaultNames[kind])
	return true
}

// touched notes that something new may be read in a partition.
func (w *simWorld) touched(l *simLog) { w.check.touched(l) }

// Simulate runs rounds of a simulated cluster until its steps are done or a promise is broken. What it drives is the code that serves, follows
// and publishes in production; what it plays are Kafka, the clock and the scheduler. ctx ends it early.
func Simulate(ctx context.Context, o SimulationOptions) (*SimulationReport, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	defaulted(&o.Steps, 1_000_000)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	files, err := newSimModelFiles(o.Engine)
	if err != nil {
		return nil, err
	}
	r := &SimulationReport{Seed: o.Seed, Events: map[string]int64{}}
	for ; r.Steps < o.Steps && r.Broken == nil && ctx.Err() == nil; r.Rounds++ {
		w := newSimWorld(rand.New(rand.NewPCG(o.Seed, uint64(r.Rounds))), &o, files, r)
		w.round(ctx, o.Steps)
		r.Steps, r.Broken = w.step, w.check.broken
		w.close()
	}
	return r, ctx.Err()
}

func newSimWorld(random *rand.Rand, o *SimulationOptions, files *simModelFiles, r *SimulationReport) *simWorld {
	w := &simWorld{rand: random, engine: o.Engine, log: o.Log, models: files, storm: true, tasks: map[*simTask]bool{}, step: r.Steps, events: r.Events}
	partitions := 1 + random.IntN(4)
	batch := 1 + random.IntN(12)
	w.static = random.IntN(3) == 0
	w.options = Options{
		MaxBatch: batch, Queue: batch * (1 + random.IntN(4)), MaxInFlight: 1 + random.IntN(4),
		Delivery: ExactlyOnce, CommitInterval: time.Duration(1+random.IntN(30)) * time.Millisecond, CommitRecords: 1 + random.IntN(40),
		TransactionTimeout: simTransaction,
		Streams: []StreamOptions{{
			Model: simModel, Topics: []string{simInput}, Output: simScores, Alerts: simAlerts, DLQ: simLetters,
			RaiseAfter: 1 + random.IntN(3), ClearAfter: 1 + random.IntN(3), RepeatEvery: 20 * time.Millisecond, AlertRewind: 10 + random.IntN(60),
		}},
	}
	if random.IntN(2) == 0 {
		w.options.Streams[0].AlertRewind = simRewindAll
	}
	if random.IntN(4) == 0 {
		w.options.Delivery = AtLeastOnce
	}
	w.options = w.options.withDefaults()
	w.check = newSimCheck(w, partitions)
	w.cluster = newSimCluster(w, partitions)
	w.registry = registry.Rehearse(w.cluster, registry.Options{Topic: simModels, Log: o.Log, Now: w.clock})
	for i := range 1 + random.IntN(3) {
		p := &simScorer{w: w, number: i}
		w.scorers = append(w.scorers, p)
		p.start()
	}
	for i := range 2 {
		w.trainers = append(w.trainers, &simTrainer{w: w, number: i})
	}
	return w
}

// round runs a storm, then waits for everything to be done.
func (w *simWorld) round(ctx context.Context, steps int64) {
	first := w.step
	for w.step-first < simStorm && w.step < steps {
		if !w.next() || w.step%1024 == 0 && ctx.Err() != nil {
			return
		}
	}
	w.calm()
	for calmed := w.step; ; {
		if w.step%64 == 0 && w.check.done() {
			w.check.final()
			return
		}
		if w.step-calmed > simPatience {
			for _, p := range w.scorers {
				w.say("%s", p.state())
			}
			w.check.breaks("nothing is stuck", "%d steps after the last fault: %s", simPatience, w.check.unfinished())
			return
		}
		if !w.next() || w.step%1024 == 0 && ctx.Err() != nil {
			return
		}
	}
}

// calm stops all faults, and starts what is down.
func (w *simWorld) calm() {
	w.storm = false
	if w.client.txn != nil {
		w.cluster.decide(w.client.txn, simCommitted)
		w.client.txn = nil
	}
	for _, p := range w.scorers {
		switch {
		case !p.up:
			p.start()
		case p.frozen:
			p.frozen = false
		}
	}
	w.say("calm")
}

func (w *simWorld) close() {
	w.storm = false
	for _, p := range w.scorers {
		if p.up {
			p.kill()
		}
	}
	for t := range w.tasks {
		w.end(t)
	}
}

// next is one step. It returns false when a promise is broken.
func (w *simWorld) next() bool {
	for try := 0; ; try++ {
		if w.act() {
			break
		}
		if try == 64 { // nothing can be done before some time has passed
			w.now += time.Duration(1+w.rand.IntN(8)) * time.Millisecond
			break
		}
	}
	if w.rand.IntN(3) == 0 {
		w.now += time.Duration(w.rand.IntN(2000)) * time.Microsecond
	}
	w.cluster.expire()
	w.cluster.group.expire()
	w.step++
	w.check.step()
	return w.check.broken == nil
}

// act tries one thing.
func (w *simWorld) act() bool {
	switch n := w.rand.IntN(1000); {
	case n < 60:
		return w.storm && w.check.backlog() < simBacklog && w.client.write(w)
	case n < 140:
		if len(w.cluster.ending) == 0 {
			return false
		}
		w.cluster.mark(w.rand.IntN(1 << 16))
		return true
	case n < 180:
		return w.trainers[n%len(w.trainers)].turn()
	case n < 190:
		return w.storm && w.disturb()
	default:
		return w.scorers[w.rand.IntN(len(w.scorers))].turn(n)
	}
}

// disturb is a fault that no request has to meet.
func (w *simWorld) disturb() bool {
	p := w.scorers[w.rand.IntN(len(w.scorers))]
	switch {
	case !p.up || p.frozen:
		if w.now < p.wake {
			return false
		}
		if p.up {
			p.frozen = false
			w.happened("scorer thawed")
		} else {
			p.start()
			w.happened("scorer started")
		}
		return true
	}
	away := func() { p.wake = w.now + time.Duration(w.rand.IntN(1500))*time.Millisecond }
	switch w.rand.IntN(200) {
	case 0:
		p.kill()
		away()
		w.happened("scorer killed")
	case 1, 12, 13:
		p.frozen = true
		away()
		w.happened("scorer frozen")
	case 2, 3, 4, 5, 6, 7:
		w.cluster.group.rebalance()
		w.happened("rebalance")
	case 8, 9:
		w.trainers[w.rand.IntN(len(w.trainers))].kill()
		w.happened("trainer killed")
	case 10, 11:
		w.cluster.log(simModels, 0).compact()
		w.happened("model topic compacted")
	default:
		return false
	}
	return true
}

// simClient writes the input: good, bad and empty records, and some in transactions that end either way.
type simClient struct {
	id  simID
	txn *simTxn
}

func (c *simClient) write(w *simWorld) bool {
	if c.txn != nil && w.rand.IntN(8) == 0 {
		w.cluster.decide(c.txn, simCommitted+simOutcome(w.rand.IntN(2)))
		c.txn = nil
		return true
	}
	if c.txn == nil && c.id.txn == nil && w.rand.IntN(10) == 0 {
		c.txn = &simTxn{id: &c.id, ends: 1 << 62}
		c.id.txn = c.txn
		w.cluster.live = append(w.cluster.live, c.txn)
	}
	for range 1 + w.rand.IntN(4) {
		l := w.cluster.log(simInput, int32(w.rand.IntN(len(w.cluster.group.owner))))
		r := w.models.record(w)
		l.append(r, c.txn)
		if c.txn == nil {
			w.touched(l)
		}
		w.events["record written"]++
	}
	return true
}

// simTrainer publishes, moves, rolls back and deletes.
type simTrainer struct {
	w      *simWorld
	number int
	task   *simTask
	cancel context.CancelFunc
}

func (t *simTrainer) kill() {
	if t.task != nil {
		t.cancel()
		t.w.end(t.task)
		t.task = nil
	}
}

func (t *simTrainer) turn() bool {
	w := t.w
	if t.task == nil {
		if !w.storm && w.check.published() || w.storm && w.check.published() && w.rand.IntN(400) != 0 {
			return false
		}
		ctx, cancel := context.WithCancel(context.Background())
		t.cancel = cancel
		t.task = w.task(func() { t.work(ctx) })
	}
	w.resume(t.task)
	if t.task.ended {
		t.cancel()
		t.task = nil
	}
	return true
}

func (t *simTrainer) work(ctx context.Context) {
	w := t.w
	versions := w.check.versions()
	version := 1
	if len(versions) > 0 {
		version = versions[w.rand.IntN(len(versions))]
	}
	kind := w.rand.IntN(8)
	if len(versions) == 0 {
		kind = 0
	}
	who := fmt.Sprintf("trainer %d", t.number)
	var err error
	switch {
	case kind < 4:
		_, err = w.registry.Publish(ctx, registry.Publication{Name: simModel, Data: w.models.pick(w), Alias: registry.Live, By: who})
		w.outcome("publish", err)
	case kind < 6:
		_, err = w.registry.Move(ctx, simModel, registry.Live, version, registry.AnyGeneration, who, "")
		w.outcome("alias move", err)
	case kind < 7:
		_, err = w.registry.Rollback(ctx, simModel, registry.Live, who, "")
		w.outcome("rollback", err)
	default:
		err = w.registry.Delete(ctx, simModel, version)
		w.outcome("delete", err)
	}
}

func (w *simWorld) outcome(what string, err error) {
	if err != nil {
		what += " refused"
	}
	w.happened(what)
}

// simStream names the input partition p.
func simStream(p int32) stream.TopicPartition {
	return stream.TopicPartition{Topic: simInput, Partition: p}
}

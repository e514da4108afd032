package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

// runner owns one stream from start-up to the last commit. Its sessions come one after the other: a session that
// fails is torn down and begun anew from the committed offsets, which is what at-least-once means.
type runner struct {
	o       *StreamOptions
	server  *Options
	client  *stream.Client
	topics  topics
	now     func() time.Time
	log     *slog.Logger
	metrics *streamMetrics
	slot    *slot
	engine  kernels.Engine

	outputs int // partitions that the output topics are known to have; for the runner's goroutine

	session atomic.Pointer[session] // nil between sessions
	left    atomic.Int64            // lag when the last session ended; -1 = there was none
	stopped atomic.Bool             // ended as it was told to

	member string      // what tells this copy's transactions from another's
	fences []time.Time // when they were taken over by another, lately

	mu      sync.Mutex
	blocked map[waitFor]string // what the stream waits for, beside its model
}

// topics is what a session reads of topics beside its group: a stream.Client, or a simulation's.
type topics interface {
	Partitions(ctx context.Context, topic string) (int, error)
	Watermarks(ctx context.Context, topic string) ([]stream.Range, error)
	EachRecord(ctx context.Context, topic string, ranges []stream.Range, do func(stream.Record) error) error
}

// waitFor is a reason for not being ready.
type waitFor string

const (
	waitStart   waitFor = "start"
	waitOutputs waitFor = "outputs"
	waitRetry   waitFor = "retry"
)

func newRunner(s *Server, o *StreamOptions) *runner {
	metrics := s.metrics.stream(o.name())
	r := &runner{
		o: o, server: &s.o, client: s.deps.Client, topics: s.deps.Client, now: time.Now, log: s.log, metrics: metrics,
		slot:    newSlot(o, s.log, metrics),
		engine:  s.deps.Engine,
		blocked: map[waitFor]string{waitStart: "starting"},
	}
	r.left.Store(-1)
	if r.member = o.InstanceID; r.member == "" {
		r.member = strings.ToLower(rand.Text())
	}
	return r
}

func (r *runner) exact() bool { return r.server.Delivery == ExactlyOnce }

// transactionalID is as lasting as the membership in the group. A static member keeps it over a restart, so that its next life
// aborts at once what the last one left open. For others it is made up anew by each process: nothing else would be sure to differ
// from a second copy on the same machine, and two copies with one id would fence each other for ever. It loses no time: the group
// waits for a dead member's session to end before anybody gets its partitions, and that takes longer than its transaction lasts.
func (r *runner) transactionalID() string { return r.o.group() + "-" + r.member }

// transactions is the right on the ids of all copies, and on probeID.
func (s *StreamOptions) transactions() stream.Right {
	return stream.Right{Kind: "transactional-id", Name: s.group() + "-", Prefix: true, Operations: []string{"WRITE"}}
}

// probeID is an id for the question whether transactions can be had. Nobody's transactions bear it.
func (s *StreamOptions) probeID() string { return s.group() + "-check" }

func (r *runner) sink(ctx context.Context, group *stream.Group) (stream.Sink, error) {
	if !r.exact() {
		return r.client.AtLeastOnce(ctx, group)
	}
	return r.client.ExactlyOnce(ctx, group, stream.ExactlyOnceOptions{ID: r.transactionalID(), Timeout: r.server.TransactionTimeout})
}

// How often another may take over this copy's transactions before it gives way: once is a broker that lost patience with a frozen
// process, again and again is a second process.
const (
	fenceLimit = 5
	fenceSpan  = 2 * time.Minute
)

// fenced tells whether err means that another process shares this copy's name.
func (r *runner) fenced(err error, now time.Time) error {
	if r.o.InstanceID == "" || !errors.Is(err, stream.ErrFenced) {
		return nil
	}
	r.fences = append(slices.DeleteFunc(r.fences, func(t time.Time) bool { return now.Sub(t) > fenceSpan }), now)
	if len(r.fences) < fenceLimit {
		return nil
	}
	return &stream.Error{
		What:  "another process takes over the transactions of stream " + r.o.name() + " again and again",
		Where: "transactional.id " + r.transactionalID(),
		Next:  "give each copy of serve an instance_id of its own, or none",
		Err:   err,
	}
}

// block notes that the stream waits for something; an empty reason takes the note back.
func (r *runner) block(what waitFor, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if reason == "" {
		delete(r.blocked, what)
	} else {
		r.blocked[what] = reason
	}
}

// outageGrace is how long a broker may be silent before the stream is not ready: a restart of one is no news.
const outageGrace = 3 * time.Second

// missing lists what keeps the stream from being ready: its model, its outputs, the broker, its place in the group. A
// consumer in the group whose partitions another copy holds is ready.
func (r *runner) missing(follow registry.FollowState) []string {
	var out []string
	if m := r.slot.missing(follow); m != "" {
		out = append(out, m)
	}
	r.mu.Lock()
	for _, k := range slices.Sorted(maps.Keys(r.blocked)) {
		out = append(out, r.blocked[k])
	}
	r.mu.Unlock()
	if since := r.client.Silent(); !since.IsZero() && time.Since(since) > outageGrace {
		out = append(out, "the broker does not answer since "+since.UTC().Format(time.RFC3339))
	} else if since := r.metrics.blockedSince(); since > 0 && time.Since(time.Unix(0, since)) > outageGrace {
		out = append(out, fmt.Sprintf("%s takes no records since %s: see the broker's log and disk", r.o.Output, time.Unix(0, since).UTC().Format(time.RFC3339)))
	}
	if s := r.session.Load(); len(out) == 0 && (s == nil || !s.group.InGroup()) {
		out = append(out, "not a member of group "+r.o.group()+" yet")
	}
	return out
}

func (r *runner) status(follow registry.FollowState) StreamStatus {
	m := r.metrics
	missing := r.missing(follow)
	st := StreamStatus{
		Stream: r.o.name(), Topics: r.o.Topics, Model: r.o.ref().String(),
		Ready: len(missing) == 0, Missing: missing,
		Versions: r.slot.versions(), Swaps: m.swapped.Load(),
		RecordsIn: m.nIn.Load(), RecordsOut: m.nOut.Load(), Bad: m.nBad.Load(), BadBy: m.badByReason(),
		Tombstones: m.nTombstones.Load(), LeftOut: m.nLeftOut.Load(), Anomalies: m.nAnomalies.Load(), Alerts: m.nRaised.Load(),
		Lost: m.nLost.Load(), Restarts: m.nRestarts.Load(), Lag: -1,
		Saturation: m.busy.ratio(time.Now()), Latency: m.latencies.counts(),
	}
	if l := r.slot.live.Load(); l != nil {
		st.Version = l.version
	}
	st.P50, st.P99 = milliseconds(st.Latency, .5), milliseconds(st.Latency, .99)
	if s := r.session.Load(); s != nil {
		st.Consumes = s.group.InGroup()
		st.Lag, st.Partitions = s.lag()
	} else if r.stopped.Load() { // it waits for nothing any more, and what it left unread is known
		st.Ready, st.Missing, st.Lag = false, nil, r.left.Load()
	}
	return st
}

// run is the stream's life. Faults at the start end it; once a session has begun, it keeps trying.
func (r *runner) run(ctx context.Context) error {
	wait, said, prepared := r.server.RetryMin, "", false
	for {
		began := time.Now()
		var err error
		if !prepared {
			// A broker that is away, of a cluster that has answered, is waited for; all else that is wrong now would be wrong again.
			if err = r.prepare(ctx); err != nil && !stream.Unanswered(err) {
				return unlessStopped(ctx, err)
			}
			prepared = err == nil
		}
		if prepared {
			err = r.runSession(ctx)
		}
		if ctx.Err() != nil {
			return err
		}
		if time.Since(began) > r.server.RetryMax {
			wait, said = r.server.RetryMin, "" // it had worked
		}
		if rights := (*rightsError)(nil); !errors.As(err, &rights) {
			if stop := cmp.Or(r.fenced(err, time.Now()), r.deviceLost(err)); stop != nil {
				return stop
			}
			r.metrics.restarts.Inc()
			r.metrics.nRestarts.Add(1)
			if said != err.Error() {
				said = err.Error()
				r.log.Error("the stream failed; it begins anew from its committed offsets, and keeps trying", "stream", r.o.name(), "error", err)
			}
			r.block(waitRetry, "begins anew after: "+err.Error())
			if pause(ctx, wait) != nil {
				return nil
			}
			wait = min(2*wait, r.server.RetryMax)
		}
		// The error, if it is not for lack of rights, will come again from the session, which is retried.
		_ = r.awaitOutputs(ctx)
		if ctx.Err() != nil {
			return nil
		}
		r.block(waitRetry, "")
	}
}

// deviceLost is what ends the process after an error: an engine whose device is lost, and that has no other to score by,
// fails every batch from now on. A restart may find the device again.
func (r *runner) deviceLost(err error) error {
	if why := lostDevice(r.engine); err != nil && why != "" {
		return fmt.Errorf("the GPU is lost: %s; next: restart serve: what was read and not scored is read again; --engine auto would go on with the CPU", why)
	}
	return nil
}

// lostDevice is why an engine's device cannot be used any more, "" where it can or there is none.
func lostDevice(e kernels.Engine) string {
	if device, ok := e.(kernels.OnDevice); ok {
		return device.DeviceStatus().Lost
	}
	return ""
}

// prepare makes the outputs, fixes the start position and waits for the first model. The position is fixed before
// the model is there, so that records which arrive while a first model is trained are scored; only after-training has
// to know the model.
func (r *runner) prepare(ctx context.Context) error {
	if err := r.alone(ctx); err != nil {
		return err
	}
	if err := r.awaitOutputs(ctx); err != nil {
		return err
	}
	if r.exact() {
		if err := r.tryTransactions(ctx); err != nil {
			return err
		}
	}
	kind, _, err := parseStart(r.o.Start)
	if err != nil {
		return err
	}
	if kind != StartAfterTraining {
		if err := r.begin(ctx); err != nil {
			return err
		}
	}
	r.block(waitStart, "")
	if err := r.awaitModel(ctx); err != nil {
		return err
	}
	if err := r.alone(ctx); err != nil { // it may have waited for days
		return err
	}
	if kind == StartAfterTraining {
		return r.begin(ctx)
	}
	return nil
}

// doWithout is the way out where the brokers give no transactions. It is never taken by itself: results would come twice, unsaid.
const doWithout = "or serve with --delivery at_least_once, which needs no transactions"

// tryTransactions asks for what exactly_once needs before anything is read.
func (r *runner) tryTransactions(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, tryTransactions)
	defer cancel()
	err := r.client.TryTransactions(asking, r.o.probeID(), r.server.TransactionTimeout)
	if err == nil || ctx.Err() != nil {
		return err
	}
	if stream.Unanswered(err) {
		// Where the brokers are fewer than their transaction log's replicas, it is never made, and whoever asks is left waiting.
		if _, missing := r.client.Describe(ctx, transactionLog); errors.Is(missing, stream.ErrNoTopic) {
			return &stream.Error{
				What:  "the brokers have no transaction log, and have made none within " + tryTransactions.String(),
				Where: "topic " + transactionLog,
				Next:  "set transaction.state.log.replication.factor and transaction.state.log.min.isr in every broker's server.properties to what the brokers can hold (1 on a single one); " + doWithout,
			}
		}
		return err
	}
	var e *stream.Error
	if errors.As(stream.Lacks(r.client.Brokers(), err, r.o.transactions()), &e) && !errors.Is(err, stream.ErrFenced) {
		return &stream.Error{What: e.What, Where: e.Where, Next: e.Next + "; " + doWithout, Err: err}
	}
	return err
}

// alone refuses an output that another model is writing to: the two would share the group, hence each score some of the
// records. A static member with our own instance id is who we were before.
func (r *runner) alone(ctx context.Context) error {
	members, err := r.client.Members(ctx, r.o.group())
	if err != nil {
		return err
	}
	for _, m := range members {
		if m.Is == "" || m.Is == r.o.ref().String() || r.o.InstanceID != "" && m.InstanceID == r.o.InstanceID {
			continue
		}
		return &stream.Error{
			What:  fmt.Sprintf("output %s is being written by model %s; %s would mix its scores in", r.o.Output, m.Is, r.o.ref()),
			Where: fmt.Sprintf("member of group %s from %s, client.id %s", r.o.group(), m.Host, m.ClientID),
			Next:  fmt.Sprintf("give %s an output of its own with --output NAME (and --alerts NAME), or stop the other", r.o.ref()),
		}
	}
	return nil
}

// awaitModel waits for the first live model without joining the group: a copy that cannot score must not hold
// partitions that another copy could serve.
func (r *runner) awaitModel(ctx context.Context) error {
	select {
	case <-r.slot.first:
		return nil
	default:
	}
	r.log.Info("records wait for a live model", "stream", r.o.name(), "model", r.o.ref().String())
	select {
	case <-r.slot.first:
		return nil
	case <-r.slot.lost:
		return r.deviceLost(errors.New("no model can be loaded"))
	case <-ctx.Done():
		return ctx.Err()
	}
}

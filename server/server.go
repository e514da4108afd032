// Package server is the always-on scorer: it follows the model topic and turns input topics into scores, alerts and
// dead letters. docs/serve.md says what that means to its users.
//
// A record walks through three goroutines of its stream: decode, score (with encoding and alerts), and output. A
// model walks from registry.Follow through a loader into its stream's slot, one atomic pointer, which decode reads
// once a micro-batch.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

// Deps are what a Server works with; their owner closes them after Run has returned.
type Deps struct {
	Client   *stream.Client
	Registry *registry.Registry
	Engine   kernels.Engine
	Log      *slog.Logger // default slog.Default()
}

// Server scores streams.
type Server struct {
	deps     Deps
	o        Options
	log      *slog.Logger
	metrics  *metricSet
	streams  []*runner
	listener net.Listener // nil: no HTTP

	mu       sync.Mutex
	follower *registry.Follower
}

// New checks options and opens the HTTP listener, so that a taken port is known before anything is consumed.
func New(d Deps, o Options) (*Server, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	if d.Log == nil {
		d.Log = slog.Default()
	}
	s := &Server{deps: d, o: o, log: d.Log, metrics: newMetricSet()}
	for i := range o.Streams {
		s.streams = append(s.streams, newRunner(s, &o.Streams[i]))
	}
	s.metrics.registry.MustRegister(&stateCollector{s})
	if o.HTTP != "" {
		l, err := net.Listen("tcp", o.HTTP)
		if err != nil {
			return nil, &stream.Error{What: "http: the address cannot be listened on: " + err.Error(), Where: o.HTTP, Next: "choose another with --http HOST:PORT", Err: err}
		}
		s.listener = l
	}
	return s, nil
}

// HTTPAddr is the address of /healthz, /readyz and /metrics, "" without a listener.
func (s *Server) HTTPAddr() string {
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}

// Run scores until ctx ends; then it drains, produces, commits, leaves the groups and returns nil. It returns an
// error if a stream cannot begin (a missing topic, a start position that does not fit), or if draining took longer
// than ShutdownTimeout.
func (s *Server) Run(ctx context.Context) error {
	stop, err := Profile(s.log, s.o.Pyroscope)
	if err != nil {
		return err
	}
	defer stop()

	// Models are followed until the last batch is out: the pipelines end before the loaders do.
	serving, ended := context.WithCancel(context.WithoutCancel(ctx))
	var background sync.WaitGroup
	defer background.Wait()
	defer ended()
	if s.listener != nil {
		background.Go(func() { s.serveHTTP(serving) })
	}
	background.Go(func() { s.deps.Client.Watch(serving) })
	background.Go(func() { s.sayCluster(serving) })
	var refs []registry.Ref
	var slots []*slot
	known := map[registry.Ref]bool{}
	for _, r := range s.streams {
		slots = append(slots, r.slot)
		if !known[r.slot.ref] {
			known[r.slot.ref] = true
			refs = append(refs, r.slot.ref)
		}
	}
	follower := s.deps.Registry.Follow(serving, refs...)
	s.mu.Lock()
	s.follower = follower
	s.mu.Unlock()
	gate := make(chan struct{}, loaders())
	for _, l := range slots {
		background.Go(func() { l.load(serving, s.deps.Engine, gate, s.o.RetryMin, s.o.RetryMax) })
	}
	background.Go(func() {
		if err := followModels(serving, follower, slots); err != nil {
			s.log.Error("the model topic is no longer followed; restart to see new models", "error", err)
		}
	})

	streams, streamsCtx := errgroup.WithContext(ctx)
	for _, r := range s.streams {
		streams.Go(func() error {
			err := r.run(streamsCtx)
			r.stopped.Store(err == nil)
			return err
		})
	}
	return streams.Wait()
}

// sayCluster logs what the promise rests on at the brokers: by which rules they keep transactions, and whether they keep models.
func (s *Server) sayCluster(ctx context.Context) {
	if s.o.Delivery == ExactlyOnce {
		p, err := s.deps.Client.TransactionProtocol(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			s.log.Info("the brokers do not say by which protocol they keep transactions", "error", err)
		case p.Unverified != "":
			s.log.Warn("a delayed record may end up in another transaction than its own", "protocol", p.String(), "next", "lapwing doctor")
		default:
			s.log.Info("transactions", "protocol", p.String())
		}
	}
	var setting interface{ Hint() string }
	if err := s.deps.Registry.Check(ctx); errors.As(err, &setting) {
		s.log.Warn("the model topic is set wrongly", "error", err, "next", setting.Hint())
	}
}

func (s *Server) followState() registry.FollowState {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.follower == nil {
		return registry.FollowState{}
	}
	return s.follower.State()
}

// Status is what a server says about itself, from kept state.
type Status struct {
	Ready   bool           `json:"ready"`
	Streams []StreamStatus `json:"streams"`

	Device *kernels.DeviceStatus `json:"device,omitempty"` // of an engine that has one of its own
}

// StreamStatus is the part of one stream.
type StreamStatus struct {
	Stream  string   `json:"stream"` // name of the scores topic
	Topics  []string `json:"topics"`
	Model   string   `json:"model"` // NAME@ALIAS
	Ready   bool     `json:"ready"`
	Missing []string `json:"missing,omitempty"` // what it waits for

	Version  int            `json:"version"` // of the live model, 0 = none
	Versions []VersionState `json:"versions,omitempty"`
	Swaps    int64          `json:"swaps"`

	RecordsIn  int64            `json:"records_in"`  // taken; without those read again to rebuild alert counts
	RecordsOut int64            `json:"records_out"` // scores
	Bad        int64            `json:"bad"`         // dead letters
	BadBy      map[string]int64 `json:"bad_by,omitempty"`
	Tombstones int64            `json:"tombstones"`
	LeftOut    int64            `json:"left_out,omitempty"` // by the stream's filter
	Anomalies  int64            `json:"anomalies"`
	Alerts     int64            `json:"alerts"` // raised
	Lost       int64            `json:"lost"`   // offsets deleted by retention before they were read
	Restarts   int64            `json:"restarts"`
	Lag        int64            `json:"lag"` // readable records not yet read; -1 = not known
	Partitions int              `json:"partitions"`
	Saturation float64          `json:"saturation"` // 0 to 1

	P50      float64       `json:"p50_ms"` // latency from read to handed to the producer (exactly_once: to committed), since the start
	P99      float64       `json:"p99_ms"`
	Latency  LatencyCounts `json:"-"`
	Consumes bool          `json:"in_group"`
}

// Status answers from kept state, without asking the broker.
func (s *Server) Status() Status {
	follow := s.followState()
	st := Status{Ready: len(s.streams) > 0}
	for _, r := range s.streams {
		one := r.status(follow)
		st.Ready = st.Ready && one.Ready
		st.Streams = append(st.Streams, one)
	}
	if device, ok := s.deps.Engine.(kernels.OnDevice); ok {
		d := device.DeviceStatus()
		st.Device = &d
	}
	return st
}

func milliseconds(c LatencyCounts, p float64) float64 {
	return float64(c.Quantile(p).Microseconds()) / 1000
}

// drainError says what was given up at a stop that took too long.
func drainError(name string, records int64, why error) error {
	return &stream.Error{
		What:  fmt.Sprintf("shutdown: stream %s was not drained in time: %v", name, why),
		Where: fmt.Sprintf("%d records read and not committed; the next start reads them again, so their scores may come twice", records),
		Next:  "raise shutdown_timeout, or see why the broker does not answer", Err: why,
	}
}

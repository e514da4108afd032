package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

// liveModel is everything that scoring by one version needs, in one immutable object: whoever holds the pointer
// has a program, a decoder, a threshold and a version that belong together. A batch is done by the one it began with.
type liveModel struct {
	ref      registry.Ref
	version  int
	manifest registry.Manifest
	model    *model.Model
	scorer   kernels.Scorer
	decoder  *events.Decoder // to be cloned: a decoder is for one goroutine
	width    int
	columns  []columnRange
	usual    []*model.Range // by field; nil where the model does not say
	digits   int
	bytes    int                       // of the file
	keyOf    func(value []byte) []byte // key of a record that has none; valid until the next call; nil = no field stands for it
	since    time.Time                 // when it began to serve
}

// key is the record's key, or the field that stands for it.
func (l *liveModel) key(r *stream.Record) []byte {
	if r.Key != nil || l.keyOf == nil {
		return r.Key
	}
	return l.keyOf(r.Value)
}

// modelNeeds is what a stream demands of a model beyond being sound.
type modelNeeds struct{ format, time, key string }

// loadModel makes a model ready to score: decoded, compiled for the engine, held to its own self-test on this
// machine, and run once, so that the first batch finds its buffers touched (CASES 6.03).
func loadModel(engine kernels.Engine, data []byte, needs modelNeeds) (*liveModel, error) {
	m, err := model.Decode(data)
	if err != nil {
		return nil, err
	}
	if needs.format != "" && m.Spec.Format != needs.format {
		return nil, fmt.Errorf("its records are %s, the stream's input is declared as %s", m.Spec.Format, needs.format)
	}
	if needs.time != "" && (m.Spec.Time == nil || m.Spec.Time.Field != needs.time) {
		return nil, fmt.Errorf("it does not take the time from field %q, as the stream says", needs.time)
	}
	decoder, err := events.Compile(m.Spec)
	if err != nil {
		return nil, err
	}
	if decoder.Columns() != m.Program.Width {
		return nil, fmt.Errorf("its feature spec makes %d columns, its program takes %d", decoder.Columns(), m.Program.Width)
	}
	scorer, err := engine.Scorer(m.Program)
	if err != nil {
		return nil, err
	}
	if err := verify(engine, m, scorer); err != nil {
		return nil, err
	}
	if err := warm(m, scorer); err != nil {
		return nil, err
	}
	l := &liveModel{
		model: m, scorer: scorer, decoder: decoder, width: m.Program.Width,
		columns: columnRanges(&m.Spec), digits: percentDigits(m.Lineage.Rows.Used), bytes: len(data),
	}
	for i := range m.Spec.Fields {
		var usual *model.Range
		if r, ok := m.Lineage.Usual[m.Spec.Fields[i].Name]; ok {
			usual = &r
		}
		l.usual = append(l.usual, usual)
	}
	if needs.key == "" {
		needs.key = m.Spec.Key
	}
	if needs.key != "" {
		text, err := events.TextReader(m.Spec, needs.key)
		if err != nil {
			return nil, err
		}
		l.keyOf = func(value []byte) []byte {
			if key, ok := text(value); ok {
				return key
			}
			return nil
		}
	}
	return l, nil
}

func verify(engine kernels.Engine, m *model.Model, scorer kernels.Scorer) error {
	return m.Verify(scorer, m.Lineage.Engine == engine.Name()+"/"+engine.Level())
}

// warmRows is how many rows the first scoring of a model has: enough for an engine to touch every buffer.
const warmRows = 256

func warm(m *model.Model, scorer kernels.Scorer) error {
	var rows []float32
	for i := range warmRows {
		rows = append(rows, m.SelfTest.Rows[i%len(m.SelfTest.Rows)]...)
	}
	return scorer.Score(rows, kernels.Output{
		Score: make([]float32, warmRows), Contributions: make([]float32, len(rows)), Reconstruction: make([]float32, len(rows)),
	})
}

// modelState is what a stream says about one version.
type modelState string

const (
	ModelLoading   modelState = "loading"
	ModelWaiting   modelState = "waiting" // for memory of the engine's device
	ModelLive      modelState = "live"
	ModelReplaced  modelState = "replaced"
	ModelRefused   modelState = "refused"
	ModelOvertaken modelState = "overtaken"
)

// VersionState is one version as a stream has met it.
type VersionState struct {
	Version int        `json:"version"`
	State   modelState `json:"state"`
	Reason  string     `json:"reason,omitempty"` // of refused and waiting
}

// keptStates bounds the list of versions met: a server may live through thousands of them.
const keptStates = 16

// slot is where a stream finds its model.
type slot struct {
	ref     registry.Ref
	needs   modelNeeds
	log     *slog.Logger
	metrics *streamMetrics

	live    atomic.Pointer[liveModel]
	loading atomic.Pointer[loading] // nil while nothing loads
	first   chan struct{}           // closed once live is set
	lost    chan struct{}           // closed once a load found the engine's device lost

	mail      chan registry.Change // capacity 1: a change not yet begun is replaced by a newer one
	loaded    loaded               // the loader's own
	postponed int                  // the loader's own: the version that was said to wait for memory

	mu     sync.Mutex
	states []VersionState // newest last
}

// loading is a version that is on its way to be live.
type loading struct {
	version int
	since   time.Time
}

func newSlot(o *StreamOptions, log *slog.Logger, metrics *streamMetrics) *slot {
	return &slot{
		ref: o.ref(), needs: modelNeeds{format: o.Format, time: o.Time, key: o.Key}, log: log, metrics: metrics,
		first: make(chan struct{}), lost: make(chan struct{}), mail: make(chan registry.Change, 1),
	}
}

// post hands a change to the loader and never waits: it is called by one goroutine, and what still lies there is older.
func (s *slot) post(c registry.Change) {
	select {
	case old := <-s.mail:
		s.note(versionOf(&old), ModelOvertaken, "")
	default:
	}
	s.mail <- c
}

// load loads what is posted until ctx ends. What the engine's device has no memory for is tried again, after least at first and
// after most at last, until there is some or something newer is posted. gate bounds the loads that run at the same time.
func (s *slot) load(ctx context.Context, engine kernels.Engine, gate chan struct{}, least, most time.Duration) {
	var c registry.Change
	var again <-chan time.Time // nil while c does not wait
	wait := least
	for {
		select {
		case <-ctx.Done():
			return
		case <-again:
		case newer := <-s.mail:
			if again != nil {
				s.note(versionOf(&c), ModelOvertaken, "")
			}
			c, wait = newer, least
		}
		select {
		case gate <- struct{}{}:
		case <-ctx.Done():
			return
		}
		again = nil
		labels := pprof.Labels(labelStage, stageLoad, labelModel, c.Ref.Name, labelVersion, strconv.Itoa(versionOf(&c)))
		pprof.Do(ctx, labels, func(context.Context) {
			if s.take(engine, c, c.Overtaken) {
				again, wait = time.After(wait), min(2*wait, most)
			}
		})
		if again == nil {
			tidy(&c)
		} else {
			runtime.GC() // a scorer that came as far as its self-test gives its device memory back only when it is collected
		}
		<-gate
	}
}

// largeModel is from where on a load is worth a collection of its own.
const largeModel = 1 << 20

// tidy gives back what a load leaves behind, several times the model's size: file, graph, the model before. Left to the
// collector's pace it would set a new peak of resident memory now and then.
func tidy(c *registry.Change) {
	large := len(c.Data) >= largeModel
	c.Data = nil
	if large {
		debug.FreeOSMemory()
	}
}

// versionOf is the version that a change is about; where its model could not be had, there is no manifest to say so.
func versionOf(c *registry.Change) int {
	return cmp.Or(c.Manifest.Version, c.Alias.Version, c.Ref.Version)
}

// take loads one change and swaps, or says why not. The old model serves on meanwhile. It returns whether the same may do better
// later.
func (s *slot) take(engine kernels.Engine, c registry.Change, overtaken func() bool) (again bool) {
	version := versionOf(&c)
	switch {
	case c.Gone:
		s.log.Warn("the model was deleted; the last one goes on", "model", c.Ref.String())
		return false
	case c.Err != nil:
		s.refuse(version, c.Err)
		return false
	case overtaken():
		s.note(version, ModelOvertaken, "")
		return false
	}
	if l := s.live.Load(); l != nil && l.manifest.Digest == c.Manifest.Digest && l.version == version {
		return false
	}
	s.note(version, ModelLoading, "")
	began := time.Now()
	s.loading.Store(&loading{version, began})
	defer s.loading.Store(nil)
	l, err := s.ready(engine, &c)
	switch {
	case err != nil && lostDevice(engine) != "":
		s.note(version, ModelWaiting, err.Error()) // the model is not to blame
		select {
		case <-s.lost:
		default:
			close(s.lost)
		}
		return false
	case errors.Is(err, kernels.ErrOutOfMemory):
		s.postpone(version, err)
		return true
	case err != nil:
		s.refuse(version, err)
		return false
	}
	if overtaken() {
		s.note(version, ModelOvertaken, "")
		s.log.Info("a newer model was published during the load; this one is dropped", "model", c.Manifest.String())
		return false
	}
	l.ref, l.version, l.manifest, l.since = c.Ref, version, c.Manifest, time.Now()
	s.loaded.add(l)
	old := s.live.Swap(l)
	took := time.Since(began)
	s.metrics.swapSeconds.Observe(took.Seconds())
	s.note(version, ModelLive, "")
	if old == nil {
		close(s.first)
		s.log.Info("model is live", "model", c.Manifest.String(), "load_ms", float64(took.Microseconds())/1000)
		return false
	}
	s.note(old.version, ModelReplaced, "")
	s.metrics.swaps.Inc()
	asked := c.Manifest.Created
	if c.Alias.When.After(asked) {
		asked = c.Alias.When
	}
	delay := max(0, time.Since(asked))
	s.metrics.swapped.Add(1)
	s.metrics.publishToSwap.Observe(delay.Seconds())
	s.log.Info("model swapped", "model", c.Manifest.String(), "before", old.version, "load_ms", float64(took.Microseconds())/1000, "after_publish_ms", delay.Milliseconds())
	return false
}

// ready gives a model that can go live, of its own even if its parts were loaded before. The self-test is run in either case: it
// takes microseconds, and a device may have gone bad since.
func (s *slot) ready(engine kernels.Engine, c *registry.Change) (*liveModel, error) {
	known := s.loaded.find(c.Manifest.Digest)
	if known == nil {
		return loadModel(engine, c.Data, s.needs)
	}
	if err := verify(engine, known.model, known.scorer); err != nil {
		s.loaded.drop(c.Manifest.Digest)
		return nil, err
	}
	l := *known
	return &l, nil
}

// postpone says once of a version that it has to wait.
func (s *slot) postpone(version int, err error) {
	s.note(version, ModelWaiting, err.Error())
	if s.postponed == version {
		return
	}
	s.postponed = version
	serving := "records wait"
	if l := s.live.Load(); l != nil {
		serving = fmt.Sprintf("version %d goes on", l.version)
	}
	s.log.Warn("the GPU has no memory for the model, which is tried again until there is some; "+serving, "model", s.named(version), "reason", err)
}

func (s *slot) refuse(version int, err error) {
	s.metrics.refused.Inc()
	s.note(version, ModelRefused, err.Error())
	serving := "records wait for a good one"
	if l := s.live.Load(); l != nil {
		serving = fmt.Sprintf("version %d goes on", l.version)
	}
	s.log.Error("model refused; "+serving, "model", s.named(version), "reason", err)
}

// named is the model as logs call it: by its version, and by its alias where none is known.
func (s *slot) named(version int) string {
	if version == 0 {
		return s.ref.String()
	}
	return registry.Ref{Name: s.ref.Name, Version: version}.String()
}

func (s *slot) note(version int, state modelState, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.states = slices.DeleteFunc(s.states, func(v VersionState) bool { return v.Version == version })
	s.states = append(s.states, VersionState{version, state, reason})
	if len(s.states) > keptStates {
		s.states = slices.Delete(s.states, 0, len(s.states)-keptStates)
	}
}

func (s *slot) versions() []VersionState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.states)
}

// missing says why there is no model, "" where there is one.
func (s *slot) missing(follow registry.FollowState) string {
	if s.live.Load() != nil {
		return ""
	}
	why := ""
	for _, v := range s.versions() {
		switch v.State {
		case ModelRefused:
			why = fmt.Sprintf(": version %d was refused: %s", v.Version, v.Reason)
		case ModelWaiting:
			why = fmt.Sprintf(": version %d waits for the GPU: %s", v.Version, v.Reason)
		case ModelLoading:
			why = fmt.Sprintf(": version %d is loading", v.Version)
		}
	}
	if why == "" {
		switch {
		case follow.Problem != "":
			why = ": the model topic cannot be read: " + follow.Problem
		case !follow.CaughtUp:
			why = ": the model topic is being read"
		}
	}
	return fmt.Sprintf("no live model for %s yet%s", s.ref, why)
}

// followModels reports changes to the slots that want them, until ctx ends.
func followModels(ctx context.Context, f *registry.Follower, slots []*slot) error {
	for {
		c, err := f.Next(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		for _, s := range slots {
			if s.ref == c.Ref {
				s.post(c)
			}
		}
	}
}

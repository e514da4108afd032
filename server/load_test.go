package server

import (
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
)

// watchedEngine is the real engine, whose scorers are counted and whose self-tests can be held up: the first scoring of
// a scorer is its model's self-test.
type watchedEngine struct {
	kernels.Engine
	mu      sync.Mutex
	scorers []*watchedScorer
	slow    chan struct{} // self-tests of scorers made from now on wait until it is closed; nil = none waits
	begun   chan struct{} // a self-test waits
}

func (e *watchedEngine) Scorer(p *kernels.Program) (kernels.Scorer, error) {
	inner, err := e.Engine.Scorer(p)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	s := &watchedScorer{Scorer: inner, width: p.Width, slow: e.slow, begun: e.begun}
	e.scorers = append(e.scorers, s)
	return s, nil
}

// hold makes loads from now on wait, and returns what tells that one does, and what lets it go.
func (e *watchedEngine) hold() (begun <-chan struct{}, release func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.slow, e.begun = make(chan struct{}), make(chan struct{}, 1)
	return e.begun, sync.OnceFunc(func() { close(e.slow) })
}

func (e *watchedEngine) calls(i int) []int {
	e.mu.Lock()
	s := e.scorers[i]
	e.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]int(nil), s.rows...)
}

type watchedScorer struct {
	kernels.Scorer
	width       int
	slow, begun chan struct{}
	mu          sync.Mutex
	rows        []int // of each call
}

func (s *watchedScorer) Score(rows []float32, out kernels.Output) error {
	s.mu.Lock()
	s.rows = append(s.rows, len(rows)/s.width)
	first := len(s.rows) == 1
	s.mu.Unlock()
	if first && s.slow != nil {
		s.begun <- struct{}{}
		<-s.slow
	}
	return s.Scorer.Score(rows, out)
}

// TestFirstRecordsAfterASwap_Case6_03: a version that takes over has been held to its self-test and has scored a batch of
// warmRows rows with every output, so that nothing of it is initialised by the first record. `lapwing bench swap` measures it.
func TestFirstRecordsAfterASwap_Case6_03(t *testing.T) {
	b := newBed(t)
	e := &watchedEngine{Engine: cpu.New()}
	b.engine = e
	b.topic("cars", 1)
	b.publish("cars", testModel(t, plainSpec, scaleOf(1), 5), "live")
	s := b.serve(oneStream("cars"))
	s.ready()
	const versions = 4
	for v := 1; v <= versions; v++ {
		if v > 1 {
			b.publish("cars", testModel(t, plainSpec, scaleOf(v), 5), "live")
			await(t, "the swap", func() bool { return s.Status().Streams[0].Version == v })
		}
		// Nobody has sent it a record yet.
		calls := e.calls(v - 1)
		if len(calls) < 2 || calls[len(calls)-1] != warmRows || calls[0] == 0 {
			t.Errorf("version %d is live after calls of %v rows; want a self-test, then one of %d", v, calls, warmRows)
		}
		b.produce(b.events("cars", 1, 10*v, 10)...)
		s.settled(int64(10 * v))
		if after := e.calls(v - 1); len(after) <= len(calls) {
			t.Errorf("version %d did not score what came after its swap", v)
		}
	}
	s.stop()
}

// TestSlowVerification: while a version is held up in its self-test, the one before it goes on scoring, another
// stream's model is not slowed, readiness stays, and status and metrics name what is loading: cases 6.04 and 6.05. What
// loads at the same time is bounded by loaders; `lapwing bench swap` measures what it costs.
func TestSlowVerification(t *testing.T) {
	b := newBed(t)
	e := &watchedEngine{Engine: cpu.New()}
	b.engine = e
	b.topic("cars", 1)
	b.topic("pumps", 1)
	b.publish("cars", testModel(t, plainSpec, scaleOf(1), 5), "live")
	b.publish("pumps", testModel(t, plainSpec, scaleOf(1), 5), "live")
	o := oneStream("cars")
	o.Streams = append(o.Streams, StreamOptions{Model: "pumps", Topics: []string{"pumps"}})
	s := b.serve(o)
	s.ready()
	begun, release := e.hold()
	defer release()
	b.publish("pumps", testModel(t, plainSpec, scaleOf(2), 5), "live")
	<-begun

	metric := func(name string) string {
		_, text := s.scrape()
		m := regexp.MustCompile(`(?m)^` + name + `\{model="pumps",stream="pumps.scores"\} (\S+)$`).FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("no %s in\n%s", name, text)
		}
		return m[1]
	}
	if v, took := metric("lapwing_model_loading_version"), metric("lapwing_model_loading_seconds"); v != "2" || took == "0" {
		t.Errorf("version %s has been loading for %s s", v, took)
	}
	n := 300
	b.produce(b.events("cars", 1, 0, n)...)
	b.produce(b.events("pumps", 1, 0, n)...)
	await(t, "both streams score on", func() bool {
		st := s.Status().Streams
		return st[0].RecordsOut == int64(n) && st[1].RecordsOut == int64(n)
	})
	if code, body := s.get("/readyz"); code != http.StatusOK {
		t.Errorf("readiness is gone during a load: %d %s", code, body)
	}
	states := s.Status().Streams[1].Versions
	if last := states[len(states)-1]; last.Version != 2 || last.State != ModelLoading {
		t.Errorf("versions: %+v", states)
	}
	if s.Status().Streams[1].Version != 1 {
		t.Error("the version that is held up is live")
	}

	release()
	await(t, "the swap", func() bool { return s.Status().Streams[1].Version == 2 })
	b.produce(b.events("pumps", 1, n, 10)...)
	await(t, "the new version scores", func() bool { return s.Status().Streams[1].RecordsOut == int64(n+10) })
	await(t, "nothing loads any more", func() bool {
		return metric("lapwing_model_loading_version") == "0" && metric("lapwing_model_loading_seconds") == "0"
	})
	s.stop()
	for i, x := range b.scores("pumps.scores") {
		if want := 1 + i/n; x.Version != want {
			t.Fatalf("record %d was scored by version %d, want %d: %s", i, x.Version, want, strings.TrimSpace(string(x.raw.Value)))
		}
	}
}

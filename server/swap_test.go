package server

import (
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

// scaleOf is the scale of version v in the tests of swapping: the score of a row tells who scored it.
func scaleOf(v int) float32 { return 1 + float32(v)/64 }

// TestHotSwap_Case6_01: versions are published while records flow. Each record is scored once, by the version that
// its output names and no mixture, and no partition sees versions go backwards.
func TestHotSwap_Case6_01(t *testing.T) { eachDelivery(t, hotSwap) }

func hotSwap(t *testing.T, b *bed) {
	const versions = 5
	b.topic("cars", 3)
	b.publish("cars", testModel(t, plainSpec, scaleOf(1), 5), "live")
	o := oneStream("cars")
	o.MaxBatch = 64
	s := b.serve(o)
	s.ready()
	n := 0
	for v := 1; v <= versions; v++ {
		if v > 1 {
			b.publish("cars", testModel(t, plainSpec, scaleOf(v), 5), "live")
		}
		for s.Status().Streams[0].Version < v {
			b.produce(b.events("cars", 3, n, 200)...)
			n += 200
		}
		b.produce(b.events("cars", 3, n, 200)...)
		n += 200
	}
	s.settled(int64(n))
	s.stop()
	if d := b.audit([]string{"cars"}, "cars.scores", "cars.dlq"); len(d) > 0 {
		t.Errorf("%d records came more than once", len(d))
	}
	last := map[int32]int{}
	by := map[int]int{}
	for _, x := range b.scores("cars.scores") {
		i := int(x.raw.Timestamp.UnixMilli()-1_795_615_200_000) / 1000
		value := float64(i%7) / 2
		if i%10 == 9 {
			value = 30
		}
		want := float64(scaleOf(x.Version)) * math.Hypot(value, 1)
		if x.Score == nil || math.Abs(float64(*x.Score)-want) > 1e-5*want {
			t.Fatalf("record %d says version %d, whose score would be %v: %s", i, x.Version, want, x.raw.Value)
		}
		if x.Version < last[x.Partition] {
			t.Fatalf("partition %d: version %d after %d", x.Partition, x.Version, last[x.Partition])
		}
		last[x.Partition] = x.Version
		by[x.Version]++
	}
	if by[1] == 0 || by[versions] == 0 {
		t.Errorf("by version: %v", by)
	}
	if st := s.Status().Streams[0]; st.Swaps != int64(len(by)-1) && st.Swaps != versions-1 {
		t.Errorf("%d swaps for %d versions", st.Swaps, versions)
	}
}

// TestSwapMemory_Case6_02: many versions leave neither memory nor goroutines behind.
func TestSwapMemory_Case6_02(t *testing.T) {
	wide := model.Spec{Format: "json"}
	for i := range 60 {
		wide.Fields = append(wide.Fields, model.Field{Name: fmt.Sprint("f", i), Type: model.Number})
	}
	data := [2][]byte{testModel(t, wide, 1, 5), testModel(t, wide, 2, 5)}
	s := newSlot(&StreamOptions{Model: "cars", Alias: "live"}, slog.New(&logBook{}), newMetricSet().stream("cars.scores"))
	var before, after runtime.MemStats
	goroutines := 0
	const rounds = 120
	for v := 1; v <= rounds; v++ {
		m := registry.Manifest{Name: "cars", Version: v, Digest: fmt.Sprint(v)}
		s.take(cpu.New(), registry.Change{Ref: s.ref, Manifest: m, Data: data[v%2]}, func() bool { return false })
		if v == rounds/2 {
			runtime.GC()
			runtime.ReadMemStats(&before)
			goroutines = runtime.NumGoroutine()
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if got := s.live.Load().version; got != rounds {
		t.Fatalf("version %d is live, want %d", got, rounds)
	}
	if len(s.versions()) > keptStates {
		t.Errorf("%d versions are remembered, at most %d should be", len(s.versions()), keptStates)
	}
	if after.HeapAlloc > before.HeapAlloc+before.HeapAlloc/20+1<<20 {
		t.Errorf("heap grew from %d to %d bytes over %d swaps", before.HeapAlloc, after.HeapAlloc, rounds/2)
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("goroutines grew from %d to %d", goroutines, n)
	}
}

// TestOvertakenLoad: a load that a newer one overtakes is dropped, whatever it would have been.
func TestOvertakenLoad(t *testing.T) {
	s := newSlot(&StreamOptions{Model: "cars", Alias: "live"}, slog.New(&logBook{}), newMetricSet().stream("cars.scores"))
	change := func(v int) registry.Change {
		return registry.Change{Ref: s.ref, Manifest: registry.Manifest{Name: "cars", Version: v, Digest: fmt.Sprint(v)}, Data: testModel(t, plainSpec, 1, 5)}
	}
	s.take(cpu.New(), change(1), func() bool { return false })
	asked := 0
	s.take(cpu.New(), change(2), func() bool { asked++; return asked > 1 }) // overtaken during the load
	s.take(cpu.New(), change(3), func() bool { return true })               // before it
	if got := s.live.Load().version; got != 1 {
		t.Errorf("version %d is live, want 1", got)
	}
	for _, v := range s.versions() {
		if (v.Version > 1) != (v.State == ModelOvertaken) {
			t.Errorf("version %d is %s", v.Version, v.State)
		}
	}
	s.post(change(4))
	s.post(change(5)) // nobody has begun 4
	if c := <-s.mail; c.Manifest.Version != 5 {
		t.Errorf("version %d is loaded next, want 5", c.Manifest.Version)
	}
}

// TestMovingBackLoadsNothing: of versions that take turns each is compiled once, self-tested every time, and says its own number.
func TestMovingBackLoadsNothing(t *testing.T) {
	s := newSlot(&StreamOptions{Model: "cars", Alias: "live"}, slog.New(&logBook{}), newMetricSet().stream("cars.scores"))
	engine := &countingEngine{Engine: cpu.New()}
	data := map[string][]byte{}
	for _, digest := range []string{"a", "b", "c"} {
		data[digest] = testModel(t, plainSpec, scaleOf(int(digest[0])), 5)
	}
	take := func(version int, digest string) *liveModel {
		m := registry.Manifest{Name: "cars", Version: version, Digest: digest}
		s.take(engine, registry.Change{Ref: s.ref, Manifest: m, Data: data[digest]}, func() bool { return false })
		return s.live.Load()
	}
	for i, step := range []struct {
		version  int
		digest   string
		compiled int
	}{
		{1, "a", 1}, {2, "b", 2}, {1, "a", 2}, {2, "b", 2}, {1, "a", 2},
		{3, "a", 2},              // the same bytes under another number
		{4, "c", 3}, {3, "a", 3}, // b was longest unused
		{2, "b", 4},
	} {
		before := s.live.Load()
		tests := engine.calls
		l := take(step.version, step.digest)
		if l.version != step.version || l.manifest.Digest != step.digest || l == before {
			t.Fatalf("step %d: version %d, digest %s; want %+v", i, l.version, l.manifest.Digest, step)
		}
		if engine.compiled != step.compiled || engine.calls == tests {
			t.Fatalf("step %d: %d models compiled, %d calls; want %d and a self-test", i, engine.compiled, engine.calls-tests, step.compiled)
		}
		got := make([]float32, 1)
		if err := l.scorer.Score([]float32{3, 4}, kernels.Output{Score: got}); err != nil {
			t.Fatal(err)
		}
		if want := 5 * scaleOf(int(step.digest[0])); math.Abs(float64(got[0]-want)) > 1e-5 {
			t.Fatalf("step %d: score %v, want %v", i, got[0], want)
		}
		if len(s.loaded.models) > loadedMost {
			t.Fatalf("step %d: %d models are kept", i, len(s.loaded.models))
		}
	}
	engine.wrong = true // the device has gone bad
	if l := take(3, "a"); l.version != 2 || s.loaded.find("a") != nil {
		t.Errorf("version %d is live though it fails its self-test now", l.version)
	}
	l := &loaded{}
	l.add(&liveModel{bytes: loadedBytes / 2, manifest: registry.Manifest{Digest: "a"}})
	l.add(&liveModel{bytes: loadedBytes + 1, manifest: registry.Manifest{Digest: "b"}})
	if l.find("b") != nil || l.find("a") == nil {
		t.Error("a model larger than all that may be kept took another's place")
	}
	l.add(&liveModel{bytes: loadedBytes, manifest: registry.Manifest{Digest: "c"}})
	if l.find("a") != nil || l.find("c") == nil {
		t.Error("more bytes are kept than may be")
	}
}

// countingEngine counts compilations and calls, and scores wrongly on demand: the real engine, but for when.
type countingEngine struct {
	kernels.Engine
	compiled, calls int
	wrong           bool
}

func (e *countingEngine) Scorer(p *kernels.Program) (kernels.Scorer, error) {
	e.compiled++
	inner, err := e.Engine.Scorer(p)
	return &countingScorer{inner, e}, err
}

type countingScorer struct {
	kernels.Scorer
	e *countingEngine
}

func (s *countingScorer) Score(rows []float32, out kernels.Output) error {
	s.e.calls++
	err := s.Scorer.Score(rows, out)
	if s.e.wrong {
		out.Score[0]++
	}
	return err
}

// TestRefusedModel: a version that is no model, or does not reproduce its self-test, changes nothing; the one after
// it is taken.
func TestRefusedModel(t *testing.T) {
	b := newBed(t)
	b.topic("cars", 1)
	b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
	s := b.serve(oneStream("cars"))
	s.ready()
	refused := func(version int) func() bool {
		return func() bool {
			for _, v := range s.Status().Streams[0].Versions {
				if v.Version == version && v.State == ModelRefused && v.Reason != "" {
					return true
				}
			}
			return false
		}
	}
	b.publish("cars", []byte("no model at all"), "live")
	await(t, "version 2 refused", refused(2))
	if !strings.Contains(b.log.all(), "model=cars/2") {
		t.Errorf("the refusal does not name cars/2:\n%s", b.log.all())
	}
	b.publish("cars", testModel(t, plainSpec, 1, 5, func(m *model.Model) { m.SelfTest.Scores[0] += .1 }), "live")
	await(t, "version 3 refused", refused(3))
	if !s.Status().Ready {
		t.Error("not ready, though version 1 is live")
	}
	b.produce(b.events("cars", 1, 0, 10)...)
	s.settled(10)
	b.publish("cars", testModel(t, plainSpec, 2, 5), "live")
	await(t, "version 4 live", func() bool { return s.Status().Streams[0].Version == 4 })
	b.produce(b.events("cars", 1, 10, 10)...)
	s.settled(20)
	s.stop()
	if n := b.log.count("load_ms="); n < 2 {
		t.Errorf("%d lines tell in milliseconds what a load took", n)
	}
	for i, x := range b.scores("cars.scores") {
		if want := 1 + 3*(i/10); x.Version != want {
			t.Errorf("record %d by version %d, want %d", i, x.Version, want)
		}
	}
	if _, body := s.scrape(); !strings.Contains(body, `lapwing_models_refused_total{stream="cars.scores"} 2`) {
		t.Errorf("refusals are not counted:\n%s", body)
	}
}

// TestOnlyBrokenModel_Case6_06: the first version is broken: not ready, and the body says which and why.
func TestOnlyBrokenModel_Case6_06(t *testing.T) {
	b := newBed(t)
	b.topic("cars", 1)
	b.topic("trucks", 1)
	b.publish("cars", []byte("broken"), "live")
	b.publish("trucks", testModel(t, plainSpec, 1, 5), "live")
	o := oneStream("cars")
	o.Streams = append(o.Streams, StreamOptions{Model: "trucks", Topics: []string{"trucks"}})
	s := b.serve(o)
	await(t, "one of two ready", func() bool { st := s.Status(); return st.Streams[1].Ready && len(st.Streams[0].Versions) > 0 })
	code, body := s.get("/readyz")
	if code != 503 || !strings.Contains(body, "no live model for cars@live yet: version 1 was refused") || strings.Contains(body, "trucks@live yet") {
		t.Errorf("readyz %d: %s", code, body)
	}
	if s.Status().Ready {
		t.Error("ready with one of two models")
	}
}

// TestRollback_Case6_16: an alias that was moved back stays there over restarts and over versions without the alias.
func TestRollback_Case6_16(t *testing.T) {
	b := newBed(t)
	b.topic("cars", 1)
	for v := 1; v <= 3; v++ {
		b.publish("cars", testModel(t, plainSpec, scaleOf(v), 5), "live")
	}
	s := b.serve(oneStream("cars"))
	await(t, "version 3", func() bool { return s.Status().Streams[0].Version == 3 })
	if _, err := b.registry.Move(t.Context(), "cars", "live", 2, -1, "tester", "3 alarms too much"); err != nil {
		t.Fatal(err)
	}
	await(t, "version 2", func() bool { return s.Status().Streams[0].Version == 2 })
	b.produce(b.events("cars", 1, 0, 10)...)
	s.settled(10)
	s.stop()
	s = b.serve(oneStream("cars"))
	s.ready()
	b.publish("cars", testModel(t, plainSpec, scaleOf(4), 5), "")
	b.publish("cars", testModel(t, plainSpec, scaleOf(5), 5), "canary")
	b.produce(b.events("cars", 1, 10, 10)...)
	s.settled(10)
	s.stop()
	s = b.serve(oneStream("cars"))
	b.produce(b.events("cars", 1, 20, 10)...)
	s.settled(10)
	s.stop()
	for i, x := range b.scores("cars.scores") {
		if x.Version != 2 {
			t.Errorf("record %d was scored by version %d, want 2", i, x.Version)
		}
	}
}

// TestAliasBeforeVersion_Case6_17: compaction may leave an alias before or behind the version it means; both orders
// load, and none flaps through old versions.
func TestAliasBeforeVersion_Case6_17(t *testing.T) {
	source := newBed(t)
	for v := 1; v <= 3; v++ {
		source.publish("cars", testModel(t, plainSpec, scaleOf(v), 5), "live")
	}
	var aliases, rest []stream.Record
	for _, r := range source.read(registry.DefaultTopic) {
		record := stream.Record{Topic: registry.DefaultTopic, Key: r.Key, Value: r.Value, Time: -1}
		if strings.Contains(string(r.Key), "@") {
			aliases = append(aliases[:0], record)
		} else {
			rest = append(rest, record)
		}
	}
	for name, order := range map[string][]stream.Record{
		"alias first": append(append([]stream.Record(nil), aliases...), rest...),
		"alias last":  append(append([]stream.Record(nil), rest...), aliases...),
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			b.topic("cars", 1)
			if err := b.registry.EnsureTopic(t.Context()); err != nil {
				t.Fatal(err)
			}
			b.produce(order...)
			b.produce(b.events("cars", 1, 0, 20)...)
			s := b.serve(oneStream("cars"))
			s.settled(20)
			s.stop()
			st := s.Status().Streams[0]
			if st.Version != 3 || st.Swaps != 0 || len(st.Versions) != 1 {
				t.Errorf("version %d after %d swaps, met %+v; want version 3 at once", st.Version, st.Swaps, st.Versions)
			}
		})
	}
	t.Run("alias of a version that is not there", func(t *testing.T) {
		b := newBed(t)
		b.topic("cars", 1)
		if err := b.registry.EnsureTopic(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.produce(slices.DeleteFunc(slices.Clone(rest), func(r stream.Record) bool { return !strings.HasPrefix(string(r.Key), "cars/1") })...)
		b.produce(aliases...)
		s := b.serve(oneStream("cars"))
		await(t, "the refusal, by name", func() bool { return b.log.count("model refused; records wait for a good one model=cars/3") == 1 })
		s.stop()
	})
}

// BenchmarkSwap is what it takes to go live: a version seen for the first time, and one that was live a moment ago.
func BenchmarkSwap(b *testing.B) {
	spec := model.Spec{Format: "json"}
	for i := range 18 {
		spec.Fields = append(spec.Fields, model.Field{Name: fmt.Sprintf("sensor_%02d", i), Type: model.Number})
	}
	data := testModel(b, spec, 1, 100)
	for _, c := range []struct {
		name   string
		digest func(i int) string
	}{{"first", func(i int) string { return fmt.Sprint(i) }}, {"back", func(i int) string { return fmt.Sprint(i % 2) }}} {
		b.Run(c.name, func(b *testing.B) {
			s := newSlot(&StreamOptions{Model: "cars", Alias: "live"}, slog.New(slog.DiscardHandler), newMetricSet().stream("cars.scores"))
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				m := registry.Manifest{Name: "cars", Version: i, Digest: c.digest(i)}
				s.take(cpu.New(), registry.Change{Ref: s.ref, Manifest: m, Data: data}, func() bool { return false })
			}
		})
	}
}

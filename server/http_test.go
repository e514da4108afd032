package server

import (
	"bufio"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lapwing-stream/lapwing/stream"
)

// scrape asks the handler directly: it works after the listener has gone.
func (s *serving) scrape() (int, string) {
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Code, w.Body.String()
}

// TestPublicRoutes_Case8_04: the public port answers these and nothing else.
func TestPublicRoutes_Case8_04(t *testing.T) {
	b := newBed(t)
	b.topic("cars", 1)
	s := b.serve(oneStream("cars"))
	if got, want := slices.Sorted(maps.Keys(s.routes())), []string{"GET /healthz", "GET /metrics", "GET /readyz"}; !slices.Equal(got, want) {
		t.Errorf("routes %v, want %v", got, want)
	}
	for _, path := range []string{"/debug/pprof/heap", "/debug/pprof/", "/debug/vars", "/", "/metrics/x"} {
		if code, _ := s.get(path); code != http.StatusNotFound {
			t.Errorf("%s answers %d, want 404", path, code)
		}
	}
}

// freezer stands before a broker and can stop passing bytes, in either direction, without closing anything.
type freezer struct {
	net.Listener
	frozen atomic.Bool
	thaw   chan struct{}
}

func newFreezer(t *testing.T) *freezer {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return &freezer{Listener: l, thaw: make(chan struct{})}
}

func (f *freezer) pass(to string) (stop func()) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	copyAll := func(dst, src net.Conn) {
		defer dst.Close()
		buf := make([]byte, 64<<10)
		for {
			n, err := src.Read(buf)
			if f.frozen.Load() {
				<-f.thaw
			}
			if n > 0 {
				if _, err := dst.Write(buf[:n]); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}
	wg.Go(func() {
		for {
			in, err := f.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			mu.Lock()
			open = append(open, in, out)
			mu.Unlock()
			wg.Go(func() { copyAll(out, in) })
			wg.Go(func() { copyAll(in, out) })
		}
	})
	return sync.OnceFunc(func() {
		f.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		if f.frozen.Load() {
			close(f.thaw)
		}
		wg.Wait()
	})
}

// TestProbesWhileBrokerIsFrozen_Case8_15: with a broker that accepts and never answers, both probes answer from kept
// state, and the metrics do.
func TestProbesWhileBrokerIsFrozen_Case8_15(t *testing.T) {
	t.Parallel()
	f := newFreezer(t)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listen := free.Addr().String()
	free.Close()
	broker, err := stream.Embed(stream.EmbeddedOptions{Listen: listen, Advertise: f.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { broker.Close() })
	stop := f.pass(listen)
	t.Cleanup(stop)
	b := bedAt(t, f.Addr().String())
	b.topic("cars", 2)
	b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
	o := oneStream("cars")
	o.ShutdownTimeout = 1e9
	s := b.serve(o)
	s.ready()
	f.frozen.Store(true)
	for range 100 {
		if code, _ := s.get("/healthz"); code != 200 {
			t.Fatalf("liveness depends on the broker: %d", code)
		}
		if code, body := s.get("/readyz"); code != 200 && code != 503 || !strings.Contains(body, "cars.scores") {
			t.Fatalf("readyz %d: %s", code, body)
		}
	}
	if code, body := s.get("/metrics"); code != 200 || !strings.Contains(body, "lapwing_ready") {
		t.Errorf("metrics %d", code)
	}
	// CASES 8.12: and the server ends, with nothing in flight, though nobody answers.
	s.cancel()
	<-s.done
}

// TestBrokerOutage: a broker that goes and one that falls silent are told once, make the stream not ready, and need no
// hand when they are back.
func TestBrokerOutage(t *testing.T) { deliveries(t, brokerOutage) }

func brokerOutage(t *testing.T, delivery string) {
	outage := func(t *testing.T, b *bed, away, back func()) {
		b.delivery = delivery
		b.topic("cars", 2)
		b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
		s := b.serve(oneStream("cars"))
		s.ready()
		b.produce(b.events("cars", 2, 0, 20)...)
		s.settled(20)
		away()
		await(t, "not ready", func() bool {
			code, body := s.get("/readyz")
			return code == 503 && strings.Contains(body, "the broker does not answer since ")
		})
		if code, _ := s.get("/healthz"); code != 200 {
			t.Errorf("liveness depends on the broker: %d", code)
		}
		back()
		s.ready()
		b.produce(b.events("cars", 2, 20, 20)...)
		s.settled(40)
		s.stop()
		for _, once := range []string{"WARN broker lost; trying on", "INFO the broker answers again"} {
			if n := b.log.count(once); n != 1 {
				t.Errorf("%d lines of %q:\n%s", n, once, b.log.all())
			}
		}
	}
	t.Run("gone", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		broker, err := stream.Embed(stream.EmbeddedOptions{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { broker.Close() })
		addr := broker.Addr()
		outage(t, bedAt(t, addr), func() { broker.Close() }, func() {
			if broker, err = stream.Embed(stream.EmbeddedOptions{Dir: dir, Listen: addr}); err != nil {
				t.Fatal(err)
			}
		})
	})
	t.Run("silent", func(t *testing.T) {
		t.Parallel()
		free, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listen := free.Addr().String()
		free.Close()
		f := newFreezer(t)
		broker, err := stream.Embed(stream.EmbeddedOptions{Listen: listen, Advertise: f.Addr().String()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { broker.Close() })
		t.Cleanup(f.pass(listen))
		outage(t, bedAt(t, f.Addr().String()), func() { f.frozen.Store(true) }, func() { f.frozen.Store(false); close(f.thaw) })
	})
}

// TestMetricsTable: docs/serve.md lists every metric of ours with its meaning, and none that is not there.
func TestMetricsTable(t *testing.T) {
	b := newBed(t)
	b.engine = &deviceEngine{Engine: b.engine} // with the metrics of a GPU
	b.topic("cars", 1)
	b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
	s := b.serve(oneStream("cars"))
	s.ready()
	records := b.events("cars", 1, 0, 50)
	for i := range 12 {
		records = append(records, event("cars", 0, 5*i, 40, 1))
	}
	records = append(records, stream.Record{Topic: "cars", Value: []byte("{"), Time: -1})
	b.produce(records...)
	s.settled(63)
	b.publish("cars", testModel(t, plainSpec, 2, 5), "live")
	await(t, "the swap", func() bool { return s.Status().Streams[0].Version == 2 })
	await(t, "lag", func() bool { _, body := s.scrape(); return strings.Contains(body, "lapwing_lag_records{") })
	_, body := s.scrape()
	var table strings.Builder
	help := regexp.MustCompile(`(?m)^# HELP (lapwing_\S+) (.*)\n# TYPE \S+ (\S+)$`)
	table.WriteString("| metric | kind | meaning |\n| --- | --- | --- |\n")
	for _, m := range help.FindAllStringSubmatch(body, -1) {
		table.WriteString("| `" + m[1] + "` | " + m[3] + " | " + m[2] + " |\n")
		if !regexp.MustCompile(`_(total|seconds|bytes|records|ratio|version|ready|active|info|lost)$`).MatchString(m[1]) {
			t.Errorf("%s does not end in its unit", m[1])
		}
	}
	const path = "../docs/serve.md"
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	start, end := "<!-- metrics: go test ./server -run TestMetricsTable -update -->\n", "<!-- end of metrics -->"
	before, rest, ok := strings.Cut(string(page), start)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatal("docs/serve.md has lost its marks around the table of metrics")
	}
	if *update {
		if err := os.WriteFile(path, []byte(before+start+table.String()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(table.String(), got); diff != "" {
		t.Errorf("the table of metrics is not that of the code; run the command in the comment above it (-code +page):\n%s", diff)
	}
}

// TestNativeHistograms: a scraper that speaks the protocol's binary form gets the fine buckets.
func TestNativeHistograms(t *testing.T) {
	b := newBed(t)
	b.topic("cars", 1)
	b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
	s := b.serve(oneStream("cars"))
	b.produce(b.events("cars", 1, 0, 50)...)
	s.settled(50)
	families, err := s.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	fine := 0
	for _, f := range families {
		for _, m := range f.Metric {
			if h := m.GetHistogram(); h != nil && h.GetSampleCount() > 0 && strings.HasPrefix(f.GetName(), "lapwing_") {
				if len(h.PositiveSpan) == 0 {
					t.Errorf("%s has no native buckets", f.GetName())
				}
				fine++
			}
		}
	}
	if fine < 4 {
		t.Errorf("%d histograms with samples", fine)
	}
}

// TestLagSeriesEnd_Case6_19: the series of partitions that went to another copy are gone.
func TestLagSeriesEnd_Case6_19(t *testing.T) {
	b := newBed(t)
	b.topic("cars", 8)
	b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
	first := b.serve(oneStream("cars"))
	series := func(s *serving) int { _, body := s.scrape(); return strings.Count(body, "\nlapwing_lag_records{") }
	await(t, "eight series", func() bool { return series(first) == 8 })
	second := b.serve(oneStream("cars"))
	await(t, "four and four", func() bool { return series(first) == 4 && series(second) == 4 })
	second.stop()
	await(t, "eight again", func() bool { return series(first) == 8 })
	if n := series(second); n != 0 {
		t.Errorf("a stopped server shows %d series", n)
	}
}

func TestTakenPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o := oneStream("cars")
	o.HTTP = l.Addr().String()
	if _, err := New(Deps{}, o); err == nil || !strings.Contains(err.Error(), o.HTTP) {
		t.Errorf("got %v, want an error that names the address", err)
	}
}

// Case 6.14, as far as there are routes that take no body: who sends a header for ever is cut off after headerTimeout, and
// more headers than any client has are refused; others are answered meanwhile.
func TestSlowAndGreedyClients_Case6_14(t *testing.T) {
	b := newBed(t)
	b.topic("cars", 1)
	s := b.serve(oneStream("cars"))
	slow, err := net.Dial("tcp", s.HTTPAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	if _, err := slow.Write([]byte("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")); err != nil {
		t.Fatal(err)
	}
	greedy, err := net.Dial("tcp", s.HTTPAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer greedy.Close()
	go func() { // the server answers and closes before it has read all: that write may fail
		_, _ = greedy.Write([]byte("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Greedy: " + strings.Repeat("a", 1<<20) + "\r\n\r\n"))
	}()
	if resp, err := http.ReadResponse(bufio.NewReader(greedy), nil); err != nil || resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("1 MiB of headers: %v, %v; 431 is wanted", resp, err)
	}
	if code, _ := s.get("/healthz"); code != http.StatusOK {
		t.Errorf("another client gets %d meanwhile", code)
	}
	if err := slow.SetReadDeadline(time.Now().Add(headerTimeout + 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	// Go closes without an answer, or says that the request timed out.
	if _, err := io.Copy(io.Discard, slow); err != nil {
		t.Errorf("the slow client was not cut off: %v", err)
	}
}

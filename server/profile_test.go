package server

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/model"
)

// receiver takes what pyroscope pushes and keeps the frames seen under each label.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	frames map[string]bool // "label=value frame"
	err    error
}

func newReceiver(t testing.TB) *receiver {
	r := &receiver{frames: map[string]bool{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if err := r.take(req); err != nil {
			r.mu.Lock()
			r.err = err
			r.mu.Unlock()
		}
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) take(req *http.Request) error {
	f, _, err := req.FormFile("profile")
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	p, err := profile.Parse(bytes.NewReader(data))
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range p.Sample {
		for label, values := range s.Label {
			for _, v := range values {
				for _, l := range s.Location {
					for _, line := range l.Line {
						r.frames[label+"="+v+" "+line.Function.Name] = true
					}
				}
			}
		}
	}
	return nil
}

func (r *receiver) has(label, frame string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for f := range r.frames {
		if l, name, _ := strings.Cut(f, " "); l == label && strings.Contains(name, frame) {
			return true
		}
	}
	return false
}

// TestProfilesCarryLabels: what is pushed while scoring has frames of kernels and events under stage, model and version.
func TestProfilesCarryLabels(t *testing.T) {
	r := newReceiver(t)
	b := newBed(t)
	b.topic("cars", 2)
	// Layers so wide that a sample falls into the kernels now and then, however fast they are.
	b.publish("cars", testModel(t, plainSpec, 1, 5, func(m *model.Model) {
		columns := m.Program.Steps[0].(*kernels.Map).Columns
		m.Program = kernels.Autoencoder(columns, []int{512, 512}, []kernels.Activation{kernels.Tanh, kernels.Tanh})
	}), "live")
	o := oneStream("cars")
	o.Streams[0].Contributions = ContributionsAll
	o.Pyroscope = ProfileOptions{URL: r.URL, Interval: time.Second}
	s := b.serve(o)
	s.ready()
	n := 0
	await(t, "frames of kernels and events under their labels", func() bool {
		b.produce(b.events("cars", 2, n, 10_000)...)
		n += 10_000
		for _, want := range [][2]string{
			{"stage=decode", "lapwing/events."}, {"stage=score", "lapwing/kernels"},
			{"model=cars", "lapwing/events."}, {"model=cars", "lapwing/kernels"},
			{"version=1", "lapwing/events."}, {"version=1", "lapwing/kernels"},
		} {
			if !r.has(want[0], want[1]) {
				return false
			}
		}
		return true
	})
	if r.err != nil {
		t.Errorf("a pushed profile could not be read: %v", r.err)
	}
}

// TestProfilesWithoutReceiver: nobody listens; scoring goes on, and it is said once.
func TestProfilesWithoutReceiver(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	url := gone.URL
	gone.Close()
	log := &logBook{}
	stop, err := Profile(slog.New(log), ProfileOptions{URL: url, Interval: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the word", func() bool { return log.count("profiles cannot be pushed") > 0 })
	stop() // pushes what is left, which fails as well
	if n := log.count("profiles cannot be pushed"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

package server

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Bounds of the HTTP listener: a slow or greedy client costs little and not for long (CASES 6.14).
const (
	headerTimeout  = 5 * time.Second
	requestTimeout = 10 * time.Second
	idleTimeout    = time.Minute
	maxHeaderBytes = 16 << 10
)

// routes is everything that the public port answers. Profiles are not among them (CASES 8.04).
func (s *Server) routes() map[string]http.Handler {
	return map[string]http.Handler{
		"GET /healthz": http.HandlerFunc(s.healthz),
		"GET /readyz":  http.HandlerFunc(s.readyz),
		"GET /metrics": promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{}),
	}
}

// Handler serves /healthz, /readyz and /metrics.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range s.routes() {
		mux.Handle(pattern, h)
	}
	return mux
}

// healthz says that the process answers. It depends on nothing: an orchestrator that restarts healthy processes
// because a broker is slow makes the trouble worse.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte("{\"live\":true}\n"))
}

// readyz is 200 where every stream has a live model, its outputs, and its place in the group; else 503, and the
// body lists what is missing. Answered from kept state: the broker is not asked.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	type one struct {
		Stream  string   `json:"stream"`
		Model   string   `json:"model"`
		Version int      `json:"version"`
		Ready   bool     `json:"ready"`
		Missing []string `json:"missing,omitempty"`
	}
	body := struct {
		Ready   bool  `json:"ready"`
		Streams []one `json:"streams"`
	}{Ready: len(s.streams) > 0}
	follow := s.followState()
	for _, r := range s.streams {
		o := one{Stream: r.o.name(), Model: r.o.ref().String(), Missing: r.missing(follow)}
		o.Ready = len(o.Missing) == 0
		if l := r.slot.live.Load(); l != nil {
			o.Version = l.version
		}
		body.Ready = body.Ready && o.Ready
		body.Streams = append(body.Streams, o)
	}
	w.Header().Set("Content-Type", "application/json")
	if !body.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(body)
}

// serveHTTP answers until ctx ends.
func (s *Server) serveHTTP(ctx context.Context) {
	h := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: headerTimeout, ReadTimeout: requestTimeout, WriteTimeout: requestTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() {
		closing, done := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer done()
		if h.Shutdown(closing) != nil {
			_ = h.Close()
		}
	})
	defer stop()
	if err := h.Serve(s.listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
		s.log.Error("http ended", "address", s.HTTPAddr(), "error", err)
	}
}

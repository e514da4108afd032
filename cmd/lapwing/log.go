package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// newLog makes the process's log: text where somebody looks at a terminal, JSON lines otherwise.
func newLog(w io.Writer, text bool, level slog.Level) *slog.Logger {
	if !text {
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}))
	}
	return slog.New(slog.NewTextHandler(&cleanWriter{w}, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.String(slog.TimeKey, a.Value.Time().Format("15:04:05.000"))
			}
			if a.Value.Kind() == slog.KindDuration {
				return slog.String(a.Key, a.Value.Duration().Round(time.Microsecond).String())
			}
			return a
		},
	}))
}

// lowered turns warnings into debug lines.
type lowered struct{ slog.Handler }

func (l lowered) Enabled(ctx context.Context, level slog.Level) bool {
	return l.Handler.Enabled(ctx, lower(level))
}

func (l lowered) Handle(ctx context.Context, r slog.Record) error {
	r.Level = lower(r.Level)
	return l.Handler.Handle(ctx, r)
}

func (l lowered) WithAttrs(attrs []slog.Attr) slog.Handler {
	return lowered{l.Handler.WithAttrs(attrs)}
}
func (l lowered) WithGroup(name string) slog.Handler { return lowered{l.Handler.WithGroup(name)} }

func lower(level slog.Level) slog.Level {
	if level == slog.LevelWarn {
		return slog.LevelDebug
	}
	return level
}

// cleanWriter passes whole log lines on with control characters made visible: values may come from records.
type cleanWriter struct{ w io.Writer }

func (c *cleanWriter) Write(p []byte) (int, error) {
	line := clean(strings.TrimRight(string(p), "\n"))
	if _, err := fmt.Fprintln(c.w, line); err != nil {
		return 0, err
	}
	return len(p), nil
}

// holder keeps log lines back until it is known how a command begins: a command that fails at once says what,
// where and what next, and nothing else. What was held is written by release, or dropped with the failure.
type holder struct {
	mu   sync.Mutex
	w    io.Writer
	held bytes.Buffer
	open bool
}

// heldMost bounds what is kept back, in bytes; beyond it lines are written after all.
const heldMost = 64 << 10

func (h *holder) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open {
		return h.w.Write(p)
	}
	h.held.Write(p)
	if h.held.Len() > heldMost {
		h.pour()
	}
	return len(p), nil
}

func (h *holder) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pour()
}

func (h *holder) pour() {
	h.open = true
	h.w.Write(h.held.Bytes())
	h.held.Reset()
}

func parseLevel(s string) (slog.Level, error) {
	var l slog.Level
	err := l.UnmarshalText([]byte(s))
	return l, err
}

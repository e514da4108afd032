package main

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
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

// cleanWriter passes whole log lines on with control characters made visible: values may come from records.
type cleanWriter struct{ w io.Writer }

func (c *cleanWriter) Write(p []byte) (int, error) {
	line := clean(strings.TrimRight(string(p), "\n"))
	if _, err := fmt.Fprintln(c.w, line); err != nil {
		return 0, err
	}
	return len(p), nil
}

func parseLevel(s string) (slog.Level, error) {
	var l slog.Level
	err := l.UnmarshalText([]byte(s))
	return l, err
}

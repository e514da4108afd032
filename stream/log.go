package stream

import (
	"context"
	"log/slog"
	"regexp"
	"sync"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// foldFor is how long an identical line stays folded: a broker that is away makes librdkafka repeat itself several
// times a second.
const foldFor = 30 * time.Second

var digits = regexp.MustCompile(`\d+`)

// folder passes librdkafka's log lines to slog, each distinct line once per foldFor, then with its count.
type folder struct {
	log   *slog.Logger
	scrub func(string) string
	in    chan kafka.LogEvent
	stop  chan struct{}
	done  chan struct{}

	mu   sync.Mutex
	held []kafka.LogEvent // not nil while Connect decides whether they matter
	hold bool
	seen map[string]*folded
}

type folded struct {
	first time.Time
	count int
}

func newFolder(log *slog.Logger, scrub func(string) string) *folder {
	f := &folder{log: log, scrub: scrub, in: make(chan kafka.LogEvent, 256), stop: make(chan struct{}), done: make(chan struct{}),
		hold: true, seen: map[string]*folded{}}
	go f.run()
	return f
}

func (f *folder) run() {
	defer close(f.done)
	for {
		select {
		case e := <-f.in:
			f.mu.Lock()
			if f.hold {
				if len(f.held) < 256 {
					f.held = append(f.held, e)
				}
			} else {
				f.write(e)
			}
			f.mu.Unlock()
		case <-f.stop:
			return
		}
	}
}

// heldLines are the lines since Connect began, oldest first.
func (f *folder) heldLines() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, e := range f.held {
		out = append(out, f.scrub(e.Message))
	}
	return out
}

// release ends the hold. Lines about addresses that were merely tried first are dropped: the connection stands.
func (f *folder) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held, f.hold = nil, false
}

func (f *folder) write(e kafka.LogEvent) {
	if e.Tag == "CONFWARN" { // "a consumer property is ignored by this producer": one map of properties serves both
		return
	}
	level := slog.LevelWarn // what librdkafka calls an error it goes on retrying
	if e.Level >= 5 {
		level = slog.LevelDebug
	}
	if !f.log.Enabled(context.Background(), level) {
		return
	}
	msg := tail(f.scrub(e.Message)) // the thread's name before it tells the user nothing, and would keep likes apart
	key := digits.ReplaceAllString(msg, "#")
	s, now := f.seen[key], time.Now()
	if s != nil && now.Sub(s.first) < foldFor {
		s.count++
		return
	}
	args := []any{"tag", e.Tag}
	if s != nil && s.count > 0 {
		args = append(args, "repeated", s.count)
	}
	if len(f.seen) > 1000 {
		clear(f.seen)
	}
	f.seen[key] = &folded{first: now}
	f.log.Log(context.Background(), level, "kafka: "+msg, args...)
}

// event takes an error that librdkafka reports as an event rather than a line: connections lost, authentication refused.
func (f *folder) event(e kafka.Error) {
	f.line(kafka.LogEvent{Tag: "ERROR", Message: e.Error(), Level: 3, Timestamp: time.Now()})
}

func (f *folder) line(e kafka.LogEvent) {
	select {
	case f.in <- e:
	case <-f.stop:
	}
}

func (f *folder) close() {
	close(f.stop)
	<-f.done
}

package main

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"time"

	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

// connect reaches the cluster of the configuration.
func (a *app) connect(ctx context.Context, e *effective) (*stream.Client, error) {
	return stream.Connect(ctx, stream.Options{Properties: e.Kafka, Log: a.log})
}

// registry is the model topic of the configuration, for a command that ends. What is odd about the topic matters to
// whoever keeps it, and serve warns of it: a command that succeeds says so only when asked, at the level debug.
func (a *app) registry(c *stream.Client, e *effective) *registry.Registry {
	return registry.Open(c, registry.Options{Topic: e.ModelsTopic, Log: slog.New(lowered{a.log.Handler()})})
}

// count prints a whole number with its thousands apart.
func count[N int | int64](n N) string {
	s := strconv.FormatInt(int64(n), 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// rate prints records a second with three digits: 12.3k/s.
func rate(perSecond float64) string {
	switch {
	case math.IsNaN(perSecond) || math.IsInf(perSecond, 0) || perSecond < 0:
		return "-"
	case perSecond >= 1e6:
		return strconv.FormatFloat(perSecond/1e6, 'f', 2, 64) + "M/s"
	case perSecond >= 1e4:
		return strconv.FormatFloat(perSecond/1e3, 'f', 0, 64) + "k/s"
	case perSecond >= 1e3:
		return strconv.FormatFloat(perSecond/1e3, 'f', 1, 64) + "k/s"
	}
	return strconv.FormatFloat(perSecond, 'f', 0, 64) + "/s"
}

// seconds prints a duration for people: 0.4 s, 12 s, 3 min 5 s.
func seconds(d time.Duration) string {
	switch s := d.Seconds(); {
	case s < 10:
		return strconv.FormatFloat(s, 'f', 1, 64) + " s"
	case s < 100:
		return strconv.FormatFloat(s, 'f', 0, 64) + " s"
	default:
		d = d.Round(time.Second)
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	}
}

// pacer holds a source to a number of records a second.
type pacer struct {
	perSecond float64 // 0 = as fast as it goes
	start     time.Time
	done      float64
}

// wait sleeps until n more records are due, or ctx ends.
func (p *pacer) wait(ctx context.Context, n int) error {
	if p.perSecond <= 0 {
		return ctx.Err()
	}
	if p.start.IsZero() {
		p.start = time.Now()
	}
	due := p.start.Add(time.Duration(p.done / p.perSecond * float64(time.Second)))
	p.done += float64(n)
	left := time.Until(due)
	if left <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// step is how many records are sent together at this pace: about a hundred steps a second, so that a slow pace is
// even and a fast one is not all timers.
func (p *pacer) step(most int) int {
	if p.perSecond <= 0 {
		return most
	}
	return max(1, min(most, int(p.perSecond/100)))
}

// historyTopic is a topic for records with event times of their own, maybe years back: the broker deletes by a record's
// time, so with the default retention it would empty such a topic within minutes.
func historyTopic(name string, partitions int) stream.TopicSpec {
	return stream.TopicSpec{Name: name, Partitions: partitions, AnyTime: true, Config: map[string]string{"retention.ms": "-1"}}
}

package main

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/lapwing-stream/lapwing/bench/fleet"
	"github.com/lapwing-stream/lapwing/trainer"
)

// demoView is what the demo shows: on a terminal one block that is redrawn ten times a second, else a line for each
// stage and alert, and one every two seconds while traffic flows.
type demoView struct {
	d     *demo
	t     *terminal
	block *liveBlock

	mu        sync.Mutex
	now       string
	wrote     int
	models    [3]modelView // 1 and 2
	sent, all int
	alerts    []demoScore
	rates     []float64 // scores/s, one each half second
	rateAt    time.Time
	rateFrom  int
	saidAt    time.Time
	stopped   chan struct{}
}

type modelView struct {
	progress    trainer.Progress
	report      *trainer.Report
	began, done time.Duration // since the demo started
}

const (
	shownAlerts = 5
	refresh     = 100 * time.Millisecond
)

func (v *demoView) init(d *demo) {
	v.d, v.t = d, d.a.term
	v.stopped = make(chan struct{})
	v.block = v.t.startLive()
	title := fmt.Sprintf("lapwing demo: a fleet of %d cars, a broker of its own, nothing else needed", demoCars)
	if v.block == nil {
		v.say("%s", title)
	}
}

// start draws until the returned function is called, which may be done twice.
func (v *demoView) start(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	v.draw()
	go func() {
		defer close(v.stopped)
		tick := time.NewTicker(refresh)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				v.draw()
			}
		}
	}()
	return func() { cancel(); <-v.stopped; v.block.clear() }
}

// say is a plain line, for where nothing can be redrawn.
func (v *demoView) say(format string, args ...any) {
	if v.block == nil && !v.d.a.json {
		v.d.a.printf("%6.1f s  %s\n", time.Since(v.d.started).Seconds(), fmt.Sprintf(format, args...))
	} else if v.block == nil {
		fmt.Fprintf(v.d.a.stderr, "%6.1f s  %s\n", time.Since(v.d.started).Seconds(), fmt.Sprintf(format, args...))
	}
}

func (v *demoView) stage(what string) {
	v.mu.Lock()
	v.now = what
	v.mu.Unlock()
	v.say("%s", what)
}

func (v *demoView) history(n, of int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.wrote = min(n, of)
}

func (v *demoView) training(version int, p trainer.Progress) {
	v.mu.Lock()
	m := &v.models[version]
	if m.began == 0 {
		m.began = time.Since(v.d.started)
	}
	stage := m.progress.Stage
	m.progress = p
	if version == 1 {
		v.now = "training " + demoModel + "/1 from offset zero"
	}
	v.mu.Unlock()
	if stage != p.Stage {
		v.say("training %s/%d: %s", demoModel, version, map[string]string{
			"read": "reading the topic from offset zero", "fit": "fitting the autoencoder", "judge": "scoring the whole history for the threshold",
			"publish": "publishing to " + v.d.registry.Topic(),
		}[p.Stage])
	}
}

func (v *demoView) trained(version int, r *trainer.Report) {
	v.mu.Lock()
	v.models[version].report = r
	v.models[version].done = time.Since(v.d.started)
	v.mu.Unlock()
	v.say("published %s from %s records, threshold %.3g", r.Manifest, count(r.Rows.Used), r.Threshold)
}

// trainingSpan is when a model's training began and ended, ns since the demo started.
func (v *demoView) trainingSpan(version int) (from, to int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return int64(v.models[version].began), int64(v.models[version].done)
}

func (v *demoView) live(sent, of int) {
	v.mu.Lock()
	v.sent, v.all = sent, of
	due := time.Since(v.saidAt) >= 2*time.Second
	if due {
		v.saidAt = time.Now()
	}
	v.mu.Unlock()
	if due && v.block == nil {
		v.say("live: %s", strings.Join(v.d.liveFigures(), ", "))
	}
}

func (v *demoView) alert(a demoScore) {
	v.mu.Lock()
	v.alerts = append(v.alerts, a)
	first := len(v.alerts) == 1
	v.mu.Unlock()
	if first {
		v.say("first alert: %s", v.d.sentence(a))
	} else {
		v.say("alert: %s", v.d.alertLine(a))
	}
}

// liveFigures are rate, scored, latency and version of the moment.
func (d *demo) liveFigures() []string {
	now := int64(time.Since(d.started))
	second := int64(time.Second)
	d.mu.Lock()
	defer d.mu.Unlock()
	return []string{
		fmt.Sprintf("%s records/s", count(int64(d.latency.rate(now-second, now)))),
		fmt.Sprintf("%s scored", count(int64(len(d.latency.at)))),
		fmt.Sprintf("p50 %.1f ms", d.latency.quantile(.5, now-2*second, now)),
		fmt.Sprintf("p99 %.1f ms", d.latency.quantile(.99, now-2*second, now)),
		fmt.Sprintf("by %s/%d", demoModel, max(d.latency.version, 1)),
	}
}

// sentence is an alert in words: which car, which sensor, what it reads, and what is usual.
func (d *demo) sentence(a demoScore) string {
	if len(a.Top) == 0 || a.Top[0].Value == nil || a.Top[0].Expected == nil {
		return a.Key + " scores " + digits(a.Score)
	}
	top := a.Top[0]
	s := fmt.Sprintf("%s: %s reads %s where the rest of the car implies %s", a.Key, top.Feature, digits(*top.Value), digits(*top.Expected))
	if r, ok := d.typical[top.Feature]; ok {
		s += fmt.Sprintf(" (usual: %s to %s)", digits(r[0]), digits(r[1]))
	}
	return s
}

// alertLine is an alert in one short line.
func (d *demo) alertLine(a demoScore) string {
	var parts []string
	for i, top := range a.Top {
		if i < 2 && top.Value != nil && top.Expected != nil {
			parts = append(parts, fmt.Sprintf("%s %s, expected %s (%.0f%%)", top.Feature, digits(*top.Value), digits(*top.Expected), 100*top.Share))
		}
	}
	return fmt.Sprintf("%-6s %s", a.Key, strings.Join(parts, "; "))
}

// digits prints a number with as many digits as a reader wants.
func digits(x float64) string {
	switch a := math.Abs(x); {
	case a >= 1000 || a == math.Trunc(a):
		return fmt.Sprintf("%.0f", x)
	case a >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

func (v *demoView) draw() {
	if v.block == nil {
		return
	}
	v.block.draw(v.frame())
}

// frame is the live block: 20 lines at most.
func (v *demoView) frame() []string {
	t, d := v.t, v.d
	episodes := d.episodesBegun()
	v.mu.Lock()
	defer v.mu.Unlock()
	label := func(s string) string { return t.paint(faint, fmt.Sprintf("%-9s", s)) }
	width, _ := t.size()
	lines := []string{
		t.paint(bold, "lapwing demo") + t.paint(faint, fmt.Sprintf("   %d cars, a broker of its own%*.1f s", demoCars, 16, time.Since(d.started).Seconds())),
		"",
		label("history") + t.bar(float64(v.wrote)/demoHistory, 20) + fmt.Sprintf("  %s records in topic %s", count(int64(v.wrote)), demoTopic),
		label("train") + v.trainLine(1),
	}
	if v.all == 0 {
		return append(lines, "", t.paint(faint, v.now))
	}
	lines = append(lines, label("retrain")+v.trainLine(2))
	figures := d.liveFigures()
	if now := time.Now(); now.Sub(v.rateAt) >= 500*time.Millisecond {
		d.mu.Lock()
		n := len(d.latency.at)
		d.mu.Unlock()
		if !v.rateAt.IsZero() {
			v.rates = append(v.rates, float64(n-v.rateFrom)/now.Sub(v.rateAt).Seconds())
		}
		v.rateAt, v.rateFrom = now, n
	}
	var keyed []fleet.Alert
	for _, a := range v.alerts {
		if at, err := time.Parse(time.RFC3339, a.Time); err == nil {
			keyed = append(keyed, fleet.Alert{Car: a.Key, Time: at})
		}
	}
	verdict := fleet.Judge(episodes, keyed)
	lines = append(lines, "",
		label("live")+t.bar(float64(v.sent)/float64(v.all), 20)+"  "+t.paint(green, figures[0])+"  "+t.paint(cyan, sparkline(v.rates, max(width-60, 0))),
		label("")+figures[1]+" "+t.paint(bold, figures[4]),
		label("latency")+figures[2]+"   "+figures[3]+t.paint(faint, "   from send to score read"),
		label("faults")+fmt.Sprintf("%d began, %d found, %d false alerts", verdict.Episodes, verdict.Found, verdict.Alerts-verdict.True),
	)
	if len(v.alerts) > 0 {
		lines = append(lines, "")
		lines = append(lines, strings.Split(strings.TrimSuffix(t.wrap(t.paint(yellow, "first alert: ")+d.sentence(v.alerts[0]), 6), "\n"), "\n")...)
		for _, a := range v.alerts[max(len(v.alerts)-shownAlerts, 1):] {
			lines = append(lines, t.paint(red, "alert ")+d.alertLine(a))
		}
	}
	return lines
}

func (v *demoView) trainLine(version int) string {
	m := v.models[version]
	p := m.progress
	switch {
	case m.report != nil:
		return v.t.bar(1, 20) + fmt.Sprintf("  %s  threshold %.3g  in %.1f s", v.t.paint(bold, m.report.Manifest.String()), m.report.Threshold, (m.done-m.began).Seconds())
	case m.began == 0:
		return v.t.bar(0, 20)
	case p.Stage == "fit":
		s := v.t.bar(p.Done, 20) + fmt.Sprintf("  epoch %d/%d  loss %.3g, validation %.3g", p.Epoch, p.Epochs, p.Train, p.Validation)
		if p.Left > 0 {
			s += fmt.Sprintf("  %.0f s left", p.Left.Seconds())
		}
		return s
	}
	s := v.t.bar(p.Done, 20) + "  " + map[string]string{"read": "reading", "trim": "sorting out odd rows", "judge": "scoring the history", "publish": "publishing"}[p.Stage]
	if p.RecordsPerSecond > 0 {
		s += fmt.Sprintf("  %s records/s", count(int64(p.RecordsPerSecond)))
	}
	return s
}

// sparkline draws the newest values that fit.
func sparkline(values []float64, width int) string {
	values = values[max(len(values)-width, 0):]
	var top float64
	for _, x := range values {
		top = max(top, x)
	}
	var b strings.Builder
	for _, x := range values {
		b.WriteRune([]rune("▁▂▃▄▅▆▇█")[min(int(x/max(top, 1)*8), 7)])
	}
	return b.String()
}

// last is the screen that stays: 24 lines at most.
func (v *demoView) last(s *demoSummary) {
	if v.d.a.json && v.block == nil {
		return
	}
	t := v.t
	label := func(s string) string { return t.paint(faint, fmt.Sprintf("%-10s", s)) }
	mark := func(ok bool) string {
		if ok {
			return t.paint(green, "✓ ")
		}
		return t.paint(red, "✗ ")
	}
	missed := s.Episodes - int(math.Round(s.Recall*float64(s.Episodes)))
	falseAlerts := s.Alerts - int(math.Round(s.Precision*float64(s.Alerts)))
	lines := []string{
		t.paint(bold, "lapwing demo") + t.paint(faint, fmt.Sprintf("   done in %.1f s", s.Seconds)),
		"",
		label("models") + fmt.Sprintf("%s, then %s, trained while traffic flowed at %.0f%% of its rate",
			t.paint(bold, demoModel+"/1"), t.paint(bold, demoModel+"/2"), 100*s.RateKept),
		label("swap") + fmt.Sprintf("%s records by %s/1, %s by %s/2; p99 around the swap %.1f ms", count(s.ByVersion["1"]), demoModel, count(s.ByVersion["2"]), demoModel, s.P99Swap),
		label("records") + mark(s.Dropped+s.Doubled+s.OutOfOrder == 0) + fmt.Sprintf("%s in, %s out: %d dropped, %d doubled, %d out of order",
			count(s.RecordsIn), count(s.RecordsOut), s.Dropped, s.Doubled, s.OutOfOrder),
		label("latency") + fmt.Sprintf("p50 %.1f ms, p99 %.1f ms from send to score read by another consumer", s.P50, s.P99),
		label("faults") + fmt.Sprintf("%d of %d found, %d missed; %d alerts, %d of them false", s.Episodes-missed, s.Episodes, missed, s.Alerts, falseAlerts),
		label("") + fmt.Sprintf("%.0f min of the car's time from onset to alert (median);", s.Detection/60),
		label("") + fmt.Sprintf("in %.0f%% of them no single sensor had left its usual range", 100*s.Hidden),
	}
	v.mu.Lock()
	if len(v.alerts) > 0 {
		lines = append(lines, "")
		lines = append(lines, strings.Split(strings.TrimSuffix(t.wrap(label("first")+v.d.sentence(v.alerts[0]), 10), "\n"), "\n")...)
	}
	v.mu.Unlock()
	lines = append(lines, "", t.paint(bold, "Now with a broker of your own:"),
		"  lapwing broker --listen 127.0.0.1:9092",
		"  lapwing load FILE.csv --topic T --key COLUMN",
		"  lapwing train --topic T --model NAME")
	if v.d.o.keep != "" {
		lines = append(lines, "", "topics are kept in "+v.d.o.keep+": lapwing broker --data "+v.d.o.keep)
	}
	width, _ := t.size()
	for _, l := range lines {
		if t.redraw {
			l = truncate(l, width)
		}
		v.d.a.printf("%s\n", l)
	}
}

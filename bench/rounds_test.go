package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"time"
)

func testRun(o Options) *run {
	o.Log = io.Discard
	return &run{Options: o.WithDefaults(), Report: &Report{Versions: map[string]string{}}}
}

// series is a subject that gives these figures, one a round, the first uncounted.
func series(name, role string, v ...float64) subject {
	at := -1
	return subject{name: name, role: role, once: one("f", func(context.Context) (float64, error) { at++; return v[at], nil })}
}

func TestMeasure(t *testing.T) {
	r := testRun(Options{Rounds: 3})
	broken := errors.New("it broke")
	m, err := r.measure(t.Context(), cell{suite: "s", kase: "k"}, []metric{{name: "f", unit: "1/s", bound: 2}},
		series(Ours, "", 999, 10, 20, 60), series("peer", Peer, 999, 10, 10, 20),
		subject{name: "absent", role: Peer, absent: errors.New("not installed")},
		subject{name: "fails", role: Peer, once: func(context.Context) (figures, error) { return nil, broken }},
		series("bound", Limit, 999, 100, 100, 100))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != 5 || len(r.failed) != 0 {
		t.Fatalf("%d rows, failed %v", len(r.Rows), r.failed)
	}
	us := r.Rows[0]
	if us.Value != 20 || us.Spread != [2]float64{10, 60} || us.Ratio["peer"] != 2 || us.Ratio["bound"] != .2 || len(us.Ratio) != 2 || len(us.Samples) != 3 {
		t.Errorf("ours: %+v", us)
	}
	if us.Noisy == "" || r.Rows[1].Noisy != "" {
		t.Errorf("noisy: ours %q (spread 250 %%), peer %q (100 %%), bound 200 %%", us.Noisy, r.Rows[1].Noisy)
	}
	if r.Rows[2].Error != "not installed" || r.Rows[3].Error != "it broke" {
		t.Errorf("%+v\n%+v", r.Rows[2], r.Rows[3])
	}
	r.targetRatio("a", 1.5, m, Ours, "peer", "f", false)
	r.targetRatio("b", 1.5, m, Ours, "peer", "f", true)
	r.targetRatio("c", 1.5, m, Ours, "absent", "f", false)
	r.targetRatio("d", 1.5, m, Ours, "nobody", "f", false)
	for i, want := range []Target{
		{Name: "a", Target: 1.5, Value: 2, Unit: "×", OK: true, Noisy: true}, {Name: "b", Target: 1.5, Value: 2, Unit: "×", AtMost: true, Noisy: true},
		{Name: "c", Target: 1.5, Unit: "×", Error: "absent: not installed", Noisy: true}, {Name: "d", Target: 1.5, Unit: "×", Error: "nobody: not measured", Noisy: true},
	} {
		if r.Targets[i] != want {
			t.Errorf("%+v\nwant %+v", r.Targets[i], want)
		}
	}
	if r.Missed() != 3 {
		t.Errorf("%d missed", r.Missed())
	}
	// what has no figure is null in JSON, not 0
	data, err := json.Marshal(r.Report)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(data, []byte(`"value":null`)); n != 4 {
		t.Errorf("%d null values in %s", n, data)
	}
	back, err := ReadReport(data)
	if err != nil || back.Rows[0].Ratio["peer"] != 2 || back.Rows[2].Error == "" {
		t.Errorf("%v: %+v", err, back)
	}
}

// A subject of ours that fails is a row, and fails the run once the rest is measured; a wrong result ends it at once.
func TestMeasureFailures(t *testing.T) {
	r := testRun(Options{Rounds: 1})
	fails := func(err error) subject {
		return subject{name: Ours, once: func(context.Context) (figures, error) { return nil, err }}
	}
	if _, err := r.measure(t.Context(), cell{}, []metric{{name: "f"}}, fails(errors.New("no")), series("peer", Peer, 1, 1)); err != nil || len(r.failed) != 1 || len(r.Rows) != 2 {
		t.Errorf("%v, %v, %v", err, r.failed, r.Rows)
	}
	if _, err := r.measure(t.Context(), cell{}, []metric{{name: "f"}}, fails(fmt.Errorf("%w: 1 and 2", errDiffers))); !errors.Is(err, errDiffers) {
		t.Errorf("%v", err)
	}
	// In a smoke run a peer that fails is an error too, unless it was left out on purpose.
	smoke := testRun(Options{Smoke: true})
	if _, err := smoke.measure(t.Context(), cell{}, []metric{{name: "f"}}, subject{name: "a", role: Peer, absent: errors.New("gone")},
		subject{name: "b", role: Peer, absent: fmt.Errorf("%w: too slow", errNotInSmoke)}); err != nil || len(smoke.failed) != 1 || !strings.Contains(smoke.failed[0].Error(), "gone") {
		t.Errorf("%v, %v", err, smoke.failed)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.measure(ctx, cell{}, []metric{{name: "f"}}, series("peer", Peer, 1, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// The order of the subjects changes from round to round: who comes after whom is no constant.
func TestOrderChanges(t *testing.T) {
	r := testRun(Options{Rounds: 7})
	var order []string
	var subjects []subject
	for _, n := range []string{"a", "b", "c"} {
		subjects = append(subjects, subject{name: n, once: func(context.Context) (figures, error) { order = append(order, n); return figures{"f": 1}, nil }})
	}
	if _, err := r.measure(t.Context(), cell{}, []metric{{name: "f"}}, subjects...); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i := 0; i < len(order); i += 3 {
		seen[strings.Join(order[i:i+3], "")] = true
	}
	if len(order) != 24 || len(seen) < 3 {
		t.Errorf("%v: %d orders", order, len(seen))
	}
}

func TestForeignShare(t *testing.T) {
	var f foreignShare
	f.add(0, 100*time.Millisecond)
	if _, known := f.share(); known {
		t.Error("a tenth of a second of ticks says nothing")
	}
	f.add(60*time.Millisecond, 200*time.Millisecond)
	if v, known := f.share(); !known || v < .16 || v > .17 { // less a tick that may be a rounding
		t.Error(v, known)
	}
	f.add(0, 700*time.Millisecond)
	f.add(20*time.Millisecond, time.Second)
	if v, known := f.share(); !known || v != .06 { // the worse window
		t.Error(v, known)
	}
	row := &Row{Value: 10, Spread: [2]float64{9, 12}}
	share := .06
	row.Others = &share
	if got := noise(row, metric{}); got != "spread 30 %, others took 6 % of a core" {
		t.Error(got)
	}
	if got := noise(row, metric{bound: .5}); got != "others took 6 % of a core" {
		t.Error(got)
	}
	share = .05
	if got := noise(row, metric{bound: .5}); got != "" {
		t.Error(got)
	}
}

// JSON has no infinity: a peer's 0 must not cost the report.
func TestRatioToNothing(t *testing.T) {
	r := testRun(Options{Rounds: 1})
	if _, err := r.measure(t.Context(), cell{suite: "s", kase: "k"}, []metric{{name: "f", unit: "1/s"}}, series(Ours, "", 1, 1), series("peer", Peer, 1, 0)); err != nil {
		t.Fatal(err)
	}
	for _, v := range []float64{math.NaN(), math.Inf(1)} {
		if target := r.target("t", 1, v, "×", false); target.OK || target.Error == "" {
			t.Errorf("a figure of %v reached its target: %+v", v, *target)
		}
	}
	if _, err := json.Marshal(r.Report); err != nil {
		t.Error(err)
	}
}

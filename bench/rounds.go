package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"
)

// cell says what a measurement is of. Where the case depends on a number (the batch), group is the case without it and
// x the number, called xName: then plots are drawn over it.
type cell struct {
	suite, kase, group string
	x                  float64
	xName              string
	rounds             int  // in place of the options' Rounds
	warmed             bool // subjects warm themselves in each run, so that no round is lost to it
}

// metric is one figure of a subject's run.
type metric struct {
	name, unit string
	lower      bool    // less is better
	bound      float64 // (most − least) / median above which a row is marked; default .2
}

// figures are what one run of a subject gave, by metric. One that is left out makes no row.
type figures map[string]float64

// subject is one side of a comparison.
type subject struct {
	name   string
	role   string // default Ours
	absent error  // why it cannot run: its rows say so
	rounds int    // in which it takes part, the first ones; default all
	once   func(context.Context) (figures, error)
}

// errDiffers marks results that do not agree with a peer's: such a run is worth nothing, and ends.
var errDiffers = errors.New("results differ")

// errNotInSmoke is why a subject is missing from a smoke run; any other reason fails such a run, a peer's too.
var errNotInSmoke = errors.New("is not part of a smoke run")

// one makes a subject's run of what gives a single figure.
func one(name string, once func(context.Context) (float64, error)) func(context.Context) (figures, error) {
	return func(ctx context.Context) (figures, error) {
		v, err := once(ctx)
		return figures{name: v}, err
	}
}

// measured is what measure found: rows by subject and metric.
type measured struct {
	rows map[[2]string]*Row
}

// row is a copy, with an Error where the subject was not measured at all.
func (m *measured) row(subject, metric string) Row {
	if r, ok := m.rows[[2]string{subject, metric}]; ok {
		return *r
	}
	return Row{Subject: subject, Metric: metric, Error: "not measured"}
}

// value is NaN where there is none.
func (m *measured) value(subject, metric string) float64 {
	r := m.row(subject, metric)
	if r.Error != "" {
		return math.NaN()
	}
	return r.Value
}

// ratio is the median of subject's figures over other's, round by round; NaN where there is none.
func (m *measured) ratio(subject, other, metric string) float64 {
	a, b := m.row(subject, metric), m.row(other, metric)
	if a.Error != "" || b.Error != "" {
		return math.NaN()
	}
	var ratios []float64
	for i := range min(len(a.Samples), len(b.Samples)) {
		ratios = append(ratios, a.Samples[i]/b.Samples[i])
	}
	return median(ratios)
}

// foreignBound is the share of one core that others may take before a row is marked: at more, tails become theirs.
const foreignBound = .05

// measure runs the subjects in turn, Rounds times after one round that warms up and is not counted, in an order that
// changes each round, and adds a row for each subject and metric, or one that says why there is none. A subject
// that fails is left out from then on. The error is that of the context, or wraps errDiffers.
func (r *run) measure(ctx context.Context, c cell, metrics []metric, subjects ...subject) (*measured, error) {
	n := len(subjects)
	values, failed, foreign := make([][]figures, n), make([]error, n), make([]foreignShare, n)
	for i, s := range subjects {
		failed[i] = s.absent
	}
	warm := 1
	if r.Smoke || c.warmed {
		warm = 0
	}
	rounds := r.Rounds
	if c.rounds > 0 {
		rounds = c.rounds
	}
	for round := range rounds + warm {
		for _, i := range rand.New(rand.NewPCG(uint64(round), 7)).Perm(n) {
			if failed[i] != nil || subjects[i].rounds > 0 && round >= subjects[i].rounds+warm {
				continue
			}
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			runtime.GC() // nobody pays for another's garbage
			foreign[i].begin()
			v, err := subjects[i].once(ctx)
			if e := ctx.Err(); e != nil {
				return nil, e
			}
			if errors.Is(err, errDiffers) {
				return nil, fmt.Errorf("%s, %s: %w", c.kase, subjects[i].name, err)
			}
			if err != nil {
				failed[i] = err
				fmt.Fprintf(r.Log, "%s, %s: %v\n", c.kase, subjects[i].name, err)
				continue
			}
			if round >= warm {
				foreign[i].end()
				values[i] = append(values[i], v)
			}
		}
	}
	m := &measured{rows: map[[2]string]*Row{}}
	var rows []*Row
	for i, s := range subjects {
		if s.role == "" {
			s.role = Ours
		}
		for _, k := range metrics {
			row := &Row{Suite: c.suite, Case: c.kase, Group: c.group, X: c.x, XName: c.xName, Subject: s.name, Role: s.role, Metric: k.name, Unit: k.unit, Lower: k.lower}
			if failed[i] != nil { // one row says it for all metrics
				row.Error = failed[i].Error()
				rows = append(rows, row)
				for _, k := range metrics {
					m.rows[[2]string{s.name, k.name}] = row
				}
				if s.role == Ours || r.Smoke && !errors.Is(failed[i], errNotInSmoke) {
					r.failed = append(r.failed, fmt.Errorf("%s, %s, %s: %w", c.suite, c.kase, s.name, failed[i]))
				}
				break
			}
			for _, v := range values[i] {
				if x, ok := v[k.name]; ok {
					row.Samples = append(row.Samples, x)
				}
			}
			if len(row.Samples) == 0 {
				continue
			}
			row.Value, row.Spread = median(row.Samples), [2]float64{slices.Min(row.Samples), slices.Max(row.Samples)}
			if share, known := foreign[i].share(); known {
				row.Others = &share
			}
			row.Noisy = noise(row, k)
			m.rows[[2]string{s.name, k.name}] = row
			rows = append(rows, row)
		}
	}
	for _, row := range rows {
		if row.Role == Ours && row.Error == "" {
			for _, other := range rows {
				if other.Metric != row.Metric || other.Role == Ours || other.Error != "" {
					continue
				}
				ratio := m.ratio(row.Subject, other.Subject, row.Metric)
				if math.IsNaN(ratio) || math.IsInf(ratio, 0) {
					continue // JSON has no such numbers: one would cost the whole report
				}
				if row.Ratio == nil {
					row.Ratio = map[string]float64{}
				}
				row.Ratio[other.Subject] = ratio
			}
		}
		r.Rows = append(r.Rows, *row)
	}
	return m, nil
}

// noise says why a row should not be trusted.
func noise(row *Row, k metric) string {
	if k.bound == 0 {
		k.bound = .2
	}
	var why []string
	if spread := (row.Spread[1] - row.Spread[0]) / row.Value; spread > k.bound {
		why = append(why, fmt.Sprintf("spread %.0f %%", 100*spread))
	}
	if row.Others != nil && *row.Others > foreignBound {
		why = append(why, fmt.Sprintf("others took %.0f %% of a core", 100**row.Others))
	}
	switch len(why) {
	case 0:
		return ""
	case 1:
		return why[0]
	}
	return why[0] + ", " + why[1]
}

// perSecond runs work again and again for about the options' Sample time, and says how many times a second it ran. The clock
// is asked once for many calls of what is short.
func (r *run) perSecond(ctx context.Context, work func() error) (float64, error) {
	times, batch := 0, 1
	start := time.Now()
	for {
		for range batch {
			if err := work(); err != nil {
				return 0, err
			}
		}
		times += batch
		elapsed := time.Since(start)
		if elapsed >= r.Sample || r.Smoke {
			return float64(times) / elapsed.Seconds(), ctx.Err()
		}
		if elapsed < r.Sample/64 {
			batch *= 2
		}
	}
}

// Package quality measures how good the detector is: labelled sets go the whole way from a file to scores, next to the
// detectors that people would otherwise take, on the same rows in the same run.
package quality

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/trainer"
)

// Lapwing is the subject that all others stand next to.
const Lapwing = "lapwing"

// Options say what to measure.
type Options struct {
	Data    string         // folder with a manifest.json; required
	Sets    string         // globs over file, name or collection, parted by commas; default all
	Splits  int            // random splits of each set whose rows have no order, count; default 3
	Threads int            // of each subject, goroutines or threads; default all CPUs
	Rate    float64        // share of the history that may score above a threshold, 0 to 0.5; default the trainer's
	Peers   []string       // names of Peers(); default none
	Python  string         // interpreter that makes the peers' environment; default python3
	Cache   string         // folder that keeps the peers' environment; required with Peers
	Limit   time.Duration  // longest a peer may take over one split; default 10m
	Engine  kernels.Engine // what trains and scores; default the CPU engine
	Log     io.Writer      // what is being measured, a line each; default none

	Train func(*trainer.Options) // last word on how Lapwing trains; default nil: as it does when nothing is set
}

// WithDefaults fills in zero fields.
func (o Options) WithDefaults() Options {
	if o.Splits == 0 {
		o.Splits = 3
	}
	if o.Threads == 0 {
		o.Threads = runtime.GOMAXPROCS(0)
	}
	if o.Rate == 0 {
		o.Rate = trainer.Defaults().AlarmRate
	}
	if o.Python == "" {
		o.Python = "python3"
	}
	if o.Limit == 0 {
		o.Limit = 10 * time.Minute
	}
	if o.Engine == nil {
		o.Engine = cpu.New()
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	return o
}

// Validate reports every fault at once. Zero values mean defaults.
func (o Options) Validate() error {
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(o.Data == "", "no data folder given: where are the labelled sets?")
	fault(o.Splits < 0 || o.Splits > 100, "splits is %d; 1 to 100", o.Splits)
	fault(o.Threads < 0, "threads is %d; 1 or more", o.Threads)
	fault(!(o.Rate >= 0 && o.Rate <= .5), "alarm rate is %v; a share from 0 to 0.5", o.Rate)
	fault(len(o.Peers) > 0 && o.Cache == "", "peers need a folder that keeps their environment")
	fault(o.Limit < 0, "limit is %v; above 0", o.Limit)
	for _, p := range o.Peers {
		fault(!slices.Contains(Peers(), p), "there is no peer %q; there are %s", p, strings.Join(Peers(), ", "))
	}
	return errors.Join(faults...)
}

// Report is what a run found.
type Report struct {
	Sets []Set           `json:"sets"`
	Mean map[string]Mean `json:"mean"` // by subject, over the sets above

	Alarms []Alarms `json:"alarms,omitempty"` // whether a rate that was asked for is the rate that comes
	Series []Series `json:"series,omitempty"` // at the stored threshold, files of a collection pooled

	Machine    string            `json:"machine"`
	Splits     int               `json:"splits"`
	Threads    int               `json:"threads"`
	Subjects   []string          `json:"subjects"`           // in the order of the tables
	Versions   map[string]string `json:"versions,omitempty"` // of what the peers are made of
	Unlabelled []string          `json:"unlabelled,omitempty"`
}

// Set is one labelled set.
type Set struct {
	Name      string             `json:"name"`
	Rows      int                `json:"rows"`
	Features  int                `json:"features"`
	Anomalies int                `json:"anomalies"`
	Subjects  map[string]Metrics `json:"subjects"`

	Collection string   `json:"collection,omitempty"`
	Trained    int      `json:"trained"` // rows fitted on in a split, anomalies among them
	Splits     int      `json:"splits"`
	Notes      []string `json:"notes,omitempty"`
}

// Mean is a subject over all sets for which it has the figure.
type Mean struct {
	AUC  *float64 `json:"auc"`
	AP   *float64 `json:"ap"`
	PAtN *float64 `json:"p_at_n"`
	Sets int      `json:"sets"` // that the subject has an AUC for
}

// run is one run of the bench.
type run struct {
	Options
	report *Report
	peers  *peers // nil: none wanted
	alarms alarmCounts
	series seriesCounts
}

// Run measures what o asks for. A set or a peer that fails is a row that says so; only what makes all figures
// worthless is an error: no manifest, no set, the context's end.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.WithDefaults()
	sets, unlabelled, err := readManifest(o.Data, o.Sets)
	if err != nil {
		return nil, err
	}
	r := &run{Options: o, report: &Report{
		Machine: fmt.Sprintf("%s/%s, %d processors, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version()),
		Splits:  o.Splits, Threads: o.Threads, Subjects: append([]string{Lapwing}, o.Peers...), Unlabelled: unlabelled,
	}}
	if len(o.Peers) > 0 {
		r.peers = startPeers(ctx, &r.Options)
		defer r.peers.close()
	}
	for i := range sets {
		if err := r.set(ctx, &sets[i], i+1, len(sets)); err != nil {
			return nil, err
		}
	}
	if r.peers != nil {
		r.report.Versions = r.peers.versions
	}
	r.report.mean()
	r.report.Alarms = r.alarms.report()
	r.report.Series = r.series.report()
	return r.report, nil
}

// set measures one set in all its splits.
func (r *run) set(ctx context.Context, s *set, nth, of int) error {
	splits, rows, rejected, err := s.splits(r.Data, r.Splits)
	if err != nil {
		return err
	}
	out := Set{
		Name: s.Name, Collection: s.Collection, Rows: len(rows), Features: len(s.Test.Features), Anomalies: anomalies(rows),
		Subjects: map[string]Metrics{}, Splits: len(splits), Trained: len(splits[0].train),
	}
	if rejected > 0 {
		out.Notes = append(out.Notes, fmt.Sprintf("%d lines of the file are no rows", rejected))
	}
	got := map[string][]Metrics{}
	for i := range splits {
		sp := &splits[i]
		fmt.Fprintf(r.Log, "%d of %d: %s, split %d of %d, %d rows to learn, %d to judge\n", nth, of, s.Name, i+1, len(splits), len(sp.train), len(sp.test))
		if err := r.split(ctx, s, sp, got); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	if s.ordered() {
		err = r.rolled(ctx, s, &splits[0])
	} else {
		err = r.normalOnly(ctx, s, &splits[0])
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.Name, err)
	}
	for name, list := range got {
		out.Subjects[name] = meanOf(list)
	}
	r.report.Sets = append(r.report.Sets, out)
	return nil
}

// learn runs Lapwing on a split, on a broker of its own.
func (r *run) learn(ctx context.Context, sp *split, how subject) (*learned, error) {
	b, err := newBroker(ctx, r.Engine)
	if err != nil {
		return nil, err
	}
	defer b.close()
	return b.learn(ctx, sp, how)
}

// split measures every subject on one split.
func (r *run) split(ctx context.Context, s *set, sp *split, to map[string][]Metrics) error {
	truth := sp.truth()
	l, err := r.learn(ctx, sp, r.subject(s))
	var m Metrics
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		m.Error = err.Error()
	default:
		m = measure(l.live, truth, l.threshold)
		m.Seconds = value(l.seconds)
		if s.clean() {
			r.series.add(s.Collection, 0, l, truth)
		}
	}
	r.took(Lapwing, &m)
	to[Lapwing] = append(to[Lapwing], m)
	if r.peers == nil {
		return nil
	}
	job, err := r.peers.prepare(sp, s.Test)
	if err != nil {
		return err
	}
	for _, name := range r.Peers {
		m := job.measure(ctx, name, truth, r.Rate)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		r.took(name, &m)
		to[name] = append(to[name], m)
	}
	return nil
}

// took logs one subject's result.
func (r *run) took(name string, m *Metrics) {
	if m.Error != "" {
		fmt.Fprintf(r.Log, "  %-12s failed: %s\n", name, m.Error)
		return
	}
	fmt.Fprintf(r.Log, "  %-12s AUC %s, AP %s, precision at n %s, %.1f s\n", name, digits(m.AUC), digits(m.AP), digits(m.PAtN), *m.Seconds)
}

// subject is how Lapwing runs on a set: by default with nothing set but what the columns are.
func (r *run) subject(s *set) subject {
	return subject{
		threads: r.Threads, alarmRate: r.Rate, ordered: s.ordered(), key: s.Test.Key, time: s.Test.clock(), each: r.Train,
	}
}

// mean fills in the means over sets.
func (r *Report) mean() {
	r.Mean = map[string]Mean{}
	for _, name := range r.Subjects {
		r.Mean[name] = meanOver(r.Sets, name)
	}
}

func meanOver(sets []Set, name string) Mean {
	var list []Metrics
	n := 0
	for i := range sets {
		if m := sets[i].Subjects[name]; m.Error == "" {
			list = append(list, m)
			if m.AUC != nil {
				n++
			}
		}
	}
	m := meanOf(list)
	return Mean{AUC: m.AUC, AP: m.AP, PAtN: m.PAtN, Sets: n}
}

// matrix decodes rows as Lapwing does, all of the manifest's features, raw: missing values are NaN, categories are
// one column each. Peers get the same numbers, and also the columns that Lapwing itself would leave out.
func matrix(e *entry, train, test []row) (columns int, history, live []float32, err error) {
	sample := make([][]byte, 0, min(len(train), 10_000))
	for i := range train[:cap(sample)] {
		sample = append(sample, train[i].value)
	}
	spec, _, err := events.Infer(sample, events.InferOptions{Format: "json", Key: e.Key, TimeField: e.clock()})
	if err != nil {
		return 0, nil, nil, err
	}
	for _, name := range e.Features {
		if !slices.ContainsFunc(spec.Fields, func(f model.Field) bool { return f.Name == name }) {
			spec.Fields = append(spec.Fields, model.Field{Name: name, Type: model.Number})
		}
	}
	d, err := events.Compile(spec)
	if err != nil {
		return 0, nil, nil, err
	}
	decode := func(rows []row) []float32 {
		out := make([]float32, len(rows)*d.Columns())
		for i := range rows {
			d.Decode(rows[i].value, out[i*d.Columns():(i+1)*d.Columns()])
		}
		return out
	}
	return d.Columns(), decode(train), decode(test), nil
}

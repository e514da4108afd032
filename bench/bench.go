// Package bench measures Lapwing next to a peer or a physical limit: both sides in one run, in turn, warmed,
// the same work at the same precision, results checked equal. Absolute numbers belong to a machine; ratios travel.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Options say what to measure.
type Options struct {
	Suites     []string      // names of Suites(); default all
	Rounds     int           // times that each subject runs, in turn with the others, after one that is not counted; default 5
	Records    int           // records of the topics that are read and scored, count; default 500,000
	LatencyFor time.Duration // measured time of the latency suite; default 20s
	Soak       int           // records of the memory suite, count; default 1,000,000
	Binary     string        // lapwing, for what must run as its own process; default none: such suites are left out
	Log        io.Writer     // what is being measured, a line each; default none
}

// WithDefaults fills in zero fields.
func (o Options) WithDefaults() Options {
	if len(o.Suites) == 0 {
		for _, s := range Suites() {
			o.Suites = append(o.Suites, s.Name)
		}
	}
	if o.Rounds == 0 {
		o.Rounds = 5
	}
	if o.Records == 0 {
		o.Records = 500_000
	}
	if o.LatencyFor == 0 {
		o.LatencyFor = 20 * time.Second
	}
	if o.Soak == 0 {
		o.Soak = 1_000_000
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	return o
}

// Validate reports every fault at once. Zero values mean defaults.
func (o Options) Validate() error {
	var faults []error
	var names []string
	for _, s := range Suites() {
		names = append(names, s.Name)
	}
	for _, s := range o.Suites {
		if !slices.Contains(names, s) {
			faults = append(faults, fmt.Errorf("there is no suite %q; there are %s", s, strings.Join(names, ", ")))
		}
	}
	for _, n := range []struct {
		name      string
		is, least int
	}{{"rounds", o.Rounds, 1}, {"records", o.Records, 1000}, {"soak records", o.Soak, 1000}} {
		if n.is != 0 && n.is < n.least {
			faults = append(faults, fmt.Errorf("%s is %d; at least %d", n.name, n.is, n.least))
		}
	}
	if o.LatencyFor != 0 && o.LatencyFor < time.Second {
		faults = append(faults, fmt.Errorf("seconds is %v; at least 1s", o.LatencyFor))
	}
	return errors.Join(faults...)
}

// Suite is one group of measurements.
type Suite struct {
	Name, About string
	run         func(context.Context, *run) error
}

// Suites lists all, in the order in which they run.
func Suites() []Suite {
	return []Suite{
		{"decode", "JSON records of 18 fields to float32 rows, from memory, one core; next to encoding/json", decodeSuite},
		{"train", "samples/s of the fused engine next to the Gorgonia engine: same net, batch, threads, loss", trainSuite},
		{"history", "reading a topic from offset zero next to a bare consumer of the same topic", historySuite},
		{"stream", "Kafka to Kafka scoring, records/s, broker on the same cores", streamSuite},
		{"latency", "from produce to score consumed at 1,000 records/s, open loop", latencySuite},
		{"memory", "resident anonymous memory of serve as its own process while models swap", memorySuite},
	}
}

// Row is one measured figure.
type Row struct {
	Suite   string             `json:"suite"`
	Case    string             `json:"case"`
	Subject string             `json:"subject"`
	Metric  string             `json:"metric"`
	Value   float64            `json:"value"` // median
	Unit    string             `json:"unit"`
	Spread  [2]float64         `json:"spread"`             // least and most
	Ratio   map[string]float64 `json:"ratio_to,omitempty"` // median of the ratios round by round
}

// Target is a figure that the project set itself.
type Target struct {
	Name   string  `json:"name"`
	Target float64 `json:"target"`
	Value  float64 `json:"value"`
	AtMost bool    `json:"at_most,omitempty"` // the target is an upper bound
	OK     bool    `json:"ok"`
}

// Report is what a run found.
type Report struct {
	Machine string   `json:"machine"`
	Rows    []Row    `json:"rows"`
	Targets []Target `json:"targets"`
	Notes   []string `json:"notes,omitempty"` // what was left out, and why
}

// run is one run of the bench.
type run struct {
	Options
	*Report
}

// Run measures what o asks for. A suite whose results do not agree with its peer's fails the run: a fast wrong
// answer is worth nothing.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	r := &run{Options: o.WithDefaults(), Report: &Report{Machine: machine()}}
	for _, s := range Suites() {
		if !slices.Contains(r.Suites, s.Name) {
			continue
		}
		fmt.Fprintf(r.Log, "%s: %s\n", s.Name, s.About)
		if err := s.run(ctx, r); err != nil {
			return r.Report, fmt.Errorf("bench %s: %w", s.Name, err)
		}
	}
	return r.Report, nil
}

func machine() string {
	return fmt.Sprintf("%s/%s, %d processors, %s", runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), runtime.Version())
}

// subject is one side of a comparison.
type subject struct {
	name string
	once func(context.Context) (float64, error)
}

// compare runs the subjects in turn, Rounds times after one round that warms up and is not counted, and adds a row
// each. The first is the one that ratios are of.
func (r *run) compare(ctx context.Context, suite, kase, metric, unit string, subjects ...subject) (map[string]Row, error) {
	values := make([][]float64, len(subjects))
	for round := range r.Rounds + 1 {
		for i, s := range subjects {
			v, err := s.once(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", kase, s.name, err)
			}
			if round > 0 {
				values[i] = append(values[i], v)
			}
		}
	}
	rows := map[string]Row{}
	for i, s := range subjects {
		row := Row{Suite: suite, Case: kase, Subject: s.name, Metric: metric, Unit: unit, Value: median(values[i]),
			Spread: [2]float64{slices.Min(values[i]), slices.Max(values[i])}}
		if i == 0 && len(subjects) > 1 {
			row.Ratio = map[string]float64{}
			for j := 1; j < len(subjects); j++ {
				if strings.HasPrefix(subjects[j].name, s.name) {
					continue // another figure of our own, not a peer
				}
				var ratios []float64
				for k := range values[0] {
					ratios = append(ratios, values[0][k]/values[j][k])
				}
				row.Ratio[subjects[j].name] = median(ratios)
			}
		}
		rows[s.name] = row
		r.Rows = append(r.Rows, row)
	}
	return rows, nil
}

// target holds a figure against what was asked.
func (r *run) target(name string, target, value float64, atMost bool) {
	ok := value >= target
	if atMost {
		ok = value <= target
	}
	r.Targets = append(r.Targets, Target{Name: name, Target: target, Value: value, AtMost: atMost, OK: ok})
}

func (r *run) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Clone(v)
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

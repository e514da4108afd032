// Package bench measures Lapwing next to a peer or a physical limit: both sides in one run, in turn, warmed,
// the same work at the same precision, results checked equal. Absolute numbers belong to a machine; ratios travel.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Options say what to measure.
type Options struct {
	Suites     []string      // names of Suites(); default all but those that must be named, with Smoke those that compare results
	Rounds     int           // times that each subject runs, in turn with the others, after one that is not counted; default 5
	Records    int           // records of the topics that are read and scored, count; default 1,000,000
	LatencyFor time.Duration // measured time of the latency suite; default 20s
	Soak       int           // records of the memory suite, count; default 1,000,000
	History    int           // records of the topic that the gpu suite trains from, count; default 10,000,000
	GPU        *GPU          // device of the gpu suite; default none
	Sample     time.Duration // that a subject computes in process in each round; default 100ms
	Smoke      bool          // only whether results agree with the peers': small counts, no warm-up, no targets; what a peer lacks is an error; default false
	Peers      string        // folder of the peers that were installed (py, torch, broker, streams); default none: their rows say so
	Binary     string        // lapwing, for what must run as its own process; default none: such suites are left out
	Log        io.Writer     // what is being measured, a line each; default none
}

// WithDefaults fills in zero fields.
func (o Options) WithDefaults() Options {
	if len(o.Suites) == 0 {
		for _, s := range Suites() {
			if !s.Named && (!o.Smoke || s.Compares) {
				o.Suites = append(o.Suites, s.Name)
			}
		}
	}
	if o.Rounds == 0 {
		o.Rounds = 5
		if o.Smoke {
			o.Rounds = 1
		}
	}
	if o.Records == 0 {
		o.Records = 1_000_000
		if o.Smoke {
			o.Records = 5_000
		}
	}
	if o.LatencyFor == 0 {
		o.LatencyFor = 20 * time.Second
		if o.Smoke {
			o.LatencyFor = time.Second
		}
	}
	if o.Sample == 0 {
		o.Sample = 100 * time.Millisecond
	}
	if o.Soak == 0 {
		o.Soak = 1_000_000
	}
	if o.History == 0 {
		o.History = 10_000_000
		if o.Smoke {
			o.History = 5_000
		}
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
	}{{"rounds", o.Rounds, 1}, {"records", o.Records, 1000}, {"soak records", o.Soak, 1000}, {"history records", o.History, 1000}} {
		if n.is != 0 && n.is < n.least {
			faults = append(faults, fmt.Errorf("%s is %d; at least %d", n.name, n.is, n.least))
		}
	}
	if o.LatencyFor != 0 && o.LatencyFor < time.Second {
		faults = append(faults, fmt.Errorf("latency for is %v; at least 1s", o.LatencyFor))
	}
	if o.Sample != 0 && o.Sample < time.Millisecond {
		faults = append(faults, fmt.Errorf("sample is %v; at least 1ms", o.Sample))
	}
	return errors.Join(faults...)
}

// Suite is one group of measurements.
type Suite struct {
	Name, About string
	run         func(context.Context, *run) error
	Named       bool // runs only where it is named
	Compares    bool // holds results to those of peers
}

// Suites lists all, in the order in which they run.
func Suites() []Suite {
	return []Suite{
		{"limit", "what this machine can do at best: multiply-adds by level, memory, TCP on loopback", limitSuite, false, false},
		{"score", "rows/s in process, batch 1 to 8192, next to ONNX Runtime, PyTorch and the FMA peak", scoreSuite, false, true},
		{"decode", "JSON records of 18 fields to float32 rows, from memory, one core; next to encoding/json", decodeSuite, false, true},
		{"train", "samples/s, time to a loss, next to PyTorch and the Gorgonia engine", trainSuite, false, true},
		{"history", "a topic from offset zero to float32 columns; next to Python and to bare consumers", historySuite, false, true},
		{"stream", "Kafka to Kafka scoring, records/s and CPU; next to Kafka Streams, Python and bare clients", streamSuite, false, true},
		{"latency", "from when a record was due to its score consumed, 1,000 records/s; next to the same", latencySuite, false, false},
		{"swap", "latency while models swap 10 times a second; what was lost or came twice", swapSuite, false, false},
		{"memory", "resident memory of serve while models swap; 10 minutes, so only where it is named", memorySuite, true, false},
		{"gpu", "a GPU next to PyTorch: samples/s, rows/s, topic to model; lapwing-gpu, where it is named", gpuSuite, true, true},
	}
}

// run is one run of the bench.
type run struct {
	Options
	*Report
	failed []error // of our own subjects: a run that has any fails, once everything is measured
}

// Run measures what o asks for. A subject that is missing or fails is a row that says so; where it is one of ours, or a
// suite could not begin, the error says it again, beside the report. Results that do not agree with a peer's end the run:
// a fast wrong answer is worth nothing.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	start := time.Now()
	r := &run{Options: o.WithDefaults(), Report: &Report{Machine: machine(), Versions: map[string]string{}, Small: o.Smoke, When: start.UTC().Format(time.RFC3339)}}
	for _, s := range Suites() {
		if !slices.Contains(r.Suites, s.Name) {
			continue
		}
		fmt.Fprintf(r.Log, "%s: %s\n", s.Name, s.About)
		if err := s.run(ctx, r); err != nil {
			err = fmt.Errorf("bench %s: %w", s.Name, err)
			if ctx.Err() != nil || errors.Is(err, errDiffers) {
				return r.Report, err
			}
			r.Rows = append(r.Rows, Row{Suite: s.Name, Case: "all of it", Subject: Ours, Role: Ours, Error: err.Error()})
			r.failed = append(r.failed, err)
		}
	}
	r.Seconds = time.Since(start).Seconds()
	if r.Smoke { // figures of so short a run mean nothing
		r.Targets = nil
	}
	return r.Report, errors.Join(r.failed...)
}

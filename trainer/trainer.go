// Package trainer turns a topic's history into a fitted, judged and published model.
//
// Run walks one way: sample the history and infer what its fields are (unless a spec is given), read it all once
// into compact rows while gathering statistics, fit the autoencoder, score the whole history to find the threshold,
// publish. Nothing in the result depends on the clock, on threads or on the order in which partitions arrive:
// same seed, data and engine give the same bytes.
package trainer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

// Deps are what a training run works with.
type Deps struct {
	Client   *stream.Client
	Registry *registry.Registry // may be nil with DryRun
	Engine   kernels.Engine
	Log      *slog.Logger   // default slog.Default()
	Progress func(Progress) // may be nil; called from Run's goroutine, at most about ten times a second
}

// Options say what to train from and how. Begin with Defaults: a zero is a zero unless its comment says otherwise.
type Options struct {
	Topic string // the history; required
	Model string // name to publish under; required unless DryRun
	Alias string // alias that moves to the new version; "live" or another, "none" leaves all alone; default live

	Format    string      // "json", "csv"; "" finds out; default ""
	Header    []string    // column names of csv records that have no header; default none
	Delimiter string      // of csv records, one ASCII character; "" finds out; default ""
	Key       string      // field that names the thing a record is about, never a feature; default none
	Time      string      // field with the event time, never a feature; default none, the Kafka timestamp
	Exclude   []string    // fields that are no features; default none
	Label     string      // field with the truth, 0 or 1; judges, and is never a feature; default none
	Spec      *model.Spec // what fields are; nil infers it from a sample; default nil

	Rolling     int // mean and deviation of a key's last so many records as features, records; 0 takes the spec's; default 0
	RollingKeys int // keys of a partition whose last records are held, the least recent goes first, keys; default 100,000

	Detector     string  // DetectorBlend or DetectorAutoencoder; default DetectorBlend
	Trim         float64 // share of the history that is not learned from: the rows with fewest like them, 0 to 0.9; default 0.25
	Layers       []int   // hidden widths, the code among them, columns; nil chooses them from the columns; default nil
	Candidates   int     // networks to train, of which the best is taken, count; default 1
	Vary         string  // what they differ in: VarySeed, VaryRate or VaryWidth; default seed
	PerKey       bool    // a model for every key, named MODEL.KEY; default false
	MaxKeys      int     // keys that get one, those with the most rows, count; default 256
	Epochs       int     // passes over the training rows; 0 takes 3, or as many as make 1,000 steps; default 0
	BatchSize    int     // rows of a minibatch; default 256
	Activation   string  // of the hidden layers but the code, a name of kernels.Activations; default tanh
	Loss         string  // of the network, a name of kernels.Losses; default mse
	HuberDelta   float64 // residual from which the loss huber is a line, deviations of a column; default 1
	Optimizer    string  // "adam" or "sgd", which is plain; default adam
	LearningRate float64 // the highest, reached after the warm-up, 1/step; 0 takes the optimizer's, 0.003 or 0.3; default 0
	Patience     int     // evaluations without a better validation loss before stopping, count; default 10
	Seed         uint64  // of samples, weights and shuffling; default 1

	AlarmRate       float64 // share of the history that may score above the threshold, 0 to 0.5; default 0.0001
	AlarmsPerDay    float64 // scores above the threshold a day, in place of AlarmRate, count; 0 asks for AlarmRate; default 0
	ThresholdMethod string  // "quantile", "pot" (a fit of the tail) or "label"; default quantile
	ThresholdGoal   string  // with label: "f1", "recall=90%" or "precision=50%"; default f1

	MinRows     int     // fewer usable rows than this are refused, rows; default 100
	MaxMemory   int64   // rows and what belongs to each of them, bytes; more rows go to a file; default 1 GiB; never changes the result
	SpillDir    string  // where that file is, folder; "" takes the system's for temporary files; default ""
	MaxRejected float64 // share of records that may be undecodable, 0 to 1; default 0.05
	AllowLoss   float64 // share of offsets that retention may delete during the read, 0 to 1; default 0.05
	Threads     int     // decoding, fitting and judging, goroutines; 0 takes all CPUs; default 0; never changes the result

	Checkpoint time.Duration // between two checkpoints of the fit, in the topic lapwing.checkpoints; 0 writes none; default 60 s; never changes the result
	Resume     string        // go on from a checkpoint: Newest of the model, or a run's name; default "", from the beginning; never changes the result

	Selection                // which records are read; default all
	Ranges    []stream.Range // offsets to read, in place of a selection by time and partition; default nil
	DryRun    bool           // stop after spec and statistics, train and publish nothing; default false
	By        string         // who publishes, for the manifest; default the registry's
	KeepDir   string         // where a finished model that could not be published is left, folder; default "."
}

// Detectors.
const (
	DetectorBlend       = "blend"       // distance to prototypes, and whitened error of a narrow autoencoder
	DetectorAutoencoder = "autoencoder" // the latter alone
)

// Defaults are the options of a run that asks for nothing.
func Defaults() Options {
	return Options{
		Alias: "live", Detector: DetectorBlend, Trim: .25, BatchSize: 256, Activation: "tanh", Loss: "mse", HuberDelta: 1, Optimizer: "adam", Patience: 10, Seed: 1,
		Candidates: 1, Vary: VarySeed, MaxKeys: 256,
		RollingKeys: events.DefaultWindowKeys,
		AlarmRate:   1e-4, ThresholdMethod: model.ByQuantile, ThresholdGoal: model.GoalF1, MinRows: 100, MaxMemory: 1 << 30, MaxRejected: .05, AllowLoss: .05, KeepDir: ".",
		Checkpoint: time.Minute,
	}
}

// maxWeightBytes is what a protobuf message, and so an ONNX file, can hold.
const maxWeightBytes = 2 << 30

// Validate reports every fault at once.
func (o *Options) Validate() error {
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(o.Topic == "", "no topic given: where is the history?")
	if o.Model == "" {
		fault(!o.DryRun, "no model name given: under which name shall the model be published?")
	} else if err := registry.ValidName(o.Model); err != nil {
		faults = append(faults, err)
	}
	fault(o.Alias == "", `alias is empty: give one such as live, or "none"`)
	fault(!slices.Contains([]string{"", "json", "csv"}, o.Format), "format %q is not known: json or csv", o.Format)
	fault(o.Label != "" && o.Label == o.Key, "field %q cannot be both label and key", o.Label)
	fault(o.Rolling != 0 && (o.Rolling < model.MinRolling || o.Rolling > model.MaxRolling), "rolling is %d records; %d to %d, or 0 for none", o.Rolling, model.MinRolling, model.MaxRolling)
	fault(o.RollingKeys < 1, "rolling keys is %d; 1 or more", o.RollingKeys)
	fault(!slices.Contains([]string{DetectorBlend, DetectorAutoencoder}, o.Detector), "detector %q is not known: %s or %s", o.Detector, DetectorBlend, DetectorAutoencoder)
	fault(!(o.Trim >= 0 && o.Trim <= .9), "trim is %v; a share from 0 to 0.9", o.Trim)
	for i, w := range o.Layers {
		fault(w < 1 || w > kernels.MaxWidth, "layer %d of %v has width %d; widths are 1 to %d", i+1, o.Layers, w, kernels.MaxWidth)
	}
	if bytes := weightBytes(o.Layers); bytes > maxWeightBytes {
		faults = append(faults, weightError(o.Layers, bytes))
	}
	o.validateCandidates(fault)
	fault(o.Epochs < 0, "epochs is %d; 0 or more", o.Epochs)
	fault(o.BatchSize < 1, "batch size is %d rows; 1 or more", o.BatchSize)
	_, named := o.vocabulary()
	faults = append(faults, named...)
	fault(!(o.HuberDelta > 0 && o.HuberDelta <= 1e9), "huber delta is %v; above 0", o.HuberDelta)
	fault(!(o.LearningRate >= 0 && o.LearningRate <= 1e9), "learning rate is %v; above 0, or 0 for the optimizer's", o.LearningRate)
	fault(o.Patience < 1, "patience is %d evaluations; 1 or more", o.Patience)
	fault(!(o.AlarmRate >= 0 && o.AlarmRate <= .5), "alarm rate is %v; a share from 0 to 0.5", o.AlarmRate)
	fault(!(o.AlarmsPerDay >= 0 && o.AlarmsPerDay < 1e12), "alarms per day is %v; 0 or more", o.AlarmsPerDay)
	fault(!slices.Contains(ThresholdMethods, o.ThresholdMethod), "threshold method %q is not known: %s", o.ThresholdMethod, strings.Join(ThresholdMethods, ", "))
	fault(o.ThresholdMethod == model.ByLabel && o.Label == "", "a threshold by label is chosen on known truth; name the field that holds it (label)")
	fault(o.ThresholdMethod == model.ByLabel && o.AlarmsPerDay > 0, "alarms per day and a threshold by label cannot both be met: ask for one")
	fault(o.ThresholdMethod == model.ByTail && o.AlarmsPerDay == 0 && o.AlarmRate == 0, "a fit of the tail takes an alarm rate above 0")
	if _, err := model.ParseGoal(o.ThresholdGoal); err != nil {
		faults = append(faults, fmt.Errorf("threshold %w", err))
	}
	fault(o.MinRows < 1, "min rows is %d; 1 or more", o.MinRows)
	fault(o.MaxMemory < 1, "max memory is %d bytes; 1 or more", o.MaxMemory)
	fault(!(o.MaxRejected >= 0 && o.MaxRejected <= 1), "max rejected is %v; a share from 0 to 1", o.MaxRejected)
	fault(!(o.AllowLoss >= 0 && o.AllowLoss <= 1), "allowed loss is %v; a share from 0 to 1", o.AllowLoss)
	_, selection := o.Selection.parse()
	faults = append(faults, selection...)
	whole := o.Selection
	whole.Sample, whole.Where = "", ""
	fault(o.Ranges != nil && whole != (Selection{}), "offsets to read are given, and a selection by time or partition too: give one of them")
	fault(o.Checkpoint < 0, "checkpoint is every %v; a time above 0, or 0 for none", o.Checkpoint)
	fault(o.Resume != "" && o.DryRun, "a dry run has no checkpoint to go on from")
	fault(o.Threads < 0, "threads is %d; 0 or more", o.Threads)
	return errors.Join(faults...)
}

// Progress says where a run stands.
type Progress struct {
	Stage            string // "read", "trim", "fit", "judge", "publish"; with a model for every key "read", "keys", "publish"
	Records          int64  // read or judged so far
	TotalRecords     int64  // offsets in the ranges while reading: an upper bound
	RecordsPerSecond float64
	Epoch, Epochs    int
	Train            float64 // loss, mean since the last evaluation
	Validation       float64 // loss at the last evaluation
	SamplesPerSecond float64
	Done             float64       // share of this stage, 0 to 1; a fit may end sooner, when its loss no longer falls
	Left             time.Duration // of this stage, right within a fifth of it after its first tenth; 0 = not known yet
	Candidates       []Candidate   // where several are trained: as far as they have come; valid during the call
	Running          int           // of those, how many are still learning
	Leader           string        // which of them has the lowest validation loss, Validation

	Partitions []PartitionProgress // while reading, ascending; valid during the call
}

// PartitionProgress is how far a partition has been read.
type PartitionProgress struct {
	stream.Range
	At int64 // the offset that comes next; To when it is done
}

// Done is the share of its offsets that have been passed.
func (p *PartitionProgress) Done() float64 {
	if p.From >= p.To {
		return 1
	}
	return float64(p.At-p.From) / float64(p.To-p.From)
}

// progressEvery keeps reports to about ten a second.
const progressEvery = 100 * time.Millisecond

// job is one run.
type job struct {
	Deps
	Options
	sampler  *sampler      // nil: every record
	where    *events.Where // nil: every record
	saw      []int64       // records that had each of where's fields
	reported time.Time
	key      string // whose history this is, where every key has a model

	checkpoints *checkpoints // nil: none are written
	resumed     *checkpoint  // nil: from the beginning
}

// report hands progress on, at most every progressEvery unless last.
func (j *job) report(p Progress, last bool) {
	if j.Progress != nil && (last || j.due()) {
		j.reported = time.Now()
		j.Deps.Progress(p)
	}
}

// due tells whether somebody waits for a report.
func (j *job) due() bool { return j.Progress != nil && time.Since(j.reported) >= progressEvery }

// Run trains one model. It returns a report also with ErrOvertaken and other failures to publish, where the model
// is finished and kept in a file. When ctx ends, nothing has been published.
func Run(ctx context.Context, d Deps, o Options) (*Report, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Threads == 0 {
		o.Threads = runtime.GOMAXPROCS(0)
	}
	if d.Log == nil {
		d.Log = slog.Default()
	}
	j := &job{Deps: d, Options: o}
	r := &Report{Topic: o.Topic, Name: o.Model, Alias: o.Alias}

	if err := j.prepare(ctx); err != nil {
		return nil, j.leave(ctx, err)
	}
	report, err := j.run(ctx, r)
	if err != nil && report == nil {
		return nil, j.leave(ctx, err)
	}
	return report, err
}

// run is Run once it is known where the run begins. It returns no report where nothing of the run is left.
func (j *job) run(ctx context.Context, r *Report) (*Report, error) {
	started := time.Now()
	h, err := j.read(ctx, r)
	if h != nil {
		defer h.store.close()
		r.Spilled = h.store.spilled()
	}
	if err != nil {
		return nil, err
	}
	r.Seconds.Read = time.Since(started).Seconds()
	notes := slices.Clone(r.Notes)
	columns, err := j.columns(h, r)
	if err != nil || j.DryRun {
		return r, err
	}
	if j.PerKey {
		err := j.perKey(ctx, h, r, notes)
		if err != nil && !r.Published {
			return nil, err
		}
		return r, err
	}

	if err := j.askable(h, r); err != nil {
		return nil, err
	}

	started = time.Now()
	fitted, err := j.fit(ctx, h, columns, r)
	if err != nil {
		return nil, err
	}
	r.Seconds.Fit = time.Since(started).Seconds()
	r.Layers, r.Steps, r.SamplesPerSecond, r.Candidates = fitted.layers, fitted.steps, fitted.samplesPerSecond, fitted.candidates

	started = time.Now()
	if err := j.judge(ctx, h, fitted, r); err != nil {
		return nil, err
	}
	r.Seconds.Judge = time.Since(started).Seconds()

	started = time.Now()
	err = j.publish(ctx, r)
	r.Seconds.Publish = time.Since(started).Seconds()
	if err != nil && r.Kept == "" && ctx.Err() != nil {
		return nil, err
	}
	if err == nil {
		j.checkpoints.clear(ctx, j)
	}
	return r, err
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/server"
	"github.com/lapwing-stream/lapwing/trainer"
)

type trainFlags struct {
	topic, model, alias string
	format, key, time   string
	label, spec         string
	header, exclude     []string
	dryRun              bool
	resume              string
	trainer.Selection
}

func (a *app) trainCommand() *cobra.Command {
	var o trainFlags
	cmd := &cobra.Command{
		Use: "train", Short: "Learn a model from a topic's history and publish it", GroupID: groupRun,
		Long: `Reads the topic from its first record to the end found at the start, learns what is normal, and
publishes the model to the model topic. The alias live moves to it, so a running scorer takes it
at once. Ends by printing the lines that serve and watch it.

--from, --until, --last and --partitions read part of the topic, by the records' Kafka timestamps
or by offsets; --where leaves out records by what is in them, and --sample draws evenly from the
rest.

What the fields are is inferred from the history; --dry-run shows it as a feature spec, which can
be edited and given back with --spec. A field that holds the truth is named with --label: it
judges the model, and is never a feature.

What was learned so far is kept in the topic lapwing.checkpoints every minute, and when training is
interrupted. --resume with the same flags goes on from there, on this machine or another, and gives
the model that an unbroken run would have given, byte for byte.

--candidates trains several networks over one read of the history and publishes the best, by the
criterion that is printed; --per-key makes a model for every key, NAME.KEY, and leaves no
checkpoints.`,
		Example: `  lapwing train --topic cars --model cars
  lapwing train --topic payments --model payments --label Class --exclude id
  lapwing train --topic cars --dry-run > spec.yaml
  lapwing train --topic cars --model cars --spec spec.yaml     # as it was edited
  lapwing train --topic cars --model cars --last 30d --sample 1000000
  lapwing train --topic cars --model cars --where 'event.speed > 0 && event.model == "M3"'
  lapwing train --topic cars --model cars --from 2026-11-01 --until 2026-11-15T06:00+01:00
  lapwing train --topic cars --model cars --from 0:1500000,1:1480000 --until 0:2500000,1:2480000
  lapwing train --topic cars --model cars --alias none --layers 14,7,14 --seed 2
  lapwing train --topic cars --model cars --candidates 8               # the best of eight seeds
  lapwing train --topic cars --model cars --candidates 5 --vary width
  lapwing train --topic cars --model cars --key car --per-key          # cars.c1, cars.c2, …
  lapwing train --topic cars --model cars --resume             # after an interruption`,
		Args: args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			need := []string{"topic", "model"}
			if o.dryRun {
				need = need[:1]
			}
			if err := required(cmd, need...); err != nil {
				return err
			}
			return a.train(cmd, &o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.topic, "topic", "", "`TOPIC` with the history; required")
	f.StringVar(&o.model, "model", "", "`NAME` to publish under; required, but for --dry-run")
	f.StringVar(&o.alias, "alias", "live", "`ALIAS` that moves to the new version; none leaves all alone")
	f.StringVar(&o.label, "label", "", "`FIELD` with the truth, 0 or 1; judges, and is never a feature")
	f.StringSliceVar(&o.exclude, "exclude", nil, "`FIELDS` that are no features, parted by commas")
	f.StringVar(&o.key, "key", "", "`FIELD` that names what a record is about; never a feature")
	f.StringVar(&o.time, "time", "", "`FIELD` with the event time; empty: the record's Kafka timestamp")
	f.StringVar(&o.format, "format", "", "how records are written, `json|csv`; empty: found from the records")
	f.StringSliceVar(&o.header, "header", nil, "`NAMES` of the columns of CSV records without a header")
	f.StringVar(&o.spec, "spec", "", "feature spec to use in place of inference, a `FILE` as --dry-run prints it")
	f.BoolVar(&o.dryRun, "dry-run", false, "print the feature spec and what was found; train and publish nothing")
	f.StringVar(&o.resume, "resume", "", "go on from the newest checkpoint of this model, or from that of `RUN`; where there is none, begin at the beginning")
	f.Lookup("resume").NoOptDefVal = trainer.Newest
	addPartFlags(f, &o.Selection)
	f.StringVar(&o.Sample, "sample", "", "train on this many records, `NUMBER|SHARE` such as 100000 or 5%, drawn evenly over what is read")
	a.trainSettings(cmd)
	a.jsonFlag(f, "end with one JSON object in place of the report")
	return cmd
}

// addSelectionFlags adds the flags that say which part of a topic is scored; of train, from, until and last are settings.
func addSelectionFlags(f *pflag.FlagSet, s *trainer.Selection) {
	f.StringVar(&s.From, "from", "", "begin at the first record of this `TIME|OFFSETS` or later, such as 2026-11-01 or 2026-11-01T14:00+01:00, UTC without an offset; or at offsets by partition, such as 0:1500,1-5:900; earliest: all that is kept")
	f.StringVar(&s.Until, "until", "", "end before the first record of this `TIME|OFFSETS` or later; end, or empty: the end found at the start")
	f.Var((*durationFlag)(&s.Last), "last", "begin this `DURATION`, such as 30d or 12h, before --until or the topic's latest record")
	addPartFlags(f, s)
}

// addPartFlags adds those that say which records of a range are read.
func addPartFlags(f *pflag.FlagSet, s *trainer.Selection) {
	f.StringVar(&s.Where, "where", "", "read only records for which `CONDITION` holds, such as 'event.speed > 0 && event.model == \"M3\"'")
	f.StringVar(&s.Partitions, "partitions", "", "read only these partitions, `NUMBERS` such as 0,3,5-7")
}

// durationFlag is a duration that may be in days.
type durationFlag time.Duration

func (d *durationFlag) String() string {
	if *d == 0 {
		return ""
	}
	return formatDuration(time.Duration(*d))
}
func (d *durationFlag) Type() string { return "days" }
func (d *durationFlag) Set(text string) error {
	v, err := parseDuration(text)
	if err != nil || v <= 0 {
		return fmt.Errorf("%q is not a duration above 0, such as 30d, 12h or 90m", text)
	}
	*d = durationFlag(v)
	return nil
}

// settleBeginning: from and last both say where reading begins, so one that is given nearer to the command line stands in for the
// other: --from for a file's last.
func (e *effective) settleBeginning() {
	rank := func(path string) int {
		switch origin := e.origin[path]; {
		case origin == "":
			return 0
		case strings.HasPrefix(origin, "--"):
			return 3
		case strings.HasPrefix(origin, envPrefix):
			return 2
		}
		return 1
	}
	switch from, last := rank("train.from"), rank("train.last"); {
	case from > last:
		e.Train.Last = 0
	case last > from:
		e.Train.From = ""
	}
}

// trainOptions joins what the flags and the configuration say.
func trainOptions(o *trainFlags, c *TrainConfig) (trainer.Options, error) {
	t := trainer.Defaults()
	t.Topic, t.Model, t.Alias = o.topic, o.model, o.alias
	t.Format, t.Header, t.Key, t.Time, t.Label, t.Exclude = o.format, o.header, o.key, o.time, o.label, o.exclude
	t.Detector, t.Trim = c.Detector, float64(c.Trim)
	t.Layers, t.Epochs, t.BatchSize, t.LearningRate, t.Patience, t.Seed = c.Layers, c.Epochs, c.BatchSize, c.LearningRate, c.Patience, c.Seed
	t.Activation, t.Loss, t.HuberDelta, t.Optimizer = c.Activation, c.Loss, c.HuberDelta, c.Optimizer
	t.AlarmRate, t.MinRows, t.MaxMemory, t.MaxRejected, t.AllowLoss, t.Threads = float64(c.AlarmRate), c.MinRows, int64(c.MaxMemory), float64(c.MaxRejected), float64(c.AllowLoss), c.Threads
	t.AlarmsPerDay, t.ThresholdMethod, t.ThresholdGoal = c.AlarmsPerDay, c.ThresholdMethod, c.ThresholdGoal
	t.Rolling, t.RollingKeys = c.Rolling, c.RollingKeys
	t.Candidates, t.Vary, t.PerKey, t.MaxKeys = c.Candidates, c.Vary, c.PerKey, c.MaxKeys
	t.SpillDir, t.DryRun, t.Selection = c.SpillDir, o.dryRun, o.Selection
	t.From, t.Until, t.Last = c.From, c.Until, c.Last
	t.Checkpoint, t.Resume = c.Checkpoint, o.resume
	if o.spec != "" {
		spec, err := events.ReadSpec(o.spec)
		if err != nil {
			return t, fileFault(o.spec, err)
		}
		t.Spec = &spec
	}
	return t, mistyped(t.Validate())
}

// fileFault words an error about a file: what, with the file as where.
func fileFault(name string, err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return &fault{what: "the file cannot be opened: " + pe.Err.Error(), where: pe.Path, next: "check the name", cause: err}
	}
	return err
}

func (a *app) train(cmd *cobra.Command, o *trainFlags) error {
	ctx := cmd.Context()
	e, err := a.configure(cmd)
	if err != nil {
		return err
	}
	e.settleBeginning()
	defer a.boundTraining(e)()
	t, err := trainOptions(o, &e.Train)
	if err != nil {
		return err
	}
	engine, release, err := a.engine(e.Train.Engine, e.GPU)
	if err != nil {
		return err
	}
	defer release()
	client, err := a.connect(ctx, e)
	if err != nil {
		return err
	}
	defer client.Close()
	stop, err := server.Profile(a.log, profileOptions(&e.Config))
	if err != nil {
		return err
	}
	defer stop()
	progress := a.startProgress(o.model, o.topic, !a.json && !o.dryRun)
	if d, ok := engine.(kernels.OnDevice); ok {
		progress.device = d.DeviceStatus
	}
	show := func(p trainer.Progress) {
		if p.Stage == "fit" || p.Stage == "keys" { // it did not fail at once: what is said of checkpoints must be seen while it can be helped
			a.logs.release()
		}
		progress.show(p)
	}
	report, err := trainer.Run(ctx, trainer.Deps{
		Client: client, Registry: a.registry(client, e), Engine: engine, Log: a.log, Progress: show,
	}, t)
	progress.end(err == nil)
	if err != nil {
		if ctx.Err() != nil && report == nil {
			return interrupted(ctx, &t, err)
		}
		return err
	}
	next := a.nextLines(cmd, o, report.Manifest)
	if t.PerKey {
		next = a.nextKeyLines(cmd, o, report)
	}
	switch {
	case a.json:
		return writeTrainJSON(a.term, report, engineLine(engine), next)
	case o.dryRun:
		return writeDryRun(a.term, report)
	}
	var text strings.Builder
	if err := report.Write(&text); err != nil {
		return err
	}
	a.printf("%s", a.term.wrap(text.String(), 14))
	a.printCandidates(report.Candidates)
	if t.PerKey {
		a.printKeys(report)
	}
	a.printf("%-11s %s on %s\n", "took", seconds(time.Duration((report.Seconds.Read+report.Seconds.Fit+report.Seconds.Judge+report.Seconds.Publish)*float64(time.Second))), engineLine(engine))
	if len(next) > 0 {
		a.printf("\nnext:\n")
	}
	for _, line := range next {
		a.printf("  %s\n", a.term.paint(bold, line))
	}
	return nil
}

// interrupted words the end of a training that was called off, and whether another can go on from there.
func interrupted(ctx context.Context, t *trainer.Options, err error) error {
	f := &fault{what: "interrupted: nothing was published", where: "topic " + t.Topic, cause: ctx.Err(), code: exitInterrupted}
	var left *trainer.InterruptedError
	switch {
	case t.PerKey:
		f.what += ", and a run with a model for every key leaves no checkpoint"
	case !errors.As(err, &left): // none was asked for
	case left.Run == "" && left.Unwritten == nil:
		f.what += ", and no checkpoint was written"
	case left.Run == "":
		f.what += ", and no checkpoint could be written"
	default:
		f.what += fmt.Sprintf("; a checkpoint holds step %s of %s", count(int64(left.Step)), count(int64(left.Steps)))
		f.next = "the same command with --resume goes on from there, for 7 days"
	}
	if left != nil && left.Unwritten != nil {
		f.where += ": the last checkpoint could not be written: " + explain(left.Unwritten).what
	}
	return f
}

// nextLines are the commands to type after a training, exactly as they work here.
func (a *app) nextLines(cmd *cobra.Command, o *trainFlags, made registry.Manifest) []string {
	var same []string
	for _, name := range []string{"config", "brokers", "models-topic"} {
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed {
			same = append(same, "--"+name, shellWord(f.Value.String()))
		}
	}
	for _, p := range a.properties {
		if key, _, _ := strings.Cut(p, "="); secretProperty(key) {
			p = key + "=…"
		}
		same = append(same, "--property", shellWord(p))
	}
	line := func(words ...string) string { return strings.Join(append(words, same...), " ") }
	var lines []string
	serve := []string{"lapwing serve", "--topic", shellWord(o.topic), "--model", shellWord(o.model)}
	switch o.alias {
	case "live":
	case "none": // nothing serves the version before an alias means it
		lines = append(lines, line("lapwing models move", shellWord(o.model+"@live"), strconv.Itoa(made.Version)))
	default:
		serve = append(serve, "--alias", shellWord(o.alias))
	}
	if o.Where != "" { // what the model has not seen it should not score
		serve = append(serve, "--where", shellWord(o.Where))
	}
	return append(lines, line(append(serve, "--start", "after-training")...), line("lapwing tail alerts --topic", shellWord(o.topic)))
}

// shellWord quotes a word for a POSIX shell where it needs it.
func shellWord(s string) string {
	plain := s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-_./:@,=+%", r))
	}) < 0
	if plain {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// writeDryRun prints a spec that can be edited and given back; what was found stands above it as comments.
func writeDryRun(w io.Writer, r *trainer.Report) error {
	var text strings.Builder
	if err := r.Write(&text); err != nil {
		return err
	}
	for line := range strings.Lines(text.String()) {
		if _, err := fmt.Fprintf(w, "# %s", line); err != nil {
			return err
		}
	}
	return events.WriteSpec(w, r.Spec, r.Notes)
}

// writeTrainJSON is the report as one object.
func writeTrainJSON(w io.Writer, r *trainer.Report, engine string, next []string) error {
	object := map[string]any{
		"topic": r.Topic, "model": r.Name, "cluster": r.Cluster, "engine": engine, "published": r.Published,
		"spec": r.Spec, "inferred": r.Inferred, "notes": r.Notes, "asked": r.Asked, "partitions": r.Ranges, "outside": r.Outside, "rows": r.Rows, "left_out": r.LeftOut, "partial": r.Partial,
		"seconds":            r.Seconds.Read + r.Seconds.Fit + r.Seconds.Judge + r.Seconds.Publish,
		"records_per_second": r.RecordsPerSecond, "spilled_bytes": r.Spilled, "records_per_day": r.RecordsPerDay, "span": r.Span, "timeline": r.Timeline,
	}
	if r.Model != nil {
		for k, v := range map[string]any{
			"layers": r.Layers, "steps": r.Steps, "validation_loss": r.ValidationLoss, "curve": r.Curve, "threshold": r.Threshold,
			"rate_asked": r.RateAsked, "rate_used": r.RateUsed, "above": r.Above, "share_above": r.ShareAbove, "ties": r.Ties,
			"choice": r.Choice, "alarms_per_day": r.AlarmsPerDay(), "suspicious": r.Suspicious, "histogram": trainer.Histogram(r.Model), "unexplained": r.Worst, "hours_of_week": r.HoursOfWeek,
			"judgement": r.Judgement, "warnings": r.Warnings, "samples_per_second": r.SamplesPerSecond, "next": next,
		} {
			object[k] = v
		}
	}
	if r.Candidates != nil {
		object["candidates"] = r.Candidates
	}
	if r.Keys != nil {
		object["keys"], object["without_key"], object["next"] = keysJSON(r), r.WithoutKey, next
	}
	if r.Published && r.Keys == nil {
		object["version"], object["digest"], object["bytes"], object["alias"] = r.Manifest.Version, r.Manifest.Digest, r.Manifest.Bytes, r.Alias
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(object)
}

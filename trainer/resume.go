package trainer

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lapwing-stream/lapwing/stream"
)

// Newest as Options.Resume is the newest run of the model that left a checkpoint; where there is none, the run begins at the beginning.
const Newest = "newest"

// What ends a run that was to go on from a checkpoint.
var (
	ErrNoCheckpoint = errors.New("no checkpoint")
	ErrOtherRun     = errors.New("the checkpoint is of another run")
)

// Kept is what a run leaves that ends before its model is published.
type Kept struct {
	Run         string // whose checkpoint another run can go on from; "" where there is none
	Step, Steps int    // that it has made, of those planned at most
	Unwritten   error  // why what was learned last is in no checkpoint; nil where it is, and where nothing was learned yet or none is kept
}

func (k Kept) String() string {
	text := "no checkpoint was written"
	if k.Run != "" {
		text = fmt.Sprintf("a checkpoint holds step %d of %d", k.Step, k.Steps)
	}
	if k.Unwritten != nil {
		text += fmt.Sprintf(" (the last one could not be written: %v)", k.Unwritten)
	}
	return text
}

// InterruptedError is what a run that writes checkpoints returns when its context ends before the model is published.
type InterruptedError struct {
	Kept
	Cause error
}

func (e *InterruptedError) Error() string {
	return "interrupted: nothing was published; " + e.Kept.String()
}
func (e *InterruptedError) Unwrap() error { return e.Cause }

// DeviceError is what a run ends with whose device failed, or is not to be trusted, or whose rows could not be read for it, once it had begun to learn. What it had come to before
// is in host memory, and so in a checkpoint.
type DeviceError struct {
	Kept
	Cause error
}

func (e *DeviceError) Error() string { return e.Cause.Error() + "; " + e.Kept.String() }
func (e *DeviceError) Unwrap() error { return e.Cause }

// Hint is the cause's, and how to go on.
func (e *DeviceError) Hint() string {
	var hints []string
	var cause interface{ Hint() string }
	if errors.As(e.Cause, &cause) {
		hints = append(hints, cause.Hint())
	}
	if e.Run != "" {
		hints = append(hints, "the same command with --resume goes on from there, on this GPU or another, for 7 days")
	}
	return strings.Join(hints, "; ")
}

// prepare makes the run ready to write checkpoints, and where one is to be gone on from, finds it before anything is read.
func (j *job) prepare(ctx context.Context) error {
	if j.DryRun {
		return nil
	}
	if j.PerKey {
		if j.Resume == Newest {
			j.Log.Warn("a run with a model for every key leaves no checkpoint: training begins at the beginning", "model", j.Model)
		}
		return nil
	}
	run, slot := newRun(), 0
	written := map[string]bool{}
	if j.Resume != "" {
		found, err := j.find(ctx)
		if err != nil {
			return err
		}
		at := 0
		if j.Resume != Newest {
			at = slices.IndexFunc(found, func(f *foundRun) bool { return f.run == j.Resume })
		}
		switch {
		case at >= 0 && at < len(found):
			f := found[at]
			data, from, err := f.whole(j.Model)
			if err == nil {
				j.resumed, err = decodeCheckpoint(data)
			}
			if err != nil {
				return &InputError{What: fmt.Sprintf("the checkpoint of run %s cannot be used: %v", f.run, err), Place: "model " + j.Model + ", topic " + CheckpointTopic, Next: "train without --resume: the same seed and data give the same model", Kind: ErrNoCheckpoint}
			}
			run, slot = f.run, (from+1)%slots
			for key := range f.values {
				written[key] = true
			}
			if err := j.fits(ctx); err != nil {
				return err
			}
			j.Log.Info("going on from a checkpoint", "model", j.Model, "run", run, "step", j.resumed.State.Step, "steps", j.resumed.Steps)
		case j.Resume == Newest:
			j.Log.Warn("no checkpoint of this model: training begins at the beginning", "model", j.Model, "topic", CheckpointTopic)
		default:
			return &InputError{What: fmt.Sprintf("run %s left no checkpoint", j.Resume), Place: "model " + j.Model + ", topic " + CheckpointTopic, Kind: ErrNoCheckpoint,
				Next: "take the newest with --resume alone, or train without it; checkpoints go when their model is published, and after 7 days"}
		}
	}
	if j.Checkpoint > 0 || j.resumed != nil {
		j.checkpoints = &checkpoints{client: j.Client, model: j.Model, run: run, every: j.Checkpoint, slot: slot, written: written, at: time.Now()}
		if j.Checkpoint == 0 {
			j.checkpoints.every = never
		}
	}
	return nil
}

// fits refuses a checkpoint whose result another run would not give.
func (j *job) fits(ctx context.Context) error {
	c := j.resumed
	place := "model " + j.Model + ", topic " + j.Topic
	here, err := j.resultSettings()
	if err != nil {
		return err
	}
	if d := differences(here, c.Settings); len(d) > 0 {
		return &InputError{What: "the checkpoint was made with other settings: " + strings.Join(d, "; "), Place: place, Kind: ErrOtherRun,
			Next: "give the settings of that run, or train without --resume"}
	}
	cluster, err := j.Client.ClusterID(ctx)
	if err != nil {
		return err
	}
	if cluster != c.Cluster {
		return &InputError{What: fmt.Sprintf("the checkpoint is of cluster %s, and this is %s", c.Cluster, cluster), Place: place, Kind: ErrOtherRun, Next: "train without --resume"}
	}
	now, err := j.Client.Watermarks(ctx, j.Topic)
	if err != nil {
		return err
	}
	for _, r := range c.Ranges {
		if r.From >= r.To {
			continue
		}
		i := slices.IndexFunc(now, func(n stream.Range) bool { return n.Partition == r.Partition })
		switch {
		case i < 0 || now[i].To < r.To:
			return &InputError{What: fmt.Sprintf("partition %d ends before offset %d, to which the checkpoint's run read: the topic was likely recreated", r.Partition, r.To), Place: place, Kind: ErrOtherRun, Next: "train without --resume"}
		case now[i].From > r.From:
			return &InputError{What: fmt.Sprintf("retention has deleted offsets %d to %d of partition %d, which the checkpoint's run had read", r.From, min(now[i].From, r.To)-1, r.Partition), Place: place, Kind: ErrLost,
				Next: "train without --resume, on what is left; lengthen the topic's retention (retention.ms) for the next time"}
		}
	}
	return nil
}

// start makes a run of so many steps ready to write checkpoints, or refuses one that would go on with another history.
func (j *job) start(total int, r *Report, h *history, l *lesson) error {
	made := madeOf(h.n, l.train, l.held)
	if c := j.resumed; c != nil && (c.History != made || c.Steps != total) {
		return &InputError{What: "the history is not what the checkpoint's run read: compaction or retention has taken records since", Place: "model " + j.Model + ", topic " + j.Topic, Kind: ErrOtherRun, Next: "train without --resume"}
	}
	if j.checkpoints != nil {
		settings, err := j.resultSettings()
		if err != nil {
			return err
		}
		j.checkpoints.plan = checkpoint{Model: j.Model, Cluster: r.Cluster, Ranges: h.ranges(), From: r.From, Until: r.Until, Settings: settings, History: made, Steps: total}
		j.checkpoints.at = time.Now()
	}
	return nil
}

func (j *job) misfit(err error) error {
	return &InputError{What: fmt.Sprintf("the checkpoint does not fit the network: %v", err), Place: "model " + j.Model + ", topic " + j.Topic, Kind: ErrOtherRun, Next: "train without --resume"}
}

// madeOf is the digest of what a run makes of the history before it learns: how many rows, which of them train, and the validation's values.
func madeOf(rows int, train *rowSet, held []float32) string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%d ", rows)
	binary.Write(sum, binary.LittleEndian, train.words)
	sum.Write(bytesOf(held))
	return hex.EncodeToString(sum.Sum(nil))
}

// leave words the end of a run that left nothing, and writes a last checkpoint: its context has ended, or its device failed, or what
// came after the learning. While the history is read there is nothing to keep: an earlier checkpoint, where the run began from one, still
// stands.
func (j *job) leave(ctx context.Context, err error) error {
	c := j.checkpoints
	if c == nil && (j.Checkpoint == 0 || j.DryRun) {
		return err
	}
	kept := j.kept(ctx)
	if ctx.Err() != nil {
		return &InterruptedError{Kept: kept, Cause: err}
	}
	if failed := (*DeviceError)(nil); errors.As(err, &failed) {
		failed.Kept = kept
	} else if c != nil && c.wrote {
		j.Log.Warn("training failed; what it had learned before is in its last checkpoint", "topic", CheckpointTopic, "model", j.Model, "run", c.run, "step", c.step, "steps", c.plan.Steps)
	}
	return err
}

// kept is what the run leaves, written now where it can be.
func (j *job) kept(ctx context.Context) (k Kept) {
	c := j.checkpoints
	if c == nil {
		return k
	}
	if c.last != nil {
		k.Unwritten = c.write(context.WithoutCancel(ctx), c.last)
	}
	switch {
	case c.wrote:
		k.Run, k.Step, k.Steps = c.run, c.step, c.plan.Steps
	case j.resumed != nil:
		k.Run, k.Step, k.Steps = c.run, j.resumed.State.Step, j.resumed.Steps
	}
	return k
}

// ranges are the offsets that were read.
func (h *history) ranges() []stream.Range {
	out := make([]stream.Range, len(h.partitions))
	for i := range h.partitions {
		out[i] = h.partitions[i].Range
	}
	return out
}

package trainer

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lapwing-stream/lapwing/stream"
)

// CheckpointTopic is where runs keep what they can be continued from.
const CheckpointTopic = "lapwing.checkpoints"

// Newest as Options.Resume is the newest run of the model that left a checkpoint; where there is none, the run begins at the beginning.
const Newest = "newest"

// What ends a run that was to go on from a checkpoint.
var (
	ErrNoCheckpoint = errors.New("no checkpoint")
	ErrOtherRun     = errors.New("the checkpoint is of another run")
)

// InterruptedError ends a run that another can go on from.
type InterruptedError struct {
	Run         string
	Step, Steps int // that the checkpoint has, of those planned
	Cause       error
}

func (e *InterruptedError) Error() string {
	return fmt.Sprintf("a checkpoint holds step %d of %d", e.Step, e.Steps)
}
func (e *InterruptedError) Unwrap() error { return e.Cause }

const (
	checkpointPart = 512 << 10 // bytes of a record, as in the model topic
	checkpointMost = 8 << 30   // bytes that a manifest may claim: four times what an ONNX file holds
	// checkpointWait bounds a write: a broker that is away does not hold training up, and a machine that is being taken away gives 30 s.
	checkpointWait = 15 * time.Second
	slots          = 2 // in turn, so that one is whole while the other is written
)

// slotManifest says that a slot is whole. It is written after its parts.
type slotManifest struct {
	Format int    `json:"format"`
	Digest string `json:"digest"` // sha256 of the parts, hex
	Bytes  int64  `json:"bytes"`
	Parts  int    `json:"parts"`
	Step   int    `json:"step"`
	Steps  int    `json:"steps"`
}

// checkpoints writes those of one run.
type checkpoints struct {
	client     *stream.Client
	model, run string
	every      time.Duration
	plan       checkpoint // all but the state

	slot    int // the next to be written
	written map[string]bool
	at      time.Time // of the last one, or of the start
	ready   bool      // the topic is there
	failed  bool      // and it was said
	step    int       // of the last one that was written
	any     bool
}

func newRun() string {
	var b [4]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func slotKey(model, run string, slot int) string {
	return model + "/" + run + "/" + strconv.Itoa(slot)
}

// tick writes a checkpoint where one is due; nil writes none. A failure is said once: training is worth more than its checkpoints.
func (c *checkpoints) tick(ctx context.Context, j *job, d *descent) {
	if c == nil || time.Since(c.at) < c.every {
		return
	}
	c.at = time.Now()
	if err := c.write(ctx, d.save()); err != nil && ctx.Err() == nil && !c.failed {
		c.failed = true
		j.Log.Warn("a checkpoint could not be written; training goes on, and tries again", "topic", CheckpointTopic, "model", c.model, "run", c.run, "err", err)
	}
}

// write puts the state into the next slot.
func (c *checkpoints) write(ctx context.Context, s descentState) error {
	ctx, cancel := context.WithTimeout(ctx, checkpointWait)
	defer cancel()
	whole := c.plan
	whole.State = s
	data, err := whole.encode()
	if err != nil {
		return err
	}
	if !c.ready {
		if _, err := c.client.CreateTopic(ctx, stream.TopicSpec{
			Name: CheckpointTopic, Partitions: 1, Config: map[string]string{"cleanup.policy": "compact,delete", "retention.ms": strconv.FormatInt((7 * 24 * time.Hour).Milliseconds(), 10)},
		}); err != nil {
			return err
		}
		c.ready = true
	}
	sum := sha256.Sum256(data)
	m := slotManifest{Format: 1, Digest: hex.EncodeToString(sum[:]), Bytes: int64(len(data)), Step: s.Step, Steps: c.plan.Steps}
	key := slotKey(c.model, c.run, c.slot)
	var records []stream.Record
	for part := range slices.Chunk(data, checkpointPart) {
		records = append(records, c.record(key+"/"+strconv.Itoa(m.Parts), part))
		m.Parts++
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := c.send(ctx, append(records, c.record(key, text))); err != nil {
		return err
	}
	c.slot, c.step, c.any, c.failed = (c.slot+1)%slots, s.Step, true, false
	return nil
}

func (c *checkpoints) record(key string, value []byte) stream.Record {
	c.written[key] = true
	return stream.Record{Topic: CheckpointTopic, Key: []byte(key), Value: value, Time: time.Now().UnixMilli()}
}

func (c *checkpoints) send(ctx context.Context, records []stream.Record) error {
	p, err := c.client.Producer(ctx, stream.ProducerOptions{MaxQueued: 64})
	if err != nil {
		return err
	}
	err = p.Produce(ctx, records)
	return errors.Join(err, p.Close(ctx))
}

// clear takes the run's checkpoints away, once its model is published.
func (c *checkpoints) clear(ctx context.Context, j *job) {
	if c == nil || len(c.written) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkpointWait)
	defer cancel()
	var gone []stream.Record
	for key := range c.written {
		gone = append(gone, c.record(key, nil))
	}
	if err := c.send(ctx, gone); err != nil {
		j.Log.Warn("the checkpoints of a finished run could not be deleted; they go after 7 days", "topic", CheckpointTopic, "model", c.model, "run", c.run, "err", err)
	}
}

// foundRun is a run as the topic has it.
type foundRun struct {
	run    string
	last   int64 // offset of its newest manifest
	values map[string][]byte
	at     map[int]int64 // offset of each slot's manifest
}

// find reads the runs of the model from the topic, the newest first.
func (j *job) find(ctx context.Context) ([]*foundRun, error) {
	topics, err := j.Client.Topics(ctx)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(topics, func(t stream.TopicInfo) bool { return t.Name == CheckpointTopic }) {
		return nil, nil
	}
	ranges, err := j.Client.Watermarks(ctx, CheckpointTopic)
	if err != nil {
		return nil, err
	}
	runs := map[string]*foundRun{}
	err = j.Client.EachRecord(ctx, CheckpointTopic, ranges, func(r stream.Record) error {
		key := strings.Split(string(r.Key), "/")
		if len(key) < 3 || len(key) > 4 || key[0] != j.Model || len(r.Value) > 2*checkpointPart {
			return nil
		}
		slot, err := strconv.Atoi(key[2])
		if err != nil || slot < 0 || slot >= slots {
			return nil
		}
		f := runs[key[1]]
		if f == nil {
			f = &foundRun{run: key[1], last: -1, values: map[string][]byte{}, at: map[int]int64{}}
			runs[key[1]] = f
		}
		name := strings.Join(key, "/")
		if r.Value == nil {
			delete(f.values, name)
			if len(key) == 3 {
				delete(f.at, slot)
			}
			return nil
		}
		f.values[name] = slices.Clone(r.Value)
		if len(key) == 3 {
			f.at[slot], f.last = r.Offset, r.Offset
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var out []*foundRun
	for _, f := range runs {
		if len(f.at) > 0 {
			out = append(out, f)
		}
	}
	slices.SortFunc(out, func(a, b *foundRun) int { return int(b.last - a.last) })
	return out, nil
}

// whole is the newest slot whose parts have the digest that its manifest says.
func (f *foundRun) whole(model string) (data []byte, slot int, err error) {
	best := int64(-1)
	for k, at := range f.at {
		var m slotManifest
		key := slotKey(model, f.run, k)
		if e := json.Unmarshal(f.values[key], &m); e != nil || m.Format != 1 || m.Bytes < 0 || m.Bytes > checkpointMost {
			err = errors.Join(err, fmt.Errorf("slot %d has a manifest that cannot be read", k))
			continue
		}
		var parts []byte
		for i := range min(int64(m.Parts), m.Bytes/checkpointPart+1) {
			parts = append(parts, f.values[key+"/"+strconv.FormatInt(i, 10)]...)
		}
		if sum := sha256.Sum256(parts); hex.EncodeToString(sum[:]) != m.Digest {
			err = errors.Join(err, fmt.Errorf("slot %d is torn: its parts are not those that its manifest speaks of", k))
			continue
		}
		if at > best {
			best, data, slot = at, parts, k
		}
	}
	if best >= 0 {
		err = nil
	}
	return data, slot, err
}

// prepare makes the run ready to write checkpoints, and where one is to be gone on from, finds it before anything is read.
func (j *job) prepare(ctx context.Context) error {
	if j.DryRun {
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
			j.checkpoints.every = 1<<63 - 1
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

// start is where the descent starts: at the beginning, or where the checkpoint stands. made is what was made of the history.
func (j *job) start(d *descent, r *Report, ranges []stream.Range, made string) error {
	if c := j.resumed; c != nil {
		place := "model " + j.Model + ", topic " + j.Topic
		if c.History != made || c.Steps != d.total {
			return &InputError{What: "the history is not what the checkpoint's run read: compaction or retention has taken records since", Place: place, Kind: ErrOtherRun, Next: "train without --resume"}
		}
		if err := d.restore(c.State); err != nil {
			return &InputError{What: fmt.Sprintf("the checkpoint does not fit the network: %v", err), Place: place, Kind: ErrOtherRun, Next: "train without --resume"}
		}
	}
	if j.checkpoints != nil {
		settings, err := j.resultSettings()
		if err != nil {
			return err
		}
		j.checkpoints.plan = checkpoint{Model: j.Model, Cluster: r.Cluster, Ranges: ranges, From: r.From, Until: r.Until, Settings: settings, History: made, Steps: d.total}
		j.checkpoints.at = time.Now()
	}
	return nil
}

// madeOf is the digest of what the deterministic parts of a run made of the history: rows by number and kept, and the validation's values.
func madeOf(rows, kept int, held []float32) string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%d %d ", rows, kept)
	sum.Write(bytesOf(held))
	return hex.EncodeToString(sum.Sum(nil))
}

// interrupted writes a last checkpoint where the run's context has ended, and words the end.
func (j *job) interrupted(ctx context.Context, d *descent, err error) error {
	c := j.checkpoints
	if ctx.Err() == nil || c == nil || j.Checkpoint == 0 {
		return err
	}
	if !errors.Is(err, context.Cause(ctx)) {
		return err
	}
	if e := c.write(context.WithoutCancel(ctx), d.save()); e != nil {
		j.Log.Warn("a checkpoint could not be written", "topic", CheckpointTopic, "model", c.model, "run", c.run, "err", e)
	}
	return err
}

// leave words the end of a run whose context has ended, where another can go on from a checkpoint.
func (j *job) leave(ctx context.Context, err error) error {
	c := j.checkpoints
	if ctx.Err() == nil || c == nil || !c.any && j.resumed == nil {
		return err
	}
	e := &InterruptedError{Run: c.run, Step: c.step, Steps: c.plan.Steps, Cause: err}
	if !c.any {
		e.Step, e.Steps = j.resumed.State.Step, j.resumed.Steps
	}
	return e
}

// ranges are the offsets that were read.
func (h *history) ranges() []stream.Range {
	out := make([]stream.Range, len(h.partitions))
	for i := range h.partitions {
		out[i] = h.partitions[i].Range
	}
	return out
}

package trainer

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lapwing-stream/lapwing/stream"
)

// CheckpointTopic is where runs keep what they can be continued from.
const CheckpointTopic = "lapwing.checkpoints"

const (
	checkpointPart = 512 << 10 // bytes of a record, as in the model topic
	checkpointMost = 8 << 30   // bytes that a manifest may claim: four times what an ONNX file holds
	// checkpointWait bounds a write: a broker that is away does not hold training up, and a machine that is being taken away gives 30 s.
	checkpointWait = 15 * time.Second
	never          = time.Duration(math.MaxInt64)
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
	wrote   bool      // one, by this process
	step    int       // of it

	last *checkpoint // what the run came to, once it has learned or been called off
}

func newRun() string {
	var b [4]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func slotKey(model, run string, slot int) string {
	return model + "/" + run + "/" + strconv.Itoa(slot)
}

// now is a checkpoint of what fill puts into it.
func (c *checkpoints) now(fill func(*checkpoint)) *checkpoint {
	whole := c.plan
	fill(&whole)
	return &whole
}

// due tells whether tick would write one.
func (c *checkpoints) due() bool { return c != nil && time.Since(c.at) >= c.every }

// tick writes a checkpoint where one is due; nil writes none. A failure is said once: training is worth more than its checkpoints.
func (c *checkpoints) tick(ctx context.Context, j *job, fill func(*checkpoint)) {
	if !c.due() {
		return
	}
	c.at = time.Now()
	if err := c.write(ctx, c.now(fill)); err != nil && ctx.Err() == nil && !c.failed {
		c.failed = true
		j.Log.Warn("a checkpoint could not be written; training goes on, and tries again", "topic", CheckpointTopic, "model", c.model, "run", c.run, "err", err)
	}
}

// keep holds what the run came to, for one that is called off from here on, or whose device fails; err is what ended it.
func (c *checkpoints) keep(ctx context.Context, fill func(*checkpoint), err error) {
	if c == nil || c.every == never {
		return
	}
	calledOff := ctx.Err() != nil && errors.Is(err, context.Cause(ctx))
	if failed := (*DeviceError)(nil); err == nil || calledOff || errors.As(err, &failed) {
		c.last = c.now(fill)
	}
}

// write puts a checkpoint into the next slot.
func (c *checkpoints) write(ctx context.Context, whole *checkpoint) error {
	ctx, cancel := context.WithTimeout(ctx, checkpointWait)
	defer cancel()
	s := &whole.State
	data, err := whole.encode()
	if err != nil {
		return err
	}
	if !c.ready {
		if _, err := c.client.CreateTopic(ctx, stream.TopicSpec{
			Name: CheckpointTopic, Partitions: 1, Config: map[string]string{"cleanup.policy": "compact,delete", "retention.ms": strconv.FormatInt((7 * 24 * time.Hour).Milliseconds(), 10)},
		}); err != nil {
			// A client that may not create topics may well write to one that is there.
			if _, missing := c.client.Partitions(ctx, CheckpointTopic); missing != nil {
				return err
			}
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
	c.slot, c.step, c.wrote, c.failed = (c.slot+1)%slots, s.Step, true, false
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

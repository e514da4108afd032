//go:build e2e

package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// flow runs the commands as a user does, each a process of its own, against one broker, and counts what became of
// every record with another client library and another reading of JSON than Lapwing's own.
type flow struct {
	t       *testing.T
	ctx     context.Context
	addr    string
	dir     string
	suffix  string   // of names that must not be in use already
	environ []string // of the programs, in addition
	client  *kgo.Client

	everything bool // read also what was taken back, or is not committed yet
}

func newFlow(t *testing.T, addr string) *flow {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	f := &flow{t: t, ctx: ctx, addr: addr, dir: t.TempDir()}
	f.client = f.connect(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	return f
}

func (f *flow) connect(o ...kgo.Opt) *kgo.Client {
	f.t.Helper()
	if !f.everything {
		o = append(o, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	}
	c, err := kgo.NewClient(append(o, kgo.SeedBrokers(f.addr), kgo.MetadataMinAge(50*time.Millisecond))...)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(c.Close)
	return c
}

func (f *flow) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(f.ctx, lapwing(f.t), args...)
	cmd.Dir = f.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + f.dir, "LAPWING_KAFKA_BOOTSTRAP_SERVERS=" + f.addr, "LAPWING_HTTP=127.0.0.1:0"}
	cmd.Env = append(cmd.Env, f.environ...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	return cmd
}

// run runs a command that must succeed. What it prints last on stdout is one JSON object, decoded into v unless v is nil.
func (f *flow) run(v any, args ...string) {
	f.t.Helper()
	f.runTo(exitOK, v, args...)
}

// runTo runs a command that must end with this exit code.
func (f *flow) runTo(code int, v any, args ...string) {
	f.t.Helper()
	cmd := f.command(args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != code {
		f.t.Fatalf("lapwing %s: %v, want exit status %d\n%s", strings.Join(args, " "), err, code, errOut.String())
	}
	lastJSON(f.t, out.String(), v)
}

func lastJSON(t *testing.T, out string, v any) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if v == nil {
		return
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), v); err != nil {
		t.Fatalf("no JSON in the last line: %v\n%s", err, out)
	}
}

// scorer is a command in the background, most often `lapwing serve`.
type scorer struct {
	f        *flow
	cmd      *exec.Cmd
	out, err bytes.Buffer
	ended    chan error // closed after its one value
}

// served is what a serve says of itself when it ends.
type served struct {
	Streams []struct {
		RecordsIn  int64            `json:"records_in"`
		RecordsOut int64            `json:"records_out"`
		Bad        int64            `json:"bad"`
		BadBy      map[string]int64 `json:"bad_by"`
		Tombstones int64            `json:"tombstones"`
		Swaps      int64            `json:"swaps"`
		Restarts   int64            `json:"restarts"`
	} `json:"streams"`
}

func (f *flow) serve(args ...string) *scorer {
	f.t.Helper()
	s := f.start(append([]string{"serve", "--json"}, args...)...)
	f.t.Cleanup(func() {
		s.cmd.Process.Kill()
		for range s.ended {
		}
		if f.t.Failed() {
			f.t.Logf("serve wrote:\n%s", s.err.String())
		}
	})
	return s
}

// start starts a command in the background.
func (f *flow) start(args ...string) *scorer {
	f.t.Helper()
	s := &scorer{f: f, cmd: f.command(args...), ended: make(chan error, 1)}
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.err
	if err := s.cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	go func() {
		s.ended <- s.cmd.Wait()
		close(s.ended)
	}()
	return s
}

// stop sends SIGTERM, after which a serve drains, commits and exits 0.
func (s *scorer) stop() served {
	s.f.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.f.t.Fatal(err)
	}
	if err := <-s.ended; err != nil {
		s.f.t.Fatalf("serve ended with %v after SIGTERM\n%s", err, s.err.String())
	}
	var out served
	lastJSON(s.f.t, s.out.String(), &out)
	return out
}

// produce writes records where they say, in order, and fills in their offsets.
func (f *flow) produce(records ...*kgo.Record) {
	f.t.Helper()
	if err := f.client.ProduceSync(f.ctx, records...).FirstErr(); err != nil {
		f.t.Fatal(err)
	}
}

// place is where a record stands in the input.
type place struct {
	partition int32
	offset    int64
}

func (p place) String() string { return fmt.Sprintf("%d/%d", p.partition, p.offset) }

// ends gives the end offset of each partition of a topic, none where the topic is missing.
func (f *flow) ends(topic string) map[int32]int64 {
	f.t.Helper()
	meta := kmsg.NewPtrMetadataRequest()
	mt := kmsg.NewMetadataRequestTopic()
	mt.Topic = &topic
	meta.Topics = append(meta.Topics, mt)
	known, err := meta.RequestWith(f.ctx, f.client)
	if err != nil {
		f.t.Fatal(err)
	}
	list := kmsg.NewPtrListOffsetsRequest()
	lt := kmsg.NewListOffsetsRequestTopic()
	lt.Topic = topic
	for _, p := range known.Topics[0].Partitions {
		lp := kmsg.NewListOffsetsRequestTopicPartition()
		lp.Partition, lp.Timestamp = p.Partition, -1
		lt.Partitions = append(lt.Partitions, lp)
	}
	if len(lt.Partitions) == 0 {
		return nil
	}
	list.Topics = append(list.Topics, lt)
	answer, err := list.RequestWith(f.ctx, f.client)
	if err != nil {
		f.t.Fatal(err)
	}
	ends := map[int32]int64{}
	for _, t := range answer.Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode != 0 {
				f.t.Fatalf("end of %s/%d: error code %d", topic, p.Partition, p.ErrorCode)
			}
			ends[p.Partition] = p.Offset
		}
	}
	return ends
}

// all reads a topic from its beginning to its end as of now, by partition.
func (f *flow) all(topic string) map[int32][]*kgo.Record {
	f.t.Helper()
	ends := f.ends(topic)
	from := map[int32]kgo.Offset{}
	left := 0
	for p, end := range ends {
		if end > 0 {
			from[p] = kgo.NewOffset().At(0)
			left++
		}
	}
	out := map[int32][]*kgo.Record{}
	if left == 0 {
		return out
	}
	// Control records are asked for only to see that the end has come: the last offset may be a transaction's marker.
	c := f.connect(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}), kgo.KeepControlRecords())
	defer c.Close()
	for left > 0 {
		fetches := c.PollFetches(f.ctx)
		if err := fetches.Err(); err != nil {
			f.t.Fatalf("reading %s: %v", topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			end := ends[r.Partition]
			if r.Offset < end && !r.Attrs.IsControl() {
				out[r.Partition] = append(out[r.Partition], r)
			}
			if r.Offset == end-1 {
				left--
			}
		})
	}
	return out
}

// await returns once topic.scores and topic.dlq hold n records together.
func (f *flow) await(topic string, n int) {
	f.t.Helper()
	c := f.connect(kgo.ConsumeTopics(topic+".scores", topic+".dlq"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer c.Close()
	for seen := 0; seen < n; {
		fetches := c.PollFetches(f.ctx)
		if f.ctx.Err() != nil {
			f.t.Fatalf("%d of %d records of %s are scored or dead letters", seen, n, topic)
		}
		seen += fetches.NumRecords()
	}
}

// score is a record of a scores topic as any program may read it.
type score struct {
	V          int      `json:"v"`
	Model      string   `json:"model"`
	Version    int      `json:"version"`
	Topic      string   `json:"topic"`
	Partition  int32    `json:"partition"`
	Offset     int64    `json:"offset"`
	Key        *string  `json:"key"`
	KeyB64     *string  `json:"key_b64"`
	Time       *string  `json:"time"`
	Score      *float64 `json:"score"`
	Percentile *float64 `json:"percentile"`
	Anomaly    bool     `json:"anomaly"`
	Status     string   `json:"status"`
	Top        []struct {
		Feature  string    `json:"feature"`
		Value    any       `json:"value"`
		Expected any       `json:"expected"`
		Usual    []float64 `json:"usual"` // least and greatest; absent for a category
		Share    float64   `json:"share"`
	} `json:"top"`
}

// audit is what became of every record of a topic.
type audit struct {
	in         map[int32][]*kgo.Record
	records    int
	scores     map[place]score
	dead       map[place]string // reason
	tombstones int
	byVersion  map[int]int
	versions   map[int32][]int // of each partition's scores, in order, repeats left out
}

// audit reads a topic and what serve made of it, and holds that each record has one end and one only.
func (f *flow) audit(topic, model string) *audit {
	f.t.Helper()
	a := &audit{in: f.all(topic), scores: map[place]score{}, dead: map[place]string{}, byVersion: map[int]int{}, versions: map[int32][]int{}}
	faults := 0
	bad := func(format string, args ...any) {
		if faults++; faults <= 10 {
			f.t.Errorf(format, args...)
		}
	}
	input := map[place]*kgo.Record{}
	for _, records := range a.in {
		for _, r := range records {
			input[place{r.Partition, r.Offset}] = r
		}
	}
	a.records = len(input)
	sameRecord := func(at place, out *kgo.Record) {
		in := input[at]
		if in == nil {
			bad("%s/%d/%d is about %v, which is no record of %s", out.Topic, out.Partition, out.Offset, at, topic)
			return
		}
		if out.Partition != at.partition || !bytes.Equal(out.Key, in.Key) || (out.Key == nil) != (in.Key == nil) || !out.Timestamp.Equal(in.Timestamp) {
			bad("%s/%d/%d has partition, key or timestamp other than its record %v: key %q, %v; want %q, %v", out.Topic, out.Partition, out.Offset,
				at, out.Key, out.Timestamp, in.Key, in.Timestamp)
		}
	}
	for p, records := range f.all(topic + ".scores") {
		last := int64(-1)
		for _, r := range records {
			var s score
			d := json.NewDecoder(bytes.NewReader(r.Value))
			d.DisallowUnknownFields()
			if err := d.Decode(&s); err != nil {
				bad("%s/%d/%d: %v: %s", r.Topic, p, r.Offset, err, r.Value)
				continue
			}
			at := place{s.Partition, s.Offset}
			sameRecord(at, r)
			key := s.Key != nil && *s.Key == string(r.Key)
			if s.KeyB64 != nil {
				text, err := base64.StdEncoding.DecodeString(*s.KeyB64)
				key = err == nil && bytes.Equal(text, r.Key)
			}
			if s.V != 1 || s.Model != model || s.Topic != topic || r.Key != nil && !key {
				bad("%s/%d/%d: %s", r.Topic, p, r.Offset, r.Value)
			}
			if _, twice := a.scores[at]; twice {
				bad("record %v is scored twice", at)
			}
			if s.Offset <= last {
				bad("partition %d: the score of offset %d stands behind that of %d", p, s.Offset, last)
			}
			last = s.Offset
			a.scores[at] = s
			a.byVersion[s.Version]++
			if v := a.versions[p]; len(v) == 0 || v[len(v)-1] != s.Version {
				a.versions[p] = append(v, s.Version)
			}
		}
	}
	for p, records := range f.all(topic + ".dlq") {
		last := int64(-1)
		for _, r := range records {
			h := map[string]string{}
			for _, x := range r.Headers {
				h[x.Key] = string(x.Value)
			}
			var at place
			if _, err := fmt.Sscan(h["lapwing.partition"]+" "+h["lapwing.offset"], &at.partition, &at.offset); err != nil {
				bad("%s/%d/%d: headers %v", r.Topic, p, r.Offset, h)
				continue
			}
			sameRecord(at, r)
			if in := input[at]; in != nil && !bytes.Equal(in.Value, r.Value) {
				bad("the dead letter of %v holds %q, its record %q", at, r.Value, in.Value)
			}
			if h["lapwing.topic"] != topic || h["lapwing.reason"] == "" || !strings.HasPrefix(h["lapwing.model"], model) {
				bad("the dead letter of %v has headers %v", at, h)
			}
			if _, twice := a.dead[at]; twice {
				bad("record %v is a dead letter twice", at)
			}
			if at.offset <= last {
				bad("partition %d: the dead letter of offset %d stands behind that of %d", p, at.offset, last)
			}
			last = at.offset
			a.dead[at] = h["lapwing.reason"]
		}
	}
	for at, r := range input {
		_, scored := a.scores[at]
		_, dead := a.dead[at]
		switch {
		case r.Value == nil:
			a.tombstones++
			if scored || dead {
				bad("the tombstone %v has a score or is a dead letter", at)
			}
		case scored && dead:
			bad("record %v has a score and is a dead letter: %q", at, r.Value)
		case !scored && !dead:
			bad("record %v is lost: %q", at, r.Value)
		}
	}
	if faults > 10 {
		f.t.Errorf("and %d more faults", faults-10)
	}
	return a
}

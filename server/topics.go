package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lapwing-stream/lapwing/stream"
)

// Where a group without committed offsets begins.
const (
	StartEarliest      = "earliest"
	StartLatest        = "latest"
	StartAfterTraining = "after-training"
	startTime          = "time"
)

// parseStart reads a start position: one of the words, or a time (its milliseconds since 1970).
func parseStart(s string) (kind string, ms int64, err error) {
	switch s {
	case StartEarliest, StartLatest, StartAfterTraining:
		return s, 0, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return startTime, t.UnixMilli(), nil
		}
	}
	return "", 0, fmt.Errorf("start %q is not one of earliest, latest, after-training, or a time such as 2026-11-25T14:00:00Z", s)
}

// Retention of alert records: state older than that is forgotten, and a week of every change can be read.
const (
	alertRetention     = 30 * 24 * time.Hour
	alertCompactionLag = 7 * 24 * time.Hour
)

// inherited are settings of the inputs that the outputs get too: scores and dead letters are as old as their records, and are kept as
// long, and a dead letter is as large as its record, and its headers.
type inherited struct {
	retention string // retention.ms; "" = not known, which leaves it to the broker
	largest   int64  // max.message.bytes; 0 = not known
}

// outputTopics are the topics that a stream writes, with their settings.
func (r *runner) outputTopics(partitions int, from inherited) []stream.TopicSpec {
	config := map[string]string{"cleanup.policy": "delete"}
	if from.retention != "" {
		config["retention.ms"] = from.retention
	}
	letters := maps.Clone(config)
	if from.largest > 0 {
		letters["max.message.bytes"] = strconv.FormatInt(from.largest+room, 10)
	}
	specs := []stream.TopicSpec{
		{Name: r.o.Output, Partitions: partitions, AnyTime: true, Config: config},
		{Name: r.o.DLQ, Partitions: partitions, AnyTime: true, Config: letters},
	}
	if r.o.alerts() {
		specs = append(specs, stream.TopicSpec{Name: r.o.Alerts, Partitions: partitions, AnyTime: true, Config: map[string]string{
			"cleanup.policy":        "compact,delete",
			"retention.ms":          fmt.Sprint(alertRetention.Milliseconds()),
			"min.compaction.lag.ms": fmt.Sprint(alertCompactionLag.Milliseconds()),
		}})
	}
	return specs
}

// ensureOutputs creates the output topics, or raises them to as many partitions as the largest input has. It returns
// an error that says what to type where the rights for it are missing.
func (r *runner) ensureOutputs(ctx context.Context) error {
	partitions := 0
	for _, t := range r.o.Topics {
		n, err := r.topics.Partitions(ctx, t)
		if stream.NotAllowed(err) {
			return stream.Lacks(r.client.Brokers(), err, stream.Right{Kind: "topic", Name: t, Operations: []string{"READ"}})
		}
		if err != nil {
			return err
		}
		partitions = max(partitions, n)
	}
	if partitions <= r.outputs {
		return nil
	}
	for _, spec := range r.outputTopics(partitions, r.inherit(ctx)) {
		if err := r.ensureTopic(ctx, spec); err != nil {
			return err
		}
	}
	r.outputs = partitions
	return nil
}

// room is what a record gains on its way to the dead letters: headers that say where it came from.
const room = 2048

// inherit reads the inputs' settings.
func (r *runner) inherit(ctx context.Context) inherited {
	var configs []map[string]string
	for _, t := range r.o.Topics {
		if config, err := r.client.TopicConfig(ctx, t); err == nil { // no right to look is no fault
			configs = append(configs, config)
		}
	}
	return inheritedFrom(configs)
}

// inheritedFrom is what outputs take over from inputs with such settings. The retention is the longest of them; the broker's default
// would delete the scores of a replayed history, which bear its timestamps, while they are written.
func inheritedFrom(configs []map[string]string) (from inherited) {
	longest := int64(0)
	for _, config := range configs {
		if n, ok := number(config, "max.message.bytes"); ok {
			from.largest = max(from.largest, n)
		}
		if ms, ok := number(config, "retention.ms"); ok {
			if ms < 0 {
				ms = math.MaxInt64
			}
			longest = max(longest, ms)
		}
	}
	switch longest {
	case 0:
	case math.MaxInt64:
		from.retention = "-1"
	default:
		from.retention = strconv.FormatInt(longest, 10)
	}
	return from
}

func (r *runner) ensureTopic(ctx context.Context, spec stream.TopicSpec) error {
	have, err := r.client.Partitions(ctx, spec.Name)
	switch {
	case errors.Is(err, stream.ErrNoTopic):
		created, err := r.client.CreateTopic(ctx, spec)
		if stream.NotAllowed(err) {
			return &rightsError{stream: r.o.name(), err: err, command: r.createCommand(spec)}
		}
		if err != nil {
			return err
		}
		if created {
			r.log.Info("topic created", "topic", spec.Name, "partitions", spec.Partitions)
			return nil
		}
		if have, err = r.client.Partitions(ctx, spec.Name); err != nil {
			return err
		}
	case stream.NotAllowed(err):
		return r.denied(spec.Name, err, r.operations(spec.Name)...)
	case err != nil:
		return err
	}
	if err := r.allowed(ctx, spec.Name); err != nil {
		return err
	}
	if have < spec.Partitions {
		// Already there is success: another copy may have been faster.
		err := r.client.AddPartitions(ctx, spec.Name, spec.Partitions)
		if stream.NotAllowed(err) {
			return &rightsError{stream: r.o.name(), err: err, command: fmt.Sprintf(
				"kafka-topics.sh --bootstrap-server %s --alter --topic %s --partitions %d", r.client.Brokers(), spec.Name, spec.Partitions)}
		}
		if err != nil {
			return err
		}
		r.log.Info("partitions added", "topic", spec.Name, "from", have, "to", spec.Partitions)
	}
	if spec.Name == r.o.Alerts {
		r.checkAlertPolicy(ctx)
	}
	return nil
}

// operations are what a stream does with an output topic.
func (r *runner) operations(topic string) []string {
	if topic == r.o.Alerts {
		return []string{"READ", "WRITE"} // its state is read back
	}
	return []string{"WRITE"}
}

// allowed looks for the rights on an output topic: alerts and dead letters are rare, and a stream that began without them would fall
// with the first.
func (r *runner) allowed(ctx context.Context, topic string) error {
	t, err := r.client.Describe(ctx, topic)
	if err != nil {
		return err
	}
	missing := slices.DeleteFunc(r.operations(topic), t.Rights.Allows)
	if len(missing) == 0 {
		return nil
	}
	return r.denied(topic, nil, missing...)
}

func (r *runner) denied(topic string, err error, operations ...string) error {
	right := stream.Right{Kind: "topic", Name: topic, Operations: operations}
	if err = stream.Lacks(r.client.Brokers(), err, right); err == nil {
		err = &stream.Error{What: "this client may not " + right.String()}
	}
	return &rightsError{stream: r.o.name(), err: err, command: right.Grant(r.client.Brokers())}
}

// checkAlertPolicy warns where alert state would not outlive the topic's retention. The topic is the operator's.
func (r *runner) checkAlertPolicy(ctx context.Context) {
	config, err := r.client.TopicConfig(ctx, r.o.Alerts)
	if err != nil {
		return // no right to look is no fault
	}
	if policy := config["cleanup.policy"]; policy != "" && !strings.Contains(policy, "compact") {
		r.log.Warn("the alerts topic is not compacted: raised alerts older than its retention are forgotten at a restart",
			"topic", r.o.Alerts, "cleanup.policy", policy, "next", fmt.Sprintf(
				"kafka-configs.sh --bootstrap-server %s --alter --entity-type topics --entity-name %s --add-config cleanup.policy=[compact,delete]",
				r.client.Brokers(), r.o.Alerts))
	}
}

func (r *runner) createCommand(spec stream.TopicSpec) string {
	var b strings.Builder
	fmt.Fprintf(&b, "kafka-topics.sh --bootstrap-server %s --create --topic %s --partitions %d", r.client.Brokers(), spec.Name, spec.Partitions)
	for _, k := range []string{"cleanup.policy", "retention.ms", "min.compaction.lag.ms", "max.message.bytes"} {
		if v, ok := spec.Config[k]; ok {
			fmt.Fprintf(&b, " --config %s=%s", k, v)
		}
	}
	return b.String()
}

// rightsError: an output topic is not as it must be, and we may not make it so. The stream waits for someone who may.
type rightsError struct {
	stream, command string
	err             error
}

func (e *rightsError) Error() string {
	what := e.err.Error()
	var s *stream.Error
	if errors.As(e.err, &s) {
		if what = s.What; s.Where != "" {
			what += " (" + s.Where + ")"
		}
	}
	return fmt.Sprintf("stream %s waits: %s\n  run: %s", e.stream, what, e.command)
}

func (e *rightsError) Unwrap() error { return e.err }

// Hint says what to do next.
func (e *rightsError) Hint() string { return e.command }

// awaitOutputs repeats ensureOutputs until it succeeds or ctx ends, and says what it waits for. Other errors of the
// broker end the wait.
func (r *runner) awaitOutputs(ctx context.Context) error {
	said := ""
	for {
		err := r.ensureOutputs(ctx)
		var rights *rightsError
		if !errors.As(err, &rights) {
			r.block(waitOutputs, "")
			return err
		}
		r.block(waitOutputs, rights.Error())
		if said != rights.Error() {
			said = rights.Error()
			r.log.Error("an output topic is not ready; waiting", "stream", r.o.name(), "reason", rights.err, "run", rights.command)
		}
		if err := pause(ctx, outputPoll); err != nil {
			return err
		}
	}
}

// outputPoll is how often a stream looks whether someone has made its output topics ready.
const outputPoll = 2 * time.Second

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// begin commits the start position of every input topic of which the group has no offset, before anyone subscribes:
// from then on partitions without a commit are new ones, which begin at their beginning. It changes nothing where
// another copy is a member already: then its offsets stand.
func (r *runner) begin(ctx context.Context) error {
	committed, err := r.client.Committed(ctx, r.o.group(), r.o.Topics)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for tp := range committed {
		known[tp.Topic] = true
	}
	offsets := map[stream.TopicPartition]int64{}
	for _, topic := range r.o.Topics {
		if known[topic] {
			continue
		}
		if err := r.startOffsets(ctx, topic, offsets); err != nil {
			return err
		}
	}
	if len(offsets) == 0 {
		return nil
	}
	ok, err := r.client.CommitInitial(ctx, r.o.group(), offsets)
	if err != nil {
		return err
	}
	if ok {
		r.log.Info("first start", "stream", r.o.name(), "start", r.o.Start, "group", r.o.group(), "partitions", len(offsets))
	} else {
		r.log.Info("another copy is a member of the group already; its offsets stand", "stream", r.o.name(), "group", r.o.group())
	}
	return nil
}

func (r *runner) startOffsets(ctx context.Context, topic string, offsets map[stream.TopicPartition]int64) error {
	marks, err := r.client.Watermarks(ctx, topic)
	if err != nil {
		return err
	}
	at := func(m stream.Range) int64 { return m.From }
	kind, ms, err := parseStart(r.o.Start)
	if err != nil {
		return err
	}
	switch kind {
	case StartLatest:
		at = func(m stream.Range) int64 { return m.To }
	case startTime:
		byTime, err := r.client.OffsetsForTime(ctx, topic, ms)
		if err != nil {
			return err
		}
		at = func(m stream.Range) int64 {
			if o, ok := byTime[m.Partition]; ok && o >= 0 {
				return min(max(o, m.From), m.To)
			}
			return m.To // nothing so late
		}
	case StartAfterTraining:
		trained, err := r.trainedTo(ctx, topic)
		if err != nil {
			return err
		}
		at = func(m stream.Range) int64 {
			o, ok := trained[m.Partition]
			switch {
			case !ok:
				return m.From // the partition came after the training
			case o < m.From:
				lost := m.From - o
				r.metrics.lose(lost)
				r.log.Warn("retention deleted records since the training", "stream", r.o.name(), "topic", topic, "partition", m.Partition, "offsets", lost)
				return m.From
			case o > m.To:
				r.log.Warn("the training read past the end that the topic has now: it was likely recreated; starting at its beginning",
					"stream", r.o.name(), "topic", topic, "partition", m.Partition, "trained_to", o, "end", m.To)
				return m.From
			}
			return o
		}
	}
	for _, m := range marks {
		offsets[stream.TopicPartition{Topic: topic, Partition: m.Partition}] = at(m)
	}
	return nil
}

// trainedTo gives the offsets where the live model's history ended, if that history was this topic of this cluster.
func (r *runner) trainedTo(ctx context.Context, topic string) (map[int32]int64, error) {
	live := r.slot.live.Load()
	lineage := &live.model.Lineage
	refuse := func(what, trained, here string) error {
		return &stream.Error{
			What:  fmt.Sprintf("start after-training: %s was trained on another %s: %s, this is %s", live.manifest, what, trained, here),
			Where: fmt.Sprintf("stream %s, input topic %s", r.o.name(), topic),
			Next:  "choose --start earliest, latest or a time",
		}
	}
	if lineage.Topic != topic {
		return nil, refuse("topic", lineage.Topic, topic)
	}
	cluster, err := r.client.ClusterID(ctx)
	if err != nil {
		return nil, err
	}
	if lineage.Cluster != cluster {
		return nil, refuse("cluster", orUnknown(lineage.Cluster), cluster)
	}
	to := map[int32]int64{}
	for _, p := range lineage.Partitions {
		to[p.Partition] = p.To
	}
	return to, nil
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

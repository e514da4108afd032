package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

// Severity says what a finding means for a server that would be started now.
type Severity string

const (
	Fine    Severity = "ok"
	Note    Severity = "note"    // worth knowing
	Warning Severity = "warning" // it would work, but not for long, or not as wished
	Failure Severity = "error"   // it would not score
)

// Finding is one thing that was looked at.
type Finding struct {
	Area     string   `json:"area"` // "topic", "group", "model", …
	Severity Severity `json:"severity"`
	What     string   `json:"what"`
	Where    string   `json:"where,omitempty"` // topic, group, partition
	Next     string   `json:"next,omitempty"`  // the line to type or to change
}

// examination gathers findings.
type examination struct {
	deps    Deps
	o       Options
	cluster stream.ClusterState
	brokers map[string]string // their settings; nil where this client may not read them
	found   []Finding
}

func (x *examination) say(area string, s Severity, where, next, format string, args ...any) {
	x.found = append(x.found, Finding{Area: area, Severity: s, What: fmt.Sprintf(format, args...), Where: where, Next: next})
}

// fail turns an error into a finding.
func (x *examination) fail(area, where string, err error) {
	f := Finding{Area: area, Severity: Failure, What: err.Error(), Where: where}
	var s *stream.Error
	var h interface{ Hint() string }
	switch {
	case errors.As(err, &s):
		f.What, f.Next = s.What, s.Next
		if s.Where != "" {
			f.Where = s.Where
		}
	case errors.As(err, &h):
		f.Next = h.Hint()
	}
	x.found = append(x.found, f)
}

// Examine looks at everything that a Server with these options needs of its cluster, and changes nothing: topics with
// their settings and this client's rights, the model topic and the live models, the groups. A Failure means that Run
// would refuse to start, or wait.
func Examine(ctx context.Context, d Deps, o Options) []Finding {
	x := &examination{deps: d, o: o.withDefaults()}
	cluster, err := d.Client.Cluster(ctx)
	if err != nil {
		x.fail("broker", d.Client.Brokers(), err)
		return x.found
	}
	x.cluster = cluster
	x.broker(ctx)
	x.protocol(ctx)
	x.settings(ctx)
	entries := x.modelTopic(ctx)
	for i := range x.o.Streams {
		s := &x.o.Streams[i]
		inputs, partitions := x.inputs(ctx, s)
		if partitions > 0 {
			x.sizes(s, inputs, x.outputs(ctx, s, inputs, partitions))
		}
		x.group(ctx, s)
		if x.o.Delivery == ExactlyOnce {
			x.transactions(ctx, s)
		}
		x.model(ctx, s, entries)
	}
	return x.found
}

func (x *examination) broker(ctx context.Context) {
	where := x.deps.Client.Brokers()
	version, err := x.deps.Client.BrokerVersion(ctx)
	if err != nil {
		version = "version not known (" + oneLine(err.Error()) + ")"
	}
	x.say("broker", Fine, where, "", "reachable, %s, %s, cluster id %s", count(x.cluster.Brokers, "broker"), version, x.cluster.ID)
	if x.cluster.Rights == nil {
		x.say("rights", Note, where, "", "the broker does not say what this client may do with the cluster: it has no right to DESCRIBE it, or rights are not kept")
	}
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// alter is the line that changes a topic's setting.
func (x *examination) alter(topic, setting string) string {
	return fmt.Sprintf("kafka-configs.sh --bootstrap-server %s --alter --entity-type topics --entity-name %s --add-config %s", x.deps.Client.Brokers(), topic, setting)
}

// grant is the line that gives a right.
func (x *examination) grant(kind, name string, operations ...string) string {
	return stream.Right{Kind: kind, Name: name, Operations: operations}.Grant(x.deps.Client.Brokers())
}

// need reports the rights on a topic that are missing.
func (x *examination) need(t stream.TopicState, operations ...string) {
	var missing []string
	for _, o := range operations {
		if !t.Rights.Allows(o) {
			missing = append(missing, o)
		}
	}
	if len(missing) > 0 {
		x.say("rights", Failure, "topic "+t.Name, x.grant("topic", t.Name, missing...), "this client may not %s it", strings.Join(missing, ", "))
	}
}

// hidden reports a topic that the broker does not show for want of any right on it; false where that is not the reason.
func (x *examination) hidden(topic string, err error, operations ...string) bool {
	if !stream.NotAllowed(err) {
		return false
	}
	x.say("rights", Failure, "topic "+topic, x.grant("topic", topic, operations...), "this client may not %s it, so the broker does not say whether it exists", strings.Join(operations, ", "))
	return true
}

// alive reports what keeps a topic from being read or written at all.
func (x *examination) alive(t stream.TopicState, written bool) {
	if len(t.Leaderless) > 0 {
		x.say("topic", Failure, "topic "+t.Name, "bring the brokers of these partitions back: kafka-topics.sh --bootstrap-server "+x.deps.Client.Brokers()+" --describe --topic "+t.Name,
			"partitions %v have no leader: they can be neither read nor written", t.Leaderless)
	}
	least, err := strconv.Atoi(t.Config["min.insync.replicas"])
	if err != nil || !written {
		return
	}
	// Lapwing writes with acks=all, so the broker refuses where fewer replicas are in sync.
	switch {
	case t.Replicas < least:
		x.say("topic", Failure, "topic "+t.Name, x.alter(t.Name, fmt.Sprintf("min.insync.replicas=%d", t.Replicas)),
			"min.insync.replicas is %d, above the topic's replication factor %d: every write is refused", least, t.Replicas)
	case t.InSync < least:
		x.say("topic", Failure, "topic "+t.Name, "wait for the brokers to catch up, or look at their logs",
			"only %d of %d replicas are in sync and min.insync.replicas is %d: writes are refused", t.InSync, t.Replicas, least)
	}
}

// inputs looks at what a stream reads, and gives that with the largest number of partitions; 0 where a topic is missing.
func (x *examination) inputs(ctx context.Context, s *StreamOptions) (topics []stream.TopicState, partitions int) {
	missing := false
	for _, topic := range s.Topics {
		where := "topic " + topic
		t, err := x.deps.Client.Describe(ctx, topic)
		if err != nil {
			if !x.hidden(topic, err, "READ") {
				x.fail("topic", where, err)
			}
			missing = true
			continue
		}
		topics, partitions = append(topics, t), max(partitions, t.Partitions)
		marks, err := x.deps.Client.Watermarks(ctx, topic)
		var records int64
		for _, m := range marks {
			records += m.To - m.From
		}
		if err != nil && t.Rights.Allows("DESCRIBE") {
			x.fail("topic", where, err)
		}
		x.say("topic", Fine, where, "", "input, %s, %d offsets kept", count(t.Partitions, "partition"), records)
		x.need(t, "READ", "DESCRIBE")
		x.alive(t, false)
		x.ahead(ctx, t, marks)
		if t.Partitions == 1 {
			x.say("topic", Note, where, fmt.Sprintf("kafka-topics.sh --bootstrap-server %s --alter --topic %s --partitions 6", x.deps.Client.Brokers(), topic),
				"%s", x.single())
		}
		x.retention(topic, t)
	}
	if missing {
		return nil, 0
	}
	return topics, partitions
}

// soon is a retention under which a scorer that is down for a night loses records.
const soon = 24 * time.Hour

func (x *examination) retention(topic string, t stream.TopicState) {
	if !strings.Contains(t.Config["cleanup.policy"], "delete") {
		return
	}
	ms, err := strconv.ParseInt(t.Config["retention.ms"], 10, 64)
	if err == nil && ms >= 0 && time.Duration(ms)*time.Millisecond < soon {
		x.say("topic", Warning, "topic "+topic, x.alter(topic, fmt.Sprintf("retention.ms=%d", (7*soon).Milliseconds())),
			"records are deleted after %v: what is not scored by then is lost", time.Duration(ms)*time.Millisecond)
	}
}

// ahead reports records dated in the future by this machine's clock: either clock is wrong.
func (x *examination) ahead(ctx context.Context, t stream.TopicState, marks []stream.Range) {
	const ahead = 10 * time.Minute
	at, err := x.deps.Client.OffsetsForTime(ctx, t.Name, time.Now().Add(ahead).UnixMilli())
	if err != nil {
		return
	}
	for _, m := range marks {
		if from, ok := at[m.Partition]; ok && from < m.To {
			x.say("clock", Warning, fmt.Sprintf("topic %s, partition %d, offset %d", t.Name, m.Partition, from), "set the clock of the producers, or of this machine",
				"a record is dated more than %v after this machine's clock", ahead)
			return
		}
	}
}

// outputs looks at what a stream writes, for the largest number of partitions that its inputs have, and gives those that exist.
func (x *examination) outputs(ctx context.Context, s *StreamOptions, inputs []stream.TopicState, partitions int) (topics []stream.TopicState) {
	r := &runner{o: s, client: x.deps.Client}
	var configs []map[string]string
	for _, t := range inputs {
		configs = append(configs, t.Config)
	}
	for _, spec := range r.outputTopics(partitions, inheritedFrom(configs)) {
		where := "topic " + spec.Name
		t, err := x.deps.Client.Describe(ctx, spec.Name)
		switch {
		case errors.Is(err, stream.ErrNoTopic) && stream.NotAllowed(x.deps.Client.MayCreate(ctx, spec)):
			x.say("rights", Failure, where, r.createCommand(spec), "does not exist, and this client may not CREATE it")
			continue
		case errors.Is(err, stream.ErrNoTopic):
			x.say("topic", Note, where, "", "does not exist yet; serve makes it, with %s", count(partitions, "partition"))
			x.toBeMade(r, spec)
			continue
		case err != nil:
			if !x.hidden(spec.Name, err, r.operations(spec.Name)...) {
				x.fail("topic", where, err)
			}
			continue
		}
		topics = append(topics, t)
		x.say("topic", Fine, where, "", "output, %s", count(t.Partitions, "partition"))
		x.need(t, append(r.operations(spec.Name), "DESCRIBE")...)
		if spec.Name == s.Alerts {
			if policy := t.Config["cleanup.policy"]; policy != "" && !strings.Contains(policy, "compact") {
				x.say("topic", Warning, where, x.alter(spec.Name, "cleanup.policy=[compact,delete]"),
					"cleanup.policy is %s: raised alerts older than the retention are forgotten at a restart", policy)
			}
		} else if policy := t.Config["cleanup.policy"]; strings.Contains(policy, "compact") {
			x.say("topic", Failure, where, x.alter(spec.Name, "cleanup.policy=delete"),
				"cleanup.policy is %s: the broker keeps only the last record of each key, and refuses those without one", policy)
		}
		x.alive(t, true)
		x.kept("topic", t, "its records")
		if t.Partitions < partitions && !t.Rights.Allows("ALTER") {
			x.say("rights", Failure, where, fmt.Sprintf("kafka-topics.sh --bootstrap-server %s --alter --topic %s --partitions %d", x.deps.Client.Brokers(), spec.Name, partitions),
				"has %s, the input %d, and this client may not add any", count(t.Partitions, "partition"), partitions)
		}
	}
	return topics
}

// protocol says by which rules transactions are kept. docs/transactions.md says what each leaves open.
func (x *examination) protocol(ctx context.Context) {
	where := x.deps.Client.Brokers()
	p, err := x.deps.Client.TransactionProtocol(ctx)
	switch {
	case err != nil:
		x.say("transactions", Note, where, "", "the brokers do not say by which protocol they keep transactions: %s", oneLine(err.Error()))
	case p.Unverified == "":
		x.say("transactions", Fine, where, "", "%v", p)
	default:
		severity, next := Warning, "upgrade the brokers to Kafka 3.6 or newer"
		if strings.HasPrefix(p.Unverified, stream.Verification) {
			next = fmt.Sprintf("kafka-configs.sh --bootstrap-server %s --alter --entity-type brokers --entity-default --add-config %s=true", where, stream.Verification)
		}
		if x.o.Delivery != ExactlyOnce { // a model is whole by its digest, not by its transaction
			severity = Note
		}
		x.say("transactions", severity, where, next, "%v", p)
	}
}

// transactionLog is where brokers keep transactions.
const transactionLog = "__transaction_state"

// transactions asks for what exactly_once needs: a transaction log that can be written, and an id. It tries, under an id that is
// nobody's: there is no question that tells, and what a try leaves in the log is that the id was asked for.
func (x *examination) transactions(ctx context.Context, s *StreamOptions) {
	where := "transactional.id " + s.probeID()
	t, err := x.deps.Client.Describe(ctx, transactionLog)
	switch {
	case err == nil:
		before := len(x.found)
		x.alive(t, true)
		if len(x.found) > before {
			return // a try would wait for it
		}
		x.kept("transactions", t, "all open transactions")
	case errors.Is(err, stream.ErrNoTopic):
		// The first transaction makes it, with as many replicas as the brokers are told; with too few of them it is never made.
		if n, ok := x.broken("transaction.state.log.replication.factor"); ok {
			x.say("transactions", Failure, "topic "+transactionLog, serverProperties("transaction.state.log.replication.factor=%d and transaction.state.log.min.isr=%d", x.cluster.Brokers, max(1, x.cluster.Brokers-1)),
				"transaction.state.log.replication.factor is %d and there %s: no transaction can begin", n, areBrokers(x.cluster.Brokers))
			return
		}
	}
	ctx, cancel := context.WithTimeout(ctx, tryTransactions)
	defer cancel()
	if err := x.deps.Client.TryTransactions(ctx, s.probeID(), x.o.TransactionTimeout); err != nil {
		if stream.NoTransactionRight(err) {
			x.say("rights", Failure, where, s.transactions().Grant(x.deps.Client.Brokers()),
				"this client may not use the stream's transactional ids, which exactly_once needs and at_least_once does not")
			return
		}
		x.fail("transactions", where, err)
		return
	}
	x.say("transactions", Fine, where, "", "transactions can be had")
}

// tryTransactions bounds the try: where the coordinator is missing, the client asks for it until it is told to stop.
const tryTransactions = 10 * time.Second

func areBrokers(n int) string {
	if n == 1 {
		return "is 1 broker"
	}
	return fmt.Sprintf("are %d brokers", n)
}

// group looks at where a stream stands.
func (x *examination) group(ctx context.Context, s *StreamOptions) {
	group := s.group()
	where := "group " + group
	rights, err := x.deps.Client.GroupRights(ctx, group)
	if err != nil {
		x.fail("group", where, err)
		return
	}
	if !rights.Allows("READ") {
		x.say("rights", Failure, where, x.grant("group", group, "READ"), "this client may not READ the group, so it can neither join it nor commit")
		return
	}
	r := &runner{o: s, client: x.deps.Client}
	if err := r.alone(ctx); err != nil {
		x.fail("group", where, err)
	}
	members, err := x.deps.Client.Members(ctx, group)
	if err != nil {
		x.fail("group", where, err)
		return
	}
	topics := slices.DeleteFunc(slices.Clone(s.Topics), func(t string) bool {
		_, err := x.deps.Client.Partitions(ctx, t)
		return errors.Is(err, stream.ErrNoTopic) || stream.NotAllowed(err) // said with the topic
	})
	committed, err := x.deps.Client.Committed(ctx, group, topics)
	if err != nil {
		x.fail("group", where, err)
		return
	}
	if len(committed) == 0 {
		x.say("group", Fine, where, "", "%s; nothing committed yet: serve begins at %s", count(len(members), "member"), s.Start)
		return
	}
	var lag int64
	for _, topic := range topics {
		marks, err := x.deps.Client.Watermarks(ctx, topic)
		if err != nil {
			continue // said with the topic
		}
		for _, m := range marks {
			place := fmt.Sprintf("group %s, topic %s, partition %d", group, topic, m.Partition)
			at, ok := committed[stream.TopicPartition{Topic: topic, Partition: m.Partition}]
			switch {
			case !ok:
				at = m.From
			case at > m.To:
				x.say("group", Warning, place, "", "committed offset %d is above the end, %d: the topic was likely recreated; serve begins at its beginning", at, m.To)
				at = m.From
			case at < m.From:
				x.say("group", Warning, place, x.alter(topic, "retention.ms=-1"), "retention has deleted %d records that were not scored: committed offset %d, oldest kept %d", m.From-at, at, m.From)
				at = m.From
			}
			lag += m.To - at
		}
	}
	x.say("group", Fine, where, "", "%s, %d records to be scored", count(len(members), "member"), lag)
}

// modelTopic looks at the model topic and lists what is in it.
func (x *examination) modelTopic(ctx context.Context) []registry.Entry {
	name := x.deps.Registry.Topic()
	where := "topic " + name
	t, err := x.deps.Client.Describe(ctx, name)
	if errors.Is(err, stream.ErrNoTopic) {
		x.say("models", Note, where, "", "does not exist yet; the first training makes it")
		return nil
	}
	if err != nil {
		if !x.hidden(name, err, "READ") {
			x.fail("models", where, err)
		}
		return nil
	}
	x.need(t, "READ", "DESCRIBE")
	if t.Partitions != 1 {
		x.say("models", Failure, where, "name another topic with models_topic; the first training makes it",
			"has %d partitions; it must have one, since the order of its records decides which model is live", t.Partitions)
	}
	x.modelTopicSettings(t)
	x.alive(t, true)
	if !t.Rights.Allows("READ") {
		return nil
	}
	entries, err := x.deps.Registry.List(ctx)
	if err != nil {
		x.fail("models", where, err)
		return nil
	}
	versions := 0
	for _, e := range entries {
		for _, v := range e.Versions {
			versions++
			if v.Fault != "" {
				x.say("models", Warning, fmt.Sprintf("model %s/%d", e.Name, v.Version), fmt.Sprintf("lapwing models delete %s/%d", e.Name, v.Version), "is not whole: %s", v.Fault)
			}
		}
		if e.Orphans > 0 {
			x.say("models", Note, "model "+e.Name, "", "%s left by a publisher that died; the next one clears them", count(e.Orphans, "part"))
		}
	}
	x.say("models", Fine, where, "", "%s, %s", count(len(entries), "model"), count(versions, "version"))
	return entries
}

// model loads what a stream would score with, and holds it to its self-test on this machine.
func (x *examination) model(ctx context.Context, s *StreamOptions, entries []registry.Entry) {
	ref := s.ref()
	where := "model " + ref.String()
	at := slices.IndexFunc(entries, func(e registry.Entry) bool { return e.Name == s.Model })
	train := fmt.Sprintf("lapwing train --topic %s --model %s", strings.Join(s.Topics, ","), s.Model)
	if at < 0 {
		x.say("model", Failure, where, train, "there is no model %s: serve would start, and wait for one", s.Model)
		return
	}
	if _, ok := entries[at].Aliases[s.Alias]; !ok {
		next := train
		if n := len(entries[at].Versions); n > 0 {
			next = fmt.Sprintf("lapwing models move %s %d", ref, entries[at].Versions[n-1].Version)
		}
		x.say("model", Failure, where, next, "no version has the alias %s: serve would start, and wait for one", s.Alias)
		return
	}
	m, data, err := x.deps.Registry.Get(ctx, ref)
	if err != nil {
		x.fail("model", where, err)
		return
	}
	l, err := loadModel(x.deps.Engine, data, modelNeeds{format: s.Format, time: s.Time, key: s.Key})
	if err != nil {
		x.say("model", Failure, fmt.Sprintf("model %s/%d", m.Name, m.Version), train, "serve would refuse it: %s", err)
		return
	}
	x.say("model", Fine, fmt.Sprintf("model %s/%d", m.Name, m.Version), "", "live as %s, %d columns, passes its self-test on %s/%s", s.Alias, l.width, x.deps.Engine.Name(), x.deps.Engine.Level())
	if from := l.model.Lineage.Topic; from != "" && !slices.Contains(s.Topics, from) {
		x.say("model", Warning, fmt.Sprintf("model %s/%d", m.Name, m.Version), train, "was trained on topic %s, the stream reads %s", from, strings.Join(s.Topics, ", "))
	}
	if c := l.model.Lineage.Cluster; c != "" && c != x.cluster.ID {
		severity := Note
		if kind, _, _ := parseStart(s.Start); kind == StartAfterTraining {
			severity = Failure
		}
		x.say("model", severity, fmt.Sprintf("model %s/%d", m.Name, m.Version), "", "was trained on cluster %s, this one is %s", c, x.cluster.ID)
	}
}

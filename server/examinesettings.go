package server

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

// Settings of brokers, topics and this client that do not fit together bite late: when a broker dies, when a record is large, when a topic
// is made. They are looked at here, each with the line to change.

// settings looks at the brokers' own. Who may not read them is told nothing: the rest is still looked at.
func (x *examination) settings(ctx context.Context) {
	config, err := x.deps.Client.BrokerConfig(ctx)
	if err != nil {
		return
	}
	x.brokers = config
	if n, ok := x.broken("offsets.topic.replication.factor"); ok {
		if _, err := x.deps.Client.Describe(ctx, offsetsTopic); errors.Is(err, stream.ErrNoTopic) {
			x.say("group", Failure, "topic "+offsetsTopic, serverProperties("offsets.topic.replication.factor=%d", x.cluster.Brokers),
				"does not exist, offsets.topic.replication.factor is %d and there %s: no group can be joined", n, areBrokers(x.cluster.Brokers))
		}
	}
	if n, ok := number(config, "offsets.retention.minutes"); ok && time.Duration(n)*time.Minute < soon {
		x.say("group", Warning, x.deps.Client.Brokers(), serverProperties("offsets.retention.minutes=10080"),
			"offsets.retention.minutes is %d: a stream that is down for longer has lost its place", n)
	}
	if request, ok := number(config, "socket.request.max.bytes"); ok {
		if batch := x.deps.Client.SizeLimits().Batch; request < batch+room {
			x.say("broker", Failure, x.deps.Client.Brokers(), fmt.Sprintf("kafka: {batch.size: %d}", max(1, request/2)),
				"socket.request.max.bytes is %d, and this client writes up to %d bytes at once: the brokers close the connection", request, batch)
		}
	}
}

// offsetsTopic is where brokers keep the groups' offsets.
const offsetsTopic = "__consumer_offsets"

// broken gives a replication factor of the brokers' that is above their number.
func (x *examination) broken(setting string) (int64, bool) {
	n, ok := number(x.brokers, setting)
	return n, ok && n > int64(x.cluster.Brokers)
}

func number(config map[string]string, setting string) (int64, bool) {
	n, err := strconv.ParseInt(config[setting], 10, 64)
	return n, err == nil
}

func serverProperties(format string, args ...any) string {
	return "in every broker's server.properties: " + fmt.Sprintf(format, args...) + "; then restart it"
}

// toBeMade looks at whether a topic that serve is to make comes into being, and can be written then.
func (x *examination) toBeMade(r *runner, spec stream.TopicSpec) {
	where := "topic " + spec.Name
	replicas, above := x.broken("default.replication.factor")
	if above {
		x.say("topic", Failure, where, fmt.Sprintf("%s --replication-factor %d", r.createCommand(spec), x.cluster.Brokers),
			"cannot be made: the brokers' default.replication.factor is %d and there %s", replicas, areBrokers(x.cluster.Brokers))
		return
	}
	if least, set := number(x.brokers, "min.insync.replicas"); set && replicas > 0 && least > replicas {
		x.say("topic", Failure, where, fmt.Sprintf("%s --config min.insync.replicas=%d", r.createCommand(spec), replicas),
			"would take no record once it is made: the brokers' min.insync.replicas is %d, above their default.replication.factor %d", least, replicas)
	}
}

// kept looks at whether what is acknowledged outlives a broker. One broker alone has nothing to offer, and two cannot lose one and go on.
func (x *examination) kept(area string, t stream.TopicState, what string) {
	where := "topic " + t.Name
	if x.cluster.Brokers >= 3 && t.Replicas == 1 {
		x.say(area, Warning, where, fmt.Sprintf("kafka-reassign-partitions.sh --bootstrap-server %s --execute --reassignment-json-file FILE, with three replicas for each partition", x.deps.Client.Brokers()),
			"has one replica: with its broker %s are gone", what)
	}
	if least, ok := number(t.Config, "min.insync.replicas"); ok && t.Replicas >= 3 && least < 2 {
		x.say(area, Warning, where, x.alter(t.Name, "min.insync.replicas=2"),
			"min.insync.replicas is %d: acks=all is content with one replica, and what it alone has is gone with its broker", least)
	}
	if t.Config["unclean.leader.election.enable"] == "true" {
		x.say(area, Warning, where, x.alter(t.Name, "unclean.leader.election.enable=false"),
			"unclean.leader.election.enable is true: a replica that has fallen behind may become leader, and what it lacks is gone though it was acknowledged")
	}
}

// sizes looks at whether what the inputs may hold can be read, and what is written fits.
func (x *examination) sizes(s *StreamOptions, inputs, outputs []stream.TopicState) {
	client := x.deps.Client.SizeLimits()
	var largest int64
	var of string
	for _, t := range inputs {
		n, ok := number(t.Config, "max.message.bytes")
		if ok && n > largest {
			largest, of = n, t.Name
		}
		if ok && n+room > client.Answer {
			x.say("topic", Failure, "topic "+t.Name, fmt.Sprintf("kafka: {receive.message.max.bytes: %d, fetch.max.bytes: %d}", n+2*room, n),
				"takes records of up to %d bytes, and this client's receive.message.max.bytes is %d: reading would stop at the first that is larger", n, client.Answer)
		}
	}
	for _, t := range outputs {
		where := "topic " + t.Name
		most, ok := number(t.Config, "max.message.bytes")
		if !ok {
			continue
		}
		if most < client.Batch {
			x.say("topic", Warning, where, x.alter(t.Name, fmt.Sprintf("max.message.bytes=%d", client.Batch+room)),
				"max.message.bytes is %d, and this client writes up to %d bytes at once (batch.size): under load the broker refuses whole batches", most, client.Batch)
		}
		if t.Name != s.DLQ || largest == 0 {
			continue
		}
		if most < largest {
			x.say("topic", Warning, where, x.alter(t.Name, fmt.Sprintf("max.message.bytes=%d", largest+room)),
				"max.message.bytes is %d, and topic %s takes records of up to %d: a bad one that is larger finds no room here, and holds its stream up", most, of, largest)
		}
		if client.Record < largest-room {
			x.say("topic", Warning, where, fmt.Sprintf("kafka: {message.max.bytes: %d}", largest+room),
				"this client's message.max.bytes is %d, and topic %s takes records of up to %d: a bad one that is larger cannot be written as a dead letter, and holds its stream up", client.Record, of, largest)
		}
	}
}

// modelTopicSettings looks at what would lose models.
func (x *examination) modelTopicSettings(t stream.TopicState) {
	where := "topic " + t.Name
	if policy, known := t.Config["cleanup.policy"]; known && policy != "compact" {
		x.say("models", Warning, where, x.alter(t.Name, "cleanup.policy=compact"), "cleanup.policy is %s, so the broker deletes models %s", policy, deletedWhen(t.Config))
	}
	// A part is up to 512 KiB, and a batch holds more than its records.
	if n, ok := number(t.Config, "max.message.bytes"); ok && n < registry.LargestRecord {
		x.say("models", Failure, where, x.alter(t.Name, fmt.Sprintf("max.message.bytes=%d", 1<<20)),
			"max.message.bytes is %d: parts of a model, up to %d bytes, are refused", n, registry.LargestRecord)
	}
	if n := x.deps.Client.SizeLimits().Record; n < registry.LargestRecord {
		x.say("models", Warning, where, fmt.Sprintf("kafka: {message.max.bytes: %d}", 1_000_000),
			"this client's message.max.bytes is %d: parts of a model, up to %d bytes, could not be published from here", n, registry.LargestRecord)
	}
	x.kept("models", t, "all models")
}

// deletedWhen words retention.
func deletedWhen(config map[string]string) string {
	var at []string
	if ms, ok := number(config, "retention.ms"); ok && ms >= 0 {
		at = append(at, fmt.Sprintf("after %v (retention.ms)", time.Duration(ms)*time.Millisecond))
	}
	if n, ok := number(config, "retention.bytes"); ok && n >= 0 {
		at = append(at, fmt.Sprintf("beyond %d bytes (retention.bytes)", n))
	}
	if len(at) == 0 {
		return "once a retention is set"
	}
	return strings.Join(at, " and ")
}

// single words a note on an input with one partition.
func (x *examination) single() string {
	if n, ok := number(x.brokers, "num.partitions"); ok && n == 1 && x.brokers["auto.create.topics.enable"] == "true" {
		return "one partition, as the brokers give to topics that a first record or a mistyped name brings into being (auto.create.topics.enable, num.partitions=1): only one copy of serve can score it"
	}
	return "one partition: only one copy of serve can score it"
}

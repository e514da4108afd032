package server

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

// Settings of brokers, topics and client that do not fit together: each is one finding, with the line to change; the rest of the list
// stays silent.
func TestExamineSettings(t *testing.T) {
	for _, c := range []struct {
		name    string
		brokers int               // default 1
		set     map[string]string // of the brokers
		client  map[string]string
		spoil   func(b *bed)
		o       Options
		want    []string // one for each finding: parts of its line, parted by |
	}{
		{name: "sound, three brokers", brokers: 3, spoil: func(b *bed) { b.outputs(map[string]string{"min.insync.replicas": "2"}) }},
		{name: "more replicas than brokers", set: map[string]string{"default.replication.factor": "3"}, want: []string{
			"error topic topic cars.scores|default.replication.factor is 3 and there is 1 broker|next: kafka-topics.sh|--topic cars.scores|--replication-factor 1",
			"error topic topic cars.dlq|--config max.message.bytes=|--config retention.ms=|--replication-factor 1", "error topic topic cars.alerts|--replication-factor 1",
		}},
		{name: "more replicas in sync than there will be", set: map[string]string{"default.replication.factor": "1", "min.insync.replicas": "2"}, want: []string{
			"error topic topic lapwing.models|min.insync.replicas is 2, above the topic's replication factor 1|--entity-name lapwing.models --add-config min.insync.replicas=1",
			"error topic topic cars.scores|would take no record|min.insync.replicas is 2, above their default.replication.factor 1|--config min.insync.replicas=1",
			"error topic topic cars.dlq", "error topic topic cars.alerts",
		}},
		{name: "no group can be joined", set: map[string]string{"offsets.topic.replication.factor": "3"}, want: []string{
			"error group topic __consumer_offsets|offsets.topic.replication.factor is 3 and there is 1 broker|server.properties: offsets.topic.replication.factor=1",
		}},
		{name: "offsets that are soon forgotten", set: map[string]string{"offsets.retention.minutes": "60"}, want: []string{
			"warning group|offsets.retention.minutes is 60|server.properties: offsets.retention.minutes=10080",
		}},
		{name: "one acknowledgement", brokers: 3, spoil: func(b *bed) { b.outputs(map[string]string{"min.insync.replicas": "1"}) }, want: []string{
			"warning topic topic cars.scores|acks=all is content with one replica|--entity-name cars.scores --add-config min.insync.replicas=2",
			"warning topic topic cars.dlq|min.insync.replicas=2", "warning topic topic cars.alerts|min.insync.replicas=2",
		}},
		{name: "a topic with a small limit", spoil: func(b *bed) {
			b.made(stream.TopicSpec{Name: "cars.scores", Partitions: 2, Config: map[string]string{"max.message.bytes": "100000"}})
		}, want: []string{
			"warning topic topic cars.scores|max.message.bytes is 100000, and this client writes up to 1000000 bytes at once|--entity-name cars.scores --add-config max.message.bytes=1002048",
		}},
		{name: "a client with a smaller one", client: map[string]string{"batch.size": "90000"}, spoil: func(b *bed) {
			b.made(stream.TopicSpec{Name: "cars.scores", Partitions: 2, Config: map[string]string{"max.message.bytes": "100000"}})
		}},
		{name: "dead letters that find no room", spoil: func(b *bed) {
			b.set("cars", "max.message.bytes", "3000000")
			b.made(stream.TopicSpec{Name: "cars.dlq", Partitions: 2})
		}, want: []string{"warning topic topic cars.dlq|topic cars takes records of up to 3000000: a bad one that is larger finds no room here|--add-config max.message.bytes=3002048"}},
		{name: "dead letters that the client cannot write", client: map[string]string{"message.max.bytes": "600000"}, spoil: func(b *bed) {
			b.made(stream.TopicSpec{Name: "cars.dlq", Partitions: 2})
		}, want: []string{"warning topic topic cars.dlq|this client's message.max.bytes is 600000|next: kafka: {message.max.bytes: 1050636}"}},
		{name: "models that the client cannot write", client: map[string]string{"message.max.bytes": "500000"}, want: []string{
			"warning models topic lapwing.models|this client's message.max.bytes is 500000|next: kafka: {message.max.bytes: 1000000}",
		}},
		{name: "records that the client cannot take", spoil: func(b *bed) { b.set("cars", "max.message.bytes", "200000000") }, want: []string{
			"error topic topic cars|receive.message.max.bytes is 100000000|next: kafka: {receive.message.max.bytes: 200004096, fetch.max.bytes: 200000000}",
		}},
		{name: "a broker that closes on large requests", set: map[string]string{"socket.request.max.bytes": "500000"}, spoil: func(b *bed) {
			b.made(stream.TopicSpec{Name: "cars.scores", Partitions: 2})
		}, want: []string{"error broker |socket.request.max.bytes is 500000|next: kafka: {batch.size: 250000}"}},
		{name: "models that are deleted", spoil: func(b *bed) {
			b.set(registry.DefaultTopic, "cleanup.policy", "compact,delete")
			b.set(registry.DefaultTopic, "retention.ms", "3600000")
		}, want: []string{"warning models topic lapwing.models|cleanup.policy is compact,delete, so the broker deletes models after 1h0m0s (retention.ms)|--add-config cleanup.policy=compact"}},
		{name: "records that are not verified", set: map[string]string{stream.Verification: "false"}, o: Options{Delivery: ExactlyOnce}, want: []string{
			"warning transactions|transaction protocol v1 is in force|do not verify|--entity-type brokers --entity-default --add-config transaction.partition.verification.enable=true",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			// Of itself it has the default of three, and takes it for one broker too.
			k, err := kfake.NewCluster(kfake.NumBrokers(max(1, c.brokers)), kfake.BrokerConfigs(map[string]string{"default.replication.factor": fmt.Sprint(max(1, c.brokers))}),
				kfake.BrokerConfigs(c.set), kfake.SleepOutOfOrder())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(k.Close)
			b := bedAt(t, k.ListenAddrs()[0])
			b.topic("cars", 2)
			b.produce(b.events("cars", 2, 0, 20)...)
			if c.brokers > 1 { // the model topic too is as it should be
				b.made(stream.TopicSpec{Name: registry.DefaultTopic, Partitions: 1, Config: map[string]string{"cleanup.policy": "compact", "min.insync.replicas": "2"}})
			}
			b.publish("cars", testModel(t, plainSpec, 1, 5, func(m *model.Model) { m.Lineage.Topic = "cars" }), "live")
			if c.spoil != nil {
				c.spoil(b)
			}
			properties := map[string]string{"bootstrap.servers": b.addr}
			for name, value := range c.client {
				properties[name] = value
			}
			client, err := stream.Connect(t.Context(), stream.Options{Properties: properties})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(client.Close)
			c.o.Streams = []StreamOptions{{Model: "cars", Topics: []string{"cars"}}}
			got := lines(Examine(t.Context(), Deps{Client: client, Registry: registry.Open(client, registry.Options{}), Engine: cpu.New()}, c.o))
			if len(got) != len(c.want) {
				t.Fatalf("%d findings, %d are wanted:\n%s", len(got), len(c.want), strings.Join(got, "\n"))
			}
			for i, want := range c.want {
				for part := range strings.SplitSeq(want, "|") {
					if !strings.Contains(got[i], part) {
						t.Errorf("finding %d lacks %q:\n%s", i, part, got[i])
					}
				}
			}
		})
	}
}

// outputs makes the topics that a stream of cars writes.
func (b *bed) outputs(config map[string]string) {
	b.t.Helper()
	for _, name := range []string{"cars.scores", "cars.dlq", "cars.alerts"} {
		spec := stream.TopicSpec{Name: name, Partitions: 2, Config: map[string]string{}}
		for k, v := range config {
			spec.Config[k] = v
		}
		if name == "cars.alerts" {
			spec.Config["cleanup.policy"] = "compact,delete"
		}
		b.made(spec)
	}
}

// set changes a setting of a topic, as an operator would.
func (b *bed) set(topic, setting, value string) {
	b.t.Helper()
	q := kmsg.NewPtrIncrementalAlterConfigsRequest()
	r := kmsg.NewIncrementalAlterConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, topic
	s := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	s.Name, s.Value = setting, &value
	r.Configs = append(r.Configs, s)
	q.Resources = append(q.Resources, r)
	c, err := kgo.NewClient(kgo.SeedBrokers(b.addr))
	if err != nil {
		b.t.Fatal(err)
	}
	defer c.Close()
	answer, err := q.RequestWith(b.t.Context(), c)
	if err != nil || len(answer.Resources) != 1 || answer.Resources[0].ErrorCode != 0 {
		b.t.Fatalf("%s=%s: %v, %+v", setting, value, err, answer)
	}
}

// The note on an input with one partition says where it may come from.
func TestExamineSinglePartition(t *testing.T) {
	for want, set := range map[string]map[string]string{
		"one partition: only one copy of serve can score it":                                  nil,
		"one partition, as the brokers give to topics that a first record or a mistyped name": {"auto.create.topics.enable": "true", "num.partitions": "1"},
	} {
		k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BrokerConfigs(set), kfake.SleepOutOfOrder())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(k.Close)
		b := bedAt(t, k.ListenAddrs()[0])
		b.topic("cars", 1)
		found := false
		for _, f := range b.examine(StreamOptions{Model: "cars", Topics: []string{"cars"}}) {
			found = found || f.Severity == Note && strings.HasPrefix(f.What, want) && strings.Contains(f.Next, "--alter --topic cars --partitions 6")
		}
		if !found {
			t.Errorf("not said: %s", want)
		}
	}
}

// serve says at its start by which protocol transactions are kept, and that the model topic loses models.
func TestServeSaysOfTheCluster(t *testing.T) {
	b := newBed(t)
	b.topic("cars", 2)
	b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
	b.set(registry.DefaultTopic, "cleanup.policy", "delete")
	s := b.serve(Options{Delivery: ExactlyOnce, Streams: []StreamOptions{{Model: "cars", Topics: []string{"cars"}}}})
	for _, want := range []string{"transaction protocol v1 is in force: the brokers have transaction.version 2", "the model topic is set wrongly", "add-config cleanup.policy=compact"} {
		await(t, want, func() bool { return strings.Contains(b.log.all(), want) })
	}
	s.stop()
}

// A bad record as large as the input takes is written as a dead letter, and what comes after it is scored.
func TestLargestDeadLetter(t *testing.T) {
	b := newBed(t)
	b.topic("cars", 1)
	b.publish("cars", testModel(t, plainSpec, 1, 5), "live")
	events := b.events("cars", 1, 0, 10)
	large := events[4]
	large.Value = []byte(strings.Repeat("x", 1_048_588-200))
	events[4] = large
	b.produce(events...)
	s := b.serve(Options{Streams: []StreamOptions{{Model: "cars", Topics: []string{"cars"}}}})
	s.settled(10)
	s.stop()
	if config, err := b.client.TopicConfig(t.Context(), "cars.dlq"); err != nil || config["max.message.bytes"] != "1050636" {
		t.Errorf("max.message.bytes of the dead letters is %s, %v; want the input's and room for headers", config["max.message.bytes"], err)
	}
	letters := b.read("cars.dlq")
	if len(letters) != 1 || len(letters[0].Value) != len(large.Value) {
		t.Errorf("%d dead letters", len(letters))
	}
}

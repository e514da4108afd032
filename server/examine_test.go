package server

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

// lines are the findings that ask for something.
func lines(found []Finding) []string {
	var out []string
	for _, f := range found {
		if f.Severity != Fine && f.Severity != Note {
			out = append(out, fmt.Sprintf("%s %s %s: %s; next: %s", f.Severity, f.Area, f.Where, f.What, f.Next))
		}
	}
	return out
}

func (b *bed) examine(o StreamOptions) []Finding {
	return Examine(b.t.Context(), Deps{Client: b.client, Registry: b.registry, Engine: cpu.New()}, Options{Streams: []StreamOptions{o}})
}

// A cluster that is as it should be asks for nothing, and what is examined is left as it was.
func TestExamineSound(t *testing.T) {
	b := newBed(t)
	b.topic("cars", 2)
	b.produce(b.events("cars", 2, 0, 20)...)
	b.publish("cars", testModel(t, plainSpec, 1, 5, func(m *model.Model) { m.Lineage.Topic = "cars" }), "live")
	if got := lines(b.examine(StreamOptions{Model: "cars", Topics: []string{"cars"}})); len(got) > 0 {
		t.Errorf("findings in a sound cluster:\n%s", strings.Join(got, "\n"))
	}
	topics, err := b.client.Topics(t.Context())
	if err != nil || len(topics) != 2 {
		t.Errorf("topics after the examination: %v, %v; cars and the model topic are wanted", topics, err)
	}
}

// Each fault of a cluster is one finding, with the line that mends it; the rest of the list stays silent.
func TestExamineFaults(t *testing.T) {
	sound := StreamOptions{Model: "cars", Topics: []string{"cars"}}
	for _, c := range []struct {
		name  string
		spoil func(b *bed, o *StreamOptions)
		want  []string // one for each finding: parts of its line, parted by |
	}{
		{"no input", func(b *bed, o *StreamOptions) { o.Topics = []string{"carz"} },
			[]string{"error topic|topic carz does not exist|did you mean cars?", "warning model model cars/1|was trained on topic cars, the stream reads carz"}},
		{"no model", func(b *bed, o *StreamOptions) { o.Model = "trucks" },
			[]string{"error model model trucks@live|there is no model trucks|lapwing train --topic cars --model trucks"}},
		{"no alias", func(b *bed, o *StreamOptions) { o.Alias = "canary" },
			[]string{"error model model cars@canary|no version has the alias canary|lapwing models move cars@canary 1"}},
		{"another format", func(b *bed, o *StreamOptions) { o.Format = "csv" },
			[]string{"error model model cars/1|its records are json, the stream's input is declared as csv"}},
		{"another cluster's model", func(b *bed, o *StreamOptions) {
			o.Start = StartAfterTraining
			b.publish("cars", testModel(b.t, plainSpec, 1, 5, func(m *model.Model) { m.Lineage.Topic, m.Lineage.Cluster = "cars", "elsewhere" }), "live")
		}, []string{"error model model cars/2|was trained on cluster elsewhere"}},
		{"compacted output", func(b *bed, o *StreamOptions) {
			b.made(stream.TopicSpec{Name: "cars.scores", Partitions: 2, Config: map[string]string{"cleanup.policy": "compact"}})
		}, []string{"error topic topic cars.scores|cleanup.policy is compact|kafka-configs.sh|--entity-name cars.scores --add-config cleanup.policy=delete"}},
		{"alerts that are forgotten", func(b *bed, o *StreamOptions) {
			b.made(stream.TopicSpec{Name: "cars.alerts", Partitions: 2, Config: map[string]string{"cleanup.policy": "delete"}})
		}, []string{"warning topic topic cars.alerts|cleanup.policy is delete|--add-config cleanup.policy=[compact,delete]"}},
		{"more replicas asked than there are", func(b *bed, o *StreamOptions) {
			b.made(stream.TopicSpec{Name: "cars.scores", Partitions: 2, Config: map[string]string{"min.insync.replicas": "3"}})
		}, []string{"error topic topic cars.scores|min.insync.replicas is 3, above the topic's replication factor 1|--add-config min.insync.replicas=1"}},
		{"short retention", func(b *bed, o *StreamOptions) {
			b.made(stream.TopicSpec{Name: "brief", Partitions: 2, Config: map[string]string{"retention.ms": "60000"}})
			o.Topics, o.Output, o.Alerts, o.DLQ = []string{"cars", "brief"}, "out", "alerts", "dlq"
		}, []string{"warning topic topic brief|records are deleted after 1m0s|retention.ms=604800000"}},
		{"recreated topic", func(b *bed, o *StreamOptions) {
			ok, err := b.client.CommitInitial(b.t.Context(), "lapwing.cars.scores", map[stream.TopicPartition]int64{{Topic: "cars", Partition: 0}: 1000, {Topic: "cars", Partition: 1}: 10})
			if err != nil || !ok {
				b.t.Fatal(ok, err)
			}
		}, []string{"warning group group lapwing.cars.scores, topic cars, partition 0|committed offset 1000 is above the end, 10"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t)
			b.topic("cars", 2)
			b.produce(b.events("cars", 2, 0, 20)...)
			b.publish("cars", testModel(t, plainSpec, 1, 5, func(m *model.Model) { m.Lineage.Topic = "cars" }), "live")
			o := sound
			c.spoil(b, &o)
			got := lines(b.examine(o))
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

func (b *bed) made(spec stream.TopicSpec) {
	b.t.Helper()
	if _, err := b.client.CreateTopic(b.t.Context(), spec); err != nil {
		b.t.Fatal(err)
	}
}

// The model topic decides which model is live: what would lose it is said.
func TestExamineModelTopic(t *testing.T) {
	b := newBed(t)
	b.topic("cars", 1)
	b.made(stream.TopicSpec{Name: registry.DefaultTopic, Partitions: 2, Config: map[string]string{"cleanup.policy": "delete", "max.message.bytes": "1000"}})
	got := strings.Join(lines(b.examine(StreamOptions{Model: "cars", Topics: []string{"cars"}})), "\n")
	for _, want := range []string{
		"error models topic lapwing.models: has 2 partitions; it must have one",
		"warning models topic lapwing.models: cleanup.policy is delete",
		"error models topic lapwing.models: max.message.bytes is 1000",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("not said: %s\nin:\n%s", want, got)
		}
	}
}

// Every right that is missing is named, with the command that gives it; rights that are not needed are not asked for (case 2.07: that on
// a transactional id).
func TestExamineRights(t *testing.T) {
	allow := func(kind kmsg.ACLResourceType, name string, operations ...kmsg.ACLOperation) (acls []kfake.ACL) {
		for _, o := range operations {
			acls = append(acls, kfake.ACL{Resource: kind, Name: name, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: o, Allow: true})
		}
		return acls
	}
	const topic, group, cluster = kmsg.ACLResourceTypeTopic, kmsg.ACLResourceTypeGroup, kmsg.ACLResourceTypeCluster
	const read, write, describe, create, configs = kmsg.ACLOperationRead, kmsg.ACLOperationWrite, kmsg.ACLOperationDescribe, kmsg.ACLOperationCreate, kmsg.ACLOperationDescribeConfigs
	enough := slices.Concat(
		allow(topic, "cars", read, describe, configs), allow(topic, "lapwing.models", read, describe, configs),
		allow(topic, "cars.scores", write, describe, configs), allow(topic, "cars.dlq", write, describe, configs), allow(topic, "cars.alerts", read, write, describe, configs),
		allow(group, "lapwing.cars.scores", read, describe), allow(cluster, "kafka-cluster", describe),
		[]kfake.ACL{{Resource: kmsg.ACLResourceTypeTransactionalId, Name: "lapwing.cars.scores-", Pattern: kmsg.ACLResourcePatternTypePrefixed, Operation: write, Allow: true}},
	)
	without := func(name string, operation kmsg.ACLOperation) []kfake.ACL {
		return slices.DeleteFunc(slices.Clone(enough), func(a kfake.ACL) bool { return a.Name == name && a.Operation == operation })
	}
	for _, c := range []struct {
		name string
		acls []kfake.ACL
		want string // in the only findings; "" = none
	}{
		{"enough", enough, ""},
		{"no read of the input", without("cars", read), "error rights topic cars: this client may not READ it; next: kafka-acls.sh"},
		{"no write of the scores", without("cars.scores", write), "error rights topic cars.scores: this client may not WRITE it"},
		{"no read of the group", without("lapwing.cars.scores", read), "error rights group lapwing.cars.scores: this client may not READ the group"},
		{"no read of the models", without("lapwing.models", read), "error rights topic lapwing.models: this client may not READ it"},
		{"no transactions", without("lapwing.cars.scores-", write), "error rights transactional.id lapwing.cars.scores-check: this client may not use the stream's transactional ids, which exactly_once needs and at_least_once does not; " +
			"next: kafka-acls.sh"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableACLs(), kfake.EnableSASL(), kfake.SleepOutOfOrder(),
				kfake.Superuser("PLAIN", "root", "root-secret"), kfake.User("PLAIN", "ada", "ada-secret", c.acls...))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(k.Close)
			as := func(user string) *stream.Client {
				client, err := stream.Connect(t.Context(), stream.Options{Properties: map[string]string{
					"bootstrap.servers": k.ListenAddrs()[0], "security.protocol": "SASL_PLAINTEXT", "sasl.mechanisms": "PLAIN",
					"sasl.username": user, "sasl.password": user + "-secret",
				}})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(client.Close)
				return client
			}
			b := &bed{t: t, client: as("root"), log: &logBook{}}
			b.registry = registry.Open(b.client, registry.Options{})
			for _, name := range []string{"cars", "cars.scores", "cars.dlq"} {
				b.made(stream.TopicSpec{Name: name, Partitions: 2})
			}
			b.made(stream.TopicSpec{Name: "cars.alerts", Partitions: 2, Config: map[string]string{"cleanup.policy": "compact,delete"}})
			b.publish("cars", testModel(t, plainSpec, 1, 5, func(m *model.Model) { m.Lineage.Topic = "cars" }), "live")
			b.client = as("ada")
			b.registry = registry.Open(b.client, registry.Options{})
			got := strings.Join(lines(Examine(t.Context(), Deps{Client: b.client, Registry: b.registry, Engine: cpu.New()},
				Options{Delivery: ExactlyOnce, Streams: []StreamOptions{{Model: "cars", Topics: []string{"cars"}}}})), "\n")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("wanted %q, got:\n%s", c.want, got)
			}
		})
	}
}

// A broker that wants more replicas of its transaction log than there are brokers gives no transaction, and never says why.
func TestExamineTransactionLog(t *testing.T) {
	t.Parallel()
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SleepOutOfOrder(), kfake.BrokerConfigs(map[string]string{"transaction.state.log.replication.factor": "3"}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	b := bedAt(t, k.ListenAddrs()[0])
	b.topic("cars", 1)
	for delivery, want := range map[string]string{
		ExactlyOnce: "error transactions topic __transaction_state: transaction.state.log.replication.factor is 3 and there is 1 broker: no transaction can begin; next: in every broker's server.properties",
		AtLeastOnce: "",
	} {
		got := strings.Join(lines(Examine(t.Context(), Deps{Client: b.client, Registry: b.registry, Engine: cpu.New()},
			Options{Delivery: delivery, Streams: []StreamOptions{{Model: "cars", Topics: []string{"cars"}}}})), "\n")
		if !strings.Contains(got, want) || want == "" && strings.Contains(got, "transaction") {
			t.Errorf("%s: wanted %q, got:\n%s", delivery, want, got)
		}
	}
}

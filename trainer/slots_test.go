package trainer

import (
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

// A client that may do all that a training without checkpoints takes, and one that may use the topic too.
func TestCheckpointsNeedRightsThatTrainingDoesNot(t *testing.T) {
	t.Parallel()
	allow := func(kind kmsg.ACLResourceType, name string, operations ...kmsg.ACLOperation) (acls []kfake.ACL) {
		for _, o := range operations {
			acls = append(acls, kfake.ACL{Resource: kind, Name: name, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: o, Allow: true})
		}
		return acls
	}
	const topic, cluster = kmsg.ACLResourceTypeTopic, kmsg.ACLResourceTypeCluster
	const read, write, describe, configs = kmsg.ACLOperationRead, kmsg.ACLOperationWrite, kmsg.ACLOperationDescribe, kmsg.ACLOperationDescribeConfigs
	enough := append(append(append(allow(topic, "h", read, describe), allow(topic, "lapwing.models", kmsg.ACLOperationCreate, read, write, describe, configs)...), allow(cluster, "kafka-cluster", describe)...),
		kfake.ACL{Resource: kmsg.ACLResourceTypeTransactionalId, Name: "lapwing-models-", Pattern: kmsg.ACLResourcePatternTypePrefixed, Operation: write, Allow: true},
		kfake.ACL{Resource: kmsg.ACLResourceTypeTransactionalId, Name: "lapwing-models-", Pattern: kmsg.ACLResourcePatternTypePrefixed, Operation: describe, Allow: true})
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableACLs(), kfake.EnableSASL(), kfake.SleepOutOfOrder(), kfake.Superuser("PLAIN", "root", "root-secret"),
		kfake.User("PLAIN", "ada", "ada-secret", enough...), kfake.User("PLAIN", "bob", "bob-secret", append(allow(topic, CheckpointTopic, read, write, describe), enough...)...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	as := func(user string) *bench {
		client, err := stream.Connect(t.Context(), stream.Options{Log: slog.New(slog.DiscardHandler), Properties: map[string]string{
			"bootstrap.servers": k.ListenAddrs()[0], "security.protocol": "SASL_PLAINTEXT", "sasl.mechanisms": "PLAIN", "sasl.username": user, "sasl.password": user + "-secret",
		}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		log := &strings.Builder{}
		return &bench{t: t, client: client, log: log, deps: Deps{Client: client, Registry: registry.Open(client, registry.Options{}), Engine: cpu.New(), Log: slog.New(slog.NewTextHandler(log, nil))}}
	}
	root := as("root")
	root.topic("h", 2, values(2, machine(4, 3000)...)...)
	o := slow("h")
	o.KeepDir, o.Model = t.TempDir(), "other"
	want := root.mustRun(o) // and the model topic is made

	// A checkpoint at every turn, and none can be written: it is said once, and the model is the same.
	b := as("ada")
	o.Model, o.Checkpoint = "m", time.Nanosecond
	if r := b.mustRun(o); model.Digest(r.Data) != model.Digest(want.Data) || !r.Published {
		t.Errorf("without the right to write checkpoints: published %v, model %s", r.Published, model.Digest(r.Data))
	}
	if said := strings.Count(b.log.String(), "a checkpoint could not be written"); said != 1 {
		t.Errorf("said %d times:\n%s", said, b.log)
	}
	o.Checkpoint = time.Hour
	var left *InterruptedError
	if err := b.interrupt(o, 300, ""); !errors.As(err, &left) || left.Run != "" || left.Unwritten == nil {
		t.Errorf("called off: %+v", err)
	}

	// In a topic that somebody made for it, a client that may make none writes all the same.
	if _, err := root.client.CreateTopic(t.Context(), stream.TopicSpec{Name: CheckpointTopic, Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	if err := b.interrupt(o, 300, ""); !errors.As(err, &left) || left.Unwritten == nil {
		t.Errorf("called off: %+v", err)
	}
	b = as("bob")
	if err := b.interrupt(o, 300, ""); !errors.As(err, &left) || left.Run == "" || left.Unwritten != nil {
		t.Errorf("called off: %+v\n%s", err, b.log)
	}
	o.Resume = Newest
	if r := b.mustRun(o); model.Digest(r.Data) != model.Digest(want.Data) {
		t.Error("gone on from the checkpoint, the model is another")
	}
}

// A process that writes several checkpoints writes them to both slots in turn, and the newest counts.
func TestSlotsTakeTurns(t *testing.T) {
	b := newBench(t)
	b.topic("h", 2, values(2, machine(4, 3000)...)...)
	o := slow("h")
	o.KeepDir, o.Checkpoint = t.TempDir(), time.Nanosecond
	var left *InterruptedError
	if err := b.interrupt(o, 60, ""); !errors.As(err, &left) || left.Run == "" {
		t.Fatal(err)
	}
	found, err := (&job{Deps: b.deps, Options: o}).find(t.Context())
	if err != nil || len(found) != 1 || len(found[0].at) != slots {
		t.Fatalf("%d runs (%v)", len(found), err)
	}
	data, slot, err := found[0].whole(o.Model)
	if err != nil {
		t.Fatal(err)
	}
	c, err := decodeCheckpoint(data)
	if err != nil || c.State.Step != left.Step {
		t.Errorf("the newest holds step %d (%v), the last written was %d", c.State.Step, err, left.Step)
	}
	var older slotManifest
	if err := json.Unmarshal(found[0].values[slotKey(o.Model, left.Run, 1-slot)], &older); err != nil || older.Step == 0 || older.Step >= left.Step {
		t.Errorf("the other slot holds step %d (%v), the last written was %d", older.Step, err, left.Step)
	}
}

// recreate makes the topic h anew, with other records.
func recreate(b *bench, kafka *kgo.Client, rows []string) {
	b.t.Helper()
	name := "h"
	r := kmsg.NewPtrDeleteTopicsRequest()
	r.TopicNames, r.Topics = []string{name}, []kmsg.DeleteTopicsRequestTopic{{Topic: &name}}
	if a, err := r.RequestWith(b.t.Context(), kafka); err != nil || a.Topics[0].ErrorCode != 0 {
		b.t.Fatal(a, err)
	}
	b.topic(name, 2, values(2, rows...)...)
}

// Where the records are no longer those that the run had learned from, its model cannot be made again: the reason is named.
func TestResumeWithoutItsHistory(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		spoil func(b *bench, kafka *kgo.Client)
		kind  error
		said  string
	}{
		{"retention", func(b *bench, kafka *kgo.Client) {
			r := kmsg.NewPtrDeleteRecordsRequest()
			r.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: "h", Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Partition: 1, Offset: 10}}}}
			if a, err := r.RequestWith(b.t.Context(), kafka); err != nil || a.Topics[0].Partitions[0].ErrorCode != 0 {
				b.t.Fatal(a, err)
			}
		}, ErrLost, "retention has deleted offsets 0 to 9 of partition 1"},
		{"recreated", func(b *bench, kafka *kgo.Client) {
			recreate(b, kafka, machine(4, 2000))
		}, ErrOtherRun, "ends before offset 1500"},
		{"recreated with other values", func(b *bench, kafka *kgo.Client) {
			recreate(b, kafka, machine(5, 3000))
		}, ErrOtherRun, "the history is not what the checkpoint's run read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			kafka, err := kgo.NewClient(kgo.SeedBrokers(b.client.Brokers()))
			if err != nil {
				t.Fatal(err)
			}
			defer kafka.Close()
			b.topic("h", 2, values(2, machine(4, 3000)...)...)
			o := slow("h")
			o.KeepDir = t.TempDir()
			var left *InterruptedError
			if err := b.interrupt(o, 30, ""); !errors.As(err, &left) || left.Run == "" {
				t.Fatal(err)
			}
			c.spoil(b, kafka)
			o.Resume = left.Run
			var e *InputError
			if _, err := b.run(o); !errors.As(err, &e) || !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.said) || e.Next == "" {
				t.Errorf("%v; want %s", err, c.said)
			}
		})
	}
}

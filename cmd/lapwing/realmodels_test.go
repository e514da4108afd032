//go:build e2e

package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/lapwing-stream/lapwing/server"
)

// The model topic of a real broker under a scorer: a trainer killed between the parts of a model, two trainers that end at once, a wrong
// retention, and the topic deleted and made anew.
func TestRealKafkaModelTopicAmongTrainers_Case5_10_6_18_1_15(t *testing.T) {
	f := realKafka(t)
	topic, model, models := "parts"+f.suffix, "parts"+f.suffix, "models"+f.suffix
	f.environ = append(f.environ, "LAPWING_MODELS_TOPIC="+models)
	f.run(nil, "generate", "cars", "--rate", "0", "--count", "1500", "--topic", topic)
	train := func(layers, seed string) []string {
		return []string{"train", "--topic", topic, "--model", model, "--epochs", "1", "--layers", layers, "--seed", seed, "--json"}
	}
	f.run(nil, train("6,3,6", "1")...)
	s := f.serve("--topic", topic, "--model", model)
	end := f.source(topic)
	f.awaitVersions(topic, 1)

	f.killedBetweenParts(models, model+"/2", train("500,500", "2")...)
	// The next trainers do not wait for the dead one's transaction, nor does anybody see what it left.
	two := []*scorer{f.start(train("6,3,6", "3")...), f.start(train("6,3,6", "4")...)}
	published := 0
	for _, c := range two {
		err := <-c.ended
		switch code := c.cmd.ProcessState.ExitCode(); code {
		case exitOK:
			published++
		case exitOvertaken:
			t.Logf("overtaken: %s", lastLine(c.err.String()))
		default:
			t.Errorf("a trainer ended with %v\n%s", err, c.err.String())
		}
	}
	if published == 0 {
		t.Error("of two trainers none published")
	}
	newest := 1 + published
	f.awaitAmong(topic, 1, newest)
	var list []struct {
		Versions []struct {
			Version int
			Fault   string
		}
	}
	f.run(&list, "models", "list", "--json")
	if len(list) != 1 || len(list[0].Versions) != newest {
		t.Errorf("%+v; want versions 1 to %d", list, newest)
	}

	// Retention by age, set by hand on a topic of models.
	f.setTopic(models, "cleanup.policy", "compact,delete", "retention.ms", "3600000")
	var said struct{ Findings []server.Finding }
	f.run(&said, "doctor", "--topic", topic, "--model", model, "--http", "none", "--json")
	if !strings.Contains(fmt.Sprintf("%+v", said.Findings), "so the broker deletes models after 1h0m0s (retention.ms)") {
		t.Errorf("doctor: %+v", said.Findings)
	}
	s.stop()
	s = f.serve("--topic", topic, "--model", model)
	sent := f.ends(topic + ".scores")[0]
	f.awaitRecords(topic+".scores", sent+1)

	// Deleted and made anew: the live model goes on until version 1 of the new topic comes.
	f.deleteTopic(models)
	f.run(nil, train("6,3,6", "5")...)
	f.awaitAmong(topic, 1, newest, 1)
	end()
	if out := s.stop().Streams[0]; out.Restarts != 0 || out.Bad != 0 {
		t.Errorf("serve says %+v", out)
	}
	for _, want := range []string{"was recreated", "the model topic is set wrongly"} {
		if !strings.Contains(s.err.String(), want) {
			t.Errorf("serve does not say %q", want)
		}
	}
}

// awaitAmong returns once the scores of every partition have come from these versions in turn, others between them or not.
func (f *flow) awaitAmong(topic string, want ...int) {
	f.t.Helper()
	c := f.connect(kgo.ConsumeTopics(topic+".scores"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer c.Close()
	partitions, seen, reached := len(f.ends(topic)), map[int32]int{}, 0
	for reached < partitions {
		fetches := c.PollFetches(f.ctx)
		if f.ctx.Err() != nil {
			f.t.Fatalf("not every partition of %s.scores has versions %v in turn: %v of them", topic, want, seen)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			var s score
			if n := seen[r.Partition]; n < len(want) && json.Unmarshal(r.Value, &s) == nil && s.Version == want[n] {
				if seen[r.Partition]++; n+1 == len(want) {
					reached++
				}
			}
		})
	}
}

// awaitRecords returns once the topic's first partition has come to an offset.
func (f *flow) awaitRecords(topic string, end int64) {
	f.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for f.ends(topic)[0] < end {
		select {
		case <-tick.C:
		case <-f.ctx.Done():
			f.t.Fatalf("%s does not come to offset %d", topic, end)
		}
	}
}

// killedBetweenParts runs a training that makes a version of several parts, and kills it when the first of them is in the topic. No other
// comes before that: with one request the trainer's client is over its quota, and for minutes the broker reads nothing more from it.
func (f *flow) killedBetweenParts(topic, version string, args ...string) {
	f.t.Helper()
	client := "slow" + f.suffix
	f.quota(client, "producer_byte_rate", 1000)
	f.everything = true
	defer func() { f.everything = false }()
	end := f.ends(topic)[0]
	c := f.connect(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(end)}}))
	defer c.Close()
	trainer := f.start(append(args, "-X", "client.id="+client)...)
	for came := false; !came; {
		fetches := c.PollFetches(f.ctx)
		if err := fetches.Err(); err != nil {
			f.t.Fatalf("no part of %s comes: %v; the trainer wrote %s", version, err, trainer.err.String())
		}
		fetches.EachRecord(func(r *kgo.Record) { came = came || strings.HasPrefix(string(r.Key), version+"/") })
	}
	if err := trainer.cmd.Process.Kill(); err != nil {
		f.t.Fatal(err)
	}
	<-trainer.ended
	for _, r := range f.all(topic)[0] {
		if r.Offset > end {
			f.t.Fatalf("behind the first part of %s stands %s: the trainer was not killed between two", version, r.Key)
		}
	}
}

// quota holds a client to a rate.
func (f *flow) quota(client, key string, value float64) {
	f.t.Helper()
	req := kmsg.NewPtrAlterClientQuotasRequest()
	entry := kmsg.NewAlterClientQuotasRequestEntry()
	entry.Entity = []kmsg.AlterClientQuotasRequestEntryEntity{{Type: "client-id", Name: &client}}
	entry.Ops = []kmsg.AlterClientQuotasRequestEntryOp{{Key: key, Value: value}}
	req.Entries = append(req.Entries, entry)
	answer, err := req.RequestWith(f.ctx, f.client)
	f.granted("quota of client "+client, err, func() int16 { return answer.Entries[0].ErrorCode })
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

func (f *flow) setTopic(topic string, config ...string) {
	f.t.Helper()
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	res := kmsg.NewIncrementalAlterConfigsRequestResource()
	res.ResourceType, res.ResourceName = kmsg.ConfigResourceTypeTopic, topic
	for i := 0; i+1 < len(config); i += 2 {
		c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		c.Name, c.Value = config[i], &config[i+1]
		res.Configs = append(res.Configs, c)
	}
	req.Resources = append(req.Resources, res)
	answer, err := req.RequestWith(f.ctx, f.client)
	f.granted("settings of topic "+topic, err, func() int16 { return answer.Resources[0].ErrorCode })
}

func (f *flow) deleteTopic(topic string) {
	f.t.Helper()
	req := kmsg.NewPtrDeleteTopicsRequest()
	top := kmsg.NewDeleteTopicsRequestTopic()
	top.Topic = &topic
	req.Topics, req.TopicNames = append(req.Topics, top), []string{topic}
	answer, err := req.RequestWith(f.ctx, f.client)
	f.granted("topic "+topic, err, func() int16 { return answer.Topics[0].ErrorCode })
}

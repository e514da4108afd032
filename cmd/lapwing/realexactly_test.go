//go:build e2e

package main

import (
	"math/rand/v2"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Cases 2.10, 2.11 and 2.14, on a real broker and on the embedded one.
func TestRealKafkaExactlyOnceKilled(t *testing.T) { exactlyOnceKilled(t, realKafka(t), 20) }

// Cases 2.10, 2.11 and 2.14.
func TestExactlyOnceKilled(t *testing.T) { exactlyOnceKilled(t, embedded(t), 10) }

// exactlyOnceKilled runs two copies of serve with exactly_once while records flow and models swap, kills one of them again and again
// at a random moment, freezes one for longer than its session and its transactions last, and then compares input and output record
// by record.
func exactlyOnceKilled(t *testing.T, f *flow, kills int) {
	topic, model := "once"+f.suffix, "once"+f.suffix
	d := generatedMess(t)
	f.load(d, topic)
	var versions []trained
	for seed := range 2 {
		var v trained
		f.run(&v, "train", "--topic", topic, "--model", model, "--key", d.key, "--time", d.time, "--seed", strconv.Itoa(seed+1), "--json")
		versions = append(versions, v)
	}
	serve := func(instance string) *scorer {
		return f.serve("--topic", topic, "--model", model, "--delivery", "exactly_once", "--instance-id", instance, "--transaction-timeout", "3s", "-X", "session.timeout.ms=6000")
	}
	const seed = 9
	rng := rand.New(rand.NewPCG(seed, 1))
	var history []*kgo.Record
	for _, records := range f.all(topic) {
		history = append(history, records...)
	}
	end := f.source(topic)
	sent := 0
	burst := func(n int) (done <-chan error) { // while there is more to read, a transaction stays open until its interval is over
		var batch []*kgo.Record
		for _, i := range rng.Perm(len(history))[:n] {
			r := history[i]
			batch = append(batch, &kgo.Record{Topic: topic, Partition: r.Partition, Key: r.Key, Value: r.Value, Timestamp: r.Timestamp})
		}
		sent += n
		result := make(chan error, 1)
		go func() { result <- f.client.ProduceSync(f.ctx, batch...).FirstErr() }()
		return result
	}
	copies := []*scorer{serve("a"), serve("b")}
	reader := f.connect(kgo.ConsumeTopics(topic+".scores"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	more := func(n int) {
		t.Helper()
		for seen := 0; seen < n; {
			seen += reader.PollFetches(f.ctx).NumRecords()
			if f.ctx.Err() != nil {
				t.Fatalf("no scores: %d of %d", seen, n)
			}
		}
	}
	more(1)
	longest := time.Duration(0)
	for i := range kills {
		if i%5 == 4 {
			f.run(nil, "models", "move", model+"@live", strconv.Itoa(versions[i/5%2].Version), "--json")
		}
		more(1 + rng.IntN(1000))
		f.everything = true
		early := f.connect(kgo.ConsumeTopics(topic+".scores"), kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()))
		f.everything = false
		produced := burst(min(8000, len(history)))
		for early.PollFetches(f.ctx).NumRecords() == 0 { // until results are written that may not be committed yet
			if f.ctx.Err() != nil {
				t.Fatal("no scores after a burst")
			}
		}
		timer := time.NewTimer(time.Duration(rng.IntN(20)) * time.Millisecond) // anywhere in a transaction
		<-timer.C
		which := rng.IntN(2)
		s := copies[which]
		if err := s.cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for range s.ended {
		}
		killed := time.Now()
		early.Close()
		if err := <-produced; err != nil {
			t.Fatal(err)
		}
		copies[which] = serve([]string{"a", "b"}[which])
		more(1000) // of both copies' partitions
		longest = max(longest, time.Since(killed))
	}
	frozen := copies[1].cmd.Process
	if err := frozen.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	timer := time.NewTimer(15 * time.Second)
	<-timer.C
	if err := frozen.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	more(1000)
	sent += end()
	f.await(topic, len(d.rows)+sent)
	for _, s := range copies {
		s.stop()
	}
	a := f.audit(topic, model)
	if a.records != len(d.rows)+sent || len(a.scores) != a.records {
		t.Errorf("%d records, %d scores, %d dead letters; want %d scores", a.records, len(a.scores), len(a.dead), len(d.rows)+sent)
	}
	seen := 0
	for _, n := range a.byVersion {
		seen += n
	}
	f.everything = true
	aborted := -seen
	for _, records := range f.all(topic + ".scores") {
		aborted += len(records)
	}
	if aborted == 0 {
		t.Error("no kill came within a transaction: the test says nothing")
	}
	// What is lost, doubled or out of order has failed the audit.
	t.Logf("seed %d: %d kills and one freeze; %d records in, %d scored, %d written and taken back; by version %v; longest wait for 1,000 scores after a kill %v",
		seed, kills, a.records, len(a.scores), aborted, a.byVersion, longest.Round(time.Millisecond))
}

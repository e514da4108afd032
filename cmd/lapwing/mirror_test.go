//go:build e2e

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/lapwing-stream/lapwing/bench/kafka"
	child "github.com/lapwing-stream/lapwing/bench/process"
)

// peers is where the bench keeps what Maven fetched; the parts are there when it returns.
func peers(t *testing.T, parts ...kafka.Part) string {
	t.Helper()
	dir, err := filepath.Abs("../../build/peers")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for _, p := range parts {
		if err := p.Install(ctx, dir); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// configured copies a file of docker/ with changes, each of which must find its place: what runs is what the docs show.
func (f *flow) configured(file string, changes ...string) string {
	f.t.Helper()
	text, err := os.ReadFile(filepath.Join("../../docker", file))
	if err != nil {
		f.t.Fatal(err)
	}
	for i := 0; i < len(changes); i += 2 {
		if !bytes.Contains(text, []byte(changes[i])) {
			f.t.Fatalf("%s has no %q", file, changes[i])
		}
		text = bytes.ReplaceAll(text, []byte(changes[i]), []byte(changes[i+1]))
	}
	name := filepath.Join(f.dir, filepath.Base(file))
	if err := os.WriteFile(name, text, 0o600); err != nil {
		f.t.Fatal(err)
	}
	return name
}

// java starts a program of Kafka Connect's jars.
func (f *flow) java(dir string, args ...string) *child.Process {
	f.t.Helper()
	args = append([]string{"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", kafka.Connect.Jars(dir)}, args...)
	p, err := child.Start(f.t.Context(), child.Options{Dir: f.dir, Keep: 1 << 16, Grace: 5 * time.Second}, "java", args...)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		p.Kill()
		if f.t.Failed() {
			f.t.Logf("%s wrote:\n%s", args[len(args)-1], p.Said())
		}
	})
	return p
}

// aborted writes records to the model topic in a transaction that is not committed.
func (f *flow) aborted(topic string, records ...*kgo.Record) {
	f.t.Helper()
	c := f.connect(kgo.TransactionalID("aborting"+f.suffix), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer c.Close()
	if err := c.BeginTransaction(); err != nil {
		f.t.Fatal(err)
	}
	for _, r := range records {
		r.Topic = topic
	}
	if err := c.ProduceSync(f.ctx, records...).FirstErr(); err != nil {
		f.t.Fatal(err)
	}
	if err := c.EndTransaction(f.ctx, kgo.TryAbort); err != nil {
		f.t.Fatal(err)
	}
}

// copyOf gives the records that would make one version of a model another, alias and all.
func (f *flow) copyOf(topic, model string, from, to int) (out []*kgo.Record) {
	f.t.Helper()
	for _, r := range f.all(topic)[0] {
		if rest, ok := strings.CutPrefix(string(r.Key), fmt.Sprintf("%s/%d", model, from)); ok {
			out = append(out, &kgo.Record{Key: fmt.Appendf(nil, "%s/%d%s", model, to, rest), Value: r.Value})
		}
	}
	alias, err := json.Marshal(map[string]any{"version": to, "share": 1, "generation": to, "who": "nobody", "previous": []int{from}})
	if err != nil || len(out) < 2 {
		f.t.Fatalf("%d records of %s/%d, %v", len(out), model, from, err)
	}
	return append(out, &kgo.Record{Key: []byte(model + "@live"), Value: alias})
}

// where gives the offset of a key's last record that a reader of committed records sees.
func (f *flow) where(topic, key string) (at int64) {
	f.t.Helper()
	at = -1
	for _, r := range f.all(topic)[0] {
		if string(r.Key) == key {
			at = r.Offset
		}
	}
	return at
}

// live exports what an alias means.
func (f *flow) live(model string, flags ...string) []byte {
	f.t.Helper()
	file := filepath.Join(f.t.TempDir(), "live.onnx")
	f.run(nil, append([]string{"models", "export", model + "@live", "--to", file}, flags...)...)
	data, err := os.ReadFile(file)
	if err != nil {
		f.t.Fatal(err)
	}
	return data
}

// MirrorMaker 2, configured as docs/edge.md says, copies the model topic to another cluster, where a scorer follows it. Offsets differ,
// since what ends a transaction is not copied; what aliases mean does not, nor is a version seen that was not committed.
func TestRealKafkaMirrored(t *testing.T) {
	hub := realKafka(t)
	dir := peers(t, kafka.Broker, kafka.Connect)
	cluster, err := kafka.Start(t.Context(), kafka.Options{Dir: dir, Heap: 256})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cluster.Close() })
	edge := newFlow(t, cluster.Addr())
	model, topic, mirrored := "edge"+hub.suffix, "edge", []string{"--models-topic", "hub.lapwing.models"}

	hub.run(nil, "generate", "cars", "--rate", "0", "--count", "3000", "--topic", model)
	train := func(seed, layers string) {
		t.Helper()
		hub.run(nil, "train", "--topic", model, "--model", model, "--epochs", "2", "--layers", layers, "--seed", seed)
	}
	train("1", "6,3,6")
	hub.aborted("lapwing.models", hub.copyOf("lapwing.models", model, 1, 2)[:1]...) // a trainer that died between the parts
	train("2", "6,3,6")
	hub.aborted("lapwing.models", hub.copyOf("lapwing.models", model, 1, 3)...) // and one that died before it committed

	config := hub.configured("edge/mm2.properties", "hub.example:9092", hub.addr, "edge.example:9092", edge.addr,
		".factor=3", ".factor=1", "interval.seconds=10", "interval.seconds=2")
	mirror := func() *child.Process {
		return hub.java(dir, "org.apache.kafka.connect.mirror.MirrorMaker", config)
	}
	edge.run(nil, "generate", "cars", "--rate", "0", "--count", "3000", "--topic", topic)
	s := edge.serve(append(mirrored, "--topic", topic, "--model", model)...) // the topic of models is not there yet
	end := edge.source(topic)
	began := time.Now()
	first := mirror()
	edge.awaitVersions(topic, 2)
	t.Logf("the first score %v after MirrorMaker began", time.Since(began))
	if at, here := hub.where("lapwing.models", model+"@live"), edge.where("hub.lapwing.models", model+"@live"); at == here || here < 0 {
		t.Errorf("the alias is at offset %d, in the mirror at %d: nothing was told apart", at, here)
	}
	if !bytes.Equal(hub.live(model), edge.live(model, mirrored...)) {
		t.Error("live is another model at the edge")
	}
	began = time.Now()
	hub.run(nil, "models", "rollback", model)
	edge.awaitVersions(topic, 2, 1)
	t.Logf("rolled back at the edge after %v", time.Since(began))

	// What MirrorMaker copied last when it dies it copies again.
	first.Kill()
	train("3", "500,500") // of several parts
	began = time.Now()
	mirror()
	edge.awaitAmong(topic, 2, 1, 3)
	t.Logf("version 3 at the edge %v after MirrorMaker began again", time.Since(began))
	if !bytes.Equal(hub.live(model), edge.live(model, mirrored...)) {
		t.Error("live is another model at the edge after MirrorMaker died")
	}
	end()
	if said := s.stop().Streams[0]; said.Restarts != 0 || said.Bad != 0 {
		t.Errorf("serve says %+v", said)
	}
}

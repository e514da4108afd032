//go:build e2e

package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/lapwing-stream/lapwing/server"
)

// realKafka is a flow against the brokers of LAPWING_TEST_BROKERS, or skips the test.
func realKafka(t *testing.T) *flow {
	t.Helper()
	addr := os.Getenv("LAPWING_TEST_BROKERS")
	if addr == "" {
		t.Skipf("SKIPPED-KAFKA: %s: LAPWING_TEST_BROKERS names no broker; make test-kafka starts one", t.Name())
	}
	f := newFlow(t, addr)
	// The broker outlives the run, and its topics with it.
	f.suffix = fmt.Sprintf("-%d", time.Now().UnixNano())
	return f
}

func TestRealKafkaGeneratedInput(t *testing.T) {
	f := realKafka(t)
	d := generatedMess(t)
	if auc := f.wholeWay(d, d, "mess"+f.suffix, relationAlone...); !(auc >= .8) {
		t.Errorf("area under the ROC curve %.3f, want at least .8", auc)
	}
}

// A broker as it comes asks for nothing but a model, and says by which protocol it keeps transactions.
func TestRealKafkaDoctor(t *testing.T) {
	f := realKafka(t)
	d := generatedMess(t)
	topic := "doctor" + f.suffix
	f.load(d, topic)
	var object struct {
		Works    bool
		Findings []server.Finding
	}
	f.runTo(exitFailed, &object, "doctor", "--topic", topic, "--model", topic, "--delivery", "exactly_once", "--http", "none", "--json")
	protocol := ""
	for _, found := range object.Findings {
		if found.Area == "transactions" && strings.HasPrefix(found.What, "transaction protocol") {
			protocol = found.What
		}
		if found.Severity == server.Failure && found.Area != "model" || found.Severity == server.Warning && (found.Area == "topic" || found.Area == "transactions" || found.Area == "group" || found.Area == "models") {
			t.Errorf("%+v", found)
		}
	}
	if !strings.HasPrefix(protocol, "transaction protocol v1 is in force: the brokers have transaction.version 2, ") || !strings.HasSuffix(protocol, "; they verify that a record's transaction is open") {
		t.Errorf("the protocol: %q", protocol)
	}
}

func TestRealKafkaCarSensors(t *testing.T) {
	f := realKafka(t)
	dir, sets := manifest(t)
	d := sets["car-sensors/car-sensor-data.csv"].open(t, dir)
	d.number = "coolant_temp"
	f.wholeWay(d, d, "cars"+f.suffix)
}

func TestRealKafkaLifeOfAModel(t *testing.T) { lifeOfAModel(t, realKafka(t)) }
func TestLifeOfAModel(t *testing.T)          { lifeOfAModel(t, embedded(t)) }

// Checkpoints in a real broker's compacted topic.
func TestRealKafkaTrainResumes(t *testing.T) {
	f := realKafka(t)
	topic := "resumed" + f.suffix
	f.run(nil, "generate", "cars", "--rate", "0", "--count", "5000", "--topic", topic)
	trainResumes(t, &resuming{broker: f.addr, topic: topic, model: topic}, syscall.SIGKILL, syscall.SIGTERM)
}

// lifeOfAModel publishes, swaps, restarts and rolls back while records flow, none of which may cost or double a record.
func lifeOfAModel(t *testing.T, f *flow) {
	topic, model := "life"+f.suffix, "life"+f.suffix
	d := generatedMess(t)
	f.load(d, topic)
	train := func(seed string) (v trained) {
		t.Helper()
		f.run(&v, "train", "--topic", topic, "--model", model, "--key", d.key, "--time", d.time, "--seed", seed, "--json")
		return v
	}
	serve := func() *scorer { return f.serve("--topic", topic, "--model", model, "--models-topic", "lapwing.models") }
	first := train("1")
	end := f.source(topic)
	s := serve()
	f.awaitVersions(topic, first.Version)
	second := train("2") // while records flow, and on more of them
	if second.Rows.Read <= first.Rows.Read {
		t.Errorf("version 2 was trained on %d records, version 1 on %d: nothing flowed in between", second.Rows.Read, first.Rows.Read)
	}
	f.awaitVersions(topic, first.Version, second.Version)
	before := s.stop().Streams[0] // records go on
	s = serve()
	var moved struct {
		Now struct {
			Version  int
			Previous []int
		}
	}
	f.run(&moved, "models", "rollback", model, "--why", "a test", "--json")
	if moved.Now.Version != first.Version {
		t.Errorf("rolled back to %+v", moved.Now)
	}
	f.awaitVersions(topic, first.Version, second.Version, first.Version)
	sent := end()
	f.await(topic, len(d.rows)+sent)
	after := s.stop().Streams[0]

	a := f.audit(topic, model)
	if a.records != len(d.rows)+sent || len(a.scores) != a.records {
		t.Errorf("%d records, %d scores, %d dead letters; want %d scores", a.records, len(a.scores), len(a.dead), len(d.rows)+sent)
	}
	for p, versions := range a.versions {
		if !slices.Equal(versions, []int{1, 2, 1}) {
			t.Errorf("partition %d was scored by versions %v in turn", p, versions)
		}
	}
	if before.Swaps != 1 || before.RecordsOut+after.RecordsOut != int64(a.records) || before.Restarts+after.Restarts != 0 {
		t.Errorf("serve says %+v, then %+v; %d records", before, after, a.records)
	}
	f.wholeModels("lapwing.models", model, first, second)
	t.Logf("%d records: %d scored before the restart, %d after it; by version %v", a.records, before.RecordsOut, after.RecordsOut, a.byVersion)
}

// source writes the topic's own records to it again and again, a few hundred a time, until end is called, which gives their number.
func (f *flow) source(topic string) (end func() int) {
	f.t.Helper()
	var templates []*kgo.Record
	for _, records := range f.all(topic) {
		templates = append(templates, records...)
	}
	slices.SortFunc(templates, func(x, y *kgo.Record) int { // all partitions in each batch
		return cmp.Or(cmp.Compare(x.Offset, y.Offset), cmp.Compare(x.Partition, y.Partition))
	})
	stop := make(chan struct{})
	var once sync.Once
	var running sync.WaitGroup
	sent := 0
	var failed error
	running.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			var batch []*kgo.Record
			for range 40 {
				r := templates[(sent+len(batch))%len(templates)]
				batch = append(batch, &kgo.Record{Topic: topic, Partition: r.Partition, Key: r.Key, Value: r.Value, Timestamp: r.Timestamp})
			}
			if err := f.client.ProduceSync(f.ctx, batch...).FirstErr(); err != nil {
				failed = err
				return
			}
			sent += len(batch)
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	})
	end = func() int {
		once.Do(func() { close(stop) })
		running.Wait()
		if failed != nil {
			f.t.Fatalf("the source failed: %v", failed)
		}
		return sent
	}
	f.t.Cleanup(func() {
		once.Do(func() { close(stop) })
		running.Wait()
	})
	return end
}

// awaitVersions returns once the scores of every partition have come from these versions in turn.
func (f *flow) awaitVersions(topic string, want ...int) {
	f.t.Helper()
	c := f.connect(kgo.ConsumeTopics(topic+".scores"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer c.Close()
	partitions := len(f.ends(topic))
	turns, reached := map[int32][]int{}, map[int32]bool{}
	for len(reached) < partitions {
		fetches := c.PollFetches(f.ctx)
		if f.ctx.Err() != nil {
			f.t.Fatalf("not every partition of %s.scores has versions %v in turn: %v", topic, want, turns)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			var s score
			if err := json.Unmarshal(r.Value, &s); err != nil {
				return // audit will say so
			}
			if v := turns[r.Partition]; len(v) == 0 || v[len(v)-1] != s.Version {
				turns[r.Partition] = append(v, s.Version)
				if slices.Equal(turns[r.Partition], want) {
					reached[r.Partition] = true
				}
			}
		})
	}
}

// wholeModels reads the model topic as any program may: committed records, the last of each key, the digest of what the parts join to.
func (f *flow) wholeModels(topic, name string, versions ...trained) {
	f.t.Helper()
	last := map[string][]byte{}
	for _, records := range f.all(topic) {
		for _, r := range records {
			if last[string(r.Key)] = r.Value; r.Value == nil {
				delete(last, string(r.Key))
			}
		}
	}
	maps.DeleteFunc(last, func(k string, _ []byte) bool {
		return !strings.HasPrefix(k, name+"/") && !strings.HasPrefix(k, name+"@")
	})
	for _, v := range versions {
		var m struct {
			Format, Bytes, Parts int
			Digest               string
		}
		if err := json.Unmarshal(last[fmt.Sprintf("%s/%d", name, v.Version)], &m); err != nil || m.Format != 1 || m.Parts < 1 {
			f.t.Errorf("manifest of %s/%d: %+v, %v", name, v.Version, m, err)
			continue
		}
		var whole []byte
		for part := range m.Parts {
			whole = append(whole, last[fmt.Sprintf("%s/%d/%s/%d", name, v.Version, m.Digest[:8], part)]...)
		}
		if sum := sha256.Sum256(whole); hex.EncodeToString(sum[:]) != m.Digest || len(whole) != m.Bytes {
			f.t.Errorf("the parts of %s/%d are %d bytes of digest %x; its manifest says %+v", name, v.Version, len(whole), sum, m)
		}
	}
	var alias struct {
		Version    int
		Generation int
		Previous   []int
	}
	if err := json.Unmarshal(last[name+"@live"], &alias); err != nil || alias.Version != versions[0].Version || alias.Generation != 3 || len(alias.Previous) != 0 {
		f.t.Errorf("%s@live is %s (%v); want version %d after three moves", name, last[name+"@live"], err, versions[0].Version)
	}
}

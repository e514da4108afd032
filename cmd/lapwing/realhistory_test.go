//go:build e2e

package main

import (
	"encoding/json"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// What only a real broker's log shows: cleaned segments, transaction markers, a log start that moves.

// readRanges is what a training says of what it read.
type readRanges struct {
	trained
	Partitions []struct {
		Partition         int32
		From, To, Records int64
		Lost              int64
	}
}

func (f *flow) makeTopic(name string, partitions int32, config ...string) {
	f.t.Helper()
	req := kmsg.NewPtrCreateTopicsRequest()
	top := kmsg.NewCreateTopicsRequestTopic()
	top.Topic, top.NumPartitions, top.ReplicationFactor = name, partitions, 1
	for i := 0; i+1 < len(config); i += 2 {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = config[i], &config[i+1]
		top.Configs = append(top.Configs, c)
	}
	req.Topics = append(req.Topics, top)
	answer, err := req.RequestWith(f.ctx, f.client)
	f.granted("topic "+name, err, func() int16 { return answer.Topics[0].ErrorCode })
}

// granted fails the test where the broker has not done what it was asked for.
func (f *flow) granted(what string, err error, code func() int16) {
	f.t.Helper()
	if err == nil {
		err = kerr.ErrorForCode(code())
	}
	if err != nil {
		f.t.Fatalf("%s: %v", what, err)
	}
}

// reading is record i of a machine: two columns that go together.
func reading(topic string, partition int32, i int) *kgo.Record {
	x := math.Sin(float64(i) * .7)
	return &kgo.Record{Topic: topic, Partition: partition, Value: fmt.Appendf(nil, `{"load":%.4f,"temp":%.3f}`, x, 60+20*x+.5*math.Cos(float64(i)*1.3))}
}

// compacted makes a topic of few keys written over and over, and waits until its log has been cleaned to a handful of records.
func (f *flow) compacted(name string, keys, records int) (survivors int) {
	f.t.Helper()
	f.makeTopic(name, 1, "cleanup.policy", "compact", "segment.ms", "2000", "segment.bytes", "1048576", "min.cleanable.dirty.ratio", "0.001",
		"max.compaction.lag.ms", "500", "delete.retention.ms", "100")
	for from := 0; from < records; from += 5000 {
		var batch []*kgo.Record
		for i := from; i < min(from+5000, records); i++ {
			r := reading(name, 0, i)
			r.Key = fmt.Appendf(nil, "k%d", i%keys)
			batch = append(batch, r)
		}
		f.produce(batch...)
	}
	// The active segment is never cleaned; a record after segment.ms begins another.
	tick := time.NewTicker(2500 * time.Millisecond)
	defer tick.Stop()
	for range 30 {
		select {
		case <-tick.C:
		case <-f.ctx.Done():
			f.t.Fatal(f.ctx.Err())
		}
		last := reading(name, 0, records)
		last.Key = []byte("k0")
		f.produce(last)
		if survivors = len(f.all(name)[0]); survivors <= keys+3 {
			return survivors
		}
	}
	f.t.Fatalf("%s still holds %d of %d records: the broker does not compact", name, survivors, records)
	return 0
}

// case 1.02: hundreds of thousands of offsets without a record between those that were kept.
func TestRealKafkaCompactedHole_Case1_02(t *testing.T) {
	f := realKafka(t)
	topic := "hole" + f.suffix
	f.compacted(topic, 10, 300_000)
	for i := range 5 {
		r := reading(topic, 0, i)
		r.Key = fmt.Appendf(nil, "n%d", i)
		f.produce(r)
	}
	records := f.all(topic)[0]
	var made readRanges
	began := time.Now()
	f.run(&made, "train", "--topic", topic, "--model", "hole"+f.suffix, "--min-rows", "5", "--epochs", "1", "--json")
	// The cleaner may take one more while training reads.
	if n := int64(len(records)); made.Rows.Read > n || made.Rows.Read < n-3 || made.Rows.Read > 20 {
		t.Errorf("%d records read, the topic holds %d", made.Rows.Read, n)
	}
	if p := made.Partitions[0]; p.To < 300_005 || p.Lost != 0 || p.Records != made.Rows.Read {
		t.Errorf("read as %+v", p)
	}
	t.Logf("%d records over %d offsets in %v", made.Rows.Read, made.Partitions[0].To, time.Since(began))
}

// case 1.10: all records of a closed segment's end are superseded in the next one, so the broker answers a fetch there with none.
func TestRealKafkaEmptyFetch_Case1_10(t *testing.T) {
	f := realKafka(t)
	topic := "tail" + f.suffix
	f.compacted(topic, 1, 20_000) // one key: of closed segments one record is kept, and what follows it is empty
	for i := range 6 {
		r := reading(topic, 0, i)
		r.Key = fmt.Appendf(nil, "n%d", i)
		f.produce(r)
	}
	var made readRanges
	f.run(&made, "train", "--topic", topic, "--model", "tail"+f.suffix, "--min-rows", "5", "--epochs", "1", "--json")
	if n := int64(len(f.all(topic)[0])); made.Rows.Read < 7 || made.Rows.Read > n+3 || made.Partitions[0].To < 20_007 {
		t.Errorf("%d records read of %d, ranges %+v", made.Rows.Read, n, made.Partitions)
	}
}

// case 1.01: the end is the position behind the marker, not the last record's offset, also for a
// range that was asked for by time.
func TestRealKafkaTransactionMarker_Case1_01(t *testing.T) {
	f := realKafka(t)
	topic := "marker" + f.suffix
	f.makeTopic(topic, 1)
	tx := f.connect(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID("marker"+f.suffix))
	for _, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
		if err := tx.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		var batch []*kgo.Record
		for i := range 100 {
			batch = append(batch, reading(topic, 0, i))
		}
		if err := tx.ProduceSync(f.ctx, batch...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := tx.EndTransaction(f.ctx, end); err != nil {
			t.Fatal(err)
		}
		var made readRanges
		f.run(&made, "train", "--topic", topic, "--model", "marker"+f.suffix, "--epochs", "1", "--json")
		to := int64(101)
		if end == kgo.TryAbort {
			to = 202
		}
		if p := made.Partitions[0]; made.Rows.Read != 100 || made.Rows.Used != 100 || p.From != 0 || p.To != to {
			t.Errorf("rows %+v, ranges %+v; want 100 of [0, %d)", made.Rows, made.Partitions, to)
		}
	}
	var some readRanges
	f.run(&some, "train", "--topic", topic, "--model", "marker"+f.suffix, "--last", "1h", "--epochs", "1", "--json")
	if some.Rows.Read != 100 || some.Partitions[0].To != 202 {
		t.Errorf("by time: rows %+v of %+v", some.Rows, some.Partitions)
	}
}

// case 1.16: segments roll and are deleted under a running scorer, with pauses longer than the retention between the records.
func TestRealKafkaSegmentsDeletedUnderAScorer_Case1_16(t *testing.T) {
	f := realKafka(t)
	past, topic := "kept"+f.suffix, "rolling"+f.suffix
	f.makeTopic(past, 2)
	f.makeTopic(topic, 2, "segment.ms", "1000", "retention.ms", "2000")
	for i := range 300 {
		f.produce(reading(past, int32(i%2), i))
	}
	f.run(nil, "train", "--topic", past, "--model", "rolling"+f.suffix, "--epochs", "1")
	s := f.serve("--topic", topic, "--model", "rolling"+f.suffix)
	sent := 0
	tick := time.NewTicker(4 * time.Second)
	defer tick.Stop()
	for burst := range 6 {
		for i := range 20 {
			f.produce(reading(topic, int32(i%2), burst*20+i))
			sent++
		}
		<-tick.C
	}
	if first := f.starts(topic)[0]; first == 0 {
		t.Error("the broker deleted nothing: the test shows nothing")
	}
	if got := s.stop().Streams[0]; got.RecordsIn != int64(sent) || got.RecordsOut != int64(sent) || got.Restarts != 0 {
		t.Errorf("%d records sent; serve says %+v", sent, got)
	}
}

// starts gives the log start of each partition.
func (f *flow) starts(topic string) map[int32]int64 {
	f.t.Helper()
	list := kmsg.NewPtrListOffsetsRequest()
	lt := kmsg.NewListOffsetsRequestTopic()
	lt.Topic = topic
	for p := range f.ends(topic) {
		lp := kmsg.NewListOffsetsRequestTopicPartition()
		lp.Partition, lp.Timestamp = p, -2
		lt.Partitions = append(lt.Partitions, lp)
	}
	list.Topics = append(list.Topics, lt)
	answer, err := list.RequestWith(f.ctx, f.client)
	if err != nil {
		f.t.Fatal(err)
	}
	out := map[int32]int64{}
	for _, p := range answer.Topics[0].Partitions {
		out[p.Partition] = p.Offset
	}
	return out
}

// case 1.09: a record of 15 MB between small ones, with the client's fetch settings as they come.
func TestRealKafkaLargeRecord_Case1_09(t *testing.T) { largeRecord(t, realKafka(t)) }

func largeRecord(t *testing.T, f *flow) {
	topic := "large" + f.suffix
	f.makeTopic(topic, 1, "max.message.bytes", "20971520")
	big := f.connect(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(20<<20), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.BrokerMaxWriteBytes(64<<20))
	for i := range 200 {
		r := reading(topic, 0, i)
		if i == 100 {
			pad, _ := json.Marshal(string(make([]byte, 15<<20/6))) // \u0000 is six bytes
			r.Value = append(append([]byte(`{"pad":`), pad...), append([]byte(","), r.Value[1:]...)...)
		}
		if err := big.ProduceSync(f.ctx, r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	var made readRanges
	f.run(&made, "train", "--topic", topic, "--model", "large"+f.suffix, "--exclude", "pad", "--epochs", "1", "--json")
	if made.Rows.Read != 200 || made.Rows.Used != 200 {
		t.Errorf("rows %+v, want all 200", made.Rows)
	}
}

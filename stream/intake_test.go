package stream

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

var calls = flag.String("calls", "batch,each", "how records are moved: by librdkafka's batch calls, or each by the Go client")

// TestMain runs everything over both ways.
func TestMain(m *testing.M) {
	flag.Parse()
	for way := range strings.SplitSeq(*calls, ",") {
		batchCalls = way == "batch"
		if c := m.Run(); c != 0 {
			fmt.Fprintf(os.Stderr, "failed with -calls %s\n", way)
			os.Exit(c)
		}
	}
}

// When the Go client's version or the layout of its handle changes, records would be moved one at a time, and nobody would see it.
func TestBatchCallsFindTheLibrary(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	k, err := c.consumer(nil, "100", nil)
	if err != nil {
		t.Fatal(err)
	}
	in := newIntake(k, 1)
	if in.wakes() != batchCalls {
		t.Errorf("batch calls: %v, want %v; librdkafka is %s: compare librdkafka.h with its rdkafka.h, handleField with the Go client, and clientProtocol with rd_kafka_EndTxnRequest", in.wakes(), batchCalls, kafka.LibrdkafkaLinkInfo)
	}
	for _, f := range []struct{ name, typ string }{{"nothing", "_Ctype_struct_rd_kafka_s"}, {"rk", "_Ctype_int"}, {"name", "string"}} {
		if handleField(k, f.name, f.typ) != nil {
			t.Errorf("a handle's %s of type %s was found", f.name, f.typ)
		}
	}
	in.close()
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	p, err := c.Producer(ctxOf(t), ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if found := p.out != nil; found != batchCalls {
		t.Errorf("batch calls of a producer: %v, want %v; compare queue_object in outlet.c with librdkafka's rd_kafka_queue_s", found, batchCalls)
	}
	if err := p.Close(ctxOf(t)); err != nil {
		t.Fatal(err)
	}
}

// Records of every size come whole: those that fill an arena, overflow it, or have none of their own.
func TestIntakeKeepsRecordsOfAnySize(t *testing.T) {
	t.Parallel()
	c, _ := broker(t)
	top := topic(t, c, 2)
	var in []Record
	for i := range 600 {
		size := []int{0, 1, 300, arenaSize/7 + i, 900_000, arenaSize - arenaRest + i%3, arenaSize}[i%7]
		if size == 900_000 && i%35 != 4 {
			size = 5000
		}
		r := Record{Topic: top, Partition: int32(i % 2), Value: bytes.Repeat([]byte{byte(i)}, size), Time: 1_700_000_000_000}
		for h := range i % 4 {
			r.Headers = append(r.Headers, Header{fmt.Sprintf("h%d", h), []byte(fmt.Sprint(i))})
		}
		in = append(in, r)
	}
	produce(t, c, in...)
	tail, err := c.Tail(ctxOf(t), []string{top}, TailOptions{MaxBatch: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer tail.Close()
	var held []*Batch // all at once: no arena may be used again before
	n := 0
	for n < len(in) {
		b, err := tail.Next(ctxOf(t))
		if err != nil {
			t.Fatal(err)
		}
		n += len(b.Records)
		held = append(held, b)
	}
	next := map[int32]int64{}
	for _, b := range held {
		for _, r := range b.Records {
			want := in[r.Offset*2+int64(r.Partition)]
			if r.Offset != next[r.Partition] || !bytes.Equal(r.Value, want.Value) || len(r.Headers) != len(want.Headers) {
				t.Fatalf("partition %d, offset %d: %d bytes, %d headers; want offset %d, %d bytes, %d headers", r.Partition, r.Offset, len(r.Value), len(r.Headers),
					next[r.Partition], len(want.Value), len(want.Headers))
			}
			for i, h := range r.Headers {
				if h.Key != want.Headers[i].Key || !bytes.Equal(h.Value, want.Headers[i].Value) {
					t.Fatalf("partition %d, offset %d: header %d is %s=%s", r.Partition, r.Offset, i, h.Key, h.Value)
				}
			}
			next[r.Partition]++
		}
	}
	for _, b := range held {
		b.Release()
	}
}

// Queues are given back: a thousand openings cost no memory. It runs alone, since it looks at the whole process.
func TestIntakesAreGivenBack(t *testing.T) {
	if runtime.GOOS != "linux" {
		return // no /proc to look into
	}
	c, _ := broker(t)
	top := topic(t, c, 4)
	k, err := c.consumer(nil, "100", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	var tps []kafka.TopicPartition
	for p := range int32(4) {
		tps = append(tps, kafka.TopicPartition{Topic: &top, Partition: p})
	}
	resident := func() int {
		text, err := os.ReadFile("/proc/self/statm")
		if err != nil {
			t.Fatal(err)
		}
		pages, err := strconv.Atoi(strings.Fields(string(text))[1])
		if err != nil {
			t.Fatal(err)
		}
		return pages * os.Getpagesize()
	}
	open := func(n int) {
		for range n {
			in := newIntake(k, 1)
			in.lead(tps)
			in.take(10, 0)
			in.lead(tps)
			in.close()
		}
	}
	// What leaks does so in every round; the collector and the race detector take and give back as they like.
	least := 1 << 40
	for range 5 {
		before := resident()
		open(1000)
		runtime.GC()
		least = min(least, resident()-before)
	}
	if least > 1<<20 {
		t.Errorf("at least %d KiB more after each 1000 openings", least>>10)
	}
}

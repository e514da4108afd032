package stream

/*
#include <stdlib.h>
#include "intake.h"
*/
import "C"

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"time"
	"unsafe"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// librdkafka's batch calls, on the very library and handles that the Go client has made (DESIGN decision 11). The client keeps
// configuration, groups, rebalances, transactions and administration; records go past its call for each message, which would be most
// of what a pass-through costs.

// batchCalls chooses how records are moved: by batch calls, or one at a time by the Go client. The tests run over both.
var batchCalls = true

// rdkafkaVersion is the library whose interface librdkafka.h declares. With another one, records are moved by the Go client.
const rdkafkaVersion = 0x020b01ff

// rdkafka is the C handle of a Go client's, nil where it is not to be had.
func rdkafka(client any) *C.rd_kafka_t {
	if !batchCalls || C.rd_kafka_version() != rdkafkaVersion {
		return nil
	}
	return (*C.rd_kafka_t)(handleField(client, "rk", "_Ctype_struct_rd_kafka_s"))
}

// handleField reads a C pointer of a Go client's unexported handle. Nothing but names is assumed: reflection finds where they are.
func handleField(client any, name, typ string) unsafe.Pointer {
	h := reflect.ValueOf(client).Elem().FieldByName("handle")
	if !h.IsValid() || h.Kind() != reflect.Struct {
		return nil
	}
	f := h.FieldByName(name)
	if !f.IsValid() || f.Kind() != reflect.Pointer || f.Type().Elem().Name() != typ {
		return nil
	}
	return f.UnsafePointer()
}

// intake takes a consumer's records. One goroutine at a time; wake from any, before close.
type intake struct {
	k     *kafka.Consumer
	in    *C.lapwing_intake // nil: the Go client's Poll, one record a call
	rows  []C.lapwing_row
	arena *arena // being filled
	got   haul

	led   map[TopicPartition]C.int // their places in in
	ledAt time.Time                // the last time that a partition was led here
	again time.Time                // the last time that all were, once more

	topics  []string          // as in's
	names   map[string]string // of headers, one string each
	scratch Batch
}

// haul is what an intake has taken: records in the order in which they came, and what else stood among them.
type haul struct {
	records []Record
	arenas  []*arena // hold the records' bytes; none: each record has its own
	marks   []mark
}

// mark is an event that stands before records[at].
type mark struct {
	at    int
	event kafka.Event
}

func (h *haul) empty() bool { return len(h.records) == 0 && len(h.marks) == 0 }

// newIntake's queue may take slack times what queued.max.messages.kbytes says: librdkafka counts neither what it holds of a message
// beside its bytes nor what is on its way.
func newIntake(k *kafka.Consumer, slack int) *intake {
	t := &intake{k: k, names: map[string]string{}, led: map[TopicPartition]C.int{}}
	if rk := rdkafka(k); rk != nil {
		in := (*C.lapwing_intake)(C.calloc(1, C.sizeof_lapwing_intake))
		if C.lapwing_intake_open(in, rk, C.int(slack)) == 0 {
			t.in = in
		} else {
			C.free(unsafe.Pointer(in))
		}
	}
	return t
}

// lead makes the records of partitions come this way. Before they are assigned: what came before would go to Poll, which would
// still be right, and slow.
func (t *intake) lead(tps []kafka.TopicPartition) {
	if t.in == nil {
		return
	}
	var name *C.char
	var last string
	defer func() { C.free(unsafe.Pointer(name)) }()
	for _, tp := range tps {
		if name == nil || *tp.Topic != last {
			C.free(unsafe.Pointer(name))
			name, last = C.CString(*tp.Topic), *tp.Topic
		}
		at := TopicPartition{last, tp.Partition}
		place, ok := t.led[at]
		if !ok {
			place = -1
		}
		if place = C.lapwing_intake_forward(t.in, name, C.int32_t(tp.Partition), place); place >= 0 {
			t.led[at] = place
		}
	}
	t.ledAt = time.Now()
}

// take takes what is there, up to about max records; where nothing is, it waits up to wait milliseconds, or until woken. What it
// returns holds until the next call.
func (t *intake) take(max, wait int) *haul {
	t.drop()
	for len(t.got.records) < max {
		e := t.k.Poll(0)
		if e == nil && t.in == nil && t.got.empty() && wait > 0 {
			e = t.k.Poll(wait)
			wait = 0
		}
		if e == nil {
			break
		}
		if m, ok := e.(*kafka.Message); ok && m.TopicPartition.Error == nil {
			t.scratch.Records = t.got.records
			t.scratch.add(m)
			t.got.records = t.scratch.Records
			continue
		}
		t.got.marks = append(t.got.marks, mark{len(t.got.records), e})
		if _, ok := e.(kafka.Error); ok {
			return &t.got
		}
	}
	if t.in == nil || len(t.got.records) >= max { // what Poll has left stands before what comes this way
		return &t.got
	}
	if !t.got.empty() {
		wait = 0
	}
	if t.follow() {
		wait = min(wait, ledWait)
	}
	// One arena is soon full: more of them in one haul are handed on, and wake the caller, once.
	for arenas := 1; t.pull(max-len(t.got.records), wait) && arenas < haulArenas; arenas++ {
		wait = 0
	}
	return &t.got
}

const (
	haulArenas = 8 // two MiB at most, so that a reader of history holds little more

	ledFor   = time.Second // a fetch is stopped within
	ledWait  = 10          // milliseconds; meanwhile no wait is longer
	ledEvery = 500 * time.Millisecond
)

// follow leads all partitions here once more, and tells whether it will soon again. Where one is given up and assigned anew at once,
// librdkafka may stop the old fetch only after lead, and then takes the lead away; the new fetch would fill a queue that nobody reads.
func (t *intake) follow() bool {
	now := time.Now()
	fresh := now.Sub(t.ledAt) < ledFor
	if fresh || now.Sub(t.again) > ledEvery {
		C.lapwing_intake_again(t.in)
		t.again = now
	}
	return fresh
}

// drop forgets the last haul.
func (t *intake) drop() {
	clear(t.got.records)
	t.got.records, t.got.marks = t.got.records[:0], t.got.marks[:0]
	for _, a := range t.got.arenas {
		a.release()
	}
	t.got.arenas = t.got.arenas[:0]
}

// pull takes up to max records by one call, and tells whether it took less only because the arena is full. The arena is filled by one
// call after the other: many small hauls share one.
func (t *intake) pull(max, wait int) (full bool) {
	if max <= 0 {
		return false
	}
	if cap(t.rows) < max {
		t.rows = make([]C.lapwing_row, max)
	}
	if t.arena != nil && t.arena.room() < arenaRest {
		t.arena.release()
		t.arena = nil
	}
	if t.arena == nil {
		t.arena = newArena(0)
	}
	a := t.arena
	n := int(C.lapwing_intake_pull(t.in, C.int(wait), &t.rows[:max][0], C.size_t(max), (*C.uint8_t)(unsafe.SliceData(a.bytes)), C.size_t(a.used), C.size_t(len(a.bytes))))
	if n == 0 {
		return false
	}
	for len(t.topics) < int(t.in.topic_count) {
		names := unsafe.Slice(t.in.topics, t.in.topic_count)
		t.topics = append(t.topics, C.GoString(names[len(t.topics)]))
	}
	t.got.hold(a)
	for i := range t.rows[:n] {
		r := &t.rows[i]
		at := int(r.at)
		if r.spilled != 0 { // the last one; it begins the next arena
			a.release()
			spill := unsafe.Slice((*byte)(t.in.spill), t.in.spill_size)
			a = newArena(len(spill))
			copy(a.bytes, spill)
			t.arena, at = a, 0
			t.got.hold(a)
		}
		topic := t.topics[r.topic]
		if r.err != 0 {
			text, end := a.slice(at, int32(r.value))
			a.used = end
			t.got.marks = append(t.got.marks, mark{len(t.got.records), partitionEvent(topic, r, string(text))})
			continue
		}
		rec := Record{Topic: topic, Partition: int32(r.partition), Offset: int64(r.offset), Time: int64(r.time)}
		rec.Key, at = a.slice(at, int32(r.key))
		rec.Value, at = a.slice(at, int32(r.value))
		if r.headers > 0 {
			rec.Headers = a.space(int(r.headers))
			for i := range rec.Headers {
				name, size := binary.NativeEndian.Uint32(a.bytes[at:]), binary.NativeEndian.Uint32(a.bytes[at+4:])
				at += 8
				rec.Headers[i].Key = t.header(a.bytes[at : at+int(name)])
				rec.Headers[i].Value, at = a.slice(at+int(name), int32(size))
			}
		}
		a.used = at
		t.got.records = append(t.got.records, rec)
	}
	return t.rows[n-1].spilled != 0
}

func (h *haul) hold(a *arena) {
	a.refs.Add(1)
	h.arenas = append(h.arenas, a)
}

// partitionEvent makes what the Go client would have made of a message that carries an error.
func partitionEvent(topic string, r *C.lapwing_row, text string) kafka.Event {
	code := kafka.ErrorCode(r.err)
	if code == kafka.ErrPartitionEOF {
		return kafka.PartitionEOF{Topic: &topic, Partition: int32(r.partition), Offset: kafka.Offset(r.offset)}
	}
	if text == "" {
		text = code.String()
	}
	return kafka.NewError(code, fmt.Sprintf("%s [%d]: %s", topic, r.partition, text), false)
}

// header is the string of a header's name: names are few, and seldom new.
func (t *intake) header(b []byte) string {
	s, ok := t.names[string(b)]
	if !ok {
		s = string(b)
		if len(t.names) < 1000 {
			t.names[s] = s
		}
	}
	return s
}

// wakes tells whether wake does anything.
func (t *intake) wakes() bool { return t.in != nil }

// wake ends a wait of take, or the following one.
func (t *intake) wake() {
	if t.in != nil {
		C.lapwing_intake_wake(t.in)
	}
}

// close gives the queues back; they must go before the consumer.
func (t *intake) close() {
	t.drop()
	if t.arena != nil {
		t.arena.release()
		t.arena = nil
	}
	if t.in != nil {
		C.lapwing_intake_close(t.in)
		C.free(unsafe.Pointer(t.in))
		t.in = nil
	}
}

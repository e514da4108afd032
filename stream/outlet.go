package stream

/*
#include <stdlib.h>
#include "outlet.h"
*/
import "C"

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// outlet produces many records a call, and counts their delivery reports without making an object of each.
type outlet struct {
	out     *C.lapwing_outlet
	stop    atomic.Bool
	stopped chan struct{}
	once    sync.Once

	mu     sync.RWMutex // producing shares it, a new topic and close have it alone
	topics map[string]int32
}

const (
	sendRecords = 1024
	sendBytes   = 256 << 10 // about what stays in a processor's cache between the two copies
)

// parcel is what one call produces.
type parcel struct {
	sends []C.lapwing_send
	bytes []byte
}

var parcels = sync.Pool{New: func() any {
	return &parcel{make([]C.lapwing_send, 0, sendRecords), make([]byte, 0, sendBytes+sendBytes/4)}
}}

// report is what has become of some records.
type report struct {
	records   int64
	code      kafka.ErrorCode // of the first that failed
	topic     string
	partition int32
	fatal     bool // the producer is dead
}

// newOutlet is nil where records are moved by the Go client. It calls reported, from a goroutine of its own, until close.
func newOutlet(k *kafka.Producer, reported func(report)) *outlet {
	rk := rdkafka(k)
	queue := handleField(k, "rkq", "_Ctype_struct_rd_kafka_queue_s")
	if rk == nil || queue == nil {
		return nil
	}
	o := &outlet{stopped: make(chan struct{}), topics: map[string]int32{}, out: (*C.lapwing_outlet)(C.calloc(1, C.sizeof_lapwing_outlet))}
	if C.lapwing_outlet_open(o.out, (*C.rd_kafka_t)(unsafe.Pointer(rk)), (*C.rd_kafka_queue_t)(queue)) != 0 {
		C.free(unsafe.Pointer(o.out))
		return nil
	}
	go o.run(reported)
	return o
}

func (o *outlet) run(reported func(report)) {
	defer close(o.stopped)
	var r C.lapwing_report
	for !o.stop.Load() {
		C.lapwing_outlet_reports(o.out, 1000, &r)
		if r.count == 0 && r.fatal == 0 {
			continue
		}
		to := report{records: int64(r.count), code: kafka.ErrorCode(r.err), partition: int32(r.partition), fatal: r.fatal != 0}
		if r.err != 0 {
			to.topic = C.GoString(&r.topic[0])
		}
		reported(to)
	}
}

// topic is the place of a topic in out's list.
func (o *outlet) topic(name string) (int32, error) {
	o.mu.RLock()
	i, ok := o.topics[name]
	o.mu.RUnlock()
	if ok {
		return i, nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.out == nil {
		return 0, ErrClosed
	}
	if i, ok := o.topics[name]; ok {
		return i, nil
	}
	c := C.CString(name)
	defer C.free(unsafe.Pointer(c))
	i = int32(C.lapwing_outlet_topic(o.out, c))
	if i < 0 {
		return 0, kafka.NewError(kafka.ErrInvalidArg, "", false)
	}
	o.topics[name] = i
	return i, nil
}

// produce queues records in order and returns how many were taken. Where that is not all, err says why the next was not. Their bytes
// are copied, once to lie together (C may not follow pointers into Go's memory) and once by the library.
func (o *outlet) produce(records []Record) (int, error) {
	p := parcels.Get().(*parcel)
	defer parcels.Put(p)
	topic, place := "", int32(-1)
	done := 0
	for done < len(records) {
		p.sends, p.bytes = p.sends[:0], p.bytes[:0]
		for i := done; i < len(records) && len(p.sends) < sendRecords && len(p.bytes) < sendBytes; i++ {
			r := &records[i]
			if place < 0 || r.Topic != topic {
				var err error
				if place, err = o.topic(r.Topic); err != nil {
					return done, err
				}
				topic = r.Topic
			}
			p.add(r, place)
		}
		o.mu.RLock()
		if o.out == nil {
			o.mu.RUnlock()
			return done, ErrClosed
		}
		var code C.int32_t
		n := int(C.lapwing_outlet_produce(o.out, &p.sends[0], C.size_t(len(p.sends)), (*C.uint8_t)(unsafe.SliceData(p.bytes)), &code))
		o.mu.RUnlock()
		done += n
		if n < len(p.sends) {
			return done, kafka.NewError(kafka.ErrorCode(code), "", false)
		}
	}
	return done, nil
}

func (p *parcel) add(r *Record, topic int32) {
	s := C.lapwing_send{topic: C.int32_t(topic), partition: C.int32_t(max(r.Partition, -1)), key: -1, value: -1, headers: C.uint32_t(len(r.Headers))}
	if r.Time >= 0 {
		s.time = C.int64_t(min(max(r.Time, minTime), maxTime))
	}
	if r.Key != nil {
		s.key = C.int32_t(len(r.Key))
		p.bytes = append(p.bytes, r.Key...)
	}
	if r.Value != nil {
		s.value = C.int32_t(len(r.Value))
		p.bytes = append(p.bytes, r.Value...)
	}
	for _, h := range r.Headers {
		size := uint32(len(h.Value))
		if h.Value == nil {
			size = 1<<32 - 1
		}
		p.bytes = binary.NativeEndian.AppendUint32(p.bytes, uint32(len(h.Key)))
		p.bytes = binary.NativeEndian.AppendUint32(p.bytes, size)
		p.bytes = append(append(p.bytes, h.Key...), h.Value...)
	}
	p.sends = append(p.sends, s)
}

// close ends the reports; it must come before the producer's own close.
func (o *outlet) close() {
	o.once.Do(func() {
		o.stop.Store(true)
		C.lapwing_outlet_wake(o.out)
		<-o.stopped
		o.mu.Lock()
		defer o.mu.Unlock()
		C.lapwing_outlet_close(o.out)
		C.free(unsafe.Pointer(o.out))
		o.out = nil
	})
}

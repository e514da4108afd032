// The producer's half of librdkafka's batch calls: see outlet.go.
#include "outlet.h"

#include <stdlib.h>
#include <string.h>

// queue_object is librdkafka's rd_kafka_queue_s. It is not public: lapwing_outlet_open checks what it can.
typedef struct {
	void *queue;
	rd_kafka_t *rk;
	int is_owner;
} queue_object;

// trade exchanges the queues behind two queue objects, and with each who owns it: so each object can be destroyed when its holder is
// through with it, and no queue before.
//
// Delivery reports come to a producer's main queue, and the Go client has a goroutine that polls it and makes an object of each. No
// setting keeps it from that: a queue that is forwarded is followed, delivery reports that are switched off are lost, and the
// library refuses a callback once a client is made. So that goroutine is given a queue to which nothing comes. It may be waiting at
// the main queue meanwhile, and take one report more: those count too.
static void trade(rd_kafka_queue_t *a, rd_kafka_queue_t *b) {
	queue_object *x = (queue_object *)a, *y = (queue_object *)b;
	void *q = __atomic_load_n(&x->queue, __ATOMIC_ACQUIRE);
	__atomic_store_n(&x->queue, y->queue, __ATOMIC_RELEASE);
	__atomic_store_n(&y->queue, q, __ATOMIC_RELEASE);
	int owner = x->is_owner;
	x->is_owner = y->is_owner;
	y->is_owner = owner;
}

int lapwing_outlet_open(lapwing_outlet *o, rd_kafka_t *rk, rd_kafka_queue_t *theirs) {
	memset(o, 0, sizeof *o);
	o->rk = rk;
	rd_kafka_queue_t *main = rd_kafka_queue_get_main(rk), *ours = rd_kafka_queue_new(rk);
	const queue_object *m = (queue_object *)main, *n = (queue_object *)ours, *t = (queue_object *)theirs;
	int as_expected = m && n && t->rk == rk && m->rk == rk && n->rk == rk && t->queue == m->queue && n->queue != m->queue && !t->is_owner && n->is_owner == 1;
	if (main) rd_kafka_queue_destroy(main);
	if (!as_expected) {
		if (ours) rd_kafka_queue_destroy(ours);
		return -1;
	}
	o->reports = ours;
	trade(theirs, ours);
	rd_kafka_queue_yield(ours);
	return 0;
}

void lapwing_outlet_close(lapwing_outlet *o) {
	rd_kafka_queue_destroy(o->reports);
	for (size_t i = 0; i < o->topic_count; i++) rd_kafka_topic_destroy(o->topics[i]);
	free(o->topics);
	memset(o, 0, sizeof *o);
}

int32_t lapwing_outlet_topic(lapwing_outlet *o, const char *name) {
	rd_kafka_topic_t *t = rd_kafka_topic_new(o->rk, name, NULL);
	if (!t) return -1;
	rd_kafka_topic_t **more = realloc(o->topics, (o->topic_count + 1) * sizeof *more);
	if (!more) abort();
	o->topics = more;
	o->topics[o->topic_count] = t;
	return (int32_t)o->topic_count++;
}

static uint32_t get32(const uint8_t *at) {
	uint32_t v;
	memcpy(&v, at, 4);
	return v;
}

size_t lapwing_outlet_produce(lapwing_outlet *o, const lapwing_send *sends, size_t count, const uint8_t *bytes, int32_t *err) {
	*err = 0;
	for (size_t i = 0; i < count; i++) {
		const lapwing_send *s = &sends[i];
		rd_kafka_vu_t v[7];
		size_t n = 0;
		v[n].vtype = VTYPE_RKT;
		v[n++].u.rkt = o->topics[s->topic];
		v[n].vtype = VTYPE_PARTITION;
		v[n++].u.i32 = s->partition;
		v[n].vtype = VTYPE_MSGFLAGS;
		v[n++].u.i = MSG_F_COPY;
		v[n].vtype = VTYPE_TIMESTAMP;
		v[n++].u.i64 = s->time;
		if (s->key >= 0) {
			v[n].vtype = VTYPE_KEY;
			v[n].u.mem.ptr = (void *)bytes;
			v[n++].u.mem.size = (size_t)s->key;
			bytes += s->key;
		}
		if (s->value >= 0) {
			v[n].vtype = VTYPE_VALUE;
			v[n].u.mem.ptr = (void *)bytes;
			v[n++].u.mem.size = (size_t)s->value;
			bytes += s->value;
		}
		rd_kafka_headers_t *headers = NULL;
		if (s->headers) {
			headers = rd_kafka_headers_new(s->headers);
			for (uint32_t h = 0; h < s->headers; h++) {
				uint32_t name = get32(bytes), value = get32(bytes + 4);
				const char *at = (const char *)bytes + 8;
				bytes += 8 + name;
				rd_kafka_header_add(headers, at, (ssize_t)name, value == UINT32_MAX ? NULL : bytes, value == UINT32_MAX ? 0 : (ssize_t)value);
				if (value != UINT32_MAX) bytes += value;
			}
			v[n].vtype = VTYPE_HEADERS;
			v[n++].u.headers = headers;
		}
		rd_kafka_error_t *e = rd_kafka_produceva(o->rk, v, n);
		if (e) {
			*err = rd_kafka_error_code(e);
			rd_kafka_error_destroy(e);
			if (headers) rd_kafka_headers_destroy(headers);
			return i;
		}
	}
	return count;
}

void lapwing_outlet_reports(lapwing_outlet *o, int timeout_ms, lapwing_report *r) {
	memset(r, 0, sizeof *r);
	rd_kafka_event_t *e;
	while (r->count < 16384 && (e = rd_kafka_queue_poll(o->reports, timeout_ms))) {
		timeout_ms = 0;
		switch (rd_kafka_event_type(e)) {
		case EVENT_DR:
			r->count += (int64_t)rd_kafka_event_message_count(e);
			if (!rd_kafka_event_error(e) || r->err) break; // an event's records share their fate
			for (const rd_kafka_message_t *m; !r->err && (m = rd_kafka_event_message_next(e));)
				if (m->err) {
					r->err = m->err;
					r->partition = m->partition;
					strncpy(r->topic, rd_kafka_topic_name(m->rkt), sizeof r->topic - 1);
				}
			break;
		case EVENT_ERROR:
			if (rd_kafka_event_error_is_fatal(e)) r->fatal = 1;
		}
		rd_kafka_event_destroy(e);
	}
}

void lapwing_outlet_wake(lapwing_outlet *o) { rd_kafka_queue_yield(o->reports); }

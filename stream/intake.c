// The consumer's half of librdkafka's batch calls: see intake.go. No thread of the library calls into Go.
#include "intake.h"

#include <stdlib.h>
#include <string.h>

static void woken(rd_kafka_t *rk, void *queue) {
	(void)rk;
	rd_kafka_queue_yield(queue);
}

int lapwing_intake_open(lapwing_intake *in, rd_kafka_t *rk, int slack) {
	memset(in, 0, sizeof *in);
	in->rk = rk;
	char kbytes[32];
	size_t size = sizeof kbytes;
	if (rd_kafka_conf_get(rd_kafka_conf(rk), "queued.max.messages.kbytes", kbytes, &size) != 0) return -1;
	in->most = (size_t)slack * (strtoull(kbytes, NULL, 10) << 10);
	in->queue = rd_kafka_queue_new(rk);
	in->events = rd_kafka_queue_get_consumer(rk);
	if (!in->queue || !in->events) {
		lapwing_intake_close(in);
		return -1;
	}
	// What the Go client's Poll is for (rebalances, errors, statistics) ends a wait for records.
	rd_kafka_queue_cb_event_enable(in->events, woken, in->queue);
	return 0;
}

void lapwing_intake_close(lapwing_intake *in) {
	if (in->events) {
		rd_kafka_queue_cb_event_enable(in->events, NULL, NULL);
		rd_kafka_queue_destroy(in->events);
	}
	for (size_t i = 0; i < in->led_count; i++) rd_kafka_queue_destroy(in->led[i]);
	free(in->led);
	if (in->queue) rd_kafka_queue_destroy(in->queue);
	for (size_t i = 0; i < in->topic_count; i++) free(in->topics[i]);
	free(in->topics);
	free(in->spill);
	memset(in, 0, sizeof *in);
}

int lapwing_intake_forward(lapwing_intake *in, const char *topic, int32_t partition, int place) {
	rd_kafka_queue_t *q = rd_kafka_queue_get_partition(in->rk, topic, partition);
	if (!q) return place;
	rd_kafka_queue_forward(q, in->queue);
	if (place >= 0) {
		rd_kafka_queue_destroy(in->led[place]);
	} else {
		rd_kafka_queue_t **more = realloc(in->led, (in->led_count + 1) * sizeof *more);
		if (!more) abort();
		in->led = more;
		place = (int)in->led_count++;
	}
	in->led[place] = q;
	return place;
}

void lapwing_intake_again(lapwing_intake *in) {
	for (size_t i = 0; i < in->led_count; i++) rd_kafka_queue_forward(in->led[i], in->queue);
}

void lapwing_intake_wake(lapwing_intake *in) { rd_kafka_queue_yield(in->queue); }

// pull is one call's state.
typedef struct {
	lapwing_intake *in;
	lapwing_row *rows;
	size_t count, max;
	uint8_t *bytes;
	size_t at, room;
	const rd_kafka_topic_t *rkt; // the last message's topic, and its place in topics; the object lives as long as the call at least
	int32_t topic;
} pull;

static int32_t topic_index(lapwing_intake *in, const rd_kafka_topic_t *rkt) {
	const char *name = rkt ? rd_kafka_topic_name(rkt) : "";
	for (size_t i = 0; i < in->topic_count; i++)
		if (strcmp(in->topics[i], name) == 0) return (int32_t)i;
	char **more = realloc(in->topics, (in->topic_count + 1) * sizeof *more);
	if (!more) abort();
	in->topics = more;
	if (!(in->topics[in->topic_count] = strdup(name))) abort();
	return (int32_t)in->topic_count++;
}

static uint8_t *put(uint8_t *to, const void *from, size_t n) {
	if (n) memcpy(to, from, n);
	return to + n;
}

static uint8_t *put32(uint8_t *to, uint32_t v) { return put(to, &v, 4); }

// place is where n bytes of the current message go. A message cannot be put back: one that has no room left goes to spill.
static uint8_t *place(pull *p, lapwing_row *r, size_t n) {
	if (n <= p->room - p->at) {
		uint8_t *to = p->bytes + p->at;
		r->at = (uint32_t)p->at;
		r->spilled = 0;
		p->at += n;
		return to;
	}
	lapwing_intake *in = p->in;
	if (n > in->spill_room) {
		free(in->spill);
		if (!(in->spill = malloc(n))) abort();
		in->spill_room = n;
	}
	in->spill_size = n;
	r->at = 0;
	r->spilled = 1;
	return in->spill;
}

// sizeof_op is what librdkafka holds of a message beside its bytes, about.
enum { sizeof_op = 400 };

static void each(const rd_kafka_message_t *m, pull *p) {
	lapwing_intake *in = p->in;
	lapwing_row *r = &p->rows[p->count++];
	if (p->count == 1 || m->rkt != p->rkt) {
		p->rkt = m->rkt;
		p->topic = topic_index(in, m->rkt);
	}
	r->topic = p->topic;
	r->partition = m->partition;
	r->offset = m->offset;
	r->err = m->err;
	r->headers = 0;
	if (m->err) {
		r->time = r->key = -1;
		r->value = m->payload ? (int32_t)m->len : 0;
		put(place(p, r, (size_t)r->value), m->payload, (size_t)r->value);
	} else {
		int type;
		r->time = rd_kafka_message_timestamp(m, &type);
		if (type == TIMESTAMP_NOT_AVAILABLE) r->time = -1;
		r->key = m->key ? (int32_t)m->key_len : -1;
		r->value = m->payload ? (int32_t)m->len : -1;
		size_t key = m->key ? m->key_len : 0, value = m->payload ? m->len : 0, n = key + value;
		const char *name;
		const void *content;
		size_t size;
		rd_kafka_headers_t *h;
		if (rd_kafka_message_headers(m, &h)) h = NULL;
		if (h)
			for (; !rd_kafka_header_get_all(h, r->headers, &name, &content, &size); r->headers++) n += 8 + strlen(name) + (content ? size : 0);
		uint8_t *to = put(put(place(p, r, n), m->key, key), m->payload, value);
		for (size_t i = 0; i < r->headers; i++) {
			rd_kafka_header_get_all(h, i, &name, &content, &size);
			size_t length = strlen(name);
			to = put32(put32(to, (uint32_t)length), content ? (uint32_t)size : UINT32_MAX);
			to = put(put(to, name, length), content, content ? size : 0);
		}
	}
	if (m->err) return;
	in->sum += sizeof_op + m->len + m->key_len;
	if (++in->summed == 1 << 16) { // the last ones count most
		in->sum /= 2;
		in->summed /= 2;
	}
}

static int full(const pull *p) { return p->count == p->max || (p->count > 0 && p->rows[p->count - 1].spilled); }

static void served(rd_kafka_message_t *m, void *opaque) {
	pull *p = opaque;
	each(m, p);
	if (full(p)) rd_kafka_yield(p->in->rk);
}

size_t lapwing_intake_pull(lapwing_intake *in, int timeout_ms, lapwing_row *rows, size_t max, uint8_t *bytes, size_t at, size_t room) {
	pull p = {.in = in, .rows = rows, .max = max, .bytes = bytes, .at = at, .room = room};
	// A served queue is empty to the fetcher until what was not asked for is put back, so a reader that is always behind would let it
	// fetch without end. A queue that has come to in->most is read message by message, by a lock each and the clock five times, until it is
	// shorter.
	if (rd_kafka_queue_length(in->queue) * (in->summed ? in->sum / in->summed : 1024) > in->most) {
		rd_kafka_message_t *m;
		while (!full(&p) && (m = rd_kafka_consume_queue(in->queue, 0))) {
			each(m, &p);
			rd_kafka_message_destroy(m);
		}
		if (p.count > 0) return p.count;
	}
	// Not rd_kafka_consume_batch_queue, which waits until max messages are there, takes a lock for each, and up to 2.11 counts the end of
	// a partition as a message (librdkafka issue 4844): after a rebalance the following record was left out.
	rd_kafka_consume_callback_queue(in->queue, timeout_ms, served, &p);
	return p.count;
}

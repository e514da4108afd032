#include "batches.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

// The few functions of librdkafka that are used here, as its header declares them: the header lies in another module,
// where cgo cannot include it from.
typedef struct rd_kafka_s rd_kafka_t;
typedef struct rd_kafka_conf_s rd_kafka_conf_t;
typedef struct rd_kafka_topic_s rd_kafka_topic_t;
typedef struct rd_kafka_topic_conf_s rd_kafka_topic_conf_t;
typedef struct rd_kafka_queue_s rd_kafka_queue_t;
typedef struct rd_kafka_error_s rd_kafka_error_t;
typedef struct rd_kafka_consumer_group_metadata_s rd_kafka_consumer_group_metadata_t;
typedef struct rd_kafka_topic_partition_s rd_kafka_topic_partition_t;
typedef struct {
	int cnt, size;
	rd_kafka_topic_partition_t *elems;
} rd_kafka_topic_partition_list_t;
typedef struct {
	int err;
	rd_kafka_topic_t *rkt;
	int32_t partition;
	void *payload;
	size_t len;
	void *key;
	size_t key_len;
	int64_t offset;
	void *_private;
} rd_kafka_message_t;
typedef struct {
	char *topic;
	int partition_cnt;
	void *partitions;
	int err;
} rd_kafka_metadata_topic_t;
typedef struct {
	int broker_cnt;
	void *brokers;
	int topic_cnt;
	rd_kafka_metadata_topic_t *topics;
} rd_kafka_metadata_t;

enum { PRODUCER, CONSUMER };
enum { COPY = 0x2, PARTITION = 0x8, UNASSIGNED = -1, QUEUE_FULL = -184, BATCH = 4096, PARTITIONS = 64 };

rd_kafka_conf_t *rd_kafka_conf_new(void);
int rd_kafka_conf_set(rd_kafka_conf_t *, const char *, const char *, char *, size_t);
void rd_kafka_conf_set_dr_msg_cb(rd_kafka_conf_t *, void (*)(rd_kafka_t *, const rd_kafka_message_t *, void *));
void rd_kafka_conf_set_opaque(rd_kafka_conf_t *, void *);
rd_kafka_t *rd_kafka_new(int, rd_kafka_conf_t *, char *, size_t);
void rd_kafka_destroy(rd_kafka_t *);
int rd_kafka_poll(rd_kafka_t *, int);
int rd_kafka_poll_set_consumer(rd_kafka_t *);
rd_kafka_topic_t *rd_kafka_topic_new(rd_kafka_t *, const char *, rd_kafka_topic_conf_t *);
void rd_kafka_topic_destroy(rd_kafka_topic_t *);
rd_kafka_queue_t *rd_kafka_queue_get_consumer(rd_kafka_t *);
void rd_kafka_queue_destroy(rd_kafka_queue_t *);
ptrdiff_t rd_kafka_consume_batch_queue(rd_kafka_queue_t *, int, rd_kafka_message_t **, size_t);
void rd_kafka_message_destroy(rd_kafka_message_t *);
int rd_kafka_produce_batch(rd_kafka_topic_t *, int32_t, int, rd_kafka_message_t *, int);
rd_kafka_topic_partition_list_t *rd_kafka_topic_partition_list_new(int);
rd_kafka_topic_partition_t *rd_kafka_topic_partition_list_add(rd_kafka_topic_partition_list_t *, const char *, int32_t);
int rd_kafka_topic_partition_list_set_offset(rd_kafka_topic_partition_list_t *, const char *, int32_t, int64_t);
void rd_kafka_topic_partition_list_destroy(rd_kafka_topic_partition_list_t *);
int rd_kafka_assign(rd_kafka_t *, const rd_kafka_topic_partition_list_t *);
int rd_kafka_commit(rd_kafka_t *, const rd_kafka_topic_partition_list_t *, int);
int rd_kafka_metadata(rd_kafka_t *, int, rd_kafka_topic_t *, const rd_kafka_metadata_t **, int);
void rd_kafka_metadata_destroy(const rd_kafka_metadata_t *);
const char *rd_kafka_err2str(int);
rd_kafka_error_t *rd_kafka_init_transactions(rd_kafka_t *, int);
rd_kafka_error_t *rd_kafka_begin_transaction(rd_kafka_t *);
rd_kafka_error_t *rd_kafka_send_offsets_to_transaction(rd_kafka_t *, const rd_kafka_topic_partition_list_t *, const rd_kafka_consumer_group_metadata_t *, int);
rd_kafka_error_t *rd_kafka_commit_transaction(rd_kafka_t *, int);
rd_kafka_consumer_group_metadata_t *rd_kafka_consumer_group_metadata(rd_kafka_t *);
void rd_kafka_consumer_group_metadata_destroy(rd_kafka_consumer_group_metadata_t *);
const char *rd_kafka_error_string(const rd_kafka_error_t *);
void rd_kafka_error_destroy(rd_kafka_error_t *);

// pass is how far the loop is: the next offset of each partition that may be committed.
typedef struct {
	int64_t next[PARTITIONS];
	int failed;
	char *fault;
	size_t fault_size;
} pass;

void lapwing_pass_stop(int *stop) { __atomic_store_n(stop, 1, __ATOMIC_RELEASE); }

static int64_t now_ms(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void fail(pass *p, const char *what, const char *why) {
	if (!p->failed) snprintf(p->fault, p->fault_size, "%s: %s", what, why);
	p->failed = 1;
}

static void check(pass *p, const char *what, rd_kafka_error_t *e) {
	if (!e) return;
	fail(p, what, rd_kafka_error_string(e));
	rd_kafka_error_destroy(e);
}

// An idempotent producer acknowledges a partition's records in order.
static void delivered(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque) {
	pass *p = opaque;
	(void)rk;
	if (m->err)
		fail(p, "a record was not delivered", rd_kafka_err2str(m->err));
	else
		p->next[m->partition] = (int64_t)(intptr_t)m->_private;
}

static rd_kafka_t *client(pass *p, int kind, const char *settings) {
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	for (const char *k = settings; *k;) {
		const char *v = k + strlen(k) + 1;
		if (rd_kafka_conf_set(conf, k, v, p->fault, p->fault_size)) p->failed = 1;
		k = v + strlen(v) + 1;
	}
	rd_kafka_conf_set_opaque(conf, p);
	if (kind == PRODUCER) rd_kafka_conf_set_dr_msg_cb(conf, delivered);
	rd_kafka_t *rk = p->failed ? NULL : rd_kafka_new(kind, conf, p->fault, p->fault_size);
	if (!rk) p->failed = 1;
	return rk;
}

static int partitions(pass *p, rd_kafka_t *rk, const char *topic) {
	rd_kafka_topic_t *t = rd_kafka_topic_new(rk, topic, NULL);
	const rd_kafka_metadata_t *md = NULL;
	int err = rd_kafka_metadata(rk, 0, t, &md, 10000), n = 0;
	if (err)
		fail(p, "the topic is not known", rd_kafka_err2str(err));
	else {
		n = md->topic_cnt ? md->topics[0].partition_cnt : 0;
		if (n < 1 || n > PARTITIONS) fail(p, "the topic has too few or too many partitions", topic);
		rd_kafka_metadata_destroy(md);
	}
	rd_kafka_topic_destroy(t);
	return n;
}

static void commit(pass *p, rd_kafka_t *rd, rd_kafka_t *wr, const char *in, int n, int transactions) {
	rd_kafka_topic_partition_list_t *where = rd_kafka_topic_partition_list_new(n);
	for (int i = 0; i < n; i++)
		if (p->next[i]) {
			rd_kafka_topic_partition_list_add(where, in, i);
			rd_kafka_topic_partition_list_set_offset(where, in, i, p->next[i]);
		}
	if (where->cnt && !transactions) {
		int err = rd_kafka_commit(rd, where, 1);
		if (err) fail(p, "commit", rd_kafka_err2str(err));
	} else if (where->cnt) {
		rd_kafka_consumer_group_metadata_t *g = rd_kafka_consumer_group_metadata(rd);
		check(p, "offsets", rd_kafka_send_offsets_to_transaction(wr, where, g, 30000));
		rd_kafka_consumer_group_metadata_destroy(g);
		if (!p->failed) check(p, "commit", rd_kafka_commit_transaction(wr, 30000));
	}
	rd_kafka_topic_partition_list_destroy(where);
}

static void loop(pass *p, rd_kafka_t *rd, rd_kafka_t *wr, const char *in, const char *out, int n, int transactions, int commit_ms, int *stop) {
	static rd_kafka_message_t *got[BATCH], put[BATCH];
	rd_kafka_queue_t *q = rd_kafka_queue_get_consumer(rd);
	rd_kafka_topic_t *topic = rd_kafka_topic_new(wr, out, NULL);
	int64_t due = now_ms() + commit_ms;
	int begun = 0;
	while (!p->failed && !__atomic_load_n(stop, __ATOMIC_ACQUIRE)) {
		int64_t wait = due - now_ms();
		// the call waits until it has all that it was asked for: ask for one, then take what is there
		ptrdiff_t c = rd_kafka_consume_batch_queue(q, wait < 0 ? 0 : (int)wait, got, 1);
		if (c == 1) {
			ptrdiff_t more = rd_kafka_consume_batch_queue(q, 0, got + 1, BATCH - 1);
			if (more > 0) c += more;
		}
		if (c > 0 && transactions && !begun) {
			check(p, "begin", rd_kafka_begin_transaction(wr));
			begun = 1;
		}
		int k = 0;
		for (ptrdiff_t i = 0; i < c; i++) {
			rd_kafka_message_t *m = got[i];
			if (m->err) {
				fail(p, "reading", rd_kafka_err2str(m->err));
				continue;
			}
			put[k++] = (rd_kafka_message_t){.partition = m->partition, .payload = m->payload, .len = m->len, .key = m->key, .key_len = m->key_len, ._private = (void *)(intptr_t)(m->offset + 1)};
			if (transactions) p->next[m->partition] = m->offset + 1;
		}
		while (k > 0 && !p->failed) {
			rd_kafka_produce_batch(topic, UNASSIGNED, COPY | PARTITION, put, k);
			int left = 0;
			for (int i = 0; i < k; i++) {
				if (put[i].err == QUEUE_FULL)
					put[left++] = put[i];
				else if (put[i].err)
					fail(p, "producing", rd_kafka_err2str(put[i].err));
			}
			k = left;
			rd_kafka_poll(wr, k ? 10 : 0);
		}
		for (ptrdiff_t i = 0; i < c; i++) rd_kafka_message_destroy(got[i]);
		rd_kafka_poll(wr, 0);
		if (!p->failed && now_ms() >= due) {
			commit(p, rd, wr, in, n, transactions);
			if (transactions) memset(p->next, 0, sizeof p->next);
			begun = 0;
			due = now_ms() + commit_ms;
		}
	}
	rd_kafka_topic_destroy(topic);
	rd_kafka_queue_destroy(q);
}

int lapwing_pass(const char *reader, const char *writer, const char *in, const char *out, int transactions, int commit_ms,
                 int *stop, char *fault, size_t fault_size) {
	pass p = {.fault = fault, .fault_size = fault_size};
	rd_kafka_t *rd = client(&p, CONSUMER, reader), *wr = p.failed ? NULL : client(&p, PRODUCER, writer);
	int n = p.failed ? 0 : partitions(&p, rd, in);
	if (!p.failed && transactions) check(&p, "transactions", rd_kafka_init_transactions(wr, 30000));
	if (!p.failed) {
		rd_kafka_poll_set_consumer(rd);
		rd_kafka_topic_partition_list_t *all = rd_kafka_topic_partition_list_new(n);
		for (int i = 0; i < n; i++) {
			rd_kafka_topic_partition_list_add(all, in, i);
			rd_kafka_topic_partition_list_set_offset(all, in, i, -2); // the beginning
		}
		int err = rd_kafka_assign(rd, all);
		rd_kafka_topic_partition_list_destroy(all);
		if (err)
			fail(&p, "assign", rd_kafka_err2str(err));
		else
			loop(&p, rd, wr, in, out, n, transactions, commit_ms, stop);
	}
	if (wr) rd_kafka_destroy(wr);
	if (rd) rd_kafka_destroy(rd);
	return p.failed;
}

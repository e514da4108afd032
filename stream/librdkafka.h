// What is used here of librdkafka's public interface (rdkafka.h, version 2.11.1). The Go client brings the library but no header that
// another package could include; the types below are part of the library's stable binary interface. intake.go checks the version.
#ifndef LAPWING_LIBRDKAFKA_H
#define LAPWING_LIBRDKAFKA_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct rd_kafka_s rd_kafka_t;
typedef struct rd_kafka_topic_s rd_kafka_topic_t;
typedef struct rd_kafka_queue_s rd_kafka_queue_t;
typedef struct rd_kafka_headers_s rd_kafka_headers_t;
typedef struct rd_kafka_op_s rd_kafka_event_t;
typedef struct rd_kafka_error_s rd_kafka_error_t;

typedef struct rd_kafka_message_s {
	int err;
	rd_kafka_topic_t *rkt;
	int32_t partition;
	void *payload; // where err is set: its text
	size_t len;
	void *key;
	size_t key_len;
	int64_t offset;
	void *_private;
} rd_kafka_message_t;

enum { // rd_kafka_vtype_t
	VTYPE_RKT = 2,
	VTYPE_PARTITION = 3,
	VTYPE_VALUE = 4,
	VTYPE_KEY = 5,
	VTYPE_MSGFLAGS = 7,
	VTYPE_TIMESTAMP = 8,
	VTYPE_HEADERS = 10
};

typedef struct rd_kafka_vu_s {
	int vtype;
	union {
		rd_kafka_topic_t *rkt;
		int i;
		int32_t i32;
		int64_t i64;
		struct {
			void *ptr;
			size_t size;
		} mem;
		rd_kafka_headers_t *headers;
		char _pad[64];
	} u;
} rd_kafka_vu_t;

enum { MSG_F_COPY = 2, EVENT_DR = 1, EVENT_ERROR = 8, TIMESTAMP_NOT_AVAILABLE = 0 };

int rd_kafka_version(void);

typedef struct rd_kafka_conf_s rd_kafka_conf_t;
const rd_kafka_conf_t *rd_kafka_conf(rd_kafka_t *);
int rd_kafka_conf_get(const rd_kafka_conf_t *, const char *name, char *value, size_t *size); // 0: found

rd_kafka_queue_t *rd_kafka_queue_new(rd_kafka_t *);
rd_kafka_queue_t *rd_kafka_queue_get_main(rd_kafka_t *);
rd_kafka_queue_t *rd_kafka_queue_get_consumer(rd_kafka_t *);
rd_kafka_queue_t *rd_kafka_queue_get_partition(rd_kafka_t *, const char *topic, int32_t partition);
void rd_kafka_queue_forward(rd_kafka_queue_t *from, rd_kafka_queue_t *to);
void rd_kafka_queue_yield(rd_kafka_queue_t *);
void rd_kafka_queue_cb_event_enable(rd_kafka_queue_t *, void (*)(rd_kafka_t *, void *), void *);
size_t rd_kafka_queue_length(rd_kafka_queue_t *);
void rd_kafka_queue_destroy(rd_kafka_queue_t *);

rd_kafka_message_t *rd_kafka_consume_queue(rd_kafka_queue_t *, int timeout_ms);
void rd_kafka_message_destroy(rd_kafka_message_t *);
int rd_kafka_consume_callback_queue(rd_kafka_queue_t *, int timeout_ms, void (*)(rd_kafka_message_t *, void *), void *);
void rd_kafka_yield(rd_kafka_t *);
int64_t rd_kafka_message_timestamp(const rd_kafka_message_t *, int *type);
int rd_kafka_message_headers(const rd_kafka_message_t *, rd_kafka_headers_t **);

rd_kafka_topic_t *rd_kafka_topic_new(rd_kafka_t *, const char *name, void *conf);
const char *rd_kafka_topic_name(const rd_kafka_topic_t *);
void rd_kafka_topic_destroy(rd_kafka_topic_t *);

rd_kafka_headers_t *rd_kafka_headers_new(size_t);
void rd_kafka_headers_destroy(rd_kafka_headers_t *);
int rd_kafka_header_add(rd_kafka_headers_t *, const char *name, ssize_t name_size, const void *value, ssize_t value_size);
int rd_kafka_header_get_all(const rd_kafka_headers_t *, size_t i, const char **name, const void **value, size_t *size);

rd_kafka_error_t *rd_kafka_produceva(rd_kafka_t *, const rd_kafka_vu_t *, size_t);
int rd_kafka_error_code(const rd_kafka_error_t *);
void rd_kafka_error_destroy(rd_kafka_error_t *);

rd_kafka_event_t *rd_kafka_queue_poll(rd_kafka_queue_t *, int timeout_ms);
int rd_kafka_event_type(const rd_kafka_event_t *);
int rd_kafka_event_error(rd_kafka_event_t *);
int rd_kafka_event_error_is_fatal(rd_kafka_event_t *);
size_t rd_kafka_event_message_count(rd_kafka_event_t *);
const rd_kafka_message_t *rd_kafka_event_message_next(rd_kafka_event_t *);
void rd_kafka_event_destroy(rd_kafka_event_t *);

#endif

#ifndef LAPWING_OUTLET_H
#define LAPWING_OUTLET_H

#include "librdkafka.h"

// lapwing_outlet is a producer's handle, its topics, and the queue that delivery reports come to.
typedef struct {
	rd_kafka_t *rk;
	rd_kafka_queue_t *reports;
	rd_kafka_topic_t **topics;
	size_t topic_count;
} lapwing_outlet;

// lapwing_send is a record without its bytes, which follow one another: key, value, and of each header the lengths of its name and its
// value, four bytes each, the name, the value. A length of -1 is null.
typedef struct {
	int64_t time; // 0: now
	int32_t topic;
	int32_t partition;
	int32_t key;
	int32_t value;
	uint32_t headers;
	uint32_t unused;
} lapwing_send;

typedef struct {
	int64_t count; // records reported on
	int32_t err;   // of the first that failed
	int32_t partition;
	int32_t fatal; // the producer is dead
	char topic[256];
} lapwing_report;

int lapwing_outlet_open(lapwing_outlet *, rd_kafka_t *, rd_kafka_queue_t *theirs);
void lapwing_outlet_close(lapwing_outlet *);
int32_t lapwing_outlet_topic(lapwing_outlet *, const char *name);

// lapwing_outlet_produce queues records in order, and returns how many; where that is not all, err is why.
size_t lapwing_outlet_produce(lapwing_outlet *, const lapwing_send *, size_t count, const uint8_t *bytes, int32_t *err);

// lapwing_outlet_reports waits for a delivery report, and takes those that came with it.
void lapwing_outlet_reports(lapwing_outlet *, int timeout_ms, lapwing_report *);
void lapwing_outlet_wake(lapwing_outlet *);

#endif

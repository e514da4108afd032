#ifndef LAPWING_INTAKE_H
#define LAPWING_INTAKE_H

#include "librdkafka.h"

// lapwing_intake is one queue that the queues of partitions are forwarded to.
typedef struct {
	rd_kafka_t *rk;
	rd_kafka_queue_t *queue;
	rd_kafka_queue_t *events; // the consumer's own, which the Go client polls
	rd_kafka_queue_t **led;   // the partitions' queues, in the order of the calls of forward
	size_t led_count;
	char **topics; // names, in the order in which they were first met
	size_t topic_count;
	uint8_t *spill; // the bytes of the last message, where they had no room
	size_t spill_size;
	size_t spill_room;
	size_t most; // bytes that the queue may take before it is read slowly, so that it grows no further
	size_t sum;  // what the last messages took in the queue, bytes
	size_t summed;
} lapwing_intake;

// lapwing_row is a message without its bytes, which follow one another: key, value, and of each header the lengths of its name and
// its value, four bytes each, the name, the value. A length of -1 is null. Where err is set, the value is its text.
typedef struct {
	int64_t offset;
	int64_t time; // -1 where there is none
	int32_t partition;
	int32_t topic;
	int32_t err;
	int32_t key;
	int32_t value;
	uint32_t headers;
	uint32_t at;
	int32_t spilled; // its bytes are in spill
} lapwing_row;

// lapwing_intake_open begins; the queue may take slack times what queued.max.messages.kbytes says.
int lapwing_intake_open(lapwing_intake *, rd_kafka_t *, int slack);
void lapwing_intake_close(lapwing_intake *);
// lapwing_intake_forward leads a partition to the queue. It returns the partition's place, which a further call for it is given; the
// first is given -1.
int lapwing_intake_forward(lapwing_intake *, const char *topic, int32_t partition, int place);
// lapwing_intake_again leads all of them once more.
void lapwing_intake_again(lapwing_intake *);
void lapwing_intake_wake(lapwing_intake *);

// lapwing_intake_pull takes messages that are there, up to max or until bytes, from at on, is full; where none is, it waits for some.
// The return value is their number.
size_t lapwing_intake_pull(lapwing_intake *, int timeout_ms, lapwing_row *rows, size_t max, uint8_t *bytes, size_t at, size_t room);

#endif

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The Python peers of the bench: confluent-kafka with orjson, numpy and onnxruntime.

    peer.py score      --brokers A --in T --out T --group G --model FILE --fields a,b,c [--exactly-once] [--linger MS] [--commit MS]
    peer.py history    --brokers A --in T --fields a,b,c --records N
    peer.py consume    --brokers A --in T --records N

score works in micro-batches of what is waiting, 256 records at most, until SIGTERM. history reads a topic from offset zero
to float32 columns and prints one JSON object with the seconds from the first record on; consume does without the columns.
"""

import argparse
import json
import signal
import sys
import time

import confluent_kafka as ck
import numpy as np
import orjson

BATCH = 256

options = argparse.ArgumentParser(description=__doc__)
options.add_argument("work", choices=["score", "history", "consume"])
for name in ("brokers", "in", "out", "group", "model", "fields"):
    options.add_argument("--" + name)
options.add_argument("--exactly-once", action="store_true")
options.add_argument("--linger", default="5", help="milliseconds")
options.add_argument("--commit", type=float, default=100, help="milliseconds")
options.add_argument("--records", type=int)
o = options.parse_args()
source = getattr(o, "in")
fields = (o.fields or "").split(",")

# A reader that outruns its queue sleeps for fetch.queue.backoff.ms, a second by default.
READER = {
    "bootstrap.servers": o.brokers,
    "group.id": o.group or "python-" + o.work,
    "auto.offset.reset": "earliest",
    "enable.auto.commit": False,
    "fetch.queue.backoff.ms": 1,
}


def score():
    import onnxruntime

    going = [True]
    signal.signal(signal.SIGTERM, lambda *_: going.clear())
    so = onnxruntime.SessionOptions()
    so.intra_op_num_threads = 1
    so.inter_op_num_threads = 1
    run = onnxruntime.InferenceSession(o.model, so, providers=["CPUExecutionProvider"]).run
    consumer = ck.Consumer({**READER, "enable.auto.offset.store": False})
    settings = {"bootstrap.servers": o.brokers, "linger.ms": o.linger, "enable.idempotence": True}
    if o.exactly_once:
        settings["transactional.id"] = o.group
    producer = ck.Producer(settings)
    if o.exactly_once:
        producer.init_transactions()
    consumer.subscribe([source])
    rows = np.empty((BATCH, len(fields)), dtype=np.float32)
    offsets = {}
    begun, due = False, time.monotonic() + o.commit / 1000

    def commit():
        nonlocal begun
        where = [ck.TopicPartition(source, p, n) for p, n in offsets.items()]
        if o.exactly_once:
            producer.send_offsets_to_transaction(where, consumer.consumer_group_metadata())
            producer.commit_transaction()
            begun = False
        else:
            producer.flush()
            consumer.commit(offsets=where, asynchronous=False)
        offsets.clear()

    while going:
        # consume(n, timeout) waits until it has all of n: ask for one, then take what is there
        wait = max(0.0, due - time.monotonic()) if offsets else 0.1
        batch = consumer.consume(1, wait)
        if batch:
            batch += consumer.consume(BATCH - 1, 0)
        n = 0
        kept = []
        for m in batch:
            if m.error():
                if m.error().code() == ck.KafkaError._PARTITION_EOF:
                    continue
                raise ck.KafkaException(m.error())
            r = orjson.loads(m.value())
            rows[n] = [r[f] for f in fields]
            kept.append(m)
            n += 1
        if n:
            (scores,) = run(["score"], {"features": rows[:n]})
            if o.exactly_once and not begun:
                producer.begin_transaction()
                begun = True
            for m, s in zip(kept, scores.tolist()):
                p, at, key = m.partition(), m.offset(), m.key()
                value = orjson.dumps({"partition": p, "offset": at, "key": key.decode(), "score": s})
                while True:
                    try:
                        producer.produce(o.out, value, key, partition=p)
                        break
                    except BufferError:
                        producer.poll(0.01)
                offsets[p] = at + 1
            producer.poll(0)
        if offsets and time.monotonic() >= due:
            commit()
            due = time.monotonic() + o.commit / 1000
    if offsets:
        commit()
    consumer.close()


def read(columns):
    consumer = ck.Consumer({**READER, "queued.min.messages": 100000, "queued.max.messages.kbytes": 65536, "fetch.wait.max.ms": 10})
    parts = consumer.list_topics(source).topics[source].partitions
    consumer.assign([ck.TopicPartition(source, p, ck.OFFSET_BEGINNING) for p in parts])
    data = np.empty((o.records if columns else 0, len(fields)), dtype=np.float32)
    got, start = 0, None
    while got < o.records:
        batch = consumer.consume(4096, 0.05)
        if batch and start is None:
            start, before = time.perf_counter(), len(batch)
        for m in batch:
            if m.error():
                raise ck.KafkaException(m.error())
            if columns:
                r = orjson.loads(m.value())
                data[got] = [r[f] for f in fields]
            got += 1
    seconds = time.perf_counter() - start
    consumer.close()
    json.dump({"records": got - before, "seconds": seconds, "sum": float(data.sum(dtype=np.float64))}, sys.stdout)


{"score": score, "history": lambda: read(True), "consume": lambda: read(False)}[o.work]()

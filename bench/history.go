package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	apache "github.com/lapwing-stream/lapwing/bench/kafka"
	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/stream"
)

// historySuite reads a topic from offset zero: to float32 columns, as training does, and bare.
func historySuite(ctx context.Context, r *run) error {
	c, err := r.cluster(ctx, "history")
	if err != nil {
		return err
	}
	defer c.close()
	records := min(r.Records, 500_000) // enough, and Python is slow
	values, spec, err := fleetValues(min(records, 20_000))
	if err != nil {
		return err
	}
	if err := c.fill(ctx, "history", values, records); err != nil {
		return err
	}
	ranges, err := c.client.Ranges(ctx, "history")
	if err != nil {
		return err
	}
	rows, err := decoded(spec, values)
	if err != nil {
		return err
	}
	var sum float64 // of all columns of all records: what every reader must come to
	for i := range records {
		width := len(spec.Columns())
		for _, v := range rows[i%len(values)*width : (i%len(values)+1)*width] {
			sum += float64(v)
		}
	}
	read := func(each func(*stream.Batch) error) func(context.Context) (figures, error) {
		return one(perSecond, func(ctx context.Context) (float64, error) {
			start, n := time.Now(), 0 // from the call on: the others are spared the connecting
			h, err := c.client.ReadRanges(ctx, "history", ranges, stream.HistoryOptions{})
			if err != nil {
				return 0, err
			}
			defer h.Close()
			for {
				b, err := h.Next(ctx)
				if err == io.EOF {
					break
				}
				if err != nil {
					return 0, err
				}
				n += len(b.Records)
				if err := each(b); err != nil {
					return 0, err
				}
				b.Release()
			}
			return float64(n) / time.Since(start).Seconds(), nil
		})
	}
	d, err := events.Compile(spec)
	if err != nil {
		return err
	}
	columns := make([]float32, 0, records*d.Columns())
	python := func(work string) subject {
		s := subject{name: "Python confluent-kafka + numpy", role: Peer, absent: r.pythonMissing(ctx)}
		if work == "consume" {
			s.name, s.role = "bare consume(n), Python", Limit
		}
		s.once = one(perSecond, func(ctx context.Context) (float64, error) {
			return r.pythonHistory(ctx, c, work, spec.Columns(), records, sum)
		})
		return s
	}
	m, err := r.measure(ctx, cell{suite: "history", rounds: min(r.Rounds, 3), kase: fmt.Sprintf("%d records, %d partitions: %s, %s", records, partitions, c.kind, cores())},
		[]metric{{name: perSecond, unit: "1/s"}},
		subject{name: Ours, once: func(ctx context.Context) (figures, error) {
			columns = columns[:0]
			f, err := read(func(b *stream.Batch) error {
				for i := range b.Records {
					at := len(columns)
					columns = columns[:at+d.Columns()]
					if d.Decode(b.Records[i].Value, columns[at:]).Outcome != events.OK {
						return fmt.Errorf("offset %d did not decode", b.Records[i].Offset)
					}
				}
				return nil
			})(ctx)
			if err != nil {
				return nil, err
			}
			var got float64
			for _, v := range columns {
				got += float64(v)
			}
			return f, sameSum(got, sum)
		}},
		python("history"),
		subject{name: "lapwing, without columns", role: Limit, once: read(func(*stream.Batch) error { return nil })},
		subject{name: "bare consumer, Go calls", role: Limit, once: one(perSecond, func(ctx context.Context) (float64, error) {
			return bareConsume(ctx, c.addr, "history", records)
		})},
		python("consume"))
	if err != nil {
		return err
	}
	r.targetRatio("history read to columns, share of a bare consumer", .7, m, Ours, "bare consumer, Go calls", perSecond, false)
	return nil
}

func sameSum(got, want float64) error {
	if math.Abs(got-want) > 1e-6*math.Abs(want) {
		return fmt.Errorf("%w: the columns add up to %v, not %v", errDiffers, got, want)
	}
	return nil
}

func (r *run) pythonHistory(ctx context.Context, c *cluster, work string, fields []string, records int, sum float64) (float64, error) {
	dir, err := os.MkdirTemp("", "lapwing-bench")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "peer.py")
	if err := os.WriteFile(program, apache.PythonPeer, 0o600); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	var said bytes.Buffer // librdkafka logs there
	command := exec.CommandContext(ctx, r.python(), program, work, "--brokers", c.addr, "--in", "history", "--fields", strings.Join(fields, ","),
		"--records", strconv.Itoa(records))
	command.Stderr = &said
	out, err := command.Output()
	var did struct{ Records, Seconds, Sum float64 }
	if err == nil {
		err = json.Unmarshal(out, &did)
	}
	if err != nil {
		return 0, fmt.Errorf("%w\n%s%s", err, out, said.Bytes())
	}
	if work == "history" {
		err = sameSum(did.Sum, sum)
	}
	return did.Records / did.Seconds, err
}

// bareConsume is confluent-kafka-go as its documentation uses it, with fetching tuned as ours is: Poll for each message.
func bareConsume(ctx context.Context, brokers, topic string, n int) (float64, error) {
	c, err := kafka.NewConsumer(&kafka.ConfigMap{
		"bootstrap.servers": brokers, "group.id": "bare", "enable.auto.commit": false, "auto.offset.reset": "earliest",
		"fetch.queue.backoff.ms": 1, "queued.max.messages.kbytes": 65536, "queued.min.messages": 100_000, "fetch.wait.max.ms": 10,
		"enable.metrics.push": false, "log_level": 0,
	})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	var assign []kafka.TopicPartition
	for p := range int32(partitions) {
		assign = append(assign, kafka.TopicPartition{Topic: &topic, Partition: p, Offset: kafka.OffsetBeginning})
	}
	if err := c.Assign(assign); err != nil {
		return 0, err
	}
	var start time.Time
	for got := -1; got < n-1; {
		switch e := c.Poll(1000).(type) {
		case *kafka.Message:
			if e.TopicPartition.Error != nil {
				return 0, e.TopicPartition.Error
			}
			if got++; got == 0 {
				start = time.Now()
			}
		case kafka.Error:
			return 0, e
		case nil:
			if err := ctx.Err(); err != nil {
				return 0, err
			}
		}
	}
	return float64(n-1) / time.Since(start).Seconds(), nil
}

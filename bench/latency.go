package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lapwing-stream/lapwing/bench/process"
	"github.com/lapwing-stream/lapwing/stream"
)

// rate is how many records a second the latency is measured at.
const rate = 1000

// leadIn is the part of each round that is not counted.
const leadIn = time.Second

// percentiles are the metrics of a latency.
var percentiles = []struct {
	name string
	p    float64
}{{"p50", .5}, {"p90", .9}, {"p99", .99}, {"p99.9", .999}}

func latencyMetrics() (all []metric) {
	for _, q := range percentiles {
		all = append(all, metric{name: q.name, unit: "ms", lower: true, bound: 1})
	}
	return append(all, metric{name: perMega, unit: "s", lower: true})
}

// latencySuite is the part of the stream suite that has no backlog.
func latencySuite(ctx context.Context, r *run) error {
	b, err := r.bed(ctx, "latency", plainNet)
	if err != nil {
		return err
	}
	defer b.close()
	l, err := b.latency(ctx, "at least once, linger 0 for all, commits every 100 ms", wiring{commit: 100 * time.Millisecond}, r.Rounds,
		b.lapwing(Ours, plainNet, false), b.python(ctx, plainNet, false), b.streams(plainNet, false),
		b.passThrough(callsName, "calls", false), b.passThrough(batchesName, "batches", false))
	if err != nil {
		return err
	}
	r.targetRatio("latency p99 vs "+callsName, 1.3, l, Ours, callsName, "p99", true)
	r.targetRatio("latency p99 vs "+pythonName, 1, l, Ours, pythonName, "p99", true)
	r.targetRatio("latency p99 vs "+streamsName, .75, l, Ours, streamsName, "p99", true)
	if r.Smoke {
		return nil
	}
	const often = 20 * time.Millisecond
	if _, err := b.latency(ctx, "exactly once, read committed, linger 0 for all, transactions of 20 ms", wiring{commit: often}, min(r.Rounds, 3),
		b.lapwing(Ours, plainNet, true), b.python(ctx, plainNet, true), b.streams(plainNet, true),
		b.passThrough(callsName, "calls", true), b.passThrough(batchesName, "batches", true)); err != nil {
		return err
	}
	if _, err := b.latency(ctx, "at least once, all else as it comes: settings are compared, not engines", wiring{asItIs: true}, 1,
		b.lapwing(Ours, plainNet, false), b.python(ctx, plainNet, false), b.streams(plainNet, false)); err != nil {
		return err
	}
	return nil
}

// latency measures from when a record was due to be sent until another consumer has its
// score, a slow moment counting for every record that was due in it. The probe is this process; all scorers run all the
// time, each with topics of its own, so that none is measured cold.
func (b *bed) latency(ctx context.Context, kase string, w wiring, rounds int, scorers ...scorer) (*measured, error) {
	var subjects []subject
	for _, s := range scorers {
		sub := subject{name: s.name, role: s.role, absent: s.absent}
		if s.absent == nil {
			l, err := b.lane(ctx, s, w)
			if errors.Is(err, errDiffers) || ctx.Err() != nil {
				return nil, err
			}
			if err != nil {
				sub.absent = err
			} else {
				defer l.close()
				sub.once = func(ctx context.Context) (figures, error) {
					return l.round(ctx, b.r.LatencyFor/time.Duration(b.r.Rounds))
				}
			}
		}
		subjects = append(subjects, sub)
	}
	// a percentile of so few rounds scatters by itself: only wide ones are marked
	return b.r.measure(ctx, cell{suite: "latency", kase: fmt.Sprintf("latency at %d records/s, %s: %s, %s", rate, kase, b.kind, cores()), warmed: true, rounds: rounds}, latencyMetrics(), subjects...)
}

// lane is a scorer that runs on topics of its own.
type lane struct {
	b        *bed
	s        scorer
	w        wiring
	p        *process.Process
	producer *stream.Producer
	tail     *stream.Tail
	during   func(ctx context.Context) error // runs beside a round; default nothing
}

// lane starts s and scores enough records for a JIT to be done.
func (b *bed) lane(ctx context.Context, s scorer, w wiring) (_ *lane, err error) {
	b.outs++
	w.in, w.out = fmt.Sprintf("in%d", b.outs), fmt.Sprintf("out%d", b.outs)
	l := &lane{b: b, s: s, w: w}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	warm := 20_000
	if s.slowWarm {
		warm = 300_000
	}
	if b.r.Smoke {
		warm = 600
	}
	if err := b.fill(ctx, w.in, b.values, warm); err != nil {
		return nil, err
	}
	if err := b.topic(ctx, w.out); err != nil {
		return nil, err
	}
	if l.p, err = s.start(ctx, b, w); err != nil {
		return nil, err
	}
	if _, err := b.reached(ctx, l.p, w.out, int64(warm)); err != nil {
		return nil, err
	}
	if l.tail, err = b.client.Tail(ctx, []string{w.out}, stream.TailOptions{Start: "earliest", Committed: true}); err != nil {
		return nil, err
	}
	if err := b.check(ctx, s, l.tail, int64(warm)); err != nil {
		return nil, err
	}
	l.producer, err = b.client.Producer(ctx, stream.ProducerOptions{})
	return l, err
}

func (l *lane) close() {
	if l.tail != nil {
		l.tail.Close()
	}
	if l.producer != nil {
		l.producer.Close(context.Background())
	}
	if l.p != nil {
		l.p.Kill()
	}
}

// round sends records on a schedule and gives the percentiles of those after the lead-in.
func (l *lane) round(ctx context.Context, measured time.Duration) (figures, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	marks, err := l.b.client.Watermarks(ctx, l.w.in)
	if err != nil {
		return nil, err
	}
	base := map[int32]int64{}
	for _, m := range marks {
		base[m.Partition] = m.To
	}
	total := int((leadIn+measured).Seconds()*rate) / partitions * partitions
	begin := time.Now().Add(50 * time.Millisecond)
	due := func(i int) time.Time { return begin.Add(time.Duration(i) * time.Second / rate) }
	sent, beside := make(chan error, 1), make(chan error, 1)
	go func() { sent <- l.send(ctx, total, due) }()
	go func() {
		if l.during == nil {
			beside <- nil
			return
		}
		beside <- l.during(ctx)
	}()
	cpu, err := l.p.CPU()
	if err != nil {
		cpu = 0
	}
	seen, came := make([]bool, total), map[int32]int64{}
	var latencies []float64
	for left := total; left > 0; {
		wait, stop := context.WithTimeout(ctx, patience)
		batch, err := l.tail.Next(wait)
		stop()
		if e := l.p.Ended(); e != nil {
			return nil, e
		}
		if err != nil {
			return nil, fmt.Errorf("%d of %d scores are missing and none came for %v: %w", left, total, patience, err)
		}
		now := time.Now()
		for i := range batch.Records {
			r := &batch.Records[i]
			// What is passed through keeps its partition and its order, though transactions change offsets.
			at := scored{Partition: r.Partition, Offset: base[r.Partition] + came[r.Partition]}
			came[r.Partition]++
			if l.s.model != "" {
				if err := json.Unmarshal(r.Value, &at); err != nil {
					return nil, err
				}
			}
			nth := int(at.Offset-base[at.Partition])*partitions + int(at.Partition)
			if nth < 0 || nth >= total || seen[nth] {
				continue // of the warm-up, or a second time
			}
			seen[nth] = true
			left--
			if d := due(nth); d.Sub(begin) >= leadIn {
				latencies = append(latencies, now.Sub(d).Seconds()*1000)
			}
		}
		batch.Release()
	}
	after, err := l.p.CPU()
	f := figures{}
	if err == nil && after > cpu {
		f[perMega] = 1e6 * (after - cpu).Seconds() / float64(total)
	}
	slices.Sort(latencies)
	for _, q := range percentiles {
		f[q.name] = latencies[min(int(q.p*float64(len(latencies))), len(latencies)-1)]
	}
	cancel()
	if err := <-beside; err != nil && !errors.Is(err, context.Canceled) {
		return nil, err
	}
	return f, <-sent
}

func (l *lane) send(ctx context.Context, total int, due func(int) time.Time) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	one := make([]stream.Record, 1)
	for i := range total {
		if wait := time.Until(due(i)); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		one[0] = record(l.w.in, l.b.values, i)
		if err := l.producer.Produce(ctx, one); err != nil {
			return err
		}
	}
	return nil
}

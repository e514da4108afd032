package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/lapwing-stream/lapwing/bench/process"
	"github.com/lapwing-stream/lapwing/stream"
)

// Metrics of the stream suite.
const (
	perSecond = "records/s"
	perMega   = "CPU s per 1M records"
	perCPU    = "records per CPU s"
)

// warmRecords are scored before the clock starts: a model is loaded, a group joined, queues filled.
const warmRecords = 250_000

// patience is how long a scorer may write nothing.
const patience = 45 * time.Second

// streamSuite measures scorers over a backlog, each as its own process with its own consumer group, reading the same
// topic and writing to one of its own. What it costs is read from outside: records from the output topic's end, processor
// time of the process from /proc.
func streamSuite(ctx context.Context, r *run) error {
	b, err := r.bed(ctx, "stream", plainNet, defaultDetector)
	if err != nil {
		return err
	}
	defer b.close()
	count, warm, slow := r.Records, min(warmRecords, r.Records), min(1_000_000, r.Records)
	if r.Smoke {
		warm, slow = r.Records/5, r.Records/5
	}
	if err := b.fill(ctx, "events", b.values, slow+count); err != nil {
		return err
	}
	bytes := 0
	for _, v := range b.values {
		bytes += len(v)
	}
	what := fmt.Sprintf("%d-field JSON of %d B in, score JSON out, %s, all on the same %s", len(b.spec.Columns()), bytes/len(b.values), b.kind, cores())
	w := wiring{in: "events", linger: 5 * time.Millisecond, commit: 100 * time.Millisecond}
	metrics := []metric{{name: perSecond, unit: "1/s"}, {name: perMega, unit: "s", lower: true}, {name: perCPU, unit: "1/s"}}
	if r.Smoke {
		if err := r.pythonMissing(ctx); err != nil {
			return err
		}
	}
	over := func(kase string, rounds int, scorers ...scorer) (*measured, error) {
		var subjects []subject
		for _, s := range scorers {
			checked := false
			subjects = append(subjects, subject{name: s.name, role: s.role, absent: s.absent, rounds: s.rounds, once: func(ctx context.Context) (figures, error) {
				first := warm
				if s.slowWarm {
					first = slow
				}
				f, err := b.backlog(ctx, s, w, first, count/max(1, s.share), !checked)
				checked = true
				fmt.Fprintf(r.Log, "%s, %s: %.0f records/s, %.2f CPU s per 1M\n", kase, s.name, f[perSecond], f[perMega])
				return f, err
			}})
		}
		return r.measure(ctx, cell{suite: "stream", kase: kase + ": " + what, warmed: true, rounds: min(r.Rounds, rounds)}, metrics, subjects...)
	}
	bare := b.passThrough(batchesName, "batches", false)
	streams := b.streams(plainNet, false)
	streams.rounds = 2 // each takes half a minute to warm its JIT
	m, err := over("at least once, net 18-14-7-7-18", 3, b.lapwing(Ours, plainNet, false), b.python(ctx, plainNet, false), streams,
		bare, b.passThrough(callsName, "calls", false), b.passThrough("Lapwing's package stream alone", "stream", false))
	if err != nil {
		return err
	}
	r.targetRatio("stream, records per CPU second, vs "+streamsName+", warm", 8, m, Ours, streamsName, perCPU, false)
	r.targetRatio("stream, records per CPU second, vs "+pythonName, 2.5, m, Ours, pythonName, perCPU, false)
	r.targetRatio("stream, CPU seconds, vs "+batchesName, 2, m, Ours, batchesName, perMega, true)
	r.target("stream, Kafka to Kafka", 400_000, m.value(Ours, perSecond), "records/s", false)
	net := b.lapwing("lapwing, net 18-14-7-7-18", plainNet, false)
	net.role = Limit
	if _, err := over("exactly once, net 18-14-7-7-18", 1, b.lapwing(Ours, plainNet, true), b.python(ctx, plainNet, true), b.streams(plainNet, true),
		b.passThrough(batchesName, "batches", true), b.passThrough(callsName, "calls", true)); err != nil {
		return err
	}
	d, err := over("at least once, the default detector", 3, b.lapwing(Ours, defaultDetector, false), b.python(ctx, defaultDetector, false), net)
	if err != nil {
		return err
	}
	r.targetRatio("stream with the default detector, CPU seconds, vs the plain net", 1.5, d, Ours, net.name, perMega, true)
	r.targetRatio("stream with the default detector, records per CPU second, vs "+pythonName, 2, d, Ours, pythonName, perCPU, false)
	return nil
}

// backlog runs s over the records of w.in, and measures from warm scores on over the next ones. With check the results
// are compared with what the model says of the records.
func (b *bed) backlog(ctx context.Context, s scorer, w wiring, warm, measured int, check bool) (figures, error) {
	b.outs++
	w.out = fmt.Sprintf("out%d", b.outs)
	if err := b.topic(ctx, w.out); err != nil {
		return nil, err
	}
	defer b.client.DeleteTopic(context.WithoutCancel(ctx), w.out)
	p, err := s.start(ctx, b, w)
	if err != nil {
		return nil, err
	}
	defer p.Kill() // there is more to score, and nobody needs it
	begin := mark{at: time.Now()}
	from, err := b.reached(ctx, p, w.out, int64(warm))
	if err != nil {
		return nil, err
	}
	to, err := b.reached(ctx, p, w.out, int64(warm+measured))
	if err != nil {
		return nil, err
	}
	if from.records >= to.records { // a backlog so small, a smoke test's, was done between two looks
		from = begin
	}
	if check {
		tail, err := b.client.Tail(ctx, []string{w.out}, stream.TailOptions{Start: "earliest", Committed: true})
		if err != nil {
			return nil, err
		}
		defer tail.Close()
		// half: a transaction's end counts as a record
		if err := b.check(ctx, s, tail, min(to.records/2, 50_000)); err != nil {
			return nil, err
		}
	}
	n, cpu := float64(to.records-from.records), (to.cpu - from.cpu).Seconds()
	f := figures{perSecond: n / to.at.Sub(from.at).Seconds()}
	if cpu > 0 {
		f[perMega], f[perCPU] = 1e6*cpu/n, n/cpu
	}
	return f, nil
}

// mark is where a scorer was at a time.
type mark struct {
	at      time.Time
	records int64
	cpu     time.Duration
}

// reached waits until so many records stand in a topic.
func (b *bed) reached(ctx context.Context, p *process.Process, topic string, records int64) (mark, error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var last int64
	moved := time.Now()
	for {
		n, err := b.count(ctx, topic)
		if err != nil {
			return mark{}, err
		}
		now := time.Now()
		if n >= records {
			cpu, err := p.CPU()
			if err != nil {
				cpu = 0 // there is no /proc here
			}
			return mark{now, n, cpu}, nil
		}
		if n > last {
			last, moved = n, now
		}
		if err := p.Ended(); err != nil {
			return mark{}, err
		}
		if now.Sub(moved) > patience {
			return mark{}, fmt.Errorf("%d of %d records came, then none for %v\n%s", n, records, patience, p.Said())
		}
		select {
		case <-ctx.Done():
			return mark{}, ctx.Err()
		case <-tick.C:
		}
	}
}

// scored is what every scorer writes, whatever else it adds: which record, and its score.
type scored struct {
	Partition int32    `json:"partition"`
	Offset    int64    `json:"offset"`
	Score     *float32 `json:"score"`
}

// check compares the next n records of a topic with what the model says of their sources, or with the sources
// themselves where there is no model.
func (b *bed) check(ctx context.Context, s scorer, tail *stream.Tail, n int64) error {
	for seen := int64(0); seen < n; {
		wait, stop := context.WithTimeout(ctx, patience)
		batch, err := tail.Next(wait)
		stop()
		if err != nil {
			return fmt.Errorf("reading %d records to check them: %w", n, errors.Join(ctx.Err(), err))
		}
		for i := range batch.Records {
			if err := b.agrees(s, &batch.Records[i]); err != nil {
				return err
			}
		}
		seen += int64(len(batch.Records))
		batch.Release()
	}
	return nil
}

// agrees holds one output record against the model. The tolerance is that of docs/formats.md.
func (b *bed) agrees(s scorer, r *stream.Record) error {
	at := func(partition int32, offset int64) int {
		return int((offset*partitions + int64(partition)) % int64(len(b.values)))
	}
	if s.model == "" {
		if want := b.values[at(r.Partition, r.Offset)]; !s.exactly && string(r.Value) != string(want) {
			return fmt.Errorf("%w: partition %d, offset %d is %q, not %q", errDiffers, r.Partition, r.Offset, r.Value, want)
		}
		return nil
	}
	var got scored
	if err := json.Unmarshal(r.Value, &got); err != nil || got.Score == nil {
		return fmt.Errorf("%w: %q is no score", errDiffers, r.Value)
	}
	m := b.models[s.model]
	want := float64(m.scores[at(got.Partition, got.Offset)])
	if math.Abs(float64(*got.Score)-want) > 2e-5*math.Abs(want)+1e-5*m.threshold+1e-6 {
		return fmt.Errorf("%w: partition %d, offset %d scores %v, Lapwing's own is %v", errDiffers, got.Partition, got.Offset, *got.Score, want)
	}
	return nil
}

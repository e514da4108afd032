package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/lapwing-stream/lapwing/bench/process"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/server"
	"github.com/lapwing-stream/lapwing/stream"
)

// copies is how many scorers follow the model topic in a rollout; rollouts is how many versions are published to them for each
// size of model.
const (
	copies   = 5
	rollouts = 100
)

// rollout measures how long a model takes from the call that publishes it until the last of several copies of one stream scores by
// it, while they score. That they do is read from their logs, so a figure has the time that a line takes through a pipe in it, and
// nothing is asked of a scorer that would keep it from scoring. Then all that came out is held against what went in.
func (b *bed) rollout(ctx context.Context, r *run) error {
	for _, m := range []struct {
		name   string
		hidden []int
	}{
		{"small", []int{14, 7, 7}},
		{"large", []int{400, 250, 400}}, // its file is just under 1 MB
	} {
		data, err := random(b.spec, b.values, m.hidden, 0)
		if err != nil {
			return err
		}
		kase := fmt.Sprintf("a model of %d kB to %d copies that score %d records/s, at least once: %s, %s", (len(data)+500)/1000, copies, rate, b.kind, cores())
		fmt.Fprintf(r.Log, "swap, %s\n", kase)
		took, err := b.rolledOut(ctx, m.name, m.hidden)
		if err != nil {
			return fmt.Errorf("%s: %w", kase, err)
		}
		var last float64 // of the last phase and percentile
		for _, phase := range []struct {
			metric string
			of     func(rolled) time.Duration
		}{
			{"published", func(t rolled) time.Duration { return t.published }},
			{"first copy swapped", func(t rolled) time.Duration { return slices.Min(t.swapped) }},
			{"last copy swapped, once it was published", func(t rolled) time.Duration { return slices.Max(t.swapped) - t.published }},
			{"last copy swapped", func(t rolled) time.Duration { return slices.Max(t.swapped) }},
		} {
			var ms []float64
			for _, t := range took {
				ms = append(ms, phase.of(t).Seconds()*1000)
			}
			slices.Sort(ms)
			for _, q := range percentiles[:3] { // of 100, p99.9 says nothing
				v := ms[min(int(q.p*float64(len(ms))), len(ms)-1)]
				r.Rows = append(r.Rows, Row{Suite: "swap", Case: kase, Subject: Ours, Role: Ours, Metric: phase.metric + ", " + q.name, Unit: "ms", Lower: true, Value: v,
					Spread: [2]float64{ms[0], ms[len(ms)-1]}, Samples: ms})
				last = v
			}
		}
		r.target(fmt.Sprintf("from publishing a %s model to the last of %d copies swapped, p99", m.name, copies), 250, last, "ms", true)
	}
	return nil
}

// rolled is one publication: all times are since its call began.
type rolled struct {
	published time.Duration
	swapped   []time.Duration // by copy
}

// rolledOut publishes version after version of a model to copies of one stream.
func (b *bed) rolledOut(ctx context.Context, name string, hidden []int) (all []rolled, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b.outs++
	w := wiring{in: fmt.Sprintf("in%d", b.outs), out: fmt.Sprintf("out%d", b.outs)}
	if err := b.topic(ctx, w.in, w.out); err != nil {
		return nil, err
	}
	reg := b.registry()
	publish := func(seed uint64) (version int, began, ended time.Time, err error) {
		data, err := random(b.spec, b.values, hidden, seed)
		if err != nil {
			return 0, began, ended, err
		}
		began = time.Now()
		m, err := reg.Publish(ctx, registry.Publication{Name: name, Data: data, Alias: registry.Live, By: "bench"})
		return m.Version, began, time.Now(), err
	}
	first, _, _, err := publish(0)
	if err != nil {
		return nil, err
	}
	var scorers []*process.Process
	watches := make([]*watch, copies)
	for i := range watches {
		watches[i] = &watch{live: make(chan swap, rollouts+1)}
		p, err := process.Start(ctx, process.Options{Dir: b.dir, Stderr: watches[i]}, b.r.Binary, "serve", "--brokers", b.addr, "--topic", w.in, "--model", name, "--output", w.out,
			"--alerts", server.None, "--dlq", "bench.dlq", "--http", "none", "--delivery", "at_least_once", "--instance-id", fmt.Sprintf("%s-%d", w.out, i))
		if err != nil {
			return nil, err
		}
		defer p.Kill()
		scorers = append(scorers, p)
	}
	for i, p := range scorers {
		if _, err := watches[i].wait(ctx, p, registry.Ref{Name: name, Version: first}); err != nil {
			return nil, err
		}
	}
	l := &lane{b: b, w: w}
	defer l.close()
	if l.producer, err = b.client.Producer(ctx, stream.ProducerOptions{}); err != nil {
		return nil, err
	}
	feed, stop := context.WithCancel(ctx)
	defer stop()
	begin, fed := time.Now(), make(chan error, 1)
	go func() {
		fed <- l.send(feed, 1<<30, func(i int) time.Time { return begin.Add(time.Duration(i) * time.Second / rate) })
	}()
	pause := rand.New(rand.NewPCG(1, 2))
	if _, err := b.reached(ctx, scorers[0], w.out, 5*rate); err != nil { // the group has settled
		return nil, err
	}
	for seed := range uint64(rollouts) {
		version, began, ended, err := publish(seed + 1)
		if err != nil {
			return nil, err
		}
		t := rolled{published: ended.Sub(began)}
		for i, p := range scorers {
			at, err := watches[i].wait(ctx, p, registry.Ref{Name: name, Version: version})
			if err != nil {
				return nil, err
			}
			t.swapped = append(t.swapped, at.Sub(began))
		}
		all = append(all, t)
		select { // at no fixed place in anybody's interval
		case <-time.After(time.Duration(20+pause.IntN(80)) * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	stop()
	if err := <-fed; err != nil && !errors.Is(err, context.Canceled) {
		return nil, err
	}
	if err := l.producer.Flush(ctx); err != nil {
		return nil, err
	}
	sent, err := b.count(ctx, w.in)
	if err != nil {
		return nil, err
	}
	if _, err := b.reached(ctx, scorers[0], w.out, sent); err != nil {
		return nil, err
	}
	a, err := b.audit(ctx, w.in, w.out)
	if err == nil && a.dropped+a.doubled+a.reordered > 0 {
		err = fmt.Errorf("%w: %d records dropped, %d doubled, %d reordered over %d versions", errDiffers, a.dropped, a.doubled, a.reordered, rollouts)
	}
	return all, err
}

// swap is a version that a scorer says it scores by.
type swap struct {
	model string
	at    time.Time
}

// watch reads a scorer's log as it is written.
type watch struct {
	mu   sync.Mutex
	rest []byte
	live chan swap
}

func (w *watch) Write(b []byte) (int, error) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rest = append(w.rest, b...)
	for {
		line, rest, whole := bytes.Cut(w.rest, []byte("\n"))
		if !whole {
			return len(b), nil
		}
		w.rest = rest
		var said struct{ Msg, Model string }
		if json.Unmarshal(line, &said) != nil || said.Msg != "model is live" && said.Msg != "model swapped" {
			continue
		}
		select {
		case w.live <- swap{said.Model, now}:
		default: // nobody waits any more
		}
	}
}

// wait gives the time at which the scorer said that it scores by ref.
func (w *watch) wait(ctx context.Context, p *process.Process, ref registry.Ref) (time.Time, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case s := <-w.live:
			if s.model == ref.String() {
				return s.at, nil
			}
		case <-timer.C:
			return time.Time{}, errors.Join(fmt.Errorf("%s was not live after %v\n%s", ref, patience, p.Said()), p.Ended())
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		}
	}
}

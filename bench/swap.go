package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

// swapEvery is the time between two moves of the alias that the scorer follows.
const swapEvery = 100 * time.Millisecond

// swapSuite measures one scorer while its alias moves between two versions, and in turn while it does not; then it reads
// all that came out and holds it against what went in, by offset.
func swapSuite(ctx context.Context, r *run) error {
	b, err := r.bed(ctx, "swap", plainNet)
	if err != nil {
		return err
	}
	defer b.close()
	data, err := plain(b.spec, b.values, 2)
	if err != nil {
		return err
	}
	reg := b.registry()
	if _, err := reg.Publish(ctx, registry.Publication{Name: plainNet, Data: data, By: "bench"}); err != nil {
		return err
	}
	l, err := b.lane(ctx, b.lapwing(Ours, plainNet, false), wiring{commit: 100 * time.Millisecond})
	if err != nil {
		return err
	}
	defer l.close()
	list, err := reg.List(ctx)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(list, func(e registry.Entry) bool { return e.Name == plainNet })
	if at < 0 {
		return errors.New("the model topic does not list what was published there")
	}
	alias := list[at].Aliases[registry.Live]
	mover, err := b.client.Producer(ctx, stream.ProducerOptions{})
	if err != nil {
		return err
	}
	defer mover.Close(context.WithoutCancel(ctx))
	moves := 0
	// The alias's record as docs/formats.md has it, without what registry.Move does to be safe from other movers, which
	// takes longer than there is time between two swaps.
	swapping := func(ctx context.Context) error {
		tick := time.NewTicker(swapEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return ctx.Err()
			}
			alias.Version, alias.Generation, alias.When = 3-alias.Version, alias.Generation+1, time.Now().UTC()
			value, err := json.Marshal(alias)
			if err == nil {
				err = mover.Produce(ctx, []stream.Record{{Topic: reg.Topic(), Key: []byte(plainNet + "@" + registry.Live), Value: value, Time: alias.When.UnixMilli()}})
			}
			if err != nil {
				return err
			}
			moves++
		}
	}
	once := func(during func(context.Context) error) func(context.Context) (figures, error) {
		return func(ctx context.Context) (figures, error) {
			l.during = during
			return l.round(ctx, r.LatencyFor/time.Duration(r.Rounds))
		}
	}
	const still = "lapwing, no swaps"
	kase := fmt.Sprintf("latency at %d records/s, at least once, 10 swaps a second: %s, %s", rate, b.kind, cores())
	m, err := r.measure(ctx, cell{suite: "swap", kase: kase, warmed: true}, latencyMetrics(),
		subject{name: Ours, once: once(swapping)}, subject{name: still, role: Limit, once: once(nil)})
	if err != nil {
		return err
	}
	r.targetRatio("p99 with 10 swaps a second vs none", 1.1, m, Ours, still, "p99", true)
	a, err := b.audit(ctx, l.w.in, l.w.out)
	if err != nil {
		return err
	}
	for _, c := range []struct {
		name string
		n    int
	}{{"dropped", a.dropped}, {"doubled", a.doubled}, {"reordered", a.reordered}, {"swaps asked", moves}, {"swaps seen in the scores", a.swaps}} {
		v := float64(c.n)
		r.Rows = append(r.Rows, Row{Suite: "swap", Case: kase, Subject: Ours, Role: Ours, Metric: c.name, Unit: "", Value: v, Spread: [2]float64{v, v}, Samples: []float64{v}})
	}
	if a.dropped+a.doubled+a.reordered > 0 {
		return fmt.Errorf("%w: %d records dropped, %d doubled, %d reordered over %d swaps", errDiffers, a.dropped, a.doubled, a.reordered, moves)
	}
	if a.swaps == 0 {
		return errors.New("no swap was seen in the scores")
	}
	if 10*a.swaps < 8*moves { // a figure for fewer swaps is no answer
		t := &r.Targets[len(r.Targets)-1]
		t.OK, t.Error = false, fmt.Sprintf("only %d of %d swaps took effect: the others were overtaken by the next", a.swaps, moves)
		r.note("swap: %s. A version is decoded, compiled, self-tested and run once before it goes live, which on a loaded machine may take longer than %v.", t.Error, swapEvery)
	}
	l.p.Kill() // it has a share of the processors, and nothing to do
	return b.rollout(ctx, r)
}

// audit is what the scores topic says of the records that went in.
type audit struct {
	dropped, doubled, reordered int
	swaps                       int // times that the version changed from one score to the next, in partition 0
}

// audit reads all of out, and counts by the offsets that the scores name.
func (b *bed) audit(ctx context.Context, in, out string) (a audit, err error) {
	marks, err := b.client.Watermarks(ctx, in)
	if err != nil {
		return a, err
	}
	times := map[int32][]uint8{}
	for _, m := range marks {
		times[m.Partition] = make([]uint8, m.To)
	}
	ranges, err := b.client.Ranges(ctx, out)
	if err != nil {
		return a, err
	}
	last, version := map[int32]int64{}, 0
	err = b.client.EachRecord(ctx, out, ranges, func(r stream.Record) error {
		s := struct {
			scored
			Version int `json:"version"`
		}{}
		if err := json.Unmarshal(r.Value, &s); err != nil {
			return err
		}
		n := times[s.Partition]
		if s.Offset < 0 || s.Offset >= int64(len(n)) || s.Partition != r.Partition {
			return fmt.Errorf("%w: a score names partition %d, offset %d, which went not in", errDiffers, s.Partition, s.Offset)
		}
		n[s.Offset]++
		if prev, ok := last[s.Partition]; ok && s.Offset < prev {
			a.reordered++
		}
		last[s.Partition] = s.Offset
		if s.Partition == 0 {
			if version != 0 && s.Version != version {
				a.swaps++
			}
			version = s.Version
		}
		return nil
	})
	for _, n := range times {
		for _, c := range n {
			switch {
			case c == 0:
				a.dropped++
			case c > 1:
				a.doubled++
			}
		}
	}
	return a, err
}

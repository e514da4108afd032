package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/model"
)

// Subjects of the gpu suite that are ours.
const (
	fromHost = "lapwing, rows from host memory"
	onCPU    = "lapwing, engine cpu"
)

// gpuScore scores rows that lie in device memory, as many at once as fill it; next to rows that come from the host and go back as
// scores, to all processors, and to what reading the rows and writing the scores takes at the speed of a copy.
func (r *run) gpuScore(ctx context.Context, torch *torch) error {
	nets, err := plainNets()
	if err != nil {
		return err
	}
	n, err := r.detector(ctx, 18)
	if err != nil {
		return fmt.Errorf("training the default detector on 18 features: %w", err)
	}
	nets = append(nets, n)
	batches := []int{1 << 12, 1 << 16, 1 << 20}
	if r.Smoke {
		batches = batches[:1]
	}
	for _, n := range nets {
		m, err := model.Decode(n.data)
		if err != nil {
			return err
		}
		n.rows = hiddenCauses(n.width, batches[len(batches)-1], 3)
		for _, batch := range batches {
			if err := r.gpuScoreNet(ctx, n, m.Program, batch, torch); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *run) gpuScoreNet(ctx context.Context, n *network, p *kernels.Program, batch int, torch *torch) error {
	g := r.GPU
	c := cell{suite: "gpu", group: "score " + n.name, x: float64(batch), xName: "rows at once", kase: fmt.Sprintf("score %s, %d rows at once", n.name, batch)}
	rows := n.rows[:batch*n.width]
	want, scores := make([]float32, batch), make([]float32, batch)
	processor, err := cpu.New().Scorer(p)
	if err != nil {
		return err
	}
	// All processors share a batch, in parts that stay in their caches.
	all := func(out []float32) error {
		const part = 1024
		threads := runtime.GOMAXPROCS(0)
		faults := make([]error, threads)
		var group sync.WaitGroup
		for t := range threads {
			group.Go(func() {
				for at := t * part; at < batch && faults[t] == nil; at += threads * part {
					end := min(at+part, batch)
					faults[t] = processor.Score(rows[at*n.width:end*n.width], kernels.Output{Score: out[at:end]})
				}
			})
		}
		group.Wait()
		return errors.Join(faults...)
	}
	if err := all(want); err != nil {
		return err
	}
	us := subject{name: Ours}
	resident, err := g.Resident(p, rows)
	if us.absent = err; err == nil {
		defer resident.Close()
		us.once = one("rows/s", func(ctx context.Context) (float64, error) {
			times, err := r.paced(ctx, resident.Score)
			return times * float64(batch), err
		})
		if _, err := resident.Score(1); err != nil {
			us.absent = err
		} else if got, err := resident.Scores(); err != nil {
			us.absent = err
		} else if err := equal(got, want, onCPU); err != nil {
			return fmt.Errorf("%s: %w", c.kase, err)
		}
	}
	host := subject{name: fromHost}
	there, err := g.Engine.Scorer(p)
	if host.absent = err; err == nil {
		out := kernels.Output{Score: scores}
		host.once = one("rows/s", func(ctx context.Context) (float64, error) {
			times, err := r.perSecond(ctx, func() error { return there.Score(rows, out) })
			if err == nil {
				err = equal(scores, want, onCPU)
			}
			return times * float64(batch), err
		})
	}
	subjects := []subject{us, host, {name: onCPU, once: one("rows/s", func(ctx context.Context) (float64, error) {
		times, err := r.perSecond(ctx, func() error { return all(scores) })
		return times * float64(batch), err
	})}}
	more, err := torch.scoreSubjects(ctx, n, p, rows, batch, want)
	if err != nil {
		return fmt.Errorf("%s: %w", c.kase, err)
	}
	subjects = append(subjects, more...)
	subjects = append(subjects, subject{name: copyLimit, role: Limit, once: one("rows/s", func(ctx context.Context) (float64, error) {
		bytes, err := r.copied(ctx)
		return bytes / float64(4*(n.width+1)), err
	})})
	if g.MultiplyAdds > 0 {
		subjects = append(subjects, subject{name: addsLimit, role: Limit, once: one("rows/s", func(context.Context) (float64, error) { return g.MultiplyAdds / work(p), nil })})
	}
	m, err := r.measure(ctx, c, []metric{{name: "rows/s", unit: "1/s"}}, subjects...)
	if err != nil {
		return err
	}
	if batch >= 1<<20 && n.hidden != nil && n.width < 128 { // a wide network is bound by its products, not by memory
		switch {
		case g.is("T4", "L4"):
			r.targetRatio(fmt.Sprintf("score %s from device memory, share of a copy's bandwidth", n.name), .6, m, Ours, copyLimit, "rows/s", false)
		case g.is("H100"):
			r.targetRatio(fmt.Sprintf("score %s from device memory, share of a copy's bandwidth", n.name), .4, m, Ours, copyLimit, "rows/s", false)
		}
	}
	return nil
}

// Limits of rows and samples.
const (
	copyLimit   = "rows read, scores written, at a copy's speed"
	addsLimit   = "multiply-adds, by attributes"
	launchLimit = "a launch a step"
)

// since is a duration of work.
func since(work func() error) (time.Duration, error) {
	began := time.Now()
	err := work()
	return time.Since(began), err
}

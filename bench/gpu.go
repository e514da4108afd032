package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
)

// GPU is a device to measure.
type GPU struct {
	Engine   kernels.Engine // computes on it, whatever the batch
	Name     string         // as its driver has it: some targets are for some devices
	Title    string         // name and properties, for the head of the report
	Number   int            // among those that the driver shows, for peers
	SMs      int            // multiprocessors
	Emulated bool           // on the processor: figures mean nothing

	MultiplyAdds float64 // of float32 a second, by its attributes; 0 = not known
	Bandwidth    float64 // of its memory in bytes a second, by its attributes; 0 = not known

	CopyTime   func(bytes int64, times int) (time.Duration, error)  // of copies within its memory, one after another
	LaunchTime func(times int, waiting bool) (time.Duration, error) // of kernels that do nothing; waiting: each for the one before
	Resident   func(p *kernels.Program, rows []float32) (Resident, error)
}

// Resident is rows in device memory, which are scored there.
type Resident interface {
	Score(times int) (time.Duration, error)
	Scores() ([]float32, error)
	Close() error
}

// errNoGPU says what the suite lacks.
var errNoGPU = errors.New("no GPU is given to measure")

// gpuSuite measures the device that it is given, next to the processors of this machine, PyTorch on the same device, and what
// the device can do at best.
func gpuSuite(ctx context.Context, r *run) error {
	g := r.GPU
	if g == nil {
		return errNoGPU
	}
	r.Machine += "; " + g.Title
	if g.Emulated {
		r.note("gpu: the GPU is emulated on the processor: results were compared, and no figure means anything")
	}
	peer := r.startTorch(ctx, fmt.Sprintf("cuda:%d", g.Number))
	defer peer.close()
	for _, part := range []func(context.Context, *torch) error{r.gpuLimits, r.gpuScore, r.gpuTrain, r.gpuCandidates, r.gpuToLoss} {
		if err := part(ctx, peer); err != nil {
			return err
		}
	}
	peer.close() // its share of the memory goes to what comes
	return r.gpuHistory(ctx)
}

// copyBytes is what a copy within the device moves: more than any cache of it holds.
func (r *run) copyBytes() int64 {
	if r.Smoke {
		return 1 << 20
	}
	return 256 << 20
}

// paced repeats work until it takes about the options' Sample, and says how many times a second it was done.
func (r *run) paced(ctx context.Context, work func(times int) (time.Duration, error)) (float64, error) {
	for times := 1; ; times *= 2 {
		took, err := work(times)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return 0, err
		}
		if took >= r.Sample/2 || r.Smoke || times >= 1<<20 {
			return float64(times) / max(took, time.Nanosecond).Seconds(), nil
		}
	}
}

// copied is how many bytes a second the device reads, and writes as many, when it copies.
func (r *run) copied(ctx context.Context) (float64, error) {
	bytes := r.copyBytes()
	times, err := r.paced(ctx, func(times int) (time.Duration, error) { return r.GPU.CopyTime(bytes, times) })
	return 2 * times * float64(bytes), err
}

// gpuLimits measures what the device can do at best, whatever a kernel does with it.
func (r *run) gpuLimits(ctx context.Context, _ *torch) error {
	g := r.GPU
	said := func(metric string, of float64) []subject {
		if of == 0 {
			r.note("gpu: the driver does not say its %s", metric)
			return nil
		}
		return []subject{{name: "by its attributes", role: Limit, once: one(metric, func(context.Context) (float64, error) { return of, nil })}}
	}
	const bytes, adds = "bytes/s", "multiply-adds/s"
	if _, err := r.measure(ctx, cell{suite: "gpu", kase: fmt.Sprintf("memory of the GPU, copies of %d MB", r.copyBytes()>>20)}, []metric{{name: bytes, unit: "1/s"}},
		append(said(bytes, g.Bandwidth), subject{name: "copy (read and written)", role: Limit, once: one(bytes, r.copied)})...); err != nil {
		return err
	}
	if _, err := r.measure(ctx, cell{suite: "gpu", kase: "multiply-adds of the GPU in float32"}, []metric{{name: adds, unit: "1/s"}}, said(adds, g.MultiplyAdds)...); err != nil {
		return err
	}
	launches := func(name string, waiting bool) subject {
		return subject{name: name, role: Limit, once: one("launch", func(ctx context.Context) (float64, error) {
			times, err := r.paced(ctx, func(times int) (time.Duration, error) { return g.LaunchTime(times, waiting) })
			return 1e6 / times, err
		})}
	}
	_, err := r.measure(ctx, cell{suite: "gpu", kase: "launches of a kernel that does nothing"}, []metric{{name: "launch", unit: "µs", lower: true}},
		launches("one behind another", false), launches("each waited for", true))
	return err
}

// is tells whether the device is one of those that a target names.
func (g *GPU) is(names ...string) bool {
	for _, n := range names {
		for _, word := range strings.FieldsFunc(g.Name, func(c rune) bool { return c == ' ' || c == '-' }) {
			if word == n {
				return true
			}
		}
	}
	return false
}

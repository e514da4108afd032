//go:build unix

package server

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"runtime/pprof"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/model"
)

// BenchmarkProfileCost is what attached profiles cost: processor time of the same decoding and scoring on all cores, with
// them and without in turn, in slices of one second with an upload each. There is no broker in it: from one run to the
// next its processor time differs by more than what is measured. The receiver on loopback parses each upload in this
// process, which counts too.
func BenchmarkProfileCost(b *testing.B) {
	spec := model.Spec{Format: "json"}
	for i := range 18 {
		spec.Fields = append(spec.Fields, model.Field{Name: fmt.Sprintf("sensor_%02d", i), Type: model.Number})
	}
	live, err := loadModel(cpu.New(), testModel(b, spec, 1, 100), modelNeeds{})
	if err != nil {
		b.Fatal(err)
	}
	const batch = 4096
	rng := rand.New(rand.NewPCG(1, 1))
	var values [][]byte
	for range batch {
		value := []byte{'{'}
		for j, f := range spec.Fields {
			if j > 0 {
				value = append(value, ',')
			}
			value = fmt.Appendf(value, "%q:%.4f", f.Name, rng.NormFloat64())
		}
		values = append(values, append(value, '}'))
	}
	// work scores n batches on each core.
	work := func(n int) {
		var wg sync.WaitGroup
		for range runtime.GOMAXPROCS(0) {
			wg.Go(func() {
				pprof.SetGoroutineLabels(profileLabels("score", live))
				d := live.decoder.Clone()
				rows, scores := make([]float32, batch*live.width), make([]float32, batch)
				for range n {
					for i, v := range values {
						d.Decode(v, rows[i*live.width:][:live.width])
					}
					if err := live.scorer.Score(rows, kernels.Output{Score: scores}); err != nil {
						b.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
	r := newReceiver(b)
	const interval = time.Second // 15 times as many uploads as by default
	began := time.Now()
	work(10)
	n := int(10 * interval / time.Since(began))
	var took [2][]float64
	for b.Loop() {
		for _, on := range [][]int{{0, 1}, {1, 0}}[len(took[0])%2] {
			before := processorTime(b)
			stop, err := Profile(slog.New(slog.DiscardHandler), ProfileOptions{URL: []string{"", r.URL}[on], Interval: interval})
			if err != nil {
				b.Fatal(err)
			}
			work(n)
			stop()
			took[on] = append(took[on], (processorTime(b) - before).Seconds())
		}
	}
	for _, t := range took {
		slices.Sort(t)
	}
	middle := len(took[0]) / 2
	b.ReportMetric(100*(took[1][middle]/took[0][middle]-1), "%-of-medians")
	b.ReportMetric(100*(took[1][0]/took[0][0]-1), "%-of-least")
	b.ReportMetric(100*(took[0][middle]/took[0][0]-1), "%-noise") // of the median without profiles over the least
}

// processorTime is what this process has used, in user mode and in the kernel.
func processorTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

package cpu_test

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
)

// TestTrainingAtEveryLevel: steps give the same bytes at each vector level, and nearly those of the portable one, for
// every remainder of a block and of a tile, networks too wide for a whole block, and what only the portable ops can do
// before or beside the trained part.
func TestTrainingAtEveryLevel(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	columns := func(n int) []kernels.Column {
		var all []kernels.Column
		for j := range n {
			c := kernels.Column{Impute: .25, Lo: -2, Hi: 2, Log: j%5 == 4, Before: .5, After: .5, X: []float32{0}, Y: []float32{0}}
			for k := range []int{0, 2, 9, 63}[j%4] {
				c.X, c.Y = append(c.X, float32(k+1)/8), append(c.Y, float32(k+1)/9)
			}
			all = append(all, c)
		}
		return all
	}
	type task struct {
		name string
		p    *kernels.Program
		o    kernels.TrainOptions
	}
	var tasks []task
	add := func(name string, p *kernels.Program, o kernels.TrainOptions) {
		kernels.Initialise(p, 1)
		if o.Prediction == 0 {
			o.Target, o.Prediction, _ = p.Residual()
		}
		o.MaxBatch = 700
		tasks = append(tasks, task{name, p, o})
	}
	for i, layers := range [][]int{{1}, {3}, {5, 2}, {9, 4, 9}, {17, 6}, {14, 7, 14}, {33}} {
		act := kernels.Activations()[i]
		width := 1 + i*i
		add(fmt.Sprintf("%d-%v-%v", width, layers, act), kernels.Autoencoder(columns(width), layers, []kernels.Activation{act, act, act}),
			kernels.TrainOptions{Loss: kernels.Losses()[i%2], Optimizer: kernels.Optimizers()[i/2%2], Delta: .5})
	}
	add("wide", kernels.Autoencoder(columns(600), []int{80, 8}, []kernels.Activation{kernels.LeakyReLU}), kernels.TrainOptions{})

	gemm := func(in kernels.Value, width, out int) *kernels.Gemm {
		return &kernels.Gemm{In: in, Out: out, W: make([]float32, width*out), B: make([]float32, out), Act: kernels.Tanh}
	}
	inverse := kernels.Map{In: 3, Inverse: true}
	for _, c := range columns(6) {
		inverse.Columns = append(inverse.Columns, c.Inverse())
	}
	p := &kernels.Program{Width: 6, Steps: []kernels.Step{
		&kernels.Map{In: kernels.Input, Columns: columns(6)}, // 1
		&kernels.Norm{In: 1},           // 2
		&kernels.Split{In: 1, Norm: 2}, // 3: by the portable ops
		gemm(3, 6, 4),                  // 4
		gemm(4, 4, 6),                  // 5
		&kernels.Diff{A: 3, B: 5},      // 6
		&kernels.Norm{In: 6},           // 7
		&kernels.Split{In: 6, Norm: 7}, // 8
		&inverse,                       // 9
	}, Score: 7, Contributions: 8, Reconstruction: 9}
	add("portable ops before", p, kernels.TrainOptions{Prediction: 5, Target: 3})
	q := p.Clone()
	add("a target that training moves", q, kernels.TrainOptions{Prediction: 5, Target: 8})

	sum := crc32.NewIEEE()
	for _, tt := range tasks {
		t.Run(tt.name, func(t *testing.T) {
			var batches [][]float32
			for _, n := range []int{1, 15, 16, 17, 33, 128, 129, 256, 700} {
				rows := make([]float32, n*tt.p.Width)
				for i := range rows {
					rows[i] = float32(random.NormFloat64())
					if random.IntN(40) == 0 {
						rows[i] = float32(math.NaN())
					}
				}
				batches = append(batches, rows)
			}
			train := func(level string, threads int) ([][]float32, []float64) {
				o := tt.o
				o.Threads = threads
				tr, err := at(t, level).Trainer(tt.p, o)
				if err != nil {
					t.Fatal(err)
				}
				defer tr.Close()
				var losses []float64
				for _, rows := range batches {
					loss, err := tr.Step(rows, 1e-3)
					if err != nil {
						t.Fatal(err)
					}
					losses = append(losses, loss)
				}
				loss, err := tr.Loss(batches[len(batches)-1])
				if err != nil {
					t.Fatal(err)
				}
				return tr.Parameters(), append(losses, loss)
			}
			levels := cpu.Levels()
			wantWeights, wantLosses := train(levels[0], 1)
			switch tt.p.Gemms(tt.o.Prediction)[0].Act {
			case kernels.Linear, kernels.ReLU, kernels.LeakyReLU: // whose sums are ours alone, not an approximation's
				for _, w := range wantWeights {
					if err := binary.Write(sum, binary.LittleEndian, w); err != nil {
						t.Fatal(err)
					}
				}
			}
			for _, l := range levels {
				weights, losses := train(l, 3)
				if l != "portable" || len(levels) == 1 {
					if diff := cmp.Diff(wantLosses, losses); diff != "" {
						t.Errorf("losses at %s: %s", l, diff)
					}
					if diff := cmp.Diff(wantWeights, weights); diff != "" {
						t.Errorf("weights at %s differ from those at %s", l, levels[0])
					}
					continue
				}
				for i, loss := range losses {
					if math.Abs(loss-wantLosses[i]) > 1e-4*loss {
						t.Errorf("loss %d at %s: %v, at %s %v", i, l, loss, levels[0], wantLosses[i])
					}
				}
			}
		})
	}
	// What AVX-512, AVX2 and NEON compute, whichever this machine has.
	if got := sum.Sum32(); cpu.Levels()[0] != "portable" && got != 0x6d654755 {
		t.Errorf("the weights' sum is %#x", got)
	}
}

package compliance

import (
	"fmt"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
)

// BenchmarkScore scores 18-14-7-7-18, the car sensors' net, alone and in batches, then two heads of the default
// detector's shape, and the grouped distance that training trims by. It checks the answers.
func BenchmarkScore(b *testing.B, e kernels.Engine) {
	benchmarkScore(b, e, "", autoencoder(18, []int{14, 7, 7}, kernels.Tanh), 1, 16, 256, 4096)
	benchmarkScore(b, e, "blended/", blended(18, 32, 8, []int{36, 4, 36}, kernels.Tanh), 1, 4096)
	benchmarkScore(b, e, "256x8/", nearest(18, 256, 8), 4096)
}

func benchmarkScore(b *testing.B, e kernels.Engine, prefix string, n *net, counts ...int) {
	s, err := e.Scorer(n.p)
	if err != nil {
		b.Fatal(err)
	}
	o := newOracle(n.p, n.prediction)
	for _, count := range counts {
		rows := n.rows(count)
		scores, contributions := make([]float32, count), make([]float32, len(rows))
		for _, bb := range []struct {
			name string
			out  kernels.Output
		}{
			{"score", kernels.Output{Score: scores}},
			{"contributions", kernels.Output{Score: scores, Contributions: contributions}},
		} {
			b.Run(fmt.Sprintf("%s%s/rows=%d", prefix, bb.name, count), func(b *testing.B) {
				for b.Loop() {
					if err := s.Score(rows, bb.out); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N)*float64(count)/b.Elapsed().Seconds(), "rows/s")
				want := o.values(rows[:n.p.Width])[n.p.Score][0]
				if d := float64(scores[0]) - want; d*d > 1e-8*want*want {
					b.Fatalf("score %v, want %v", scores[0], want)
				}
			})
		}
	}
}

// BenchmarkTrainStep trains 30-14-7-14-30 with batches of 256, and checks the loss after ten steps.
func BenchmarkTrainStep(b *testing.B, e kernels.Engine) {
	n := autoencoder(30, []int{14, 7, 14}, kernels.Tanh)
	rows := n.rows(256)
	for _, threads := range []int{1, 2} {
		b.Run(fmt.Sprintf("threads=%d", threads), func(b *testing.B) {
			t, err := e.Trainer(n.p, kernels.TrainOptions{Prediction: n.prediction, Target: n.target, Threads: threads})
			if err != nil {
				b.Fatal(err)
			}
			defer t.Close()
			for range 10 {
				if _, err := t.Step(rows, 1e-3); err != nil {
					b.Fatal(err)
				}
			}
			p := n.p.Clone()
			if err := p.SetParameters(n.prediction, t.Parameters()); err != nil {
				b.Fatal(err)
			}
			want := newOracle(p, n.prediction).loss(rows, n.prediction, n.target, residualLoss{})
			loss, err := t.Loss(rows)
			if d := loss - want; err != nil || d*d > 1e-8*want*want {
				b.Fatalf("loss %v, want %v (%v)", loss, want, err)
			}
			for b.Loop() {
				if _, err := t.Step(rows, 1e-3); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*256/b.Elapsed().Seconds(), "samples/s")
		})
	}
}

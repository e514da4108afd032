//go:build !cgo || !(amd64 || arm64)

package cpu

import (
	"errors"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
)

func simdLevels() []level { return nil }

// newVectorScorer is never reached: there are no levels but the portable one.
func newVectorScorer(l level, p *kernels.Program) (kernels.Scorer, error) { return newScorer(p) }

// newVectorNetwork gives none: there are no levels but the portable one.
func newVectorNetwork(level, *kernels.Program, kernels.TrainOptions, []trainedGemm, []float32) network {
	return nil
}

// PeakFMA has nothing to measure here.
func PeakFMA(string, time.Duration) (float64, error) {
	return 0, errors.New("engine cpu was built without vector code")
}

package gorgonia_test

import (
	"testing"

	"github.com/lapwing-stream/lapwing/kernels/compliance"
	"github.com/lapwing-stream/lapwing/kernels/gorgonia"
)

func TestCompliance(t *testing.T) { compliance.Run(t, gorgonia.New()) }

func BenchmarkScore(b *testing.B)     { compliance.BenchmarkScore(b, gorgonia.New()) }
func BenchmarkTrainStep(b *testing.B) { compliance.BenchmarkTrainStep(b, gorgonia.New()) }

package gorgonia_test

import (
	"testing"

	"github.com/lapwing-stream/lapwing/kernels/compliance"
	"github.com/lapwing-stream/lapwing/kernels/gorgonia"
)

func TestCompliance(t *testing.T) { compliance.Run(t, gorgonia.New()) }

package cpu_test

import (
	"testing"

	"github.com/lapwing-stream/lapwing/kernels/compliance"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
)

func TestCompliance(t *testing.T) { compliance.Run(t, cpu.New()) }

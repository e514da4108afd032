//go:build !gpu

package main

import (
	"github.com/lapwing-stream/lapwing/bench"
	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/server"
)

func (*app) openGPU(GPUConfig, bool) (kernels.Engine, func(), error) {
	return nil, nil, errNoGPUBuild
}

// visibleGPUs: this build does not look.
func visibleGPUs() []string { return nil }

// gpuFinding: this build knows no more of a GPU than that its driver is loaded.
func gpuFinding(kernels.Engine, error) (server.Finding, bool) { return server.Finding{}, false }

func (*app) benchGPU(GPUConfig) (*bench.GPU, func(), error) {
	return nil, nil, usage("this build has no engine for GPUs", "bench gpu", "take lapwing-gpu, which make gpu builds")
}

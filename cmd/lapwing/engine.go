package main

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/kernels/gorgonia"
)

// bestEngine is the fastest engine on this machine's processor.
func bestEngine() kernels.Engine { return cpu.New() }

// engine is what --engine names, and how to give it back. auto takes a GPU if this build has an engine for it and there
// is one, and says in one line why it does not; a named engine never falls back.
func (a *app) engine(name string, gpu GPUConfig) (kernels.Engine, func(), error) {
	var e kernels.Engine
	release := func() {}
	switch name {
	case "cpu":
		e = bestEngine()
	case "gorgonia":
		e = gorgonia.New()
	case "cuda":
		var err error
		if e, release, err = a.openGPU(gpu, false); err != nil {
			return nil, nil, err
		}
	case "auto":
		var err error
		if e, release, err = a.openGPU(gpu, true); err != nil {
			if !errors.Is(err, errNoGPUBuild) {
				a.log.Warn("the CPU computes: the GPU cannot be used", "reason", err, "next", explain(err).next)
			}
			e, release = bestEngine(), func() {}
		}
	default:
		return nil, nil, usage("there is no engine "+strconv.Quote(name), "", "auto, cpu, gorgonia or cuda")
	}
	a.log.Debug("engine chosen", "engine", e.Name(), "level", e.Level())
	return e, release, nil
}

// errNoGPUBuild is what asking for a GPU comes to in a build that has no engine for one.
var errNoGPUBuild = usage("this build has no engine for GPUs", "--engine cuda", "take lapwing-gpu, which make gpu builds, or --engine auto")

// engineLine says in one line what computes.
func engineLine(e kernels.Engine) string { return fmt.Sprintf("%s/%s", e.Name(), e.Level()) }

// onGPU is the name of the GPU that an engine computes on, "" where it has none.
func onGPU(e kernels.Engine) string {
	if d, ok := e.(kernels.OnDevice); ok {
		s := d.DeviceStatus()
		return s.Name + ", " + s.UUID
	}
	return ""
}

//go:build gpu

package main

import (
	"fmt"
	"strings"

	"github.com/lapwing-stream/lapwing/bench"
	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cuda"
	"github.com/lapwing-stream/lapwing/server"
)

// openGPU takes the GPU of the configuration into use. fallback lets the CPU score what the GPU fails at.
func (a *app) openGPU(c GPUConfig, fallback bool) (kernels.Engine, func(), error) {
	d, err := cuda.Open(cuda.Options{Index: c.Device, Timeout: c.Timeout, Log: a.log})
	if err != nil {
		return nil, nil, err
	}
	e, err := cuda.NewEngine(d, cuda.EngineOptions{Beside: bestEngine(), Fallback: fallback, From: c.BatchFrom, SelfTest: c.SelfTest, Log: a.log})
	release := func() {
		if err := d.Close(); err != nil {
			a.log.Warn("the GPU was not given back in order", "error", err)
		}
	}
	if err != nil {
		release()
		return nil, nil, err
	}
	return e, release, nil
}

// visibleGPUs describes each in one line, or says why there is none.
func visibleGPUs() []string {
	all, err := cuda.Visible()
	if err != nil {
		return []string{"none: " + err.Error()}
	}
	var lines []string
	for i := range all {
		lines = append(lines, gpuLine(&all[i]))
	}
	return lines
}

func gpuLine(i *cuda.Info) string {
	slice := ""
	if i.MIG() {
		slice = ", a MIG slice"
	}
	return fmt.Sprintf("%s%s, %s, %s, %s, driver for CUDA %s, %s", i.Title(), slice, i.UUID, i.Capability(), gibibytes(i.Memory), i.DriverVersion(), i.PTXVersions())
}

// gpuFinding says what the GPU of the configuration is, and from where on it wins; or why it cannot be used: explicitly
// asked for that stands in the way, and under auto the CPU computes.
func gpuFinding(e kernels.Engine, refused error) (server.Finding, bool) {
	f := server.Finding{Area: "gpu", Severity: server.Fine}
	if refused != nil {
		why := explain(refused)
		return server.Finding{Area: "gpu", Severity: server.Failure, What: why.what, Where: why.where, Next: why.next}, true
	}
	g, ok := e.(*cuda.Engine)
	if !ok {
		all, err := cuda.Visible()
		if err != nil {
			why := explain(err)
			f.Severity, f.What, f.Next = server.Note, "the CPU computes: "+err.Error(), why.next
			return f, true
		}
		f.Severity, f.What = server.Note, gpuLine(&all[0])+"; engine "+engineLine(e)+" computes"
		return f, true
	}
	info := g.Device().Info()
	f.What = fmt.Sprintf("%s, %s free", gpuLine(&info), gibibytes(info.Free))
	switch rows, err := g.Crossover(typicalProgram()); {
	case err != nil:
		why := explain(err)
		f.Severity, f.What, f.Next = server.Failure, f.What+"; it does not score: "+err.Error(), why.next
	case rows == 0:
		f.What += "; the CPU scores an 18-14-7-7-18 network faster, whatever the batch"
	default:
		f.What += fmt.Sprintf("; batches of %s records or more of an 18-14-7-7-18 network are scored there, smaller ones faster on the CPU", count(rows))
	}
	return f, true
}

// typicalProgram is the network of the benchmarks.
func typicalProgram() *kernels.Program {
	columns := make([]kernels.Column, 18)
	for i := range columns {
		columns[i] = kernels.Column{Lo: -10, Hi: 10, X: []float32{0}, Y: []float32{0}, Before: 1, After: 1}
	}
	p := kernels.Autoencoder(columns, []int{14, 7, 7}, []kernels.Activation{kernels.Tanh, kernels.Tanh, kernels.Tanh})
	kernels.Initialise(p, 1)
	return p
}

// benchGPU takes the GPU of the configuration into use to be measured: it computes every batch, whatever its size.
func (a *app) benchGPU(c GPUConfig) (*bench.GPU, func(), error) {
	c.BatchFrom = 1
	made, release, err := a.openGPU(c, false)
	if err != nil {
		return nil, nil, err
	}
	e := made.(*cuda.Engine)
	info := e.Device().Info()
	return &bench.GPU{
		Engine: e, Name: info.Name, Title: gpuLine(&info), Number: info.Index, SMs: info.SMs, Emulated: strings.HasPrefix(info.Name, "Emulated"),
		MultiplyAdds: info.MultiplyAdds(), Bandwidth: info.Bandwidth(), CopyTime: e.CopyTime, LaunchTime: e.LaunchTime,
		Resident: func(p *kernels.Program, rows []float32) (bench.Resident, error) {
			r, err := e.Resident(p, rows)
			if err != nil {
				return nil, err // not a Resident that is nil
			}
			return r, nil
		},
	}, release, nil
}

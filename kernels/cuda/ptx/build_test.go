//go:build gpu

package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const toolFolder = "../../../build/cuda"

// TestEmbedded: the PTX that is embedded, and what is said of its registers, are what the sources give; every kernel
// assembles for every architecture and spills nothing. Case 7.01: a compiler that changes any of it is noticed here.
func TestEmbedded(t *testing.T) {
	if err := run([]string{"-check", "-tools", toolFolder, "-folder", ".."}, io.Discard); err != nil {
		t.Error(err)
	}
}

const small = `extern "C" __global__ void small(float *x, int n)
{
	int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
	if (i < n)
		x[i] = fmaf(x[i], x[i], x[i]) / (x[i] * x[i] + 1.0f);
}
`

// TestPlantedInSources: each mistake in a source is refused before anything is written.
func TestPlantedInSources(t *testing.T) {
	for name, c := range map[string]struct{ source, want string }{
		"none":        {small, ""},
		"a spill":     {spilling, "spills spills "},
		"local array": {strings.Replace(small, "if (i < n)", "float a[64];\n\tfor (int k = 0; k < 64; k++)\n\t\ta[k & i] = x[k + i];\n\tx[i] = a[n & 63];\n\tif (i < n)", 1), "small has 256 bytes a thread in local memory"},
		"approximate": {strings.Replace(small, "fmaf(x[i], x[i], x[i])", "__expf(x[i])", 1), "ex2.approx.f32 is an approximation"},
		"a fast sine": {strings.Replace(small, "fmaf(x[i], x[i], x[i])", "__sinf(x[i])", 1), "sin.approx.f32 is an approximation"},
		"atomic sum":  {strings.Replace(small, "if (i < n)", "atomicAdd(x, 1.0f);\n\tif (i < n)", 1), "adds in the order in which threads come"},
		"no CUDA":     {"kernel", "planted.cu does not compile"},
		// Registers of 128 bits came with PTX 8.3 for devices from 7.0 on. The line that says so was lowered: the old ptxas finds it.
		"newer PTX": {strings.Replace(small, "if (i < n)", "asm volatile(\"{ .reg .b128 q; mov.b128 q, {%0, %0}; }\" :: \"l\"(x));\n\tif (i < n)", 1), "ptxas 11.8 refuses planted.ptx for sm_75"},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			if err := os.WriteFile(filepath.Join(folder, "planted.cu"), []byte(c.source), 0o600); err != nil {
				t.Fatal(err)
			}
			err := run([]string{"-tools", toolFolder, "-folder", folder}, io.Discard)
			_, none := os.Stat(filepath.Join(folder, "planted.ptx"))
			if c.want == "" {
				if err != nil || none != nil {
					t.Errorf("a good source: %v, %v", err, none)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; wanted %q", err, c.want)
			}
			if none == nil {
				t.Error("PTX was written")
			}
		})
	}
}

// spilling keeps more sums than 32 registers hold.
const spilling = `extern "C" __global__ void __launch_bounds__(1024, 2) spills(const float *x, float *y)
{
	float s[64];
#pragma unroll
	for (int k = 0; k < 64; k++)
		s[k] = x[k];
#pragma unroll 1
	for (int i = 0; i < 1000; i++)
#pragma unroll
		for (int k = 0; k < 64; k++)
			s[k] = fmaf(s[k], s[(k + 1) & 63], x[i]);
#pragma unroll
	for (int k = 0; k < 64; k++)
		y[k] = s[k];
}
`

// TestPlantedInFolder: what was changed by hand, or left behind, is told.
func TestPlantedInFolder(t *testing.T) {
	folder := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read := func(name string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	check := func() error {
		return run([]string{"-check", "-tools", toolFolder, "-folder", folder}, io.Discard)
	}
	write("small.cu", small)
	if err := check(); err == nil || !strings.Contains(err.Error(), "small.ptx") {
		t.Errorf("no PTX: %v", err)
	}
	if err := run([]string{"-tools", toolFolder, "-folder", folder}, io.Discard); err != nil {
		t.Fatal(err)
	}
	if err := check(); err != nil {
		t.Errorf("just made: %v", err)
	}
	for _, c := range []struct{ name, from, to, want string }{
		{"small.ptx", "fma.rn", "fma.rz", "small.ptx is not what the sources give (line"},
		{"resources.txt", "sm_80", "sm_81", "resources.txt is not what the sources give (line"},
		{"small.cu", "+ 1.0f", "+ 2.0f", "small.ptx is not what the sources give (line"},
	} {
		was := read(c.name)
		write(c.name, strings.Replace(was, c.from, c.to, 1))
		if err := check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s changed: %v; wanted %q", c.name, err, c.want)
		}
		write(c.name, was)
	}
	write("left.ptx", "")
	if err := check(); err == nil || !strings.Contains(err.Error(), "left.ptx has no source") {
		t.Errorf("left behind: %v", err)
	}
}

// TestFusedUnasked: a compiler that fuses by itself is noticed.
func TestFusedUnasked(t *testing.T) {
	found, err := toolsIn(toolFolder)
	if err != nil {
		t.Fatal(err)
	}
	for _, option := range []string{"--fmad=false", "--fmad=true"} {
		marked, err := nvrtc(found.nvrtc, "small.cu", marks+small, []string{"--gpu-architecture=compute_75", option})
		if err != nil {
			t.Fatal(err)
		}
		if err := contracted("small.cu", marked); (err != nil) != (option == "--fmad=true") {
			t.Errorf("%s: %v", option, err)
		}
	}
}

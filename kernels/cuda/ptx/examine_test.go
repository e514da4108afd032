package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const kernelText = `//
.version 7.8
.target sm_75
.address_size 64

.visible .entry kernel(
	.param .u64 kernel_param_0
)
{
	.reg .f32 	%f<5>;
	ld.global.f32 	%f1, [%rd1];
	mul.rn.f32 	%f2, %f1, %f1;
	fma.rn.f32 	%f3, %f2, %f1, %f1;
	div.rn.f32 	%f4, %f3, %f2;
	st.global.f32 	[%rd1], %f4;
	ret;
}
`

// TestExamine plants what must not be in the PTX.
func TestExamine(t *testing.T) {
	if err := examine("kernel.ptx", kernelText); err != nil {
		t.Errorf("PTX without a fault: %v", err)
	}
	for name, c := range map[string]struct{ from, to, want string }{
		"approximate division":  {"div.rn.f32", "div.approx.f32", "line 14, kernel: div.approx.f32 is an approximation"},
		"division of full":      {"div.rn.f32", "div.full.f32", "div.full.f32 is an approximation"},
		"approximate and flush": {"div.rn.f32 	%f4", "@%p1 tanh.approx.ftz.f32 	%f4", "tanh.approx.ftz.f32 is an approximation"},
		"flush to zero":         {"mul.rn.f32", "mul.rn.ftz.f32", "takes small numbers for zero"},
		"free to fuse":          {"mul.rn.f32", "mul.f32", "mul.f32 does not say how it rounds"},
		"free to fuse, double":  {"mul.rn.f32 	%f2, %f1, %f1", "{ add.f64 %d1, %d2, %d3; }", "add.f64 does not say how it rounds"},
		"another rounding":      {"fma.rn.f32", "fma.rz.f32", "fma.rz.f32 does not say"},
		"matrices":              {"fma.rn.f32", "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", "in an order that each architecture has of its own"},
		"atomic sum":            {"st.global.f32 	[%rd1], %f4", "red.global.add.f32 	[%rd1], %f4", "adds in the order in which threads come"},
		"version":               {".version 7.8", ".version 8.0", "is PTX 8.0: drivers from 520 on take no more than 7.8"},
		"no version":            {".version 7.8", "", "has no .version"},
		"target":                {"sm_75", "sm_80", "is not for sm_75"},
		"architecture's own":    {"sm_75", "sm_90a", "is not for sm_75"},
		"no kernel":             {".entry", ".func", "has no kernel"},
	} {
		t.Run(name, func(t *testing.T) {
			planted := strings.Replace(kernelText, c.from, c.to, 1)
			if planted == kernelText {
				t.Fatal("nothing was planted")
			}
			if err := examine("kernel.ptx", planted); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; wanted %q", err, c.want)
			}
		})
	}
}

func TestVersionIsLowered(t *testing.T) {
	for have, want := range map[string]string{".version 9.5": ".version 7.8", ".version 8.0": ".version 7.8", ".version 7.8": ".version 7.8", ".version 7.5": ".version 7.5", ".version 10.0": ".version 7.8"} {
		if got := lowered("//\n" + have + "\n.target sm_75\n"); got != "//\n"+want+"\n.target sm_75\n" {
			t.Errorf("%s gives %q", have, got)
		}
	}
	if got := lowered("\tret;\n\t.pragma \"used_bytes_mask 4095\";\n\t.pragma \"nounroll\";\n"); got != "\tret;\n\t.pragma \"nounroll\";\n" {
		t.Errorf("a mark that ptxas 11.8 warns of gives %q", got)
	}
}

func TestContracted(t *testing.T) {
	if err := contracted("kernel.cu", strings.Replace(kernelText, "fma.rn", "fma.rz", 1)); err != nil {
		t.Error(err)
	}
	if err := contracted("kernel.cu", kernelText); err == nil {
		t.Error("a sum that was fused unasked is not found")
	}
}

// TestFloor_Case7_01: what the embedded PTX asks of a driver and a device is what docs/gpu.md promises. They rise by decision.
func TestFloor_Case7_01(t *testing.T) {
	page, err := os.ReadFile("../../../docs/gpu.md")
	if err != nil {
		t.Fatal(err)
	}
	promised := regexp.MustCompile(`compute capability\s+(\d)\.(\d)\s+or later \([^)]*\) and driver (\d+) or later`).FindStringSubmatch(string(page))
	if promised == nil {
		t.Fatal("docs/gpu.md does not say which devices and drivers are enough")
	}
	if got := "sm_" + promised[1] + promised[2]; got != floorTarget {
		t.Errorf("docs/gpu.md promises %s, PTX is made for %s", got, floorTarget)
	}
	// The driver of a release of CUDA and the PTX it takes: NVIDIA's release notes and the PTX ISA's history.
	takes := map[string][2]int{"520": {7, 8}, "525": {8, 0}, "530": {8, 1}, "535": {8, 2}}
	if takes[promised[3]] != [2]int{floorMajor, floorMinor} {
		t.Errorf("docs/gpu.md promises driver %s, PTX is %d.%d", promised[3], floorMajor, floorMinor)
	}
	embedded := regexp.MustCompile(`//go:embed (\S+\.ptx)`)
	seen := 0
	sources, _ := filepath.Glob("../*.go")
	for _, path := range sources {
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range embedded.FindAllStringSubmatch(string(source), -1) {
			seen++
			ptx, err := os.ReadFile(filepath.Join("..", m[1]))
			if err != nil {
				t.Error(err)
				continue
			}
			if err := examine(m[1], string(ptx)); err != nil {
				t.Error(err)
			}
		}
	}
	if seen == 0 {
		t.Error("no PTX is embedded: the test looks for the wrong thing")
	}
}

func TestResourcesAreRead(t *testing.T) {
	const said = `ptxas info    : 4 bytes gmem, 8 bytes cmem[4]
ptxas info    : Compiling entry function 'wide' for 'sm_100'
ptxas info    : Function properties for wide
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 128 registers, used 1 barriers
ptxas info    : Compile time = 628.596 ms
ptxas info    : Compiling entry function 'small' for 'sm_100'
ptxas info    : Function properties for small
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 32 registers, 1024 bytes smem, 460 bytes cmem[0]
`
	found := parse(said, "13.5")
	want := []resources{{"wide", 100, 128, 0, 0, 0, "13.5"}, {"small", 100, 32, 1024, 20, 16, "13.5"}}
	if len(found) != 2 || found[0] != want[0] || found[1] != want[1] {
		t.Errorf("%+v", found)
	}
	lines := strings.Split(listing(found), "\n")
	if len(lines) != 4 || lines[1] != "small sm_100 32 1024 20 13.5" || lines[2] != "wide sm_100 128 0 0 13.5" {
		t.Errorf("%q", lines)
	}
	if err := spills(found); err == nil || !strings.Contains(err.Error(), "small spills 20 bytes") || strings.Contains(err.Error(), "wide") {
		t.Errorf("%v", err)
	}
	if err := spills([]resources{{kernel: "array", architecture: 75, local: 64}}); err == nil || !strings.Contains(err.Error(), "array has "+strconv.Itoa(64)) {
		t.Errorf("%v", err)
	}
}

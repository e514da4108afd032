package bench

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/cpu"
)

// machine says what was measured on, in a line.
func machine() string {
	parts := []string{cpuModel()}
	if l := simdLevels(); len(l) > 0 {
		parts = append(parts, strings.Join(l, " and "))
	} else {
		parts = append(parts, "none of AVX2, AVX-512 and NEON")
	}
	parts = append(parts, fmt.Sprintf("%d cores", runtime.NumCPU()))
	if n := runtime.GOMAXPROCS(0); n != runtime.NumCPU() {
		parts = append(parts, fmt.Sprintf("%d of them used", n))
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		parts = append(parts, "Linux "+strings.TrimSpace(string(release)))
	}
	return strings.Join(append(parts, runtime.GOOS+"/"+runtime.GOARCH, runtime.Version()), ", ")
}

// simdLevels are those that kernels can use: the same features as kernels/cpu asks for.
func simdLevels() (levels []string) {
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		levels = append(levels, "AVX2+FMA")
	}
	if cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VL && cpu.X86.HasFMA && cpu.X86.HasAVX2 {
		levels = append(levels, "AVX-512")
	}
	if cpu.ARM64.HasASIMD {
		levels = append(levels, "NEON")
	}
	return levels
}

func cpuModel() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for line := range strings.Lines(string(info)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				return strings.Join(strings.Fields(value), " ")
			}
		}
	}
	return "a CPU whose model is not known"
}

// cores words how many there are.
func cores() string {
	if n := runtime.NumCPU(); n > 1 {
		return fmt.Sprintf("%d cores", n)
	}
	return "core"
}

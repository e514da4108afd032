//go:build cgo && (amd64 || arm64)

package cpu

import "golang.org/x/sys/cpu"

// simdLevels asks for what the operating system saves as well: golang.org/x/sys/cpu looks at XCR0.
func simdLevels() (found []level) {
	x := &cpu.X86
	if x.HasAVX512F && x.HasAVX512DQ && x.HasAVX512BW && x.HasAVX512VL && x.HasFMA && x.HasAVX2 {
		found = append(found, avx512Level)
	}
	if x.HasAVX2 && x.HasFMA {
		found = append(found, avx2Level)
	}
	if cpu.ARM64.HasASIMD {
		found = append(found, neonLevel)
	}
	return found
}

package main

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// What the PTX may ask for: driver 520 (CUDA 11.8) and compute capability 7.5, as docs/gpu.md promises.
const (
	floorMajor, floorMinor = 7, 8
	floorTarget            = "sm_75"
)

var unusedBytes = regexp.MustCompile(`(?m)^\s*\.pragma "used_bytes_mask[^\n]*\n`)

var version = regexp.MustCompile(`(?m)^\.version (\d+)\.(\d+)$`)

// lowered marks PTX with the version that the oldest driver takes. A driver refuses PTX newer than itself, and NVRTC marks
// what it makes with its own version, whatever is in it; that nothing newer is in it, ptxas 11.8 is the proof. An older
// NVRTC is no way out: for the same source its kernels need up to twice the registers.
//
// With its version it marks loads of which not all bytes are used, for an assembler that knows them. To others the line means
// nothing, and 11.8 warns of each.
func lowered(ptx string) string {
	ptx = unusedBytes.ReplaceAllString(ptx, "")
	return version.ReplaceAllStringFunc(ptx, func(line string) string {
		if newer(line) {
			return fmt.Sprintf(".version %d.%d", floorMajor, floorMinor)
		}
		return line
	})
}

func newer(line string) bool {
	m := version.FindStringSubmatch(line)
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	return major > floorMajor || major == floorMajor && minor > floorMinor
}

var (
	target      = regexp.MustCompile(`(?m)^\.target (.+)$`)
	instruction = regexp.MustCompile(`^\s*(?:[{}]\s*)*(?:@!?%\w+\s+)?([a-z]\w*(?:\.\w+)*)\b`)
	entry       = regexp.MustCompile(`\.entry (\w+)`)
)

// rounded are the operations that PTX rounds as it likes, or lets ptxas fuse, unless they say how.
var rounded = map[string]bool{"add": true, "sub": true, "mul": true, "fma": true, "mad": true, "div": true, "rcp": true, "sqrt": true}

// examine looks for what would make the bits of a result depend on the device: operations that are not correctly rounded,
// that ptxas may fuse, that take small numbers for zero, or whose order is the scheduler's.
func examine(name, ptx string) error {
	var faults []error
	add := func(format string, args ...any) { faults = append(faults, fmt.Errorf(name+" "+format, args...)) }
	if m := version.FindString(ptx); m == "" {
		add("has no .version")
	} else if newer(m) {
		add("is PTX %s: drivers from 520 on take no more than %d.%d", strings.TrimPrefix(m, ".version "), floorMajor, floorMinor)
	}
	if m := target.FindStringSubmatch(ptx); m == nil || m[1] != floorTarget {
		add("is not for %s: devices of compute capability 7.5 would refuse it", floorTarget)
	}
	if !entry.MatchString(ptx) {
		add("has no kernel")
	}
	seen := map[string]bool{} // the first of each kind and kernel tells enough
	kernel, line := "", 0
	for text := range strings.Lines(ptx) {
		line++
		if m := entry.FindStringSubmatch(text); m != nil {
			kernel = m[1]
		}
		m := instruction.FindStringSubmatch(text)
		if m == nil {
			continue
		}
		if what := inexact(m[1]); what != "" && !seen[kernel+m[1]] {
			seen[kernel+m[1]] = true
			add("line %d, %s: %s %s", line, kernel, m[1], what)
		}
	}
	return errors.Join(faults...)
}

// inexact says what is wrong with an instruction, and nothing where its result has the same bits everywhere.
func inexact(instruction string) string {
	parts := strings.Split(instruction, ".")
	has := func(what string) bool {
		for _, p := range parts[1:] {
			if p == what {
				return true
			}
		}
		return false
	}
	float := has("f32") || has("f64") || has("f16") || has("bf16")
	switch {
	case strings.HasSuffix(parts[0], "mma"):
		return "multiplies matrices in an order that each architecture has of its own"
	case has("approx") || has("full"):
		return "is an approximation, which differs between devices: write it with fmaf and IEEE division"
	case has("ftz"):
		return "takes small numbers for zero"
	case float && (parts[0] == "atom" || parts[0] == "red") && has("add"):
		return "adds in the order in which threads come: sum in a fixed order"
	case float && rounded[parts[0]] && !has("rn"):
		return "does not say how it rounds, so ptxas may fuse it: compile with --fmad=false"
	}
	return ""
}

// marks gives each fused operation of a source another rounding. Where products and sums are fused that the source does not
// fuse, rounding to nearest is left.
const marks = `#define fmaf(a, b, c) __fmaf_rz(a, b, c)
#define __fmaf_rn(a, b, c) __fmaf_rz(a, b, c)
#define fma(a, b, c) __fma_rz(a, b, c)
#define __fma_rn(a, b, c) __fma_rz(a, b, c)
`

func contracted(name, marked string) error {
	n := len(fused.FindAllString(marked, -1))
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%s: %d products and sums are fused that the source does not fuse: compile with --fmad=false, and write fmaf where it is meant", name, n)
}

var fused = regexp.MustCompile(`\b(?:fma|mad)\.rn\.(?:ftz\.)?f(?:32|64)\b`)

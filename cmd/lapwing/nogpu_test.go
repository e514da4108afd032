//go:build !gpu

package main

import (
	"strings"
	"testing"
)

// TestCudaNeedsItsBuild_Case7_03: a GPU that was asked for by name is not replaced by the CPU in a build without it.
func TestCudaNeedsItsBuild_Case7_03(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, args := range [][]string{
		{"train", "--topic", "cars", "--model", "cars", "--engine", "cuda"},
		{"serve", "--topic", "cars", "--model", "cars", "--engine", "cuda"},
		{"score", "x.jsonl", "--model", "cars", "--engine", "cuda"},
		{"bench", "gpu", "--smoke"},
	} {
		_, stderr, code := runIn(t, nil, args...)
		if code != exitUsage || !strings.Contains(stderr, "no engine for GPUs") || !strings.Contains(stderr, "make gpu") {
			t.Errorf("%s: exit %d, %s", args[0], code, stderr)
		}
	}
	_, stderr, code := runIn(t, nil, "doctor", "--engine", "cuda", "--brokers", "127.0.0.1:1", "--http", "none")
	if code != exitFailed || strings.Contains(stderr, "panic") {
		t.Errorf("doctor: exit %d, %s", code, stderr)
	}
}

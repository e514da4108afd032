//go:build gpu

package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels/cuda"
	"github.com/lapwing-stream/lapwing/stream"
)

// fakeGPU tells the emulated driver what to be, and skips where the driver is a real one.
func fakeGPU(t *testing.T, settings string) {
	t.Helper()
	all, err := cuda.Visible()
	if err == nil && !strings.HasPrefix(all[0].Name, "Emulated") {
		t.Skip("SKIPPED-EMULATOR: a real GPU does not fail on demand")
	}
	t.Setenv("CUDA_FAKE", settings)
}

// TestGPU_Case7_03 takes a model from training to scores on the GPU: the very scores of the CPU. An engine by name does not do
// without it; auto does, and says why.
func TestGPU_Case7_03(t *testing.T) {
	fakeGPU(t, "")
	t.Chdir(t.TempDir())
	broker, err := stream.Embed(stream.EmbeddedOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	environ := []string{"LAPWING_KAFKA_BOOTSTRAP_SERVERS=" + broker.Addr(), "LAPWING_GPU_BATCH_FROM=1"}
	do := func(want int, args ...string) (stdout, stderr string) {
		t.Helper()
		stdout, stderr, code := runIn(t, environ, args...)
		if code != want {
			t.Fatalf("%s: exit %d\n%s\n%s", strings.Join(args, " "), code, stdout, stderr)
		}
		return stdout, stderr
	}
	do(0, "generate", "cars", "--rate", "0", "--count", "3000")
	do(0, "train", "--topic", "cars", "--model", "cars", "--engine", "auto")
	scores := func(args ...string) []byte {
		t.Helper()
		do(0, append([]string{"score", "--topic", "cars", "--model", "cars", "--to", "scores.jsonl"}, args...)...)
		text, err := os.ReadFile("scores.jsonl")
		if err != nil {
			t.Fatal(err)
		}
		os.Remove("scores.jsonl")
		return text
	}
	want := scores("--engine", "cpu")
	for _, engine := range []string{"cuda", "auto"} {
		if got := scores("--engine", engine); len(got) == 0 || !bytes.Equal(got, want) {
			t.Errorf("--engine %s gives other scores than the CPU", engine)
		}
	}

	stdout, _ := do(0, "version")
	for _, part := range []string{"gpu       GPU 0 (Emulated", "GPU-", "sm_75", "driver for CUDA 12.", "PTX 7.8 accepted"} {
		if !strings.Contains(stdout, part) {
			t.Errorf("version does not say %q:\n%s", part, stdout)
		}
	}
	// From serve's own settings, so that the crossover is measured.
	environ = environ[:1]
	stdout, _ = do(0, "doctor", "--topic", "cars", "--model", "cars", "--http", "none", "--engine", "cuda")
	for _, part := range []string{"GPU 0 (Emulated", "free", "18-14-7-7-18", "engine cuda/sm_75"} {
		if !strings.Contains(strings.Join(strings.Fields(stdout), " "), part) {
			t.Errorf("doctor does not say %q:\n%s", part, stdout)
		}
	}
	if _, stderr := do(exitFailed, "score", "--topic", "cars", "--model", "cars", "--to", "none.jsonl", "--engine", "cuda", "--gpu", "5"); !strings.Contains(stderr, "1 visible: 0 Emulated") {
		t.Errorf("--gpu 5: %s", stderr)
	}

	t.Setenv("CUDA_FAKE", "driver=11070")
	const old = "CUDA_ERROR_UNSUPPORTED_PTX_VERSION, CUDA error 222"
	if _, stderr := do(exitFailed, "score", "--topic", "cars", "--model", "cars", "--to", "none.jsonl", "--engine", "cuda"); !strings.Contains(stderr, old) || !strings.Contains(stderr, "driver 520") {
		t.Errorf("an old driver, by name: %s", stderr)
	}
	_, stderr := do(0, "score", "--topic", "cars", "--model", "cars", "--to", "auto.jsonl", "--engine", "auto")
	if strings.Count(stderr, "the CPU computes: the GPU cannot be used") != 1 || !strings.Contains(stderr, old) {
		t.Errorf("an old driver, auto: %s", stderr)
	}
	if got, err := os.ReadFile("auto.jsonl"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("auto with an old driver gives other scores than the CPU (%v)", err)
	}
	stdout, stderr = do(exitFailed, "doctor", "--topic", "cars", "--model", "cars", "--http", "none", "--engine", "cuda")
	if !strings.Contains(strings.Join(strings.Fields(stdout), " "), old) {
		t.Errorf("doctor of an old driver: %s%s", stdout, stderr)
	}
}

//go:build gpu

package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/lapwing-stream/lapwing/stream"
)

// TestGPUTrains_Case4_12: the GPU trains by name and under auto, to the same bytes each time; the CPU's model of the same history tells
// the same records apart; each model's self-test passes where the other was made, or it would not be loaded. Training without a GPU, or
// one that is lost in the middle, ends as the engine's name says; what was learned until then is in a checkpoint.
func TestGPUTrains_Case4_12(t *testing.T) {
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
	type score struct {
		Score float64 `json:"score"`
	}
	// train gives what computed, as the report says, and the scores of every record by the model, each from another engine than trained.
	train := func(model, engine, scoring string, more ...string) (took string, scores []float64, stderr string) {
		t.Helper()
		stdout, stderr := do(0, append([]string{"train", "--topic", "cars", "--model", model, "--engine", engine, "--epochs", "3"}, more...)...)
		for line := range strings.Lines(stdout) {
			if strings.HasPrefix(line, "took") {
				took = line
			}
		}
		do(0, "score", "--topic", "cars", "--model", model, "--to", model+".jsonl", "--engine", scoring)
		text, err := os.ReadFile(model + ".jsonl")
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(text) {
			var s score
			if err := json.Unmarshal(line, &s); err != nil {
				t.Fatal(err)
			}
			scores = append(scores, s.Score)
		}
		return took, scores, stderr
	}
	took, gpu, _ := train("named", "cuda", "cpu")
	if !strings.Contains(took, "on cuda/sm_75") {
		t.Errorf("--engine cuda: %s", took)
	}
	fakeGPU(t, "device=h100")
	took, other, _ := train("chosen", "auto", "cpu")
	if !strings.Contains(took, "on cuda/sm_90") {
		t.Errorf("--engine auto: %s", took)
	}
	if len(gpu) == 0 || !slices.Equal(gpu, other) {
		t.Errorf("%d and %d scores: another GPU trains another model", len(gpu), len(other))
	}
	fakeGPU(t, "")
	_, cpu, _ := train("beside", "cpu", "cuda")
	if len(cpu) != len(gpu) {
		t.Fatalf("%d and %d scores", len(cpu), len(gpu))
	}
	// The hundredth with the highest scores is the same but for a tenth of it.
	top := func(scores []float64) map[int]bool {
		order := make([]int, len(scores))
		for i := range order {
			order[i] = i
		}
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(scores[b], scores[a]) })
		highest := map[int]bool{}
		for _, i := range order[:len(order)/100] {
			highest[i] = true
		}
		return highest
	}
	shared, here := 0, top(cpu)
	for i := range top(gpu) {
		if here[i] {
			shared++
		}
	}
	if shared < len(here)*9/10 {
		t.Errorf("%d of the %d records that score highest are the same for the CPU's model and the GPU's", shared, len(here))
	}

	fakeGPU(t, "driver=11070")
	took, plain, stderr := train("fallen", "auto", "cpu")
	if !strings.Contains(took, "on cpu/") || strings.Count(stderr, "the CPU computes: the GPU cannot be used") != 1 || !slices.Equal(plain, cpu) {
		t.Errorf("auto without a GPU that works: %s%s", took, stderr)
	}
	if _, stderr := do(exitFailed, "train", "--topic", "cars", "--model", "none", "--engine", "cuda"); !strings.Contains(stderr, "CUDA error 222") {
		t.Errorf("--engine cuda without a GPU that works: %s", stderr)
	}
	fakeGPU(t, "lost_after=60")
	_, stderr = do(exitFailed, "train", "--topic", "cars", "--model", "lost", "--engine", "cuda", "--epochs", "3")
	for _, part := range []string{"CUDA error 719", "; a checkpoint holds step ", "  next: ", "Xid", "the same command with --resume goes on from there"} {
		if !strings.Contains(stderr, part) {
			t.Errorf("a GPU that is lost in the middle does not say %q: %s", part, stderr)
		}
	}
	fakeGPU(t, "")
	if _, scores, stderr := train("lost", "cuda", "cpu", "--resume"); !slices.Equal(scores, gpu) || !strings.Contains(stderr, "going on from a checkpoint") {
		t.Errorf("gone on with, it is another model: %s", stderr)
	}
}

// TestGPUIsShared_Case7_04: two trainings at once, of which one finds the memory taken (the emulated driver's reserve: each process has a driver
// of its own), come to the bytes that each gives alone. Rows go to the GPU while the topic is read, where there is no room for the history in vain.
func TestGPUIsShared_Case7_04(t *testing.T) {
	fakeGPU(t, "")
	b := newBed(t)
	b.ok("generate cars --rate 0 --count 20000 --topic cars --partitions 2")
	driver := "LD_LIBRARY_PATH=" + os.Getenv("LD_LIBRARY_PATH")
	c := &resuming{t: t, broker: b.broker, topic: "cars", model: "alone", flags: []string{"--engine", "cuda", "--epochs", "2"}, there: []string{driver}}
	var alone struct{ Digest string }
	const early, taken = "rows went to the device while the topic was read", "the history does not fit the device's memory"
	if said := c.must(&alone); !strings.Contains(said, early) {
		t.Errorf("no rows went to the GPU early:\n%s", said)
	}
	var wait sync.WaitGroup
	for _, is := range []struct {
		model, fake string
		holds       bool
	}{{"first", "memory=67108864", true}, {"second", "memory=67108864,reserve=65011712", false}} {
		c := *c
		c.model = is.model
		cmd, out, errs := c.command([]string{driver, "CUDA_FAKE=" + is.fake})
		wait.Go(func() {
			var r struct{ Digest string }
			if err := errors.Join(cmd.Run(), json.Unmarshal(out.Bytes(), &r)); err != nil || r.Digest != alone.Digest {
				t.Errorf("%s: digest %s, alone %s (%v)\n%s", is.model, r.Digest, alone.Digest, err, errs)
			}
			if strings.Contains(errs.String(), taken) == is.holds || !strings.Contains(errs.String(), early) {
				t.Errorf("%s: holds the history: %v\n%s", is.model, !is.holds, errs)
			}
		})
	}
	wait.Wait()
}

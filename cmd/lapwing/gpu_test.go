//go:build gpu

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/kernels/cuda"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
	"github.com/lapwing-stream/lapwing/trainer"
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

// alone is an engine without its way of training several networks in the same launches, and counts the trainers that it makes.
type alone struct {
	kernels.Engine
	made *int
}

func (e alone) Trainer(p *kernels.Program, o kernels.TrainOptions) (kernels.Trainer, error) {
	*e.made++
	return e.Engine.Trainer(p, o)
}

// counting is the engine with it.
type counting struct {
	*cuda.Engine
	cohorts *int
}

func (e counting) Cohort(programs []*kernels.Program, o kernels.TrainOptions) (kernels.Cohort, error) {
	*e.cohorts += len(programs)
	return e.Engine.Cohort(programs, o)
}

func (e counting) Abreast(programs []*kernels.Program, o kernels.TrainOptions) (kernels.Cohort, error) {
	*e.cohorts += len(programs)
	return e.Engine.Abreast(programs, o)
}

// TestGPUCandidates: networks that are trained in the same launches, candidates or those of keys, come out as they do one after another, to
// the byte; networks of several widths as they do on any number of threads.
func TestGPUCandidates(t *testing.T) {
	fakeGPU(t, "")
	t.Chdir(t.TempDir())
	broker, err := stream.Embed(stream.EmbeddedOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	environ := []string{"LAPWING_KAFKA_BOOTSTRAP_SERVERS=" + broker.Addr()}
	do := func(args string) string {
		t.Helper()
		stdout, stderr, code := runIn(t, environ, splitWords(t, args)...)
		if code != 0 {
			t.Fatalf("%s: exit %d\n%s\n%s", args, code, stdout, stderr)
		}
		return stdout
	}
	do("generate cars --rate 0 --count 1200 --cars 2 --topic cars")

	client, err := stream.Connect(t.Context(), stream.Options{Properties: map[string]string{"bootstrap.servers": broker.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	d, err := cuda.Open(cuda.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	e, err := cuda.NewEngine(d, cuda.EngineOptions{Beside: cpu.New(), From: 1})
	if err != nil {
		t.Fatal(err)
	}
	made, cohorts := 0, 0
	var data [2][]byte
	var keys [2]string
	for i, engine := range []kernels.Engine{counting{e, &cohorts}, alone{e, &made}} {
		o := trainer.Defaults()
		o.Topic, o.Model, o.Candidates, o.Epochs, o.BatchSize, o.Threads, o.Alias, o.Exclude = "cars", "m", 5, 3, 64, 2, "none", []string{"time", "car"}
		r, err := trainer.Run(t.Context(), trainer.Deps{Client: client, Registry: registry.Open(client, registry.Options{}), Engine: engine}, o)
		if err != nil {
			t.Fatal(err)
		}
		data[i] = r.Data
		if i == 0 && (cohorts != 5 || made != 0) || i == 1 && (made != 5 || cohorts != 7) {
			t.Errorf("%d networks in cohorts, %d trainers", cohorts, made)
		}
		o.Candidates, o.PerKey, o.Key, o.Exclude, o.Layers = 1, true, "car", []string{"time"}, []int{8, 3, 8}
		if r, err = trainer.Run(t.Context(), trainer.Deps{Client: client, Registry: registry.Open(client, registry.Options{}), Engine: engine}, o); err != nil {
			t.Fatal(err)
		}
		for _, k := range r.Keys {
			keys[i] += k.Name + " " + k.Manifest.Digest + " " + k.Fault + "\n"
		}
		if len(r.Keys) != 2 || i == 0 && (cohorts != 7 || made != 0) || i == 1 && (made != 7 || cohorts != 7) {
			t.Errorf("%d keys; %d networks in cohorts, %d trainers", len(r.Keys), cohorts, made)
		}
	}
	if !bytes.Equal(data[0], data[1]) {
		t.Error("in the same launches: another model than one after another")
	}
	if keys[0] != keys[1] || strings.Contains(keys[0], "  ") {
		t.Errorf("keys in the same launches:\n%sone after another:\n%s", keys[0], keys[1])
	}

	digest := func(args string) string {
		t.Helper()
		var r struct {
			Engine, Digest string
			Keys           []struct{ Digest string }
		}
		if err := json.Unmarshal([]byte(do("train --topic cars --model cars --key car --time time --epochs 2 --alias none --json --engine cuda "+args)), &r); err != nil {
			t.Fatal(err)
		}
		all := r.Digest
		for _, k := range r.Keys {
			all += " " + k.Digest
		}
		if !strings.HasPrefix(r.Engine, "cuda/") || len(all) < 64 {
			t.Errorf("%s: engine %s, digests %q", args, r.Engine, all)
		}
		return all
	}
	for _, args := range []string{"--candidates 3 --vary width", "--candidates 3 --vary rate", "--per-key"} {
		if one, more := digest(args+" --threads 1"), digest(args+" --threads 3"); one != more {
			t.Errorf("%s: threads change the bytes: %s, %s", args, one, more)
		}
	}
}

// A training that is broken off on one GPU goes on on another kind, with the bytes that an unbroken run gives there. The CPU refuses to go
// on from it, as its sums are others.
func TestGPUTrainResumes(t *testing.T) {
	fakeGPU(t, "")
	b := newBed(t)
	b.ok("generate cars --rate 0 --count 2000 --topic cars")
	driver := "LD_LIBRARY_PATH=" + os.Getenv("LD_LIBRARY_PATH")
	c := &resuming{
		broker: b.broker, topic: "cars", model: "cars", flags: []string{"--engine", "cuda", "--epochs", "60"},
		here: []string{driver, "CUDA_FAKE=device=t4"}, there: []string{driver, "CUDA_FAKE=device=h100"},
	}
	trainResumes(t, c, syscall.SIGKILL)
	c.model = "elsewhere"
	c.end(syscall.SIGTERM)
	c.flags = []string{"--engine", "cpu", "--epochs", "60"}
	cmd, _, errs := c.command(c.there, "--resume")
	if cmd.Run(); cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(errs.String(), `engine is "cpu", was "cuda"`) {
		t.Errorf("on the CPU: %s", errs)
	}
}

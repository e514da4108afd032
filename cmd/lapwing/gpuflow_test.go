//go:build e2e && gpu

package main

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lapwing-stream/lapwing/kernels/cuda"
)

// gpuFlow is a flow whose programs are the gpu build's, on the emulated driver, which is what settings say. Every batch is scored
// there, none on the CPU. Training is one epoch: no test here asks how good a model is, and an emulated GPU is slow.
func gpuFlow(t *testing.T, engine, settings string) *flow {
	t.Helper()
	if all, err := cuda.Visible(); err != nil || !strings.HasPrefix(all[0].Name, "Emulated") {
		t.Skip("SKIPPED-EMULATOR: no emulated driver in LD_LIBRARY_PATH: make test-gpu-emulated has one")
	}
	f := embedded(t)
	f.onGPU(engine, settings)
	return f
}

func (f *flow) onGPU(engine, settings string) {
	f.environ = []string{"LD_LIBRARY_PATH=" + os.Getenv("LD_LIBRARY_PATH"), "CUDA_FAKE=" + settings, "LAPWING_SCORE_ENGINE=" + engine, "LAPWING_TRAIN_ENGINE=" + engine, "LAPWING_GPU_BATCH_FROM=1", "LAPWING_SCORE_MAX_BATCH=256", "LAPWING_TRAIN_EPOCHS=1"}
}

// TestGPULifeOfAModel trains, scores, swaps, restarts and rolls back on the GPU while records flow. By name: auto would pass on the CPU.
func TestGPULifeOfAModel(t *testing.T) { lifeOfAModel(t, gpuFlow(t, "cuda", "")) }

// TestGPULost_Case7_06: the device goes while records are scored. By name serve ends with status 1, and the next one goes on
// where it was; auto goes on by itself. Either way each record has one score.
func TestGPULost_Case7_06(t *testing.T) {
	for _, engine := range []string{"cuda", "auto"} {
		t.Run(engine, func(t *testing.T) {
			f := gpuFlow(t, "auto", "")
			d := generatedMess(t)
			f.load(d, "lost")
			f.run(nil, "train", "--topic", "lost", "--model", "lost", "--key", d.key, "--time", d.time)
			f.onGPU(engine, "lost_after=6")
			s := f.serve("--topic", "lost", "--model", "lost", "--delivery", "exactly_once")
			if engine == "cuda" {
				select {
				case err := <-s.ended:
					if s.cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(s.err.String(), "CUDA_ERROR_LAUNCH_FAILED") || !strings.Contains(s.err.String(), "Xid") {
						t.Fatalf("serve ended with %v\n%s", err, s.err.String())
					}
				case <-time.After(time.Minute):
					t.Fatalf("serve goes on\n%s", s.err.String())
				}
				f.onGPU(engine, "")
				s = f.serve("--topic", "lost", "--model", "lost", "--delivery", "exactly_once")
			}
			f.await("lost", len(d.rows))
			s.stop()
			if a := f.audit("lost", "lost"); len(a.scores) != len(d.rows) {
				t.Errorf("%d records, %d scores", len(d.rows), len(a.scores))
			}
			if engine == "auto" && strings.Count(s.err.String(), "the CPU scores in its place") != 1 {
				t.Errorf("auto with a lost device:\n%s", s.err.String())
			}
		})
	}
}

// TestGPUMemoryIsTaken_Case7_04: another process takes what memory is left. By name records wait until there is some, which is
// noticed; under auto the CPU scores them.
func TestGPUMemoryIsTaken_Case7_04(t *testing.T) {
	const taken = "memory=16777216,reserve=16777216,reserve_after=1" // the model is there, and then there is no room for rows
	for _, engine := range []string{"cuda", "auto"} {
		t.Run(engine, func(t *testing.T) {
			f := gpuFlow(t, "auto", "")
			d := generatedMess(t)
			f.load(d, "taken")
			f.run(nil, "train", "--topic", "taken", "--model", "taken", "--key", d.key, "--time", d.time)
			f.onGPU(engine, taken)
			if engine == "cuda" {
				cmd := f.command("serve", "--topic", "taken", "--model", "taken")
				log, err := cmd.StderrPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				lines, told := bufio.NewScanner(log), false
				for lines.Scan() {
					if strings.Contains(lines.Text(), "CUDA_ERROR_OUT_OF_MEMORY") && !told {
						told = true
						cmd.Process.Signal(syscall.SIGTERM)
					}
				}
				if err := cmd.Wait(); err != nil || !told {
					t.Errorf("serve without memory ended with %v; it said why: %v", err, told)
				}
				if n := len(f.all("taken.scores")); n != 0 {
					t.Errorf("%d partitions have scores of a GPU without memory", n)
				}
				// The next one waits, and goes on as soon as the other gives its memory back.
				other := filepath.Join(t.TempDir(), "other")
				if err := os.WriteFile(other, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				f.onGPU(engine, "memory=16777216,reserve=16777216,reserve_while="+other)
				const waits = "the GPU has no memory for the model, which is tried again until there is some; records wait"
				cmd = f.command("serve", "--topic", "taken", "--model", "taken")
				if log, err = cmd.StderrPipe(); err != nil {
					t.Fatal(err)
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				said := make(chan int, 1)
				go func() {
					n := 0
					for lines := bufio.NewScanner(log); lines.Scan(); {
						if strings.Contains(lines.Text(), waits) {
							n++
							os.Remove(other)
						}
					}
					said <- n
				}()
				f.await("taken", len(d.rows))
				cmd.Process.Signal(syscall.SIGTERM)
				n := <-said
				if err := cmd.Wait(); err != nil || n != 1 {
					t.Errorf("serve that had to wait for memory ended with %v, and said so %d times", err, n)
				}
				if a := f.audit("taken", "taken"); len(a.scores) != len(d.rows) {
					t.Errorf("%d records, %d scores", len(d.rows), len(a.scores))
				}
				return
			}
			s := f.serve("--topic", "taken", "--model", "taken")
			f.await("taken", len(d.rows))
			s.stop()
			if a := f.audit("taken", "taken"); len(a.scores) != len(d.rows) {
				t.Errorf("%d records, %d scores", len(d.rows), len(a.scores))
			}
			if strings.Count(s.err.String(), "the CPU scores in its place") != 1 {
				t.Errorf("auto without memory:\n%s", s.err.String())
			}
		})
	}
}

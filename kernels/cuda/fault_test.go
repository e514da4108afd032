//go:build gpu

package cuda

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
)

// fakeVariable is what the emulated driver is told by. It is read at each call.
const fakeVariable = "CUDA_FAKE"

// fake sets up the emulated driver, and skips where the driver is a real one: that does not fail on demand.
func fake(t *testing.T, settings string) {
	t.Helper()
	all, err := Visible()
	if err == nil && !strings.HasPrefix(all[0].Name, "Emulated") {
		t.Skip("SKIPPED-EMULATOR: a real GPU does not fail on demand")
	}
	t.Setenv(fakeVariable, settings)
}

// detector is a blended program, which has every kind of step.
func detector(t testing.TB) *kernels.Program {
	t.Helper()
	var columns []kernels.Column
	for range 18 {
		columns = append(columns, kernels.Column{Lo: -8, Hi: 8, X: []float32{-1, 1}, Y: []float32{-2, 2}, Before: 1, After: 1})
	}
	p := kernels.Autoencoder(columns, []int{14, 7, 7}, []kernels.Activation{kernels.Tanh, kernels.Tanh, kernels.Tanh})
	kernels.Initialise(p, 3)
	prototypes := make([]float32, 2*5*18)
	for i := range prototypes {
		prototypes[i] = float32(i%7) / 3
	}
	return kernels.Blended(p, 2, prototypes, 0.5, 0.5)
}

func rowsOf(p *kernels.Program, n int) []float32 {
	rows := make([]float32, n*p.Width)
	for i := range rows {
		rows[i] = float32(i*7919%1000)/250 - 2
	}
	return rows
}

// unwritten are results that no row has.
func unwritten(n int) []float32 {
	out := make([]float32, n)
	for i := range out {
		out[i] = -1
	}
	return out
}

// sameScores holds a scorer to the processor's scores, to the bit.
func sameScores(t *testing.T, s kernels.Scorer, p *kernels.Program, n int) {
	t.Helper()
	beside, err := cpu.New().Scorer(p)
	if err != nil {
		t.Fatal(err)
	}
	rows, got, want := rowsOf(p, n), unwritten(n), make([]float32, n)
	if err := errors.Join(s.Score(rows, kernels.Output{Score: got}), beside.Score(rows, kernels.Output{Score: want})); err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Fatalf("row %d of %d scores %v, want %v", i, n, got[i], want[i])
		}
	}
}

func newEngine(t testing.TB, d *Device, o EngineOptions) *Engine {
	t.Helper()
	o.Beside = cpu.New()
	e, err := NewEngine(d, o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func newScorer(t testing.TB, e *Engine, p *kernels.Program) *scorer {
	t.Helper()
	s, err := e.Scorer(p)
	if err != nil {
		t.Fatal(err)
	}
	return s.(*scorer)
}

// TestErrorsSayWhatToDo_Case7_02: name and number, the operation, the device and a hint.
func TestErrorsSayWhatToDo_Case7_02(t *testing.T) {
	score := func(t *testing.T, o Options) error {
		d, err := Open(o)
		if err != nil {
			return err
		}
		defer d.Close()
		e, err := NewEngine(d, EngineOptions{Beside: cpu.New(), From: 1})
		if err != nil {
			return err
		}
		p := detector(t)
		s, err := e.Scorer(p)
		if err != nil {
			return err
		}
		return s.Score(rowsOf(p, 100), kernels.Output{Score: make([]float32, 100)})
	}
	for _, tt := range []struct {
		name, settings string
		index          int
		want           []string
		hint           string
	}{
		{"no device", "devices=0", 0, []string{"cannot use a GPU", "CUDA_ERROR_NO_DEVICE", "100"}, "nvidia-smi"},
		{"no such device", "devices=1", 3, []string{"cannot use GPU 3", "CUDA_ERROR_INVALID_DEVICE", "101", "1 visible: 0 Emulated"}, "doctor"},
		{"old driver", "driver=11070", 0, []string{"cannot compile the kernels of score on GPU 0 (Emulated", "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "222", "the kernels are PTX 7.8, the driver (CUDA 11.7) takes 7.7 at most"}, "driver 520"},
		{"old device", "cc=70", 0, []string{"cannot compile the kernels of score on GPU 0 (Emulated", "CUDA_ERROR_NO_BINARY_FOR_GPU", "209"}, "7.5"},
		{"no memory", "memory=4096", 0, []string{"cannot allocate", "on GPU 0 (Emulated", "CUDA_ERROR_OUT_OF_MEMORY", "2"}, "memory"},
		{"launch failure", "lost_after=0", 0, []string{"on GPU 0 (Emulated", "CUDA_ERROR_LAUNCH_FAILED", "719"}, "Xid"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fake(t, tt.settings)
			err := score(t, Options{Index: tt.index})
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("the error is %v", err)
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
			if !strings.Contains(e.Hint(), tt.hint) {
				t.Errorf("the hint %q does not speak of %q", e.Hint(), tt.hint)
			}
			if strings.Contains(err.Error(), "goroutine") || strings.Contains(err.Error(), "\n") {
				t.Errorf("more than a line: %q", err)
			}
		})
	}
}

// again runs one test of this binary in a process of its own, where a driver may hang or be missing.
func again(t *testing.T, name string, environment ...string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run", "^"+name+"$", "-test.v")
	cmd.Env = append(cmd.Environ(), environment...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// TestNoDriver_Case7_02: a machine without one is told so.
func TestNoDriver_Case7_02(t *testing.T) {
	if os.Getenv("LD_LIBRARY_PATH") != "/nowhere" {
		fake(t, "")
		again(t, t.Name(), "LD_LIBRARY_PATH=/nowhere")
		return
	}
	_, err := Open(Options{})
	var e *Error
	if !errors.As(err, &e) || !strings.Contains(err.Error(), "libcuda.so.1: cannot open shared object file") || e.Hint() == "" {
		t.Errorf("without a driver: %v", err)
	}
}

// TestNoMemory_Case7_03: an engine that was asked for by name never goes on without the GPU; auto does, and counts it.
func TestNoMemory_Case7_03(t *testing.T) {
	fake(t, "memory=65536,reserve=61440")
	p := detector(t)
	d := open(t, Options{})
	if _, err := newEngine(t, d, EngineOptions{From: 1}).Scorer(p); !errors.Is(err, kernels.ErrOutOfMemory) {
		t.Errorf("by name: %v", err)
	}
	if err := d.do(context.Background(), func(s *session) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if held := d.held.Load(); held != 0 {
		t.Errorf("%d bytes are held by a program that could not be placed", held)
	}
	var log bytes.Buffer
	e := newEngine(t, d, EngineOptions{From: 1, Fallback: true, SelfTest: time.Nanosecond, Log: slog.New(slog.NewTextHandler(&log, nil))})
	s := newScorer(t, e, p)
	sameScores(t, s, p, 100)
	if s := e.DeviceStatus(); s.Fallbacks != 1 || s.Beside != 100 || s.OnDevice != 0 || s.Lost != "" {
		t.Errorf("the status is %+v", s)
	}
	t.Setenv(fakeVariable, "memory=1048576")
	sameScores(t, s, p, 100)
	if s := e.DeviceStatus(); s.Fallbacks != 1 || s.Beside != 100 || s.OnDevice != 100 {
		t.Errorf("with memory again the status is %+v", s)
	}
	if strings.Count(log.String(), scoresInstead) != 1 || strings.Count(log.String(), "has memory for the model now") != 1 {
		t.Errorf("the log has not one line for each change:\n%s", log.String())
	}
}

// TestNoMemoryForCandidates_Case7_03: the same where several networks are trained at once; the processor's networks then come out.
func TestNoMemoryForCandidates_Case7_03(t *testing.T) {
	p, o, values := sensors(64, 12, 6, 3, 6, 12)
	o.MaxBatch = 64
	programs := []*kernels.Program{p, p.Clone(), p.Clone()}
	for k, q := range programs {
		kernels.Initialise(q, uint64(k))
	}
	fake(t, "memory=65536,reserve=61440")
	d := open(t, Options{})
	if _, err := kernels.NewCohort(newEngine(t, d, EngineOptions{From: 1}), programs, o); !errors.Is(err, kernels.ErrOutOfMemory) {
		t.Errorf("by name: %v", err)
	}
	var log bytes.Buffer
	e := newEngine(t, d, EngineOptions{From: 1, Fallback: true, Log: slog.New(slog.NewTextHandler(&log, nil))})
	var after [2][][]float32
	for i, e := range []kernels.Engine{e, cpu.New()} {
		c, err := kernels.NewCohort(e, programs, o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Steps(values, 64, [][]float32{{.01}, nil, {.02}}); err != nil {
			t.Fatal(err)
		}
		for k := range programs {
			after[i] = append(after[i], c.Parameters(k)...)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if !sameFloats(after[0], after[1]) {
		t.Error("without memory: other networks than the processor's")
	}
	if s := e.DeviceStatus(); s.Fallbacks != 1 || s.Lost != "" {
		t.Errorf("the status is %+v", s)
	}
	// What it says is what the processor does; of scores it speaks when it scores.
	if strings.Count(log.String(), trainsInstead) != 1 || strings.Contains(log.String(), scoresInstead) {
		t.Errorf("it says\n%s", &log)
	}
	newScorer(t, e, p)
	if strings.Count(log.String(), scoresInstead) != 1 {
		t.Errorf("it says\n%s", &log)
	}
}

// TestMemoryIsTaken_Case7_04: while another process holds the memory a batch fails, with no results that could be taken for
// some, and the next one is scored; or the processor scores it.
func TestMemoryIsTaken_Case7_04(t *testing.T) {
	const all = "memory=268435456"
	fake(t, all)
	p := detector(t)
	d := open(t, Options{})
	byName, auto := newEngine(t, d, EngineOptions{From: 1}), newEngine(t, d, EngineOptions{From: 1, Fallback: true})
	s, either := newScorer(t, byName, p), newScorer(t, auto, p)
	const n = 50_000
	t.Setenv(fakeVariable, all+",reserve=268430000")
	rows, out := rowsOf(p, n), unwritten(n)
	if err := s.Score(rows, kernels.Output{Score: out}); !errors.Is(err, kernels.ErrOutOfMemory) || errors.Is(err, ErrLost) {
		t.Fatalf("by name: %v", err)
	}
	if byName.DeviceStatus().OnDevice != 0 {
		t.Error("a batch that failed is counted as scored")
	}
	sameScores(t, either, p, n)
	if s := auto.DeviceStatus(); s.Fallbacks != 1 || s.Beside != n {
		t.Errorf("the status is %+v", s)
	}
	t.Setenv(fakeVariable, all)
	sameScores(t, s, p, n)
	sameScores(t, either, p, n)
	if s := auto.DeviceStatus(); s.Fallbacks != 1 || s.OnDevice != n {
		t.Errorf("with memory again the status is %+v", s)
	}
}

// TestBatchOutgrowsBuffers_Case7_05: buffers grow once; with less memory the batch is cut, which is counted.
func TestBatchOutgrowsBuffers_Case7_05(t *testing.T) {
	fake(t, "memory=268435456")
	p := detector(t)
	d := open(t, Options{})
	e := newEngine(t, d, EngineOptions{From: 1})
	s := newScorer(t, e, p)
	held := func() (bytes int64) {
		if err := d.do(context.Background(), func(s *session) error {
			for b := range s.buffers {
				bytes += b.size
			}
			for p := range s.pins {
				bytes += int64(len(p.bytes))
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return bytes
	}
	for _, n := range []int{10, 1, 300_000, 299_999, 17} {
		sameScores(t, s, p, n)
	}
	before := held()
	sameScores(t, s, p, 300_000)
	if after := held(); after != before {
		t.Errorf("%d bytes, then %d for the same batch", before, after)
	}
	if n := e.DeviceStatus().Splits; n != 0 {
		t.Errorf("%d splits with memory enough", n)
	}
}

// TestBatchIsCut_Case7_05: with too little memory for it a batch is scored in pieces, which is counted.
func TestBatchIsCut_Case7_05(t *testing.T) {
	fake(t, "memory=2097152")
	p := detector(t)
	e := newEngine(t, open(t, Options{}), EngineOptions{From: 1})
	sameScores(t, newScorer(t, e, p), p, 60_000)
	if e.DeviceStatus().Splits == 0 {
		t.Error("no split was counted")
	}
}

// TestDeviceIsLost_Case7_06: after one such error the device is lost for good, and asked for nothing more.
func TestDeviceIsLost_Case7_06(t *testing.T) {
	fake(t, "")
	p := detector(t)
	d := open(t, Options{})
	byName, auto := newEngine(t, d, EngineOptions{From: 1}), newEngine(t, d, EngineOptions{From: 1, Fallback: true})
	s, either := newScorer(t, byName, p), newScorer(t, auto, p)
	sameScores(t, s, p, 100)
	t.Setenv(fakeVariable, "lost_after=0")
	out := unwritten(100)
	err := s.Score(rowsOf(p, 100), kernels.Output{Score: out})
	if !errors.Is(err, ErrLost) {
		t.Fatalf("a launch that failed: %v", err)
	}
	for i, x := range out {
		if x != -1 {
			t.Fatalf("row %d of a batch that failed has the score %v", i, x)
		}
	}
	t.Setenv(fakeVariable, "")
	if again := s.Score(rowsOf(p, 100), kernels.Output{Score: out}); !errors.Is(again, ErrLost) || again.Error() != err.Error() {
		t.Errorf("later: %v, at first %v", again, err)
	}
	if _, err := byName.Scorer(p); !errors.Is(err, ErrLost) {
		t.Errorf("a scorer for a lost device: %v", err)
	}
	sameScores(t, either, p, 100)
	if status := auto.DeviceStatus(); status.Lost != err.Error() || status.Fallbacks != 1 {
		t.Errorf("the status is %+v", status)
	}
}

// TestDeviceHangs_Case7_06: a call that does not return is noticed, its caller's memory is left alone from then on, and the
// others are not kept waiting.
func TestDeviceHangs_Case7_06(t *testing.T) {
	const inner = "CUDA_TEST_HANG"
	if os.Getenv(inner) == "" {
		fake(t, "")
		again(t, t.Name(), inner+"=1", fakeVariable+"=")
		return
	}
	p := detector(t)
	d, err := Open(Options{Timeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	s, either := newScorer(t, newEngine(t, d, EngineOptions{From: 1}), p), newScorer(t, newEngine(t, d, EngineOptions{From: 1, Fallback: true}), p)
	t.Setenv(fakeVariable, "hang_after=0")
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			out := unwritten(100)
			if err := s.Score(rowsOf(p, 100), kernels.Output{Score: out}); !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), "has not returned") {
				t.Errorf("a call that hangs: %v", err)
			}
		})
	}
	wait.Wait()
	sameScores(t, either, p, 100)
	if err := d.Close(); err == nil {
		t.Error("a device that hangs closes")
	}
}

// TestWrongNumbers_Case7_07: a bit of the weights changes in device memory. The self-test finds it, the model is loaded anew;
// the second time the device is given up.
func TestWrongNumbers_Case7_07(t *testing.T) {
	p := detector(t)
	for _, fallback := range []bool{false, true} {
		d := open(t, Options{})
		e := newEngine(t, d, EngineOptions{From: 1, SelfTest: time.Nanosecond, Fallback: fallback})
		s := newScorer(t, e, p)
		flip := func() {
			t.Helper()
			// The first weight of the first gemm, behind its eight biases.
			at := s.code.starts[1] + 8
			if err := d.do(context.Background(), func(d *session) error {
				return upload(d, &s.there.constants, at, []float32{math.Float32frombits(math.Float32bits(s.code.constants[at]) ^ 1<<20)})
			}); err != nil {
				t.Fatal(err)
			}
		}
		sameScores(t, s, p, 100)
		flip()
		sameScores(t, s, p, 100)
		if status := e.DeviceStatus(); status.Corrected != 1 || status.Lost != "" {
			t.Errorf("after one bit the status is %+v", status)
		}
		flip()
		if fallback {
			sameScores(t, s, p, 100)
		} else if err := s.Score(rowsOf(p, 100), kernels.Output{Score: make([]float32, 100)}); !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), "self-test") {
			t.Errorf("after another bit: %v", err)
		}
		if status := e.DeviceStatus(); status.Lost == "" {
			t.Errorf("after another bit the status is %+v", status)
		}
	}
}

// TestManyGoroutines_Case7_08: they move between threads, the device's context does not.
func TestManyGoroutines_Case7_08(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(16))
	p := detector(t)
	s := newScorer(t, newEngine(t, open(t, Options{}), EngineOptions{From: 1, SelfTest: time.Millisecond}), p)
	const n = 20
	rows, want := rowsOf(p, n), make([]float32, n)
	if err := s.Score(rows, kernels.Output{Score: want}); err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for range 1000 {
		wait.Go(func() {
			for range 3 {
				got := unwritten(n)
				runtime.Gosched()
				if err := s.Score(rows, kernels.Output{Score: got}); err != nil {
					t.Error(err)
					return
				}
				runtime.Gosched()
				for i := range got {
					if got[i] != want[i] {
						t.Errorf("row %d scores %v, alone %v", i, got[i], want[i])
						return
					}
				}
			}
		})
	}
	wait.Wait()
}

// TestCancelledWait_Case7_08: what waits for the device can be told not to; what has begun is done.
func TestCancelledWait_Case7_08(t *testing.T) {
	d := open(t, Options{Queue: 1})
	begun, release := make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	go func() {
		first <- d.do(context.Background(), func(*session) error { close(begun); <-release; return nil })
	}()
	<-begun
	ctx, cancel := context.WithCancel(context.Background())
	second := make(chan error, 1)
	go func() {
		second <- d.do(ctx, func(*session) error { t.Error("a request that was withdrawn is done"); return nil })
	}()
	cancel()
	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Errorf("a wait that was cancelled: %v", err)
	}
	close(release)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if err := d.do(context.Background(), func(*session) error { return nil }); err != nil {
		t.Error(err)
	}
}

// TestCrossover_Case7_11: small batches are the processor's, also under cuda; the results do not tell.
func TestCrossover_Case7_11(t *testing.T) {
	p := detector(t)
	e := newEngine(t, open(t, Options{}), EngineOptions{From: 64})
	s := newScorer(t, e, p)
	for _, n := range []int{1, 63, 64, 200} {
		sameScores(t, s, p, n)
	}
	if status := e.DeviceStatus(); status.Beside != 64 || status.OnDevice != 264 {
		t.Errorf("the status is %+v", status)
	}
	measured := newEngine(t, e.d, EngineOptions{})
	from := newScorer(t, measured, p).from.Load()
	if from < 1 {
		t.Errorf("measured: from %d rows on", from)
	}
	if rows, err := measured.Crossover(p); err != nil || rows < 0 {
		t.Errorf("crossover %d, %v", rows, err)
	}
}

// TestPTXFloor_Case7_01: kernels that ask for more than the oldest supported driver and device have are a decision, not an
// accident.
func TestPTXFloor_Case7_01(t *testing.T) {
	if v := ptxVersion(scorePTX); v != 78 {
		t.Errorf("score is PTX %d.%d; drivers from 520 on take 7.8", v/10, v%10)
	}
	if !strings.Contains(scorePTX, "\n.target sm_75\n") {
		t.Error("score is not for compute capability 7.5")
	}
}

// TestScorersGoTheirMemoryToo: a model that was replaced gives its memory back.
func TestScorersGoTheirMemoryToo(t *testing.T) {
	d := open(t, Options{})
	e := newEngine(t, d, EngineOptions{From: 1})
	p := detector(t)
	newScorer(t, e, p)
	held := func() (n int) {
		if err := d.do(context.Background(), func(s *session) error { n = len(s.buffers); return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := held()
	for range 20 {
		newScorer(t, e, p)
	}
	for deadline := time.Now().Add(10 * time.Second); held() > before; runtime.Gosched() {
		runtime.GC()
		if time.Now().After(deadline) {
			t.Fatalf("%d buffers are held, %d before", held(), before)
		}
	}
}

//go:build gpu

package main

import (
	"strings"
	"testing"

	"github.com/lapwing-stream/lapwing/bench"
)

// TestGPUBench: on the emulated driver every part of the suite runs, its results agree with those of the processors, and it says that
// its figures mean nothing. Where there is no GPU one line says so.
func TestGPUBench(t *testing.T) {
	fakeGPU(t, "")
	t.Chdir(t.TempDir())
	stdout, stderr, code := runIn(t, nil, "bench", "gpu", "--json", "-")
	if code != 0 {
		t.Fatalf("exit %d\n%s\n%s", code, stdout, stderr)
	}
	report, err := bench.ReadReport([]byte(stdout))
	if err != nil {
		t.Fatal(err)
	}
	if !report.Small || len(report.Targets) > 0 || !strings.Contains(strings.Join(report.Notes, "\n"), "emulated on the processor") || !strings.Contains(report.Machine, "Emulated Tesla T4") {
		t.Errorf("smoke %v, %d targets, %q, %s", report.Small, len(report.Targets), report.Notes, report.Machine)
	}
	measured := map[string]bool{}
	for _, row := range report.Rows {
		if row.Role == bench.Ours && row.Error == "" && row.Value > 0 {
			measured[row.Case+": "+row.Subject] = true
		}
	}
	for _, part := range []string{
		"score 30-14-7-14-30, 4096 rows at once: lapwing", "score default detector, 18 features, 4096 rows at once: lapwing, rows from host memory",
		"train 30-14-7-14-30, batch 256: lapwing", "train 18-14-7-7-18, batch 4096: lapwing", "train 32 networks of 30-14-7-14-30 at once, batch 256: lapwing, one network",
		"train 30-14-7-14-30, batch 256: to the validation loss that 100 steps give: lapwing",
	} {
		if !measured[part] {
			t.Errorf("there is no figure of %q", part)
		}
	}
	t.Setenv("CUDA_FAKE", "devices=0")
	if _, stderr, code := runIn(t, nil, "bench", "gpu"); code != exitFailed || !strings.Contains(stderr, "no GPU is visible") {
		t.Errorf("without a GPU: exit %d, %s", code, stderr)
	}
}

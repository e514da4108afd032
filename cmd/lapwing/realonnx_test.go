//go:build e2e

package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// onnxPython finds a Python with ONNX Runtime, or skips what is left of the test.
func onnxPython(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs(cmp.Or(os.Getenv("LAPWING_PYTHON"), filepath.Join("..", "..", "build", "py", "bin", "python")))
	if err == nil {
		err = exec.Command(path, "-c", "import numpy, onnx, onnxruntime").Run()
	}
	if err != nil {
		t.Skipf("SKIPPED-ONNX: %s: no Python with model/onnxcheck/requirements.txt at $LAPWING_PYTHON (default build/py): %v", t.Name(), err)
	}
	return path
}

// agree compares every finite score of a live run with ONNX Runtime's of the exported model; the rows are made from the records'
// JSON by Python, which knows only the model file.
func (f *flow) agree(a *audit, threshold float64, model string) {
	f.t.Run("onnxruntime", func(t *testing.T) {
		python := onnxPython(t)
		sub := *f
		sub.t = t
		f := &sub
		path := func(name string) string { return filepath.Join(f.dir, name) }
		f.run(nil, "models", "export", model, "--to", "model.onnx")
		f.run(nil, "models", "export", model, "--to", "score.onnx", "--outputs", "score")
		whole, err := os.Stat(path("model.onnx"))
		if err != nil {
			t.Fatal(err)
		}
		if pruned, err := os.Stat(path("score.onnx")); err != nil || pruned.Size() >= whole.Size() {
			t.Errorf("the pruned file is no smaller: %v, %v", pruned, err)
		}
		var places []place
		records, err := os.Create(path("records.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		w := bufio.NewWriter(records)
		for p, in := range a.in {
			for _, r := range in {
				at := place{p, r.Offset}
				if s, ok := a.scores[at]; ok && s.Score != nil {
					places = append(places, at)
					fmt.Fprintf(w, "%s\n", r.Value)
				}
			}
		}
		if err := cmp.Or(w.Flush(), records.Close()); err != nil {
			t.Fatal(err)
		}
		call := func(script string, args ...string) {
			t.Helper()
			if out, err := exec.CommandContext(f.ctx, python, append([]string{script}, args...)...).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", script, err, out)
			}
		}
		check := filepath.Join("..", "..", "model", "onnxcheck", "check.py")
		call(filepath.Join("testdata", "rows.py"), path("model.onnx"), path("records.jsonl"), path("rows.f32"))
		call(check, "score", path("model.onnx"), path("rows.f32"), path("out.f32"))
		call(check, "score", path("score.onnx"), path("rows.f32"), path("pruned.f32"))
		out, err := os.ReadFile(path("out.f32"))
		if err != nil {
			t.Fatal(err)
		}
		if pruned, err := os.ReadFile(path("pruned.f32")); err != nil || !bytes.Equal(pruned, out) {
			t.Errorf("the pruned model scores otherwise (%v)", err)
		}
		if len(out) != 4*len(places) || len(places) == 0 {
			t.Fatalf("%d scores of ONNX Runtime for %d of serve", len(out)/4, len(places))
		}
		worst, faults := 0., 0
		for i, at := range places {
			want := float64(math.Float32frombits(binary.LittleEndian.Uint32(out[4*i:])))
			got := *a.scores[at].Score
			share := math.Abs(got-want) / (2e-5*math.Abs(want) + 1e-5*threshold)
			worst = max(worst, share)
			if !(share <= 1) {
				if faults++; faults <= 5 {
					t.Errorf("record %v: serve scored %v, ONNX Runtime %v: %.3g times what is allowed: %s", at, got, want, share, a.in[at.partition][at.offset].Value)
				}
			}
		}
		t.Logf("%d live scores, %d off; the furthest by %.3f of what is allowed", len(places), faults, worst)
	})
}

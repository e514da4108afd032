package model

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
)

// TestPythonOfDocs runs the snippet of docs/onnx.md on a model with every type of field.
func TestPythonOfDocs(t *testing.T) {
	python := python(t)
	page, err := os.ReadFile(filepath.Join("..", "docs", "onnx.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(page), "```python\n")
	snippet, _, closed := strings.Cut(rest, "```")
	if !ok || !closed {
		t.Fatal("docs/onnx.md has no Python snippet")
	}
	p := kernels.Autoencoder([]kernels.Column{column(30, 4), column(0, 1), column(0, 1), column(0, 1), column(1, 1)}, []int{2}, nil)
	kernels.Initialise(p, 3)
	m := complete(t, p, []float32{
		31, 1, 1, 0, 0,
		29, 0, 0, 1, 0,
		inf - inf, 1, 0, 0, 1,
	})
	m.Spec = Spec{Format: "json", Fields: []Field{
		{Name: `engine.rev\.s`, Type: Number},
		{Name: "doors.1", Type: Boolean},
		{Name: "gear", Type: Category, Categories: []string{"4"}},
		{Name: "load", Type: Number},
	}}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "cars.onnx"), encode(t, m), 0o644); err != nil {
		t.Fatal(err)
	}
	snippet += `
records = [
    {"engine": {"rev.s": 31}, "doors": [0, True], "gear": 4, "load": 0},
    {"engine": {"rev.s": 29}, "doors": [0, False], "gear": 7, "load": None},
    {},
]
assert np.array_equal(row(records[0]), [31, 1, 1, 0, 0]), row(records[0])
assert np.array_equal(row(records[1]), [29, 0, 0, 1, np.nan], equal_nan=True), row(records[1])
assert np.array_equal(row(records[2]), [np.nan, np.nan, 0, 1, np.nan], equal_nan=True), row(records[2])
scores, anomaly, column = score(records)
assert abs(scores[0] - test["scores"][0]) < 1e-5 and anomaly.shape == column.shape == (3,)
`
	cmd := exec.Command(python, "-c", snippet)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

package model

import (
	"bytes"
	"flag"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
)

var update = flag.Bool("update", false, "write the golden files anew")

func encode(t testing.TB, m *Model) []byte {
	t.Helper()
	data, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRoundTrip(t *testing.T) {
	m := tiny(t)
	data := encode(t, m)
	if !bytes.Equal(data, encode(t, m)) {
		t.Error("the same model gave other bytes")
	}
	back, err := Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m, back, cmpopts.EquateNaNs()); diff != "" {
		t.Error(diff)
	}
	if again := encode(t, back); !bytes.Equal(data, again) {
		t.Error("the decoded model gave other bytes")
	}
	if d := Digest(data); len(d) != 64 || d == Digest(data[1:]) {
		t.Errorf("digest %q", d)
	}
	if got := back.Layers(); !reflect.DeepEqual(got, []int{2}) {
		t.Errorf("layers %v", got)
	}
}

func TestRoundTripOfRandomPrograms(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 5))
	for i := range 300 {
		p := randomProgram(r)
		if err := p.Validate(); err != nil {
			t.Fatalf("program %d: %v", i, err)
		}
		m := tiny(t)
		m.Program, m.Spec = p, numbers(p.Width)
		m.SelfTest = SelfTest{Rows: [][]float32{make([]float32, p.Width)}, Scores: []float32{1}}
		data := encode(t, m)
		back, err := Decode(data)
		if err != nil {
			t.Fatalf("program %d: %v", i, err)
		}
		if diff := cmp.Diff(p, back.Program); diff != "" {
			t.Fatalf("program %d: %s", i, diff)
		}
	}
}

// The format is held by two files a model: the text of a graph, and a file's very bytes, which later versions must
// read.
func TestGolden(t *testing.T) {
	for name, m := range map[string]*Model{"tiny": tiny(t), "blended": blended(t), "activated": activated(t)} {
		t.Run(name, func(t *testing.T) { golden(t, m, "testdata/"+name) })
	}
}

func golden(t *testing.T, m *Model, file string) {
	data := encode(t, m)
	text, err := Dump(data)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(file+".txt", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file+".onnx", data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	wantText, err := os.ReadFile(file + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(wantText), text); diff != "" {
		t.Errorf("the graph changed (if that is meant, and lapwing.format was thought of: go test ./model -run Golden -update):\n%s", diff)
	}
	want, err := os.ReadFile(file + ".onnx")
	if err != nil {
		t.Fatal(err)
	}
	back, err := Decode(want)
	if err != nil {
		t.Fatalf("a file of this format is no longer read: %v", err)
	}
	if diff := cmp.Diff(m, back, cmpopts.EquateNaNs()); diff != "" {
		t.Error(diff)
	}
	if !bytes.Equal(want, data) {
		t.Error("the bytes changed though the text did not")
	}
	if got := back.Layers(); !reflect.DeepEqual(got, m.Layers()) {
		t.Errorf("layers %v, of the model %v", got, m.Layers())
	}
	// The scores that stand in the file are the engine's.
	s, err := cpu.New().Scorer(m.Program)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Verify(s, false); err != nil {
		t.Error(err)
	}
}

func TestEncodeRefuses(t *testing.T) {
	for _, c := range []struct {
		name, want string
		change     func(*Model)
	}{
		{"no program", "no program", func(m *Model) { m.Program = nil }},
		{"invalid program", "step 0 (map)", func(m *Model) { m.Program.Steps[0].(*kernels.Map).Columns[0].Before = -1 }},
		{"column count", "makes 2 columns, the program takes 3", func(m *Model) { m.Spec = numbers(2) }},
		{"column twice", `names column "f0" twice`, func(m *Model) { m.Spec.Fields[1].Name = "f0" }},
		{"field type", `type "tensor"`, func(m *Model) { m.Spec.Fields[1].Type = "tensor" }},
		{"threshold", "threshold +Inf", func(m *Model) { m.Threshold = float64(inf) }},
		{"quantiles", "they must rise", func(m *Model) { m.Quantiles[3].P = 0 }},
		{"self-test", "both must be the same", func(m *Model) { m.SelfTest.Scores = m.SelfTest.Scores[1:] }},
		{"self-test row", "self-test row 0", func(m *Model) { m.SelfTest.Rows[0] = []float32{1} }},
		{"metric", `metric "loss" is +Inf`, func(m *Model) { m.Lineage.Metrics["loss"] = float64(inf) }},
		{"text", "not UTF-8", func(m *Model) { m.Spec.Fields[0].Name = "\xff" }},
		{"lineage text", "not UTF-8", func(m *Model) { m.Lineage.Settings["a"] = "\xff" }},
	} {
		m := tiny(t)
		c.change(m)
		if _, err := m.Encode(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", c.name, err, c.want)
		}
	}
}

// Case 5.09: weights beyond 2 GB. All steps share one slice, so that the test needs little memory; that the
// weights do not fit their step would be found later.
func TestBeyondTwoGigabytes_Case5_09(t *testing.T) {
	w := make([]float32, 1<<20)
	p := &kernels.Program{Width: 1 << 10}
	for range 520 {
		p.Steps = append(p.Steps, &kernels.Gemm{Out: 1 << 10, W: w})
	}
	_, err := (&Model{Program: p}).Encode()
	if err == nil || !strings.Contains(err.Error(), "take 2.2 GB, and an ONNX file ends at 2 GB") {
		t.Error(err)
	}
}

func TestPrune(t *testing.T) {
	prune(t, tiny(t), map[string][]string{
		"score":               {"split", "6.map"},
		"contributions":       {"6.map"},
		"reconstruction":      {"norm", "split", "diff"},
		"score,contributions": {"6.map"},
	})
	prune(t, blended(t), map[string][]string{
		"score":               {"split", "4.map", "11.join"},
		"contributions":       {"4.map", "10.join"},
		"reconstruction":      {"norm", "split", "diff", "nearest", "join"},
		"score,contributions": {"4.map"},
	})
}

// prune asks for some outputs, by name, and looks for steps that have to be gone.
func prune(t *testing.T, m *Model, gone map[string][]string) {
	t.Helper()
	data := encode(t, m)
	whole, err := unmarshal(data)
	if err != nil {
		t.Fatal(err)
	}
	gone[strings.Join(Outputs, ",")] = nil
	for asked, gone := range gone {
		outputs := strings.Split(asked, ",")
		pruned, err := Prune(data, outputs...)
		if err != nil {
			t.Fatal(err)
		}
		file, err := unmarshal(pruned)
		if err != nil {
			t.Fatal(err)
		}
		if got := names(file.Graph.Output); !reflect.DeepEqual(got, outputs) {
			t.Errorf("outputs %q, want %q", got, outputs)
		}
		constants, err := checkConstants(file.Graph)
		if err != nil {
			t.Error(err)
		}
		if err := checkNodes(file.Graph, constants); err != nil {
			t.Error(err)
		}
		text, err := Dump(pruned)
		if err != nil {
			t.Fatal(err)
		}
		graph, _, _ := strings.Cut(text, "metadata")
		for _, gone := range gone {
			if strings.Contains(graph, gone) {
				t.Errorf("%q: %s is still there", outputs, gone)
			}
		}
		if len(file.MetadataProps) != len(whole.MetadataProps) {
			t.Error("metadata was dropped")
		}
		_, err = Decode(pruned)
		if len(outputs) == len(Outputs) {
			if err != nil || !bytes.Equal(pruned, data) {
				t.Errorf("all outputs: %v", err)
			}
		} else if err == nil || !strings.Contains(err.Error(), "exported with fewer") {
			t.Errorf("%q: a pruned model decoded: %v", outputs, err)
		}
	}
	if _, err := Prune(data, "scores"); err == nil || !strings.Contains(err.Error(), `"scores"`) {
		t.Error(err)
	}
	if _, err := Prune(data); err == nil {
		t.Error("pruned to nothing")
	}
	if _, err := Prune([]byte("x"), "score"); err == nil {
		t.Error("pruned garbage")
	}
}

func TestVerify(t *testing.T) {
	m := tiny(t)
	s, err := cpu.New().Scorer(m.Program)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Verify(s, true); err != nil {
		t.Error(err)
	}
	want := m.SelfTest.Scores[2]
	m.SelfTest.Scores[2] = want*(1+6e-5) + float32(3e-5*m.Threshold)
	if err := m.Verify(s, false); err != nil {
		t.Errorf("another engine's rounding: %v", err)
	}
	if err := m.Verify(s, true); err == nil || !strings.Contains(err.Error(), "self-test row 2") {
		t.Errorf("the same engine: %v", err)
	}
	m.SelfTest.Scores[2] = want * 1.01
	if err := m.Verify(s, false); err == nil {
		t.Error("one percent off was accepted")
	}
	m.SelfTest = SelfTest{}
	if err := m.Verify(s, false); err == nil {
		t.Error("an empty self-test was accepted")
	}
}

func TestNaNScorerFailsSelfTest(t *testing.T) {
	m := tiny(t)
	if err := m.Verify(nanScorer{}, false); err == nil {
		t.Error("NaN was accepted")
	}
}

type nanScorer struct{}

func (nanScorer) Score(_ []float32, out kernels.Output) error {
	for i := range out.Score {
		out.Score[i] = inf - inf
	}
	return nil
}

package quality

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// packagesPython finds a Python with scikit-learn and PyOD, or skips what is left of the test.
func packagesPython(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs(cmp.Or(os.Getenv("LAPWING_PYTHON"), filepath.Join("..", "..", "build", "py", "bin", "python")))
	if err == nil {
		err = exec.CommandContext(t.Context(), path, "-c", "import sklearn, pyod").Run()
	}
	if err != nil {
		t.Skipf("SKIPPED-PYTHON: %s: no Python with bench/quality/requirements.txt at $LAPWING_PYTHON (default build/py): %v", t.Name(), err)
	}
	return path
}

// The peers themselves find rows that stand far out, with a missing value, a constant column and columns that
// determine each other among the rest. The neural ones need PyTorch, which is too large for this test.
func TestRealPeers(t *testing.T) {
	o := Options{Threads: 1}.WithDefaults()
	p := &peers{ctx: t.Context(), o: &o, python: packagesPython(t), program: "peers.py", absent: map[string]string{}, dir: t.TempDir()}
	defer p.close()
	r := rand.New(rand.NewPCG(9, 9))
	var s split
	truth := make([]bool, 150)
	for i := range 450 {
		a, b := r.NormFloat64(), r.NormFloat64()
		odd := i >= 300 && i%15 == 0
		if odd {
			a, b = a+6, b-6
		}
		c := fmt.Sprint(a + b)
		if i%50 == 7 {
			c = "null"
		}
		one := row{value: fmt.Appendf(nil, `{"a":%v,"b":%v,"c":%s,"d":%v,"e":5}`, a, b, c, 2*a), anomalous: odd}
		if i < 300 {
			s.train = append(s.train, one)
		} else {
			truth[i-300] = odd
			s.test = append(s.test, one)
		}
	}
	s.seed = 1
	j, err := p.prepare(&s, &entry{Features: []string{"a", "b", "c", "d", "e"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range Peers() {
		if slices.Contains(needTorch, name) {
			continue
		}
		m := j.measure(t.Context(), name, truth, .01)
		switch {
		case m.Error != "":
			t.Errorf("%s: %s", name, m.Error)
		case name == "pca_residual": // a + b hardly changes what the first components keep: no bound
		case *m.AUC < .95 || *m.Recall == 0:
			t.Errorf("%s: AUC %v, recall %v", name, *m.AUC, *m.Recall)
		}
	}
	if p.versions["scikit-learn"] == "" || p.versions["pyod"] == "" {
		t.Errorf("versions %v", p.versions)
	}
}

// Our figures are scikit-learn's, ties among them.
func TestFiguresAgree(t *testing.T) {
	python := packagesPython(t)
	r := rand.New(rand.NewPCG(10, 10))
	type sample struct {
		Scores []float64 `json:"scores"`
		Bad    []int     `json:"bad"`
	}
	var samples []sample
	for range 20 {
		var s sample
		levels := 1 + r.IntN(60) // few levels: many ties
		for i := range 50 + r.IntN(100) {
			bad := i == 0 || i > 1 && r.Float64() < .2
			s.Scores = append(s.Scores, float64(r.IntN(levels))/7)
			s.Bad = append(s.Bad, 0)
			if bad {
				s.Bad[i] = 1
				s.Scores[i] += .5
			}
		}
		samples = append(samples, s)
	}
	in, err := json.Marshal(samples)
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), python, "-c", `
import json, sys
from sklearn.metrics import average_precision_score, roc_auc_score
print(json.dumps([[roc_auc_score(s["bad"], s["scores"]), average_precision_score(s["bad"], s["scores"])] for s in json.load(sys.stdin)]))`)
	c.Stdin = strings.NewReader(string(in))
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	var want [][2]float64
	if err := json.Unmarshal(out, &want); err != nil {
		t.Fatal(err)
	}
	for i, s := range samples {
		bad := make([]bool, len(s.Bad))
		for k, b := range s.Bad {
			bad[k] = b == 1
		}
		m := measure(s.Scores, bad, 0)
		if math.Abs(*m.AUC-want[i][0]) > 1e-9 || math.Abs(*m.AP-want[i][1]) > 1e-9 {
			t.Errorf("sample %d: AUC %v, AP %v; scikit-learn says %v", i, *m.AUC, *m.AP, want[i])
		}
	}
}

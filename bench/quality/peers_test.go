package quality

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// python finds an interpreter, or skips what is left of the test.
func python(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("python3")
	if err != nil {
		t.Skipf("SKIPPED-PYTHON: %s: no python3", t.Name())
	}
	return path
}

func smallSplit() (*split, *entry, []bool) {
	var s split
	truth := make([]bool, 4)
	for i, v := range []string{`{"a":1,"b":"x"}`, `{"a":2,"b":"y"}`, `{"a":3,"b":"x"}`, `{"a":null,"b":"z"}`} {
		for range 30 {
			s.train = append(s.train, row{value: []byte(v)})
		}
		s.test = append(s.test, row{value: []byte(v), anomalous: i == 2})
		truth[i] = i == 2
	}
	return &s, &entry{Features: []string{"a", "b", "c"}}, truth
}

// Without Python every peer is a row that says so.
func TestPeersWithoutPython(t *testing.T) {
	var log strings.Builder
	o := Options{Peers: []string{"iforest", "vae"}, Cache: t.TempDir(), Python: "no-such-python", Log: &log}.WithDefaults()
	p := startPeers(t.Context(), &o)
	defer p.close()
	s, e, truth := smallSplit()
	j, err := p.prepare(s, e)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range o.Peers {
		m := j.measure(t.Context(), name, truth, .01)
		if !strings.HasPrefix(m.Error, "not installed: ") || !strings.Contains(m.Error, "no-such-python") || m.AUC != nil {
			t.Errorf("%s: %+v", name, m)
		}
	}
	if !strings.Contains(log.String(), "peers left out") {
		t.Errorf("log: %s", log.String())
	}
}

// standIn is a peer program that answers by its peer's name: with scores, with an error, with nonsense, with too few
// scores, by dying, or never.
const standIn = `
import json, struct, sys
print(json.dumps({"versions": {"numpy": "1"}}), flush=True)
for line in sys.stdin:
    q = json.loads(line)
    if q["peer"] == "iforest":
        rows = [open(q[k], "rb").read() for k in ("train", "test")]
        width = 4 * q["columns"]
        first = [struct.unpack("<f", r[i:i + 4])[0] for r in rows for i in range(0, len(r), width)]
        open(q["out"], "wb").write(b"".join(struct.pack("<d", x) for x in first))
        print(json.dumps({"seconds": 0.5}), flush=True)
    elif q["peer"] == "pca":
        print(json.dumps({"error": "ValueError: too few rows"}), flush=True)
    elif q["peer"] == "hbos":
        open(q["out"], "wb").write(b"12345678")
        print(json.dumps({"seconds": 0.5}), flush=True)
    elif q["peer"] == "ecod":
        print("hello", flush=True)
    elif q["peer"] == "knn":
        print("out of memory", file=sys.stderr)
        sys.exit(3)
    # any other: no answer
`

func TestPeerProcess(t *testing.T) {
	program := filepath.Join(t.TempDir(), "stand_in.py")
	if err := os.WriteFile(program, []byte(standIn), 0o644); err != nil {
		t.Fatal(err)
	}
	o := Options{Limit: time.Minute}.WithDefaults()
	p := &peers{ctx: t.Context(), o: &o, python: python(t), program: program, absent: map[string]string{}, dir: t.TempDir()}
	defer p.close()
	s, e, truth := smallSplit()
	j, err := p.prepare(s, e)
	if err != nil {
		t.Fatal(err)
	}
	if j.request.Columns < 5 { // a; x, y and z of b; c, which is in no row
		t.Errorf("%d columns", j.request.Columns)
	}
	sound := func() {
		t.Helper()
		m := j.measure(t.Context(), "iforest", truth, .01)
		if m.Error != "" || *m.Seconds != .5 {
			t.Fatalf("%+v", m)
		}
		// The scores are column a: 1, 2, 3 and a missing value, which counts as highest.
		near(t, "AUC", m.AUC, 2./3)
		near(t, "AP", m.AP, 1./2)
	}
	sound()
	for _, c := range []struct{ peer, want string }{
		{"pca", "ValueError: too few rows"}, {"hbos", "1 scores for 124 rows"}, {"ecod", "said what is no answer: hello"}, {"knn", "ended: out of memory"},
	} {
		if m := j.measure(t.Context(), c.peer, truth, .01); !strings.Contains(m.Error, c.want) || m.AUC != nil {
			t.Errorf("%s: %+v, want %s", c.peer, m, c.want)
		}
		sound() // the next peer runs, in a new process where the old one is gone
	}
	o.Limit = time.Second / 2
	if m := j.measure(t.Context(), "vae", truth, .01); !strings.Contains(m.Error, "no answer within 500ms") {
		t.Errorf("%+v", m)
	}
	o.Limit = time.Minute
	sound()
}

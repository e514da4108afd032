package server

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// simMutants are faults planted into a copy of the production code; the simulation has to find each. In the copy, mutant(name) tells whether
// a run is to have the fault, so that all of them take one build.
var simMutants = []struct{ name, file, old, new string }{
	{"offsets of a lost partition are sent", "stream/exactlyonce.go", "if o.stale || o.meta == nil {", "if o.stale && !MUTANT || o.meta == nil {"},
	{"offsets stay out of the transaction", "stream/exactlyonce.go", "if len(o.next) > 0 {", "if len(o.next) > 0 && !MUTANT {"},
	{"offsets are committed before acknowledgements", "stream/sink.go", "if err := s.p.Flush(ctx); err != nil {", "if MUTANT {\n	} else if err := s.p.Flush(ctx); err != nil {"},
	{"a rewind hands out what waits", "stream/rewind.go", "	p.takeAway(tps)\n", "	if !MUTANT {\n		p.takeAway(tps)\n	}\n"},
	{"what was fetched and dropped counts as read", "stream/poll.go", "		w.pos, w.pending = w.handed, 0\n", "		if w.pending = 0; !MUTANT {\n			w.pos = w.handed\n		}\n"},
	{"an abort does not rewind", "server/commit.go", "	s.undone = s.group.Rewind()\n", "	if !MUTANT {\n		s.undone = s.group.Rewind()\n	}\n"},
	{"records from before an abort are produced", "server/output.go", "func (s *session) settle(ctx context.Context, p *parcel) error {\n	if s.undone != 0 {", "func (s *session) settle(ctx context.Context, p *parcel) error {\n	if s.undone != 0 && !MUTANT {"},
	{"a lost partition stays in the transaction", "server/output.go", "if s.exact && anyGone(s.pending.next, gone) {", "if s.exact && !MUTANT && anyGone(s.pending.next, gone) {"},
	{"a revocation does not commit", "server/output.go", "	if len(n.revoked) > 0 {\n		if err := s.commit(ctx); err != nil {", "	if len(n.revoked) > 0 {\n		if MUTANT {\n		} else if err := s.commit(ctx); err != nil {"},
	{"the batcher drops what does not fit", "server/stages.go", "				return q\n", "				if MUTANT && q.news == nil {\n					return nil\n				}\n				return q\n"},
	{"the commit clock never strikes", "server/commit.go", "	case left <= 0, c.n >= c.records, c.eager && drained:", "	case !MUTANT && (left <= 0 || c.n >= c.records || c.eager && drained):"},
	{"a raised alert is not restored", "server/alerts.go", "if r.State == AlertCleared {", "if r.State == AlertCleared || MUTANT {"},
	{"a kept model stands for another", "registry/kept.go", "if it.digest == m.Digest && slices.Equal(it.at, at) {", "if it.digest == m.Digest && slices.Equal(it.at, at) || MUTANT {"},
	{"a loaded model stands for another", "server/loaded.go", "func(m *liveModel) bool { return m.manifest.Digest == digest })\n	if i", "func(m *liveModel) bool { return m.manifest.Digest == digest || MUTANT })\n	if i"},
	{"an alias moves to any number", "registry/alias.go", "		m, ok := e.manifests[version]\n		if !ok {", "		m, ok := e.manifests[version]\n		if !ok && !MUTANT {"},
	{"what an alias means is deleted", "registry/alias.go", "if e.aliases[alias].Version == version {", "if e.aliases[alias].Version == version && !MUTANT {"},
	{"a deleted number comes back", "registry/publish.go", "Version: e.head + 1,", "Version: nextVersion(MUTANT, e),"},
}

// mutantSource goes into each package that has a mutant.
const mutantSource = `package %s

import "os"

var planted = os.Getenv("SIM_MUTANT")

func mutant(name string) bool { return planted == name }
`

const nextVersionSource = `
func nextVersion(mutant bool, e *entry) int {
	if mutant {
		return len(e.manifests) + 1
	}
	return e.head + 1
}
`

// TestSimulationFindsPlantedFaults holds the simulation to its purpose: every fault above breaks a promise within the budget, the same code
// without one breaks none, and a seed that fails does so at the same step when it is run again.
func TestSimulationFindsPlantedFaults(t *testing.T) {
	t.Parallel()
	root, dir := "..", t.TempDir()
	overlay := map[string]string{}
	write := func(file, source string) {
		to := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(to, []byte(source), 0o644); err != nil {
			t.Fatal(err)
		}
		abs, err := filepath.Abs(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		overlay[abs] = to
	}
	sources := map[string]string{}
	for _, m := range simMutants {
		if sources[m.file] == "" {
			b, err := os.ReadFile(filepath.Join(root, m.file))
			if err != nil {
				t.Fatal(err)
			}
			sources[m.file] = string(b)
		}
		if n := strings.Count(sources[m.file], m.old); n != 1 {
			t.Fatalf("mutant %q: its place stands %d times in %s", m.name, n, m.file)
		}
		sources[m.file] = strings.Replace(sources[m.file], m.old, strings.ReplaceAll(m.new, "MUTANT", fmt.Sprintf("mutant(%q)", m.name)), 1)
	}
	for file, source := range sources {
		write(file, source)
	}
	for _, p := range []string{"stream", "server", "registry"} {
		source := fmt.Sprintf(mutantSource, p)
		if p == "registry" {
			source += nextVersionSource
		}
		write(p+"/planted.go", source)
	}
	plan, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	planFile, binary := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "server.test")
	if err := os.WriteFile(planFile, plan, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "test", "-c", "-vet=off", "-overlay", planFile, "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	simulate := func(mutant string, more ...string) (out string, failed bool) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, binary, append([]string{"-test.run=^TestSimulation$", "-test.v"}, more...)...)
		cmd.Env = append(os.Environ(), "SIM_MUTANT="+mutant, "GOMAXPROCS=1")
		b, err := cmd.CombinedOutput()
		return string(b), err != nil
	}
	if out, failed := simulate("", "-sim-steps=20000"); failed {
		t.Fatalf("without a fault:\n%s", out)
	}
	for _, m := range simMutants {
		out, failed := simulate(m.name, "-sim-steps=1000000")
		if !failed {
			t.Errorf("%s: not found\n%s", m.name, out)
			continue
		}
		found := broken(out)
		if found == "" {
			t.Errorf("%s: it failed, and no promise was broken:\n%s", m.name, out)
			continue
		}
		t.Logf("%s: %s", m.name, found)
		if again, _ := simulate(m.name, "-sim-steps=1000000"); broken(again) != found {
			t.Errorf("%s: run again: %q", m.name, broken(again))
		}
	}
}

// broken is the line that names the promise.
func broken(out string) string {
	for line := range strings.Lines(out) {
		if _, rest, ok := strings.Cut(line, "broken: "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// Package lapwing holds no code: only the rules of the house, as a test.
package lapwing

import (
	"bytes"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/lapwing-stream/lapwing/"

// rooms says what each room may import of ours; a room's sub-packages count as the room. Data walks one way:
// whatever is not listed would turn it back.
var rooms = map[string][]string{
	"cmd":      {"cmd", "trainer", "server", "bench", "registry", "stream", "events", "model", "kernels"},
	"bench":    {"bench", "trainer", "server", "registry", "stream", "events", "model", "kernels"},
	"trainer":  {"trainer", "registry", "stream", "events", "model", "kernels"},
	"server":   {"server", "registry", "stream", "events", "model", "kernels"},
	"registry": {"registry", "stream", "model"},
	"events":   {"events", "model", "kernels"},
	"model":    {"model", "kernels"},
	"kernels":  {"kernels"},
	"stream":   {"stream"},
	"docker":   {}, // tests only: they run the program
}

// testRooms are what the tests of a room may import beyond its own list: real neighbours instead of mocks.
var testRooms = map[string][]string{
	"bench":  {"cmd"},
	"events": {"stream"},
}

// peersOnly are modules that only the bench may know: what Lapwing is measured next to is no part of it.
var peersOnly = []string{"github.com/yalue/onnxruntime_go"}

// banned patterns, each with what to do instead.
var banned = []struct {
	pattern *regexp.Regexp
	instead string
	tests   bool                   // applies to tests too
	allowed func(path string) bool // nil: nowhere
}{
	{regexp.MustCompile(`\b(TODO|FIXME|XXX)\b`), "do it, or write an issue", true, nil},
	{regexp.MustCompile(`\bos\.(Getenv|LookupEnv|Environ)\(`), "take it from the options; only cmd/lapwing reads the environment", false, inCommand},
	{regexp.MustCompile(`\bos\.Exit\(`), "return an error; only main ends the process", false, func(p string) bool { return p == "cmd/lapwing/main.go" || p == "kernels/cuda/ptx/main.go" }},
	{regexp.MustCompile(`\bfmt\.Print(f|ln)?\(`), "write to the writer that was handed in", false, nil},
	{regexp.MustCompile(`"log"$`), "use log/slog", true, nil},
	{regexp.MustCompile(`\btime\.Sleep\(`), "wait for the condition, or use testing/synctest", true, nil},
	{regexp.MustCompile(`\bt\.Skip(f|Now)?\(`), "only a missing LAPWING_DATA, Python or broker may skip, with a text that begins with SKIPPED-", true,
		func(string) bool { return false }},
	{regexp.MustCompile(`\bgithub\.com/stretchr/testify\b`), "compare with if, or go-cmp", true, nil},
}

var skipOK = regexp.MustCompile(`\bt\.Skipf?\("SKIPPED-`)

func inCommand(p string) bool { return strings.HasPrefix(p, "cmd/lapwing/") }

func TestImportsGoOneWay(t *testing.T) {
	eachGoFile(t, func(path string, source []byte) {
		room, _, inRoom := strings.Cut(path, "/")
		allowed, known := rooms[room]
		if !inRoom {
			return
		}
		if !known {
			t.Errorf("%s: %s is not one of the rooms: put the code where its question is answered (docs/architecture.md)", path, room)
			return
		}
		if strings.HasSuffix(path, "_test.go") {
			allowed = append(slices.Clone(allowed), testRooms[room]...)
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, source, parser.ImportsOnly)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			return
		}
		for _, spec := range file.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Errorf("%s: %v", path, err)
				continue
			}
			if slices.Contains(peersOnly, name) && room != "bench" {
				t.Errorf("%s imports %s: only bench may", path, name)
			}
			ours, is := strings.CutPrefix(name, module)
			if !is {
				continue
			}
			to, _, _ := strings.Cut(ours, "/")
			if !slices.Contains(allowed, to) {
				t.Errorf("%s imports %s: %s may import %s only", path, ours, room, strings.Join(allowed, ", "))
			}
		}
	})
}

func TestBannedPatterns(t *testing.T) {
	eachGoFile(t, func(path string, source []byte) {
		if path == "lint_test.go" || bytes.Contains(source[:min(len(source), 300)], []byte("Code generated")) {
			return
		}
		test := strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "kernels/compliance/")
		for i, line := range bytes.Split(source, []byte("\n")) {
			for _, b := range banned {
				if test && !b.tests || b.allowed != nil && b.allowed(path) || skipOK.Match(line) {
					continue
				}
				if b.pattern.Match(line) {
					t.Errorf("%s:%d: %s: %s", path, i+1, bytes.TrimSpace(line), b.instead)
				}
			}
		}
	})
}

// Files over 800 lines hide a concept that wants a file of its own.
func TestFileSizes(t *testing.T) {
	eachGoFile(t, func(path string, source []byte) {
		if n := bytes.Count(source, []byte("\n")); n > 800 && !bytes.Contains(source[:300], []byte("Code generated")) {
			t.Errorf("%s has %d lines: split it by concept", path, n)
		}
		for _, part := range strings.Split(path, "/") {
			for _, vague := range []string{"util", "helper", "manager", "common", "misc"} {
				if strings.Contains(part, vague) {
					t.Errorf("%s: %q says nothing: name it after its concept", path, part)
				}
			}
		}
	})
}

func eachGoFile(t *testing.T, do func(path string, source []byte)) {
	t.Helper()
	seen := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "build" || d.Name() == "bin" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		seen++
		do(filepath.ToSlash(path), source)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 10 {
		t.Fatalf("saw %d Go files: run this test in the module's root", seen)
	}
}

// TestOneWayToKernels: whatever scores or trains outside the tests takes its engine from cpu.New, so bench cannot
// measure a kernel that serve does not reach. Levels and PeakFMA describe the machine.
func TestOneWayToKernels(t *testing.T) {
	allowed := []string{"New", "Levels", "PeakFMA"}
	name := regexp.MustCompile(`\bcpu\.([A-Z]\w*)`)
	seen := 0
	eachGoFile(t, func(path string, source []byte) {
		if strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "kernels/") || !bytes.Contains(source, []byte(`"`+module+`kernels/cpu"`)) {
			return
		}
		for _, m := range name.FindAllSubmatch(source, -1) {
			seen++
			if !slices.Contains(allowed, string(m[1])) {
				t.Errorf("%s uses %s: outside kernels only %s may be used", path, m[0], strings.Join(allowed, ", "))
			}
		}
	})
	if seen == 0 {
		t.Error("nothing outside kernels uses cpu.New: the test looks for the wrong thing")
	}
}

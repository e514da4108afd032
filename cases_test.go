package lapwing

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "fill in docs/cases.md")

// cases is how many there are in each group.
var cases = []int{16, 16, 15, 20, 12, 20, 12, 15, 8}

// A test says which cases it holds in its name or in its text: TestCase4_05…, "case 4.05", "cases 1.07, 1.08 and 3.12".
var (
	caseName = regexp.MustCompile(`Case(\d)_(\d\d)`)
	caseText = regexp.MustCompile(`(?i)\bcases?\s+(\d\.\d\d(?:(?:,\s*|\s+and\s+)\d\.\d\d)*)`)
	caseID   = regexp.MustCompile(`\d\.\d\d`)
	caseRow  = regexp.MustCompile(`^\| (\d\.\d\d) \| ([^|]+) \| ([^|]*) \|$`)
	caseTest = regexp.MustCompile("`([^`]+)`")
)

// testsByCase reads all tests of the repository: names by case, and all names.
func testsByCase(t *testing.T) (by map[string][]string, all map[string]bool) {
	by, all = map[string][]string{}, map[string]bool{}
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (p == "build" || strings.HasPrefix(d.Name(), ".") && p != ".") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(p, "_test.go") || p == "cases_test.go" {
			return nil
		}
		source, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		files := token.NewFileSet()
		f, err := parser.ParseFile(files, p, source, parser.ParseComments)
		if err != nil {
			return err
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv != nil || !strings.HasPrefix(fn.Name.Name, "Test") && !strings.HasPrefix(fn.Name.Name, "Fuzz") {
				continue
			}
			from := fn.Pos()
			if fn.Doc != nil {
				from = fn.Doc.Pos()
			}
			// A comment is broken over lines wherever it is full.
			text := strings.ReplaceAll(string(source[files.Position(from).Offset:files.Position(fn.End()).Offset]), "\n//", "")
			name := path.Dir(filepath.ToSlash(p)) + "." + fn.Name.Name
			all[name] = true
			found := map[string]bool{}
			for _, m := range caseName.FindAllStringSubmatch(text, -1) {
				found[m[1]+"."+m[2]] = true
			}
			for _, m := range caseText.FindAllStringSubmatch(text, -1) {
				for _, id := range caseID.FindAllString(m[1], -1) {
					found[id] = true
				}
			}
			for id := range found {
				by[id] = append(by[id], name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, names := range by {
		slices.Sort(names)
	}
	return by, all
}

// TestCases holds docs/cases.md to the tests: every case stands there once, in order, with the tests that hold it or with
// what it waits for.
func TestCases(t *testing.T) {
	const page = "docs/cases.md"
	by, all := testsByCase(t)
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for g, n := range cases {
		for i := range n {
			want = append(want, fmt.Sprintf("%d.%02d", g+1, i+1))
		}
	}
	var seen []string
	rows := strings.Split(string(text), "\n")
	for i, row := range rows {
		m := caseRow.FindStringSubmatch(row)
		if m == nil {
			continue
		}
		id, held := m[1], m[3]
		seen = append(seen, id)
		var names []string
		for _, name := range by[id] {
			names = append(names, "`"+name+"`")
		}
		if right := strings.Join(names, ", "); right != "" && right != held {
			if *update {
				rows[i] = fmt.Sprintf("| %s | %s | %s |", id, m[2], right)
				continue
			}
			t.Errorf("%s:%d: case %s is held by %s; go test -run TestCases -update . writes it", page, i+1, id, right)
		}
		for _, name := range caseTest.FindAllStringSubmatch(held, -1) {
			if !all[name[1]] && !*update {
				t.Errorf("%s:%d: case %s names %s, which does not exist", page, i+1, id, name[1])
			}
		}
		if len(names) == 0 && !strings.HasPrefix(held, "waits for ") {
			t.Errorf("%s:%d: case %s has no test; write one, or what it waits for", page, i+1, id)
		}
	}
	if !slices.Equal(seen, want) {
		t.Errorf("%s lists the cases %v; %v are wanted, in this order", page, seen, want)
	}
	for id := range by {
		if !slices.Contains(want, id) {
			t.Errorf("%v name case %s, which does not exist", by[id], id)
		}
	}
	if *update {
		if err := os.WriteFile(page, []byte(strings.Join(rows, "\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// said is what stands in the first column of docs/troubleshooting.md: messages in which … is anything.
func said(t *testing.T) map[string]*regexp.Regexp {
	t.Helper()
	patterns := map[string]*regexp.Regexp{}
	for line := range strings.Lines(readText(t, "..", "..", "docs", "troubleshooting.md")) {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if len(cells) != 3 || strings.Trim(cells[1]+cells[2], "| ") == "" {
			t.Errorf("not message, cause and remedy: %s", line)
			continue
		}
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[0], -1) {
			if len(strings.ReplaceAll(m[1], "…", "")) < 6 {
				t.Errorf("%q means anything", m[1])
			}
			parts := strings.Split(m[1], "…")
			for i := range parts {
				parts[i] = regexp.QuoteMeta(parts[i])
			}
			patterns[m[1]] = regexp.MustCompile(strings.Join(parts, ".+"))
		}
	}
	if len(patterns) < 100 {
		t.Fatalf("only %d messages", len(patterns))
	}
	return patterns
}

func matched(patterns map[string]*regexp.Regexp, text string) bool {
	for _, p := range patterns {
		if p.MatchString(text) {
			return true
		}
	}
	return false
}

// goldenFaults are the golden files that hold faults, from the package's folder.
func goldenFaults(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(home, "testdata", "scripts", "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for i := range files {
		files[i] = filepath.Join("testdata", "scripts", filepath.Base(files[i]))
	}
	return append(files, filepath.Join("testdata", "config_faults.golden"), filepath.Join("testdata", "kafka_faults.golden"))
}

// Every fault of the golden files is on the page.
func TestTroubleshootingHasEveryGoldenFault(t *testing.T) {
	patterns := said(t)
	faults := 0
	for _, name := range goldenFaults(t) {
		block := ""
		check := func() {
			// Several at once stand on a line each; the heading over them is a fault of its own.
			if block != "" {
				faults++
				if !matched(patterns, block) {
					t.Errorf("docs/troubleshooting.md has no line for this of %s:\n%s", name, block)
				}
			}
			block = ""
		}
		for line := range strings.Lines(readText(t, name)) {
			line = strings.TrimPrefix(line, "! ")
			switch {
			case strings.HasPrefix(line, "lapwing: "):
				check()
				block = line
			case strings.HasPrefix(line, "  ") && block != "":
				block += line
				if strings.HasSuffix(name, "faults.golden") && !strings.HasPrefix(line, "  next: ") && !matched(patterns, line) {
					t.Errorf("docs/troubleshooting.md has no line for this of %s:\n%s", name, line)
				}
			default:
				check()
			}
		}
		check()
	}
	if faults < 80 {
		t.Errorf("only %d faults were found", faults)
	}
}

// saying is one message in the sources, its verbs as ….
type saying struct{ at, text string }

var verbs = regexp.MustCompile(`%[-+# 0-9.*]*[a-zA-Z]`)

// sayings are the faults (what: and What: of a literal) and the log lines at Warn and Error of the program, and every text in it.
func sayings(t *testing.T) (faults, logs []saying, all string) {
	t.Helper()
	root := filepath.Join(home, "..", "..")
	var texts strings.Builder
	var text func(e ast.Expr) string
	text = func(e ast.Expr) string {
		switch e := e.(type) {
		case *ast.BasicLit:
			if s, err := strconv.Unquote(e.Value); err == nil {
				return s
			}
		case *ast.BinaryExpr:
			return text(e.X) + text(e.Y)
		case *ast.CallExpr:
			if s, ok := e.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "Sprintf" {
				return verbs.ReplaceAllString(text(e.Args[0]), "…")
			}
		}
		return "…"
	}
	files := token.NewFileSet()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || slices.Contains([]string{"build", "bin", "bench", "testdata", "compliance"}, d.Name())) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			at := func() string {
				p := files.Position(n.Pos())
				rel, _ := filepath.Rel(root, p.Filename)
				return rel + ":" + strconv.Itoa(p.Line)
			}
			switch n := n.(type) {
			case *ast.BasicLit:
				if n.Kind == token.STRING {
					texts.WriteString(verbs.ReplaceAllString(text(n), "…") + "\n")
				}
			case *ast.KeyValueExpr:
				if key, ok := n.Key.(*ast.Ident); ok && (key.Name == "what" || key.Name == "What") {
					faults = append(faults, saying{at(), text(n.Value)})
				}
			case *ast.CallExpr:
				// say is the poller's, who warns of what it deals with.
				if s, ok := n.Fun.(*ast.SelectorExpr); ok && len(n.Args) > 0 &&
					(s.Sel.Name == "Warn" || s.Sel.Name == "Error" || s.Sel.Name == "say" && strings.HasPrefix(at(), "stream/")) {
					logs = append(logs, saying{at(), text(n.Args[0])})
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return faults, logs, texts.String()
}

// Every fault that the sources word, and every log line at warn and error, is on the page; a new one needs a line there.
func TestTroubleshootingHasEveryFaultOfTheSources(t *testing.T) {
	patterns := said(t)
	faults, logs, _ := sayings(t)
	checked := 0
	for _, s := range append(faults, logs...) {
		// What comes from another room stands where that room words it.
		if len(strings.ReplaceAll(s.text, "…", "")) < 9 || strings.HasPrefix(s.at, "server/examine.go") || strings.HasPrefix(s.at, "cmd/lapwing/machine.go") {
			continue
		}
		checked++
		if !matched(patterns, strings.ReplaceAll(s.text, "…", "something")) {
			t.Errorf("%s: docs/troubleshooting.md has no line for: %s", s.at, s.text)
		}
	}
	if checked < 80 {
		t.Errorf("only %d messages were found", checked)
	}
}

// Every message on the page is one that the program can say: a golden file has it, or its fixed parts stand in the sources.
func TestTroubleshootingSaysWhatTheProgramSays(t *testing.T) {
	_, _, texts := sayings(t)
	var goldens strings.Builder
	for _, name := range goldenFaults(t) {
		goldens.WriteString(readText(t, name))
	}
	for message, pattern := range said(t) {
		if pattern.MatchString(goldens.String()) {
			continue
		}
		for part := range strings.SplitSeq(message, "…") {
			if part = strings.TrimSpace(part); len(part) > 5 && !strings.Contains(texts, part) {
				t.Errorf("nothing in the program says %q of %q", part, message)
			}
		}
	}
}

package main

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// allCommands are those that a user sees, by their path.
func allCommands() map[string]*cobra.Command {
	a := &app{world: world{out: &bytes.Buffer{}, err: &bytes.Buffer{}}, given: map[*pflagFlag]boundFlag{}}
	a.term = newTerminal(a.out, a.getenv)
	return walk(a.root())
}

func helpOf(t *testing.T, path string) string {
	t.Helper()
	out, stderr, code := runIn(t, nil, append(strings.Fields(path)[1:], "--help")...)
	if code != 0 || stderr != "" {
		t.Fatalf("%s --help: exit %d\n%s", path, code, stderr)
	}
	return out
}

// TestConfigurationPageHelp holds the help of every command to testdata/help, where it is read as a user would; -update
// writes it. Most flags are settings, so one name means these, the page and the schema.
func TestConfigurationPageHelp(t *testing.T) {
	dir := filepath.Join(home, "testdata", "help")
	stale := map[string]bool{}
	have, err := os.ReadDir(dir)
	if err != nil && !*update {
		t.Fatal(err)
	}
	for _, f := range have {
		stale[f.Name()] = true
	}
	for _, path := range slices.Sorted(maps.Keys(allCommands())) {
		name := strings.ReplaceAll(path, " ", "-") + ".txt"
		delete(stale, name)
		text := helpOf(t, path)
		if path != "lapwing" { // the same under every command
			text, _, _ = strings.Cut(text, "\nFlags of every command:\n")
		}
		golden(t, filepath.Join("help", name), []byte(text))
	}
	for name := range stale {
		if *update {
			os.Remove(filepath.Join(dir, name))
		} else {
			t.Errorf("testdata/help/%s is of no command", name)
		}
	}
}

func TestHelpIsWhole(t *testing.T) {
	for path, c := range allCommands() {
		if c.Example == "" || !strings.Contains(c.Example, "lapwing") {
			t.Errorf("%s has no example that is a command line: %q", path, c.Example)
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short text %q", path, c.Short)
		}
		out := helpOf(t, path)
		if !strings.Contains(out, "Examples:\n") || strings.Contains(out, "Flags:\n\n") || strings.Contains(out, "(default )") {
			t.Errorf("%s --help:\n%s", path, out)
		}
		for line := range strings.Lines(out) {
			if line = strings.TrimSuffix(line, "\n"); cells(line) > 100 {
				t.Errorf("%s --help: %d cells: %s", path, cells(line), line)
			}
		}
	}
}

// Every example in a help text parses as what it is: a command and flags that exist.
func TestHelpExamplesExist(t *testing.T) {
	commands := allCommands()
	checked := 0
	for path, c := range commands {
		for line := range strings.Lines(c.Example) {
			_, rest, ok := strings.Cut(line, "lapwing ")
			if !ok || strings.HasPrefix(strings.TrimSpace(line), "#") {
				continue
			}
			rest, _, _ = strings.Cut(rest, " #")
			rest = strings.NewReplacer("(", " ", ")", " ").Replace(rest)
			var words []string
			for _, w := range strings.Fields(rest) {
				if strings.ContainsAny(w[:1], "|>&") {
					break
				}
				words = append(words, w)
			}
			cmd, args, err := commands["lapwing"].Find(words)
			if err != nil || cmd == commands["lapwing"] {
				t.Errorf("%s: %q is no command: %v", path, strings.TrimSpace(line), err)
				continue
			}
			for _, w := range args {
				name, _, _ := strings.Cut(strings.TrimLeft(w, "-"), "=")
				if strings.HasPrefix(w, "--") && cmd.Flag(name) == nil {
					t.Errorf("%s: %q: there is no %s", path, strings.TrimSpace(line), w)
				}
			}
			checked++
		}
	}
	if checked < len(commands) {
		t.Errorf("only %d examples of %d commands", checked, len(commands))
	}
}

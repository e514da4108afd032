//go:build e2e

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/lapwing-stream/lapwing/stream"
)

var shBlock = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// Every fenced sh block of the README and docs runs, in order, page by page, against a broker of its own. A page is
// one bash session; what it leaves in the background ends with it. Blocks that only show output are fenced as text.
func TestDocsRun(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	pages = append([]string{filepath.Join(root, "README.md")}, pages...)
	bin := filepath.Dir(lapwing(t))
	ran := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		blocks := shBlock.FindAllSubmatch(text, -1)
		if len(blocks) == 0 {
			continue
		}
		ran += len(blocks)
		t.Run(filepath.Base(page), func(t *testing.T) {
			broker, err := stream.Embed(stream.EmbeddedOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer broker.Close()
			var script bytes.Buffer
			script.WriteString("set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n")
			for i, b := range blocks {
				fmt.Fprintf(&script, "echo '--- block %d' >&2\n%s\n", i+1, b[1])
			}
			dir := t.TempDir()
			if err := os.CopyFS(filepath.Join(dir, "examples"), os.DirFS(filepath.Join(root, "examples"))); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "bash", "-s")
			cmd.Dir, cmd.Stdin = dir, &script
			cmd.Env = append(os.Environ(), "LAPWING_KAFKA_BOOTSTRAP_SERVERS="+broker.Addr(), "LAPWING_HTTP=127.0.0.1:0",
				"PATH="+bin+string(os.PathListSeparator)+filepath.Dir(os.Getenv("LAPWING_PYTHON"))+string(os.PathListSeparator)+os.Getenv("PATH"))
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
			cmd.WaitDelay = 10 * time.Second
			if err := cmd.Run(); err != nil {
				t.Errorf("%v\n%s", err, indent(out.String()))
			}
		})
	}
	if ran == 0 {
		t.Error("no fenced sh block was found")
	}
}

func indent(s string) string { return "    " + strings.ReplaceAll(s, "\n", "\n    ") }

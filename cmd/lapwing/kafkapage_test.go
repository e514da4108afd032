package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every configuration on the pages about brokers is one: it loads without a fault, and what it names as a secret's file is read and
// not shown.
func TestConfigurationsOnPages(t *testing.T) {
	for _, page := range []string{"kafka.md", "security.md"} {
		text, err := os.ReadFile(filepath.Join("../../docs", page))
		if err != nil {
			t.Fatal(err)
		}
		blocks := strings.Split(string(text), "```yaml\n")[1:]
		if len(blocks) < 3 {
			t.Fatalf("%s has %d configurations", page, len(blocks))
		}
		for _, block := range blocks {
			block, _, _ = strings.Cut(block, "```")
			secret := filepath.Join(t.TempDir(), "secret")
			writeFile(t, secret, "marker-of-a-secret\n")
			var lines []string
			secrets := 0
			for line := range strings.Lines(block) {
				if name, _, ok := strings.Cut(line, ".file: "); ok {
					secrets++
					line = name + ".file: " + secret + "\n"
				}
				lines = append(lines, line)
			}
			file := filepath.Join(t.TempDir(), "lapwing.yaml")
			writeFile(t, file, strings.Join(lines, ""))
			out, stderr, code := runIn(t, nil, "config", "--config", file)
			if code != exitOK {
				t.Errorf("%s: lapwing config ends with %d: %s\n%s", page, code, stderr, block)
			}
			if strings.Contains(out, "marker") || strings.Count(out, hidden) < secrets {
				t.Errorf("%s: a secret is shown, or was not read:\n%s", page, out)
			}
			if !strings.Contains(out, "security.protocol") {
				t.Errorf("%s: the connection is not secured:\n%s", page, block)
			}
		}
	}
}

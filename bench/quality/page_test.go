package quality

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// pageMark stands over tables of docs/quality.md: tables, or a summary, of a file beside it that --json wrote.
var pageMark = regexp.MustCompile(`<!-- (tables|summary) of (quality[a-z-]*\.json)[^\n]*-->\n`)

// No figure in the tables of docs/quality.md is typed by hand: they are those of runs, whose JSON stands beside the page.
func TestQualityPage(t *testing.T) {
	docs := filepath.Join("..", "..", "docs")
	page, err := os.ReadFile(filepath.Join(docs, "quality.md"))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	end, at, marks := []byte("<!-- end -->\n"), 0, pageMark.FindAllSubmatchIndex(page, -1)
	if len(marks) < 3 {
		t.Fatalf("docs/quality.md has %d marks over its tables, want 3", len(marks))
	}
	for _, m := range marks {
		raw, err := os.ReadFile(filepath.Join(docs, string(page[m[4]:m[5]])))
		if err != nil {
			t.Fatal(err)
		}
		var r Report
		if err := json.Unmarshal(raw, &r); err != nil {
			t.Fatal(err)
		}
		length := bytes.Index(page[m[1]:], end)
		if length < 0 {
			t.Fatalf("%s is not closed", page[m[0]:m[1]-1])
		}
		out.Write(page[at:m[1]])
		out.WriteByte('\n')
		if err := r.Markdown(&out, string(page[m[2]:m[3]]) == "summary"); err != nil {
			t.Fatal(err)
		}
		out.WriteByte('\n')
		at = m[1] + length
	}
	out.Write(page[at:])
	golden(t, filepath.Join(docs, "quality.md"), out.Bytes())
}

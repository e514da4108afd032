package quality

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// The tables of docs/quality.md are those of docs/quality.json, which is what
// lapwing bench quality --data ../shared/data --sets 'adbench/*' --json wrote: no figure on the page is typed by hand.
func TestQualityPage(t *testing.T) {
	docs := filepath.Join("..", "..", "docs")
	raw, err := os.ReadFile(filepath.Join(docs, "quality.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r Report
	if err := json.Unmarshal(raw, &r); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(docs, "quality.md"))
	if err != nil {
		t.Fatal(err)
	}
	begin, end := []byte("-update -->\n"), []byte("<!-- end -->\n")
	from, to := bytes.Index(page, begin)+len(begin), bytes.Index(page, end)
	if from < len(begin) || to < from {
		t.Fatal("docs/quality.md has lost the marks around its tables")
	}
	var tables bytes.Buffer
	if err := r.Markdown(&tables); err != nil {
		t.Fatal(err)
	}
	want := bytes.Join([][]byte{page[:from], []byte("\n"), tables.Bytes(), []byte("\n"), page[to:]}, nil)
	golden(t, filepath.Join(docs, "quality.md"), want)
}

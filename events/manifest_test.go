package events

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A setEntry is what the manifest of the public sets says of one file.
type setEntry struct {
	File     string
	Set      string
	Header   bool
	Rows     int
	Features []string
	Label    *string
	Exclude  []string
	Time     *string
	Key      *string
}

func (e *setEntry) column(name *string) string {
	switch {
	case name == nil:
		return ""
	case *name == "(first column, no name)":
		return "column_1"
	}
	return *name
}

// TestManifestSets opens every file of the public sets as load does: the header has the columns that the manifest
// names, all rows are read and none is rejected, and inference takes every feature that is not constant.
func TestManifestSets(t *testing.T) {
	dir := dataDir(t, "the files of manifest.json")
	text, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var sets []setEntry
	if err := json.Unmarshal(text, &sets); err != nil || len(sets) == 0 {
		t.Fatalf("%d sets, %v", len(sets), err)
	}
	if n := len(sets); n < 80 {
		t.Errorf("only %d files in the manifest", n)
	}
	for _, set := range sets {
		if raceDetector && set.Rows > 3000 {
			continue
		}
		t.Run(set.File, func(t *testing.T) {
			t.Parallel()
			o := FileOptions{NoHeader: !set.Header, Key: set.column(set.Key), Time: set.column(set.Time)}
			switch set.Set {
			case "ims-bearing":
				o.TimeLayout = "2006.01.02.15.04.05"
			case "creditcard":
				o.TimeUnit = "s" // seconds since the first row: no unit can be told from them
			}
			f, err := OpenFile(filepath.Join(dir, set.File), o)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			want := slices.Clone(set.Features)
			if !set.Header {
				want = nil
			}
			for _, name := range append([]string{set.column(set.Label), o.Key, o.Time}, set.Exclude...) {
				if name != "" && name != "(first column, no name)" {
					want = append(want, name)
				}
			}
			for _, name := range want {
				if !slices.Contains(f.header, name) {
					t.Errorf("no column %q in %q", name, f.header)
				}
			}
			rows := 0
			var sample [][]byte
			for {
				e, err := f.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				rows++
				if o.Time != "" && e.Time == NoTime || o.Key != "" && e.Key == nil {
					t.Fatalf("line %d has no time or key", e.Line)
				}
				if len(sample) < 2000 {
					sample = append(sample, e.Value)
				}
			}
			if rows != set.Rows {
				t.Errorf("%d rows, the manifest says %d", rows, set.Rows)
			}
			if !set.Header {
				return
			}
			io := InferOptions{Label: set.column(set.Label), Key: o.Key, TimeField: o.Time}
			for _, name := range set.Exclude {
				if name = set.column(&name); name != io.TimeField {
					io.Exclude = append(io.Exclude, name)
				}
			}
			spec, notes, err := Infer(sample, io)
			said := map[string]string{}
			for _, n := range notes {
				said[n.Name] = n.Note
			}
			if err != nil && (len(set.Features) > 1 || said[set.Features[0]][:19] != "left out: constant ") {
				t.Fatal(err)
			}
			var inferred []string
			for _, field := range spec.Fields {
				inferred = append(inferred, field.Name)
				if !slices.Contains(set.Features, field.Name) {
					t.Errorf("%s became a feature and is none", field.Name)
				}
			}
			for _, name := range set.Features {
				if !slices.Contains(inferred, name) && (len(said[name]) < 19 || said[name][:19] != "left out: constant ") {
					t.Errorf("%s is no feature: %q", name, said[name])
				}
			}
		})
	}
}

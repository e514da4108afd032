package events

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lapwing-stream/lapwing/model"
)

// One rule at loading, training and scoring: a file that was loaded as JSON gives the rows that its raw lines give
// under a CSV spec, whatever stands in its cells.
func agree(t *testing.T, name string, content []byte, o FileOptions) int {
	t.Helper()
	loaded, err := newFile(name, io.NopCloser(bytes.NewReader(content)), o)
	if err != nil {
		return 0
	}
	defer loaded.Close()
	o.Raw = true
	raw, err := newFile(name, io.NopCloser(bytes.NewReader(content)), o)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	asJSON := model.Spec{Format: "json", Time: &model.Time{Field: Path(loaded.header[0]), Unit: "s"}}
	asCSV := model.Spec{Format: "csv", Header: loaded.header, Delimiter: string(loaded.csv.delim), Time: &model.Time{Field: loaded.header[0], Unit: "s"}}
	for i, h := range loaded.header {
		kind := []model.FieldType{model.Number, model.Boolean}[i%2]
		asJSON.Fields = append(asJSON.Fields, model.Field{Name: Path(h), Type: kind})
		asCSV.Fields = append(asCSV.Fields, model.Field{Name: h, Type: kind})
	}
	a, err := Compile(asJSON)
	if err != nil {
		return 0 // a header that no path can name, such as one with bytes that are not UTF-8
	}
	b, err := Compile(asCSV)
	if err != nil {
		t.Fatal(err)
	}
	rowA, rowB := make([]float32, a.Columns()), make([]float32, b.Columns())
	for n := 0; ; n++ {
		e1, err1 := loaded.Next()
		e2, err2 := raw.Next()
		var row *RowError
		if errors.As(err1, &row) && err2 == nil {
			// Raw lines are not checked when they are loaded; what reads them rejects them then.
			if e2.Line != row.Line || b.Decode(e2.Value, rowB).Outcome != Rejected {
				t.Fatalf("line %d: loaded %v, raw %q", e2.Line, err1, e2.Value)
			}
			continue
		}
		if (err1 == nil) != (err2 == nil) || e1.Line != e2.Line {
			t.Fatalf("row %d: loaded %v, raw %v", n, err1, err2)
		}
		if errors.Is(err1, io.EOF) {
			return n
		}
		if err1 != nil {
			if row == nil {
				return n
			}
			continue
		}
		r1, r2 := a.Decode(e1.Value, rowA), b.Decode(e2.Value, rowB)
		if r2.Reason == ReasonEmpty && len(loaded.header) == 1 {
			continue // a row of one quoted empty cell
		}
		r1.Detail, r2.Detail = "", ""
		if r1 != r2 || fmt.Sprint(rowA) != fmt.Sprint(rowB) {
			t.Fatalf("line %d: %s is %+v %v, %q is %+v %v", e1.Line, e1.Value, r1, rowA, e2.Value, r2, rowB)
		}
	}
}

func TestLoadedAndRawAgree(t *testing.T) {
	for name, content := range messyCopies() {
		if strings.HasSuffix(name, ".csv") && name != "02-utf16le.csv" {
			agree(t, name, content, FileOptions{})
		}
	}
	dir := dataDir(t, "loaded and raw rows of the car sensor set")
	path := filepath.Join(dir, "car-sensors", "car-sensor-data.csv")
	r := read(t, path, FileOptions{}).counts(10000)
	raw := read(t, path, FileOptions{Raw: true}).counts(10000)
	spec := numbers(carFields...)
	loaded := r.decode(spec)
	spec.Format, spec.Header = "csv", r.header
	for i, row := range raw.decode(spec).rows {
		if fmt.Sprint(row) != fmt.Sprint(loaded.rows[i]) {
			t.Fatalf("row %d: raw %v, loaded %v", i, row, loaded.rows[i])
		}
	}
}

func FuzzLoadedAndRaw(f *testing.F) {
	for name, content := range messyCopies() {
		if strings.HasSuffix(name, ".csv") {
			f.Add(content)
		}
	}
	for _, cell := range []string{"+5", ".5", "5.", "007", "-007.5", `" 7.5 "`, "1e400", "-0", "inf", "n/a", "TRUE", `"a""b"`, "1600000001", "\xff", "\t1\t", `"1` + "\t" + `"`} {
		f.Add([]byte("t,b,c\n" + cell + "," + cell + "," + cell + "\n"))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		agree(t, "f.csv", content, FileOptions{Delimiter: ','})
	})
}

// Path is the inverse of SplitPath: it writes keys as one field name: joined by dots, with a dot or backslash inside a key escaped by a backslash.
func Path(keys ...string) string {
	var b strings.Builder
	for i, k := range keys {
		if i > 0 {
			b.WriteByte('.')
		}
		for j := 0; j < len(k); j++ {
			if k[j] == '.' || k[j] == '\\' {
				b.WriteByte('\\')
			}
			b.WriteByte(k[j])
		}
	}
	return b.String()
}

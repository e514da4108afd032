package events

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/lapwing-stream/lapwing/model"
)

// dataDir is the folder of public sets; where it is absent the test that asks for it is skipped, loudly.
func dataDir(t testing.TB, what string) string {
	t.Helper()
	dir := os.Getenv("LAPWING_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared", "data")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("SKIPPED-DATA: %s ($LAPWING_DATA, default ../shared/data)", what)
	}
	return dir
}

// A reading is all that came of a file.
type reading struct {
	t        *testing.T
	openErr  error
	err      error // what ended it, if not the end
	entries  []Entry
	rejects  []*RowError
	warnings string
	header   []string
}

func read(t *testing.T, path string, o FileOptions) *reading {
	t.Helper()
	r := &reading{t: t}
	f, err := OpenFile(path, o)
	if err != nil {
		r.openErr = err
		return r
	}
	defer f.Close()
	r.header = f.header
	for {
		e, err := f.Next()
		var row *RowError
		switch {
		case err == nil:
			r.entries = append(r.entries, e)
			continue
		case errors.As(err, &row):
			r.rejects = append(r.rejects, row)
			continue
		case !errors.Is(err, io.EOF):
			r.err = err
		}
		break
	}
	r.warnings = strings.Join(f.Warnings(), "\n")
	return r
}

// counts checks how many rows were read and which lines were rejected.
func (r *reading) counts(rows int, rejected ...int) *reading {
	r.t.Helper()
	if r.openErr != nil || r.err != nil {
		r.t.Fatalf("open: %v, read: %v", r.openErr, r.err)
	}
	if len(r.entries) != rows {
		r.t.Errorf("%d rows read, want %d", len(r.entries), rows)
	}
	var lines []int
	for _, e := range r.rejects {
		lines = append(lines, e.Line)
	}
	if fmt.Sprint(lines) != fmt.Sprint(rejected) {
		r.t.Errorf("rejected lines %v, want %v: %v", lines, rejected, r.rejects)
	}
	return r
}

func (r *reading) rejectedWith(line int, words string) {
	r.t.Helper()
	for _, e := range r.rejects {
		if e.Line == line {
			if !strings.Contains(e.Error(), words) || !strings.Contains(e.Error(), fmt.Sprintf(":%d:", line)) {
				r.t.Errorf("line %d rejected with %q, want %q in it", line, e, words)
			}
			return
		}
	}
	r.t.Errorf("line %d was not rejected", line)
}

func (r *reading) warned(words ...string) {
	r.t.Helper()
	for _, w := range words {
		if !strings.Contains(r.warnings, w) {
			r.t.Errorf("no warning with %q in: %s", w, r.warnings)
		}
	}
}

func (r *reading) refused(words ...string) {
	r.t.Helper()
	if r.openErr == nil {
		r.t.Fatal("not refused")
	}
	for _, w := range words {
		if !strings.Contains(r.openErr.Error(), w) {
			r.t.Errorf("refused with %q, want %q in it", r.openErr, w)
		}
	}
}

func (r *reading) value(i int, want string) {
	r.t.Helper()
	if got := string(r.entries[i].Value); got != want {
		r.t.Errorf("row %d is %.200s, want %s", i+1, got, want)
	}
}

// decoded is the entries as rows of a spec.
type decoded struct {
	t    *testing.T
	d    *Decoder
	rows [][]float32
	res  []Result
}

func (r *reading) decode(spec model.Spec) *decoded {
	r.t.Helper()
	out := &decoded{t: r.t, d: mustCompile(r.t, spec)}
	for _, e := range r.entries {
		row := make([]float32, out.d.Columns())
		res := out.d.Decode(e.Value, row)
		if res.Outcome == Rejected {
			r.t.Fatalf("line %d: the entry %s was rejected: %+v", e.Line, e.Value, res)
		}
		out.rows = append(out.rows, row)
		out.res = append(out.res, res)
	}
	return out
}

// column checks one column; NaN stands for missing.
func (d *decoded) column(col int, want ...float32) {
	d.t.Helper()
	if len(d.rows) != len(want) {
		d.t.Fatalf("%d rows, want %d", len(d.rows), len(want))
	}
	for i, w := range want {
		if got := d.rows[i][col]; got != w && !(got != got && w != w) {
			d.t.Errorf("row %d column %d is %v, want %v", i+1, col, got, w)
		}
	}
}

var (
	missing = float32(math.NaN())
	inf     = float32(math.Inf(1))
)

// messyChecks says what right means for each file of the messy folder.
var messyChecks = map[string]func(t *testing.T, path string){
	"01-bom-quoted-header.csv": func(t *testing.T, path string) {
		r := read(t, path, FileOptions{}).counts(40)
		if fmt.Sprint(r.header) != "[temp load vibration]" {
			t.Errorf("header %q", r.header)
		}
		r.value(0, `{"temp":62.59,"load":0.43,"vibration":3.592}`)
	},
	"02-utf16le.csv": func(t *testing.T, path string) {
		r := read(t, path, FileOptions{}).counts(20)
		r.value(0, `{"temp":62.59,"load":0.43,"vibration":3.592}`)
	},
	"03-semicolon-decimal-comma.csv": func(t *testing.T, path string) {
		r := read(t, path, FileOptions{Delimiter: ';', DecimalComma: true, Encoding: "latin1",
			Time: "zeit", TimeLayout: "02.01.2006 15:04:05"}).counts(20)
		r.value(0, `{"zeit":"01.11.2025 08:01:00","temperatur_°C":62.59,"drehzahl":1669.4,"last":0.430}`)
		if want := time.Date(2025, 11, 1, 8, 1, 0, 0, time.UTC).UnixMilli(); r.entries[0].Time != want {
			t.Errorf("time %d, want %d", r.entries[0].Time, want)
		}
		r = read(t, path, FileOptions{}).counts(20)
		r.warned("decimal comma", "--decimal-comma", "not UTF-8 (column 2)")
		r.value(0, "{\"zeit\":\"01.11.2025 08:01:00\",\"temperatur_\uFFFDC\":\"62,59\",\"drehzahl\":\"1.669,4\",\"last\":\"0,430\"}")
	},
	"04-ragged.csv": func(t *testing.T, path string) {
		r := read(t, path, FileOptions{}).counts(36, 6, 10)
		r.rejectedWith(6, "4 fields, header has 3")
		r.rejectedWith(10, "2 fields, header has 3")
		d := r.decode(numbers("temp", "load", "vibration"))
		if n := d.d.MissingByField(); fmt.Sprint(n) != "[0 0 1]" {
			t.Errorf("missing %v, want [0 0 1]", n)
		}
	},
	"05-quoted-newlines.csv": func(t *testing.T, path string) {
		r := read(t, path, FileOptions{Key: "name"}).counts(4)
		d := r.decode(numbers("temp", "load"))
		d.column(0, 61.5, 62.25, 63.75, 64.5)
		d.column(1, 0.41, 0.44, 0.47, 0.50)
		for i, want := range []string{"pump, north", `pump "B"`, "pump\nC", "D"} {
			if got := string(r.entries[i].Key); got != want {
				t.Errorf("name %q, want %q", got, want)
			}
		}
		if r.entries[3].Line != 8 {
			t.Errorf("the last row is on line %d, want 8", r.entries[3].Line)
		}
	},
	"06-duplicate-header.csv": func(t *testing.T, path string) {
		read(t, path, FileOptions{}).refused(`"temp" in columns 1, 3 and 6`, `"load" in columns 2 and 4`)
		r := read(t, path, FileOptions{Columns: []string{"a", "b", "c", "d", "e", "f"}}).counts(20)
		d := r.decode(numbers("a", "c", "f"))
		for i, row := range d.rows {
			if math.Abs(float64(row[1]-row[0]-1)) > 1e-4 || math.Abs(float64(row[2]-row[0]-2)) > 1e-4 {
				t.Errorf("row %d: columns 1, 3 and 6 are %v", i+1, row)
			}
		}
	},
	"07-empty.csv": func(t *testing.T, path string) {
		read(t, path, FileOptions{}).refused("empty, no header")
	},
	"08-header-only.csv": func(t *testing.T, path string) {
		read(t, path, FileOptions{}).counts(0).warned("no rows")
	},
	"09-not-finite.csv": func(t *testing.T, path string) {
		r := read(t, path, FileOptions{}).counts(36)
		d := r.decode(numbers("temp", "load"))
		for i, res := range d.res {
			v := d.rows[i][0]
			id := i + 1
			switch {
			case id <= 3, id >= 12 && id <= 16, id >= 18 && id <= 22: // spellings of NaN, and missing-value words
				if v == v || res.Outcome != OK || res.Missing != 1 {
					t.Errorf("id %d: %v %+v, want missing", id, v, res)
				}
			case id <= 10, id == 34, id == 35:
				if res.Outcome != NotFinite || !math.IsInf(float64(v), 0) {
					t.Errorf("id %d: %v %+v, want not finite", id, v, res)
				}
			case id == 17, id >= 23 && id <= 29: // no number, and no missing-value word either
				if v == v || res.Missing != 1 {
					t.Errorf("id %d: %v %+v, want missing as a wrong type", id, v, res)
				}
			default:
				want := map[int]float32{11: 0, 30: 5, 31: 0.5, 32: 5, 33: 0, 36: 7.5}[id]
				if v != want || res.Outcome != OK {
					t.Errorf("id %d: %v %+v, want %v", id, v, res, want)
				}
			}
		}
		if n := d.d.WrongTypeByField()[0]; n != 8 {
			t.Errorf("%d values of a wrong type, want 8", n)
		}
	},
	"10-numbers.jsonl": func(t *testing.T, path string) {
		r := read(t, path, FileOptions{Key: "id"}).counts(18, 2, 3, 4, 20, 21)
		for _, line := range []int{2, 3, 4, 20, 21} {
			r.rejectedWith(line, "byte 1")
		}
		d := r.decode(numbers("temp", "load"))
		// ids:       1     5    6                 7                      8     9     10    11       12       13       14
		d.column(0, 61.5, inf, 9007199254740993, 412345678901234567890, 61.5, 61.5, 61.5, missing, missing, missing, missing,
			// 15, 16, 17, 18, 19, 22, the last
			missing, missing, missing, 0, inf, 61.5, 61.5)
		for i, row := range d.rows {
			if row[1] != 0.5 {
				t.Errorf("row %d: load %v", i+1, row[1])
			}
		}
		c := d.d.Counts()[0]
		if c.NotFinite != 2 || c.NumericText != 1 || c.WrongText != 1 || c.WrongBool != 1 || c.WrongArray != 1 ||
			c.WrongObject != 1 || c.Null != 2 || c.Absent != 1 {
			t.Errorf("%+v", c)
		}
		if last := r.entries[17]; string(last.Key) != "45035996273704963" {
			t.Errorf("the last id is %s", last.Key)
		}
	},
	"11-nested.jsonl": func(t *testing.T, path string) {
		r := read(t, path, FileOptions{}).counts(9)
		d := r.decode(numbers("engine.temp", "engine.stats.max", "sensors.0.value", "sensors.1.value", `engine\.temp`))
		d.column(0, 61.5, 62.5, 63.5, missing, 64.5, 66.5, missing, 67.5, missing)
		d.column(1, 70, 71, missing, missing, 72, 73, missing, 74, missing)
		d.column(2, 1.0, 1.1, missing, 1.2, missing, 1.4, 1.5, missing, 1.6)
		d.column(3, 2.0, missing, missing, 2.2, missing, missing, missing, missing, missing)
		d.column(4, missing, missing, missing, missing, missing, 65.5, missing, missing, missing)
	},
	"12-duplicate-keys.jsonl": func(t *testing.T, path string) {
		read(t, path, FileOptions{}).counts(8).decode(numbers("temp")).column(0, 99, 1, 1, 2, 3, 5, 6, 8)
	},
	"13-truncated.jsonl": func(t *testing.T, path string) {
		r := read(t, path, FileOptions{}).counts(4, 4, 5, 6, 7, 8, 9, 10, 11, 14)
		r.rejectedWith(14, "unexpected end")
		r.rejectedWith(4, "an array, not a JSON object")
		d := r.decode(numbers("temp", "load"))
		d.column(0, 61.5, 61.6, 62.3, 62.4)
		d.column(1, 0.5, 0.5, 0.5, 0.6)
	},
	"14-mixed-types.jsonl": func(t *testing.T, path string) {
		r := read(t, path, FileOptions{}).counts(60)
		d := r.decode(numbers("temp", "load"))
		c := d.d.Counts()[0]
		if c.Read != 20 || c.NumericText != 10 || c.Null != 10 || c.WrongBool != 10 || c.WrongText != 10 {
			t.Errorf("%+v", c)
		}
		var values [][]byte
		for _, e := range r.entries {
			values = append(values, e.Value)
		}
		spec, notes, err := Infer(values, InferOptions{})
		if err != nil {
			t.Fatal(err)
		}
		types := map[string]string{}
		for _, f := range spec.Fields {
			types[f.Name] = string(f.Type) + fmt.Sprint(f.Categories)
		}
		want := map[string]string{"temp": "number[]", "load": "number[]", "machine": "category[m0 m1 m2]", "mode": "category[RUN idle run]"}
		if fmt.Sprint(types) != fmt.Sprint(want) {
			t.Errorf("inferred %v, want %v", types, want)
		}
		said := fmt.Sprint(notes)
		for _, w := range []string{"numbers 20, numbers in text 10, true or false 10, other text 10, null or empty 10 of 60", "seq left out: a counter"} {
			if !strings.Contains(said, w) {
				t.Errorf("no note with %q in %s", w, said)
			}
		}
	},
	"15-timestamps.csv": func(t *testing.T, path string) {
		const at = 1600000001000 // 2020-09-13T12:26:41Z
		// By n: the time under unit s; NoTime for missing; absent for a rejected row.
		want := map[int]int64{1: at, 4: at + 250, 5: at, 6: at, 9: at, 10: at + 123, 11: at, 15: 0, 16: -1000,
			17: 253402300799000, 18: NoTime}
		r := read(t, path, FileOptions{Time: "ts", TimeUnit: "s", Key: "n"}).counts(len(want), 3, 4, 8, 9, 13, 14, 15, 20)
		for _, e := range r.entries {
			var n int
			fmt.Sscan(string(e.Key), &n)
			if w, ok := want[n]; !ok || w != e.Time {
				t.Errorf("n %d: time %d, want %d (%v)", n, e.Time, w, ok)
			}
		}
		r.rejectedWith(3, "column ts: \"1600000001000\" under unit s: looks like milliseconds")
		r.rejectedWith(4, "looks like microseconds")
		r.rejectedWith(13, `set --time-layout "2006.01.02.15.04.05"`)
		r = read(t, path, FileOptions{Time: "ts", TimeUnit: "ms"})
		r.rejectedWith(2, "looks like seconds")
		r.rejectedWith(4, "looks like microseconds")
		r = read(t, path, FileOptions{Time: "ts", TimeUnit: "us"})
		r.rejectedWith(2, "looks like seconds")
		r.rejectedWith(3, "looks like milliseconds")
		for layout, n := range map[string]int{"02.01.2006 15:04:05": 7, "01/02/2006 15:04:05 PM": 8, "2006.01.02.15.04.05": 12} {
			r := read(t, path, FileOptions{Time: "ts", TimeLayout: layout, Key: "n"})
			found := false
			for _, e := range r.entries {
				if string(e.Key) == fmt.Sprint(n) {
					found = true
					w := int64(at)
					if n == 12 {
						w = time.Date(2004, 2, 12, 10, 32, 39, 0, time.UTC).UnixMilli()
					}
					if e.Time != w {
						t.Errorf("layout %s: time %d, want %d", layout, e.Time, w)
					}
				} else if e.Time != NoTime {
					t.Errorf("layout %s: n %s has time %d", layout, e.Key, e.Time)
				}
			}
			if !found {
				t.Errorf("layout %s: n %d was not read", layout, n)
			}
		}
		// The decoder goes by the same rule, and keeps the record: its time is then Kafka's.
		spec := numbers("temp")
		spec.Time = &model.Time{Field: "ts", Unit: "s"}
		d := read(t, path, FileOptions{}).counts(19).decode(spec)
		for i, res := range d.res {
			w, ok := want[i+1]
			if ok = ok && w != NoTime; res.TimeOK != ok || ok && res.Time != w {
				t.Errorf("n %d: decoded time %d %v %q, want %d %v", i+1, res.Time, res.TimeOK, res.TimeReason, w, ok)
			}
		}
	},
	"16-line-ends.csv": func(t *testing.T, path string) {
		r := read(t, path, FileOptions{}).counts(4)
		r.decode(numbers("vibration")).column(0, 3.1, 3.2, 3.3, 3.4)
		for _, e := range r.entries {
			if bytes.Contains(e.Value, []byte(`\r`)) {
				t.Errorf("%s", e.Value)
			}
		}
	},
	"17-nul-bytes.csv": func(t *testing.T, path string) {
		r := read(t, path, FileOptions{}).counts(3, 3, 4, 6)
		r.rejectedWith(3, "column load: NUL byte")
		r.rejectedWith(6, "NUL byte")
	},
	"18-trailing-garbage.csv.gz": func(t *testing.T, path string) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		read(t, path, FileOptions{}).counts(40).warned(fmt.Sprintf("byte %d ", info.Size()-30))
	},
	"19-concatenated.csv.gz": func(t *testing.T, path string) {
		r := read(t, path, FileOptions{}).counts(40)
		if d := r.decode(numbers("temp", "load", "vibration")); fmt.Sprint(d.d.MissingByField()) != "[0 0 0]" || r.warnings != "" {
			t.Errorf("missing %v, warnings %q", d.d.MissingByField(), r.warnings)
		}
	},
}

// TestMessyFiles runs the checks over the project's folder of messy files.
func TestMessyFiles(t *testing.T) {
	dir := filepath.Join(dataDir(t, "the 19 messy files"), "messy")
	files, err := filepath.Glob(filepath.Join(dir, "[0-9]*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in %s: %v", dir, err)
	}
	for _, path := range files {
		name := filepath.Base(path)
		t.Run(name, func(t *testing.T) {
			check, ok := messyChecks[name]
			if !ok {
				t.Fatal("no check for this file")
			}
			check(t, path)
		})
	}
}

// TestMessyCopies runs the same checks over files made here with the same faults, so that they always run.
func TestMessyCopies(t *testing.T) {
	dir := t.TempDir()
	made := messyCopies()
	for name, check := range messyChecks {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name)
			content, ok := made[name]
			if !ok {
				t.Fatal("no copy of this file")
			}
			if err := os.WriteFile(path, content, 0o644); err != nil {
				t.Fatal(err)
			}
			check(t, path)
		})
	}
}

// plainRows are n rows of temp, load and vibration; the first is fixed.
func plainRows(n int, sep, eol string) string {
	var b strings.Builder
	for i := range n {
		temp, load := 62.59+float64(i*7%40)/10, 0.43+float64(i*3%17)/100
		vibration := 3.592
		if i > 0 {
			vibration = 3 + load + temp/200
		}
		fmt.Fprintf(&b, "%.2f%s%.2f%s%.3f%s", temp, sep, load, sep, vibration, eol)
	}
	return b.String()
}

func gzipped(parts ...string) []byte {
	var b bytes.Buffer
	for _, p := range parts {
		w := gzip.NewWriter(&b)
		io.WriteString(w, p)
		w.Close()
	}
	return b.Bytes()
}

func messyCopies() map[string][]byte {
	const header = "temp,load,vibration\n"
	lines := strings.SplitAfter(header+plainRows(40, ",", "\n"), "\n")
	text := map[string]string{
		"01-bom-quoted-header.csv": "\xEF\xBB\xBF\"temp\",\"load\",\"vibration\"\r\n" + plainRows(40, ",", "\r\n"),
		"07-empty.csv":             "",
		"08-header-only.csv":       header,
		"16-line-ends.csv":         "temp,load,vibration\r\n61.1,0.41,3.1\r\n61.2,0.42,3.2\n61.3,0.43,3.3\r\n\r\n61.4,0.44,3.4\n",
		"17-nul-bytes.csv":         header + "61.1,0.41,3.1\n61.2,0.4\x002,3.2\n\x00\x00\x00\n61.3,0.43,3.3\n61.4,0.44,3.4\x00\n61.5,0.45,3.5\n",
		"05-quoted-newlines.csv": "name,temp,load,note\n\"pump, north\",61.5,0.41,\"fine\"\n\"pump \"\"B\"\"\",62.25,0.44,\"one\ntwo\"\n" +
			"\"pump\nC\",63.75,0.47,\"x\r\ny\"\nD,64.5,0.50,\"done\"",
		"11-nested.jsonl": `{"id":1,"engine":{"temp":61.5,"stats":{"max":70}},"sensors":[{"value":1.0},{"value":2.0}]}
{"id":2,"engine":{"temp":62.5,"stats":{"max":71}},"sensors":[{"value":1.1}]}
{"id":3,"engine":{"temp":63.5,"stats":null},"sensors":[]}
{"id":4,"engine":null,"sensors":[{"value":1.2},{"value":2.2},{"value":9}]}
{"id":5,"engine":{"temp":64.5,"stats":{"max":72}},"sensors":{"value":1.3}}
{"id":6,"engine.temp":65.5,"engine":{"temp":66.5,"stats":{"max":73}},"sensors":[{"value":1.4}]}
{"id":7,"engine":"idle","sensors":[{"value":1.5}]}
{"id":8,"engine":{"temp":67.5,"stats":{"max":74}},"sensors":[{"value":null}]}
{"id":9,"engine":` + strings.Repeat(`{"e":`, 200) + "1" + strings.Repeat("}", 200) + `,"sensors":[{"value":1.6}]}
`,
		"12-duplicate-keys.jsonl": `{"temp":1,"temp":99}
{"Temp":98,"temp":1}
{"temp":1,"TEMP":97}
{"\u0074emp":2}
{"temp":3,"":7}
{"temp ":4,"temp":5}
{"tempé":5,"temp":6}
{"te\u0000mp":7,"temp":8}
`,
		"13-truncated.jsonl": "{\"temp\":61.5,\"load\":0.5}\n\n{\"temp\":61.6,\"load\":0.5}\r\n[4,5]\n\"words\"\n7\n" +
			"{\"temp\":1}{\"temp\":2}\n{\"temp\":3},\n[{\"temp\":4}]\n{'temp':5}\n{\"temp\":6} // so\n" +
			"\xEF\xBB\xBF{\"temp\":62.3,\"load\":0.5}\n{\"temp\":62.4,\"x\xFFy\":0.5,\"load\":0.6}\n{\"temp\":62.5,\"lo",
	}
	ragged := append([]string(nil), lines...)
	ragged[5] = "63.4,0.56,3.7,99\n"
	ragged[9] = "61.1,0.5\n"
	ragged[14] = "\n"
	ragged[19] = "61.1,0.5,\n"
	ragged[24] = "   \n"
	text["04-ragged.csv"] = strings.Join(ragged, "")

	var german strings.Builder
	german.WriteString("zeit;temperatur_\xB0C;drehzahl;last\n01.11.2025 08:01:00;62,59;1.669,4;0,430\n")
	for i := 2; i <= 20; i++ {
		fmt.Fprintf(&german, "%02d.11.2025 08:%02d:00;6%d,%02d;1.6%02d,%d;0,4%02d\n", i, i, i%7, i, 40+i, i%10, i)
	}
	text["03-semicolon-decimal-comma.csv"] = german.String()

	var doubled strings.Builder
	doubled.WriteString("temp,load,temp, load ,,temp \n")
	for i := range 20 {
		fmt.Fprintf(&doubled, "%d.5,0.4,%d.5,0.4,3.%d,%d.5\n", 60+i, 61+i, i, 62+i)
	}
	text["06-duplicate-header.csv"] = doubled.String()

	var spelled strings.Builder
	spelled.WriteString("id,temp,load\n")
	for i, s := range []string{"NaN", "nan", "-nan", "Infinity", "-Infinity", "inf", "+Inf", "∞", "1e400", "-1e400", "1e-400",
		"NULL", "null", "N/A", "n/a", "#N/A", "#DIV/0!", "-", "--", "?", "none", "", "0x1F", "1_000", `"1,5"`, "٣", "1e",
		"1.2.3", "true", "+5", ".5", "5.", "-0", "1e39", "3.4028236e38", "  7.5  "} {
		fmt.Fprintf(&spelled, "%d,%s,0.5\n", i+1, s)
	}
	text["09-not-finite.csv"] = spelled.String()

	var nums strings.Builder
	for i, s := range []string{"61.5", "NaN", "Infinity", "-Infinity", "1e400", "9007199254740993", "412345678901234567890",
		"61.5", "61.5", `"61.5"`, `"61,5"`, `"NaN"`, "null", "", "true", "[61.5]", `{"value":61.5}`, "-0.0", "1e39", "0061.5",
		".5", "6.15E1", "61.5"} {
		id := fmt.Sprint(i + 1)
		if i == 22 {
			id = "45035996273704963"
		}
		switch {
		case s == "":
			fmt.Fprintf(&nums, "{\"id\":%s,\"load\":5e-1}\n", id)
		case i == 7 || i == 8:
			fmt.Fprintf(&nums, "{\"id\":%s,\"temp\":%s,\"load\":0.5,\"unused\":%s}\n", id, s, []string{"412345678901234567890", "1e400"}[i-7])
		default:
			fmt.Fprintf(&nums, "{\"id\":%s,\"temp\":%s,\"load\":0.5}\n", id, s)
		}
	}
	text["10-numbers.jsonl"] = nums.String()

	var mixed strings.Builder
	for i := range 60 {
		temp := []string{fmt.Sprintf("6%d.%d", i%8, i%9+1), fmt.Sprintf(`"6%d.5"`, i%8), "true", `"off"`, "null", fmt.Sprint(60 + i%8)}[i%6]
		fmt.Fprintf(&mixed, "{\"machine\":\"m%d\",\"seq\":%d,\"temp\":%s,\"load\":0.%d,\"mode\":%q}\n", i%3, i, temp, 41+i%19,
			[]string{"run", "idle", "RUN", ""}[i%4])
	}
	text["14-mixed-types.jsonl"] = mixed.String()

	var times strings.Builder
	times.WriteString("n,ts,temp\n")
	for i, s := range []string{"1600000001", "1600000001000", "1600000001000000", "1600000001.25", "2020-09-13T14:26:41+02:00",
		"2020-09-13 12:26:41", "13.09.2020 12:26:41", "09/13/2020 12:26:41 PM", "2020-09-13T12:26:41Z",
		"2020-09-13T12:26:41.123456789Z", `"Sun, 13 Sep 2020 12:26:41 GMT"`, "2004.02.12.10.32.39", "2020-02-30T00:00:00Z",
		"2016-12-31T23:59:60Z", "0", "-1", "9999-12-31T23:59:59Z", "", "now"} {
		fmt.Fprintf(&times, "%d,%s,6%d.5\n", i+1, s, i%10)
	}
	text["15-timestamps.csv"] = times.String()

	out := map[string][]byte{}
	for name, s := range text {
		out[name] = []byte(s)
	}
	wide := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune("temp;load;vibration\r\n" + plainRows(20, ";", "\r\n"))) {
		wide = append(wide, byte(u), byte(u>>8))
	}
	out["02-utf16le.csv"] = wide
	all := strings.Join(lines, "")
	out["18-trailing-garbage.csv.gz"] = append(gzipped(all), "THIRTY BYTES OF SOMETHING ELSE"...)
	out["19-concatenated.csv.gz"] = gzipped(all[:100], all[100:555], "", all[555:])
	return out
}

package events

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/lapwing-stream/lapwing/model"
)

// fuzzSpec has every kind of field, nested ones, and a time.
func fuzzSpec() model.Spec {
	return model.Spec{Format: "json", Time: &model.Time{Field: "time", Unit: "ms"}, Fields: []model.Field{
		{Name: "temp", Type: model.Number}, {Name: "load", Type: model.Number}, {Name: "on", Type: model.Boolean},
		{Name: "mode", Type: model.Category, Categories: []string{"run", "idle", "1", "true"}},
		{Name: "engine.temp", Type: model.Number}, {Name: "engine", Type: model.Number},
		{Name: "sensors.0.value", Type: model.Number}, {Name: "sensors.2", Type: model.Number}, {Name: `a\.b`, Type: model.Number},
	}}
}

// lookup walks a decoded object by a path, as the decoder should.
func lookup(v any, keys []string) (any, bool) {
	for _, k := range keys {
		switch c := v.(type) {
		case map[string]any:
			next, ok := c[k]
			if !ok {
				return nil, false
			}
			v = next
		case []any:
			i, ok := arrayIndex(k)
			if !ok || i >= len(c) {
				return nil, false
			}
			v = c[i]
		default:
			return nil, false
		}
	}
	return v, true
}

// depthOf counts the deepest nesting, strings left aside.
func depthOf(b []byte) int {
	depth, deepest := 0, 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			for i++; i < len(b) && b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			depth++
			deepest = max(deepest, depth)
		case '}', ']':
			depth--
		}
	}
	return deepest
}

// FuzzDecodeJSON holds the decoder against encoding/json: the same records are valid, and every field comes out as
// the rules say from the value that encoding/json found.
func FuzzDecodeJSON(f *testing.F) {
	for _, s := range []string{
		`{"temp":61.5,"load":0.5,"on":true,"mode":"run","engine":{"temp":1},"sensors":[{"value":1},2,3],"a.b":4,"time":1600000001000}`,
		`{"temp":null,"load":"61.5","on":"FALSE","mode":1,"engine":7,"sensors":{"0":{"value":9}}}`,
		`{"temp":1,"temp":99,"engine":{"temp":1},"engine":{"x":2}}`, `{"temp":-0.0,"load":1e400,"on":2,"mode":""}`,
		`{"t\u0065mp":2,"\ud83d\ude00":1,"mode":"\u0072un"}`, `{"temp":"\u0036","load":"\ud800"}`, `{"temp":[1],"load":{},"on":[],"mode":{}}`,
		"{}", "[]", "null", "1", `"x"`, "", " ", "{", `{"temp":}`, `{"temp":01}`, `{"temp":1.}`, `{"temp":1e}`, `{"temp":+1}`, `{"temp":.5}`,
		`{"temp":1,}`, `{,}`, `{"temp" : 1 , "load":2}  `, `{"temp":1} x`, `{"temp":tru}`, `{"a":"\x"}`, "{\"a\":\"\x01\"}", "{\"a\xff\":1}",
		"\xef\xbb\xbf{\"temp\":1}", `{"x":` + strings.Repeat("[", 300) + strings.Repeat("]", 300) + "}", "\x00\x00\x00\x00\x11abc",
		`{"time":"2020-09-13T12:26:41Z","temp":1}`, `{"sensors":[[],[1],-3.25e1]}`, `{"engine":{"temp":"1e5"},"engine":null}`,
	} {
		f.Add([]byte(s))
	}
	d, err := Compile(fuzzSpec())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		row := make([]float32, d.Columns())
		d.ResetCounts()
		r := d.Decode(b, row)
		again := make([]float32, d.Columns())
		if r2 := d.Clone().Decode(b, again); r2 != r || fmt.Sprint(row) != fmt.Sprint(again) {
			t.Fatalf("a clone says %+v %v, the first %+v %v", r2, again, r, row)
		}
		// By now how the record is written is known; to one that has seen nothing it is not.
		fresh, err := Compile(fuzzSpec())
		if err != nil {
			t.Fatal(err)
		}
		for _, by := range []*Decoder{d, fresh, fresh} {
			if r2 := by.Decode(b, again); r2 != r || fmt.Sprint(row) != fmt.Sprint(again) {
				t.Fatalf("later, or by a fresh decoder: %+v %v, at first %+v %v", r2, again, r, row)
			}
		}
		plain := dropMark(b)
		var object map[string]any
		dec := json.NewDecoder(bytes.NewReader(plain))
		dec.UseNumber()
		valid := json.Valid(plain) && dec.Decode(&object) == nil && object != nil && depthOf(plain) <= MaxDepth
		if valid != (r.Outcome != Rejected) {
			t.Fatalf("valid %v, decoded %+v", valid, r)
		}
		if r.Outcome == Rejected {
			if r.Reason == "" || r.Detail == "" {
				t.Fatalf("rejected without reason or detail: %+v", r)
			}
			return
		}
		missing, infinite := 0, false
		col := 0
		for _, field := range fuzzSpec().Fields {
			keys, _ := SplitPath(field.Name)
			v, _ := lookup(object, keys)
			width := 1
			var state uint8
			var want []float32
			if field.Type == model.Category {
				width = len(field.Categories) + 1
			}
			want, state = expected(field, v)
			got := row[col : col+width]
			for i := range got {
				if got[i] != want[i] && !(got[i] != got[i] && want[i] != want[i]) {
					t.Fatalf("%s of %s: %v, want %v", field.Name, b, got, want)
				}
			}
			switch state {
			case fieldMissing:
				missing++
			case fieldInf:
				infinite = true
			}
			col += width
		}
		if missing != r.Missing || (r.Outcome == NoFeatures) != (missing == len(d.fields)) ||
			(r.Outcome == NotFinite) != infinite || (r.Outcome == Partial) != (!infinite && 2*missing > len(d.fields) && missing < len(d.fields)) {
			t.Fatalf("%s: %+v, want %d missing, infinite %v", b, r, missing, infinite)
		}
	})
}

// expected is the rule for one field in terms of encoding/json's value; the state is fieldValue, fieldMissing or fieldInf.
func expected(f model.Field, v any) ([]float32, uint8) {
	nan := float32(math.NaN())
	number := func(s string) (float32, uint8) {
		x, _ := strconv.ParseFloat(s, 32)
		if math.IsInf(x, 0) {
			return float32(x), fieldInf
		}
		return float32(x), fieldValue
	}
	if f.Type == model.Category {
		want := make([]float32, len(f.Categories)+1)
		text, state := "", uint8(fieldValue)
		switch c := v.(type) {
		case json.Number:
			text = c.String()
		case string:
			text = c
			if text == "" {
				state = fieldMissing
			}
		case bool:
			text = fmt.Sprint(c)
		default:
			state = fieldMissing
		}
		at := len(f.Categories)
		for i, k := range f.Categories {
			if k == text && state == fieldValue {
				at = i
			}
		}
		want[at] = 1
		return want, state
	}
	x, state := nan, uint8(fieldMissing)
	switch c := v.(type) {
	case json.Number:
		x, state = number(c.String())
	case bool:
		if f.Type == model.Boolean {
			x, state = 0, fieldValue
			if c {
				x = 1
			}
		}
	case string:
		s := strings.Trim(c, " \t")
		low := strings.ToLower(s)
		switch {
		case plainNumber(s):
			x, state = number(s)
		case f.Type == model.Boolean && (low == "true" || low == "false"):
			x, state = 0, fieldValue
			if low == "true" {
				x = 1
			}
		case f.Type == model.Number:
			switch strings.TrimLeft(low, "+-") {
			case "inf", "infinity", "∞":
				if len(low)-len(strings.TrimLeft(low, "+-")) <= 1 && isASCIIFold(s) {
					x, state = float32(math.Inf(1)), fieldInf
					if low[0] == '-' {
						x = -x
					}
				}
			}
		}
	}
	if f.Type == model.Boolean && state != fieldMissing && x != 0 && x != 1 {
		x, state = nan, fieldMissing
	}
	return []float32{x}, state
}

// isASCIIFold: lower-casing did not turn another script's letter into an ASCII one.
func isASCIIFold(s string) bool { return !strings.ContainsAny(s, "İſK") }

// plainNumber is the numeric-text rule, in another way.
func plainNumber(s string) bool {
	if strings.Trim(s, "0123456789+-.eE") != "" || s == "" {
		return false
	}
	_, err := strconv.ParseFloat(s, 64)
	return err == nil || errors.Is(err, strconv.ErrRange)
}

// FuzzParseFloat: the fast path and its fallback give the float32 that strconv gives, bit for bit.
func FuzzParseFloat(f *testing.F) {
	for _, s := range []string{"0", "-0", "1", "0.1", "39.395103", "2493.487", "0.034893095", "16777217", "16777216.5", "9007199254740993",
		"1e22", "1e23", "3.4028235e38", "3.4028236e38", "3.40282356779733661637539395458142568448e38", "1.17549435e-38", "1e-45", "7e-46", "1e400",
		"0.10414785878216577", "1.00000005960464477539062500001", "1.000000059604644775390625", "123456789012345678901234567890", "8388608.5",
		"5e-324", "1e-400", "0.000000000000000000000000001"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		end, mant, exp, exact := scanNumber([]byte(s), 0)
		valid := json.Valid([]byte(s)) && s != "" && (s[0] == '-' || s[0]-'0' <= 9) && strings.TrimSpace(s) == s
		if valid != (end == len(s) && end > 0) {
			t.Fatalf("%q: valid %v, scanned to %d", s, valid, end)
		}
		d, isJSON, ok := scanPlain([]byte(s))
		if ok != plainNumber(s) || (isJSON && ok) != valid {
			t.Fatalf("%q: plain %v json %v, want %v %v", s, ok, isJSON, plainNumber(s), valid)
		}
		if !ok {
			return
		}
		want, _ := strconv.ParseFloat(s, 32)
		if got := float32Of([]byte(s), d.mant, d.exp, d.exact); math.Float32bits(got) != math.Float32bits(float32(want)) {
			t.Fatalf("%q: %v as text, want %v", s, got, want)
		}
		if valid {
			if got := float32Of([]byte(s), mant, exp, exact); math.Float32bits(got) != math.Float32bits(float32(want)) {
				t.Fatalf("%q: %v, want %v", s, got, want)
			}
		}
	})
}

// FuzzDecodeCSV: no input panics, and one row that encoding/csv splits in the same number of fields gives the same texts.
func FuzzDecodeCSV(f *testing.F) {
	for _, s := range []string{"1,2,x", `"1","2","x"`, `1,2,"a ""b"", c"`, "1,2,x\r\n", "1,2", "1,2,3,4", "", "\n", "1,\"2\nx\",3", `1,"2,3`, `"1"x,2,3`,
		"\xef\xbb\xbf1,2,x", "1,2,x\n3,4,y", "1,\x00,x", `a"b,2,x`, " 1 , 2 , x ", "NaN,inf,", "\x00\x00\x00\x00\x11abc"} {
		f.Add([]byte(s))
	}
	spec := model.Spec{Format: "csv", Header: []string{"a", "b", "c"}, Fields: []model.Field{{Name: "a", Type: model.Number},
		{Name: "b", Type: model.Boolean}, {Name: "c", Type: model.Category, Categories: []string{"x", "y"}}}}
	own := spec
	own.Header = nil
	d, err := Compile(spec)
	if err != nil {
		f.Fatal(err)
	}
	h, err := Compile(own)
	if err != nil {
		f.Fatal(err)
	}
	third, err := TextReader(spec, "c")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		row, again := make([]float32, d.Columns()), make([]float32, d.Columns())
		r := d.Decode(b, row)
		if sum := row[2] + row[3] + row[4]; r.Outcome != Rejected && sum != 1 {
			t.Fatalf("one-hot adds up to %v: %v", sum, row)
		}
		if r.Outcome == Rejected && (r.Reason == "" || r.Detail == "") {
			t.Fatalf("%+v", r)
		}
		with := append([]byte("a,b,c\n"), dropMark(b)...)
		if r2 := h.Decode(with, again); r2.Outcome != r.Outcome || r.Outcome != Rejected && fmt.Sprint(row) != fmt.Sprint(again) {
			t.Fatalf("with its own header %+v %v, without %+v %v", r2, again, r, row)
		}
		if r.Outcome == Rejected || bytes.ContainsAny(b, "\r") {
			return
		}
		ref := csv.NewReader(bytes.NewReader(dropMark(b)))
		ref.FieldsPerRecord = -1
		cells, err := ref.Read()
		if err != nil || len(cells) != 3 {
			return // encoding/csv refuses bare quotes, which stand for themselves here
		}
		if _, err := ref.Read(); !errors.Is(err, io.EOF) {
			t.Fatalf("more than one row was read as one: %q", b)
		}
		want := cells[2]
		if i := bytes.LastIndexByte(dropLineEnd(b), ','); i+1 < len(b) && b[i+1] != '"' {
			want = strings.Trim(want, " \t")
		}
		if got, ok := third(b); ok != (want != "") || string(got) != want && !bytes.Contains(b, []byte(`"`)) {
			t.Fatalf("%q: third field %q %v, want %q", b, got, ok, want)
		}
	})
}

// FuzzCSVReader: reading a file never panics and ends; every entry is a JSON object with the header's names, and no
// line is lost without a word.
func FuzzCSVReader(f *testing.F) {
	for name, content := range messyCopies() {
		if strings.HasSuffix(name, ".csv") {
			f.Add(content, byte(0), false)
		}
	}
	f.Add([]byte("a,b\n1,\"2\n3,4\n5,6\n"), byte(','), false)
	f.Add([]byte("a|b\n1,5|1.234,5\n"), byte('|'), true)
	f.Add([]byte("a\n\n1\n2"), byte(0), false)
	f.Fuzz(func(t *testing.T, b []byte, delim byte, comma bool) {
		for _, raw := range []bool{false, true} {
			file, err := newFile("f.csv", io.NopCloser(bytes.NewReader(b)), FileOptions{Delimiter: rune(delim), DecimalComma: comma, Raw: raw})
			if err != nil {
				continue
			}
			for n := 0; ; n++ {
				e, err := file.Next()
				var row *RowError
				if errors.As(err, &row) {
					if row.Line < 1 || row.Reason == "" || row.Detail == "" {
						t.Fatalf("%+v", row)
					}
				} else if err != nil {
					if !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "f.csv:") {
						t.Fatal(err)
					}
					break
				}
				if n > len(b)+1 {
					t.Fatal("more rows than bytes")
				}
				if err == nil && !raw {
					var object map[string]json.RawMessage
					if err := json.Unmarshal(e.Value, &object); err != nil || len(object) != len(file.header) {
						t.Fatalf("%v: %s under %q", err, e.Value, file.header)
					}
				}
			}
			file.Close()
		}
	})
}

// FuzzInfer: no sample panics, what is inferred compiles, survives its YAML form, and is the same again.
func FuzzInfer(f *testing.F) {
	for name, content := range messyCopies() {
		if strings.HasSuffix(name, ".jsonl") || strings.HasSuffix(name, ".csv") {
			f.Add(content, name[len(name)-1] == 'v')
		}
	}
	f.Add([]byte(`{"a":1,"b":"x","c":[1,2,{"d":null}],"":1,"y":1,"a.b":{"":2}}`+"\n"+`{"a":2,"b":"y","c":[],"e":"2020-01-01"}`), false)
	f.Fuzz(func(t *testing.T, b []byte, isCSV bool) {
		sample := bytes.Split(b, []byte("\n"))
		o := InferOptions{}
		if isCSV && len(sample) > 1 {
			o.Header = splitHeader(sample[0], ',')
			sample = sample[1:]
		}
		spec, notes, err := Infer(sample, o)
		spec2, notes2, err2 := Infer(sample, o)
		if fmt.Sprint(spec, notes, err) != fmt.Sprint(spec2, notes2, err2) {
			t.Fatal("not the same twice")
		}
		if err != nil {
			return
		}
		if _, err := Compile(spec); err != nil {
			if strings.Contains(err.Error(), "names both column") {
				return // the header itself is at fault
			}
			t.Fatalf("inferred spec does not compile: %v", err)
		}
		var text bytes.Buffer
		if err := WriteSpec(&text, spec, notes); err != nil {
			t.Fatal(err)
		}
		back, err := ParseSpec("spec.yaml", text.Bytes())
		if err != nil {
			t.Fatalf("%v\n%s", err, text.Bytes())
		}
		was, _ := json.Marshal(spec)
		is, _ := json.Marshal(back)
		if !bytes.Equal(was, is) {
			t.Fatalf("was %s\n is %s\n%s", was, is, text.Bytes())
		}
	})
}

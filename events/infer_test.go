package events

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lapwing-stream/lapwing/model"
)

// sampleOf makes n JSON records from one function of the record's number.
func sampleOf(n int, record func(i int) string) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		out[i] = []byte(record(i))
	}
	return out
}

// inferred gives the fields as "name:type", and the notes by name.
func inferred(t *testing.T, sample [][]byte, o InferOptions) (map[string]model.Field, map[string]string) {
	t.Helper()
	spec, notes, err := Infer(sample, o)
	if err != nil {
		t.Fatal(err)
	}
	fields, said := map[string]model.Field{}, map[string]string{}
	for _, f := range spec.Fields {
		fields[f.Name] = f
	}
	for _, n := range notes {
		said[n.Name] = n.Note
	}
	return fields, said
}

// Each rule of inference, on one field. "" as type means left out.
func TestInferRules(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	const n = 400
	perm := rng.Perm(n)
	words := []string{"alpha", "beta", "gamma"}
	for _, c := range []struct {
		name  string // of the field
		value func(i int) any
		kind  model.FieldType
		note  string
	}{
		{"temp", func(i int) any { return rng.NormFloat64() }, model.Number, ""},
		{"level", func(i int) any { return i % 3 }, model.Number, ""},
		{"firmware", func(i int) any { return 1000 + 1000*(i%2) }, model.Number, ""},
		{"bits", func(i int) any { return i / 7 % 2 }, model.Number, ""},
		{"as_text", func(i int) any { return fmt.Sprintf("%q", fmt.Sprintf("%.2f", rng.Float64())) }, model.Number, ""},
		{"requests", func(i int) any { return rng.IntN(100000) * 4096 }, model.Number, ""},
		{"running", func(i int) any { return i%5 == 0 }, model.Boolean, ""},
		{"switch", func(i int) any { return []string{`"TRUE"`, `"false"`}[i%2] }, model.Boolean, ""},
		{"mode", func(i int) any { return fmt.Sprintf("%q", words[i%3]) }, model.Category, ""},
		{"heavy", func(i int) any { return pow(10, 6*rng.Float64()*rng.Float64()*rng.Float64()) }, model.Number, "log1p: the 99th percentile is"},
		{"seconds", func(i int) any { return 1.6e9 + float64(i) }, "", "a timestamp in seconds"},
		{"event_time", func(i int) any { return int64(1.6e12) + int64(perm[i]) }, "", "a timestamp in milliseconds"},
		{"response_time", func(i int) any { return 20 * rng.Float64() }, model.Number, ""},
		{"when_at", func(i int) any { return fmt.Sprintf(`"2020-09-13 12:%02d:%02d"`, i/60%60, i%60) }, "", "text: a timestamp"},
		{"day", func(i int) any { return fmt.Sprintf(`"%02d.%02d.2025 08:00:00"`, i%28+1, i%12+1) }, "", "a form of its own"},
		{"n", func(i int) any { return i }, "", "a counter: it rises"},
		{"sent_twice", func(i int) any { return i - i/150 }, "", "a counter: it rises"},
		{"row", func(i int) any { return perm[i] }, "", "none twice"},
		{"account", func(i int) any { return 10000000 + rng.IntN(1e7)*8 + i%8 }, "", "whole numbers of one length"},
		{"hash", func(i int) any { return int64(45035996273704963) + int64(i)*1000003 }, "", "an identifier"},
		{"device_id", func(i int) any { return i % 4 }, "", "named like an identifier"},
		{"deviceId", func(i int) any { return i % 4 }, "", "named like an identifier"},
		{"grid", func(i int) any { return float64(i%4) / 2 }, model.Number, ""},
		{"token", func(i int) any {
			return fmt.Sprintf(`"%08x-0000-4000-8000-%012x"`, rng.Uint32(), rng.Uint32())
		}, "", "UUIDs"},
		{"serial", func(i int) any { return fmt.Sprintf(`"SN-%d-%d"`, rng.Uint32(), i) }, "", "none twice"},
		{"unit", func(i int) any { return fmt.Sprintf(`"pump%d"`, i%100) }, "", "differ in a number only"},
		{"machine", func(i int) any { return fmt.Sprintf(`"m%d"`, i%9) }, model.Category, ""},
		{"car", func(i int) any { return fmt.Sprintf(`"car-%d"`, i%20) }, "", "20 names that differ in a number only"},
		{"zip", func(i int) any { return fmt.Sprintf(`"0%04d"`, 1000+i%20) }, model.Category, ""},
		{"note", func(i int) any {
			return fmt.Sprintf(`"the operator wrote a longer remark about pump %d here"`, i%50)
		}, "", "free text"},
		{"host", func(i int) any { return fmt.Sprintf(`"%s-%d-x"`, words[i%3], i%150) }, "", "names or free text"},
		{"fixed", func(i int) any { return 7.0 }, "", "constant 7"},
		{"site", func(i int) any { return `"north"` }, "", `constant "north"`},
		{"alive", func(i int) any { return true }, "", "constant true"},
		{"empty", func(i int) any { return "null" }, "", "no value in 400 records"},
		{"label", func(i int) any { return i % 2 }, "", "named like a label"},
		{"is_anomaly", func(i int) any { return i%9 == 0 }, "", "named like a label"},
		{"FAILURE_OCCURRED", func(i int) any { return `"false"` }, "", "named like a label"},
		{"Class", func(i int) any { return []string{`"a"`, `"b"`}[i%2] }, "", "named like a label"},
		{"y", func(i int) any { return rng.Float64() }, "", "named like a label"},
		{"faultCode", func(i int) any { return i % 5 }, "", "named like a label"},
		{"vehicle_class", func(i int) any { return fmt.Sprintf("%q", words[i%2]) }, model.Category, ""},
		{"default", func(i int) any { return rng.Float64() }, model.Number, ""},
		{"mostly", func(i int) any {
			if i%10 == 0 {
				return `"broken"`
			}
			return rng.Float64()
		}, model.Number, "mixed types: numbers 360, other text 40 of 400"},
		{"gear", func(i int) any { return []string{`"R"`, `"1"`, `"2"`, `"N"`}[i%4] }, model.Category, ""},
		{"gaps", func(i int) any {
			if i%5 > 1 {
				return `"N/A"`
			}
			return rng.Float64()
		}, model.Number, "mixed types: numbers 160, words such as N/A 240 of 400"},
		{"hardly", func(i int) any {
			if i%3 == 0 {
				return 1.5
			}
			return []string{"true", `"x"`}[i%2]
		}, "", "mixed types"},
		{"rare", func(i int) any {
			if i%50 == 0 {
				return rng.Float64()
			}
			return nil
		}, "", "in 8 of 400 records only"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fields, said := inferred(t, sampleOf(n, func(i int) string {
				v := c.value(i)
				if v == nil {
					return fmt.Sprintf(`{"other":%v}`, rng.Float64())
				}
				return fmt.Sprintf(`{"other":%v,%q:%v}`, rng.Float64(), c.name, v)
			}), InferOptions{})
			if f := fields[c.name]; f.Type != c.kind {
				t.Errorf("type %q, want %q; note %q", f.Type, c.kind, said[c.name])
			}
			if !strings.Contains(said[c.name], c.note) || c.note == "" && said[c.name] != "" {
				t.Errorf("note %q, want %q in it", said[c.name], c.note)
			}
			if c.kind == "" && !strings.HasPrefix(said[c.name], "left out") {
				t.Errorf("note %q does not say that it is left out", said[c.name])
			}
			if c.name == "heavy" && !fields["heavy"].Log1p {
				t.Error("no log1p")
			}
		})
	}
}

func pow(x, y float64) float64 {
	r := 1.0
	for ; y >= 1; y-- {
		r *= x
	}
	return r * (1 + y*(x-1)/2)
}

// A coordinate named y stays, beside x and z.
func TestInferCoordinates(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	fields, _ := inferred(t, sampleOf(50, func(i int) string {
		return fmt.Sprintf(`{"acc":{"x":%v,"y":%v,"z":%v}}`, rng.Float64(), rng.Float64(), rng.Float64())
	}), InferOptions{})
	if len(fields) != 3 {
		t.Errorf("%v", fields)
	}
}

// CASES 4.09: a text field of very many values is capped, and the count is named.
func TestInferCapsCategories_Case4_09(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	// 67 services in falling frequency, as in a network log.
	sample := sampleOf(5000, func(i int) string {
		return fmt.Sprintf(`{"x":%v,"service":"s%02d-a"}`, rng.Float64(), int(67*rng.Float64()*rng.Float64()))
	})
	fields, said := inferred(t, sample, InferOptions{})
	if f := fields["service"]; len(f.Categories) != TopCategories || f.Categories[0] != "s00-a" {
		t.Errorf("%d categories: %v", len(f.Categories), f.Categories)
	}
	if !strings.Contains(said["service"], "67 different values: the 32 most frequent") {
		t.Error(said["service"])
	}
	sample = sampleOf(2000, func(i int) string {
		return fmt.Sprintf(`{"x":%v,"user":"u%x"}`, rng.Float64(), rng.Uint64()%200000)
	})
	fields, said = inferred(t, sample, InferOptions{})
	if _, ok := fields["user"]; ok || !strings.Contains(said["user"], "different texts in 2000 records") && !strings.Contains(said["user"], "none twice") {
		t.Errorf("%v %s", fields["user"], said["user"])
	}
}

func TestInferOptions(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	sample := sampleOf(100, func(i int) string {
		return fmt.Sprintf(`{"ts":%d,"car":"c%d","a":%v,"b":%v,"state":%d}`, 1600000000+i, i%7, rng.Float64(), rng.Float64(), i%2)
	})
	spec, notes, err := Infer(sample, InferOptions{Key: "car", TimeField: "ts", Label: "state", Exclude: []string{"b"}})
	if err != nil {
		t.Fatal(err)
	}
	want := model.Spec{Format: "json", Key: "car", Time: &model.Time{Field: "ts", Unit: "s"}, Fields: []model.Field{{Name: "a", Type: model.Number}}}
	if d := cmp.Diff(want, spec); d != "" {
		t.Error(d)
	}
	if len(notes) != 4 {
		t.Errorf("%v", notes)
	}
	_, _, err = Infer(sample, InferOptions{TimeField: "tz", Label: "stat", Exclude: []string{"bb"}, Key: "other"})
	for _, w := range []string{`time field "tz" is in none of 100 records; did you mean ts?`, `label field "stat"`, `did you mean state?`, `excluded field "bb"`} {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("no %q in %v", w, err)
		}
	}
}

func TestInferTime(t *testing.T) {
	for first, want := range map[string]string{
		`1600000001`: "{t s  }", `1600000001000`: "{t ms  }", `1600000001000000`: "{t us  }", `"1600000001000000000"`: "{t ns  }",
		`"2020-09-13T12:26:41Z"`: "{t   }", `"2004.02.12.10.32.39"`: "{t  2006.01.02.15.04.05 }",
		`73479`: "tell no unit", `"13.09.2020"`: "day and month are never guessed", `null`: "no time in the sample",
	} {
		spec, notes, err := Infer(sampleOf(30, func(i int) string { return fmt.Sprintf(`{"t":%s,"x":%d}`, first, i*i%7) }), InferOptions{TimeField: "t"})
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprint(notes)
		if spec.Time != nil {
			got = fmt.Sprint(*spec.Time)
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", first, got, want)
		}
	}
}

func TestInferCSV(t *testing.T) {
	sample := sampleOf(60, func(i int) string { return fmt.Sprintf("%d;%d.5;\"pump, %d\"", i, i*i%7, i%3) })
	spec, _, err := Infer(sample, InferOptions{Header: []string{"n", "temp", "which"}})
	if err != nil {
		t.Fatal(err)
	}
	want := model.Spec{Format: "csv", Delimiter: ";", Header: []string{"n", "temp", "which"}, Fields: []model.Field{{Name: "temp", Type: model.Number},
		{Name: "which", Type: model.Category, Categories: []string{"pump, 0", "pump, 1", "pump, 2"}}}}
	if d := cmp.Diff(want, spec); d != "" {
		t.Error(d)
	}
	sample = sampleOf(60, func(i int) string { return fmt.Sprintf("n,temp\n%d,%d.5\n", i, i*i%7) })
	for value, want := range map[string]string{"\x00\x00\x00\x00\x11abc": "schema id 17", `{"a":1}`: "set the format to json", "1,2": "2 fields, header has 3"} {
		if _, _, err := Infer([][]byte{[]byte(value)}, InferOptions{Format: "csv", Header: []string{"a", "b", "c"}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", value, err, want)
		}
	}
	if spec, _, err = Infer(sample, InferOptions{}); err != nil || len(spec.Fields) != 1 || spec.Header != nil {
		t.Errorf("%+v %v", spec, err)
	}
}

// What cannot be read is named before anything else is said.
func TestInferRefuses(t *testing.T) {
	for value, want := range map[string]string{
		"\x00\x00\x00\x00\x11abc": "looks like Confluent Avro, schema id 17; not supported yet",
		"1,2,3":                   "they look like CSV lines",
		"[1,2]":                   "an array, not a JSON object",
		"{}":                      "the records have no fields",
		`{"c":5}`:                 "c: constant 5",
		"":                        "no records",
	} {
		_, _, err := Infer(sampleOf(5, func(int) string { return value }), InferOptions{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", value, err, want)
		}
	}
	// Random keys do not take memory without bound.
	spec, notes, err := Infer(sampleOf(maxFields+100, func(i int) string { return fmt.Sprintf(`{"x":%d,"k%d":1}`, i*i%11, i) }), InferOptions{})
	if err != nil || len(spec.Fields) != 1 || !strings.Contains(fmt.Sprint(notes), "more names were not looked at") {
		t.Errorf("%v %v", spec.Fields, err)
	}
}

func TestSpecGolden(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	sample := sampleOf(300, func(i int) string {
		return fmt.Sprintf(`{"time":%d,"car":"car%d","engine":{"temp":%v,"a.b":%v},"gear":%q,"bytes":%v,"fixed":7,"remark":"a text of more words than one reads %d","label":%d,"mixed":%s}`,
			1600000000+i, i%40, rng.Float64(), rng.Float64(), []string{"R", "1", "2", "yes"}[i%4], pow(10, 6*rng.Float64()*rng.Float64()*rng.Float64()), i%60, i%2,
			[]string{"1.5", "2.5", `"off"`}[i%3])
	})
	spec, notes, err := Infer(sample, InferOptions{Key: "car", TimeField: "time", Label: "label"})
	if err != nil {
		t.Fatal(err)
	}
	low := 2.5
	spec.Fields[0].Clip, spec.Fields[0].Missing = []float64{-40, 1e30}, &low
	var b bytes.Buffer
	if err := WriteSpec(&b, spec, notes); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "spec.yaml")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), b.String()); d != "" {
		t.Errorf("set UPDATE_GOLDEN=1 to accept: %s", d)
	}
	back, err := ReadSpec(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(spec, back); d != "" {
		t.Error(d)
	}
	// A field that was left out can be switched on.
	on := strings.Replace(string(want), "#  - {name: fixed,", "  - {name: fixed,", 1)
	if back, err = ParseSpec("spec.yaml", []byte(on)); err != nil || back.Fields[len(back.Fields)-1].Name != "fixed" {
		t.Errorf("%v %v", back.Fields, err)
	}
}

func TestReadSpecReportsEveryFault(t *testing.T) {
	_, err := ParseSpec("spec.yaml", []byte(`formt: json
format: json
time: {feld: t, unit: s}
key: [a]
fields:
  - {name: a, type: number, log1p: maybe, clp: [1, 2]}
  - {name: b, type: number, clip: [x, .inf], missing: null}
  - {name: b, name: c}
  - just text
`))
	for _, w := range []string{
		`spec.yaml:1: feature spec: unknown key "formt"; did you mean format?`,
		`spec.yaml:3: time: unknown key "feld"; did you mean field?`, `spec.yaml:4: key should be a text`,
		`spec.yaml:6: log1p should be true or false, not "maybe"`, `spec.yaml:6: field: unknown key "clp"; did you mean clip?`,
		`spec.yaml:7: clip should be a finite number, not "x"`, `not ".inf"`, `spec.yaml:7: missing should be a finite number, not "null"`,
		`spec.yaml:8: field: key "name" stands twice, first on line 8`, `spec.yaml:9: field should be a mapping`,
	} {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("no %q in:\n%v", w, err)
		}
	}
	for text, want := range map[string]string{
		"":                             "spec.yaml: empty",
		"format: json\n\tfields: []\n": "spec.yaml: not YAML: line 2",
		"- a\n":                        "spec.yaml:1: feature spec should be a mapping",
		"format: json\nfields: []\n":   "spec.yaml: no fields",
		"format: json\nfields:\n  - {name: a, type: number}\n  - {name: a, type: category, categories: []}\n": `spec.yaml:4: field 2 "a": the name is taken`,
		"format: json\nfields: [{name: a, type: number}]\n---\nformat: csv\n":                                 "more than one YAML document",
		"format: &f json\nkey: *f\nfields: [{name: a, type: number}]\n":                                       "aliases are not read",
	} {
		_, err := ParseSpec("spec.yaml", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := ReadSpec(filepath.Join(t.TempDir(), "none.yaml")); err == nil {
		t.Error("an absent file was read")
	}
}

// Any text survives the YAML form, whatever YAML would take it for.
func TestSpecTextsSurvive(t *testing.T) {
	names := []string{"a", "1", "1e5", "true", "No", "null", "~", "- x", "a: b", "#c", "é", "日本", "\t", " lead", "trail ", `q"q`, "'", `b\\s`,
		"\u2028", "\u0085", "\ufeff", "\x01", "%", "@", "`", "{x}", "[y]", "&a", "*b", "!t", "|", ">", "=", "<<", "0x1F", "1_000", "2020-01-01", ".inf", "😀"}
	spec := model.Spec{Format: "csv", Header: names, Fields: []model.Field{{Name: "a", Type: model.Number}, {Name: "1", Type: model.Category, Categories: names}}}
	var b bytes.Buffer
	if err := WriteSpec(&b, spec, []model.ColumnNote{{Name: "x\ny: {", Note: "left out: \n- {name: evil}"}, {Name: "a", Note: "on\u2028e"}}); err != nil {
		t.Fatal(err)
	}
	back, err := ParseSpec("s", b.Bytes())
	if err != nil {
		t.Fatalf("%v\n%s", err, b.String())
	}
	if d := cmp.Diff(spec, back); d != "" {
		t.Error(d)
	}
}

package events

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lapwing-stream/lapwing/model"
)

func decodeOne(t *testing.T, spec model.Spec, value string) ([]float32, Result) {
	t.Helper()
	d := mustCompile(t, spec)
	row := make([]float32, d.Columns())
	return row, d.Decode([]byte(value), row)
}

// Every outcome and reason, with the words that the detail must hold.
func TestOutcomes(t *testing.T) {
	spec := numbers("a", "b", "c")
	deep := `{"a":1,"x":` + strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth) + "}"
	for _, c := range []struct {
		value   string
		outcome Outcome
		reason  string
		detail  string
		missing int
	}{
		{`{"a":1,"b":2,"c":3}`, OK, "", "", 0},
		{`{"a":1,"b":2}`, OK, "", "", 1},
		{`{"a":1}`, Partial, "", "", 2},
		{`{"a":1,"b":null,"c":""}`, Partial, "", "", 2},
		{`{"a":1e39,"b":2,"c":3}`, NotFinite, "", "", 0},
		{`{"a":"-Infinity"}`, NotFinite, "", "", 2},
		{`{"d":1}`, NoFeatures, ReasonNoFeatures, "none of the 3 fields", 3},
		{`{"a":null,"b":true,"c":"x"}`, NoFeatures, ReasonNoFeatures, "first: a", 3},
		{`{}`, NoFeatures, ReasonNoFeatures, "", 3},
		{``, Rejected, ReasonEmpty, "no content", 0},
		{" \n", Rejected, ReasonEmpty, "no content", 0},
		{`[1]`, Rejected, ReasonNotObject, "an array", 0},
		{`null`, Rejected, ReasonNotObject, "null", 0},
		{`"x"`, Rejected, ReasonNotObject, "a string", 0},
		{`{"a":1`, Rejected, ReasonNotJSON, "byte 7: unexpected end", 0},
		{`{"a":1}{`, Rejected, ReasonNotJSON, "byte 8: text after", 0},
		{`{"a":NaN}`, Rejected, ReasonNotJSON, "byte 6: JSON has no NaN", 0},
		{`{"a":-Infinity}`, Rejected, ReasonNotJSON, "JSON has no NaN and no Infinity", 0},
		{`{"a":01}`, Rejected, ReasonNotJSON, "leading zeros", 0},
		{`{"a":+1}`, Rejected, ReasonNotJSON, "not a number", 0},
		{`{"a" 1}`, Rejected, ReasonNotJSON, "colon", 0},
		{`{"a":1 "b":2}`, Rejected, ReasonNotJSON, "comma", 0},
		{`{"z":"\q"}`, Rejected, ReasonNotJSON, "escape", 0},
		{"{\"z\":\"\t\"}", Rejected, ReasonNotJSON, "control character", 0},
		{deep, Rejected, ReasonTooDeep, fmt.Sprint(MaxDepth), 0},
		{"\x00\x00\x00\x00\x11rest", Rejected, ReasonAvro, "looks like Confluent Avro, schema id 17; not supported yet", 0},
		{"\x00\x00\x00\x00\x05{\"a\":1}", Rejected, ReasonAvro, "JSON Schema framing, schema id 5", 0},
		{"Obj\x01\x04\x14avro.codec", Rejected, ReasonAvroFile, "Avro object container", 0},
		{"\x1f\x8b\x08\x00", Rejected, ReasonGzip, "gzip", 0},
		{"\x28\xb5\x2f\xfd\x00", Rejected, ReasonZstd, "zstd", 0},
		{"<?xml version='1.0'?><a/>", Rejected, ReasonXML, "XML", 0},
		{"<row><a>1</a></row>", Rejected, ReasonXML, "XML", 0},
		{"\xff\xfe{\x00\"\x00", Rejected, ReasonUTF16, "UTF-16", 0},
		{"{\x00\"\x00a\x00", Rejected, ReasonUTF16, "UTF-16", 0},
		{"\x0a\x04car7\x11\x00\x00\x00\x00\x00\x00\xf0?", Rejected, ReasonBinary, "Protobuf", 0},
		{"1.5,2,3", Rejected, ReasonNotJSON, "", 0},
	} {
		_, r := decodeOne(t, spec, c.value)
		if r.Outcome != c.outcome || r.Reason != c.reason || !strings.Contains(r.Detail, c.detail) || r.Missing != c.missing {
			t.Errorf("%.60q: %+v, want %v %q %q missing %d", c.value, r, c.outcome, c.reason, c.detail, c.missing)
		}
	}
}

// CASES 1.07 and 1.08: a null value is a delete and never a decode failure; an empty one is.
func TestTombstone_Case1_07(t *testing.T) {
	d := mustCompile(t, numbers("a"))
	row := make([]float32, 1)
	if r := d.Decode(nil, row); r.Outcome != Tombstone || r.Reason != "" {
		t.Errorf("%+v", r)
	}
	if r := d.Decode([]byte{}, row); r.Outcome != Rejected || r.Reason != ReasonEmpty {
		t.Errorf("%+v", r)
	}
	if n := d.MissingByField()[0]; n != 0 {
		t.Errorf("%d missing counted", n)
	}
}

func TestUnusedFieldsNeverReject_Case3_03(t *testing.T) {
	row, r := decodeOne(t, numbers("x"), `{"x":1.0,"unused":412345678901234567890,"more":1e999,"s":"\ud800"}`)
	if r.Outcome != OK || row[0] != 1 {
		t.Errorf("%+v %v", r, row)
	}
	row, r = decodeOne(t, numbers("x"), `{"x":412345678901234567890}`)
	if r.Outcome != OK || row[0] != 4.1234568e20 {
		t.Errorf("%+v %v", r, row)
	}
}

func TestLastDuplicateWins_Case3_12(t *testing.T) {
	spec := model.Spec{Format: "json", Fields: []model.Field{{Name: "temp", Type: model.Number}, {Name: "e.x", Type: model.Number},
		{Name: "mode", Type: model.Category, Categories: []string{"a", "b"}}}}
	for value, want := range map[string]string{
		`{"temp":1,"temp":99}`:                          "[99 NaN 0 0 1]",
		`{"Temp":99,"temp":1,"TEMP":3}`:                 "[1 NaN 0 0 1]",
		`{"temp":1,"temp":null,"mode":"a"}`:             "[NaN NaN 1 0 0]",
		`{"temp":1,"mode":"a","mode":"b","mode":"c"}`:   "[1 NaN 0 0 1]",
		`{"temp":1,"mode":"c","mode":"b"}`:              "[1 NaN 0 1 0]",
		`{"e":{"x":1},"e":{"y":2},"temp":5}`:            "[5 NaN 0 0 1]",
		`{"e":{"x":1},"e":3,"temp":5}`:                  "[5 NaN 0 0 1]",
		`{"e":{"x":1,"x":2},"temp":1e400,"temp":"2.5"}`: "[2.5 2 0 0 1]",
	} {
		row, r := decodeOne(t, spec, value)
		if fmt.Sprint(row) != want || r.Outcome == NotFinite {
			t.Errorf("%s: %v %+v, want %s", value, row, r, want)
		}
	}
}

func TestPaths_Case3_15(t *testing.T) {
	spec := numbers("sensors.0.value", "stats.max", `stats\.max`, `back\\slash`)
	for value, want := range map[string]string{
		`{"sensors":[{"value":1}],"stats":{"max":2}}`: "[1 2 NaN NaN]",
		`{"sensors":[],"stats":{"max":2}}`:            "[NaN 2 NaN NaN]",
		`{"sensors":{"value":3},"stats":null}`:        "[NaN NaN NaN NaN]",
		`{"sensors":{"0":{"value":3}}}`:               "[3 NaN NaN NaN]",
		`{"stats.max":4,"back\\slash":5}`:             "[NaN NaN 4 5]",
		`{"sensors":[[],{"value":1}],"stats":[7]}`:    "[NaN NaN NaN NaN]",
	} {
		row, r := decodeOne(t, spec, value)
		if fmt.Sprint(row) != want || (want == "[NaN NaN NaN NaN]") != (r.Outcome == NoFeatures) {
			t.Errorf("%s: %v %+v, want %s", value, row, r, want)
		}
	}
	for _, keys := range [][]string{{"a"}, {"a", "b"}, {"a.b"}, {`a\`, "b"}, {`.`, `\.`}, {"0", "x y", "é"}} {
		back, err := SplitPath(Path(keys...))
		if err != nil || fmt.Sprintf("%q", back) != fmt.Sprintf("%q", keys) {
			t.Errorf("%q: %q %v", keys, back, err)
		}
	}
	for _, bad := range []string{"", ".", "a.", ".a", "a..b", `a\`, `a\b`} {
		if keys, err := SplitPath(bad); err == nil {
			t.Errorf("%q is a path: %q", bad, keys)
		}
	}
}

func TestUnseenCategory_Case4_08(t *testing.T) {
	spec := model.Spec{Format: "json", Fields: []model.Field{{Name: "s", Type: model.Category, Categories: []string{"on", "1", "true"}}}}
	d := mustCompile(t, spec)
	row := make([]float32, d.Columns())
	for i := range 10000 {
		r := d.Decode(fmt.Appendf(nil, `{"s":"new%d"}`, i), row)
		if r.Outcome != OK || fmt.Sprint(row) != "[0 0 0 1]" {
			t.Fatalf("%+v %v", r, row)
		}
	}
	if c := d.Counts()[0]; c.Unseen != 10000 || c.Missing() != 0 {
		t.Errorf("%+v", c)
	}
	for value, want := range map[string]string{`{"s":"on"}`: "[1 0 0 0]", `{"s":1}`: "[0 1 0 0]", `{"s":true}`: "[0 0 1 0]",
		`{"s":"1"}`: "[0 1 0 0]", `{"s":1.0}`: "[0 0 0 1]", `{"s":null}`: "[0 0 0 1]", `{"s":""}`: "[0 0 0 1]", `{"s":["on"]}`: "[0 0 0 1]"} {
		if d.Decode([]byte(value), row); fmt.Sprint(row) != want {
			t.Errorf("%s: %v, want %s", value, row, want)
		}
	}
}

func TestBoolean(t *testing.T) {
	spec := model.Spec{Format: "json", Fields: []model.Field{{Name: "b", Type: model.Boolean}, {Name: "x", Type: model.Number}}}
	for value, want := range map[string]float32{`true`: 1, `false`: 0, `1`: 1, `0`: 0, `-0`: 0, `1.0`: 1, `"true"`: 1, `"False"`: 0, `"0"`: 0,
		`" TRUE "`: 1, `2`: missing, `"yes"`: missing, `null`: missing, `""`: missing, `"n/a"`: missing, `[]`: missing, `1e400`: missing} {
		row, _ := decodeOne(t, spec, `{"x":1,"b":`+value+"}")
		if row[0] != want && !(want != want && row[0] != row[0]) || math.Signbit(float64(row[0])) && row[0] == 0 {
			t.Errorf("%s: %v, want %v", value, row[0], want)
		}
	}
}

// CASES 3.01 and 3.02: a byte-order mark never becomes part of a name or shifts a column.
func TestByteOrderMark_Case3_01(t *testing.T) {
	spec := numbers("temp", "load")
	spec.Format = "csv"
	row, r := decodeOne(t, spec, "\xEF\xBB\xBF\"temp\",\"load\"\n1.5,2.0\n")
	if r.Outcome != OK || fmt.Sprint(row) != "[1.5 2]" {
		t.Errorf("%+v %v", r, row)
	}
	spec.Header = []string{"temp", "load"}
	if row, r = decodeOne(t, spec, "\xEF\xBB\xBF1.5,2.0"); r.Outcome != OK || fmt.Sprint(row) != "[1.5 2]" {
		t.Errorf("%+v %v", r, row)
	}
	spec = numbers("x", "y")
	spec.Format, spec.Header = "csv", []string{"name", "x", "y"}
	for _, value := range []string{"\xEF\xBB\xBF\"a,b\",3.0,4.0", "\xEF\xBB\xBF\"line one\nline two\",3.0,4.0"} {
		if row, r := decodeOne(t, spec, value); r.Outcome != OK || fmt.Sprint(row) != "[3 4]" {
			t.Errorf("%q: %+v %v", value, r, row)
		}
	}
}

func TestCSVRecords(t *testing.T) {
	spec := model.Spec{Format: "csv", Delimiter: ";", Header: []string{"t", "a", "on", "m"}, Time: &model.Time{Field: "t"},
		Fields: []model.Field{{Name: "m", Type: model.Category, Categories: []string{"run", "5"}}, {Name: "a", Type: model.Number}, {Name: "on", Type: model.Boolean}}}
	for _, c := range []struct {
		value, row, reason, detail string
	}{
		{"2020-09-13 12:26:41;1.5;1;run\r\n", "[1 0 0 1.5 1]", "", ""},
		{`"2020-09-13 12:26:41" ;1;1;1`, "", ReasonCSVQuote, "quoted field"},
		{"x; +.5 ;TRUE; 5 ", "[0 1 0 0.5 1]", "", ""},
		{`x;"1.5";false;"say ""run"""`, "[0 0 1 1.5 0]", "", ""},
		{"x;;n/a;", "", ReasonNoFeatures, "none of the 3"},
		{"x;1;1", "", ReasonCSVColumns, "3 fields, header has 4"},
		{"x;1;1;1;1", "", ReasonCSVColumns, "5 fields, header has 4"},
		{"x;1;1;1\ny;2;2;2", "", ReasonCSVRows, "more than one row"},
		{`x;"1;1;1`, "", ReasonCSVQuote, ""},
		{"x;1\x00;1;1", "", ReasonNUL, "byte 4"},
		{"", "", ReasonEmpty, ""},
		{"\r\n", "", ReasonEmpty, ""},
		{"\x00\x00\x00\x00\x11rest", "", ReasonAvro, "schema id 17"},
	} {
		row, r := decodeOne(t, spec, c.value)
		if r.Reason != c.reason || !strings.Contains(r.Detail, c.detail) || c.row != "" && fmt.Sprint(row) != c.row {
			t.Errorf("%q: %v %+v, want %s %s", c.value, row, r, c.row, c.reason)
		}
	}
	d := mustCompile(t, spec)
	row, value := make([]float32, d.Columns()), []byte(`2020-09-13 12:26:41;1.5;1;"run"`)
	if n := testing.AllocsPerRun(100, func() { d.Decode(value, row) }); n != 0 {
		t.Errorf("%v allocations for a good CSV record", n)
	}
}

// CASES 3.09 and 3.10: units are declared, 0 and -1 are times, and another unit is named rather than believed.
func TestEventTime_Case3_09(t *testing.T) {
	const at = 1600000001000
	for _, c := range []struct {
		time   model.Time
		value  string
		ms     int64
		reason string
	}{
		{model.Time{Unit: "s"}, "1600000001", at, ""},
		{model.Time{Unit: "s"}, "1600000001.25", at + 250, ""},
		{model.Time{Unit: "s"}, "1600000001.1239999", at + 123, ""},
		{model.Time{Unit: "s"}, "1.600000001e9", at, ""},
		{model.Time{Unit: "s"}, `"1600000001"`, at, ""},
		{model.Time{Unit: "ms"}, "1600000001000", at, ""},
		{model.Time{Unit: "us"}, "1600000001000999", at, ""},
		{model.Time{Unit: "ns"}, "1600000001000999999", at, ""},
		{model.Time{Unit: "ms"}, "0", 0, ""},
		{model.Time{Unit: "ms"}, "-1", -1, ""},
		{model.Time{Unit: "us"}, "-1", -1, ""},
		{model.Time{Unit: "ms"}, "253402300800000", 253402300800000, ""},
		{model.Time{Unit: "s"}, "1600000001000", 0, "looks like milliseconds"},
		{model.Time{Unit: "s"}, "1600000001000000", 0, "looks like microseconds"},
		{model.Time{Unit: "ms"}, "1600000001", 0, "looks like seconds"},
		{model.Time{Unit: "ns"}, "1600000001000", 0, "looks like milliseconds"},
		{model.Time{Unit: "s"}, "1e300", 0, "out of range"},
		{model.Time{Unit: "s"}, "123456789012345678901234567890", 0, "out of range"},
		{model.Time{}, "1600000001", 0, "a number, but the spec's time has no unit"},
		{model.Time{}, "null", 0, "absent"},
		{model.Time{}, `""`, 0, "absent"},
		{model.Time{}, "true", 0, "not a time"},
		{model.Time{}, `"2020-09-13T14:26:41+02:00"`, at, ""},
		{model.Time{}, `"2020-09-13T14:26:41.5+0200"`, at + 500, ""},
		{model.Time{}, `"2020-09-13 12:26:41"`, at, ""},
		{model.Time{}, `"2020-09-13T12:26"`, at - 41000, ""},
		{model.Time{}, `"2020-09-13"`, 1599955200000, ""},
		{model.Time{Zone: "Asia/Kathmandu"}, `"2020-09-13 18:11:41"`, at, ""},
		{model.Time{Zone: "Europe/Berlin"}, `"2020-09-13 14:26:41"`, at, ""},
		{model.Time{Zone: "Europe/Berlin"}, `"2020-09-13T12:26:41Z"`, at, ""},
		{model.Time{}, `"Sun, 13 Sep 2020 12:26:41 GMT"`, at, ""},
		{model.Time{}, `"Sun, 13 Sep 2020 14:26:41 +0200"`, at, ""},
		{model.Time{}, `"13.09.2020 12:26:41"`, 0, "not a time"},
		{model.Time{}, `"2020-02-30T00:00:00Z"`, 0, "not a time"},
		{model.Time{}, `"2016-12-31T23:59:60Z"`, 0, "not a time"},
		{model.Time{}, `"0001-01-01T00:00:00Z"`, -62135596800000, ""},
		{model.Time{Layout: "2006.01.02.15.04.05"}, `"2004.02.12.10.32.39"`, 1076581959000, ""},
		{model.Time{Layout: "20060102"}, `"20200913"`, 1599955200000, ""},
		{model.Time{Layout: "2006-01-02 15:04:05 MST"}, `"2020-09-13 12:26:41 UTC"`, at, ""},
		{model.Time{Layout: "2006-01-02 15:04:05 MST"}, `"2020-09-13 12:26:41 PST"`, 0, "not a time"},
		{model.Time{Layout: "2006-01-02 15:04:05 MST", Zone: "Europe/Berlin"}, `"2020-09-13 14:26:41 CEST"`, at, ""},
	} {
		spec := numbers("x")
		c.time.Field = "t"
		spec.Time = &c.time
		_, r := decodeOne(t, spec, `{"x":1,"t":`+c.value+"}")
		if r.Outcome != OK || r.TimeOK != (c.reason == "") || r.TimeReason != c.reason || r.Time != c.ms {
			t.Errorf("%+v %s: %+v, want %d %q", c.time, c.value, r, c.ms, c.reason)
		}
	}
	d := mustCompile(t, model.Spec{Format: "json", Time: &model.Time{Field: "t", Unit: "s"}, Fields: numbers("x").Fields})
	row := make([]float32, 1)
	for _, v := range []string{`{"x":1}`, `{"x":1,"t":1600000001000}`, `{"x":1,"t":5}`} {
		d.Decode([]byte(v), row)
	}
	if got := fmt.Sprint(d.TimeProblems()); got != "map[absent:1 looks like milliseconds:1]" {
		t.Error(got)
	}
}

// CASES 8.10: the machine's own zone has no say. Go reads TZ once, so the test moves time.Local itself.
func TestZoneOfTheMachineHasNoSay_Case8_10(t *testing.T) {
	was := time.Local
	defer func() { time.Local = was }()
	kathmandu, err := time.LoadLocation("Asia/Kathmandu")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"2020-09-13 12:26:41", "2020-09-13T12:26:41Z", "Sun, 13 Sep 2020 12:26:41 GMT"} {
		for _, loc := range []*time.Location{time.UTC, kathmandu} {
			time.Local = loc
			spec := numbers("x")
			spec.Time = &model.Time{Field: "t"}
			if _, r := decodeOne(t, spec, `{"x":1,"t":"`+text+`"}`); r.Time != 1600000001000-1000+1000 {
				t.Errorf("%s in %s: %+v", text, loc, r)
			}
		}
	}
	if err := func() error { _, err := newTimeRule(&model.Time{Field: "t", Zone: "Local"}); return err }(); err == nil {
		t.Error("zone Local was taken")
	}
}

// The civil calendar is that of package time.
func TestCalendar(t *testing.T) {
	for day := time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC); day.Year() < 2410; day = day.AddDate(0, 0, 13) {
		if got, want := daysSince1970(day.Year(), int(day.Month()), day.Day()), day.Unix()/86400; got != want && day.Unix()%86400 == 0 {
			t.Fatalf("%v: %d, want %d", day, got, want)
		}
		if got := daysIn(day.Year(), int(day.Month())); got != time.Date(day.Year(), day.Month()+1, 0, 0, 0, 0, 0, time.UTC).Day() {
			t.Fatalf("%v: %d days", day, got)
		}
	}
}

func TestCompileReportsEveryFault(t *testing.T) {
	half := 0.5
	_, err := Compile(model.Spec{Format: "xml", Header: []string{"a"}, Time: &model.Time{Field: "", Unit: "h", Zone: "Mars/Base"}, Fields: []model.Field{
		{Name: "a", Type: "int"}, {Name: "b", Type: model.Number, Clip: []float64{2, 1}}, {Name: "b", Type: model.Number},
		{Name: "c", Type: model.Category}, {Name: "d", Type: model.Category, Categories: []string{"x", "x", "?"}, Missing: &half},
		{Name: "e..f", Type: model.Number}, {Name: "g", Type: model.Boolean, Log1p: true}, {Name: "h", Type: model.Number, Categories: []string{"x"}},
	}})
	if err == nil {
		t.Fatal("compiled")
	}
	for _, w := range []string{`format "xml"`, `unit "h"`, `type "int"`, "clip [2 1]", "taken by field 2", "no categories", `"x" twice`, `"?" cannot`,
		"takes no missing value", "empty part", "log1p and clip", "categories belong", "time: "} {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("no %q in:\n%v", w, err)
		}
	}
	_, err = Compile(model.Spec{Format: "csv", Header: []string{"temp", "load", "temp"}, Fields: []model.Field{{Name: "tmep", Type: model.Number}}})
	if err == nil || !strings.Contains(err.Error(), `; did you mean temp?`) || !strings.Contains(err.Error(), "column 1 and column 3") {
		t.Errorf("%v", err)
	}
	many := make([]string, MaxCategories+1)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	_, err = Compile(model.Spec{Format: "json", Fields: []model.Field{{Name: "user", Type: model.Category, Categories: many}}})
	if err == nil || !strings.Contains(err.Error(), "1025 categories, at most 1024") {
		t.Errorf("Case 4.09: %v", err)
	}
}

// A clone shares nothing that changes: run under the race detector.
func TestClonesAreIndependent(t *testing.T) {
	d := mustCompile(t, fuzzSpec())
	var wg sync.WaitGroup
	for g := range 4 {
		c := d.Clone()
		wg.Go(func() {
			row := make([]float32, c.Columns())
			for i := range 500 {
				rec := fmt.Sprintf(`{"load":%d,"temp":%d,"engine":{"x":[],"temp":%d},"mode":"run"}`, g, i, i)
				if g%2 == 0 {
					rec = fmt.Sprintf(`{"mode":"run","temp":%d,"load":%d,"engine":{"temp":%d}}`, i, g, i)
				}
				if c.Decode([]byte(rec), row); row[0] != float32(i) || row[1] != float32(g) {
					t.Errorf("%v", row)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := d.Counts()[0].Read; n != 0 {
		t.Errorf("the original counted %d", n)
	}
}

func TestCountsAndReset(t *testing.T) {
	d := mustCompile(t, numbers("a", "b"))
	row := make([]float32, 2)
	for _, v := range []string{`{"a":1,"b":2}`, `{"a":"1","b":true}`, `{"a":null}`, `not json`, `{"a":1,"b":1e99}`} {
		d.Decode([]byte(v), row)
	}
	want := []FieldCounts{{Name: "a", Read: 2, NumericText: 1, Null: 1}, {Name: "b", Read: 1, WrongBool: 1, Absent: 1, NotFinite: 1}}
	if got := d.Counts(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if fmt.Sprint(d.MissingByField(), d.WrongTypeByField(), d.NumericTextByField()) != "[1 2] [0 1] [1 0]" {
		t.Error(d.MissingByField(), d.WrongTypeByField(), d.NumericTextByField())
	}
	d.ResetCounts()
	if got := d.Counts(); fmt.Sprint(got) != fmt.Sprint([]FieldCounts{{Name: "a"}, {Name: "b"}}) {
		t.Errorf("%+v after reset", got)
	}
}

func TestLabelAndText(t *testing.T) {
	read, err := LabelReader(model.Spec{Format: "json"}, "meta.label")
	if err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string][2]bool{`1`: {true, true}, `0`: {false, true}, `0.0`: {false, true}, `"1.0"`: {true, true}, `true`: {true, true},
		`false`: {false, true}, `"normal"`: {false, true}, `"None"`: {false, true}, `"neptune"`: {true, true}, `null`: {false, false}, `""`: {false, false},
		`"n/a"`: {false, false}, `[1]`: {false, false}, `-1`: {true, true}} {
		p, ok := read([]byte(`{"x":1,"meta":{"label":` + value + `}}`))
		if p != want[0] || ok != want[1] {
			t.Errorf("%s: %v %v, want %v", value, p, ok, want)
		}
	}
	for _, v := range [][]byte{nil, []byte("{"), []byte(`{"x":1}`)} {
		if _, ok := read(v); ok {
			t.Errorf("%s has a label", v)
		}
	}
	csv, err := LabelReader(model.Spec{Format: "csv", Header: []string{"a", "Class"}}, "Class")
	if err != nil {
		t.Fatal(err)
	}
	if p, ok := csv([]byte("5,1")); !p || !ok {
		t.Error("label of a CSV record")
	}
	if _, err := LabelReader(model.Spec{Format: "csv", Header: []string{"a", "Class"}}, "class"); err == nil || !strings.Contains(err.Error(), `did you mean Class?`) {
		t.Errorf("%v", err)
	}
	text, err := TextReader(model.Spec{Format: "json"}, "car")
	if err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]string{`{"car":"c\u00e4r \"1\"","x":"\n"}`: `cär "1"`, `{"car":45035996273704963}`: "45035996273704963", `{"car":true}`: "true",
		`{"car":null}`: "", `{"car":{"x":1}}`: "", `{"x":"\u0041"}`: "", `{"car":"a","car":"b"}`: "b"} {
		if got, ok := text([]byte(value)); string(got) != want || ok != (want != "") {
			t.Errorf("%s: %q %v, want %q", value, got, ok, want)
		}
	}
}

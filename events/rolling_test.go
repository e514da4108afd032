package events

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/lapwing-stream/lapwing/model"
)

// rollingSpec has a number, a category and a boolean, in this order: 3 + 3 + 3 columns.
func rollingSpec(records int) model.Spec {
	return model.Spec{Format: "json", Rolling: records, Fields: []model.Field{
		{Name: "x", Type: model.Number},
		{Name: "c", Type: model.Category, Categories: []string{"a", "b"}},
		{Name: "on", Type: model.Boolean},
	}}
}

func compiled(t testing.TB, spec model.Spec) *Decoder {
	t.Helper()
	d, err := Compile(spec)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestRollingColumns(t *testing.T) {
	spec := rollingSpec(10)
	want := []string{"x", "x.mean10", "x.sd10", "c=a", "c=b", "c=?", "on", "on.mean10", "on.sd10"}
	if got := spec.Columns(); !slices.Equal(got, want) {
		t.Errorf("columns %q, want %q", got, want)
	}
	if got := spec.ColumnFields(); !slices.Equal(got, []int{0, 0, 0, 1, 1, 1, 2, 2, 2}) {
		t.Errorf("fields %v", got)
	}
	if d := compiled(t, spec); d.Columns() != len(want) {
		t.Errorf("the decoder makes %d columns, the spec names %d", d.Columns(), len(want))
	}
	missing := 4.
	spec.Fields[0].Log1p, spec.Fields[0].Clip, spec.Fields[0].Missing = true, []float64{0, 9}, &missing
	rules := spec.ColumnRules()
	if r := rules[1]; !r.Log1p || len(r.Clip) != 2 || r.Missing == nil || r.Type != model.Number {
		t.Errorf("the mean follows its field: %+v", r)
	}
	if r := rules[2]; !r.Log1p || r.Clip != nil || r.Missing != nil || r.Type != model.Number {
		t.Errorf("a deviation has no clip or missing value of its own: %+v", r)
	}
	if r := rules[7]; r.Type != model.Number {
		t.Errorf("the mean of a boolean is a number: %+v", r)
	}
}

func TestRollingFeatures(t *testing.T) {
	nan := math.NaN()
	type step struct {
		value    string
		mean, sd float64
		warming  bool
		outcome  Outcome
	}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"mean and deviation of the last three", []step{
			{`{"x":1,"on":true}`, 1, nan, true, OK},
			{`{"x":3,"on":true}`, 2, 1, true, OK},
			{`{"x":5,"on":true}`, 3, math.Sqrt(8. / 3), false, OK},
			{`{"x":5,"on":true}`, 13. / 3, math.Sqrt(8. / 9), false, OK},
			{`{"x":5,"on":true}`, 5, 0, false, OK},
		}},
		{"a missing value takes a place and no part", []step{
			{`{"x":null,"on":true}`, nan, nan, true, Partial},
			{`{"x":4,"on":true}`, 4, nan, true, OK},
			{`{"x":"","on":true}`, 4, nan, false, Partial},
			{`{"x":6,"on":true}`, 5, 1, false, OK},
			{`{"x":8,"on":true}`, 7, 1, false, OK},
		}},
		{"so does an infinite one, in a record that has no score", []step{
			{`{"x":1,"on":true}`, 1, nan, true, OK},
			{`{"x":1e99,"on":true}`, 1, nan, true, NotFinite},
			{`{"x":3,"on":true}`, 2, 1, false, OK},
		}},
		{"what is no record takes no place", []step{
			{`{"x":1,"on":true}`, 1, nan, true, OK},
			{`{"x":`, nan, nan, false, Rejected},
			{`{}`, nan, nan, false, NoFeatures},
			{`{"x":3,"on":true}`, 2, 1, true, OK},
			{`{"x":5,"on":true}`, 3, math.Sqrt(8. / 3), false, OK},
		}},
		{"the ends of float32 stay within it", []step{
			{`{"x":-3.4028235e38,"on":true}`, -math.MaxFloat32, nan, true, OK},
			{`{"x":3.4028235e38,"on":true}`, 0, math.MaxFloat32, true, OK},
		}},
		{"a small deviation beside a large mean", []step{
			{`{"x":16777215,"on":true}`, 16777215, nan, true, OK},
			{`{"x":16777213,"on":true}`, 16777214, 1, true, OK},
			{`{"x":16777214,"on":true}`, 16777214, math.Sqrt(2. / 3), false, OK},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := compiled(t, rollingSpec(3))
			w := NewWindows(d, 10)
			row := make([]float32, d.Columns())
			for i, s := range c.steps {
				r := d.DecodeNext(w, nil, []byte(s.value), row)
				if r.Outcome != s.outcome || r.Warming != s.warming {
					t.Fatalf("record %d: %v, warming %v; want %v, %v", i, r.Outcome, r.Warming, s.outcome, s.warming)
				}
				if r.Outcome == Rejected || r.Outcome == NoFeatures {
					continue
				}
				for k, want := range []float64{s.mean, s.sd} {
					if got := row[1+k]; math.Float32bits(got) != math.Float32bits(float32(want)) && !(got != got && want != want) {
						t.Errorf("record %d: column %s is %v, want %v", i, d.spec.Columns()[1+k], got, float32(want))
					}
				}
			}
		})
	}
}

func TestWindowsOfKeys(t *testing.T) {
	spec := rollingSpec(2)
	spec.Key = "car"
	d := compiled(t, spec)
	w := NewWindows(d, 10)
	row := make([]float32, d.Columns())
	for i, c := range []struct {
		key, value string
		mean       float32
	}{
		{"", `{"x":1,"car":"a"}`, 1},
		{"", `{"x":10,"car":"b"}`, 10},
		{"other", `{"x":3,"car":"a"}`, 2}, // the field goes before the Kafka key
		{"", `{"x":100}`, 100},            // neither: the partition's own
		{"a", `{"x":7}`, 7},               // a Kafka key is not the field of the same text
		{"a", `{"x":9,"car":null}`, 8},
		{"", `{"x":200,"car":""}`, 150},
		{"", `{"x":5,"car":7}`, 5},
		{"", `{"x":7,"car":"7"}`, 6},
		{"", `{"x":1,"car":"\u0061"}`, 2}, // an escape is the same text
	} {
		var key []byte
		if c.key != "" {
			key = []byte(c.key)
		}
		if d.DecodeNext(w, key, []byte(c.value), row); row[1] != c.mean {
			t.Errorf("record %d: mean %v, want %v", i, row[1], c.mean)
		}
	}
	spec.Key = ""
	d = compiled(t, spec)
	w = NewWindows(d, 10)
	d.DecodeNext(w, []byte("k"), []byte(`{"x":1,"car":"a"}`), row)
	d.DecodeNext(w, []byte("l"), []byte(`{"x":5,"car":"a"}`), row)
	if d.DecodeNext(w, []byte("k"), []byte(`{"x":3,"car":"b"}`), row); row[1] != 2 {
		t.Errorf("by the Kafka key: mean %v, want 2", row[1])
	}
}

// The key of a CSV record may be a column that is no feature, and one that is.
func TestWindowsOfCSVKeys(t *testing.T) {
	for _, key := range []string{"car", "x"} {
		spec := model.Spec{Format: "csv", Header: []string{"car", "x"}, Key: key, Rolling: 2, Fields: []model.Field{{Name: "x", Type: model.Number}}}
		d := compiled(t, spec)
		w := NewWindows(d, 10)
		row := make([]float32, d.Columns())
		for _, line := range []string{`"a""b",1`, "c,9", `"a""b",1`} {
			d.DecodeNext(w, nil, []byte(line), row)
		}
		if row[1] != 1 || row[2] != 0 || w.Keys() != 2 {
			t.Errorf("by %s: %v over %d keys", key, row, w.Keys())
		}
	}
}

func TestWindowsHoldSoManyKeys(t *testing.T) {
	d := compiled(t, rollingSpec(2))
	w := NewWindows(d, 2)
	row := make([]float32, d.Columns())
	feed := func(key string, x int) Result {
		return d.DecodeNext(w, []byte(key), fmt.Appendf(nil, `{"x":%d,"on":1}`, x), row)
	}
	feed("a", 1)
	feed("b", 1)
	feed("a", 3)
	feed("c", 1) // b is the one unseen for longest
	if r := feed("a", 5); r.Warming || row[1] != 4 {
		t.Errorf("a was seen last and kept: %+v, mean %v", r, row[1])
	}
	if r := feed("b", 9); !r.Warming || row[1] != 9 {
		t.Errorf("b went and begins anew: %+v, mean %v", r, row[1])
	}
	if w.Keys() != 2 {
		t.Errorf("%d keys, at most 2", w.Keys())
	}
}

// A window's features depend on its records alone: whoever begins with the last of them gets the same bits.
func TestRollingFeaturesFromTheLastRecords(t *testing.T) {
	const n = 7
	d := compiled(t, rollingSpec(n))
	r := rand.New(rand.NewPCG(3, 5))
	var values [][]byte
	for range 200 {
		values = append(values, fmt.Appendf(nil, `{"x":%g,"on":%v}`, 1e6+math.Exp(9*r.NormFloat64()), r.IntN(2) == 0))
	}
	whole := NewWindows(d, 1)
	unbroken, row := make([]float32, d.Columns()), make([]float32, d.Columns())
	for i, v := range values {
		d.DecodeNext(whole, nil, v, unbroken)
		if i < n {
			continue
		}
		late := NewWindows(d, 1)
		for _, v := range values[i-n+1 : i+1] {
			d.DecodeNext(late, nil, v, row)
		}
		for c := range row {
			if math.Float32bits(row[c]) != math.Float32bits(unbroken[c]) {
				t.Fatalf("record %d, column %s: %v from the last %d, %v unbroken", i, d.spec.Columns()[c], row[c], n, unbroken[c])
			}
		}
	}
}

func TestWindowsFit(t *testing.T) {
	spec := rollingSpec(3)
	w := NewWindows(compiled(t, spec), 1)
	for _, c := range []struct {
		name   string
		change func(*model.Spec)
		fits   bool
	}{
		{"the same", func(*model.Spec) {}, true},
		{"other categories, clip and time", func(s *model.Spec) {
			s.Fields[1].Categories, s.Fields[0].Clip, s.Time = []string{"z"}, []float64{0, 1}, &model.Time{Field: "t"}
		}, true},
		{"another number of records", func(s *model.Spec) { s.Rolling = 4 }, false},
		{"another key", func(s *model.Spec) { s.Key = "car" }, false},
		{"another field", func(s *model.Spec) { s.Fields[0].Name = "y" }, false},
		{"a field more", func(s *model.Spec) { s.Fields = append(s.Fields, model.Field{Name: "y", Type: model.Number}) }, false},
		{"none", func(s *model.Spec) { s.Rolling = 0 }, false},
	} {
		spec := spec
		spec.Fields = slices.Clone(spec.Fields)
		c.change(&spec)
		d := compiled(t, spec)
		if got := w.Fit(d); got != c.fits {
			t.Errorf("%s: fits is %v", c.name, got)
		}
		if none := (*Windows)(nil); none.Fit(d) != (spec.Rolling == 0) {
			t.Errorf("%s: no windows fit is %v", c.name, none.Fit(d))
		}
	}
}

func TestRollingSpecFaults(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*model.Spec)
		want   string
	}{
		{"one record", func(s *model.Spec) { s.Rolling = 1 }, "rolling 1 is not within 2 to 1000 records"},
		{"too many", func(s *model.Spec) { s.Rolling = 1001 }, "rolling 1001 is not within"},
		{"a field has the name", func(s *model.Spec) {
			s.Fields = append(s.Fields, model.Field{Name: "x.mean10", Type: model.Number})
		}, `field 4 "x.mean10": the name is taken by a rolling column of field 1 "x"`},
		{"no numbers", func(s *model.Spec) { s.Fields = s.Fields[1:2] }, "no field is a number or a boolean"},
		{"key that is no path", func(s *model.Spec) { s.Key = "a..b" }, "a..b"},
	} {
		spec := rollingSpec(10)
		c.change(&spec)
		if _, err := Compile(spec); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q in it", c.name, err, c.want)
		}
	}
}

func TestRollingSpecFile(t *testing.T) {
	spec := rollingSpec(10)
	var b bytes.Buffer
	if err := WriteSpec(&b, spec, []model.ColumnNote{{Name: "x.sd10", Note: "extreme values"}}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "  # x.sd10: extreme values\n  - {name: x,") {
		t.Errorf("a rolling column's note stands elsewhere than above its field:\n%s", b.String())
	}
	got, err := ParseSpec("spec.yaml", b.Bytes())
	if err != nil || got.Rolling != 10 || got.Columns()[1] != "x.mean10" {
		t.Errorf("%+v, %v from\n%s", got, err, b.String())
	}
	for _, text := range []string{"ten", "1", "2.5", "[10]", "-3", "1001"} {
		_, err := ParseSpec("spec.yaml", []byte("format: json\nrolling: "+text+"\nfields: [{name: x, type: number}]\n"))
		if err == nil || !strings.Contains(err.Error(), "rolling") || !strings.Contains(err.Error(), "spec.yaml:2") {
			t.Errorf("rolling: %s: %v", text, err)
		}
	}
}

// FuzzWindows feeds records of a few keys and compares with the plain definition: the last n values of the key, summed
// from the oldest.
func FuzzWindows(f *testing.F) {
	f.Add(uint8(3), uint8(2), []byte("\x00\x01\x02\x03\x04\x05\x00\x11\x12\x13\x14\x15"))
	f.Add(uint8(2), uint8(9), bytes.Repeat([]byte{7, 0x7f, 0x7f, 0xff, 0xff}, 9))
	f.Fuzz(func(t *testing.T, records, keys uint8, feed []byte) {
		n, bound := 2+int(records)%5, 1+int(keys)%4
		spec := model.Spec{Format: "json", Rolling: n, Fields: []model.Field{{Name: "x", Type: model.Number}, {Name: "z", Type: model.Number}}}
		d := compiled(t, spec)
		w := NewWindows(d, bound)
		row := make([]float32, d.Columns())
		last := map[byte][]float32{} // of each key, newest last
		var recent []byte            // keys, the most recent last
		for ; len(feed) >= 5; feed = feed[5:] {
			key := feed[0] % 6
			v := math.Float32frombits(binary.BigEndian.Uint32(feed[1:]))
			text := "null"
			if v == v && !math.IsInf(float64(v), 0) {
				text = fmt.Sprintf("%g", v)
			} else {
				v = float32(math.NaN())
			}
			recent = append(slices.DeleteFunc(recent, func(k byte) bool { return k == key }), key)
			if len(recent) > bound {
				delete(last, recent[0])
				recent = recent[1:]
			}
			last[key] = append(last[key], v)
			if len(last[key]) > n {
				last[key] = last[key][1:]
			}
			r := d.DecodeNext(w, []byte{key}, []byte(`{"x":`+text+`,"z":1}`), row)
			if r.Warming != (len(last[key]) < n) || w.Keys() != len(last) {
				t.Fatalf("warming %v with %d of %d records, %d keys of %d", r.Warming, len(last[key]), n, w.Keys(), len(last))
			}
			var count, sum, squares float64
			for _, v := range last[key] {
				if v == v {
					count++
					sum += float64(v)
				}
			}
			for _, v := range last[key] {
				if v == v {
					squares += (float64(v) - sum/count) * (float64(v) - sum/count)
				}
			}
			want := []float32{v, float32(sum / count), float32(math.Sqrt(squares / count)), 1, 1, 0}
			if count < 2 {
				want[2] = float32(math.NaN())
			}
			if len(last[key]) < 2 {
				want[5] = float32(math.NaN())
			}
			for c := range want {
				if row[c] != want[c] && !(row[c] != row[c] && want[c] != want[c]) {
					t.Fatalf("column %s: %v, want %v; window %v", spec.Columns()[c], row[c], want[c], last[key])
				}
				if math.IsInf(float64(row[c]), 0) {
					t.Fatalf("column %s is infinite", spec.Columns()[c])
				}
			}
		}
	})
}

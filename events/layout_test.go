package events

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

// TestNumbersOfEveryForm: whatever a number's length, sign, point and exponent, and wherever it stands, it comes out as
// strconv reads it, in the first record and once it is known how the records are written.
func TestNumbersOfEveryForm(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	texts := []string{"0", "-0", "0.0", "-0.0", "7", "1e5", "1E5", "1.5e3", "-1.5E-3", "12345.6e7", "0.123456e2", "1234567", "12345678", "-1234567", "-12345678",
		"123456.7", "1234567.8", "12345678.9", "0.1234567", "0.12345678901234", "0.123456789012345", "1.00000005960464477539", "16777217", "9007199254740993", "-123456.7",
		"-0.00001", "3.4028236e38", "340282360000000000000000000000000000000.5"}
	for range 3000 {
		x := rng.NormFloat64() * math.Pow(10, float64(rng.IntN(9)-3))
		texts = append(texts, strconv.FormatFloat(x, "ffge"[rng.IntN(4)], rng.IntN(16)-1, 64))
	}
	d := mustCompile(t, numbers("a", "b", "c"))
	row := make([]float32, 3)
	for _, form := range []string{`{"a":%s,"b":%s,"c":%s}`, `{"a": %s, "b": %s, "c": %s}`, "{\n\t\"a\" : %s ,\n\t\"b\" : %s ,\n\t\"c\" : %s\n}", `{"x":null,"c":%[3]s,"y":"text","b":%[2]s,"a":%[1]s}`} {
		for i := range texts {
			three := []any{texts[i], texts[(i+1)%len(texts)], texts[(i+7)%len(texts)]}
			record := fmt.Appendf(nil, form, three...)
			r := d.Decode(record, row)
			infinite := false
			for k, text := range three {
				want, _ := strconv.ParseFloat(text.(string), 32)
				infinite = infinite || math.IsInf(want, 0)
				if math.Float32bits(row[k]) != math.Float32bits(float32(want)) {
					t.Fatalf("%s: column %d is %v, not %v", record, k, row[k], want)
				}
			}
			if (r.Outcome == NotFinite) != infinite || r.Outcome == Rejected || r.Missing != 0 {
				t.Fatalf("%s: %+v", record, r)
			}
		}
	}
	for _, s := range []string{"01", "-01", "1.", "-1.", "1.e5", ".5", "-.5", "-", "1e", "1.5e", "1.2.3", "123456.7.8", "00.5", "0123456.75", "1-2", "--1", "+1", "1_0"} {
		for _, form := range []string{`{"a":%s,"b":1,"c":2,"long enough":"for any window"}`, `{"c":1,"a":%s}`} {
			if r := d.Decode(fmt.Appendf(nil, form, s), row); r.Outcome != Rejected {
				t.Errorf(form+" is %v", s, r.Outcome)
			}
		}
	}
}

// TestLayoutIsBounded: records whose keys are made up anew fill no memory, and wanted keys are still read.
func TestLayoutIsBounded(t *testing.T) {
	d := mustCompile(t, numbers("a", "in.b"))
	row := make([]float32, 2)
	for i := range 5000 {
		record := fmt.Sprintf(`{"k%d":1,"a":%s%d,"in":{"q%d":{},"b":2.5}}`, i, strings.Repeat(" ", i%300), i, i)
		if r := d.Decode([]byte(record), row); r.Outcome != OK || row[0] != float32(i) || row[1] != 2.5 {
			t.Fatalf("%s: %+v %v", record, r, row)
		}
	}
	for _, n := range []*node{d.root, d.root.children[1].node} {
		if len(n.layout.slots) > 2+maxStrange+leadsOfEach*len(n.children) || len(n.layout.known) > len(n.layout.slots) {
			t.Errorf("%d slots, %d leads", len(n.layout.slots), len(n.layout.known))
		}
	}
	record := []byte(`{"never seen":1,"a":1,"in":{"b":2.5}}`)
	if n := testing.AllocsPerRun(100, func() { d.Decode(record, row) }); n != 0 {
		t.Errorf("%v allocations for a record with a key that is not learned", n)
	}
}

// TestAllocations: a record costs no allocation, however it is written and whether or not it is as the last one.
func TestAllocations(t *testing.T) {
	d := mustCompile(t, fuzzSpec())
	row := make([]float32, d.Columns())
	var records [][]byte
	for _, s := range []string{
		`{"temp":61.5,"load":0.123456789,"on":true,"mode":"run","engine":{"temp":1},"sensors":[{"value":1},2,3],"a.b":4,"time":1600000001000}`,
		`{"mode": "idle", "temp": "61.5", "unwanted": [1, {"a": "b\n"}], "on": 1, "load": 7e3, "time": "2020-09-13T12:26:41Z", "engine": {"temp": 2}}`,
		`{"sensors":{"0":{"value":9}},"t\u0065mp":2,"mode":"\u0072un","load":null,"on":false,"a.b":1,"x":"y"}`,
	} {
		records = append(records, []byte(s))
	}
	i := 0
	if n := testing.AllocsPerRun(300, func() { d.Decode(records[i%3], row); i++ }); n != 0 {
		t.Errorf("%v allocations a record", n)
	}
}

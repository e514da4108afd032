package events

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/lapwing-stream/lapwing/model"
)

func mustFilter(t testing.TB, where string, spec model.Spec) *Filter {
	t.Helper()
	w, err := ParseWhere(where)
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	f, err := w.Filter(spec)
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	return f
}

func TestWhereKeeps(t *testing.T) {
	const rec = `{"speed":12.5,"model":"M3","on":true,"off":false,"text":"7.50","word":"fast","yes":"True","empty":"","gone":null,"nan":"NaN","big":9007199254740993,` +
		`"a":{"b":{"c":-3e2}},"list":[1,{"v":"x"}],"oil temp":90,"dot.key":"d","obj":{},"code":12,"a\tb":1,"quote\"":2,"fran\u00e7ais":"é"}`
	for _, c := range []struct {
		where string
		want  bool
	}{
		{`event.speed > 0 && event.model == "M3"`, true},
		{`event.speed > 0 && event.model == 'M4'`, false},
		{`event.speed > 13 || event.model != "M4"`, true},
		{`event.speed == 12.5`, true}, {`event.speed == 1.25e1`, true}, {`event.speed != 12.5`, false}, {`event.speed >= 12.5`, true}, {`event.speed <= 12.5`, true}, {`event.speed < 12.5`, false},
		{`12 < event.speed`, true}, {`13 <= event.speed`, false}, {`12.5 == event.speed`, true}, {`13 > event.speed`, true}, {`.5 < event.speed`, true},
		{`event.a.b.c == -300`, true}, {`event.a.b.c < -299.5`, true}, {`event["a"].b["c"] == -300`, true},
		{`event.list[0] == 1`, true}, {`event.list[1].v == "x"`, true}, {`event.list[2] == 1`, false}, {`has(event.list[2])`, false},
		{`event["oil temp"] > 80`, true}, {`event["dot.key"] == "d"`, true}, {`event.dot.key == "d"`, false}, {`event["a\tb"] == 1`, true}, {`event["quote\""] == 2`, true}, {`event["fran\u00e7ais"] == "é"`, true},
		// && before ||, ! before both
		{`true || false && false`, true}, {`(true || false) && false`, false}, {`!false && false`, false}, {`!(false && false)`, true}, {`!!true`, true},
		// booleans
		{`event.on`, true}, {`event.off`, false}, {`!event.off`, true}, {`event.on == true`, true}, {`event.on != false`, true}, {`event.off == false`, true}, {`event.yes`, true}, {`event.yes == true`, true}, {`false < event.on`, true}, {`event.word`, false}, {`event.speed`, false},
		// has
		{`has(event.speed)`, true}, {`has(event.absent)`, false}, {`has(event.gone)`, false}, {`!has(event.gone)`, true}, {`has(event.empty)`, true}, {`has(event.obj)`, true}, {`has(event.a.b)`, true}, {`has(event.a.x)`, false}, {`has(event.speed.x)`, false},
		// missing: no comparison holds
		{`event.absent == 0`, false}, {`event.absent != 0`, false}, {`event.absent != "x"`, false}, {`event.absent == event.absent`, false}, {`event.gone != 1`, false}, {`event.gone < 1`, false}, {`!(event.gone == 1)`, true}, {`event.empty != 0`, false}, {`event.nan != 0`, false}, {`event.absent != event.speed`, false},
		{`event.empty == ""`, true}, {`event.nan == "NaN"`, true},
		// the literal decides
		{`event.text == 7.5`, true}, {`event.text == "7.5"`, false}, {`event.text == "7.50"`, true}, {`event.text > 7`, true}, {`event.code == "12"`, true}, {`event.code == 12`, true}, {`event.on == "true"`, true},
		{`event.word == 1`, false}, {`event.word != 1`, true}, {`event.word > 1`, false}, {`event.word < 1`, false}, {`event.obj != 1`, true}, {`event.obj == ""`, false}, {`event.speed != true`, true}, {`event.on > 0`, false},
		{`event.model < "M30"`, true}, {`event.model >= "M"`, true},
		{`event.big == 9007199254740992`, true}, // float64, as JSON has it
		// two fields
		{`event.text < event.speed`, true}, {`event.speed > event.text`, true}, {`event.model == event.model`, true}, {`event.word != event.model`, true}, {`event.obj == event.model`, false}, {`event.obj != event.model`, true},
		{`event.model == r"M3"`, true}, {`event.model == "\u004d3"`, true}, {`event.model == r'M\3'`, false},
	} {
		if got := mustFilter(t, c.where, model.Spec{Format: "json"}).Keeps([]byte(rec)); got != c.want {
			t.Errorf("%s is %v", c.where, got)
		}
	}
}

// What a filter cannot look at is not left out by it: the decoder says what it is.
func TestWhereLeavesTheUnreadableAlone(t *testing.T) {
	f := mustFilter(t, "false", model.Spec{Format: "json"})
	for _, v := range [][]byte{nil, {}, []byte(" "), []byte("{"), []byte("[1]"), []byte(`{"a":1}x`), []byte("a,b")} {
		if !f.Keeps(v) {
			t.Errorf("%q is left out by the filter", v)
		}
	}
	if f.Keeps([]byte(`{"a":1}`)) {
		t.Error("false keeps a record")
	}
}

func TestWhereOnCSV(t *testing.T) {
	spec := model.Spec{Format: "csv", Header: []string{"speed", "model", "a.b", "oil temp"}}
	for _, c := range []struct {
		where, row string
		want       bool
	}{
		{`event.speed > 9`, "12,M3,1,2", true}, {`event.speed > 9`, "x,M3,1,2", false}, {`event.model == "M3"`, `1,"M3",1,2`, true},
		{`event.a.b == 1`, "1,2,1,4", true}, {`event["a.b"] == 1`, "1,2,1,4", true}, {`event["oil temp"] == 4.0`, "1,2,1,4", true},
		{`has(event.model)`, "1,,1,2", false}, {`event.model != "M3"`, "1,,1,2", false}, {`!(event.model == "M3")`, "1,,1,2", true},
		{`event.speed < event.a.b`, "9,x,10,1", true}, {`event.model == 'say "x"'`, `1,"say ""x""",1,2`, true},
	} {
		if got := mustFilter(t, c.where, spec).Keeps([]byte(c.row)); got != c.want {
			t.Errorf("%s on %s is %v", c.where, c.row, got)
		}
	}
	own := mustFilter(t, `event.speed > 9`, model.Spec{Format: "csv"})
	if !own.Keeps([]byte("model,speed\nM3,10")) || own.Keeps([]byte("speed,model\n9,M3")) || own.Keeps([]byte("model\nM3")) {
		t.Error("records with their own header")
	}
	for where, want := range map[string]string{`event.spede > 1`: "did you mean speed?", `event.a.b == 1 && event["a.b"] == 1`: "in two ways"} {
		w, _ := ParseWhere(where)
		if _, err := w.Filter(spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", where, err, want)
		}
	}
}

func TestWhereErrors(t *testing.T) {
	deep := strings.Repeat("(", 100) + "true" + strings.Repeat(")", 100)
	for _, c := range []struct {
		where  string
		column int
		what   string // of the message
	}{
		{"", 1, "the end where a field"},
		{"   ", 4, "the end where a field"},
		{"event.speed = 0", 13, "write == to compare"},
		{"event.speed >", 14, "the end where a field"},
		{"speed > 0", 1, "fields begin with event., as in event.speed"},
		{`event.model == M3`, 16, `text stands in quotes, as in "M3"`},
		{"event > 0", 1, "name a field of it"},
		{"event. > 0", 8, "where a field's name should be"},
		{"event.x > 0 and event.y > 0", 13, "write && for and"},
		{"event.x > 0 or event.y > 0", 13, "write || for or"},
		{"event.x > 0 & event.y > 0", 13, "write && to join"},
		{"event.x in [1]", 9, "has no in"},
		{"event.x + 1 > 0", 9, "does not calculate"},
		{"event.x - 1 > 0", 9, "does not calculate"},
		{"event.x > -event.y", 12, "does not calculate"},
		{"0 < event.x < 9", 13, "do not chain"},
		{"!event.x == 1", 10, "! belongs before a parenthesis"},
		{"(event.x) == 1", 11, "compare fields and literals"},
		{"(event.x > 1", 13, "where ) should be"},
		{"event.x > 1)", 12, "open a parenthesis"},
		{"event.x == 'a", 12, "without a closing '"},
		{"event.x == \"a\nb\"", 12, "does not end on its line"},
		{`event.x == "\d"`, 13, "begins no escape"},
		{`event.x == "\u00"`, 13, "begins no escape"},
		{"event.x == 1x", 12, `"1x" is no number`},
		{"event.x == 0x1F", 12, `"0x1F" is no number`},
		{"event.x == 1.", 12, `"1." is no number`},
		{"event.x == 1e999", 12, "beyond what a number can be"},
		{"event.x == null", 12, "!has(event.x)"},
		{"1 == 1", 1, "without a field"},
		{`"x"`, 1, "no condition"},
		{"7", 1, "no condition"},
		{"has(event)", 5, "whole record"},
		{"has(1)", 5, "has() asks for a field"},
		{"has event.x", 5, "where ( should be"},
		{"event.name.startsWith('x')", 22, "called like a function"},
		{"event[1.5] == 1", 7, "element's number"},
		{`event[""] == 1`, 7, "element's number"},
		{"event.x[-1] == 1", 9, "element's number"},
		{"event.ölstand > 1", 7, `write a name with such letters as event["ö…"]`},
		{`event["ö"] = 1`, 12, "write == to compare"}, // counted in characters
		{"event.x == 1 @", 14, `'@' has no place here`},
		{deep, 66, "nested deeper"},
		{strings.Repeat("!", 100) + "true", 66, "nested deeper"},
		{strings.Repeat(" ", 5000), 1, "5000 bytes"},
		{"event.x == \"\xff\"", 13, "no UTF-8"},
	} {
		_, err := ParseWhere(c.where)
		var e *WhereError
		if !errors.As(err, &e) || e.Column != c.column || !strings.Contains(e.Error(), c.what) || e.Next == "" {
			t.Errorf("%s: %v, want column %d and %q", c.where, err, c.column, c.what)
		}
	}
}

func TestWhereFieldsAndSeen(t *testing.T) {
	f := mustFilter(t, `event.a.b > 1 || has(event["x.y"]) || event.a.b < 0`, model.Spec{Format: "json"})
	if got := f.where.Fields(); !slices.Equal(got, []string{"a.b", `x\.y`}) {
		t.Errorf("fields %q", got)
	}
	c := f.Clone()
	for _, r := range []string{`{"a":{"b":2}}`, `{"a":{"b":null}}`, `{"a":1}`, `{"x.y":1,"a":{"b":1}}`, `{`} {
		f.Keeps([]byte(r))
	}
	if !slices.Equal(f.Seen(), []int64{3, 1}) || !slices.Equal(c.Seen(), []int64{0, 0}) {
		t.Errorf("seen %v, by the clone %v", f.Seen(), c.Seen())
	}
}

func TestWhereAllocatesNothing(t *testing.T) {
	f := mustFilter(t, `event.speed > 0.5 && (event.model == "M3" || event.on) && event.text != 7 && event.speed < event.text`, model.Spec{Format: "json"})
	rec := []byte(`{"speed":1.5,"model":"M3","on":true,"text":"8.25","other":[1,2,3]}`)
	if n := testing.AllocsPerRun(100, func() {
		if !f.Keeps(rec) {
			t.Error("left out")
		}
	}); n != 0 {
		t.Errorf("%v allocations a record", n)
	}
}

// Whatever is written: no panic, a column inside of the text or one past it, and a filter that parses comes out the same for clone and copy.
func FuzzWhere(f *testing.F) {
	for _, s := range []string{`event.speed > 0 && event.model == "M3"`, `!(has(event.a[0].b) || 'x' != event["y z"]) && event.on`, `event.x == -1.5e-3`, "((((", `event.`, `"\U0001F600" == event.x`, "event.x == \xff", "r'", "event.x==.5"} {
		f.Add(s, `{"speed":1,"model":"M3","a":[{"b":null}],"y z":"x","on":true}`)
	}
	f.Fuzz(func(t *testing.T, where, record string) {
		w, err := ParseWhere(where)
		if err != nil {
			var e *WhereError
			if !errors.As(err, &e) || e.Column < 1 || e.Column > utf8.RuneCountInString(where)+1 || e.What == "" || e.Next == "" {
				t.Fatalf("%q: %#v", where, err)
			}
			return
		}
		for _, spec := range []model.Spec{{Format: "json"}, {Format: "csv"}} {
			filter, err := w.Filter(spec)
			if err != nil {
				continue
			}
			again, err := ParseWhere(w.String())
			if err != nil {
				t.Fatal(err)
			}
			other, err := again.Filter(spec)
			if err != nil {
				t.Fatal(err)
			}
			first := filter.Keeps([]byte(record))
			if filter.Keeps([]byte(record)) != first || filter.Clone().Keeps([]byte(record)) != first || other.Keeps([]byte(record)) != first {
				t.Fatalf("%q on %q comes out in two ways", where, record)
			}
		}
	})
}

func BenchmarkWhere(b *testing.B) {
	var fields strings.Builder
	for i := range 16 {
		fmt.Fprintf(&fields, `"field_%d":%d.25,`, i, i)
	}
	rec := []byte(`{` + fields.String() + `"speed":12.5,"model":"M3"}`)
	f := mustFilter(b, `event.speed > 0 && event.model == "M3"`, model.Spec{Format: "json"})
	b.SetBytes(int64(len(rec)))
	for b.Loop() {
		f.Keeps(rec)
	}
}

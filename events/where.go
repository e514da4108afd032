package events

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/lapwing-stream/lapwing/model"
)

// A Where is a condition on records, in a subset of CEL (the Common Expression Language) that ParseWhere describes. It is plain data: a
// Filter applies it to records of one format.
//
// It has its own parser and no CEL library: a library evaluates over values of all fields, each a boxed interface, where a filter
// reads two or three fields in the scan of the record's bytes and allocates nothing. What is accepted here means the same in CEL, but for
// two rules, made for records whose fields come and go: a comparison of a missing field is false rather than an error, and the literal
// decides how a field is read.
type Where struct {
	text  string
	root  condition
	paths [][]string // keys from the record inwards, no two alike
}

// String is the expression as it was written.
func (w *Where) String() string { return w.text }

// Fields are the names of the fields that the condition asks for, as feature specs have them.
func (w *Where) Fields() []string {
	out := make([]string, len(w.paths))
	for i := range w.paths {
		out[i] = w.name(i, "json")
	}
	return out
}

var escapeKey = strings.NewReplacer(`\`, `\\`, ".", `\.`)

func (w *Where) name(i int, format string) string {
	if format == "csv" { // a column's name is one key
		return strings.Join(w.paths[i], ".")
	}
	keys := make([]string, len(w.paths[i]))
	for k, key := range w.paths[i] {
		keys[k] = escapeKey.Replace(key)
	}
	return strings.Join(keys, ".")
}

// A Filter applies a Where to records of one format. It is for one goroutine; Clone gives another.
type Filter struct {
	where *Where
	d     *Decoder
	seen  []int64
}

// Filter makes a filter for records as spec has them (format, header, delimiter). The error names a field that the header lacks.
func (w *Where) Filter(spec model.Spec) (*Filter, error) {
	names := make([]string, len(w.paths))
	for i := range names {
		names[i] = w.name(i, spec.Format)
		if slices.Contains(names[:i], names[i]) {
			return nil, &advised{fmt.Sprintf("the filter names column %q in two ways", names[i]), `write it as event["` + names[i] + `"] throughout`}
		}
	}
	d, err := compile(model.Spec{Format: spec.Format, Header: spec.Header, Delimiter: spec.Delimiter}, names...)
	if err != nil {
		return nil, err
	}
	return &Filter{w, d, make([]int64, len(names))}, nil
}

// Clone gives a filter for another goroutine, with counts of its own.
func (f *Filter) Clone() *Filter {
	return &Filter{f.where, f.d.Clone(), make([]int64, len(f.seen))}
}

// Keeps says whether the record meets the condition. A null value and a record that cannot be read do: what they are is for the decoder
// to say, and neither is ever left out under the name of a filter that could not look at it.
func (f *Filter) Keeps(value []byte) bool {
	if value == nil {
		return true
	}
	f.d.begin()
	if !f.d.scan(dropMark(value)) {
		return true
	}
	for i := range f.d.got {
		c := &f.d.got[i]
		if f.d.csv != nil && len(c.text) == 0 {
			c.kind = kindNull // an empty cell is no value
		}
		if c.kind != kindAbsent {
			f.seen[i]++
		}
	}
	return f.where.root.holds(f.d.got)
}

// Seen counts, for each of Fields, the records that had it, null included.
func (f *Filter) Seen() []int64 { return f.seen }

// A condition is a node of the expression. It reads the values of the paths, by their numbers.
type condition interface {
	holds(got []captured) bool
}

type (
	always  bool
	negated struct{ of condition }
	all     []condition // joined by &&
	some    []condition // joined by ||
	present int         // has(path)
	isTrue  int         // a path alone
	compare struct {
		path int
		by   operator
		with literal
	}
	comparePaths struct {
		left  int
		by    operator
		right int
	}
)

func (a always) holds([]captured) bool      { return bool(a) }
func (n negated) holds(got []captured) bool { return !n.of.holds(got) }
func (a all) holds(got []captured) bool {
	for _, c := range a {
		if !c.holds(got) {
			return false
		}
	}
	return true
}
func (s some) holds(got []captured) bool {
	for _, c := range s {
		if c.holds(got) {
			return true
		}
	}
	return false
}
func (p present) holds(got []captured) bool { return got[p].kind > kindNull }
func (p isTrue) holds(got []captured) bool {
	v, read := got[p].boolean()
	return read == readOK && v
}

// An operator is one of == != < <= > >=.
type operator uint8

const (
	equal operator = iota
	unequal
	less
	lessEqual
	greater
	greaterEqual
)

// holds for two values of one kind that compare as c, negative where the first is less.
func (o operator) holds(c int) bool {
	switch o {
	case equal:
		return c == 0
	case unequal:
		return c != 0
	case less:
		return c < 0
	case lessEqual:
		return c <= 0
	case greater:
		return c > 0
	}
	return c >= 0
}

// flipped is the operator for operands that have changed places.
func (o operator) flipped() operator {
	return [...]operator{equal: equal, unequal: unequal, less: greater, lessEqual: greaterEqual, greater: less, greaterEqual: lessEqual}[o]
}

// A literal is a number, text or boolean of the expression.
type literal struct {
	kind   valueKind // kindNumber, kindText or kindTrue, which stands for both
	number float64
	text   []byte
	truth  bool
}

// How a value came out when it was read as the literal's kind.
type comesOut uint8

const (
	readOK    comesOut = iota
	readNone           // missing: no comparison of it holds
	readOther          // a value of another kind: it is unequal to any of this kind, and neither less nor greater
)

func (c compare) holds(got []captured) bool {
	v := &got[c.path]
	switch c.with.kind {
	case kindNumber:
		n, r := v.float()
		return c.by.decide(r, cmp.Compare(n, c.with.number))
	case kindText:
		text, r := v.words()
		return c.by.decide(r, bytes.Compare(text, c.with.text))
	}
	b, r := v.boolean()
	return c.by.decide(r, truthOrder(b, c.with.truth))
}

func (o operator) decide(r comesOut, c int) bool {
	switch r {
	case readOK:
		return o.holds(c)
	case readOther:
		return o == unequal
	}
	return false
}

func truthOrder(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// Two fields compare as numbers where both hold one, else as text.
func (c comparePaths) holds(got []captured) bool {
	a, b := &got[c.left], &got[c.right]
	if a.kind <= kindNull || b.kind <= kindNull {
		return false
	}
	x, r := a.float()
	y, s := b.float()
	if r == readOK && s == readOK {
		return c.by.holds(cmp.Compare(x, y))
	}
	text, r := a.words()
	other, s := b.words()
	if r != readOK || s != readOK {
		return c.by == unequal
	}
	return c.by.holds(bytes.Compare(text, other))
}

// float reads the value as a feature of type number would be read: a number, or text that holds one and nothing else.
func (c *captured) float() (float64, comesOut) {
	text := c.text
	switch c.kind {
	case kindAbsent, kindNull:
		return 0, readNone
	case kindNumber:
	case kindText:
		if text = trimBlanks(text); len(text) == 0 || isMissingWord(text) {
			return 0, readNone
		}
	default:
		return 0, readOther
	}
	d, _, ok := scanPlain(text)
	if !ok {
		return 0, readOther
	}
	return d.float(text), readOK
}

// float is the nearest float64. Beyond the range it is ±Inf, which still compares as it should.
func (d decimal) float(text []byte) float64 {
	if !d.exact || d.mant > 1<<53 || d.exp < -22 || d.exp > 22 {
		v, _ := strconv.ParseFloat(view(text), 64)
		return v
	}
	v := float64(d.mant) // exact, as are the powers of ten: one rounding in all
	if d.exp < 0 {
		v /= pow10[-d.exp]
	} else {
		v *= pow10[d.exp]
	}
	if d.neg {
		v = -v
	}
	return v
}

// words reads the value as text; a number, true or false is its text as written.
func (c *captured) words() ([]byte, comesOut) {
	switch c.kind {
	case kindAbsent, kindNull:
		return nil, readNone
	case kindObject, kindArray:
		return nil, readOther
	}
	return c.text, readOK
}

// boolean reads true or false, also where they are text.
func (c *captured) boolean() (bool, comesOut) {
	switch c.kind {
	case kindAbsent, kindNull:
		return false, readNone
	case kindTrue, kindFalse:
		return c.kind == kindTrue, readOK
	case kindText:
		switch text := trimBlanks(c.text); {
		case foldEqual(text, "true"):
			return true, readOK
		case foldEqual(text, "false"):
			return false, readOK
		case len(text) == 0:
			return false, readNone
		}
	}
	return false, readOther
}

// isNumber keeps NaN, which no literal can be, out of comparisons.
func isNumber(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// Package events says how a record becomes a row of float32: JSON objects and CSV lines decoded by a feature spec,
// the inference of that spec from a sample, and the reading of files for load and score. It knows nothing of models'
// weights and nothing of Kafka.
//
// One set of rules holds at loading, training and scoring; docs/records.md states it for users.
package events

import (
	"errors"
	"fmt"
	"math"

	"github.com/lapwing-stream/lapwing/model"
)

// Outcome is what became of a record.
type Outcome uint8

const (
	OK         Outcome = iota
	Partial            // more than half of the fields are missing; the row is good to score
	NotFinite          // a field is ±Inf or beyond float32; its column is ±Inf, the others are as read
	NoFeatures         // no field is present: a dead letter
	Tombstone          // null value: no row, no dead letter, only counted
	Rejected           // not a record: a dead letter, with Reason and Detail
)

func (o Outcome) String() string {
	return [...]string{"ok", "partial", "not_finite", "no_features", "tombstone", "rejected"}[o]
}

// Reasons for NoFeatures and Rejected: short, stable, for counting and for the header of a dead letter.
const (
	ReasonEmpty      = "empty_value"
	ReasonNotJSON    = "not_json"
	ReasonNotObject  = "not_object" // JSON, but not an object
	ReasonTooDeep    = "too_deep"   // nested beyond MaxDepth
	ReasonNoFeatures = "no_features"
	ReasonCSVColumns = "csv_columns" // another number of fields than the header
	ReasonCSVQuote   = "csv_quote"   // a quote that does not end, or text after one
	ReasonCSVRows    = "csv_rows"    // more or fewer than one row in a record
	ReasonNUL        = "nul_byte"
	ReasonAvro       = "confluent_avro" // or another payload behind the Confluent header
	ReasonAvroFile   = "avro_container"
	ReasonGzip       = "gzip"
	ReasonZstd       = "zstd"
	ReasonXML        = "xml"
	ReasonUTF16      = "utf16"
	ReasonBinary     = "binary"
)

// MaxDepth is how deep a JSON record may be nested; the record's own braces count as one.
const MaxDepth = 512

// Result says what became of one record.
type Result struct {
	Outcome    Outcome
	Reason     string // a Reason… constant; only for NoFeatures and Rejected
	Detail     string // a sentence with byte position or field; only for NoFeatures and Rejected
	Time       int64  // event time, ms since 1970, where TimeOK
	TimeOK     bool
	TimeReason string // why not TimeOK: "absent", "not a time", "looks like milliseconds", …; "" without a time in the spec
	Missing    int    // fields missing, wrong types included
	Warming    bool   // DecodeNext: the key has had fewer records than its rolling features look back
}

// How a field came out of one record.
const (
	fieldAbsent  uint8 = iota // the key is not there
	fieldValue                // a value of the field's own type
	fieldText                 // numeric text, read as its number
	fieldMissing              // null, empty, NaN or a missing-value word
	fieldInf                  // beyond float32 or infinite
	fieldUnseen               // category: none of the known values
	fieldBool                 // from here on: another type than the field's, so missing
	fieldWords                // text that is no number
	fieldObject
	fieldArray
	fieldNumber // a number in a boolean field, neither 0 nor 1
	fieldStates
)

// FieldCounts says how often a field came out in which way since ResetCounts.
type FieldCounts struct {
	Name                                          string
	Read                                          int64 // a value of the field's own type
	NumericText                                   int64 // text read as the number it holds
	Absent, Null                                  int64 // no such key; null, empty, NaN or a missing-value word
	NotFinite                                     int64 // beyond float32
	Unseen                                        int64 // a category that the spec does not know
	WrongBool, WrongText, WrongObject, WrongArray int64 // other types, taken as missing
	WrongNumber                                   int64 // a boolean that is neither 0 nor 1
}

// Missing counts the records in which the field was imputed, wrong types included.
func (c *FieldCounts) Missing() int64 { return c.Absent + c.Null + c.Wrong() }

// Wrong counts the records in which the field had another type.
func (c *FieldCounts) Wrong() int64 {
	return c.WrongBool + c.WrongText + c.WrongObject + c.WrongArray + c.WrongNumber
}

// A Decoder turns records into rows by one spec. It is for one goroutine; Clone gives another.
type Decoder struct {
	spec     model.Spec
	fields   []field
	root     *node
	template []float32 // an empty row: NaN, and 1 in each category's unseen column
	time     *timeRule
	csv      *csvLayout // nil: JSON
	rolling  *rolling   // nil: no rolling features

	counts  [][fieldStates]int64
	records int64 // all decoded since ResetCounts
	plain   int64 // of those, all fields read as values: they are not in counts
	timeBad map[string]int64

	// Of the record being decoded:
	epoch   uint64
	row     []float32
	state   []uint8
	good    int // fields in state fieldValue
	timeMS  int64
	timeWhy string
	timeOK  bool
	got     []captured // one a captured path
	scratch []byte     // unescaped text
	failAt  int
	fail    string // what is wrong at failAt; a Reason… where it is one
}

// captured is the value under one path that a reader of single fields asked for.
type captured struct {
	kind valueKind
	text []byte // in the record or in scratch
}

type valueKind uint8

const (
	kindAbsent valueKind = iota
	kindNull
	kindNumber
	kindText
	kindTrue
	kindFalse
	kindObject
	kindArray
)

// Compile makes a decoder, or says everything that is wrong with the spec.
func Compile(spec model.Spec) (*Decoder, error) {
	if len(spec.Fields) == 0 {
		return nil, errors.New("feature spec: no fields")
	}
	if spec.Rolling > 0 && spec.Key != "" {
		return compile(spec, spec.Key)
	}
	return compile(spec)
}

// compile also takes paths, no two alike, whose values each record's scan keeps in got.
func compile(spec model.Spec, captures ...string) (*Decoder, error) {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("feature spec: "+format, args...))
	}
	d := &Decoder{spec: spec, root: newNode(), timeBad: map[string]int64{}}
	at := map[string]*node{}
	place := func(what, name string) *node {
		keys, err := d.keysOf(name)
		if err != nil {
			bad("%s: %v", what, err)
			return newNode()
		}
		n := d.root.add(keys)
		at[name] = n
		return n
	}
	switch spec.Format {
	case "json", "csv":
	default:
		bad("format %q is not json or csv", spec.Format)
	}
	if spec.Rolling != 0 && (spec.Rolling < model.MinRolling || spec.Rolling > model.MaxRolling) {
		bad("rolling %d is not within %d to %d records", spec.Rolling, model.MinRolling, model.MaxRolling)
	}
	rollingNames := map[string]string{} // columns → whose
	seen := map[string]int{}
	for i, f := range spec.Fields {
		what := fmt.Sprintf("field %d %q", i+1, f.Name)
		if first, ok := seen[f.Name]; ok {
			bad("%s: the name is taken by field %d", what, first+1)
			continue
		}
		seen[f.Name] = i
		fd := field{kind: f.Type, col: int32(len(d.template)), cols: 1}
		nan := float32(math.NaN())
		switch f.Type {
		case model.Number, model.Boolean:
			d.template = append(d.template, nan)
			if spec.Rolling > 0 {
				d.template = append(d.template, nan, nan)
				fd.cols = 3
				for _, name := range []string{spec.MeanColumn(f.Name), spec.DeviationColumn(f.Name)} {
					rollingNames[name] = what
				}
			}
			if len(f.Categories) > 0 {
				bad("%s: categories belong to type category, not %s", what, f.Type)
			}
		case model.Category:
			fd.values = make(map[string]int32, len(f.Categories))
			if len(f.Categories) == 0 {
				bad("%s: no categories", what)
			}
			if len(f.Categories) > MaxCategories {
				bad("%s: %d categories, at most %d; keep the most frequent, the rest goes to %s=?", what, len(f.Categories), MaxCategories, f.Name)
			}
			for k, c := range f.Categories {
				if _, ok := fd.values[c]; ok {
					bad("%s: category %q twice", what, c)
				}
				if c == "" || c == "?" {
					bad("%s: category %q cannot be one: empty is missing, and ? is the column of unseen values", what, c)
				}
				fd.values[c] = int32(k)
				d.template = append(d.template, 0)
			}
			d.template = append(d.template, 1)
			fd.cols = int32(len(f.Categories) + 1)
		default:
			bad("%s: type %q is not number, boolean or category", what, f.Type)
		}
		if f.Type != model.Number && (f.Log1p || len(f.Clip) > 0) {
			bad("%s: log1p and clip belong to numbers, not to type %s", what, f.Type)
		}
		if f.Type == model.Category && f.Missing != nil {
			bad("%s: a missing category is the column %s=?; it takes no missing value", what, f.Name)
		}
		if f.Missing != nil && !isFloat32(*f.Missing) {
			bad("%s: missing %v is not a finite float32", what, *f.Missing)
		}
		if n := len(f.Clip); n != 0 && (n != 2 || !(f.Clip[0] < f.Clip[1]) || !isFloat32(f.Clip[0]) || !isFloat32(f.Clip[1])) {
			bad("%s: clip %v is not [low, high] with low below high, both finite float32", what, f.Clip)
		}
		place(what, f.Name).field = int32(i)
		d.fields = append(d.fields, fd)
	}
	for i, f := range spec.Fields {
		if of, ok := rollingNames[f.Name]; ok {
			bad("field %d %q: the name is taken by a rolling column of %s; leave one of the two out", i+1, f.Name, of)
		}
	}
	if spec.Rolling > 0 && len(rollingNames) == 0 && len(errs) == 0 {
		bad("rolling %d: no field is a number or a boolean, and no other has a mean", spec.Rolling)
	}
	if spec.Time != nil {
		rule, err := newTimeRule(spec.Time)
		if err != nil {
			bad("%v", err)
		}
		d.time = rule
		place("time", spec.Time.Field).isTime = true
	}
	for i, name := range captures {
		place("field", name).capture = int32(i + 1)
	}
	d.got = make([]captured, len(captures))
	if spec.Format == "csv" && len(errs) == 0 {
		if err := d.compileCSV(at); err != nil {
			errs = append(errs, err)
		}
	}
	if spec.Format == "json" && len(spec.Header) > 0 {
		bad("header belongs to format csv; json has names in each record")
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	d.root.mark(d.fields)
	d.rolling = newRolling(&spec, d.fields)
	d.state = make([]uint8, len(d.fields))
	d.counts = make([][fieldStates]int64, len(d.fields))
	return d, nil
}

// keysOf splits a JSON path; a CSV column's name is one key, dots and all.
func (d *Decoder) keysOf(name string) ([]string, error) {
	if d.spec.Format == "csv" {
		if name == "" {
			return nil, errors.New("no name")
		}
		return []string{name}, nil
	}
	return SplitPath(name)
}

func isFloat32(v float64) bool { return math.Abs(v) <= math.MaxFloat32 }

// Clone gives a decoder of the same spec for another goroutine, with counts of its own.
func (d *Decoder) Clone() *Decoder {
	c := *d
	c.root = d.root.clone()
	c.state = make([]uint8, len(d.fields))
	c.counts = make([][fieldStates]int64, len(d.fields))
	c.timeBad = map[string]int64{}
	c.scratch = nil
	c.got = make([]captured, len(d.got))
	c.records, c.plain = 0, 0
	if d.csv != nil {
		c.csv = d.csv.clone()
	}
	return &c
}

// Columns is the width of a row, rolling columns included.
func (d *Decoder) Columns() int { return len(d.template) }

// Decode turns one record into row, which has Columns entries: NaN where a number or boolean is missing, one 1 among
// the columns of a category. It keeps neither value nor row, and allocates nothing for a record that is OK. After
// Tombstone, Rejected and NoFeatures the row is meaningless.
func (d *Decoder) Decode(value []byte, row []float32) Result {
	if value == nil {
		return Result{Outcome: Tombstone}
	}
	d.row = row[:len(d.template)]
	copy(d.row, d.template)
	d.begin()
	value = dropMark(value)
	if !d.scan(value) {
		return d.rejection(value)
	}
	d.records++
	r := Result{Time: d.timeMS, TimeOK: d.timeOK}
	if d.time != nil && !d.timeOK {
		r.TimeReason = d.timeWhy
		d.timeBad[d.timeWhy]++
	}
	if d.good == len(d.fields) {
		d.plain++
		return r
	}
	d.tally(&r)
	return r
}

// begin forgets the last record.
func (d *Decoder) begin() {
	d.epoch++
	clear(d.state)
	d.good = 0
	d.timeOK, d.timeWhy, d.timeMS = false, timeAbsent, 0
	clear(d.got)
	d.fail = ""
}

// scan walks the record and sets row, state, time and got.
func (d *Decoder) scan(value []byte) bool {
	if d.csv != nil {
		return d.scanCSV(value)
	}
	return d.scanJSON(value)
}

// dropMark drops a UTF-8 byte-order mark, which some writers put in front of every record or line.
func dropMark(b []byte) []byte {
	if len(b) >= 3 && b[0] == 0xEF && b[1] == 0xBB && b[2] == 0xBF {
		return b[3:]
	}
	return b
}

// tally counts the fields of a record of which not all are plain values, and judges it.
func (d *Decoder) tally(r *Result) {
	inf := false
	for i, s := range d.state {
		d.counts[i][s]++
		switch s {
		case fieldValue, fieldText, fieldUnseen:
		case fieldInf:
			inf = true
		default:
			r.Missing++
		}
	}
	switch {
	case r.Missing == len(d.fields):
		r.Outcome = NoFeatures
		r.Reason = ReasonNoFeatures
		r.Detail = fmt.Sprintf("none of the %d fields of the feature spec is in the record (first: %s)", len(d.fields), d.firstField())
	case inf:
		r.Outcome = NotFinite
	case 2*r.Missing > len(d.fields):
		r.Outcome = Partial
	}
}

func (d *Decoder) firstField() string {
	if len(d.spec.Fields) == 0 {
		return "none"
	}
	return d.spec.Fields[0].Name
}

// Counts gives, for each field of the spec, how it came out since ResetCounts. Rejected records and tombstones do
// not count.
func (d *Decoder) Counts() []FieldCounts {
	out := make([]FieldCounts, len(d.fields))
	for i := range out {
		c := &d.counts[i]
		out[i] = FieldCounts{
			Name: d.spec.Fields[i].Name, Read: c[fieldValue] + d.plain, NumericText: c[fieldText],
			Absent: c[fieldAbsent], Null: c[fieldMissing], NotFinite: c[fieldInf], Unseen: c[fieldUnseen],
			WrongBool: c[fieldBool], WrongText: c[fieldWords], WrongObject: c[fieldObject],
			WrongArray: c[fieldArray], WrongNumber: c[fieldNumber],
		}
	}
	return out
}

// MissingByField counts, for each field, the records in which it was imputed, wrong types included.
func (d *Decoder) MissingByField() []int64 {
	out := make([]int64, len(d.fields))
	for i, c := range d.Counts() {
		out[i] = c.Missing()
	}
	return out
}

// WrongTypeByField counts, for each field, the records in which it had another type.
func (d *Decoder) WrongTypeByField() []int64 {
	out := make([]int64, len(d.fields))
	for i, c := range d.Counts() {
		out[i] = c.Wrong()
	}
	return out
}

// NumericTextByField counts, for each field, the records in which it was text read as the number it holds.
func (d *Decoder) NumericTextByField() []int64 {
	out := make([]int64, len(d.fields))
	for i, c := range d.Counts() {
		out[i] = c.NumericText
	}
	return out
}

// TimeProblems counts the records without a usable time, by TimeReason.
func (d *Decoder) TimeProblems() map[string]int64 {
	out := make(map[string]int64, len(d.timeBad))
	for k, n := range d.timeBad {
		out[k] = n
	}
	return out
}

// ResetCounts sets all counts to zero.
func (d *Decoder) ResetCounts() {
	clear(d.counts)
	clear(d.timeBad)
	d.records, d.plain = 0, 0
}

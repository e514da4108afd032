package events

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/lapwing-stream/lapwing/model"
)

const (
	// TopCategories is how many values of a text field get a column by inference; the rest is field=?.
	TopCategories = 32
	// MaxCategories is how many a spec may name for one field. More columns than that drown the others, and memory
	// grows with them.
	MaxCategories = 1024

	maxFields       = 4096 // distinct names that a sample is searched for; more are garbage keys, not fields
	maxElements     = 64   // elements of an array that are looked at
	maxSampleText   = 256  // bytes of a text that are compared
	maxDistinctText = 256  // distinct texts beyond which a field is no category
	manyNames       = 10   // names that differ in a number only: from here on they are instances, not kinds
	wordyLength     = 48   // mean length beyond which text is prose
)

// InferOptions steers Infer.
type InferOptions struct {
	Format    string   // "json" or "csv"; default: found from the sample
	Label     string   // field that judges and is never a feature; default: none
	Exclude   []string // fields that are not features; default: none
	Key       string   // field shown as the key; never a feature; default: none
	TimeField string   // field with the event time; never a feature; default: none, the Kafka timestamp
	Header    []string // csv: column names of records without a header line; default: each record has its own
	Delimiter string   // csv: one ASCII character; default: found from the sample
}

// A column gathers what the sample has under one name.
type column struct {
	name string
	last int // record of the latest observation
	obs  []observation
}

// An observation is one record's value of one column.
type observation struct {
	kind valueKind
	num  float64 // number, or text that holds one
	text string  // the literal; cut at maxSampleText bytes
	code bool    // numeric text with leading zeros: digits of a code rather than a quantity
}

// Infer makes a feature spec from a sample of record values, given in (partition, offset) order. The notes say for
// each field left out why, and what else was decided (categories capped, log1p, mixed types). With an error the notes
// tell what was found so far.
func Infer(sample [][]byte, o InferOptions) (model.Spec, []model.ColumnNote, error) {
	in := &inference{o: o, at: map[string]*column{}}
	if err := in.read(sample); err != nil {
		return in.spec, in.notes, err
	}
	if err := in.named(); err != nil {
		return in.spec, in.notes, err
	}
	for _, c := range in.columns {
		in.judge(c)
	}
	if in.dropped > 0 {
		in.note("*", "%d more names were not looked at: the sample has more than %d", in.dropped, maxFields)
	}
	if len(in.spec.Fields) == 0 {
		return in.spec, in.notes, &advised{fmt.Sprintf("no feature found in %d records: %s", in.records, in.why()),
			"train on a longer history in which more varies, or say in a spec what the fields are (--spec FILE)"}
	}
	return in.spec, in.notes, nil
}

// DetectFormat says how the records of a sample are written: format, and for CSV header and delimiter, with no fields. What o sets stands.
func DetectFormat(sample [][]byte, o InferOptions) (model.Spec, error) {
	in := &inference{o: o, at: map[string]*column{}}
	err := in.read(sample)
	return model.Spec{Format: in.spec.Format, Header: in.spec.Header, Delimiter: in.spec.Delimiter}, err
}

type inference struct {
	o       InferOptions
	spec    model.Spec
	notes   []model.ColumnNote
	columns []*column // in order of first appearance
	at      map[string]*column
	records int // usable ones
	dropped int
}

func (in *inference) note(name, format string, args ...any) {
	in.notes = append(in.notes, model.ColumnNote{Name: name, Note: fmt.Sprintf(format, args...)})
}

// why sums up the reasons for which nothing is left.
func (in *inference) why() string {
	var parts []string
	for _, n := range in.notes {
		if len(parts) == 3 {
			parts = append(parts, fmt.Sprintf("and %d more", len(in.notes)-3))
			break
		}
		parts = append(parts, n.Name+": "+strings.TrimPrefix(strings.TrimPrefix(n.Note, leftOutText), leftOut))
	}
	if len(parts) == 0 {
		return "the records have no fields"
	}
	return strings.Join(parts, "; ")
}

// Notes about a field that is no feature begin with one of these; WriteSpec goes by them.
const (
	leftOut     = "left out: "
	leftOutText = "left out, text: "
)

// read finds the format and gathers the columns.
func (in *inference) read(sample [][]byte) error {
	var usable [][]byte
	for _, v := range sample {
		if v = dropMark(v); len(bytes.TrimSpace(v)) > 0 {
			usable = append(usable, v)
		}
	}
	if len(usable) == 0 {
		return errors.New("no records to infer a feature spec from")
	}
	probe := &Decoder{root: newNode()}
	objects := 0
	for _, v := range usable {
		if probe.scanJSON(v) {
			objects++
		}
	}
	switch in.spec.Format = in.o.Format; {
	case in.spec.Format != "":
	case len(in.o.Header) > 0 || objects == 0 && ownHeaders(usable):
		in.spec.Format = "csv"
	default:
		in.spec.Format = "json"
	}
	if in.spec.Format == "csv" {
		return in.readCSV(usable)
	}
	if in.spec.Format != "json" {
		return fmt.Errorf("format %q is not json or csv", in.spec.Format)
	}
	if objects == 0 {
		probe.begin()
		probe.scanJSON(usable[0])
		r := probe.rejection(usable[0])
		next := "write the records to a topic as JSON objects, and train on that"
		if looksCSV(usable) {
			next = "they look like CSV lines: set the format to csv, and the header where records have none (--format csv --header a,b)"
		}
		return &advised{fmt.Sprintf("none of %d records is a JSON object; the first: %s", len(usable), r.Detail), next}
	}
	w := walker{in: in}
	for _, v := range usable {
		if probe.scanJSON(v) {
			w.record(v)
			in.records++
		}
	}
	return nil
}

// ownHeaders: every record has more than one line, and all begin with the same one, in which a delimiter stands.
func ownHeaders(values [][]byte) bool {
	header, _, ok := bytes.Cut(values[0], newline)
	for _, v := range values {
		h, row, more := bytes.Cut(v, newline)
		if !more || len(row) == 0 || !bytes.Equal(h, header) {
			return false
		}
	}
	return ok && looksCSV([][]byte{header})
}

// looksCSV: the same number of some delimiter, at least one, in every one of the first lines.
func looksCSV(values [][]byte) bool {
	for _, delim := range []byte{',', ';', '\t', '|'} {
		want := -1
		for _, v := range values[:min(len(values), 20)] {
			n := len(splitHeader(dropLineEnd(v), delim))
			if want >= 0 && n != want {
				want = 1
				break
			}
			want = n
		}
		if want > 1 {
			return true
		}
	}
	return false
}

func (in *inference) readCSV(values [][]byte) error {
	in.spec.Header = in.o.Header
	in.spec.Delimiter = in.o.Delimiter
	delim := byte(',')
	if in.o.Delimiter != "" {
		delim = in.o.Delimiter[0]
	} else {
		best := 0
		for _, c := range []byte{',', ';', '\t', '|'} {
			line := dropLineEnd(values[0])
			if end, ok := rowEnd(line, c); ok && len(splitHeader(line[:end], c)) > best {
				best, delim = len(splitHeader(line[:end], c)), c
			}
		}
		if delim != ',' {
			in.spec.Delimiter = string(delim)
		}
	}
	rejected, why := 0, ""
	for _, v := range values {
		line := dropLineEnd(v)
		header := in.o.Header
		if len(header) == 0 {
			end, ok := rowEnd(line, delim)
			if !ok || end == len(line) {
				rejected++
				why = "one line only, and no column names are set"
				continue
			}
			header = splitHeader(line[:end], delim)
			line = line[end+1:]
		}
		cells, next, status := readRow(nil, line, 0, delim, true)
		if status != cellLast || next < len(line) || len(cells) != len(header) {
			rejected++
			why = fmt.Sprintf("%d fields, header has %d", len(cells), len(header))
			continue
		}
		for i, c := range cells {
			text := line[c.start:c.end]
			if c.doubled {
				text = undouble(nil, text)
			}
			if !c.quoted {
				text = trimBlanks(text)
			}
			if header[i] != "" {
				in.observe(header[i], kindText, text)
			}
		}
		in.records++
	}
	if in.records == 0 {
		if what := Fingerprint(values[0]); what != "" {
			why = what
		} else if c := bytes.TrimSpace(values[0])[0]; c == '{' {
			why += "; they look like JSON: set the format to json"
		}
		return fmt.Errorf("none of %d records is a CSV row; the last: %s", rejected, why)
	}
	return nil
}

// observe adds a value to its column; a second one in the same record replaces the first.
func (in *inference) observe(name string, kind valueKind, lit []byte) {
	c := in.at[name]
	if c == nil {
		if len(in.columns) >= maxFields {
			in.dropped++
			return
		}
		c = &column{name: name, last: -1}
		in.at[name] = c
		in.columns = append(in.columns, c)
	}
	if len(lit) > maxSampleText {
		lit = lit[:maxSampleText]
	}
	v := observation{kind: kind, text: string(lit)}
	switch kind {
	case kindNumber:
		v.num, _ = strconv.ParseFloat(v.text, 64)
	case kindText:
		text := trimBlanks(lit)
		if d, json, ok := scanPlain(text); ok {
			v.num, _ = strconv.ParseFloat(string(text), 64)
			v.kind = kindNumericText
			v.code = !json && !d.neg && len(text) > 1 && text[0] == '0' && text[1]-'0' <= 9
		} else if len(text) == 0 {
			v.kind = kindNull
		}
	}
	if c.last == in.records {
		c.obs[len(c.obs)-1] = v
		return
	}
	c.last = in.records
	c.obs = append(c.obs, v)
}

// kindNumericText is a text that holds a plain decimal number.
const kindNumericText = kindArray + 1

// named checks the fields that the options name, and takes up key and time.
func (in *inference) named() error {
	names := make([]string, len(in.columns))
	for i, c := range in.columns {
		names[i] = c.name
	}
	var errs []error
	need := func(what, name string) {
		if name != "" && in.at[name] == nil {
			errs = append(errs, &advised{fmt.Sprintf("%s field %q is in none of %d records", what, name, in.records), suggest(name, names)})
		}
	}
	need("label", in.o.Label)
	need("time", in.o.TimeField)
	for _, name := range in.o.Exclude {
		need("excluded", name)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	in.spec.Key = in.o.Key
	if in.o.TimeField != "" {
		in.inferTime(in.at[in.o.TimeField])
	}
	return nil
}

// inferTime finds unit or layout of the declared time field.
func (in *inference) inferTime(c *column) {
	units := map[string]int{}
	layouts := map[string]int{}
	numbers, texts := 0, 0
	for _, v := range c.obs {
		switch v.kind {
		case kindNumber, kindNumericText:
			numbers++
			if d, _, ok := scanPlain([]byte(strings.TrimSpace(v.text))); ok && d.exact {
				units[plausibleUnit(d)]++
			}
		case kindText:
			texts++
			if l, ok := layoutOf(v.text); ok {
				layouts[l]++
			}
		}
	}
	switch {
	case numbers == 0 && texts == 0:
		in.note(c.name, "no time in the sample: Kafka's timestamp is the event time")
	case numbers >= texts:
		unit, best := "", 0
		for _, u := range timeUnits {
			if units[u.unit] > best {
				unit, best = u.unit, units[u.unit]
			}
		}
		if unit == "" {
			in.note(c.name, "numbers such as %s tell no unit of time: Kafka's timestamp is the event time; to use the field, set time: {field: %s, unit: s} in the spec", c.obs[0].text, c.name)
			return
		}
		in.spec.Time = &model.Time{Field: c.name, Unit: unit}
	default:
		layout, best := "", 0
		for _, l := range timeLayouts {
			if layouts[l] > best {
				layout, best = l, layouts[l]
			}
		}
		if best == 0 {
			in.note(c.name, "text such as %q is no time in a form that can be told (day and month are never guessed): Kafka's timestamp is the event time; to use the field, set time: {field: %s, layout: …} in the spec", c.obs[0].text, c.name)
			return
		}
		in.spec.Time = &model.Time{Field: c.name, Layout: layout}
	}
}

// timeLayouts are the forms that can be told from text alone; "" stands for RFC 3339 and its like. All others begin
// with the year: where day or month come first, which is which is anyone's guess.
var timeLayouts = []string{"", "2006.01.02.15.04.05", "2006.01.02 15:04:05", "2006/01/02 15:04:05", "2006/01/02", "2006-01-02-15.04.05"}

// layoutOf finds the layout of a time given as text.
func layoutOf(text string) (string, bool) {
	if len(text) < 8 {
		return "", false
	}
	for _, l := range timeLayouts {
		r := timeRule{layout: l, loc: time.UTC}
		if _, problem := r.text([]byte(text)); problem == "" {
			return l, true
		}
	}
	return "", false
}

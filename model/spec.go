package model

import "strconv"

// Spec says how a record becomes a row of float32. It is plain data: events.Compile gives it meaning.
// It travels inside the model, so that training and serving cannot differ.
type Spec struct {
	Format string   `json:"format"`           // "json" or "csv"
	Key    string   `json:"key,omitempty"`    // field shown as the key where the record has none
	Time   *Time    `json:"time,omitempty"`   // nil: the Kafka timestamp
	Header []string `json:"header,omitempty"` // csv records without a header of their own: column names
	Fields []Field  `json:"fields"`           // in column order

	Delimiter string `json:"delimiter,omitempty"` // csv records: one ASCII character; "" = comma

	// Rolling adds to every number and boolean the mean and the standard deviation of the last so many records of
	// the record's key, itself included; records, MinRolling to MaxRolling; 0 = none.
	Rolling int `json:"rolling,omitempty"`
}

// The bounds of Spec.Rolling. One record has no deviation; beyond a thousand, what a key's window takes is more than
// what it tells.
const (
	MinRolling = 2
	MaxRolling = 1000
)

// Time is the field that holds a record's event time.
type Time struct {
	Field  string `json:"field"`
	Unit   string `json:"unit,omitempty"`   // "s", "ms", "us", "ns" for numbers
	Layout string `json:"layout,omitempty"` // Go layout for text; "" = RFC 3339
	Zone   string `json:"zone,omitempty"`   // for layouts without a zone; "" = UTC
}

// FieldType is the kind of a field.
type FieldType string

const (
	Number   FieldType = "number"   // one column
	Boolean  FieldType = "boolean"  // one column: 0 or 1
	Category FieldType = "category" // one column a category, then one for unseen values
)

// Field is one feature.
type Field struct {
	Name       string    `json:"name"` // path: engine.temp, sensors.0.value; a literal dot is \.
	Type       FieldType `json:"type"`
	Log1p      bool      `json:"log1p,omitempty"`      // number: sign(x)·ln(1+|x|) before scaling
	Clip       []float64 `json:"clip,omitempty"`       // number: [lo, hi] in raw units; absent = from the history
	Missing    *float64  `json:"missing,omitempty"`    // number, boolean: value for a missing one; absent = the history's median
	Categories []string  `json:"categories,omitempty"` // category: known values, in column order
}

// columns calls do for each column of a row: its name, its field, and whose rules its values follow. The columns of one
// field stand side by side, its own first: what sums a field's columns needs no other order.
func (s *Spec) columns(do func(name string, field int, rule Field)) {
	for i, f := range s.Fields {
		if f.Type == Category {
			for _, c := range f.Categories {
				do(f.Name+"="+c, i, f)
			}
			do(f.Name+"=?", i, f)
			continue
		}
		do(f.Name, i, f)
		if s.Rolling > 0 {
			// Of a boolean too they are numbers. A clip bounds values and so their mean, but says nothing of a
			// deviation; and what stands for a missing value is no deviation either.
			mean := Field{Name: s.MeanColumn(f.Name), Type: Number, Log1p: f.Log1p, Clip: f.Clip, Missing: f.Missing}
			do(mean.Name, i, mean)
			deviation := Field{Name: s.DeviationColumn(f.Name), Type: Number, Log1p: f.Log1p}
			do(deviation.Name, i, deviation)
		}
	}
}

// MeanColumn is the name of the column with a field's rolling mean: speed.mean10.
func (s *Spec) MeanColumn(field string) string { return field + ".mean" + strconv.Itoa(s.Rolling) }

// DeviationColumn is the name of the column with a field's rolling standard deviation: speed.sd10.
func (s *Spec) DeviationColumn(field string) string { return field + ".sd" + strconv.Itoa(s.Rolling) }

// Columns names the row's columns: a number's or boolean's own name, with Rolling followed by those of its mean and
// its standard deviation; for a category field=value for each known value and then field=? for any other or none.
func (s *Spec) Columns() []string {
	var names []string
	s.columns(func(name string, _ int, _ Field) { names = append(names, name) })
	return names
}

// ColumnFields gives, for each column of Columns, the index of its field in Fields.
func (s *Spec) ColumnFields() []int {
	var at []int
	s.columns(func(_ string, field int, _ Field) { at = append(at, field) })
	return at
}

// ColumnRules gives, for each column of Columns, the field whose type, log1p, clip and missing value hold for what
// stands in it: its own field, but for a rolling column one of its own, a number.
func (s *Spec) ColumnRules() []Field {
	var rules []Field
	s.columns(func(_ string, _ int, rule Field) { rules = append(rules, rule) })
	return rules
}

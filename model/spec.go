package model

// Spec says how a record becomes a row of float32. It is plain data: events.Compile gives it meaning.
// It travels inside the model, so that training and serving cannot differ.
type Spec struct {
	Format string   `json:"format"`           // "json" or "csv"
	Key    string   `json:"key,omitempty"`    // field shown as the key where the record has none
	Time   *Time    `json:"time,omitempty"`   // nil: the Kafka timestamp
	Header []string `json:"header,omitempty"` // csv records without a header of their own: column names
	Fields []Field  `json:"fields"`           // in column order

	Delimiter string `json:"delimiter,omitempty"` // csv records: one ASCII character; "" = comma
}

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

// Columns names the row's columns: a number's or boolean's own name; for a category field=value for each
// known value and then field=? for any other or none.
func (s *Spec) Columns() []string {
	var names []string
	for _, f := range s.Fields {
		if f.Type != Category {
			names = append(names, f.Name)
			continue
		}
		for _, c := range f.Categories {
			names = append(names, f.Name+"="+c)
		}
		names = append(names, f.Name+"=?")
	}
	return names
}

// ColumnFields gives, for each column of Columns, the index of its field in Fields.
func (s *Spec) ColumnFields() []int {
	var at []int
	for i, f := range s.Fields {
		n := 1
		if f.Type == Category {
			n = len(f.Categories) + 1
		}
		for range n {
			at = append(at, i)
		}
	}
	return at
}

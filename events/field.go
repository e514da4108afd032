package events

import "github.com/lapwing-stream/lapwing/model"

// A field is one feature of the spec, ready for decoding.
type field struct {
	kind   model.FieldType
	col    int32            // first column
	cols   int32            // columns
	values map[string]int32 // category: its column, relative to col
}

// set notes how field f came out. The last of several values wins, so an earlier one is taken back first.
func (d *Decoder) set(f int32, s uint8) {
	if old := d.state[f]; old != fieldAbsent {
		if old == fieldValue {
			d.good--
		}
		fd := &d.fields[f]
		copy(d.row[fd.col:fd.col+fd.cols], d.template[fd.col:fd.col+fd.cols])
	}
	d.state[f] = s
	if s == fieldValue {
		d.good++
	}
}

// setNumber takes a number literal for field f.
func (d *Decoder) setNumber(f int32, lit []byte, mant uint64, exp int, exact bool) {
	fd := &d.fields[f]
	switch fd.kind {
	case model.Number:
		v := float32Of(lit, mant, exp, exact)
		if v-v != 0 { // ±Inf
			d.set(f, fieldInf)
		} else {
			d.set(f, fieldValue)
		}
		d.row[fd.col] = v
	case model.Boolean:
		v := float32Of(lit, mant, exp, exact)
		if v != 0 && v != 1 {
			d.set(f, fieldNumber)
			return
		}
		d.set(f, fieldValue)
		d.row[fd.col] = v + 0 // -0 is 0
	default:
		d.setCategory(f, lit)
	}
}

// setText takes a text for field f.
func (d *Decoder) setText(f int32, s []byte) {
	fd := &d.fields[f]
	switch fd.kind {
	case model.Number:
		v, kind := numericText(s)
		switch kind {
		case textNumber:
			d.set(f, fieldText)
			d.row[fd.col] = v
		case textMissing:
			d.set(f, fieldMissing)
		case textInfinite:
			d.set(f, fieldInf)
			d.row[fd.col] = v
		default:
			d.set(f, fieldWords)
		}
	case model.Boolean:
		s = trimBlanks(s)
		switch {
		case foldEqual(s, "true"):
			d.set(f, fieldValue)
			d.row[fd.col] = 1
		case foldEqual(s, "false"):
			d.set(f, fieldValue)
			d.row[fd.col] = 0
		default:
			v, kind := numericText(s)
			switch {
			case kind == textMissing:
				d.set(f, fieldMissing)
			case kind == textNumber && (v == 0 || v == 1):
				d.set(f, fieldText)
				d.row[fd.col] = v + 0
			case kind == textNumber:
				d.set(f, fieldNumber)
			default:
				d.set(f, fieldWords)
			}
		}
	default:
		if len(s) == 0 {
			d.set(f, fieldMissing)
			return
		}
		d.setCategory(f, s)
	}
}

func (d *Decoder) setCategory(f int32, s []byte) {
	fd := &d.fields[f]
	k, ok := fd.values[string(s)]
	if !ok {
		d.set(f, fieldUnseen)
		return
	}
	d.set(f, fieldValue)
	d.row[fd.col+k] = 1
	d.row[fd.col+fd.cols-1] = 0
}

func (d *Decoder) setBool(f int32, v bool) {
	fd := &d.fields[f]
	switch fd.kind {
	case model.Number:
		d.set(f, fieldBool)
	case model.Boolean:
		d.set(f, fieldValue)
		d.row[fd.col] = 0
		if v {
			d.row[fd.col] = 1
		}
	default:
		if v {
			d.setCategory(f, []byte("true"))
		} else {
			d.setCategory(f, []byte("false"))
		}
	}
}

// setTime keeps the record's time, or why it has none.
func (d *Decoder) setTime(ms int64, problem string) {
	d.timeMS, d.timeWhy, d.timeOK = ms, problem, problem == ""
}

package events

import (
	"strconv"

	"github.com/lapwing-stream/lapwing/model"
)

// LabelReader reads a label from records as spec has them (format, header, delimiter): positive where it is a number
// other than 0, true, or a text that is not one of the words for "nothing wrong" (no, false, normal, ok, good, none,
// negative, n, f). ok is false where the record has none. It serves to judge a model and never to train one. It is for
// one goroutine. The error says what is wrong with the field's name.
func LabelReader(spec model.Spec, field string) (func(value []byte) (positive, ok bool), error) {
	d, err := newPicker(spec, field)
	if err != nil {
		return nil, err
	}
	return func(value []byte) (bool, bool) {
		c := d.pick(value)
		switch c.kind {
		case kindTrue:
			return true, true
		case kindFalse:
			return false, true
		case kindNumber, kindText:
			text := trimBlanks(c.text)
			if _, _, ok := scanPlain(text); ok {
				v, err := strconv.ParseFloat(string(text), 64)
				return v != 0, err == nil || v != 0
			}
			if isMissingWord(text) && !foldEqual(text, "none") {
				return false, false
			}
			for _, word := range [...]string{"no", "false", "normal", "ok", "good", "none", "negative", "n", "f"} {
				if foldEqual(text, word) {
					return false, true
				}
			}
			return true, true
		}
		return false, false
	}, nil
}

// TextReader reads one field of a record as text: a text without its quotes and escapes, a number or true and false
// digit for digit. ok is false where it is absent, null, empty, an object or an array. What it returns belongs to the
// record and holds until the next call. It is for one goroutine.
func TextReader(spec model.Spec, field string) (func(value []byte) (text []byte, ok bool), error) {
	d, err := newPicker(spec, field)
	if err != nil {
		return nil, err
	}
	return func(value []byte) ([]byte, bool) {
		c := d.pick(value)
		switch c.kind {
		case kindText, kindNumber, kindTrue, kindFalse:
			return c.text, len(c.text) > 0
		}
		return nil, false
	}, nil
}

// A picker is a decoder that wants no feature, only the value under one path.
type picker struct{ d *Decoder }

func newPicker(spec model.Spec, field string) (*picker, error) {
	d, err := compile(model.Spec{Format: spec.Format, Header: spec.Header, Delimiter: spec.Delimiter}, field)
	if err != nil {
		return nil, err
	}
	return &picker{d}, nil
}

func (p *picker) pick(value []byte) captured {
	if value == nil {
		return captured{}
	}
	p.d.begin()
	if !p.d.scan(dropMark(value)) {
		return captured{}
	}
	return p.d.got[0]
}

package events

import (
	"bytes"
	"io"
	"slices"

	"github.com/lapwing-stream/lapwing/model"
)

// A jsonFile is the state of reading one file of JSON lines.
type jsonFile struct {
	check     *Decoder // checks a line and wants nothing of it
	key, time *picker
	seen      []bool // by dropped key
}

func (f *File) openJSON() error {
	j := &jsonFile{check: &Decoder{root: newNode()}, seen: make([]bool, len(f.o.Drop))}
	f.json = j
	f.next = f.nextJSON
	var err error
	if f.o.Key != "" {
		if j.key, err = newPicker(model.Spec{Format: "json"}, f.o.Key); err != nil {
			return err
		}
	}
	if f.o.Time != "" {
		if j.time, err = newPicker(model.Spec{Format: "json"}, f.o.Time); err != nil {
			return err
		}
	}
	if i := skipBlank(f.window, 0); i < len(f.window) && f.window[i] == '[' {
		f.warn("array", "%s: begins with an array; JSON lines have one object a line (jq -c '.[]' makes them of an array)", f.name)
	}
	return nil
}

func (f *File) nextJSON() (Entry, error) {
	j := f.json
	for {
		line := f.line
		end, ok, err := f.lineEnd()
		if err != nil {
			return Entry{}, err
		}
		text := f.window[f.at:end]
		f.consume(end - f.at)
		if !ok || len(text) > maxRow {
			if !ok {
				f.skipLine()
			}
			return Entry{}, f.reject(line, "", ReasonLong, "a line of more than %d MiB", maxRow>>20)
		}
		text = dropLineEnd(text)
		whole := text
		text = dropMark(text)
		if len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		if f.unchecked() {
			return Entry{Value: f.keep(func(b []byte) []byte { return append(b, whole...) }), Time: NoTime, Line: line}, nil
		}
		j.check.begin()
		if !j.check.scanJSON(text) {
			r := j.check.rejection(text)
			return Entry{}, f.reject(line, "", r.Reason, "%s", r.Detail)
		}
		e := Entry{Time: NoTime, Line: line}
		if j.time != nil {
			switch c := j.time.pick(text); c.kind {
			case kindText, kindNumber:
				if e.Time, err = f.timeOf(c.text, line); err != nil {
					return Entry{}, err
				}
			case kindAbsent, kindNull:
			default:
				return Entry{}, f.reject(line, f.o.Time, ReasonTime, "neither a number nor text")
			}
		}
		if j.key != nil {
			switch c := j.key.pick(text); c.kind {
			case kindText, kindNumber, kindTrue, kindFalse:
				if len(c.text) > 0 {
					e.Key = f.keep(func(b []byte) []byte { return append(b, c.text...) })
				}
			}
		}
		e.Value = f.keep(func(b []byte) []byte {
			switch {
			case f.o.Raw:
				return append(b, whole...)
			case len(f.o.Drop) > 0:
				return f.appendWithout(b, text)
			}
			return append(b, bytes.TrimSpace(text)...)
		})
		return e, nil
	}
}

// appendWithout writes the checked object in text without the dropped top-level keys; all else as it stands.
func (f *File) appendWithout(b, text []byte) []byte {
	w := walker{}
	b = append(b, '{')
	first := true
	i := skipBlank(text, skipBlank(text, 0)+1)
	for text[i] != '}' {
		start := i
		end, escaped := stringEnd(text, i+1)
		key := text[i+1 : end]
		if escaped {
			key = unescape(nil, key)
		}
		i = skipBlank(text, end+1)
		i = skipBlank(text, i+1)
		i = w.value(text, i, false, 1)
		if !slices.Contains(f.o.Drop, string(key)) {
			if !first {
				b = append(b, ',')
			}
			first = false
			b = append(b, text[start:i]...)
		}
		if i = skipBlank(text, i); text[i] == ',' {
			i = skipBlank(text, i+1)
		}
	}
	return append(b, '}')
}

var _ io.Closer = (*File)(nil)

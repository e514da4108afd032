package events

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/lapwing-stream/lapwing/model"
)

// A csvLayout says which column of a CSV record is whose.
type csvLayout struct {
	delim  byte
	places map[string]*node // what the spec wants, by column name
	cols   []*node          // by column; nil = unused
	own    bool             // each record has a header line of its own
	header []byte           // the own header that cols was made from
	detail string           // why the last record was rejected
}

func (l *csvLayout) clone() *csvLayout {
	c := *l
	c.header, c.detail = nil, ""
	if c.own {
		c.cols = nil
	}
	return &c
}

// compileCSV lays the spec's names over its header. The nodes of a CSV spec are read-only: columns have no levels.
func (d *Decoder) compileCSV(at map[string]*node) error {
	l := &csvLayout{delim: ',', places: at}
	if s := d.spec.Delimiter; s != "" {
		if len(s) != 1 || s[0] == '"' || s[0] == '\n' || s[0] == '\r' || s[0] >= 0x80 {
			return fmt.Errorf("feature spec: delimiter %q is not one ASCII character", s)
		}
		l.delim = s[0]
	}
	d.csv = l
	if len(d.spec.Header) == 0 {
		l.own = true
		return nil
	}
	var errs []error
	first := map[string]int{}
	l.cols = make([]*node, len(d.spec.Header))
	for i, name := range d.spec.Header {
		if j, ok := first[name]; ok && name != "" {
			errs = append(errs, fmt.Errorf("feature spec: header: %q names both column %d and column %d", name, j+1, i+1))
			continue
		}
		first[name] = i
		l.cols[i] = at[name]
	}
	for _, name := range slices.Sorted(maps.Keys(at)) {
		if _, ok := first[name]; !ok {
			errs = append(errs, &advised{fmt.Sprintf("feature spec: field %q is not in the header", name), suggest(name, d.spec.Header)})
		}
	}
	return errors.Join(errs...)
}

// scanCSV reads one CSV row, or a header line and one row where the spec has no header.
func (d *Decoder) scanCSV(b []byte) bool {
	l := d.csv
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return d.csvFailed(i, ReasonNUL, "byte %d: NUL byte", i+1)
	}
	b = dropLineEnd(b)
	if len(trimBlanks(b)) == 0 {
		d.failed(0, ReasonEmpty)
		return false
	}
	if l.own {
		end, ok := rowEnd(b, l.delim)
		if !ok {
			return d.csvFailed(0, ReasonCSVQuote, "the header's quotes do not close")
		}
		if end == len(b) {
			return d.csvFailed(0, ReasonCSVRows, "one line only; the spec has no header, so a record is a header line and a row")
		}
		if !bytes.Equal(b[:end], l.header) {
			if why := l.learn(b[:end]); why != "" {
				return d.csvFailed(0, ReasonCSVColumns, "%s", why)
			}
		}
		b = b[end+1:]
	}
	i, col := 0, 0
	for ; ; col++ {
		c, next, status := nextCell(b, i, l.delim, true)
		if status == cellQuote {
			return d.csvFailed(i, ReasonCSVQuote, "byte %d: a quoted field that does not end at a delimiter", i+1)
		}
		if col < len(l.cols) && l.cols[col] != nil {
			text := b[c.start:c.end]
			if c.doubled {
				d.scratch = undouble(d.scratch[:0], text)
				text = d.scratch
			}
			d.cell(l.cols[col], text, c)
		}
		i = next
		if status == cellLast {
			break
		}
	}
	if i < len(b) {
		return d.csvFailed(i, ReasonCSVRows, "byte %d: more than one row in the record", i+1)
	}
	if col+1 != len(l.cols) {
		return d.csvFailed(0, ReasonCSVColumns, "%d fields, header has %d", col+1, len(l.cols))
	}
	return true
}

func (d *Decoder) csvFailed(i int, reason, format string, args ...any) bool {
	d.failed(i, reason)
	d.csv.detail = fmt.Sprintf(format, args...)
	return false
}

// cell takes the text of one column.
func (d *Decoder) cell(n *node, text []byte, c cell) {
	if !c.quoted {
		text = trimBlanks(text)
	}
	if f := n.field; f >= 0 {
		fd := &d.fields[f]
		if fd.kind == model.Number {
			if num, _, ok := scanPlain(trimBlanks(text)); ok {
				d.setNumber(f, trimBlanks(text), num.mant, num.exp, num.exact)
			} else {
				d.setText(f, text)
			}
		} else {
			d.setText(f, text)
			if d.state[f] == fieldText { // all cells are text: a 0 or 1 is the plain case here
				d.state[f] = fieldValue
				d.good++
			}
		}
	}
	if n.isTime {
		d.setTime(d.time.text(text))
	}
	if n.capture > 0 {
		if c.doubled {
			text = append([]byte(nil), text...)
		}
		d.got[n.capture-1] = captured{kindText, text}
	}
}

// learn lays a record's own header over the spec's names; it gives what is wrong with the header.
func (l *csvLayout) learn(header []byte) string {
	names := splitHeader(header, l.delim)
	cols := make([]*node, len(names))
	first := map[string]int{}
	for i, name := range names {
		if j, ok := first[name]; ok && name != "" {
			return fmt.Sprintf("the header has %q as column %d and as column %d", name, j+1, i+1)
		}
		first[name] = i
		cols[i] = l.places[name]
	}
	l.cols = cols
	l.header = append(l.header[:0], header...)
	return ""
}

// splitHeader gives the names of a header line, blanks around them dropped.
func splitHeader(line []byte, delim byte) []string {
	var names []string
	for i := 0; ; {
		c, next, status := nextCell(line, i, delim, true)
		text := line[c.start:c.end]
		if c.doubled {
			text = undouble(nil, text)
		}
		names = append(names, strings.TrimSpace(string(text)))
		if status != cellMore {
			return names
		}
		i = next
	}
}

// A cell is one field of a CSV row, without its quotes.
type cell struct {
	start, end int
	quoted     bool
	doubled    bool // holds doubled quotes
}

type cellStatus uint8

const (
	cellMore  cellStatus = iota // a delimiter followed
	cellLast                    // the row ended
	cellQuote                   // text between a closing quote and the delimiter
	cellShort                   // b ended first, and more may come
)

// nextCell reads the cell at b[i:]. next is where the following cell or row begins. final says that b holds all there
// is: then its end ends the row, and an open quote is a fault.
//
// A quote counts only as a cell's first character (blanks before it do not make it a quoted one); inside an
// unquoted cell it stands for itself.
func nextCell(b []byte, i int, delim byte, final bool) (c cell, next int, status cellStatus) {
	if i < len(b) && b[i] == '"' {
		c = cell{start: i + 1, quoted: true}
		j := i + 1
		for {
			k := bytes.IndexByte(b[j:], '"')
			if k < 0 {
				if final {
					c.end = len(b)
					return c, i, cellQuote
				}
				return c, i, cellShort
			}
			j += k
			if j+1 == len(b) && !final {
				return c, i, cellShort
			}
			if j+1 < len(b) && b[j+1] == '"' {
				c.doubled = true
				j += 2
				continue
			}
			break
		}
		c.end = j
		j++
		switch {
		case j == len(b):
			return c, j, cellLast
		case b[j] == delim:
			return c, j + 1, cellMore
		case b[j] == '\n':
			return c, j + 1, cellLast
		case b[j] == '\r':
			if j+1 == len(b) {
				if !final {
					return c, i, cellShort
				}
				return c, j + 1, cellLast
			}
			if b[j+1] == '\n' {
				return c, j + 2, cellLast
			}
		}
		return c, j, cellQuote
	}
	for j := i; j < len(b); j++ {
		switch b[j] {
		case delim:
			return cell{start: i, end: j}, j + 1, cellMore
		case '\n':
			end := j
			if end > i && b[end-1] == '\r' {
				end--
			}
			return cell{start: i, end: end}, j + 1, cellLast
		}
	}
	if !final {
		return c, i, cellShort
	}
	end := len(b)
	if end > i && b[end-1] == '\r' {
		end--
	}
	return cell{start: i, end: end}, len(b), cellLast
}

// undouble appends s to dst with doubled quotes made single.
func undouble(dst, s []byte) []byte {
	for i := 0; i < len(s); i++ {
		dst = append(dst, s[i])
		if s[i] == '"' {
			i++
		}
	}
	return dst
}

// rowEnd is the index of the newline that ends the row at b's start, or len(b); false where a quote stays open.
func rowEnd(b []byte, delim byte) (int, bool) {
	for i := 0; ; {
		_, next, status := nextCell(b, i, delim, true)
		switch status {
		case cellQuote:
			return 0, false
		case cellLast:
			if next > 0 && next <= len(b) && b[next-1] == '\n' {
				return next - 1, true
			}
			return len(b), true
		}
		i = next
	}
}

// dropLineEnd drops one line end at b's end.
func dropLineEnd(b []byte) []byte {
	if n := len(b); n > 0 && b[n-1] == '\n' {
		b = b[:n-1]
	}
	if n := len(b); n > 0 && b[n-1] == '\r' {
		b = b[:n-1]
	}
	return b
}

// maxCells bounds the memory that a row of nothing but delimiters takes. What is beyond is passed over, and the row
// then has maxCells cells, which is more than any header may have.
const maxCells = 1 << 16

// readRow appends the cells of the row at b[i:] to cells. status is cellLast where the row is whole.
func readRow(cells []cell, b []byte, i int, delim byte, final bool) (_ []cell, next int, status cellStatus) {
	for {
		c, next, status := nextCell(b, i, delim, final)
		if status >= cellQuote {
			return cells, next, status
		}
		if len(cells) < maxCells {
			cells = append(cells, c)
		}
		i = next
		if status == cellLast {
			return cells, i, status
		}
	}
}

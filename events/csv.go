package events

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// A csvFile is the state of reading one CSV file.
type csvFile struct {
	delim   byte
	prefix  [][]byte // by column: `"name":`; nil = dropped
	key     int      // column of the key, or -1
	time    int      // column of the time, or -1
	cells   []cell
	scratch []byte
	commas  int // cells of the first rows that look like decimal commas
	seen    int // rows looked at for that
}

// openCSV finds delimiter and header.
func (f *File) openCSV() error {
	c := &csvFile{key: -1, time: -1}
	f.csv = c
	f.next = f.nextCSV
	// The first row decides much, so it is found before the delimiter is: from a window as full as it gets.
	// What goes wrong on the way shows once the rows before it have been handed out.
	for len(f.window) < windowSize/2 && f.err == nil {
		f.fill()
	}
	if bytes.IndexByte(f.window, '\n') < 0 && bytes.IndexByte(f.window, '\r') >= 0 && f.final {
		return fmt.Errorf("lines end in a lone carriage return; convert them: tr '\\r' '\\n' < %s", f.name)
	}
	c.delim = byte(f.o.Delimiter)
	if c.delim == 0 {
		c.delim = sniffDelimiter(f.window, f.final, f.o.DecimalComma)
	}
	f.skipBlankLines()
	if f.at == len(f.window) && f.final {
		return errEmpty
	}
	line := f.line
	names, err := f.csvHeader()
	if err != nil {
		return err
	}
	for i, name := range names {
		if name == "" {
			names[i] = fmt.Sprintf("column_%d", i+1)
			f.warn("unnamed"+names[i], "%s:%d: column %d has no name; it is called %s", f.name, line, i+1, names[i])
		}
		if !utf8.ValidString(name) {
			names[i] = strings.ToValidUTF8(name, "\uFFFD")
			f.warn("utf8", "%s:%d: the header is not UTF-8 (column %d); set --encoding latin1 or windows-1252", f.name, line, i+1)
		}
	}
	f.header = names
	if err := doubled(names, line, f.name); err != nil {
		return err
	}
	return f.lay()
}

// csvHeader takes the names from the options, the first row, or thin air.
func (f *File) csvHeader() ([]string, error) {
	c := f.csv
	cells, next, err := f.row()
	if err != nil {
		return nil, err
	}
	if bytes.IndexByte(f.window[f.at:next], 0) >= 0 {
		return nil, fmt.Errorf("%s:%d: NUL byte in the header; is this a text file?", f.name, f.line)
	}
	if len(cells) == maxCells {
		return nil, fmt.Errorf("%s:%d: %d columns or more (delimiter %q); is this a text file?", f.name, f.line, maxCells, c.delim)
	}
	names := make([]string, len(cells))
	numbers := 0
	for i, cl := range cells {
		text := f.window[cl.start:cl.end]
		if cl.doubled {
			text = undouble(nil, text)
		}
		names[i] = strings.TrimSpace(string(text))
		if _, _, ok := scanPlain(trimBlanks(text)); ok {
			numbers++
		}
	}
	switch {
	case f.o.NoHeader && len(f.o.Columns) == 0:
		for i := range names {
			names[i] = fmt.Sprintf("column_%d", i+1)
		}
		return names, nil
	case len(f.o.Columns) > 0 && len(f.o.Columns) != len(names):
		return nil, fmt.Errorf("%s:%d: %d column names given, the first line has %d fields (delimiter %q)", f.name, f.line, len(f.o.Columns), len(names), c.delim)
	case f.o.NoHeader:
		return slices.Clone(f.o.Columns), nil
	case len(f.o.Columns) > 0:
		names = slices.Clone(f.o.Columns)
	case numbers == len(names) && len(names) > 0:
		f.warn("header", "%s:%d: the header is all numbers; if the file has no header, set --no-header", f.name, f.line)
	}
	f.consume(next - f.at)
	return names, nil
}

// doubled refuses names that stand twice: which of the columns would be meant?
func doubled(names []string, line int, file string) error {
	at := map[string][]int{}
	var order []string
	for i, n := range names {
		if len(at[n]) == 0 {
			order = append(order, n)
		}
		at[n] = append(at[n], i+1)
	}
	var parts []string
	for _, n := range order {
		if cols := at[n]; len(cols) > 1 {
			text := ""
			for i, c := range cols {
				switch {
				case i == 0:
				case i == len(cols)-1:
					text += " and "
				default:
					text += ", "
				}
				text += fmt.Sprint(c)
			}
			parts = append(parts, fmt.Sprintf("%q in columns %s", n, text))
		}
	}
	if len(parts) == 0 {
		return nil
	}
	if len(parts) > 5 {
		parts = append(parts[:5], fmt.Sprintf("and %d more", len(parts)-5))
	}
	return fmt.Errorf("%s:%d: doubled column names: %s; rename them or set --columns (a file without a header: --no-header)", file, line, strings.Join(parts, ", "))
}

// lay finds key, time and dropped columns, and prepares what is written in front of each value.
func (f *File) lay() error {
	c := f.csv
	var errs []error
	find := func(what, name string) int {
		i := slices.Index(f.header, name)
		if i < 0 {
			errs = append(errs, &advised{fmt.Sprintf("%s column %q is not in the header", what, name), suggest(name, f.header)})
		}
		return i
	}
	if f.o.Key != "" {
		c.key = find("key", f.o.Key)
	}
	if f.o.Time != "" {
		c.time = find("time", f.o.Time)
	}
	for _, name := range f.header {
		c.prefix = append(c.prefix, append(AppendString(nil, []byte(name)), ':'))
	}
	for _, name := range f.o.Drop {
		if i := find("dropped", name); i >= 0 {
			c.prefix[i] = nil
		}
	}
	return errors.Join(errs...)
}

// sniffDelimiter picks the delimiter under which the most rows have as many fields as the first, more than one.
func sniffDelimiter(b []byte, final bool, decimalComma bool) byte {
	best, delim := 0.0, byte(',')
	if decimalComma {
		delim = ';'
	}
	for _, d := range []byte{',', ';', '\t', '|'} {
		if d == ',' && decimalComma {
			continue
		}
		var cells []cell
		rows, same, width := 0, 0, 0
		for i := 0; i < len(b) && rows < sniffRows; {
			var status cellStatus
			var next int
			cells, next, status = readRow(cells[:0], b, i, d, final)
			if status == cellShort || status == cellQuote {
				break
			}
			i = next
			if len(cells) == 1 && len(trimBlanks(b[cells[0].start:cells[0].end])) == 0 {
				continue
			}
			if rows == 0 {
				width = len(cells)
			}
			if len(cells) == width {
				same++
			}
			rows++
		}
		if width < 2 {
			continue
		}
		// Agreement first; of two that agree, the one with more columns.
		if score := float64(same)/float64(rows) + float64(width)/1e6; score > best {
			best, delim = score, d
		}
	}
	return delim
}

// skipBlankLines passes over lines that hold nothing but blanks.
func (f *File) skipBlankLines() {
	for {
		i := f.at
		for i < len(f.window) && (f.window[i] == ' ' || f.window[i] == '\t' && f.csv.delim != '\t' || f.window[i] == '\r') {
			i++
		}
		switch {
		case i < len(f.window) && f.window[i] == '\n':
			f.consume(i + 1 - f.at)
		case i == len(f.window) && !f.final:
			if f.fill() != nil && !f.final {
				return
			}
		case i == len(f.window):
			f.consume(i - f.at)
			return
		default:
			return
		}
	}
}

// row finds the cells of the row at window[at:], reading on as needed. A *RowError means that the row was passed over.
// No cells and no error: a line that is no row, which goes out as it is.
func (f *File) row() ([]cell, int, error) {
	c := f.csv
	for {
		var next int
		var status cellStatus
		c.cells, next, status = readRow(c.cells[:0], f.window, f.at, c.delim, f.final)
		switch {
		case status == cellLast && next-f.at <= maxRow:
			return c.cells, next, nil
		case status == cellLast:
			line := f.line
			f.consume(next - f.at)
			return nil, 0, f.reject(line, "", ReasonLong, "a row of more than %d MiB", maxRow>>20)
		case status == cellShort && len(f.window)-f.at <= maxRow:
			if err := f.fill(); err != nil && !errors.Is(err, io.EOF) {
				return nil, 0, f.cut()
			}
			continue
		}
		// A quote that does not end, text after a closing one, or a row without end. Only the line on which the row
		// begins is given up: what follows may well be whole.
		line := f.line
		column := f.columnName(len(c.cells))
		end, ok, err := f.lineEnd()
		if err != nil {
			return nil, 0, err
		}
		if ok && f.header != nil && f.unchecked() {
			return nil, end, nil
		}
		f.consume(end - f.at)
		if !ok {
			f.skipLine()
			return nil, 0, f.reject(line, "", ReasonLong, "a line of more than %d MiB", maxRow>>20)
		}
		return nil, 0, f.reject(line, column, ReasonCSVQuote, "a quoted field that does not end at a delimiter")
	}
}

func (f *File) columnName(i int) string {
	if i < len(f.header) {
		return f.header[i]
	}
	return fmt.Sprint(i + 1)
}

func (f *File) nextCSV() (Entry, error) {
	c := f.csv
	f.skipBlankLines()
	if f.at == len(f.window) && f.final {
		return Entry{}, io.EOF
	}
	if f.at == len(f.window) && f.err != nil {
		return Entry{}, f.cut()
	}
	line := f.line
	cells, next, err := f.row()
	if err != nil {
		return Entry{}, err
	}
	row := f.window[f.at:next]
	start := f.at
	f.consume(next - f.at)
	if f.unchecked() {
		return Entry{Value: f.keep(func(b []byte) []byte { return append(b, dropLineEnd(row)...) }), Time: NoTime, Line: line}, nil
	}
	if i := bytes.IndexByte(row, 0); i >= 0 {
		col := 0
		for col < len(cells)-1 && cells[col].end < start+i {
			col++
		}
		return Entry{}, f.reject(line, f.columnName(col), ReasonNUL, "NUL byte")
	}
	if len(cells) != len(f.header) {
		return Entry{}, f.reject(line, "", ReasonCSVColumns, "%d fields, header has %d", len(cells), len(f.header))
	}
	e := Entry{Time: NoTime, Line: line}
	if c.time >= 0 {
		if e.Time, err = f.timeOf(f.cellText(cells[c.time]), line); err != nil {
			return Entry{}, err
		}
	}
	if c.key >= 0 {
		if text := f.cellText(cells[c.key]); len(text) > 0 {
			e.Key = f.keep(func(b []byte) []byte { return append(b, text...) })
		}
	}
	if c.seen < sniffRows {
		f.watchCommas(cells, line)
	}
	if f.o.Raw {
		e.Value = f.keep(func(b []byte) []byte { return append(b, dropLineEnd(row)...) })
		return e, nil
	}
	if cap(f.arena)-len(f.arena) < 2*len(row)+64*len(cells) {
		f.arena = make([]byte, 0, max(arenaSize, 4*len(row)+64*len(cells)))
	}
	begin := len(f.arena)
	f.arena = f.appendRow(f.arena, cells, line)
	e.Value = f.arena[begin:len(f.arena):len(f.arena)]
	return e, nil
}

// cellText is a cell's text, blanks around an unquoted one dropped. It holds until the next call.
func (f *File) cellText(cl cell) []byte {
	text := f.window[cl.start:cl.end]
	if cl.doubled {
		f.csv.scratch = undouble(f.csv.scratch[:0], text)
		return f.csv.scratch
	}
	if !cl.quoted {
		text = trimBlanks(text)
	}
	return text
}

// appendRow writes the row as a JSON object.
func (f *File) appendRow(b []byte, cells []cell, line int) []byte {
	c := f.csv
	b = append(b, '{')
	first := true
	for i, cl := range cells {
		if c.prefix[i] == nil {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, c.prefix[i]...)
		text := f.cellText(cl)
		switch num, json, ok := scanPlain(text); {
		case len(text) == 0:
			b = append(b, "null"...)
		case f.o.DecimalComma:
			n := len(b)
			if b = appendDecimalComma(b, text); len(b) == n {
				b = f.appendText(b, text, i, line)
			}
		case ok && json:
			b = append(b, text...)
		case ok && !leadingZeros(text):
			b = appendNumber(b, text, num.neg)
		default:
			b = f.appendText(b, text, i, line)
		}
	}
	return append(b, '}')
}

// watchCommas warns if cells of the first rows look like numbers with a decimal comma and nothing is set.
func (f *File) watchCommas(cells []cell, line int) {
	c := f.csv
	c.seen++
	if f.o.DecimalComma {
		return
	}
	for i, cl := range cells {
		text := trimBlanks(f.window[cl.start:cl.end])
		comma := bytes.IndexByte(text, ',')
		if comma <= 0 || comma+1 == len(text) {
			continue
		}
		var buf [64]byte
		if len(appendDecimalComma(buf[:0], text)) == 0 {
			continue
		}
		c.commas++
		// Between commas, a quoted 1,5 may be anything; a column of them is not.
		if c.delim != ',' || c.commas >= 10 {
			f.warn("commas", "%s:%d: column %s: values such as %q look like decimal commas; set --decimal-comma (as it is, they stay text)", f.name, line, f.columnName(i), text)
		}
	}
}

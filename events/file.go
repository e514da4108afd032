package events

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/lapwing-stream/lapwing/model"
)

const (
	maxRow     = 8 << 20   // bytes of one row or line; longer ones are rejected, so that memory stays bounded
	windowSize = 256 << 10 // bytes read ahead
	arenaSize  = 64 << 10  // bytes allocated at once for the entries' values
	sniffRows  = 50        // rows from which the delimiter is found
)

// FileOptions says how OpenFile reads.
type FileOptions struct {
	Format       string   // "csv" or "jsonl"; default: by the file's ending, else by its first character
	Delimiter    rune     // csv, one ASCII character; default: found among , ; tab |
	DecimalComma bool     // csv: 1.669,4 means 1669.4; default: false
	Encoding     string   // utf-8, latin1, windows-1252, utf-16, utf-16le, utf-16be; default: utf-8, or UTF-16 by its mark
	Key          string   // column or path that becomes the record's key; default: none, a null key
	Time         string   // column or path that becomes the record's time; default: none
	TimeUnit     string   // s, ms, us, ns for numbers; default: found from the first number, with a warning
	TimeLayout   string   // Go layout for text; default: RFC 3339 and its like
	TimeZone     string   // zone for times without one; default: UTC
	Drop         []string // columns, or top-level keys, that are left out of the value; default: none
	Raw          bool     // the value is the line as it stands, checked only for what Key and Time need; default: false
	NoHeader     bool     // csv: the first line is a row; default: false
	Columns      []string // csv: column names in place of the header's, or of a missing header; default: none
}

// Entry is one row of a file, ready to be a record. Its memory is its own.
type Entry struct {
	Value []byte // one JSON object, or the raw line
	Key   []byte // nil without Key, or where the row has none
	Time  int64  // ms since 1970; NoTime without Time, or where the row has none
	Line  int    // where the row begins; the header is line 1
}

// NoTime is the Time of an entry without one. It is no time that a row can have.
const NoTime = math.MinInt64

// RowError rejects one row; reading goes on after it.
type RowError struct {
	File   string
	Line   int
	Column string // name or number of the column, or ""
	Reason string // a Reason… constant, or "time"
	Detail string
}

func (e *RowError) Error() string {
	where := fmt.Sprintf("%s:%d", e.File, e.Line)
	if e.Column != "" {
		where += ": column " + e.Column
	}
	return where + ": " + e.Detail
}

// Reasons that only files have.
const (
	ReasonTime = "time"     // the declared time of the row cannot be read
	ReasonLong = "too_long" // a row of more than 8 MiB
)

// File reads the rows of one file.
type File struct {
	o        FileOptions
	name     string
	in       *input
	window   []byte // what is read and not yet consumed is window[at:]
	at       int
	final    bool  // the window holds the rest of the file
	err      error // the end, or what went wrong in reading
	line     int   // of window[at]
	rows     int   // entries handed out
	rejected int
	arena    []byte
	warnings []string
	warned   map[string]bool
	header   []string
	rule     *timeRule
	next     func() (Entry, error)

	csv  *csvFile
	json *jsonFile
}

// OpenFile opens a file of CSV or JSON lines, also gzip or zstd by content; "-" is standard input.
func OpenFile(path string, o FileOptions) (*File, error) {
	if path == "-" {
		return newFile("stdin", io.NopCloser(os.Stdin), o)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err == nil && info.IsDir() {
		f.Close()
		return nil, fmt.Errorf("%s: is a folder; name its files", path)
	}
	return newFile(path, f, o)
}

var errEmpty = &advised{"empty, no header", "give a file with a header line and rows, or take this one out"}

// newFile reads from src, which it closes, also when it fails.
func newFile(name string, src io.ReadCloser, o FileOptions) (*File, error) {
	f := &File{o: o, name: name, line: 1, warned: map[string]bool{}}
	if err := f.open(src); err != nil {
		f.Close()
		if !strings.HasPrefix(err.Error(), name) {
			err = fmt.Errorf("%s: %w", name, err)
		}
		return nil, err
	}
	return f, nil
}

func (f *File) open(src io.ReadCloser) error {
	if err := f.o.validate(); err != nil {
		src.Close()
		return err
	}
	in, err := openInput(f.name, src, f.o.Encoding, f.warn)
	if err != nil {
		return err
	}
	f.in = in
	if err := f.fill(); err != nil && !errors.Is(err, io.EOF) && len(f.window) == 0 {
		return err
	}
	if len(f.window) == 0 {
		return errEmpty
	}
	f.window = append(f.window[:0], dropMark(f.window)...)
	if utf16Like(f.window) {
		return errors.New("looks like UTF-16 without a byte-order mark; set --encoding utf-16le or utf-16be, or convert it: iconv -f UTF-16LE -t UTF-8")
	}
	if f.o.Time != "" {
		f.rule, err = newTimeRule(&model.Time{Field: f.o.Time, Unit: f.o.TimeUnit, Layout: f.o.TimeLayout, Zone: f.o.TimeZone})
		if err != nil {
			return err
		}
	}
	if f.format() == "jsonl" {
		return f.openJSON()
	}
	return f.openCSV()
}

func (o *FileOptions) validate() error {
	var errs []error
	if o.Format != "" && o.Format != "csv" && o.Format != "jsonl" {
		errs = append(errs, fmt.Errorf("format %q is not csv or jsonl", o.Format))
	}
	if d := o.Delimiter; d != 0 && (d >= 0x80 || d == '"' || d == '\n' || d == '\r') {
		errs = append(errs, fmt.Errorf("delimiter %q is not one ASCII character", d))
	}
	if o.DecimalComma && o.Delimiter == ',' {
		errs = append(errs, errors.New("the comma cannot be both delimiter and decimal comma"))
	}
	if o.Time == "" && (o.TimeUnit != "" || o.TimeLayout != "" || o.TimeZone != "") {
		errs = append(errs, errors.New("a unit, layout or zone of time needs the time column: --time COL"))
	}
	return errors.Join(errs...)
}

// format is csv or jsonl: as set, else by the ending, else by the first character.
func (f *File) format() string {
	if f.o.Format != "" {
		return f.o.Format
	}
	name := strings.ToLower(filepath.Base(f.name))
	for _, z := range []string{".gz", ".zst", ".zstd"} {
		name = strings.TrimSuffix(name, z)
	}
	switch filepath.Ext(name) {
	case ".csv", ".tsv":
		return "csv"
	case ".jsonl", ".ndjson", ".json":
		return "jsonl"
	}
	if i := skipBlank(f.window, 0); i < len(f.window) && f.window[i] == '{' {
		return "jsonl"
	}
	return "csv"
}

// Next gives the next row; io.EOF at the end. A *RowError rejects one row, and reading goes on with the following
// call. Any other error ends the file.
func (f *File) Next() (Entry, error) {
	e, err := f.next()
	switch {
	case err == nil:
		f.rows++
	case errors.Is(err, io.EOF):
		if f.rows == 0 && f.rejected == 0 {
			f.warn("rows", "%s: no rows", f.name)
		}
	default:
		if _, ok := err.(*RowError); ok {
			f.rejected++
		}
	}
	return e, err
}

// Warnings are what was noticed so far and does not stop reading, each once.
func (f *File) Warnings() []string { return f.warnings }

// Close closes the file.
func (f *File) Close() error {
	if f.in == nil {
		return nil
	}
	in := f.in
	f.in = nil
	return in.close()
}

// warn keeps a warning, once for each kind.
func (f *File) warn(kind, format string, args ...any) {
	if f.warned[kind] {
		return
	}
	f.warned[kind] = true
	f.warnings = append(f.warnings, fmt.Sprintf(format, args...))
}

func (f *File) reject(line int, column, reason, format string, args ...any) error {
	return &RowError{File: f.name, Line: line, Column: column, Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

// fill reads more into the window. It gives io.EOF once the window holds the rest.
func (f *File) fill() error {
	if f.err != nil {
		return f.err
	}
	if f.at > 0 {
		f.window = append(f.window[:0], f.window[f.at:]...)
		f.at = 0
	}
	if cap(f.window)-len(f.window) < windowSize/2 {
		grown := make([]byte, len(f.window), max(windowSize, 2*cap(f.window)))
		copy(grown, f.window)
		f.window = grown
	}
	for tries := 0; ; tries++ {
		n, err := f.in.Read(f.window[len(f.window):cap(f.window)])
		f.window = f.window[:len(f.window)+n]
		if err != nil {
			f.err = err
			f.final = errors.Is(err, io.EOF)
			return err
		}
		if n > 0 {
			return nil
		}
		if tries == 100 {
			f.err = io.ErrNoProgress
			return f.err
		}
	}
}

// consume moves on by n bytes of the window and counts their lines.
func (f *File) consume(n int) {
	f.line += bytes.Count(f.window[f.at:f.at+n], newline)
	f.at += n
}

var newline = []byte{'\n'}

// cut says that reading ended before the file did, once the rows before have been handed out.
func (f *File) cut() error {
	return fmt.Errorf("%s:%d: the file cannot be read any further: %w", f.name, f.line, f.err)
}

// lineEnd finds the end of the line at window[at:], reading on as needed: the index after its newline. ok is false
// where the line is longer than maxRow.
func (f *File) lineEnd() (end int, ok bool, err error) {
	from := f.at
	for {
		if i := bytes.IndexByte(f.window[from:], '\n'); i >= 0 {
			return from + i + 1, true, nil
		}
		if f.final {
			if f.at == len(f.window) {
				return 0, true, io.EOF
			}
			return len(f.window), true, nil
		}
		from = len(f.window)
		if from-f.at > maxRow {
			return from, false, nil
		}
		done := from - f.at
		if err := f.fill(); err != nil && !errors.Is(err, io.EOF) {
			return 0, false, f.cut()
		}
		from = f.at + done
	}
}

// skipLine passes over the rest of a line that is too long.
func (f *File) skipLine() {
	for {
		end, ok, err := f.lineEnd()
		if err != nil {
			f.at = len(f.window)
			return
		}
		f.consume(end - f.at)
		if ok {
			return
		}
	}
}

// keep gives the bytes written by write a place that stays as it is.
func (f *File) keep(write func([]byte) []byte) []byte {
	if cap(f.arena)-len(f.arena) < 1024 {
		f.arena = make([]byte, 0, arenaSize)
	}
	start := len(f.arena)
	f.arena = write(f.arena)
	return f.arena[start:len(f.arena):len(f.arena)]
}

// unchecked: lines go out as they are, and nothing has to be found in them.
func (f *File) unchecked() bool { return f.o.Raw && f.o.Key == "" && f.o.Time == "" }

// timeOf reads a row's declared time. The first number settles the unit where none is set.
func (f *File) timeOf(text []byte, line int) (int64, error) {
	text = trimBlanks(text)
	if f.rule.unit == "" && f.rule.layout == "" {
		if d, _, ok := scanPlain(text); ok {
			unit := plausibleUnit(d)
			if unit == "" {
				return NoTime, f.reject(line, f.o.Time, ReasonTime, "%q tells no unit of time; set --time-unit s, ms, us or ns", text)
			}
			rule, err := newTimeRule(&model.Time{Field: f.o.Time, Unit: unit, Zone: f.o.TimeZone})
			if err != nil {
				return NoTime, err
			}
			f.rule = rule
			f.warn("unit", "%s:%d: column %s: numbers such as %s are taken as time in %q; --time-unit sets another", f.name, line, f.o.Time, text, unit)
		}
	}
	ms, problem := f.rule.text(text)
	switch problem {
	case "":
		return ms, nil
	case timeAbsent:
		return NoTime, nil
	case timeNotATime:
		if l, ok := layoutOf(string(text)); ok && l != "" && f.rule.layout == "" {
			return NoTime, f.reject(line, f.o.Time, ReasonTime, "%q is not a time in the declared form; set --time-layout %q", text, l)
		}
		return NoTime, f.reject(line, f.o.Time, ReasonTime, "%q is not a time in the declared form", clip(text, 40))
	}
	if f.rule.unit != "" {
		return NoTime, f.reject(line, f.o.Time, ReasonTime, "%q under unit %s: %s", clip(text, 40), f.rule.unit, problem)
	}
	return NoTime, f.reject(line, f.o.Time, ReasonTime, "%q: %s", clip(text, 40), problem)
}

func clip(b []byte, n int) []byte {
	if len(b) > n {
		return b[:n]
	}
	return b
}

// utf16Like: every other one of the first bytes is NUL, as in Latin text.
func utf16Like(b []byte) bool {
	b = b[:min(len(b), 64)]
	if len(b) < 8 {
		return false
	}
	even, odd := 0, 0
	for i, c := range b {
		if c == 0 {
			if i%2 == 0 {
				even++
			} else {
				odd++
			}
		}
	}
	return 5*even > 2*len(b) && odd == 0 || 5*odd > 2*len(b) && even == 0
}

package events

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// An input is a file's bytes, unpacked and in UTF-8.
type input struct {
	io.Reader
	closers []func() error
}

func (in *input) close() error {
	var errs []error
	for i := len(in.closers) - 1; i >= 0; i-- {
		errs = append(errs, in.closers[i]())
	}
	return errors.Join(errs...)
}

// openInput unpacks src by its first bytes and turns it into UTF-8. warn takes what does not stop reading.
func openInput(name string, src io.ReadCloser, encoding string, warn func(kind, format string, args ...any)) (*input, error) {
	in := &input{closers: []func() error{src.Close}}
	counted := &counter{r: src}
	buf := bufio.NewReaderSize(counted, 64<<10)
	in.Reader = buf
	head, err := buf.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		in.close()
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		in.Reader = &members{name: name, counted: counted, buf: buf, warn: warn}
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(buf, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			in.close()
			return nil, err
		}
		in.closers = append(in.closers, func() error { z.Close(); return nil })
		in.Reader = &frames{name: name, z: z, warn: warn}
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		in.close()
		return nil, errors.New("looks like a zip archive; unpack it first")
	case bytes.HasPrefix(head, []byte("PAR1")), bytes.HasPrefix(head, []byte("Obj\x01")):
		in.close()
		return nil, errors.New("looks like a Parquet or Avro file; not supported: convert it to CSV or JSON lines")
	}
	if err := in.decode(encoding); err != nil {
		in.close()
		return nil, err
	}
	return in, nil
}

// decode lays the encoding over the reader; a UTF-16 mark decides where none is set.
func (in *input) decode(encoding string) error {
	switch e := strings.ToLower(encoding); e {
	case "", "utf-8", "utf8":
		buf := bufio.NewReaderSize(in.Reader, 64<<10)
		in.Reader = buf
		head, _ := buf.Peek(2)
		if bytes.HasPrefix(head, []byte{0xff, 0xfe}) || bytes.HasPrefix(head, []byte{0xfe, 0xff}) {
			in.Reader = &utf16Reader{r: buf, big: head[0] == 0xfe}
		}
	case "utf-16", "utf-16le", "utf-16be", "utf16", "utf16le", "utf16be":
		buf := bufio.NewReaderSize(in.Reader, 64<<10)
		u := &utf16Reader{r: buf, big: strings.HasSuffix(e, "be")}
		if head, _ := buf.Peek(2); bytes.HasPrefix(head, []byte{0xfe, 0xff}) {
			u.big = true
		} else if bytes.HasPrefix(head, []byte{0xff, 0xfe}) {
			u.big = false
		}
		in.Reader = u
	case "latin1", "latin-1", "iso-8859-1":
		in.Reader = &byteReader{r: in.Reader}
	case "windows-1252", "cp1252":
		in.Reader = &byteReader{r: in.Reader, high: &windows1252}
	default:
		return fmt.Errorf("encoding %q is not utf-8, latin1, windows-1252, utf-16, utf-16le or utf-16be", encoding)
	}
	return nil
}

// A counter counts the bytes read through it.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// members reads gzip members one after another as one stream. What follows the last one is named by its byte.
type members struct {
	name    string
	counted *counter
	buf     *bufio.Reader
	z       *gzip.Reader
	warn    func(kind, format string, args ...any)
	open    bool
	err     error
}

func (m *members) Read(p []byte) (int, error) {
	for m.err == nil {
		if !m.open {
			at := m.counted.n - int64(m.buf.Buffered())
			var err error
			if m.z == nil {
				m.z, err = gzip.NewReader(m.buf)
			} else {
				err = m.z.Reset(m.buf)
			}
			switch {
			case err == nil:
				m.z.Multistream(false)
				m.open = true
			case errors.Is(err, io.EOF):
				m.err = io.EOF
			case at > 0:
				m.warn("trailing", "%s: what follows byte %d is no gzip member and was not read; the rows before it are whole", m.name, at)
				m.err = io.EOF
			default:
				m.err = err
			}
			continue
		}
		n, err := m.z.Read(p)
		if errors.Is(err, io.EOF) {
			m.open, err = false, nil
		}
		if err != nil {
			at := m.counted.n - int64(m.buf.Buffered())
			m.err = fmt.Errorf("gzip, near byte %d: %w", at, err)
			if errors.Is(err, io.ErrUnexpectedEOF) {
				m.err = fmt.Errorf("gzip: the file is cut short at byte %d: %w", at, err)
			}
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, m.err
}

// frames reads zstd frames.
type frames struct {
	name string
	z    *zstd.Decoder
	warn func(kind, format string, args ...any)
	some bool
	err  error
}

func (f *frames) Read(p []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	n, err := f.z.Read(p)
	f.some = f.some || n > 0
	switch {
	case err == nil || errors.Is(err, io.EOF):
	case errors.Is(err, zstd.ErrMagicMismatch) && f.some:
		f.warn("trailing", "%s: what follows the last zstd frame is none and was not read; the rows before it are whole", f.name)
		err = io.EOF
	default:
		err = fmt.Errorf("zstd: %w", err)
	}
	f.err = err
	if n > 0 {
		err = nil
	}
	return n, err
}

// utf16Reader turns UTF-16 into UTF-8.
type utf16Reader struct {
	r    *bufio.Reader
	big  bool
	buf  []byte
	out  []byte
	high rune // first half of a surrogate pair, or 0
	err  error
}

func (u *utf16Reader) Read(p []byte) (int, error) {
	for len(u.out) == 0 && u.err == nil {
		u.out = u.buf[:0]
		for len(u.out) < 4096 {
			var pair [2]byte
			if _, err := io.ReadFull(u.r, pair[:]); err != nil {
				if errors.Is(err, io.ErrUnexpectedEOF) {
					err = errors.New("UTF-16: an odd number of bytes")
				}
				if u.high != 0 {
					u.out = utf8.AppendRune(u.out, utf8.RuneError)
				}
				u.err = err
				break
			}
			c := rune(pair[0]) | rune(pair[1])<<8
			if u.big {
				c = rune(pair[1]) | rune(pair[0])<<8
			}
			if u.high != 0 {
				r := utf16.DecodeRune(u.high, c)
				u.high = 0
				u.out = utf8.AppendRune(u.out, r)
				if r != utf8.RuneError {
					continue
				}
			}
			if c >= 0xd800 && c < 0xdc00 {
				u.high = c
				continue
			}
			u.out = utf8.AppendRune(u.out, c)
		}
		u.buf = u.out
	}
	n := copy(p, u.out)
	u.out = u.out[n:]
	if n > 0 {
		return n, nil
	}
	return 0, u.err
}

// byteReader turns an encoding of one byte a character into UTF-8.
type byteReader struct {
	r    io.Reader
	high *[32]rune // characters 0x80 to 0x9f; nil: as in Latin-1
	in   [4096]byte
	buf  []byte
	out  []byte
	err  error
}

func (l *byteReader) Read(p []byte) (int, error) {
	for len(l.out) == 0 && l.err == nil {
		n, err := l.r.Read(l.in[:])
		l.err = err
		l.buf = l.buf[:0]
		for _, c := range l.in[:n] {
			r := rune(c)
			if l.high != nil && c >= 0x80 && c < 0xa0 {
				r = l.high[c-0x80]
			}
			l.buf = utf8.AppendRune(l.buf, r)
		}
		l.out = l.buf
	}
	n := copy(p, l.out)
	l.out = l.out[n:]
	if n > 0 {
		return n, nil
	}
	return 0, l.err
}

// windows1252 has its characters where Latin-1 has control codes; the five unused ones stay those.
var windows1252 = [32]rune{'€', 0x81, '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', 0x8d, 'Ž', 0x8f,
	0x90, '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', 0x9d, 'ž', 'Ÿ'}

package events

import (
	"bytes"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

func (f *File) appendText(b, text []byte, col, line int) []byte {
	if !utf8.Valid(text) {
		f.warn("cell utf8", "%s:%d: column %s is not UTF-8; set --encoding latin1 or windows-1252", f.name, line, f.columnName(col))
	}
	if t := trimBlanks(text); len(t) != len(text) {
		// A quoted number with blanks around it is still a number.
		if _, json, ok := scanPlain(t); ok && json && !f.o.DecimalComma {
			return append(b, t...)
		}
	}
	return appendJSON(b, text)
}

// leadingZeros: 007 is a code, not a quantity; it stays text, and is read as 7 where a field is declared a number.
func leadingZeros(text []byte) bool {
	if text[0] == '+' || text[0] == '-' {
		text = text[1:]
	}
	return len(text) > 1 && text[0] == '0' && text[1]-'0' <= 9
}

// appendNumber writes a plain decimal number as JSON spells it: +5 is 5, .5 is 0.5, 5. is 5; no digit changes.
func appendNumber(b, text []byte, neg bool) []byte {
	if neg {
		b = append(b, '-')
	}
	if text[0] == '+' || text[0] == '-' {
		text = text[1:]
	}
	if text[0] == '.' {
		b = append(b, '0')
	}
	point := bytes.IndexByte(text, '.')
	if point >= 0 && (point+1 == len(text) || text[point+1]|0x20 == 'e') {
		b = append(b, text[:point]...)
		return append(b, text[point+1:]...)
	}
	return append(b, text...)
}

// appendDecimalComma writes a number with a decimal comma, and points between thousands, as JSON; anything else leaves
// b as it is. A point that does not part groups of three digits makes it no number: 3.5 is not guessed at.
func appendDecimalComma(b, text []byte) []byte {
	text = trimBlanks(text)
	n := len(b)
	i := 0
	if i < len(text) && (text[i] == '+' || text[i] == '-') {
		i++
	}
	var plain [64]byte
	out := append(plain[:0], text[:i]...)
	group, points := 0, 0
	for ; i < len(text); i++ {
		c := text[i]
		if c == '.' {
			if group == 0 || group > 3 || points > 0 && group != 3 {
				return b
			}
			points++
			group = 0
			continue
		}
		if c-'0' > 9 {
			break
		}
		out = append(out, c)
		group++
	}
	if points > 0 && group != 3 {
		return b
	}
	if i < len(text) && text[i] == ',' {
		out = append(out, '.')
		i++
	}
	out = append(out, text[i:]...)
	d, json, ok := scanPlain(out)
	switch {
	case !ok:
		return b[:n]
	case json:
		return append(b, out...)
	case leadingZeros(out):
		return b[:n]
	}
	return appendNumber(b, out, d.neg)
}

// appendJSON writes text as a JSON string; bytes that are not UTF-8 become U+FFFD.
func appendJSON(b, text []byte) []byte {
	b = append(b, '"')
	from := 0
	for i := 0; i < len(text); {
		c := text[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRune(text[i:])
			if r == utf8.RuneError && n == 1 {
				b = append(b, text[from:i]...)
				b = append(b, "\uFFFD"...)
				i++
				from = i
				continue
			}
			i += n
			continue
		}
		b = append(b, text[from:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		from = i
	}
	b = append(b, text[from:]...)
	return append(b, '"')
}

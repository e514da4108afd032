package events

import (
	"bytes"
	"unicode/utf8"
)

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
	return AppendString(b, text)
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

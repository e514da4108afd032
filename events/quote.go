package events

import "unicode/utf8"

const hexDigits = "0123456789abcdef"

// plainByte are the characters of ASCII that stand for themselves in a JSON string: RFC 8259 has no other escaped than controls
// below the blank, quotes and backslashes. DEL is one of them, as encoding/json writes it.
var plainByte = func() (plain [256]bool) {
	for c := ' '; c < utf8.RuneSelf; c++ {
		plain[c] = c != '"' && c != '\\'
	}
	return plain
}()

// AppendString appends s as a JSON string. Bytes that are not UTF-8 become U+FFFD.
func AppendString[T string | []byte](b []byte, s T) []byte {
	b = append(b, '"')
	start, i := 0, 0
	for i < len(s) && plainByte[s[i]] {
		i++
	}
	for i < len(s) {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := decodeRune(s[i:])
			if r == utf8.RuneError && n == 1 {
				b = append(b, s[start:i]...)
				b = append(b, "\uFFFD"...)
				start = i + 1
			}
			i += n
			continue
		}
		if plainByte[c] {
			i++
			continue
		}
		b = append(b, s[start:i]...)
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
		start = i
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

func decodeRune[T string | []byte](s T) (rune, int) {
	var p [utf8.UTFMax]byte
	return utf8.DecodeRune(p[:copy(p[:], s)])
}

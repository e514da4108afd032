package events

import (
	"unicode/utf16"
	"unicode/utf8"
)

// What can be wrong in JSON, as the message says it.
const (
	failEnd      = "unexpected end of the record"
	failValue    = "a value should begin here"
	failNumber   = "not a number as JSON writes it"
	failZero     = "a number may not have leading zeros"
	failKey      = "a key in double quotes should begin here"
	failColon    = "a colon should follow the key"
	failComma    = "a comma or the closing bracket should follow"
	failControl  = "a control character in a string"
	failEscape   = "not an escape that JSON has"
	failTrailing = "text after the end of the object"
	failDeep     = ReasonTooDeep
	failObject   = ReasonNotObject
)

func (d *Decoder) failed(i int, what string) int {
	d.failAt, d.fail = i, what
	return -1
}

// scanJSON walks one JSON object. It checks all of it, the parts that nobody asked for too, but does not parse
// numbers that are not used.
func (d *Decoder) scanJSON(b []byte) bool {
	i := skipBlank(b, 0)
	if i == len(b) {
		d.failed(i, ReasonEmpty)
		return false
	}
	if b[i] != '{' {
		// Only whole JSON of another kind is "not an object"; anything else is not JSON.
		if j := d.skip(b, i, 1); j >= 0 && skipBlank(b, j) == len(b) {
			d.failed(i, failObject)
		} else if j >= 0 {
			d.failed(skipBlank(b, j), failTrailing)
		}
		return false
	}
	if i = d.object(b, i, d.root, 1); i < 0 {
		return false
	}
	if i = skipBlank(b, i); i != len(b) {
		d.failed(i, failTrailing)
		return false
	}
	return true
}

func skipBlank(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

// object walks the object at b[i] for the wants of n and gives the index after it, or a negative one.
//
// Producers write their keys in one order, so the key that followed last time is compared first; only when it is
// another one is it scanned and looked up.
func (d *Decoder) object(b []byte, i int, n *node, depth int) int {
	if depth > MaxDepth {
		return d.failed(i, failDeep)
	}
	i = skipBlank(b, i+1)
	if i < len(b) && b[i] == '}' {
		return i + 1
	}
	expected := &n.first
	for {
		if i >= len(b) || b[i] != '"' {
			return d.failed(i, failKey)
		}
		at := *expected
		if at >= 0 {
			c := &n.children[at]
			end := i + 1 + len(c.key)
			if c.plain && end < len(b) && b[end] == '"' && string(b[i+1:end]) == c.key {
				i = end + 1
			} else {
				at = -1
			}
		}
		if at < 0 {
			start := i + 1
			end, escaped := d.scanString(b, start)
			if end < 0 {
				return end
			}
			i = end + 1
			key := b[start:end]
			if escaped {
				d.scratch = unescape(d.scratch[:0], key)
				key = d.scratch
			}
			if found, ok := n.byKey[string(key)]; ok {
				at = found
				*expected = at
			}
		}
		if i < len(b) && b[i] == ':' {
			i++
		} else {
			if i = skipBlank(b, i); i >= len(b) || b[i] != ':' {
				return d.failed(i, failColon)
			}
			i++
		}
		if i < len(b) && b[i] <= ' ' {
			i = skipBlank(b, i)
		}
		if at >= 0 {
			c := &n.children[at]
			expected = &c.next
			if c.number && i < len(b) && (b[i]-'0' <= 9 || b[i] == '-') {
				i = d.number(b, i, c.field)
			} else {
				i = d.value(b, i, c.node, depth)
			}
		} else {
			i = d.skip(b, i, depth)
		}
		if i < 0 {
			return i
		}
		if i < len(b) && b[i] == ',' {
			i++
			if i < len(b) && b[i] <= ' ' {
				i = skipBlank(b, i)
			}
			continue
		}
		i = skipBlank(b, i)
		if i >= len(b) {
			return d.failed(i, failEnd)
		}
		switch b[i] {
		case ',':
			i = skipBlank(b, i+1)
		case '}':
			return i + 1
		default:
			return d.failed(i, failComma)
		}
	}
}

// value takes the value at b[i] for node n, which wants it or something below it.
func (d *Decoder) value(b []byte, i int, n *node, depth int) int {
	if i >= len(b) {
		return d.failed(i, failEnd)
	}
	if n.inner() {
		if n.seen == d.epoch {
			d.forget(n) // a doubled key: what was read below the earlier one does not count
		}
		n.seen = d.epoch
	}
	switch c := b[i]; c {
	case '{', '[':
		start := i
		if n.leaf() {
			if c == '{' {
				d.leafOther(n, fieldObject, kindObject)
			} else {
				d.leafOther(n, fieldArray, kindArray)
			}
		}
		switch {
		case !n.inner():
			i = d.skip(b, i, depth)
		case c == '{':
			i = d.object(b, i, n, depth+1)
		default:
			i = d.array(b, i, n, depth+1)
		}
		if n.capture > 0 && i >= 0 {
			d.got[n.capture-1].text = b[start:i]
		}
		return i
	case '"':
		if !n.leaf() {
			return d.skip(b, i, depth)
		}
		start := i + 1
		end, escaped := d.scanString(b, start)
		if end < 0 {
			return end
		}
		text := b[start:end]
		if escaped {
			d.scratch = unescape(d.scratch[:0], text)
			text = d.scratch
		}
		if n.field >= 0 {
			d.setText(n.field, text)
		}
		if n.isTime {
			d.setTime(d.time.text(text))
		}
		if n.capture > 0 {
			if escaped {
				text = append([]byte(nil), text...) // scratch is used again within this record
			}
			d.got[n.capture-1] = captured{kindText, text}
		}
		return end + 1
	case 't', 'f', 'n':
		end := d.skip(b, i, depth)
		if end < 0 || !n.leaf() {
			return end
		}
		if n.field >= 0 {
			if c == 'n' {
				d.set(n.field, fieldMissing)
			} else {
				d.setBool(n.field, c == 't')
			}
		}
		if n.isTime {
			if c == 'n' {
				d.setTime(0, timeAbsent)
			} else {
				d.setTime(0, timeNotATime)
			}
		}
		if n.capture > 0 {
			d.got[n.capture-1] = captured{map[byte]valueKind{'n': kindNull, 't': kindTrue, 'f': kindFalse}[c], b[i:end]}
		}
		return end
	default:
		end, mant, exp, exact := scanNumber(b, i)
		if end < 0 {
			return d.numberFailed(b, i, ^end)
		}
		if n.field >= 0 {
			d.setNumber(n.field, b[i:end], mant, exp, exact)
		}
		if n.isTime {
			d.setTime(d.time.number(decimal{mant, exp, c == '-', exact}, b[i:end]))
		}
		if n.capture > 0 {
			d.got[n.capture-1] = captured{kindNumber, b[i:end]}
		}
		return end
	}
}

// number takes the number at b[i] for a field that is one. It is value's most common case, flat.
func (d *Decoder) number(b []byte, i int, f int32) int {
	end, mant, exp, exact := scanNumber(b, i)
	if end < 0 {
		return d.numberFailed(b, i, ^end)
	}
	if v, ok := fastFloat32(mant, exp); ok && exact && d.state[f] == fieldAbsent {
		if b[i] == '-' {
			v = -v
		}
		d.row[d.fields[f].col] = v
		d.state[f] = fieldValue
		d.good++
		return end
	}
	d.setNumber(f, b[i:end], mant, exp, exact)
	return end
}

func (d *Decoder) leafOther(n *node, s uint8, k valueKind) {
	if n.field >= 0 {
		d.set(n.field, s)
	}
	if n.isTime {
		d.setTime(0, timeNotATime)
	}
	if n.capture > 0 {
		d.got[n.capture-1] = captured{kind: k}
	}
}

// forget takes back what was read below n.
func (d *Decoder) forget(n *node) {
	for i := range n.children {
		c := n.children[i].node
		if c.field >= 0 {
			d.set(c.field, fieldAbsent)
		}
		if c.isTime {
			d.setTime(0, timeAbsent)
		}
		if c.capture > 0 {
			d.got[c.capture-1] = captured{}
		}
		d.forget(c)
	}
}

// array walks the array at b[i] for the elements that n wants.
func (d *Decoder) array(b []byte, i int, n *node, depth int) int {
	if depth > MaxDepth {
		return d.failed(i, failDeep)
	}
	i = skipBlank(b, i+1)
	if i < len(b) && b[i] == ']' {
		return i + 1
	}
	wants := n.elems
	for index := 0; ; index++ {
		if len(wants) > 0 && wants[0].index == index {
			i = d.value(b, i, wants[0].node, depth)
			wants = wants[1:]
		} else {
			i = d.skip(b, i, depth)
		}
		if i < 0 {
			return i
		}
		i = skipBlank(b, i)
		if i >= len(b) {
			return d.failed(i, failEnd)
		}
		switch b[i] {
		case ',':
			i = skipBlank(b, i+1)
		case ']':
			return i + 1
		default:
			return d.failed(i, failComma)
		}
	}
}

// skip checks the value at b[i] and gives the index after it. depth is that of the surrounding object or array.
func (d *Decoder) skip(b []byte, i int, depth int) int {
	if i >= len(b) {
		return d.failed(i, failEnd)
	}
	switch b[i] {
	case '"':
		end, _ := d.scanString(b, i+1)
		if end < 0 {
			return end
		}
		return end + 1
	case 't':
		return d.word(b, i, "true")
	case 'f':
		return d.word(b, i, "false")
	case 'n':
		return d.word(b, i, "null")
	case '{', '[':
		return d.skipNested(b, i, depth+1)
	}
	end, _, _, _ := scanNumber(b, i)
	if end < 0 {
		return d.numberFailed(b, i, ^end)
	}
	return end
}

// skipNested checks the object or array at b[i].
func (d *Decoder) skipNested(b []byte, i int, depth int) int {
	if depth > MaxDepth {
		return d.failed(i, failDeep)
	}
	keyed := b[i] == '{'
	closing := byte(']')
	if keyed {
		closing = '}'
	}
	i = skipBlank(b, i+1)
	if i < len(b) && b[i] == closing {
		return i + 1
	}
	for {
		if keyed {
			if i >= len(b) || b[i] != '"' {
				return d.failed(i, failKey)
			}
			end, _ := d.scanString(b, i+1)
			if end < 0 {
				return end
			}
			i = skipBlank(b, end+1)
			if i >= len(b) || b[i] != ':' {
				return d.failed(i, failColon)
			}
			i = skipBlank(b, i+1)
		}
		if i = d.skip(b, i, depth); i < 0 {
			return i
		}
		i = skipBlank(b, i)
		if i >= len(b) {
			return d.failed(i, failEnd)
		}
		if b[i] == closing {
			return i + 1
		}
		if b[i] != ',' {
			return d.failed(i, failComma)
		}
		i = skipBlank(b, i+1)
	}
}

func (d *Decoder) word(b []byte, i int, w string) int {
	for k := 0; k < len(w); k++ {
		if i+k >= len(b) {
			return d.failed(i+k, failEnd)
		}
		if b[i+k] != w[k] {
			return d.failed(i, failValue)
		}
	}
	return i + len(w)
}

func (d *Decoder) numberFailed(b []byte, start, at int) int {
	switch {
	case at >= len(b):
		return d.failed(at, failEnd)
	case at < len(b) && b[at] == '0':
		return d.failed(at, failZero)
	case at == start && !(b[at] == '.' || b[at] == '+'):
		return d.failed(at, failValue)
	}
	return d.failed(at, failNumber)
}

// scanString checks the string whose first byte is b[i] and gives the index of its closing quote. Bytes that are not
// UTF-8 are let through, as by encoding/json: in a key that nobody uses they do no harm.
func (d *Decoder) scanString(b []byte, i int) (end int, escaped bool) {
	for i < len(b) {
		c := b[i]
		switch {
		case c == '"':
			return i, escaped
		case c == '\\':
			escaped = true
			if i+1 >= len(b) {
				return d.failed(len(b), failEnd), false
			}
			switch b[i+1] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
				i += 2
			case 'u':
				for k := i + 2; k < i+6; k++ {
					if k >= len(b) {
						return d.failed(len(b), failEnd), false
					}
					if hexDigit(b[k]) < 0 {
						return d.failed(i, failEscape), false
					}
				}
				i += 6
			default:
				return d.failed(i, failEscape), false
			}
		case c < 0x20:
			return d.failed(i, failControl), false
		default:
			i++
		}
	}
	return d.failed(len(b), failEnd), false
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

func hex4(s []byte) rune {
	r := 0
	for _, c := range s[:4] {
		r = r<<4 | hexDigit(c)
	}
	return rune(r)
}

// unescape appends the text of a checked JSON string to dst. Half a surrogate pair becomes U+FFFD.
func unescape(dst, s []byte) []byte {
	for i := 0; i < len(s); {
		c := s[i]
		if c != '\\' {
			dst = append(dst, c)
			i++
			continue
		}
		switch c = s[i+1]; c {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r := hex4(s[i+2:])
			i += 6
			if utf16.IsSurrogate(r) {
				low := rune(-1)
				if i+6 <= len(s) && s[i] == '\\' && s[i+1] == 'u' {
					low = hex4(s[i+2:])
				}
				if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
					i += 6
				}
			}
			dst = utf8.AppendRune(dst, r)
			continue
		default: // quote, backslash, slash
			dst = append(dst, c)
		}
		i += 2
	}
	return dst
}

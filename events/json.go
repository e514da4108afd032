package events

import (
	"encoding/binary"
	"math"
	"math/bits"
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
// A number that ends within eight bytes, which most do, is read here and not in a function: the eight bytes are looked
// at in one word (scanDigits says how). The first byte that is no digit ends the whole part, the second the number if
// the first is a point; without the point the digits are at most seven in a row, and as a float32 both they and the power
// of ten below them are exact, so that their quotient is rounded once.
func (d *Decoder) object(b []byte, i int, n *node, depth int) int {
	if depth > MaxDepth {
		return d.failed(i, failDeep)
	}
	l := &n.layout
	cur := int32(slotStart)
	for {
		at := l.slots[cur].next
		s := &l.slots[at]
		if j := i + s.len; j < len(b) && b[j] > ' ' && s.stands(b, i, j) {
			i = j
		} else {
			if cur != slotStart {
				if i = skipBlank(b, i); i >= len(b) {
					return d.failed(i, failEnd)
				}
				if b[i] == '}' {
					return i + 1
				}
				if b[i] != ',' {
					return d.failed(i, failComma)
				}
			}
			lead := i
			i = skipBlank(b, i+1)
			if cur == slotStart && i < len(b) && b[i] == '}' {
				return i + 1
			}
			if i, at = d.key(b, lead, i, n); i < 0 {
				return i
			}
			if at != slotUnknown {
				l.slots[cur].next = at
			}
			s = &l.slots[at]
		}
		cur = at
		switch {
		case s.kind == slotNumber && i+8 <= len(b):
			x := binary.LittleEndian.Uint64(b[i:])
			minus := 0
			if byte(x) == '-' {
				minus = 1
			}
			x = x>>(8*uint(minus)) ^ 0x3030303030303030
			other := (x&0x7f7f7f7f7f7f7f7f + 0x7676767676767676 | x) & 0x8080808080808080
			whole := uint(bits.TrailingZeros64(other)) &^ 7 // in bits, as all that follows
			end, point := whole, uint(0)
			digits := x
			if byte(x>>(whole&63)) == '.'^'0' {
				end = uint(bits.TrailingZeros64(other&(other-1))) &^ 7
				below := uint64(1)<<(whole&63) - 1
				digits = x&below | x>>8&^below
				point = 8
			}
			// No digit, none after the point, a zero in front of others, an exponent, or an end that lies further on.
			if whole == 0 || end == whole+point && point > 0 || byte(x) == 0 && whole > 8 || end >= 64-8*uint(minus) || byte(x>>(end&63))|0x20 == ('e'^'0')|0x20 ||
				d.state[s.field] != fieldAbsent {
				i = d.number(b, i, s, n, depth)
				break
			}
			digits = joinDigits(digits << ((64 - end + point) & 63))
			v := float32(int32(digits)) / pow10Float32[(end-whole-point)>>3&7]
			v = math.Float32frombits(math.Float32bits(v) | uint32(minus)<<31)
			d.row[s.col] = v
			d.state[s.field] = fieldValue
			d.good++
			i += minus + int(end>>3)
			continue
		case s.kind == slotNumber:
			i = d.number(b, i, s, n, depth)
		case s.kind == slotSkip:
			i = d.skip(b, i, depth)
		default:
			i = d.value(b, i, n.children[s.child].node, depth)
		}
		if i < 0 {
			return i
		}
	}
}

// key scans the key at b[i] and gives the index of its value and its slot. lead is the index of the bracket or comma
// before it.
func (d *Decoder) key(b []byte, lead, i int, n *node) (int, int32) {
	if i >= len(b) || b[i] != '"' {
		return d.failed(i, failKey), 0
	}
	start := i + 1
	end, escaped := d.scanString(b, start)
	if end < 0 {
		return end, 0
	}
	if i = skipBlank(b, end+1); i >= len(b) || b[i] != ':' {
		return d.failed(i, failColon), 0
	}
	i = skipBlank(b, i+1)
	key := b[start:end]
	if escaped {
		d.scratch = unescape(d.scratch[:0], key)
		key = d.scratch
	}
	child, ok := n.byKey[string(key)]
	if !ok {
		child = -1
	}
	return i, n.layout.learn(n, b[lead:i], child)
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

// number takes what stands at b[i] for a field that is a number.
func (d *Decoder) number(b []byte, i int, s *slot, n *node, depth int) int {
	if i >= len(b) || b[i]-'0' > 9 && b[i] != '-' {
		return d.value(b, i, n.children[s.child].node, depth)
	}
	f := s.field
	if end, v := wideNumber(b, i); end > 0 && d.state[f] == fieldAbsent {
		d.row[s.col] = v
		d.state[f] = fieldValue
		d.good++
		return end
	}
	end, mant, exp, exact := scanNumber(b, i)
	if end < 0 {
		return d.numberFailed(b, i, ^end)
	}
	if v, ok := fastFloat32(mant, exp); ok && exact && d.state[f] == fieldAbsent {
		if b[i] == '-' {
			v = -v
		}
		d.row[s.col] = v
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

package events

import (
	"encoding/binary"
	"math"
	"math/bits"
	"strconv"
	"unsafe"
)

// pow10 holds the powers of ten that are exact in float64.
var pow10 = [23]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
	1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

var pow10Float32 = [8]float32{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7}

// A decimal is mant·10^exp. exact is false where more than 19 digits were written: mant has then overflowed and
// only the literal itself says the value.
type decimal struct {
	mant  uint64
	exp   int
	neg   bool
	exact bool
}

// scanNumber scans one JSON number at b[i:]. end is the index after it; a negative end is ^position of what is wrong.
func scanNumber(b []byte, i int) (end int, mant uint64, exp int, exact bool) {
	if i < len(b) && b[i] == '-' {
		i++
	}
	start := i
	i, mant = scanDigits(b, i, 0)
	digits := i - start
	if digits == 0 {
		return ^i, 0, 0, false
	}
	if digits > 1 && b[start] == '0' {
		return ^start, 0, 0, false
	}
	if i < len(b) && b[i] == '.' {
		i++
		point := i
		i, mant = scanDigits(b, i, mant)
		if i == point {
			return ^i, 0, 0, false
		}
		exp = point - i
		digits += i - point
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		e, j := scanExponent(b, i+1)
		if j < 0 {
			return j, 0, 0, false
		}
		exp += e
		i = j
	}
	return i, mant, exp, digits <= 19
}

// scanDigits appends the digits at b[i:] to mant, modulo 2^64.
//
// Numbers differ in length from one to the next, so a loop over digits mispredicts its end nearly every time. Eight
// bytes are looked at in one word instead: a byte c is a digit if c^'0' is at most 9, the first that is not one says how
// many there are, and after a shift that puts zeros in front of them three multiplications join neighbours to pairs,
// fours and the eight.
func scanDigits(b []byte, i int, mant uint64) (int, uint64) {
	for i+8 <= len(b) {
		x := binary.LittleEndian.Uint64(b[i:]) ^ 0x3030303030303030
		other := (x&0x7f7f7f7f7f7f7f7f + 0x7676767676767676 | x) & 0x8080808080808080
		n := bits.TrailingZeros64(other) >> 3 // 8 if all are digits
		mant = mant*tens[n] + joinDigits(x<<(uint(8-n)*8))
		i += n
		if n < 8 {
			return i, mant
		}
	}
	for i < len(b) && b[i]-'0' <= 9 {
		mant = mant*10 + uint64(b[i]-'0')
		i++
	}
	return i, mant
}

// wideNumber reads the number at b[i] where it is a plain one of 9 to 15 bytes (without its sign) with its point among the
// first eight; else end is 0, and scanNumber has to say what it is. Up to 14 digits and the power of ten below them are
// exact as float64, so fastFloat32's argument holds.
func wideNumber(b []byte, i int) (end int, v float32) {
	minus := uint32(0)
	if b[i] == '-' {
		minus = 1
	}
	i += int(minus)
	if i+16 > len(b) {
		return 0, 0
	}
	x := binary.LittleEndian.Uint64(b[i:]) ^ 0x3030303030303030
	y := binary.LittleEndian.Uint64(b[i+8:]) ^ 0x3030303030303030
	otherX := (x&0x7f7f7f7f7f7f7f7f + 0x7676767676767676 | x) & 0x8080808080808080
	otherY := (y&0x7f7f7f7f7f7f7f7f + 0x7676767676767676 | y) & 0x8080808080808080
	whole := uint(bits.TrailingZeros64(otherX)) & 0x38 // in bits
	last := uint(bits.TrailingZeros64(otherY)) & 0x78
	if otherX&(otherX-1) != 0 || whole == 0 || byte(x>>whole) != '.'^'0' || byte(x) == 0 && whole > 8 ||
		last == 0 || last == 64 || byte(y>>(last&0x38))|0x20 == ('e'^'0')|0x20 {
		return 0, 0
	}
	// Without the point x has eight digits, the last from y, and y those that are left.
	below := uint64(1)<<whole - 1
	x = x&below | (x>>8|y<<56)&^below
	mant := joinDigits(x) * tens[last>>3-1]
	if last > 8 {
		mant += joinDigits(y >> 8 << ((72 - last) & 0x38))
	}
	q := float64(int64(mant)) / pow10[(56-whole+last)>>3&15]
	if math.Float64bits(q)&(1<<29-1)-(1<<28-4) <= 8 {
		return 0, 0
	}
	return i + 8 + int(last>>3), math.Float32frombits(math.Float32bits(float32(q)) | minus<<31)
}

// joinDigits makes a number of eight digits, each a byte from 0 to 9, the first one lowest.
func joinDigits(x uint64) uint64 {
	x = x * (10<<8 + 1) >> 8
	x = x & 0x00ff00ff00ff00ff * (100<<16 + 1) >> 16
	return x & 0x0000ffff0000ffff * (10000<<32 + 1) >> 32
}

var tens = [9]uint64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8}

// scanExponent reads what follows an e: [+-]?digits. It stops counting at a million, far beyond any float.
func scanExponent(b []byte, i int) (exp, end int) {
	neg := false
	if i < len(b) && (b[i] == '+' || b[i] == '-') {
		neg = b[i] == '-'
		i++
	}
	start := i
	for i < len(b) && b[i]-'0' <= 9 {
		if exp < 1_000_000 {
			exp = exp*10 + int(b[i]-'0')
		}
		i++
	}
	if i == start {
		return 0, ^i
	}
	if neg {
		exp = -exp
	}
	return exp, i
}

// fastFloat32 gives the float32 nearest to mant·10^exp where that can be proved cheaply, else ok is false.
//
// float64(mant) and one product or quotient with an exact power of ten are each rounded once, so the float64 is off
// by at most 2 of its own last places. Rounding it again to float32 can go the wrong way only if a boundary between
// two float32 (the middle, bit 28 of the 29 bits that are dropped) lies within that distance; those few go to strconv.
func fastFloat32(mant uint64, exp int) (v float32, ok bool) {
	f := float64(mant)
	switch {
	case exp == 0:
	case exp < 0:
		if exp < -22 {
			return 0, mant == 0
		}
		f /= pow10[-exp]
	default:
		if exp > 22 {
			return 0, mant == 0
		}
		f *= pow10[exp]
		if f > 3.4e38 { // near or beyond the largest float32
			return 0, false
		}
	}
	low := math.Float64bits(f) & (1<<29 - 1)
	if low-(1<<28-4) <= 8 {
		return 0, false
	}
	return float32(f), true
}

// float32Of gives the float32 nearest to the number written in lit, bit for bit what strconv.ParseFloat(lit, 32)
// gives; ±Inf beyond float32. lit must be a plain decimal number.
func float32Of(lit []byte, mant uint64, exp int, exact bool) float32 {
	if exact {
		if v, ok := fastFloat32(mant, exp); ok {
			if lit[0] == '-' {
				return -v
			}
			return v
		}
	}
	v, _ := strconv.ParseFloat(view(lit), 32) // the only possible error is out of range, and then v is ±Inf
	return float32(v)
}

// scanPlain reads b, without blanks around it, as a plain decimal number, the documented rule for numbers in text:
// [+-] digits [. digits] [e [+-] digits], with at least one digit before or after the point. No hexadecimal, no digit
// separators, no other scripts' digits, no words. json says that b is also a number as JSON spells it.
func scanPlain(b []byte) (d decimal, json, ok bool) {
	if len(b) == 0 {
		return d, false, false
	}
	i := 0
	json = true
	if b[0] == '-' || b[0] == '+' {
		d.neg = b[0] == '-'
		json = d.neg
		i++
	}
	start := i
	i, d.mant = scanDigits(b, i, 0)
	whole := i - start
	if whole == 0 || whole > 1 && b[start] == '0' {
		json = false
	}
	digits := whole
	if i < len(b) && b[i] == '.' {
		i++
		point := i
		i, d.mant = scanDigits(b, i, d.mant)
		if i == point {
			json = false
		}
		d.exp = point - i
		digits += i - point
	}
	if digits == 0 {
		return d, false, false
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		e, j := scanExponent(b, i+1)
		if j < 0 {
			return d, false, false
		}
		d.exp += e
		i = j
	}
	d.exact = digits <= 19
	return d, json, i == len(b)
}

// A textKind is what a text in a numeric field turned out to be.
type textKind uint8

const (
	textNumber   textKind = iota // a plain decimal number within float32
	textMissing                  // empty, or one of the missing-value words
	textInfinite                 // beyond float32, or a spelling of infinity
	textOther                    // anything else
)

// numericText reads the text of a numeric field.
func numericText(s []byte) (float32, textKind) {
	s = trimBlanks(s)
	if d, _, ok := scanPlain(s); ok {
		v := float32Of(s, d.mant, d.exp, d.exact)
		if math.IsInf(float64(v), 0) {
			return v, textInfinite
		}
		return v, textNumber
	}
	if isMissingWord(s) {
		return float32(math.NaN()), textMissing
	}
	if sign := infiniteWord(s); sign != 0 {
		return float32(math.Inf(sign)), textInfinite
	}
	return float32(math.NaN()), textOther
}

// isMissingWord: the spellings that mean "no value" in a numeric or time field, in any case. For a category only
// empty text is missing, since "none" or "-" may well be one of its values.
func isMissingWord(s []byte) bool {
	if len(s) > 4 {
		return false
	}
	var low [4]byte
	for i, c := range s {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		low[i] = c
	}
	switch string(low[:len(s)]) {
	case "", "null", "none", "nan", "-nan", "+nan", "na", "n/a", "#n/a", "-", "--", "?":
		return true
	}
	return false
}

// infiniteWord gives the sign of a spelling of infinity, else 0.
func infiniteWord(s []byte) int {
	sign := 1
	if len(s) > 0 && (s[0] == '-' || s[0] == '+') {
		if s[0] == '-' {
			sign = -1
		}
		s = s[1:]
	}
	if foldEqual(s, "inf") || foldEqual(s, "infinity") || string(s) == "∞" {
		return sign
	}
	return 0
}

// foldEqual compares s with a lower-case ASCII word, ignoring ASCII case.
func foldEqual(s []byte, word string) bool {
	if len(s) != len(word) {
		return false
	}
	for i, c := range s {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != word[i] {
			return false
		}
	}
	return true
}

// trimBlanks drops spaces and tabs at both ends.
func trimBlanks(s []byte) []byte {
	for len(s) > 0 && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for len(s) > 0 && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// view looks at b as a string without copying. It must not outlive the call it is made for.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// float64FromText reads a plain decimal number; ±Inf beyond float64.
func float64FromText(lit []byte) float64 {
	v, _ := strconv.ParseFloat(view(lit), 64)
	return v
}

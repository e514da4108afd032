package server

import (
	"math"
	"strconv"
)

// Years 0 to 9999: the range of RFC 3339.
const (
	minTime = -62167219200000
	maxTime = 253402300799999
)

func appendTime(b []byte, ms int64, ok bool) []byte {
	if !ok || ms < minTime || ms > maxTime {
		return append(b, "null"...)
	}
	// Era, year, month and day of the proleptic Gregorian calendar, years taken to begin in March so that the leap day is
	// the last of one. Counted from 0000-03-01 less one era of 400 years, so that nothing is negative.
	ms -= minTime
	days, rest := uint64(ms)/86_400_000, uint64(ms)%86_400_000
	days += eraDays - 60
	era, day := days/eraDays, days%eraDays
	of := (day - day/1460 + day/36524 - day/(eraDays-1)) / 365 // year of the era
	day -= 365*of + of/4 - of/100
	month := (5*day + 2) / 153
	day -= (153*month+2)/5 - 1
	year := era*400 + of - 400
	if month += 3; month > 12 {
		month -= 12
		year++
	}
	b = append(b, '"')
	b = append2(append2(b, year/100), year%100)
	b = append2(append(b, '-'), month)
	b = append2(append(b, '-'), day)
	b = append2(append(b, 'T'), rest/3_600_000)
	b = append2(append(b, ':'), rest/60_000%60)
	b = append2(append(b, ':'), rest/1000%60)
	b = append(b, '.', byte('0'+rest%1000/100))
	b = append2(b, rest%100)
	return append(b, 'Z', '"')
}

// writtenSecond is the second that was written last: records lie close together in time, and most of a time's text is its second's.
type writtenSecond struct {
	second int64 // since minTime
	text   []byte
}

// appendTime is appendTime with w's help; nil has none.
func (w *writtenSecond) appendTime(b []byte, ms int64, ok bool) []byte {
	if w == nil || !ok || ms < minTime || ms > maxTime {
		return appendTime(b, ms, ok)
	}
	second, rest := (ms-minTime)/1000, uint64(ms-minTime)%1000
	if second != w.second || len(w.text) == 0 {
		at := len(b)
		b = appendTime(b, ms, ok)
		w.second, w.text = second, append(w.text[:0], b[at:at+len(`"2006-01-02T15:04:05`)]...)
		return b
	}
	b = append(b, w.text...)
	b = append(b, '.', byte('0'+rest/100))
	b = append2(b, rest%100)
	return append(b, 'Z', '"')
}

// eraDays are the days of 400 years.
const eraDays = 146097

// append2 appends a number below 100 as two digits.
func append2(b []byte, n uint64) []byte { return append(b, byte('0'+n/10), byte('0'+n%10)) }

// appendFloat32 prints the shortest text that reads back as the same float32.
func appendFloat32(b []byte, f float32) []byte {
	d := float64(f)
	if math.IsNaN(d) || math.IsInf(d, 0) {
		return append(b, "null"...)
	}
	return strconv.AppendFloat(b, d, format(d), -1, 32)
}

func appendFloat64(b []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(b, "null"...)
	}
	return strconv.AppendFloat(b, f, format(f), -1, 64)
}

// format keeps everyday magnitudes free of exponents, which people read more easily.
func format(f float64) byte {
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		return 'e'
	}
	return 'f'
}

// appendFixed prints so many decimal places, as strconv does.
func appendFixed(b []byte, f float64, digits int) []byte {
	// From 0 to 1000, which percentiles are, with up to 7 places: scaled is off by at most 1e-6, so that its nearest whole
	// number is known unless it lies about half-way between two.
	if math.Float64bits(f) <= math.Float64bits(1000) && uint(digits) < uint(len(decimalPlaces)) {
		scaled := f * float64(decimalPlaces[digits])
		n := uint64(scaled)
		if off := scaled - float64(n); off < .4999 || off > .5001 {
			if off > .5 {
				n++
			}
			b = strconv.AppendUint(b, n/decimalPlaces[digits], 10)
			if digits == 0 {
				return b
			}
			b = append(b, '.')
			for k := digits - 1; k >= 0; k-- {
				b = append(b, byte('0'+n/decimalPlaces[k]%10))
			}
			return b
		}
	}
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(b, "null"...)
	}
	return strconv.AppendFloat(b, f, 'f', digits, 64)
}

var decimalPlaces = [...]uint64{1, 10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000}

package events

import (
	"fmt"
	"math"
	"time"
	_ "time/tzdata" // zones by name must not depend on what is installed on the host

	"github.com/lapwing-stream/lapwing/model"
)

const (
	// maxTime is the farthest time taken, in ms either side of 1970: the year 10209. It lets a far future through
	// (9999 is a common "never"), and still tells milliseconds of today given as seconds (the year 52000) for wrong.
	maxTime = 260_000_000_000_000
	// A number is suspected of another unit if under the declared one it falls into the first ten years of Unix
	// time, and under the other between 1990 and 2100.
	earlyTime = 315_360_000_000
	from1990  = 631_152_000_000
	to2100    = 4_102_444_800_000
)

// timeUnits in the order in which a guess tries them.
var timeUnits = []struct {
	unit string
	name string
	exp  int // milliseconds = number·10^exp
}{
	{"s", "seconds", 3},
	{"ms", "milliseconds", 0},
	{"us", "microseconds", -3},
	{"ns", "nanoseconds", -6},
}

// What is wrong with a record's time; the empty string means nothing.
const (
	timeAbsent   = "absent"
	timeNotATime = "not a time"
	timeNoUnit   = "a number, but the spec's time has no unit"
	timeRange    = "out of range"
)

// looksLike is what a time is said to be that makes sense only in another unit.
var looksLike = map[string]string{
	"s": "looks like seconds", "ms": "looks like milliseconds",
	"us": "looks like microseconds", "ns": "looks like nanoseconds",
}

// A timeRule reads one declared form of time. Nothing in it depends on the host's own zone.
type timeRule struct {
	unit   string
	exp    int
	layout string
	loc    *time.Location
}

func newTimeRule(t *model.Time) (*timeRule, error) {
	r := &timeRule{layout: t.Layout, unit: t.Unit, loc: time.UTC}
	if t.Unit != "" {
		known := false
		for _, u := range timeUnits {
			if u.unit == t.Unit {
				r.exp, known = u.exp, true
			}
		}
		if !known {
			return nil, fmt.Errorf("time: unit %q is not one of s, ms, us, ns", t.Unit)
		}
	}
	if t.Zone != "" {
		// "Local" would make results depend on the machine.
		loc, err := time.LoadLocation(t.Zone)
		if err != nil || t.Zone == "Local" {
			return nil, fmt.Errorf("time: zone %q is not known; use a name such as UTC or Europe/Berlin", t.Zone)
		}
		r.loc = loc
	}
	if t.Layout != "" {
		if probe := time.Date(2021, 11, 22, 13, 24, 35, 0, time.UTC).Format(t.Layout); probe == t.Layout {
			return nil, fmt.Errorf("time: layout %q names no part of a time; write the reference time 2006-01-02 15:04:05 in your form", t.Layout)
		}
	}
	return r, nil
}

// number reads mant·10^exp in the declared unit; lit is consulted only where the digits were too many.
func (r *timeRule) number(d decimal, lit []byte) (ms int64, problem string) {
	if r.unit == "" {
		return 0, timeNoUnit
	}
	if !d.exact {
		f := float64FromText(lit)
		d.neg = f < 0
		f = math.Abs(f)
		if !(f < 1e18) {
			return 0, timeRange
		}
		d.mant, d.exp = uint64(f), 0
	}
	ms, ok := scaleDown(d, r.exp)
	if !ok || ms > maxTime || ms < -maxTime {
		if u := plausibleUnit(d); u != "" {
			return 0, looksLike[u]
		}
		return 0, timeRange
	}
	if ms > -earlyTime && ms < earlyTime {
		if u := plausibleUnit(d); u != "" && u != r.unit {
			return 0, looksLike[u]
		}
	}
	return ms, ""
}

// scaleDown gives ±mant·10^(exp+shift) rounded down to a whole number, exactly.
func scaleDown(d decimal, shift int) (int64, bool) {
	m, e := d.mant, d.exp+shift
	if m == 0 {
		return 0, true
	}
	for ; e > 0; e-- {
		if m > math.MaxInt64/10 {
			return 0, false
		}
		m *= 10
	}
	rest := false
	for ; e < 0 && m > 0; e++ {
		rest = rest || m%10 != 0
		m /= 10
	}
	if m > math.MaxInt64-1 {
		return 0, false
	}
	if !d.neg {
		return int64(m), true
	}
	if rest {
		m++
	}
	return -int64(m), true
}

// plausibleUnit is the unit under which the number lies between 1990 and 2100; "" if none does.
func plausibleUnit(d decimal) string {
	for _, u := range timeUnits {
		if ms, ok := scaleDown(d, u.exp); ok && ms >= from1990 && ms < to2100 {
			return u.unit
		}
	}
	return ""
}

// text reads a time given as text: by the layout if one is declared, a plain number by the unit, else RFC 3339 (a
// blank in place of T, no seconds and no zone are let through) or RFC 1123. Day and month are never guessed.
func (r *timeRule) text(s []byte) (ms int64, problem string) {
	s = trimBlanks(s)
	if isMissingWord(s) {
		return 0, timeAbsent
	}
	if r.unit != "" || r.layout == "" {
		if d, _, ok := scanPlain(s); ok {
			return r.number(d, s)
		}
	}
	if r.layout == "" {
		if ms, ok := parseISO(s, r.loc); ok {
			return ms, ""
		}
		if len(s) < 4 || s[3] != ',' {
			return 0, timeNotATime
		}
		for _, layout := range [...]string{"Mon, 02 Jan 2006 15:04:05 GMT", "Mon, 2 Jan 2006 15:04:05 UTC", time.RFC1123Z} {
			if t, err := time.ParseInLocation(layout, view(s), time.UTC); err == nil {
				return t.UnixMilli(), ""
			}
		}
		return 0, timeNotATime
	}
	t, err := time.ParseInLocation(r.layout, view(s), r.loc)
	if err != nil {
		return 0, timeNotATime
	}
	// An abbreviation that the zone does not know gets an invented offset of zero: that would be a wrong time.
	if name, offset := t.Zone(); offset == 0 && t.Location() != r.loc && name != "UTC" && name != "GMT" && name != "" {
		return 0, timeNotATime
	}
	ms = t.UnixMilli()
	if ms > maxTime || ms < -maxTime {
		return 0, timeRange
	}
	return ms, ""
}

// parseISO reads YYYY-MM-DD, optionally followed by T or a blank, HH:MM[:SS[.fraction]] and Z or ±HH[:]MM.
// Fractions are cut to milliseconds. There is no 30 February and no second 60.
func parseISO(s []byte, loc *time.Location) (ms int64, ok bool) {
	if len(s) < 10 || s[4] != '-' || s[7] != '-' {
		return 0, false
	}
	year, ok1 := digits(s[0:4])
	month, ok2 := digits(s[5:7])
	day, ok3 := digits(s[8:10])
	if !ok1 || !ok2 || !ok3 || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) {
		return 0, false
	}
	hour, minute, second, milli := 0, 0, 0, 0
	offset, zoned := 0, false
	if s = s[10:]; len(s) > 0 {
		if s[0] != 'T' && s[0] != 't' && s[0] != ' ' || len(s) < 6 || s[3] != ':' {
			return 0, false
		}
		hour, ok1 = digits(s[1:3])
		minute, ok2 = digits(s[4:6])
		if s = s[6:]; len(s) > 0 && s[0] == ':' {
			if len(s) < 3 {
				return 0, false
			}
			second, ok3 = digits(s[1:3])
			if s = s[3:]; len(s) > 1 && s[0] == '.' && s[1]-'0' <= 9 {
				scale := 100
				for s = s[1:]; len(s) > 0 && s[0]-'0' <= 9; s = s[1:] {
					milli += int(s[0]-'0') * scale
					scale /= 10
				}
			}
		}
		if !ok1 || !ok2 || !ok3 || hour > 23 || minute > 59 || second > 59 {
			return 0, false
		}
		switch {
		case len(s) == 0:
		case len(s) == 1 && (s[0] == 'Z' || s[0] == 'z'):
			zoned = true
		case s[0] == '+' || s[0] == '-':
			zoned = true
			hh, mm := 0, 0
			switch {
			case len(s) == 6 && s[3] == ':':
				hh, ok1 = digits(s[1:3])
				mm, ok2 = digits(s[4:6])
			case len(s) == 5:
				hh, ok1 = digits(s[1:3])
				mm, ok2 = digits(s[3:5])
			case len(s) == 3:
				hh, ok1 = digits(s[1:3])
			default:
				return 0, false
			}
			if !ok1 || !ok2 || hh > 23 || mm > 59 {
				return 0, false
			}
			offset = hh*3600 + mm*60
			if s[0] == '-' {
				offset = -offset
			}
		default:
			return 0, false
		}
	}
	if !zoned && loc != time.UTC {
		return time.Date(year, time.Month(month), day, hour, minute, second, milli*1e6, loc).UnixMilli(), true
	}
	days := daysSince1970(year, month, day)
	return (days*86400+int64(hour*3600+minute*60+second-offset))*1000 + int64(milli), true
}

func digits(s []byte) (n int, ok bool) {
	for _, c := range s {
		if c -= '0'; c > 9 {
			return 0, false
		} else {
			n = n*10 + int(c)
		}
	}
	return n, true
}

func daysIn(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// daysSince1970 counts days in the proleptic Gregorian calendar. Years are taken to begin in March, so that the leap
// day is a year's last.
func daysSince1970(year, month, day int) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	y := int64(year)
	return 365*y + floorDiv(y, 4) - floorDiv(y, 100) + floorDiv(y, 400) + int64((153*(month-3)+2)/5+day-1) - 719468
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

package events

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/lapwing-stream/lapwing/model"
)

// judge decides what becomes of one column.
func (in *inference) judge(c *column) {
	name := lastKey(c.name, in.spec.Format)
	switch {
	case slices.Contains(in.o.Exclude, c.name):
		in.note(c.name, leftOut+"excluded")
		return
	case c.name == in.o.Label:
		in.note(c.name, leftOut+"the label; it judges and never trains")
		return
	case c.name == in.o.Key:
		in.note(c.name, leftOut+"the key")
		return
	case c.name == in.o.TimeField:
		in.note(c.name, leftOut+"the event time")
		return
	}
	p := profileOf(c)
	if p.present == 0 {
		in.note(c.name, leftOut+"no value in %d records", in.records)
		return
	}
	if in.namedLikeLabel(c.name, name) {
		in.note(c.name, "%snamed like a label; --label %s judges by it", p.prefix(), c.name)
		return
	}
	if idName(name) {
		in.note(c.name, "%snamed like an identifier", p.prefix())
		return
	}
	if 20*p.present < in.records {
		in.note(c.name, "%sin %d of %d records only", p.prefix(), p.present, in.records)
		return
	}
	switch {
	case p.bools+p.boolTexts == p.present:
		in.judgeBool(c, p)
	case p.numbers == 0 && p.numericTexts > 0 && 10*(p.texts-p.words) >= p.present && p.texts+p.numericTexts == p.present && distinctTexts(c) <= TopCategories:
		in.judgeText(c, p) // gears R, 1, 2: kinds, some of which are spelled as numbers
	case 2*(p.numbers+p.numericTexts) >= p.present-p.words && p.numbers+p.numericTexts > 0 && p.codes == 0:
		in.judgeNumber(c, p, name)
	case p.texts+p.numericTexts == p.present:
		in.judgeText(c, p)
	case p.texts+p.numericTexts+p.numbers+p.bools == p.present && 10*(p.texts+p.numericTexts) >= 9*p.present:
		in.judgeText(c, p)
	default:
		in.note(c.name, leftOut+"mixed types: %s", p.shares())
	}
}

// A profile counts the kinds of a column's values.
type profile struct {
	total, present                           int // observed; of those, with a value
	numbers, numericTexts, codes             int
	bools, boolTexts, texts, objects, arrays int
	words                                    int // of the texts, missing-value words such as N/A
	nulls                                    int
}

func profileOf(c *column) profile {
	var p profile
	for _, v := range c.obs {
		p.total++
		switch v.kind {
		case kindNull:
			p.nulls++
			continue
		case kindNumber:
			p.numbers++
		case kindNumericText:
			p.numericTexts++
			if v.code {
				p.codes++
			}
		case kindTrue, kindFalse:
			p.bools++
		case kindText:
			p.texts++
			if isMissingWord(trimBlanks([]byte(v.text))) {
				p.words++
			}
			if foldEqual([]byte(v.text), "true") || foldEqual([]byte(v.text), "false") {
				p.boolTexts++
			}
		case kindObject:
			p.objects++
		case kindArray:
			p.arrays++
		}
		p.present++
	}
	return p
}

// prefix begins the note of a field that is left out.
func (p profile) prefix() string {
	if 2*(p.texts+p.codes) > p.present {
		return leftOutText
	}
	return leftOut
}

// shares says how often which kind of value was seen.
func (p profile) shares() string {
	var parts []string
	add := func(n int, what string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", what, n))
		}
	}
	add(p.numbers, "numbers")
	add(p.numericTexts, "numbers in text")
	add(p.bools, "true or false")
	add(p.words, "words such as N/A")
	add(p.texts-p.words, "other text")
	add(p.objects, "objects")
	add(p.arrays, "arrays")
	add(p.nulls, "null or empty")
	return fmt.Sprintf("%s of %d", strings.Join(parts, ", "), p.total)
}

func distinctTexts(c *column) int {
	seen := map[string]bool{}
	for _, v := range c.obs {
		if v.kind != kindNull {
			seen[v.text] = true
		}
	}
	return len(seen)
}

func (in *inference) judgeBool(c *column, p profile) {
	first, same := "", true
	for _, v := range c.obs {
		if v.kind == kindNull {
			continue
		}
		t := strings.ToLower(v.text)
		if first == "" {
			first = t
		}
		same = same && t == first
	}
	if same {
		in.note(c.name, leftOut+"constant %s", first)
		return
	}
	in.spec.Fields = append(in.spec.Fields, model.Field{Name: c.name, Type: model.Boolean})
}

func (in *inference) judgeNumber(c *column, p profile, name string) {
	var values []float64
	integers, wide, width, fixed := true, false, -1, true
	for _, v := range c.obs {
		if v.kind != kindNumber && v.kind != kindNumericText || math.IsInf(v.num, 0) {
			continue
		}
		values = append(values, v.num)
		if v.num != math.Trunc(v.num) {
			integers = false
		}
		digits := len(strings.TrimLeft(strings.TrimSpace(v.text), "+-"))
		if digits >= 16 && integers && !strings.ContainsAny(v.text, ".eE") {
			wide = true
		}
		if width >= 0 && digits != width {
			fixed = false
		}
		width = digits
	}
	if len(values) == 0 {
		in.note(c.name, leftOut+"no finite number in %d records", in.records)
		return
	}
	inOrder := values
	sorted := slices.Clone(values)
	sort.Float64s(sorted)
	lo, hi := sorted[0], sorted[len(sorted)-1]
	if lo == hi {
		in.note(c.name, leftOut+"constant %s", strconv.FormatFloat(lo, 'g', -1, 64))
		return
	}
	if why := timeLike(sorted, inOrder, name); why != "" {
		in.note(c.name, leftOut+"%s; --time %s takes it as the event time", why, c.name)
		return
	}
	if integers {
		if why := counterLike(sorted, inOrder, wide, fixed && width >= 8); why != "" {
			in.note(c.name, leftOut+"%s", why)
			return
		}
	}
	f := model.Field{Name: c.name, Type: model.Number}
	if heavy, ratio := heavyTail(sorted); heavy {
		f.Log1p = true
		in.note(c.name, "log1p: the 99th percentile is %.0f times the median of the positive values", ratio)
	}
	if p.numericTexts > 0 && p.numbers > 0 || p.numbers+p.numericTexts < p.present {
		in.note(c.name, "mixed types: %s; what is no number counts as missing", p.shares())
	}
	in.spec.Fields = append(in.spec.Fields, f)
}

// timeLike says why numbers are a time: nearly all lie between 1990 and 2100 in one unit, and the name says time, or
// they hardly ever go back.
func timeLike(sorted, inOrder []float64, name string) string {
	for _, u := range timeUnits {
		scale := math.Pow(10, float64(u.exp))
		in := 0
		for _, v := range sorted {
			if ms := v * scale; ms >= from1990 && ms < to2100 {
				in++
			}
		}
		if 20*in < 19*len(sorted) {
			continue
		}
		if timeName(name) || len(inOrder) >= 20 && 100*stepsBack(inOrder) <= len(inOrder) {
			return "a timestamp in " + u.name
		}
	}
	return ""
}

// stepsBack counts how often a value is lower than the one before.
func stepsBack(values []float64) int {
	n := 0
	for i := 1; i < len(values); i++ {
		if values[i] < values[i-1] {
			n++
		}
	}
	return n
}

// counterLike says why whole numbers name things rather than measure them.
func counterLike(sorted, inOrder []float64, wide, fixed bool) string {
	n := float64(len(sorted))
	repeats := 0
	for i := 1; i < len(sorted); i++ {
		if sorted[i] == sorted[i-1] {
			repeats++
		}
	}
	// A producer that sends at least once repeats a record now and then, and the record's number with it.
	if len(sorted) < 10 || 100*repeats > len(sorted) {
		return ""
	}
	rises := len(inOrder) - 1 - stepsBack(inOrder)
	switch {
	case wide && repeats == 0:
		return "an identifier: whole numbers of 16 digits and more, none twice"
	case 100*rises >= 99*(len(inOrder)-1) && len(inOrder) >= 20:
		return fmt.Sprintf("a counter: it rises from record to record (%.0f to %.0f)", sorted[0], sorted[len(sorted)-1])
	case repeats > 0:
		return ""
	// Drawn at random from R values, n are all different with probability about exp(−n²/2R): e⁻¹⁰ at R = n²/20.
	case sorted[len(sorted)-1]-sorted[0]+1 <= max(n*n/20, n):
		return fmt.Sprintf("an identifier: %d whole numbers between %.0f and %.0f, none twice", len(sorted), sorted[0], sorted[len(sorted)-1])
	case fixed && len(sorted) >= 100:
		return "an identifier: whole numbers of one length, none twice"
	}
	return ""
}

// heavyTail: no negative values, and among at least 100 positive ones the 99th percentile is more than 100 times the
// median. A lognormal of σ = 2 just reaches that; on anything lighter a linear scale does well.
func heavyTail(sorted []float64) (bool, float64) {
	if sorted[0] < 0 {
		return false, 0
	}
	at := sort.SearchFloat64s(sorted, math.SmallestNonzeroFloat64)
	positive := sorted[at:]
	if len(positive) < 100 || 20*len(positive) < len(sorted) {
		return false, 0
	}
	ratio := positive[len(positive)*99/100] / positive[len(positive)/2]
	return ratio > 100, ratio
}

func (in *inference) judgeText(c *column, p profile) {
	counts := map[string]int{}
	n, length, uuids, dates, datish, spaced := 0, 0, 0, 0, 0, 0
	for _, v := range c.obs {
		if v.kind == kindNull || v.text == "" {
			continue
		}
		n++
		counts[v.text]++
	}
	for text, k := range counts {
		length += k * len(text)
		if uuidLike(text) {
			uuids += k
		}
		if _, ok := layoutOf(text); ok {
			dates += k
		} else if dateLike(text) {
			datish += k
		}
		if strings.Count(text, " ") >= 4 {
			spaced += k
		}
	}
	distinct := len(counts)
	switch {
	case distinct == 1:
		for text := range counts {
			in.note(c.name, leftOutText+"constant %q", text)
		}
		return
	case 10*uuids >= 9*n:
		in.note(c.name, leftOutText+"an identifier: UUIDs")
		return
	case 10*dates >= 9*n:
		in.note(c.name, leftOutText+"a timestamp; --time %s takes it as the event time", c.name)
		return
	case 10*(dates+datish) >= 9*n:
		in.note(c.name, leftOutText+"a date or time in a form of its own; as the event time it needs a layout in the spec")
		return
	case distinct == n && n >= 10:
		in.note(c.name, leftOutText+"an identifier: %d texts, none twice", n)
		return
	case length > wordyLength*n || 2*spaced > n:
		in.note(c.name, leftOutText+"free text (%d different, %d characters on average)", distinct, length/n)
		return
	case distinct >= manyNames && numbered(counts):
		in.note(c.name, leftOutText+"an identifier: %d names that differ in a number only", distinct)
		return
	case distinct > maxDistinctText || n < 2*distinct || distinct > 10 && n < 5*distinct:
		in.note(c.name, leftOutText+"%d different texts in %d records: names or free text rather than categories", distinct, n)
		return
	}
	values := make([]string, 0, distinct)
	for text := range counts {
		if text != "?" {
			values = append(values, text)
		}
	}
	sort.Slice(values, func(i, j int) bool {
		if counts[values[i]] != counts[values[j]] {
			return counts[values[i]] > counts[values[j]]
		}
		return values[i] < values[j]
	})
	if distinct > TopCategories {
		in.note(c.name, "%d different values: the %d most frequent have a column each, the rest is %s=?", distinct, TopCategories, c.name)
		values = values[:TopCategories]
	}
	sort.Strings(values)
	if p.numbers+p.bools > 0 {
		in.note(c.name, "mixed types: %s; each spelling is a category", p.shares())
	}
	in.spec.Fields = append(in.spec.Fields, model.Field{Name: c.name, Type: model.Category, Categories: values})
}

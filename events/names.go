package events

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// lastKey is the name of a field below its objects.
func lastKey(name, format string) string {
	if format == "csv" {
		return name
	}
	keys, err := SplitPath(name)
	if err != nil {
		return name
	}
	for i := len(keys) - 1; i > 0; i-- {
		if _, ok := arrayIndex(keys[i]); !ok {
			return keys[i]
		}
	}
	return keys[0]
}

// nameWords splits a name at underscores, blanks, dashes, dots and changes to upper case, in lower case.
func nameWords(name string) []string {
	var words []string
	var word []rune
	flush := func() {
		if len(word) > 0 {
			words = append(words, strings.ToLower(string(word)))
			word = word[:0]
		}
	}
	runes := []rune(name)
	for i, r := range runes {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			flush()
			continue
		}
		if unicode.IsUpper(r) && i > 0 && (unicode.IsLower(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1]) && unicode.IsUpper(runes[i-1])) {
			flush()
		}
		word = append(word, r)
	}
	flush()
	return words
}

// labelWords mark a label wherever they stand in a name; labelNames only as the whole of it.
var (
	labelWords = map[string]bool{"label": true, "labels": true, "anomaly": true, "anomalies": true, "anomalous": true,
		"outlier": true, "outliers": true, "fault": true, "faulty": true, "failure": true, "failures": true, "fraud": true,
		"changepoint": true}
	labelNames = map[string]bool{"class": true, "target": true, "y": true}
)

// namedLikeLabel: a name that says what the model is to find out. A y beside an x and a z is a coordinate.
func (in *inference) namedLikeLabel(full, name string) bool {
	words := nameWords(name)
	for _, w := range words {
		if labelWords[w] {
			return true
		}
	}
	if len(words) > 1 && (words[0] == "is" || words[0] == "true" || words[0] == "y") {
		words = words[1:]
	}
	if len(words) != 1 || !labelNames[words[0]] {
		return false
	}
	if words[0] == "y" {
		stem := full[:len(full)-len(name)]
		if strings.HasSuffix(full, name) && in.at[stem+"x"] != nil && in.at[stem+"z"] != nil {
			return false
		}
		if in.at[stem+"X"] != nil && in.at[stem+"Z"] != nil {
			return false
		}
	}
	return true
}

// idName: a name whose last word says identifier.
func idName(name string) bool {
	words := nameWords(name)
	if len(words) == 0 {
		return false
	}
	switch words[len(words)-1] {
	case "id", "ids", "uuid", "guid":
		return true
	}
	return false
}

// timeName: a name with a word for time in it.
func timeName(name string) bool {
	for _, w := range nameWords(name) {
		switch w {
		case "time", "timestamp", "ts", "date", "datetime", "epoch", "at", "when", "created", "updated":
			return true
		}
	}
	return false
}

// uuidLike: 8-4-4-4-12 hexadecimal digits.
func uuidLike(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := 0; i < len(s); i++ {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if s[i] != '-' {
				return false
			}
		} else if hexDigit(s[i]) < 0 {
			return false
		}
	}
	return true
}

// numbered: all texts are one stem and a number, as car1 to car100 are. Such names tell things apart; they are no kinds.
func numbered(texts map[string]int) bool {
	stem, first := "", true
	for s := range texts {
		t := strings.TrimRight(s, "0123456789")
		if t == "" || len(t) == len(s) || !first && t != stem {
			return false
		}
		stem, first = t, false
	}
	return true
}

// dateLike: digits in three groups with the same separator, as a date of some order has; a time may follow.
func dateLike(s string) bool {
	group, groups, sep := 0, 0, byte(0)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c-'0' <= 9:
			group++
			if group > 4 {
				return false
			}
		case (c == '.' || c == '/' || c == '-') && group > 0 && groups < 2 && (sep == 0 || sep == c):
			sep = c
			groups++
			group = 0
		case groups == 2 && group > 0 && (c == ' ' || c == 'T' || c == ','):
			return true
		default:
			return false
		}
	}
	return groups == 2 && group > 0
}

// An advised error says what to do next apart from what happened.
type advised struct{ what, next string }

func (e *advised) Error() string {
	if e.next == "" {
		return e.what
	}
	return e.what + "; " + e.next
}

// Hint says what to do next.
func (e *advised) Hint() string { return e.next }

// maxNamed names are listed where none is near.
const maxNamed = 8

// suggest proposes the known name that is most like a mistyped one, or lists the known ones; "" if there are none.
func suggest(name string, known []string) string {
	if n := nearest(name, known); n != "" {
		return "did you mean " + n + "?"
	}
	if len(known) == 0 {
		return ""
	}
	if len(known) > maxNamed {
		return fmt.Sprintf("use one of %s and %d more", strings.Join(known[:maxNamed], ", "), len(known)-maxNamed)
	}
	return "use one of " + strings.Join(known, ", ")
}

// nearest gives the known name within a third of the name's length in edits, ignoring case; "" if there is none.
func nearest(name string, known []string) string {
	best, at := 1+max(1, len(name)/3), ""
	for _, k := range known {
		if d := editDistance(strings.ToLower(name), strings.ToLower(k), best); d < best {
			best, at = d, k
		}
	}
	return at
}

// editDistance counts insertions, deletions, substitutions and swaps of neighbours; it stops early at limit.
func editDistance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	before, prev, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, prev, row = prev, row, before
	}
	return prev[len(b)]
}

// sorted sorts names in place and gives them back.
func sorted(names []string) []string {
	slices.Sort(names)
	return names
}

package events

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// lineEnds puts an expression on one line without moving its columns.
var lineEnds = strings.NewReplacer("\n", " ", "\r", " ", "\t", " ")

const (
	maxWhere      = 4096 // bytes of an expression
	maxWhereDepth = 64   // of parentheses and negations: the parser calls itself once for each
)

// A WhereError says what is wrong with an expression and at which column.
type WhereError struct {
	Text   string // the expression
	Column int    // in characters, from 1; one past the end where something is missing there
	What   string
	Next   string // what to write
}

func (e *WhereError) Error() string {
	return fmt.Sprintf("%s: column %d: %s; %s", e.Where(), e.Column, e.What, e.Next)
}

// Hint says what to do next; Where is the expression; Caret is the column of Where to point at.
func (e *WhereError) Hint() string  { return e.Next }
func (e *WhereError) Where() string { return lineEnds.Replace(e.Text) }
func (e *WhereError) Caret() int    { return e.Column }

// ParseWhere reads a condition such as
//
//	event.speed > 0 && event.model == "M3"
//
// Fields begin with event. and are paths into the record: event.engine.temp, event.sensors[0].value, and event["oil temp"] for a
// name that is no identifier. A comparison is == != < <= > >= between a field and a number, text in double or single quotes, true or false, or
// between two fields; a field alone is true where it holds true; has(event.x) where the record has a value there, not null.
// Conditions are joined by && and ||, negated by !, grouped by parentheses; && binds closer than ||.
//
// A comparison of a missing field (absent, null, and where a number is asked for also empty or NaN) is false, != too. The literal decides
// how the field is read: text that holds a number is one beside a number, and a number is its digits beside text. A value that cannot be
// read so, such as a word beside a number, is unequal to it, and neither less nor greater.
//
// The error is a *WhereError.
func ParseWhere(text string) (*Where, error) {
	p := &whereParser{text: text, where: &Where{text: text}}
	if len(text) > maxWhere {
		return nil, p.fail(0, fmt.Sprintf("the expression has %d bytes", len(text)), fmt.Sprintf("write one of at most %d", maxWhere))
	}
	if !utf8.ValidString(text) {
		return nil, p.fail(len(text)-len(strings.TrimLeftFunc(text, func(r rune) bool { return r != utf8.RuneError })), "bytes that are no UTF-8", "write the expression in UTF-8")
	}
	p.next()
	c := p.or(0)
	if p.err == nil && p.kind != tokenEnd {
		p.unexpected()
	}
	if p.err != nil {
		return nil, p.err
	}
	p.where.root = c
	return p.where, nil
}

type tokenKind uint8

const (
	tokenEnd tokenKind = iota
	tokenName
	tokenNumber
	tokenText
	tokenSign // operators and brackets
)

type whereParser struct {
	text  string
	where *Where
	err   error

	// The token at hand.
	kind   tokenKind
	at     int // its first byte
	end    int // after its last
	word   string
	number float64
}

// fail notes the first fault, at byte at.
func (p *whereParser) fail(at int, what, next string) error {
	if p.err == nil {
		p.err = &WhereError{Text: p.text, Column: utf8.RuneCountInString(p.text[:min(at, len(p.text))]) + 1, What: what, Next: next}
		p.kind = tokenEnd
	}
	return p.err
}

// signs, the longer before their beginnings.
var whereSigns = []string{"==", "!=", "<=", ">=", "&&", "||", "<", ">", "!", "(", ")", "[", "]", ".", ",", "-"}

var whereOperators = map[string]operator{"==": equal, "!=": unequal, "<": less, "<=": lessEqual, ">": greater, ">=": greaterEqual}

// next reads a token.
func (p *whereParser) next() {
	if p.err != nil {
		return
	}
	i := p.end
	for i < len(p.text) && strings.IndexByte(" \t\r\n\f", p.text[i]) >= 0 {
		i++
	}
	p.at, p.kind, p.word, p.end = i, tokenEnd, "", i
	if i == len(p.text) {
		return
	}
	rest := p.text[i:]
	switch c := rest[0]; {
	case letter(c):
		n := 1
		for n < len(rest) && (letter(rest[n]) || digit(rest[n])) {
			n++
		}
		p.kind, p.word, p.end = tokenName, rest[:n], i+n
		if n < len(rest) && (rest[n] == '"' || rest[n] == '\'') && (p.word == "r" || p.word == "R") {
			p.quoted(i+n, true)
		}
	case digit(c) || c == '.' && len(rest) > 1 && digit(rest[1]) && !p.afterName():
		p.numeral(i)
	case c == '"' || c == '\'':
		p.quoted(i, false)
	default:
		for _, s := range whereSigns {
			if strings.HasPrefix(rest, s) {
				p.kind, p.word, p.end = tokenSign, s, i+len(s)
				return
			}
		}
		r, _ := utf8.DecodeRuneInString(rest)
		next := "this language has comparisons, && || ! and parentheses"
		switch r {
		case '=':
			next = "write == to compare"
		case '&', '|':
			next = fmt.Sprintf("write %c%c to join conditions", r, r)
		case '+', '*', '/', '%', '?', ':':
			next = "compare a field with a literal; this version does not calculate"
		}
		if r >= utf8.RuneSelf {
			next = `write a name with such letters as event["` + string(r) + `…"]`
		}
		p.fail(i, fmt.Sprintf("%q has no place here", r), next)
	}
}

// afterName: the byte before is part of a name or closes an index, so that a point goes on with the path.
func (p *whereParser) afterName() bool {
	if p.at == 0 {
		return false
	}
	c := p.text[p.at-1]
	return letter(c) || digit(c) || c == ']'
}

func letter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' || c == '_' }
func digit(c byte) bool  { return c-'0' <= 9 }

func (p *whereParser) numeral(i int) {
	j := i
	for j < len(p.text) && (digit(p.text[j]) || letter(p.text[j]) || p.text[j] == '.' || (p.text[j] == '-' || p.text[j] == '+') && p.text[j-1]|0x20 == 'e') {
		j++
	}
	lit := p.text[i:j]
	d, _, ok := scanPlain([]byte(lit))
	if !ok || strings.HasSuffix(lit, ".") {
		p.fail(i, fmt.Sprintf("%q is no number", lit), "write decimal numbers such as 3, 0.5 or 1e-3")
		return
	}
	v := d.float([]byte(lit))
	if !isNumber(v) {
		p.fail(i, lit+" is beyond what a number can be", "write one below 1.7e308")
		return
	}
	p.kind, p.number, p.end = tokenNumber, v, j
}

// quoted reads the text in quotes that begin at byte i.
func (p *whereParser) quoted(i int, raw bool) {
	quote := p.text[i]
	var b strings.Builder
	for j := i + 1; j < len(p.text); {
		switch c := p.text[j]; {
		case c == quote:
			p.kind, p.word, p.end = tokenText, b.String(), j+1
			return
		case c == '\n' || c == '\r':
			p.fail(i, "text that does not end on its line", `write a line's end as \n`)
			return
		case c == '\\' && !raw:
			r, size := unescapeWhere(p.text[j:])
			if size == 0 {
				p.fail(j, `a backslash that begins no escape`, `write \\ for a backslash, or the text as r"…"`)
				return
			}
			b.WriteRune(r)
			j += size
		default:
			b.WriteByte(c)
			j++
		}
	}
	p.fail(i, fmt.Sprintf("text without a closing %c", quote), fmt.Sprintf("close it with %c", quote))
}

// unescapeWhere reads the escape at the beginning of s; size 0 where it is none.
func unescapeWhere(s string) (r rune, size int) {
	if len(s) < 2 {
		return 0, 0
	}
	if at := strings.IndexByte("abfnrtv\\\"'`?", s[1]); at >= 0 {
		return rune("\a\b\f\n\r\t\v\\\"'`?"[at]), 2
	}
	digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[s[1]]
	if digits == 0 || len(s) < 2+digits {
		return 0, 0
	}
	n, err := strconv.ParseUint(s[2:2+digits], 16, 32)
	if err != nil || !utf8.ValidRune(rune(n)) {
		return 0, 0
	}
	return rune(n), 2 + digits
}

func (p *whereParser) is(sign string) bool { return p.kind == tokenSign && p.word == sign }

// take passes over a sign that must stand here.
func (p *whereParser) take(sign string) bool {
	if p.err != nil {
		return false
	}
	if !p.is(sign) {
		p.fail(p.at, p.found()+" where "+sign+" should be", "write "+sign)
		return false
	}
	p.next()
	return p.err == nil
}

// found words the token at hand.
func (p *whereParser) found() string {
	if p.kind == tokenEnd {
		return "the end"
	}
	return strconv.Quote(p.text[p.at:p.end])
}

// unexpected: a whole condition is read and more follows.
func (p *whereParser) unexpected() {
	next := "join conditions with && or ||"
	switch strings.ToLower(p.word) {
	case "and":
		next = "write && for and"
	case "or":
		next = "write || for or"
	case "in":
		next = `write event.x == "a" || event.x == "b"; this version has no in`
	case ")":
		next = "open a parenthesis, or leave this one out"
	case "-", ".":
		next = "compare a field with a literal; this version does not calculate"
	}
	if _, ok := whereOperators[p.word]; ok && p.kind == tokenSign {
		next = "compare fields and literals, not conditions: comparisons do not chain, and ! belongs before a parenthesis: !(event.x == 1)"
	}
	p.fail(p.at, p.found()+" does not go on with the condition", next)
}

func (p *whereParser) or(depth int) condition {
	list := some{p.and(depth)}
	for p.err == nil && p.is("||") {
		p.next()
		list = append(list, p.and(depth))
	}
	if len(list) == 1 {
		return list[0]
	}
	return list
}

func (p *whereParser) and(depth int) condition {
	list := all{p.unary(depth)}
	for p.err == nil && p.is("&&") {
		p.next()
		list = append(list, p.unary(depth))
	}
	if len(list) == 1 {
		return list[0]
	}
	return list
}

// unary reads a comparison, a group, has(), a path or literal alone, or the negation of one of the last four: as in CEL, ! binds closer than ==.
func (p *whereParser) unary(depth int) condition {
	if p.err != nil {
		return nil
	}
	if depth > maxWhereDepth {
		p.fail(p.at, fmt.Sprintf("nested deeper than %d", maxWhereDepth), "write it with fewer parentheses")
		return nil
	}
	switch {
	case p.is("!"):
		p.next()
		return negated{p.closed(depth + 1)}
	case p.is("("), p.kind == tokenName && p.word == "has":
		return p.closed(depth)
	}
	return p.comparison()
}

// closed reads what may follow a !.
func (p *whereParser) closed(depth int) condition {
	switch {
	case p.err != nil:
		return nil
	case depth > maxWhereDepth:
		p.fail(p.at, fmt.Sprintf("nested deeper than %d", maxWhereDepth), "write it with fewer parentheses")
		return nil
	case p.is("!"):
		p.next()
		return negated{p.closed(depth + 1)}
	case p.is("("):
		p.next()
		c := p.or(depth + 1)
		p.take(")")
		return c
	case p.kind == tokenName && p.word == "has":
		p.next()
		if !p.take("(") {
			return nil
		}
		at := p.at
		v, ok := p.operand()
		if ok && v.path < 0 {
			p.fail(at, "has() asks for a field", "write has(event.x)")
		}
		p.take(")")
		return present(v.path)
	}
	at := p.at
	v, ok := p.operand()
	if !ok {
		return nil
	}
	return p.alone(v, at)
}

// alone is an operand without a comparison.
func (p *whereParser) alone(v operand, at int) condition {
	switch {
	case v.path >= 0:
		return isTrue(v.path)
	case v.literal.kind == kindTrue:
		return always(v.literal.truth)
	}
	p.fail(at, "a number or text is no condition", "compare it with a field, such as event.x == 1")
	return nil
}

// operand is one side of a comparison: a path, or else a literal.
type operand struct {
	path    int // -1 = literal
	literal literal
}

func (p *whereParser) comparison() condition {
	at := p.at
	left, ok := p.operand()
	if !ok {
		return nil
	}
	by, compares := whereOperators[p.word]
	if p.kind != tokenSign || !compares {
		return p.alone(left, at)
	}
	p.next()
	right, ok := p.operand()
	switch {
	case !ok:
		return nil
	case left.path < 0 && right.path < 0:
		p.fail(at, "a comparison without a field always comes out the same", "compare a field, such as event.x == 1")
		return nil
	case right.path < 0:
		return compare{left.path, by, right.literal}
	case left.path < 0:
		return compare{right.path, by.flipped(), left.literal}
	}
	return comparePaths{left.path, by, right.path}
}

func (p *whereParser) operand() (v operand, ok bool) {
	if p.err != nil {
		return v, false
	}
	v.path = -1
	minus := p.is("-")
	if minus {
		if p.next(); p.kind != tokenNumber && p.err == nil {
			p.fail(p.at, p.found()+" after a minus", "write a number there; this version does not calculate")
		}
	}
	switch {
	case p.err != nil:
		return v, false
	case p.kind == tokenNumber:
		v.literal = literal{kind: kindNumber, number: p.number}
		if minus {
			v.literal.number = -p.number
		}
	case p.kind == tokenText:
		v.literal = literal{kind: kindText, text: []byte(p.word)}
	case p.kind == tokenName && (p.word == "true" || p.word == "false"):
		v.literal = literal{kind: kindTrue, truth: p.word == "true"}
	case p.kind == tokenName && p.word == "event":
		return p.path()
	case p.kind == tokenName && p.word == "null":
		p.fail(p.at, "null cannot be compared with", "write !has(event.x) for a field that is absent or null")
		return v, false
	case p.kind == tokenName:
		p.fail(p.at, p.word+" is no field", "fields begin with event., as in event."+p.word+`; text stands in quotes, as in "`+p.word+`"`)
		return v, false
	default:
		p.fail(p.at, p.found()+" where a field or a value should be", `write a comparison such as event.x > 0, or event.model == "M3"`)
		return v, false
	}
	p.next()
	return v, p.err == nil
}

// path reads .name, ["name"] and [0] after event.
func (p *whereParser) path() (v operand, ok bool) {
	start := p.at
	var keys []string
	p.next()
	for p.err == nil {
		switch {
		case p.is("."):
			if p.next(); p.kind != tokenName {
				p.fail(p.at, p.found()+" where a field's name should be", `a name that is no plain word is written event["name"], an array's element event.x[0]`)
				break
			}
			keys = append(keys, p.word)
			if p.next(); p.is("(") {
				p.fail(p.at, keys[len(keys)-1]+" is called like a function", "this version has no function but has(event.x)")
			}
			continue
		case p.is("["):
			p.next()
			switch {
			case p.err != nil:
			case p.kind == tokenText && p.word != "":
				keys = append(keys, p.word)
			case p.kind == tokenNumber && p.number == float64(int(p.number)):
				keys = append(keys, strconv.Itoa(int(p.number)))
			default:
				p.fail(p.at, p.found()+" where a name in quotes or an element's number should be", `write event["name"] or event.x[0]`)
			}
			p.next()
			p.take("]")
			continue
		}
		break
	}
	if p.err == nil && len(keys) == 0 {
		p.fail(start, "event is the whole record", "name a field of it, such as event.x")
	}
	if p.err != nil {
		return operand{path: -1}, false
	}
	at := slices.IndexFunc(p.where.paths, func(k []string) bool { return slices.Equal(k, keys) })
	if at < 0 {
		at = len(p.where.paths)
		p.where.paths = append(p.where.paths, keys)
	}
	return operand{path: at}, true
}

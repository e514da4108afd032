package bench

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// block is one table: the subjects of a case by its metrics, or one metric of a group of cases by what they vary.
type block struct {
	suite, title string
	columns      []string
	xs           []float64 // of the columns, where they are what the cases vary
	lower        []bool    // less is better, by column
	lines        []line
}

type line struct {
	subject, role string
	rows          []*Row // by column; nil where there is none
	err           string // why there is no figure at all
}

// lead is our first line: ratios are of it.
func (b *block) lead() *line {
	for i := range b.lines {
		if b.lines[i].role == Ours && b.lines[i].err == "" {
			return &b.lines[i]
		}
	}
	return nil
}

// blocks puts the rows into tables, in the order in which they were measured.
func (r *Report) blocks() []*block {
	var blocks []*block
	find := func(suite, title string) *block {
		for _, b := range blocks {
			if b.suite == suite && b.title == title {
				return b
			}
		}
		blocks = append(blocks, &block{suite: suite, title: title})
		return blocks[len(blocks)-1]
	}
	for i := range r.Rows {
		row := &r.Rows[i]
		title, column := row.Case, column(row.Metric, row.Unit)
		if row.Group != "" {
			title, column = row.Group+": "+column+" by "+row.XName, strconv.FormatFloat(row.X, 'f', -1, 64)
		}
		b := find(row.Suite, title)
		at := slices.IndexFunc(b.lines, func(l line) bool { return l.subject == row.Subject })
		if at < 0 {
			at = len(b.lines)
			b.lines = append(b.lines, line{subject: row.Subject, role: row.Role})
		}
		l := &b.lines[at]
		if row.Error != "" && row.Group == "" {
			l.err = row.Error
			continue
		}
		to := slices.Index(b.columns, column)
		if to < 0 {
			to = len(b.columns)
			b.columns, b.lower = append(b.columns, column), append(b.lower, row.Lower)
			if row.Group != "" {
				b.xs = append(b.xs, row.X)
			}
		}
		for len(l.rows) <= to {
			l.rows = append(l.rows, nil)
		}
		l.rows[to] = row
	}
	order := map[string]int{Ours: 0, Peer: 1, Limit: 2}
	for _, b := range blocks {
		for i := range b.lines {
			l := &b.lines[i]
			for len(l.rows) < len(b.columns) {
				l.rows = append(l.rows, nil)
			}
			// An error that holds for a whole line is said once.
			if b.xs != nil && !slices.ContainsFunc(l.rows, func(r *Row) bool { return r != nil && r.Error == "" }) {
				for _, r := range l.rows {
					if r != nil {
						l.err = r.Error
					}
				}
			}
		}
		slices.SortStableFunc(b.lines, func(x, y line) int { return cmp.Compare(order[x.role], order[y.role]) })
	}
	return blocks
}

// column is a metric with its unit, where the name does not have it already.
func column(metric, unit string) string {
	if unit == "" || unit == "1/s" || unit == "×" || strings.Contains(metric, unit) {
		return metric
	}
	return metric + ", " + unit
}

// loses tells whether ours is behind the other subject.
func loses(ratio float64, lower bool) bool {
	if lower {
		return ratio > 1
	}
	return ratio < 1
}

// text is a cell: how many times the other's our figure is, then the other's figure. ▼ marks what we lose, ~ what is noisy.
func (b *block) text(l *line, c int) string {
	row := l.rows[c]
	switch {
	case row == nil:
		return ""
	case row.Error != "":
		return "failed"
	}
	s := figure(row.Value)
	if lead := b.lead(); l.role != Ours && lead != nil && lead.rows[c] != nil {
		if ratio, ok := lead.rows[c].Ratio[l.subject]; ok {
			mark := " "
			if loses(ratio, b.lower[c]) && l.role == Peer {
				mark = " ▼ "
			}
			s = times(ratio) + mark + s
		}
	}
	if row.Noisy != "" {
		s += " ~"
	}
	return s
}

func times(ratio float64) string {
	digits := 2
	if ratio >= 99.5 {
		digits = 0
	} else if ratio >= 9.95 {
		digits = 1
	}
	return strconv.FormatFloat(ratio, 'f', digits, 64) + " ×"
}

// figure prints three digits: 23.5 M, 0.71 k.
func figure(x float64) string {
	for _, p := range []struct {
		at   float64
		name string
	}{{1e12, " T"}, {1e9, " G"}, {1e6, " M"}, {1e4, " k"}} {
		if math.Abs(x) >= p.at*.9995 || p.at == 1e4 && math.Abs(x) >= 9995 {
			if p.at == 1e4 {
				return digits3(x/1e3) + p.name
			}
			return digits3(x/p.at) + p.name
		}
	}
	return digits3(x)
}

func digits3(x float64) string {
	switch a := math.Abs(x); {
	case a >= 99.95:
		return strconv.FormatFloat(x, 'f', 0, 64)
	case a >= 9.995:
		return strconv.FormatFloat(x, 'f', 1, 64)
	case a >= .1 || a == 0:
		return strconv.FormatFloat(x, 'f', 2, 64)
	}
	return strconv.FormatFloat(x, 'g', 2, 64)
}

// Style paints the table; fields that are nil leave the text as it is.
type Style struct {
	Bold, Good, Bad, Faint func(string) string
}

func plainly(paint func(string) string) func(string) string {
	if paint == nil {
		return func(s string) string { return s }
	}
	return paint
}

const legend = "Ratios say how many times the other's figure ours is; ▼ we lose; ~ noisy, see the JSON; limit: what this machine can do at best."

// Write prints the tables, what was missed as well as what was reached, and what was left out.
func (r *Report) Write(w io.Writer, style Style) error {
	bold, good, bad, faint := plainly(style.Bold), plainly(style.Good), plainly(style.Bad), plainly(style.Faint)
	var b strings.Builder
	fmt.Fprintln(&b, r.Machine)
	if len(r.Versions) > 0 {
		fmt.Fprintln(&b, "peers: "+r.versions())
	}
	if r.Small {
		fmt.Fprintln(&b, "smoke run: results were compared; figures of so short a run mean nothing")
	}
	for _, k := range r.blocks() {
		fmt.Fprintf(&b, "\n%s: %s\n", bold(k.suite), k.title)
		k.write(&b, bad)
	}
	if len(r.Rows) > 0 {
		fmt.Fprintf(&b, "\n%s\n", faint(legend))
	}
	noisy := 0
	for _, row := range r.Rows {
		if row.Noisy != "" {
			noisy++
		}
	}
	if noisy > 0 && !r.Small {
		fmt.Fprintf(&b, "%d of %d rows are noisy: close other programs, and measure again\n", noisy, len(r.Rows))
	}
	if len(r.Targets) > 0 {
		fmt.Fprintf(&b, "\n%s\n", bold("targets"))
	}
	for _, t := range r.Targets {
		mark := good("reached")
		if !t.OK {
			mark = bad("missed ")
		}
		fmt.Fprintf(&b, "  %s %s: %s, asked %s\n", mark, t.Name, t.found(), t.asked())
	}
	for _, n := range r.Notes {
		fmt.Fprintln(&b, n)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (t *Target) amount(x float64) string {
	if t.Unit == "×" {
		return times(x)
	}
	if t.Unit == "1/s" {
		return figure(x) + "/s"
	}
	return strings.TrimSpace(figure(x) + " " + t.Unit)
}

func (t *Target) asked() string {
	if t.AtMost {
		return "at most " + t.amount(t.Target)
	}
	return "at least " + t.amount(t.Target)
}

func (t *Target) found() string {
	switch {
	case t.Error != "":
		return t.Error
	case t.Noisy:
		return t.amount(t.Value) + ", noisy"
	}
	return t.amount(t.Value)
}

func (r *Report) versions() string {
	var v []string
	for name, version := range r.Versions {
		v = append(v, name+" "+version)
	}
	slices.Sort(v)
	return strings.Join(v, ", ")
}

func (b *block) write(to *strings.Builder, bad func(string) string) {
	width := make([]int, len(b.columns)+1)
	width[0] = len([]rune("lapwing"))
	cells := make([][]string, len(b.lines))
	for i := range b.lines {
		width[0] = max(width[0], len([]rune(b.lines[i].subject)))
		if b.lines[i].err != "" {
			continue
		}
		for c := range b.columns {
			t := b.text(&b.lines[i], c)
			cells[i] = append(cells[i], t)
			width[c+1] = max(width[c+1], len([]rune(t)))
		}
	}
	var head strings.Builder
	head.WriteString("  " + strings.Repeat(" ", width[0]))
	for c, name := range b.columns {
		width[c+1] = max(width[c+1], len([]rune(name)))
		head.WriteString("  " + strings.Repeat(" ", width[c+1]-len([]rune(name))) + name)
	}
	fmt.Fprintln(to, strings.TrimRight(head.String(), " "))
	for i, l := range b.lines {
		text := "  " + l.subject + strings.Repeat(" ", width[0]-len([]rune(l.subject)))
		if l.err != "" {
			fmt.Fprintln(to, text+"  "+bad(l.err))
			continue
		}
		for c, t := range cells[i] {
			pad := strings.Repeat(" ", width[c+1]-len([]rune(t)))
			if strings.Contains(t, "▼") {
				t = bad(t)
			}
			text += "  " + pad + t
		}
		fmt.Fprintln(to, strings.TrimRight(text, " "))
	}
}

// Markdown writes targets and tables for a page.
func (r *Report) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s. Peers: %s. Lapwing %s, %s, `%s`, %.0f s.\n\n%s\n", r.Machine, cmp.Or(r.versions(), "none"), cmp.Or(r.Lapwing, "devel"), r.When, cmp.Or(r.Command, "lapwing bench"), r.Seconds, legend)
	if len(r.Targets) > 0 {
		fmt.Fprintf(&b, "\n### Targets: %d of %d reached\n\n| target | asked | found | |\n| --- | ---: | ---: | --- |\n", len(r.Targets)-r.Missed(), len(r.Targets))
		for _, t := range r.Targets {
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", t.Name, t.asked(), t.found(), map[bool]string{true: "reached", false: "**missed**"}[t.OK])
		}
	}
	suite := ""
	for _, k := range r.blocks() {
		if k.suite != suite {
			suite = k.suite
			fmt.Fprintf(&b, "\n### %s\n", suite)
		}
		fmt.Fprintf(&b, "\n%s\n\n| | %s |\n| --- |%s\n", k.title, strings.Join(k.columns, " | "), strings.Repeat(" ---: |", len(k.columns)))
		for i := range k.lines {
			l := &k.lines[i]
			fmt.Fprintf(&b, "| %s |", l.subject)
			if l.err != "" {
				fmt.Fprintf(&b, " %s |%s\n", strings.ReplaceAll(strings.ReplaceAll(l.err, "\n", " "), "|", "/"), strings.Repeat(" |", len(k.columns)-1))
				continue
			}
			for c := range k.columns {
				fmt.Fprintf(&b, " %s |", k.text(l, c))
			}
			b.WriteByte('\n')
		}
	}
	for i, n := range r.Notes {
		if i == 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "- %s\n", n)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

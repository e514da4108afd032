package quality

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// digits prints a share as .873; what is undefined is a dash.
func digits(v *float64) string {
	if v == nil {
		return "-"
	}
	s := strconv.FormatFloat(*v, 'f', 3, 64)
	return strings.TrimPrefix(s, "0")
}

// ratio prints how many times b is in a.
func ratio(a, b *float64) string {
	if a == nil || b == nil || *b == 0 {
		return "-"
	}
	return strconv.FormatFloat(*a / *b, 'f', 2, 64)
}

// figureOf is one of the ranking measures.
type figureOf struct {
	name string
	get  func(*Metrics) *float64
}

var figures = []figureOf{
	{"area under the ROC curve", func(m *Metrics) *float64 { return m.AUC }},
	{"average precision", func(m *Metrics) *float64 { return m.AP }},
	{"precision at n", func(m *Metrics) *float64 { return m.PAtN }},
}

// table is text in columns, written plain or as Markdown.
type table struct {
	title string
	left  int  // columns that hold text
	each  bool // a row for each set: left out of a summary
	rows  [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// tables are all of a report, ratios first.
func (r *Report) tables() []table {
	peers := r.Subjects[1:]
	var out []table

	means := table{title: fmt.Sprintf("means over %d sets, how many times its figure Lapwing's is, and on how many sets Lapwing's AUC is ahead", len(r.Sets)), left: 1}
	means.add("subject", "AUC ×", "AP ×", "P@n ×", "AUC", "AP", "P@n", "sets", "ahead", "behind")
	ours := r.Mean[Lapwing]
	means.add(Lapwing, "", "", "", digits(ours.AUC), digits(ours.AP), digits(ours.PAtN), strconv.Itoa(ours.Sets), "", "")
	for _, name := range peers {
		m := r.Mean[name]
		wins, losses := r.against(name)
		means.add(name, ratio(ours.AUC, m.AUC), ratio(ours.AP, m.AP), ratio(ours.PAtN, m.PAtN),
			digits(m.AUC), digits(m.AP), digits(m.PAtN), strconv.Itoa(m.Sets), strconv.Itoa(wins), strconv.Itoa(losses))
	}
	out = append(out, means)

	if groups := r.collections(); len(groups) > 1 {
		t := table{title: "means by collection: AUC / AP", left: 1}
		t.add(append([]string{"collection"}, r.Subjects...)...)
		for _, c := range groups {
			var sets []Set
			for i := range r.Sets {
				if r.Sets[i].Collection == c {
					sets = append(sets, r.Sets[i])
				}
			}
			cells := []string{fmt.Sprintf("%s (%d)", c, len(sets))}
			for _, name := range r.Subjects {
				m := meanOver(sets, name)
				cells = append(cells, digits(m.AUC)+" / "+digits(m.AP))
			}
			t.add(cells...)
		}
		out = append(out, t)
	}

	about := table{title: "sets, and Lapwing at its stored threshold", left: 1, each: true}
	about.add("set", "rows", "features", "anomalies", "learned", "recall", "false alarms / 10k", "seconds")
	for i := range r.Sets {
		s := &r.Sets[i]
		m := s.Subjects[Lapwing]
		about.add(s.Name, count(s.Rows), count(s.Features), count(s.Anomalies), count(s.Trained), digits(m.Recall), tenth(m.FalseAlarms), tenth(m.Seconds))
	}
	out = append(out, about)

	for _, f := range figures {
		t := table{title: f.name, left: 1, each: true}
		head := append([]string{"set"}, r.Subjects...)
		if len(peers) > 0 {
			head = append(head, "lead")
		}
		t.add(head...)
		for i := range r.Sets {
			s := &r.Sets[i]
			cells := []string{s.Name}
			for _, name := range r.Subjects {
				m := s.Subjects[name]
				if m.Error != "" {
					cells = append(cells, "failed")
					continue
				}
				cells = append(cells, digits(f.get(&m)))
			}
			if len(peers) > 0 {
				cells = append(cells, lead(s, peers, f))
			}
			t.add(cells...)
		}
		out = append(out, t)
	}
	return append(out, r.sideTables()...)
}

// sideTables are about alarms: whether as many come as were asked for, and what they find in series.
func (r *Report) sideTables() (out []table) {
	if len(r.Series) > 0 {
		t := table{title: "series after a clean history, files pooled, row by row without point adjustment", left: 3}
		t.add("collection", "looking back", "threshold", "files", "mean AUC", "F1", "recall", "precision", "false alarm rate")
		for _, s := range r.Series {
			back := "no"
			if s.Rolling > 0 {
				back = fmt.Sprintf("%d records", s.Rolling)
			}
			t.add(s.Collection, back, s.Rule, strconv.Itoa(s.Files), digits(s.AUC), digits(s.F1), digits(s.Recall), digits(s.Precision), digits(s.FalseRate))
		}
		out = append(out, t)
	}
	if len(r.Alarms) > 0 {
		t := table{title: "alarms on normal rows, after a history of normal rows in random order", left: 1}
		t.add("asked", "history of at least", "sets", "within a factor 2", "share")
		for _, a := range r.Alarms {
			t.add(strconv.FormatFloat(100*a.Rate, 'g', 3, 64)+"%", count(a.Least)+" rows", strconv.Itoa(a.Sets), strconv.Itoa(a.Within), digits(value(float64(a.Within)/float64(a.Sets))))
		}
		out = append(out, t)
	}
	return out
}

// against counts the sets where Lapwing's AUC is above a peer's, and below it.
func (r *Report) against(peer string) (wins, losses int) {
	for i := range r.Sets {
		ours, theirs := r.Sets[i].Subjects[Lapwing].AUC, r.Sets[i].Subjects[peer].AUC
		switch {
		case ours == nil || theirs == nil:
		case *ours > *theirs:
			wins++
		case *ours < *theirs:
			losses++
		}
	}
	return wins, losses
}

// collections of the manifest, in its order.
func (r *Report) collections() (names []string) {
	for i := range r.Sets {
		if c := r.Sets[i].Collection; !slices.Contains(names, c) {
			names = append(names, c)
		}
	}
	return names
}

// best is the peer with the highest figure on a set.
func best(s *Set, peers []string, f figureOf) (name string, v *float64) {
	for _, p := range peers {
		m := s.Subjects[p]
		if w := f.get(&m); w != nil && (v == nil || *w > *v) {
			name, v = p, w
		}
	}
	return name, v
}

// lead is how far Lapwing is above the best of the peers.
func lead(s *Set, peers []string, f figureOf) string {
	m := s.Subjects[Lapwing]
	ours := f.get(&m)
	_, theirs := best(s, peers, f)
	if ours == nil || theirs == nil {
		return "-"
	}
	text := fmt.Sprintf("%+.3f", *ours-*theirs)
	return text[:1] + strings.TrimPrefix(text[1:], "0")
}

// losses are the sets where a peer ranks better than Lapwing does, the widest gap first, a line each.
func (r *Report) losses() []string {
	type gap struct {
		text string
		by   float64
	}
	var list []gap
	for i := range r.Sets {
		s := &r.Sets[i]
		ours := s.Subjects[Lapwing].AUC
		name, theirs := best(s, r.Subjects[1:], figures[0])
		if ours != nil && theirs != nil && *ours < *theirs {
			list = append(list, gap{fmt.Sprintf("%s: %s; %s has %s", s.Name, digits(ours), name, digits(theirs)), *theirs - *ours})
		}
	}
	slices.SortStableFunc(list, func(a, b gap) int {
		switch {
		case a.by > b.by:
			return -1
		case a.by < b.by:
			return 1
		}
		return 0
	})
	lines := make([]string, len(list))
	for i := range list {
		lines[i] = list[i].text
	}
	return lines
}

// failures are what has no figures, and why.
func (r *Report) failures() (lines []string) {
	seen := map[string]bool{}
	for i := range r.Sets {
		for _, name := range r.Subjects {
			why := r.Sets[i].Subjects[name].Error
			if why == "" || seen[name+why] {
				continue
			}
			seen[name+why] = true // a peer that is not installed fails on every set
			first, _, _ := strings.Cut(why, "\n")
			lines = append(lines, fmt.Sprintf("%s on %s: %s", name, r.Sets[i].Name, first))
		}
	}
	return lines
}

// warning stands below every table: the recipe was chosen on public sets.
const warning = "Lapwing's defaults were chosen on the adbench sets: expect a smaller lead, or none, on other data."

// Write prints the report for people.
func (r *Report) Write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s; threads for each subject: %d%s\n", r.Machine, r.Threads, r.madeOf())
	for _, t := range r.tables() {
		fmt.Fprintf(&b, "\n%s\n", t.title)
		t.plain(&b)
	}
	section := func(title string, lines []string) {
		if len(lines) > 0 {
			fmt.Fprintf(&b, "\n%s\n  %s\n", title, strings.Join(lines, "\n  "))
		}
	}
	if len(r.Subjects) > 1 {
		section(fmt.Sprintf("a peer ranks better on %d of %d sets (AUC)", len(r.losses()), len(r.Sets)), r.losses())
	}
	section("without figures", r.failures())
	if len(r.Unlabelled) > 0 {
		fmt.Fprintf(&b, "\nnot measured, since the manifest gives no labels: %s\n", strings.Join(r.Unlabelled, ", "))
	}
	fmt.Fprintf(&b, "\n%s\n", warning)
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) madeOf() string {
	var parts []string
	for _, name := range []string{"scikit-learn", "pyod", "torch"} {
		if v := r.Versions[name]; v != "" {
			parts = append(parts, name+" "+v)
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return "; " + strings.Join(parts, ", ")
}

// leftOut names the peers that were not asked for: their absence is no result.
func (r *Report) leftOut() string {
	var names []string
	for _, p := range Peers() {
		if !slices.Contains(r.Subjects, p) {
			names = append(names, p)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return "; not in this run: " + strings.Join(names, ", ")
}

// Markdown prints the same for a page, or with summary only what is not about a single set.
func (r *Report) Markdown(w io.Writer, summary bool) error {
	var b strings.Builder
	for _, t := range r.tables() {
		if t.each && summary {
			continue
		}
		fmt.Fprintf(&b, "**%s%s**\n\n", strings.ToUpper(t.title[:1]), t.title[1:])
		t.markdown(&b)
		b.WriteByte('\n')
	}
	if losses := r.losses(); len(losses) > 0 && !summary {
		fmt.Fprintf(&b, "**A peer ranks better on %d of %d sets** (AUC), the widest gap first:\n\n", len(losses), len(r.Sets))
		for _, l := range losses {
			fmt.Fprintf(&b, "- %s\n", l)
		}
		b.WriteByte('\n')
	}
	if failed := r.failures(); len(failed) > 0 {
		b.WriteString("**Without figures:**\n\n")
		for _, l := range failed {
			fmt.Fprintf(&b, "- %s\n", l)
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "Measured on %s; threads for each subject: %d; random splits: %d%s%s.\n", r.Machine, r.Threads, r.Splits, r.madeOf(), r.leftOut())
	_, err := io.WriteString(w, b.String())
	return err
}

func (t *table) plain(b *strings.Builder) {
	width := make([]int, len(t.rows[0]))
	for _, row := range t.rows {
		for i, c := range row {
			width[i] = max(width[i], len([]rune(c)))
		}
	}
	for _, row := range t.rows {
		line := " "
		for i, c := range row {
			pad := strings.Repeat(" ", width[i]-len([]rune(c)))
			if i < t.left {
				line += " " + c + pad
			} else {
				line += "  " + pad + c
			}
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}

func (t *table) markdown(b *strings.Builder) {
	for n, row := range t.rows {
		b.WriteString("| " + strings.Join(row, " | ") + " |\n")
		if n == 0 {
			b.WriteString("|" + strings.Repeat(" --- |", t.left) + strings.Repeat(" ---: |", len(row)-t.left) + "\n")
		}
	}
}

// count groups digits: 1,234.
func count(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func tenth(v *float64) string {
	if v == nil {
		return "-"
	}
	return strconv.FormatFloat(*v, 'f', 1, 64)
}

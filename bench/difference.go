package bench

import (
	"fmt"
	"io"
	"math"
	"strings"

	"golang.org/x/perf/benchmath"
)

// Difference is what a change did to one figure, by benchstat's method: medians, and the Mann-Whitney U test on the single
// samples, which assumes nothing about how they are spread.
type Difference struct {
	Row     Row     `json:"-"`
	A, B    float64 // medians
	Change  float64 // B/A − 1
	P       float64 // that chance alone does this; NaN where there are no samples
	Verdict string  // "better", "worse", "~" (no difference shown), or why nothing can be said
	N1, N2  int
}

// Compare holds each figure of a to the same of b.
func Compare(a, b *Report) []Difference {
	type key struct{ suite, kase, subject, metric string }
	of := func(r *Row) key { return key{r.Suite, r.Case, r.Subject, r.Metric} }
	later := map[key]*Row{}
	for i := range b.Rows {
		later[of(&b.Rows[i])] = &b.Rows[i]
	}
	var out []Difference
	for i := range a.Rows {
		row := &a.Rows[i]
		other, ok := later[of(row)]
		delete(later, of(row))
		if !ok {
			out = append(out, Difference{Row: *row, A: row.Value, P: math.NaN(), Verdict: "only in the first"})
			continue
		}
		out = append(out, difference(row, other))
	}
	for i := range b.Rows {
		if _, ok := later[of(&b.Rows[i])]; ok {
			out = append(out, Difference{Row: b.Rows[i], B: b.Rows[i].Value, P: math.NaN(), Verdict: "only in the second"})
		}
	}
	return out
}

func difference(a, b *Row) Difference {
	d := Difference{Row: *a, A: a.Value, B: b.Value, Change: b.Value/a.Value - 1, P: math.NaN(), N1: len(a.Samples), N2: len(b.Samples)}
	switch {
	case a.Error != "" && b.Error != "":
		d.Verdict = "no figure in either"
		return d
	case a.Error != "":
		d.Verdict = "no figure in the first"
		return d
	case b.Error != "":
		d.Verdict = "no figure in the second"
		return d
	}
	t := benchmath.DefaultThresholds
	test := benchmath.AssumeNothing.Compare(benchmath.NewSample(a.Samples, &t), benchmath.NewSample(b.Samples, &t))
	d.P = test.P
	switch {
	case d.N1 < 4 || d.N2 < 4: // the test cannot get below .05
		d.Verdict = "too few rounds"
	case test.P >= test.Alpha:
		d.Verdict = "~"
	case (d.B > d.A) != a.Lower:
		d.Verdict = "better"
	default:
		d.Verdict = "worse"
	}
	return d
}

// WriteComparison prints what changed, ours first asked for: all is left in, the unchanged too.
func WriteComparison(w io.Writer, a, b *Report, style Style) error {
	bold, good, bad := plainly(style.Bold), plainly(style.Good), plainly(style.Bad)
	var out strings.Builder
	if a.Machine != b.Machine {
		fmt.Fprintf(&out, "%s\nA: %s\nB: %s\n", bad("The machines differ: so may every figure."), a.Machine, b.Machine)
	} else {
		fmt.Fprintln(&out, a.Machine)
	}
	suite, kase, counts := "", "", map[string]int{}
	for _, d := range Compare(a, b) {
		if d.Row.Suite != suite || d.Row.Case != kase {
			suite, kase = d.Row.Suite, d.Row.Case
			fmt.Fprintf(&out, "\n%s: %s\n", bold(suite), kase)
		}
		counts[d.Verdict]++
		text := fmt.Sprintf("  %-20s %-14s", d.Row.Subject, column(d.Row.Metric, d.Row.Unit))
		if math.IsNaN(d.P) {
			fmt.Fprintf(&out, "%s %s\n", text, d.Verdict)
			continue
		}
		verdict := d.Verdict
		switch verdict {
		case "better":
			verdict = good(verdict)
		case "worse":
			verdict = bad(verdict)
		}
		fmt.Fprintf(&out, "%s %10s → %10s  %+6.1f %%  %s (p=%.3f n=%d+%d)\n", text, figure(d.A), figure(d.B), 100*d.Change, verdict, d.P, d.N1, d.N2)
	}
	fmt.Fprintf(&out, "\n%d better, %d worse, %d without a difference that is more than chance (Mann-Whitney U test, 0.05)\n", counts["better"], counts["worse"], counts["~"])
	if counts["too few rounds"] > 0 {
		fmt.Fprintln(&out, "the test needs at least 4 rounds in each: measure with --rounds 6 or more")
	}
	_, err := io.WriteString(w, out.String())
	return err
}

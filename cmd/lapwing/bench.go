package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lapwing-stream/lapwing/bench"
)

func (a *app) benchCommand() *cobra.Command {
	var o bench.Options
	var about strings.Builder
	for _, s := range bench.Suites() {
		fmt.Fprintf(&about, "  %-8s %s\n", s.Name, s.About)
	}
	cmd := &cobra.Command{
		Use: "bench [SUITE…]", Short: "Measure this machine: Lapwing next to a peer or a limit, in one run", GroupID: groupAbout,
		Long: `Measures Lapwing on this machine, next to a peer where there is one: both in turn in one run,
warmed, with results checked equal. Ratios travel to other machines, absolute numbers do not.
Kafka is the embedded broker, in this process, so it shares the processors with what is measured.

Suites:
` + about.String(),
		Example: `  lapwing bench
  lapwing bench decode train
  lapwing bench memory --soak 200000 --json
  lapwing bench quality --data sets --no-peers`,
		RunE: func(cmd *cobra.Command, suites []string) error {
			o.Suites = suites
			if err := o.Validate(); err != nil {
				return usage(err.Error(), "", "for example: "+firstExample(cmd))
			}
			if _, err := a.configure(cmd); err != nil {
				return err
			}
			var err error
			if o.Binary, err = os.Executable(); err != nil {
				return err
			}
			o.Log = a.stderr
			r, err := bench.Run(cmd.Context(), o)
			if r != nil && a.json {
				if e := json.NewEncoder(a.term).Encode(r); err == nil {
					err = e
				}
			} else if r != nil {
				a.writeBench(a.term, r)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Rounds, "rounds", 5, "`TIMES` that each side runs, after one that is not counted")
	f.IntVar(&o.Records, "records", 500_000, "`RECORDS` of the topics that are read and scored")
	f.DurationVar(&o.LatencyFor, "latency-for", bench.Options{}.WithDefaults().LatencyFor, "measured `TIME` of the latency suite")
	f.IntVar(&o.Soak, "soak", 1_000_000, "`RECORDS` of the memory suite")
	a.jsonFlag(f, "rows and targets as one JSON object")
	cmd.AddCommand(a.benchQualityCommand())
	return cmd
}

// writeBench prints ratios first, absolute figures second, and what was missed as well as what was reached.
func (a *app) writeBench(w io.Writer, r *bench.Report) {
	fmt.Fprintln(w, r.Machine)
	suite := ""
	for _, row := range r.Rows {
		if row.Suite != suite {
			suite = row.Suite
			fmt.Fprintf(w, "\n%s: %s\n", a.term.paint(bold, suite), row.Case)
		}
		ratios := make([]string, 0, len(row.Ratio))
		for _, peer := range slices.Sorted(maps.Keys(row.Ratio)) {
			ratios = append(ratios, fmt.Sprintf("%.2f × %s", row.Ratio[peer], peer))
		}
		fmt.Fprintf(w, "  %-18s %-12s %-34s %12s %s", row.Subject, row.Metric, strings.Join(ratios, ", "), figure(row.Value), row.Unit)
		if row.Spread[0] != row.Spread[1] {
			fmt.Fprintf(w, "  (%s to %s)", figure(row.Spread[0]), figure(row.Spread[1]))
		}
		fmt.Fprintln(w)
	}
	if len(r.Targets) > 0 {
		fmt.Fprintf(w, "\n%s\n", a.term.paint(bold, "targets"))
	}
	for _, t := range r.Targets {
		mark, than := a.term.paint(green, "reached"), "at least"
		if !t.OK {
			mark = a.term.paint(red, "missed ")
		}
		if t.AtMost {
			than = "at most"
		}
		fmt.Fprintf(w, "  %s %s: %s, asked %s %s\n", mark, t.Name, figure(t.Value), than, figure(t.Target))
	}
	for _, n := range r.Notes {
		fmt.Fprintln(w, n)
	}
}

// figure prints three digits of what is small, and whole numbers in groups of three.
func figure(x float64) string {
	if x >= 1000 {
		return count(int64(x + .5))
	}
	return strconv.FormatFloat(x, 'g', 3, 64)
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lapwing-stream/lapwing/bench"
)

func (a *app) benchCommand() *cobra.Command {
	var o bench.Options
	var jsonFile string
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
  lapwing bench memory --soak 200000 --json memory.json
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
			if r == nil {
				return err
			}
			return errors.Join(err, a.writeBench(r, jsonFile))
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Rounds, "rounds", 0, "`TIMES` that each side runs, after one that is not counted; 0: 5, or 1 with --smoke")
	f.IntVar(&o.Records, "records", 0, "`RECORDS` of the topics that are read and scored; 0: 1,000,000, or 5,000 with --smoke")
	f.DurationVar(&o.LatencyFor, "latency-for", 0, "measured `TIME` of latency; 0: 20s, or 1s with --smoke")
	f.IntVar(&o.Soak, "soak", 1_000_000, "`RECORDS` of the memory suite")
	f.DurationVar(&o.Sample, "sample", bench.Options{}.WithDefaults().Sample, "`TIME` that each side computes in process in a round")
	f.StringVar(&o.Peers, "peers", "", "`FOLDER` of the peers that were installed")
	f.BoolVar(&o.Smoke, "smoke", false, "only see whether results agree with the peers', on small counts: no figure means anything")
	f.StringVar(&jsonFile, "json", "", "write rows and targets as JSON to `FILE`; - for standard output, in place of the table")
	cmd.AddCommand(a.benchQualityCommand(), a.benchPassThroughCommand())
	return cmd
}

// writeBench prints the tables, or the JSON in their place.
func (a *app) writeBench(r *bench.Report, jsonFile string) error {
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	data = append(data, '\n')
	switch jsonFile {
	case "-":
		_, err = a.term.Write(data)
		return err
	case "":
	default:
		if err := os.WriteFile(jsonFile, data, 0o644); err != nil {
			return err
		}
	}
	return r.Write(a.term, a.benchStyle())
}

// benchStyle paints the tables where the terminal can.
func (a *app) benchStyle() bench.Style {
	with := func(style colour) func(string) string {
		return func(text string) string { return a.term.paint(style, text) }
	}
	return bench.Style{Bold: with(bold), Good: with(green), Bad: with(red), Faint: with(faint)}
}

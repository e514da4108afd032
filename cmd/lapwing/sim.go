package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/server"
)

// simulated is a report of `lapwing sim` with how long it took.
type simulated struct {
	*server.SimulationReport
	Seconds float64 `json:"seconds"`
}

func (a *app) simCommand() *cobra.Command {
	var o server.SimulationOptions
	cmd := &cobra.Command{
		Use: "sim", Short: "Try delivery, models and alerts against random faults, simulated", GroupID: groupAbout,
		Long: `Runs the code by which serve, models and train decide what is delivered, on simulated brokers,
a simulated clock and a scheduler that draws what happens next: records, model swaps, killed and
frozen scorers, rebalances, lost requests, transactions that time out. After each step it checks
what docs/delivery.md promises. Nothing is read or written outside the process.

The same seed gives the same steps: what it finds, it finds again.`,
		Example: `  lapwing sim --seed 7 --steps 1000000
  lapwing sim --seed 7 --json`,
		Args: args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Engine = cpu.New()
			if err := o.Validate(); err != nil {
				return usage(err.Error(), "", "for example: "+firstExample(cmd))
			}
			began := time.Now()
			r, err := server.Simulate(cmd.Context(), o)
			if err != nil {
				return err
			}
			took := time.Since(began).Seconds()
			if a.json {
				err = json.NewEncoder(a.term).Encode(simulated{r, took})
			} else {
				a.printSimulation(r, took)
			}
			if err == nil && r.Broken != nil {
				err = &fault{what: "a promise was broken: " + r.Broken.Promise, where: fmt.Sprintf("seed %d, step %d: %s", r.Seed, r.Broken.Step, r.Broken.What),
					next: fmt.Sprintf("see it again with: lapwing sim --seed %d --steps %d", o.Seed, max(o.Steps, r.Broken.Step)), cause: r.Broken}
			}
			return err
		},
	}
	f := cmd.Flags()
	f.Uint64Var(&o.Seed, "seed", 1, "`SEED` of everything random")
	f.Int64Var(&o.Steps, "steps", 1_000_000, "`STEPS` to run; the last round is run to its end")
	a.jsonFlag(f, "the report as one JSON object")
	return cmd
}

func (a *app) printSimulation(r *server.SimulationReport, seconds float64) {
	for _, what := range slices.Sorted(maps.Keys(r.Events)) {
		a.printf("%9d  %s\n", r.Events[what], what)
	}
	if r.Broken != nil {
		a.printf("\nbefore step %d:\n", r.Broken.Step)
		for _, line := range r.Broken.Last {
			a.printf("  %s\n", line)
		}
	}
	a.printf("\nseed %d: %d steps in %d rounds, %.0f steps/s\n", r.Seed, r.Steps, r.Rounds, float64(r.Steps)/seconds)
}

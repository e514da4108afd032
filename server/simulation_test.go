package server

import (
	"flag"
	"testing"
	"time"

	"github.com/lapwing-stream/lapwing/kernels/cpu"
)

var (
	simSeed  = flag.Uint64("sim-seed", 1, "first seed of TestSimulation")
	simSeeds = flag.Uint64("sim-seeds", 1, "seeds of TestSimulation")
	simSteps = flag.Int64("sim-steps", 50_000, "steps of TestSimulation")
)

func TestSimulation(t *testing.T) {
	for seed := *simSeed; seed < *simSeed+*simSeeds; seed++ {
		began := time.Now()
		r, err := Simulate(t.Context(), SimulationOptions{Seed: seed, Steps: *simSteps, Engine: cpu.New()})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("seed %d: %d steps, %d rounds, %.0f steps/s: %v", seed, r.Steps, r.Rounds, float64(r.Steps)/time.Since(began).Seconds(), r.Events)
		if r.Broken != nil {
			t.Errorf("broken: seed %d, step %d: %v", r.Seed, r.Broken.Step, r.Broken)
			for _, l := range r.Broken.Last {
				t.Log(l)
			}
			return
		}
	}
}

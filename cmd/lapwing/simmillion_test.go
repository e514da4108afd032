//go:build e2e

package main

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"
)

// A million steps with a seed of their own each time: what they find, `lapwing sim` with that seed finds again.
func TestSimulationOfAMillionSteps(t *testing.T) {
	t.Parallel()
	seed := fmt.Sprint(time.Now().Unix())
	out, stderr, code := runIn(t, nil, "sim", "--seed", seed, "--json")
	var r simulated
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 || r.Steps < 1_000_000 || r.Broken != nil {
		t.Fatalf("lapwing sim --seed %s: exit %d, %v\n%s%s", seed, code, err, out, stderr)
	}
	t.Logf("lapwing sim --seed %s: %d steps in %d rounds, %.1f s: %v", seed, r.Steps, r.Rounds, r.Seconds, r.Events)
	for _, what := range []string{"record scored", "model swapped", "alert raised", "scorer killed", "scorer frozen", "partitions revoked", "partitions lost", "rewind", "offsets refused", "producer fenced", "transaction timed out", "answer lost"} {
		if r.Events[what] < 10 {
			t.Errorf("%s: %d times in a million steps: the schedule does not try it", what, r.Events[what])
		}
	}
}

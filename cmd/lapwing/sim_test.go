package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// The same seed gives the same steps and the same events, as text and as JSON.
func TestSim(t *testing.T) {
	var reports []simulated
	for range 2 {
		out, stderr, code := runIn(t, nil, "sim", "--seed", "3", "--steps", "5000", "--json")
		var r simulated
		if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 {
			t.Fatalf("exit %d, %v\n%s%s", code, err, out, stderr)
		}
		reports = append(reports, r)
	}
	a, b := reports[0], reports[1]
	if a.Steps != b.Steps || a.Seed != 3 || a.Steps < 5000 || a.Rounds != b.Rounds || len(a.Events) != len(b.Events) {
		t.Errorf("%+v, then %+v", a.SimulationReport, b.SimulationReport)
	}
	for what, n := range a.Events {
		if b.Events[what] != n {
			t.Errorf("%s: %d times, then %d", what, n, b.Events[what])
		}
	}
	out, _, code := runIn(t, nil, "sim", "--seed", "3", "--steps", "5000")
	if code != 0 || !strings.Contains(out, "record scored\n") || !strings.Contains(out, "\nseed 3: ") {
		t.Errorf("exit %d\n%s", code, out)
	}
	if _, stderr, code := runIn(t, nil, "sim", "--steps", "-1"); code != exitUsage || !strings.Contains(stderr, "steps -1 must not be negative") {
		t.Errorf("exit %d\n%s", code, stderr)
	}
}

package bench

import (
	"encoding/json"
	"os"
	"testing"
	"time"
)

// A small run of everything that needs no process of its own: results must agree with the peers', whatever the speed.
func TestSmoke(t *testing.T) {
	r, err := Run(t.Context(), Options{Suites: []string{"decode", "train", "history", "stream", "latency"}, Rounds: 1, Records: 5_000, LatencyFor: time.Second, Sample: 5 * time.Millisecond, Log: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) < 10 || len(r.Targets) != 5 {
		t.Errorf("%d rows, %d targets", len(r.Rows), len(r.Targets))
	}
	for _, row := range r.Rows {
		if !(row.Value > 0) {
			t.Errorf("%+v", row)
		}
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
}

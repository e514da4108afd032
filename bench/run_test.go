package bench

import (
	"encoding/json"
	"os"
	"testing"
	"time"
)

// A small run of what needs no process of its own: results must agree with the peers', whatever the speed. Kafka is the
// embedded broker, and peers that are not installed are rows that say so.
func TestSmoke(t *testing.T) {
	r, err := Run(t.Context(), Options{Suites: []string{"limit", "decode", "train", "history"}, Rounds: 1, Records: 5_000, LatencyFor: time.Second, Sample: 5 * time.Millisecond, Log: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) < 9 || len(r.Targets) != 8 {
		t.Errorf("%d rows, %d targets", len(r.Rows), len(r.Targets))
	}
	for _, row := range r.Rows {
		if row.Error != "" && row.Role == Ours || row.Error == "" && !(row.Value > 0) {
			t.Errorf("%+v", row)
		}
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
}

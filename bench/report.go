package bench

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
)

// Roles of a row's subject.
const (
	Ours  = "lapwing"
	Peer  = "peer"
	Limit = "limit" // what this machine can do at best
)

// Row is one measured figure, or why there is none.
type Row struct {
	Suite   string `json:"suite"`
	Case    string `json:"case"`
	Subject string `json:"subject"`
	Role    string `json:"role"` // of the subject: Ours, Peer or Limit
	Metric  string `json:"metric"`
	Unit    string `json:"unit"`
	Lower   bool   `json:"lower_is_better,omitempty"`

	Value   float64            `json:"value"`              // median; null where Error says why there is none
	Spread  [2]float64         `json:"spread"`             // least and most
	Samples []float64          `json:"samples,omitempty"`  // of the single rounds, for bench compare
	Ratio   map[string]float64 `json:"ratio_to,omitempty"` // value / the other subject's, median of the ratios round by round
	Error   string             `json:"error,omitempty"`    // the subject is missing, or failed
	Noisy   string             `json:"noisy,omitempty"`    // why the figure should not be trusted
	Others  *float64           `json:"others_cpu,omitempty"`

	// A figure that depends on a number, such as the batch: Group is the case without it. Plots are drawn over X.
	Group string  `json:"group,omitempty"`
	X     float64 `json:"x,omitempty"`
	XName string  `json:"x_name,omitempty"`
}

// MarshalJSON writes null for the figures of a row that has none: 0 would be one.
func (r Row) MarshalJSON() ([]byte, error) {
	type plain Row
	if r.Error == "" {
		return json.Marshal(plain(r))
	}
	return json.Marshal(struct {
		plain
		Value  *float64    `json:"value"`
		Spread *[2]float64 `json:"spread"`
	}{plain: plain(r)})
}

// Target is a figure that the project set itself.
type Target struct {
	Name   string  `json:"name"`
	Target float64 `json:"target"`
	Value  float64 `json:"value"` // null where Error says why there is none
	Unit   string  `json:"unit"`  // "×" for a ratio
	AtMost bool    `json:"at_most,omitempty"`
	OK     bool    `json:"ok"`
	Error  string  `json:"error,omitempty"`
	Noisy  bool    `json:"noisy,omitempty"` // a row that it is made of is marked
}

// MarshalJSON is as Row's.
func (t Target) MarshalJSON() ([]byte, error) {
	type plain Target
	if t.Error == "" {
		return json.Marshal(plain(t))
	}
	return json.Marshal(struct {
		plain
		Value *float64 `json:"value"`
	}{plain: plain(t)})
}

// Report is what a run found.
type Report struct {
	Machine  string            `json:"machine"`
	Versions map[string]string `json:"versions,omitempty"` // of the peers
	Lapwing  string            `json:"lapwing,omitempty"`  // version that was measured
	When     string            `json:"when"`               // RFC 3339
	Seconds  float64           `json:"seconds"`            // that the run took
	Command  string            `json:"command,omitempty"`
	Small    bool              `json:"smoke,omitempty"` // only whether results agree: figures mean nothing
	Rows     []Row             `json:"rows"`
	Targets  []Target          `json:"targets"`
	Notes    []string          `json:"notes,omitempty"` // what was left out, and why
}

// ReadReport reads what Run's report was written as.
func ReadReport(data []byte) (*Report, error) {
	var r Report
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("no report of lapwing bench --json: %w", err)
	}
	if r.Rows == nil {
		return nil, fmt.Errorf("no report of lapwing bench --json: it has no rows")
	}
	return &r, nil
}

// Missed counts the targets that were not reached, those without a figure among them.
func (r *Report) Missed() (n int) {
	for _, t := range r.Targets {
		if !t.OK {
			n++
		}
	}
	return n
}

// target holds a figure against what was asked.
func (r *run) target(name string, target, value float64, unit string, atMost bool) *Target {
	t := Target{Name: name, Target: target, Value: value, Unit: unit, AtMost: atMost, OK: value >= target}
	if atMost {
		t.OK = value <= target
	}
	if math.IsNaN(value) || math.IsInf(value, 0) {
		t.Value, t.OK, t.Error = 0, false, "not measured"
	}
	r.Targets = append(r.Targets, t)
	return &r.Targets[len(r.Targets)-1]
}

// targetRatio holds what ours is times peer's against what was asked. A peer without a figure is a target that says so.
func (r *run) targetRatio(name string, target float64, m *measured, ours, peer, metric string, atMost bool) {
	a, b := m.row(ours, metric), m.row(peer, metric)
	t := r.target(name, target, m.ratio(ours, peer, metric), "×", atMost)
	t.Noisy = a.Noisy != "" || b.Noisy != ""
	switch {
	case t.Error == "":
	case a.Error != "":
		t.Error = ours + ": " + a.Error
	case b.Error != "":
		t.Error = peer + ": " + b.Error
	}
}

func (r *run) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	v = slices.Clone(v)
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

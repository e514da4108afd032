package quality

import (
	"cmp"
	"math"
	"slices"
)

// Metrics is how one subject ranks the rows that it was not fitted on. What is not defined is null and never 0: a
// ranking without rows of both classes, a recall without anomalies.
type Metrics struct {
	AUC         *float64 `json:"auc"`                  // area under the ROC curve, ties half
	AP          *float64 `json:"ap"`                   // average precision: rows with equal scores are one step
	PAtN        *float64 `json:"p_at_n"`               // share of anomalies among the n highest, n = number of anomalies
	Recall      *float64 `json:"recall"`               // share of the anomalies above the threshold
	FalseAlarms *float64 `json:"false_alarms_per_10k"` // normal rows above the threshold, of 10,000 normal rows
	Seconds     *float64 `json:"seconds"`              // to learn the history and score the other rows
	Error       string   `json:"error,omitempty"`      // why there is nothing; the figures are null then
}

// value is a result that is defined.
func value(v float64) *float64 { return &v }

// measure judges scores, the higher the more anomalous. NaN is an anomaly by definition, as serve has it. A row
// alarms strictly above the threshold.
func measure(scores []float64, anomalous []bool, threshold float64) Metrics {
	type judged struct {
		score float64
		bad   bool
	}
	rows := make([]judged, len(scores))
	var positives, negatives float64
	for i, s := range scores {
		if math.IsNaN(s) {
			s = math.Inf(1)
		}
		rows[i] = judged{s, anomalous[i]}
		if anomalous[i] {
			positives++
		} else {
			negatives++
		}
	}
	slices.SortFunc(rows, func(a, b judged) int { return cmp.Compare(b.score, a.score) })
	var found, seen, area, precision, among, hits, alarms float64
	for from := 0; from < len(rows); {
		to, bad := from, 0.
		for ; to < len(rows) && rows[to].score == rows[from].score; to++ {
			if rows[to].bad {
				bad++
			}
		}
		size := float64(to - from)
		if rows[from].score > threshold {
			hits += bad
			alarms += size - bad
		}
		area += (size - bad) * (found + bad/2)
		// Of equal scores at the end of the first n, the share that a random order would put there.
		among += bad * min(max((positives-seen)/size, 0), 1)
		found += bad
		seen += size
		precision += bad * found / seen
		from = to
	}
	var m Metrics
	if positives > 0 && negatives > 0 {
		m.AUC = value(area / (positives * negatives))
		m.AP = value(precision / positives)
		m.PAtN = value(among / positives)
	}
	if positives > 0 {
		m.Recall = value(hits / positives)
	}
	if negatives > 0 {
		m.FalseAlarms = value(1e4 * alarms / negatives)
	}
	return m
}

// rateUsed is the share of the history that may score above the threshold: with fewer than 10/rate rows 10/n, at
// most 1 %. It is the trainer's own rule, so that a peer's threshold means what Lapwing's does.
func rateUsed(n int, asked float64) float64 {
	if asked == 0 || float64(n)*asked >= 10 {
		return asked
	}
	return min(10/float64(n), .01)
}

// quantileThreshold is the score that at most a share of the history's scores exceed.
func quantileThreshold(history []float64, asked float64) float64 {
	sorted := slices.Clone(history)
	for i, s := range sorted {
		if math.IsNaN(s) {
			sorted[i] = math.Inf(1)
		}
	}
	slices.SortFunc(sorted, func(a, b float64) int { return cmp.Compare(b, a) })
	return sorted[min(int(rateUsed(len(sorted), asked)*float64(len(sorted))), len(sorted)-1)]
}

// meanOf averages what the splits of a set gave, each figure over the splits where it is defined.
func meanOf(list []Metrics) Metrics {
	mean := func(get func(*Metrics) *float64) *float64 {
		var sum, n float64
		for i := range list {
			if v := get(&list[i]); v != nil {
				sum += *v
				n++
			}
		}
		if n == 0 {
			return nil
		}
		return value(sum / n)
	}
	m := Metrics{
		AUC:         mean(func(m *Metrics) *float64 { return m.AUC }),
		AP:          mean(func(m *Metrics) *float64 { return m.AP }),
		PAtN:        mean(func(m *Metrics) *float64 { return m.PAtN }),
		Recall:      mean(func(m *Metrics) *float64 { return m.Recall }),
		FalseAlarms: mean(func(m *Metrics) *float64 { return m.FalseAlarms }),
		Seconds:     mean(func(m *Metrics) *float64 { return m.Seconds }),
	}
	// A split that failed makes the mean one over other rows than the others': no mean, but the reason.
	for i := range list {
		if list[i].Error != "" {
			return Metrics{Error: list[i].Error}
		}
	}
	return m
}

package trainer

import (
	"cmp"
	"math"
	"slices"

	"github.com/lapwing-stream/lapwing/model"
)

// Judgement is how the scores rank rows whose truth is known. It leads with what rare anomalies allow to say:
// average precision and recall beside the base rate, never accuracy.
type Judgement struct {
	Labelled         int64   `json:"labelled"`  // rows with a readable label
	Positives        int64   `json:"positives"` // of those, anomalous
	BaseRate         float64 `json:"base_rate"`
	Defined          bool    `json:"defined"` // both classes are there: without that, ranking measures mean nothing
	AveragePrecision float64 `json:"average_precision,omitempty"`
	AUC              float64 `json:"auc,omitempty"` // area under the ROC curve
	Recall           float64 `json:"recall"`        // share of the anomalous above the threshold, where there are any
	Precision        float64 `json:"precision"`     // share of those above the threshold that are anomalous
	// RecallAt[k] is the recall when the highest 0.1 %, 1 %, 5 % of labelled rows are looked at.
	RecallAt [3]float64 `json:"recall_at"`
}

// Budgets are the shares of rows for Judgement.RecallAt.
var Budgets = [3]float64{.001, .01, .05}

// labelled are the rows with a readable label.
func labelled(h *history, scores []float32) []model.Labelled {
	var rows []model.Labelled
	for g, s := range scores {
		l := h.label(g)
		if l == unlabelled {
			continue
		}
		v := float64(s)
		if math.IsNaN(v) {
			v = math.Inf(1)
		}
		rows = append(rows, model.Labelled{Score: v, Anomalous: l == anomalous})
	}
	return rows
}

// Judge says how the scores of labelled rows rank them, and what the threshold makes of them.
func Judge(rows []model.Labelled, threshold float64) *Judgement {
	j := &Judgement{Labelled: int64(len(rows))}
	for _, r := range rows {
		if r.Anomalous {
			j.Positives++
		}
	}
	if j.Labelled == 0 {
		return j
	}
	j.BaseRate = float64(j.Positives) / float64(j.Labelled)
	j.Defined = j.Positives > 0 && j.Positives < j.Labelled
	rows = slices.Clone(rows)
	slices.SortFunc(rows, func(a, b model.Labelled) int { return cmp.Compare(b.Score, a.Score) })
	positives, negatives := float64(j.Positives), float64(j.Labelled-j.Positives)
	var found, seen, area, precision, flagged, hits float64
	for from := 0; from < len(rows); {
		// Equal scores are one step of the curve, in whatever order they lie.
		to, bad := from, 0.
		for ; to < len(rows) && rows[to].Score == rows[from].Score; to++ {
			if rows[to].Anomalous {
				bad++
			}
		}
		size := float64(to - from)
		if rows[from].Score > threshold {
			flagged += size
			hits += bad
		}
		area += (size - bad) * (found + bad/2)
		for i, b := range Budgets {
			budget := b * float64(len(rows))
			j.RecallAt[i] += bad * min(max((budget-seen)/size, 0), 1)
		}
		found += bad
		seen += size
		precision += bad * found / seen
		from = to
	}
	if positives > 0 {
		j.Recall = hits / positives
		for i := range j.RecallAt {
			j.RecallAt[i] /= positives
		}
	}
	if flagged > 0 {
		j.Precision = hits / flagged
	}
	if j.Defined {
		j.AveragePrecision = precision / positives
		j.AUC = area / (positives * negatives)
	}
	return j
}

func (j *Judgement) metrics(to map[string]float64) {
	to["labelled"] = float64(j.Labelled)
	to["base_rate"] = j.BaseRate
	if j.Defined {
		to["average_precision"] = j.AveragePrecision
		to["auc"] = j.AUC
		to["recall"] = j.Recall
		to["precision"] = j.Precision
	}
}

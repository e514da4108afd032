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

// byLabel are the scores of the rows with a readable label, the highest first: of anomalous ones and of the others. That is 4 bytes
// a row, as a long history wants it.
func byLabel(h *history, scores []float32) (positives, negatives []float32) {
	var counts [2]int
	for g := range scores {
		if l := h.label(g); l != unlabelled {
			counts[l]++
		}
	}
	positives, negatives = make([]float32, 0, counts[anomalous]), make([]float32, 0, counts[normal])
	for g, s := range scores {
		if s != s {
			s = float32(math.Inf(1))
		}
		switch h.label(g) {
		case anomalous:
			positives = append(positives, s)
		case normal:
			negatives = append(negatives, s)
		}
	}
	descend(positives)
	descend(negatives)
	return positives, negatives
}

func descend[F float32 | float64](scores []F) {
	slices.SortFunc(scores, func(a, b F) int { return cmp.Compare(b, a) })
}

// Judge says how the scores of labelled rows rank them, and what the threshold makes of them. NaN counts as the highest.
func Judge(rows []model.Labelled, threshold float64) *Judgement {
	var positives, negatives []float64
	for _, r := range rows {
		s := r.Score
		if s != s {
			s = math.Inf(1)
		}
		if r.Anomalous {
			positives = append(positives, s)
		} else {
			negatives = append(negatives, s)
		}
	}
	descend(positives)
	descend(negatives)
	return judge(positives, negatives, threshold)
}

// judge is Judge of the scores of the anomalous rows and of the others, each the highest first and none NaN.
func judge[F float32 | float64](bad, good []F, threshold float64) *Judgement {
	n := len(bad) + len(good)
	j := &Judgement{Labelled: int64(n), Positives: int64(len(bad))}
	if n == 0 {
		return j
	}
	positives, negatives := float64(len(bad)), float64(len(good))
	j.BaseRate = positives / float64(n)
	j.Defined = len(bad) > 0 && len(good) > 0
	var found, seen, area, precision, flagged, hits float64
	for b, g := 0, 0; b+g < n; {
		// Equal scores are one step of the curve, in whatever order they lie.
		var score F
		if g == len(good) || b < len(bad) && bad[b] > good[g] {
			score = bad[b]
		} else {
			score = good[g]
		}
		fromB, fromG := b, g
		for b < len(bad) && bad[b] == score {
			b++
		}
		for g < len(good) && good[g] == score {
			g++
		}
		hit, size := float64(b-fromB), float64(b-fromB+g-fromG)
		if float64(score) > threshold {
			flagged += size
			hits += hit
		}
		area += (size - hit) * (found + hit/2)
		for i, share := range Budgets {
			budget := share * float64(n)
			j.RecallAt[i] += hit * min(max((budget-seen)/size, 0), 1)
		}
		found += hit
		seen += size
		precision += hit * found / seen
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

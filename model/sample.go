package model

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Labelled is one scored row whose truth is known.
type Labelled struct {
	Score     float64 // +Inf where it is not finite: an anomaly by definition
	Anomalous bool
}

// Sample is what a labelled sample says of a threshold.
type Sample struct {
	Rows      int64   `json:"rows"`
	Anomalies int64   `json:"anomalies"`
	Recall    float64 `json:"recall"`     // share of the anomalies above the threshold
	RecallLow float64 `json:"recall_low"` // the true recall is at least this, with Confidence,
	RecallTop float64 `json:"recall_high"`
	Precision float64 `json:"precision"` // share of the rows above the threshold that are anomalies; 0 where none is
	Above     int64   `json:"above"`     // rows above the threshold
}

// F1 is the harmonic mean of recall and precision.
func (s *Sample) F1() float64 {
	if s.Recall+s.Precision == 0 {
		return 0
	}
	return 2 * s.Recall * s.Precision / (s.Recall + s.Precision)
}

// Goals of a choice by label.
const (
	GoalF1        = "f1"        // the highest F1; of several the highest threshold
	GoalRecall    = "recall"    // the highest threshold with at least this recall
	GoalPrecision = "precision" // the lowest threshold with at least this precision
)

// Goal is what a threshold shall reach on a labelled sample.
type Goal struct {
	Name  string
	Least float64 // share, with recall and precision
}

// ParseGoal reads f1, recall=90% or precision=0.5; empty is f1.
func ParseGoal(text string) (Goal, error) {
	name, value, given := strings.Cut(strings.TrimSpace(text), "=")
	switch {
	case name == "" && !given, name == GoalF1 && !given:
		return Goal{Name: GoalF1}, nil
	case (name == GoalRecall || name == GoalPrecision) && given:
		number, percent := strings.CutSuffix(strings.TrimSpace(value), "%")
		v, err := strconv.ParseFloat(number, 64)
		if percent {
			v /= 100
		}
		if err == nil && v > 0 && v <= 1 {
			return Goal{name, v}, nil
		}
	}
	return Goal{}, fmt.Errorf("goal %q is not known; use f1, recall=90%% or precision=50%%", text)
}

// String is the goal as ParseGoal reads it.
func (g Goal) String() string {
	if g.Name == GoalF1 {
		return g.Name
	}
	return g.Name + "=" + strconv.FormatFloat(Digits(100*g.Least, 10), 'g', -1, 64) + "%"
}

// ErrOneClass: a sample says nothing of a threshold unless it holds both anomalies and normal rows.
var ErrOneClass = errors.New("the labels are all of one kind")

// ByLabels chooses the threshold that reaches the goal on a labelled sample. It lies in the middle between the lowest score
// that it lets alarm and the highest that it does not. The error says why there is none: ErrOneClass, or how far the
// sample can be got.
func ByLabels(rows []Labelled, g Goal) (float64, error) {
	sorted := slices.Clone(rows)
	slices.SortFunc(sorted, func(a, b Labelled) int { return cmp.Compare(b.Score, a.Score) })
	anomalies := 0
	for _, r := range sorted {
		if r.Anomalous {
			anomalies++
		}
	}
	if anomalies == 0 || anomalies == len(sorted) {
		return 0, fmt.Errorf("%w: %d labelled rows, %d of them anomalous", ErrOneClass, len(sorted), anomalies)
	}
	// A cut after every run of equal scores: what stands before it alarms.
	best, value := -1, math.Inf(-1)
	found, most := 0, 0.
	for at := 0; at < len(sorted); {
		for to := at; at < len(sorted) && sorted[at].Score == sorted[to].Score; at++ {
			if sorted[at].Anomalous {
				found++
			}
		}
		recall, precision := float64(found)/float64(anomalies), float64(found)/float64(at)
		most = max(most, precision)
		switch g.Name {
		case GoalF1:
			// F1 = 2·found / (rows that alarm + anomalies)
			if f := 2 * float64(found) / float64(at+anomalies); f > value {
				best, value = at, f
			}
		case GoalRecall:
			if best < 0 && recall >= g.Least {
				best = at
			}
		case GoalPrecision:
			if precision >= g.Least {
				best = at
			}
		default:
			return 0, fmt.Errorf("goal %q is not known", g.Name)
		}
	}
	switch {
	case best < 0:
		return 0, fmt.Errorf("no threshold reaches a precision of %.3g on the sample; the highest is %.3g", g.Least, most)
	case math.IsInf(sorted[best-1].Score, 1):
		return 0, errors.New("only scores that are not finite would alarm, and they do so at any threshold")
	case best == len(sorted):
		low := sorted[best-1].Score
		return low - margin(low, 0), nil
	}
	return sorted[best].Score/2 + sorted[best-1].Score/2, nil
}

// JudgeSample says what a threshold does on a labelled sample.
func JudgeSample(rows []Labelled, threshold float64) *Sample {
	s := &Sample{Rows: int64(len(rows))}
	var hits int64
	for _, r := range rows {
		above := !(r.Score <= threshold)
		if above {
			s.Above++
		}
		if r.Anomalous {
			s.Anomalies++
			if above {
				hits++
			}
		}
	}
	if s.Anomalies > 0 {
		s.Recall = float64(hits) / float64(s.Anomalies)
	}
	s.RecallLow, s.RecallTop = RateInterval(hits, s.Anomalies)
	if s.Above > 0 {
		s.Precision = float64(hits) / float64(s.Above)
	}
	return s
}

package model

import (
	"fmt"
	"math"
	"sort"
)

// How a threshold was chosen.
const (
	ByQuantile = "quantile"       // asked: share of the history that may lie above
	ByAlarms   = "alarms_per_day" // asked: alarms a day, made a share by the topic's records a day
	ByTail     = "pot"            // asked: share of records above, by a fit of the tail (peaks over threshold)
	ByLabel    = "label"          // asked: the goal on a labelled sample
	ByScore    = "score"          // asked: the threshold itself
	ByFactor   = "factor"         // asked: times the highest score of the history
)

// ThresholdChoice says how a model's threshold was chosen and how sure its rate is.
type ThresholdChoice struct {
	Method string  `json:"method"`
	Asked  float64 `json:"asked"`            // in the method's own unit; with a label the recall or precision asked, 0 for F1
	Goal   string  `json:"goal,omitempty"`   // with a label: f1, recall or precision
	Used   float64 `json:"used"`             // share of records that it is meant to let through
	Above  float64 `json:"above"`            // share of the history above it
	Low    float64 `json:"low"`              // the true share of records above it is at least this,
	High   float64 `json:"high"`             // and at most this, with Confidence, if what comes is like the history
	Rows   int64   `json:"rows"`             // of the history
	Few    bool    `json:"few,omitempty"`    // too few rows for what was asked: Used is another rate
	Tail   *Tail   `json:"tail,omitempty"`   // with pot
	Sample *Sample `json:"sample,omitempty"` // with a label
}

// Span is when the history's records were made, in event time.
type Span struct {
	From          int64   `json:"from"` // ms since 1970; stray times left out
	To            int64   `json:"to"`
	RecordsPerDay float64 `json:"records_per_day"` // of those that a scorer would score; 0 = not known
}

// RecordsPerDay is the topic's rate in event time as the history had it; 0 = not known.
func (m *Model) RecordsPerDay() float64 {
	if m.Lineage.Span == nil {
		return 0
	}
	return m.Lineage.Span.RecordsPerDay
}

// Median is the history's median score.
func (m *Model) Median() float64 { return m.ScoreAbove(0.5) }

// Highest is the history's highest score that is finite.
func (m *Model) Highest() float64 { return m.Quantiles[len(m.Quantiles)-1].Score }

// ScoreAbove is the score that the given share of the history lies above, by the model's quantiles: exact at their
// levels, and between two of them, which are at most 9 % of the share apart below 1/128, on a line over the share's
// logarithm, as tails of scores fall about exponentially.
func (m *Model) ScoreAbove(share float64) float64 {
	q := m.Quantiles
	i := sort.Search(len(q), func(i int) bool { return 1-q[i].P <= share })
	switch {
	case i == 0:
		return q[0].Score
	case i == len(q):
		return q[i-1].Score
	case 1-q[i].P == share:
		return q[i].Score
	}
	a, b := q[i-1], q[i]
	if t := between(1-a.P, 1-b.P, share, m.Lineage.Rows.Used); t > 0 {
		return a.Score + t*(b.Score-a.Score)
	}
	return a.Score
}

// ShareAbove is the share of the history that lies above a score: ScoreAbove turned round.
func (m *Model) ShareAbove(score float64) float64 {
	q := m.Quantiles
	i := sort.Search(len(q), func(i int) bool { return q[i].Score > score })
	switch {
	case i == 0:
		return 1
	case i == len(q):
		return 0
	}
	a, b := q[i-1], q[i]
	t := (score/2 - a.Score/2) / (b.Score/2 - a.Score/2)
	high, low := floor(1-a.P, m.Lineage.Rows.Used), floor(1-b.P, m.Lineage.Rows.Used)
	return high * math.Pow(low/high, t)
}

// between is where the share lies between two shares, 0 at high and 1 at low, over their logarithms.
func between(high, low, share float64, n int64) float64 {
	high, low = floor(high, n), floor(low, n)
	if !(high > low) {
		return 1
	}
	return min(max(math.Log(high/max(share, low))/math.Log(high/low), 0), 1)
}

// floor keeps shares above nothing: the share above the highest of n scores is taken as half a row.
func floor(share float64, n int64) float64 { return max(share, .5/float64(max(n, 1))) }

// margin keeps ties and another engine's rounding from raising alarms; see Threshold.
func margin(score, median float64) float64 { return max(1e-4*max(score, median), 1e-6) }

// Ask is a wish for another threshold.
type Ask struct {
	Method string  // ByQuantile, ByAlarms, ByTail, ByScore or ByFactor
	Value  float64 // in the method's own unit
}

// Choose finds the threshold that a wish comes to, from the quantiles that the model carries: no scores and no topic are
// needed. The error says what is wrong with the wish.
func (m *Model) Choose(ask Ask) (threshold float64, c ThresholdChoice, err error) {
	n := m.Lineage.Rows.Used
	c = ThresholdChoice{Method: ask.Method, Asked: ask.Value, Rows: n}
	fault := func(format string, args ...any) (float64, ThresholdChoice, error) {
		return 0, ThresholdChoice{}, fmt.Errorf(format, args...)
	}
	if math.IsNaN(ask.Value) || math.IsInf(ask.Value, 0) {
		return fault("%v is no number", ask.Value)
	}
	rate := ask.Value
	switch ask.Method {
	case ByAlarms:
		if rate, err = RateFor(ask.Value, m.RecordsPerDay()); err != nil {
			return 0, ThresholdChoice{}, err
		}
		fallthrough
	case ByQuantile:
		if !(rate >= 0 && rate <= MostRate) {
			return fault("alarm rate %v: it must be a share from 0 to %v", rate, MostRate)
		}
		c.Used, _ = rank(n, rate)
		c.Few = c.Used > rate
		s := m.ScoreAbove(c.Used)
		threshold = s + margin(s, m.Median())
	case ByTail:
		threshold, c, err = m.tail(rate)
		if err != nil {
			return 0, ThresholdChoice{}, err
		}
	case ByScore:
		if ask.Value < 0 {
			return fault("score %v: scores are not negative", ask.Value)
		}
		threshold = ask.Value
	case ByFactor:
		if ask.Value < 1 {
			return fault("factor %v: it must be at least 1, so that no row of the history lies above the threshold", ask.Value)
		}
		s := m.Highest()
		threshold = max(ask.Value*s, s+margin(s, m.Median()))
	default:
		return fault("there is no method %q", ask.Method)
	}
	m.Weigh(threshold, &c)
	return threshold, c, nil
}

// Weigh fills in what the history says of a threshold: the share above it and, but for a fit, the interval.
func (m *Model) Weigh(threshold float64, c *ThresholdChoice) {
	c.Above = Digits(m.ShareAbove(threshold), 6)
	if c.Method == ByTail {
		return
	}
	if c.Method == ByScore || c.Method == ByFactor || c.Method == ByLabel {
		c.Used = c.Above
	}
	c.Low, c.High = RateInterval(int64(math.Round(c.Above*float64(c.Rows))), c.Rows)
}

// MostRate is the largest alarm rate: beyond it the threshold would lie below the median.
const MostRate = 0.5

// RateFor is the share of records that makes so many alarms a day.
func RateFor(alarms, recordsPerDay float64) (float64, error) {
	switch {
	case !(alarms >= 0):
		return 0, fmt.Errorf("%v alarms a day: it must be 0 or more", alarms)
	case !(recordsPerDay > 0):
		return 0, ErrNoRate
	case alarms/recordsPerDay > MostRate:
		return 0, fmt.Errorf("%v alarms a day are more than half of the topic's %.0f records a day", alarms, recordsPerDay)
	}
	return alarms / recordsPerDay, nil
}

// ErrNoRate: alarms a day were asked for, and the history does not say how many records a day there are.
var ErrNoRate = fmt.Errorf("the history's times do not say how many records a day the topic has")

// With is the model with another threshold, derived from the file with digest parent: same weights, same quantiles, same
// self-test. What the metrics say of the old threshold alone is taken out or replaced.
func (m *Model) With(threshold float64, c ThresholdChoice, parent string) *Model {
	n := *m
	n.Threshold = threshold
	n.Lineage.Parent = parent
	n.Lineage.Threshold = &c
	n.Lineage.Metrics = map[string]float64{}
	for k, v := range m.Lineage.Metrics {
		switch k {
		case "ties", "recall", "precision":
		default:
			n.Lineage.Metrics[k] = v
		}
	}
	n.Lineage.Metrics["rate_used"], n.Lineage.Metrics["share_above"] = c.Used, c.Above
	return &n
}

// Suspicious is the share of the history that scores far out: rows far from the rest are either what is looked for, or a
// sign that the history is no model of normal.
func (m *Model) Suspicious() float64 {
	return 1 - m.Percentile(m.FarOut())/100
}

// FarOut is where a score lies far from the rest: above the upper quartile by more than three times the distance between
// the quartiles, Tukey's outer fence, which one in 800,000 normally distributed scores exceeds. A multiple of the median
// would not do: distances add up over columns, so that of forty columns no score is near 0, and none at five medians.
func (m *Model) FarOut() float64 {
	low, high := m.ScoreAbove(.75), m.ScoreAbove(.25)
	return high + 3*(high-low)
}

// Contamination says whether the history holds anomalies enough to matter beside an alarm rate: by its labels, a tenth of
// what the rate lets through; or by what looks like them, twice as much. A quantile is then a budget of alarms, true ones
// included, and not of false alarms.
func (m *Model) Contamination(rate float64) (labelled, suspicious bool) {
	positives := m.Lineage.Metrics["base_rate"] * m.Lineage.Metrics["labelled"]
	return positives/float64(max(m.Lineage.Rows.Used, 1)) > .1*rate, m.Suspicious() > max(2*rate, .01)
}

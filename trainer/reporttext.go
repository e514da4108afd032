package trainer

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/lapwing-stream/lapwing/model"
)

// writeTime says when the history was made and where it has holes.
func (r *Report) writeTime(line func(label, format string, args ...any)) {
	if r.Span == nil {
		return
	}
	by := "the Kafka timestamp"
	if r.Spec.Time != nil {
		by = "field " + r.Spec.Time.Field
	}
	rate := "how many records a day is not known"
	if r.RecordsPerDay > 0 {
		rate = round2(r.RecordsPerDay) + " records a day"
	} else if r.Spec.Time == nil {
		rate += "; where a field has the event time, --time FIELD takes it"
	}
	line("time", "%s to %s UTC by %s: %s", minute(r.Span.From), minute(r.Span.To), by, rate)
	parts := len(r.Timeline)
	if parts == 0 {
		return
	}
	at := func(i int) int64 {
		return r.Span.From + int64(float64(r.Span.To-r.Span.From)*float64(i)/float64(parts))
	}
	most := 0.
	for _, share := range r.Timeline {
		most = max(most, share)
	}
	var bars strings.Builder
	for _, share := range r.Timeline {
		bars.WriteRune(sparks[int(math.Ceil(share/most*float64(len(sparks)-1)))])
	}
	line("", "rows over time %s, each %s", bars.String(), about(time.Duration(at(1)-at(0))*time.Millisecond))
	for i := 0; i < parts; i++ {
		if from := i; r.Timeline[i] == 0 {
			for i < parts && r.Timeline[i] == 0 {
				i++
			}
			line("", "no rows from about %s to %s", minute(at(from)), minute(at(i)))
		}
	}
}

// sparks are bars of rising height; the first is for nothing.
var sparks = []rune("·▁▂▃▄▅▆▇█")

func minute(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04") }

// about is a duration in its largest fitting unit.
func about(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "days"}, {time.Hour, "hours"}, {time.Minute, "minutes"}} {
		if d >= 2*u.unit {
			return fmt.Sprintf("%.3g %s", d.Hours()/u.unit.Hours(), u.name)
		}
	}
	return fmt.Sprintf("%.3g seconds", d.Seconds())
}

// histogramSteps are edges above the upper quartile, in distances between the quartiles; 3 is far out.
var histogramSteps = []float64{0, .75, 1.5, 3, 6}

// ScoreBar is one bar of the histogram of the history's scores.
type ScoreBar struct {
	From  float64 `json:"from"`
	To    float64 `json:"to"`    // the last ends at the highest score
	Share float64 `json:"share"` // of the history
}

// Histogram is how the history scores: a bar for each quarter of it up to the upper quartile, and wider ones beyond.
func Histogram(m *model.Model) []ScoreBar {
	low, high := m.ScoreAbove(.75), m.ScoreAbove(.25)
	edges := []float64{low, m.Median()}
	for _, step := range histogramSteps {
		edges = append(edges, high+step*(high-low))
	}
	var bars []ScoreBar
	from, above := 0., 1.
	for _, edge := range append(edges, math.Inf(1)) {
		to := min(edge, m.Highest())
		if !(to > from) {
			continue
		}
		rest := m.ShareAbove(to)
		bars = append(bars, ScoreBar{from, to, above - rest})
		from, above = to, rest
	}
	return bars
}

// barWidth is the longest bar, in characters.
const barWidth = 40

func (r *Report) writeScores(line func(label, format string, args ...any)) {
	line("scores", "median %.4g, highest %.4g", r.Median, r.Highest)
	bars := Histogram(r.Model)
	most := 0.
	for _, b := range bars {
		most = max(most, b.Share)
	}
	marked := false
	for _, b := range bars {
		mark := ""
		if !marked && r.Threshold <= b.To {
			mark, marked = "  threshold", true
		}
		n := int(math.Round(barWidth * b.Share / most))
		if n == 0 && b.Share > 0 {
			n = 1
		}
		line("", "%s", strings.TrimRight(fmt.Sprintf("  to %-8s %7s %s%s", fmt.Sprintf("%.4g", b.To), ShareText(model.Digits(b.Share, 2)), strings.Repeat("█", n), mark), " "))
	}
	if !marked && bars != nil {
		line("", "  threshold %.4g, above all of them", r.Threshold)
	}
	farOut := "none"
	if r.Suspicious > 0 {
		farOut = ShareText(r.Suspicious)
	}
	line("", "%s of the history scores far out, above %.4g", farOut, r.Model.FarOut())
}

// ShareText is a share in percent with three digits, without exponents: 0.001%.
func ShareText(share float64) string {
	p := model.Digits(100*share, 3)
	if p >= 1 {
		p = math.Round(10*p) / 10
	}
	if p > 0 && p < 1e-4 {
		return fmt.Sprintf("%g%%", p)
	}
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.6f", p), "0"), ".") + "%"
}

// HowChosen says in words by what a threshold was chosen.
func HowChosen(c model.ThresholdChoice) string {
	used := ""
	if c.Few {
		used = fmt.Sprintf("; the history is too short for that, %s is used", ShareText(c.Used))
	}
	switch c.Method {
	case model.ByQuantile:
		if c.Asked == 0 {
			return "chosen as the highest score of the history: fragile, as one row decides"
		}
		return fmt.Sprintf("chosen by quantile: %s of the history may lie above it%s", ShareText(c.Asked), used)
	case model.ByAlarms:
		return fmt.Sprintf("chosen for %g alarms a day%s", c.Asked, used)
	case model.ByTail:
		return fmt.Sprintf("chosen by a fit of the tail (shape %.2f): %s of the records lie above it%s", c.Tail.Shape, ShareText(c.Asked), used)
	case model.ByLabel:
		goal := model.Goal{Name: c.Goal, Least: c.Asked}.String()
		if c.Goal == model.GoalF1 {
			goal = "highest F1"
		}
		return fmt.Sprintf("chosen on %s labelled rows, %s of them anomalous: %s", thousands(c.Sample.Rows), thousands(c.Sample.Anomalies), goal)
	case model.ByScore:
		return "chosen by hand"
	case model.ByFactor:
		return fmt.Sprintf("chosen as %g times the highest score of the history: fragile, as one row decides", c.Asked)
	}
	return "chosen before Lapwing kept how"
}

// WhatItMeans says in words how many records a threshold lets alarm, and how sure that is.
func WhatItMeans(c model.ThresholdChoice, recordsPerDay float64) []string {
	out := []string{fmt.Sprintf("%s of the history lies above it; of records like these it is between %s and %s (%.0f%% sure)",
		ShareText(c.Above), ShareText(model.Digits(c.Low, 2)), ShareText(model.Digits(c.High, 2)), 100*model.Confidence)}
	if recordsPerDay > 0 {
		share := c.Above
		if c.Method == model.ByTail {
			share = c.Used
		}
		out = append(out, fmt.Sprintf("at this topic's %s records a day that is about %s alarms a day, %s to %s",
			round2(recordsPerDay), round2(share*recordsPerDay), round2(c.Low*recordsPerDay), round2(c.High*recordsPerDay)))
	}
	return out
}

// Budget says whose alarms the rate counts.
func Budget(m *model.Model, c model.ThresholdChoice) string {
	if c.Method == model.ByLabel || c.Used == 0 {
		return ""
	}
	const budget = "this is a budget of alarms, true ones included, and not of false alarms"
	switch labelled, suspicious := m.Contamination(max(c.Used, c.Above)); {
	case labelled:
		return "the history holds labelled anomalies: " + budget
	case suspicious:
		return "part of the history looks anomalous: " + budget
	}
	return "if all was in order in the history, these are false alarms"
}

func (r *Report) writeThreshold(line func(label, format string, args ...any)) {
	line("threshold", "%.4g: a record that scores above it is an anomaly", r.Threshold)
	line("", "%s", HowChosen(r.Choice))
	for _, text := range WhatItMeans(r.Choice, r.RecordsPerDay) {
		line("", "%s", text)
	}
	if text := Budget(r.Model, r.Choice); text != "" {
		line("", "%s", text)
	}
}

func (r *Report) writeJudgement(line func(label, format string, args ...any)) {
	if r.Judgement == nil {
		return
	}
	for i, text := range r.Judgement.Lines() {
		label := ""
		if i == 0 {
			label = "label"
		}
		line(label, "%s", text)
	}
}

// Lines say a judgement in words, ranking first: what a threshold makes of it comes after, and accuracy never.
func (j *Judgement) Lines() []string {
	switch {
	case j.Labelled == 0:
		return []string{"no record has a readable label"}
	case !j.Defined:
		return []string{fmt.Sprintf("%s labelled rows, %s anomalous: with one class only, ranking measures are undefined", thousands(j.Labelled), thousands(j.Positives))}
	}
	return []string{
		fmt.Sprintf("average precision %.3f at a base rate of %.3f; recall %.2f, %.2f, %.2f in the highest 0.1%%, 1%%, 5%%",
			j.AveragePrecision, j.BaseRate, j.RecallAt[0], j.RecallAt[1], j.RecallAt[2]),
		fmt.Sprintf("at the threshold: recall %.3f, precision %.3f; area under the ROC curve %.3f", j.Recall, j.Precision, j.AUC),
	}
}

// Alarms is a number of alarms a day, with two digits below a hundred.
func Alarms(perDay float64) string { return round2(perDay) }

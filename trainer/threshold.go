package trainer

import (
	"errors"
	"fmt"
	"math"

	"github.com/lapwing-stream/lapwing/model"
)

// ThresholdMethods are those that a training can choose its threshold by.
var ThresholdMethods = []string{model.ByQuantile, model.ByTail, model.ByLabel}

// askable says, before anything is fitted, whether the threshold can be chosen as asked.
func (j *job) askable(h *history, r *Report) error {
	if j.AlarmsPerDay > 0 {
		if _, err := model.RateFor(j.AlarmsPerDay, r.RecordsPerDay); errors.Is(err, model.ErrNoRate) {
			return &InputError{
				What:  fmt.Sprintf("%g alarms a day were asked for, but %v", j.AlarmsPerDay, err),
				Place: "topic " + j.Topic, Next: "name the field with the event time (--time), or ask for a share of the records (--alarm-rate)",
			}
		} else if err != nil {
			return &InputError{What: err.Error(), Place: "topic " + j.Topic, Next: "ask for fewer"}
		}
	}
	if j.ThresholdMethod == model.ByLabel {
		var counts [2]int64
		for g := range h.n {
			if l := h.label(g); l != unlabelled {
				counts[l]++
			}
		}
		if counts[normal] == 0 || counts[anomalous] == 0 {
			return &InputError{
				What:  fmt.Sprintf("a threshold by label needs anomalies and normal rows; field %s says %d and %d", j.Label, counts[anomalous], counts[normal]),
				Place: "topic " + j.Topic, Next: "check the label, or choose by quantile (--threshold-method quantile)",
			}
		}
	}
	return nil
}

// rate is the share of records that may lie above the threshold.
func (j *job) rate(r *Report) float64 {
	if j.AlarmsPerDay > 0 {
		return j.AlarmsPerDay / r.RecordsPerDay
	}
	return j.AlarmRate
}

// threshold finds the threshold. sorted are the finite scores of the history, ascending; m has its quantiles and lineage.
func (j *job) threshold(h *history, scores []float32, sorted []float32, m *model.Model, r *Report) (threshold float64, c model.ThresholdChoice, err error) {
	n := int64(len(sorted))
	rate := j.rate(r)
	r.RateAsked = rate
	switch j.ThresholdMethod {
	case model.ByLabel:
		goal, err := model.ParseGoal(j.ThresholdGoal)
		if err != nil {
			return 0, c, err
		}
		rows := labelled(h, scores)
		if threshold, err = model.ByLabels(rows, goal); err != nil {
			return 0, c, &InputError{What: err.Error(), Place: fmt.Sprintf("topic %s, label %s", j.Topic, j.Label), Next: "ask for less (threshold_goal), or choose by quantile"}
		}
		c = model.ThresholdChoice{Method: model.ByLabel, Goal: goal.Name, Asked: goal.Least, Sample: model.JudgeSample(rows, threshold)}
	case model.ByTail:
		threshold, c, err = m.Choose(model.Ask{Method: model.ByTail, Value: rate})
		if err != nil {
			// After the fit there is a usable model either way: the quantile stands in, and the report says so.
			r.fallback = err.Error()
		}
	}
	if c.Method == "" {
		var used float64
		highest := sorted[n-int64(min(model.Keep(n, rate), len(sorted))):]
		top := make([]float64, len(highest))
		for i, s := range highest {
			top[i] = float64(s)
		}
		if threshold, used, _, _, err = model.Threshold(top, n, rate, float64(sorted[(n-1)/2])); err != nil {
			return 0, c, err
		}
		c = model.ThresholdChoice{Method: model.ByQuantile, Asked: j.AlarmRate, Used: used, Few: rate > 0 && used > rate}
		if j.AlarmsPerDay > 0 {
			c.Method, c.Asked = model.ByAlarms, j.AlarmsPerDay
		}
	}
	// The scores are here: counted, not read off the quantiles.
	r.Above = n - int64(below(sorted, math.Nextafter(threshold, math.Inf(1))))
	c.Rows, c.Above = n, float64(r.Above)/float64(n)
	if c.Method != model.ByTail {
		c.Low, c.High = model.RateInterval(r.Above, n)
	}
	if c.Method == model.ByLabel {
		c.Used, r.RateAsked = c.Above, c.Above
	}
	return threshold, c, nil
}

package fleet

import (
	"slices"
	"time"
)

// Grace is how long after the end of an episode an alert still counts for it: a detector that asks for
// several records in a row may be late by them.
const Grace = 60 * time.Second

// Alert is what a detector says: something is wrong with a car since a time.
type Alert struct {
	Car  string
	Time time.Time // event time of the record that raised it
}

// Verdict compares alerts with episodes.
type Verdict struct {
	Alerts, True    int           // raised, and those of them with an episode of their car from onset to end + Grace
	Episodes, Found int           // all, and those with a true alert
	Precision       float64       // True / Alerts; 1 without alerts
	Recall          float64       // Found / Episodes; 1 without episodes
	Detection       time.Duration // median event time from onset to the first true alert of the found; 0 without
	First           []int         // for each episode the index of its first true alert, or -1
}

// Judge compares alerts, in any order, with episodes.
func Judge(episodes []Episode, alerts []Alert) Verdict {
	v := Verdict{Alerts: len(alerts), Episodes: len(episodes), Precision: 1, Recall: 1, First: make([]int, len(episodes))}
	byCar := make(map[string][]int, len(episodes))
	for i, e := range episodes {
		v.First[i] = -1
		byCar[e.Car] = append(byCar[e.Car], i)
	}
	for a, alert := range alerts {
		hit := false
		for _, i := range byCar[alert.Car] {
			e := episodes[i]
			if alert.Time.Before(e.Onset) || alert.Time.After(e.End.Add(Grace)) {
				continue
			}
			hit = true
			if v.First[i] < 0 || alert.Time.Before(alerts[v.First[i]].Time) {
				v.First[i] = a
			}
		}
		if hit {
			v.True++
		}
	}
	var waits []time.Duration
	for i, a := range v.First {
		if a >= 0 {
			v.Found++
			waits = append(waits, alerts[a].Time.Sub(episodes[i].Onset))
		}
	}
	if v.Alerts > 0 {
		v.Precision = float64(v.True) / float64(v.Alerts)
	}
	if v.Episodes > 0 {
		v.Recall = float64(v.Found) / float64(v.Episodes)
	}
	if len(waits) > 0 {
		slices.Sort(waits)
		// The lower of two middle ones: a time that was observed.
		v.Detection = waits[(len(waits)-1)/2]
	}
	return v
}

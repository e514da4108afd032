package quality

import (
	"context"
	"fmt"
)

// Alarms says on how many sets a rate of alarms that was asked for is the rate that comes: learnt from normal rows
// only, in random order, counted on other normal rows.
type Alarms struct {
	Rate   float64 `json:"rate"`       // asked
	Least  int     `json:"least_rows"` // of the history, for a set to be counted
	Sets   int     `json:"sets"`
	Within int     `json:"within_factor_2"`
	Each   []Came  `json:"each"`
}

// Came is one set's share of normal rows above the threshold.
type Came struct {
	Set  string  `json:"set"`
	Rows int     `json:"rows"` // of the history
	Rate float64 `json:"rate"` // that came
	Of   int     `json:"of"`   // normal rows that were judged
}

// asked are the rates that are tried, each with the rows that it needs: rows times rate is at least 10.
var asked = []struct {
	rate  float64
	least int
}{{.01, 1000}, {.001, 10_000}}

// alarmCounts gathers them, by place in asked.
type alarmCounts [2][]Came

// normalOnly trains on the normal rows of a split and counts the alarms among the others' normal rows.
func (r *run) normalOnly(ctx context.Context, s *set, sp *split) error {
	only := split{sp.seed, normalRows(sp.train), normalRows(sp.test)}
	for i, a := range asked {
		if len(only.train) < a.least || len(only.test) == 0 {
			continue
		}
		how := r.subject(s)
		how.alarmRate = a.rate
		l, err := r.learn(ctx, &only, how)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			fmt.Fprintf(r.Log, "  alarms at %v: failed: %v\n", a.rate, err)
			continue
		}
		above := 0
		for _, score := range l.live {
			if score > l.threshold {
				above++
			}
		}
		came := Came{s.Name, len(only.train), float64(above) / float64(len(only.test)), len(only.test)}
		fmt.Fprintf(r.Log, "  %.4g of normal rows alarm where %v is asked for\n", came.Rate, a.rate)
		r.alarms[i] = append(r.alarms[i], came)
	}
	return nil
}

func normalRows(rows []row) []row {
	var out []row
	for _, r := range rows {
		if !r.anomalous {
			out = append(out, r)
		}
	}
	return out
}

// within tells whether a rate came within a factor 2 of what was asked.
func (c *Came) within(rate float64) bool { return c.Rate >= rate/2 && c.Rate <= 2*rate }

func (c *alarmCounts) report() (list []Alarms) {
	for i, a := range asked {
		if len(c[i]) == 0 {
			continue
		}
		out := Alarms{Rate: a.rate, Least: a.least, Sets: len(c[i]), Each: c[i]}
		for k := range c[i] {
			if c[i][k].within(a.rate) {
				out.Within++
			}
		}
		list = append(list, out)
	}
	return list
}

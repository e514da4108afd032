package trainer

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// hourRun is where, in a partition's rows, another hour begins.
type hourRun struct {
	row  int
	hour int32 // since 1970
}

const hourMillis = 3_600_000

// hourRuns remember the hour of every row. Rows come roughly in order of time, so that runs are few; where they do not,
// they are given up rather than cost eight bytes a row.
type hourRuns struct {
	runs []hourRun
	lost bool
}

// add takes the time of the next row, ms since 1970; ok is false where it has none.
func (h *hourRuns) add(row int, time int64, ok bool) {
	if h.lost {
		return
	}
	hour := int32(-1)
	if ok && time >= 0 && time/hourMillis < math.MaxInt32 {
		hour = int32(time / hourMillis)
	}
	if n := len(h.runs); n > 0 && h.runs[n-1].hour == hour {
		return
	}
	if len(h.runs) > 10_000+row/64 {
		h.runs, h.lost = nil, true
		return
	}
	h.runs = append(h.runs, hourRun{row, hour})
}

const (
	weekHours = 168
	// leastWeeks of history are needed before an hour of the week can stand out.
	leastWeeks = 3
	// A row is high that belongs to this share of the highest scores, or to rhythmRows of them where that is more, but never
	// to more than mostHigh.
	rhythmShare, mostHigh = .01, .05
	rhythmRows            = 200
	// highHour times the usual share of high rows make an hour a high one.
	highHour = 4
	// chanceHours: with no rhythm at all, one history in a thousand has an hour of the week that stands out.
	chanceHours = 1e-3 / weekHours
)

// HourOfWeek is an hour of the week, in UTC, in which the history scores high again and again.
type HourOfWeek struct {
	Hour  int   `json:"hour"`  // 0 = Monday, 0:00 to 1:00
	Weeks int64 `json:"weeks"` // in the history
	High  int64 `json:"high"`  // of those, with many high scores
}

// rhythm finds the hours of the week in which high scores come back. rates are the shares of high rows by hour of the week.
// Nil where the history is shorter than three weeks or its times are in no order.
func rhythm(h *history, scores, sorted []float32) (rates []float64, back []HourOfWeek) {
	n := len(sorted)
	share := min(max(rhythmShare, rhythmRows/float64(max(n, 1))), mostHigh)
	if n == 0 || int(share*float64(n)) < 1 {
		return nil, nil
	}
	cut := sorted[n-1-int(share*float64(n))]
	type cell struct{ rows, high int64 }
	cells := map[int32]cell{}
	for p := range h.partitions {
		part := &h.partitions[p]
		if part.hours.lost {
			return nil, nil
		}
		for i, run := range part.hours.runs {
			to := part.rows.n
			if i+1 < len(part.hours.runs) {
				to = part.hours.runs[i+1].row
			}
			if run.hour < 0 {
				continue
			}
			c := cells[run.hour]
			for g := h.starts[p] + run.row; g < h.starts[p]+to; g++ {
				c.rows++
				if !(scores[g] <= cut) {
					c.high++
				}
			}
			cells[run.hour] = c
		}
	}
	var all [weekHours]cell
	var weeks, high [weekHours]int64
	highCells := int64(0)
	for hour, c := range cells {
		// 1 January 1970 was a Thursday: the first Monday began 96 hours later.
		w := int((int64(hour) + weekHours - 96) % weekHours)
		all[w].rows += c.rows
		all[w].high += c.high
		weeks[w]++
		if float64(c.high) >= highHour*share*float64(c.rows) {
			high[w]++
			highCells++
		}
	}
	rates = make([]float64, weekHours)
	for w := range all {
		if weeks[w] < leastWeeks {
			return nil, nil
		}
		rates[w] = float64(all[w].high) / float64(max(all[w].rows, 1))
	}
	chance := float64(highCells) / float64(len(cells))
	for w := range weeks {
		if high[w] >= leastWeeks && atLeast(weeks[w], high[w], chance) < chanceHours {
			back = append(back, HourOfWeek{Hour: w, Weeks: weeks[w], High: high[w]})
		}
	}
	slices.SortStableFunc(back, func(a, b HourOfWeek) int { return int(b.High*a.Weeks - a.High*b.Weeks) })
	return rates, back
}

// atLeast is the chance of k or more of n, each with chance p.
func atLeast(n, k int64, p float64) float64 {
	sum := 0.
	for i := k; i <= n; i++ {
		term := math.Pow(p, float64(i)) * math.Pow(1-p, float64(n-i))
		for m := int64(1); m <= i; m++ {
			term *= float64(n-i+m) / float64(m)
		}
		sum += term
	}
	return sum
}

var weekDays = []string{"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"}

func (h HourOfWeek) String() string {
	return fmt.Sprintf("%s %02d:00 (%d of %d weeks)", weekDays[h.Hour/24], h.Hour%24, h.High, h.Weeks)
}

// writeRhythm draws the share of high scores by hour of the week.
func (r *Report) writeRhythm(line func(label, format string, args ...any)) {
	if r.HoursOfWeek == nil {
		return
	}
	line("by hour", "high scores by hour of the week, UTC, a bar an hour from 0:00 to 23:00")
	most := slices.Max(r.HoursOfWeek)
	for d, name := range weekDays {
		var bars strings.Builder
		for _, rate := range r.HoursOfWeek[24*d : 24*d+24] {
			bars.WriteRune(sparks[int(math.Ceil(rate/most*float64(len(sparks)-1)))])
		}
		line("", "  %s %s", name, bars.String())
	}
}

// rhythmWarning says which hours come back.
func rhythmWarning(back []HourOfWeek) string {
	var words []string
	for _, h := range back[:min(len(back), 3)] {
		words = append(words, h.String())
	}
	text := "high scores come back at the same hour of the week: " + strings.Join(words, ", ")
	if more := len(back) - len(words); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text + "; what is usual then is news to the model: it will alarm every week, or miss what is wrong at other hours"
}

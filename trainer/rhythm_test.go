package trainer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/lapwing-stream/lapwing/stream"
)

// weekly is six weeks of hourly values with a daily and a weekly rhythm: orders follow visits, except on Monday from 8 to
// 10, when half of them come by another way.
func weekly(broken bool) []stream.Record {
	const monday = 1_750_032_000_000 // 2025-06-16 00:00 UTC
	r := rand.New(rand.NewPCG(41, 19))
	records := make([]stream.Record, 6*weekHours)
	for i := range records {
		hour := i % weekHours
		visits := 100 + 60*math.Sin(2*math.Pi*float64(hour%24)/24) + 5*r.NormFloat64()
		if hour >= 120 {
			visits *= .4
		}
		orders := .1*visits + .3*r.NormFloat64()
		if broken && hour >= 8 && hour < 10 {
			orders *= 2
		}
		records[i] = stream.Record{Partition: int32(i % 2), Time: monday + int64(i)*hourMillis,
			Value: fmt.Appendf(nil, `{"visits":%.2f,"orders":%.3f,"load":%.3f}`, visits, orders, visits/50+.05*r.NormFloat64())}
	}
	return records
}

// That scores are high every Monday morning is seen, and a rhythm that the model knows is none.
func TestWeeklyRhythmIsInTheReport(t *testing.T) {
	b := newBench(t)
	for _, broken := range []bool{true, false} {
		name := fmt.Sprint("t", broken)
		b.topic(name, 2, weekly(broken)...)
		o := Defaults()
		o.Topic, o.Model, o.Threads = name, "m", 2
		r := b.mustRun(o)
		var text strings.Builder
		if err := r.Write(&text); err != nil {
			t.Fatal(err)
		}
		if len(r.HoursOfWeek) != weekHours || !strings.Contains(text.String(), "\n              Mon ") {
			t.Errorf("%d hours\n%s", len(r.HoursOfWeek), text.String())
		}
		found := slices.ContainsFunc(r.Warnings, func(w string) bool {
			return strings.HasPrefix(w, "high scores come back at the same hour of the week: Mon 0")
		})
		if found != broken {
			t.Errorf("broken %v, warnings %q\n%s", broken, r.Warnings, text.String())
		}
		if broken && (r.HoursOfWeek[8] < .3 || r.HoursOfWeek[9] < .3) {
			t.Errorf("%v", r.HoursOfWeek[:24])
		}
	}
}

// Without a rhythm, hours that stand out are as rare as promised.
func TestNoRhythmByChance(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	found := 0
	for range 200 {
		h := &history{n: 6 * weekHours, partitions: make([]partition, 1), starts: []int{0, 6 * weekHours}}
		p := &h.partitions[0]
		scores := make([]float32, h.n)
		sorted := make([]float32, h.n)
		for i := range scores {
			scores[i] = r.Float32()
			sorted[i] = scores[i]
			p.hours.add(i, int64(i)*hourMillis, true)
		}
		p.rows.n = h.n
		slices.Sort(sorted)
		rates, back := rhythm(h, scores, sorted)
		if rates == nil {
			t.Fatal("six weeks are enough")
		}
		if len(back) > 0 {
			found++
		}
	}
	if found > 3 {
		t.Errorf("in %d of 200 histories without a rhythm one was found", found)
	}
}

func TestHourRunsAreBounded(t *testing.T) {
	var h hourRuns
	for i := range 20_000 {
		h.add(i, int64(i%2)*hourMillis, true)
	}
	if !h.lost || h.runs != nil {
		t.Errorf("%d runs of rows in no order are kept", len(h.runs))
	}
	h = hourRuns{}
	for i := range 100_000 {
		h.add(i, int64(i)*1000, i%50_000 != 7)
	}
	if h.lost || len(h.runs) != 28+4 {
		t.Errorf("%d runs", len(h.runs))
	}
}

package trainer

import (
	"slices"
	"sort"
	"time"

	"github.com/lapwing-stream/lapwing/model"
)

const (
	// timeParts are the parts of the span in which the report counts rows; fewer where that leaves less than partTimes
	// sampled times a part, so that an empty part means a hole and not chance.
	timeParts = 24
	partTimes = 8
)

// time fills in when the history was made, its rate, and how its rows lie in time.
//
// The rate is taken from the middle nine tenths of the sampled times, so that one record dated 2262 changes nothing.
// Without a time field the times are Kafka's, and a topic that was filled from a file within minutes says nothing of its
// rate.
func (r *Report) time(h *history) {
	least := 10 * time.Minute
	if h.spec.Time != nil {
		least = time.Minute
	}
	var times []int64
	for i := range h.partitions {
		times = append(times, h.partitions[i].times...)
	}
	slices.Sort(times)
	if len(times) < 20 {
		return
	}
	weight := float64(h.n) / float64(len(times)) // rows that one sampled time stands for
	if passed := r.Rows.LeftOut[notInSample]; passed > 0 && passed < r.Rows.Read {
		weight *= float64(r.Rows.Read) / float64(r.Rows.Read-passed) // a scorer is given the others too
	}
	cut := len(times) / 20
	middle := times[cut : len(times)-cut]
	span := middle[len(middle)-1] - middle[0]
	// Times further off than the middle is long are strays.
	from, _ := slices.BinarySearch(times, middle[0]-span)
	to := sort.Search(len(times), func(i int) bool { return times[i] > middle[len(middle)-1]+span })
	times = times[from:to]
	r.Span = &model.Span{From: times[0], To: times[len(times)-1]}
	if span < least.Milliseconds() {
		return
	}
	r.RecordsPerDay = float64(len(middle)-1) * weight / float64(span) * 86_400_000
	r.Span.RecordsPerDay = r.RecordsPerDay
	parts := min(timeParts, len(times)/partTimes)
	if parts < 4 {
		return
	}
	r.Timeline = make([]float64, parts)
	for _, t := range times {
		at := int(float64(t-r.Span.From) / float64(r.Span.To-r.Span.From+1) * float64(parts))
		r.Timeline[min(at, parts-1)] += 1 / float64(len(times))
	}
}

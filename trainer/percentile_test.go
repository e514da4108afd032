package trainer

import (
	"math"
	"testing"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/kernels"
)

// Case 4.20: a version with another detector, other widths and fewer columns gives the same rows other scores. What is
// said beside them goes on to mean the same: percentiles are spread alike, and as many rows lie above the threshold.
func TestPercentilesCompareAcrossVersions_Case4_20(t *testing.T) {
	b := newBench(t)
	b.topic("t", 2, values(2, machine(1, 6000)...)...)
	unseen := machine(2, 6000)
	o := quick("t")
	o.AlarmRate = .01
	first := b.mustRun(o)
	o.Detector, o.Layers, o.Exclude = DetectorAutoencoder, []int{8, 1, 8}, []string{"volts"}
	second := b.mustRun(o)

	type spread struct{ median, score, above float64 }
	judged := func(r *Report) spread {
		decoder, err := events.Compile(r.Model.Spec)
		if err != nil {
			t.Fatal(err)
		}
		s, err := b.deps.Engine.Scorer(r.Model.Program)
		if err != nil {
			t.Fatal(err)
		}
		rows := make([]float32, 0, len(unseen)*decoder.Columns())
		row := make([]float32, decoder.Columns())
		for _, record := range unseen {
			decoder.Decode([]byte(record), row)
			rows = append(rows, row...)
		}
		scores := make([]float32, len(unseen))
		if err := s.Score(rows, kernels.Output{Score: scores}); err != nil {
			t.Fatal(err)
		}
		var out spread
		for _, score := range scores {
			out.score += float64(score) / float64(len(scores))
			if r.Model.Percentile(float64(score)) < 50 {
				out.median += 1 / float64(len(scores))
			}
			if float64(score) > r.Threshold {
				out.above += 1 / float64(len(scores))
			}
		}
		return out
	}
	one, two := judged(first), judged(second)
	if ratio := one.score / two.score; math.Abs(math.Log(ratio)) < math.Log(1.2) {
		t.Errorf("mean scores %v and %v: these versions were to differ, or the test shows nothing", one.score, two.score)
	}
	for version, s := range []spread{one, two} {
		if math.Abs(s.median-.5) > .04 {
			t.Errorf("version %d: %.3f of the rows lie below percentile 50", version+1, s.median)
		}
		if s.above < .005 || s.above > .02 {
			t.Errorf("version %d: %.4f of the rows lie above a threshold asked at 0.01", version+1, s.above)
		}
	}
}

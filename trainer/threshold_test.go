package trainer

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/model"
)

// The threshold for so many alarms a day is that of the share which they are of the topic's records a day.
func TestAlarmsPerDay(t *testing.T) {
	b := newBench(t)
	b.topic("t", 2, values(2, machine(31, 5000)...)...)
	o := quick("t")
	o.AlarmsPerDay = 864
	r := b.mustRun(o)
	c := r.Model.Lineage.Threshold
	if c == nil || c.Method != model.ByAlarms || c.Asked != 864 || math.Abs(c.Used-.01) > 2e-4 || r.Above < 48 || r.Above > 51 || c.Few {
		t.Fatalf("%+v, %d above", c, r.Above)
	}
	if s := r.Model.Lineage.Span; s == nil || s.From != start || math.Abs(s.RecordsPerDay/86400-1) > .01 || s.To < start+4900*1000 {
		t.Errorf("span %+v", s)
	}
	o.AlarmsPerDay, o.AlarmRate = 0, c.Used
	if again := b.mustRun(o); again.Threshold != r.Threshold {
		t.Errorf("by alarms %v, by the same share %v", r.Threshold, again.Threshold)
	}

	o.AlarmsPerDay = 80_000
	if _, err := b.run(o); err == nil || !strings.Contains(err.Error(), "more than half") {
		t.Errorf("nearly all: %v", err)
	}
	// A topic that was filled within minutes and has no time of its own: nobody knows its rate, and nothing is fitted first.
	records := values(1, machine(32, 500)...)
	for i := range records {
		records[i].Time = start
	}
	b.topic("filled", 1, records...)
	o = quick("filled")
	o.AlarmsPerDay = 10
	fitted := false
	b.deps.Progress = func(p Progress) { fitted = fitted || p.Stage == "fit" }
	if _, err := b.run(o); err == nil || fitted || !strings.Contains(err.Error(), "do not say how many records a day") || !strings.Contains(hint(err), "--time") {
		t.Errorf("%v, fitted %v", err, fitted)
	}
}

// A sample of the records does not change how many the topic has a day.
func TestRecordsPerDayOfASample(t *testing.T) {
	b := newBench(t)
	b.topic("t", 2, values(2, machine(33, 8000)...)...)
	o := quick("t")
	o.Sample, o.Epochs = "25%", 1
	if r := b.mustRun(o); r.Rows.Used > 2500 || math.Abs(r.RecordsPerDay/86400-1) > .05 {
		t.Errorf("%d rows, %v records a day", r.Rows.Used, r.RecordsPerDay)
	}
}

func TestThresholdByFitOfTheTail(t *testing.T) {
	b := newBench(t)
	b.topic("t", 2, values(2, machine(34, 6000)...)...)
	o := quick("t")
	o.ThresholdMethod, o.AlarmRate, o.Epochs = model.ByTail, 1e-3, 10
	r := b.mustRun(o)
	c := r.Model.Lineage.Threshold
	if c.Method != model.ByTail || c.Tail == nil || c.Used != 1e-3 || c.Few || r.Threshold <= c.Tail.From || !(c.Low < 1e-3 && 1e-3 < c.High) {
		t.Fatalf("%+v, warnings %q", c, r.Warnings)
	}
	if r.Above > 30 {
		t.Errorf("%d of 6000 above", r.Above)
	}
	again, err := model.Decode(r.Data)
	if err != nil || again.Threshold != r.Threshold || *again.Lineage.Threshold.Tail != *c.Tail {
		t.Errorf("%v", err)
	}

	// Scores in steps: the quantile stands in, and the report says why.
	draw := rand.New(rand.NewPCG(3, 4))
	rows := make([]string, 4000)
	for i := range rows {
		rows[i] = fmt.Sprintf(`{"a":%d,"b":%d,"c":%d}`, draw.IntN(3)*draw.IntN(2), draw.IntN(4)*draw.IntN(3), draw.IntN(2)*draw.IntN(5))
	}
	b.topic("steps", 1, values(1, rows...)...)
	o.Topic = "steps"
	r = b.mustRun(o)
	if c := r.Model.Lineage.Threshold; c.Method != model.ByQuantile || !slices.ContainsFunc(r.Warnings, func(w string) bool {
		return strings.Contains(w, "a quantile and not a fit of the tail") && strings.Contains(w, "not smooth")
	}) {
		t.Errorf("%+v, %q", c, r.Warnings)
	}
}

func TestThresholdByLabel(t *testing.T) {
	rows := machine(35, 4000)
	for i := range rows {
		label := 0
		if i%100 == 7 {
			label = 1
			rows[i] = fmt.Sprintf(`{"load":0.1,"temp":%d,"flow":4.7,"volts":12}`, 95+i/500)
		}
		rows[i] = strings.Replace(rows[i], "}", fmt.Sprintf(`,"bad":%d}`, label), 1)
	}
	b := newBench(t)
	b.topic("t", 2, values(2, rows...)...)
	o := quick("t")
	o.Label, o.ThresholdMethod, o.Epochs = "bad", model.ByLabel, 15
	o.Detector, o.Trim = DetectorAutoencoder, 0 // the bad rows break a relation, near all others
	r := b.mustRun(o)
	c := r.Model.Lineage.Threshold
	if c.Method != model.ByLabel || c.Goal != model.GoalF1 || c.Sample.Rows != 4000 || c.Sample.Anomalies != 40 || c.Sample.F1() < .85 {
		t.Fatalf("%+v, %+v", c, c.Sample)
	}
	if r.Judgement.Recall != c.Sample.Recall || r.Judgement.Precision != c.Sample.Precision {
		t.Errorf("%+v, %+v", r.Judgement, c.Sample)
	}
	o.ThresholdGoal = "recall=100%"
	if r := b.mustRun(o); r.Judgement.Recall != 1 || r.Model.Lineage.Threshold.Asked != 1 {
		t.Errorf("%+v", r.Judgement)
	}
	for i := range rows {
		rows[i] = strings.Replace(rows[i], `"bad":1`, `"bad":0`, 1)
	}
	b.topic("one", 1, values(1, rows...)...)
	o.Topic = "one"
	if _, err := b.run(o); err == nil || !strings.Contains(err.Error(), "field bad says 0 and 4000") {
		t.Errorf("one class: %v", err)
	}
	var input *InputError
	if _, err := b.run(o); !errors.As(err, &input) || input.Next == "" {
		t.Errorf("%v", err)
	}
}

// Case 4.15: six hours without records are seen in the report, and so is where they lie.
func TestGapIsInTheReport_Case4_15(t *testing.T) {
	b := newBench(t)
	records := values(2, machine(36, 6000)...)
	for i := range records {
		records[i].Time = start + int64(i)*10_000
		if i >= 3000 {
			records[i].Time += 6 * 3_600_000
		}
	}
	b.topic("t", 2, records...)
	o := quick("t")
	o.Epochs = 1
	r := b.mustRun(o)
	var text strings.Builder
	if err := r.Write(&text); err != nil {
		t.Fatal(err)
	}
	empty := 0
	for _, share := range r.Timeline {
		if share == 0 {
			empty++
		}
	}
	// 6 of 22.7 hours, of which 24 parts are 57 minutes.
	if len(r.Timeline) != 24 || empty < 5 || empty > 6 || !strings.Contains(text.String(), "no rows from about 2025-06-15 2") || strings.Count(text.String(), "no rows from") != 1 {
		t.Errorf("%v\n%s", r.Timeline, text.String())
	}
}

// exact is a report whose every figure is known, so that its text can be held to the letter.
func exact() *Report {
	scores := make([]float64, 20_000)
	for i := range scores {
		scores[i] = .25 + float64(i)/20_000
	}
	for i := 19_900; i < 20_000; i++ {
		scores[i] = 2 + float64(i-19_900)/20
	}
	c := model.ThresholdChoice{Method: model.ByQuantile, Asked: 1e-4, Used: 5e-4, Few: true, Rows: 20_000, Above: 5e-4}
	c.Low, c.High = model.RateInterval(10, 20_000)
	m := &model.Model{Program: &kernels.Program{Width: 3}, Quantiles: model.Quantiles(scores), Threshold: 6.5007}
	m.Lineage = model.Lineage{Rows: model.Rows{Used: 20_000}, Metrics: map[string]float64{"labelled": 20_000, "base_rate": .005}, Threshold: &c}
	return &Report{
		Topic: "payments", Name: "payments", Model: m, Choice: c, From: -1, Until: -1, Layers: []int{16, 2, 16}, Steps: 1000, ValidationLoss: .25,
		Spec:   model.Spec{Time: &model.Time{Field: "when"}, Fields: []model.Field{{Name: "amount"}, {Name: "age"}, {Name: "country"}}},
		Notes:  []model.ColumnNote{{Name: "id", Note: "left out: looks like an identifier"}},
		Ranges: make([]model.PartitionRange, 6), Rows: model.Rows{Read: 20_012, Used: 20_000},
		LeftOut:       []LeftOut{{Reason: "tombstone", Count: 8}, {Reason: "not_json", Count: 4, Examples: []Example{{2, 71, "byte 1: a value should begin here"}}}},
		RecordsPerDay: 2400, Span: &model.Span{From: 1_750_000_000_000, To: 1_750_720_000_000, RecordsPerDay: 2400},
		Timeline: []float64{.2, .1, .1, 0, 0, .15, .25, .2}, Columns: make([]ColumnReport, 5),
		Threshold: 6.5007, RateAsked: 1e-4, RateUsed: 5e-4, Above: 10, ShareAbove: 5e-4, Suspicious: m.Suspicious(), Median: .75, Highest: 6.95,
		Worst:     []FieldFit{{"country", .98}, {"age", .61}, {"amount", .07}},
		Judgement: &Judgement{Labelled: 20_000, Positives: 100, BaseRate: .005, Defined: true, AveragePrecision: .913, AUC: .998, Recall: .1, Precision: 1, RecallAt: [3]float64{.2, 1, 1}},
		Warnings:  []string{"20,000 rows are too few for the alarm rate asked, 0.01%: the rate used is 0.05% (100,000 rows would do)"},
	}
}

func TestReportWords(t *testing.T) {
	for name, change := range map[string]func(*Report){
		"quantile": func(*Report) {},
		"tail": func(r *Report) {
			r.Choice = model.ThresholdChoice{Method: model.ByTail, Asked: 1e-3, Used: 1e-3, Above: .00105, Low: 7.1e-4, High: .0013, Rows: 20_000, Tail: &model.Tail{From: 1, Share: .055, Shape: -.08, Scale: .3}}
			r.Model.Lineage.Metrics, r.Judgement, r.Warnings = nil, nil, nil
			r.Timeline, r.RecordsPerDay, r.Span.RecordsPerDay = nil, 0, 0
		},
		"label": func(r *Report) {
			r.Choice = model.ThresholdChoice{Method: model.ByLabel, Goal: model.GoalRecall, Asked: .9, Used: .006, Above: .006, Low: .005, High: .0072, Rows: 20_000,
				Sample: &model.Sample{Rows: 20_000, Anomalies: 100, Recall: .91, RecallLow: .836, RecallTop: .958, Precision: .8, Above: 114}}
			r.Judgement = &Judgement{Labelled: 20_000}
		},
		// Notes stand below the features, whatever comes between; one of a thing is no plural; a topic filled at once has no rate.
		"rolling": func(r *Report) {
			r.Spec.Rolling, r.Spec.Time, r.Rows.Warming, r.Ranges = 10, nil, 54, r.Ranges[:1]
			r.Columns, r.Timeline, r.RecordsPerDay, r.Span.RecordsPerDay, r.Suspicious = r.Columns[:1], nil, 0, 0, 0
		},
		"highest": func(r *Report) {
			r.Choice = model.ThresholdChoice{Method: model.ByQuantile, High: 1.84e-4, Rows: 20_000}
			r.Threshold, r.Judgement = 8, &Judgement{Labelled: 20_000, Positives: 0}
		},
	} {
		r := exact()
		change(r)
		var text strings.Builder
		if err := r.Write(&text); err != nil {
			t.Fatal(err)
		}
		golden(t, "report-"+name+".txt", text.String())
	}
}

// Case 4.07: 3 % of the history are a cluster of its own. With trimming, a budget of 3 % finds it; without, less of it. The
// report shows that something lies far from the rest, and calls the rate a budget.
func TestAnomaliesInTheHistory_Case4_07(t *testing.T) {
	draw := rand.New(rand.NewPCG(40, 7))
	rows := machine(37, 6000)
	for i := range rows {
		label := 0
		if draw.Float64() < .03 {
			label = 1
			rows[i] = fmt.Sprintf(`{"load":%.4f,"temp":%.3f,"flow":%.3f,"volts":%.4f}`, .9+.01*draw.NormFloat64(), 78+.3*draw.NormFloat64(), 2.3+.05*draw.NormFloat64(), 13.4+.05*draw.NormFloat64())
		}
		rows[i] = strings.Replace(rows[i], "}", fmt.Sprintf(`,"bad":%d}`, label), 1)
	}
	b := newBench(t)
	b.topic("t", 2, values(2, rows...)...)
	type how struct {
		detector string
		trim     float64
	}
	recall := map[how]float64{}
	for _, h := range []how{{DetectorBlend, .25}, {DetectorBlend, 0}, {DetectorAutoencoder, .25}, {DetectorAutoencoder, 0}} {
		o := Defaults()
		o.Topic, o.Model, o.Threads, o.Label, o.AlarmRate, o.Detector, o.Trim = "t", "m", 2, "bad", .03, h.detector, h.trim
		r := b.mustRun(o)
		recall[h] = r.Judgement.Recall
		var text strings.Builder
		if err := r.Write(&text); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"% of the history scores far out, above ", "█", "a budget of alarms, true ones included", "average precision", "recall"} {
			if !strings.Contains(text.String(), want) {
				t.Errorf("no word of %q in\n%s", want, text.String())
			}
		}
	}
	if blend := recall[how{DetectorBlend, .25}]; blend < .5 || blend < recall[how{DetectorBlend, 0}]+.1 || recall[how{DetectorAutoencoder, .25}] < recall[how{DetectorAutoencoder, 0}]+.2 {
		t.Errorf("recall %v", recall)
	}
}

package trainer

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/model"
)

// columns is how the history's columns enter the network.
type columns struct {
	forward  []kernels.Column
	scaled   []scaled
	constant []bool
	numbers  []bool    // that vary
	ridge    []float64 // see scaled.ridge
}

// straighten gives numbers straight maps, in standard deviations from the median: a relation between columns is mostly
// simpler in their own units than in ranks.
func (c *columns) straighten() {
	for i, number := range c.numbers {
		if number {
			k := &c.forward[i]
			k.X, k.Y = []float32{float32(c.scaled[i].Centre)}, []float32{0}
			k.Before = float32(1 / c.scaled[i].Spread)
			k.After = k.Before
		}
	}
}

// columns chooses each column's map and reports what was done.
func (j *job) columns(h *history, r *Report) (*columns, error) {
	rules, names, fields := h.spec.ColumnRules(), h.spec.Columns(), h.spec.ColumnFields()
	c := &columns{}
	varying := 0
	for i := range h.summaries {
		s, f := &h.summaries[i], &rules[i]
		k := scale(s, f)
		c.scaled = append(c.scaled, k)
		c.forward = append(c.forward, k.forward(s, f))
		c.constant = append(c.constant, k.Constant)
		c.numbers = append(c.numbers, !k.Constant && f.Type == model.Number)
		c.ridge = append(c.ridge, k.ridge(s, f))
		if !k.Constant {
			varying++
		}
		note := k.note(s)
		if rolling := f.Type == model.Number && names[i] != h.spec.Fields[fields[i]].Name; rolling && k.Clipped == 0 {
			note = "" // what it has beside extremes, its field has too; and the first of a key are no news
		}
		// A category's column for unseen values is nearly always constant 0: not worth a line.
		if note != "" && !(f.Type == model.Category && k.Constant) {
			r.Notes = append(r.Notes, model.ColumnNote{Name: names[i], Note: note})
		}
		r.Columns = append(r.Columns, ColumnReport{Name: names[i], Summary: *s, Scale: k.Scale, Lo: k.Lo, Hi: k.Hi, Constant: k.Constant, Clipped: k.Clipped, Note: note})
	}
	for i := range h.fields {
		if n := h.fields[i].Wrong(); n > 0 {
			r.Notes = append(r.Notes, model.ColumnNote{Name: h.fields[i].Name, Note: fmt.Sprintf("another type than %s in %d records, taken as missing", h.spec.Fields[i].Type, n)})
		}
	}
	if varying == 0 {
		return nil, constantError(j, len(h.spec.Fields))
	}
	return c, nil
}

// scores evaluates the whole history, in row order; stage is the name for its progress.
func (j *job) scores(ctx context.Context, h *history, s kernels.Scorer, stage string) ([]float32, error) {
	scores := make([]float32, h.n)
	var done atomic.Int64
	var failed error
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		failed = h.pass(ctx, j.Threads, func(_, first int, rows []float32) error {
			to := scores[first : first+len(rows)/h.width]
			defer done.Add(int64(len(to)))
			return s.Score(rows, kernels.Output{Score: to})
		})
	}()
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	started := time.Now()
	pace := newPace(int64(h.n), started)
	progress := func(last bool) {
		p := Progress{Stage: stage, Records: done.Load(), TotalRecords: int64(h.n)}
		now := time.Now()
		if seconds := now.Sub(started).Seconds(); seconds > 0 && p.Records > 0 {
			p.RecordsPerSecond = float64(p.Records) / seconds
		}
		p.Done, p.Left = float64(p.Records)/float64(h.n), pace.left(p.Records, now)
		j.report(p, last)
	}
	progress(true)
	for {
		select {
		case <-finished:
			progress(true)
			return scores, failed
		case <-tick.C:
			progress(false)
		}
	}
}

// finish scores the history and gives the program its heads' weights.
func (j *job) finish(ctx context.Context, h *history, f *fitted) ([]float32, error) {
	scorer, err := j.Engine.Scorer(f.program)
	if err != nil {
		return nil, err
	}
	e, err := j.scores(ctx, h, scorer, "judge")
	if err != nil || j.Detector != DetectorBlend {
		return e, err
	}
	// Without the means, which change no ranking, the score is a sum of distances and so of contributions.
	p := f.trimmed.p
	wp, we := float32(f.weight/deviation(p)), float32((1-f.weight)/deviation(e))
	f.program = kernels.Blended(f.program, f.trimmed.groups, f.trimmed.prototypes, wp, we)
	f.trimmed.p = nil
	for i := range p { // what the program's Join does, without a third pass over the history
		p[i] = float32(wp*p[i]) + float32(we*e[i])
	}
	return p, nil
}

const (
	// prototypeWeight of the score is the prototypes' distance; 1/2 costs some thousandths.
	prototypeWeight = 2. / 3
	// leastHead is what a head's standard deviation is taken as at least: where all rows are equal it says nothing.
	leastHead = 1e-6
)

// deviation is the standard deviation of a head over the history; scores that are not finite are left out.
func deviation(scores []float32) float64 {
	var n, mean, squares float64
	for _, s := range scores {
		if v := float64(s); !math.IsNaN(v) && !math.IsInf(v, 0) {
			n++
			d := v - mean
			mean += d / n
			squares += d * (v - mean)
		}
	}
	return max(math.Sqrt(squares/max(n, 1)), leastHead)
}

// judge scores the history and finishes the model.
func (j *job) judge(ctx context.Context, h *history, f *fitted, r *Report) error {
	scores, err := j.finish(ctx, h, f)
	if err != nil {
		return err
	}
	scorer, err := j.Engine.Scorer(f.program)
	if err != nil {
		return err
	}
	// Scores that are not finite are anomalies by definition and have no place in a distribution.
	sorted := make([]float32, 0, h.n)
	for _, s := range scores {
		if !math.IsNaN(float64(s)) && !math.IsInf(float64(s), 0) {
			sorted = append(sorted, s)
		}
	}
	slices.Sort(sorted)
	n := len(sorted)
	if n == 0 {
		return &InputError{What: fmt.Sprintf("none of the %d rows has a finite score", h.n), Place: "topic " + j.Topic, Next: "look for columns with extreme values (lapwing train --dry-run)", Kind: ErrDiverged}
	}
	median := float64(sorted[(n-1)/2])
	r.Median, r.Highest = median, float64(sorted[n-1])
	r.Rows.Validation = int64(f.validation)
	f.parts["threshold"] = int64(n)
	metrics := map[string]float64{"median_score": median, "explained": f.explained}
	m := &model.Model{Program: f.program, Spec: h.spec, Quantiles: model.Quantiles(sorted)}
	if m.SelfTest, err = selfTest(h, scores); err != nil {
		return err
	}
	m.Lineage = model.Lineage{
		Cluster: r.Cluster, Topic: j.Topic, Partitions: r.Ranges, Rows: r.Rows,
		Engine: j.Engine.Name() + "/" + j.Engine.Level(), Seed: j.Seed,
		Settings: j.settings(f, &h.spec), Parts: f.parts, Metrics: metrics, Curve: f.curve, Usual: usual(&h.spec, r.Columns), Notes: r.Notes, Span: r.Span,
	}
	r.HoursOfWeek, r.rhythm = rhythm(h, scores, sorted)
	threshold, choice, err := j.threshold(h, scores, sorted, m, r)
	if err != nil {
		return err
	}
	m.Threshold, m.Lineage.Threshold = threshold, &choice
	// The threshold lies a margin above a score of the history. How many rows stand in that gap and just below it
	// says whether the distribution has a step there.
	gap := 2 * max(1e-4*max(threshold, median), 1e-6)
	ties := below(sorted, threshold) - below(sorted, threshold-gap)

	metrics["rate_used"], metrics["share_above"], metrics["ties"] = choice.Used, choice.Above, float64(ties)/float64(n)
	if f.candidates != nil {
		f.candidates.metrics(metrics)
	}
	if f.layers != nil {
		metrics["validation_loss"] = f.loss
		metrics["untrained_loss"] = f.untrained
		metrics["best_epoch"] = float64(f.best)
	}
	r.Threshold, r.RateUsed, r.Choice = threshold, choice.Used, choice
	r.ShareAbove, r.Ties = choice.Above, float64(ties)/float64(n)
	r.ValidationLoss, r.Curve = f.loss, f.curve
	if r.Worst, err = worst(h, f.program, scorer); err != nil {
		return err
	}
	if j.Label != "" {
		positives, negatives := byLabel(h, scores)
		r.Judgement = judge(positives, negatives, threshold)
		r.Judgement.metrics(metrics)
	}
	r.Model = m
	r.Warnings = j.warnings(h, r)
	return nil
}

// below counts the scores below v.
func below(sorted []float32, v float64) int {
	return sort.Search(len(sorted), func(i int) bool { return float64(sorted[i]) >= v })
}

// settings are those that change the result.
func (j *job) settings(f *fitted, spec *model.Spec) map[string]string {
	v, _ := j.vocabulary()
	s := map[string]string{
		"detector":      j.Detector,
		"trim":          strconv.FormatFloat(f.trim, 'g', -1, 64),
		"layers":        layerNames(f.layers),
		"alarm_rate":    strconv.FormatFloat(j.AlarmRate, 'g', -1, 64),
		"batch_size":    strconv.Itoa(j.BatchSize),
		"learning_rate": strconv.FormatFloat(v.rate, 'g', -1, 64),
		"activation":    j.Activation,
		"loss":          j.Loss,
		"optimizer":     j.Optimizer,
		"patience":      strconv.Itoa(j.Patience),
		"steps":         strconv.Itoa(f.steps),
	}
	if spec.Rolling > 0 {
		s["rolling"], s["rolling_keys"] = strconv.Itoa(spec.Rolling), strconv.Itoa(j.RollingKeys)
	}
	j.Selection.settings(s)
	if f.candidates != nil {
		f.candidates.settings(s)
	}
	if j.key != "" {
		s["key"] = j.key
	}
	if v.loss == kernels.Huber {
		s["huber_delta"] = strconv.FormatFloat(j.HuberDelta, 'g', -1, 64)
	}
	if j.Epochs > 0 {
		s["epochs"] = strconv.Itoa(j.Epochs)
	}
	if f.rate != 0 && f.rate != v.rate {
		s["learning_rate_used"] = strconv.FormatFloat(f.rate, 'g', -1, 64)
	}
	return s
}

const (
	selfTestRows    = 16
	selfTestHighest = 4 // of those, the highest scores
	selfTestMissing = 4 // and rows with missing values, where there are any
)

// selfTest picks rows that together walk every path of the program: evenly spread ones, the highest scores (clips,
// saturated units), and some with missing values. All stand in history order.
func selfTest(h *history, scores []float32) (t model.SelfTest, err error) {
	picked := map[int]bool{}
	finite := func(g int) bool { s := float64(scores[g]); return !math.IsNaN(s) && !math.IsInf(s, 0) }
	take := func(g int) {
		if finite(g) {
			picked[g] = true
		}
	}
	highest := make([]int, 0, selfTestHighest+1)
	for g := range scores {
		if !finite(g) {
			continue
		}
		at := len(highest)
		for at > 0 && scores[g] > scores[highest[at-1]] {
			at--
		}
		if at < selfTestHighest {
			highest = slices.Insert(highest, at, g)
			highest = highest[:min(len(highest), selfTestHighest)]
		}
	}
	for _, g := range highest {
		take(g)
	}
	holes, err := h.withMissing(selfTestMissing)
	if err != nil {
		return t, err
	}
	for _, g := range holes {
		take(g)
	}
	// The first of ever finer grids that fills the rest: no row twice, ends included where they fit.
	for parts := selfTestRows; len(picked) < min(selfTestRows, h.n) && parts <= 4*max(h.n, selfTestRows); parts *= 2 {
		for i := 0; i < parts && len(picked) < selfTestRows; i++ {
			take(int(int64(i) * int64(h.n) / int64(parts)))
		}
	}
	rows := make([]int, 0, len(picked))
	for g := range picked {
		rows = append(rows, g)
	}
	slices.Sort(rows)
	flat, err := h.gather(rows, nil)
	for i, g := range rows {
		if err != nil {
			break
		}
		t.Rows = append(t.Rows, flat[i*h.width:(i+1)*h.width])
		t.Scores = append(t.Scores, scores[g])
	}
	return t, err
}

// warnings are what a reader should not miss.
func (j *job) warnings(h *history, r *Report) []string {
	var w []string
	warn := func(bad bool, format string, args ...any) {
		if bad {
			w = append(w, fmt.Sprintf(format, args...))
		}
	}
	warn(h.n < Defaults().MinRows, "only %d rows: the threshold means little", h.n)
	if r.Choice.Few {
		enough := 10 / r.RateAsked
		if r.Choice.Method == model.ByTail {
			enough = 3 / r.RateAsked
		}
		warn(true, "%s rows are too few for the alarm rate asked, %s: the rate used is %s (%s rows would do)",
			thousands(int64(h.n)), percent3(r.RateAsked), percent3(r.RateUsed), thousands(int64(math.Ceil(enough-1e-6))))
	}
	if len(r.rhythm) > 0 {
		warn(true, "%s", rhythmWarning(r.rhythm))
	}
	warn(r.fallback != "", "the threshold is a quantile and not a fit of the tail: %s", r.fallback)
	if s := r.Choice.Sample; s != nil {
		warn(s.Anomalies < 10, "the threshold rests on %s: a handful decides it", plural(s.Anomalies, "labelled anomaly"))
	}
	warn(r.Ties > max(.001, 2*r.RateUsed), "the score distribution has %s ties at the threshold: rows with that score do not alarm", percent3(r.Ties))
	warn(r.Partial > 0, "%s with more than half of the fields missing", plural(r.Partial, "row"))
	warn(2*r.Rows.Warming > int64(h.n), "%s of %s rows had fewer than %d records of their key behind them: their rolling features say little; name the key with --key, or do without --rolling where keys live short or the topic is compacted",
		thousands(r.Rows.Warming), thousands(int64(h.n)), h.spec.Rolling)
	if n := r.Rows.LeftOut["not_finite"]; n > 0 {
		warn(true, "%s with infinities or numbers beyond float32: serve calls them anomalies", plural(n, "record"))
	}
	for _, name := range j.unseen() {
		warn(true, "field %s of the filter is in none of the %s records", name, thousands(r.Rows.Read))
	}
	for problem, n := range r.TimeProblems {
		warn(float64(n) > .01*float64(r.Rows.Read), "the time field %s: %s in %s; the Kafka timestamp stands in", h.spec.Time.Field, problem, plural(n, "record"))
	}
	slices.Sort(w)
	// Rows far from the rest are either what is looked for or a sign that the history is no model of normal.
	r.Suspicious = r.Model.Suspicious()
	warn(r.Suspicious > max(10*r.RateUsed, .01), "suspicious: %s of the history scores far out, above %.4g; was everything in order then?", percent3(r.Suspicious), r.Model.FarOut())
	return w
}

func percent3(share float64) string { return strconv.FormatFloat(100*share, 'g', 3, 64) + "%" }

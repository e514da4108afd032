package fleet_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/lapwing-stream/lapwing/bench/fleet"
	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
)

// The script of the demo in small: what a detector is trained on, what it then sees, and how it alarms.
const (
	raiseAfter = 3    // records of a car above the threshold
	clearAfter = 10   // records of a car at or below it
	alarmRate  = 1e-4 // share of the history above the threshold
)

// script is a history followed by live traffic, both played from one fleet.
type script struct {
	history, live int // records
	lead          int // live records before the first fault
	episodes      int
	layers        []int
	steps         int
}

func (s script) options(seed uint64) fleet.Options {
	o := fleet.Options{Seed: seed}
	o.Faults.Stretches = []fleet.Stretch{{After: o.Span(s.history + s.lead), Over: o.Span(s.live - s.lead), Episodes: s.episodes}}
	return o
}

// row is one record as a detector and its judge need it.
type row struct {
	car  string
	time time.Time
}

// played is a script's output: 18 columns a row.
type played struct {
	rows     []row
	values   []float32
	episodes []fleet.Episode
}

var width = len(fleet.Features())

func play(t testing.TB, o fleet.Options, n int) *played {
	t.Helper()
	f, err := fleet.New(o)
	if err != nil {
		t.Fatal(err)
	}
	p := &played{values: make([]float32, 0, n*width)}
	for range n {
		r, began := f.Next()
		p.episodes = append(p.episodes, began...)
		p.rows = append(p.rows, row{r.Key, r.Time})
		p.values = appendNumbers(t, p.values, r.Value)
	}
	return p
}

// appendNumbers reads the numbers behind "time" and "car" of a record.
func appendNumbers(t testing.TB, dst []float32, value []byte) []float32 {
	parts := bytes.Split(bytes.TrimSuffix(value, []byte("}")), []byte(","))
	for _, part := range parts[2:] {
		_, number, _ := bytes.Cut(part, []byte(":"))
		x, err := strconv.ParseFloat(string(number), 32)
		if err != nil {
			t.Fatalf("%s: %v", value, err)
		}
		dst = append(dst, float32(x))
	}
	return dst
}

// detector is the plain first model: robust scaling, an autoencoder, the norm of what it leaves over.
type detector struct {
	scorer    kernels.Scorer
	threshold float64
}

func train(t testing.TB, values []float32, layers []int, steps int) detector {
	t.Helper()
	n := len(values) / width
	columns := make([]kernels.Column, width)
	for j := range columns {
		sorted := make([]float64, n)
		for i := range sorted {
			sorted[i] = float64(values[i*width+j])
		}
		slices.Sort(sorted)
		median, scale := sorted[n/2], (sorted[n*3/4]-sorted[n/4])/1.349
		if scale <= 0 {
			t.Fatalf("%s: the middle half of the history has one value, %v", fleet.Features()[j], median)
		}
		slope := float32(1 / scale)
		columns[j] = kernels.Column{
			Impute: float32(median), Lo: float32(math.Inf(-1)), Hi: float32(math.Inf(1)),
			X: []float32{float32(median)}, Y: []float32{0}, Before: slope, After: slope,
		}
	}
	code := slices.Index(layers, slices.Min(layers))
	acts := make([]kernels.Activation, len(layers))
	for i := range acts {
		if i != code {
			acts[i] = kernels.Tanh
		}
	}
	p := kernels.Autoencoder(columns, layers, acts)
	kernels.Initialise(p, 1)
	target, prediction, _ := p.Residual()
	const batch = 256
	tr, err := cpu.New().Trainer(p, kernels.TrainOptions{Prediction: prediction, Target: target, MaxBatch: batch, Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	dice := rand.New(rand.NewPCG(1, 1))
	order := dice.Perm(n)
	rows := make([]float32, 0, batch*width)
	for step, at := 0, 0; step < steps; step, at = step+1, at+batch {
		if at+batch > n {
			dice.Shuffle(n, func(i, j int) { order[i], order[j] = order[j], order[i] })
			at = 0
		}
		rows = rows[:0]
		for _, i := range order[at : at+batch] {
			rows = append(rows, values[i*width:(i+1)*width]...)
		}
		rate := 3e-3 * .5 * (1 + math.Cos(math.Pi*float64(step)/float64(steps)))
		if _, err := tr.Step(rows, float32(rate)); err != nil {
			t.Fatal(err)
		}
	}
	at := 0
	weights := tr.Parameters()
	for _, s := range p.Steps {
		if g, ok := s.(*kernels.Gemm); ok {
			g.W, g.B = weights[at], weights[at+1]
			at += 2
		}
	}
	scorer, err := cpu.New().Scorer(p)
	if err != nil {
		t.Fatal(err)
	}
	d := detector{scorer: scorer}
	scores := d.score(t, values)
	slices.Sort(scores)
	d.threshold = float64(scores[n-1-int(alarmRate*float64(n))])
	return d
}

func (d detector) score(t testing.TB, values []float32) []float32 {
	t.Helper()
	scores := make([]float32, len(values)/width)
	if err := d.scorer.Score(values, kernels.Output{Score: scores}); err != nil {
		t.Fatal(err)
	}
	return scores
}

// alerts gives the rows, from the given one on, at which an alert is raised.
func (d detector) alerts(t testing.TB, p *played, from int) []int {
	type state struct {
		above, below int
		up           bool
	}
	cars := map[string]*state{}
	var raised []int
	for i, score := range d.score(t, p.values[from*width:]) {
		s := cars[p.rows[from+i].car]
		if s == nil {
			s = &state{}
			cars[p.rows[from+i].car] = s
		}
		if float64(score) > d.threshold {
			s.above, s.below = s.above+1, 0
			if s.above >= raiseAfter && !s.up {
				s.up = true
				raised = append(raised, from+i)
			}
		} else {
			s.above, s.below = 0, s.below+1
			if s.below >= clearAfter {
				s.up = false
			}
		}
	}
	return raised
}

// outcome is a verdict, and the share of found episodes at whose first alert every field of the record was
// within what the clean history holds.
type outcome struct {
	fleet.Verdict
	inside float64
	kinds  map[fleet.Kind]int
	missed []string
}

// judge trains on the first rows, so many as trained, and judges those after them. Ranges are the history's.
func (s script) judge(t testing.TB, p *played, trained int) outcome {
	t.Helper()
	d := train(t, p.values[:trained*width], s.layers, s.steps)
	raised := d.alerts(t, p, trained)
	lo, hi := slices.Clone(p.values[:width]), slices.Clone(p.values[:width])
	for i, x := range p.values[:s.history*width] {
		lo[i%width], hi[i%width] = min(lo[i%width], x), max(hi[i%width], x)
	}
	var alerts []fleet.Alert
	for _, i := range raised {
		alerts = append(alerts, fleet.Alert{Car: p.rows[i].car, Time: p.rows[i].time})
	}
	var episodes []fleet.Episode
	for _, e := range p.episodes {
		if e.End.After(p.rows[trained].time) {
			episodes = append(episodes, e)
		}
	}
	o := outcome{Verdict: fleet.Judge(episodes, alerts), kinds: map[fleet.Kind]int{}}
	for k, e := range episodes {
		o.kinds[e.Kind]++
		a := o.First[k]
		if a < 0 {
			o.missed = append(o.missed, fmt.Sprint(e.Kind, e.Features))
			continue
		}
		in := true
		for j, x := range p.values[raised[a]*width : (raised[a]+1)*width] {
			in = in && x >= lo[j] && x <= hi[j]
		}
		if in {
			o.inside += 1 / float64(o.Found)
		}
	}
	return o
}

func (o outcome) String() string {
	return fmt.Sprintf("precision %.2f, recall %.2f over %d episodes of %d kinds, found after %s, %.0f %% inside the usual ranges, missed %v",
		o.Precision, o.Recall, o.Episodes, len(o.kinds), o.Detection, 100*o.inside, o.missed)
}

// TestFaultsAreFoundButNoCaricature holds the fleet to what makes it a fair example: a plain autoencoder
// finds its faults, yet for most of them no single field has left its usual range when the alert is raised.
// The figures move by a few hundredths with the training; the bounds are those promised to users.
func TestFaultsAreFoundButNoCaricature(t *testing.T) {
	s := script{history: 100_000, lead: 15_000, live: 130_000, episodes: 24, layers: []int{36, 6, 36}, steps: 3000}
	if raceDetector {
		// The detector makes this arithmetic some fifteen times slower and has nothing to find in it (the
		// engine's own tests are where it looks): the test runs again in a process without it.
		out, err := exec.Command("go", "test", "-count=1", "-v", "-run", "^"+t.Name()+"$", ".").CombinedOutput()
		t.Logf("%s", out)
		if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
			t.Errorf("without the race detector: %v", err)
		}
		return
	}
	for seed := uint64(1); seed <= 3; seed++ {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			p := play(t, s.options(seed), s.history+s.live)
			check := func(name string, o outcome) {
				t.Logf("%s: %v", name, o)
				if o.Precision < .8 || o.Recall < .8 || o.inside < .5 {
					t.Errorf("%s: %v; want precision and recall of at least .8, and at least half of the found inside", name, o)
				}
				if o.Episodes < 20 || len(o.kinds) < 4 {
					t.Errorf("%s: %d episodes of %d kinds; want at least 20 of 4", name, o.Episodes, len(o.kinds))
				}
			}
			check("first model", s.judge(t, p, s.history))
			if seed == 1 {
				// What a second training may read without meeting a fault.
				check("second model", s.judge(t, p, s.history+s.lead))
			}
		})
	}
}

package trainer

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/kernels/gorgonia"
	"github.com/lapwing-stream/lapwing/model"
)

// clustered is a history of n rows of 6 numbers, the given share of them a cluster of its own; it is marked by "bad".
func clustered(seed uint64, n int, share float64) []string {
	r := rand.New(rand.NewPCG(seed, 4))
	out := make([]string, n)
	for i := range out {
		centre, spread, bad := 0., 1., 0
		if r.Float64() < share {
			centre, spread, bad = 3, .2, 1
		}
		a := r.NormFloat64()
		out[i] = fmt.Sprintf(`{"a":%.4f,"b":%.4f,"c":%.4f,"d":%.4f,"e":%.4f,"f":%.4f,"bad":%d}`,
			centre+spread*a, centre-spread*a+.5*spread*r.NormFloat64(), centre+spread*r.NormFloat64(),
			centre+spread*r.NormFloat64(), -centre+spread*r.NormFloat64(), centre+spread*r.NormFloat64(), bad)
	}
	return out
}

// Anomalies that stand in the history as a cluster of their own are learned when nothing is trimmed, and found when it
// is: 3 % of the rows, with an alarm rate that has room for them.
func TestContaminatedHistory_Case4_07(t *testing.T) {
	b := newBench(t)
	b.topic("t", 2, values(2, clustered(1, 5000, .03)...)...)
	recall := map[float64]float64{}
	for _, trim := range []float64{0, .25} {
		o := Defaults()
		o.Topic, o.Model, o.Label, o.Alias, o.Threads, o.AlarmRate, o.Trim = "t", "m", "bad", "none", 2, .03, trim
		r := b.mustRun(o)
		recall[trim] = r.Judgement.Recall
		t.Logf("trim %v: recall %.3f, AUC %.3f, suspicious %.3f, warnings %q", trim, r.Judgement.Recall, r.Judgement.AUC, r.Suspicious, r.Warnings)
		if trim == 0 {
			continue
		}
		if r.Suspicious < .01 {
			t.Errorf("%v of the history is suspicious; 3 %% lie in a cluster of their own", r.Suspicious)
		}
		if want := (map[string]int64{"trim": 5000, "prototypes": 3750, "whitening": 3750, "threshold": 5000}); !subset(want, r.Model.Lineage.Parts) {
			t.Errorf("parts %v, want %v", r.Model.Lineage.Parts, want)
		}
		if n := r.Model.Lineage.Parts["autoencoder"]; n < 3300 || n > 3450 {
			t.Errorf("the autoencoder saw %d rows", n)
		}
	}
	if !(recall[.25] > .8 && recall[.25] > recall[0]+.1) {
		t.Errorf("recall %v by share trimmed", recall)
	}
}

func subset(want, got map[string]int64) bool {
	for k, v := range want {
		if got[k] != v {
			return false
		}
	}
	return true
}

// related is rows of sensors that two hidden numbers drive, as those of one engine.
func related(seed uint64, n int) []string {
	r := rand.New(rand.NewPCG(seed, 5))
	out := make([]string, n)
	for i := range out {
		u, v := r.NormFloat64(), r.Float64()
		e := func() float64 { return .02 * r.NormFloat64() }
		out[i] = fmt.Sprintf(`{"a":%.4f,"b":%.4f,"c":%.4f,"d":%.4f,"e":%.4f,"f":%.4f}`,
			u+e(), v+e(), u+2*v+e(), u-v+e(), 2*u+v+e(), v-2*u+e())
	}
	return out
}

// Where the columns determine each other only the rows that break their relations are trimmed, and such a row alarms
// though it lies near all others.
func TestRelatedColumnsAreTrimmedByTheirRelations(t *testing.T) {
	b := newBench(t)
	b.topic("t", 2, values(2, related(2, 4000)...)...)
	o := Defaults()
	o.Topic, o.Model, o.Threads = "t", "m", 2
	r := b.mustRun(o)
	l := r.Model.Lineage
	if l.Metrics["explained"] < relatedLeast || l.Settings["trim"] != "0.05" || math.Abs(float64(l.Parts["autoencoder"])-.95*3600) > 60 {
		t.Errorf("explained %v, settings %v, parts %v", l.Metrics["explained"], l.Settings, l.Parts)
	}
	s, err := b.deps.Engine.Scorer(r.Model.Program)
	if err != nil {
		t.Fatal(err)
	}
	scores := make([]float32, 2)
	if err := s.Score([]float32{.5, .5, 1.5, 0, 1.5, -.5, .5, .5, 1.5, 0, 1.5, 1.5}, kernels.Output{Score: scores}); err != nil {
		t.Fatal(err)
	}
	if !(float64(scores[0]) <= r.Threshold && float64(scores[1]) > r.Threshold) {
		t.Errorf("a sound row and one with a broken relation score %v, threshold %v", scores, r.Threshold)
	}
}

func TestExplained(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	const n = 4000
	rows := make([]float32, 0, 4*n)
	for range n {
		x, y := r.NormFloat64(), r.NormFloat64()
		rows = append(rows, float32(x), float32(y), float32((x+y)/math.Sqrt2), float32(r.NormFloat64()))
	}
	for _, c := range []struct {
		chosen []bool
		want   float64
	}{
		{[]bool{true, true, true, false}, 1},
		{[]bool{false, false, false, true}, 0},
		{[]bool{true, true, true, true}, .75},
		{make([]bool, 4), 0},
	} {
		got, err := explained(rows, 4, c.chosen)
		if err != nil || math.Abs(got-c.want) > .01 {
			t.Errorf("%v: %v, %v; want %v", c.chosen, got, err, c.want)
		}
	}
	if got, err := explained(rows[:4*15], 4, []bool{true, true, true, true}); err != nil || got != 0 {
		t.Errorf("15 rows of 4 columns explain %v, %v", got, err)
	}
}

// The default detector's bytes: again, with other threads, and with other threads of the runtime, which the library that
// finds eigenvalues divides its work over.
func TestBlendIsReproducible_Case8_10(t *testing.T) {
	b := newBench(t)
	b.topic("t", 3, values(3, clustered(3, 2500, .02)...)...)
	for _, detector := range []string{DetectorBlend, DetectorAutoencoder} {
		var first []byte
		for _, threads := range []int{1, 2, 3} {
			o := Defaults()
			o.Topic, o.Model, o.Alias, o.Threads, o.Epochs, o.Detector = "t", "m", "none", threads, 5, detector
			r := b.mustRun(o)
			if first == nil {
				first = r.Data
			} else if !bytes.Equal(first, r.Data) {
				t.Errorf("%s: %d threads give other bytes", detector, threads)
			}
			if r.Model.Lineage.Settings["detector"] != detector {
				t.Errorf("settings %v", r.Model.Lineage.Settings)
			}
			verify(t, b, r)
		}
	}
}

func TestEigenvaluesDoNotDependOnThreads(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	const width, n = 150, 600
	rows := make([]float32, width*n)
	for i := range rows {
		rows[i] = float32(r.NormFloat64())
		if i%width > 0 {
			rows[i] += .7 * rows[i-1]
		}
	}
	var want []float32
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, threads := range []int{1, 2, 4} {
		runtime.GOMAXPROCS(threads)
		got, err := inverseRoot(covariance(rows, width), make([]float64, width))
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = got
		} else if !slices.Equal(want, got) {
			t.Errorf("%d threads give another root", threads)
		}
	}
}

// The root of the inverse makes the covariance the unit matrix, but for the floor, and is symmetric.
func TestInverseRoot(t *testing.T) {
	c := mat.NewSymDense(3, []float64{4, 1, 0, 1, 2, 0, 0, 0, 0})
	raise := floor([]float64{4, 2, 0})
	if math.Abs(raise-.1-1e-4) > 1e-12 {
		t.Errorf("floor %v", raise)
	}
	w, err := inverseRoot(mat.NewSymDense(3, []float64{4, 1, 0, 1, 2, 0, 0, 0, 0}), []float64{0, 0, 1})
	if err != nil {
		t.Fatal(err)
	}
	at := func(i, k int) float64 { return float64(w[i*3+k]) }
	for i := range 3 {
		for k := range 3 {
			if at(i, k) != at(k, i) {
				t.Errorf("not symmetric at %d, %d", i, k)
			}
			// W·(C + ridge + floor)·W
			var got float64
			for a := range 3 {
				for b := range 3 {
					v := c.At(a, b)
					if a == b {
						v += raise
						if a == 2 {
							v++
						}
					}
					got += at(i, a) * v * at(b, k)
				}
			}
			want := 0.
			if i == k {
				want = 1
			}
			if math.Abs(got-want) > 1e-6 {
				t.Errorf("at %d, %d: %v, want %v", i, k, got, want)
			}
		}
	}
}

// The first pass and P judge a history that is larger than the sample; what they keep is much the same.
func TestTrimmingBeyondTheSample(t *testing.T) {
	h, columns := tableOf(t, clusteredRows(8, sampleMost+5000, .05))
	o := Defaults()
	o.Topic, o.Threads = "t", 2
	j := &job{Deps: Deps{Engine: cpu.New()}, Options: o}
	tr, err := j.draw(h)
	if err != nil {
		t.Fatal(err)
	}
	if len(tr.sample) != sampleMost || !slices.IsSorted(tr.sample) {
		t.Fatalf("%d rows drawn", len(tr.sample))
	}
	if tr.mapped, err = j.mapped(t.Context(), tr.raw, columns); err != nil {
		t.Fatal(err)
	}
	if err := j.trim(t.Context(), h, columns, tr, .25); err != nil {
		t.Fatal(err)
	}
	if share := float64(tr.kept.n) / float64(h.n); math.Abs(share-.75) > .01 {
		t.Errorf("%v of the history kept", share)
	}
	in := 0
	for g := range h.n {
		row, err := h.gather([]int{g}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if row[0] > 2 && row[1] > 2 && row[2] > 2 && tr.kept.has(g) {
			in++
		}
	}
	if in > h.n/1000 {
		t.Errorf("%d of the cluster's rows are kept", in)
	}
}

func clusteredRows(seed uint64, n int, share float64) [][]float32 {
	r := rand.New(rand.NewPCG(seed, 4))
	out := make([][]float32, n)
	for i := range out {
		centre, spread := 0., 1.
		if r.Float64() < share {
			centre, spread = 3, .2
		}
		for range 6 {
			out[i] = append(out[i], float32(centre+spread*r.NormFloat64()))
		}
	}
	return out
}

// tableOf is a history of numbers in one partition.
func tableOf(t *testing.T, rows [][]float32) (*history, []kernels.Column) {
	t.Helper()
	o := Defaults()
	o.Threads = 2
	j := &job{Options: o}
	w := len(rows[0])
	var spec model.Spec
	for i := range w {
		spec.Fields = append(spec.Fields, model.Field{Name: fmt.Sprint("c", i), Type: model.Number})
	}
	h := &history{spec: spec, width: w, n: len(rows), starts: []int{0, len(rows)}, partitions: make([]partition, 1)}
	var err error
	if h.store, err = j.newRowStore(w, 1, int64(len(rows))); err != nil {
		t.Fatal(err)
	}
	st := newStatistics(&spec)
	for _, r := range rows {
		if err := h.partitions[0].rows.add(h.store, r); err != nil {
			t.Fatal(err)
		}
		st.add(r)
	}
	if err := h.finish(); err != nil {
		t.Fatal(err)
	}
	h.summaries = st.summaries()
	c, err := j.columns(h, &Report{})
	if err != nil {
		t.Fatal(err)
	}
	return h, c.forward
}

// Hundreds of columns: fewer prototypes, a residual weighed column by column, and the file reads back.
func TestWideRows(t *testing.T) {
	const width = whitenColumns + 44
	r := rand.New(rand.NewPCG(9, 9))
	var spec model.Spec
	for i := range width {
		spec.Fields = append(spec.Fields, model.Field{Name: fmt.Sprintf("c%03d", i), Type: model.Number})
	}
	rows := make([]string, 400)
	for i := range rows {
		var b bytes.Buffer
		load := r.NormFloat64()
		for c := range width {
			fmt.Fprintf(&b, `%c"c%03d":%.3f`, "{,"[min(c, 1)], c, load*float64(c%3)+r.NormFloat64())
		}
		rows[i] = b.String() + "}"
	}
	b := newBench(t)
	b.topic("t", 1, values(1, rows...)...)
	o := Defaults()
	o.Topic, o.Model, o.Spec, o.Threads, o.Epochs = "t", "m", &spec, 2, 3
	spec.Format = "json"
	rep := b.mustRun(o)
	for _, s := range rep.Model.Program.Steps {
		if g, ok := s.(*kernels.Gemm); ok && len(g.W) >= width*width {
			t.Error("the residual of a wide row is weighed by a square matrix")
		}
	}
	if n := groups(2 * wideRow); n != prototypeGroups/2 {
		t.Errorf("%d groups for %d columns", n, 2*wideRow)
	}
	verify(t, b, rep)
}

func TestGorgoniaTrainsTheDefaultDetector(t *testing.T) {
	b := newBench(t)
	b.topic("t", 1, values(1, clustered(10, 600, .02)...)...)
	b.deps.Engine = gorgonia.New()
	o := Defaults()
	o.Topic, o.Model, o.Threads, o.Epochs = "t", "m", 2, 3
	verify(t, b, b.mustRun(o))
}

func TestUnite(t *testing.T) {
	rows := []float32{0, 0, .001, 0, 1, 1, 1, 1.001, 0, 0, 1, 1} // groups of four, and of two in the rest
	unite(rows, 2, 4)
	if want := []float32{0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 1, 1}; !slices.Equal(rows, want) {
		t.Errorf("%v, want %v", rows, want)
	}
}

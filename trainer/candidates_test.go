package trainer

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
)

// favouring makes the losses of its n-th trainer, from 0, a thousandth: the best candidate is planted.
type favouring struct {
	kernels.Engine
	n, made int
}

type favoured struct{ kernels.Trainer }

func (e *favouring) Trainer(p *kernels.Program, o kernels.TrainOptions) (kernels.Trainer, error) {
	t, err := e.Engine.Trainer(p, o)
	if e.made++; e.made-1 == e.n && err == nil {
		t = favoured{t}
	}
	return t, err
}

func (t favoured) Loss(rows []float32) (float64, error) {
	loss, err := t.Trainer.Loss(rows)
	return loss / 1000, err
}

func TestTheBestCandidateIsTaken(t *testing.T) {
	b := newBench(t)
	b.topic("t", 2, values(2, machine(1, 600)...)...)
	plain := b.deps.Engine
	for i, vary := range []string{VarySeed, VaryRate, VarySeed} {
		b.deps.Engine = &favouring{Engine: plain, n: i + 1}
		o := quick("t")
		o.Candidates, o.Vary, o.Alias = 4, vary, "none"
		r := b.mustRun(o)
		c := r.Candidates
		if len(c.Tried) != 4 || !c.Tried[i+1].Chosen || c.Criterion != ByValidationLoss {
			t.Fatalf("by %s: %+v; number %d is the best", vary, c, i+2)
		}
		losses := map[float64]bool{}
		for k, tried := range c.Tried {
			losses[tried.ValidationLoss] = true
			if tried.Chosen != (k == i+1) || tried.Criterion != tried.ValidationLoss || tried.Steps == 0 || tried.Fault != "" {
				t.Errorf("candidate %d: %+v", k, tried)
			}
		}
		if len(losses) != len(c.Tried) {
			t.Errorf("by %s: two candidates are one network: %+v", vary, c.Tried)
		}
		s := r.Model.Lineage.Settings
		if s["candidates"] != "4" || s["vary"] != vary || s["criterion"] != ByValidationLoss || s["candidate"] != c.Tried[i+1].Varies {
			t.Errorf("the lineage says %v", s)
		}
		if m := r.Model.Lineage.Metrics; m["criterion"] != r.ValidationLoss || !(m["criterion_worst"] > m["criterion"]) {
			t.Errorf("the lineage says %v", m)
		}
		if want := c.Tried[i+1].Varies; vary == VaryRate && s["learning_rate_used"] != strings.TrimPrefix(want, "rate ") {
			t.Errorf("the lineage says rate %s used, taken was %s", s["learning_rate_used"], want)
		}
		var text strings.Builder
		if r.Write(&text); !strings.Contains(text.String(), "candidates  4 by "+vary+", taken by the lowest validation loss: "+c.Tried[i+1].Varies) {
			t.Errorf("the report says\n%s", text.String())
		}
	}
}

// Across widths it is the ranking that counts, on labels where there are enough of both kinds, else on injected anomalies.
func TestWidthsAreJudgedByRanking(t *testing.T) {
	b := newBench(t)
	rows := machine(3, 1500)
	for i := range rows {
		label := 0
		if i%60 == 7 { // too warm for its load, some of them hardly
			rows[i], label = fmt.Sprintf(`{"load":0.5,"temp":%.1f,"flow":%.2f,"volts":12`, 72+float64(i%7)/2, 3.5+float64(i%11)/20), 1
		}
		rows[i] = fmt.Sprintf(`%s,"bad":%d}`, strings.TrimSuffix(rows[i], "}"), label)
	}
	b.topic("t", 2, values(2, rows...)...)
	for _, label := range []string{"bad", ""} {
		others := 0 // runs in which not the first was taken
		for _, seed := range []uint64{0, 4, 5} {
			o := quick("t")
			o.Candidates, o.Vary, o.Alias, o.Layers, o.Label, o.Seed = 3, VaryWidth, "none", nil, label, seed
			want := ByLabels
			if label == "" {
				o.Exclude, want = []string{"bad"}, ByInjected
			}
			r := b.mustRun(o)
			c := r.Candidates
			best := slices.MaxFunc(c.Tried, func(a, b Candidate) int { return cmp.Compare(a.Criterion, b.Criterion) })
			if c.Criterion != want || (c.Why == "") != (label != "") || c.Chosen().Criterion != best.Criterion || c.Chosen().Varies != "layers "+layerNames(r.Layers) {
				t.Errorf("label %q: %+v", label, c)
			}
			for _, k := range c.Tried {
				if !(k.Criterion > 0 && k.Criterion <= 1) || !(k.ValidationLoss > 0) || k.Criterion == k.ValidationLoss {
					t.Errorf("label %q: %+v", label, k)
				}
			}
			// As the sample holds the whole history here, the criterion is what the finished model comes to.
			if label != "" && c.Chosen().Criterion != r.Judgement.AveragePrecision {
				t.Errorf("taken with an average precision of %v; the model has %v", c.Chosen().Criterion, r.Judgement.AveragePrecision)
			}
			if !c.Tried[0].Chosen {
				others++
			}
		}
		if others == 0 {
			t.Errorf("label %q: the first is always the best, so that the test does not see a choice", label)
		}
	}
}

// The criterion sees a network that ranks badly, though its loss is the lowest.
func TestTheRankingOutweighsTheLoss(t *testing.T) {
	if better(ByInjected, .4, .6) || !better(ByInjected, .6, .4) || better(ByLabels, .5, .5) || better(ByValidationLoss, .5, .5) || !better(ByValidationLoss, .4, .6) {
		t.Error("a precision is better when higher, a loss when lower, and ties go to the earlier one")
	}
	b := newBench(t)
	b.topic("t", 2, values(2, machine(1, 800)...)...)
	b.deps.Engine = &favouring{Engine: b.deps.Engine, n: 2} // a loss that alone would win
	o := quick("t")
	o.Candidates, o.Vary, o.Alias, o.Layers = 4, VaryWidth, "none", nil
	c := b.mustRun(o).Candidates
	best := slices.MaxFunc(c.Tried, func(a, b Candidate) int { return int(math.Copysign(1, a.Criterion-b.Criterion)) })
	if c.Chosen().Criterion != best.Criterion || c.Chosen().ValidationLoss < c.Tried[2].ValidationLoss {
		t.Errorf("%+v", c)
	}
}

// Same seed, data and engine: same bytes, with any number of threads and as many networks at once as memory allows.
func TestCandidatesAreReproducible(t *testing.T) {
	b := newBench(t)
	b.topic("t", 2, values(2, machine(2, 500)...)...)
	for _, vary := range Varieties {
		var want []byte
		for threads := 1; threads <= 3; threads++ {
			o := quick("t")
			o.Candidates, o.Vary, o.Alias, o.Threads = 5, vary, "none", threads
			if vary == VaryWidth {
				o.Layers = nil
			}
			if r := b.mustRun(o); want == nil {
				want = r.Data
			} else if !bytes.Equal(r.Data, want) {
				t.Errorf("by %s: %d threads give other bytes than 1", vary, threads)
			}
		}
	}
	o := quick("t")
	o.Candidates, o.Alias, o.Layers, o.Epochs = 45, "none", []int{64, 32, 64}, 1
	many := b.mustRun(o)
	o.MaxMemory = 1 << 20
	var last Progress
	b.deps.Progress = func(p Progress) {
		if p.Stage == "fit" {
			last = p
			last.Candidates = slices.Clone(p.Candidates)
		}
	}
	j := job{Options: o}
	if networks, bytes := j.together(4); networks >= o.Candidates || bytes > o.MaxMemory/2 {
		t.Errorf("%d networks at once, %d bytes of %d", networks, bytes, o.MaxMemory)
	}
	if few := b.mustRun(o); !bytes.Equal(few.Data, many.Data) {
		t.Error("networks in two goes give another model than all at once")
	}
	if len(last.Candidates) != 45 || last.Done != 1 || last.Leader != many.Candidates.Chosen().Varies ||
		slices.ContainsFunc(last.Candidates, func(k Candidate) bool { return k.Steps == 0 || k.ValidationLoss == 0 }) {
		t.Errorf("the last progress: %+v", last)
	}
}

// One candidate is the run without; and the first of several is the very network of that run: steps, curve and weights.
func TestOneCandidateIsAPlainRun(t *testing.T) {
	b := newBench(t)
	b.topic("t", 2, values(2, machine(2, 500)...)...)
	engine := b.deps.Engine
	for name, change := range map[string]func(*Options){
		"short":          func(*Options) {},
		"many steps":     func(o *Options) { o.Epochs, o.BatchSize, o.Patience = 12, 16, 1000 }, // from one evaluation to the next an epoch may end
		"patience ended": func(o *Options) { o.Epochs, o.BatchSize, o.Patience, o.LearningRate = 40, 16, 1, .1 },
	} {
		b.deps.Engine = engine
		o := quick("t")
		o.Alias = "none"
		change(&o)
		plain := b.mustRun(o)
		if name == "patience ended" && len(plain.Curve) > evaluations/2 {
			t.Errorf("%s: %d evaluations", name, len(plain.Curve))
		}
		o.Candidates, o.Vary = 1, VaryRate
		if one := b.mustRun(o); !bytes.Equal(one.Data, plain.Data) || one.Candidates != nil {
			t.Errorf("%s: one candidate gives other bytes than a plain run", name)
		}
		o.Candidates, o.Vary = 3, VarySeed
		b.deps.Engine = &favouring{Engine: engine, n: 0}
		first := b.mustRun(o)
		if !first.Candidates.Tried[0].Chosen || first.Steps != plain.Steps || len(first.Curve) != len(plain.Curve) {
			t.Fatalf("%s: %d steps, %d evaluations; of the plain run %d, %d\n%+v", name, first.Steps, len(first.Curve), plain.Steps, len(plain.Curve), first.Candidates)
		}
		for i, want := range plain.Curve {
			got := first.Curve[i]
			if want.Validation /= 1000; got != want {
				t.Errorf("%s: evaluation %d: %+v, of the plain run %+v", name, i, got, want)
			}
		}
		for i, s := range plain.Model.Program.Steps {
			if g, ok := s.(*kernels.Gemm); ok {
				other := first.Model.Program.Steps[i].(*kernels.Gemm)
				if !sameBits(g.W, other.W) || !sameBits(g.B, other.B) {
					t.Errorf("%s: step %d: the first candidate's weights are not those of the plain run", name, i)
				}
			}
		}
		if first.Model.Threshold != plain.Model.Threshold {
			t.Errorf("%s: threshold %v, of the plain run %v", name, first.Model.Threshold, plain.Model.Threshold)
		}
	}
}

// A candidate that diverges begins again with a lower rate; one that always does is no candidate, and all of them are an error.
func TestDivergingCandidates(t *testing.T) {
	b := newBench(t)
	b.topic("t", 2, values(2, machine(1, 600)...)...)
	o := quick("t")
	o.Candidates, o.Vary, o.Alias, o.Optimizer, o.LearningRate, o.Activation = 3, VaryRate, "none", "sgd", 30, "linear"
	r := b.mustRun(o)
	if !strings.Contains(b.log.String(), "training diverged; trying again with a lower rate") || r.Candidates.Chosen().Fault != "" {
		t.Errorf("%+v; log:\n%s", r.Candidates, b.log)
	}
	o.LearningRate = 1e8
	_, err := b.run(o)
	if !errors.Is(err, ErrDiverged) || !strings.Contains(err.Error(), "every one of 3 candidates") {
		t.Errorf("error %v", err)
	}
}

func TestCandidateSets(t *testing.T) {
	for _, tt := range []struct {
		vary       string
		candidates int
		want       string
	}{
		{VarySeed, 3, "seed 7, seed 8, seed 9"},
		{VaryRate, 5, "rate 0.003, rate 0.0015, rate 0.006, rate 0.00075, rate 0.012"},
		{VaryWidth, 5, "layers 20,3,20, layers 10,2,10, layers 40,6,40, layers 15,2,15, layers 30,5,30"},
		{VaryWidth, 9, "layers 20,3,20, layers 10,2,10, layers 40,6,40, layers 15,2,15, layers 30,5,30, layers 5,1,5, layers 60,9,60, layers 3,1,3, layers 80,9,80"},
	} {
		o := Defaults()
		o.Seed, o.Candidates, o.Vary = 7, tt.candidates, tt.vary
		j := job{Options: o}
		var got []string
		for _, v := range j.varieties([]int{20, 3, 20}, 10) {
			got = append(got, v.name)
		}
		if strings.Join(got, ", ") != tt.want {
			t.Errorf("%s: %s", tt.vary, strings.Join(got, ", "))
		}
	}
}

func TestInjectedAnomalies(t *testing.T) {
	b := newBench(t)
	b.topic("t", 1, values(1, machine(1, 900)...)...)
	j := &job{Deps: b.deps, Options: quick("t")}
	r := &Report{}
	h, err := j.read(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	c, err := j.columns(h, r)
	if err != nil {
		t.Fatal(err)
	}
	numbers := make([]int, 300)
	for i := range numbers {
		numbers[i] = 3 * i
	}
	held, err := h.gather(numbers, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := inject(held, &h.spec, c, 1)
	if n := len(got) / h.width; n < injectLeast-8 || n > injectLeast {
		t.Errorf("%d anomalous rows of 300", n)
	}
	if !sameBits(got, inject(held, &h.spec, c, 1)) || sameBits(got, inject(held, &h.spec, c, 2)) {
		t.Error("the anomalies are not those of the seed")
	}
	spikes := 0
	for i := 0; i < len(got); i += h.width {
		outside := 0
		for k, v := range got[i : i+h.width] {
			if s := &h.summaries[k]; float64(v) < s.Min || float64(v) > s.Max {
				outside++
			}
		}
		if outside > 1 {
			t.Errorf("row %d has %d values that no row of the history has", i/h.width, outside)
		}
		spikes += outside
	}
	if spikes < injectLeast/8 || spikes > injectLeast/2 {
		t.Errorf("%d of %d rows have a spike that leaves the usual range", spikes, len(got)/h.width)
	}
	// Of a single number nothing but spikes and stuck values can be made, and of nothing at all nothing.
	c.constant, c.numbers = []bool{true, true, true, false}, []bool{false, false, false, true}
	alone := inject(held, &h.spec, c, 1)
	for i := 0; i < len(alone); i += h.width {
		if slices.IndexFunc(alone[i:i+3], func(v float32) bool { return v != v }) >= 0 {
			t.Fatal("a constant column has moved")
		}
	}
	c.constant[3], c.numbers[3] = true, false
	if inject(held, &h.spec, c, 1) != nil {
		t.Error("anomalies of constant columns")
	}
}

func TestBadCandidates(t *testing.T) {
	for _, tt := range []struct {
		change func(o *Options)
		want   string
	}{
		{func(o *Options) { o.Candidates = 0 }, "candidates is 0; 1 to 1024 by seed"},
		{func(o *Options) { o.Candidates = 1025 }, "candidates is 1025; 1 to 1024 by seed"},
		{func(o *Options) { o.Candidates, o.Vary = 10, VaryRate }, "candidates is 10; 1 to 9 by rate"},
		{func(o *Options) { o.Candidates, o.Vary = 3, VaryWidth }, "layers 4,2,4 fix the widths"},
		{func(o *Options) { o.Vary = "colour" }, `vary "colour" is not known: seed, rate, width`},
		{func(o *Options) { o.Candidates, o.PerKey = 2, true }, "several candidates and a model for every key are asked for"},
		{func(o *Options) { o.PerKey, o.Resume = true, "1f2e3d4c" }, "leaves no checkpoint that another could go on from: leave resume 1f2e3d4c out"},
		{func(o *Options) { o.MaxKeys = 0 }, "max keys is 0; 1 to 1024"},
	} {
		o := quick("t")
		tt.change(&o)
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, want %s", err, tt.want)
		}
	}
}

// fleet are records of three things with habits of their own, one that is seldom seen, and some without a key.
func fleet() []stream.Record {
	var all []stream.Record
	for i, rows := range [][]string{machine(1, 400), machine(2, 300), machine(3, 350), machine(4, 30), machine(5, 20)} {
		for n, row := range rows {
			key := []string{`,"car":"a"`, `,"car":"B 7"`, `,"car":"c"`, `,"car":"rare"`, ""}[i]
			row = strings.Replace(row, `"temp":`, `"temp":`+[]string{"", "1", "2", "", ""}[i], 1) // 160, 260 degrees
			all = append(all, stream.Record{Partition: int32(i % 2), Value: []byte(strings.TrimSuffix(row, "}") + key + "}"), Time: start + int64(n)*60_000})
		}
	}
	return all
}

// Every key has a model of its own, as a run over its records alone would make it.
func TestAModelForEveryKey(t *testing.T) {
	b := newBench(t)
	b.topic("t", 2, fleet()...)
	spec := model.Spec{Format: "json", Key: "car"}
	for _, name := range []string{"flow", "load", "temp", "volts"} {
		spec.Fields = append(spec.Fields, model.Field{Name: name, Type: model.Number})
	}
	o := quick("t")
	o.Model, o.Spec, o.PerKey = "cars", &spec, true
	var stages []string
	b.deps.Progress = func(p Progress) {
		if len(stages) == 0 || stages[len(stages)-1] != p.Stage {
			stages = append(stages, p.Stage)
		}
	}
	var digests [][]string
	for threads := 1; threads <= 3; threads++ {
		o.Threads = threads
		r := b.mustRun(o)
		var names, list []string
		for _, k := range r.Keys {
			names = append(names, fmt.Sprintf("%s %d %v", k.Name, k.Rows, k.Fault))
			list = append(list, k.Manifest.Digest)
		}
		if want := []string{"cars.b-7-be0a6972 300 ", "cars.a 400 ", "cars.c 350 ", "cars.rare 30 30 rows; a model takes at least 100"}; !slices.Equal(names, want) {
			t.Errorf("%q", names)
		}
		if r.WithoutKey != 20 || !r.Published {
			t.Errorf("%d rows without a key, published %v", r.WithoutKey, r.Published)
		}
		digests = append(digests, list)
	}
	if !slices.Equal(digests[0], digests[1]) || !slices.Equal(digests[0], digests[2]) {
		t.Errorf("threads change the bytes: %v", digests)
	}
	if got := strings.Join(stages[:3], " "); got != "read keys publish" {
		t.Errorf("stages %s", got)
	}
	alone := quick("t")
	alone.Spec, alone.Alias = &spec, "none"
	alone.Where = `event.car == "a"`
	want := b.mustRun(alone).Model
	var own [3]*model.Model
	for i, name := range []string{"cars.a", KeyName("cars", "B 7"), "cars.c"} {
		m, data, err := b.deps.Registry.Get(t.Context(), registry.Ref{Name: name, Alias: "live"})
		if err != nil || m.Version != 3 {
			t.Fatalf("%s: %+v, %v", name, m, err)
		}
		if own[i], err = model.Decode(data); err != nil {
			t.Fatal(err)
		}
	}
	got := own[0]
	if got.Threshold != want.Threshold || got.Lineage.Rows.Used != want.Lineage.Rows.Used || got.Lineage.Settings["key"] != "a" || got.Lineage.Rows.LeftOut["key"] != 700 {
		t.Errorf("threshold %v, alone %v; lineage %+v", got.Threshold, want.Threshold, got.Lineage)
	}
	if got.Lineage.Span == nil || *got.Lineage.Span != *want.Lineage.Span {
		t.Errorf("span %+v, alone %+v", got.Lineage.Span, want.Lineage.Span)
	}
	for i, row := range want.SelfTest.Rows {
		if !sameBits(row, got.SelfTest.Rows[i]) || want.SelfTest.Scores[i] != got.SelfTest.Scores[i] {
			t.Errorf("row %d of the self-test differs from that of a run over the key's records alone", i)
		}
	}
	// What is usual for one is far off for another.
	for i, m := range own {
		s, err := b.deps.Engine.Scorer(m.Program)
		if err != nil {
			t.Fatal(err)
		}
		for k, temp := range []float32{70, 170, 270} {
			score := make([]float32, 1)
			if err := s.Score([]float32{3.5, .5, temp, 12}, kernels.Output{Score: score}); err != nil {
				t.Fatal(err)
			}
			if above := float64(score[0]) > m.Threshold; above != (i != k) {
				t.Errorf("model %d, temp %v: score %v, threshold %v", i, temp, score[0], m.Threshold)
			}
		}
	}
}

func TestKeysWithoutModels(t *testing.T) {
	b := newBench(t)
	b.topic("plain", 1, values(1, machine(1, 200)...)...)
	o := quick("plain")
	o.PerKey = true
	for _, tt := range []struct {
		change func(o *Options)
		want   string
		kind   error
	}{
		{func(o *Options) {}, "none of the 200 records has a key", ErrNoField},
		{func(o *Options) { o.Key = "volts"; o.MinRows = 150 }, "keys can have a model", ErrTooFewRows},
	} {
		o := o
		tt.change(&o)
		if _, err := b.run(o); !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("error %v, want %s", err, tt.want)
		}
	}
	// The records' own keys, fewer models than keys.
	records := values(1, machine(1, 600)...)
	for i := range records {
		records[i].Key = []byte{"ab"[i%5/3]} // a: 360, b: 240
	}
	b.topic("keyed", 1, records...)
	o = quick("keyed")
	o.PerKey, o.MaxKeys = true, 1
	r := b.mustRun(o)
	if len(r.Keys) != 2 || r.Keys[0].Fault != "" || r.Keys[0].Rows != 360 || r.Keys[1].Fault != "max_keys is 1, and it is number 2 by rows" {
		t.Errorf("%+v", r.Keys)
	}
}

func TestKeyName(t *testing.T) {
	long := strings.Repeat("x", 120)
	for key, want := range map[string]string{
		"c7": "cars.c7", "a.b_c-1": "cars.a.b_c-1", "C7": "cars.c7-", "c 7": "cars.c-7-", "é": "cars.--", "\xff\x00": "cars.---", long: "cars." + long[:86] + "-",
	} {
		got := KeyName("cars", key)
		if err := registry.ValidName(got); err != nil {
			t.Error(err)
		}
		if !strings.HasPrefix(got, want) || len(got) != len(want) && len(got) != len(want)+8 {
			t.Errorf("%q: %s, want %s…", key, got, want)
		}
	}
	if KeyName("cars", "C7") == KeyName("cars", "c7") || KeyName("cars", "é") == KeyName("cars", "è") {
		t.Error("two keys have one name")
	}
}

// A run with a model for every key leaves no checkpoint, and one that is told to go on from the newest begins at the beginning, though
// a run of one network has left one.
func TestAModelForEveryKeyLeavesNoCheckpoint(t *testing.T) {
	b := newBench(t)
	records := values(2, machine(4, 3000)...)
	for i := range records {
		records[i].Key = []byte{"ab"[i%2]}
	}
	b.topic("h", 2, records...)
	var left *InterruptedError
	if err := b.interrupt(slow("h"), 30, ""); !errors.As(err, &left) {
		t.Fatal(err)
	}
	o := slow("h")
	o.Epochs, o.Alias, o.PerKey = 2, "none", true
	want := b.mustRun(o)
	b.log.Reset()
	o.Resume, o.Checkpoint = Newest, 1
	got := b.mustRun(o)
	same := len(got.Keys) == len(want.Keys)
	for i := range want.Keys {
		same = same && got.Keys[i].Manifest.Digest == want.Keys[i].Manifest.Digest
	}
	if !same {
		t.Error("with --resume the models are others")
	}
	if !strings.Contains(b.log.String(), "leaves no checkpoint: training begins at the beginning") {
		t.Errorf("the log says\n%s", b.log)
	}
	j := &job{Deps: b.deps, Options: slow("h")}
	if found, err := j.find(t.Context()); err != nil || len(found) != 1 || found[0].run != left.Run {
		t.Errorf("%d runs left checkpoints, %v; want that of one network", len(found), err)
	}
	o = slow("h")
	o.PerKey = true
	if err := b.interrupt(o, 0, "keys"); errors.As(err, &left) && left.Run != "" {
		t.Errorf("interrupted: %v", err)
	}
	o.PerKey, o.Resume = false, Newest
	b.mustRun(o) // the checkpoint of one network is whole
}

// When the records of a key were made is known of its model too: what comes back every Monday, and to whom.
func TestAKeysHistoryHasItsOwnRhythm(t *testing.T) {
	b := newBench(t)
	var records []stream.Record
	for key, rows := range map[string][]stream.Record{"a": weekly(true), "b": weekly(false)} {
		for i := range rows {
			rows[i].Key = []byte(key)
		}
		records = append(records, rows...)
	}
	slices.SortStableFunc(records, func(a, b stream.Record) int { return cmp.Compare(a.Time, b.Time) })
	b.topic("t", 2, records...)
	o := Defaults()
	o.Topic, o.Model, o.Alias, o.PerKey, o.Threads = "t", "m", "none", true, 2
	for _, k := range b.mustRun(o).Keys {
		found := slices.ContainsFunc(k.Report.Warnings, func(w string) bool {
			return strings.HasPrefix(w, "high scores come back at the same hour of the week: Mon 0")
		})
		if found != (k.Key == "a") || len(k.Report.HoursOfWeek) != weekHours {
			t.Errorf("key %s: warnings %q, %d hours", k.Key, k.Report.Warnings, len(k.Report.HoursOfWeek))
		}
	}
}

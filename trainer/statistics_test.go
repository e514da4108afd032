package trainer

import (
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"testing"

	"github.com/lapwing-stream/lapwing/model"
)

func gather(log bool, values ...float32) *column {
	spec := model.Spec{Fields: []model.Field{{Name: "x", Type: model.Number, Log1p: log}}}
	s := newStatistics(&spec)
	for _, v := range values {
		s.add([]float32{v})
	}
	return &s[0]
}

func normals(r *rand.Rand, n int, mean, deviation float64) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(mean + deviation*r.NormFloat64())
	}
	return v
}

// The statistics of any order and any division among goroutines are the same to the last bit, also where the
// sketch has had to give up resolution.
func TestStatisticsDoNotDependOnOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	sets := map[string][]float32{
		"few":    {3, 1, 2, 2, -5, float32(math.NaN())},
		"normal": normals(r, 50_000, 0, 1),
		"narrow": normals(r, 50_000, 101325, 3),
		"wide":   nil,
	}
	for range 30_000 {
		sets["wide"] = append(sets["wide"], float32(math.Copysign(math.Exp(80*r.Float64()-40), r.Float64()-.3)))
	}
	for name, values := range sets {
		t.Run(name, func(t *testing.T) {
			want := gather(false, values...).summary()
			for try := range 4 {
				shuffled := slices.Clone(values)
				r.Shuffle(len(shuffled), func(i, k int) { shuffled[i], shuffled[k] = shuffled[k], shuffled[i] })
				slices.Sort(shuffled[:len(shuffled)*try/3])
				var parts []statistics
				spec := model.Spec{Fields: []model.Field{{Name: "x", Type: model.Number}}}
				for range try + 1 {
					parts = append(parts, newStatistics(&spec))
				}
				for i, v := range shuffled {
					parts[i*i%len(parts)].add([]float32{v})
				}
				for _, p := range parts[1:] {
					parts[0].merge(p)
				}
				if got := parts[0].summaries()[0]; !reflect.DeepEqual(got, want) {
					got.buckets, want.buckets = nil, nil
					t.Fatalf("try %d: %+v, want %+v", try, got, want)
				}
			}
		})
	}
}

func TestQuantilesAreClose(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, c := range []struct {
		name            string
		mean, deviation float64
	}{{"standard", 0, 1}, {"kelvin", 300, .5}, {"pressure", 101325, 3}, {"tiny", 0, 1e-12}, {"negative", -40, 7}} {
		t.Run(c.name, func(t *testing.T) {
			values := normals(r, 100_000, c.mean, c.deviation)
			s := gather(false, values...).summary()
			slices.Sort(values)
			for _, p := range []float64{0, .001, .25, .5, .75, .99, .999, 1} {
				want := float64(values[int(p*float64(len(values)-1))])
				if got := s.Quantile(p); math.Abs(got-want) > .02*c.deviation {
					t.Errorf("quantile %v is %v, want %v", p, got, want)
				}
			}
			if math.Abs(s.Mean-c.mean) > .02*c.deviation || math.Abs(s.Deviation/c.deviation-1) > .02 {
				t.Errorf("mean %v, deviation %v", s.Mean, s.Deviation)
			}
			if k := scale(&s, &model.Field{Type: model.Number}); k.Constant || math.Abs(k.Scale/c.deviation-1) > .03 {
				t.Errorf("scale %+v", k)
			}
		})
	}
}

func TestSketchIsExactForFewDistinctValues(t *testing.T) {
	var values []float32
	for i := range 4096 {
		for range 1 + i%3 {
			values = append(values, float32(i)*.25-100)
		}
	}
	s := gather(false, values...).summary()
	if s.Distinct != 4096 {
		t.Fatalf("%d distinct values, want 4096", s.Distinct)
	}
	slices.Sort(values)
	for i := 0; i < len(values); i += 97 {
		if got := s.Quantile(float64(i) / float64(len(values)-1)); got != float64(values[i]) {
			t.Fatalf("rank %d is %v, want %v", i, got, values[i])
		}
	}
}

func TestMomentsAreExact(t *testing.T) {
	for _, c := range []struct {
		values          []float32
		mean, deviation float64
	}{
		{[]float32{1e9, 1e9 + 64, 1e9 + 128}, 1e9 + 64, math.Sqrt(2 * 64 * 64 / 3.)},
		{[]float32{math.MaxFloat32, -math.MaxFloat32}, 0, math.MaxFloat32},
		{[]float32{math.SmallestNonzeroFloat32, math.SmallestNonzeroFloat32}, math.SmallestNonzeroFloat32, 0},
		{[]float32{1e30, 1, -1e30, 1}, .5, 1e30 / math.Sqrt2},
	} {
		s := gather(false, c.values...).summary()
		if math.Abs(s.Mean-c.mean) > 1e-7*math.Abs(c.mean) || math.Abs(s.Deviation-c.deviation) > 1e-6*c.deviation {
			t.Errorf("%v: mean %v, deviation %v; want %v, %v", c.values, s.Mean, s.Deviation, c.mean, c.deviation)
		}
	}
}

func TestConstantColumn_Case4_01(t *testing.T) {
	f := &model.Field{Type: model.Number}
	for _, constant := range []float32{7, 0, -1e9, 3e38, 1e-40} {
		s := gather(false, slices.Repeat([]float32{constant}, 5000)...).summary()
		k := scale(&s, f)
		if !k.Constant {
			t.Fatalf("%v: not seen as constant: %+v", constant, k)
		}
		column := k.forward(&s, f)
		if y := column.Apply(constant, false); y != 0 {
			t.Errorf("%v maps to %v, want 0", constant, y)
		}
		for _, moved := range []float32{constant + 1, constant * 1.5, 1e9, -1e9, math.MaxFloat32, -math.MaxFloat32, float32(math.NaN())} {
			y := column.Apply(moved, false)
			switch want := float32(math.Copysign(3, float64(moved-constant))); {
			case moved != moved || moved == constant || math.Abs(float64(moved-constant)) < 1e-30:
				if math.Abs(float64(y)) > 1e-6 {
					t.Errorf("%v: %v maps to %v, want 0", constant, moved, y)
				}
			case math.IsInf(float64(moved), 0):
			case y != want:
				t.Errorf("%v: %v maps to %v, want %v", constant, moved, y, want)
			}
		}
	}
}

func TestSpreadBelowThePrecisionOfTheMeanIsConstant_Case4_02(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	f := &model.Field{Type: model.Number}
	noise := gather(false, normals(r, 20_000, 1e9, 20)...).summary() // float32 steps of 64 around 1e9
	k := scale(&noise, f)
	if !k.Constant {
		t.Errorf("1e9 ± 20 is not constant: %+v", k)
	}
	column := k.forward(&noise, f)
	if y := column.Apply(1e9+64, false); math.Abs(float64(y)) > 1 {
		t.Errorf("one float32 step from the constant maps to %v", y)
	}
	small := gather(false, normals(r, 20_000, 0, 1e-12)...).summary()
	if k := scale(&small, f); k.Constant || math.Abs(k.Scale-1e-12) > 5e-14 {
		t.Errorf("1e-12 · noise: %+v", k)
	}
}

func TestGiganticValuesDoNotSetTheScale_Case4_06(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	values := normals(r, 20_000, 0, 1)
	for i := range 5 {
		values[i*4000] = 1e12
	}
	s := gather(false, values...).summary()
	k := scale(&s, &model.Field{Type: model.Number})
	if math.Abs(k.Scale-1) > .05 || k.Hi > 15 || k.Hi < 10 || k.Clipped != 5 {
		t.Fatalf("%+v", k)
	}
	if note := k.note(&s); note == "" || note[:15] != "extreme values:" {
		t.Errorf("note %q", note)
	}
}

func TestScales(t *testing.T) {
	number := &model.Field{Type: model.Number}
	mostly := func(n int, common float32, others ...float32) []float32 {
		return append(slices.Repeat([]float32{common}, n), others...)
	}
	r := rand.New(rand.NewPCG(9, 10))
	var logs []float32
	for range 20_000 {
		logs = append(logs, float32(math.Exp(6+2*r.NormFloat64())))
	}
	for _, c := range []struct {
		name   string
		field  *model.Field
		values []float32
		scale  float64
		lo, hi float64
	}{
		{"half zeros fall back to the deviation", number, mostly(8000, 0, slices.Repeat([]float32{1}, 2000)...), .4, -2.5, 3.5},
		{"all but one", number, mostly(9999, 5, 6), .01, 4.9, 5.1},
		{"rare flag", &model.Field{Type: model.Boolean}, mostly(9999, 0, 1), 1. / 3, 0, 1},
		{"even flag", &model.Field{Type: model.Boolean}, mostly(5000, 0, slices.Repeat([]float32{1}, 5000)...), .5, 0, 1},
		{"category", &model.Field{Type: model.Category}, mostly(999, 0, 1), 1. / 3, 0, 1},
		{"clip of the spec", &model.Field{Type: model.Number, Clip: []float64{-1, 1}}, normals(r, 20_000, 0, 1), 1, -1, 1},
		{"log1p", &model.Field{Type: model.Number, Log1p: true}, logs, 2, 6 - 6.2 - 17.8, 6 + 6.2 + 17.8},
		{"log1p with the clip of the spec", &model.Field{Type: model.Number, Log1p: true, Clip: []float64{0, math.E - 1}}, logs, 2, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := gather(c.field.Log1p, c.values...).summary()
			k := scale(&s, c.field)
			near := func(got, want float64) bool { return math.Abs(got-want) <= .05*max(math.Abs(want), c.scale) }
			if k.Constant || !near(k.Scale, c.scale) || !near(k.Lo, c.lo) || !near(k.Hi, c.hi) {
				t.Errorf("%+v, want scale %v, clip %v to %v", k, c.scale, c.lo, c.hi)
			}
			column := k.forward(&s, c.field)
			for _, v := range c.values[:100] {
				y := column.Apply(v, false)
				inverse := column.Inverse()
				back := inverse.Apply(y, true)
				if float64(v) >= c.lo && float64(v) <= c.hi && math.Abs(float64(back-v)) > 1e-4*max(1, math.Abs(float64(v))) {
					t.Fatalf("%v maps to %v and back to %v", v, y, back)
				}
			}
		})
	}
}

func TestImputation(t *testing.T) {
	zero := 0.
	nan := float32(math.NaN())
	for _, c := range []struct {
		field model.Field
		want  float32
	}{
		{model.Field{Type: model.Number}, 20},
		{model.Field{Type: model.Number, Log1p: true}, 20},
		{model.Field{Type: model.Number, Missing: &zero}, 0},
	} {
		s := gather(c.field.Log1p, 10, 20, nan, 1e6).summary()
		k := scale(&s, &c.field)
		column := k.forward(&s, &c.field)
		if math.Abs(float64(column.Impute-c.want)) > 1e-4 || s.Missing != 1 || s.Count != 3 {
			t.Errorf("%+v imputes %v, want %v (%d missing of %d)", c.field, column.Impute, c.want, s.Missing, s.Count)
		}
		if a, b := column.Apply(nan, false), column.Apply(c.want, false); math.Abs(float64(a-b)) > 1e-5 {
			t.Errorf("a missing value maps to %v, the imputed one to %v", a, b)
		}
	}
}

func FuzzColumn(f *testing.F) {
	f.Add(uint32(0), uint32(1), uint32(2), false)
	f.Add(math.Float32bits(math.MaxFloat32), math.Float32bits(-math.MaxFloat32), math.Float32bits(1e-40), true)
	f.Add(math.Float32bits(1e9), math.Float32bits(1e9+64), math.Float32bits(1e9), false)
	f.Add(math.Float32bits(1), math.Float32bits(1e38), math.Float32bits(-1e-38), false)
	f.Fuzz(func(t *testing.T, a, b, c uint32, log bool) {
		var values []float32
		for _, bits := range []uint32{a, b, c, a ^ 1, b ^ 1} {
			if v := math.Float32frombits(bits); math.Abs(float64(v)) <= math.MaxFloat32 {
				values = append(values, v)
			}
		}
		if len(values) == 0 {
			return
		}
		field := &model.Field{Type: model.Number, Log1p: log}
		s := gather(log, values...).summary()
		k := scale(&s, field)
		column := k.forward(&s, field)
		if !(column.Before > 0) || !(column.After > 0) || !(column.Lo <= column.Hi) ||
			math.IsInf(float64(column.Before), 0) || math.IsNaN(float64(column.Impute)) {
			t.Fatalf("%v: %+v from %+v", values, column, k)
		}
		for _, v := range append(values, math.MaxFloat32, -math.MaxFloat32, float32(math.NaN()), 0) {
			if y := float64(column.Apply(v, false)); math.IsNaN(y) || math.IsInf(y, 0) {
				t.Fatalf("%v: %v maps to %v by %+v", values, v, y, column)
			}
		}
	})
}

func TestThinnedSampleIsSpread(t *testing.T) {
	for _, n := range []int{0, 1, 7, 100, 101, 5000} {
		var s thinned
		for i := range n {
			s.add([]byte(strconv.Itoa(i)), 100, 1<<20)
		}
		if len(s.values) > 100 || len(s.values) < min(n, 50) {
			t.Errorf("%d values: %d kept", n, len(s.values))
		}
		for i, v := range s.values {
			if string(v) != strconv.Itoa(i*s.every) {
				t.Errorf("%d values: number %d kept is %s, want %d", n, i, v, i*s.every)
			}
		}
	}
	var large thinned
	for range 1000 {
		large.add(make([]byte, 1000), 1000, 10_000)
	}
	if large.size > 10_000 || len(large.values) < 5 {
		t.Errorf("%d values of %d bytes kept", len(large.values), large.size)
	}
}

func TestFold(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"short", []string{"short"}},
		{"one two three four", []string{"one two", "  three", "  four"}},
		{"  ab cd ef gh", []string{"  ab cd", "    ef", "    gh"}},
		{"unbreakablelongword and", []string{"unbreakablelongword and"}},
	} {
		if got := fold(c.text, 8); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.text, got, c.want)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"engine.temp", "engine.load", "speed", "battery_voltage"}
	for name, want := range map[string]string{"sped": "speed", "temp": "engine.temp", "Engine.Load": "engine.load", "battery_volts": "battery_voltage"} {
		if got := nearest(name, names); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// Each kind of loss, and the share at which a run stops (case 1.04).
func TestLostOffsets_Case1_04(t *testing.T) {
	o := Defaults()
	o.Topic, o.MinRows = "t", 1
	j := &job{Deps: Deps{Log: slog.New(slog.DiscardHandler)}, Options: o}
	for lost, fails := range map[int64]bool{0: false, 5: false, 6: true} {
		h := &history{n: 1}
		r := &Report{Ranges: []model.PartitionRange{{To: 60, Records: 60 - lost, Lost: lost}, {Partition: 1, To: 40, Records: 40}}}
		err := j.usable(h, nil, r)
		if errors.Is(err, ErrLost) != fails {
			t.Errorf("%d of 100 lost: %v", lost, err)
		}
	}
}

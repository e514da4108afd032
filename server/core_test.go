package server

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/registry"
)

// scoreTexts runs values through ScoreBounded and gives a line for each.
func scoreTexts(t *testing.T, o BoundedOptions, values ...string) ([]string, BoundedReport) {
	t.Helper()
	o.Engine, o.Source = cpu.New(), "cars.jsonl"
	defaulted(&o.Ref, registry.Ref{Name: "cars", Version: 7})
	i := 0
	var lines []string
	report, err := ScoreBounded(t.Context(), o, func() (events.Entry, error) {
		if i == len(values) {
			return events.Entry{}, io.EOF
		}
		i++
		e := events.Entry{Time: events.NoTime, Line: i}
		if values[i-1] != "null" {
			e.Value = []byte(values[i-1])
		}
		return e, nil
	}, func(s *Scored) error {
		if s.JSON == nil {
			lines = append(lines, fmt.Sprintf("line %d: %s", s.Line, s.Reason))
			return nil
		}
		if !json.Valid(s.JSON) {
			t.Errorf("not valid JSON: %s", s.JSON)
		}
		lines = append(lines, string(s.JSON))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines, report
}

// TestScoredGolden: one of everything that can happen to a record, as it is printed (CASES 1.07, 1.08, 3.03, 3.04, 3.12).
func TestScoredGolden(t *testing.T) {
	lines, report := scoreTexts(t, BoundedOptions{Data: testModel(t, mixedSpec, 1, 5)},
		`{"at":1795615200000,"car":"car-17","x":1,"gear":"d","on":true,"in":{"temp":2}}`,
		`{"at":1795615200000,"car":17,"x":-3,"gear":"r","on":false,"in":{"temp":40}}`,
		`{"x":30,"gear":"jet","on":true,"in":{"temp":30}}`,
		`{"x":1,"x":99,"gear":"d","on":true,"in":{"temp":2}}`,                         // last wins
		`{"X":99,"x":1,"gear":"d","on":true,"in":{"temp":2}}`,                         // case counts
		`{"x":1,"gear":"d","on":true,"unused":412345678901234567890,"in":{"temp":2}}`, // nobody asked for it
		`{"x":412345678901234567890,"gear":"d","on":true,"in":{"temp":2}}`,
		`{"x":1e39,"gear":"d","on":true,"in":{"temp":2}}`,
		`{"x":2e38,"gear":"d","on":true,"in":{"temp":3e38}}`, // finite, but its score is not
		`{"x":6}`, // more than half is missing
		`{"speed":6}`,
		`{"x":1`,
		``,
		`null`,
	)
	golden(t, "scored.txt", strings.Join(lines, "\n")+"\n")
	want := BoundedReport{Records: 14, Scored: 10, Anomalies: 7, NotFinite: 2, Partial: 1, Tombstones: 1,
		Rejected: map[string]int64{events.ReasonNoFeatures: 1, events.ReasonNotJSON: 1, events.ReasonEmpty: 1}}
	if diff := cmp.Diff(want, report); diff != "" {
		t.Errorf("report differs (-want +got):\n%s", diff)
	}
}

func TestContributionsAll(t *testing.T) {
	// The usual range stands beside the value where the model knows it, also of what is not finite.
	data := testModel(t, plainSpec, 1, 5, func(m *model.Model) { m.Lineage.Usual = map[string]model.Range{"y": {-1.5, 2}} })
	lines, _ := scoreTexts(t, BoundedOptions{Data: data, Contributions: ContributionsAll}, `{"x":3,"y":4}`, `{"x":0,"y":0}`, `{"x":0,"y":1e99}`)
	for i, want := range []string{
		`"score":5,"percentile":100.0,"anomaly":false,"status":"ok","top":[{"feature":"y","value":4,"expected":0,"usual":[-1.5,2],"share":0.64},{"feature":"x","value":3,"expected":0,"share":0.36}]}`,
		`"score":0,"percentile":0.0,"anomaly":false,"status":"ok","top":[]}`,
		`"status":"not_finite","top":[{"feature":"y","value":null,"expected":null,"usual":[-1.5,2],"share":1}]}`,
	} {
		if !strings.HasSuffix(lines[i], want) {
			t.Errorf("got  %s\nwant …%s", lines[i], want)
		}
	}
}

// TestBatchMatesDoNotMatter: a record has the same score whatever is scored beside it, and its top is its own.
func TestBatchMatesDoNotMatter(t *testing.T) {
	data := testModel(t, mixedSpec, 1.5, 5)
	var values []string
	for i := range 200 {
		values = append(values, fmt.Sprintf(`{"x":%d,"gear":"%c","on":%v,"in":{"temp":%v}}`, i%11, "drx"[i%3], i%2 == 0, float64(i)/7))
		if i%9 == 0 {
			values = append(values, "null", `{"x":1e99}`, "[]")
		}
	}
	want, _ := scoreTexts(t, BoundedOptions{Data: data, MaxBatch: 1}, values...)
	for _, n := range []int{2, 7, 64, 4096} {
		got, _ := scoreTexts(t, BoundedOptions{Data: data, MaxBatch: n}, values...)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("batches of %d differ from single records (-one +batch):\n%s", n, diff)
		}
	}
}

// TestUnseenCategories_Case4_08: ten thousand values that the model never saw change neither the row's width nor what is kept.
func TestUnseenCategories_Case4_08(t *testing.T) {
	live, err := loadModel(cpu.New(), testModel(t, mixedSpec, 1, 5), modelNeeds{})
	if err != nil {
		t.Fatal(err)
	}
	decoder := live.decoder.Clone()
	row := make([]float32, live.width)
	for i := range 10_000 {
		value := fmt.Appendf(nil, `{"x":1,"gear":"new-%d","on":true,"in":{"temp":2}}`, i)
		if got := decoder.Decode(value, row); got.Outcome != events.OK {
			t.Fatalf("record %d: %v", i, got)
		}
		if row[1] != 0 || row[2] != 0 || row[3] != 1 {
			t.Fatalf("record %d: gear columns %v, want the unseen one", i, row[1:4])
		}
	}
	value := []byte(`{"x":1,"gear":"new","on":true,"in":{"temp":2}}`)
	if n := testing.AllocsPerRun(100, func() { decoder.Decode(value, row) }); n > 0 {
		t.Errorf("%v allocations for a record with an unseen category", n)
	}
}

func TestPercentDigits(t *testing.T) {
	for n, want := range map[int64]int{0: 0, 1: 0, 100: 0, 101: 1, 1000: 1, 1001: 2, 10_000: 2, 1_000_000: 4, 1 << 40: 7} {
		if got := percentDigits(n); got != want {
			t.Errorf("%d rows: %d digits, want %d", n, got, want)
		}
	}
}

// TestModelRefused: what a model must not be, to be loaded.
func TestModelRefused(t *testing.T) {
	good := testModel(t, mixedSpec, 1, 5)
	for _, c := range []struct {
		name  string
		data  []byte
		needs modelNeeds
		says  string
	}{
		{"garbage", []byte("not a model"), modelNeeds{}, ""},
		{"truncated", good[:len(good)/2], modelNeeds{}, ""},
		{"empty", nil, modelNeeds{}, ""},
		{"self-test of another machine", testModel(t, mixedSpec, 1, 5, func(m *model.Model) { m.SelfTest.Scores[1] *= 1.1 }), modelNeeds{}, "self-test"},
		{"another format", good, modelNeeds{format: "csv"}, "declared as csv"},
		{"another time", good, modelNeeds{time: "when"}, `field "when"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := loadModel(cpu.New(), c.data, c.needs)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want an error that says %q", err, c.says)
			}
		})
	}
	if _, err := loadModel(cpu.New(), good, modelNeeds{format: "json", time: "at", key: "car"}); err != nil {
		t.Errorf("a good model: %v", err)
	}
}

func TestLatencyQuantiles(t *testing.T) {
	var l latencies
	if got := l.counts().Quantile(.5); got != 0 {
		t.Errorf("nothing counted, yet p50 is %v", got)
	}
	l.add(2_000_000, 99) // 2 ms
	l.add(50_000_000, 1) // 50 ms
	c := l.counts()
	for p, want := range map[float64]float64{.5: 2, .99: 2, .995: 50, 1: 50} {
		if got := c.Quantile(p).Seconds() * 1000; math.Abs(got/want-1) > .1 {
			t.Errorf("p%v is %.3g ms, want %v within 10 %%", 100*p, got, want)
		}
	}
	if got := c.Sub(c).Quantile(.5); got != 0 {
		t.Errorf("difference of equal snapshots: p50 is %v", got)
	}
}

package model

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"
)

func TestByLabels(t *testing.T) {
	inf := math.Inf(1)
	rows := func(pairs ...float64) (out []Labelled) {
		for i := 0; i < len(pairs); i += 2 {
			out = append(out, Labelled{pairs[i], pairs[i+1] == 1})
		}
		return out
	}
	mixed := rows(10, 1, 8, 1, 6, 0, 5, 1, 3, 0, 2, 0, 1, 0)
	for _, c := range []struct {
		name      string
		rows      []Labelled
		goal      string
		threshold float64
		fault     bool
	}{
		{"separable: the middle of the gap", rows(1, 0, 2, 0, 8, 1, 9, 1), "f1", 5, false},
		{"the highest F1", mixed, "", 4, false},
		{"all anomalies", mixed, "recall=100%", 4, false},
		{"two of three", mixed, "recall=0.6", 7, false},
		{"all of them true", mixed, "precision=100%", 7, false},
		{"most of them true", mixed, "precision=70%", 4, false},
		{"equal scores are one step", rows(5, 1, 5, 0, 5, 1, 1, 0), "f1", 3, false},
		{"everything alarms", rows(2, 1, 3, 0, 4, 1), "recall=1", 2 - 2e-4, false},
		{"a precision out of reach", rows(5, 0, 4, 1, 3, 0), "precision=90%", 0, true},
		{"one class", rows(1, 0, 2, 0), "f1", 0, true},
		{"no rows", nil, "f1", 0, true},
		{"infinite scores alarm anyway", rows(inf, 1, 2, 0, 1, 0), "f1", 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			goal, err := ParseGoal(c.goal)
			if err != nil {
				t.Fatal(err)
			}
			threshold, err := ByLabels(c.rows, goal)
			if (err != nil) != c.fault || math.Abs(threshold-c.threshold) > 1e-9 {
				t.Errorf("%v, %v; want %v", threshold, err, c.threshold)
			}
		})
	}
	if _, err := ByLabels(rows(1, 1), Goal{Name: GoalF1}); !errors.Is(err, ErrOneClass) {
		t.Error(err)
	}
	for _, bad := range []string{"f2", "recall", "recall=", "recall=0", "recall=110%", "precision=x", "f1=3", "recall=NaN"} {
		if g, err := ParseGoal(bad); err == nil {
			t.Errorf("goal %q is %+v", bad, g)
		}
	}
	for _, good := range []string{"f1", "recall=90%", "precision=33.3%"} {
		if g, err := ParseGoal(good); err != nil || g.String() != good {
			t.Errorf("goal %q is %q, %v", good, g, err)
		}
	}
}

// The goals by their definition, over every cut of random samples with ties.
func TestByLabelsAgainstDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	for range 300 {
		rows := make([]Labelled, 5+r.IntN(60))
		for i := range rows {
			bad := r.IntN(3) == 0
			rows[i] = Labelled{float64(r.IntN(20)), bad}
			if bad {
				rows[i].Score += 6
			}
		}
		rows[0].Anomalous, rows[1].Anomalous = true, false
		best := 0.
		for cut := -.5; cut < 30; cut++ {
			best = max(best, JudgeSample(rows, cut).F1())
		}
		threshold, err := ByLabels(rows, Goal{Name: GoalF1})
		if err != nil {
			t.Fatal(err)
		}
		if got := JudgeSample(rows, threshold).F1(); math.Abs(got-best) > 1e-12 {
			t.Fatalf("F1 %v at %v, the best is %v: %v", got, threshold, best, rows)
		}
		recall := r.Float64()
		if threshold, err = ByLabels(rows, Goal{GoalRecall, recall}); err != nil {
			t.Fatal(err)
		}
		lowest := math.Inf(1) // that alarms
		for _, row := range rows {
			if row.Score > threshold {
				lowest = min(lowest, row.Score)
			}
		}
		if JudgeSample(rows, threshold).Recall < recall || JudgeSample(rows, lowest).Recall >= recall {
			t.Fatalf("recall %v at %v: %+v", recall, threshold, JudgeSample(rows, threshold))
		}
	}
}

func TestJudgeSample(t *testing.T) {
	s := JudgeSample([]Labelled{{9, true}, {8, false}, {math.Inf(1), true}, {1, true}, {0, false}}, 5)
	if s.Rows != 5 || s.Anomalies != 3 || s.Above != 3 || math.Abs(s.Recall-2./3) > 1e-12 || math.Abs(s.Precision-2./3) > 1e-12 || math.Abs(s.F1()-2./3) > 1e-12 {
		t.Errorf("%+v", s)
	}
	if !(s.RecallLow < s.Recall && s.Recall < s.RecallTop) {
		t.Errorf("%+v", s)
	}
	if s = JudgeSample(nil, 5); s.Recall != 0 || s.Precision != 0 || s.F1() != 0 {
		t.Errorf("%+v", s)
	}
}

// FuzzParseGoal: a goal that is taken is one that can be reached, and is read again from how it is printed.
func FuzzParseGoal(f *testing.F) {
	for _, s := range []string{"", "f1", "recall=90%", "precision=.5", "recall=1e-3%", "precision=NaN", "recall=90%%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		g, err := ParseGoal(text)
		if err != nil {
			return
		}
		if g.Name != GoalF1 && !(g.Least > 0 && g.Least <= 1) {
			t.Fatalf("%q is %+v", text, g)
		}
		again, err := ParseGoal(g.String())
		if err != nil || again.Name != g.Name || math.Abs(again.Least-g.Least) > 1e-9*g.Least {
			t.Fatalf("%q is %+v, printed %q: %+v, %v", text, g, g, again, err)
		}
	})
}

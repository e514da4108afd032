package server

import (
	"context"
	"errors"
	"math"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/stream"
)

func TestCompareScores(t *testing.T) {
	var records []stream.Record
	for i := range 200 {
		r := event("t", i%2, i, float64(i)/10, 0)
		r.Offset = int64(i)
		records = append(records, r)
	}
	records[10].Value = nil
	records[11].Value = []byte("not JSON")
	records[12].Value = []byte(`{"x":1e300,"y":0}`)
	// Scores of b are twice those of a; a's threshold is crossed from 10 on, b's from 2.5.
	a, b := testModel(t, plainSpec, 1, 10), testModel(t, plainSpec, 2, 5)
	g, err := CompareScores(t.Context(), cpu.New(), a, b, records, 3)
	if err != nil {
		t.Fatal(err)
	}
	if g.Records != 200 || g.Scored != 197 || g.Correlation == nil || math.Abs(*g.Correlation-1) > 1e-9 {
		t.Errorf("%+v", g)
	}
	// 1e300 is beyond float32: an anomaly for both, without a score.
	if g.FlaggedA != 100 || g.FlaggedB != 175 || g.FlaggedBoth != 100 {
		t.Errorf("anomalies %d, %d, both %d", g.FlaggedA, g.FlaggedB, g.FlaggedBoth)
	}
	if g.NotScoredA["tombstone"] != 1 || g.NotScoredA["not_json"] != 1 || g.NotScoredB["not_finite"] != 1 || len(g.NotScoredB) != 3 {
		t.Errorf("%v, %v", g.NotScoredA, g.NotScoredB)
	}
	// Where b has just reached its rarest, a is furthest behind.
	if d := g.Most; len(d) != 3 || d[0].Offset != 25 || d[0].Key != "car-0" || d[0].Topic != "t" || d[0].Partition != 1 || d[0].A.Score != 2.5 || d[0].B.Score != 5 || d[0].B.Percentile != 100 || d[0].A.Anomaly {
		t.Errorf("%+v", d)
	}
	same, err := CompareScores(t.Context(), cpu.New(), a, a, records, 3)
	if err != nil || len(same.Most) != 0 || same.FlaggedA != same.FlaggedBoth {
		t.Errorf("a model differs from itself: %+v, %v", same, err)
	}
	if none, err := CompareScores(t.Context(), cpu.New(), a, b, nil, 3); err != nil || none.Correlation != nil || none.Records != 0 {
		t.Errorf("of no record: %+v, %v", none, err)
	}
	if _, err := CompareScores(t.Context(), cpu.New(), a, []byte("no model"), records, 3); err == nil {
		t.Error("bytes that are no model were taken")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := CompareScores(ctx, cpu.New(), a, b, records, 3); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestRankCorrelation(t *testing.T) {
	for _, c := range []struct {
		a, b []float32
		want float64
	}{
		{[]float32{1, 2, 3}, []float32{10, 200, 3000}, 1}, {[]float32{1, 2, 3}, []float32{3, 2, 1}, -1},
		{[]float32{1, 2, 3, 4, 5}, []float32{2, 1, 4, 3, 5}, .8}, // 1 − 6·4/(5·24)
		{[]float32{1, 1, 2}, []float32{5, 5, 9}, 1},
		{[]float32{1, 2, 2, 3}, []float32{1, 3, 2, 4}, 3 / math.Sqrt(10)}, // ranks 0, 1.5, 1.5, 3 and 0, 2, 1, 3: 4.5/√(4.5·5)
	} {
		if got := rankCorrelation(c.a, c.b); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%v, %v: %v, want %v", c.a, c.b, got, c.want)
		}
	}
	if got := rankCorrelation([]float32{1, 1}, []float32{1, 2}); !math.IsNaN(got) {
		t.Errorf("of one rank: %v", got)
	}
}

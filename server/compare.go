package server

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/stream"
)

// Agreement is how two models score the same records.
type Agreement struct {
	Records     int            `json:"records"`
	Scored      int            `json:"scored"`           // by both, with a finite score
	Correlation *float64       `json:"rank_correlation"` // Spearman's, of the records scored by both; nil where one gives them all one score
	FlaggedA    int            `json:"anomalies_a"`
	FlaggedB    int            `json:"anomalies_b"`
	FlaggedBoth int            `json:"anomalies_both"`
	NotScoredA  map[string]int `json:"not_scored_a,omitempty"` // by reason
	NotScoredB  map[string]int `json:"not_scored_b,omitempty"`
	Warming     int            `json:"warming,omitempty"` // scored while rolling features lacked records to look back on, by the model with more of them
	Most        []Disagreement `json:"most_different"`    // the greatest difference in rarity first
}

// Disagreement is one record that two models see differently.
type Disagreement struct {
	Topic     string  `json:"topic"`
	Partition int32   `json:"partition"`
	Offset    int64   `json:"offset"`
	Key       string  `json:"key,omitempty"`
	A         Verdict `json:"a"`
	B         Verdict `json:"b"`
}

// Verdict is what one model makes of a record.
type Verdict struct {
	Score      float32 `json:"score"`
	Percentile float64 `json:"percentile"`
	Anomaly    bool    `json:"anomaly"`
}

// CompareScores scores records with two models, by the code that scores a stream, and says how far they agree. most bounds
// Agreement.Most.
func CompareScores(ctx context.Context, engine kernels.Engine, a, b []byte, records []stream.Record, most int) (*Agreement, error) {
	sideA, err := judgeAll(ctx, engine, a, records)
	if err != nil {
		return nil, fmt.Errorf("the first model cannot be used: %w", err)
	}
	sideB, err := judgeAll(ctx, engine, b, records)
	if err != nil {
		return nil, fmt.Errorf("the second model cannot be used: %w", err)
	}
	g := &Agreement{Records: len(records), NotScoredA: sideA.reasons, NotScoredB: sideB.reasons, Warming: max(sideA.warming, sideB.warming), Most: []Disagreement{}}
	var scoresA, scoresB []float32
	type apart struct {
		at int
		by float64
	}
	var differing []apart
	for i := range records {
		va, vb := sideA.verdicts[i], sideB.verdicts[i]
		if va.Anomaly {
			g.FlaggedA++
		}
		if vb.Anomaly {
			g.FlaggedB++
		}
		if va.Anomaly && vb.Anomaly {
			g.FlaggedBoth++
		}
		if !sideA.finite[i] || !sideB.finite[i] {
			continue
		}
		g.Scored++
		scoresA, scoresB = append(scoresA, va.Score), append(scoresB, vb.Score)
		if by := math.Abs(sideA.rarity(va) - sideB.rarity(vb)); by > 0 {
			differing = append(differing, apart{i, by})
		}
	}
	if r := rankCorrelation(scoresA, scoresB); !math.IsNaN(r) {
		g.Correlation = &r
	}
	slices.SortStableFunc(differing, func(x, y apart) int { return cmp.Compare(y.by, x.by) })
	for _, d := range differing[:min(most, len(differing))] {
		r := &records[d.at]
		g.Most = append(g.Most, Disagreement{r.Topic, r.Partition, r.Offset, string(sideA.live.key(r)), sideA.verdicts[d.at], sideB.verdicts[d.at]})
	}
	return g, nil
}

// side is one model and what it makes of the records.
type side struct {
	live     *liveModel
	verdicts []Verdict
	finite   []bool
	reasons  map[string]int
	warming  int
}

// rarity is how far out a score lies, in powers of ten of the history's share above it: of two models one of which calls a
// record one in ten thousand and the other one in ten, the gap is 3; in percentiles it would be less than that between
// two middling scores. No rarer than half a row of the history.
func (s *side) rarity(v Verdict) float64 {
	least := .5 / float64(max(s.live.model.Lineage.Rows.Used, 1))
	return -math.Log10(max(1-v.Percentile/100, least))
}

func judgeAll(ctx context.Context, engine kernels.Engine, data []byte, records []stream.Record) (*side, error) {
	live, err := loadModel(engine, data, modelNeeds{})
	if err != nil {
		return nil, err
	}
	s := &side{live: live, verdicts: make([]Verdict, len(records)), finite: make([]bool, len(records)), reasons: map[string]int{}}
	m, decoder := micro{live: live}, live.decoder.Clone()
	windows := map[stream.TopicPartition]*events.Windows{}
	windowsOf := func(at stream.TopicPartition) *events.Windows {
		if windows[at] == nil {
			windows[at] = events.NewWindows(decoder, len(records))
		}
		return windows[at]
	}
	const piece = 4096
	for from := 0; from < len(records); from += piece {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		m.records = records[from:min(from+piece, len(records))]
		m.decode(decoder, windowsOf)
		if err := m.score(false); err != nil {
			return nil, err
		}
		for i := range m.records {
			it := &m.items[i]
			switch {
			case it.outcome == events.Tombstone:
				s.reasons[events.Tombstone.String()]++
			case it.row < 0:
				s.reasons[it.reason]++
			case it.status == StatusNotFinite:
				s.reasons[it.status.String()]++
				s.verdicts[from+i].Anomaly = true
			default:
				if it.status == StatusWarming {
					s.warming++
				}
				s.finite[from+i] = true
				s.verdicts[from+i] = Verdict{Score: it.score, Percentile: live.model.Percentile(float64(it.score)), Anomaly: it.anomaly}
			}
		}
	}
	return s, nil
}

// rankCorrelation is Spearman's: Pearson's of the ranks, ties having the mean of theirs. NaN where a side has one rank only.
func rankCorrelation(a, b []float32) float64 {
	x, y := ranks(a), ranks(b)
	var mean float64
	for i := range x {
		mean += x[i] / float64(len(x)) // of both: ranks are the same numbers
	}
	var xy, xx, yy float64
	for i := range x {
		xy += (x[i] - mean) * (y[i] - mean)
		xx += (x[i] - mean) * (x[i] - mean)
		yy += (y[i] - mean) * (y[i] - mean)
	}
	return xy / math.Sqrt(xx*yy)
}

func ranks(v []float32) []float64 {
	order := make([]int, len(v))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(v[i], v[j]) })
	r := make([]float64, len(v))
	for i := 0; i < len(order); {
		j := i
		for j < len(order) && v[order[j]] == v[order[i]] {
			j++
		}
		for k := i; k < j; k++ {
			r[order[k]] = float64(i+j-1) / 2
		}
		i = j
	}
	return r
}

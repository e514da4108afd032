package server

import (
	"math"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/model"
)

// plainSpec has two numbers.
var plainSpec = model.Spec{Format: "json", Fields: []model.Field{{Name: "x", Type: model.Number}, {Name: "y", Type: model.Number}}}

// mixedSpec has every type, a key and a time.
var mixedSpec = model.Spec{
	Format: "json", Key: "car", Time: &model.Time{Field: "at", Unit: "ms"},
	Fields: []model.Field{
		{Name: "x", Type: model.Number, Clip: []float64{-1e6, 1e6}},
		{Name: "gear", Type: model.Category, Categories: []string{"d", "r"}},
		{Name: "on", Type: model.Boolean},
		{Name: "in.temp", Type: model.Number},
	},
}

// testModel scores a row by its distance from zero, times scale: the network's weights are zero, so that the
// prediction is zero. Missing numbers are imputed as 0. A test that knows the scale knows every score.
func testModel(t testing.TB, spec model.Spec, scale float32, threshold float64, change ...func(*model.Model)) []byte {
	t.Helper()
	inf := float32(math.Inf(1))
	var columns []kernels.Column
	for _, f := range spec.ColumnFields() {
		c := kernels.Column{Lo: -inf, Hi: inf, X: []float32{0}, Y: []float32{0}, Before: scale, After: scale}
		if clip := spec.Fields[f].Clip; clip != nil {
			c.Lo, c.Hi = float32(clip[0]), float32(clip[1])
		}
		columns = append(columns, c)
	}
	m := &model.Model{
		Program:   kernels.Autoencoder(columns, []int{2}, []kernels.Activation{kernels.Tanh}),
		Spec:      spec,
		Threshold: threshold,
		Lineage:   model.Lineage{Topic: "cars", Engine: "cpu/portable", Rows: model.Rows{Read: 1000, Used: 1000}},
	}
	var scores []float64
	for i := range 1000 {
		scores = append(scores, threshold*float64(i+1)/1000)
	}
	m.Quantiles = model.Quantiles(scores)
	width := m.Program.Width
	scorer, err := cpu.New().Scorer(m.Program)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		row := make([]float32, width)
		for j := range row {
			row[j] = float32(i*j) - 2
		}
		score := make([]float32, 1)
		if err := scorer.Score(row, kernels.Output{Score: score}); err != nil {
			t.Fatal(err)
		}
		m.SelfTest.Rows = append(m.SelfTest.Rows, row)
		m.SelfTest.Scores = append(m.SelfTest.Scores, score[0])
	}
	for _, f := range change {
		f(m)
	}
	data, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

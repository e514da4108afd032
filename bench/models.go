package bench

import (
	"context"
	"fmt"
	"log/slog"
	"math"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/trainer"
)

// learn trains a model on topic and publishes it, so that what serves it is what a user would have.
func (c *cluster) learn(ctx context.Context, topic, name string) error {
	o := trainer.Defaults()
	o.Topic, o.Model, o.Key, o.Time = topic, name, "car", "time"
	_, err := trainer.Run(ctx, trainer.Deps{
		Client: c.client, Registry: c.registry(), Engine: cpu.New(), Log: slog.New(slog.DiscardHandler),
	}, o)
	return err
}

func (c *cluster) registry() *registry.Registry {
	return registry.Open(c.client, registry.Options{Log: slog.New(slog.DiscardHandler)})
}

// plain is the net 18-14-7-7-18 with a standard scaler in front, as the peers were first measured with.
func plain(spec model.Spec, values [][]byte, seed uint64) ([]byte, error) {
	return random(spec, values, []int{14, 7, 7}, seed)
}

// random is a net of three hidden layers with a standard scaler in front. Its weights are random: a score costs the same whatever
// it means. Another seed gives another version of the same shape.
func random(spec model.Spec, values [][]byte, hidden []int, seed uint64) ([]byte, error) {
	rows, err := decoded(spec, values)
	if err != nil {
		return nil, err
	}
	width := len(spec.Columns())
	columns := make([]kernels.Column, width)
	for j := range columns {
		var sum, squares float64
		for i := j; i < len(rows); i += width {
			sum += float64(rows[i])
			squares += float64(rows[i]) * float64(rows[i])
		}
		n := float64(len(rows) / width)
		mean := sum / n
		slope := float32(1 / max(1e-3, math.Sqrt(max(0, squares/n-mean*mean))))
		columns[j] = kernels.Column{Lo: -math.MaxFloat32, Hi: math.MaxFloat32, X: []float32{float32(mean)}, Y: []float32{0}, Before: slope, After: slope}
	}
	p := kernels.Autoencoder(columns, hidden, []kernels.Activation{kernels.Tanh, kernels.ReLU, kernels.Tanh})
	kernels.Initialise(p, seed)
	return encoded(p, spec, rows[:16*width], seed)
}

// decoded are the rows of JSON records.
func decoded(spec model.Spec, values [][]byte) ([]float32, error) {
	d, err := events.Compile(spec)
	if err != nil {
		return nil, err
	}
	rows := make([]float32, len(values)*d.Columns())
	for i, v := range values {
		if got := d.Decode(v, rows[i*d.Columns():(i+1)*d.Columns()]); got.Outcome != events.OK {
			return nil, fmt.Errorf("record %d does not decode: %s", i, got.Reason)
		}
	}
	return rows, nil
}

// encoded is a model of a program whose threshold nothing reaches, with rows as its self-test.
func encoded(p *kernels.Program, spec model.Spec, rows []float32, seed uint64) ([]byte, error) {
	scores, err := scoresOf(p, rows)
	if err != nil {
		return nil, err
	}
	m := &model.Model{Program: p, Spec: spec, Threshold: 1e9, Quantiles: []model.Quantile{{P: 0, Score: 0}, {P: 1, Score: 1e9}},
		Lineage: model.Lineage{Topic: "bench", Engine: "cpu/portable", Seed: seed}}
	for i := range scores {
		m.SelfTest.Rows = append(m.SelfTest.Rows, rows[i*p.Width:(i+1)*p.Width])
	}
	m.SelfTest.Scores = scores
	return m.Encode()
}

func scoresOf(p *kernels.Program, rows []float32) ([]float32, error) {
	s, err := cpu.New().Scorer(p)
	if err != nil {
		return nil, err
	}
	scores := make([]float32, len(rows)/p.Width)
	return scores, s.Score(rows, kernels.Output{Score: scores})
}

// bulky is a model of about 5 MB for the fleet's fields: wide hidden layers, random weights. What it scores means
// nothing; that each version differs and is as large as it is does.
func bulky(spec model.Spec, seed uint64) ([]byte, error) {
	columns := make([]kernels.Column, len(spec.Columns()))
	for j := range columns {
		columns[j] = kernels.Column{Lo: -1e6, Hi: 1e6, X: []float32{0}, Y: []float32{0}, Before: .01, After: .01}
	}
	p := kernels.Autoencoder(columns, []int{1100, 1100, 8}, []kernels.Activation{kernels.ReLU, kernels.ReLU})
	kernels.Initialise(p, seed)
	rows := make([]float32, 16*len(columns))
	for i := range rows {
		rows[i] = float32(i % 97)
	}
	return encoded(p, spec, rows, seed)
}

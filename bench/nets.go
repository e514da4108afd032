package bench

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cpu"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/stream"
	"github.com/lapwing-stream/lapwing/trainer"
)

// network is a model as it is published, and rows for it.
type network struct {
	name   string
	width  int
	hidden []int  // of a plain network; nil for a detector
	data   []byte // ONNX, all outputs
	rows   []float32
}

// netRows are as many as the largest batch.
const netRows = 8192

// hiddenTanh are the activations that the networks have: tanh, relu, tanh, then linear.
var hiddenTanh = []kernels.Activation{kernels.Tanh, kernels.ReLU, kernels.Tanh}

// plainNets are bare autoencoders with a scaler and the error as their score: the widths that the targets name.
func plainNets() ([]*network, error) {
	var nets []*network
	for _, layers := range [][]int{{30, 14, 7, 14}, {18, 14, 7, 7}, {128, 64, 16, 64}} {
		n := &network{width: layers[0], hidden: layers[1:], rows: hiddenCauses(layers[0], netRows, 3)}
		for _, l := range append(slices.Clone(layers), layers[0]) {
			n.name += "-" + strconv.Itoa(l)
		}
		n.name = strings.TrimPrefix(n.name, "-")
		p := plainProgram(n.width, n.hidden, hiddenTanh)
		m, err := published(p, n.rows)
		if err != nil {
			return nil, err
		}
		if n.data, err = m.Encode(); err != nil {
			return nil, err
		}
		nets = append(nets, n)
	}
	return nets, nil
}

func plainProgram(width int, hidden []int, acts []kernels.Activation) *kernels.Program {
	columns := make([]kernels.Column, width)
	for j := range columns {
		columns[j] = kernels.Column{Lo: float32(math.Inf(-1)), Hi: float32(math.Inf(1)), X: []float32{0}, Y: []float32{0}, Before: 1, After: 1}
	}
	p := kernels.Autoencoder(columns, hidden, acts)
	kernels.Initialise(p, 1)
	return p
}

// published puts what a model needs to be published around a program.
func published(p *kernels.Program, rows []float32) (*model.Model, error) {
	s, err := cpu.New().Scorer(p)
	if err != nil {
		return nil, err
	}
	scores := make([]float32, len(rows)/p.Width)
	if err := s.Score(rows, kernels.Output{Score: scores}); err != nil {
		return nil, err
	}
	m := &model.Model{Program: p, Spec: model.Spec{Format: "json"}, Threshold: 1e9, Quantiles: []model.Quantile{{P: 0, Score: 0}, {P: 1, Score: 1e9}},
		Lineage: model.Lineage{Topic: "bench", Engine: "cpu/portable", Seed: 1}}
	for j := range p.Width {
		m.Spec.Fields = append(m.Spec.Fields, model.Field{Name: fmt.Sprintf("f%d", j), Type: model.Number})
	}
	for i := range 16 {
		m.SelfTest.Rows = append(m.SelfTest.Rows, rows[i*p.Width:(i+1)*p.Width])
	}
	m.SelfTest.Scores = scores[:16]
	return m, nil
}

// hiddenCauses are rows that five causes and some noise make: something to learn.
func hiddenCauses(width, n int, seed uint64) []float32 {
	rng := rand.New(rand.NewPCG(seed, 2))
	rows := make([]float32, n*width)
	for i := 0; i < len(rows); i += width {
		var cause [5]float64
		for k := range cause {
			cause[k] = rng.NormFloat64()
		}
		for j := range width {
			rows[i+j] = float32(cause[j%5] + .5*cause[(j+1)%5]*cause[j%3] + .1*rng.NormFloat64())
		}
	}
	return rows
}

// detector is what train makes of generated records with nothing set, through a topic and back.
func (r *run) detector(ctx context.Context, width int) (*network, error) {
	broker, err := stream.Embed(stream.EmbeddedOptions{})
	if err != nil {
		return nil, err
	}
	defer broker.Close()
	log := slog.New(slog.DiscardHandler)
	client, err := stream.Connect(ctx, stream.Options{Properties: map[string]string{"bootstrap.servers": broker.Addr()}, Log: log})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	history := 20_000
	if r.Smoke {
		history = 2_000
	}
	rows := hiddenCauses(width, history, 5)
	if _, err := client.CreateTopic(ctx, stream.TopicSpec{Name: "history", Partitions: 1}); err != nil {
		return nil, err
	}
	producer, err := client.Producer(ctx, stream.ProducerOptions{Linger: 5 * time.Millisecond})
	if err != nil {
		return nil, err
	}
	records := make([]stream.Record, history)
	now := time.Now().UnixMilli()
	for i := range records {
		b := []byte{'{'}
		for j := range width {
			if j > 0 {
				b = append(b, ',')
			}
			b = fmt.Appendf(b, `"f%d":%v`, j, rows[i*width+j])
		}
		records[i] = stream.Record{Topic: "history", Value: append(b, '}'), Time: now}
	}
	err = producer.Produce(ctx, records)
	if e := producer.Close(ctx); err == nil {
		err = e
	}
	if err != nil {
		return nil, err
	}
	o := trainer.Defaults()
	o.Topic, o.Model = "history", "detector"
	report, err := trainer.Run(ctx, trainer.Deps{Client: client, Registry: registry.Open(client, registry.Options{Log: log}), Engine: cpu.New(), Log: log}, o)
	if err != nil {
		return nil, err
	}
	return &network{name: fmt.Sprintf("default detector, %d features", width), width: width, data: report.Data, rows: hiddenCauses(width, netRows, 6)}, nil
}

// Work of a row in multiply-adds, as the issue counts it whatever the code does: those of the products (layers, prototypes,
// whitening), 12 for a tanh or sigmoid, 8 for an exp, 1 for a relu. Scaling and the error itself are not counted.
func work(p *kernels.Program) float64 {
	widths := map[kernels.Value]int{kernels.Input: p.Width}
	needed := p.Needed(p.Score)
	sum := 0
	for i, s := range p.Steps {
		v := kernels.Value(i + 1)
		in := p.Width
		if reads := s.Reads(); len(reads) > 0 {
			in = widths[reads[0]]
		}
		widths[v] = in
		switch s := s.(type) {
		case *kernels.Gemm:
			widths[v] = s.Out
			if needed[v] {
				sum += s.Out*in + s.Out*activationWork(s.Act)
			}
		case *kernels.Norm:
			widths[v] = 1
		case *kernels.Nearest:
			widths[v] = 1
			if needed[v] {
				sum += len(s.Rows)
			}
		}
	}
	return float64(sum)
}

func activationWork(a kernels.Activation) int {
	switch a {
	case kernels.Linear:
		return 0
	case kernels.ReLU, kernels.LeakyReLU:
		return 1
	case kernels.ELU:
		return 8
	}
	return 12
}

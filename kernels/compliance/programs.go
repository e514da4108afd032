package compliance

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/lapwing-stream/lapwing/kernels"
)

var infinite = float32(math.Inf(1))

// net is a program with something to train and rows to try.
type net struct {
	name               string
	p                  *kernels.Program
	prediction, target kernels.Value
	random             *rand.Rand
}

// rows draws raw rows around the columns' knots; one value in fifty is missing.
func (n *net) rows(count int) []float32 {
	rows := make([]float32, count*n.p.Width)
	for i := range rows {
		rows[i] = float32(n.random.NormFloat64()) * 2
		if n.random.IntN(50) == 0 {
			rows[i] = float32(math.NaN())
		}
	}
	return rows
}

// autoencoder draws a network with the same activation in every layer, the last included.
func autoencoder(width int, layers []int, act kernels.Activation) *net {
	n := &net{
		name:   fmt.Sprintf("%d-%v-%v", width, layers, act),
		random: rand.New(rand.NewPCG(uint64(width), uint64(len(layers))<<8|uint64(act))),
	}
	acts := make([]kernels.Activation, len(layers)+1)
	for i := range acts {
		acts[i] = act
	}
	var columns []kernels.Column
	for j := range width {
		columns = append(columns, straight(float32(j%5)/4-0.5, 0.5))
	}
	n.p = kernels.Autoencoder(columns, layers, acts)
	kernels.Initialise(n.p, uint64(width))
	for _, g := range n.p.Gemms(kernels.Value(len(n.p.Steps))) {
		for i := range g.B {
			g.B[i] = float32(n.random.NormFloat64()) / 4
		}
	}
	n.target, n.prediction, _ = n.p.Residual()
	return n
}

// straight is a column with one knot.
func straight(centre, slope float32) kernels.Column {
	return kernels.Column{
		Impute: centre, Lo: -infinite, Hi: infinite,
		X: []float32{centre}, Y: []float32{0}, Before: slope, After: slope,
	}
}

// knotted is a column with n knots at random distances.
func knotted(r *rand.Rand, n int, log bool) kernels.Column {
	c := kernels.Column{
		Impute: float32(r.NormFloat64()), Log: log, Lo: -infinite, Hi: infinite,
		Before: 0.1 + r.Float32(), After: 0.1 + r.Float32(),
	}
	x, y := float32(-2), float32(-1.5)
	for range n {
		c.X, c.Y = append(c.X, x), append(c.Y, y)
		x += 0.01 + 4*r.Float32()/float32(n)
		y += 0.01 + 4*r.Float32()/float32(n)
	}
	return c
}

// prototypes draws groups × k rows of a width, about as far apart as scaled rows are. One group holds a row
// twice: the first of the two counts.
func prototypes(r *rand.Rand, width, groups, k int) []float32 {
	rows := make([]float32, groups*k*width)
	for i := range rows {
		rows[i] = float32(r.NormFloat64())
	}
	if k > 1 {
		copy(rows[width:2*width], rows[:width])
	}
	return rows
}

// nearest is the detector of prototypes alone. It has nothing to train.
func nearest(width, groups, k int) *net {
	n := autoencoder(width, []int{2}, kernels.Tanh)
	n.name = fmt.Sprintf("%d-%dx%d", width, groups, k)
	n.p = kernels.Prototypes(n.p.Steps[0].(*kernels.Map).Columns, groups, prototypes(n.random, width, groups, k))
	n.target, n.prediction = 1, 1
	return n
}

// whitened is an autoencoder whose residual is weighed by a symmetric matrix.
func whitened(width int, layers []int, act kernels.Activation) *net {
	n := autoencoder(width, layers, act)
	n.name = "whitened " + n.name
	w := make([]float32, width*width)
	for i := range width {
		for j := range i {
			w[i*width+j] = float32(n.random.NormFloat64()) / float32(2*width)
			w[j*width+i] = w[i*width+j]
		}
		w[i*width+i] = 1 + n.random.Float32()
	}
	n.p = kernels.Whitened(n.p, w)
	n.target, n.prediction, _ = n.p.Residual()
	return n
}

// blended is a whitened autoencoder with prototypes beside it: the default detector.
func blended(width, groups, k int, layers []int, act kernels.Activation) *net {
	n := whitened(width, layers, act)
	n.name = fmt.Sprintf("blended %dx%d, %s", groups, k, n.name)
	n.p = kernels.Blended(n.p, groups, prototypes(n.random, width, groups, k), 0.75, 0.4)
	n.target, n.prediction, _ = n.p.Residual()
	return n
}

// branching uses values more than once on the way to the prediction, so that gradients meet and add up.
func branching() *net {
	n := &net{name: "branching", random: rand.New(rand.NewPCG(1, 2))}
	gemm := func(in kernels.Value, width, out int, act kernels.Activation) *kernels.Gemm {
		return &kernels.Gemm{In: in, Out: out, W: make([]float32, width*out), B: make([]float32, out), Act: act}
	}
	const width = 5
	p := &kernels.Program{Width: width}
	var columns []kernels.Column
	for range width {
		columns = append(columns, straight(0.25, 0.5))
	}
	p.Steps = []kernels.Step{
		&kernels.Map{In: kernels.Input, Columns: columns},                                // 1
		gemm(1, width, 9, kernels.Tanh),                                                  // 2
		gemm(2, 9, 9, kernels.Sigmoid),                                                   // 3
		&kernels.Join{In: []kernels.Value{2, 3, 2}, Weights: []float32{0.5, 1.5, 0.25}},  // 4
		gemm(4, 9, width, kernels.Linear),                                                // 5
		gemm(2, 9, width, kernels.ReLU),                                                  // 6
		&kernels.Diff{A: 5, B: 6},                                                        // 7
		&kernels.Join{In: []kernels.Value{7, 5}, Weights: []float32{1, 0.5}},             // 8
		gemm(1, width, width, kernels.Linear),                                            // 9: not trained
		&kernels.Diff{A: 9, B: 8},                                                        // 10
		&kernels.Norm{In: 10},                                                            // 11
		&kernels.Split{In: 10, Norm: 11},                                                 // 12
		&kernels.Norm{In: 7},                                                             // 13
		&kernels.Split{In: 7, Norm: 13},                                                  // 14
		&kernels.Join{In: []kernels.Value{11, 13}, Weights: []float32{2.0 / 3, 1.0 / 3}}, // 15
		&kernels.Join{In: []kernels.Value{12, 14}, Weights: []float32{2.0 / 3, 1.0 / 3}}, // 16
		&kernels.Map{In: 8, Columns: inverses(columns), Inverse: true},                   // 17
	}
	p.Score, p.Contributions, p.Reconstruction = 15, 16, 17
	n.p, n.prediction, n.target = p, 8, 9
	kernels.Initialise(p, 3)
	return n
}

func inverses(columns []kernels.Column) []kernels.Column {
	var all []kernels.Column
	for i := range columns {
		all = append(all, columns[i].Inverse())
	}
	return all
}

// mapsOnly is a program that is a Map and its inverse, and nothing else but the norm of a difference of
// nothing, which is 0.
func mapsOnly(columns []kernels.Column) *kernels.Program {
	return &kernels.Program{
		Width: len(columns),
		Steps: []kernels.Step{
			&kernels.Map{In: kernels.Input, Columns: columns},
			&kernels.Map{In: 1, Columns: inverses(columns), Inverse: true},
			&kernels.Diff{A: 1, B: 1},
			&kernels.Norm{In: 3},
		},
		Score: 4, Contributions: 1, Reconstruction: 2,
	}
}

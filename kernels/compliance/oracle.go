package compliance

import (
	"math"

	"github.com/lapwing-stream/lapwing/kernels"
)

// oracle evaluates a Program in float64 by the definitions in kernels/program.go, as plainly as possible.
type oracle struct {
	p          *kernels.Program
	weights    [][]float64 // by step; Gemms only
	biases     [][]float64
	parameters [][]float64 // the same memory: W0, B0, … of what the prediction depends on
	steps      []int       // to which each of parameters belongs
}

func newOracle(p *kernels.Program, prediction kernels.Value) *oracle {
	o := &oracle{p: p, weights: make([][]float64, len(p.Steps)), biases: make([][]float64, len(p.Steps))}
	needed := p.Needed(prediction)
	for i, s := range p.Steps {
		if g, ok := s.(*kernels.Gemm); ok {
			o.weights[i], o.biases[i] = wide(g.W), wide(g.B)
			if needed[i+1] {
				o.parameters = append(o.parameters, o.weights[i], o.biases[i])
				o.steps = append(o.steps, i, i)
			}
		}
	}
	return o
}

func wide(v []float32) []float64 {
	w := make([]float64, len(v))
	for i, x := range v {
		w[i] = float64(x)
	}
	return w
}

// values are all values of one row.
func (o *oracle) values(row []float32) [][]float64 {
	v := make([][]float64, len(o.p.Steps)+1)
	for i, w := range o.p.Widths() {
		v[i] = make([]float64, w)
	}
	copy(v[0], wide(row))
	for i := range o.p.Steps {
		o.evaluate(i, v)
	}
	return v
}

// evaluate computes the value of step i from those before it.
func (o *oracle) evaluate(i int, v [][]float64) {
	y := v[i+1]
	switch s := o.p.Steps[i].(type) {
	case *kernels.Map:
		for j, x := range v[s.In] {
			y[j] = mapped(&s.Columns[j], x, s.Inverse)
		}
	case *kernels.Gemm:
		in := v[s.In]
		for r := range y {
			y[r] = o.biases[i][r]
			for k, w := range o.weights[i][r*len(in):][:len(in)] {
				y[r] += w * in[k]
			}
			y[r] = activation(s.Act, y[r])
		}
	case *kernels.Diff:
		for j, x := range v[s.A] {
			y[j] = x - v[s.B][j]
		}
	case *kernels.Norm:
		sum := 0.0
		for _, x := range v[s.In] {
			sum += x * x
		}
		y[0] = math.Sqrt(sum)
	case *kernels.Nearest:
		for _, n := range nearest64(s, v[s.In]) {
			y[0] += n.distance / float64(s.Groups)
		}
	case *kernels.Split:
		clear(y)
		if near, ok := o.p.Steps[s.Norm-1].(*kernels.Nearest); ok {
			for _, n := range nearest64(near, v[s.In]) {
				for j, x := range v[s.In] {
					if n.distance != 0 {
						y[j] += (x - n.prototype[j]) * (x - n.prototype[j]) / n.distance / float64(near.Groups)
					}
				}
			}
			return
		}
		if n := v[s.Norm][0]; n != 0 {
			for j, x := range v[s.In] {
				y[j] = x * x / n
			}
		}
	case *kernels.Join:
		clear(y)
		for k, in := range s.In {
			for j, x := range v[in] {
				y[j] += float64(s.Weights[k]) * x
			}
		}
	}
}

// neighbour is a group's nearest prototype. next is the distance of its second.
type neighbour struct {
	prototype      []float64
	distance, next float64
}

// nearest64 finds them by the distances themselves.
func nearest64(s *kernels.Nearest, x []float64) []neighbour {
	all := make([]neighbour, s.Groups)
	rows := wide(s.Rows)
	k := len(rows) / len(x) / s.Groups
	for g := range all {
		n := neighbour{distance: math.Inf(1), next: math.Inf(1)}
		for i := range k {
			c := rows[(g*k+i)*len(x):][:len(x)]
			d := math.Sqrt(squares(x, c))
			switch {
			case d < n.distance:
				n = neighbour{prototype: c, distance: d, next: n.distance}
			case d < n.next:
				n.next = d
			}
		}
		all[g] = n
	}
	return all
}

func activation(a kernels.Activation, x float64) float64 {
	switch a {
	case kernels.ReLU:
		if x < 0 {
			return 0
		}
	case kernels.Tanh:
		return math.Tanh(x)
	case kernels.Sigmoid:
		return 1 / (1 + math.Exp(-x))
	case kernels.LeakyReLU:
		return max(x, 0.01*x)
	case kernels.ELU:
		if x < 0 {
			return math.Expm1(x)
		}
	case kernels.GELU:
		return x / (1 + math.Exp(-2*math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x))) // ½(1 + tanh u) = 1/(1 + e⁻²ᵘ)
	}
	return x
}

func mapped(c *kernels.Column, x float64, inverse bool) float64 {
	if inverse {
		y := interpolated(c, x)
		if c.Log {
			y = math.Copysign(math.Expm1(math.Abs(y)), y)
		}
		return y
	}
	if math.IsNaN(x) {
		x = float64(c.Impute)
	}
	if c.Log {
		x = math.Copysign(math.Log1p(math.Abs(x)), x)
	}
	return interpolated(c, min(max(x, float64(c.Lo)), float64(c.Hi)))
}

func interpolated(c *kernels.Column, x float64) float64 {
	last := len(c.X) - 1
	if x <= float64(c.X[0]) {
		return float64(c.Y[0]) + float64(c.Before)*(x-float64(c.X[0]))
	}
	for k := range last {
		x0, x1, y0, y1 := float64(c.X[k]), float64(c.X[k+1]), float64(c.Y[k]), float64(c.Y[k+1])
		if x <= x1 {
			return y0 + (y1-y0)*(x-x0)/(x1-x0)
		}
	}
	return float64(c.Y[last]) + float64(c.After)*(x-float64(c.X[last]))
}

// loss is the mean loss of a residual over rows and columns.
func (o *oracle) loss(rows []float32, prediction, target kernels.Value, loss residualLoss) float64 {
	sum, count := 0.0, 0
	for at := 0; at < len(rows); at += o.p.Width {
		v := o.values(rows[at : at+o.p.Width])
		sum += loss.sum(v[prediction], v[target])
		count += len(v[prediction])
	}
	return sum / float64(count)
}

// residualLoss is what o asks for.
type residualLoss struct{ o kernels.TrainOptions }

func (l residualLoss) sum(a, b []float64) float64 {
	if l.o.Loss == kernels.MSE {
		return squares(a, b)
	}
	sum, delta := 0.0, float64(l.o.Delta)
	for j, x := range a {
		if e := math.Abs(x - b[j]); e <= delta {
			sum += e * e / 2
		} else {
			sum += delta * (e - delta/2)
		}
	}
	return sum
}

func squares(a, b []float64) float64 {
	sum := 0.0
	for j, x := range a {
		sum += (x - b[j]) * (x - b[j])
	}
	return sum
}

// gradients are central differences. In float64 a step of 1e-6 leaves an error near 1e-10, and only a row
// whose unit is within 1e-6 of a kink could mislead it. Only what a weight can change is evaluated
// again.
func (o *oracle) gradients(rows []float32, prediction, target kernels.Value, residual residualLoss) [][]float64 {
	const h = 1e-6
	var values [][][]float64
	for at := 0; at < len(rows); at += o.p.Width {
		values = append(values, o.values(rows[at:at+o.p.Width]))
	}
	targets := make([][]float64, len(values))
	for r, v := range values {
		targets[r] = append([]float64(nil), v[target]...)
	}
	count := float64(len(values) * len(values[0][prediction]))
	var moving []int
	needed, changes := o.p.Needed(prediction), make([]bool, len(o.p.Steps)+1)
	for i, s := range o.p.Steps {
		_, changes[i+1] = s.(*kernels.Gemm)
		for _, v := range s.Reads() {
			changes[i+1] = changes[i+1] || changes[v]
		}
		if changes[i+1] && needed[i+1] {
			moving = append(moving, i)
		}
	}
	loss := func(from int) float64 {
		sum := 0.0
		for r, v := range values {
			for _, i := range moving {
				if i >= from {
					o.evaluate(i, v)
				}
			}
			// The target counts as constant, so it keeps its first value.
			sum += residual.sum(v[prediction], targets[r])
		}
		return sum / count
	}
	all := make([][]float64, len(o.parameters))
	for i, p := range o.parameters {
		all[i] = make([]float64, len(p))
		for k, w := range p {
			p[k] = w + h
			up := loss(o.steps[i])
			p[k] = w - h
			down := loss(o.steps[i])
			p[k] = w
			all[i][k] = (up - down) / (2 * h)
		}
		loss(o.steps[i]) // leaves values as they were
	}
	return all
}

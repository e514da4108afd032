package kernels

import "math"

// Autoencoder builds the plain one-head model: Map, Gemms, Diff (scaled row − prediction), Norm, Split, and
// an inverse Map for the reconstruction in raw units. The score is the Norm, contributions are the Split.
//
// layers are the hidden widths, the code among them; acts are their activations, and may hold one more for
// the last Gemm, which goes back to len(columns). Activations not given are Linear. All weights are zero:
// see Initialise. The reconstruction of column j is columns[j].Inverse(); where a column is constant the
// caller may overwrite it with Flat. The columns are copied.
func Autoencoder(columns []Column, layers []int, acts []Activation) *Program {
	p := &Program{Width: len(columns)}
	add := func(s Step) Value {
		p.Steps = append(p.Steps, s)
		return Value(len(p.Steps))
	}
	scaled := add(&Map{In: Input, Columns: columns})
	x, in := scaled, p.Width
	for i := range len(layers) + 1 {
		g := &Gemm{In: x, Out: p.Width}
		if i < len(layers) {
			g.Out = layers[i]
		}
		if i < len(acts) {
			g.Act = acts[i]
		}
		// A width out of bounds is left for Validate to report.
		if g.Out > 0 && g.Out <= MaxWidth {
			g.W, g.B = make([]float32, g.Out*in), make([]float32, g.Out)
			in = g.Out
		}
		x = add(g)
	}
	residual := add(&Diff{A: scaled, B: x})
	p.Score = add(&Norm{In: residual})
	p.Contributions = add(&Split{In: residual, Norm: p.Score})
	inverse := &Map{In: x, Inverse: true}
	for i := range columns {
		inverse.Columns = append(inverse.Columns, columns[i].Inverse())
	}
	p.Reconstruction = add(inverse)
	return p.Clone()
}

// Residual finds the Diff under the program's score: target is its first operand, prediction its second,
// as Autoencoder builds them and TrainOptions takes them. ok is false where the score is no norm of a Diff.
func (p *Program) Residual() (target, prediction Value, ok bool) {
	n, ok := p.step(p.Score).(*Norm)
	if !ok {
		return 0, 0, false
	}
	d, ok := p.step(n.In).(*Diff)
	if !ok {
		return 0, 0, false
	}
	return d.A, d.B, true
}

// Initialise gives every Gemm fresh weights by Glorot's uniform rule, ±√(6/(in+out)), and zero biases.
// The stream is our own (splitmix64), since math/rand may change between Go versions: the same seed gives
// the same bytes anywhere.
func Initialise(p *Program, seed uint64) {
	state := seed
	for _, s := range p.Steps {
		g, ok := s.(*Gemm)
		if !ok || g.Out < 1 {
			continue
		}
		limit := float32(math.Sqrt(6 / float64(len(g.W)/g.Out+g.Out)))
		for i := range g.W {
			// 24 bits fill a float32's mantissa; the half keeps the range symmetric.
			u := (float32(splitmix64(&state)>>40) + 0.5) * (1.0 / (1 << 24))
			g.W[i] = limit * (float32(2*u) - 1)
		}
		clear(g.B)
	}
}

// splitmix64 is Steele, Lea and Flood's generator (OOPSLA 2014).
func splitmix64(state *uint64) uint64 {
	*state += 0x9e3779b97f4a7c15
	z := *state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

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
	scaled := p.add(&Map{In: Input, Columns: columns})
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
		x = p.add(g)
	}
	residual := p.add(&Diff{A: scaled, B: x})
	p.Score = p.add(&Norm{In: residual})
	p.Contributions = p.add(&Split{In: residual, Norm: p.Score})
	p.Reconstruction = p.add(inverseMap(x, columns))
	return p.Clone()
}

// inverseMap takes x, in the units that columns map to, back to raw units.
func inverseMap(x Value, columns []Column) *Map {
	inverse := &Map{In: x, Inverse: true}
	for i := range columns {
		inverse.Columns = append(inverse.Columns, columns[i].Inverse())
	}
	return inverse
}

// Residual finds the Diff under the program's score: target is its first operand, prediction its second,
// as Autoencoder builds them and TrainOptions takes them. The score may be the Norm of the Diff, or of a Gemm
// (see Whitened) or Map that weighs it, or a Join of which one operand is such a Norm (see Blended; the first one
// counts). Training towards the prediction leaves the weighing Gemm alone: the prediction does not depend on it.
// ok is false where there is no such Diff.
func (p *Program) Residual() (target, prediction Value, ok bool) { return p.residual(p.Score) }

func (p *Program) residual(score Value) (target, prediction Value, ok bool) {
	switch s := p.step(score).(type) {
	case *Join:
		for _, v := range s.In {
			if target, prediction, ok = p.residual(v); ok {
				return target, prediction, true
			}
		}
	case *Norm:
		v := s.In
		switch w := p.step(v).(type) {
		case *Gemm:
			v = w.In
		case *Map:
			v = w.In
		}
		if d, is := p.step(v).(*Diff); is {
			return d.A, d.B, true
		}
	}
	return 0, 0, false
}

// Initialise gives every Gemm fresh weights (so it comes before Whitened) by Glorot's uniform rule, ±√(6/(in+out)), and zero biases.
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

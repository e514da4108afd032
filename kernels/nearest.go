package kernels

// HalfSquares are ‖c‖²/2 of each prototype, summed in float64 and rounded once: what the search for the nearest
// adds to −x·c. width is that of In. Engines and the codec take it from here, since another rounding could
// find another prototype.
func (s *Nearest) HalfSquares(width int) []float32 {
	half := make([]float32, len(s.Rows)/width)
	for i := range half {
		sum := 0.0
		for _, x := range s.Rows[i*width : (i+1)*width] {
			sum += float64(float64(x) * float64(x))
		}
		half[i] = float32(sum / 2)
	}
	return half
}

// Prototypes builds the detector without a network: Map, Nearest, Split, and an inverse Map for the
// reconstruction, which is the row itself with missing values imputed and outliers clipped. rows are
// groups × K prototypes in the Map's units, row-major. Columns and rows are copied.
func Prototypes(columns []Column, groups int, rows []float32) *Program {
	p := &Program{Width: len(columns)}
	scaled := p.add(&Map{In: Input, Columns: columns})
	p.Score = p.add(&Nearest{In: scaled, Groups: groups, Rows: rows})
	p.Contributions = p.add(&Split{In: scaled, Norm: p.Score})
	p.Reconstruction = p.add(inverseMap(scaled, columns))
	return p.Clone()
}

// Whitened is a copy of an autoencoder p (as Autoencoder builds it, trained) that weighs its residual by w
// before the norm: Diff, Gemm, Norm, Split. w is Width × Width, row-major; the symmetric root of the inverse
// of the residual's covariance makes the score Mahalanobis' distance of the residual, √(rᵀ·C⁻¹·r).
// p is left as it is. It panics where p has no Diff under its score; see Residual.
func Whitened(p *Program, w []float32) *Program {
	q := p.Clone()
	n, ok := q.step(q.Score).(*Norm)
	if !ok {
		panic("kernels: Whitened needs an autoencoder")
	}
	white := q.add(&Gemm{In: n.In, Out: q.Width, W: append([]float32(nil), w...), B: make([]float32, q.Width)})
	q.Score = q.add(&Norm{In: white})
	q.Contributions = q.add(&Split{In: white, Norm: q.Score})
	return q.pruned()
}

// Blended is a copy of an autoencoder p, whitened or not, with a second head: the score is
// prototypes·P + residual·E, E being p's score and P the Nearest of the scaled row, p's first Map; the
// contributions are joined by the same weights, both > 0. groups and rows are as in Prototypes.
// p is left as it is. It panics where p has no Diff under its score; see Residual.
func Blended(p *Program, groups int, rows []float32, prototypes, residual float32) *Program {
	scaled, _, ok := p.Residual()
	if !ok {
		panic("kernels: Blended needs an autoencoder")
	}
	q := p.Clone()
	weights := []float32{prototypes, residual}
	near := q.add(&Nearest{In: scaled, Groups: groups, Rows: append([]float32(nil), rows...)})
	split := q.add(&Split{In: scaled, Norm: near})
	q.Score = q.add(&Join{In: []Value{near, p.Score}, Weights: weights})
	q.Contributions = q.add(&Join{In: []Value{split, p.Contributions}, Weights: append([]float32(nil), weights...)})
	return q
}

// add appends a step and returns the value that it makes.
func (p *Program) add(s Step) Value {
	p.Steps = append(p.Steps, s)
	return Value(len(p.Steps))
}

// pruned drops the steps that no output needs. It changes the program's own steps.
func (p *Program) pruned() *Program {
	needed := p.Needed(p.Score, p.Reconstruction, p.Contributions)
	now := make([]Value, len(needed))
	q := &Program{Width: p.Width}
	for i, s := range p.Steps {
		if !needed[i+1] {
			continue
		}
		switch s := s.(type) {
		case *Map:
			s.In = now[s.In]
		case *Gemm:
			s.In = now[s.In]
		case *Diff:
			s.A, s.B = now[s.A], now[s.B]
		case *Norm:
			s.In = now[s.In]
		case *Nearest:
			s.In = now[s.In]
		case *Split:
			s.In, s.Norm = now[s.In], now[s.Norm]
		case *Join:
			for k := range s.In {
				s.In[k] = now[s.In[k]]
			}
		}
		now[i+1] = q.add(s)
	}
	q.Score, q.Reconstruction, q.Contributions = now[p.Score], now[p.Reconstruction], now[p.Contributions]
	return q
}

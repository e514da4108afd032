package cpu

import (
	"fmt"
	"sync"

	"github.com/lapwing-stream/lapwing/kernels"
)

// scorer is immutable but for the pool of frames.
type scorer struct {
	layout  layout
	program *kernels.Program
	plans   [8][]op // by which outputs are wanted: bits 1 score, 2 reconstruction, 4 contributions
	frames  sync.Pool
}

func newScorer(p *kernels.Program) (*scorer, error) {
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("engine cpu cannot score this program: %w", err)
	}
	p = p.Clone()
	s := &scorer{layout: newLayout(p), program: p}
	needed := p.Needed(p.Score, p.Reconstruction, p.Contributions)
	ops := make([]op, len(p.Steps))
	for i, step := range p.Steps {
		if needed[i+1] {
			ops[i] = s.layout.newOp(step, kernels.Value(i+1), ops)
		}
	}
	for mask := range s.plans {
		var wanted []kernels.Value
		for bit, v := range []kernels.Value{p.Score, p.Reconstruction, p.Contributions} {
			if mask>>bit&1 == 1 {
				wanted = append(wanted, v)
			}
		}
		for i, need := range p.Needed(wanted...)[1:] {
			if need {
				s.plans[mask] = append(s.plans[mask], ops[i])
			}
		}
	}
	s.frames.New = func() any {
		f := s.layout.newFrame(needed)
		return &f
	}
	return s, nil
}

func (s *scorer) Score(rows []float32, out kernels.Output) error {
	width := s.program.Width
	n := len(rows) / width
	if err := out.Fit(len(rows), width); err != nil {
		return err
	}
	mask := maskOf(out)
	plan := s.plans[mask]
	frame := s.frames.Get().(*frame)
	f := *frame
	for at := 0; at < n; at += block {
		k := min(block, n-at)
		f[kernels.Input] = rows[at*width : (at+k)*width]
		for _, o := range plan {
			o.run(f, k)
		}
		if out.Score != nil {
			s.take(out.Score[at:at+k], f, s.program.Score, 1, k)
		}
		if out.Reconstruction != nil {
			s.take(out.Reconstruction[at*width:(at+k)*width], f, s.program.Reconstruction, width, k)
		}
		if out.Contributions != nil {
			s.take(out.Contributions[at*width:(at+k)*width], f, s.program.Contributions, width, k)
		}
	}
	f[kernels.Input] = nil // the pool must not hold the caller's rows
	s.frames.Put(frame)
	return nil
}

// maskOf says which outputs are wanted: bits 1 score, 2 reconstruction, 4 contributions.
func maskOf(out kernels.Output) (mask int) {
	if out.Score != nil {
		mask |= 1
	}
	if out.Reconstruction != nil {
		mask |= 2
	}
	if out.Contributions != nil {
		mask |= 4
	}
	return mask
}

// take copies a value of k rows out of its padding.
func (s *scorer) take(to []float32, f frame, v kernels.Value, width, k int) {
	from, stride := f[v], s.layout.strides[v]
	if width == 1 {
		for r := range k {
			to[r] = from[r*stride]
		}
		return
	}
	for r := range k {
		copy(to[r*width:(r+1)*width], from[r*stride:])
	}
}

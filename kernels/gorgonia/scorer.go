package gorgonia

import (
	"errors"
	"fmt"
	"sync"

	"github.com/lapwing-stream/lapwing/kernels"
	g "gorgonia.org/gorgonia"
)

// scoreRows is the number of rows of every graph that scores. One size, so that a row is computed the same
// way whatever its company; short batches are filled up.
const scoreRows = 64

type scorer struct {
	program *kernels.Program
	at      []stage
	outside *outside

	mu   sync.Mutex
	free []*machine // one for each call at the same time, ever
}

// machine is one graph for all outputs and the virtual machine that runs it.
type machine struct {
	*graph
	vm     g.VM      // nil where all outputs are computed outside
	values []g.Value // by program value, those that outputs are made of
}

func newScorer(p *kernels.Program) (*scorer, error) {
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("engine gorgonia cannot score this program: %w", err)
	}
	p = p.Clone()
	at, err := stages(p)
	if err != nil {
		return nil, fmt.Errorf("engine gorgonia cannot score this program: %w", err)
	}
	s := &scorer{program: p, at: at, outside: newOutside(p)}
	m, err := s.newMachine()
	if err != nil {
		return nil, err
	}
	s.free = append(s.free, m)
	return s, nil
}

func (s *scorer) newMachine() (*machine, error) {
	building.Lock()
	defer building.Unlock()
	p := s.program
	needed := p.Needed(p.Score, p.Reconstruction, p.Contributions)
	var gemms []*kernels.Gemm
	for i, step := range p.Steps {
		if gemm, ok := step.(*kernels.Gemm); ok && needed[i+1] {
			gemms = append(gemms, gemm)
		}
	}
	gr, err := newGraph(p, s.at, needed, newParameters(gemms), scoreRows)
	if err != nil {
		return nil, err
	}
	m := &machine{graph: gr, values: make([]g.Value, len(p.Steps)+1)}
	for _, v := range []kernels.Value{p.Score, p.Reconstruction, p.Contributions} {
		for s.at[v] == after {
			v = p.Steps[v-1].(*kernels.Map).In
		}
		if s.at[v] == inside && m.values[v] == nil {
			g.Read(gr.nodes[v], &m.values[v])
		}
	}
	if len(gr.AllNodes()) > 0 {
		m.vm = g.NewTapeMachine(gr.ExprGraph)
	}
	return m, nil
}

func (s *scorer) Score(rows []float32, out kernels.Output) error {
	width := s.program.Width
	if len(rows)%width != 0 {
		return fmt.Errorf("engine gorgonia: %d values are no whole number of rows of %d", len(rows), width)
	}
	n := len(rows) / width
	type wanted struct {
		name  string
		to    []float32
		v     kernels.Value
		width int
	}
	var outputs []wanted
	var faults []error
	for _, o := range []wanted{
		{"score", out.Score, s.program.Score, 1},
		{"reconstruction", out.Reconstruction, s.program.Reconstruction, width},
		{"contributions", out.Contributions, s.program.Contributions, width},
	} {
		if o.to == nil {
			continue
		}
		if len(o.to) != n*o.width {
			faults = append(faults, fmt.Errorf("engine gorgonia: %s has room for %d values; %d rows need %d", o.name, len(o.to), n, n*o.width))
		}
		outputs = append(outputs, o)
	}
	if faults != nil {
		return errors.Join(faults...)
	}
	m, err := s.take()
	if err != nil {
		return err
	}
	defer s.give(m)
	for at := 0; at < n; at += scoreRows {
		k := min(scoreRows, n-at)
		raw := rows[at*width : (at+k)*width]
		if m.vm != nil {
			m.load(s.outside, raw)
			m.vm.Reset()
			if err := m.vm.RunAll(); err != nil {
				return fmt.Errorf("engine gorgonia: %w", err)
			}
		}
		for _, o := range outputs {
			for r := range k {
				s.value(m, o.v, raw[r*width:(r+1)*width], r, o.to[(at+r)*o.width:(at+r+1)*o.width])
			}
		}
	}
	return nil
}

// value writes row r of v.
func (s *scorer) value(m *machine, v kernels.Value, raw []float32, r int, to []float32) {
	switch s.at[v] {
	case before:
		s.outside.before(v, raw, to)
	case inside:
		copy(to, m.values[v].Data().([]float32)[r*len(to):])
	case after:
		s.value(m, s.program.Steps[v-1].(*kernels.Map).In, raw, r, to)
		s.outside.apply(v, to, to)
	}
}

func (s *scorer) take() (*machine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := len(s.free) - 1; last >= 0 {
		m := s.free[last]
		s.free = s.free[:last]
		return m, nil
	}
	return s.newMachine()
}

func (s *scorer) give(m *machine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = append(s.free, m)
}

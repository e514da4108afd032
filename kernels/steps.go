package kernels

import (
	"errors"
	"fmt"
	"math"
)

// Bounds on a Program. They keep a hostile model from asking for absurd scratch memory; real ones are far below.
const (
	MaxWidth = 1 << 16 // columns of any value
	MaxSteps = 1 << 12
	MaxKnots = 64
)

func (s *Map) Reads() []Value     { return []Value{s.In} }
func (s *Gemm) Reads() []Value    { return []Value{s.In} }
func (s *Diff) Reads() []Value    { return []Value{s.A, s.B} }
func (s *Norm) Reads() []Value    { return []Value{s.In} }
func (s *Nearest) Reads() []Value { return []Value{s.In} }
func (s *Split) Reads() []Value   { return []Value{s.In, s.Norm} }
func (s *Join) Reads() []Value    { return s.In }

func (*Map) Kind() string     { return "map" }
func (*Gemm) Kind() string    { return "gemm" }
func (*Diff) Kind() string    { return "diff" }
func (*Norm) Kind() string    { return "norm" }
func (*Nearest) Kind() string { return "nearest" }
func (*Split) Kind() string   { return "split" }
func (*Join) Kind() string    { return "join" }

// WidthOf is the width of v, and 0 where v names no value of the program or its step is at fault.
func (p *Program) WidthOf(v Value) int {
	if v < 0 || int(v) > len(p.Steps) {
		return 0
	}
	return p.Widths()[v]
}

// Widths are the widths of all values: entry 0 is the raw row's, entry i that of what Steps[i-1] makes.
// The width of a step that reads a value not yet made is 0; Validate says so.
func (p *Program) Widths() []int {
	w := make([]int, len(p.Steps)+1)
	w[0] = p.Width
	for i, s := range p.Steps {
		if !readsBefore(s, i) {
			continue
		}
		switch s := s.(type) {
		case *Map:
			w[i+1] = w[s.In]
		case *Gemm:
			w[i+1] = s.Out
		case *Diff:
			w[i+1] = w[s.A]
		case *Norm, *Nearest:
			w[i+1] = 1
		case *Split:
			w[i+1] = w[s.In]
		case *Join:
			if len(s.In) > 0 {
				w[i+1] = w[s.In[0]]
			}
		}
	}
	return w
}

// readsBefore tells whether every operand of step i exists when it runs.
func readsBefore(s Step, i int) bool {
	if isNil(s) {
		return false
	}
	for _, v := range s.Reads() {
		if v < 0 || int(v) > i {
			return false
		}
	}
	return true
}

func isNil(s Step) bool {
	switch s := s.(type) {
	case nil:
		return true
	case *Map:
		return s == nil
	case *Gemm:
		return s == nil
	case *Diff:
		return s == nil
	case *Norm:
		return s == nil
	case *Nearest:
		return s == nil
	case *Split:
		return s == nil
	case *Join:
		return s == nil
	}
	return false
}

// Validate reports every fault of the program, joined; each names the step by its index and kind.
// Engines and codecs may take a valid program's shapes and constants as given.
func (p *Program) Validate() error {
	if p.Width < 1 || p.Width > MaxWidth {
		return fmt.Errorf("the program has %d columns; 1 to %d are allowed", p.Width, MaxWidth)
	}
	if len(p.Steps) > MaxSteps {
		return fmt.Errorf("the program has %d steps; at most %d are allowed", len(p.Steps), MaxSteps)
	}
	widths := p.Widths()
	var faults []error
	for i, s := range p.Steps {
		if isNil(s) {
			faults = append(faults, fmt.Errorf("step %d is nil", i))
			continue
		}
		if !readsBefore(s, i) {
			faults = append(faults, fmt.Errorf("step %d (%s) reads %v; only values 0 to %d exist there", i, s.Kind(), s.Reads(), i))
			continue
		}
		for _, err := range p.faults(s, widths) {
			faults = append(faults, fmt.Errorf("step %d (%s): %w", i, s.Kind(), err))
		}
	}
	for _, out := range []struct {
		name string
		v    Value
		want int
	}{
		{"score", p.Score, 1},
		{"reconstruction", p.Reconstruction, p.Width},
		{"contributions", p.Contributions, p.Width},
	} {
		switch {
		case out.v < 0 || int(out.v) > len(p.Steps):
			faults = append(faults, fmt.Errorf("%s is value %d; only values 0 to %d exist", out.name, out.v, len(p.Steps)))
		case widths[out.v] != out.want:
			faults = append(faults, fmt.Errorf("%s (value %d) has width %d; %d is needed", out.name, out.v, widths[out.v], out.want))
		}
	}
	return errors.Join(faults...)
}

// faults are what is wrong with one step whose operands exist.
func (p *Program) faults(s Step, widths []int) (faults []error) {
	report := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	switch s := s.(type) {
	case *Map:
		if len(s.Columns) != widths[s.In] {
			report("%d columns for a value of width %d", len(s.Columns), widths[s.In])
		}
		for j := range s.Columns {
			if err := s.Columns[j].validate(s.Inverse); err != nil {
				report("column %d: %w", j, err)
			}
		}
	case *Gemm:
		if s.Out < 1 || s.Out > MaxWidth {
			report("output width %d; 1 to %d are allowed", s.Out, MaxWidth)
			return faults
		}
		if in := widths[s.In]; len(s.W) != s.Out*in {
			report("%d weights; %d·%d = %d are needed", len(s.W), s.Out, in, s.Out*in)
		}
		if len(s.B) != s.Out {
			report("%d biases; %d are needed", len(s.B), s.Out)
		}
		if i := firstNotFinite(s.W); i >= 0 {
			report("weight %d is %v", i, s.W[i])
		}
		if i := firstNotFinite(s.B); i >= 0 {
			report("bias %d is %v", i, s.B[i])
		}
		if int(s.Act) >= len(activationNames) {
			report("unknown %v", s.Act)
		}
	case *Diff:
		if widths[s.A] != widths[s.B] {
			report("operands of width %d and %d; they must be equal", widths[s.A], widths[s.B])
		}
	case *Norm:
	case *Nearest:
		if s.Groups < 1 || s.Groups > MaxWidth {
			report("%d groups; 1 to %d are allowed", s.Groups, MaxWidth)
			return faults
		}
		width := widths[s.In]
		if width < 1 {
			return faults // In's own step is reported
		}
		if per := s.Groups * width; len(s.Rows) == 0 || len(s.Rows)%per != 0 {
			report("%d values of prototypes; a whole number of %d·%d = %d is needed", len(s.Rows), s.Groups, width, per)
		} else if n := len(s.Rows) / width; n > MaxWidth {
			report("%d prototypes; at most %d are allowed", n, MaxWidth)
		}
		if i := firstNotFinite(s.Rows); i >= 0 {
			report("prototype value %d is %v", i, s.Rows[i])
		} else if i := firstNotFinite(s.HalfSquares(width)); i >= 0 {
			report("prototype %d is too far from 0: its square is beyond float32", i)
		}
	case *Split:
		switch n := p.step(s.Norm).(type) {
		case *Norm:
			if n.In != s.In {
				report("the norm is that of value %d, not of %d", n.In, s.In)
			}
		case *Nearest:
			if n.In != s.In {
				report("the nearest distance is that of value %d, not of %d", n.In, s.In)
			}
		default:
			report("value %d is neither a norm nor a nearest distance", s.Norm)
		}
	case *Join:
		if len(s.In) == 0 {
			report("no operands")
		}
		if len(s.In) != len(s.Weights) {
			report("%d operands and %d weights", len(s.In), len(s.Weights))
		}
		for k, v := range s.In {
			if widths[v] != widths[s.In[0]] {
				report("operand %d has width %d, operand 0 has %d", k, widths[v], widths[s.In[0]])
			}
		}
		for k, w := range s.Weights {
			if !(w > 0) || !finite(w) {
				report("weight %d is %v; it must be positive and finite", k, w)
			}
		}
	default:
		report("unknown kind of step")
	}
	return faults
}

// step is what makes v, or nil for Input.
func (p *Program) step(v Value) Step {
	if v < 1 || int(v) > len(p.Steps) {
		return nil
	}
	return p.Steps[v-1]
}

// Needed marks, by value, what has to be computed for the given values.
func (p *Program) Needed(values ...Value) []bool {
	need := make([]bool, len(p.Steps)+1)
	for _, v := range values {
		need[v] = true
	}
	for i := len(p.Steps); i > 0; i-- {
		if need[i] {
			for _, v := range p.Steps[i-1].Reads() {
				need[v] = true
			}
		}
	}
	return need
}

// Gemms are the Gemm steps that v depends on, in step order: what training towards v trains.
func (p *Program) Gemms(v Value) []*Gemm {
	var gemms []*Gemm
	for i, need := range p.Needed(v)[1:] {
		if g, ok := p.Steps[i].(*Gemm); ok && need {
			gemms = append(gemms, g)
		}
	}
	return gemms
}

// Parameters are W and B of each Gemm that v depends on, in step order: the order of Trainer.Parameters.
// They are the program's own memory, not copies.
func (p *Program) Parameters(v Value) [][]float32 {
	var all [][]float32
	for _, g := range p.Gemms(v) {
		all = append(all, g.W, g.B)
	}
	return all
}

// SetParameters copies trained parameters (see Trainer.Parameters) into the program.
func (p *Program) SetParameters(v Value, from [][]float32) error {
	to := p.Parameters(v)
	if err := SameShape(to, from); err != nil {
		return err
	}
	for i := range to {
		copy(to[i], from[i])
	}
	return nil
}

// SameShape tells whether parameters fit: as many slices, each as long.
func SameShape(want, got [][]float32) error {
	if len(want) != len(got) {
		return fmt.Errorf("%d parameter slices; %d are needed", len(got), len(want))
	}
	var faults []error
	for i := range want {
		if len(want[i]) != len(got[i]) {
			faults = append(faults, fmt.Errorf("parameter slice %d has %d entries; %d are needed", i, len(got[i]), len(want[i])))
		}
	}
	return errors.Join(faults...)
}

// Clone copies the program and all its constants.
func (p *Program) Clone() *Program {
	c := *p
	c.Steps = make([]Step, len(p.Steps))
	for i, s := range p.Steps {
		switch s := s.(type) {
		case *Map:
			m := *s
			m.Columns = make([]Column, len(s.Columns))
			for j, col := range s.Columns {
				col.X = append([]float32(nil), col.X...)
				col.Y = append([]float32(nil), col.Y...)
				m.Columns[j] = col
			}
			c.Steps[i] = &m
		case *Gemm:
			g := *s
			g.W = append([]float32(nil), s.W...)
			g.B = append([]float32(nil), s.B...)
			c.Steps[i] = &g
		case *Diff:
			d := *s
			c.Steps[i] = &d
		case *Norm:
			n := *s
			c.Steps[i] = &n
		case *Nearest:
			n := *s
			n.Rows = append([]float32(nil), s.Rows...)
			c.Steps[i] = &n
		case *Split:
			d := *s
			c.Steps[i] = &d
		case *Join:
			j := *s
			j.In = append([]Value(nil), s.In...)
			j.Weights = append([]float32(nil), s.Weights...)
			c.Steps[i] = &j
		default:
			c.Steps[i] = s
		}
	}
	return &c
}

func firstNotFinite(v []float32) int {
	for i, x := range v {
		if !finite(x) {
			return i
		}
	}
	return -1
}

func finite(x float32) bool {
	return !math.IsNaN(float64(x)) && !math.IsInf(float64(x), 0)
}

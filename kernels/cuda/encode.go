//go:build gpu

package cuda

import (
	"fmt"
	"math"

	"github.com/lapwing-stream/lapwing/kernels"
)

// Operations of program.cuh.
const (
	opMap = iota
	opUnmap
	opGemm
	opDiff
	opNorm
	opNearest
	opSplit
	opSplitNearest
	opScale
	opAdd
)

// step is program_step of program.cuh, word by word.
type step struct {
	op, act           int32
	in, in2, out      int32
	width, outs       int32
	groups, per, keep int32 // keep is subtract of a gemm
	weight            float32
	constants         int32
}

const stepWords = 12

// Outputs by bit of a mask.
const (
	wantScore = 1 << iota
	wantReconstruction
	wantContributions
	masks = 1 << iota
)

// plan is what to do for the outputs of one mask.
type plan struct {
	first, count int    // its steps, among those of all plans
	input        int    // column of the raw row; -1 = not read
	outputs      [3]int // column of each output
	height       int    // columns of a tile
	work         int    // multiply-adds a row, about
}

// planner makes a plan.
type planner struct {
	plan
	program *encoded
	p       *kernels.Program
	widths  []int
	steps   []step
	keeps   map[int]bool // values of Nearest that a Split asks more of
	last    map[int]int  // step after which a value is not read any more
	at      map[int]int  // column of each value that is in the tile
	tile    kernels.Tile

	subtracted int // the diff that its gemm has done; 0 = none
}

// encoded is a Program as the kernels read it.
type encoded struct {
	width     int
	plans     [masks]plan
	steps     []step
	constants []float32
	starts    []int // by step of the program: its first constant
}

// encode lays out a valid program.
func encode(p *kernels.Program) (*encoded, error) {
	e := &encoded{width: p.Width, starts: make([]int, len(p.Steps))}
	widths := p.Widths()
	for i, s := range p.Steps {
		e.starts[i] = len(e.constants)
		switch s := s.(type) {
		case *kernels.Map:
			e.mapConstants(s)
		case *kernels.Gemm:
			e.gemmConstants(s)
		case *kernels.Nearest:
			e.nearestConstants(s, widths[s.In])
		}
		e.align()
	}
	for mask := 1; mask < masks; mask++ {
		if err := e.plan(p, widths, mask); err != nil {
			return nil, err
		}
	}
	if len(e.constants) > math.MaxInt32 {
		return nil, fmt.Errorf("engine cuda: the program has %d constants; 2³¹ are the most that a GPU is given", len(e.constants))
	}
	return e, nil
}

// align keeps what is read four words at a time at a multiple of four.
func (e *encoded) align() {
	for len(e.constants)%4 != 0 {
		e.constants = append(e.constants, 0)
	}
}

// columnWords is COLUMN_WORDS of program.cuh.
const columnWords = 12

// mapConstants: the columns, then the tables of those that have more than one knot.
func (e *encoded) mapConstants(s *kernels.Map) {
	begin := len(e.constants)
	e.constants = append(e.constants, make([]float32, columnWords*len(s.Columns))...)
	for j := range s.Columns {
		c := &s.Columns[j]
		k := c.Curve()
		flags := int32(0)
		if c.Log {
			flags |= 1
		}
		if !math.IsInf(float64(c.Lo), -1) || !math.IsInf(float64(c.Hi), 1) {
			flags |= 2
		}
		entries, table := int32(0), int32(0)
		if len(k.X) == 1 {
			if k.Slope[0] != k.Before {
				flags |= 4
			}
		} else {
			flags |= 8
			entries, table = 2, int32(len(e.constants))
			for int(entries) < len(k.X) {
				entries *= 2
			}
			for _, part := range [][]float32{k.X, k.Base, k.Slope} {
				e.constants = append(e.constants, part...)
				for range int(entries) - len(part) {
					e.constants = append(e.constants, float32(math.NaN())) // no value lies right of it
				}
			}
		}
		copy(e.constants[begin+columnWords*j:], []float32{
			asFloat(flags), c.Impute, c.Lo, c.Hi, k.X[0], k.Base[0], k.Slope[0], k.Before, asFloat(entries), asFloat(table),
		})
	}
}

func asFloat(i int32) float32 { return math.Float32frombits(uint32(i)) }

// gemmConstants: outputs in blocks of eight while more than four are left, then of four, and of four only where there are up to
// eight; a block's biases, then its weights input by input. gemm_block_outs of program.cuh is the same rule.
func (e *encoded) gemmConstants(s *kernels.Gemm) {
	in := len(s.W) / s.Out
	for o := 0; o < s.Out; {
		n := 4
		if s.Out > 8 && s.Out-o > 4 {
			n = 8
		}
		for i := o; i < o+n; i++ {
			e.constants = append(e.constants, at(s.B, i))
		}
		for k := range in {
			for i := o; i < o+n; i++ {
				if i < s.Out {
					e.constants = append(e.constants, s.W[i*in+k])
				} else {
					e.constants = append(e.constants, 0)
				}
			}
		}
		o += n
	}
}

func at(v []float32, i int) float32 {
	if i < len(v) {
		return v[i]
	}
	return 0
}

// nearestConstants: each group's prototypes in blocks of four, half squares first, then negated, column by column; then
// all of them as they are.
func (e *encoded) nearestConstants(s *kernels.Nearest, width int) {
	per := len(s.Rows) / width / s.Groups
	half := s.HalfSquares(width)
	for g := range s.Groups {
		for first := 0; first < per; first += 4 {
			for i := first; i < first+4; i++ {
				if i < per {
					e.constants = append(e.constants, half[g*per+i])
				} else {
					e.constants = append(e.constants, float32(math.Inf(1)))
				}
			}
			for j := range width {
				for i := first; i < first+4; i++ {
					if i < per {
						e.constants = append(e.constants, -s.Rows[(g*per+i)*width+j])
					} else {
						e.constants = append(e.constants, 0)
					}
				}
			}
		}
	}
	e.constants = append(e.constants, s.Rows...)
}

// plan lists what to do for the outputs of mask, and where each value stands in the tile.
func (e *encoded) plan(p *kernels.Program, widths []int, mask int) error {
	l := planner{
		plan: plan{first: len(e.steps), input: -1}, program: e, p: p, widths: widths,
		keeps: map[int]bool{}, last: map[int]int{}, at: map[int]int{},
	}
	outputs := []kernels.Value{p.Score, p.Reconstruction, p.Contributions}
	var wanted []kernels.Value
	for bit, v := range outputs {
		if mask>>bit&1 == 1 {
			wanted = append(wanted, v)
		}
	}
	needed := p.Needed(wanted...)
	for i, s := range p.Steps {
		if !needed[i+1] {
			continue
		}
		l.last[i+1] = i
		for _, v := range s.Reads() {
			l.last[int(v)] = i
		}
		if split, ok := s.(*kernels.Split); ok {
			if _, ok := p.Steps[split.Norm-1].(*kernels.Nearest); ok {
				l.keeps[int(split.Norm)] = true
			}
		}
	}
	for _, v := range wanted {
		l.last[int(v)] = len(p.Steps)
	}
	if _, read := l.last[int(kernels.Input)]; read {
		l.input = int(l.place(int(kernels.Input)))
	}
	for i, s := range p.Steps {
		if needed[i+1] {
			if !l.subtracts(i, needed) {
				l.step(i, s)
			}
			for v, last := range l.last {
				if last == i {
					l.drop(v)
				}
			}
		}
	}
	for bit, v := range outputs {
		if mask>>bit&1 == 1 {
			l.outputs[bit] = l.at[int(v)]
		}
	}
	l.height = l.tile.Height
	// The rows of a tile, 256 at most and four words more, are counted in an int.
	if l.height > math.MaxInt32/512 {
		return fmt.Errorf("engine cuda: a row of the program has %d values at once; %d are the most that a GPU is given", l.height, math.MaxInt32/512)
	}
	l.count = len(l.steps)
	e.steps = append(e.steps, l.steps...)
	e.plans[mask] = l.plan
	return nil
}

// room is how many columns a value takes.
func (l *planner) room(v int) int {
	if l.keeps[v] {
		return 1 + 2*l.p.Steps[v-1].(*kernels.Nearest).Groups // the mean; reciprocals; which prototypes
	}
	return l.widths[v]
}

// place finds columns for v.
func (l *planner) place(v int) int32 {
	l.at[v] = l.tile.Place(l.room(v))
	return int32(l.at[v])
}

// placeOver puts v where one of its operands stands, if that one is read here for the last time and is as wide: column by
// column, each is read before it is written.
func (l *planner) placeOver(v, i int, operands ...kernels.Value) int32 {
	for _, o := range operands {
		o := int(o)
		if l.last[o] == i && l.room(o) == l.room(v) {
			l.at[v] = l.at[o]
			delete(l.at, o)
			return int32(l.at[v])
		}
	}
	return l.place(v)
}

// drop frees v's columns. What was placed over is not there any more.
func (l *planner) drop(v int) {
	if at, ok := l.at[v]; ok {
		delete(l.at, v)
		l.tile.Drop(at, l.room(v))
	}
}

// subtracts plans a gemm and the diff that follows it as one step, where nothing else reads the gemm: the prediction of an
// autoencoder then takes no columns, and a tile has half as many rows more. It is called for both steps, and true for either.
func (l *planner) subtracts(i int, needed []bool) bool {
	if i > 0 && l.subtracted == i {
		return true
	}
	g, ok := l.p.Steps[i].(*kernels.Gemm)
	if !ok || g.Act != kernels.Linear || i+1 >= len(l.p.Steps) || !needed[i+2] {
		return false
	}
	d, ok := l.p.Steps[i+1].(*kernels.Diff)
	if v := kernels.Value(i + 1); !ok || d.B != v || d.A == v || l.last[i+1] != i+1 {
		return false
	}
	// The gemm reads its input to the end of each block of outputs: only what it subtracts from may be written over.
	at := step{op: opGemm, in: int32(l.at[int(g.In)]), in2: int32(l.at[int(d.A)]), width: int32(l.widths[g.In]), outs: int32(l.widths[i+2]), keep: 1, constants: int32(l.program.starts[i])}
	if d.A == g.In {
		at.out = l.place(i + 2)
	} else {
		at.out = l.placeOver(i+2, i+1, d.A)
	}
	l.steps = append(l.steps, at)
	l.work += len(g.W) + 12*g.Out
	l.subtracted = i + 1
	return true
}

func (l *planner) step(i int, s kernels.Step) {
	v, start := i+1, int32(l.program.starts[i])
	width := int32(l.widths[v])
	column := func(v kernels.Value) int32 { return int32(l.at[int(v)]) }
	l.work += int(width)
	switch s := s.(type) {
	case *kernels.Map:
		d := step{op: opMap, in: column(s.In), width: width, constants: start}
		if s.Inverse {
			d.op = opUnmap
		}
		d.out = l.placeOver(v, i, s.In)
		l.steps = append(l.steps, d)
		l.work += 20 * int(width)
	case *kernels.Gemm:
		l.steps = append(l.steps, step{
			op: opGemm, act: int32(s.Act), in: column(s.In), out: l.place(v), width: int32(l.widths[s.In]), outs: width, constants: start,
		})
		l.work += len(s.W) + 12*s.Out
	case *kernels.Diff:
		a, b := column(s.A), column(s.B)
		l.steps = append(l.steps, step{op: opDiff, in: a, in2: b, out: l.placeOver(v, i, s.A, s.B), width: width})
	case *kernels.Norm:
		l.steps = append(l.steps, step{op: opNorm, in: column(s.In), out: l.place(v), width: int32(l.widths[s.In])})
		l.work += l.widths[s.In]
	case *kernels.Nearest:
		d := l.nearest(s, start)
		d.op, d.in, d.out = opNearest, column(s.In), l.place(v)
		if l.keeps[v] {
			d.keep = 1
		}
		l.steps = append(l.steps, d)
		l.work += len(s.Rows) + 4*s.Groups*l.widths[s.In]
	case *kernels.Split:
		d := step{op: opSplit, width: width}
		if near, ok := l.p.Steps[s.Norm-1].(*kernels.Nearest); ok {
			d = l.nearest(near, int32(l.program.starts[s.Norm-1]))
			d.op = opSplitNearest
			l.work += 4 * near.Groups * int(width)
		}
		d.in, d.in2 = column(s.In), column(s.Norm)
		d.out = l.placeOver(v, i, s.In)
		l.steps = append(l.steps, d)
	case *kernels.Join:
		var in []int32
		for _, o := range s.In {
			in = append(in, column(o))
		}
		out := l.place(v)
		for k := range in {
			d := step{op: opAdd, in: in[k], out: out, width: width, weight: s.Weights[k]}
			if k == 0 {
				d.op = opScale
			}
			l.steps = append(l.steps, d)
		}
	}
}

func (l *planner) nearest(s *kernels.Nearest, start int32) step {
	width := l.widths[s.In]
	return step{width: int32(width), groups: int32(s.Groups), per: int32(len(s.Rows) / width / s.Groups), constants: start}
}

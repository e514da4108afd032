//go:build cgo && (amd64 || arm64)

package cpu

// #cgo CFLAGS: -O3 -std=c11
// #include "score.h"
// #cgo noescape lapwing_score
// #cgo nocallback lapwing_score
// #cgo noescape lapwing_apply
// #cgo nocallback lapwing_apply
// #cgo noescape lapwing_peak
// #cgo nocallback lapwing_peak
import "C"

import (
	"fmt"
	"math"
	"sync"
	"time"
	"unsafe"

	"github.com/lapwing-stream/lapwing/kernels"
)

// A tile is the rows that all steps see before the next rows come. Its values should stay in half of a first-level
// cache of 32 KiB or more; but a gemm reads its weights once a tile, so it must not be too low.
const (
	tileBytes = 24 << 10
	leastTile = 32
	mostTile  = 128

	// A call into C holds its thread: neither the collector nor another goroutine can have it before it returns. So
	// a call is given this many multiply-adds at most, some hundred microseconds' worth.
	callWork = 8 << 20
)

// vectorScorer runs a program in C at one level. It is immutable but for the pool of tiles.
type vectorScorer struct {
	level     level
	program   *kernels.Program
	plans     [8][]C.lapwing_step // by which outputs are wanted: bits 1 score, 2 reconstruction, 4 contributions
	columns   []C.lapwing_column
	constants []float32
	tileRows  int
	callRows  int // a multiple of tileRows
	tiles     sync.Pool
}

func newVectorScorer(l level, p *kernels.Program) (kernels.Scorer, error) {
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("engine cpu cannot score this program: %w", err)
	}
	p = p.Clone()
	s := &vectorScorer{level: l, program: p}
	c := &compiler{program: p, widths: p.Widths(), outputs: outputsOf(l), starts: make([]placed, len(p.Steps))}
	for i, step := range p.Steps {
		c.constantsOf(i, step)
	}
	height := 0
	for mask := 1; mask < len(s.plans); mask++ {
		s.plans[mask] = c.plan(mask)
		height = max(height, c.tile.Height)
	}
	s.columns, s.constants = c.columns, aligned(len(c.constants))
	copy(s.constants, c.constants)
	// Rows of a tile are a multiple of two vectors at every level.
	s.tileRows = min(max(tileBytes/4/height/leastTile*leastTile, leastTile), mostTile)
	s.callRows = max(callWork/max(c.work, 1)/s.tileRows, 1) * s.tileRows
	s.tiles.New = func() any {
		t := aligned(height * s.tileRows)
		return &t
	}
	return s, nil
}

// aligned makes n floats that begin a cache line. A cache line behind them may be read, by loads of whole vectors.
func aligned(n int) []float32 {
	const line = 64
	f := make([]float32, n+2*line/4)
	skip := (line - int(uintptr(unsafe.Pointer(&f[0]))%line)) % line / 4
	return f[skip : skip+n : skip+n]
}

func (s *vectorScorer) Score(rows []float32, out kernels.Output) error {
	width := s.program.Width
	n := len(rows) / width
	if err := out.Fit(len(rows), width); err != nil {
		return err
	}
	mask := maskOf(out)
	if n == 0 || mask == 0 {
		return nil
	}
	steps := s.plans[mask]
	tile := s.tiles.Get().(*[]float32)
	for at := 0; at < n; at += s.callRows {
		k := min(s.callRows, n-at)
		C.lapwing_score(C.int(s.level), unsafe.SliceData(steps), C.int64_t(len(steps)),
			unsafe.SliceData(s.columns), (*C.float)(unsafe.SliceData(s.constants)),
			(*C.float)(unsafe.SliceData(*tile)), C.int64_t(s.tileRows),
			(*C.float)(&rows[at*width]), C.int64_t(k), C.int64_t(width),
			from(out.Score, at), from(out.Reconstruction, at*width), from(out.Contributions, at*width))
	}
	s.tiles.Put(tile)
	return nil
}

// from is the address of v[i], and nil where there is no v.
func from(v []float32, i int) *C.float {
	if v == nil {
		return nil
	}
	return (*C.float)(&v[i])
}

func outputsOf(l level) int {
	switch l {
	case avx512Level:
		return C.OUTPUTS_AVX512
	case avx2Level:
		return C.OUTPUTS_AVX2
	}
	return C.OUTPUTS_NEON
}

// compiler makes a program into plans.
type compiler struct {
	program   *kernels.Program
	widths    []int
	outputs   int // of a gemm's block
	columns   []C.lapwing_column
	constants []float32
	starts    []placed // by step

	// of the plan being made, or made last
	steps []C.lapwing_step
	at    []int // first column of each value in the tile
	tile  kernels.Tile
	work  int // multiply-adds a row, about
}

// placed is where a step's constants begin.
type placed struct{ column, constant, table int }

// constantsOf packs what a step needs. A step that no output needs is packed too: it is rare, and harmless.
func (c *compiler) constantsOf(i int, step kernels.Step) {
	for len(c.constants)%16 != 0 { // a cache line
		c.constants = append(c.constants, 0)
	}
	c.starts[i] = placed{column: len(c.columns), constant: len(c.constants)}
	switch s := step.(type) {
	case *kernels.Map:
		for j := range s.Columns {
			var d C.lapwing_column
			d, c.constants = newColumn(&s.Columns[j], c.constants)
			c.columns = append(c.columns, d)
		}
	case *kernels.Gemm:
		c.constants = append(c.constants, s.B...)
		in := len(s.W) / s.Out
		eachBlock(s.Out, c.outputs, func(from, to int) {
			for k := range in {
				for o := from; o < to; o++ {
					c.constants = append(c.constants, s.W[o*in+k])
				}
			}
		})
	case *kernels.Nearest:
		c.starts[i].table = c.nearest(s, c.widths[s.In])
	}
}

// eachBlock cuts outs outputs into as few blocks of at most limit as there must be, as equal as can be, the larger
// ones first: gemm in score_body.h does the same.
func eachBlock(outs, limit int, do func(from, to int)) {
	blocks := (outs + limit - 1) / limit
	for i, at := 0, 0; i < blocks; i++ {
		n := outs / blocks
		if i < outs%blocks {
			n++
		}
		do(at, at+n)
		at += n
	}
}

// newColumn describes a column, with the tables of its knots appended to constants.
func newColumn(column *kernels.Column, constants []float32) (C.lapwing_column, []float32) {
	k := column.Curve()
	d := C.lapwing_column{
		impute: C.float(column.Impute), lo: C.float(column.Lo), hi: C.float(column.Hi),
		x: C.float(k.X[0]), base: C.float(k.Base[0]), slope: C.float(k.Slope[0]), before: C.float(k.Before),
	}
	if column.Log {
		d.flags |= C.COLUMN_LOG
	}
	if !math.IsInf(float64(column.Lo), -1) || !math.IsInf(float64(column.Hi), 1) {
		d.flags |= C.COLUMN_CLIP
	}
	if len(k.X) == 1 {
		if k.Slope[0] != k.Before {
			d.flags |= C.COLUMN_BENT
		}
		return d, constants
	}
	size := tableSize(len(k.X))
	d.table, d.constant = C.int32_t(size), C.int64_t(len(constants))
	for _, part := range [][]float32{k.X, k.Base, k.Slope} {
		constants = append(constants, part...)
		for range size - len(part) {
			constants = append(constants, float32(math.NaN())) // no value lies right of it
		}
	}
	return d, constants
}

// tableSize is the least of vlookup's sizes that n entries fit in, or 0.
func tableSize(n int) int {
	for _, size := range []int{8, 16, 32, 64} {
		if n <= size {
			return size
		}
	}
	return 0
}

// nearest packs prototypes twice: in blocks, to be searched, and by column, to be looked up. It returns the entries
// of a lookup table, 0 where the columns are as long as a group.
func (c *compiler) nearest(s *kernels.Nearest, width int) int {
	per := len(s.Rows) / width / s.Groups
	half := s.HalfSquares(width)
	begin := len(c.constants)
	for g := range s.Groups {
		eachBlock(per, c.outputs, func(from, to int) {
			from, to = g*per+from, g*per+to
			c.constants = append(c.constants, half[from:to]...)
			for j := range width {
				for i := from; i < to; i++ {
					c.constants = append(c.constants, -s.Rows[i*width+j])
				}
			}
		})
	}
	for (len(c.constants)-begin)%16 != 0 {
		c.constants = append(c.constants, 0)
	}
	table := tableSize(per)
	for g := range s.Groups {
		for j := range width {
			for i := range per {
				c.constants = append(c.constants, s.Rows[(g*per+i)*width+j])
			}
			for range table - per {
				c.constants = append(c.constants, 0)
			}
		}
	}
	return table
}

// plan lists what to do for the outputs of mask.
func (c *compiler) plan(mask int) []C.lapwing_step {
	p := c.program
	c.steps, c.tile, c.work = nil, kernels.Tile{}, 0
	c.at = make([]int, len(c.widths))
	for i := range c.at {
		c.at[i] = -1
	}
	outputs := []kernels.Value{p.Score, p.Reconstruction, p.Contributions}
	var wanted []kernels.Value
	for bit, v := range outputs {
		if mask>>bit&1 == 1 {
			wanted = append(wanted, v)
		}
	}
	needed := p.Needed(wanted...)
	last := make([]int, len(c.widths)) // the step after which a value is not read any more
	for i, step := range p.Steps {
		if needed[i+1] {
			last[i+1] = i
			for _, v := range step.Reads() {
				last[v] = i
			}
			if split, ok := step.(*kernels.Split); ok {
				last[split.In] = i
			}
		}
	}
	for bit, v := range outputs {
		if mask>>bit&1 == 1 {
			last[v] = len(p.Steps)
			if v == kernels.Input {
				c.load()
			}
		}
	}
	for i, step := range p.Steps {
		if !needed[i+1] {
			continue
		}
		c.step(i, step)
		for v := range last {
			if last[v] == i && c.at[v] >= 0 {
				c.drop(kernels.Value(v))
			}
		}
	}
	for bit, v := range outputs {
		if mask>>bit&1 == 1 {
			c.steps = append(c.steps, C.lapwing_step{op: C.OP_STORE, in: c.column(v), out: C.int32_t(bit), width: C.int32_t(c.widths[v])})
		}
	}
	return c.steps
}

// room is how many columns a value takes in the tile.
func (c *compiler) room(v kernels.Value) int {
	if v > 0 {
		if s, ok := c.program.Steps[v-1].(*kernels.Nearest); ok {
			return 1 + 2*s.Groups // the mean; distances; which prototypes
		}
	}
	return c.widths[v]
}

// place finds columns for v.
func (c *compiler) place(v kernels.Value) C.int32_t {
	c.at[v] = c.tile.Place(c.room(v))
	return C.int32_t(c.at[v])
}

// drop frees v's columns.
func (c *compiler) drop(v kernels.Value) {
	c.tile.Drop(c.at[v], c.room(v))
	c.at[v] = -1
}

// column is where v stands; Input is loaded when it is first asked for.
func (c *compiler) column(v kernels.Value) C.int32_t {
	if v == kernels.Input && c.at[v] < 0 {
		c.load()
	}
	return C.int32_t(c.at[v])
}

// load brings the raw rows into the tile.
func (c *compiler) load() {
	if c.at[kernels.Input] < 0 {
		c.steps = append(c.steps, C.lapwing_step{op: C.OP_LOAD, out: c.place(kernels.Input), width: C.int32_t(c.program.Width), column: -1})
	}
}

func (c *compiler) step(i int, step kernels.Step) {
	v, start := kernels.Value(i+1), c.starts[i]
	width := C.int32_t(c.widths[v])
	add := func(s C.lapwing_step) { c.steps = append(c.steps, s) }
	c.work += int(width)
	switch s := step.(type) {
	case *kernels.Map:
		d := C.lapwing_step{op: C.OP_MAP, width: width, column: C.int64_t(start.column)}
		switch {
		case s.In == kernels.Input && !s.Inverse:
			d.op = C.OP_LOAD
		case s.Inverse:
			d.op = C.OP_UNMAP
			fallthrough
		default:
			d.in = c.column(s.In)
		}
		d.out = c.place(v)
		c.work += 20 * int(width)
		add(d)
	case *kernels.Gemm:
		in := c.column(s.In)
		add(C.lapwing_step{
			op: C.OP_GEMM, act: C.int32_t(s.Act), in: in, out: c.place(v),
			width: C.int32_t(c.widths[s.In]), outs: width, constant: C.int64_t(start.constant),
		})
		c.work += len(s.W) + 12*s.Out
	case *kernels.Diff:
		a, b := c.column(s.A), c.column(s.B)
		add(C.lapwing_step{op: C.OP_DIFF, in: a, in2: b, out: c.place(v), width: width})
	case *kernels.Norm:
		in := c.column(s.In)
		add(C.lapwing_step{op: C.OP_NORM, in: in, out: c.place(v), width: C.int32_t(c.widths[s.In])})
		c.work += c.widths[s.In]
	case *kernels.Nearest:
		d := c.nearestStep(s, start)
		d.op, d.in = C.OP_NEAREST, c.column(s.In)
		d.out = c.place(v)
		add(d)
		c.work += len(s.Rows) + 4*s.Groups*c.widths[s.In]
	case *kernels.Split:
		d := C.lapwing_step{}
		if near, ok := c.program.Steps[s.Norm-1].(*kernels.Nearest); ok {
			d = c.nearestStep(near, c.starts[s.Norm-1])
			d.op = C.OP_SPLIT_NEAREST
			c.work += 4 * near.Groups * int(width)
		} else {
			d.op, d.width = C.OP_SPLIT, width
		}
		d.in, d.in2 = c.column(s.In), c.column(s.Norm)
		d.out = c.place(v)
		add(d)
	case *kernels.Join:
		for _, in := range s.In {
			c.column(in) // Input is loaded before there are free columns that it could be put in
		}
		out := c.place(v)
		for k, in := range s.In {
			d := C.lapwing_step{op: C.OP_ADD, in: c.column(in), out: out, width: width, weight: C.float(s.Weights[k])}
			if k == 0 {
				d.op = C.OP_SCALE
			}
			add(d)
		}
	}
}

func (c *compiler) nearestStep(s *kernels.Nearest, start placed) C.lapwing_step {
	width := c.widths[s.In]
	return C.lapwing_step{
		width: C.int32_t(width), groups: C.int32_t(s.Groups), per: C.int32_t(len(s.Rows) / width / s.Groups),
		table: C.int32_t(start.table), constant: C.int64_t(start.constant),
	}
}

// PeakFMA measures how many multiply-adds a second one thread does at a level, lanes counted one by one, over about
// d: the limit that score is held to. A multiply-add is two floating-point operations.
func PeakFMA(name string, d time.Duration) (float64, error) {
	e, err := NewAt(name)
	if err != nil {
		return 0, err
	}
	l := e.(engine).level
	if l == portableLevel {
		return 0, fmt.Errorf("level %s has no vector code to measure", name)
	}
	var sink C.float
	const rounds = 100_000
	best := 0.0
	for begin := time.Now(); time.Since(begin) < d; {
		from := time.Now()
		n := float64(C.lapwing_peak(C.int(l), rounds, &sink))
		best = max(best, n/time.Since(from).Seconds())
	}
	return best, nil
}

// Functions of vec.h by the numbers that apply takes.
const (
	fnTanh    = C.FN_TANH
	fnSigmoid = C.FN_SIGMOID
	fnExp     = C.FN_EXP
	fnLog     = C.FN_LOG
	fnELU     = C.FN_ELU
	fnGELU    = C.FN_GELU
)

// apply evaluates a function of vec.h at each x: the accuracy tests walk over all float32 with it.
func apply(l level, fn int, x, y []float32) {
	if len(x) > 0 {
		C.lapwing_apply(C.int(l), C.int(fn), (*C.float)(&x[0]), (*C.float)(&y[0]), C.int64_t(len(x)))
	}
}

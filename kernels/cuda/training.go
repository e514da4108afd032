//go:build gpu

package cuda

import (
	"fmt"
	"slices"

	"github.com/lapwing-stream/lapwing/kernels"
)

// Sizes of train.cu.
const (
	groupRows  = 32
	leafGroups = 4
	unitStride = 36
)

// Operations of train.cu.
const (
	trainProduct = iota
	trainCombine
)

// trainOp is train_op of train.cu, word by word.
type trainOp struct {
	kind, act                 int32
	in, out                   int32
	x, y, slope               int32
	dy, dx                    int32
	add, through              int32
	nextAct, nextY, nextSlope int32
	columns, rows             int32
	w, b                      int32
	weight                    float32
}

const trainOpWords = 19

// training is a program to be trained as the kernels read it. What no step of the optimizer changes is computed once for each
// row: the prepared row, whose words are the first units of the tile.
type training struct {
	options  kernels.TrainOptions
	width    int // of a raw row
	loaded   int // words of a prepared row
	pitch    int // from one to the next
	passes   []preparation
	forward  []trainOp
	backward []trainOp

	units      int       // of the tile
	layout     []float32 // as it is before the first step: weights that are not trained stand in it for good
	places     []int32   // two of the layout for each parameter; −1 = none
	shapes     []int     // lengths of W0, B0, W1, B1, …
	parameters int
	columns    int // of the residual
	prediction int32
	target     int32
	gradient   int32
	lastAct    int32
	lastSlope  int32
	work       int // multiply-adds of a step a row, about
}

// preparation computes up to three values of a prepared row.
type preparation struct {
	code  *encoded
	plan  *plan
	at    [3]int // columns of the tile
	width [3]int
	to    [3]int // words of the prepared row
}

// same tells whether another computes the same from a row.
func (x preparation) same(o preparation) bool {
	return x.at == o.at && x.width == o.width && x.to == o.to && *x.plan == *o.plan &&
		slices.Equal(wordsOf(x.code.steps), wordsOf(o.code.steps)) && slices.Equal(wordsOf(x.code.constants), wordsOf(o.code.constants))
}

// alike tells whether the kernels train another program by the same operations: it differs in what prepares its rows and in trained
// weights alone.
func (t *training) alike(o *training) bool {
	return t.width == o.width && t.loaded == o.loaded && t.units == o.units && t.columns == o.columns && t.prediction == o.prediction && t.target == o.target && len(t.passes) == len(o.passes) &&
		slices.Equal(t.forward, o.forward) && slices.Equal(t.backward, o.backward) && slices.Equal(t.shapes, o.shapes) && slices.Equal(t.places, o.places) &&
		slices.Equal(wordsOf(t.untrained()), wordsOf(o.untrained()))
}

// untrained is the layout without what is trained.
func (t *training) untrained() []float32 {
	layout := slices.Clone(t.layout)
	for _, at := range t.places {
		if at >= 0 {
			layout[at] = 0
		}
	}
	return layout
}

// Bounds that keep every index of the kernels within 32 bits.
const (
	mostParameters = 1 << 28
	mostUnits      = 1 << 20
)

// planner of a training.
type trainPlanner struct {
	*training
	p         *kernels.Program
	widths    []int
	towards   []bool // what the prediction depends on
	needed    []bool // and the target
	moves     []bool // with the trained weights
	readers   []int  // steps that move and read it
	imports   []kernels.Value
	values    []int
	gradients []int
	slopes    []int
	over      []bool // the gradient takes the value's place
	products  map[int]trainOp
}

// planTraining lays out a program for options that are resolved.
func planTraining(p *kernels.Program, o kernels.TrainOptions) (*training, error) {
	l := &trainPlanner{training: &training{options: o, width: p.Width}, p: p, widths: p.Widths(), products: map[int]trainOp{}}
	n := len(p.Steps) + 1
	l.values, l.gradients, l.slopes = make([]int, n), make([]int, n), make([]int, n)
	l.moves, l.over, l.readers = make([]bool, n), make([]bool, n), make([]int, n)
	l.towards, l.needed = p.Needed(o.Prediction), p.Needed(o.Prediction, o.Target)
	if err := l.movers(); err != nil {
		return nil, err
	}
	if err := l.place(); err != nil {
		return nil, err
	}
	l.forwards()
	l.backwards()
	t := l.training
	t.columns = l.widths[o.Prediction]
	t.prediction, t.target, t.gradient = int32(l.values[o.Prediction]), int32(l.values[o.Target]), int32(l.gradients[o.Prediction])
	t.lastAct, t.lastSlope = l.next(o.Prediction)
	return t, l.prepare()
}

// movers finds what changes with the weights, and what is read from outside of that.
func (l *trainPlanner) movers() error {
	imported := make([]bool, len(l.moves))
	take := func(v kernels.Value) {
		if !l.moves[v] && !imported[v] {
			imported[v] = true
			l.imports = append(l.imports, v)
		}
	}
	for i, s := range l.p.Steps {
		v := i + 1
		_, gemm := s.(*kernels.Gemm)
		l.moves[v] = gemm && l.towards[v]
		for _, in := range s.Reads() {
			l.moves[v] = l.moves[v] || l.moves[in]
		}
		if !l.needed[v] || !l.moves[v] {
			continue
		}
		switch s.(type) {
		case *kernels.Gemm, *kernels.Diff, *kernels.Join:
		default: // Resolve lets only a target depend on one
			return fmt.Errorf("engine cuda cannot train towards a target that a %s makes of trained weights (step %d)", s.Kind(), i)
		}
		for _, in := range s.Reads() {
			take(in)
			l.readers[in]++
		}
	}
	take(l.options.Target)
	return nil
}

// place gives every value its units. The gradient of a Gemm takes its place where one Gemm alone reads it: that one is done with
// it when the gradient comes.
func (l *trainPlanner) place() error {
	units := 0
	room := func(width int) int {
		units += width
		return units - width
	}
	for _, v := range l.imports {
		l.values[v] = room(l.widths[v])
	}
	l.loaded, l.pitch = units, (units+7)/8*8
	for i, s := range l.p.Steps {
		v := kernels.Value(i + 1)
		if !l.needed[v] || !l.moves[v] {
			continue
		}
		l.values[v] = room(l.widths[v])
		g, gemm := s.(*kernels.Gemm)
		if gemm && g.Act == kernels.GELU {
			l.slopes[v] = room(l.widths[v])
		}
		if !l.towards[v] {
			continue
		}
		l.over[v] = gemm && v != l.options.Target && l.gemmReads(v)
		if l.gradients[v] = l.values[v]; !l.over[v] {
			l.gradients[v] = room(l.widths[v])
		}
	}
	if l.units = units; units > mostUnits {
		return fmt.Errorf("engine cuda cannot train a network of %d values a row; %d are the most", units, mostUnits)
	}
	return nil
}

// gemmReads tells whether v is the prediction and not read, or read once, by a Gemm on the way to it.
func (l *trainPlanner) gemmReads(v kernels.Value) bool {
	if v == l.options.Prediction {
		return l.readers[v] == 0
	}
	if l.readers[v] != 1 {
		return false
	}
	for i, s := range l.p.Steps {
		if g, ok := s.(*kernels.Gemm); ok && g.In == v && l.towards[i+1] {
			return true
		}
	}
	return false
}

// next is the activation that v's gradient is taken through as it is written, −1 for none.
func (l *trainPlanner) next(v kernels.Value) (act, slope int32) {
	if v > 0 && l.over[v] {
		if g := l.p.Steps[v-1].(*kernels.Gemm); g.Act != kernels.Linear {
			return int32(g.Act), int32(l.slopes[v])
		}
	}
	return -1, 0
}

func up(n, to int) int { return (n + to - 1) / to * to }

// product lays out the weights of step i: biases and then input by input, as the way forward reads them, and output by output, as
// the way back does.
func (l *trainPlanner) product(i int, g *kernels.Gemm) trainOp {
	v, in := kernels.Value(i+1), l.widths[g.In]
	o := trainOp{
		kind: trainProduct, act: int32(g.Act), in: int32(in), out: int32(g.Out), x: int32(l.values[g.In]), y: int32(l.values[v]),
		slope: int32(l.slopes[v]), dx: -1, nextAct: -1, columns: int32(len(l.layout)),
	}
	trained, back := l.towards[v], l.towards[v] && l.moves[g.In]
	pitch := up(g.Out, 4)
	columns := make([]float32, pitch*(in+1))
	copy(columns, g.B)
	for k, w := range g.W {
		columns[pitch*(1+k%in)+k/in] = w
	}
	l.layout = append(l.layout, columns...)
	if back {
		o.rows = int32(len(l.layout))
		rows := make([]float32, up(in, 4)*g.Out)
		for k, w := range g.W {
			rows[up(in, 4)*(k/in)+k%in] = w
		}
		l.layout = append(l.layout, rows...)
	}
	l.work += 3 * len(g.W)
	if !trained {
		return o
	}
	o.w, o.b = int32(l.parameters), int32(l.parameters+len(g.W))
	for k := range g.W {
		to := int32(-1)
		if back {
			to = o.rows + int32(up(in, 4)*(k/in)+k%in)
		}
		l.places = append(l.places, o.columns+int32(pitch*(1+k%in)+k/in), to)
	}
	for k := range g.B {
		l.places = append(l.places, o.columns+int32(k), -1)
	}
	l.shapes = append(l.shapes, len(g.W), len(g.B))
	l.parameters += len(g.W) + len(g.B)
	return o
}

func combineOp(width, y, x int, weight float32, add bool) trainOp {
	o := trainOp{kind: trainCombine, out: int32(width), x: int32(x), y: int32(y), weight: weight}
	if add {
		o.add = 1
	}
	return o
}

func (l *trainPlanner) forwards() {
	for i, s := range l.p.Steps {
		v := i + 1
		if !l.needed[v] || !l.moves[v] {
			continue
		}
		switch s := s.(type) {
		case *kernels.Gemm:
			l.products[i] = l.product(i, s)
			l.forward = append(l.forward, l.products[i])
		case *kernels.Diff:
			l.forward = append(l.forward, combineOp(l.widths[v], l.values[v], l.values[s.A], 1, false), combineOp(l.widths[v], l.values[v], l.values[s.B], -1, true))
		case *kernels.Join:
			for k, in := range s.In {
				l.forward = append(l.forward, combineOp(l.widths[v], l.values[v], l.values[in], s.Weights[k], k > 0))
			}
		}
	}
}

func (l *trainPlanner) backwards() {
	set := make([]bool, len(l.moves)) // gradients that a later step has set already
	for i := len(l.p.Steps) - 1; i >= 0; i-- {
		v := i + 1
		if !l.towards[v] || !l.moves[v] {
			continue
		}
		operand := func(in kernels.Value, weight float32) {
			if l.moves[in] {
				l.backward = append(l.backward, combineOp(l.widths[v], l.gradients[in], l.gradients[v], weight, set[in]))
				set[in] = true
			}
		}
		switch s := l.p.Steps[i].(type) {
		case *kernels.Gemm:
			o := l.products[i]
			o.dy = int32(l.gradients[v])
			if s.Act != kernels.Linear && !l.over[v] {
				o.through = 1
			}
			if l.moves[s.In] {
				o.dx = int32(l.gradients[s.In])
				if set[s.In] {
					o.add = 1
				}
				set[s.In] = true
				o.nextAct, o.nextSlope = l.next(s.In)
				o.nextY = int32(l.values[s.In])
			}
			l.backward = append(l.backward, o)
		case *kernels.Diff:
			operand(s.A, 1)
			operand(s.B, -1)
		case *kernels.Join:
			for k, in := range s.In {
				operand(in, s.Weights[k])
			}
		}
	}
}

// prepare plans what the prepared rows are made by: the scorer's steps, three values at a time.
func (l *trainPlanner) prepare() error {
	if l.parameters > mostParameters {
		return fmt.Errorf("engine cuda cannot train %d weights; %d are the most", l.parameters, mostParameters)
	}
	for at := 0; at < len(l.imports); at += 3 {
		some := l.imports[at:min(at+3, len(l.imports))]
		pass := *l.p
		pass.Score, pass.Reconstruction, pass.Contributions = some[0], some[len(some)/2], some[len(some)-1]
		// Constants of other steps need not be there.
		pass.Steps = append([]kernels.Step(nil), l.p.Steps...)
		for i, need := range pass.Needed(some...)[1:] {
			if reads := pass.Steps[i].Reads(); !need {
				pass.Steps[i] = &kernels.Diff{A: reads[0], B: reads[0]}
			}
		}
		code, err := encode(&pass)
		if err != nil {
			return err
		}
		x := preparation{code: code, plan: &code.plans[masks-1]}
		for k, v := range []kernels.Value{pass.Score, pass.Reconstruction, pass.Contributions} {
			x.at[k], x.width[k], x.to[k] = x.plan.outputs[k], l.widths[v], l.values[v]
		}
		l.passes = append(l.passes, x)
	}
	return nil
}

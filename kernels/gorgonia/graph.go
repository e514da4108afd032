package gorgonia

import (
	"fmt"
	"sync"

	"github.com/lapwing-stream/lapwing/kernels"
	g "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// building is held while a graph is made, down to its tape machine. Gorgonia numbers the groups of its nodes by a counter of the
// process that nothing guards (encoding.NewGroup, v0.9.18; Rectify calls it), so graphs that are made at once would race.
// Machines run without it.
var building sync.Mutex

// stage says where a value is computed.
type stage uint8

const (
	before stage = iota // the row, or Maps, Nearest and its Split over it
	inside              // the graph
	after               // Maps over what the graph made
)

// stages places every value, or says which step stands between those of the graph and cannot.
func stages(p *kernels.Program) ([]stage, error) {
	at := make([]stage, len(p.Steps)+1)
	for i, s := range p.Steps {
		_, isMap := s.(*kernels.Map)
		_, isNearest := s.(*kernels.Nearest)
		split, isSplit := s.(*kernels.Split)
		if isSplit {
			_, isNearest = p.Steps[split.Norm-1].(*kernels.Nearest)
		}
		highest := before
		for _, v := range s.Reads() {
			highest = max(highest, at[v])
		}
		switch {
		case (isMap || isNearest) && highest == before:
		case isNearest:
			return nil, fmt.Errorf("step %d (%s) reads what the network made; gorgonia finds the nearest prototypes only of the row and its maps", i, s.Kind())
		case isMap:
			at[i+1] = after
		case highest == after:
			return nil, fmt.Errorf("step %d (%s) reads a map of what the network made; gorgonia takes maps only at the start and at the end", i, s.Kind())
		default:
			at[i+1] = inside
		}
	}
	return at, nil
}

// graph is a program's graph for a fixed number of rows.
type graph struct {
	*g.ExprGraph
	program *kernels.Program
	widths  []int
	rows    int
	nodes   []*g.Node // by value; nil where the graph does not have it
	inputs  []*tensor.Dense
	weights g.Nodes // W0, B0, W1, B1, … of the Gemms in the graph, in step order
}

// newGraph writes down the steps that are needed and inside. parameters are the tensors of W and B for each
// of those Gemms, in step order; graphs that share them share the weights.
func newGraph(p *kernels.Program, at []stage, needed []bool, parameters []*tensor.Dense, rows int) (gr *graph, err error) {
	// Gorgonia reports wrong shapes by panics as well as by errors.
	defer func() {
		if r := recover(); r != nil {
			gr, err = nil, fmt.Errorf("gorgonia: %v", r)
		}
	}()
	gr = &graph{
		ExprGraph: g.NewGraph(),
		program:   p,
		widths:    p.Widths(),
		rows:      rows,
		nodes:     make([]*g.Node, len(p.Steps)+1),
		inputs:    make([]*tensor.Dense, len(p.Steps)+1),
	}
	for i, s := range p.Steps {
		v := kernels.Value(i + 1)
		if !needed[v] || at[v] != inside {
			continue
		}
		gr.nodes[v], err = gr.step(s, v, parameters)
		if err != nil {
			return nil, fmt.Errorf("gorgonia: step %d (%s): %w", i, s.Kind(), err)
		}
	}
	return gr, nil
}

// node is the node of v; a value from before the graph becomes an input.
func (gr *graph) node(v kernels.Value) *g.Node {
	if gr.nodes[v] == nil {
		t := tensor.New(tensor.WithShape(gr.rows, gr.widths[v]), tensor.Of(tensor.Float32))
		gr.inputs[v] = t
		gr.nodes[v] = g.NewMatrix(gr.ExprGraph, tensor.Float32, g.WithShape(gr.rows, gr.widths[v]), g.WithName(fmt.Sprintf("value%d", v)), g.WithValue(t))
	}
	return gr.nodes[v]
}

func (gr *graph) step(s kernels.Step, v kernels.Value, parameters []*tensor.Dense) (*g.Node, error) {
	switch s := s.(type) {
	case *kernels.Gemm:
		w := gr.parameter(parameters, fmt.Sprintf("W%d", v))
		b := gr.parameter(parameters, fmt.Sprintf("B%d", v))
		xw, err := g.Mul(gr.node(s.In), w)
		if err != nil {
			return nil, err
		}
		y, err := g.BroadcastAdd(xw, b, nil, []byte{0})
		if err != nil {
			return nil, err
		}
		return gr.activate(s.Act, y, v)
	case *kernels.Diff:
		return g.Sub(gr.node(s.A), gr.node(s.B))
	case *kernels.Norm:
		square, err := g.Square(gr.node(s.In))
		if err != nil {
			return nil, err
		}
		sum, err := g.Mul(square, gr.constant(gr.widths[s.In], 1, "ones", v, 1))
		if err != nil {
			return nil, err
		}
		return g.Sqrt(sum)
	case *kernels.Split:
		square, err := g.Square(gr.node(s.In))
		if err != nil {
			return nil, err
		}
		// Where the norm is 0 all squares are: 0/1.
		norm := gr.node(s.Norm)
		isZero, err := g.Eq(norm, gr.constant(gr.rows, 1, "zeros", v, 0), true)
		if err != nil {
			return nil, err
		}
		divisor, err := g.Add(norm, isZero)
		if err != nil {
			return nil, err
		}
		wide, err := g.Mul(divisor, gr.constant(1, gr.widths[s.In], "ones", v, 1))
		if err != nil {
			return nil, err
		}
		return g.HadamardDiv(square, wide)
	case *kernels.Join:
		var sum *g.Node
		for k, in := range s.In {
			weight := gr.constant(gr.rows, gr.widths[in], fmt.Sprintf("weight%d_", k), v, s.Weights[k])
			part, err := g.HadamardProd(gr.node(in), weight)
			if err != nil {
				return nil, err
			}
			if sum == nil {
				sum = part
			} else if sum, err = g.Add(sum, part); err != nil {
				return nil, err
			}
		}
		return sum, nil
	}
	return nil, fmt.Errorf("no graph for a %s", s.Kind())
}

// parameter is the next weight or bias.
func (gr *graph) parameter(parameters []*tensor.Dense, name string) *g.Node {
	t := parameters[len(gr.weights)]
	n := g.NewMatrix(gr.ExprGraph, tensor.Float32, g.WithShape(t.Shape()...), g.WithName(name), g.WithValue(t))
	gr.weights = append(gr.weights, n)
	return n
}

// constant is a matrix of one number. Gorgonia merges nodes of the same name, hence v in it.
func (gr *graph) constant(rows, columns int, name string, v kernels.Value, x float32) *g.Node {
	backing := make([]float32, rows*columns)
	for i := range backing {
		backing[i] = x
	}
	t := tensor.New(tensor.WithShape(rows, columns), tensor.WithBacking(backing))
	return g.NewMatrix(gr.ExprGraph, tensor.Float32, g.WithShape(rows, columns), g.WithName(fmt.Sprintf("%s%d", name, v)), g.WithValue(t))
}

// load fills the inputs from raw rows; rows short of the graph's number are filled up with the first.
func (gr *graph) load(outside *outside, rows []float32) {
	width := gr.program.Width
	n := len(rows) / width
	for v, t := range gr.inputs {
		if t == nil {
			continue
		}
		to := t.Data().([]float32)
		w := gr.widths[v]
		for r := range n {
			outside.before(kernels.Value(v), rows[r*width:(r+1)*width], to[r*w:(r+1)*w])
		}
		for r := n; r < gr.rows; r++ {
			copy(to[r*w:(r+1)*w], to[:w])
		}
	}
}

// newParameters copies the weights of Gemms: each W transposed to in rows of out, as x·W needs it, and each
// B as one row.
func newParameters(gemms []*kernels.Gemm) []*tensor.Dense {
	var all []*tensor.Dense
	for _, s := range gemms {
		in := len(s.W) / s.Out
		w := tensor.New(tensor.WithShape(in, s.Out), tensor.Of(tensor.Float32))
		transpose(w.Data().([]float32), s.W, s.Out, in)
		b := tensor.New(tensor.WithShape(1, s.Out), tensor.WithBacking(append([]float32(nil), s.B...)))
		all = append(all, w, b)
	}
	return all
}

// transpose writes from, rows by columns, as columns by rows.
func transpose(to, from []float32, rows, columns int) {
	for r := range rows {
		for c := range columns {
			to[c*rows+r] = from[r*columns+c]
		}
	}
}

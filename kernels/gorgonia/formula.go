package gorgonia

import (
	"fmt"

	"github.com/lapwing-stream/lapwing/kernels"
	g "gorgonia.org/gorgonia"
)

// activate applies act to x, which belongs to value v. What Gorgonia lacks is composed of what it can differentiate.
func (gr *graph) activate(act kernels.Activation, x *g.Node, v kernels.Value) (*g.Node, error) {
	c := formula{gr: gr, prefix: "act", v: v}
	switch act {
	case kernels.Linear:
		return x, nil
	case kernels.ReLU:
		return g.Rectify(x)
	case kernels.Tanh:
		return g.Tanh(x)
	case kernels.Sigmoid:
		return g.Sigmoid(x)
	case kernels.LeakyReLU:
		return c.sub(c.relu(x), c.scale(kernels.LeakySlope, c.relu(c.neg(x)))), c.err
	case kernels.ELU:
		return c.add(c.relu(x), c.unary(g.Expm1, c.neg(c.relu(c.neg(x))))), c.err
	case kernels.GELU:
		u := c.scale(kernels.GELUScale, c.add(x, c.scale(kernels.GELUCubic, c.unary(g.Cube, x))))
		gate := c.shift(0.5, c.scale(0.5, c.unary(g.Tanh, u)))
		return c.mul(x, gate), c.err
	}
	return nil, fmt.Errorf("no graph for %v", act)
}

// loss is the mean loss of the residuals e, which are prediction − target.
func (gr *graph) loss(o kernels.TrainOptions, e *g.Node) (*g.Node, error) {
	c := formula{gr: gr, prefix: "loss", v: o.Prediction}
	each := c.unary(g.Square, e)
	if o.Loss == kernels.Huber {
		// What is left of e within ±delta, and by how much |e| is beyond it.
		over, under := c.relu(c.shift(-o.Delta, e)), c.relu(c.shift(-o.Delta, c.neg(e)))
		within := c.add(c.sub(e, over), under)
		each = c.add(c.scale(0.5, c.unary(g.Square, within)), c.scale(o.Delta, c.add(over, under)))
	}
	if c.err != nil {
		return nil, c.err
	}
	return g.Mean(each)
}

// formula builds one and keeps the first error, after which its nodes are nil.
type formula struct {
	gr     *graph
	prefix string // of the names of its constants, with v and count
	v      kernels.Value
	count  int
	err    error
}

func (c *formula) unary(op func(*g.Node) (*g.Node, error), a *g.Node) *g.Node {
	if c.err != nil {
		return nil
	}
	n, err := op(a)
	c.err = err
	return n
}

func (c *formula) binary(op func(a, b *g.Node) (*g.Node, error), a, b *g.Node) *g.Node {
	return c.unary(func(a *g.Node) (*g.Node, error) { return op(a, b) }, a)
}

func (c *formula) relu(a *g.Node) *g.Node   { return c.unary(g.Rectify, a) }
func (c *formula) neg(a *g.Node) *g.Node    { return c.unary(g.Neg, a) }
func (c *formula) add(a, b *g.Node) *g.Node { return c.binary(g.Add, a, b) }
func (c *formula) sub(a, b *g.Node) *g.Node { return c.binary(g.Sub, a, b) }
func (c *formula) mul(a, b *g.Node) *g.Node { return c.binary(g.HadamardProd, a, b) }

func (c *formula) scale(x float32, a *g.Node) *g.Node { return c.constant(g.HadamardProd, x, a) }
func (c *formula) shift(x float32, a *g.Node) *g.Node { return c.constant(g.Add, x, a) }

// constant applies op to a and a matrix of one number.
func (c *formula) constant(op func(a, b *g.Node) (*g.Node, error), x float32, a *g.Node) *g.Node {
	if c.err != nil {
		return nil
	}
	c.count++
	shape := a.Shape()
	return c.binary(op, a, c.gr.constant(shape[0], shape[1], fmt.Sprintf("%s%d_", c.prefix, c.count), c.v, x))
}

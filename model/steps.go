package model

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/lapwing-stream/lapwing/kernels"
)

// This file holds, for each kind of step, how it is written as ONNX nodes and how it is read back, one below
// the other. Reading takes the operands and constants only: decoding then writes the program again and compares
// every node, attribute, shape and constant with the file's (see Decode), so no reader checks what its writer fixes.

// emit writes one step; its result is the tensor with the step's name.
func (b *builder) emit(s kernels.Step) {
	switch s := s.(type) {
	case *kernels.Map:
		b.emitMap(s)
	case *kernels.Gemm:
		b.emitGemm(s)
	case *kernels.Diff:
		b.node("Sub", "sub", b.step, []string{b.values[s.A], b.values[s.B]})
	case *kernels.Norm:
		b.node("ReduceL2", "root", b.step, []string{b.values[s.In]}, intsAttr("axes", 1), intAttr("keepdims", 1))
	case *kernels.Nearest:
		b.emitNearest(s)
	case *kernels.Split:
		b.emitSplit(s)
	case *kernels.Join:
		b.emitJoin(s)
	}
}

// read reads the step whose nodes r holds.
func (r *reader) read(kind string) (kernels.Step, error) {
	switch kind {
	case "map":
		return r.readMap()
	case "gemm":
		return r.readGemm()
	case "diff":
		a, err := r.operand("sub", 0)
		if err != nil {
			return nil, err
		}
		b, err := r.operand("sub", 1)
		return &kernels.Diff{A: a, B: b}, err
	case "norm":
		in, err := r.operand("root", 0)
		return &kernels.Norm{In: in}, err
	case "nearest":
		return r.readNearest()
	case "split":
		in, err := r.operand("square", 0)
		if err != nil {
			return nil, err
		}
		norm, err := r.operand("zero", 0)
		return &kernels.Split{In: in, Norm: norm}, err
	case "join":
		return r.readJoin()
	}
	return nil, unknownStep(kind)
}

func unknownStep(kind string) error {
	return fmt.Errorf("step '%s' is not known to this version; update lapwing", kind)
}

// emitMap: forward, missing ones are imputed, then the symmetric logarithm of the columns that ask for it, the
// clip and the curve; inverse, the curve and then the symmetric exponential.
func (b *builder) emitMap(s *kernels.Map) {
	d := len(s.Columns)
	column := func(get func(*kernels.Column) float32) []float32 {
		v := make([]float32, d)
		for j := range s.Columns {
			v[j] = get(&s.Columns[j])
		}
		return v
	}
	logs, mask := 0, make([]byte, d)
	for j := range s.Columns {
		if s.Columns[j].Log {
			mask[j], logs = 1, logs+1
		}
	}
	x := b.values[s.In]
	if s.Inverse {
		if logs == 0 {
			b.emitCurve(s.Columns, x, b.step)
			return
		}
		y := b.emitCurve(s.Columns, x, "")
		one := b.floats("one", []float32{1}, 1)
		rest := b.node("Sub", "expm1", "", []string{b.wide("Exp", "exp", b.node("Abs", "abs", "", []string{y})), one})
		grown := b.node("Mul", "grown", "", []string{b.node("Sign", "sign", "", []string{y}), rest})
		b.node("Where", "result", b.step, []string{b.constant("log", bools, mask, d), grown, y})
		return
	}
	missing := b.node("IsNaN", "missing", "", []string{x})
	impute := b.floats("impute", column(func(c *kernels.Column) float32 { return c.Impute }), d)
	x = b.node("Where", "imputed", "", []string{missing, impute, x})
	if logs > 0 {
		one := b.floats("one", []float32{1}, 1)
		plus := b.node("Add", "plus1", "", []string{b.node("Abs", "abs", "", []string{x}), one})
		shrunk := b.node("Mul", "shrunk", "", []string{b.node("Sign", "sign", "", []string{x}), b.wide("Log", "ln", plus)})
		x = b.node("Where", "logged", "", []string{b.constant("log", bools, mask, d), shrunk, x})
	}
	x = b.node("Max", "above", "", []string{x, b.floats("lo", column(func(c *kernels.Column) float32 { return c.Lo }), d)})
	x = b.node("Min", "within", "", []string{x, b.floats("hi", column(func(c *kernels.Column) float32 { return c.Hi }), d)})
	b.emitCurve(s.Columns, x, b.step)
}

// wide applies op in float64: runtimes' float32 exponentials differ by an ulp of 1, which is all of a column
// whose values are near 0, and the engines take theirs in float64.
func (b *builder) wide(op, role, x string) string {
	x = b.node("Cast", role+"_in", "", []string{x}, castTo(float64s))
	return b.node("Cast", role+"_out", "", []string{b.node(op, role, "", []string{x})}, castTo(float32s))
}

// line tells whether every column is a straight line through its only knot: what scaling alone needs.
func line(columns []kernels.Column) bool {
	for j := range columns {
		if c := &columns[j]; len(c.X) != 1 || c.Before != c.After {
			return false
		}
	}
	return true
}

// emitCurve writes the piecewise-linear functions, by the arithmetic of kernels.Curve: find the segment, then
// Base + Slope·(x − X) with the constants gathered for it. A sum over hinges would hold only running sums of
// the slopes, from which the knots could not be read back exactly; this holds the knots themselves, works on
// [N, D] after the search, and gives the engines' bits.
//
// Slope and rounding follow from the knots by kernels.Curve: to change its arithmetic is to change the format,
// and the golden file says so.
//
// The tables have K+1 entries a column: left of the first knot, then one from each knot on. Columns with fewer
// than K knots repeat their last.
func (b *builder) emitCurve(columns []kernels.Column, x, to string) string {
	d, k := len(columns), 0
	for j := range columns {
		k = max(k, len(columns[j].X))
	}
	if line(columns) {
		knot, level, slope := make([]float32, d), make([]float32, d), make([]float32, d)
		for j := range columns {
			knot[j], level[j], slope[j] = columns[j].X[0], columns[j].Y[0], columns[j].After
		}
		off := b.node("Sub", "offset", "", []string{x, b.floats("x", knot, d)})
		rise := b.node("Mul", "rise", "", []string{off, b.floats("slope", slope, d)})
		return b.node("Add", "curve", to, []string{rise, b.floats("y", level, d)})
	}
	knots := make([]float32, k*d) // [K, D]
	size := d * (k + 1)
	tableX, tableY, rounding, slope := make([]float32, size), make([]float32, size), make([]float32, size), make([]float32, size)
	var first []byte
	for j := range columns {
		c := columns[j].Curve()
		y, n, at := columns[j].Y, len(c.X), j*(k+1)
		first = binary.LittleEndian.AppendUint32(first, uint32(at))
		for i := range k + 1 {
			m := max(min(i, n)-1, 0)
			tableX[at+i], tableY[at+i], slope[at+i] = c.X[m], y[m], c.Slope[m]
			// The engines add up the segments; what rounding makes of that is kept beside the knot.
			rounding[at+i] = c.Base[m] - y[m]
			if i < k {
				knots[i*d+j] = float32(math.Inf(1))
				if i < n {
					knots[i*d+j] = c.X[i]
				}
			}
		}
		slope[at] = c.Before
	}
	axis := b.axis()
	rows := b.node("Unsqueeze", "rows", "", []string{x, axis})
	reached := b.node("GreaterOrEqual", "reached", "", []string{rows, b.floats("knots", knots, k, d)})
	count := b.node("ReduceSum", "segment", "", []string{b.node("Cast", "ones", "", []string{reached}, castTo(int32s)), axis}, intAttr("keepdims", 0))
	index := b.node("Add", "index", "", []string{count, b.constant("first", int32s, first, d)})
	gather := func(role, table string) string {
		return b.node("Gather", role, "", []string{table, index}, intAttr("axis", 0))
	}
	off := b.node("Sub", "offset", "", []string{x, gather("at_x", b.floats("x", tableX, size))})
	rise := b.node("Mul", "rise", "", []string{off, gather("at_slope", b.floats("slope", slope, size))})
	base := b.node("Add", "base", "", []string{b.floats("y", tableY, size), b.floats("rounding", rounding, size)})
	return b.node("Add", "curve", to, []string{rise, gather("at_y", base)})
}

func (r *reader) readMap() (kernels.Step, error) {
	s := &kernels.Map{Inverse: r.nodes["missing"] == nil}
	columns, err := r.readCurve()
	if err != nil {
		return nil, err
	}
	s.Columns = columns
	if r.has("log") {
		mask, err := r.tensor("log", bools, 1)
		if err != nil {
			return nil, err
		}
		if len(mask.RawData) != len(columns) {
			return nil, fmt.Errorf("constant %q has %d entries; %d are needed", mask.Name, len(mask.RawData), len(columns))
		}
		for j := range columns {
			columns[j].Log = mask.RawData[j] != 0
		}
	}
	if s.Inverse {
		// The same as kernels.Column.Inverse leaves them; an inverse map uses none of them.
		for j := range columns {
			columns[j].Lo, columns[j].Hi = float32(math.Inf(-1)), float32(math.Inf(1))
		}
		role := "rows"
		if r.nodes[role] == nil {
			role = "offset"
		}
		s.In, err = r.operand(role, 0)
		return s, err
	}
	for _, c := range []struct {
		role string
		set  func(j int, x float32)
	}{
		{"impute", func(j int, x float32) { columns[j].Impute = x }},
		{"lo", func(j int, x float32) { columns[j].Lo = x }},
		{"hi", func(j int, x float32) { columns[j].Hi = x }},
	} {
		v, err := r.vector(c.role, len(columns))
		if err != nil {
			return nil, err
		}
		for j, x := range v {
			c.set(j, x)
		}
	}
	s.In, err = r.operand("missing", 0)
	return s, err
}

func (r *reader) readCurve() ([]kernels.Column, error) {
	var knots []float32
	k, d := 1, 0
	if r.has("knots") {
		v, dims, err := r.floats("knots", 2)
		if err != nil {
			return nil, err
		}
		knots, k, d = v, dims[0], dims[1]
		if k < 1 || k > kernels.MaxKnots {
			return nil, fmt.Errorf("constant '%s:knots' has %d knots; 1 to %d are allowed", r.step, k, kernels.MaxKnots)
		}
	}
	x, _, err := r.floats("x", 1)
	if err != nil {
		return nil, err
	}
	size := len(x)
	if knots == nil {
		d = size
	}
	if d < 1 || d > kernels.MaxWidth || knots != nil && size != d*(k+1) {
		return nil, fmt.Errorf("step %q has tables of %d entries for %d columns and %d knots", r.step, size, d, k)
	}
	y, err := r.vector("y", size)
	if err != nil {
		return nil, err
	}
	slope, err := r.vector("slope", size)
	if err != nil {
		return nil, err
	}
	columns := make([]kernels.Column, d)
	for j := range columns {
		c := &columns[j]
		if knots == nil {
			c.X, c.Y, c.Before, c.After = x[j:j+1:j+1], y[j:j+1:j+1], slope[j], slope[j]
			continue
		}
		at, n := j*(k+1), 0
		for n < k && !math.IsInf(float64(knots[n*d+j]), 1) {
			n++
		}
		if n == 0 {
			return nil, fmt.Errorf("step %q has no knot in column %d", r.step, j)
		}
		c.X, c.Y = x[at+1:at+1+n:at+1+n], y[at+1:at+1+n:at+1+n]
		c.Before, c.After = slope[at], slope[at+n]
	}
	return columns, nil
}

// activations are the operators that do it alone. GELU is composed, and its last node is a Mul.
var activations = map[kernels.Activation]string{
	kernels.ReLU: "Relu", kernels.Tanh: "Tanh", kernels.Sigmoid: "Sigmoid", kernels.LeakyReLU: "LeakyRelu", kernels.ELU: "Elu", kernels.GELU: "Mul",
}

func (b *builder) emitGemm(s *kernels.Gemm) {
	in := []string{b.values[s.In], b.floats("weight", s.W, s.Out, len(s.W)/s.Out), b.floats("bias", s.B, s.Out)}
	if s.Act == kernels.Linear {
		b.node("Gemm", "gemm", b.step, in, intAttr("transB", 1))
		return
	}
	x := b.node("Gemm", "gemm", "", in, intAttr("transB", 1))
	op := activations[s.Act]
	switch s.Act {
	case kernels.GELU:
		b.node(op, "activation", b.step, []string{x, b.emitGate(x)})
	case kernels.LeakyReLU:
		b.node(op, "activation", b.step, []string{x}, floatAttr("alpha", kernels.LeakySlope))
	case kernels.ELU:
		b.node(op, "activation", b.step, []string{x}, floatAttr("alpha", 1))
	default:
		b.node(op, "activation", b.step, []string{x})
	}
}

// emitGate is ½ + ½·tanh(u), by which GELU multiplies x. Opset 17 has no Gelu.
func (b *builder) emitGate(x string) string {
	constant := func(role string, v float32) string { return b.floats(role, []float32{v}, 1) }
	half := constant("half", 0.5)
	square := b.node("Mul", "square", "", []string{x, x})
	bend := b.node("Mul", "bend", "", []string{square, constant("cubic", kernels.GELUScale*kernels.GELUCubic)})
	rise := b.node("Add", "rise", "", []string{bend, constant("scale", kernels.GELUScale)})
	u := b.node("Mul", "u", "", []string{x, rise})
	tanh := b.node("Mul", "halved", "", []string{b.node("Tanh", "tanh", "", []string{u}), half})
	return b.node("Add", "gate", "", []string{tanh, half})
}

func (r *reader) readGemm() (kernels.Step, error) {
	in, err := r.operand("gemm", 0)
	if err != nil {
		return nil, err
	}
	s := &kernels.Gemm{In: in}
	var dims []int
	if s.W, dims, err = r.floats("weight", 2); err != nil {
		return nil, err
	}
	s.Out = dims[0]
	if s.B, err = r.vector("bias", s.Out); err != nil {
		return nil, err
	}
	if n := r.nodes["activation"]; n != nil {
		for act, op := range activations {
			if op == n.OpType {
				s.Act = act
			}
		}
		if s.Act == kernels.Linear {
			return nil, fmt.Errorf("node %q: activation '%s' is not known to this version; update lapwing", n.Name, n.OpType)
		}
	}
	return s, nil
}

// emitNearest finds each group's nearest prototype by one Gemm, ‖c‖²/2 − x·c, of which ArgMin takes the first least;
// the distance is that of the gathered row. [N, G·K] becomes [N, G, K], then [N, G], then [N, G, D].
func (b *builder) emitNearest(s *kernels.Nearest) {
	x, d, g := b.values[s.In], b.widths[s.In], s.Groups
	n := len(s.Rows) / d
	rows := b.floats("rows", s.Rows, n, d)
	half := b.floats("half", s.HalfSquares(d), n)
	product := b.node("Gemm", "product", "", []string{x, rows, half}, floatAttr("alpha", -1), intAttr("transB", 1))
	// 0 keeps the first dimension, also where it is 0, when -1 would be ambiguous.
	grouped := b.node("Reshape", "grouped", "", []string{product, b.constant("shape", int64s, int64Bytes(0, g, n/g), 3)})
	least := b.node("ArgMin", "least", "", []string{grouped}, intAttr("axis", 2), intAttr("keepdims", 0))
	first := make([]int, g)
	for i := range first {
		first[i] = i * (n / g)
	}
	index := b.node("Add", "index", "", []string{least, b.constant("first", int64s, int64Bytes(first...), g)})
	prototype := b.node("Gather", "prototype", "", []string{rows, index}, intAttr("axis", 0))
	offset := b.node("Sub", "offset", "", []string{b.node("Unsqueeze", "rowwise", "", []string{x, b.axis()}), prototype})
	distance := b.node("ReduceL2", "distance", "", []string{offset}, intsAttr("axes", 2), intAttr("keepdims", 1))
	b.node("ReduceMean", "mean", b.step, []string{distance}, intsAttr("axes", 1), intAttr("keepdims", 0))
}

func (r *reader) readNearest() (kernels.Step, error) {
	in, err := r.operand("product", 0)
	if err != nil {
		return nil, err
	}
	first, err := r.tensor("first", int64s, 1)
	if err != nil {
		return nil, err
	}
	s := &kernels.Nearest{In: in, Groups: int(first.Dims[0])}
	if s.Rows, _, err = r.floats("rows", 2); err != nil {
		return nil, err
	}
	// A Split reads these in place of In and the distance.
	r.values[r.step+"/offset"] = in
	r.values[r.step+"/distance"] = r.next
	return s, nil
}

// emitSplit divides by 1 where the distance is 0: the squares are 0 there too, and 0/0 would be NaN.
func (b *builder) emitSplit(s *kernels.Split) {
	x, norm := b.values[s.In], b.values[s.Norm]
	_, near := b.program.Steps[s.Norm-1].(*kernels.Nearest)
	if near {
		x, norm = b.values[s.Norm]+"/offset", b.values[s.Norm]+"/distance"
	}
	zero := b.node("Equal", "zero", "", []string{norm, b.floats("none", []float32{0}, 1)})
	safe := b.node("Where", "safe", "", []string{zero, b.floats("one", []float32{1}, 1), norm})
	square := []string{b.node("Mul", "square", "", []string{x, x}), safe}
	if near {
		b.node("ReduceMean", "mean", b.step, []string{b.node("Div", "share", "", square)}, intsAttr("axes", 1), intAttr("keepdims", 0))
		return
	}
	b.node("Div", "share", b.step, square)
}

func (b *builder) emitJoin(s *kernels.Join) {
	var terms []string
	for k, v := range s.In {
		weight := b.floats(fmt.Sprintf("weight%d", k), s.Weights[k:k+1], 1)
		terms = append(terms, b.node("Mul", fmt.Sprintf("term%d", k), "", []string{b.values[v], weight}))
	}
	b.node("Sum", "sum", b.step, terms)
}

func (r *reader) readJoin() (kernels.Step, error) {
	s := &kernels.Join{}
	for k := range len(r.nodes) - 1 {
		v, err := r.operand(fmt.Sprintf("term%d", k), 0)
		if err != nil {
			return nil, err
		}
		w, err := r.vector(fmt.Sprintf("weight%d", k), 1)
		if err != nil {
			return nil, err
		}
		s.In, s.Weights = append(s.In, v), append(s.Weights, w[0])
	}
	return s, nil
}

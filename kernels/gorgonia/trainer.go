package gorgonia

import (
	"errors"
	"fmt"
	"math"

	"github.com/lapwing-stream/lapwing/kernels"
	g "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// keptGraphs bounds the graphs kept for different numbers of rows: whole batches and the last one, for
// training and for validation.
const keptGraphs = 4

type trainer struct {
	program *kernels.Program
	options kernels.TrainOptions
	at      []stage
	outside *outside

	gemms      []*kernels.Gemm
	trained    []bool          // by index in parameters: whether gradients are taken
	parameters []*tensor.Dense // of gemms, and shared by all graphs
	solver     solver
	graphs     []*learner // most recently used first
	closed     bool
}

// learner is a graph with a loss and, if asked for, its gradients.
type learner struct {
	*graph
	learn     bool
	vm        g.VM
	loss      g.Value
	gradients []g.Value // by trained parameter
}

func newTrainer(p *kernels.Program, o kernels.TrainOptions) (*trainer, error) {
	o, err := o.Resolve(p)
	if err != nil {
		return nil, fmt.Errorf("engine gorgonia cannot train this program: %w", err)
	}
	p = p.Clone()
	at, err := stages(p)
	if err != nil {
		return nil, fmt.Errorf("engine gorgonia cannot train this program: %w", err)
	}
	t := &trainer{program: p, options: o, at: at, outside: newOutside(p)}
	needed, trained := p.Needed(o.Prediction, o.Target), p.Needed(o.Prediction)
	for i, s := range p.Steps {
		if gemm, ok := s.(*kernels.Gemm); ok && needed[i+1] {
			t.gemms = append(t.gemms, gemm)
			t.trained = append(t.trained, trained[i+1], trained[i+1])
		}
	}
	t.parameters = newParameters(t.gemms)
	t.solver = newSolver(o.Optimizer)
	if _, err := t.learner(o.MaxBatch, true); err != nil {
		return nil, err
	}
	return t, nil
}

// solver is Gorgonia's, with what it remembers.
type solver interface {
	g.Solver
	setRate(float32)
	moments() kernels.Moments // in the tensors' own order of values
	setMoments(kernels.Moments)
}

func newSolver(o kernels.Optimizer) solver {
	if o == kernels.SGD {
		return vanilla{g.NewVanillaSolver()}
	}
	return &adam{}
}

// learner finds or builds the graph for n rows.
func (t *trainer) learner(n int, learn bool) (*learner, error) {
	for i, l := range t.graphs {
		if l.rows == n && l.learn == learn {
			copy(t.graphs[1:i+1], t.graphs[:i])
			t.graphs[0] = l
			return l, nil
		}
	}
	l, err := t.newLearner(n, learn)
	if err != nil {
		return nil, err
	}
	if len(t.graphs) == keptGraphs {
		last := t.graphs[keptGraphs-1]
		t.graphs = t.graphs[:keptGraphs-1]
		if err := last.vm.Close(); err != nil {
			return nil, err
		}
	}
	t.graphs = append([]*learner{l}, t.graphs...)
	return l, nil
}

func (t *trainer) newLearner(n int, learn bool) (l *learner, err error) {
	building.Lock()
	defer building.Unlock()
	defer func() {
		if r := recover(); r != nil {
			l, err = nil, fmt.Errorf("gorgonia: %v", r)
		}
	}()
	needed := t.program.Needed(t.options.Prediction, t.options.Target)
	gr, err := newGraph(t.program, t.at, needed, t.parameters, n)
	if err != nil {
		return nil, err
	}
	l = &learner{graph: gr, learn: learn}
	prediction, target := gr.node(t.options.Prediction), gr.node(t.options.Target)
	residual, err := g.Sub(prediction, target)
	if err != nil {
		return nil, err
	}
	loss, err := gr.loss(t.options, residual)
	if err != nil {
		return nil, err
	}
	g.Read(loss, &l.loss)
	if learn {
		var with g.Nodes
		for i, w := range gr.weights {
			if t.trained[i] {
				with = append(with, w)
			}
		}
		gradients, err := g.Grad(loss, with...)
		if err != nil {
			return nil, err
		}
		l.gradients = make([]g.Value, len(gradients))
		for i, n := range gradients {
			g.Read(n, &l.gradients[i])
		}
	}
	l.vm = g.NewTapeMachine(gr.ExprGraph)
	return l, nil
}

// run evaluates the loss, and the gradients where learn is set.
func (t *trainer) run(rows []float32, learn bool) (*learner, float64, error) {
	l, err := t.learner(len(rows)/t.program.Width, learn)
	if err != nil {
		return nil, 0, err
	}
	l.load(t.outside, rows)
	l.vm.Reset()
	if err := l.vm.RunAll(); err != nil {
		return nil, 0, fmt.Errorf("engine gorgonia: %w", err)
	}
	return l, float64(l.loss.Data().(float32)), nil
}

func (t *trainer) check(rows []float32, most int) error {
	if t.closed {
		return errors.New("engine gorgonia: the trainer is closed")
	}
	width := t.program.Width
	n := len(rows) / width
	if n == 0 || len(rows)%width != 0 {
		return fmt.Errorf("engine gorgonia: %d values are no whole number of rows of %d", len(rows), width)
	}
	if n > most {
		return fmt.Errorf("engine gorgonia: %d rows in one step; MaxBatch is %d", n, most)
	}
	return nil
}

func (t *trainer) Step(rows []float32, rate float32) (float64, error) {
	if err := t.check(rows, t.options.MaxBatch); err != nil {
		return 0, err
	}
	l, loss, err := t.run(rows, true)
	if err != nil || math.IsNaN(loss) || math.IsInf(loss, 0) {
		return loss, err
	}
	t.solver.setRate(rate)
	var model []g.ValueGrad
	k := 0
	for i, w := range t.parameters {
		if t.trained[i] {
			model = append(model, parameter{w, l.gradients[k]})
			k++
		}
	}
	if err := t.solver.Step(model); err != nil {
		return loss, fmt.Errorf("engine gorgonia: %w", err)
	}
	return loss, nil
}

// parameter is what the solver steps.
type parameter struct{ value, gradient g.Value }

func (p parameter) Value() g.Value         { return p.value }
func (p parameter) Grad() (g.Value, error) { return p.gradient, nil }

func (t *trainer) Loss(rows []float32) (float64, error) {
	if err := t.check(rows, math.MaxInt); err != nil {
		return 0, err
	}
	width, sum := t.program.Width, 0.0
	chunk := t.options.MaxBatch * width
	for at := 0; at < len(rows); at += chunk {
		part := rows[at:min(at+chunk, len(rows))]
		_, loss, err := t.run(part, false)
		if err != nil {
			return 0, err
		}
		sum += loss * float64(len(part)/width)
	}
	return sum / float64(len(rows)/width), nil
}

func (t *trainer) Gradients(rows []float32) (float64, [][]float32, error) {
	if err := t.check(rows, t.options.MaxBatch); err != nil {
		return 0, nil, err
	}
	l, loss, err := t.run(rows, true)
	if err != nil {
		return 0, nil, err
	}
	var all [][]float32
	for _, v := range l.gradients {
		all = append(all, rowMajor(v.(*tensor.Dense)))
	}
	return loss, all, nil
}

// rowMajor copies W (in by out here, out by in outside) or B.
func rowMajor(t *tensor.Dense) []float32 {
	in, out := t.Shape()[0], t.Shape()[1]
	to := make([]float32, in*out)
	transpose(to, t.Data().([]float32), in, out)
	return to
}

func (t *trainer) Parameters() [][]float32 {
	var all [][]float32
	for i, p := range t.parameters {
		if t.trained[i] {
			all = append(all, rowMajor(p))
		}
	}
	return all
}

func (t *trainer) SetParameters(from [][]float32) error {
	if err := kernels.SameShape(t.Parameters(), from); err != nil {
		return fmt.Errorf("engine gorgonia: %w", err)
	}
	k := 0
	for i, p := range t.parameters {
		if t.trained[i] {
			in, out := p.Shape()[0], p.Shape()[1]
			transpose(p.Data().([]float32), from[k], out, in)
			k++
		}
	}
	t.solver = newSolver(t.options.Optimizer)
	return nil
}

func (t *trainer) Moments() kernels.Moments {
	m := t.solver.moments()
	m.First, m.Second = t.turned(m.First, false), t.turned(m.Second, false)
	return m
}

func (t *trainer) SetMoments(m kernels.Moments) error {
	if err := m.Fits(t.options.Optimizer, t.Parameters()); err != nil {
		return fmt.Errorf("engine gorgonia: %w", err)
	}
	m.First, m.Second = t.turned(m.First, true), t.turned(m.Second, true)
	t.solver.setMoments(m)
	return nil
}

// turned copies values of the trained parameters from the tensors' order (in by out) to that outside, or in from there.
func (t *trainer) turned(of [][]float32, in bool) [][]float32 {
	if of == nil {
		return nil
	}
	var all [][]float32
	for i, p := range t.parameters {
		if !t.trained[i] {
			continue
		}
		rows, columns := p.Shape()[0], p.Shape()[1]
		if in {
			rows, columns = columns, rows
		}
		from := of[len(all)]
		to := make([]float32, len(from))
		transpose(to, from, rows, columns)
		all = append(all, to)
	}
	return all
}

func (t *trainer) Close() error {
	var faults []error
	for _, l := range t.graphs {
		faults = append(faults, l.vm.Close())
	}
	t.graphs, t.closed = nil, true
	return errors.Join(faults...)
}

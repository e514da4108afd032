//go:build cgo && (amd64 || arm64)

package cpu

// #include "train.h"
// #cgo noescape lapwing_train
// #cgo nocallback lapwing_train
// #cgo noescape lapwing_import
// #cgo nocallback lapwing_import
// #cgo noescape lapwing_adjust
// #cgo nocallback lapwing_adjust
import "C"

import (
	"unsafe"

	"github.com/lapwing-stream/lapwing/kernels"
)

// Sizes of a block, by measurement: a gradient's vector sums are added up once a block, which more rows make cheaper,
// until the block's values leave the second-level cache.
const (
	fusedRows   = 128
	fewestRows  = 32
	fusedFrame  = 1 << 20 // bytes that a frame should not exceed
	framePadded = 16      // floats after each unit, lest all of them fall into a few sets of the first-level cache
)

// fused is the network in C at one SIMD level. What no training changes, the Map above all, is computed by the
// portable ops.
type fused struct {
	level      C.int
	plan       C.lapwing_training
	ops        []C.lapwing_training_op
	columns    []C.lapwing_column
	constants  []float32
	parameters []float32
	layout     layout
	outside    []op
	imports    []imported
	workers    []fusedWorker
}

type imported struct {
	value kernels.Value
	place int // in units
}

type fusedWorker struct {
	tile   []float32
	values frame // of outside
}

// newVectorNetwork returns nil where the portable network has to do: at its own level, and where a step that training
// moves is no trained Gemm, Diff or Join. Only a target that depends on the network can have one.
func newVectorNetwork(l level, p *kernels.Program, o kernels.TrainOptions, trained []trainedGemm, parameters []float32) network {
	if l == portableLevel {
		return nil
	}
	f := &fused{level: C.int(l), parameters: parameters, layout: newLayout(p)}
	widths := p.Widths()
	at := make(map[int]trainedGemm)
	for _, g := range trained {
		at[g.step] = g
	}
	needed := p.Needed(o.Prediction, o.Target)
	moves := make([]bool, len(needed))
	for i, s := range p.Steps {
		_, is := at[i]
		moves[i+1] = is
		for _, v := range s.Reads() {
			moves[i+1] = moves[i+1] || moves[v]
		}
		if !needed[i+1] || !moves[i+1] {
			continue
		}
		switch s.(type) {
		case *kernels.Gemm:
			if !is {
				return nil
			}
		case *kernels.Diff, *kernels.Join:
		default:
			return nil
		}
	}

	units := 0
	place := func(width int) int {
		units += width
		return units - width
	}
	values, gradients := make([]int, len(needed)), make([]int, len(needed))
	isImported := make([]bool, len(needed))
	take := func(v kernels.Value) { // a value from outside
		if moves[v] || isImported[v] {
			return
		}
		isImported[v] = true
		values[v] = place(widths[v])
		load := C.lapwing_training_op{kind: C.TRAIN_LOAD, out: C.int32_t(widths[v]), y: C.int64_t(values[v]), column: -1}
		if v != kernels.Input {
			m, ok := p.Steps[v-1].(*kernels.Map)
			if !ok || m.Inverse || m.In != kernels.Input {
				f.imports = append(f.imports, imported{v, values[v]})
				return
			}
			load.column = C.int64_t(len(f.columns))
			for j := range m.Columns {
				var c C.lapwing_column
				c, f.constants = newColumn(&m.Columns[j], f.constants)
				f.columns = append(f.columns, c)
			}
		}
		f.ops = append(f.ops, load)
	}
	var steps []int // that move
	for i, s := range p.Steps {
		v := i + 1
		if !needed[v] || !moves[v] {
			continue
		}
		for _, in := range s.Reads() {
			take(in)
		}
		values[v] = place(widths[v])
		if p.Needed(o.Prediction)[v] {
			gradients[v] = place(widths[v])
		}
		steps = append(steps, i)
	}
	take(o.Target)

	combine := func(width int, y, x int, weight float32, add bool) {
		f.ops = append(f.ops, C.lapwing_training_op{
			kind: C.TRAIN_COMBINE, out: C.int32_t(width), y: C.int64_t(y), x: C.int64_t(x), weight: C.float(weight), add: flag(add),
		})
	}
	slopes := map[int]int{}
	for _, i := range steps {
		v := i + 1
		switch s := p.Steps[i].(type) {
		case *kernels.Gemm:
			op := C.lapwing_training_op{
				kind: C.TRAIN_PRODUCT, act: C.int32_t(s.Act), in: C.int32_t(widths[s.In]), out: C.int32_t(s.Out),
				x: C.int64_t(values[s.In]), y: C.int64_t(values[v]), w: C.int64_t(at[i].w), b: C.int64_t(at[i].b),
			}
			if s.Act == kernels.GELU {
				slopes[i] = place(s.Out)
				op.slope = C.int64_t(slopes[i])
			}
			f.ops = append(f.ops, op)
		case *kernels.Diff:
			combine(widths[v], values[v], values[s.A], 1, false)
			combine(widths[v], values[v], values[s.B], -1, true)
		case *kernels.Join:
			for k, in := range s.In {
				combine(widths[v], values[v], values[in], s.Weights[k], k > 0)
			}
		}
	}
	f.plan.forward = C.int32_t(len(f.ops))

	set := make([]bool, len(needed)) // gradients already set by a later step
	for k := len(steps) - 1; k >= 0; k-- {
		i := steps[k]
		v := i + 1
		if !p.Needed(o.Prediction)[v] {
			continue
		}
		operand := func(in kernels.Value, weight float32) {
			if moves[in] {
				combine(widths[v], gradients[in], gradients[v], weight, set[in])
				set[in] = true
			}
		}
		switch s := p.Steps[i].(type) {
		case *kernels.Gemm:
			op := C.lapwing_training_op{
				kind: C.TRAIN_PRODUCT, act: C.int32_t(s.Act), in: C.int32_t(widths[s.In]), out: C.int32_t(s.Out),
				x: C.int64_t(values[s.In]), y: C.int64_t(values[v]), slope: C.int64_t(slopes[i]),
				dx: -1, dy: C.int64_t(gradients[v]), w: C.int64_t(at[i].w), b: C.int64_t(at[i].b),
			}
			if moves[s.In] {
				op.dx, op.add = C.int64_t(gradients[s.In]), flag(set[s.In])
				set[s.In] = true
			}
			f.ops = append(f.ops, op)
		case *kernels.Diff:
			operand(s.A, 1)
			operand(s.B, -1)
		case *kernels.Join:
			for k, in := range s.In {
				operand(in, s.Weights[k])
			}
		}
	}
	f.plan.backward = C.int32_t(len(f.ops)) - f.plan.forward

	rows := fusedRows
	for rows > fewestRows && units*(rows+framePadded)*4 > fusedFrame {
		rows /= 2
	}
	f.plan.rows, f.plan.stride = C.int32_t(rows), C.int32_t(rows+framePadded)
	f.plan.huber, f.plan.delta = flag(o.Loss == kernels.Huber), C.float(o.Delta)
	f.plan.width = C.int32_t(widths[o.Prediction])
	f.plan.prediction, f.plan.target = C.int64_t(values[o.Prediction]), C.int64_t(values[o.Target])
	f.plan.gradient = C.int64_t(gradients[o.Prediction])

	wanted := make([]kernels.Value, 0, len(f.imports))
	for _, in := range f.imports {
		wanted = append(wanted, in.value)
	}
	outside := p.Needed(wanted...)
	ops := make([]op, len(p.Steps))
	for i, s := range p.Steps {
		if outside[i+1] {
			ops[i] = f.layout.newOp(s, kernels.Value(i+1), ops)
			f.outside = append(f.outside, ops[i])
		}
	}
	for range min(o.Threads, maxShards) {
		f.workers = append(f.workers, fusedWorker{tile: aligned(units * int(f.plan.stride)), values: f.layout.newFrame(outside)})
	}
	return f
}

func flag(b bool) C.int32_t {
	if b {
		return 1
	}
	return 0
}

func (f *fused) block() int { return int(f.plan.rows) }

func (f *fused) changed() {}

func (f *fused) run(worker int, rows []float32, scale float32, gradient []float32, add bool) float64 {
	w := &f.workers[worker]
	width := f.layout.widths[kernels.Input]
	n := len(rows) / width
	for at := 0; at < n && len(f.imports) > 0; at += block {
		k := min(block, n-at)
		w.values[kernels.Input] = rows[at*width : (at+k)*width]
		for _, o := range f.outside {
			o.run(w.values, k)
		}
		for _, in := range f.imports {
			C.lapwing_import(f.level, (*C.float)(&w.tile[in.place*int(f.plan.stride)+at]), (*C.float)(&w.values[in.value][0]),
				C.int64_t(f.layout.widths[in.value]), C.int64_t(f.layout.strides[in.value]), C.int(k), C.int64_t(f.plan.stride))
		}
	}
	w.values[kernels.Input] = nil
	return float64(C.lapwing_train(f.level, &f.plan, &f.ops[0], unsafe.SliceData(f.columns), (*C.float)(unsafe.SliceData(f.constants)),
		(*C.float)(&f.parameters[0]), (*C.float)(&w.tile[0]), (*C.float)(&rows[0]), C.int(n), C.float(scale),
		(*C.float)(unsafe.SliceData(gradient)), C.int(flag(add))))
}

func (f *fused) update(t *trainer, lo, hi int) {
	u := C.lapwing_update{
		sgd: flag(t.options.Optimizer == kernels.SGD), shards: C.int32_t(t.active), between: C.int64_t(len(t.parameters)),
		rate: C.float(t.step.rate), correction1: C.float(t.step.correction1), correction2: C.float(t.step.correction2),
	}
	C.lapwing_adjust(f.level, &u, (*C.float)(&t.parameters[lo]), (*C.float)(&t.moment1[lo]), (*C.float)(&t.moment2[lo]),
		(*C.float)(&t.shards[lo]), C.int64_t(hi-lo))
}

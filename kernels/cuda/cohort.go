//go:build gpu

package cuda

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
	"unsafe"

	"gorgonia.org/cu"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/kernels/cuda/driver"
)

//go:embed train.ptx
var trainPTX string

var trainModule = &module{name: "train", image: trainPTX}

// What a launch does: see train.cu.
const (
	doForward = 1 << iota
	doBackward
	doLoss
	doStep
	doGradient
)

const (
	// lossRows is how many rows a loss without a step adds up at a time. Fixed, so that memory cannot change a sum.
	lossRows = 1024
	// A launch ends about so soon: progress, an interruption and the watchdog wait for it.
	launchTime       = 100 * time.Millisecond
	firstLaunch      = 16       // steps
	mostTrainThreads = 256      // __launch_bounds__ of train.cu
	prepareThreads   = 128      // of a block, as __launch_bounds__ of train_prepare says
	putBytes         = 4 << 20  // of raw rows that are copied while those before are prepared
	walkBytes        = 64 << 20 // of prepared rows that are not held
	tileBytes        = 32 << 20 // of values while rows are prepared
)

// cohort trains networks of one shape, over the same minibatches or each over its own, each by blocks of its own. It is for one
// goroutine.
//
// Parameters and moments are copied back after every call, so that a GPU that is lost takes no more along than the call that
// found out.
type cohort struct {
	e        *Engine
	t        *training
	maps     [][]preparation    // what prepares rows, different ones
	mapping  []int              // of each network: which of those
	programs []*kernels.Program // as they were given
	members  []member
	kernel   string // of train.cu
	lot      int    // groups
	words    int    // of a group in the tile
	threads  int    // of a block
	shared   int    // bytes
	each     bool   // blocks may not wait for each other: a launch for each half of a step
	length   int    // of the next launch, steps
	rows     int    // held on the device, once for all networks
	closed   bool
	m        *trainMemory
}

// member is one network: what it has come to after the last call.
type member struct {
	parameters, moment1, moment2 []float32
	steps                        int
	dirty                        bool // not as the device has it
}

// trainMemory belongs to the device's goroutine.
type trainMemory struct {
	there                                              bool
	ops, places, models, steps, order, state, barriers buffer
	losses, groupLosses, parameters, moment1, moment2  buffer
	layout, slots, gradient, scratch, prepared, held   buffer
	raw, tiles                                         [2]buffer
	pins                                               [2]pinned
	codes                                              []resident   // of maps, one after another
	back                                               [3][]float32 // parameters and moments of all networks, as copied back
}

func (m *trainMemory) all() []*buffer {
	b := []*buffer{
		&m.ops, &m.places, &m.models, &m.steps, &m.order, &m.state, &m.barriers, &m.losses, &m.groupLosses, &m.parameters, &m.moment1, &m.moment2,
		&m.layout, &m.slots, &m.gradient, &m.scratch, &m.prepared, &m.held, &m.raw[0], &m.raw[1], &m.tiles[0], &m.tiles[1],
	}
	for i := range m.codes {
		b = append(b, &m.codes[i].steps, &m.codes[i].constants)
	}
	return b
}

// trainModel is train_model of train.cu.
type trainModel struct {
	ops, rows, order, steps, losses, state, barrier, parameters, moment1, moment2, layout, places, slots, groupLosses, gradient, scratch uint64

	forward, backward, pitch, loaded, groupWords, lot, parameterCount, slot, layoutWords, width int32
	prediction, target, gradientUnit, lastAct, lastY, lastSlope, huber, sgd                     int32
	delta                                                                                       float32
	_                                                                                           int32
}

// trainStep is train_step of train.cu, word by word.
type trainStep struct {
	first, n                              int32
	scale, rate, correction1, correction2 float32
}

// Words of both, and of what a block has in shared memory before the weights: HEADER and, for each operation, WORK of train.cuh.
const (
	trainModelWords  = int(unsafe.Sizeof(trainModel{})) / wordSize
	trainStepWords   = int(unsafe.Sizeof(trainStep{})) / wordSize
	trainHeaderWords = 4 + trainModelWords + 2*8
	trainWorkWords   = trainOpWords + 5
)

// lossParts is how many losses there are of a group: one for eight columns.
func (t *training) lossParts() int { return (t.columns + 7) / 8 }

// newCohort lays the networks out and takes the memory that does not depend on the rows.
func newCohort(e *Engine, programs []*kernels.Program, o kernels.TrainOptions) (*cohort, error) {
	c := &cohort{e: e, length: firstLaunch, m: &trainMemory{}}
	for k, p := range programs {
		o, err := o.Resolve(p)
		if err != nil {
			return nil, fmt.Errorf("engine cuda cannot train this program: %w", err)
		}
		if k == 0 {
			if c.t, err = planTraining(p, o); err != nil {
				return nil, err
			}
			c.maps = [][]preparation{c.t.passes}
		}
		mapping, err := c.mapped(p, o)
		if err != nil {
			return nil, fmt.Errorf("engine cuda: network %d of a cohort: %w", k, err)
		}
		c.mapping, c.programs = append(c.mapping, mapping), append(c.programs, p)
		b := member{dirty: true, moment1: make([]float32, c.t.parameters), moment2: make([]float32, c.t.parameters)}
		for _, s := range p.Parameters(o.Prediction) {
			b.parameters = append(b.parameters, s...)
		}
		c.members = append(c.members, b)
	}
	if err := c.shape(&e.d.info); err != nil {
		return nil, err
	}
	err := c.on(func(s *session) error {
		if err := c.settle(s); err != nil {
			c.release(s)
			return err
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// mapped says which of the maps prepare the rows of a program, which may differ from the first in those and in trained weights alone.
func (c *cohort) mapped(p *kernels.Program, o kernels.TrainOptions) (int, error) {
	if len(c.programs) == 0 {
		return 0, nil
	}
	t, err := planTraining(p, o)
	if err != nil {
		return 0, err
	}
	if !c.t.alike(t) {
		return 0, errors.New("it differs from the first in more than maps and trained weights")
	}
	if slices.EqualFunc(c.maps[0], t.passes, preparation.same) {
		return 0, nil
	}
	c.maps = append(c.maps, t.passes)
	return len(c.maps) - 1, nil
}

// shape chooses the kernel: weights and values in shared memory where there is room, and as many groups as keep a block busy
// without keeping other blocks idle. The result does not depend on it.
func (c *cohort) shape(info *Info) error {
	t := c.t
	// A group's words leave 8 when divided by 32: then lanes that read the same units of neighbouring groups meet no bank twice.
	c.words = up(t.units*unitStride-8, 32) + 8
	lots := []int{4, 2}
	if leaves := t.leaves(t.options.MaxBatch); leaves <= 2 || leaves > 2*info.SMs {
		lots = []int{8, 4, 2}
	}
	c.each = !info.Cooperative
	header := trainHeaderWords + trainWorkWords*(len(t.forward)+len(t.backward))
	for _, k := range []struct {
		name  string
		words int
	}{{"train_shared", len(t.layout)}, {"train_weights", 0}} {
		for _, lot := range lots {
			if bytes := wordSize * (header + k.words + lot*c.words); bytes <= info.Shared {
				c.kernel, c.lot, c.shared, c.threads = k.name, lot, bytes, min(64*lot, mostTrainThreads)
				return nil
			}
		}
	}
	c.kernel, c.lot, c.shared, c.threads = "train_wide", leafGroups, wordSize*header, mostTrainThreads
	if c.shared > info.Shared {
		return fmt.Errorf("engine cuda cannot train a network of %d operations a row, forward and back; the shared memory of this GPU holds %d",
			len(t.forward)+len(t.backward), (info.Shared/wordSize-trainHeaderWords)/trainWorkWords)
	}
	return nil
}

// leaves are how many there are of so many rows.
func (t *training) leaves(rows int) int {
	return (rows + groupRows*leafGroups - 1) / (groupRows * leafGroups)
}

// blocks is how many of them work on each of so many networks. Two leaves are done before two blocks have met twice.
func (c *cohort) blocks(most, networks int) int {
	leaves := c.t.leaves(most)
	if leaves <= 2 {
		return 1
	}
	runs := (leaves + max(c.lot/leafGroups, 1) - 1) / max(c.lot/leafGroups, 1)
	return max(1, min(runs, c.e.d.info.SMs/networks))
}

// on runs f on the device's thread.
func (c *cohort) on(f func(*session) error) error { return c.e.d.do(context.Background(), f) }

func wordsOf[T any](of []T) []uint32 {
	if len(of) == 0 {
		return nil
	}
	return unsafe.Slice((*uint32)(unsafe.Pointer(&of[0])), len(of)*int(unsafe.Sizeof(of[0]))/wordSize)
}

// put makes a buffer of just these words.
func put[T any](s *session, b *buffer, of []T) error {
	w := wordsOf(of)
	if err := s.alloc(b, int64(max(len(w), 1)*wordSize)); err != nil {
		return err
	}
	return upload(s, b, 0, w)
}

// settle takes the memory that does not depend on the rows.
func (c *cohort) settle(s *session) error {
	m, t := c.m, c.t
	k, p := int64(len(c.members)), int64(t.parameters)
	if err := put(s, &m.ops, append(append([]trainOp(nil), t.forward...), t.backward...)); err != nil {
		return err
	}
	if err := put(s, &m.places, t.places); err != nil {
		return err
	}
	groups := (max(t.options.MaxBatch, lossRows) + groupRows - 1) / groupRows
	for _, of := range []struct {
		b     *buffer
		words int64
	}{
		{&m.parameters, k * p}, {&m.moment1, k * p}, {&m.moment2, k * p}, {&m.gradient, k * p}, {&m.layout, k * int64(len(t.layout))},
		{&m.slots, k * p * int64(t.leaves(t.options.MaxBatch))}, {&m.groupLosses, 2 * k * int64(groups*t.lossParts())}, {&m.state, 2 * k}, {&m.barriers, k},
		{&m.models, k * int64(trainModelWords)},
	} {
		if err := s.alloc(of.b, of.words*wordSize); err != nil {
			return err
		}
	}
	passes := slices.Concat(c.maps...)
	m.codes = make([]resident, len(passes))
	for i := range passes {
		if err := put(s, &m.codes[i].steps, passes[i].code.steps); err != nil {
			return err
		}
		if err := put(s, &m.codes[i].constants, passes[i].code.constants); err != nil {
			return err
		}
	}
	_, err := s.function(trainModule, c.kernel)
	return err
}

func (c *cohort) release(s *session) {
	for _, b := range c.m.all() {
		s.free(b)
	}
	for i := range c.m.pins {
		s.unpin(&c.m.pins[i])
	}
}

// prepare brings raw rows of network k, which belong to the caller, to row at of a buffer of prepared ones. One part is copied while the
// other is computed.
func (c *cohort) prepare(s *session, to *buffer, at, k int, rows []float32) (err error) {
	defer func() {
		if err != nil {
			s.synchronize() // nothing may be under way in buffers that come to other use
		}
	}()
	fn, err := s.function(trainModule, "train_prepare")
	if err != nil {
		return err
	}
	m, t := c.m, c.t
	n, part := len(rows)/t.width, max(putBytes/wordSize/t.width, 1)
	part = min(part, n)
	for first, i := 0, 0; first < n; first, i = first+part, i+1 {
		raw, pin, tiles := &m.raw[i%2], &m.pins[i%2], &m.tiles[i%2]
		st, err := s.stream(i % 2)
		if err != nil {
			return err
		}
		if err := s.wait(st); err != nil {
			return err
		}
		some := rows[first*t.width : min(first+part, n)*t.width]
		count := len(some) / t.width
		if err := s.alloc(raw, int64(part*t.width*wordSize)); err != nil {
			return err
		}
		if err := s.pin(pin, part*t.width*wordSize); err != nil {
			return err
		}
		if err := s.guard(func() { copy(pin.floats(len(some)), some) }); err != nil {
			return err
		}
		if err := s.uploadAsync(raw.ptr, pin, len(some), st); err != nil {
			return err
		}
		if err := c.compute(s, fn, st, tiles, raw.ptr, count, to, at+first, k); err != nil {
			return err
		}
	}
	return s.synchronize()
}

// compute has the device prepare raw rows of network k that lie there, as row at and on of a buffer of prepared ones. fn is train_prepare.
func (c *cohort) compute(s *session, fn cu.Function, st cu.Stream, tiles *buffer, raw cu.DevicePtr, count int, to *buffer, at, k int) error {
	t, passes := c.t, c.maps[c.mapping[k]]
	codes := c.m.codes[c.mapping[k]*len(passes):] // all maps have as many
	for i := range passes {
		x := &passes[i]
		grid, err := c.tile(s, tiles, x, count)
		if err != nil {
			return err
		}
		err = s.launch(fn, launchShape{grid: grid, block: prepareThreads, stream: st},
			raw, int32(count), int32(t.width), int32(x.plan.input), codes[i].steps.ptr+cu.DevicePtr(x.plan.first*stepWords*wordSize), int32(x.plan.count),
			&codes[i].constants, tiles, int32(x.plan.height), to.ptr+cu.DevicePtr(at*t.pitch*wordSize), int32(t.pitch),
			int32(x.at[0]), int32(x.width[0]), int32(x.to[0]), int32(x.at[1]), int32(x.width[1]), int32(x.to[1]), int32(x.at[2]), int32(x.width[2]), int32(x.to[2]))
		if err != nil {
			return err
		}
	}
	return nil
}

// tile makes room for the values of so many rows that a pass prepares at once, and says by how many blocks.
func (c *cohort) tile(s *session, tiles *buffer, x *preparation, rows int) (grid int, err error) {
	height := max(x.plan.height, 1)
	grid = max(1, min((rows+prepareThreads-1)/prepareThreads, 8*c.e.d.info.SMs, tileBytes/wordSize/prepareThreads/height))
	return grid, s.alloc(tiles, int64(grid*prepareThreads*height*wordSize))
}

// walk is a number of steps of some of the networks.
type walk struct {
	rows   *buffer     // prepared
	of     []int       // networks
	order  []int32     // of the rows
	starts []int       // where those of network of[i] begin in it; nil: all begin at 0, with the same minibatches
	sizes  [][]int     // of the minibatches of of[i], which order has one after another
	rates  [][]float32 // of its steps
	phases int
}

// count is how many steps the network makes that makes most.
func (w *walk) count() (n int) {
	for _, sizes := range w.sizes {
		n = max(n, len(sizes))
	}
	return n
}

// run makes the steps in as few launches as their time allows. losses[i] are those of network of[i]; after one that is not finite
// there are none.
func (c *cohort) run(s *session, w walk) (losses [][]float64, err error) {
	defer func() {
		if err == nil {
			return
		}
		// The device may have made some of the steps. It is given again what the networks were before.
		s.guard(func() {
			for _, k := range w.of {
				c.members[k].dirty = true
			}
		})
	}()
	m, t := c.m, c.t
	if err := c.refresh(s, w.of); err != nil {
		return nil, err
	}
	count, most := w.count(), 0
	steps := make([]trainStep, count*len(w.of)) // those of no rows are not made
	for i, k := range w.of {
		first := 0
		if w.starts != nil {
			first = w.starts[i]
		}
		for n, size := range w.sizes[i] {
			if w.rates != nil && n >= len(w.rates[i]) {
				break
			}
			st := &steps[i*count+n]
			st.first, st.n, st.scale = int32(first), int32(size), float32(1/(float64(size)*float64(t.columns)))
			if w.rates != nil {
				made := float64(c.members[k].steps + n + 1)
				st.rate = w.rates[i][n]
				st.correction1, st.correction2 = 1/float32(1-math.Pow(.9, made)), 1/float32(1-math.Pow(.999, made))
			}
			first, most = first+size, max(most, size)
		}
	}
	if err := put(s, &m.steps, steps); err != nil {
		return nil, err
	}
	if err := put(s, &m.order, w.order); err != nil {
		return nil, err
	}
	if err := s.alloc(&m.losses, int64(8*count*len(w.of))); err != nil {
		return nil, err
	}
	blocks := c.blocks(most, len(w.of))
	if c.kernel == "train_wide" {
		if err := s.alloc(&m.scratch, int64(blocks*len(w.of))*int64(c.lot*c.words)*wordSize); err != nil {
			return nil, err
		}
	}
	if err := upload(s, &m.models, 0, wordsOf(c.models(w, blocks))); err != nil {
		return nil, err
	}
	if err := upload(s, &m.state, 0, make([]uint32, 2*len(w.of))); err != nil {
		return nil, err
	}
	for from := 0; from < count; {
		n := min(c.length, count-from)
		began := time.Now()
		if err := c.launch(s, w, blocks, from, n); err != nil {
			return nil, err
		}
		if took := time.Since(began); took < launchTime/2 && n == c.length {
			c.length *= 2
		} else if took > 2*launchTime {
			c.length = max(c.length/2, 1)
		}
		from += n
	}
	return c.outcome(s, w)
}

// launch starts steps from … from+n−1 and waits for them.
func (c *cohort) launch(s *session, w walk, blocks, from, n int) error {
	fn, err := s.function(trainModule, c.kernel)
	if err != nil {
		return err
	}
	shape := launchShape{grid: blocks * len(w.of), block: c.threads, shared: c.shared}
	start := func(from, n, phases int) error {
		return s.launch(fn, shape, &c.m.models, int32(blocks), int32(from), int32(n), int32(phases))
	}
	if blocks == 1 {
		if err := start(from, n, w.phases); err != nil {
			return err
		}
		return s.synchronize()
	}
	if !c.each {
		if err := upload(s, &c.m.barriers, 0, make([]uint32, len(w.of))); err != nil {
			return err
		}
		shape.cooperative = true
		err := start(from, n, w.phases)
		if err == nil {
			return s.synchronize()
		}
		// Slices of a GPU and shared ones may refuse to keep all blocks at once. Nothing has run.
		if e := (*Error)(nil); !errors.As(err, &e) || e.Code != driver.GridTooLarge && e.Code != notPermitted && e.Code != notSupported {
			return err
		}
		c.each, shape.cooperative = true, false
		c.e.o.Log.Info("the GPU does not let blocks wait for each other: a launch for each half of a step", "gpu", c.e.d.info.Title(), "reason", err)
	}
	for i := range n {
		if err := start(from+i, 1, w.phases&(doForward|doBackward)); err != nil {
			return err
		}
		if err := start(from+i, 1, w.phases&^(doForward|doBackward)); err != nil {
			return err
		}
	}
	return s.synchronize()
}

// Codes of a refused cooperative launch, beside driver.GridTooLarge.
const (
	notPermitted driver.Code = 800
	notSupported driver.Code = 801
)

// models describes the networks of a walk.
func (c *cohort) models(w walk, blocks int) []trainModel {
	m, t := c.m, c.t
	groups, count := (max(t.options.MaxBatch, lossRows)+groupRows-1)/groupRows, w.count()
	models := make([]trainModel, len(w.of))
	for i, k := range w.of {
		at := func(b *buffer, words int) uint64 { return uint64(b.ptr) + uint64(words)*wordSize }
		p := k * t.parameters
		models[i] = trainModel{
			ops: at(&m.ops, 0), rows: at(w.rows, 0), order: at(&m.order, 0), places: at(&m.places, 0),
			steps: at(&m.steps, i*count*trainStepWords), losses: at(&m.losses, 2*i*count), state: at(&m.state, 2*i), barrier: at(&m.barriers, i),
			parameters: at(&m.parameters, p), moment1: at(&m.moment1, p), moment2: at(&m.moment2, p), gradient: at(&m.gradient, p),
			layout: at(&m.layout, k*len(t.layout)), slots: at(&m.slots, p*t.leaves(t.options.MaxBatch)), groupLosses: at(&m.groupLosses, 2*k*groups*t.lossParts()),
			scratch: at(&m.scratch, i*blocks*c.lot*c.words),
			forward: int32(len(t.forward)), backward: int32(len(t.backward)), pitch: int32(t.pitch), loaded: int32(t.loaded),
			groupWords: int32(c.words), lot: int32(c.lot), parameterCount: int32(t.parameters), slot: int32(t.parameters), layoutWords: int32(len(t.layout)),
			width: int32(t.columns), prediction: t.prediction, target: t.target, gradientUnit: t.gradient,
			lastAct: t.lastAct, lastY: t.prediction, lastSlope: t.lastSlope, delta: t.options.Delta,
		}
		if t.options.Loss == kernels.Huber {
			models[i].huber = 1
		}
		if t.options.Optimizer == kernels.SGD {
			models[i].sgd = 1
		}
	}
	return models
}

// refresh gives the device what was set since the last call.
func (c *cohort) refresh(s *session, of []int) error {
	for _, k := range of {
		b := &c.members[k]
		if !b.dirty {
			continue
		}
		p := k * c.t.parameters
		layout := append([]float32(nil), c.t.layout...)
		for i, v := range b.parameters {
			for _, at := range c.t.places[2*i : 2*i+2] {
				if at >= 0 {
					layout[at] = v
				}
			}
		}
		for _, of := range []struct {
			to   *buffer
			at   int
			from []float32
		}{{&c.m.parameters, p, b.parameters}, {&c.m.moment1, p, b.moment1}, {&c.m.moment2, p, b.moment2}, {&c.m.layout, k * len(c.t.layout), layout}} {
			if err := upload(s, of.to, of.at, of.from); err != nil {
				return err
			}
		}
		b.dirty = false
	}
	return nil
}

// outcome reads what the networks have come to.
func (c *cohort) outcome(s *session, w walk) ([][]float64, error) {
	count := w.count()
	raw, state := make([]uint32, 2*count*len(w.of)), make([]uint32, 2*len(w.of))
	if err := download(s, raw, &c.m.losses, 0); err != nil {
		return nil, err
	}
	if err := download(s, state, &c.m.state, 0); err != nil {
		return nil, err
	}
	losses := make([][]float64, len(w.of))
	after := make([]member, len(w.of))
	first := w.of[0] * c.t.parameters
	if w.phases&doStep != 0 {
		// All networks from the first to the last in three copies: one each would cost more than the steps of many.
		words := (w.of[len(w.of)-1]+1)*c.t.parameters - first
		for i, from := range []*buffer{&c.m.parameters, &c.m.moment1, &c.m.moment2} {
			c.m.back[i] = slices.Grow(c.m.back[i][:0], words)[:words]
			if err := download(s, c.m.back[i], from, first); err != nil {
				return nil, err
			}
		}
	}
	for i, k := range w.of {
		done := int(state[2*i])
		if state[2*i+1] != 0 {
			done = int(state[2*i+1])
		}
		if done > count {
			return nil, fmt.Errorf("engine cuda: the GPU says that %d of %d steps are made", done, count)
		}
		for n := range done {
			at := 2 * (i*count + n)
			losses[i] = append(losses[i], math.Float64frombits(uint64(raw[at])|uint64(raw[at+1])<<32))
		}
		if w.phases&doStep == 0 {
			continue
		}
		// A copy of its own: one that has ended shall not keep the others' alive.
		own := func(of []float32) []float32 { return slices.Clone(of[k*c.t.parameters-first:][:c.t.parameters]) }
		after[i] = member{parameters: own(c.m.back[0]), moment1: own(c.m.back[1]), moment2: own(c.m.back[2]), steps: c.members[k].steps + int(state[2*i])}
	}
	if w.phases&doStep == 0 {
		return losses, nil
	}
	return losses, s.guard(func() {
		for i, k := range w.of {
			c.members[k] = after[i]
		}
	})
}

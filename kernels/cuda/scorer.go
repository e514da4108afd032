//go:build gpu

package cuda

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"gorgonia.org/cu"

	"github.com/lapwing-stream/lapwing/kernels"
)

// scorer runs a program. It is immutable but for what belongs to the device's goroutine, and a program that is placed later.
type scorer struct {
	e      *Engine
	code   *encoded
	beside kernels.Scorer
	shapes [masks]shape
	there  *resident
	test   *selfTest
	from   atomic.Int64 // least rows of a batch for the device; math.MaxInt = none
	again  atomic.Int64 // ns since 1970 from when on a program is placed that found no memory; 0 = it is placed, or will not be
}

// resident is a program in device memory. It belongs to the device's goroutine, and outlives its scorer by a little: see
// Device.discard.
type resident struct{ steps, constants buffer }

// shape is how a plan is launched.
type shape struct {
	kernel    string
	rows      int // of a tile, and threads of a block
	shared    int // bytes
	constants int // words of them in shared memory
	tile      int // words; in device memory where kernel is score_wide
}

const (
	mostTileRows = 256 // __launch_bounds__ of score.cu
	wideTileRows = 64
	// Constants that take more of the shared memory than this leave too little for rows.
	mostSharedConstants = 24 << 10
	scratchBytes        = 256 << 20 // for the tiles of the wide path
	chunkBytes          = 8 << 20   // of rows that are copied while others are computed
	leastChunk          = 1024      // rows; with less than that memory there is none
	launchWork          = 1 << 33   // multiply-adds of a launch: tens of milliseconds
)

// columnPadding is what tile_stride of score.cu adds to the rows of a tile.
const columnPadding = 4

// shapeOf chooses how large a tile is, and whether constants lie beside it, by how many warps an SM then has at once: one
// warp alone waits most of the time. An SM has about as much shared memory as a block can ask for, most, and keeps 1 KB of it
// for each block; registers suffice for about mostWarps. Constants beside the tile are worth half the warps. Of equal tiles the
// smaller is taken, as its barriers stop fewer, but not below a warp for each group of threads: two groups in one take their
// turns. No result depends on it.
func shapeOf(p *plan, constants, most int) shape {
	const warp, groups, mostWarps = 32, 4, 20
	best, worth := shape{kernel: "score_wide", rows: wideTileRows, tile: p.height * (wideTileRows + columnPadding)}, 0
	for _, beside := range []int{constants, 0} {
		if beside*wordSize > mostSharedConstants {
			continue
		}
		for rows := 2 * warp; rows <= mostTileRows; rows += 2 * warp {
			tile := p.height * (rows + columnPadding)
			bytes := (tile + beside) * wordSize
			if bytes > most {
				continue
			}
			s := shape{kernel: "score_constants", rows: rows, shared: bytes, tile: tile, constants: beside}
			warps := rows / warp
			w := 4 * warps * min(max(1, most/(bytes+(1<<10))), mostWarps/warps)
			if warps%groups != 0 {
				w = w * 3 / 4
			}
			if beside > 0 || constants == 0 {
				s.kernel, w = "score_shared", 2*w
			}
			if w > worth {
				best, worth = s, w
			}
		}
	}
	return best
}

// Scorer copies the program to the device and has its first numbers checked by the processor's.
func (e *Engine) Scorer(p *kernels.Program) (kernels.Scorer, error) {
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("engine cuda cannot score this program: %w", err)
	}
	beside, err := e.o.Beside.Scorer(p)
	if err != nil {
		return nil, err
	}
	code, err := encode(p)
	if err != nil {
		return nil, err
	}
	s := &scorer{e: e, code: code, beside: beside, there: &resident{}}
	s.from.Store(math.MaxInt)
	for mask := 1; mask < masks; mask++ {
		s.shapes[mask] = shapeOf(&code.plans[mask], len(code.constants), e.d.info.Shared)
	}
	s.test = newSelfTest(p)
	err = s.place()
	if err != nil && !e.o.Fallback {
		e.d.discard(s.there) // part of it may have found room
		return nil, err
	}
	runtime.AddCleanup(s, func(r *resident) { e.d.discard(r) }, s.there)
	if err != nil {
		e.fellBack(err, scoresInstead)
		if errors.Is(err, kernels.ErrOutOfMemory) {
			s.again.Store(time.Now().Add(e.o.SelfTest).UnixNano())
		}
		return s, nil
	}
	s.share()
	return s, nil
}

// share fixes from how many rows on the device scores.
func (s *scorer) share() {
	from := s.e.o.From
	if from == 0 {
		from = s.crossover()
	}
	s.from.Store(int64(from))
}

// placeLater tries again, as often as the self-test is made, to place a program that the device had no memory for.
func (s *scorer) placeLater() {
	at, now := s.again.Load(), time.Now()
	if now.UnixNano() < at || !s.again.CompareAndSwap(at, now.Add(s.e.o.SelfTest).UnixNano()) {
		return
	}
	switch err := s.place(); {
	case err == nil:
		s.share()
		s.again.Store(0)
		s.e.o.Log.Info("the GPU has memory for the model now, and scores", "gpu", s.e.d.info.Title(), "uuid", s.e.d.info.UUID)
	case !errors.Is(err, kernels.ErrOutOfMemory): // for good, and for another reason than was said
		s.again.Store(0)
		s.e.o.Log.Warn(scoresInstead, "gpu", s.e.d.info.Title(), "uuid", s.e.d.info.UUID, "reason", err)
	}
}

// place loads the program and tries it.
func (s *scorer) place() error {
	return s.e.d.do(context.Background(), func(d *session) error {
		if err := s.load(d); err != nil {
			return err
		}
		return s.test.first(d, s)
	})
}

// load copies steps and constants to the device. It never changes a buffer's address once it has one.
func (s *scorer) load(d *session) error {
	if err := d.alloc(&s.there.steps, int64(len(s.code.steps)*stepWords*wordSize)); err != nil {
		return err
	}
	if err := d.alloc(&s.there.constants, int64(max(len(s.code.constants), 1)*wordSize)); err != nil {
		return err
	}
	if len(s.code.steps) > 0 {
		words := unsafe.Slice((*int32)(unsafe.Pointer(&s.code.steps[0])), len(s.code.steps)*stepWords)
		if err := upload(d, &s.there.steps, 0, words); err != nil {
			return err
		}
	}
	return upload(d, &s.there.constants, 0, s.code.constants)
}

// Score evaluates on the device or, where the batch is too small or the device fails and may be replaced, beside it.
func (s *scorer) Score(rows []float32, out kernels.Output) error {
	width := s.code.width
	if err := out.Fit(len(rows), width); err != nil {
		return err
	}
	n := len(rows) / width
	if n == 0 || maskOf(out) == 0 {
		return nil
	}
	if s.again.Load() != 0 {
		s.placeLater()
	}
	if int64(n) < s.from.Load() {
		s.e.stats.beside.Add(int64(n))
		return s.beside.Score(rows, out)
	}
	err := s.e.d.do(context.Background(), func(d *session) error {
		if err := s.test.due(d, s); err != nil {
			return err
		}
		return s.run(d, rows, out)
	})
	if err == nil {
		s.e.stats.onDevice.Add(int64(n))
		return nil
	}
	if !s.e.o.Fallback {
		return err
	}
	s.e.fellBack(err, scoresInstead)
	s.e.stats.beside.Add(int64(n))
	return s.beside.Score(rows, out)
}

// What the processor does in the device's place.
const (
	scoresInstead = "the GPU failed; the CPU scores in its place"
	trainsInstead = "the GPU failed; the CPU trains in its place"
)

// fellBack counts, and says once what has changed.
func (e *Engine) fellBack(err error, instead string) {
	e.stats.fallbacks.Add(1)
	if _, said := e.warned.LoadOrStore(instead, true); !said {
		next := ""
		if x := (*Error)(nil); errors.As(err, &x) {
			next = x.Next
		}
		e.o.Log.Warn(instead, "gpu", e.d.info.Title(), "uuid", e.d.info.UUID, "reason", err, "next", next)
	}
}

func maskOf(out kernels.Output) (mask int) {
	if out.Score != nil {
		mask |= wantScore
	}
	if out.Reconstruction != nil {
		mask |= wantReconstruction
	}
	if out.Contributions != nil {
		mask |= wantContributions
	}
	return mask
}

// slot is what one chunk needs. There are two: one is copied and read out while the other is computed.
type slot struct {
	in, out         buffer
	hostIn, hostOut pinned
	scratch         buffer
	rows, at        int // of the chunk under way; rows is 0 where none is
}

// run scores rows chunk by chunk.
func (s *scorer) run(d *session, rows []float32, out kernels.Output) error {
	mask, width := maskOf(out), s.code.width
	n := len(rows) / width
	chunk := s.chunk(mask, n)
	for {
		err := s.chunks(d, rows, out, mask, chunk)
		if !errors.Is(err, kernels.ErrOutOfMemory) || chunk <= leastChunk {
			return err
		}
		chunk = max(chunk/2, leastChunk)
		s.e.stats.splits.Add(1)
	}
}

// chunk is how many rows are given to the device at once.
func (s *scorer) chunk(mask, n int) int {
	p := &s.code.plans[mask]
	most := min(chunkBytes/wordSize/s.code.width, launchWork/max(p.work, 1))
	tile := s.shapes[mask].rows
	return min(n, max(most/tile, 1)*tile)
}

func (s *scorer) chunks(d *session, rows []float32, out kernels.Output, mask, chunk int) (err error) {
	defer func() {
		if err == nil {
			return
		}
		// Nothing may be under way in buffers that the next request uses.
		d.synchronize()
		d.slots[0].rows, d.slots[1].rows = 0, 0
	}()
	width := s.code.width
	n, i := len(rows)/width, 0
	for at := 0; at < n; at, i = at+chunk, i+1 {
		sl := &d.slots[i%2]
		st, err := d.stream(i % 2)
		if err != nil {
			return err
		}
		if err := s.finish(d, sl, st, out); err != nil {
			return err
		}
		if err := s.start(d, sl, st, rows[at*width:min(at+chunk, n)*width], mask); err != nil {
			return err
		}
		sl.at = at
	}
	for k := range 2 {
		sl := &d.slots[(i+k)%2]
		if sl.rows == 0 {
			continue
		}
		st, err := d.stream((i + k) % 2)
		if err != nil {
			return err
		}
		if err := s.finish(d, sl, st, out); err != nil {
			return err
		}
	}
	return nil
}

// start gives a chunk to the device.
func (s *scorer) start(d *session, sl *slot, st cu.Stream, rows []float32, mask int) error {
	n := len(rows) / s.code.width
	results := n * s.resultWidth(mask)
	if err := d.alloc(&sl.in, int64(len(rows)*wordSize)); err != nil {
		return err
	}
	if err := d.alloc(&sl.out, int64(results*wordSize)); err != nil {
		return err
	}
	if err := d.pin(&sl.hostIn, len(rows)*wordSize); err != nil {
		return err
	}
	if err := d.pin(&sl.hostOut, results*wordSize); err != nil {
		return err
	}
	if err := d.guard(func() { copy(sl.hostIn.floats(len(rows)), rows) }); err != nil {
		return err
	}
	if s.code.plans[mask].input >= 0 {
		if err := d.uploadAsync(sl.in.ptr, &sl.hostIn, len(rows), st); err != nil {
			return err
		}
	}
	if err := s.launch(d, sl, st, n, mask); err != nil {
		return err
	}
	if err := d.downloadAsync(&sl.hostOut, 0, &sl.out, 0, results, st); err != nil {
		return err
	}
	sl.rows = n
	return nil
}

// launch gives n rows in a slot's memory to the device. Results stand one behind the other: scores, reconstructions, contributions.
func (s *scorer) launch(d *session, sl *slot, st cu.Stream, n, mask int) error {
	p, sh, width := &s.code.plans[mask], &s.shapes[mask], s.code.width
	grid := min((n+sh.rows-1)/sh.rows, 8*d.d.info.SMs)
	scratch := 0
	if sh.kernel == "score_wide" {
		grid = max(1, min(grid, scratchBytes/wordSize/sh.tile))
		scratch = sh.tile
		if err := d.alloc(&sl.scratch, int64(grid)*int64(sh.tile)*wordSize); err != nil {
			return err
		}
	}
	fn, err := d.function(scoreModule, sh.kernel)
	if err != nil {
		return err
	}
	var to [3]cu.DevicePtr
	next := sl.out.ptr
	for bit := range to {
		if mask>>bit&1 == 1 {
			to[bit] = next
			next += cu.DevicePtr(n * s.widthOf(bit) * wordSize)
		}
	}
	steps := s.there.steps.ptr + cu.DevicePtr(p.first*stepWords*wordSize)
	return d.launch(fn, launchShape{grid: grid, block: sh.rows, shared: sh.shared, stream: st},
		&sl.in, int32(n), int32(width), int32(p.input), steps, int32(p.count), &s.there.constants, int32(sh.constants),
		&sl.scratch, int64(scratch), to[0], to[1], to[2], int32(p.outputs[0]), int32(p.outputs[1]), int32(p.outputs[2]))
}

// finish waits for a slot's chunk, if there is one, and hands out its results.
func (s *scorer) finish(d *session, sl *slot, st cu.Stream, out kernels.Output) error {
	if sl.rows == 0 {
		return nil
	}
	if err := d.wait(st); err != nil {
		return err
	}
	n, at := sl.rows, sl.at
	sl.rows = 0
	mask := maskOf(out)
	results := sl.hostOut.floats(n * s.resultWidth(mask))
	return d.guard(func() {
		for bit, to := range [][]float32{out.Score, out.Reconstruction, out.Contributions} {
			if mask>>bit&1 == 1 {
				w := s.widthOf(bit)
				copy(to[at*w:(at+n)*w], results)
				results = results[n*w:]
			}
		}
	})
}

// widthOf is how many words of a row output bit has.
func (s *scorer) widthOf(bit int) int {
	if bit == 0 {
		return 1
	}
	return s.code.width
}

func (s *scorer) resultWidth(mask int) (w int) {
	for bit := range 3 {
		if mask>>bit&1 == 1 {
			w += s.widthOf(bit)
		}
	}
	return w
}

// crossover measures from how many rows on the device is faster: it takes a + b·n, the processor c·n.
func (s *scorer) crossover() int {
	const few, many, rounds = 256, 4096, 3
	rows := make([]float32, many*s.code.width)
	for i := range rows {
		rows[i] = s.test.rows[i%len(s.test.rows)]
	}
	scores := make([]float32, many)
	least := func(n int, score func(rows []float32, out kernels.Output) error) float64 {
		best := math.Inf(1)
		for range rounds {
			began := time.Now()
			if score(rows[:n*s.code.width], kernels.Output{Score: scores[:n]}) != nil {
				return math.Inf(1)
			}
			best = min(best, time.Since(began).Seconds())
		}
		return best
	}
	there := func(rows []float32, out kernels.Output) error {
		return s.e.d.do(context.Background(), func(d *session) error { return s.run(d, rows, out) })
	}
	a, b := least(few, there), least(many, there)
	slope := (b - a) / (many - few)
	here := least(few, s.beside.Score) / few
	n := (a - slope*few) / (here - slope)
	if !(here > slope) || math.IsNaN(n) || n > math.MaxInt32 {
		return math.MaxInt
	}
	return max(1, int(math.Ceil(n)))
}

// probe gives the kernels to the driver's compiler.
func (e *Engine) probe() error {
	return e.d.do(context.Background(), func(d *session) error {
		for _, name := range []string{"score_shared", "score_constants", "score_wide"} {
			if _, err := d.function(scoreModule, name); err != nil {
				return err
			}
		}
		return nil
	})
}

// Crossover is from how many rows of a batch on the GPU scores a program; 0 = it never wins.
func (e *Engine) Crossover(p *kernels.Program) (int, error) {
	s, err := e.Scorer(p)
	if err != nil {
		return 0, err
	}
	if from := s.(*scorer).from.Load(); from != math.MaxInt {
		return int(from), nil
	}
	return 0, nil
}

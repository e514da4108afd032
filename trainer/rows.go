package trainer

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/lapwing-stream/lapwing/model"
)

const (
	// chunkRows is the unit of an epoch's order and the most rows of a block. Large enough that a block of 18 columns is a read
	// of 288 KiB, which a disk delivers at its full rate.
	chunkRows = 4096
	// sideBytes is what a row costs in memory wherever its values are: two scores (8: those of both heads, or one and its
	// sorted copy), its label, its bits in row sets, its share of the sampled times.
	sideBytes = 11
	// labelBytes is what it costs more where the threshold is chosen by label: a score with its truth, and its sorted copy.
	labelBytes = 32
	// usualSketches is how much of the statistics' memory is none of max_memory's: about 80 columns on two threads.
	usualSketches = 16 << 20
	// openShare is the part of max_memory (1/openShare) for blocks that are being filled, and for reading spilled ones back.
	openShare = 8
	// cacheShare is the part of max_memory (1/cacheShare) for the window of an epoch, where rows are spilled.
	cacheShare = 4
)

// rowStore holds the rows of a history: in memory as long as they fit, beyond that in a file.
//
// Rows are cut into blocks, each of one partition in offset order. A block that is full stays in memory while the budget
// allows, and is otherwise written to the file, once. The file is read and written with plain reads and writes: pages of
// a mapped file would count as resident memory. Where a row lies is known to this type alone, so that memory cannot
// change a model.
type rowStore struct {
	width     int
	blockRows int    // a power of two, at most chunkRows
	dir       string // for the file
	asked     int64  // max_memory, bytes
	max       int64  // of that for rows and what belongs to each, bytes
	expect    int64  // rows that may come, at most
	side      int64  // bytes a row beside its values
	topic     string // for messages
	early     *early // nil: blocks go to no device before all are there

	mu       sync.Mutex
	n        int64 // rows of full blocks
	resident int64 // bytes of full blocks in memory
	file     *os.File
	path     string
	size     int64 // of the file, bytes

	loaded []*block    // blocks of the file that the window holds in memory
	free   [][]float32 // buffers for those
	cache  int64       // bytes for those
}

// block is blockRows rows of one partition, the last one fewer.
type block struct {
	data    []float32 // nil: in the file
	at      int64     // in the file, bytes; −1 for a block that was never spilled
	missing int32     // rows with a missing value
	early   int32     // which block it is on the device already; nowhere: none
}

// newRowStore plans for rows of the given width, filled by partition and read back by threads.
func (j *job) newRowStore(width, partitions int, expect int64) (*rowStore, error) {
	s := &rowStore{width: width, dir: j.SpillDir, asked: j.MaxMemory, max: j.MaxMemory, expect: expect, side: sideBytes, topic: j.Topic}
	if j.ThresholdMethod == model.ByLabel {
		s.side += labelBytes
	}
	if j.PerKey {
		s.side += keyBytes
	}
	// Networks that learn at once, beside the usual one.
	if _, networks := j.together(width); networks > 0 {
		s.max -= min(networks, s.max/2)
	}
	// Every decoding goroutine has a sketch of every column. What few columns take is part of what stands beside max_memory.
	if wide := int64(min(j.Threads, partitions))*int64(width)*sketchBytes - usualSketches; wide > 0 {
		s.max -= min(wide, s.max/2)
	}
	// Every partition has a block that is being filled, and every thread one that it reads.
	open := int64(partitions + 2*j.Threads)
	for s.blockRows = chunkRows; s.blockRows > 0 && open*s.blockBytes() > s.max/openShare; s.blockRows /= 2 {
	}
	if s.blockRows == 0 {
		return nil, rowTooWideError(s, open*openShare*4*int64(width)+s.asked-s.max)
	}
	return s, nil
}

func (s *rowStore) blockBytes() int64 { return int64(s.blockRows) * int64(s.width) * 4 }

// most is how many bytes of rows may be in memory beside n rows' scores and labels.
func (s *rowStore) most(n int64) int64 { return s.max - s.max/openShare - s.side*n }

// partitionRows are the rows of one partition, in offset order. One goroutine at a time adds.
type partitionRows struct {
	blocks  []block
	open    []float32 // the block that is being filled
	missing int32     // in it
	n       int
}

// add appends a copy of row.
func (p *partitionRows) add(s *rowStore, row []float32) error {
	if len(p.open) == cap(p.open) {
		// Grown bit by bit, so that a thousand nearly empty partitions cost little.
		grown := make([]float32, len(p.open), min(max(2*cap(p.open), 16*s.width), s.blockRows*s.width))
		copy(grown, p.open)
		p.open = grown
	}
	p.open = append(p.open, row...)
	p.n++
	if slices.ContainsFunc(row, func(v float32) bool { return v != v }) {
		p.missing++
	}
	if len(p.open) < s.blockRows*s.width {
		return nil
	}
	return s.put(p)
}

// put files p's open block away, which is full.
func (s *rowStore) put(p *partitionRows) error {
	b := block{at: -1, missing: p.missing, early: s.early.add(p.open)}
	p.missing = 0
	s.mu.Lock()
	s.n += int64(s.blockRows)
	if s.side*s.n > s.max/2 {
		s.mu.Unlock()
		return memoryError(s)
	}
	if s.size == 0 && s.resident+s.blockBytes() <= s.most(s.n) {
		s.resident += s.blockBytes()
		s.mu.Unlock()
		b.data, p.open = p.open, nil
		p.blocks = append(p.blocks, b)
		return nil
	}
	at, err := s.place()
	s.mu.Unlock()
	if err == nil {
		b.at = at
		err = s.write(p.open, at)
	}
	p.open = p.open[:0]
	p.blocks = append(p.blocks, b)
	return err
}

// place is where the next spilled block goes; s is locked.
func (s *rowStore) place() (int64, error) {
	if s.file == nil {
		f, err := os.CreateTemp(s.dir, "lapwing-rows-*")
		if err != nil {
			return 0, s.spillError(err)
		}
		s.file, s.path = f, f.Name()
		// Without its name the file is gone when this process is, however it ends. Where an open file cannot be
		// removed, close does it.
		if os.Remove(s.path) == nil {
			s.path = ""
		}
	}
	at := s.size
	s.size += s.blockBytes()
	return at, nil
}

func (s *rowStore) write(rows []float32, at int64) error {
	if _, err := s.file.WriteAt(bytesOf(rows), at); err != nil {
		return s.spillError(err)
	}
	return nil
}

func (s *rowStore) read(rows []float32, at int64) error {
	if _, err := s.file.ReadAt(bytesOf(rows), at); err != nil {
		return s.spillError(err)
	}
	return nil
}

// bytesOf is the memory of v. The file lives and dies with this process, so its byte order is the machine's.
func bytesOf(v []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), 4*len(v))
}

// finish ends the adding of rows: what is open becomes the last block of its partition, and blocks leave memory until
// there is room for what comes next, a score for every row and the window of an epoch.
func (h *history) finish() error {
	s := h.store
	for i := range h.partitions {
		p := &h.partitions[i].rows
		if len(p.open) > 0 {
			p.blocks = append(p.blocks, block{data: slices.Clip(p.open), at: -1, missing: p.missing, early: nowhere})
			s.resident += 4 * int64(len(p.open))
			p.open = nil
		}
	}
	if s.side*int64(h.n) > s.max/2 {
		return memoryError(s)
	}
	if s.resident <= s.most(int64(h.n)) && s.size == 0 {
		return nil
	}
	s.cache = min(2*windowRows*4*int64(s.width), s.max/cacheShare)
	for i := len(h.partitions) - 1; i >= 0; i-- {
		p := &h.partitions[i].rows
		for k := len(p.blocks) - 1; k >= 0 && s.resident > s.most(int64(h.n))-s.cache; k-- {
			b := &p.blocks[k]
			if b.data == nil {
				continue
			}
			at, err := s.place()
			if err == nil {
				err = s.write(b.data, at)
			}
			if err != nil {
				return err
			}
			s.resident -= 4 * int64(len(b.data))
			b.at, b.data = at, nil
		}
	}
	return nil
}

// close removes the file, and what is on a device. No row may be used afterwards.
func (s *rowStore) close() {
	if s == nil {
		return
	}
	s.early.close()
	if s.file == nil {
		return
	}
	s.file.Close()
	if s.path != "" {
		os.Remove(s.path)
	}
}

// folder is where the file is.
func (s *rowStore) folder() string { return cmp.Or(s.dir, os.TempDir()) }

// spilled is how many bytes of rows are in the file.
func (s *rowStore) spilled() int64 { return s.size }

// locate finds row g: its partition, and its number there.
func (h *history) locate(g int) (p *partition, at int) {
	i := sort.SearchInts(h.starts, g+1) - 1
	return &h.partitions[i], g - h.starts[i]
}

// rowsOf is how many rows block k of p has.
func (s *rowStore) rowsOf(p *partitionRows, k int) int { return min(p.n-k*s.blockRows, s.blockRows) }

// gather copies rows, by number and in any order, into a row-major buffer; to is used again where it is large enough.
func (h *history) gather(rows []int, to []float32) ([]float32, error) {
	s := h.store
	need := len(rows) * s.width
	if cap(to) < need {
		to = make([]float32, need)
	}
	to = to[:need]
	for i, g := range rows {
		p, at := h.locate(g)
		b := &p.rows.blocks[at/s.blockRows]
		at = at % s.blockRows * s.width
		if row := to[i*s.width : (i+1)*s.width]; b.data != nil {
			copy(row, b.data[at:])
		} else if err := s.read(row, b.at+4*int64(at)); err != nil {
			return nil, err
		}
	}
	return to, nil
}

// pass hands every row of the history to do, a block at a time: the number of its first row, and its rows, which must not
// be changed or kept. Up to threads goroutines call it at once, in no order; worker, below threads, tells them apart.
func (h *history) pass(ctx context.Context, threads int, do func(worker, first int, rows []float32) error) error {
	return h.passSome(ctx, threads, func(*block) bool { return true }, do)
}

// passSome is pass over some of the blocks.
func (h *history) passSome(ctx context.Context, threads int, these func(*block) bool, do func(worker, first int, rows []float32) error) error {
	type piece struct {
		p        *partitionRows
		k, first int
	}
	s := h.store
	var pieces []piece
	for i := range h.partitions {
		p := &h.partitions[i].rows
		for k := range p.blocks {
			if these(&p.blocks[k]) {
				pieces = append(pieces, piece{p, k, h.starts[i] + k*s.blockRows})
			}
		}
	}
	var next atomic.Int64
	var failed atomic.Bool
	errs := make([]error, threads)
	var group sync.WaitGroup
	for t := range errs {
		group.Go(func() {
			var buffer []float32
			for !failed.Load() && ctx.Err() == nil {
				i := next.Add(1) - 1
				if i >= int64(len(pieces)) {
					return
				}
				c := pieces[i]
				b := &c.p.blocks[c.k]
				rows := b.data
				if rows == nil {
					if buffer == nil {
						buffer = make([]float32, s.blockRows*s.width)
					}
					rows = buffer[:s.rowsOf(c.p, c.k)*s.width]
					if errs[t] = s.read(rows, b.at); errs[t] != nil {
						failed.Store(true)
						return
					}
				}
				if errs[t] = do(t, c.first, rows); errs[t] != nil {
					failed.Store(true)
					return
				}
			}
		})
	}
	group.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return cmp.Or(errs...)
}

// prefetch brings the spilled blocks of the given rows into memory, as many as there is room for, and lets go of those it
// brought before. gather finds the others in the file, row by row. Only one goroutine may use the history meanwhile.
func (h *history) prefetch(chunks []span) error {
	s := h.store
	if s.size == 0 {
		return nil
	}
	for _, b := range s.loaded {
		s.free = append(s.free, b.data)
		b.data = nil
	}
	s.loaded = s.loaded[:0]
	// In the order of the file, so that a disk reads forward.
	type wanted struct {
		b *block
		n int
	}
	var want []wanted
	for _, c := range chunks {
		p, at := h.locate(c.from)
		for k := at / s.blockRows; k*s.blockRows < at+c.to-c.from; k++ {
			if b := &p.rows.blocks[k]; b.data == nil {
				want = append(want, wanted{b, s.rowsOf(&p.rows, k)})
			}
		}
	}
	want = want[:min(int64(len(want)), s.cache/s.blockBytes())]
	slices.SortFunc(want, func(a, b wanted) int { return cmp.Compare(a.b.at, b.b.at) })
	for _, w := range want {
		var buffer []float32
		if n := len(s.free); n > 0 {
			buffer, s.free = s.free[n-1], s.free[:n-1]
		} else {
			buffer = make([]float32, s.blockRows*s.width)
		}
		buffer = buffer[:w.n*s.width]
		if err := s.read(buffer, w.b.at); err != nil {
			return err
		}
		w.b.data = buffer
		s.loaded = append(s.loaded, w.b)
	}
	return nil
}

// withMissing are up to n rows that have a missing value, evenly spread over all such rows.
func (h *history) withMissing(n int) ([]int, error) {
	s := h.store
	total := 0
	for i := range h.partitions {
		for _, b := range h.partitions[i].rows.blocks {
			total += int(b.missing)
		}
	}
	n = min(n, total)
	var out []int
	var buffer []float32
	before := 0
	for i := range h.partitions {
		p := &h.partitions[i].rows
		for k := range p.blocks {
			b := &p.blocks[k]
			from := before
			before += int(b.missing)
			// The ranks wanted are i·total/n, as spread has it.
			if len(out) == n || len(out)*total/n >= before {
				continue
			}
			rows := b.data
			if rows == nil {
				if buffer == nil {
					buffer = make([]float32, s.blockRows*s.width)
				}
				rows = buffer[:s.rowsOf(p, k)*s.width]
				if err := s.read(rows, b.at); err != nil {
					return nil, err
				}
			}
			for r := 0; r*s.width < len(rows) && len(out) < n; r++ {
				if slices.ContainsFunc(rows[r*s.width:(r+1)*s.width], func(v float32) bool { return v != v }) {
					if from == len(out)*total/n {
						out = append(out, h.starts[i]+k*s.blockRows+r)
					}
					from++
				}
			}
		}
	}
	return out, nil
}

// spillError says which file failed, and how much room it would have needed.
func (s *rowStore) spillError(err error) error {
	need := s.expect * int64(s.width) * 4
	return &InputError{
		What: fmt.Sprintf("rows beyond max_memory could not be kept in a file: %v", bare(err)), Place: "folder " + s.folder(), Kind: err,
		Next: fmt.Sprintf("give that folder up to %s of free space, name another with train.spill_dir (--spill-dir), or raise max_memory above %s", mebibytes(need), mebibytes(s.asked)),
	}
}

// bare takes the file's name off, which has been removed and says nothing.
func bare(err error) error {
	if pe, ok := err.(*os.PathError); ok {
		return pe.Err
	}
	return err
}

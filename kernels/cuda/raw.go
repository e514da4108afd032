//go:build gpu

package cuda

import (
	"context"
	"errors"
	"fmt"

	"gorgonia.org/cu"

	"github.com/lapwing-stream/lapwing/kernels"
)

const (
	// rawPiece is how many bytes of raw rows are allocated at a time: few calls, and little that lies idle.
	rawPiece = 64 << 20
	// rawShare is the part of the memory that is free at first (1/rawShare) which raw rows may take. What is made of them takes about as
	// much as they do.
	rawShare = 2
)

// rawRows are on the device before there is a trainer. They are there on sufferance: an allocation that finds no memory takes theirs, all
// of it (see session.alloc), and the rows go up again as if they never had.
//
// A block is copied into one of two pinned buffers while the other is on its way, so that who adds waits for neither. Nothing is allocated
// before the first block comes: a short history has none that is full.
type rawRows struct {
	e     *Engine
	width int // columns
	rows  int // of a block

	// Of the device's goroutine.
	begun, gone     bool
	pieces          []*buffer
	room            int64 // bytes that may still be taken
	count, capacity int   // blocks
	pins            [2]pinned
}

// HoldRaw makes room, bit by bit, for blocks of so many rows of so many columns: up to half of the memory that is free then.
func (e *Engine) HoldRaw(width, rows int) kernels.RawRows {
	return &rawRows{e: e, width: width, rows: rows}
}

func (r *rawRows) words() int { return r.width * r.rows }

// perPiece is how many blocks a piece has; the last one may have fewer.
func (r *rawRows) perPiece() int { return max(rawPiece/wordSize/r.words(), 1) }

// at is where a block lies.
func (r *rawRows) at(block int) cu.DevicePtr {
	return r.pieces[block/r.perPiece()].ptr + cu.DevicePtr(block%r.perPiece()*r.words()*wordSize)
}

func (r *rawRows) Add(rows []float32) (block int, err error) {
	if len(rows) != r.words() {
		return -1, fmt.Errorf("engine cuda: %d values are no block of %d rows of %d", len(rows), r.rows, r.width)
	}
	block = -1
	err = r.e.d.do(context.Background(), func(s *session) error {
		err := r.add(s, rows, &block)
		if err != nil {
			r.drop(s)
		}
		return err
	})
	if err != nil {
		return -1, err
	}
	return block, nil
}

// add tells the number of the block where it is taken.
func (r *rawRows) add(s *session, rows []float32, block *int) error {
	if r.gone {
		return nil
	}
	bytes := int64(r.words()) * wordSize
	if !r.begun {
		free, err := s.freeMemory()
		if err != nil {
			return err
		}
		r.begun, r.room = true, free/rawShare
		s.raw[r] = true
	}
	if r.count == r.capacity {
		n := min(int64(r.perPiece()), r.room/bytes)
		if n <= 0 {
			return nil
		}
		piece := &buffer{}
		if err := s.take(piece, n*bytes); err != nil {
			return err
		}
		r.pieces, r.capacity, r.room = append(r.pieces, piece), r.capacity+int(n), r.room-piece.size
	}
	pin := &r.pins[r.count%2]
	st, err := s.stream(r.count % 2)
	if err == nil {
		err = s.wait(st) // what this buffer had before is there
	}
	if err == nil {
		err = s.pin(pin, int(bytes))
	}
	if err == nil {
		err = s.guard(func() { copy(pin.floats(len(rows)), rows) })
	}
	if err == nil {
		err = s.uploadAsync(r.at(r.count), pin, len(rows), st)
	}
	if err != nil {
		return err
	}
	r.count++
	return s.guard(func() { *block = r.count - 1 })
}

// drop gives all memory back. No row is taken or made use of afterwards.
func (r *rawRows) drop(s *session) {
	r.gone = true
	delete(s.raw, r)
	if len(r.pieces) > 0 {
		s.synchronize() // nothing may be under way in memory that comes to other use
	}
	for _, p := range r.pieces {
		s.free(p)
	}
	r.pieces = nil
	for i := range r.pins {
		s.unpin(&r.pins[i])
	}
}

func (r *rawRows) Close() error {
	err := r.e.d.do(context.Background(), func(s *session) error { r.drop(s); return nil })
	if errors.Is(err, errClosed) || r.e.d.Lost() != nil {
		return nil // the device has gone, and its memory with it
	}
	return err
}

// dropRaw gives back what raw rows hold, and tells whether that was anything.
func (s *session) dropRaw() (dropped bool) {
	for r := range s.raw {
		dropped = dropped || len(r.pieces) > 0
		r.drop(s)
	}
	return dropped
}

func (t *trainer) Take(from kernels.RawRows, first []int) (bool, error) { return t.c.Take(from, first) }

// Take prepares rows that the device has already, in place of Put and as it does: those of block i from the number first[i] on; −1 leaves it out. false:
// the device has them no more, and nothing was done. Hold comes before it.
func (c *cohort) Take(from kernels.RawRows, first []int) (taken bool, err error) {
	r, ok := from.(*rawRows)
	if !ok || r.e.d != c.e.d || r.width != c.t.width {
		return false, nil
	}
	if c.closed {
		return false, errClosedTrainer
	}
	for block, at := range first {
		if at >= 0 && at+r.rows > c.rows {
			return false, fmt.Errorf("engine cuda: block %d of %d rows is to be row %d and on, of the %d that the GPU has room for", block, r.rows, at, c.rows)
		}
	}
	err = c.on(func(s *session) error {
		there, err := c.take(s, r, first)
		if err != nil {
			s.synchronize() // nothing may be under way in buffers that come to other use
			return err
		}
		return s.guard(func() { taken = there })
	})
	return taken && err == nil, err
}

func (c *cohort) take(s *session, r *rawRows, first []int) (bool, error) {
	fn, err := s.function(trainModule, "train_prepare")
	if err != nil {
		return false, err
	}
	passes := c.maps[c.mapping[0]]
	// What is still to be allocated is allocated now: it may cost the raw rows their memory.
	for i := range c.m.tiles {
		for k := range passes {
			if _, err := c.tile(s, &c.m.tiles[i], &passes[k], r.rows); err != nil {
				return false, err
			}
		}
	}
	if r.gone || len(first) > r.count {
		return false, nil
	}
	for block, at := range first {
		if at < 0 {
			continue
		}
		st, err := s.stream(block % 2) // behind its copy, which may still be under way
		if err != nil {
			return false, err
		}
		if err := c.compute(s, fn, st, &c.m.tiles[block%2], r.at(block), r.rows, &c.m.held, at, 0); err != nil {
			return false, err
		}
	}
	return true, s.synchronize()
}

package trainer

import (
	"log/slog"
	"sync/atomic"

	"github.com/lapwing-stream/lapwing/kernels"
)

// rawEngine is what an engine may be beside: one whose device takes blocks of rows before there is a trainer.
type rawEngine interface {
	HoldRaw(width, rows int) kernels.RawRows
}

// taker is a memory that makes use of rows which its device has already: those of block i get the number first[i] and on; −1 leaves a
// block out. false: they are there no more, and nothing was done.
type taker interface {
	Take(from kernels.RawRows, first []int) (bool, error)
}

// early sends rows to the device while the topic is still being read, so that few are left to go there when it has been. Whatever
// becomes of it changes nothing but time: who has no room for them, or fails, is given the rows when it learns from them.
type early struct {
	rows   kernels.RawRows
	log    *slog.Logger
	over   atomic.Bool  // no more are taken
	failed atomic.Bool  // and those that were are gone
	went   atomic.Int64 // blocks
}

// nowhere is the block of rows that did not go early.
const nowhere = -1

// early is nil where no device would learn from these rows, all of them: per key others do.
func (j *job) early(width, rows int) *early {
	e, ok := j.Engine.(rawEngine)
	if !ok || j.DryRun || j.PerKey {
		return nil
	}
	return &early{rows: e.HoldRaw(width, rows), log: j.Log}
}

// add sends a full block, and says which it is on the device.
func (e *early) add(rows []float32) int32 {
	if e == nil || e.over.Load() {
		return nowhere
	}
	at, err := e.rows.Add(rows)
	if err == nil && at >= 0 {
		e.went.Add(1)
		return int32(at)
	}
	e.over.Store(true)
	if err != nil && !e.failed.Swap(true) {
		e.log.Info("rows no longer go to the device while the topic is read; they do afterwards", "error", err)
	}
	return nowhere
}

// blocks is how many are there.
func (e *early) blocks() int64 {
	if e == nil || e.failed.Load() {
		return 0
	}
	return e.went.Load()
}

// close gives the memory back. Without it the device would give it up as soon as another needs it.
func (e *early) close() {
	if e == nil || e.rows == nil {
		return
	}
	if err := e.rows.Close(); err != nil {
		e.log.Info("rows that went to the device early were not given back in order", "error", err)
	}
	e.rows = nil
}

// take gives a memory the rows that went early.
func (h *history) take(m memory) (bool, error) {
	e := h.store.early
	t, ok := m.(taker)
	if !ok || e == nil || e.rows == nil {
		return false, nil
	}
	var first []int
	for i := range h.partitions {
		for k, b := range h.partitions[i].rows.blocks {
			if b.early == nowhere {
				continue
			}
			for len(first) <= int(b.early) {
				first = append(first, nowhere)
			}
			first[b.early] = h.starts[i] + k*h.store.blockRows
		}
	}
	if len(first) == 0 {
		return false, nil
	}
	return t.Take(e.rows, first)
}

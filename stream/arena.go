package stream

import (
	"sync"
	"sync/atomic"
)

// arena holds the bytes of records that came one after the other. The batches that have some of them share it; the last Release
// gives it back.
type arena struct {
	bytes   []byte
	used    int
	headers []Header // what space has handed out of it is gone
	refs    atomic.Int32
}

const (
	// A batch of a few records keeps one arena from being used again, so it must not be large; and a call takes no more than one holds.
	arenaSize = 256 << 10
	arenaRest = 16 << 10 // with less room left a new one is begun
)

var arenas = sync.Pool{New: func() any { return &arena{bytes: make([]byte, arenaSize)} }}

// newArena has room for arenaSize bytes, or for need if that is more.
func newArena(need int) *arena {
	a := arenas.Get().(*arena)
	if need > len(a.bytes) {
		arenas.Put(a)
		a = &arena{bytes: make([]byte, need)}
	}
	a.used = 0
	a.refs.Store(1)
	return a
}

func (a *arena) room() int { return len(a.bytes) - a.used }

// slice is n bytes from at, and where they end; a negative n is null.
func (a *arena) slice(at int, n int32) ([]byte, int) {
	if n < 0 {
		return nil, at
	}
	end := at + int(n)
	return a.bytes[at:end:end], end
}

// space hands out n headers.
func (a *arena) space(n int) []Header {
	if cap(a.headers)-len(a.headers) < n {
		a.headers = make([]Header, 0, max(n, 256)) // batches keep the old ones
	}
	first := len(a.headers)
	a.headers = a.headers[:first+n]
	return a.headers[first : first+n : first+n]
}

func (a *arena) release() {
	if a.refs.Add(-1) > 0 {
		return
	}
	if poisoned { // whoever reads on has kept what was not its own
		for i := range a.bytes[:a.used] {
			a.bytes[i] = 0xdb
		}
	}
	a.headers = nil
	if len(a.bytes) == arenaSize {
		arenas.Put(a)
	}
}

package trainer

import "fmt"

// windowRows is how many rows are shuffled together, about: histories up to that are shuffled whole. By its size alone:
// what max_memory allows must not change the order. 32 chunks stand side by side, so that a batch of 256 comes from
// as many places of the history.
const windowRows = 32 * chunkRows

// span is rows from … to−1 of the history.
type span struct{ from, to int }

// epochs deals the rows of a set in a seeded order, each once in an epoch, without end.
//
// A history that is larger than memory cannot be read in a fully random order at a disk's speed. So an epoch shuffles
// chunks of rows that lie side by side, takes as many as make a window, and shuffles the rows within it.
type epochs struct {
	h      *history
	set    *rowSet
	draw   *sequence
	chunks []span  // that have rows of the set
	counts []int32 // how many
	order  []int32 // of chunks, in this epoch
	size   int     // rows of a window, about

	began   uint64 // what draw was when this epoch began
	at      int    // next chunk of order
	dealt   int    // rows of the set in windows so far in this epoch
	rows    []int  // the window, in its order
	left    []int  // of those, not dealt yet
	current []span
}

func (h *history) epochs(set *rowSet, seed uint64) *epochs {
	e := &epochs{h: h, set: set, draw: newSequence(seed)}
	for i := range h.partitions {
		for from := h.starts[i]; from < h.starts[i+1]; from += chunkRows {
			c := span{from, min(from+chunkRows, h.starts[i+1])}
			if n := set.within(c.from, c.to); n > 0 {
				e.chunks, e.counts = append(e.chunks, c), append(e.counts, int32(n))
			}
		}
	}
	e.order = make([]int32, len(e.chunks))
	e.at = len(e.order) // an epoch has ended, as it were
	e.began = e.draw.state
	// Windows of one size: a last one of a few rows would be a batch from a single place.
	windows := (set.n + windowRows - 1) / windowRows
	e.size = (set.n + windows - 1) / max(windows, 1)
	return e
}

// place is where an order of rows stands: what the sequence was when the epoch began, and how many rows it has dealt since. Shuffling
// that epoch anew finds the rest, and costs a few nanoseconds a row.
type place struct {
	Draw  uint64 `json:"draw"`
	Dealt int    `json:"dealt"`
}

func (e *epochs) place() place { return place{e.began, e.dealt - len(e.left)} }

// seek makes the order go on from a place that place gave for the same set.
func (e *epochs) seek(p place) error {
	if p.Dealt < 0 || p.Dealt > e.set.n {
		return fmt.Errorf("%d of an epoch's %d rows are dealt", p.Dealt, e.set.n)
	}
	e.draw.state, e.began = p.Draw, p.Draw
	e.at, e.dealt, e.left = len(e.order), 0, nil
	for e.dealt < p.Dealt {
		if err := e.window(); err != nil {
			return err
		}
	}
	e.left = e.left[len(e.left)-(e.dealt-p.Dealt):]
	return nil
}

// deal gives the numbers of up to n rows: fewer where a window ends, none where an epoch does and within says that it must not be left.
// They stay as they are until the next call.
func (e *epochs) deal(n int, within bool) ([]int, error) {
	if len(e.left) == 0 {
		if e.at == len(e.order) && within {
			return nil, nil
		}
		if err := e.window(); err != nil {
			return nil, err
		}
	}
	k := min(n, len(e.left))
	dealt := e.left[:k]
	e.left = e.left[k:]
	return dealt, nil
}

// next gives up to n rows, row-major, in to where that is large enough: fewer only at the end of an epoch, after which
// the next one begins.
func (e *epochs) next(n int, to []float32) ([]float32, error) {
	to = to[:0]
	for n > 0 {
		dealt, err := e.deal(n, len(to) > 0)
		if err != nil {
			return nil, err
		}
		if len(dealt) == 0 {
			break
		}
		had, more := len(to), len(dealt)*e.h.width
		if cap(to) < had+more {
			grown := make([]float32, had, had+n*e.h.width)
			copy(grown, to)
			to = grown
		}
		if _, err := e.h.gather(dealt, to[had:had:cap(to)]); err != nil {
			return nil, err
		}
		to = to[:had+more]
		n -= len(dealt)
	}
	return to, nil
}

// window takes the next chunks, and begins an epoch where there are none.
func (e *epochs) window() error {
	if e.at == len(e.order) {
		e.began = e.draw.state
		for i := range e.order {
			e.order[i] = int32(i)
		}
		if e.set.n > windowRows { // else all chunks are one window, in ascending order
			shuffle(e.draw, e.order)
		}
		e.at, e.dealt = 0, 0
	}
	until := e.dealt/e.size*e.size + e.size
	e.rows, e.current = e.rows[:0], e.current[:0]
	for e.at < len(e.order) && e.dealt < until {
		c := e.order[e.at]
		e.rows = e.set.appendRange(e.rows, e.chunks[c].from, e.chunks[c].to)
		e.current = append(e.current, e.chunks[c])
		e.dealt += int(e.counts[c])
		e.at++
	}
	shuffle(e.draw, e.rows)
	e.left = e.rows
	return e.h.prefetch(e.current)
}

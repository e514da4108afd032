package kernels

import "slices"

// Tile plans the columns that a row's values take side by side while a Program runs: a value takes the first that are free and
// wide enough, and makes room for others once nobody needs it. The zero value is empty.
type Tile struct {
	Height int // columns that were in use at once, at most
	free   []columns
}

type columns struct{ at, width int }

// Place finds columns for a value.
func (t *Tile) Place(width int) (at int) {
	for i, f := range t.free {
		if f.width >= width {
			t.free[i] = columns{f.at + width, f.width - width}
			return f.at
		}
	}
	at = t.Height
	t.Height += width
	return at
}

// Drop frees columns, and joins free ones that touch.
func (t *Tile) Drop(at, width int) {
	t.free = append(t.free, columns{at, width})
	slices.SortFunc(t.free, func(a, b columns) int { return a.at - b.at })
	joined := t.free[:0]
	for _, f := range t.free {
		if k := len(joined) - 1; k >= 0 && joined[k].at+joined[k].width == f.at {
			joined[k].width += f.width
		} else if f.width > 0 {
			joined = append(joined, f)
		}
	}
	t.free = joined
}

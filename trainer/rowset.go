package trainer

import "math/bits"

// rowSet is a set of rows of a history, one bit a row: 50 million rows are 6 MB, where their numbers would be 400.
type rowSet struct {
	words  []uint64
	before []int // how many are in the set before each group of setGroup words
	n      int
}

const setGroup = 64 // words

func newRowSet(rows int) *rowSet { return &rowSet{words: make([]uint64, (rows+63)/64)} }

// addRange adds the rows from … to−1. Call count when all is added.
func (s *rowSet) addRange(from, to int) {
	for from < to {
		w, low := from/64, from%64
		high := min(to-w*64, 64)
		s.words[w] |= ^uint64(0) >> (64 - (high - low)) << low
		from = w*64 + high
	}
}

func (s *rowSet) add(row int) { s.words[row/64] |= 1 << (row % 64) }

// retain leaves only what o has too.
func (s *rowSet) retain(o *rowSet) {
	for i := range s.words {
		s.words[i] &= o.words[i]
	}
	s.count()
}

// count must follow a change, before anything is asked.
func (s *rowSet) count() {
	s.before, s.n = s.before[:0], 0
	for i, w := range s.words {
		if i%setGroup == 0 {
			s.before = append(s.before, s.n)
		}
		s.n += bits.OnesCount64(w)
	}
}

func (s *rowSet) has(row int) bool { return s.words[row/64]>>(row%64)&1 == 1 }

// nth is the i-th row of the set, from 0.
func (s *rowSet) nth(i int) int {
	low, high := 0, len(s.before)
	for high-low > 1 {
		if mid := (low + high) / 2; s.before[mid] <= i {
			low = mid
		} else {
			high = mid
		}
	}
	i -= s.before[low]
	for w := low * setGroup; ; w++ {
		n := bits.OnesCount64(s.words[w])
		if i >= n {
			i -= n
			continue
		}
		word := s.words[w]
		for range i {
			word &= word - 1
		}
		return w*64 + bits.TrailingZeros64(word)
	}
}

// within counts the rows of the set in from … to−1.
func (s *rowSet) within(from, to int) (n int) {
	for from < to {
		w, low := from/64, from%64
		high := min(to-w*64, 64)
		n += bits.OnesCount64(s.words[w] & (^uint64(0) >> (64 - (high - low)) << low))
		from = w*64 + high
	}
	return n
}

// appendRange appends the rows of the set in from … to−1, ascending.
func (s *rowSet) appendRange(rows []int, from, to int) []int {
	for w := from / 64; w*64 < to; w++ {
		for word := s.words[w]; word != 0; word &= word - 1 {
			if g := w*64 + bits.TrailingZeros64(word); g >= from && g < to {
				rows = append(rows, g)
			}
		}
	}
	return rows
}

// spread takes up to n rows of the set, evenly.
func (s *rowSet) spread(n int) []int {
	n = min(n, s.n)
	out := make([]int, n)
	for i := range out {
		out[i] = s.nth(i * s.n / n)
	}
	return out
}

// draw takes n rows of the set at random, ascending and none twice; all, where there are not more.
func (s *rowSet) draw(n int, from *sequence) []int {
	out := make([]int, 0, min(n, s.n))
	// Each rank is taken with the chance that fills up what is still wanted (selection sampling, Knuth 3.4.2 S): one
	// pass, no table of the set's size, and the result does not depend on where the rows are kept.
	for i := 0; len(out) < cap(out); i++ {
		if from.below(s.n-i) < cap(out)-len(out) {
			out = append(out, s.nth(i))
		}
	}
	return out
}

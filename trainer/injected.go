package trainer

import (
	"math"
	"slices"

	"github.com/lapwing-stream/lapwing/model"
)

// Anomalies made from sound rows, where no labels say how well a detector ranks. Real ones are of other kinds, and easier or
// harder to find; these are for comparing detectors of one history, and their average precision means nothing beside that.
const (
	injectStream = 0x696e6a65
	// One row in injectShare gets an anomalous copy, so that they are rare, or up to injectLeast do where rows are few.
	injectShare = 10
	injectLeast = 256
	// injectRun copies in a row are of one kind, and in stuck ones a field keeps one value all that long.
	injectRun = 8
	// A spike is so many deviations of its field high: beyond the larger one anything finds it.
	spikeLeast, spikeMost = 3, 8
)

// InjectedKinds are what is made wrong, in turn: relations (some fields, up to half of them, hold what they hold in
// another row), spikes (a number is 3 to 8 deviations off), and stuck values (a number stays the same over 8 rows).
var InjectedKinds = []string{"relations", "spikes", "stuck values"}

// movable is a field of which a column varies.
type movable struct {
	columns []int // all of its columns
	number  bool  // and the first of those is a number that varies
}

// movables are the fields that can be made wrong.
func movables(spec *model.Spec, c *columns) (all []movable) {
	last := -1
	for i, field := range spec.ColumnFields() {
		if field != last {
			all = append(all, movable{number: c.numbers[i]})
			last = field
		}
		m := &all[len(all)-1]
		m.columns = append(m.columns, i)
	}
	return slices.DeleteFunc(all, func(m movable) bool {
		return !slices.ContainsFunc(m.columns, func(i int) bool { return !c.constant[i] })
	})
}

// inject makes anomalous copies of some of the rows. Rolling columns of a field that jumps or sticks stay as they were: what
// they would have become depends on rows that are not there. Nil where no field can be made wrong.
func inject(rows []float32, spec *model.Spec, c *columns, seed uint64) []float32 {
	width := len(c.constant)
	n := len(rows) / width
	all := movables(spec, c)
	var numbers []movable
	for _, m := range all {
		if m.number {
			numbers = append(numbers, m)
		}
	}
	if n < 2 || len(all) < 2 && len(numbers) == 0 {
		return nil
	}
	dice := newSequence(seed ^ injectStream)
	row := func(i int) []float32 { return rows[i*width : (i+1)*width] }
	copies := max(n/injectShare, min(n, injectLeast))
	var out []float32
	var stuck movable
	var value float32
	for i := range copies {
		from := row(i * n / copies)
		to := slices.Clone(from)
		kind := i / injectRun % len(InjectedKinds)
		if len(numbers) == 0 {
			kind = 0
		} else if kind == 0 && len(all) < 2 { // one field has no relations
			kind = 1
		}
		switch kind {
		case 0:
			other := row(dice.below(n))
			some := slices.Clone(all)
			shuffle(dice, some)
			for _, m := range some[:1+dice.below(len(some)/2)] {
				for _, at := range m.columns {
					to[at] = other[at]
				}
			}
		case 1:
			at := numbers[dice.below(len(numbers))].columns[0]
			to[at] = c.jump(at, to[at], dice)
		case 2:
			if i%injectRun == 0 {
				stuck = numbers[dice.below(len(numbers))]
				value = row(dice.below(n))[stuck.columns[0]]
			}
			to[stuck.columns[0]] = value
		}
		if !sameBits(from, to) {
			out = append(out, to...)
		}
	}
	return out
}

// jump moves a number up or down by some of its deviations, on the scale on which the detector sees it.
func (c *columns) jump(at int, v float32, dice *sequence) float32 {
	const parts = 1 << 16
	by := c.scaled[at].Spread * (spikeLeast + (spikeMost-spikeLeast)*float64(dice.below(parts))/parts)
	if dice.below(2) == 0 {
		by = -by
	}
	x := float64(v)
	if c.forward[at].Log {
		x = symlog(x)
	}
	if x != x { // missing
		x = c.scaled[at].Centre
	}
	if x += by; c.forward[at].Log {
		x = symexp(x)
	}
	return float32(min(max(x, -largest), largest))
}

func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

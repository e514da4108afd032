package trainer

import (
	"cmp"
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/lapwing-stream/lapwing/kernels"
)

// The numbers of the recipe, found by experiment on the 18 adbench sets (docs/train.md).
const (
	trimGroups = 256 // of the first pass; with 32 the mean AUC moves by .008 from seed to seed, with 256 by .002
	trimRows   = 8   // prototypes in a group

	// The sample is all that the first pass, the prototypes and the residual's covariance see. The first pass costs
	// 2048 multiplications a value: sampleValues keeps it to about a second on one core, however large the history.
	sampleMost   = 1 << 15
	sampleLeast  = 2048
	sampleValues = 1 << 20

	prototypeGroups = 32  // 16 cost .002 of the mean AUC
	fewestGroups    = 8   // of prototypes, in wide rows
	wideRow         = 512 // columns
	nearRow         = .01 // rows of a group nearer than this times √columns are one
)

// groups is how many groups of prototypes the score has. 32 of them cost 256 multiplications for each column of a row:
// beyond wideRow columns there are fewer, so that a row of hundreds of one-hot columns costs no more until fewestGroups.
func groups(columns int) int {
	return min(max(prototypeGroups*wideRow/columns, fewestGroups), prototypeGroups)
}

// Each random choice has its own sequence, so that more of one does not move another.
const (
	drawStream      = 0x64726177
	trimStream      = 0x7472696d
	prototypeStream = 0x70726f74
)

// choose draws groups·size rows of the given ones, different ones within a group as far as there are.
func choose(dice *sequence, from []int, groups, size int) []int {
	size = min(size, len(from))
	var out []int
	for range groups {
		group := len(out)
		for len(out)-group < size {
			if row := from[dice.below(len(from))]; !slices.Contains(out[group:], row) {
				out = append(out, row)
			}
		}
	}
	return out
}

// trimmed is the seeded sample, and what the first pass left.
type trimmed struct {
	sample     []int     // rows of the history, ascending; all that the first pass, the prototypes and the residual's covariance see
	raw        []float32 // those rows
	mapped     []float32 // in the maps' units
	kept       *rowSet   // of the history
	groups     int
	prototypes []float32 // in the maps' units, row-major
	p          []float32 // of each row of the history, the distance to the prototypes; nil if nothing needs it
}

// draw takes the sample.
func (j *job) draw(h *history) (*trimmed, error) {
	j.report(Progress{Stage: "trim", TotalRecords: int64(h.n)}, true)
	everything := newRowSet(h.n)
	everything.addRange(0, h.n)
	everything.count()
	t := &trimmed{kept: everything, groups: groups(h.width)}
	t.sample = everything.draw(min(max(sampleValues/h.width, sampleLeast), sampleMost), newSequence(j.Seed^drawStream))
	var err error
	t.raw, err = h.gather(t.sample, nil)
	return t, err
}

// trim finds the rows that are taken as sound, all but the given share. A row's first score is its mean distance to the
// nearest of 8 random rows, over 256 such groups: a row of a rare kind seldom finds its like among 8. The sample's rows
// with the lowest scores are kept, and prototypes are drawn from those. Where the history is larger than the sample, a row
// is kept if it lies as near to the prototypes as that share of the sample does.
func (j *job) trim(ctx context.Context, h *history, columns []kernels.Column, t *trimmed, share float64) error {
	pick := func(rows []int) []float32 {
		out := make([]float32, 0, len(rows)*h.width)
		for _, r := range rows {
			out = append(out, t.mapped[r*h.width:(r+1)*h.width]...)
		}
		return out
	}
	sound := make([]int, len(t.sample)) // by their number in the sample
	for i := range sound {
		sound[i] = i
	}
	if share > 0 {
		first := kernels.Prototypes(columns, trimGroups, pick(choose(newSequence(j.Seed^trimStream), sound, trimGroups, trimRows)))
		scores, err := j.evaluate(ctx, first, t.raw)
		if err != nil {
			return err
		}
		limit := quantile32(scores, 1-share)
		sound = slices.DeleteFunc(sound, func(i int) bool { return !(scores[i] <= limit) })
	}
	t.prototypes = pick(choose(newSequence(j.Seed^prototypeStream), sound, t.groups, trimRows))
	unite(t.prototypes, h.width, min(trimRows, len(sound)))

	beyond := share > 0 && len(t.sample) < h.n // rows outside the sample are to be judged
	if j.Detector == DetectorBlend || beyond {
		scorer, err := j.Engine.Scorer(kernels.Prototypes(columns, t.groups, t.prototypes))
		if err != nil {
			return err
		}
		if t.p, err = j.scores(ctx, h, scorer, "trim"); err != nil {
			return err
		}
	}
	if share == 0 {
		return nil
	}
	if beyond {
		t.keep(t.p, share)
		return nil
	}
	t.kept = newRowSet(h.n)
	for _, i := range sound {
		t.kept.add(t.sample[i])
	}
	t.kept.count()
	return nil
}

// keep takes the rows as sound whose score is within what all but the given share of the sample have.
func (t *trimmed) keep(scores []float32, share float64) {
	of := make([]float32, len(t.sample))
	for i, g := range t.sample {
		of[i] = scores[g]
	}
	limit := quantile32(of, 1-share)
	t.kept = newRowSet(len(scores))
	for g, s := range scores {
		if s <= limit {
			t.kept.add(g)
		}
	}
	t.kept.count()
}

// sound is the kept part of the sample, from its rows raw or mapped.
func (t *trimmed) sound(rows []float32) []float32 {
	width := len(rows) / len(t.sample)
	var out []float32
	for i, g := range t.sample {
		if t.kept.has(g) {
			out = append(out, rows[i*width:(i+1)*width]...)
		}
	}
	return out
}

// unite replaces a prototype by a copy of an earlier one of its group where the two are all but the same: which of
// two such rows is the nearest would be a matter of rounding, and differ between engines.
func unite(rows []float32, width, size int) {
	limit := nearRow * nearRow * float64(width)
	row := func(i int) []float32 { return rows[i*width : (i+1)*width] }
	for i := range len(rows) / width {
		for k := i / size * size; k < i; k++ {
			var d float64
			for c, v := range row(i) {
				e := float64(v) - float64(row(k)[c])
				d += e * e
			}
			if d < limit {
				copy(row(i), row(k))
				break
			}
		}
	}
}

// quantile32 is the value that share p of the values does not exceed. Values that are not finite count as highest.
func quantile32(values []float32, p float64) float32 {
	sorted := slices.Clone(values)
	slices.SortFunc(sorted, func(a, b float32) int {
		if a != a || b != b { // cmp.Compare has NaN first
			return -cmp.Compare(a, b)
		}
		return cmp.Compare(a, b)
	})
	return sorted[max(int(math.Ceil(p*float64(len(sorted))))-1, 0)]
}

// mapped are rows in the maps' units.
func (j *job) mapped(ctx context.Context, raw []float32, columns []kernels.Column) ([]float32, error) {
	p := kernels.Autoencoder(columns, nil, nil)
	p.Reconstruction = 1 // what the Map makes
	return j.reconstruct(ctx, p, raw)
}

// evaluate scores rows that are not the whole history, on all threads.
func (j *job) evaluate(ctx context.Context, p *kernels.Program, raw []float32) ([]float32, error) {
	score := make([]float32, len(raw)/p.Width)
	return score, j.divide(ctx, p, raw, func(from, to int) kernels.Output { return kernels.Output{Score: score[from:to]} })
}

// reconstruct gives the program's Reconstruction, which here may be any value of the row's width.
func (j *job) reconstruct(ctx context.Context, p *kernels.Program, raw []float32) ([]float32, error) {
	out := make([]float32, len(raw))
	return out, j.divide(ctx, p, raw, func(from, to int) kernels.Output {
		return kernels.Output{Reconstruction: out[from*p.Width : to*p.Width]}
	})
}

// pieceRows of a sample go to a thread at once.
const pieceRows = 512

// divide runs the program over rows in pieces; a row's result does not depend on the piece that it is in.
func (j *job) divide(ctx context.Context, p *kernels.Program, raw []float32, out func(from, to int) kernels.Output) error {
	s, err := j.Engine.Scorer(p)
	if err != nil {
		return err
	}
	n := len(raw) / p.Width
	var next atomic.Int64
	errs := make([]error, j.Threads)
	var group sync.WaitGroup
	for t := range errs {
		group.Go(func() {
			for ctx.Err() == nil && errs[t] == nil {
				from := int(next.Add(pieceRows)) - pieceRows
				if from >= n {
					return
				}
				to := min(from+pieceRows, n)
				errs[t] = s.Score(raw[from*p.Width:to*p.Width], out(from, to))
			}
		})
	}
	group.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return cmp.Or(errs...)
}

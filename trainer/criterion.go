package trainer

import (
	"context"
	"fmt"
	"math"

	"github.com/lapwing-stream/lapwing/kernels"
)

// What one of several candidates is taken by.
const (
	ByValidationLoss = "validation_loss"            // the least; among equal widths
	ByLabels         = "average_precision_labels"   // the highest, on labelled rows; across widths
	ByInjected       = "average_precision_injected" // the highest, on anomalies injected into the validation rows; across widths without labels
)

const (
	// leastLabels of each class must be there: a ranking of fewer is a matter of single rows.
	leastLabels = 10
	// trialRows and trialValues bound the rows that candidates of several widths are judged on; where rows are wide trialLeast do.
	trialRows   = 1 << 16
	trialValues = 1 << 22
	trialLeast  = 2048
)

// trial ranks anomalous rows among others, to compare networks of several widths: by the loss on normal rows alone the widest
// always wins, which rebuilds anomalies as well.
type trial struct {
	criterion string
	why       string    // it was not the labels
	bad, good []float32 // rows
	badP      []float32 // their distances to the prototypes, over the deviation of those; nil where the detector has none
	goodP     []float32
	weight    float64 // of the prototypes
	sample    []float32
}

// newTrial takes labelled rows where there are enough, else injects anomalies into held, sound rows of the validation.
func (j *job) newTrial(ctx context.Context, h *history, c *columns, f *fitted, held []float32) (*trial, error) {
	t := &trial{criterion: ByLabels, sample: f.trimmed.raw}
	if j.Detector == DetectorBlend {
		t.weight = f.weight
	}
	var err error
	if t.why, err = t.label(j, h); err != nil {
		return nil, err
	}
	if t.why != "" {
		t.criterion, t.good, t.bad = ByInjected, held, inject(held, &h.spec, c, j.Seed)
		if t.bad == nil {
			t.criterion, t.why = ByValidationLoss, "no field of the validation rows can be made wrong"
			return t, nil
		}
	}
	if t.weight == 0 {
		return t, nil
	}
	prototypes := kernels.Prototypes(c.forward, f.trimmed.groups, f.trimmed.prototypes)
	t.badP, t.goodP, err = t.scores(ctx, j, prototypes)
	return t, err
}

// label takes the labelled rows, evenly spread over the history; it says why not where they are too few.
func (t *trial) label(j *job, h *history) (why string, err error) {
	if j.Label == "" {
		return "no label", nil
	}
	classes := [2]*rowSet{newRowSet(h.n), newRowSet(h.n)}
	for g := range h.n {
		if l := h.label(g); l != unlabelled {
			classes[l].add(g)
		}
	}
	for _, s := range classes {
		s.count()
	}
	bad, good := classes[anomalous], classes[normal]
	if min(bad.n, good.n) < leastLabels {
		return fmt.Sprintf("the label %s says anomalous of %s and normal of %d", j.Label, plural(int64(bad.n), "row"), good.n), nil
	}
	most := min(trialRows, max(trialValues/h.width, trialLeast))
	some := bad.spread(most / 4)
	if t.bad, err = h.gather(some, nil); err == nil {
		t.good, err = h.gather(good.spread(most-len(some)), nil)
	}
	return "", err
}

// scores are a program's of both kinds of rows, in deviations over the sample of the history.
func (t *trial) scores(ctx context.Context, j *job, p *kernels.Program) (bad, good []float32, err error) {
	of, err := j.evaluate(ctx, p, t.sample)
	if err != nil {
		return nil, nil, err
	}
	unit := float32(1 / deviation(of))
	if bad, err = j.evaluate(ctx, p, t.bad); err == nil {
		good, err = j.evaluate(ctx, p, t.good)
	}
	for _, scores := range [][]float32{bad, good} {
		for i := range scores {
			scores[i] *= unit
		}
	}
	return bad, good, err
}

// precision is the average precision of the detector with this (whitened) network.
func (t *trial) precision(ctx context.Context, j *job, network *kernels.Program) (float64, error) {
	bad, good, err := t.scores(ctx, j, network)
	if err != nil {
		return 0, err
	}
	join := func(e, p []float32) {
		for i := range e {
			if p != nil {
				e[i] = float32(t.weight)*p[i] + float32(1-t.weight)*e[i]
			}
			if e[i] != e[i] {
				e[i] = float32(math.Inf(1))
			}
		}
		descend(e)
	}
	join(bad, t.badP)
	join(good, t.goodP)
	return judge(bad, good, math.Inf(1)).AveragePrecision, nil
}

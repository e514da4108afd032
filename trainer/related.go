package trainer

import (
	"context"
	"fmt"

	"gonum.org/v1/gonum/mat"

	"github.com/lapwing-stream/lapwing/kernels"
)

const (
	// relatedLeast is how much of a number's variance the others must explain, on average, for the columns to count as
	// related: those of the generated fleet, sensors of one engine, come to 0.97, those of the adbench sets to 0.0 to 0.9
	// (one to 0.97).
	relatedLeast = .95
	// relatedPrototypes is the prototypes' weight then. Broken relations are what is looked for, and they hardly move a
	// row away from all others: with a weight of 2/3 the fleet's faults are found in 5 of 24 cases, with 1/10 in 23.
	relatedPrototypes = .1
	// relatedTrim is the most that is trimmed then, by how far a row breaks the relations: a quarter by rarity would
	// cost a sound history its rare states. As many rows, and not many more, can break relations that hold so well.
	relatedTrim = .05
	// relatedRidge keeps copies of one column from explaining each other without end.
	relatedRidge = 1e-3
)

// explained is how much of each chosen column's variance a linear fit to all other columns explains, on average, less
// what it would by chance: the adjusted coefficient of determination. rows are in the maps' units. It is 0 where no
// column is chosen, or where there are too many columns to say.
//
// Rows that break the relations would keep it down, as many as there are: where it is high, few rows do, and only few
// need be trimmed, so that the rare states of a sound history are learned too.
func explained(rows []float32, width int, chosen []bool) (float64, error) {
	n := len(rows) / width
	if width > whitenColumns || n < 4*width {
		return 0, nil
	}
	c := covariance(rows, width)
	var e mat.EigenSym
	if !e.Factorize(c, true) {
		return 0, fmt.Errorf("the eigenvalues of a covariance of %d columns were not found", width)
	}
	values := e.Values(nil)
	var vectors mat.Dense
	e.VectorsTo(&vectors)
	var sum, count float64
	for i, yes := range chosen {
		if !yes {
			continue
		}
		var inverse float64
		for k, v := range values {
			x := vectors.At(i, k)
			inverse += x * x / (max(v, 0) + relatedRidge)
		}
		left := 1 / (inverse * (c.At(i, i) + relatedRidge))
		sum += 1 - left*float64(n-1)/float64(n-width)
		count++
	}
	if count == 0 {
		return 0, nil
	}
	return max(sum/count, 0), nil
}

// trimUnrelated keeps all but the given share of the history: the rows that break the columns' relations most, by
// Mahalanobis' distance in the sample's covariance.
func (j *job) trimUnrelated(ctx context.Context, h *history, c *columns, t *trimmed, share float64) error {
	// Without a network all of a row is residual.
	p, err := whiten(kernels.Autoencoder(c.forward, nil, nil), t.mapped, c.ridge)
	if err != nil {
		return err
	}
	scorer, err := j.Engine.Scorer(p)
	if err != nil {
		return err
	}
	broken, err := j.scores(ctx, h, scorer, "trim")
	if err != nil {
		return err
	}
	t.keep(broken, share)
	return nil
}

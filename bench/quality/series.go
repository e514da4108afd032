package quality

import (
	"context"
	"fmt"
)

// Series is how the detector does on rows in time order that follow a clean history: all files of a collection pooled,
// row by row, without point adjustment (which calls a stretch found when one of its rows is).
type Series struct {
	Collection string   `json:"collection"`
	Files      int      `json:"files"`
	Rolling    int      `json:"rolling"` // records that features look back on; 0: none
	Rule       string   `json:"rule"`    // of the threshold: "stored", or "1%" of the history
	AUC        *float64 `json:"auc"`     // mean over the files
	F1         *float64 `json:"f1"`
	Recall     *float64 `json:"recall"`
	Precision  *float64 `json:"precision"`
	FalseRate  *float64 `json:"false_alarm_rate"` // share of the normal rows
}

// lookBack is how many records features look back on in the second of the two runs.
const lookBack = 10

// seriesKey is what is pooled.
type seriesKey struct {
	collection string
	rolling    int
	rule       string
}

// confusion counts judged rows.
type confusion struct {
	files                      int
	hits, misses, alarms, rest float64
	auc                        []Metrics
}

type seriesCounts struct {
	order []seriesKey
	by    map[seriesKey]*confusion
}

// rolled runs Lapwing on a series once more, with features that look back.
func (r *run) rolled(ctx context.Context, s *set, sp *split) error {
	if !s.clean() {
		return nil
	}
	how := r.subject(s)
	how.rolling = lookBack
	l, err := r.learn(ctx, sp, how)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		fmt.Fprintf(r.Log, "  looking back: failed: %v\n", err)
		return nil
	}
	truth := sp.truth()
	m := measure(l.live, truth, l.threshold)
	fmt.Fprintf(r.Log, "  looking back %d records: AUC %s\n", lookBack, digits(m.AUC))
	r.series.add(s.Collection, lookBack, l, truth)
	return nil
}

// add counts one file at the stored threshold and at the 1 % quantile of its history.
func (c *seriesCounts) add(collection string, rolling int, l *learned, truth []bool) {
	if c.by == nil {
		c.by = map[seriesKey]*confusion{}
	}
	for _, rule := range []struct {
		name      string
		threshold float64
	}{{"stored", l.threshold}, {"1%", quantileThreshold(l.history, .01)}} {
		key := seriesKey{collection, rolling, rule.name}
		n := c.by[key]
		if n == nil {
			n = &confusion{}
			c.by[key] = n
			c.order = append(c.order, key)
		}
		n.files++
		n.auc = append(n.auc, measure(l.live, truth, rule.threshold))
		for i, score := range l.live {
			switch above := !(score <= rule.threshold); {
			case above && truth[i]:
				n.hits++
			case above:
				n.alarms++
			case truth[i]:
				n.misses++
			default:
				n.rest++
			}
		}
	}
}

func (c *seriesCounts) report() (list []Series) {
	for _, key := range c.order {
		n := c.by[key]
		s := Series{Collection: key.collection, Files: n.files, Rolling: key.rolling, Rule: key.rule, AUC: meanOf(n.auc).AUC}
		if n.hits+n.misses > 0 {
			s.Recall = value(n.hits / (n.hits + n.misses))
			s.F1 = value(2 * n.hits / (2*n.hits + n.misses + n.alarms))
		}
		if n.hits+n.alarms > 0 {
			s.Precision = value(n.hits / (n.hits + n.alarms))
		}
		if n.alarms+n.rest > 0 {
			s.FalseRate = value(n.alarms / (n.alarms + n.rest))
		}
		list = append(list, s)
	}
	return list
}

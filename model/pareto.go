package model

import (
	"errors"
	"fmt"
	"math"
	"sort"
)

// Tail is a generalised Pareto distribution fitted to the scores above From: of those, the share
// (1 + Shape·y/Scale)^(−1/Shape) lies more than y above it.
type Tail struct {
	From  float64 `json:"from"`  // score at which the tail begins
	Share float64 `json:"share"` // of the history that lies in the tail
	Shape float64 `json:"shape"` // 0: falls exponentially; above: heavier; below: it ends
	Scale float64 `json:"scale"`
	Rows  int64   `json:"rows"` // of the history in the tail
}

// Why a tail is not fitted. An error that wraps ErrNotSmooth says where it is not.
var ErrNotSmooth = errors.New("the tail of the scores is not smooth")

const (
	tailBegins = 0.95 // by experiment on labelled sets: the top 5 %
	tailRows   = 50   // fewer in the tail: no fit
	// tailEnough rows above an asked rate do for a fit where a quantile takes enough (10): it saves a factor of three.
	tailEnough = 3
	// mostShape: beyond it the moments that the fit rests on have no variance (Hosking and Wallis 1987).
	mostShape = 0.5
	// A fit is refused where the rows that it expects above some score are not those that are there: on the scale of square
	// roots, on which chance has a standard deviation of ½ whatever their number, by more than tailChance and tailMisfit of the
	// root, which forgives a smooth tail that is nearly of this form 10 %.
	tailChance = 1.1
	tailMisfit = 0.05
	tailLeast  = 5 // rows, below which no such comparison means anything
)

// point is one order statistic of the tail: the share t of the tail lies above the excess y.
type point struct{ t, y float64 }

// tail chooses the threshold for a rate by the fitted tail.
func (m *Model) tail(rate float64) (float64, ThresholdChoice, error) {
	n := m.Lineage.Rows.Used
	c := ThresholdChoice{Method: ByTail, Asked: rate, Used: rate, Rows: n}
	if !(rate > 0 && rate <= 1-tailBegins) {
		return 0, c, fmt.Errorf("alarm rate %v: a fit of the tail takes a rate above 0 and up to %v, where the tail begins", rate, Digits(1-tailBegins, 3))
	}
	if rate*float64(n)*(1+1e-12) < tailEnough {
		c.Used, c.Few = tailEnough/float64(n), true
	}
	t, err := m.FitTail()
	if err != nil {
		return 0, c, err
	}
	c.Tail = t
	threshold := Digits(t.Score(c.Used), 6)
	if threshold <= t.From {
		return 0, c, fmt.Errorf("alarm rate %v: the tail begins at share %v of the history", rate, t.Share)
	}
	c.Low, c.High = t.interval(c.Used)
	return threshold, c, nil
}

// Score is what the given share of all records lies above.
func (t *Tail) Score(share float64) float64 { return t.From + excess(t.Shape, t.Scale, share/t.Share) }

// Above is the share of all records that lies above a score of the tail.
func (t *Tail) Above(score float64) float64 {
	return t.Share * survival(t.Shape, t.Scale, score-t.From)
}

func excess(shape, scale, t float64) float64 {
	if math.Abs(shape) < 1e-9 {
		return -scale * math.Log(t)
	}
	return scale / shape * (math.Pow(t, -shape) - 1)
}

func survival(shape, scale, y float64) float64 {
	if math.Abs(shape) < 1e-9 {
		return math.Exp(-y / scale)
	}
	return math.Pow(max(1+shape*y/scale, 0), -1/shape)
}

// FitTail fits the scores above the 95th percentile by probability-weighted moments. It reads them from the model's
// quantiles, which are order statistics at 128 and more levels of the tail, on lines between them over the share's
// logarithm. The error says why there is no fit; ErrNotSmooth where scores come in steps, as they do with categories.
func (m *Model) FitTail() (*Tail, error) {
	n := m.Lineage.Rows.Used
	q := m.Quantiles
	first := sort.Search(len(q), func(i int) bool { return q[i].P > tailBegins }) - 1
	if len(q)-first < 64 || first < 0 {
		return nil, errors.New("the model keeps too few quantiles of its scores to fit their tail")
	}
	rank := func(p float64) int64 { return min(max(int64(math.Ceil(p*float64(n))), 1), n) }
	begin := rank(q[first].P)
	rows := n - begin
	if rows < tailRows {
		return nil, fmt.Errorf("a fit of the tail needs %d rows in the top %.2g %%, which takes %d rows of history; it has %d", tailRows, 100*(1-tailBegins), int64(tailRows/(1-tailBegins)), n)
	}
	t := &Tail{From: q[first].Score, Share: float64(rows) / float64(n), Rows: rows}
	var points []point
	tied, last := int64(0), begin
	for _, l := range q[first+1:] {
		r := rank(l.P)
		if r == last {
			continue
		}
		y := l.Score - t.From
		if len(points) > 0 && y == points[len(points)-1].y || y == 0 {
			tied += r - last
		}
		// The r-th lowest of n stands for the shares (r−1)/n to r/n: its place is the middle.
		points = append(points, point{(float64(n-r) + .5) / float64(rows), y})
		last = r
	}
	if float64(tied) > .02*float64(rows) {
		return nil, fmt.Errorf("%w: %.2g %% of the rows in it share their score with others", ErrNotSmooth, 100*float64(tied)/float64(rows))
	}
	a0, a1 := moments(points)
	if !(a0 > 0 && a0 > 2*a1) {
		return nil, fmt.Errorf("%w: all of it is one score", ErrNotSmooth)
	}
	t.Shape, t.Scale = fromMoments(a0, a1)
	if t.Shape > mostShape {
		return nil, fmt.Errorf("%w: it is too heavy to fit (shape %.2f, at most %v)", ErrNotSmooth, t.Shape, mostShape)
	}
	for _, p := range points {
		k := p.t * float64(rows)
		if k < tailLeast {
			break
		}
		expected := survival(t.Shape, t.Scale, p.y) * float64(rows)
		if !(math.Abs(math.Sqrt(expected)-math.Sqrt(k)) <= tailChance+tailMisfit*math.Sqrt(k)) {
			return nil, fmt.Errorf("%w: %.0f rows score above %.4g, where a smooth tail would have %.0f", ErrNotSmooth, k, t.From+p.y, expected)
		}
	}
	t.Shape, t.Scale, t.Share = Digits(t.Shape, 6), Digits(t.Scale, 6), Digits(t.Share, 6)
	return t, nil
}

// moments are the means of y and of y·t over the tail.
func moments(points []point) (a0, a1 float64) {
	before := point{1, 0}
	for _, p := range points {
		slope := (p.y - before.y) / math.Log(p.t/before.t)
		at := before.y - slope*math.Log(before.t)
		zero := func(t float64) float64 { return at*t + slope*(t*math.Log(t)-t) }
		one := func(t float64) float64 { return t*t/2*at + slope*(t*t/2*math.Log(t)-t*t/4) }
		a0 += zero(before.t) - zero(p.t)
		a1 += one(before.t) - one(p.t)
		before = p
	}
	return a0 + before.y*before.t, a1 + before.y*before.t*before.t/2
}

// fromMoments gives shape and scale (Hosking and Wallis 1987, with their k = −shape).
func fromMoments(a0, a1 float64) (shape, scale float64) {
	d := a0 - 2*a1
	return 2 - a0/d, 2 * a0 * a1 / d
}

const (
	tailDraws = 400
	// drawnRows bounds a draw: beyond it the spread goes on falling with the root of the rows.
	drawnRows = 2000
)

// interval is where the true share above the score that was chosen for rate lies, by fitting tails drawn from the fitted
// one (a parametric bootstrap with a fixed seed). It holds as far as the true tail is of this form.
func (t *Tail) interval(rate float64) (low, high float64) {
	m := int(min(t.Rows, drawnRows))
	state := uint64(0x9E3779B97F4A7C15)
	// SplitMix64 (Steele, Lea and Flood 2014): our own, as these numbers stand in the model's bytes.
	exponential := func() float64 {
		state += 0x9E3779B97F4A7C15
		z := state
		z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
		z = (z ^ z>>27) * 0x94D049BB133111EB
		z ^= z >> 31
		return -math.Log((float64(z>>11) + .5) / (1 << 53))
	}
	off := make([]float64, tailDraws)
	sums := make([]float64, m+1)
	for i := range off {
		// Sums of exponentials over their total are uniform order statistics; the total over its mean is how far the share of
		// the tail itself may be off.
		total := 0.
		for k := range sums {
			total += exponential()
			sums[k] = total
		}
		a0, a1 := 0., 0.
		for k := range m {
			y := excess(t.Shape, t.Scale, sums[k]/total)
			a0 += y
			a1 += y * (float64(k) + .5) / float64(m)
		}
		shape, scale := fromMoments(a0/float64(m), a1/float64(m))
		y := excess(shape, scale, rate/t.Share)
		off[i] = math.Log(max(survival(t.Shape, t.Scale, y), 1e-12) * t.Share * total / float64(m+1) / rate)
	}
	sort.Float64s(off)
	narrower := math.Sqrt(float64(m) / float64(t.Rows))
	const outside = (1 - Confidence) / 2
	at := func(share float64) float64 { return Digits(rate*math.Exp(narrower*off[int(share*tailDraws)]), 2) }
	return at(outside), min(at(1-outside), 1)
}

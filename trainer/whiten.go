package trainer

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"

	"github.com/lapwing-stream/lapwing/kernels"
)

const (
	// whitenColumns bounds the matrix that weighs the residual, which costs columns² a row. Wider rows are weighed
	// column by column: the correlations of hundreds of one-hot columns would have to be guessed from too few rows anyway.
	whitenColumns = 256
	// Eigenvalues of the residual's covariance are raised by a share of their mean and by a constant, so that a
	// direction in which the residual never moved does not decide alone, nor rounding where nothing moved at all.
	floorShare = .05
	floorLeast = 1e-4
	// gramRows bounds the search for principal components in wide rows.
	gramRows = 512
)

// covariance is that of rows (row-major, of the given width), divided by their number, summed in row order.
func covariance(rows []float32, width int) *mat.SymDense {
	n := len(rows) / width
	mean := means(rows, width)
	sum := make([]float64, width*width)
	centred := make([]float64, width)
	for r := range n {
		for c, v := range rows[r*width : (r+1)*width] {
			centred[c] = float64(v) - mean[c]
		}
		for a, x := range centred {
			if x == 0 {
				continue
			}
			to := sum[a*width:][:width]
			for b := a; b < width; b++ {
				to[b] += x * centred[b]
			}
		}
	}
	for i := range sum {
		sum[i] /= float64(n)
	}
	return mat.NewSymDense(width, sum)
}

func means(rows []float32, width int) []float64 {
	mean := make([]float64, width)
	for i, v := range rows {
		mean[i%width] += float64(v)
	}
	for c := range mean {
		mean[c] /= float64(len(rows) / width)
	}
	return mean
}

// principal is the number of principal components that hold the given share of the rows' variance.
func principal(rows []float32, width int, share float64) (int, error) {
	var s *mat.SymDense
	if width <= whitenColumns {
		s = covariance(rows, width)
	} else {
		s = gram(rows, width)
	}
	var e mat.EigenSym
	if !e.Factorize(s, false) {
		return 0, fmt.Errorf("the eigenvalues of a covariance of %d columns were not found", width)
	}
	values := e.Values(nil) // ascending
	slices.Reverse(values)
	var total, sum float64
	for _, v := range values {
		total += max(v, 0)
	}
	for i, v := range values {
		if sum += max(v, 0); sum >= share*total {
			return i + 1, nil
		}
	}
	return len(values), nil
}

// gram has the covariance's greatest eigenvalues at the cost of rows² in place of columns².
func gram(rows []float32, width int) *mat.SymDense {
	n := min(len(rows)/width, gramRows)
	mean := means(rows, width)
	centred := make([]float64, 0, n*width)
	for i := range n {
		r := i * (len(rows) / width) / n
		for c, v := range rows[r*width : (r+1)*width] {
			centred = append(centred, float64(v)-mean[c])
		}
	}
	s := mat.NewSymDense(n, nil)
	for a := range n {
		for b := a; b < n; b++ {
			var sum float64
			y := centred[b*width:][:width]
			for c, x := range centred[a*width:][:width] {
				sum += x * y[c]
			}
			s.SetSym(a, b, sum/float64(n))
		}
	}
	return s
}

// inverseRoot is the symmetric root of the inverse of c with its eigenvalues and its diagonal raised, row-major.
func inverseRoot(c *mat.SymDense, ridge []float64) ([]float32, error) {
	d := c.SymmetricDim()
	variances := make([]float64, d)
	for i := range variances {
		variances[i] = c.At(i, i)
	}
	raise := floor(variances)
	for i, v := range variances {
		c.SetSym(i, i, v+ridge[i])
	}
	var e mat.EigenSym
	if !e.Factorize(c, true) {
		return nil, fmt.Errorf("the eigenvalues of the residual's covariance were not found")
	}
	values := e.Values(nil)
	var vectors mat.Dense
	e.VectorsTo(&vectors)
	root := make([]float64, d*d)
	for k, v := range values {
		w := 1 / math.Sqrt(max(v, 0)+raise)
		for a := range d {
			x := w * vectors.At(a, k)
			for b := range d {
				root[a*d+b] += x * vectors.At(b, k)
			}
		}
	}
	out := make([]float32, d*d)
	for i, v := range root {
		out[i] = float32(v)
	}
	return out, nil
}

// floor is what eigenvalues are raised by; the mean of eigenvalues is that of the variances.
func floor(variances []float64) float64 {
	var mean float64
	for _, v := range variances {
		mean += v / float64(len(variances))
	}
	return floorShare*mean + floorLeast
}

// whiten makes the program's error Mahalanobis' distance of its residual: residuals that always move together count
// once, and one that hardly ever moves counts much. residual is what the program leaves of the kept rows; ridge is
// added to each column's variance.
func whiten(p *kernels.Program, residual []float32, ridge []float64) (*kernels.Program, error) {
	if p.Width > whitenColumns {
		return weighted(p, residual, ridge), nil
	}
	root, err := inverseRoot(covariance(residual, p.Width), ridge)
	if err != nil {
		return nil, err
	}
	return kernels.Whitened(p, root), nil
}

// weighted divides each column of the residual by its standard deviation.
func weighted(p *kernels.Program, residual []float32, ridge []float64) *kernels.Program {
	mean := means(residual, p.Width)
	variance := make([]float64, p.Width)
	for i, v := range residual {
		e := float64(v) - mean[i%p.Width]
		variance[i%p.Width] += e * e / float64(len(residual)/p.Width)
	}
	raise := floor(variance)
	columns := make([]kernels.Column, p.Width)
	for c, v := range variance {
		slope := float32(1 / math.Sqrt(v+raise+ridge[c]))
		columns[c] = kernels.Column{
			Lo: float32(math.Inf(-1)), Hi: float32(math.Inf(1)), X: []float32{0}, Y: []float32{0}, Before: slope, After: slope,
		}
	}
	// Autoencoder ends in Diff, Norm, Split and the inverse Map: the new Map comes after the Diff.
	q := p.Clone()
	n := q.Steps[q.Score-1].(*kernels.Norm)
	inverse := q.Steps[q.Reconstruction-1]
	residualAt := n.In
	at := residualAt + 1
	q.Steps = append(q.Steps[:residualAt], &kernels.Map{In: residualAt, Columns: columns}, &kernels.Norm{In: at},
		&kernels.Split{In: at, Norm: at + 1}, inverse)
	q.Score, q.Contributions, q.Reconstruction = at+1, at+2, at+3
	return q
}

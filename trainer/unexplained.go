package trainer

import (
	"cmp"
	"slices"

	"github.com/lapwing-stream/lapwing/kernels"
)

const (
	// worstRows bounds what looking for badly reconstructed features costs.
	worstRows  = 8192
	worstBatch = 512 // of those at once
)

// worst names the fields that the network explains least: the share of each one's variance that is residual, on the
// scale on which the network works. The residual is taken from the reconstruction and not from the contributions, since
// those may hold more than the residual: a distance, or a whitened one.
func worst(h *history, p *kernels.Program, s kernels.Scorer) ([]FieldFit, error) {
	forward := p.Steps[0].(*kernels.Map)
	curves := make([]kernels.Curve, h.width)
	for i := range curves {
		curves[i] = forward.Columns[i].Curve()
	}
	n := min(h.n, worstRows)
	fields := h.spec.ColumnFields()
	residual := make([]float64, len(h.spec.Fields))
	sum, squares := make([]float64, h.width), make([]float64, h.width)
	var rows []float32
	var err error
	numbers := make([]int, min(n, worstBatch))
	rebuilt := make([]float32, len(numbers)*h.width)
	for from := 0; from < n; from += worstBatch {
		m := min(n-from, worstBatch)
		for i := range m {
			numbers[i] = int(int64(from+i) * int64(h.n) / int64(n))
		}
		if rows, err = h.gather(numbers[:m], rows); err != nil {
			return nil, err
		}
		if err := s.Score(rows, kernels.Output{Reconstruction: rebuilt[:m*h.width]}); err != nil {
			return nil, err
		}
		for at, v := range rows {
			c := at % h.width
			y := float64(curves[c].Forward(v))
			sum[c] += y
			squares[c] += y * y
			d := y - float64(curves[c].Forward(rebuilt[at]))
			residual[fields[c]] += d * d
		}
	}
	variance := make([]float64, len(residual))
	for c, f := range fields {
		variance[f] += squares[c] - sum[c]*sum[c]/float64(n)
	}
	var out []FieldFit
	for f, v := range variance {
		if v > 1e-9*float64(n) {
			out = append(out, FieldFit{Field: h.spec.Fields[f].Name, Unexplained: residual[f] / v})
		}
	}
	slices.SortStableFunc(out, func(a, b FieldFit) int { return cmp.Compare(b.Unexplained, a.Unexplained) })
	return out[:min(len(out), 3)], nil
}

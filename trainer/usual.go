package trainer

import "github.com/lapwing-stream/lapwing/model"

// usual is each number field's range without its outermost values (see outerShare), in raw units: what stands
// beside an observed value where a score is explained. A field without values, or that is no number, has none.
func usual(spec *model.Spec, columns []ColumnReport) map[string]model.Range {
	numbers := map[string]bool{}
	for i := range spec.Fields {
		numbers[spec.Fields[i].Name] = spec.Fields[i].Type == model.Number
	}
	ranges := map[string]model.Range{}
	for i := range columns {
		c := &columns[i]
		if !numbers[c.Name] || c.Count == 0 {
			continue
		}
		lower, upper := c.Lower, c.Upper
		if c.Log {
			lower, upper = symexp(lower), symexp(upper)
		}
		// Raw values are float32, but a logarithm's way back may round beyond the last of them.
		ranges[c.Name] = model.Range{float32(min(max(lower, -largest), largest)), float32(min(max(upper, -largest), largest))}
	}
	return ranges
}

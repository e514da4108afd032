package model

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"unicode/utf8"

	"github.com/lapwing-stream/lapwing/kernels"
)

// MaxBytes is the largest model file: protobuf, and so ONNX, ends at 2 GB.
const MaxBytes = 1<<31 - 1

// MaxSelfTest is how many rows a self-test may have.
const MaxSelfTest = 16

// Validate reports every fault of the model, joined.
func (m *Model) Validate() error {
	var faults []error
	report := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	width := 0
	if m.Program == nil {
		report("the model has no program")
	} else {
		width = m.Program.Width
		if err := m.Program.Validate(); err != nil {
			faults = append(faults, err)
		}
	}
	faults = append(faults, m.Spec.faults(width)...)
	if !finite(m.Threshold) {
		report("threshold %v is not finite", m.Threshold)
	}
	if len(m.Quantiles) == 0 {
		report("the model has no quantiles")
	}
	for i, q := range m.Quantiles {
		if !(q.P >= 0 && q.P <= 1) || !finite(q.Score) {
			report("quantile %d is (%v, %v); a share of 0 to 1 and a finite score are needed", i, q.P, q.Score)
		} else if i > 0 && !(q.P > m.Quantiles[i-1].P && q.Score >= m.Quantiles[i-1].Score) {
			report("quantile %d is (%v, %v) after (%v, %v); they must rise", i, q.P, q.Score, m.Quantiles[i-1].P, m.Quantiles[i-1].Score)
		}
	}
	faults = append(faults, m.SelfTest.faults(width)...)
	for _, name := range sortedKeys(m.Lineage.Metrics) {
		if v := m.Lineage.Metrics[name]; !finite(v) {
			report("metric %q is %v; it must be finite", name, v)
		}
	}
	for i, e := range m.Lineage.Curve {
		if !finite(e.Train) || !finite(e.Validation) || !finite(e.Rate) {
			report("epoch %d of the curve is not finite: %+v", i, e)
		}
	}
	if s, ok := notUTF8(reflect.ValueOf(m.Spec)); ok {
		report("the spec holds text that is not UTF-8: %q", s)
	}
	if s, ok := notUTF8(reflect.ValueOf(m.Lineage)); ok {
		report("the lineage holds text that is not UTF-8: %q", s)
	}
	return errors.Join(faults...)
}

// faults are what the model itself cannot live with; events.Compile judges the rest. width 0 is unknown.
func (s *Spec) faults(width int) (faults []error) {
	report := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if len(s.Fields) == 0 {
		report("the spec has no fields")
		return faults
	}
	for _, f := range s.Fields {
		if f.Type != Number && f.Type != Boolean && f.Type != Category {
			report("field %q has type %q; number, boolean or category are known", f.Name, f.Type)
		}
		for _, v := range f.Clip {
			if !finite(v) {
				report("field %q clips at %v; it must be finite", f.Name, v)
			}
		}
		if f.Missing != nil && !finite(*f.Missing) {
			report("field %q stands for missing ones with %v; it must be finite", f.Name, *f.Missing)
		}
	}
	if s.Rolling != 0 && (s.Rolling < MinRolling || s.Rolling > MaxRolling) {
		report("rolling is %d; %d to %d, or 0 for none", s.Rolling, MinRolling, MaxRolling)
		return faults
	}
	columns := s.Columns()
	seen := make(map[string]bool, len(columns))
	for _, c := range columns {
		if seen[c] {
			report("the spec names column %q twice", c)
		}
		seen[c] = true
	}
	if width > 0 && len(columns) != width {
		report("the spec makes %d columns, the program takes %d", len(columns), width)
	}
	return faults
}

func (t *SelfTest) faults(width int) (faults []error) {
	report := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if len(t.Rows) < 1 || len(t.Rows) > MaxSelfTest || len(t.Rows) != len(t.Scores) {
		report("the self-test has %d rows and %d scores; both must be the same, 1 to %d", len(t.Rows), len(t.Scores), MaxSelfTest)
	}
	for i, row := range t.Rows {
		if width > 0 && len(row) != width {
			report("self-test row %d has %d columns, the program takes %d", i, len(row), width)
		}
		for j, x := range row {
			if math.IsInf(float64(x), 0) {
				report("self-test row %d, column %d is %v; a number or NaN is needed", i, j, x)
			}
		}
	}
	for i, s := range t.Scores {
		if !finite(float64(s)) {
			report("self-test score %d is %v; it must be finite", i, s)
		}
	}
	return faults
}

// Verify scores the self-test rows with s and compares. On the engine that made the scores the tolerance is that
// between engines' rounding orders, 2e-5 of the score and 1e-5 of the threshold; on another, 1e-4 of each.
func (m *Model) Verify(s kernels.Scorer, sameEngine bool) error {
	if m.Program == nil {
		return errors.New("self-test: the model has no program")
	}
	if err := errors.Join(m.SelfTest.faults(m.Program.Width)...); err != nil {
		return fmt.Errorf("self-test: %w", err)
	}
	rows := make([]float32, 0, len(m.SelfTest.Rows)*m.Program.Width)
	for _, row := range m.SelfTest.Rows {
		rows = append(rows, row...)
	}
	got := make([]float32, len(m.SelfTest.Scores))
	if err := s.Score(rows, kernels.Output{Score: got}); err != nil {
		return fmt.Errorf("self-test: %w", err)
	}
	relative, absolute := 1e-4, 1e-4
	if sameEngine {
		relative, absolute = 2e-5, 1e-5
	}
	for i, want := range m.SelfTest.Scores {
		w, g := float64(want), float64(got[i])
		allowed := relative*math.Abs(w) + absolute*math.Abs(m.Threshold)
		if !(math.Abs(g-w) <= allowed) {
			return fmt.Errorf("self-test row %d scores %v here, %v where the model was made (engine %s); at most %.3g apart is allowed: this model is not safe to use on this machine",
				i, got[i], want, m.Lineage.Engine, allowed)
		}
	}
	return nil
}

// Layers are the hidden widths of the network, the code among them, as `train --layers` takes them: the Gemm
// steps but the last, which goes back to the row's width, and a whitening one after it. Nil where there is no
// network.
func (m *Model) Layers() []int {
	_, prediction, ok := m.Program.Residual()
	if !ok {
		return nil
	}
	var widths []int
	for _, g := range m.Program.Gemms(prediction) {
		widths = append(widths, g.Out)
	}
	if len(widths) == 0 {
		return nil
	}
	return widths[:len(widths)-1]
}

// Size is about how many bytes the encoded program takes: what to check before training makes a model that
// no file can hold.
func Size(p *kernels.Program) int64 {
	var size int64
	for _, s := range p.Steps {
		switch s := s.(type) {
		case *kernels.Map:
			if s == nil {
				continue // Validate reports it
			}
			knots := 0
			for i := range s.Columns {
				knots = max(knots, len(s.Columns[i].X))
			}
			// A knot stands in five tables; see emitCurve.
			size += int64(len(s.Columns)) * (20*(int64(knots)+1) + 16)
		case *kernels.Gemm:
			if s == nil {
				continue
			}
			size += 4 * (int64(len(s.W)) + int64(len(s.B)))
		case *kernels.Nearest:
			if s == nil {
				continue
			}
			size += 4*int64(len(s.Rows)) + 8*int64(max(s.Groups, 0))
		}
		size += 1 << 10
	}
	return size
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

// notUTF8 finds text that JSON would silently replace, so that a category would no longer match its records.
func notUTF8(v reflect.Value) (string, bool) {
	switch v.Kind() {
	case reflect.String:
		return v.String(), !utf8.ValidString(v.String())
	case reflect.Pointer:
		if !v.IsNil() {
			return notUTF8(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if s, ok := notUTF8(v.Field(i)); ok {
				return s, true
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			if s, ok := notUTF8(v.Index(i)); ok {
				return s, true
			}
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			if s, ok := notUTF8(it.Key()); ok {
				return s, true
			}
			if s, ok := notUTF8(it.Value()); ok {
				return s, true
			}
		}
	}
	return "", false
}

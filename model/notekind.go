package model

import "strings"

// NoteKind sorts what was done to a column, for a reader who looks for one thing.
type NoteKind string

const (
	NoteLeftOut  NoteKind = "left out" // is no feature
	NoteConstant NoteKind = "constant" // one value, but for few rows; no feature where inference found it
	NoteSkewed   NoteKind = "skewed"   // taken as log1p
	NoteClipped  NoteKind = "clipped"  // extreme values were cut off
	NoteImputed  NoteKind = "imputed"  // missing in some rows
	NoteOther    NoteKind = "other"
)

// NoteKinds are all of them, in the order in which they are told.
var NoteKinds = []NoteKind{NoteLeftOut, NoteConstant, NoteSkewed, NoteClipped, NoteImputed, NoteOther}

// Kind reads the note's first words, which those who write notes keep to.
func (n ColumnNote) Kind() NoteKind {
	for _, k := range []struct {
		begins string
		kind   NoteKind
	}{
		{"left out: constant ", NoteConstant}, {"left out, text: constant ", NoteConstant}, {"constant ", NoteConstant}, {"left out", NoteLeftOut}, {"log1p", NoteSkewed}, {"extreme values", NoteClipped},
		{"missing in ", NoteImputed}, {"another type than ", NoteImputed}, {"imputed ", NoteImputed},
	} {
		if strings.HasPrefix(n.Note, k.begins) {
			return k.kind
		}
	}
	return NoteOther
}

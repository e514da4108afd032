package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	pb "github.com/lapwing-stream/lapwing/model/onnxpb"
)

// Format is the version of the model file; a file with a higher one is refused.
const Format = 1

// Keys of metadata_props, in the order of the file.
const (
	keyFormat    = "lapwing.format"
	keySpec      = "lapwing.spec"
	keyThreshold = "lapwing.threshold"
	keyQuantiles = "lapwing.quantiles"
	keyLineage   = "lapwing.lineage"
	keySelfTest  = "lapwing.selftest"
)

// maxMetadata bounds one value, in bytes: a few thousand partitions or ten thousand categories fit many times.
const maxMetadata = 4 << 20

// pair is a Quantile as [p, score].
type pair [2]float64

// selfTestJSON is SelfTest with NaN as null, which JSON has no number for.
type selfTestJSON struct {
	Rows   [][]cell  `json:"rows"`
	Scores []float32 `json:"scores"`
}

type cell float32

func (c cell) MarshalJSON() ([]byte, error) {
	if c != c {
		return []byte("null"), nil
	}
	return json.Marshal(float32(c))
}

func (c *cell) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*c = cell(math.NaN())
		return nil
	}
	return json.Unmarshal(b, (*float32)(c))
}

// metadata encodes everything but the program.
func (m *Model) metadata() ([]*pb.StringStringEntryProto, error) {
	quantiles := make([]pair, len(m.Quantiles))
	for i, q := range m.Quantiles {
		quantiles[i] = pair{q.P, q.Score}
	}
	test := selfTestJSON{Rows: make([][]cell, len(m.SelfTest.Rows)), Scores: m.SelfTest.Scores}
	for i, row := range m.SelfTest.Rows {
		test.Rows[i] = make([]cell, len(row))
		for j, x := range row {
			test.Rows[i][j] = cell(x)
		}
	}
	var props []*pb.StringStringEntryProto
	for _, e := range []struct {
		key   string
		value any
	}{
		{keyFormat, Format},
		{keySpec, m.Spec},
		{keyThreshold, m.Threshold},
		{keyQuantiles, quantiles},
		{keyLineage, m.Lineage},
		{keySelfTest, test},
	} {
		text, err := canonicalJSON(e.value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.key, err)
		}
		if len(text) > maxMetadata {
			return nil, fmt.Errorf("%s would take %d bytes; at most %d are allowed", e.key, len(text), maxMetadata)
		}
		props = append(props, &pb.StringStringEntryProto{Key: e.key, Value: text})
	}
	return props, nil
}

// setMetadata fills m from metadata_props. Each value must be what this version would write, so that nothing
// in a file is silently dropped or read in two ways; only the lineage may hold keys that are not known here
// (see parseLineage).
func (m *Model) setMetadata(props []*pb.StringStringEntryProto) error {
	values := make(map[string]string, len(props))
	for _, p := range props {
		if _, twice := values[p.GetKey()]; twice {
			return fmt.Errorf("metadata holds %s twice", p.GetKey())
		}
		if len(p.GetValue()) > maxMetadata {
			return fmt.Errorf("metadata %.64q holds %d bytes; at most %d are allowed", p.GetKey(), len(p.GetValue()), maxMetadata)
		}
		values[p.GetKey()] = p.GetValue()
	}
	if v, ok := values[keyFormat]; ok {
		n, err := strconv.ParseUint(v, 10, 31)
		switch {
		case err != nil || n == 0:
			return fmt.Errorf("%s is %.32q; a number from 1 is needed", keyFormat, v)
		case n > Format:
			return fmt.Errorf("%s %d is newer than %d, the newest that this version reads; update lapwing", keyFormat, n, Format)
		}
	}
	if values[keySpec] == "" {
		return fmt.Errorf("no feature spec in metadata (%s): another program wrote or rewrote this file; take the one that lapwing wrote", keySpec)
	}
	var quantiles []pair
	var test selfTestJSON
	var format int
	for _, e := range []struct {
		key string
		to  any
	}{
		{keyFormat, &format},
		{keySpec, &m.Spec},
		{keyThreshold, &m.Threshold},
		{keyQuantiles, &quantiles},
		{keyLineage, &m.Lineage},
		{keySelfTest, &test},
	} {
		text, ok := values[e.key]
		if !ok {
			return fmt.Errorf("no %s in metadata: another program rewrote this file; take the one that lapwing wrote", e.key)
		}
		delete(values, e.key)
		parse := parseJSON
		if e.key == keyLineage {
			parse = parseLineage
		}
		if err := parse(text, e.to); err != nil {
			return fmt.Errorf("metadata %s: %w", e.key, err)
		}
	}
	if len(values) > 0 {
		return fmt.Errorf("metadata %.64q is not known to this version; update lapwing", sortedKeys(values)[0])
	}
	for _, q := range quantiles {
		m.Quantiles = append(m.Quantiles, Quantile{P: q[0], Score: q[1]})
	}
	for _, row := range test.Rows {
		r := make([]float32, len(row))
		for j, x := range row {
			r[j] = float32(x)
		}
		m.SelfTest.Rows = append(m.SelfTest.Rows, r)
	}
	m.SelfTest.Scores = test.Scores
	return nil
}

// parseJSON is strict: known fields only, one value, written as canonicalJSON writes it.
func parseJSON(text string, to any) error {
	again, err := reparse(text, to, true)
	if err == nil && again != text {
		err = errRespelled
	}
	return err
}

var errRespelled = errors.New("not in the form that lapwing writes; another program rewrote it")

// parseLineage takes keys that it does not know, at any depth, and drops them: a newer version may say more about
// a model's origin without making the model unreadable, since no score depends on it. What is known must be
// as canonicalJSON writes it, and in that order.
func parseLineage(text string, to any) error {
	known, err := reparse(text, to, false)
	if err != nil || known == text {
		return err
	}
	var compact bytes.Buffer
	if json.Compact(&compact, []byte(text)) != nil || compact.String() != text {
		return errRespelled
	}
	f, k := json.NewDecoder(strings.NewReader(text)), json.NewDecoder(strings.NewReader(known))
	f.UseNumber()
	k.UseNumber()
	if !covers(f, k) {
		return errRespelled
	}
	return nil
}

// reparse decodes the one value in text and gives it as canonicalJSON writes it.
func reparse(text string, to any, strict bool) (string, error) {
	// An object of three bytes ("{},") may become a struct of a hundred and more; a real one names its fields.
	if n := strings.Count(text, "{"); 256*n > 16*len(text)+64<<10 {
		return "", fmt.Errorf("%d objects in %d bytes", n, len(text))
	}
	d := json.NewDecoder(strings.NewReader(text))
	if strict {
		d.DisallowUnknownFields()
	}
	if err := d.Decode(to); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("ends early")
		}
		return "", fmt.Errorf("not what this version reads (%w); update lapwing if a newer one wrote it", err)
	}
	return canonicalJSON(to)
}

// covers tells whether the next value of file is that of known but for keys that known lacks. It goes as deep
// as known does.
func covers(file, known *json.Decoder) bool {
	f, err := file.Token()
	k, err2 := known.Token()
	if err != nil || err2 != nil || f != k {
		return false
	}
	switch k {
	case json.Delim('['):
		for known.More() {
			if !file.More() || !covers(file, known) {
				return false
			}
		}
		if file.More() {
			return false
		}
	case json.Delim('{'):
		for known.More() {
			key, err := known.Token()
			if err != nil || !skipTo(file, key) || !covers(file, known) {
				return false
			}
		}
		if skipTo(file, nil) {
			return false
		}
	default:
		return true
	}
	// The closing brackets.
	_, err = file.Token()
	_, err2 = known.Token()
	return err == nil && err2 == nil
}

// skipTo passes over an object's keys and values to the value of key; false where the object ends before.
func skipTo(d *json.Decoder, key json.Token) bool {
	for d.More() {
		k, err := d.Token()
		if err != nil || k == key {
			return err == nil
		}
		depth := 0
		for {
			t, err := d.Token()
			if err != nil {
				return false
			}
			switch t {
			case json.Delim('{'), json.Delim('['):
				depth++
			case json.Delim('}'), json.Delim(']'):
				depth--
			}
			if depth == 0 {
				break
			}
		}
	}
	return false
}

func canonicalJSON(v any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

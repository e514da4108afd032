package model

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Pair is one thing as two models have it; nil where a model has none.
type Pair[T any] struct {
	Name string `json:"name"`
	A    *T     `json:"a"`
	B    *T     `json:"b"`
}

// Comparison is what two models have in common and what not, without scoring anything.
type Comparison struct {
	Layers     Pair[[]int]            `json:"layers"` // hidden widths; nil = no network
	Columns    Pair[int]              `json:"columns"`
	Threshold  Pair[float64]          `json:"threshold"`
	Choice     Pair[ThresholdChoice]  `json:"threshold_choice"` // nil = not kept
	Topic      Pair[string]           `json:"topic"`
	Cluster    Pair[string]           `json:"cluster"`
	Engine     Pair[string]           `json:"engine"`
	Seed       Pair[uint64]           `json:"seed"`
	Features   []Pair[string]         `json:"features"`   // that differ, each as what it is taken
	SameFields int                    `json:"same"`       // features that do not differ
	Ranges     []Pair[Range]          `json:"ranges"`     // of number fields that differ, raw units
	Partitions []Pair[PartitionRange] `json:"partitions"` // all of them, if both models are of one topic; else those of each
	Rows       Pair[Rows]             `json:"rows"`
	Settings   []Pair[string]         `json:"settings"` // that differ
	Metrics    []Pair[float64]        `json:"metrics"`  // all
}

// Compare puts two models side by side.
func Compare(a, b *Model) Comparison {
	la, lb := &a.Lineage, &b.Lineage
	c := Comparison{
		Columns: both("columns", len(a.Spec.Columns()), len(b.Spec.Columns())), Threshold: both("threshold", a.Threshold, b.Threshold),
		Topic: both("topic", la.Topic, lb.Topic), Cluster: both("cluster", la.Cluster, lb.Cluster), Engine: both("engine", la.Engine, lb.Engine),
		Seed: both("seed", la.Seed, lb.Seed), Rows: both("rows", la.Rows, lb.Rows),
		Features: []Pair[string]{}, Ranges: []Pair[Range]{}, Partitions: []Pair[PartitionRange]{},
	}
	c.Layers.Name, c.Choice = "layers", Pair[ThresholdChoice]{"threshold_choice", la.Threshold, lb.Threshold}
	if l := a.Layers(); l != nil {
		c.Layers.A = &l
	}
	if l := b.Layers(); l != nil {
		c.Layers.B = &l
	}
	for _, p := range pairUp(a.takes(), b.takes()) {
		if differs(p) {
			c.Features = append(c.Features, p)
		} else {
			c.SameFields++
		}
	}
	for _, p := range pairUp(la.Usual, lb.Usual) {
		if differs(p) {
			c.Ranges = append(c.Ranges, p)
		}
	}
	c.Settings = slices.DeleteFunc(pairUp(la.Settings, lb.Settings), func(p Pair[string]) bool { return !differs(p) })
	c.Metrics = pairUp(la.Metrics, lb.Metrics)
	c.Partitions = pairUp(byPartition(la), byPartition(lb))
	slices.SortFunc(c.Partitions, func(x, y Pair[PartitionRange]) int { return partitionOf(x) - partitionOf(y) })
	return c
}

func both[T any](name string, a, b T) Pair[T] { return Pair[T]{name, &a, &b} }

func differs[T comparable](p Pair[T]) bool { return p.A == nil || p.B == nil || *p.A != *p.B }

// pairUp joins two maps by key, in the keys' order.
func pairUp[T any](a, b map[string]T) []Pair[T] {
	keys := slices.Collect(maps.Keys(a))
	for k := range b {
		if _, twice := a[k]; !twice {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	pairs := []Pair[T]{}
	for _, k := range keys {
		p := Pair[T]{Name: k}
		if v, ok := a[k]; ok {
			p.A = &v
		}
		if v, ok := b[k]; ok {
			p.B = &v
		}
		pairs = append(pairs, p)
	}
	return pairs
}

func byPartition(l *Lineage) map[string]PartitionRange {
	m := map[string]PartitionRange{}
	for _, p := range l.Partitions {
		m[strconv.Itoa(int(p.Partition))] = p
	}
	return m
}

func partitionOf(p Pair[PartitionRange]) int {
	if p.A != nil {
		return int(p.A.Partition)
	}
	return int(p.B.Partition)
}

// takes says in words as what the model takes each of its fields.
func (m *Model) takes() map[string]string {
	t := map[string]string{}
	for _, f := range m.Spec.Fields {
		words := []string{string(f.Type)}
		if f.Type == Category {
			words = append(words, fmt.Sprintf("of %d values", len(f.Categories)))
		}
		if f.Log1p {
			words = append(words, "log1p")
		}
		if len(f.Clip) == 2 {
			words = append(words, fmt.Sprintf("clipped to %g to %g", f.Clip[0], f.Clip[1]))
		}
		if f.Missing != nil {
			words = append(words, fmt.Sprintf("%g where missing", *f.Missing))
		}
		t[f.Name] = strings.Join(words, ", ")
		if f.Type == Category {
			t[f.Name] = strings.Replace(t[f.Name], ", ", " ", 1)
		}
	}
	return t
}

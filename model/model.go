// Package model says what a model is: a program, the feature spec in front of it, the threshold and
// quantiles behind it, its lineage and its self-test; and encodes and decodes it as ONNX. It does no I/O.
package model

import "github.com/lapwing-stream/lapwing/kernels"

// Model is one trained detector. Nothing in it names its own name, version, host or time of making:
// same seed, data and engine give the same bytes.
type Model struct {
	Program   *kernels.Program
	Spec      Spec
	Threshold float64    // a score strictly above it is an anomaly
	Quantiles []Quantile // of the history's scores, ascending in P
	Lineage   Lineage
	SelfTest  SelfTest
}

// Quantile is one point of the history's score distribution: the share P of the history scored at or below Score.
type Quantile struct {
	P     float64 `json:"p"` // 0 to 1
	Score float64 `json:"score"`
}

// SelfTest is up to 16 rows with the scores that the training engine gave them.
type SelfTest struct {
	Rows   [][]float32 // NaN where missing
	Scores []float32
}

// Lineage says what a model was made from. It holds no wall clock, host or path.
type Lineage struct {
	Cluster    string             `json:"cluster,omitempty"` // Kafka cluster id
	Topic      string             `json:"topic"`
	Partitions []PartitionRange   `json:"partitions"`
	Rows       Rows               `json:"rows"`
	Engine     string             `json:"engine"` // "cpu/portable"
	Seed       uint64             `json:"seed"`
	Settings   map[string]string  `json:"settings"`         // what changes the result: layers, epochs, rate asked, …
	Parts      map[string]int64   `json:"parts,omitempty"`  // rows that each part saw: trim, prototypes, autoencoder, whitening, threshold
	Parent     string             `json:"parent,omitempty"` // digest of the model it was derived from
	Metrics    map[string]float64 `json:"metrics"`          // validation_loss, rate_used, share_above, ties, average_precision, …
	Curve      []Epoch            `json:"curve"`
	Usual      map[string]Range   `json:"usual,omitempty"` // by number field: between the outermost of its values in the history
	Notes      []ColumnNote       `json:"notes,omitempty"` // what was done to columns, and fields left out with the reason
	Span       *Span              `json:"span,omitempty"`
	Threshold  *ThresholdChoice   `json:"threshold,omitempty"` // nil: chosen before choices were kept
}

// PartitionRange is the part of one partition that was read: offsets [From, To).
type PartitionRange struct {
	Partition int32 `json:"partition"`
	From      int64 `json:"from"`
	To        int64 `json:"to"`
	Records   int64 `json:"records"`        // records read
	Lost      int64 `json:"lost,omitempty"` // offsets that retention deleted during the read
}

// Rows counts the records of the history.
type Rows struct {
	Read       int64            `json:"read"`
	Used       int64            `json:"used"`
	Validation int64            `json:"validation"`         // of those used
	Warming    int64            `json:"warming,omitempty"`  // of those used: with fewer records before them than rolling features need
	LeftOut    map[string]int64 `json:"left_out,omitempty"` // by reason: "tombstone", "not JSON", …
}

// Epoch is one point of the training curve.
type Epoch struct {
	Epoch      int     `json:"epoch"`
	Train      float64 `json:"train"`
	Validation float64 `json:"validation"`
	Rate       float64 `json:"rate"`
}

// Range is from the least to the greatest, raw units.
type Range [2]float32

// ColumnNote says something about one field or column.
type ColumnNote struct {
	Name string `json:"name"`
	Note string `json:"note"` // "constant 7", "imputed 12 rows", "left out: looks like an identifier"
}

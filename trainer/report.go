package trainer

import (
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/registry"
)

// Report says what a run did. Everything but Seconds, Spilled and the rates is the same for the same seed, data and engine.
type Report struct {
	Topic, Name, Alias string
	Cluster            string // Kafka cluster id

	Spec     model.Spec
	Inferred bool               // the spec was inferred, not given
	Notes    []model.ColumnNote // fields left out and why, and what was done to columns
	Columns  []ColumnReport

	From, Until   int64  // Kafka times that the ranges were found by, ms since 1970; -1 = open
	Asked         string // those, or the offsets that were asked for, in words; "" = everything
	Outside       int64  // records that were read and have another time: they stand between records of the time asked
	Ranges        []model.PartitionRange
	Rows          model.Rows
	LeftOut       []LeftOut        // most frequent first
	Partial       int64            // rows used with more than half of their fields missing
	TimeProblems  map[string]int64 // why the time field gave no time, records
	RecordsPerDay float64          // in event time; 0 = not known
	Span          *model.Span      // when the history was made; nil = too few rows have a time
	Timeline      []float64        // shares of the rows in equal parts of Span; nil = too few

	// From here on zero after a dry run.
	Layers                         []int // hidden widths
	Steps                          int
	ValidationLoss                 float64
	Curve                          []model.Epoch
	Threshold, RateAsked, RateUsed float64
	Choice                         model.ThresholdChoice
	Above                          int64       // history rows above the threshold
	ShareAbove, Ties               float64     // shares of the history: above the threshold; exactly at the score under it
	HoursOfWeek                    []float64   // shares of high scores by hour of the week, UTC, from Monday; nil = too short a history
	Suspicious                     float64     // share of the history that scores far out, see model.FarOut
	Median, Highest                float64     // scores
	Worst                          []FieldFit  // up to three, the least explained first
	Judgement                      *Judgement  // with a label only
	Candidates                     *Candidates // nil: one network was trained
	Warnings                       []string
	fallback                       string // why the tail was not fitted
	rhythm                         []HourOfWeek

	Model      *model.Model
	Data       []byte // ONNX
	Manifest   registry.Manifest
	Published  bool
	Keys       []KeyModel // by key, where every key has a model: then Model and what belongs to it are theirs
	WithoutKey int64      // rows that had no key
	Kept       string     // file with the finished model, where it could not be published

	Seconds          Seconds
	RecordsPerSecond float64 // read
	SamplesPerSecond float64 // fitted
	Spilled          int64   // bytes of rows that max_memory had no room for
}

// Seconds is where the time went. Sample is part of Read.
type Seconds struct{ Sample, Read, Fit, Judge, Publish float64 }

// LeftOut is one reason why records were no rows.
type LeftOut struct {
	Reason   string    `json:"reason"` // "tombstone", "not_finite", or a reason of events
	Count    int64     `json:"count"`
	Examples []Example `json:"examples,omitempty"` // the first three by partition and offset
}

// words are the reason as a report has it.
func (l *LeftOut) words() string {
	switch l.Reason {
	case notInSample:
		return "not in the sample"
	case filteredOut:
		return "by the filter"
	}
	return l.Reason
}

// Example is one record that was left out.
type Example struct {
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	Detail    string `json:"detail,omitempty"`
}

// ColumnReport is what is known about one column.
type ColumnReport struct {
	Name string `json:"name"`
	Summary
	Scale    float64 `json:"scale"` // one robust unit
	Lo       float64 `json:"lo"`    // clip, after log1p where the column has it
	Hi       float64 `json:"hi"`
	Constant bool    `json:"constant,omitempty"`
	Clipped  int64   `json:"clipped,omitempty"` // rows outside [Lo, Hi]
	Note     string  `json:"note,omitempty"`
}

// FieldFit is how much of a field's variance the network leaves as residual: 0 = explained, 1 = not at all.
type FieldFit struct {
	Field       string  `json:"field"`
	Unexplained float64 `json:"unexplained"`
}

// AlarmsPerDay is what the threshold means at this topic's rate; 0 = not known.
func (r *Report) AlarmsPerDay() float64 { return r.ShareAbove * r.RecordsPerDay }

// Write prints the report for people, without colour or times.
func (r *Report) Write(w io.Writer) error {
	var b strings.Builder
	line := func(label, format string, args ...any) {
		for i, text := range fold(fmt.Sprintf(format, args...), reportWidth) {
			if i > 0 {
				label = ""
			}
			fmt.Fprintf(&b, "%-11s %s\n", label, strings.TrimRight(text, " "))
		}
	}
	line("read", "%s of topic %s, %s: %s usable", plural(r.Rows.Read, "record"), r.Topic, plural(int64(len(r.Ranges)), "partition"), thousands(r.Rows.Used))
	if r.Asked != "" {
		line("", "%s", r.Asked)
	}
	if r.Outside > 0 {
		line("", "%s of another time among them: the topic is not in order of its Kafka timestamps", plural(r.Outside, "record"))
	}
	for _, l := range r.LeftOut {
		line("left out", "%s %s", thousands(l.Count), l.words())
		for _, e := range l.Examples {
			if e.Detail != "" {
				line("", "  partition %d, offset %d: %s", e.Partition, e.Offset, e.Detail)
			}
		}
	}
	r.writeTime(line)
	for _, p := range r.Ranges {
		if p.Lost > 0 {
			line("lost", "%s offsets of partition %d, deleted by retention during the read", thousands(p.Lost), p.Partition)
		}
	}
	features := make([]string, len(r.Spec.Fields))
	for i, f := range r.Spec.Fields {
		features[i] = f.Name
	}
	line("features", "%d in %s: %s", len(features), plural(int64(len(r.Columns)), "column"), strings.Join(features, ", "))
	for _, n := range r.Notes {
		line("", "%s: %s", n.Name, n.Note)
	}
	if n := r.Spec.Rolling; n > 0 {
		line("rolling", "mean and deviation of a key's last %d records; %s had fewer behind them, and are used as they are", n, plural(r.Rows.Warming, "row"))
	}
	if r.Model != nil {
		r.writeModel(line)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) writeModel(line func(label, format string, args ...any)) {
	if len(r.Layers) == 0 {
		line("network", "none: one column is judged by its distance from the middle")
	} else {
		line("network", "%d-%s-%d, %d steps, validation loss %.4g", len(r.Columns), strings.ReplaceAll(layerNames(r.Layers), ",", "-"), len(r.Columns), r.Steps, r.ValidationLoss)
	}
	if len(r.Worst) > 0 && len(r.Layers) > 0 {
		parts := make([]string, len(r.Worst))
		for i, f := range r.Worst {
			parts[i] = fmt.Sprintf("%.0f%% of %s", 100*f.Unexplained, f.Field)
		}
		line("unexplained", "%s: variance that the network does not rebuild", strings.Join(parts, ", "))
	}
	if c := r.Candidates; c != nil {
		line("candidates", "%d by %s, taken by the %s: %s", len(c.Tried), c.Vary, Criterion(c.Criterion), c.Chosen().Varies)
	}
	r.writeScores(line)
	r.writeRhythm(line)
	r.writeThreshold(line)
	r.writeJudgement(line)
	for _, warning := range r.Warnings {
		line("warning", "%s", warning)
	}
	if r.Published {
		line("published", "%s/%d, %d bytes, digest %.8s", r.Name, r.Manifest.Version, len(r.Data), r.Manifest.Digest)
	}
}

// reportWidth is where lines are folded, in characters after the label.
const reportWidth = 100

// fold breaks text at blanks; a continued line keeps the indent of the first and two more.
func fold(text string, width int) []string {
	indent := text[:len(text)-len(strings.TrimLeft(text, " "))] + "  "
	var out []string
	for len([]rune(text)) > width {
		at := strings.LastIndexByte(string([]rune(text)[:width+1]), ' ')
		if at <= len(indent) {
			break
		}
		out = append(out, text[:at])
		text = indent + text[at+1:]
	}
	return append(out, text)
}

func round2(v float64) string {
	if v >= 100 {
		return thousands(int64(math.Round(v)))
	}
	return fmt.Sprintf("%.2g", v)
}

func plural(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return thousands(n) + " " + thing + "s"
}

// thousands groups digits: 1,234,567.
func thousands(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/trainer"
)

func (a *app) modelsShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show NAME[@ALIAS|/VERSION]", Short: "Show what a model is made of, and the history of its aliases",
		Long: `Shows what a version was made from, down to partitions and offsets; what became of the history's
records and columns; how the training went; how the history's scores are spread; and the threshold.
With a bare name it shows the version that live means, and before it every version and every move
of an alias.`,
		Example: `  lapwing models show cars
  lapwing models show cars/3
  lapwing models show cars@canary --json`,
		Args: args(1, 1, "the name of a model"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := parseRef(args[0])
			if err != nil {
				return err
			}
			return a.withRegistry(cmd, func(r *registry.Registry, e *effective) error {
				return a.showModel(cmd, r, e, ref, ref.String() != args[0])
			})
		},
	}
	a.jsonFlag(cmd.Flags(), "print one JSON object")
	return cmd
}

// showModel prints one version; whole also the name's other versions and aliases.
func (a *app) showModel(cmd *cobra.Command, r *registry.Registry, e *effective, ref registry.Ref, whole bool) error {
	list, err := r.List(cmd.Context())
	if err != nil {
		return noModelTopic(err, e)
	}
	var entry *registry.Entry
	if i := slices.IndexFunc(list, func(it registry.Entry) bool { return it.Name == ref.Name }); i >= 0 {
		entry = &list[i]
	}
	manifest, data, err := r.Get(cmd.Context(), ref)
	if err != nil && !(whole && entry != nil) {
		return err
	}
	var m *model.Model
	if err == nil {
		if m, err = model.Decode(data); err != nil {
			return fmt.Errorf("model %s cannot be read: %w", manifest, err)
		}
	}
	if a.json {
		object := map[string]any{}
		if entry != nil {
			object["model"] = entriesJSON([]registry.Entry{*entry})[0]
		}
		if m != nil {
			object["version"], object["manifest"], object["spec"], object["threshold"], object["lineage"] = manifest.Version, manifest, m.Spec, m.Threshold, m.Lineage
			object["layers"], object["scores"], object["columns"] = append([]int{}, m.Layers()...), scoreTable(m), notesByKind(m)
		}
		return a.encodeJSON(object)
	}
	if whole && entry != nil {
		a.showEntry(entry)
	}
	if m == nil {
		a.printf("no version is %s\n", ref)
		return nil
	}
	a.describe(manifest, m, entry)
	return nil
}

// showEntry lists a name's versions and the moves of its aliases.
func (a *app) showEntry(it *registry.Entry) {
	a.printf("%s  %s\n", a.term.paint(bold, it.Name), aliasText(a.term, it.Aliases))
	for _, v := range slices.Backward(it.Versions) {
		a.printf("  %s\n", versionText(a.term, v))
	}
	for _, name := range slices.Sorted(maps.Keys(it.Aliases)) {
		for _, move := range slices.Backward(it.Aliases[name].History) {
			why := ""
			if move.Why != "" {
				why = ": " + move.Why
			}
			from := ""
			if move.From > 0 {
				from = strconv.Itoa(move.From) + " "
			}
			a.printf("  %s  %s %s→ %d by %s%s\n", move.When.UTC().Format("2006-01-02 15:04"), name, from, move.To, clean(move.Who), clean(why))
		}
	}
	a.printf("\n")
}

// describe says what a model is and what it was made from.
func (a *app) describe(manifest registry.Manifest, m *model.Model, entry *registry.Entry) {
	line := func(label, format string, args ...any) {
		a.printf("%s", a.term.wrap(fmt.Sprintf("%-10s %s\n", label, clean(fmt.Sprintf(format, args...))), 13))
	}
	l := &m.Lineage
	a.printf("%s\n", a.term.paint(bold, manifest.String()))
	line("published", "%s by %s", manifest.Created.UTC().Format(time.RFC3339), manifest.By)
	line("file", "%s bytes in %s, digest %s", count(manifest.Bytes), counted(manifest.Parts, "part"), manifest.Digest)
	if l.Parent != "" {
		line("parent", "%s", parentText(l.Parent, entry))
	}
	line("engine", "%s, seed %d", l.Engine, l.Seed)
	a.describeHistory(l, line)
	describeDetector(m, line)
	if layers := m.Layers(); len(layers) > 0 {
		line("network", "%s over %s", joinInts(layers, "-"), counted(len(m.Spec.Columns()), "column"))
	}
	describeCurve(l, line)
	describeScores(m, line)
	describeFeatures(m, line)
	line("settings", "%s", pairs(l.Settings, func(v string) string { return v }))
	line("metrics", "%s", pairs(l.Metrics, fourDigits))
}

// parentText names the version that has the digest, where it is still there.
func parentText(digest string, entry *registry.Entry) string {
	if entry != nil {
		for _, v := range entry.Versions {
			if v.Digest == digest {
				return fmt.Sprintf("%s, digest %s", registry.Ref{Name: entry.Name, Version: v.Version}, digest)
			}
		}
	}
	return "digest " + digest + ", which no version has now"
}

// describeHistory tells the history down to partitions and offsets, and what became of its records.
func (a *app) describeHistory(l *model.Lineage, line func(label, format string, args ...any)) {
	cluster := ""
	if l.Cluster != "" {
		cluster = " of cluster " + l.Cluster
	}
	line("history", "topic %s%s: %s read, %s used, the last %s of them for validation", l.Topic, cluster, counted(l.Rows.Read, "record"), count(l.Rows.Used), count(l.Rows.Validation))
	if span := l.Span; span != nil && span.To > span.From {
		at := func(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04:05") }
		text := fmt.Sprintf("%s to %s", at(span.From), at(span.To))
		if span.RecordsPerDay > 0 {
			text += fmt.Sprintf(", about %s records a day", count(int64(span.RecordsPerDay+.5)))
		}
		line("", "%s", text)
	}
	lost := slices.ContainsFunc(l.Partitions, func(p model.PartitionRange) bool { return p.Lost > 0 })
	row := func(cells ...string) {
		text := ""
		for i, c := range cells {
			if i == 4 && !lost {
				break
			}
			text += padLeft(c, []int{9, 14, 14, 14, 14}[i])
		}
		line("", "%s", text)
	}
	row("partition", "from offset", "to before", "records", "offsets lost")
	for _, p := range l.Partitions {
		row(strconv.Itoa(int(p.Partition)), count(p.From), count(p.To), count(p.Records), count(p.Lost))
	}
	if l.Rows.Warming > 0 {
		line("warming", "%s of those used have fewer records of their key before them than the rolling features take", counted(l.Rows.Warming, "row"))
	}
	for _, reason := range slices.Sorted(maps.Keys(l.Rows.LeftOut)) {
		line("left out", "%s %s", count(l.Rows.LeftOut[reason]), reason)
	}
}

// partOrder is the order in which the parts of a detector are made.
var partOrder = []string{"trim", "prototypes", "autoencoder", "whitening", "threshold"}

// describeDetector names the detector and how many rows each of its parts saw.
func describeDetector(m *model.Model, line func(label, format string, args ...any)) {
	l := &m.Lineage
	if name := l.Settings["detector"]; name != "" {
		line("detector", "%s", name)
	}
	if len(l.Parts) == 0 {
		return
	}
	names := slices.Clone(partOrder)
	for _, name := range slices.Sorted(maps.Keys(l.Parts)) {
		if !slices.Contains(names, name) {
			names = append(names, name) // of a later Lapwing
		}
	}
	var parts []string
	for _, name := range names {
		if n, ok := l.Parts[name]; ok {
			parts = append(parts, fmt.Sprintf("%s %s", name, count(n)))
		}
	}
	line("", "rows seen by each part: %s", strings.Join(parts, ", "))
}

// sparkCells is the most cells that a training curve takes.
const sparkCells = 40

func describeCurve(l *model.Lineage, line func(label, format string, args ...any)) {
	if len(l.Curve) == 0 {
		return
	}
	var train, validation []float64
	for _, e := range l.Curve {
		train, validation = append(train, e.Train), append(validation, e.Validation)
	}
	last := len(l.Curve) - 1
	show := func(label string, v []float64) string {
		return fmt.Sprintf("%-11s %s  %s to %s", label, curveLine(v, sparkCells), fourDigits(v[0]), fourDigits(v[last]))
	}
	line("loss", "%s in %s", show("validation", validation), counted(l.Curve[last].Epoch, "epoch"))
	line("", "%s", show("training", train))
}

// curveLine draws values in at most so many cells, each the mean of its share of them, between the least and the
// greatest of all; where all are positive by their logarithm, as a loss that falls by the tenth goes on falling.
func curveLine(values []float64, most int) string {
	bars := []rune("▁▂▃▄▅▆▇█")
	n := min(len(values), most)
	means := make([]float64, n)
	for i := range means {
		part := values[i*len(values)/n : (i+1)*len(values)/n]
		for _, v := range part {
			means[i] += v / float64(len(part))
		}
	}
	if !slices.ContainsFunc(means, func(v float64) bool { return v <= 0 }) {
		for i, v := range means {
			means[i] = math.Log(v)
		}
	}
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, v := range means {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			lo, hi = min(lo, v), max(hi, v)
		}
	}
	var b strings.Builder
	for _, v := range means {
		switch {
		case math.IsNaN(v) || math.IsInf(v, 0):
			b.WriteRune('!')
		case hi == lo:
			b.WriteRune(bars[0])
		default:
			b.WriteRune(bars[min(int((v-lo)/(hi-lo)*float64(len(bars))), len(bars)-1)])
		}
	}
	return b.String()
}

// shownShares are the shares of the history whose scores are shown.
var shownShares = []float64{.5, .9, .99, .999, .9999, 1}

// scoreTable is the spread of the history's scores.
func scoreTable(m *model.Model) []model.Quantile {
	table := []model.Quantile{}
	if len(m.Quantiles) == 0 {
		return table
	}
	for _, p := range shownShares {
		table = append(table, model.Quantile{P: p, Score: m.ScoreAbove(1 - p)})
	}
	return table
}

func describeScores(m *model.Model, line func(label, format string, args ...any)) {
	var heads, scores string
	for _, q := range scoreTable(m) {
		head := strconv.FormatFloat(100*q.P, 'g', 6, 64) + "%"
		if q.P == 1 {
			head = "highest"
		}
		heads += padLeft(head, 11)
		scores += padLeft(fourDigits(q.Score), 11)
	}
	if heads != "" {
		line("scores", "%s   of the history is at or below", heads)
		line("", "%s", scores)
	}
	line("threshold", "%s: a record that scores above it is an anomaly", fourDigits(m.Threshold))
	c := present(m)
	line("", "%s", trainer.HowChosen(c))
	for _, text := range trainer.WhatItMeans(c, m.RecordsPerDay()) {
		line("", "%s", text)
	}
	if text := trainer.Budget(m, c); text != "" {
		line("", "%s", text)
	}
}

// notesByKind are the columns by what was done to them.
func notesByKind(m *model.Model) map[model.NoteKind][]model.ColumnNote {
	kinds := map[model.NoteKind][]model.ColumnNote{}
	for _, n := range m.Lineage.Notes {
		kinds[n.Kind()] = append(kinds[n.Kind()], n)
	}
	// A spec may ask for log1p without a note.
	for _, f := range m.Spec.Fields {
		if f.Log1p && !slices.ContainsFunc(kinds[model.NoteSkewed], func(n model.ColumnNote) bool { return n.Name == f.Name }) {
			kinds[model.NoteSkewed] = append(kinds[model.NoteSkewed], model.ColumnNote{Name: f.Name, Note: "log1p: by the spec"})
		}
	}
	return kinds
}

func describeFeatures(m *model.Model, line func(label, format string, args ...any)) {
	var fields []string
	for _, f := range m.Spec.Fields {
		fields = append(fields, f.Name)
	}
	line("features", "%s in %s: %s", count(len(fields)), counted(len(m.Spec.Columns()), "column"), strings.Join(fields, ", "))
	kinds := notesByKind(m)
	for _, kind := range model.NoteKinds {
		label := string(kind)
		switch kind {
		case model.NoteLeftOut:
			label = "no feature"
		case model.NoteOther:
			label = "also"
		}
		for _, n := range kinds[kind] {
			if kind == model.NoteLeftOut {
				n.Note = strings.TrimPrefix(strings.Replace(n.Note, "left out, text: ", "text: ", 1), "left out: ")
			}
			line(label, "%s: %s", n.Name, n.Note)
			label = ""
		}
	}
}

// counted is a number with its noun: 1 part, 2 parts.
func counted[N int | int64](n N, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return count(n) + " " + noun
}

func joinInts(list []int, sep string) string {
	parts := make([]string, len(list))
	for i, n := range list {
		parts[i] = strconv.Itoa(n)
	}
	return strings.Join(parts, sep)
}

// pairs writes a map as key=value, by key.
func pairs[V any](m map[string]V, text func(V) string) string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		list = append(list, k+"="+text(m[k]))
	}
	return strings.Join(list, " ")
}

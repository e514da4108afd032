package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/server"
	"github.com/lapwing-stream/lapwing/stream"
	"github.com/lapwing-stream/lapwing/trainer"
)

func (a *app) modelsDiff() *cobra.Command {
	var topic string
	var sample int
	cmd := &cobra.Command{
		Use: "diff A B", Short: "Put two models side by side, and let both score the same records",
		Long: `Compares two versions, of one model or of two: network, features, ranges of the data, offsets,
settings, threshold and metrics. Lines that differ begin with an asterisk. Then both score the same
records of the topic, spread evenly over what it holds now: how alike they rank them, how many each
takes for an anomaly, and where they differ the most.

Without --topic it is the topic of B's history, or of A's where that is gone. Where there is none,
everything but the scores is compared, and it says so.`,
		Example: `  lapwing models diff cars/3 cars/4
  lapwing models diff cars@live cars@canary --topic cars --sample 10000
  lapwing models diff cars/3 cars/4 --sample 0 --json`,
		Args: args(2, 2, "two models"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if sample < 0 || sample > maxDiffSample {
				return usage(fmt.Sprintf("--sample %d is not 0 to %s", sample, count(maxDiffSample)), "", "for example: "+firstExample(cmd))
			}
			var refs [2]registry.Ref
			for i := range refs {
				var err error
				if refs[i], err = parseRef(args[i]); err != nil {
					return err
				}
			}
			return a.diffModels(cmd, refs, topic, sample)
		},
	}
	cmd.Flags().StringVar(&topic, "topic", "", "`TOPIC` whose records both score; empty: that of the models' history")
	cmd.Flags().IntVar(&sample, "sample", 1000, "`RECORDS` that both score, spread evenly over the topic; 0: none")
	a.jsonFlag(cmd.Flags(), "print one JSON object")
	return cmd
}

const (
	maxDiffSample = 1_000_000
	diffRows      = 5 // records shown where the models differ the most
)

// diffSide is one of the two models.
type diffSide struct {
	manifest registry.Manifest
	data     []byte
	model    *model.Model
}

func (a *app) diffModels(cmd *cobra.Command, refs [2]registry.Ref, topic string, sample int) error {
	e, err := a.configure(cmd)
	if err != nil {
		return err
	}
	client, err := a.connect(cmd.Context(), e)
	if err != nil {
		return err
	}
	defer client.Close()
	r := a.registry(client, e)
	var sides [2]diffSide
	for i, ref := range refs {
		s := &sides[i]
		if s.manifest, s.data, err = r.Get(cmd.Context(), ref); err != nil {
			return noModelTopic(err, e)
		}
		if s.model, err = model.Decode(s.data); err != nil {
			return fmt.Errorf("model %s cannot be read: %w", s.manifest, err)
		}
	}
	comparison := model.Compare(sides[0].model, sides[1].model)
	agreement, from, why, err := a.agreement(cmd.Context(), client, sides, topic, sample)
	if err != nil {
		return err
	}
	if a.json {
		object := map[string]any{"comparison": comparison, "sample": agreement}
		for i, key := range []string{"a", "b"} {
			object[key] = versionJSON{Version: sides[i].manifest.Version, Manifest: sides[i].manifest}
			object[key+"_name"] = sides[i].manifest.String()
		}
		if agreement != nil {
			object["sample_topic"] = from
		} else {
			object["no_sample"] = why
		}
		return a.encodeJSON(object)
	}
	a.showComparison(sides, &comparison)
	if agreement == nil {
		a.printf("\n%-11s %s\n", "sample", clean("no scores were compared: "+why))
		return nil
	}
	a.showAgreement(sides, agreement, from)
	return nil
}

// agreement lets both models score the same records. Where there is no topic to take them from, why says so; a topic that was
// asked for must be there.
func (a *app) agreement(ctx context.Context, client *stream.Client, sides [2]diffSide, topic string, sample int) (g *server.Agreement, from, why string, err error) {
	if sample == 0 {
		return nil, "", "--sample is 0", nil
	}
	topics := []string{topic}
	if topic == "" {
		topics = slices.Compact([]string{sides[1].model.Lineage.Topic, sides[0].model.Lineage.Topic})
	}
	var records []stream.Record
	for _, from = range topics {
		records, err = client.Spread(ctx, from, sample)
		if ctx.Err() != nil || err != nil && topic != "" {
			return nil, from, "", err
		}
		if err == nil && len(records) > 0 {
			break
		}
		if why = "topic " + from + " holds no record now"; err != nil {
			f := explain(err)
			if why = f.what; f.where != "" {
				why += " (" + f.where + ")"
			}
		}
	}
	if len(records) == 0 {
		return nil, from, why, nil
	}
	g, err = server.CompareScores(ctx, bestEngine(), sides[0].data, sides[1].data, records, diffRows)
	return g, from, "", err
}

// Cells that the names and a model's column take.
const (
	diffNames = 26
	diffWidth = 30
)

// diffLine prints one thing as both models have it; an asterisk where they differ.
func (a *app) diffLine(label, x, y string) {
	mark := "  "
	if x != y {
		mark = a.term.paint(yellow, "* ")
	}
	a.printf("%s%s\n", mark, strings.TrimRight(pad(clean(label), diffNames)+" "+pad(clean(x), diffWidth)+" "+clean(y), " "))
}

// shownPair prints a pair whose sides may be absent.
func shownPair[T any](a *app, label string, p model.Pair[T], text func(T) string) {
	side := func(v *T) string {
		if v == nil {
			return "-"
		}
		return text(*v)
	}
	a.diffLine(label, side(p.A), side(p.B))
}

func (a *app) showComparison(sides [2]diffSide, c *model.Comparison) {
	itself := func(s string) string { return s }
	a.printf("  %s\n", strings.TrimRight(pad("", diffNames)+" "+pad(a.term.paint(bold, sides[0].manifest.String()), diffWidth)+" "+a.term.paint(bold, sides[1].manifest.String()), " "))
	a.diffLine("published", sides[0].manifest.Created.UTC().Format("2006-01-02 15:04"), sides[1].manifest.Created.UTC().Format("2006-01-02 15:04"))
	a.diffLine("digest", sides[0].manifest.Digest[:16], sides[1].manifest.Digest[:16])
	shownPair(a, "topic", c.Topic, itself)
	shownPair(a, "cluster", c.Cluster, itself)
	shownPair(a, "engine", c.Engine, itself)
	shownPair(a, "seed", c.Seed, func(n uint64) string { return strconv.FormatUint(n, 10) })
	shownPair(a, "network", c.Layers, func(l []int) string { return joinInts(l, "-") })
	shownPair(a, "columns", c.Columns, count[int])
	shownPair(a, "threshold", c.Threshold, fourDigits)
	shownPair(a, "threshold by", c.Choice, func(t model.ThresholdChoice) string {
		return fmt.Sprintf("%s, %s of records", t.Method, trainer.ShareText(t.Used))
	})
	shownPair(a, "rows used", c.Rows, func(r model.Rows) string { return fmt.Sprintf("%s of %s read", count(r.Used), count(r.Read)) })
	shownPair(a, "rows left out", c.Rows, func(r model.Rows) string {
		if len(r.LeftOut) == 0 {
			return "none"
		}
		return pairs(r.LeftOut, func(n int64) string { return count(n) })
	})

	a.diffHead("offsets", "")
	for _, p := range c.Partitions {
		shownPair(a, "partition "+p.Name, p, func(r model.PartitionRange) string {
			text := fmt.Sprintf("%s to %s", count(r.From), count(r.To))
			if r.Lost > 0 {
				text += fmt.Sprintf(", %s lost", count(r.Lost))
			}
			return text
		})
	}
	a.diffHead("features", fmt.Sprintf("%s the same", count(c.SameFields)))
	for _, p := range c.Features {
		shownPair(a, p.Name, p, itself)
	}
	if len(c.Ranges) > 0 {
		a.diffHead("data", "where usual values lie, where that differs")
	}
	for _, p := range c.Ranges {
		shownPair(a, p.Name, p, func(r model.Range) string {
			return fmt.Sprintf("%s to %s", fourDigits(float64(r[0])), fourDigits(float64(r[1])))
		})
	}
	if len(c.Settings) > 0 {
		a.diffHead("settings", "where they differ")
	}
	for _, p := range c.Settings {
		shownPair(a, p.Name, p, itself)
	}
	a.diffHead("metrics", "")
	for _, p := range c.Metrics {
		shownPair(a, p.Name, p, fourDigits)
	}
}

func (a *app) diffHead(title, note string) {
	if note != "" {
		note = "   " + a.term.paint(faint, note)
	}
	a.printf("\n%s%s\n", a.term.paint(bold, title), note)
}

func (a *app) showAgreement(sides [2]diffSide, g *server.Agreement, topic string) {
	line := func(label, format string, args ...any) {
		a.printf("%s", a.term.wrap(fmt.Sprintf("%-11s %s\n", label, clean(fmt.Sprintf(format, args...))), 14))
	}
	names := [2]string{sides[0].manifest.String(), sides[1].manifest.String()}
	a.printf("\n")
	line("sample", "%s of topic %s, spread evenly; %s scored by both", counted(g.Records, "record"), topic, count(g.Scored))
	for i, reasons := range []map[string]int{g.NotScoredA, g.NotScoredB} {
		for _, reason := range slices.Sorted(maps.Keys(reasons)) {
			line("", "%s not scored by %s: %s", count(reasons[reason]), names[i], reason)
		}
	}
	if g.Warming > 0 {
		line("", "%s scored without all the records that rolling features look back on: a sample leaves those out", count(g.Warming))
	}
	if sides[0].model.Spec.Rolling > 0 || sides[1].model.Spec.Rolling > 0 {
		line("", "rolling features look back over the sample alone: where it leaves records out, scores here are not those of serve, and more of them are anomalies")
	}
	switch {
	case g.Scored == 0:
		line("ranks", "nothing to compare: no record is scored by both")
	case g.Correlation != nil:
		line("ranks", "correlation %.3f (1: both rank the records alike; 0: the one says nothing of the other)", *g.Correlation)
	default:
		line("ranks", "no correlation: one of them gives every record the same score")
	}
	share := func(n int) string {
		return fmt.Sprintf("%s (%s)", count(n), trainer.ShareText(float64(n)/float64(max(g.Records, 1))))
	}
	line("anomalies", "%s by %s, %s by %s, %s by both", share(g.FlaggedA), names[0], share(g.FlaggedB), names[1], share(g.FlaggedBoth))
	if g.Scored == 0 {
		return
	}
	if len(g.Most) == 0 {
		line("differ most", "nowhere: every record has the same percentile in both")
		return
	}
	line("differ most", "score and percentile of the records whose rarity they judge most differently, in powers of ten")
	keyed := slices.ContainsFunc(g.Most, func(d server.Disagreement) bool { return d.Key != "" })
	a.printf("  %9s %12s  %-28s %-28s%s\n", "partition", "offset", names[0], names[1], map[bool]string{true: " key"}[keyed])
	verdict := func(v server.Verdict) string {
		text := fmt.Sprintf("%s (%.4g%%)", fourDigits(float64(v.Score)), v.Percentile)
		if v.Anomaly {
			text += " anomaly"
		}
		return text
	}
	for _, d := range g.Most {
		text := fmt.Sprintf("  %9d %12s  %-28s %-28s", d.Partition, count(d.Offset), verdict(d.A), verdict(d.B))
		if keyed {
			text += " " + clean(d.Key)
		}
		a.printf("%s\n", strings.TrimRight(text, " "))
	}
}

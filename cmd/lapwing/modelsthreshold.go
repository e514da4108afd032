package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lapwing-stream/lapwing/events"
	"github.com/lapwing-stream/lapwing/model"
	"github.com/lapwing-stream/lapwing/registry"
	"github.com/lapwing-stream/lapwing/server"
	"github.com/lapwing-stream/lapwing/trainer"
)

// thresholdFlags are the wishes as they were typed; one of them at most.
type thresholdFlags struct {
	rate, alarms, score, factor, tail string
	labels, label, goal               string
	file                              events.FileOptions
	delimiter                         string
	alias, why                        string
	dryRun, fresh                     bool
}

// wishes are the flags that ask for a threshold, in the order of --help.
var wishes = []string{"rate", "alarms-per-day", "score", "factor", "pot", "labels"}

func (a *app) modelsThreshold() *cobra.Command {
	var o thresholdFlags
	cmd := &cobra.Command{
		Use: "threshold NAME[@ALIAS|/VERSION]", Short: "Show what a model's threshold means, or change it without retraining",
		Long: `Without a flag that asks for another threshold, says how the present one was chosen, how many
alarms a day it means and how sure that is, and what others would mean.

With one, publishes the same weights with the new threshold as a new version, whose lineage names
the old one as its parent. The alias that was given moves to it (NAME alone is NAME@live), so a
running scorer takes it at once; a version that is named by its number moves no alias unless
--alias says which. No history is read: the model carries the quantiles of its scores.`,
		Example: `  lapwing models threshold cars
  lapwing models threshold cars --alarms-per-day 20
  lapwing models threshold cars --rate 0.1% --dry-run
  lapwing models threshold cars/3 --factor 1.1 --alias none
  lapwing models threshold cars --labels week.csv --label fault --goal recall=90%`,
		Args: args(1, 1, "the name of a model"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := parseRef(args[0])
			if err != nil {
				return err
			}
			ask, err := o.check(cmd)
			if err != nil {
				return err
			}
			return a.withRegistry(cmd, func(r *registry.Registry, e *effective) error {
				manifest, data, err := r.Get(cmd.Context(), ref)
				if err != nil {
					return noModelTopic(err, e)
				}
				m, err := model.Decode(data)
				if err != nil {
					return fmt.Errorf("model %s cannot be read: %w", manifest, err)
				}
				if ask == nil {
					return a.showThreshold(manifest, m)
				}
				return a.changeThreshold(cmd, r, &o, ask, ref, manifest, data, m)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.rate, "rate", "", "`SHARE` of the history that may lie above it, such as 0.1%; 0: none of it")
	f.StringVar(&o.alarms, "alarms-per-day", "", "scores above it a day, a `NUMBER`, at the records a day that the history had")
	f.StringVar(&o.score, "score", "", "the threshold itself, a `SCORE`")
	f.StringVar(&o.factor, "factor", "", "`TIMES` the highest score of the history, such as 1.1: no row of it alarms; fragile, as one row decides")
	f.StringVar(&o.tail, "pot", "", "`SHARE` of records above it by a fit of the scores' tail (peaks over threshold); refused where the tail is not smooth")
	f.StringVar(&o.labels, "labels", "", "`FILE` with labelled rows, which are scored and not learnt from; - is standard input")
	f.StringVar(&o.label, "label", "", "with --labels: the `FIELD` with the truth, 0 or 1")
	f.StringVar(&o.goal, "goal", model.GoalF1, "with --labels: `f1|recall=SHARE|precision=SHARE` that it shall reach")
	f.StringVar(&o.alias, "alias", "", "`ALIAS` that moves to the new version; none leaves all alone; empty: the one that was named")
	f.BoolVar(&o.fresh, "new-alias", false, "make the alias if the model has none of that name; live, canary and shadow need no leave")
	f.StringVar(&o.why, "why", "", "`REASON`, for the alias's history")
	f.BoolVar(&o.dryRun, "dry-run", false, "say what it would mean; publish nothing")
	f.StringVar(&o.file.Format, "format", "", "with --labels: `csv|jsonl`; empty: found by name and content")
	f.StringVar(&o.delimiter, "delimiter", "", "with --labels: `CHARACTER` between CSV columns, or tab; empty: found")
	a.jsonFlag(f, "print one JSON object")
	return cmd
}

// check turns the flags into a wish; nil = none.
func (o *thresholdFlags) check(cmd *cobra.Command) (*model.Ask, error) {
	var given []string
	for _, w := range wishes {
		if cmd.Flags().Changed(w) {
			given = append(given, "--"+w)
		}
	}
	var list []error
	if len(given) > 1 {
		list = append(list, usage("only one threshold can be asked for, not "+strings.Join(given, " and "), "", "leave one of them"))
	}
	if o.labels != "" && o.label == "" {
		list = append(list, usage("--labels needs --label, the field with the truth", "", "name it: --label FIELD"))
	}
	for _, name := range []string{"label", "goal", "format", "delimiter"} {
		if cmd.Flags().Changed(name) && o.labels == "" {
			list = append(list, usage("--"+name+" belongs to --labels, and no --labels is given", "", "add --labels FILE"))
		}
	}
	for _, name := range []string{"alias", "new-alias", "why", "dry-run"} {
		if cmd.Flags().Changed(name) && len(given) == 0 {
			list = append(list, usage("--"+name+" changes nothing by itself", "", "add the threshold to set: --rate, --alarms-per-day, --score, --factor, --pot or --labels"))
		}
	}
	if _, err := model.ParseGoal(o.goal); err != nil {
		list = append(list, usage(fmt.Sprintf("--goal: %q is not known", o.goal), "", "use f1, recall=90% or precision=50%"))
	}
	list = append(list, checkFileFlags(&o.file, o.delimiter)...)
	ask := &model.Ask{}
	number := func(flag, text, method string, share bool) {
		if !cmd.Flags().Changed(flag) {
			return
		}
		v, err := parseNumber(strings.TrimSpace(text))
		what, example := "number", map[string]string{model.ByAlarms: "20", model.ByFactor: "1.1", model.ByScore: "4.5"}[method]
		if share {
			var s Share
			s, err = parseShare(text)
			v, what, example = float64(s), "share", "0.1%"
		}
		if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
			list = append(list, usage(fmt.Sprintf("--%s: %q is not a %s", flag, text, what), "", "give one, such as --"+flag+" "+example))
			return
		}
		ask.Method, ask.Value = method, v
	}
	number("rate", o.rate, model.ByQuantile, true)
	number("alarms-per-day", o.alarms, model.ByAlarms, false)
	number("score", o.score, model.ByScore, false)
	number("factor", o.factor, model.ByFactor, false)
	number("pot", o.tail, model.ByTail, true)
	if o.labels != "" {
		ask.Method = model.ByLabel
	}
	switch {
	case len(list) == 1:
		return nil, list[0]
	case len(list) > 1:
		return nil, &faults{what: fmt.Sprintf("%d flags of %s are wrong", len(list), cmd.CommandPath()), list: list, code: exitUsage}
	case len(given) == 0:
		return nil, nil
	}
	return ask, nil
}

// rateRow is one line of the table of what other thresholds would mean.
type rateRow struct {
	Rate   float64  `json:"rate"`
	Score  float64  `json:"score"`
	Alarms *float64 `json:"alarms_per_day,omitempty"`
	Low    float64  `json:"low"`
	High   float64  `json:"high"`
	Few    bool     `json:"few,omitempty"`
	Needs  int64    `json:"needs"` // rows of history
}

// tableRates are the shares in the table.
var tableRates = []float64{.1, .05, .01, .005, .001, 5e-4, 1e-4, 1e-5}

// rateTable says what the usual rates come to; it ends with the first one that the history is too short for.
func rateTable(m *model.Model) []rateRow {
	var rows []rateRow
	for _, rate := range tableRates {
		threshold, c, err := m.Choose(model.Ask{Method: model.ByQuantile, Value: rate})
		if err != nil {
			continue
		}
		row := rateRow{Rate: rate, Score: threshold, Low: c.Low, High: c.High, Few: c.Few, Needs: int64(math.Ceil(10/rate - 1e-6))}
		if d := m.RecordsPerDay(); d > 0 {
			alarms := c.Above * d
			row.Alarms = &alarms
		}
		rows = append(rows, row)
		if c.Few {
			break
		}
	}
	return rows
}

// present is how the threshold that a model has was chosen, as far as the model says.
func present(m *model.Model) model.ThresholdChoice {
	if m.Lineage.Threshold != nil {
		return *m.Lineage.Threshold
	}
	c := model.ThresholdChoice{Rows: m.Lineage.Rows.Used}
	m.Weigh(m.Threshold, &c)
	return c
}

func (a *app) showThreshold(manifest registry.Manifest, m *model.Model) error {
	c := present(m)
	table := rateTable(m)
	if a.json {
		return a.encodeJSON(map[string]any{
			"model": manifest.Name, "version": manifest.Version, "threshold": m.Threshold, "choice": c, "records_per_day": m.RecordsPerDay(),
			"rows": m.Lineage.Rows.Used, "suspicious": m.Suspicious(), "table": table,
		})
	}
	a.printf("%s\n", a.term.paint(bold, manifest.String()))
	line := a.thresholdLine
	line("threshold", "%s: a record that scores above it is an anomaly", fourDigits(m.Threshold))
	line("", "%s", trainer.HowChosen(c))
	a.meaning(m, c)
	a.printf("\n%8s %10s  %-18s %s\n", "share", "threshold", "true share", "alarms a day")
	for _, r := range table {
		if r.Few {
			a.printf("%8s  needs %s rows of history; this one has %s\n", trainer.ShareText(r.Rate), count(r.Needs), count(m.Lineage.Rows.Used))
			break
		}
		alarms := "not known"
		if r.Alarms != nil {
			alarms = trainer.Alarms(*r.Alarms)
		}
		a.printf("%8s %10s  %-18s %s\n", trainer.ShareText(r.Rate), fourDigits(r.Score), trainer.ShareText(model.Digits(r.Low, 2))+" to "+trainer.ShareText(model.Digits(r.High, 2)), alarms)
	}
	a.printf("\nset one: lapwing models threshold %s --rate 0.1%%\n", shellWord(manifest.Name))
	return nil
}

func (a *app) thresholdLine(label, format string, args ...any) {
	a.printf("%s", a.term.wrap(fmt.Sprintf("%-10s %s\n", label, clean(fmt.Sprintf(format, args...))), 13))
}

// meaning prints what a threshold means.
func (a *app) meaning(m *model.Model, c model.ThresholdChoice) {
	for _, text := range trainer.WhatItMeans(c, m.RecordsPerDay()) {
		a.thresholdLine("", "%s", text)
	}
	if m.RecordsPerDay() == 0 {
		a.thresholdLine("", "how many records a day the topic has is not known: its history's times do not say")
	}
	if text := trainer.Budget(m, c); text != "" {
		a.thresholdLine("", "%s", text)
	}
	if s := c.Sample; s != nil {
		a.thresholdLine("", "on the labelled rows: recall %.3f (%s to %s), precision %.3f, F1 %.3f",
			s.Recall, trainer.ShareText(model.Digits(s.RecallLow, 2)), trainer.ShareText(model.Digits(s.RecallTop, 2)), s.Precision, s.F1())
	}
}

// changeThreshold publishes the model with another threshold.
func (a *app) changeThreshold(cmd *cobra.Command, r *registry.Registry, o *thresholdFlags, ask *model.Ask, ref registry.Ref, manifest registry.Manifest, data []byte, m *model.Model) error {
	var threshold float64
	var c model.ThresholdChoice
	var judged *trainer.Judgement
	var err error
	if ask.Method == model.ByLabel {
		threshold, c, judged, err = a.byLabels(cmd.Context(), o, manifest, data, m)
	} else if threshold, c, err = m.Choose(*ask); err != nil {
		err = askFault(err, manifest)
	}
	if err != nil {
		return err
	}
	next := m.With(threshold, c, model.Digest(data))
	bytes, err := next.Encode()
	if err != nil {
		return fmt.Errorf("model %s with another threshold: %w", manifest, err)
	}
	alias := o.alias
	if alias == "" {
		alias = ref.Alias // none with a version's number
	}
	if alias == "none" {
		alias = ""
	}
	if alias != "" {
		if err := knownAlias(cmd.Context(), r, registry.Ref{Name: manifest.Name, Alias: alias}, o.fresh); err != nil {
			return err
		}
	}
	var made registry.Manifest
	if !o.dryRun {
		why := o.why
		if why == "" {
			why = "threshold " + fourDigits(threshold) + " in place of " + fourDigits(m.Threshold)
		}
		if made, err = r.Publish(cmd.Context(), registry.Publication{Name: manifest.Name, Data: bytes, Alias: alias, Why: why, Parent: next.Lineage.Parent}); err != nil {
			return err
		}
	}
	if a.json {
		object := map[string]any{
			"model": manifest.Name, "from": manifest.Version, "threshold_before": m.Threshold, "threshold": threshold, "choice": c,
			"records_per_day": m.RecordsPerDay(), "published": !o.dryRun, "alias": alias, "judgement": judged,
		}
		if !o.dryRun {
			object["version"], object["digest"], object["parent"] = made.Version, made.Digest, next.Lineage.Parent
		}
		return a.encodeJSON(object)
	}
	if judged != nil {
		for i, text := range judged.Lines() {
			a.thresholdLine([]string{"label", ""}[min(i, 1)], "%s", text)
		}
	}
	before := fmt.Sprintf("%s: %s of the history lies above it", fourDigits(m.Threshold), trainer.ShareText(present(m).Above))
	if d := m.RecordsPerDay(); d > 0 {
		before += ", about " + trainer.Alarms(present(m).Above*d) + " alarms a day"
	}
	a.thresholdLine("before", "%s", before)
	a.thresholdLine("now", "%s, %s", fourDigits(threshold), trainer.HowChosen(c))
	a.meaning(m, c)
	switch {
	case o.dryRun:
		a.printf("nothing is published: --dry-run\n")
		return nil
	case alias == "":
		a.printf("%s is published from %s with the same weights; no alias means it yet:\n  lapwing models move %s@live %s\n",
			a.term.paint(bold, made.String()), manifest, shellWord(manifest.Name), strconv.Itoa(made.Version))
	default:
		a.printf("%s is published from %s with the same weights; %s@%s means it now\n", a.term.paint(bold, made.String()), manifest, manifest.Name, alias)
	}
	return nil
}

// askFault says what else can be asked for.
func askFault(err error, manifest registry.Manifest) error {
	f := &fault{what: err.Error(), where: "model " + manifest.String(), cause: err, next: "lapwing models threshold " + manifest.String() + " lists what is possible"}
	switch {
	case errors.Is(err, model.ErrNoRate):
		f.next = "ask for a share of the records (--rate), or train with the field that has the event time (--time)"
	case errors.Is(err, model.ErrNotSmooth):
		f.next = "take a quantile of the history: --rate"
	}
	return f
}

// byLabels scores a labelled file and chooses the threshold that reaches the goal on it.
func (a *app) byLabels(ctx context.Context, o *thresholdFlags, manifest registry.Manifest, data []byte, m *model.Model) (float64, model.ThresholdChoice, *trainer.Judgement, error) {
	var c model.ThresholdChoice
	fail := func(err error) (float64, model.ThresholdChoice, *trainer.Judgement, error) { return 0, c, nil, err }
	goal, err := model.ParseGoal(o.goal)
	if err != nil {
		return fail(err)
	}
	label, err := events.LabelReader(m.Spec, o.label)
	if err != nil {
		return fail(&fault{what: "--label: " + err.Error(), cause: err})
	}
	f, err := openFile(o.labels, o.file)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	var rows []model.Labelled
	unlabelled, rejected := int64(0), (*rejects)(nil)
	report, err := server.ScoreBounded(ctx, server.BoundedOptions{
		Data: data, Ref: registry.Ref{Name: manifest.Name, Version: manifest.Version}, Engine: bestEngine(), Source: o.labels,
	}, f.Next, func(s *server.Scored) error {
		if s.Reason != "" {
			if rejected == nil && s.Reason != events.Tombstone.String() {
				rejected = &rejects{At: fmt.Sprintf("%s:%d", o.labels, s.Line), Detail: strings.TrimSpace(s.Reason + " " + s.Detail)}
			}
			return nil
		}
		positive, ok := label(s.Value)
		if !ok {
			unlabelled++
			return nil
		}
		rows = append(rows, model.Labelled{Score: s.Score, Anomalous: positive})
		return nil
	})
	if err != nil {
		return fail(err)
	}
	if len(rows) == 0 {
		f := &fault{what: fmt.Sprintf("none of the %s rows has a score and a readable label %s", count(report.Records), o.label), where: o.labels, next: "check --label and the file's columns"}
		if rejected != nil {
			f.where = rejected.At + ": " + rejected.Detail
		}
		return fail(f)
	}
	threshold, err := model.ByLabels(rows, goal)
	if err != nil {
		next := "ask for less, or choose by quantile (--rate)"
		if errors.Is(err, model.ErrOneClass) {
			next = "give a sample with both, or choose by quantile (--rate)"
		}
		return fail(&fault{what: err.Error(), where: o.labels, next: next, cause: err})
	}
	c = model.ThresholdChoice{Method: model.ByLabel, Goal: goal.Name, Asked: goal.Least, Rows: m.Lineage.Rows.Used, Sample: model.JudgeSample(rows, threshold)}
	m.Weigh(threshold, &c)
	for _, n := range []struct {
		n    int64
		what string
	}{{unlabelled, "no readable label"}, {report.Records - report.Scored, "no score"}} {
		if n.n > 0 && !a.json {
			a.printf("%s rows have %s and are left out\n", count(n.n), n.what)
		}
	}
	return threshold, c, trainer.Judge(rows, threshold), nil
}

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lapwing-stream/lapwing/trainer"
)

// shownModels is how many candidates or keys are listed on a terminal; the JSON has all.
const shownModels = 20

// columns prints rows of cells, all but the first of a row right-aligned where numbers stand.
func (a *app) columns(label string, rows [][]string, left int) {
	width := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, c := range r {
			width[i] = max(width[i], cells(c))
		}
	}
	for n, r := range rows {
		line := ""
		for i, c := range r {
			if i < left {
				line += c + strings.Repeat(" ", width[i]-cells(c)) + "  "
			} else {
				line += padLeft(c, width[i]) + "  "
			}
		}
		if n > 0 {
			label = ""
		}
		a.printf("%-11s %s\n", label, strings.TrimRight(line, " "))
	}
}

// printCandidates is the table of the networks that were tried, the best first.
func (a *app) printCandidates(c *trainer.Candidates) {
	if c == nil {
		return
	}
	tried := slices.Clone(c.Tried)
	slices.SortStableFunc(tried, func(x, y trainer.Candidate) int {
		if (x.Fault == "") != (y.Fault == "") {
			return cmp.Compare(len(x.Fault), len(y.Fault))
		}
		if c.Criterion == trainer.ByValidationLoss {
			return cmp.Compare(x.Criterion, y.Criterion)
		}
		return cmp.Compare(y.Criterion, x.Criterion)
	})
	ranked := c.Criterion != trainer.ByValidationLoss
	row := func(mark, varies, loss, precision, steps, time string) []string {
		if ranked {
			return []string{mark, varies, loss, precision, steps, time}
		}
		return []string{mark, varies, loss, steps, time}
	}
	rows := [][]string{row("", c.Vary, "validation loss", "average precision", "steps", "time")}
	for _, k := range tried[:min(len(tried), shownModels)] {
		mark, validation, precision := " ", loss(k.ValidationLoss), fourDigits(k.Criterion)
		if k.Chosen {
			mark = "*"
		}
		if k.Fault != "" {
			validation, precision = "diverged", "-"
		}
		_, varies, _ := strings.Cut(k.Varies, " ") // without the word that heads the column
		rows = append(rows, row(mark, varies, validation, precision, count(k.Steps), seconds(time.Duration(k.Seconds*float64(time.Second)))))
	}
	a.columns("candidates", rows, 2)
	if more := len(tried) - shownModels; more > 0 {
		a.printf("%-11s and %d more; --json has all\n", "", more)
	}
	a.printf("%-11s criterion: the %s", "", trainer.Criterion(c.Criterion))
	if c.Why != "" {
		a.printf(" (%s)", clean(c.Why))
	}
	a.printf("\n")
}

// printKeys is the table of the keys' models, and why keys have none.
func (a *app) printKeys(r *trainer.Report) {
	rows := [][]string{{"key", "model", "rows", "validation loss", "threshold", "time"}}
	var without []trainer.KeyModel
	made := 0
	for _, k := range r.Keys {
		if k.Fault != "" {
			without = append(without, k)
			continue
		}
		if made++; made <= shownModels {
			rows = append(rows, []string{clean(k.Key), k.Name, count(k.Rows), loss(k.Report.ValidationLoss), fourDigits(k.Report.Threshold), seconds(time.Duration(k.Seconds * float64(time.Second)))})
		}
	}
	a.columns("models", rows, 2)
	if more := made - shownModels; more > 0 {
		a.printf("%-11s and %d more; --json has all\n", "", more)
	}
	label := "left out"
	for _, k := range without[:min(len(without), shownModels)] {
		a.printf("%-11s %s: %s\n", label, clean(k.Key), clean(k.Fault))
		label = ""
	}
	if more := len(without) - shownModels; more > 0 {
		a.printf("%-11s and %d more keys; --json has all\n", "", more)
	}
	if r.WithoutKey > 0 {
		a.printf("%-11s %s without a key\n", label, counted(r.WithoutKey, "row"))
	}
	if r.Spec.Key == "" {
		a.printf("%-11s the keys are the records' own, which a stream's condition cannot see: to be served, they must stand in a field (--key)\n", "note")
	}
}

// keysJSON are the keys for writeTrainJSON.
func keysJSON(r *trainer.Report) []map[string]any {
	list := []map[string]any{}
	for _, k := range r.Keys {
		o := map[string]any{"key": k.Key, "model": k.Name, "rows": k.Rows}
		if k.Fault != "" {
			o["fault"] = k.Fault
		} else {
			o["version"], o["digest"], o["threshold"], o["validation_loss"], o["seconds"] = k.Manifest.Version, k.Manifest.Digest, k.Report.Threshold, k.Report.ValidationLoss, k.Seconds
		}
		list = append(list, o)
	}
	return list
}

// nextKeyLines serve the first key's model: a stream of its own, with outputs of its own. Which records are that key's, a condition
// can say where the key is a field with text.
func (a *app) nextKeyLines(cmd *cobra.Command, o *trainFlags, r *trainer.Report) []string {
	for _, k := range r.Keys {
		one := *o
		one.model = k.Name
		if k.Fault == "" && r.Spec.Key != "" {
			if _, err := strconv.ParseFloat(k.Key, 64); err == nil || strings.ContainsAny(k.Key, "\"\\") {
				continue
			}
			where := fmt.Sprintf("event.%s == %q", r.Spec.Key, k.Key)
			if one.Where = where; o.Where != "" {
				one.Where = "(" + o.Where + ") && " + where
			}
			lines := a.nextLines(cmd, &one, k.Manifest)
			topic := one.topic + k.Name[strings.LastIndex(k.Name, o.model)+len(o.model):]
			lines[len(lines)-2] += " --output " + shellWord(topic+".scores") + " --alerts " + shellWord(topic+".alerts")
			return lines[:len(lines)-1]
		}
	}
	return nil
}

// candidatesText says where several networks stand.
func candidatesText(r trainer.Progress) string {
	s := fmt.Sprintf("  %d candidates", len(r.Candidates))
	if r.Running > 0 && r.Done < 1 {
		s += fmt.Sprintf(", %d learning", r.Running)
	}
	if r.Epochs > 0 {
		s += fmt.Sprintf("  epoch %d/%d", min(max(r.Epoch, 1), r.Epochs), r.Epochs)
	}
	if r.Leader != "" {
		s += fmt.Sprintf("  validation %s (%s)", loss(r.Validation), r.Leader)
	}
	if r.SamplesPerSecond > 0 {
		s += "  " + rate(r.SamplesPerSecond)
	}
	return s
}

// candidateLines are one for each network, as many as a block has room for.
func candidateLines(r trainer.Progress) (lines []string) {
	const most = 8
	for i, k := range r.Candidates {
		if i == most {
			return append(lines, fmt.Sprintf("             and %d more", len(r.Candidates)-most))
		}
		stands := fmt.Sprintf("validation %s  %s", loss(k.ValidationLoss), counted(int64(k.Steps), "step"))
		switch {
		case k.Fault != "":
			stands = "diverged"
		case k.Steps == 0:
			stands = "waits"
		}
		lines = append(lines, fmt.Sprintf("             %-16s %s", k.Varies, stands))
	}
	return lines
}

//go:build e2e

package main

import (
	"fmt"
	"slices"
	"testing"

	"github.com/lapwing-stream/lapwing/bench/quality"
)

// Five sets through the command that a user would run, with nothing set. The bounds lie below what was measured by about
// .02 of AUC and .06 of average precision and of precision at n (.03, .07 and .12 on cardio, which is small): whoever
// makes the detector worse hears of it here.
func TestQuality(t *testing.T) {
	dir, _ := manifest(t)
	bounds := []struct {
		set          string
		auc, ap, atN float64
	}{
		{"adbench/breastw", .95, .88, .84},
		{"adbench/cardio", .80, .38, .45},
		{"adbench/musk", .98, .92, .88},
		{"adbench/pageblocks", .94, .67, .62},
		{"adbench/shuttle", .98, .80, .88},
	}
	globs := ""
	for _, b := range bounds {
		globs += "," + b.set
	}
	f := embedded(t) // for its folder and command line: the bench brings a broker of its own
	var got quality.Report
	f.run(&got, "bench", "quality", "--data", dir, "--sets", globs[1:], "--splits", "1", "--no-peers", "--json")
	if len(got.Sets) != len(bounds) || len(got.Mean) != 1 || got.Mean[quality.Lapwing].Sets != len(bounds) {
		t.Fatalf("%d sets, means %v", len(got.Sets), got.Mean)
	}
	for _, b := range bounds {
		at := slices.IndexFunc(got.Sets, func(s quality.Set) bool { return s.Name == b.set })
		if at < 0 {
			t.Fatalf("no set %s", b.set)
		}
		m := got.Sets[at].Subjects[quality.Lapwing]
		if m.Error != "" {
			t.Errorf("%s: %s", b.set, m.Error)
			continue
		}
		for _, c := range []struct {
			name  string
			value *float64
			least float64
		}{{"AUC", m.AUC, b.auc}, {"average precision", m.AP, b.ap}, {"precision at n", m.PAtN, b.atN}} {
			if c.value == nil || !(*c.value >= c.least) {
				t.Errorf("%s: %s is %s, want at least %v", b.set, c.name, printed(c.value), c.least)
			}
		}
		t.Logf("%s: AUC %s, average precision %s, precision at n %s, %s s", b.set, printed(m.AUC), printed(m.AP), printed(m.PAtN), printed(m.Seconds))
	}
}

func printed(v *float64) string {
	if v == nil {
		return "undefined"
	}
	return fmt.Sprintf("%.3f", *v)
}

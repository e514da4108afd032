package main

import "strings"

// nearest gives the candidate that a mistyped name most likely means, or "" where none is close: at most a
// third of the longer name may differ.
func nearest(name string, candidates []string) string {
	best, least := "", 0
	low := strings.ToLower(name)
	for _, c := range candidates {
		d := distance(low, strings.ToLower(c))
		if limit := max(len(name), len(c))/3 + 1; d > limit || d >= max(len(name), len(c)) {
			continue
		}
		if best == "" || d < least {
			best, least = c, d
		}
	}
	return best
}

// distance counts the insertions, deletions, replacements and swaps of neighbours between two names.
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	before := make([]int, len(y)+1)
	last := make([]int, len(y)+1)
	for j := range last {
		last[j] = j
	}
	for i := range x {
		row := make([]int, len(y)+1)
		row[0] = i + 1
		for j := range y {
			cost := 1
			if x[i] == y[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && x[i] == y[j-1] && x[i-1] == y[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(y)]
}

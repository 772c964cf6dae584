package jinja

import (
	"fmt"
	"maps"
	"slices"
)

// didYouMean returns a hint at the candidate that is most like name, or "". A
// third of the name may differ.
func didYouMean(name string, candidates []string) string {
	best, bestDistance := "", len(name)/3
	for _, c := range candidates {
		if d := distance(name, c); d <= bestDistance && (best == "" || d < bestDistance) {
			best, bestDistance = c, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

func keys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// distance is how many bytes have to be inserted, deleted or replaced to make
// one name of the other.
func distance(a, b string) int {
	// Names in a hint are short; a long one is like none of them.
	if len(a) > 64 || len(b) > 64 {
		return len(a) + len(b)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

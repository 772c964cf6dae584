package decode

import "strings"

// nearest returns the known key that an unknown one is probably a misspelling
// of, or "".
func nearest(key string, known []string) string {
	const longest = 64
	if len(key) > longest {
		return ""
	}
	best, least := "", 0
	for _, candidate := range known {
		d := distance(fold(key), fold(candidate))
		if d <= allowance(candidate) && (best == "" || d < least) {
			best, least = candidate, d
		}
	}
	return best
}

// allowance is how many typing mistakes a key of its length may contain and
// still be recognised.
func allowance(key string) int { return min((len(key)+1)/4, 3) }

// fold removes the difference between max_age, max-age and maxAge.
func fold(key string) string {
	return strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(key))
}

// distance counts the single-byte insertions, removals and replacements, and
// the exchanges of two neighbours, that turn a into b.
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := last[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			row[j] = min(replace, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

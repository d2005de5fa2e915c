package cloud

import (
	"cmp"
	"slices"
	"strings"
)

// alike hints at the names that are nearest to a wrong one.
func alike(name string, names []string, otherwise string) string {
	type near struct {
		name     string
		distance int
	}
	wrong := strings.ToLower(name)
	var found []near
	for _, n := range names {
		right := strings.ToLower(n)
		d := distance(wrong, right)
		if wrong != "" && (strings.Contains(right, wrong) || strings.Contains(wrong, right)) {
			d = min(d, 2)
		}
		if d <= max(2, len(right)/3) {
			found = append(found, near{n, d})
		}
	}
	if len(found) == 0 {
		return otherwise
	}
	slices.SortFunc(found, func(a, b near) int { return cmp.Or(a.distance-b.distance, cmp.Compare(a.name, b.name)) })
	nearest := make([]string, 0, 3)
	for _, n := range found[:min(3, len(found))] {
		nearest = append(nearest, n.name)
	}
	return "did you mean " + strings.Join(nearest, ", ") + "? " + otherwise
}

// distance is how many letters differ between two short texts (Levenshtein).
func distance(a, b string) int {
	if len(a) > 80 || len(b) > 80 {
		return max(len(a), len(b))
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := corner
			if a[i] != b[j] {
				change++
			}
			corner = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

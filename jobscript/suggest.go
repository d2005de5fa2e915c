package jobscript

import (
	"strings"
)

// suggest is the hint for an unknown directive: the nearest known word, when
// one is near, or all of them. prefix is put before each word.
func suggest(word, prefix string) string {
	bare := strings.ToLower(strings.TrimLeft(word, "-"))
	if i := strings.IndexAny(bare, "=:"); i > 0 {
		bare = bare[:i] // nodes=2, nodes: 2
	}
	bare = strings.ReplaceAll(bare, "_", "-")
	if len(bare) > 40 {
		bare = "" // no typing error, and the distance costs time
	}
	if r := byWord[bare]; r != nil && bare != strings.TrimLeft(word, "-") && prefix == "" {
		return "write it like this: " + r.Example
	}
	nearest, least := "", len(bare)/3+1
	for i := range table {
		for _, known := range append([]string{table[i].Name}, table[i].Aliases...) {
			if d := distance(bare, known); d < least || d == least && nearest == "" {
				nearest, least = known, d
			}
		}
	}
	if bare != "" && nearest != "" {
		return `did you mean "` + prefix + nearest + `"?`
	}
	names := make([]string, len(table))
	for i := range table {
		names[i] = prefix + table[i].Name
	}
	return "known are " + strings.Join(names, ", ")
}

// distance is the number of typing errors between two words: a byte too many,
// one missing, one wrong, or two neighbours exchanged.
func distance(a, b string) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, above, here := rows[(i+2)%3], rows[i%3], rows[(i+1)%3]
		here[0] = i
		for j := 1; j <= len(b); j++ {
			wrong := 1
			if a[i-1] == b[j-1] {
				wrong = 0
			}
			here[j] = min(above[j]+1, here[j-1]+1, above[j-1]+wrong)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				here[j] = min(here[j], before[j-2]+1)
			}
		}
	}
	return rows[(len(a)+1)%3][len(b)]
}

package jobscript

import (
	"strings"

	"github.com/openworkload/skyport"
)

// Format returns the request as lines of directives, each ended by a newline,
// in the order of [Keywords]. Defaults are left out, but for nodes, so the text
// is never empty. Parse reads the text back to the same request, provided that
// the request is one that Parse could have returned.
func Format(r skyport.Request) string {
	var b strings.Builder
	for i := range table {
		for _, value := range table[i].argument.write(&r) {
			b.WriteString(mark)
			b.WriteByte(' ')
			b.WriteString(table[i].Name)
			if value != "" {
				b.WriteByte(' ')
				b.WriteString(value)
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

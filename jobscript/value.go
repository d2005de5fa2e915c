package jobscript

import (
	"fmt"
	"strings"

	"github.com/openworkload/skyport"
)

// value is what follows a keyword in the script or in an override, and where.
type value struct {
	p     *parser
	row   *row
	word  string // the keyword as it was spelled
	text  string // without blanks at its ends
	whole string // the line that text is a part of
	at    int    // offset of text in whole
	line  int    // number of the line; 0 for an override
}

// override says whether the value is not the script's own.
func (v value) override() bool { return v.line == 0 }

// fail reports an error at an offset of the value's text. An empty hint shows
// the example of the directive.
func (v value) fail(offset int, hint, format string, args ...any) {
	args = append([]any{v.word}, args...)
	var err *skyport.Error
	if v.override() {
		err = skyport.Errorf(skyport.CodeInvalidScript, "--%s: "+format, args...)
	} else {
		err = v.p.errorAt(v.line, column(v.whole[:v.at+offset]), "%s: "+format, args...)
	}
	switch {
	case hint != "":
	case strings.Contains(v.text, " #"):
		hint = "put a remark on a line of its own: here it is a part of the value"
	default:
		hint = "for example: " + v.row.example(v.override())
	}
	v.p.add(err.WithHint("%s", hint))
}

// refuse reports that a part of the value, at an offset of its text, is not
// what the directive takes.
func (v value) refuse(offset int, part, format string, args ...any) {
	v.fail(offset, "", "expected %s, not %q", fmt.Sprintf(format, args...), skyport.Abbreviate(part, 60))
}

// claim notes that this value says name in the list of its directive, and
// reports an error when the list has it already.
func (v value) claim(name string, offset int, what, hint string) bool {
	first, said := v.p.claim(claim{v.row, name}, v.line)
	switch {
	case !said:
		return true
	case first == 0:
		v.fail(offset, hint, "%s is there twice", what)
	default:
		v.fail(offset, hint, "%s is there already, on line %d", what, first)
	}
	return false
}

// take counts the bytes that the list of this directive has so far, n more
// included.
func (v value) take(n int) int {
	if v.p.taken == nil {
		v.p.taken = make(map[*row]int)
	}
	v.p.taken[v.row] += n
	return v.p.taken[v.row]
}

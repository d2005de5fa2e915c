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
	if len(v.p.errs) >= maxErrors {
		return // spare the work: one line can have very many mistakes
	}
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

// list is what the directive of this value has said so far.
func (v value) list() *list {
	if l := v.p.lists[v.row]; l != nil {
		return l
	}
	if v.p.lists == nil {
		v.p.lists = make(map[*row]*list)
	}
	l := &list{lines: make(map[string]int)}
	v.p.lists[v.row] = l
	return l
}

// claim notes that this value says name, and reports an error when its
// directive has said it before.
func (v value) claim(name string, offset int, what, hint string) bool {
	lines := v.list().lines
	first, said := lines[name]
	switch {
	case !said:
		lines[name] = v.line
		return true
	case first == 0:
		v.fail(offset, hint, "%s is there twice", what)
	default:
		v.fail(offset, hint, "%s is there already, on line %d", what, first)
	}
	return false
}

// take counts n bytes more, and returns how many the directive has in all.
func (v value) take(n int) int {
	l := v.list()
	l.size += n
	return l.size
}

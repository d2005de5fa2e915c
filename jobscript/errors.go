package jobscript

import (
	"strings"

	"github.com/openworkload/skyport"
)

// Errors is everything that is wrong with a script, in the order in which it
// was found; never empty when returned. errors.As finds the first.
//
// Line and Column of each are 1-based and 0 for an override, whose message
// begins with its flag instead. A column counts characters (Unicode code
// points; a tab is one, and so is a byte that is not UTF-8).
type Errors []*skyport.Error

// maxErrors is how many are collected: nobody reads more, and a hostile script
// of millions of wrong lines must not cost more memory than a right one.
const maxErrors = 20

// Error returns the messages, one a line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the errors one by one.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, err := range e {
		errs[i] = err
	}
	return errs
}

func (p *parser) add(err *skyport.Error) {
	if len(p.errs) < maxErrors {
		p.errs = append(p.errs, err)
	}
}

// errorAt makes an error at a place of the script.
func (p *parser) errorAt(line, column int, format string, args ...any) *skyport.Error {
	err := skyport.Errorf(skyport.CodeInvalidScript, "%s:%d:%d: "+format, append([]any{p.file, line, column}, args...)...)
	err.Line, err.Column = line, column
	return err
}

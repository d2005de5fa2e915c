package template

import (
	"fmt"
	"strconv"
	"strings"
)

// Limits of Resource Manager, and one of our own on depth.
// https://learn.microsoft.com/azure/azure-resource-manager/templates/best-practices#template-limits
const (
	maxExpression = 24576
	maxDepth      = 100
)

// Error is what Resource Manager says of a template.
type Error struct {
	Code    string
	Message string
}

// Error tells code and message.
func (e *Error) Error() string { return e.Code + ": " + e.Message }

func invalid(format string, args ...any) *Error {
	return &Error{Code: "InvalidTemplate", Message: fmt.Sprintf(format, args...)}
}

// node is a part of a parsed expression.
type node any

type (
	literal struct{ value any }
	call    struct {
		name string
		args []node
	}
	property struct {
		of   node
		name string
	}
	index struct{ of, at node }
)

// isExpression says whether a string of a template is one, and gives its text.
// A string that begins with two brackets is a literal one with one bracket.
func isExpression(text string) (expression string, yes bool) {
	if !strings.HasPrefix(text, "[") || !strings.HasSuffix(text, "]") || strings.HasPrefix(text, "[[") {
		return "", false
	}
	return text[1 : len(text)-1], true
}

// parser reads one expression.
type parser struct {
	text  string
	at    int
	depth int
}

// parse reads an expression without its brackets.
func parse(text string) (node, error) {
	if len(text) > maxExpression {
		return nil, invalid("The language expression's length '%d' is more than the limit of '%d' characters.", len(text), maxExpression)
	}
	p := &parser{text: text}
	n, err := p.expression()
	if err != nil {
		return nil, err
	}
	if p.space(); p.at < len(p.text) {
		return nil, p.unexpected()
	}
	return n, nil
}

func (p *parser) unexpected() error {
	if p.at >= len(p.text) {
		return invalid("The language expression '%s' is not valid: the end of it at position '%d' is not expected.", p.text, p.at)
	}
	return invalid("The language expression '%s' is not valid: the string character '%c' at position '%d' is not expected.", p.text, p.text[p.at], p.at)
}

func (p *parser) space() {
	for p.at < len(p.text) && strings.ContainsRune(" \t\r\n", rune(p.text[p.at])) {
		p.at++
	}
}

// take takes a character, if it is the next.
func (p *parser) take(c byte) bool {
	p.space()
	if p.at < len(p.text) && p.text[p.at] == c {
		p.at++
		return true
	}
	return false
}

// expression is a literal or a call, with what is taken out of it.
func (p *parser) expression() (node, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, invalid("The language expression '%s' is nested too deep.", shorten(p.text))
	}
	defer func() { p.depth-- }()
	p.space()
	n, err := p.primary()
	if err != nil {
		return nil, err
	}
	if l, ok := n.(literal); ok {
		if _, ok := l.value.(int64); ok { // has nothing to be taken out of it
			return n, nil
		}
	}
	for links := 0; ; links++ {
		if links > maxDepth {
			return nil, invalid("The language expression '%s' is nested too deep.", shorten(p.text))
		}
		switch {
		case p.take('.'):
			name := p.word()
			if name == "" {
				return nil, p.unexpected()
			}
			n = property{n, name}
		case p.take('['):
			at, err := p.expression()
			if err != nil {
				return nil, err
			}
			if !p.take(']') {
				return nil, p.unexpected()
			}
			n = index{n, at}
		default:
			return n, nil
		}
	}
}

func (p *parser) primary() (node, error) {
	if p.at >= len(p.text) {
		return nil, p.unexpected()
	}
	switch c := p.text[p.at]; {
	case c == '\'':
		return p.quoted()
	case c == '-' || isDigit(c):
		return p.number()
	case isLetter(c):
		name := p.word()
		for p.at < len(p.text) && p.text[p.at] == '.' { // a name space of user functions
			p.at++
			name += "." + p.word()
		}
		if !p.take('(') {
			return nil, p.unexpected()
		}
		return p.arguments(name)
	}
	return nil, p.unexpected()
}

func (p *parser) arguments(name string) (node, error) {
	c := call{name: name}
	if p.take(')') {
		return c, nil
	}
	for {
		arg, err := p.expression()
		if err != nil {
			return nil, err
		}
		c.args = append(c.args, arg)
		if p.take(')') {
			return c, nil
		}
		if !p.take(',') {
			return nil, p.unexpected()
		}
	}
}

// quoted is a string; a quote within it is written twice.
func (p *parser) quoted() (node, error) {
	var out strings.Builder
	for p.at++; p.at < len(p.text); p.at++ {
		if p.text[p.at] != '\'' {
			out.WriteByte(p.text[p.at])
			continue
		}
		if p.at+1 < len(p.text) && p.text[p.at+1] == '\'' {
			out.WriteByte('\'')
			p.at++
			continue
		}
		p.at++
		return literal{out.String()}, nil
	}
	return nil, p.unexpected()
}

func (p *parser) number() (node, error) {
	from := p.at
	for p.at++; p.at < len(p.text) && isDigit(p.text[p.at]); p.at++ {
		continue
	}
	n, err := strconv.ParseInt(p.text[from:p.at], 10, 64)
	if err != nil {
		return nil, invalid("The language expression '%s' is not valid: '%s' is no integer.", p.text, p.text[from:p.at])
	}
	return literal{n}, nil
}

func (p *parser) word() string {
	from := p.at
	for p.at < len(p.text) && (isLetter(p.text[p.at]) || isDigit(p.text[p.at])) {
		p.at++
	}
	return p.text[from:p.at]
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' }
func isDigit(c byte) bool  { return '0' <= c && c <= '9' }

func shorten(text string) string {
	if len(text) > 80 {
		return text[:80] + "…"
	}
	return text
}

package jobscript

import (
	"maps"
	"slices"
	"strings"

	"github.com/openworkload/skyport"
)

// Bounds on the environment, within what Linux lets a program have.
const (
	maxVariables = 512 << 10 // bytes of all
	maxVariable  = 64 << 10  // bytes of one, name and value
)

// environment is one variable a line. The value is the rest of the line, so
// blanks need no quotes; quotes around all of it are taken off, as a shell
// would, which keeps blanks at its ends.
type environment struct{}

func (environment) expects() string { return "NAME=value" }

func (environment) read(v value) {
	name, text, assigned := strings.Cut(v.text, "=")
	text = bare(strings.TrimLeft(text, " \t"))
	switch {
	case !assigned || !isVariable(name):
		// The value may be a secret: it is in no message.
		v.refuse(0, name, "NAME=value, the name of letters, digits and _")
		return
	case strings.HasPrefix(name, "SWM_"):
		v.fail(0, "give it another name", "names that begin with SWM_ are set by Sky Port: %s", skyport.Abbreviate(name, 60))
		return
	case len(name)+1+len(text) > maxVariable:
		v.fail(0, "put it in a file", "%s is larger than %d bytes", skyport.Abbreviate(name, 60), maxVariable)
		return
	}
	// An override replaces the variable of the script, and of an earlier one.
	if !v.override() && !v.claim(name, 0, name, "keep one of the two lines") {
		return
	}
	if v.take(len(name)+1+len(text)+1) > maxVariables {
		v.fail(0, "put large values in a file", "all variables together are larger than %d bytes", maxVariables)
		return
	}
	env := &v.p.request.Env
	if *env == nil {
		*env = make(map[string]string)
	}
	(*env)[name] = text
}

// bare takes quotes off that enclose all of s; otherwise it returns s.
func bare(s string) string {
	if s == "" || s[0] != '\'' && s[0] != '"' {
		return s
	}
	var b strings.Builder
	if end, ok := unquote(&b, s, 0); !ok || end != len(s) {
		return s
	}
	return b.String()
}

func (environment) write(r *request) []string {
	list := make([]string, 0, len(r.Env))
	for _, name := range slices.Sorted(maps.Keys(r.Env)) {
		text := r.Env[name]
		if strings.Trim(text, " \t") != text || bare(text) != text {
			text = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
		}
		list = append(list, name+"="+text)
	}
	return list
}

func (environment) clear(r *request) { r.Env = nil }

func isVariable(name string) bool {
	for i := range len(name) {
		if c := name[i]; !isLetter(c) && c != '_' && (i == 0 || !isDigit(c)) {
			return false
		}
	}
	return name != ""
}

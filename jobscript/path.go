package jobscript

import (
	gopath "path"
	"strings"

	"github.com/openworkload/skyport"
)

// What Linux can open, in bytes.
const (
	maxPath      = 4095
	maxComponent = 255
)

// maxPaths bounds each list of paths, in bytes with a blank after each: it is
// one variable of the job's environment (SWM_JOB_INPUT_FILES), and Linux starts
// no program with one over 128 KiB.
const maxPaths = 100 << 10

// path is the path of one file or directory on the node.
type path struct {
	what     string
	absolute bool // may begin with /
	field    func(*request) *string
}

func (a path) expects() string { return a.what }

func (a path) read(v value) {
	words, ok := v.words()
	if !ok {
		return
	}
	if len(words) > 1 {
		v.fail(words[1].at, "put quotes around a path with blanks: "+Quote(skyport.Abbreviate(v.text, 60)), "expected one path")
		return
	}
	if v.inTree(words[0], a.absolute) {
		*a.field(&v.p.request) = gopath.Clean(words[0].text)
	}
}

func (a path) write(r *request) []string { return quoted(*a.field(r)) }
func (a path) clear(r *request)          { *a.field(r) = "" }

// inputs are the paths on the submitter's side. They are kept as they are
// written: what they lead to is for whoever stages them.
type inputs struct{}

func (inputs) expects() string { return "one path or more" }

func (inputs) read(v value) {
	words, ok := v.words()
	if !ok {
		return
	}
	list := &v.p.request.InputFiles
	for _, w := range words {
		base := gopath.Base(gopath.Clean(w.text))
		switch {
		case !v.fits(w) || !v.room(w):
		case base == "/" || base == "." || base == ".." || base == "~":
			v.fail(w.at, "name the directory, or what is in it",
				"input %q has no base name to land under in the work directory", w.text)
		case v.claim(base, w.at, "an input with the base name "+base,
			"inputs land in the work directory under their base names: rename one, or put both in a directory"):
			*list = append(*list, w.text)
		}
	}
}

func (inputs) write(r *request) []string { return quoted(r.InputFiles...) }
func (inputs) clear(r *request)          { r.InputFiles = nil }

// outputs are the paths that come back from the work directory.
type outputs struct{}

func (outputs) expects() string { return "one path or more" }

func (outputs) read(v value) {
	words, ok := v.words()
	if !ok {
		return
	}
	list := &v.p.request.OutputFiles
	for _, w := range words {
		if !v.inTree(w, false) || !v.room(w) {
			continue
		}
		clean := gopath.Clean(w.text)
		if v.claim(clean, w.at, "the output "+clean, "name every output once") {
			*list = append(*list, clean)
		}
	}
}

func (outputs) write(r *request) []string { return quoted(r.OutputFiles...) }
func (outputs) clear(r *request)          { r.OutputFiles = nil }

// inTree checks a path on the node: it stays inside the work directory, or may
// be an absolute one, which is the node's own affair.
func (v value) inTree(w word, absolute bool) bool {
	const relative = "paths are relative to the work directory"
	switch {
	case !v.fits(w):
		return false
	case w.text[0] == '/' && !absolute:
		v.fail(w.at, relative+": write "+Quote(gopath.Base(w.text)), "the path %q is absolute", w.text)
	case w.text == "~" || strings.HasPrefix(w.text, "~/"):
		v.fail(w.at, "for example: "+v.row.example(v.override()), "the path %q is in a home directory, which the node does not know", w.text)
	case climbs(w.text):
		hint := relative + " and stay inside it"
		if absolute {
			hint = "write the path without .."
		}
		v.fail(w.at, hint, "the path %q contains ..", w.text)
	case gopath.Clean(w.text) == "." || gopath.Clean(w.text) == "/":
		v.fail(w.at, "name the files or directories in it", "the path %q names no file of its own", w.text)
	default:
		return true
	}
	return false
}

func climbs(p string) bool {
	for component := range strings.SplitSeq(p, "/") {
		if component == ".." {
			return true
		}
	}
	return false
}

// room checks that a list has room for one path more.
func (v value) room(w word) bool {
	if v.take(len(w.text)+1) > maxPaths {
		v.fail(w.at, "name a directory instead of the files in it", "all paths together are longer than %d bytes", maxPaths)
		return false
	}
	return true
}

// fits checks what holds for every path.
func (v value) fits(w word) bool {
	switch {
	case w.text == "":
		v.fail(w.at, "", "a path must not be empty")
	case len(w.text) > maxPath:
		v.fail(w.at, "", "the path %q is longer than %d bytes", skyport.Abbreviate(w.text, 60), maxPath)
	default:
		for component := range strings.SplitSeq(w.text, "/") {
			if len(component) > maxComponent {
				v.fail(w.at, "", "the name %q is longer than %d bytes", skyport.Abbreviate(component, 60), maxComponent)
				return false
			}
		}
		return true
	}
	return false
}

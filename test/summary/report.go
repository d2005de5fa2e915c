package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// slow is from when on a test is named among the slowest.
const slow = 5 * time.Second

// report is what became of everything.
type report struct {
	packages map[string]*tally
	running  map[test]bool
	said     map[test]string // the reason of a skipped test
	skipped  []outcome
	failed   []outcome
	slowest  []outcome
	all      tally // parts too
	blocks   map[string]block
}

// tally counts the tests of a package.
type tally struct {
	passed, failed, skipped int
	took                    time.Duration
	covered, statements     int
}

// outcome is how one test or part ended.
type outcome struct {
	what, why string
	took      time.Duration
}

// block is a piece of code that go test counts the runs of.
type block struct {
	pkg        string
	statements int
	covered    bool
}

func newReport() *report {
	return &report{
		packages: map[string]*tally{}, running: map[test]bool{}, said: map[test]string{}, blocks: map[string]block{},
	}
}

func (r *report) take(e event) error {
	id, took := test{e.Package, e.Test}, time.Duration(e.Elapsed*float64(time.Second))
	switch {
	case e.Package == "":
	case e.Action == "run":
		r.running[id] = true
	case e.Action == "output" && e.Test != "" && len(r.said[id]) < 500:
		if reason := strings.TrimSpace(e.Output); !strings.HasPrefix(reason, "===") && !strings.HasPrefix(reason, "---") {
			r.said[id] = strings.TrimSpace(r.said[id] + " " + reason)
		}
	case e.over() && e.Test != "":
		r.ended(id, e.Action, took, r.said[id])
	case e.over():
		r.closed(e.Package, e.Action, took)
	}
	return nil
}

// ended counts a test.
func (r *report) ended(id test, how string, took time.Duration, said string) {
	delete(r.running, id)
	delete(r.said, id)
	one := outcome{what: short(id.pkg) + " " + id.name, took: took}
	if took >= slow && !strings.Contains(id.name, "/") {
		r.slowest = append(r.slowest, one)
	}
	if how == "skip" {
		one.why = said
	}
	r.count(how, one)
	p := r.of(id.pkg)
	p.add(how)
}

// closed ends a package. One that failed, though none of its tests did, counts
// as a failure itself: it did not compile, or what it left behind was found out.
func (r *report) closed(pkg, how string, took time.Duration) {
	p := r.of(pkg)
	p.took = took
	if how != "fail" {
		return
	}
	for id := range r.running {
		if id.pkg == pkg {
			r.ended(id, "fail", 0, "")
		}
	}
	if p.failed == 0 {
		p.add("fail")
		r.count("fail", outcome{what: short(pkg), took: took})
	}
}

func (r *report) of(pkg string) *tally {
	if r.packages[pkg] == nil {
		r.packages[pkg] = &tally{}
	}
	return r.packages[pkg]
}

func (r *report) count(how string, one outcome) {
	r.all.add(how)
	switch how {
	case "fail":
		r.failed = append(r.failed, one)
	case "skip":
		r.skipped = append(r.skipped, one)
	}
}

func (t *tally) add(how string) {
	switch how {
	case "pass":
		t.passed++
	case "fail":
		t.failed++
	case "skip":
		t.skipped++
	}
}

// coverage reads a profile: after its first line, each line is
// "file:from,to statements runs".
func (r *report) coverage(in io.Reader) error {
	for lines := bufio.NewScanner(in); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		file, _, ok := strings.Cut(lines.Text(), ":")
		if !ok || len(fields) != 3 {
			continue
		}
		statements, err := strconv.Atoi(fields[1])
		if err != nil {
			return fmt.Errorf("read the coverage, line %q: %w", lines.Text(), err)
		}
		b := r.blocks[fields[0]]
		r.blocks[fields[0]] = block{path.Dir(file), statements, b.covered || fields[2] != "0"}
	}
	for _, b := range r.blocks {
		for _, t := range []*tally{r.of(b.pkg), &r.all} {
			t.statements += b.statements
			if b.covered {
				t.covered += b.statements
			}
		}
	}
	return nil
}

// parts reads how the parts of make test ended. What failed in the part of the
// tests is counted there already.
func (r *report) parts(in io.Reader) error {
	for lines := bufio.NewScanner(in); lines.Scan(); {
		fields := strings.Split(lines.Text(), "\t")
		if len(fields) != 4 {
			return fmt.Errorf("read the parts: line %q has %d fields, not 4", lines.Text(), len(fields))
		}
		if fields[0] == "tests" && fields[1] == "fail" && r.all.failed > 0 {
			continue
		}
		seconds, err := strconv.Atoi(fields[2])
		if err != nil {
			return fmt.Errorf("read the parts, line %q: %w", lines.Text(), err)
		}
		took := time.Duration(seconds) * time.Second
		r.all.took += took
		r.count(fields[1], outcome{what: "make test: " + fields[0], why: fields[3], took: took})
	}
	return nil
}

// write prints the report and tells whether everything passed, which nothing
// has where there is no test.
func (r *report) write(out io.Writer) (ok bool, err error) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(format string, args ...any) {
		if err == nil {
			_, err = fmt.Fprintf(w, format+"\n", args...)
		}
	}
	line("\n=== summary\n\npassed\tfailed\tskipped\ttime\tcoverage\t  package")
	for _, pkg := range slices.Sorted(maps.Keys(r.packages)) {
		p := r.packages[pkg]
		line("%d\t%d\t%d\t%.1f s\t%s\t  %s", p.passed, p.failed, p.skipped, p.took.Seconds(), p.percent(), short(pkg))
	}
	line("\t\t\t\t%s\t  total, each package by its own tests", r.all.percent())
	section := func(title string, outcomes []outcome) {
		if len(outcomes) > 0 {
			line("\n%s:", title)
		}
		for _, o := range outcomes {
			line("  %s", strings.TrimSpace(fmt.Sprintf("%s (%.1f s) %s", o.what, o.took.Seconds(), o.why)))
		}
	}
	slices.SortStableFunc(r.slowest, func(a, b outcome) int { return cmp.Compare(b.took, a.took) })
	section("slowest", r.slowest[:min(len(r.slowest), 10)])
	section("skipped", r.skipped)
	section("failed", r.failed)
	ran := len(r.packages) > 0
	if !ran {
		line("\nno test ran")
	}
	line("\n%d passed, %d failed, %d skipped", r.all.passed, r.all.failed, r.all.skipped)
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		return false, fmt.Errorf("print the report: %w", err)
	}
	return ran && r.all.failed == 0, nil
}

// percent is the share of statements that ran.
func (t *tally) percent() string {
	if t.statements == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", 100*float64(t.covered)/float64(t.statements))
}

// short is a package's path within the module.
func short(pkg string) string {
	return "./" + strings.TrimPrefix(strings.TrimPrefix(pkg, "github.com/openworkload/skyport"), "/")
}

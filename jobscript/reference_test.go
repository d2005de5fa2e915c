package jobscript_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openworkload/skyport/jobscript"
)

const reference = "../docs/job-script.md"

// TestReferenceHasEveryDirective keeps the table of docs/job-script.md in step
// with the parser's own.
func TestReferenceHasEveryDirective(t *testing.T) {
	t.Parallel()
	const begin, end = "<!-- directives: begin (written by go test ./jobscript -update) -->\n", "<!-- directives: end -->"
	text := readReference(t)
	before, rest, found := strings.Cut(text, begin)
	table, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s lacks the marks of its table", reference)
	}
	want := directiveTable()
	if *update {
		if err := os.WriteFile(reference, []byte(before+begin+want+end+after), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, table); diff != "" {
		t.Errorf("%s (- wanted, + got; -update writes what is wanted):\n%s", reference, diff)
	}
}

// directiveTable is the table of the reference.
func directiveTable() string {
	var b strings.Builder
	b.WriteString("| directive | value | meaning | for example |\n|---|---|---|---|\n")
	for _, k := range jobscript.Keywords() {
		names := "`" + k.Name + "`"
		for _, alias := range k.Aliases {
			names += ", `" + alias + "`"
		}
		summary := k.Summary
		if k.Repeatable {
			summary += "; lines add up"
		}
		argument := strings.ReplaceAll(k.Argument, "|", `\|`)
		fmt.Fprintf(&b, "| %s | `%s` | %s | `%s` |\n", names, argument, summary, k.Example)
	}
	return b.String()
}

// TestReferenceExamples parses every script of the reference. A text block that
// follows one is what Parse must say of it.
func TestReferenceExamples(t *testing.T) {
	t.Parallel()
	if *update {
		t.Skip("the file is being written")
	}
	parts := strings.Split(readReference(t), "```")
	scripts := 0
	for i := 1; i < len(parts); i += 2 { // every other part is a block
		script, found := strings.CutPrefix(parts[i], "sh\n")
		if !found {
			continue
		}
		scripts++
		got := outcome(t, []byte(script), jobscript.Options{File: "job.sh"})
		want := ""
		if i+2 < len(parts) && strings.TrimSpace(parts[i+1]) == "" {
			want, _ = strings.CutPrefix(parts[i+2], "text\n")
		}
		if want != "" {
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("what is said of\n%s\n(- in the reference, + now):\n%s", script, diff)
			}
			continue
		}
		if !strings.HasPrefix(got, "{") {
			t.Errorf("an example is wrong:\n%s\n%s", script, got)
		}
	}
	if scripts < 5 {
		t.Errorf("found %d scripts in %s, want more", scripts, reference)
	}
}

// TestKeywords holds the table itself against what flags and docs need of it.
func TestKeywords(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, k := range jobscript.Keywords() {
		for _, word := range append([]string{k.Name}, k.Aliases...) {
			if seen[word] || strings.Trim(word, "abcdefghijklmnopqrstuvwxyz-") != "" || strings.HasPrefix(word, "-") {
				t.Errorf("%q is taken, or cannot be a flag", word)
			}
			seen[word] = true
		}
		if k.Summary == "" || strings.HasSuffix(k.Summary, ".") || k.Argument == "" {
			t.Errorf("%s: summary %q, argument %q", k.Name, k.Summary, k.Argument)
		}
		if !strings.HasPrefix(k.Example, "#SWM "+k.Name) || complaint(k.Example) != "" {
			t.Errorf("%s: example %q: %s", k.Name, k.Example, complaint(k.Example))
		}
		twice := complaint(k.Example + "\n" + k.Example)
		if k.Repeatable == strings.Contains(twice, "already set") {
			t.Errorf("%s twice: repeatable is %v, but: %s", k.Name, k.Repeatable, twice)
		}
		if bare := complaint("#SWM " + k.Name); k.Switch != (bare == "") {
			t.Errorf("%s bare: switch is %v, but: %s", k.Name, k.Switch, bare)
		}
		for _, alias := range k.Aliases {
			_, argument, _ := strings.Cut(strings.TrimPrefix(k.Example, "#SWM "), " ")
			if got := complaint("#SWM " + alias + " " + argument); got != "" {
				t.Errorf("%s: alias %s: %s", k.Name, alias, got)
			}
		}
	}
	first := jobscript.Keywords()
	first[0].Name = "changed"
	if jobscript.Keywords()[0].Name == "changed" {
		t.Error("Keywords hands out its own table")
	}
}

func readReference(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

package jobscript_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/jobscript"
)

var update = flag.Bool("update", false, "write what Parse says now into testdata")

// dashes divide a golden file: the script above, what Parse makes of it below.
const dashes = "\n----------\n"

// TestGolden parses every script in testdata and compares the normalised
// request, or the errors, with what stands below it in the same file.
func TestGolden(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.sh")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			script, want, found := bytes.Cut(content, []byte(dashes))
			if !found && !*update {
				t.Fatalf("%s has no line of dashes; run go test -update and read what it wrote", file)
			}
			got := outcome(t, script, jobscript.Options{File: "job.sh"})
			if *update {
				content = append(append(bytes.Clone(script), dashes...), got...)
				if err := os.WriteFile(file, content, 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (- wanted, + got; -update writes what is got):\n%s", file, diff)
			}
		})
	}
}

// outcome is what a golden file shows: the request as JSON, or the errors with
// their hints.
func outcome(t *testing.T, script []byte, opts jobscript.Options) string {
	t.Helper()
	request, err := jobscript.Parse(script, opts)
	if err == nil {
		text, err := json.MarshalIndent(request, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		return string(text) + "\n"
	}
	var errs jobscript.Errors
	if !errors.As(err, &errs) {
		t.Fatalf("%T is not Errors: %v", err, err)
	}
	var b strings.Builder
	for _, e := range errs {
		if e.Code != skyport.CodeInvalidScript || e.Hint == "" {
			t.Errorf("code %q, hint %q of %v", e.Code, e.Hint, e)
		}
		fmt.Fprintf(&b, "%s\n    %s\n", e.Message, e.Hint)
	}
	return b.String()
}

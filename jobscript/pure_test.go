package jobscript_test

import (
	"go/build"
	"slices"
	"testing"
)

// TestPure holds the package to its promise: text in, request out, and nothing
// of ours but the words.
func TestPure(t *testing.T) {
	t.Parallel()
	pkg, err := build.ImportDir(".", 0)
	if err != nil {
		t.Fatal(err)
	}
	allowed := []string{
		"bytes", "fmt", "maps", "net/netip", "path", "slices", "strconv", "strings", "unicode", "unicode/utf8",
		"github.com/openworkload/skyport",
	}
	for _, name := range pkg.Imports {
		if !slices.Contains(allowed, name) {
			t.Errorf("jobscript imports %s", name)
		}
	}
}

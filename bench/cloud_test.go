package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestCloudShort measures everything that -cloud does, with small numbers.
func TestCloudShort(t *testing.T) {
	program := filepath.Join("..", "bin", "skyport")
	if _, err := os.Stat(program); err != nil {
		t.Skipf("%v: make build makes it", err)
	}
	if _, err := ownAddress(); err != nil {
		t.Skip(err)
	}
	dir, out := t.TempDir(), t.TempDir()
	if err := run(t.Context(), setting{program: program, dir: dir, out: out, short: true, size: small, what: cloudMeasurements}); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if written, err := filepath.Glob(filepath.Join(out, "*.json")); err != nil || len(written) != 1 {
		t.Errorf("reports written: %q, %v", written, err)
	}
}

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/openworkload/skyport/test/wire"
)

// TestRemoteShort measures everything that -remote does, with small numbers,
// over real SSH.
func TestRemoteShort(t *testing.T) {
	program := filepath.Join("..", "bin", "skyport")
	if _, err := os.Stat(program); err != nil {
		t.Skipf("%v: make build makes it", err)
	}
	if _, err := os.Stat(sshd); err != nil {
		t.Skipf("no OpenSSH server: %v", err)
	}
	if err := wire.Available(); err != nil {
		t.Skipf("no emulated link: %v", err)
	}
	dir, out := t.TempDir(), t.TempDir()
	if err := run(t.Context(), setting{program: program, dir: dir, out: out, short: true, size: small, what: remoteMeasurements}); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	written, err := filepath.Glob(filepath.Join(out, "*.json"))
	if err != nil || len(written) != 1 {
		t.Fatalf("reports written: %q, %v", written, err)
	}
	data, err := os.ReadFile(written[0])
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, row := range r.Rows {
		seen[row.Measurement] = true
	}
	for _, m := range remoteMeasurements {
		if !seen[m.name] {
			t.Errorf("%s gave no figure", m.name)
		}
	}
}

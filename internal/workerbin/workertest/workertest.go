// Package workertest gives tests the real worker binary. Only tests import it.
//
// The binary is built once per test process, into the machine's temporary
// directory under the hash of its content, so that processes share it and
// leave at most one file per version of the worker.
package workertest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

// Build returns the path of skyport-worker, built from this checkout without
// cgo for this machine. It fails the test if the worker does not build.
func Build(t testing.TB) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var build = sync.OnceValues(func() (string, error) {
	_, here, _, _ := runtime.Caller(0)
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("skyport-test-%d", os.Getuid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("build skyport-worker: %w", err)
	}
	fresh, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return "", fmt.Errorf("build skyport-worker: %w", err)
	}
	defer func() { _ = os.RemoveAll(fresh) }() // a leftover does no harm
	built := filepath.Join(fresh, "skyport-worker")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", built, "./cmd/skyport-worker")
	cmd.Dir = filepath.Join(filepath.Dir(here), "..", "..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build skyport-worker: %w\n%s", err, out)
	}
	data, err := os.ReadFile(built)
	if err != nil {
		return "", fmt.Errorf("build skyport-worker: %w", err)
	}
	sum := sha256.Sum256(data)
	path := filepath.Join(dir, "skyport-worker-"+hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	// By rename: another process may execute the same content already.
	if err := os.Rename(built, path); err != nil {
		return "", errors.Join(errors.New("build skyport-worker"), err)
	}
	return path, nil
})

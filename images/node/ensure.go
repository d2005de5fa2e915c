package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Image is the image's name when NODE_IMAGE says no other.
const Image = "skyport-node:dev"

// Ensure returns the name of the node image, built if it is not there or no
// longer what its inputs say. It skips the test where that cannot be done.
func Ensure(tb testing.TB) string {
	tb.Helper()
	if out, err := exec.CommandContext(tb.Context(), "docker", "version", "--format", "{{.Server.Version}}").CombinedOutput(); err != nil {
		tb.Skipf("needs a Docker engine for the node image: %v: %s", err, strings.TrimSpace(string(out)))
	}
	root, err := module()
	if err != nil {
		tb.Skipf("needs the project's sources for the node image: %v", err)
	}
	ctx, cancel := context.WithTimeout(tb.Context(), 15*time.Minute)
	defer cancel()
	build := exec.CommandContext(ctx, "sh", filepath.Join(root, "images", "node", "build.sh")) //nolint:gosec // a script of the project
	out, err := build.CombinedOutput()
	if exit := build.ProcessState; exit != nil && exit.ExitCode() == 77 {
		tb.Skipf("needs the node image: %s", out)
	}
	if err != nil {
		tb.Fatalf("build the node image: %v\n%s", err, out)
	}
	if name := os.Getenv("NODE_IMAGE"); name != "" {
		return name
	}
	return Image
}

// module finds the project's directory above the one that a test runs in.
func module() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the working directory: %w", err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod above the working directory")
		}
	}
}

package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/openworkload/skyport/internal/workerbin/workertest"
)

// The worker crosses a laptop's uplink to every node: it stays small, and what
// is for the user's side stays there.
func TestStaysSmall(t *testing.T) {
	t.Parallel()
	binary, err := os.ReadFile(workertest.Build(t))
	if err != nil {
		t.Fatal(err)
	}
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBetterCompression))
	if err != nil {
		t.Fatal(err)
	}
	const most = 5_000_000
	if size := len(encoder.EncodeAll(binary, nil)); size >= most {
		t.Errorf("%d bytes compressed, want less than %d", size, most)
	}
}

func TestDependencies(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	forbidden := []string{
		"github.com/spf13/", "github.com/knadh/", "modernc.org/", "database/sql\n", "github.com/pressly/", "charm.land/",
		"github.com/vbauerster/", "github.com/Azure/", "github.com/gophercloud/", "github.com/aws/", "testing\n",
		"github.com/openworkload/skyport/internal/core", "github.com/openworkload/skyport/internal/pki",
		"github.com/openworkload/skyport/internal/spool", "github.com/openworkload/skyport/gate",
		"github.com/openworkload/skyport/client", "github.com/openworkload/skyport/jobscript",
	}
	for pkg := range strings.Lines(string(out)) {
		for _, bad := range forbidden {
			if strings.HasPrefix(pkg, bad) {
				t.Errorf("the worker depends on %s", pkg)
			}
		}
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"serve"}, {"serve", "--dir", "x", "more"}, {"shim"}, {"other"}} {
		cmd := exec.Command(workertest.Build(t), args...)
		out, err := cmd.CombinedOutput()
		if err == nil || cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), "usage:") {
			t.Errorf("%q: %v, %s", args, err, out)
		}
	}
}

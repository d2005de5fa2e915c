package worker_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// sudoes is a sudo that notes what the worker asks of the node's own command: its
// arguments and its input, call by call. It refuses storages that are called closed.
const sudoes = `#!/bin/sh
{ echo "$*"; cat; } >>"$CALLS"
case $* in *mount-storage\ closed) echo 'skyport-node: it does not let us in' >&2; exit 1 ;; esac
`

func storageNode(t *testing.T) (n *node, calls func() string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "sudo"), []byte(sudoes), 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	file := filepath.Join(dir, "calls")
	n = newNodeWith(t, "PATH="+dir+":"+os.Getenv("PATH"), "CALLS="+file)
	return n, func() string {
		text, err := os.ReadFile(file)
		if err != nil && !os.IsNotExist(err) {
			t.Error(err)
		}
		return string(text)
	}
}

func withStorage(spec protocol.RunSpec, name string) protocol.RunSpec {
	spec.Request.Storage = name
	spec.Storage = &protocol.Storage{Name: name, Account: "lab", Container: "reference", Endpoint: "https://lab.test", SAS: "sig=hidden"}
	return spec
}

// TestStorage: it is mounted before the script, by what is on no command line and
// stays in no file, and unmounted when the last run that uses it is removed.
func TestStorage(t *testing.T) {
	t.Parallel()
	n, calls := storageNode(t)
	first := withStorage(script("#!/bin/sh\n"+`echo "$SWM_JOB_STORAGE"`), "refdata")
	second := withStorage(script("#!/bin/sh\n"), "refdata")
	for _, spec := range []protocol.RunSpec{first, second} {
		spec.Start = true
		if _, err := n.client.Prepare(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		if status := n.ended(spec.Run); status.State != protocol.RunEnded {
			t.Fatalf("it came to %+v", status)
		}
	}
	if got := n.log(first.Run, "stdout"); got != "/srv/skyport/storage/refdata\n" {
		t.Errorf("the script sees it at %q", got)
	}
	const want = "-n /usr/local/sbin/skyport-node mount-storage refdata\naccount lab\ncontainer reference\nendpoint https://lab.test\nsas sig=hidden\n"
	if got := calls(); got != want+want {
		t.Errorf("the node was asked for %q", got)
	}
	err := filepath.WalkDir(n.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || filepath.Base(path) == "skyport-worker" {
			return err
		}
		if text, err := os.ReadFile(path); err == nil && strings.Contains(string(text), "hidden") {
			t.Errorf("it stays in %s", path)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	again := first
	again.Storage = &protocol.Storage{Name: "refdata", SAS: "sig=another"}
	if _, err := n.client.Prepare(t.Context(), again); err != nil {
		t.Errorf("the same run with a new signature: %v", err)
	}
	if err := n.client.Remove(t.Context(), first.Run); err != nil {
		t.Error(err)
	}
	if got := calls(); strings.Contains(got, "unmount") {
		t.Errorf("unmounted while another run uses it: %q", got)
	}
	if err := n.client.Remove(t.Context(), second.Run); err != nil {
		t.Error(err)
	}
	if got := calls(); !strings.HasSuffix(got, "skyport-node unmount-storage refdata\n") {
		t.Errorf("at the end the node was asked for %q", got)
	}
}

func TestStoragesThatCannotBeMounted(t *testing.T) {
	t.Parallel()
	n, _ := storageNode(t)
	spec := withStorage(script("#!/bin/sh\n"), "closed")
	spec.Start = true
	if _, err := n.client.Prepare(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	status := n.ended(spec.Run)
	if status.State != protocol.RunRefused || !strings.Contains(status.Details, "mount the storage closed on node node1") || !strings.Contains(status.Details, "it does not let us in") ||
		strings.Contains(status.Details, "hidden") {
		t.Errorf("refused with %q", status.Details)
	}
	for _, name := range []string{"../x", "-x", "X", "a/b"} {
		if _, err := n.client.Prepare(t.Context(), withStorage(script("#!/bin/sh\n"), name)); skyport.CodeOf(err) != skyport.CodeInvalid {
			t.Errorf("a storage %q: %v", name, err)
		}
	}
	// Without what opens it, and not mounted: as after a reboot.
	spec = script("#!/bin/sh\n")
	spec.Request.Storage, spec.Start = "skyport-test-none", true
	if _, err := n.client.Prepare(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if status := n.ended(spec.Run); !strings.Contains(status.Details, "not mounted any more") {
		t.Errorf("refused with %q", status.Details)
	}
}

package ssh

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// TestSmallHosts: BusyBox is enough of a system for the scripts.
func TestSmallHosts(t *testing.T) {
	t.Parallel()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("there is no BusyBox")
	}
	tools, home := t.TempDir(), t.TempDir()
	if out, err := exec.CommandContext(t.Context(), busybox, "--install", "-s", tools).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	environ := []string{"PATH=" + tools, "HOME=" + home}
	id := skyport.NewPartitionID()
	r := record{Version: recordVersion, Hosts: []string{"a"}, Created: time.Now().UTC(), Spec: gate.PartitionSpec{
		ID: id, Site: "lab", Owner: "it's me", Nodes: skyport.NodeNames(id, 1), Lease: time.Now().Add(time.Hour),
	}}
	text, err := r.claim(0)
	if err != nil {
		t.Fatal(err)
	}
	do := func(operation string) look {
		t.Helper()
		shell := exec.CommandContext(t.Context(), filepath.Join(tools, "sh"), "-s")
		shell.Env = environ
		shell.Stdin = strings.NewReader(script(operation, assignment{"ID", string(id)}, assignment{"NODE", r.Spec.Nodes[0]}, assignment{"CLAIM", text},
			assignment{"KEYS", "ssh-ed25519 AAAA"}, assignment{"LEASE", "9999999999"}, assignment{"ENGINE", ""}))
		out, err := shell.Output()
		if err != nil {
			t.Fatalf("%s: %v: %s", operation, err, out)
		}
		l, err := parseLook(string(out), time.Now())
		if err != nil {
			t.Fatalf("%s: %v: %s", operation, err, out)
		}
		return l
	}
	if l := do("claim"); !l.has(id) || !l.ready || l.lease.Unix() != 9999999999 || l.claim.Record.Spec.Owner != "it's me" {
		t.Fatalf("claimed: %+v", l)
	}
	dir := filepath.Join(home, ".skyport", string(id))
	var hidden []*exec.Cmd
	for _, mark := range []string{"SKYPORT_DIR=" + dir, "SWM_RUN=job.1"} {
		if err := os.MkdirAll(filepath.Join(dir, "runs", "job.1"), 0o700); err != nil {
			t.Fatal(err)
		}
		sleep := exec.CommandContext(t.Context(), "/bin/sleep", "1000")
		sleep.Env = []string{mark}
		if err := sleep.Start(); err != nil {
			t.Fatal(err)
		}
		hidden = append(hidden, sleep)
	}
	if l := do("release"); l.claimed || l.left {
		t.Errorf("released: %+v", l)
	}
	for _, sleep := range hidden {
		if err := sleep.Wait(); err == nil || sleep.ProcessState.ExitCode() != -1 {
			t.Errorf("a process with the mark %v was not killed: %v", sleep.Env, err)
		}
	}
	for _, file := range []string{".skyport", ".ssh/authorized_keys"} {
		if _, err := os.Lstat(filepath.Join(home, file)); err == nil {
			t.Errorf("~/%s is left", file)
		}
	}
}

// FuzzLook: whatever a host says, there is an answer, and what is believed of a
// claim fits together.
func FuzzLook(f *testing.F) {
	f.Add("home /home/a\nbase /home/a/.skyport\nnow 1\nclaim {\"partition\":\"x\"}\nlease 7\nready\nend\n")
	f.Add("error all is lost\n")
	f.Fuzz(func(t *testing.T, answer string) {
		l, err := parseLook(answer, time.Now())
		if c := l.claim; err == nil && c.Partition != "" && (c.Index >= len(c.Record.Hosts) || c.Record.Spec.ID != c.Partition) {
			t.Errorf("believed %+v", c)
		}
		_, _ = parseFacts(answer) // must not panic
	})
}

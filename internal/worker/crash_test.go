package worker_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openworkload/skyport/internal/worker/proc"
	"github.com/openworkload/skyport/internal/worker/protocol"
	"github.com/openworkload/skyport/internal/worker/shim"
)

// The worker is killed at random moments from the request on until well after
// the script's end; whoever asks again must find that the script ran once.
func TestKilledWorkerRunsScriptOnce(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	n := newNode(t)
	rounds := 25
	if testing.Short() {
		rounds = 5
	}
	for range rounds {
		spec := script("echo ran >> ran; sleep 0.05; echo done")
		spec.CPUs = 1 // with a cgroup, where there is one
		asked := make(chan struct{})
		go func() {
			defer close(asked)
			_, _ = n.client.Prepare(t.Context(), spec) // the worker dies meanwhile
		}()
		for range 1 + random.IntN(3) {
			<-time.After(time.Duration(random.Int64N(int64(20 * time.Millisecond))))
			n.kill()
			n.start()
		}
		<-asked
		n.prepare(spec) // as core does when the answer was lost
		s := n.ended(spec.Run)
		if s.State != protocol.RunEnded || s.ExitCode != 0 || n.log(spec.Run, "stdout") != "done\n" {
			t.Fatalf("seed %d: %+v, log %q", seed, s, n.log(spec.Run, "stdout"))
		}
		n.wantRuns(spec.Run, 1)
		if random.IntN(2) == 0 { // a removal that is cut off goes on
			go func() { _ = n.client.Remove(t.Context(), spec.Run) }()
			<-time.After(time.Duration(random.Int64N(int64(3 * time.Millisecond))))
			n.kill()
			n.start()
		}
		if err := n.client.Remove(t.Context(), spec.Run); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// A shim that is killed takes its script along, and the script is lost, not
// run again.
func TestKilledShimLosesRun(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for _, withWorker := range []bool{true, false} {
		spec := script("echo ran >> ran; setsid sleep 1000 & echo up; sleep 1000")
		spec.CPUs = 1
		n.prepare(spec)
		n.await("the script is up", func() bool { return n.log(spec.Run, "stdout") == "up\n" })
		var began shim.Began
		if err := shim.Read(filepath.Join(n.dir, "runs", spec.Run), shim.BeganFile, &began); err != nil {
			t.Fatal(err)
		}
		if !withWorker {
			n.kill()
		}
		if err := syscall.Kill(began.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if !withWorker {
			n.start()
		}
		if s := n.ended(spec.Run); s.State != protocol.RunLost || s.Details == "" {
			t.Errorf("%+v", s)
		}
		n.wantRuns(spec.Run, 1)
		table, err := proc.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		if left := table.Marked("SWM_RUN=" + spec.Run); len(left) > 0 {
			t.Errorf("processes %v are left", left)
		}
	}
}

// After the node has booted, what ran before is lost, whoever has the number
// of the shim now.
func TestBootedNodeLosesRuns(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	spec := script("echo ran >> ran; echo up; sleep 1000")
	n.prepare(spec)
	n.await("the script is up", func() bool { return n.log(spec.Run, "stdout") == "up\n" })
	n.kill()
	dir := filepath.Join(n.dir, "runs", spec.Run)
	var began shim.Began
	if err := shim.Read(dir, shim.BeganFile, &began); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(began.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	began.BootID, began.PID = "another", os.Getpid()
	if err := shim.Write(dir, shim.BeganFile, began); err != nil {
		t.Fatal(err)
	}
	n.start()
	if s := n.ended(spec.Run); s.State != protocol.RunLost || !strings.Contains(s.Details, "booted") {
		t.Errorf("%+v", s)
	}
	n.wantRuns(spec.Run, 1)
}

// A script that went on while no worker was there is found as it is, and its
// end too.
func TestRunsGoOnWithoutWorker(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	fifo := filepath.Join(n.dir, "go")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	spec := script("echo ran >> ran; echo up; read x < " + fifo + "; echo $x; exit 5")
	n.prepare(spec)
	n.await("the script is up", func() bool { return n.log(spec.Run, "stdout") == "up\n" })
	n.kill()
	n.start()
	if s := n.status(spec.Run); s.State != protocol.RunRunning || s.Stdout != 3 {
		t.Errorf("found as %+v", s)
	}
	n.kill()
	if err := os.WriteFile(fifo, []byte("went on\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(n.dir, "runs", spec.Run)
	await(t, "the script ends", func() bool { return shim.Exists(dir, shim.ExitFile) })
	n.start()
	if s := n.ended(spec.Run); s.ExitCode != 5 || n.log(spec.Run, "stdout") != "up\nwent on\n" {
		t.Errorf("%+v", s)
	}
	n.wantRuns(spec.Run, 1)
}

// Scripts that end while the next worker finds them are over for it, and those
// that go on are looked after.
func TestScriptsEndWhileWorkerStarts(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	end := filepath.Join(n.dir, "end")
	specs := make([]protocol.RunSpec, 24)
	for i := range specs {
		specs[i] = script("echo up; until [ -e " + end + " ]; do sleep 0.01; done; exit 3")
		n.prepare(specs[i])
	}
	for _, spec := range specs {
		n.await("the script is up", func() bool { return n.log(spec.Run, "stdout") == "up\n" })
	}
	n.kill()
	go func() { // whoever is first
		if err := os.WriteFile(end, nil, 0o600); err != nil {
			t.Error(err)
		}
	}()
	n.start()
	for _, spec := range specs {
		if s := n.ended(spec.Run); s.State != protocol.RunEnded || s.ExitCode != 3 {
			t.Errorf("%+v", s)
		}
	}

	spec := script("echo up; sleep 1000")
	n.prepare(spec)
	n.await("the script is up", func() bool { return n.log(spec.Run, "stdout") == "up\n" })
	n.kill()
	if err := os.Remove(filepath.Join(n.dir, "runs", spec.Run, "metrics.json")); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	n.start()
	n.await("the next worker measures", func() bool { return n.status(spec.Run).Usage.Count > 0 })
}

// What was half made or half removed when the worker was killed is gone.
func TestRemainsAreSwept(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.kill()
	for _, name := range []string{".new-123", ".trash-a-1"} {
		if err := os.MkdirAll(filepath.Join(n.dir, "runs", name, "work"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	n.start()
	if entries, err := os.ReadDir(filepath.Join(n.dir, "runs")); err != nil || len(entries) > 0 {
		t.Errorf("%v, %v", entries, err)
	}
	if _, err := os.Stat(filepath.Join(n.dir, "runs", ".new-123")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

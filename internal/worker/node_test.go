package worker_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/worker/cgroup"
	"github.com/openworkload/skyport/internal/worker/proc"
	"github.com/openworkload/skyport/internal/worker/protocol"
	"github.com/openworkload/skyport/internal/workerbin/workertest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		pruneImages()
		os.Exit(code)
	}))
}

// node is a worker as a process of its own, on a directory that outlives it.
type node struct {
	t      *testing.T
	binary string
	dir    string
	env    []string // beside the test's own
	cmd    *exec.Cmd
	gone   chan struct{} // closed when cmd has ended
	client *protocol.Client
}

func newNode(t *testing.T) *node {
	t.Helper()
	return newNodeWith(t)
}

// newNodeWith is newNode for a worker with an environment.
func newNodeWith(t *testing.T, env ...string) *node {
	t.Helper()
	// A short path: a socket's has room for 107 bytes only.
	dir, err := os.MkdirTemp("", "spw")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, binary: workertest.Build(t), dir: dir, env: env}
	n.client = protocol.NewClient(protocol.DialUnix(filepath.Join(dir, "worker.sock")))
	t.Cleanup(func() {
		n.kill()
		n.client.Close()
		n.checkNothingLeft()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	n.start()
	return n
}

func (n *node) start() {
	n.t.Helper()
	var said bytes.Buffer
	n.cmd = exec.Command(n.binary, "serve", "--dir", n.dir, "--node", "node1", "--log-format", "text")
	n.cmd.Env = append(os.Environ(), n.env...)
	n.cmd.Stderr = &said
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.gone = make(chan struct{})
	go func(cmd *exec.Cmd, gone chan struct{}) {
		_ = cmd.Wait() // says only that it was killed
		close(gone)
	}(n.cmd, n.gone)
	n.await("the worker answers", func() bool {
		select {
		case <-n.gone:
			n.t.Fatalf("the worker ended by itself:\n%s", said.String())
		default:
		}
		_, err := n.client.Info(context.Background())
		return err == nil
	})
}

// kill ends the worker as a power switch would.
func (n *node) kill() {
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Kill() // it may have ended by itself
	<-n.gone
	n.cmd = nil
	n.client.Close()
}

// checkNothingLeft removes what runs a test has left, and looks for remains.
func (n *node) checkNothingLeft() {
	n.start()
	entries, err := os.ReadDir(filepath.Join(n.dir, "runs"))
	if err != nil {
		n.t.Error(err)
	}
	for _, e := range entries {
		if err := n.client.Remove(context.Background(), e.Name()); err != nil {
			n.t.Errorf("remove run %s: %v", e.Name(), err)
		}
	}
	if left, err := os.ReadDir(filepath.Join(n.dir, "runs")); err != nil || len(left) > 0 {
		n.t.Errorf("left in the directory: %v, %v", left, err)
	}
	n.kill()
	table, err := proc.Snapshot()
	if err != nil {
		n.t.Error(err)
	}
	for _, e := range entries {
		if pids := table.Marked("SWM_RUN=" + e.Name()); len(pids) > 0 {
			n.t.Errorf("processes of run %s are left: %v", e.Name(), pids)
		}
		for _, name := range cgroup.Find().List("skyport-") {
			if strings.HasSuffix(name, e.Name()) {
				n.t.Errorf("cgroup %s is left", name)
			}
		}
	}
}

func (n *node) await(what string, done func() bool) {
	n.t.Helper()
	await(n.t, what, done)
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for pause := time.Millisecond; !done(); pause = min(2*pause, 50*time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(pause) // between two looks; nothing is assumed about its length
	}
}

func (n *node) prepare(spec protocol.RunSpec) {
	n.t.Helper()
	if _, err := n.client.Prepare(n.t.Context(), spec); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) status(run string) protocol.RunStatus {
	n.t.Helper()
	s, err := n.client.Status(n.t.Context(), run)
	if err != nil {
		n.t.Fatal(err)
	}
	return s
}

// ended waits until nothing more happens to the run.
func (n *node) ended(run string) protocol.RunStatus {
	n.t.Helper()
	var s protocol.RunStatus
	n.await("run "+run+" is over", func() bool {
		s = n.status(run)
		return s.State != protocol.RunStaging && s.State != protocol.RunRunning
	})
	return s
}

func (n *node) log(run, stream string) string {
	n.t.Helper()
	var b bytes.Buffer
	if _, err := n.client.Log(n.t.Context(), run, stream, 0, &b); err != nil {
		n.t.Fatal(err)
	}
	return b.String()
}

func (n *node) wantRuns(run string, want int) {
	n.t.Helper()
	data, err := os.ReadFile(filepath.Join(n.dir, "runs", run, "work", "ran"))
	if err != nil && want > 0 {
		n.t.Fatal(err)
	}
	if got := strings.Count(string(data), "\n"); got != want {
		n.t.Errorf("the script ran %d times, want %d", got, want)
	}
}

var runNumber struct {
	sync.Mutex
	n int
}

// script is a run with a name that no other test has.
func script(text string) protocol.RunSpec {
	runNumber.Lock()
	defer runNumber.Unlock()
	runNumber.n++
	job := skyport.NewJobID()
	return protocol.RunSpec{
		Run: skyport.RunName(job, 1), Job: job, Attempt: 1, Script: []byte(text),
		Env: map[string]string{"SWM_JOB_ID": string(job)}, Nodes: []string{"node1"}, Start: true,
	}
}

func wantAll(conditions ...bool) error {
	for i, ok := range conditions {
		if !ok {
			return fmt.Errorf("condition %d does not hold", i+1)
		}
	}
	return nil
}

package worker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/worker/cgroup"
	"github.com/openworkload/skyport/internal/worker/proc"
	"github.com/openworkload/skyport/internal/worker/protocol"
	"github.com/openworkload/skyport/internal/workerbin/workertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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

func TestScript(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	tests := []struct {
		name   string
		script string
		edit   func(*protocol.RunSpec)
		want   func(s protocol.RunStatus, stdout, stderr string) error
	}{
		{
			name: "no interpreter line", script: "echo out; echo err >&2; exit 3",
			want: func(s protocol.RunStatus, stdout, stderr string) error {
				return wantAll(s.ExitCode == 3, s.Signal == 0, stdout == "out\n", stderr == "err\n", s.Stdout == 4, s.Stderr == 4)
			},
		},
		{
			name: "interpreter with an argument", script: "#!/bin/sh -e\nfalse\necho never\n",
			want: func(s protocol.RunStatus, stdout, _ string) error { return wantAll(s.ExitCode == 1, stdout == "") },
		},
		{
			name: "interpreter of another system's lines", script: "#!/bin/sh\r\nexit 4 #\r\n",
			want: func(s protocol.RunStatus, _, _ string) error { return wantAll(s.ExitCode == 4) },
		},
		{
			name: "missing interpreter", script: "#!/opt/none/python\n",
			want: func(s protocol.RunStatus, _, _ string) error {
				return wantAll(s.State == protocol.RunRefused, strings.Contains(s.Details, "/opt/none/python"))
			},
		},
		{
			name: "empty", script: "",
			want: func(s protocol.RunStatus, _, _ string) error {
				return wantAll(s.State == protocol.RunEnded, s.ExitCode == 0)
			},
		},
		{
			name: "signal", script: "kill -USR1 $$",
			want: func(s protocol.RunStatus, _, _ string) error {
				return wantAll(s.Signal == int(syscall.SIGUSR1), s.ExitCode == 128+int(syscall.SIGUSR1))
			},
		},
		{
			name: "environment", script: `echo "$SWM_JOB_ID|$GREETING|$HOME|$SECRET"; pwd; test -d "$TMPDIR"`,
			edit: func(spec *protocol.RunSpec) { spec.Env["GREETING"] = "two words\nand a line" },
			want: func(s protocol.RunStatus, stdout, _ string) error {
				return wantAll(s.ExitCode == 0, strings.Contains(stdout, "|two words\nand a line|"+os.Getenv("HOME")+"|\n"), strings.HasSuffix(stdout, "/work\n"))
			},
		},
		{
			name: "standard streams elsewhere", script: "cat; echo x >&2",
			edit: func(spec *protocol.RunSpec) {
				spec.Request.Stdin, spec.Request.Stdout, spec.Request.Stderr = "/etc/hostname", "logs/out", "logs/out"
			},
			want: func(s protocol.RunStatus, stdout, stderr string) error {
				return wantAll(s.ExitCode == 0, strings.HasSuffix(stdout, "x\n"), stdout == stderr, s.Stdout == s.Stderr)
			},
		},
		{
			name: "missing standard input", script: "cat",
			edit: func(spec *protocol.RunSpec) { spec.Request.Stdin = "none" },
			want: func(s protocol.RunStatus, _, _ string) error {
				return wantAll(s.State == protocol.RunRefused, strings.Contains(s.Details, "standard input"))
			},
		},
		{
			name: "what stays behind is killed", script: "setsid sleep 1000 & (sleep 1000 &) ; exit 0",
			want: func(s protocol.RunStatus, _, _ string) error {
				return wantAll(s.ExitCode == 0, s.Ended.Sub(s.Started) < 10*time.Second)
			},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			spec := script(test.script)
			if test.edit != nil {
				test.edit(&spec)
			}
			n.prepare(spec)
			s := n.ended(spec.Run)
			stdout, stderr := n.log(spec.Run, "stdout"), n.log(spec.Run, "stderr")
			if err := test.want(s, stdout, stderr); err != nil {
				t.Errorf("%v\nstatus %+v\nstdout %q\nstderr %q", err, s, stdout, stderr)
			}
			if s.Usage.Count == 0 && s.State == protocol.RunEnded {
				t.Error("no sample")
			}
		})
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

func TestStartOnlyWhenAsked(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	spec := script("echo ran >> ran")
	spec.Start = false
	n.prepare(spec)
	n.prepare(spec) // a lost answer
	if s := n.status(spec.Run); s.State != protocol.RunStaging {
		t.Fatalf("state %s", s.State)
	}
	other := spec
	other.Script = []byte("echo other")
	if _, err := n.client.Prepare(t.Context(), other); skyport.CodeOf(err) != skyport.CodeConflict {
		t.Errorf("another specification under the same name: %v", err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := n.client.Start(t.Context(), spec.Run); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	n.ended(spec.Run)
	n.wantRuns(spec.Run, 1)
	// Once more, after the end.
	if _, err := n.client.Start(t.Context(), spec.Run); err != nil {
		t.Error(err)
	}
	n.kill()
	n.start()
	n.ended(spec.Run)
	n.wantRuns(spec.Run, 1)
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

func TestErrors(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	ctx := t.Context()
	bad := func(edit func(*protocol.RunSpec)) error {
		spec := script("")
		edit(&spec)
		_, err := n.client.Prepare(ctx, spec)
		return err
	}
	_, startErr := n.client.Start(ctx, "nobody.1")
	_, logErr := n.client.Log(ctx, "nobody.1", "stdout", 0, io.Discard)
	_, connectErr := n.client.Connect(ctx, "nobody.1", 80)
	for _, test := range []struct {
		name string
		err  error
		want skyport.Code
	}{
		{"start of an unknown run", startErr, skyport.CodeNotFound},
		{"log of an unknown run", logErr, skyport.CodeNotFound},
		{"connect to an unknown run", connectErr, skyport.CodeNotFound},
		{"stop of an unknown run", n.client.Stop(ctx, "nobody.1"), skyport.CodeNotFound},
		{"name that leads away", n.client.Remove(ctx, "..%2f.."), skyport.CodeInvalid},
		{"name of a hidden directory", bad(func(s *protocol.RunSpec) { s.Run = ".new-1" }), skyport.CodeInvalid},
		{"stdout outside", bad(func(s *protocol.RunSpec) { s.Request.Stdout = "../x" }), skyport.CodeInvalid},
		{"workdir outside", bad(func(s *protocol.RunSpec) { s.Request.WorkDir = "a/../../x" }), skyport.CodeInvalid},
		{"environment with a NUL", bad(func(s *protocol.RunSpec) { s.Env["A"] = "\x00" }), skyport.CodeInvalid},
	} {
		var e *skyport.Error
		if !errors.As(test.err, &e) || e.Code != test.want {
			t.Errorf("%s: %v, want code %s", test.name, test.err, test.want)
		}
	}
	if err := n.client.Remove(ctx, "nobody.1"); err != nil {
		t.Errorf("removal of an unknown run: %v", err)
	}
	second := exec.Command(n.binary, "serve", "--dir", n.dir)
	if out, err := second.CombinedOutput(); err == nil || !strings.Contains(string(out), "another worker lives") {
		t.Errorf("a second worker on the directory: %v, %s", err, out)
	}
	if info, err := os.Stat(filepath.Join(n.dir, "worker.sock")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket %v, %v", info, err)
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	t.Run("gracefully", func(t *testing.T) {
		spec := script(`trap 'echo bye; kill $!; exit 7' TERM; echo up; sleep 1000 & wait`)
		n.prepare(spec)
		n.await("the script is up", func() bool { return n.log(spec.Run, "stdout") == "up\n" })
		if err := n.client.Stop(t.Context(), spec.Run); err != nil {
			t.Fatal(err)
		}
		s := n.ended(spec.Run)
		if !s.Stopped || s.ExitCode != 7 || n.log(spec.Run, "stdout") != "up\nbye\n" {
			t.Errorf("%+v %q", s, n.log(spec.Run, "stdout"))
		}
	})
	t.Run("before the start", func(t *testing.T) {
		spec := script("echo ran >> ran")
		spec.Start = false
		n.prepare(spec)
		if err := n.client.Stop(t.Context(), spec.Run); err != nil {
			t.Fatal(err)
		}
		n.ended(spec.Run)
		if _, err := n.client.Start(t.Context(), spec.Run); err != nil {
			t.Error(err)
		}
		if s := n.ended(spec.Run); s.State != protocol.RunEnded || !s.Stopped || !s.Started.IsZero() {
			t.Errorf("%+v", s)
		}
		n.wantRuns(spec.Run, 0)
	})
	t.Run("by another worker, at any moment", func(t *testing.T) {
		for range 5 {
			spec := script("trap '' TERM; sleep 1000")
			spec.Grace = 1
			n.prepare(spec)
			n.kill()
			n.start()
			if err := n.client.Stop(t.Context(), spec.Run); err != nil {
				t.Fatal(err)
			}
			if s := n.ended(spec.Run); s.State != protocol.RunEnded || !s.Stopped {
				t.Errorf("%+v", s)
			}
		}
	})
}

// A tree that ignores TERM, leaves its session and its parents.
func TestTimeLimitOfStubbornTree(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	spec := script(`trap '' TERM
(setsid sh -c 'trap "" TERM; (sh -c "trap \"\" TERM; while :; do sleep 1000; done" &) ; while :; do sleep 1000; done' &)
while :; do sleep 1000; done`)
	spec.Request.TimeLimit, spec.Grace = 1, 1
	n.prepare(spec)
	s := n.ended(spec.Run)
	took := s.Ended.Sub(s.Started)
	if !s.TimedOut || s.Signal != int(syscall.SIGKILL) || took < 2*time.Second || took > 10*time.Second || !strings.Contains(s.Details, "time limit") {
		t.Errorf("after %s: %+v", took, s)
	}
	table, err := proc.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if left := table.Marked("SWM_RUN=" + spec.Run); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
}

func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	// A shell that doubles a string: 2^30 bytes if it is let.
	spec := script(`x=0123456789abcdef; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26; do x=$x$x; done; echo alive`)
	spec.Memory, spec.CPUs = 64<<20, 1
	n.prepare(spec)
	s := n.ended(spec.Run)
	if n.log(spec.Run, "stdout") != "" || (s.ExitCode == 0 && s.Signal == 0) {
		t.Fatalf("the limit does not hold: %+v", s)
	}
	if !strings.Contains(s.Details, "memory limit 64 MiB") || !strings.Contains(s.Details, "cpu limit") {
		t.Errorf("details %q do not say the limits", s.Details)
	}
	if strings.Contains(s.Details, "memory limit 64 MiB by cgroup") && !s.OutOfMem {
		t.Errorf("killed for memory without saying so: %+v", s)
	}
}

func TestLogsByOffset(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	fifo := filepath.Join(n.dir, "go")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	spec := script("echo one; read x < " + fifo + "; echo two; head -c 9000000 /dev/zero >&2")
	n.prepare(spec)
	n.await("the first line", func() bool { return n.log(spec.Run, "stdout") == "one\n" })
	var rest bytes.Buffer
	if size, err := n.client.Log(t.Context(), spec.Run, "stdout", 4, &rest); size != 0 || err != nil {
		t.Errorf("past the end: %d, %v", size, err)
	}
	if err := os.WriteFile(fifo, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := n.ended(spec.Run)
	if _, err := n.client.Log(t.Context(), spec.Run, "stdout", 4, &rest); err != nil || rest.String() != "two\n" {
		t.Errorf("from the middle: %q, %v", rest.String(), err)
	}
	var size int64
	for {
		got, err := n.client.Log(t.Context(), spec.Run, "stderr", size, io.Discard)
		if err != nil || got > protocol.MaxLog {
			t.Fatalf("%d bytes at once, %v", got, err)
		}
		if size += got; got == 0 {
			break
		}
	}
	if size != 9000000 || s.Stderr != 9000000 {
		t.Errorf("%d bytes read, status says %d", size, s.Stderr)
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	events := make(chan protocol.Event, 1000)
	done := make(chan error, 1)
	go func() {
		done <- n.client.Watch(ctx, func(e protocol.Event) error { events <- e; return nil })
	}()
	next := func() protocol.Event {
		select {
		case e := <-events:
			return e
		case <-time.After(10 * time.Second):
			t.Fatal("no event")
			return protocol.Event{}
		}
	}
	if e := next(); !e.Synced {
		t.Fatalf("first event %+v", e)
	}
	spec := script("echo hello")
	n.prepare(spec)
	var version uint64
	for {
		e := next()
		if e.Status == nil {
			continue
		}
		if e.Status.Run != spec.Run || e.Status.Version <= version {
			t.Fatalf("event %+v after version %d", e.Status, version)
		}
		version = e.Status.Version
		if e.Status.State == protocol.RunEnded {
			if e.Status.Stdout != 6 {
				t.Errorf("ended with %d bytes of log, want 6", e.Status.Stdout)
			}
			break
		}
	}
	if err := n.client.Remove(t.Context(), spec.Run); err != nil {
		t.Fatal(err)
	}
	for next().Removed != spec.Run {
		continue // news of its end may come before
	}
	// Versions go on growing in the next worker.
	n.prepare(spec)
	n.ended(spec.Run)
	before := n.status(spec.Run).Version
	n.kill()
	if err := <-done; err == nil {
		t.Error("a broken stream is no error")
	}
	cancel()
	n.start()
	if after := n.status(spec.Run).Version; after <= before {
		t.Errorf("version %d after %d", after, before)
	}
}

func TestPorts(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("needs python3")
	}
	n := newNode(t)
	in, out := freePort(t), freePort(t)
	spec := script(fmt.Sprintf(`#!/usr/bin/env python3
import socket
c = socket.create_connection(("127.0.0.1", %d))
c.sendall(b"from the job\n"); c.shutdown(socket.SHUT_WR)
print(c.makefile().read(), flush=True)
l = socket.socket(); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
l.bind(("0.0.0.0", %d)); l.listen()
while True:
    s, _ = l.accept()
    data = s.makefile("rb").read()
    s.sendall(data.upper()); s.close()
`, out, in))
	spec.Request.Ports = []skyport.Port{{Number: in, Direction: skyport.In}, {Number: out, Direction: skyport.Out}}
	n.prepare(spec)

	if _, err := n.client.Connect(t.Context(), spec.Run, in); skyport.CodeOf(err) != skyport.CodeUnavailable {
		t.Errorf("connect before the job listens: %v", err)
	}
	if _, err := n.client.Connect(t.Context(), spec.Run, 22); skyport.CodeOf(err) != skyport.CodeForbidden {
		t.Errorf("connect to a port that is not the job's: %v", err)
	}
	var conn net.Conn
	n.await("the job connects out", func() bool {
		var err error
		conn, err = n.client.Accept(t.Context(), spec.Run, out)
		return err == nil
	})
	talk(t, conn, "from the user", "from the job\n")
	n.await("the job listens", func() bool {
		s := n.status(spec.Run)
		return len(s.Ports) == 1 && s.Ports[0] == protocol.PortStatus{Port: in, Address: "0.0.0.0"}
	})
	conn, err := n.client.Connect(t.Context(), spec.Run, in)
	if err != nil {
		t.Fatal(err)
	}
	talk(t, conn, "shout", "SHOUT")

	// The next worker opens the same ports for the same job.
	n.kill()
	n.start()
	n.await("the port is found again", func() bool { return len(n.status(spec.Run).Ports) == 1 })
	if conn, err = n.client.Connect(t.Context(), spec.Run, in); err != nil {
		t.Fatal(err)
	}
	talk(t, conn, "again", "AGAIN")
}

func TestOutPortTaken(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	spec := script("echo ran >> ran")
	port := l.Addr().(*net.TCPAddr).Port
	spec.Request.Ports = []skyport.Port{{Number: port, Direction: skyport.Out}}
	n.prepare(spec)
	if s := n.ended(spec.Run); s.State != protocol.RunRefused || !strings.Contains(s.Details, fmt.Sprint(port)) {
		t.Errorf("%+v", s)
	}
	n.wantRuns(spec.Run, 0)
}

func talk(t *testing.T, conn net.Conn, say, want string) {
	t.Helper()
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, say); err != nil {
		t.Fatal(err)
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(io.LimitReader(conn, 1<<20))
	if err != nil || string(got) != want {
		t.Errorf("heard %q, %v; want %q", got, err, want)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	spec := script("end=$(($(date +%s)+3)); while [ $(date +%s) -lt $end ]; do :; done")
	n.prepare(spec)
	s := n.ended(spec.Run)
	samples, err := n.client.Metrics(t.Context(), spec.Run)
	if err != nil || len(samples) < 2 {
		t.Fatalf("%d samples, %v", len(samples), err)
	}
	if s.Usage.CPUSeconds < 0.3 || s.Usage.CPUMax < 10 || s.Usage.MemoryMax < 1<<19 || s.Usage.Count != len(samples) {
		t.Errorf("usage %+v of %v", s.Usage, samples)
	}
}

func TestHundredAtOnce(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	specs := make([]protocol.RunSpec, 100)
	var all sync.WaitGroup
	for i := range specs {
		specs[i] = script("echo ran >> ran; echo $SWM_JOB_ID; sleep 1")
		all.Go(func() { n.prepare(specs[i]) })
	}
	all.Wait()
	for _, spec := range specs {
		if s := n.ended(spec.Run); s.State != protocol.RunEnded || s.ExitCode != 0 {
			t.Errorf("%+v", s)
		}
		n.wantRuns(spec.Run, 1)
		if got := n.log(spec.Run, "stdout"); got != string(spec.Job)+"\n" {
			t.Errorf("log %q", got)
		}
	}
}

func TestRemoveRunning(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	spec := script(`trap '' TERM; mkdir -p deep/down; touch deep/down/file; chmod 500 deep/down deep; echo up; setsid sleep 1000 & sleep 1000`)
	spec.CPUs = 1
	n.prepare(spec)
	n.await("the script is up", func() bool { return n.log(spec.Run, "stdout") == "up\n" })
	begin := time.Now()
	if err := n.client.Remove(t.Context(), spec.Run); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %s, although there is no grace", took)
	}
	if _, err := n.client.Status(t.Context(), spec.Run); skyport.CodeOf(err) != skyport.CodeNotFound {
		t.Errorf("status of a removed run: %v", err)
	}
	table, err := proc.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if left := table.Marked("SWM_RUN=" + spec.Run); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
}

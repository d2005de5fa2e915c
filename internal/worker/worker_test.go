package worker_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/worker/proc"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

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

package worker_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/session"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

func TestContainerScript(t *testing.T) {
	t.Parallel()
	n, api := containerNode(t)
	plain := image(t, api, rootfs(t, shellFiles(t)...))
	strange := image(t, api, rootfs(t, shellFiles(t)...), "USER 12345", `ENTRYPOINT ["/nonexistent"]`, `CMD ["nothing"]`,
		"ENV FROM_IMAGE=yes", "WORKDIR /nowhere", "VOLUME /data", "HEALTHCHECK CMD false")
	bare := image(t, api, rootfs(t, file{name: "busybox", data: busybox(t)}))

	tests := []struct {
		name, image, script string
		stdout, stderr      string
		code, signal        int
		refused             string
	}{
		{name: "shell", image: plain, script: "echo out; echo err >&2; exit 7", stdout: "out\n", stderr: "err\n", code: 7},
		{name: "interpreter", image: plain, script: "#!/bin/busybox sh\necho $0 is here", stdout: "RUNDIR/script is here\n"},
		{name: "own entrypoint", image: strange, script: "echo $FROM_IMAGE; pwd", stdout: "yes\nWORK\n"},
		{name: "user", image: strange, script: "id -u; id -g; echo $USER; test -w . && touch made && ls", stdout: fmt.Sprintf("%d\n%d\nroot\nmade\nstderr.log\nstdout.log\n", os.Getuid(), os.Getgid())},
		{name: "home", image: plain, script: `test "$HOME" = "$PWD" && touch $HOME/x $TMPDIR/y && echo well`, stdout: "well\n"},
		{name: "scratch", image: bare, script: "#!/busybox sh\necho $((6*7))", stdout: "42\n"},
		{name: "no shell", image: bare, script: "echo no", refused: "has no #! line, and container image " + bare + " has no /bin/sh"},
		{name: "no interpreter", image: plain, script: "#!/usr/bin/python3\n", refused: `the script asks for "/usr/bin/python3", which container image ` + plain + " does not have"},
		{name: "no program", image: plain, script: "#!/bin/env python3\n", refused: `the script asks for "python3", which container image ` + plain},
		{name: "signal", image: plain, script: "kill -9 $$", code: 137, signal: 9},
		{name: "what is left behind", image: plain, script: "sleep 1000 & sh -c 'sleep 1000 &' ; echo done", stdout: "done\n"},
		{name: "no capabilities", image: plain, script: "mount -t tmpfs x /bin 2>/dev/null || echo refused", stdout: "refused\n"},
		{name: "first process", image: plain, script: "cat /proc/1/comm", stdout: "skyport-worker-\n"},
		{name: "closed", image: plain, script: "for f in RUNDIR/*; do case $f in */task) ;; *) echo ${f##*/};; esac; done; ls /var/run/docker.sock 2>/dev/null || echo no socket", stdout: "box\nscript\ntmp\nwork\nno socket\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := &node{t: t, client: n.client, dir: n.dir}
			spec := contained(tt.image, "")
			dir := filepath.Join(n.dir, "runs", spec.Run)
			fill := strings.NewReplacer("RUNDIR", dir, "WORK", filepath.Join(dir, "work"))
			spec.Script = []byte(fill.Replace(tt.script))
			n.prepare(spec)
			s := n.ended(spec.Run)
			if tt.refused != "" {
				if s.State != protocol.RunRefused || !strings.Contains(s.Details, tt.refused) {
					t.Errorf("%s: %s", s.State, s.Details)
				}
				return
			}
			stdout, stderr := n.log(spec.Run, "stdout"), n.log(spec.Run, "stderr")
			if stdout != fill.Replace(tt.stdout) || stderr != tt.stderr || s.State != protocol.RunEnded || s.ExitCode != tt.code || s.Signal != tt.signal {
				t.Errorf("%s %d %d %s: stdout %q, stderr %q", s.State, s.ExitCode, s.Signal, s.Details, stdout, stderr)
			}
			if left := n.containers(api); len(left) > 0 {
				t.Errorf("left when the run has ended: %v", left)
			}
		})
	}
}

func TestContainerStop(t *testing.T) {
	t.Parallel()
	n, api := containerNode(t)
	shell := image(t, api, rootfs(t, shellFiles(t)...))
	tests := []struct {
		name, script string
		limit, grace skyport.Seconds
		want         func(s protocol.RunStatus, stdout string) bool
	}{
		{
			name: "term", script: "trap 'echo told; exit 3' TERM; echo up; while :; do sleep 0.1; done", grace: 30,
			want: func(s protocol.RunStatus, out string) bool {
				return s.Stopped && s.ExitCode == 3 && out == "up\ntold\n"
			},
		},
		{
			name: "kill", script: "trap '' TERM; echo up; while :; do sleep 0.1; done", grace: 1,
			want: func(s protocol.RunStatus, _ string) bool { return s.Stopped && s.Signal == 9 },
		},
		{
			name: "time limit", script: "echo up; sleep 1000", limit: 1, grace: 1,
			want: func(s protocol.RunStatus, _ string) bool { return s.TimedOut && s.Signal == 15 },
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := &node{t: t, client: n.client, dir: n.dir}
			spec := contained(shell, tt.script)
			spec.Request.TimeLimit, spec.Grace = tt.limit, tt.grace
			n.prepare(spec)
			n.await("the script runs", func() bool { return strings.Contains(n.log(spec.Run, "stdout"), "up\n") })
			if tt.limit == 0 {
				if err := n.client.Stop(t.Context(), spec.Run); err != nil {
					t.Fatal(err)
				}
			}
			if s := n.ended(spec.Run); s.State != protocol.RunEnded || !tt.want(s, n.log(spec.Run, "stdout")) {
				t.Errorf("%+v, %q", s, n.log(spec.Run, "stdout"))
			}
		})
	}
}

func TestContainerLimits(t *testing.T) {
	t.Parallel()
	n, api := containerNode(t)
	shell := image(t, api, rootfs(t, shellFiles(t)...))
	// The value of a shell variable is memory that cannot be given back.
	spec := contained(shell, `x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done`)
	spec.CPUs, spec.Memory = 1, 128<<20
	n.prepare(spec)
	s := n.ended(spec.Run)
	if !s.OutOfMem || !strings.Contains(s.Details, "killed for its memory limit") || !strings.Contains(s.Details, "memory limit 128 MiB by docker") {
		t.Errorf("%+v", s)
	}
	if s.Usage.MemoryMax < 64<<20 || s.Usage.CPUSeconds <= 0 {
		t.Errorf("usage %+v", s.Usage)
	}

	if devices, err := filepath.Glob("/dev/nvidia[0-9]*"); err == nil && len(devices) == 0 {
		none := contained(shell, "echo no")
		none.GPUs = 1
		n.prepare(none)
		if s := n.ended(none.Run); s.State != protocol.RunRefused || !strings.Contains(s.Details, "the job asks for 1 GPU, and the node's container engine can give none") {
			t.Errorf("%+v", s)
		}
	}

	spec = contained(shell, `while read a b c d e; do case $b in /dev/shm) echo $d;; esac; done < /proc/self/mounts; i=0; while [ $i -lt 3000000 ]; do i=$((i+1)); done`)
	spec.CPUs, spec.Memory = 1, 256<<20
	n.prepare(spec)
	n.await("the container's processes are seen", func() bool {
		s = n.status(spec.Run)
		return s.Usage.CPUMax > 20 || s.State == protocol.RunEnded
	})
	if s = n.ended(spec.Run); s.ExitCode != 0 || s.Usage.Count == 0 || s.Usage.CPUMax < 20 {
		t.Errorf("%+v", s)
	}
	if shm := n.log(spec.Run, "stdout"); !strings.Contains(shm, "size=131072k") {
		t.Errorf("/dev/shm: %s", shm)
	}
}

func TestContainerMember(t *testing.T) {
	t.Parallel()
	n, api := containerNode(t)
	shell := image(t, api, rootfs(t, shellFiles(t)...))
	spec := contained(shell, "echo never")
	spec.Member = true
	n.prepare(spec)
	n.await("the container is up", func() bool { return len(n.containers(api)) == 1 })
	if err := n.client.Stop(t.Context(), spec.Run); err != nil {
		t.Fatal(err)
	}
	if s := n.ended(spec.Run); s.State != protocol.RunEnded || !s.Stopped {
		t.Errorf("%+v", s)
	}
}

func TestContainerCommand(t *testing.T) {
	t.Parallel()
	n, api := containerNode(t)
	shell := image(t, api, rootfs(t, shellFiles(t)...), "USER 12345", "ENV FROM_IMAGE=yes")
	bare := image(t, api, rootfs(t, file{name: "busybox", data: busybox(t)}))
	inShell, inBare := contained(shell, "echo made > made; while :; do sleep 0.1; done"), contained(bare, "#!/busybox sh\nexec /busybox sleep 1000")
	member := contained(bare, "")
	member.Member = true
	for _, spec := range []protocol.RunSpec{inShell, inBare, member} {
		n.runs(spec)
	}
	n.await("the script runs", func() bool {
		return n.call(protocol.Command{Run: inShell.Run, Argv: []string{"cat", "made"}}, "").out == "made\n"
	})
	tests := []struct {
		name     string
		command  protocol.Command
		stdin    string
		out, err string
		code     int
		sig      int
		failed   string
	}{
		{name: "streams", command: sh(inShell.Run, "cat; echo err >&2; exit 3"), stdin: "in", out: "in", err: "err\n", code: 3},
		{name: "environment", command: sh(inShell.Run, `echo $FROM_IMAGE $SWM_JOB_ID $MORE; id -u`), out: "yes " + string(inShell.Job) + " more\n" + fmt.Sprint(os.Getuid()) + "\n"},
		{name: "no shell needed", command: protocol.Command{Run: inBare.Run, Argv: []string{"/busybox", "echo", "a b"}}, out: "a b\n"},
		{name: "in a member", command: protocol.Command{Run: member.Run, Argv: []string{"/busybox", "echo", "there"}}, out: "there\n"},
		{name: "shell of the image", command: protocol.Command{Run: inShell.Run}, stdin: "echo in $0; exit 4\n", out: "in /bin/sh\n", code: 4},
		{name: "no shell", command: protocol.Command{Run: inBare.Run}, err: "container image " + bare + " has no shell: name a command that it has\n", code: 127},
		{name: "no command", command: protocol.Command{Run: inShell.Run, Argv: []string{"nothing"}}, err: "nothing: command not found\n", code: 127},
		{name: "signal", command: sh(inShell.Run, "kill -9 $$"), code: 137, sig: 9},
		// It stays a moment: containerd may drop what is written to a terminal at the end.
		{name: "terminal", command: protocol.Command{Run: inShell.Run, TTY: true, Rows: 33, Cols: 77, Argv: []string{"sh", "-c", "sleep 0.2; stty size; sleep 0.2"}}, out: "33 77\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := &node{t: t, client: n.client, dir: n.dir}
			if tt.name == "environment" {
				tt.command.Env = map[string]string{"MORE": "more"}
			}
			s := n.call(tt.command, tt.stdin)
			if s.out != tt.out || s.err != tt.err || s.exit.Code != tt.code || s.exit.Signal != tt.sig {
				t.Errorf("%+v", s)
			}
		})
	}
	t.Run("signals", func(t *testing.T) {
		n := &node{t: t, client: n.client, dir: n.dir}
		signals := make(chan syscall.Signal, 1)
		up := &marker{want: "up", found: func() { signals <- syscall.SIGINT }}
		s, err := n.try(t.Context(), sh(inShell.Run, "trap 'exit 9' INT; echo up; while :; do sleep 0.05; done"), session.Caller{Stdout: up, Signals: signals})
		if err != nil || s.exit.Code != 9 {
			t.Errorf("%+v, %v", s, err)
		}
	})
	t.Run("resize", func(t *testing.T) {
		n := &node{t: t, client: n.client, dir: n.dir}
		sizes := make(chan session.Size, 1)
		up := &marker{want: "up", found: func() { sizes <- session.Size{Rows: 40, Cols: 100} }}
		c := sh(inShell.Run, "echo up; while test \"$(stty size)\" != '40 100'; do sleep 0.05; done; exit 6")
		c.TTY, c.Rows, c.Cols = true, 24, 80
		s, err := n.try(t.Context(), c, session.Caller{Stdout: up, Resize: sizes})
		if err != nil || s.exit.Code != 6 {
			t.Errorf("%+v, %v", s, err)
		}
	})
	t.Run("caller goes away", func(t *testing.T) {
		n := &node{t: t, client: n.client, dir: n.dir}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		up := &marker{want: "up", found: cancel}
		if _, err := n.try(ctx, sh(inShell.Run, "echo up; sleep 4321"), session.Caller{Stdout: up}); err == nil {
			t.Error("no error")
		}
		n.await("the command is ended", func() bool {
			return n.call(sh(inShell.Run, "ps | while read line; do case $line in *'sleep 4321') echo lives;; esac; done"), "").out == ""
		})
	})
}

// marker is a writer that tells once when it has seen a word.
type marker struct {
	want  string
	found func()
	seen  bytes.Buffer
	told  bool
}

func (m *marker) Write(p []byte) (int, error) {
	m.seen.Write(p)
	if !m.told && strings.Contains(m.seen.String(), m.want) {
		m.told = true
		m.found()
	}
	return len(p), nil
}

// What the first line of a script waits for, the image being there. It is told,
// not held against anything: the machine may be busy.
func TestContainerStartTime(t *testing.T) {
	n, api := containerNode(t)
	shell := image(t, api, rootfs(t, shellFiles(t)...))
	for range 5 {
		spec := contained(shell, "echo up")
		asked := time.Now()
		n.prepare(spec)
		n.await("the first line", func() bool { return n.log(spec.Run, "stdout") != "" })
		first := time.Since(asked)
		n.ended(spec.Run)
		t.Logf("first line after %s, the end after %s", first.Round(time.Millisecond), time.Since(asked).Round(time.Millisecond))
	}
}

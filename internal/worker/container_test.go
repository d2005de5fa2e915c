package worker_test

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/session"
	"github.com/openworkload/skyport/internal/worker/protocol"
	"github.com/openworkload/skyport/internal/worker/runtime"
	"github.com/openworkload/skyport/internal/worker/shim"
)

// engine returns a client of the machine's container engine.
func engine(t *testing.T) *client.Client {
	t.Helper()
	api, err := client.New(client.FromEnv)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() })
	if _, err := api.Ping(t.Context(), client.PingOptions{NegotiateAPIVersion: true}); err != nil {
		t.Skipf("no container engine answers: %v", err)
	}
	return api
}

// busybox is a statically linked one, which images are made of.
func busybox(t *testing.T) []byte {
	t.Helper()
	for _, path := range []string{"/bin/busybox", "/usr/bin/busybox", "/usr/bin/busybox-static"} {
		f, err := elf.Open(path)
		if err != nil {
			continue
		}
		libraries, _ := f.ImportedLibraries()
		_ = f.Close()
		if len(libraries) > 0 {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	t.Skip("no static busybox on this machine (Debian: busybox-static)")
	return nil
}

// file is one of an image. A link has no data.
type file struct {
	name, link string
	data       []byte
}

// rootfs makes a tar file of a root file system.
func rootfs(t *testing.T, files ...file) string {
	t.Helper()
	var b bytes.Buffer
	out := tar.NewWriter(&b)
	for _, f := range files {
		header := &tar.Header{Name: f.name, Mode: 0o755, Size: int64(len(f.data)), Typeflag: tar.TypeReg}
		if f.link != "" {
			header.Typeflag, header.Linkname, header.Size = tar.TypeSymlink, f.link, 0
		}
		if err := out.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write(f.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "rootfs.tar")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// shellFiles make an image with a shell and a few programs, and nothing else: no
// bash, no /etc/passwd.
func shellFiles(t *testing.T) []file {
	files := []file{{name: "bin/busybox", data: busybox(t)}}
	for _, name := range []string{"sh", "cat", "echo", "env", "id", "ls", "ps", "sleep", "stty", "touch", "true", "kill", "head", "dd", "mount"} {
		files = append(files, file{name: "bin/" + name, link: "busybox"})
	}
	return files
}

// image makes an image of a root file system, with instructions of a Dockerfile.
func image(t *testing.T, api *client.Client, root string, changes ...string) string {
	t.Helper()
	name := "skyport-test/" + strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-")) + ":" + string(skyport.NewJobID())[:8]
	f, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	got, err := api.ImageImport(t.Context(), client.ImageImportSource{Source: f, SourceName: "-"}, name,
		client.ImageImportOptions{Changes: append(changes, "LABEL skyport.test=1")})
	if err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(got)
	if err != nil || bytes.Contains(said, []byte(`"error"`)) {
		t.Fatalf("%s, %v", said, err)
	}
	removeImage(t, api, name)
	return name
}

// removeImage has an image removed at the end of the test.
func removeImage(t *testing.T, api *client.Client, name string) {
	t.Cleanup(func() {
		_, _ = api.ImageRemove(context.Background(), name, client.ImageRemoveOptions{Force: true, PruneChildren: true}) // may not have come
	})
}

// containers lists the names of those of a node.
func (n *node) containers(api *client.Client) []string {
	n.t.Helper()
	list, err := api.ContainerList(context.Background(), client.ContainerListOptions{
		All: true, Filters: make(client.Filters).Add("label", "skyport.dir="+n.dir),
	})
	if err != nil {
		n.t.Fatal(err)
	}
	var names []string
	for _, item := range list.Items {
		names = append(names, item.Names...)
	}
	return names
}

// containerNode is a node that must have no containers in the end.
func containerNode(t *testing.T) (*node, *client.Client) {
	t.Helper()
	api := engine(t)
	var n *node
	t.Cleanup(func() {
		if n == nil {
			return
		}
		if left := n.containers(api); len(left) > 0 {
			t.Errorf("left: %v", left)
			for _, name := range left {
				_, _ = api.ContainerRemove(context.Background(), name, client.ContainerRemoveOptions{Force: true})
			}
		}
	})
	n = newNode(t)
	return n, api
}

// contained is a run in a container.
func contained(image, text string) protocol.RunSpec {
	spec := script(text)
	spec.Request.ContainerImage = image
	return spec
}

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

// Whoever is killed, the script runs once, and nothing of it is left.
func TestContainerSurvivesKills(t *testing.T) {
	t.Parallel()
	n, api := containerNode(t)
	shell := image(t, api, rootfs(t, shellFiles(t)...))
	const text = "echo ran >> ran; echo line; sleep 1; echo end; exit 5"

	t.Run("worker", func(t *testing.T) {
		n.t = t
		spec := contained(shell, text)
		n.prepare(spec)
		n.await("the script runs", func() bool { return n.log(spec.Run, "stdout") != "" })
		n.kill()
		n.start()
		if s := n.ended(spec.Run); s.ExitCode != 5 || n.log(spec.Run, "stdout") != "line\nend\n" {
			t.Errorf("%+v", s)
		}
	})
	t.Run("who stands for the container", func(t *testing.T) {
		n.t = t
		for round := range 6 {
			spec := contained(shell, text)
			n.prepare(spec)
			// At different moments of its short life.
			for range 1 + round%3 {
				time.Sleep(time.Duration(round*70) * time.Millisecond)
				killMarked(t, n, spec.Run, "contain")
			}
			s := n.ended(spec.Run)
			if s.State != protocol.RunEnded || s.ExitCode != 5 || n.log(spec.Run, "stdout") != "line\nend\n" {
				t.Errorf("round %d: %+v, %q", round, s, n.log(spec.Run, "stdout"))
			}
		}
	})
	t.Run("shim", func(t *testing.T) {
		n.t = t
		for round := range 4 {
			spec := contained(shell, text)
			n.prepare(spec)
			n.await("the shim has begun", func() bool { return n.status(spec.Run).State != protocol.RunStaging })
			time.Sleep(time.Duration(round*80) * time.Millisecond)
			var began shim.Began
			if err := shim.Read(filepath.Join(n.dir, "runs", spec.Run), shim.BeganFile, &began); err != nil {
				t.Fatal(err)
			}
			_ = syscall.Kill(began.PID, syscall.SIGKILL) // it may have ended
			s := n.ended(spec.Run)
			if s.State != protocol.RunLost {
				t.Errorf("round %d: %+v", round, s)
			}
			if left := n.containers(api); len(left) > 0 {
				t.Errorf("round %d: left: %v", round, left)
			}
		}
	})
	t.Run("all", func(t *testing.T) {
		n.t = t
		spec := contained(shell, "sleep 1000")
		n.prepare(spec)
		n.await("the container is there", func() bool { return len(n.containers(api)) == 1 })
		n.kill()
		killMarked(t, n, spec.Run, "contain")
		var began shim.Began
		if err := shim.Read(filepath.Join(n.dir, "runs", spec.Run), shim.BeganFile, &began); err != nil {
			t.Fatal(err)
		}
		_ = syscall.Kill(began.PID, syscall.SIGKILL)
		n.start()
		if s := n.ended(spec.Run); s.State != protocol.RunLost {
			t.Errorf("%+v", s)
		}
		n.await("the container is gone", func() bool { return len(n.containers(api)) == 0 })
	})
	t.Run("container", func(t *testing.T) {
		n.t = t
		spec := contained(shell, "echo up; sleep 1000")
		n.prepare(spec)
		n.await("the script runs", func() bool { return n.log(spec.Run, "stdout") != "" })
		if _, err := api.ContainerKill(t.Context(), n.containers(api)[0], client.ContainerKillOptions{Signal: "KILL"}); err != nil {
			t.Fatal(err)
		}
		if s := n.ended(spec.Run); s.Signal != 9 || !strings.Contains(s.Details, "ended from outside") {
			t.Errorf("%+v", s)
		}
	})
	t.Run("sweep", func(t *testing.T) {
		n.t = t
		spec := contained(shell, "sleep 1000")
		n.prepare(spec)
		n.await("the container is there", func() bool { return len(n.containers(api)) == 1 })
		n.kill()
		killMarked(t, n, spec.Run, "shim")
		if err := os.RemoveAll(filepath.Join(n.dir, "runs", spec.Run)); err != nil {
			t.Fatal(err)
		}
		n.start()
		n.await("the container is swept", func() bool { return len(n.containers(api)) == 0 })
	})
}

// killMarked kills the worker's processes of a run that have a word among their
// arguments.
func killMarked(t *testing.T, n *node, run, word string) {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue
		}
		if bytes.Contains(line, []byte("\x00"+word+"\x00"+filepath.Join(n.dir, "runs", run)+"\x00")) {
			var pid int
			if _, err := fmt.Sscanf(filepath.Base(dir), "%d", &pid); err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
			}
		}
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
		{name: "terminal", command: protocol.Command{Run: inShell.Run, TTY: true, Rows: 33, Cols: 77, Argv: []string{"sh", "-c", "sleep 0.2; stty size"}}, out: "33 77\r\n"},
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

// An engine of its own that is killed and comes back; the script does not notice.
func TestContainerEngineRestarts(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root to run a container engine")
	}
	dockerd, err := exec.LookPath("dockerd")
	if err != nil {
		t.Skip("needs dockerd")
	}
	busybox(t)
	d := &daemon{t: t, dockerd: dockerd}
	if d.dir, err = os.MkdirTemp("", "spd"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.remove)
	d.start()
	n := newNodeWith(t, "DOCKER_HOST="+d.host())
	shell := image(t, d.api, rootfs(t, shellFiles(t)...))
	spec := contained(shell, "echo up; sleep 4; echo end; exit 5")
	n.prepare(spec)
	n.await("the script runs", func() bool { return n.log(spec.Run, "stdout") != "" })
	d.kill()
	n.await("the script goes on", func() bool { return strings.Contains(n.log(spec.Run, "stdout"), "end") })
	d.start()
	if s := n.ended(spec.Run); s.State != protocol.RunEnded || s.ExitCode != 5 {
		t.Errorf("%+v", s)
	}
	n.await("the container is gone", func() bool { return len(n.containers(d.api)) == 0 })

	spec = contained(shell, "echo up; sleep 1000")
	n.prepare(spec)
	n.await("the script runs", func() bool { return n.log(spec.Run, "stdout") != "" })
	d.kill()
	if err := n.client.Stop(t.Context(), spec.Run); err != nil {
		t.Fatal(err)
	}
	n.await("the script was told without the engine", func() bool {
		return shim.Exists(filepath.Join(n.dir, "runs", spec.Run), shim.ResultFile)
	})
	d.start()
	if s := n.ended(spec.Run); s.State != protocol.RunEnded || s.Signal != 15 || !s.Stopped {
		t.Errorf("%+v", s)
	}
	n.await("the container is gone", func() bool { return len(n.containers(d.api)) == 0 })
}

// daemon is a container engine with a directory of its own.
type daemon struct {
	t            *testing.T
	dockerd, dir string
	containerd   *exec.Cmd // on its own, as distributions have it: it stays when dockerd is killed
	cmd          *exec.Cmd
	api          *client.Client
	gone         sync.WaitGroup
}

func (d *daemon) host() string { return "unix://" + filepath.Join(d.dir, "d.sock") }

func (d *daemon) start() {
	d.t.Helper()
	_ = os.Remove(filepath.Join(d.dir, "d.pid")) // of one that was killed
	below := filepath.Join(d.dir, "c.sock")
	if d.containerd == nil {
		config := filepath.Join(d.dir, "c.toml")
		text := "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n"
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			d.t.Fatal(err)
		}
		d.containerd = exec.Command("containerd", "--config", config, "--address", below,
			"--root", filepath.Join(d.dir, "croot"), "--state", filepath.Join(d.dir, "cstate"))
		if err := d.containerd.Start(); err != nil {
			d.t.Fatal(err)
		}
	}
	var said bytes.Buffer
	d.cmd = exec.Command(d.dockerd, "--data-root", filepath.Join(d.dir, "data"), "--exec-root", filepath.Join(d.dir, "run"),
		"--pidfile", filepath.Join(d.dir, "d.pid"), "--host", d.host(), "--containerd", below, "--bridge", "none", "--iptables=false", "--live-restore")
	d.cmd.Stderr = &said
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	cmd := d.cmd
	d.gone.Go(func() { _ = cmd.Wait() }) // killed
	defer func() {
		if d.t.Failed() {
			d.t.Logf("the engine said: %s", said.String())
		}
	}()
	if d.api == nil {
		api, err := client.New(client.WithHost(d.host()))
		if err != nil {
			d.t.Fatal(err)
		}
		d.api = api
	}
	await(d.t, "the engine answers", func() bool {
		_, err := d.api.Ping(context.Background(), client.PingOptions{NegotiateAPIVersion: true})
		return err == nil
	})
}

func (d *daemon) kill() {
	_ = d.cmd.Process.Kill() // it may have ended
	d.gone.Wait()
}

// remove ends the engine and its containerd, and removes what it has mounted.
func (d *daemon) remove() {
	if d.api != nil {
		_ = d.api.Close()
	}
	if d.cmd != nil {
		_ = d.cmd.Process.Signal(syscall.SIGTERM) // it may have been killed
		d.gone.Wait()
	}
	if d.containerd != nil && d.containerd.Process != nil {
		_ = d.containerd.Process.Signal(syscall.SIGTERM) // then it ends
		_ = d.containerd.Wait()
	}
	// What stands for containers that a failed test has left.
	processes, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range processes {
		line, _ := os.ReadFile(path) // it may have ended
		var pid int
		if _, err := fmt.Sscanf(path, "/proc/%d/", &pid); err == nil && bytes.Contains(line, []byte(d.dir+"/c.sock")) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], d.dir+"/") {
			_ = syscall.Unmount(fields[1], syscall.MNT_DETACH) // the rest is removed
		}
	}
	if err := os.RemoveAll(d.dir); err != nil {
		d.t.Error(err)
	}
}

var _ runtime.Runtime = (*runtime.Node)(nil)

package link_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/openworkload/skyport/internal/bootstrap"
	"github.com/openworkload/skyport/internal/core/link"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

func TestFirstConnection(t *testing.T) {
	t.Parallel()
	servers, keys := cluster(t, 1)
	s, w := servers[0], build(t, "")
	l := dial(t, options(t, servers, keys, w))
	until(t, "a reason", func() bool {
		is, _, err := l.Up()
		return !is && err != nil && strings.Contains(err.Error(), "refused") && strings.Contains(err.Error(), s.name)
	})
	s.up()
	comes(t, l, s)
	if info, err := os.Stat(s.dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory is %v, %v", info, err)
	}
	info, err := l.Worker().Info(t.Context())
	if err != nil || info.Node != s.name || info.PID != s.worker() {
		t.Errorf("the worker is %+v (pid file %d), %v", info, s.worker(), err)
	}
	status, err := l.Worker().Prepare(t.Context(), protocol.RunSpec{Run: "a.1", Script: []byte("#!/bin/sh\necho hello\n"), Start: true})
	if err != nil {
		t.Fatal(err)
	}
	l.Note(status)
	until(t, "ended", inState(l, "a.1", protocol.RunEnded))
	if err := l.Worker().Remove(t.Context(), "a.1"); err != nil {
		t.Error(err)
	}
	// A link that is closed leaves the worker, and the next finds it.
	l.Close()
	again := dial(t, options(t, servers, keys, w))
	comes(t, again, s)
	if next, err := again.Worker().Info(t.Context()); err != nil || next.PID != info.PID {
		t.Errorf("another worker runs: %+v, %v", next, err)
	}
	if w.uploads() != 1 {
		t.Errorf("the worker was uploaded %d times", w.uploads())
	}
}

func TestWrongHostKey(t *testing.T) {
	t.Parallel()
	servers, keys := cluster(t, 1)
	servers[0].up()
	others, err := bootstrap.NewKeys([]string{"x"})
	if err != nil {
		t.Fatal(err)
	}
	o := options(t, servers, keys, build(t, ""))
	o.Nodes[0].HostKey = others.Hosts[0].Public
	l := dial(t, o)
	until(t, "refused", func() bool { _, _, err := l.Up(); return errors.Is(err, link.ErrRefused) })
	if _, _, err := l.Up(); strings.Count(err.Error(), "SHA256:") != 2 || !strings.Contains(err.Error(), servers[0].name) {
		t.Errorf("it says %v", err)
	}
	if _, err := os.Stat(servers[0].dir); err == nil {
		t.Error("it went on all the same")
	}
}

func TestKeyThatIsNotThereYet(t *testing.T) {
	t.Parallel()
	servers, keys := cluster(t, 1)
	s := servers[0]
	file := filepath.Join(s.etc, "authorized_keys")
	if err := os.Rename(file, file+".later"); err != nil {
		t.Fatal(err)
	}
	s.up()
	l := dial(t, options(t, servers, keys, build(t, "")))
	until(t, "a reason", func() bool { _, _, err := l.Up(); return err != nil && strings.Contains(err.Error(), "login refused") })
	if err := os.Rename(file+".later", file); err != nil {
		t.Fatal(err)
	}
	comes(t, l, s)
}

func TestServerKilled(t *testing.T) {
	t.Parallel()
	servers, keys := cluster(t, 1)
	s := servers[0]
	s.up()
	l := dial(t, options(t, servers, keys, build(t, "")))
	comes(t, l, s)
	pid := s.worker()
	s.down()
	until(t, "down", func() bool { return !up(l) })
	s.up()
	comes(t, l, s)
	if s.worker() != pid {
		t.Error("the worker died with the server")
	}
}

func TestWorkerKilled(t *testing.T) {
	t.Parallel()
	servers, keys := cluster(t, 1)
	s := servers[0]
	s.up()
	l := dial(t, options(t, servers, keys, build(t, "")))
	comes(t, l, s)
	pid := s.worker()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "another worker", func() bool {
		info, err := l.Worker().Info(t.Context())
		return up(l) && err == nil && info.PID != pid
	})
}

func TestVersionReplaced(t *testing.T) {
	t.Parallel()
	servers, keys := cluster(t, 1)
	s := servers[0]
	s.up()
	l := dial(t, options(t, servers, keys, build(t, "")))
	comes(t, l, s)
	pid := s.worker()
	l.Close()
	l = dial(t, options(t, servers, keys, build(t, "another version")))
	comes(t, l, s)
	// Nobody may have waited for it yet.
	if text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); s.worker() == pid || len(text) > 0 {
		t.Error("the old worker still runs")
	}
	if info, err := l.Worker().Info(t.Context()); err != nil || info.PID != s.worker() {
		t.Errorf("the worker is %+v, %v", info, err)
	}
}

// A node without zstd, whose shell and tools are not those of GNU.
func TestSmallSystem(t *testing.T) {
	t.Parallel()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("there is no busybox: ", err)
	}
	bin := t.TempDir()
	if out, err := exec.Command(busybox, "--install", "-s", bin).CombinedOutput(); err != nil {
		t.Skipf("busybox does not install itself: %v, %s", err, out)
	}
	servers, keys := cluster(t, 1)
	s, w := servers[0], build(t, "")
	s.env = "PATH=" + bin
	s.up()
	o := options(t, servers, keys, w)
	o.Join = joinByPorts(t, servers, keys)
	l := dial(t, o)
	comes(t, l, s)
	l.Close()
	l = dial(t, o)
	comes(t, l, s)
	if !slices.Equal(w.asked, []string{"gz"}) {
		t.Errorf("uploaded as %q", w.asked)
	}
}

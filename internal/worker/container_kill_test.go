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
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/openworkload/skyport/internal/worker/protocol"
	"github.com/openworkload/skyport/internal/worker/shim"
)

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

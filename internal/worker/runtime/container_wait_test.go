package runtime

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openworkload/skyport"
)

// A node that boots: its /run, and the only place where its engine may listen.
type bootedNode struct {
	run, socket string
	container   *Container
}

func newBootedNode(t *testing.T, files ...string) *bootedNode {
	t.Helper()
	dir := t.TempDir()
	b := &bootedNode{run: filepath.Join(dir, "run"), socket: filepath.Join(dir, "s")}
	for _, name := range files {
		b.touch(t, name)
	}
	hosts := func() []string {
		if _, err := os.Stat(b.socket); err != nil {
			return nil
		}
		return []string{"unix://" + b.socket}
	}
	var err error
	b.container, err = NewContainer(ContainerOptions{
		Dir: dir, Logger: slog.New(slog.DiscardHandler), hosts: hosts, boot: b.run,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.container.Close() }) // says only that the connection was broken
	return b
}

// touch makes a file of /run, or a directory when the name ends with a slash.
func (b *bootedNode) touch(t *testing.T, name string) {
	t.Helper()
	path := filepath.Join(b.run, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(name, "/") {
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
	} else if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// deaf makes a socket on which nobody listens any more.
func (b *bootedNode) deaf(t *testing.T) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: b.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestHowLongAnEngineIsWaitedFor(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		files []string
		deaf  bool
		want  time.Duration
	}{
		{name: "no engine"},
		{name: "cloud-init has ended", files: []string{"cloud-init/result.json"}},
		{name: "cloud-init is switched off", files: []string{"cloud-init/disabled"}},
		{name: "the node is ready", files: []string{"cloud-init/", "skyport/ready"}},
		{name: "cloud-init runs", files: []string{"cloud-init/"}, want: bootTime},
		{name: "the node is being set up", files: []string{"cloud-init/result.json", "skyport/"}, want: bootTime},
		{name: "the engine does not answer", deaf: true, want: answerTime},
		{name: "the engine of a booting node does not answer", files: []string{"skyport/"}, deaf: true, want: bootTime},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBootedNode(t, tt.files...)
				if tt.deaf {
					b.deaf(t)
				}
				var said string
				began := time.Now()
				_, err := b.container.await(t.Context(), func(details string) { said = details })
				if skyport.CodeOf(err) != skyport.CodeNoEngine {
					t.Errorf("error %v", err)
				}
				if waited := time.Since(began); waited != tt.want {
					t.Errorf("waited for %s, want %s", waited, tt.want)
				}
				if (said == "Waiting for the container engine") != (tt.want > 0) {
					t.Errorf("said %q", said)
				}
			})
		})
	}
}

// The engine of this machine comes up while a run waits for it.
func TestEngineComesUp(t *testing.T) {
	t.Parallel()
	here := strings.TrimPrefix(append(engineHosts(), "")[0], "unix://")
	if _, err := findEngine(t.Context(), engineHosts()); err != nil || !filepath.IsAbs(here) {
		t.Skipf("no container engine answers: %v", err)
	}
	b := newBootedNode(t, "skyport/")
	told := 0
	e, err := b.container.await(t.Context(), func(string) {
		switch told++; told {
		case 1:
			b.deaf(t) // it is installed
		case 2:
			b.touch(t, "skyport/ready")
		case 3: // it has started
			if err := os.Remove(b.socket); err != nil {
				t.Error(err)
			}
			if err := os.Symlink(here, b.socket); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil || told != 3 || e.info.ID == "" {
		t.Errorf("%+v, %v after %d looks", e, err, told)
	}
}

func TestWaitForEngineEndsWithItsRun(t *testing.T) {
	t.Parallel()
	b := newBootedNode(t, "cloud-init/")
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := b.container.await(ctx, func(string) { cancel() }); skyport.CodeOf(err) == skyport.CodeNoEngine || err == nil {
		t.Errorf("error %v", err)
	}
}

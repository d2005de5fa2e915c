package link_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/bootstrap"
	"github.com/openworkload/skyport/internal/core/link"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// A connection that is cut without a word is noticed, on both sides of it calls
// fail, and the next one works.
func TestSilence(t *testing.T) {
	t.Parallel()
	servers, keys := cluster(t, 1)
	s := servers[0]
	s.up()
	p := newProxy(t, s.port, 0)
	o := options(t, servers, keys, build(t, ""))
	o.Nodes[0].Endpoint = s.endpoint(p.port)
	l := dial(t, o)
	comes(t, l, s)

	cut := time.Now()
	p.freeze(true)
	waitFor(t, 30*time.Second, "it is noticed", func() bool { return !up(l) })
	if took := time.Since(cut); took > 15*time.Second {
		t.Errorf("it took %s", took)
	}
	if _, err := l.Worker().Info(t.Context()); err == nil {
		t.Error("the worker answers over a connection that was cut")
	}
	p.freeze(false)
	comes(t, l, s)
}

// joinByPorts is what joins servers on ports of one machine.
func joinByPorts(t testing.TB, servers []*server, keys *bootstrap.Keys) func(int) string {
	t.Helper()
	return func(i int) string {
		var config, known strings.Builder
		for k, s := range servers {
			endpoint := s.endpoint(s.port)
			user, _, _ := strings.Cut(strings.TrimPrefix(endpoint, "ssh://"), "@")
			fmt.Fprintf(&config, "Host %s\n  HostName 127.0.0.1\n  Port %d\n  User %s\n", s.name, s.port, user)
			fmt.Fprintf(&known, "[127.0.0.1]:%d %s\n", s.port, keys.Hosts[k].Public)
		}
		dir := servers[i].dir + "/ssh"
		fmt.Fprintf(&config, "Host *\n  IdentitiesOnly yes\n  IdentityFile \"%[1]s/id_ed25519\"\n  UserKnownHostsFile \"%[1]s/known_hosts\"\n  StrictHostKeyChecking yes\n", dir)
		return fmt.Sprintf(`set -e
d="%s"
mkdir -p "$d"
cat >"$d/id_ed25519" <<'EOT'
%sEOT
cat >"$d/known_hosts" <<'EOT'
%sEOT
cat >"$d/config" <<'EOT'
%sEOT
echo joined >>"$d/times"
exit 0
`, dir, keys.Inner.Private, known.String(), config.String())
	}
}

func TestNodesPassTheWorkerOn(t *testing.T) {
	t.Parallel()
	servers, keys := cluster(t, 4)
	w := build(t, "")
	o := options(t, servers, keys, w)
	o.Join = joinByPorts(t, servers, keys)
	l := dial(t, o)
	// In any order, the main node not first.
	for _, s := range []*server{servers[2], servers[0], servers[1]} {
		s.up()
	}
	until(t, "three are up", func() bool {
		for i := range 3 {
			if is, _, _ := l.NodeUp(i); !is {
				return false
			}
		}
		return true
	})
	if is, _, err := l.Up(); is || !strings.Contains(err.Error(), "node-3") {
		t.Errorf("without the fourth: %v, %v", is, err)
	}
	servers[3].up()
	comes(t, l, servers...)
	if w.uploads() != 1 {
		t.Errorf("the worker was uploaded %d times", w.uploads())
	}
	for i, s := range servers {
		info, err := l.Node(i).Info(t.Context())
		if err != nil || info.Node != s.name {
			t.Errorf("node %d is %+v, %v", i, info, err)
		}
	}

	// The main node's connection carries the others.
	servers[0].down()
	until(t, "all are down", func() bool {
		for i := range servers {
			if is, _, _ := l.NodeUp(i); is {
				return false
			}
		}
		return true
	})
	servers[0].up()
	comes(t, l, servers...)
	for _, s := range servers {
		if times, err := os.ReadFile(filepath.Join(s.dir, "ssh", "times")); err != nil || strings.Count(string(times), "joined") != 1 {
			t.Errorf("%s was joined %q, %v", s.name, times, err)
		}
	}
}

// Nodes that cannot reach the main node get the worker from core.
func TestNodesThatCannotPassOn(t *testing.T) {
	t.Parallel()
	servers, keys := cluster(t, 2)
	w := build(t, "")
	l := dial(t, options(t, servers, keys, w))
	for _, s := range servers {
		s.up()
	}
	comes(t, l, servers...)
	if w.uploads() != 2 {
		t.Errorf("the worker was uploaded %d times", w.uploads())
	}
}

// A boot is seen by its mark: here the mark is taken away.
func TestJoinedAgain(t *testing.T) {
	t.Parallel()
	servers, keys := cluster(t, 1)
	s := servers[0]
	s.up()
	o := options(t, servers, keys, build(t, ""))
	o.Join = joinByPorts(t, servers, keys)
	l := dial(t, o)
	comes(t, l, s)
	if err := os.WriteFile(filepath.Join(s.dir, "joined"), []byte("another boot\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.down()
	until(t, "down", func() bool { return !up(l) })
	s.up()
	comes(t, l, s)
	if times, err := os.ReadFile(filepath.Join(s.dir, "ssh", "times")); err != nil || strings.Count(string(times), "joined") != 2 {
		t.Errorf("it was joined %q, %v", times, err)
	}
}

func TestWhatANodeCannotDoIsTold(t *testing.T) {
	t.Parallel()
	servers, keys := cluster(t, 1)
	s := servers[0]
	s.up()
	o := options(t, servers, keys, build(t, ""))
	o.Join = func(int) string { return "echo no such thing as a hosts file >&2\nexit 1\n" }
	l := dial(t, o)
	until(t, "it is told", func() bool {
		_, _, err := l.Up()
		return err != nil && strings.Contains(err.Error(), "no such thing as a hosts file")
	})
	l.Close()
	if err := os.RemoveAll(s.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l = dial(t, options(t, servers, keys, build(t, "")))
	until(t, "it is told", func() bool {
		_, _, err := l.Up()
		return err != nil && strings.Contains(err.Error(), "Not a directory")
	})
}

// Close ends a link promptly wherever it is.
func TestCloseAtEveryStage(t *testing.T) {
	t.Parallel()
	servers, keys := cluster(t, 2)
	w := build(t, "")
	silent, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0") // takes connections, and never speaks
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	o := options(t, servers, keys, w)
	o.Nodes[0].Endpoint = servers[0].endpoint(silent.Addr().(*net.TCPAddr).Port)
	l := dial(t, o)
	conn, err := silent.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	closes(t, l)

	l = dial(t, options(t, servers, keys, w)) // nobody listens
	until(t, "a reason", func() bool { _, _, err := l.Up(); return strings.Contains(err.Error(), "refused") })
	closes(t, l)

	for _, s := range servers {
		s.up()
	}
	// While it logs in, installs, starts: whatever that is at these moments.
	for wait := 5 * time.Millisecond; wait < 2*time.Second; wait *= 2 {
		l = dial(t, options(t, servers, keys, w))
		time.Sleep(wait)
		closes(t, l)
	}
	l = dial(t, options(t, servers, keys, w))
	comes(t, l, servers...)
	raw := make(chan error, 1)
	go func() {
		raw <- l.Worker().Watch(context.Background(), func(protocol.Event) error { return nil })
	}()
	closes(t, l)
	if err := <-raw; err == nil {
		t.Error("a call outlived the link")
	}
	if _, err := l.Node(1).Info(t.Context()); err == nil {
		t.Error("a closed link answers")
	}
}

func closes(t *testing.T, l *link.Link) {
	t.Helper()
	start := time.Now()
	l.Close()
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("Close took %s", took)
	}
}

// evil is an SSH server that lets core in and then does what it wants.
func evil(t *testing.T, keys *bootstrap.Keys, do func(ssh.Channel)) (port int) {
	t.Helper()
	signer, err := ssh.ParsePrivateKey(keys.Hosts[0].Private)
	if err != nil {
		t.Fatal(err)
	}
	config := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, nil }}
	config.AddHostKey(signer)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				conn, channels, requests, err := ssh.NewServerConn(raw, config)
				if err != nil {
					return
				}
				defer conn.Close()
				all.Go(func() { ssh.DiscardRequests(requests) })
				for c := range channels {
					ch, requests, err := c.Accept()
					if err != nil {
						return
					}
					all.Go(func() { ssh.DiscardRequests(requests) })
					all.Go(func() { do(ch) })
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		all.Wait()
	})
	return l.Addr().(*net.TCPAddr).Port
}

func TestEvilNodes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do   func(ssh.Channel)
		want string
	}{
		"endless": {func(ch ssh.Channel) {
			noise := bytes.Repeat([]byte("x"), 32<<10)
			var err error
			for err == nil {
				_, err = ch.Write(noise)
			}
		}, "the shell ended"},
		"errors without end": {func(ch ssh.Channel) {
			noise := make([]byte, 32<<10)
			_, _ = rand.Read(noise)
			for range 1000 {
				if _, err := ch.Stderr().Write(noise); err != nil {
					return
				}
			}
			ch.Close()
		}, "the shell ended"},
		"architecture": {func(ch ssh.Channel) { _, _ = io.WriteString(ch, "skyport: arch vax\n") }, "vax"},
		"nonsense":     {func(ch ssh.Channel) { _, _ = io.WriteString(ch, "skyport: ok\n") }, "the node says"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keys, err := bootstrap.NewKeys([]string{"n"})
			if err != nil {
				t.Fatal(err)
			}
			port := evil(t, keys, c.do)
			o := link.WithBinaries(link.Options{
				Nodes: []skyport.Node{{Name: "n", Endpoint: fmt.Sprintf("ssh://u@127.0.0.1:%d/d", port)}}, Keys: keys,
				Join: func(int) string { return "" },
			}, build(t, ""))
			l := dial(t, o)
			until(t, "it is told", func() bool { _, _, err := l.Up(); return err != nil && strings.Contains(err.Error(), c.want) })
			_, _, err = l.Up()
			if len(err.Error()) > 2000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
			if name == "architecture" != errors.Is(err, link.ErrRefused) {
				t.Errorf("refused? %v", err)
			}
			closes(t, l)
		})
	}
}

package link_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/openworkload/skyport/internal/core/link"
)

// sink takes all that comes over a unix socket, and answers with its end when
// the other side ends. With source it sends without end instead.
func sink(t testing.TB, source bool) (path string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "sps")
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "s")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				if source {
					buf := make([]byte, 128<<10)
					for err == nil {
						_, err = c.Write(buf)
					}
					return
				}
				_, _ = io.Copy(io.Discard, c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		all.Wait()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return path
}

// Connections for bulk data are spread over lines, up to their number.
func TestLines(t *testing.T) {
	t.Parallel()
	servers, keys := cluster(t, 1)
	s := servers[0]
	s.up()
	p := newProxy(t, s.port, 0)
	o := options(t, servers, keys, build(t, ""))
	o.Nodes[0].Endpoint = s.endpoint(p.port)
	l := dial(t, o)
	comes(t, l, s)
	path := sink(t, false)
	var all sync.WaitGroup
	conns := make([]net.Conn, 8)
	for i := range conns {
		all.Go(func() {
			c, err := l.DialLine(t.Context(), path)
			if err != nil {
				t.Error(err)
				return
			}
			conns[i] = c
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	if made := p.made.Load(); made != 5 {
		t.Errorf("there are %d SSH connections, want one and four for bulk data", made)
	}
	// A connection ends by halves, and as it is told to.
	if err := conns[0].(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Error(err)
	}
	if n, err := conns[0].Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("after the end there are %d bytes, %v", n, err)
	}
	if err := conns[1].SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Error(err)
	}
	if _, err := conns[1].Read(make([]byte, 1)); err == nil || !os.IsTimeout(err) {
		t.Errorf("past its deadline it says %v", err)
	}
	s.down()
	if _, err := conns[2].Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a connection that broke says %v", err)
	}
	for _, c := range conns {
		c.Close()
	}
}

// A port of the node is reached as its SSH server reaches it.
func TestDialMain(t *testing.T) {
	t.Parallel()
	servers, keys := cluster(t, 1)
	s := servers[0]
	s.up()
	l := dial(t, options(t, servers, keys, build(t, "")))
	comes(t, l, s)
	conn, err := l.DialMain(t.Context(), "127.0.0.1", s.port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	hello := make([]byte, 4)
	if _, err := io.ReadFull(conn, hello); err != nil || string(hello) != "SSH-" {
		t.Errorf("it says %q, %v", hello, err)
	}
	if _, err := l.DialMain(t.Context(), "127.0.0.1", 1<<16); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a port that is none: %v", err)
	}
}

func BenchmarkLines(b *testing.B) {
	servers, keys := cluster(b, 1)
	s := servers[0]
	s.up()
	l := dial(b, options(b, servers, keys, build(b, "")))
	comes(b, l, s)
	in, out := sink(b, false), sink(b, true)
	const size = 256 << 20
	for _, streams := range []int{1, 4} {
		dial := l.DialControl
		if streams > 1 {
			dial = l.DialLine
		}
		b.Run(fmt.Sprintf("up/%d", streams), func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				many(b, streams, dial, in, func(c net.Conn) error {
					buf := make([]byte, 128<<10)
					for sent := 0; sent < size/streams; sent += len(buf) {
						if _, err := c.Write(buf); err != nil {
							return err
						}
					}
					if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
						return err
					}
					_, err := io.Copy(io.Discard, c)
					return err
				})
			}
		})
		b.Run(fmt.Sprintf("down/%d", streams), func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				many(b, streams, dial, out, func(c net.Conn) error {
					_, err := io.CopyN(io.Discard, c, int64(size/streams))
					return err
				})
			}
		})
	}
	ssh := func(b *testing.B, up bool) {
		b.SetBytes(size)
		for b.Loop() {
			command := "cat >/dev/null"
			if !up {
				command = fmt.Sprintf("head -c %d /dev/zero", size)
			}
			cmd := exec.Command("ssh", "-F", "/dev/null", "-p", fmt.Sprint(s.port), "-i", filepath.Join(s.etc, "id"), "-o", "IdentitiesOnly=yes",
				"-o", "UserKnownHostsFile="+filepath.Join(s.etc, "known"), "-o", "StrictHostKeyChecking=accept-new", "127.0.0.1", command)
			if up {
				cmd.Stdin = io.LimitReader(zeros{}, size)
			}
			if err := cmd.Run(); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(s.etc, "id"), keys.Client.Private, 0o600); err != nil {
		b.Fatal(err)
	}
	b.Run("up/ssh", func(b *testing.B) { ssh(b, true) })
	b.Run("down/ssh", func(b *testing.B) { ssh(b, false) })
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func many(b *testing.B, n int, dial func(context.Context, string) (net.Conn, error), path string, do func(net.Conn) error) {
	b.Helper()
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			c, err := dial(b.Context(), path)
			if err == nil {
				err = do(c)
				c.Close()
			}
			if err != nil {
				b.Error(err)
			}
		})
	}
	all.Wait()
}

// From a server that answers to a link that is up: cold (the worker is uploaded
// and started) and warm.
func BenchmarkUp(b *testing.B) {
	w := build(b, "")
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			servers, keys := cluster(b, 1)
			servers[0].up()
			o := options(b, servers, keys, w)
			o.Logger = nil
			b.StartTimer()
			l := dial(b, o)
			comes(b, l, servers...)
			b.StopTimer()
			l.Close()
			servers[0].stopWorker()
			servers[0].down()
			b.StartTimer()
		}
	})
	servers, keys := cluster(b, 1)
	servers[0].up()
	for _, delay := range []time.Duration{0, 25 * time.Millisecond} {
		p := newProxy(b, servers[0].port, delay)
		o := options(b, servers, keys, w)
		o.Nodes[0].Endpoint = servers[0].endpoint(p.port)
		o.Logger = nil
		comes(b, dial(b, o), servers...)
		b.Run(fmt.Sprintf("warm/rtt=%s", 2*delay), func(b *testing.B) {
			for b.Loop() {
				l, err := link.Open(o)
				if err != nil {
					b.Fatal(err)
				}
				comes(b, l, servers...)
				b.StopTimer()
				l.Close()
				b.StartTimer()
			}
		})
	}
}

// Fifty nodes in one partition, the worker passed on, all on this machine.
func BenchmarkFifty(b *testing.B) {
	w := build(b, "")
	for b.Loop() {
		b.StopTimer()
		servers, keys := cluster(b, 50)
		for _, s := range servers {
			s.up()
		}
		o := options(b, servers, keys, w)
		o.Join = joinByPorts(b, servers, keys)
		o.Logger = nil
		b.StartTimer()
		l := dial(b, o)
		comes(b, l, servers...)
		b.StopTimer()
		l.Close()
		for _, s := range servers {
			s.stopWorker()
			s.down()
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(w.uploads()), "uploads")
}

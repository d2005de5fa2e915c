package link_test

import (
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// proxy is a way to a server that can freeze, as a wire that was cut: what was
// sent is lost, and nobody hears of it. It may also be long.
type proxy struct {
	port   int
	target string
	delay  time.Duration // one way

	listener net.Listener
	all      sync.WaitGroup
	made     atomic.Int32 // connections

	mu     sync.Mutex
	frozen bool
	conns  []net.Conn
	closed bool
}

func newProxy(t testing.TB, port int, delay time.Duration) *proxy {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{port: l.Addr().(*net.TCPAddr).Port, target: fmt.Sprintf("127.0.0.1:%d", port), delay: delay, listener: l}
	p.all.Go(p.accept)
	t.Cleanup(func() {
		p.mu.Lock()
		p.closed = true
		for _, c := range p.conns {
			c.Close()
		}
		p.mu.Unlock()
		l.Close()
		p.all.Wait()
	})
	return p
}

func (p *proxy) accept() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.made.Add(1)
		out, err := net.Dial("tcp", p.target)
		if err != nil {
			in.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, in, out)
		if p.closed {
			in.Close()
			out.Close()
		}
		p.mu.Unlock()
		p.all.Go(func() { p.carry(in, out) })
		p.all.Go(func() { p.carry(out, in) })
	}
}

// freeze stops all connections that there are, silently, or lets the next ones through.
func (p *proxy) freeze(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = on
}

func (p *proxy) isFrozen() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.frozen
}

func (p *proxy) carry(from, to net.Conn) {
	type packet struct {
		data []byte
		due  time.Time
	}
	packets := make(chan packet, 4096)
	var sender sync.WaitGroup
	sender.Go(func() {
		for b := range packets {
			time.Sleep(time.Until(b.due))
			if _, err := to.Write(b.data); err != nil {
				break
			}
		}
		for range packets { //nolint:revive // the rest is lost
		}
		to.Close()
	})
	dead := false
	for {
		buf := make([]byte, 64<<10)
		n, err := from.Read(buf)
		if dead = dead || p.isFrozen(); n > 0 && !dead {
			packets <- packet{buf[:n], time.Now().Add(p.delay)}
		}
		if err != nil {
			if dead { // the end is lost too
				_, _ = io.Copy(io.Discard, to)
			}
			break
		}
	}
	close(packets)
	sender.Wait()
}

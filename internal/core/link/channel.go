package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/openworkload/skyport"
)

// The payloads by which OpenSSH opens channels to a unix socket and to a TCP
// port (PROTOCOL 2.4, RFC 4254 7.2).
type (
	directUnix struct {
		Path      string
		Reserved0 string
		Reserved1 uint32
	}
	directTCP struct {
		Host       string
		Port       uint32
		OriginHost string
		OriginPort uint32
	}
)

// dialUnix opens a connection to a unix socket on the node.
func (w *wire) dialUnix(ctx context.Context, path string) (net.Conn, error) {
	return w.channel(ctx, "direct-streamlocal@openssh.com", directUnix{Path: path}, "unix", path)
}

// dialTCP opens a connection from the node to another.
func (w *wire) dialTCP(ctx context.Context, host string, port uint32) (net.Conn, error) {
	return w.channel(ctx, "direct-tcpip", directTCP{Host: host, Port: port, OriginHost: "127.0.0.1"},
		"tcp", net.JoinHostPort(host, fmt.Sprint(port)))
}

func (w *wire) channel(ctx context.Context, kind string, payload any, network, address string) (net.Conn, error) {
	ch, requests, err := w.openChannel(ctx, kind, ssh.Marshal(payload))
	if err != nil {
		return nil, fmt.Errorf("dial %s over SSH: %w", address, err)
	}
	s := &stream{Channel: ch, wire: w, gone: make(chan struct{}), peer: sshAddr{network, address}}
	if !w.tasks.run(func() {
		ssh.DiscardRequests(requests)
		close(s.gone)
		w.open.Add(-1)
	}) {
		return nil, net.ErrClosed
	}
	return s, nil
}

// openChannel opens a channel and counts it; who gets it takes the count back
// when its requests end. The protocol cannot take back the wish for a channel:
// when ctx ends before the peer answers, the answer is awaited elsewhere.
func (w *wire) openChannel(ctx context.Context, kind string, payload []byte) (ssh.Channel, <-chan *ssh.Request, error) {
	type opened struct {
		channel  ssh.Channel
		requests <-chan *ssh.Request
		err      error
	}
	result := make(chan opened)
	w.open.Add(1)
	if !w.tasks.run(func() {
		ch, requests, err := w.client.OpenChannel(kind, payload)
		if err != nil {
			w.open.Add(-1)
		}
		select {
		case result <- opened{ch, requests, err}:
		case <-ctx.Done():
			if err == nil {
				_ = ch.Close() // nobody wants it
				ssh.DiscardRequests(requests)
				w.open.Add(-1)
			}
		}
	}) {
		w.open.Add(-1)
		return nil, nil, net.ErrClosed
	}
	select {
	case r := <-result:
		var refused *ssh.OpenChannelError
		switch {
		case errors.As(r.err, &refused):
			return nil, nil, &channelError{refused}
		case r.err != nil && !w.alive():
			return nil, nil, w.failure()
		}
		return r.channel, r.requests, r.err
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx) //nolint:wrapcheck // says it all
	}
}

// channelError is the node's refusal to connect to something.
type channelError struct{ refused *ssh.OpenChannelError }

func (e *channelError) Error() string {
	return "the node answers: " + skyport.Abbreviate(e.refused.Message, 200)
}

func (e *channelError) Unwrap() error { return e.refused }

// stream is a channel as a net.Conn. A deadline that passes breaks it for good,
// unlike one of a socket.
type stream struct {
	ssh.Channel
	wire *wire
	peer net.Addr
	gone chan struct{} // closed when the peer has closed the channel, or the wire died

	closing sync.Once
	closed  atomic.Bool
	late    atomic.Bool

	mu       sync.Mutex
	deadline [2]*time.Timer // of reading, of writing
}

// Read does not take a broken connection for a proper end.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.Channel.Read(p)
	if err != nil {
		err = s.explain(err, s.wire.pulse.broken.Load() || !s.wire.alive())
	}
	return n, err
}

// Write fails when the peer has closed.
func (s *stream) Write(p []byte) (int, error) {
	n, err := s.Channel.Write(p)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrClosedPipe
		}
		err = s.explain(err, !s.wire.alive())
	}
	return n, err
}

func (s *stream) explain(err error, broken bool) error {
	switch {
	case s.late.Load():
		return os.ErrDeadlineExceeded
	case s.closed.Load():
		return net.ErrClosed
	case broken:
		return s.wire.failure()
	}
	return err
}

// patience is how long a peer may take to agree that a channel is closed.
const patience = 10 * time.Second

// Close returns at once. Reads and writes end when the peer agrees; one that
// does not in time loses the whole connection.
func (s *stream) Close() error {
	err := net.ErrClosed
	s.closing.Do(func() {
		err = nil
		s.closed.Store(true)
		s.stopTimers()
		s.wire.tasks.run(func() {
			_ = s.Channel.Close() // fails on a connection that has ended
		})
		s.wire.tasks.run(func() {
			timer := time.NewTimer(patience)
			defer timer.Stop()
			select {
			case <-s.gone:
			case <-timer.C:
				s.wire.end(errors.New("the SSH server does not close a channel"))
			}
		})
	})
	return err
}

// SetDeadline sets both deadlines.
func (s *stream) SetDeadline(t time.Time) error {
	return errors.Join(s.setDeadline(0, t), s.setDeadline(1, t))
}

// SetReadDeadline sets when reading shall have ended.
func (s *stream) SetReadDeadline(t time.Time) error { return s.setDeadline(0, t) }

// SetWriteDeadline sets when writing shall have ended.
func (s *stream) SetWriteDeadline(t time.Time) error { return s.setDeadline(1, t) }

func (s *stream) setDeadline(which int, t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Load() {
		return net.ErrClosed
	}
	if timer := s.deadline[which]; timer != nil {
		timer.Stop()
		s.deadline[which] = nil
	}
	if !t.IsZero() {
		s.deadline[which] = time.AfterFunc(time.Until(t), func() {
			s.late.Store(true)
			_ = s.Close() // the deadline is told
		})
	}
	return nil
}

func (s *stream) stopTimers() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, timer := range s.deadline {
		if timer != nil {
			timer.Stop()
		}
	}
}

// LocalAddr is the SSH connection's.
func (s *stream) LocalAddr() net.Addr { return s.wire.client.LocalAddr() }

// RemoteAddr is what the channel leads to.
func (s *stream) RemoteAddr() net.Addr { return s.peer }

type sshAddr struct{ network, address string }

func (a sshAddr) Network() string { return a.network }
func (a sshAddr) String() string  { return a.address }

package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

// How a connection that is dead without having said so is noticed. Everything
// that arrives is a sign of life, and when nothing does one is asked for.
const (
	beat    = 500 * time.Millisecond
	quiet   = 2500 * time.Millisecond // of the peer, before it is asked
	silence = 9 * time.Second         // of the peer, before it is given up
)

// Why a connection was given up.
var (
	errSilent = errors.New("it was silent for " + silence.String())
	errUnused = errors.New("nobody used it")
	errBroken = errors.New("the SSH connection broke")
)

// wire is one SSH connection. It ends by itself when it breaks or goes silent,
// and then all its channels fail.
type wire struct {
	client *ssh.Client
	pulse  *pulse
	tasks  *tasks
	idle   atomic.Int64 // a duration: closed when without a channel for so long; 0: never

	open atomic.Int32  // channels that are open or being opened
	dead chan struct{} // closed when it has ended

	mu    sync.Mutex
	cause error // why it ended, or is about to

	// Of a control connection: closed when the node was set up over it, with what
	// was learned then.
	setUp  chan struct{}
	boot   string // of the node
	packed string // in which form the node has the worker's binary for others
}

// readyWith notes that the node was set up over this connection.
func (w *wire) readyWith(boot, packed string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.boot, w.packed = boot, packed
	select {
	case <-w.setUp:
	default:
		close(w.setUp)
	}
}

func (w *wire) setUpWith() (boot, packed string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.boot, w.packed
}

// shake makes an SSH connection of a byte stream, which is closed on failure.
func shake(ctx context.Context, conn net.Conn, address string, config *ssh.ClientConfig, limit time.Duration, t *tasks) (*wire, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%w: no login within %s", errSlow, limit))
	defer cancel()
	p := &pulse{Conn: conn}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ctx's error is told
	c, channels, requests, err := ssh.NewClientConn(p, address, config)
	if !stop() && err == nil {
		_ = c.Close() // as above
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx) //nolint:wrapcheck // says it all
	}
	if err != nil {
		return nil, err //nolint:wrapcheck // says it all
	}
	w := &wire{client: ssh.NewClient(c, channels, requests), pulse: p, tasks: t, dead: make(chan struct{}), setUp: make(chan struct{})}
	if !t.run(w.watch) || !t.run(w.keepAlive) {
		w.end(net.ErrClosed)
		return nil, net.ErrClosed
	}
	return w, nil
}

// watch waits for the end.
func (w *wire) watch() {
	err := w.client.Wait()
	if errors.Is(err, io.EOF) {
		err = errors.New("the SSH server closed the connection")
	}
	w.end(err)
	close(w.dead)
}

// end closes the connection, because of err unless there is an earlier reason.
func (w *wire) end(err error) {
	w.mu.Lock()
	if w.cause == nil {
		w.cause = err
	}
	w.mu.Unlock()
	_ = w.pulse.Close() // the cause is told
}

func (w *wire) alive() bool {
	if w == nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cause == nil
}

// failure is why the connection ended.
func (w *wire) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cause == nil {
		return errBroken
	}
	if errors.Is(w.cause, errBroken) { // the one below did
		return w.cause
	}
	return fmt.Errorf("%w: %w", errBroken, w.cause)
}

// keepAlive asks a quiet peer for a sign of life, ends the connection when none
// comes, and when nobody has used it for long.
func (w *wire) keepAlive() {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	asked := make(chan struct{}, 1) // holds a token while a question is under way
	used := time.Now()
	var heard int64
	var missed time.Duration // counted, not measured: a time when we slept is no silence of the peer
	for {
		select {
		case <-w.dead:
			return
		case <-tick.C:
		}
		if w.open.Load() > 0 {
			used = time.Now()
		} else if idle := time.Duration(w.idle.Load()); idle > 0 && time.Since(used) > idle {
			w.end(errUnused)
			continue
		}
		if now := w.pulse.heard.Load(); now != heard {
			heard, missed = now, 0
		}
		missed += beat
		if missed > silence {
			w.end(errSilent)
			continue
		}
		if missed < quiet {
			continue
		}
		select {
		case asked <- struct{}{}:
			w.tasks.run(func() {
				// Any answer will do; that there is none shows elsewhere.
				_, _, _ = w.client.SendRequest("keepalive@openssh.com", true, nil)
				<-asked
			})
		default:
		}
	}
}

// pulse counts what arrives, and knows that the stream broke before those who
// read from channels above it can.
type pulse struct {
	net.Conn
	heard  atomic.Int64
	broken atomic.Bool
}

// Read notes that the peer lives.
func (p *pulse) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	if err != nil {
		p.broken.Store(true)
	} else {
		p.heard.Add(1)
	}
	return n, err //nolint:wrapcheck // a net.Conn returns errors as they are
}

package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Stats says how many bytes a [Pipe] moved.
type Stats struct {
	AtoB int64 // read from a, written to b
	BtoA int64 // read from b, written to a
}

// Pipe joins two connections until both directions have ended, and closes both.
//
// When one side ends its writing, the other is told so (CloseWrite) and may go
// on; a connection that cannot be closed by halves is closed. When a side breaks
// or hangs up, the other is closed too. The end of ctx ends everything at
// once and is returned as an error; a peer that closed or reset its connection
// is no error.
func Pipe(ctx context.Context, a, b net.Conn) (Stats, error) {
	var there, back atomic.Int64
	err := join(ctx, a, b, &there, &back)
	return Stats{AtoB: there.Load(), BtoA: back.Load()}, err
}

// join is Pipe with counters that can be read while it goes on.
func join(ctx context.Context, a, b net.Conn, aToB, bToA *atomic.Int64) error {
	j := joint{shut: sync.OnceFunc(func() {
		// What close says about a connection that is given up concerns nobody.
		_ = a.Close()
		_ = b.Close()
	})}
	defer j.shut()
	defer context.AfterFunc(ctx, j.shut)()

	var there, back error
	var other sync.WaitGroup
	other.Go(func() { there = j.oneWay(b, a, aToB) })
	back = j.oneWay(a, b, bToA)
	other.Wait()

	if ctx.Err() != nil {
		return fmt.Errorf("forwarded connection: %w", context.Cause(ctx))
	}
	if !isClosed(there) {
		return there
	}
	if !isClosed(back) {
		return back
	}
	return nil
}

// joint is what the two directions of a pipe have in common.
type joint struct {
	shut func()       // closes both connections: ends what still goes on
	over atomic.Int32 // directions that have ended
}

// oneWay moves src's bytes to dst until src ends, and passes the end on. It
// returns when both directions have ended, or when this one can say nothing
// more about the other.
func (j *joint) oneWay(dst, src net.Conn, moved *atomic.Int64) error {
	readErr, writeErr := carry(dst, src, moved)
	dst, src = bare(dst), bare(src)
	half, halves := dst.(closeWriter)
	switch {
	case readErr != nil:
		// src is broken. Its end must not look like a proper one at dst.
		reset(dst)
		j.shut()
		return fmt.Errorf("read from %s: %w", name(src), readErr)
	case !halves:
		j.shut()
	case writeErr == nil:
		writeErr = half.CloseWrite()
	}
	if j.over.Add(1) == 2 {
		j.shut()
	}
	if writeErr != nil {
		// dst takes no more, but what it said before may still be on its way to
		// src: that direction ends by itself, for dst is at its end.
		return fmt.Errorf("write to %s: %w", name(dst), writeErr)
	}
	// src has ended its half properly. Should it hang up altogether, then what
	// comes the other way has nowhere to go, and dst must learn of it now and
	// not when it next writes.
	if hangUp(src) {
		j.shut()
	}
	return nil
}

// closeWriter is a connection that can be closed by halves.
type closeWriter interface{ CloseWrite() error }

// carry copies until src ends, and says which side failed.
func carry(dst, src net.Conn, moved *atomic.Int64) (readErr, writeErr error) {
	if up, ok := src.(*upgraded); ok {
		if rest := up.take(); len(rest) > 0 {
			n, err := dst.Write(rest)
			moved.Add(int64(n))
			if err != nil {
				return nil, err //nolint:wrapcheck // of which end, Pipe says
			}
		}
		src = up.Conn
	}
	dst = bare(dst)
	reader := newReader(src)
	for {
		buf, n, err := reader.read()
		if n > 0 {
			w, werr := dst.Write(buf[:n])
			moved.Add(int64(w))
			writeErr = werr
		}
		if buf != nil {
			buffers.Put(buf)
		}
		switch {
		case writeErr != nil:
			return nil, writeErr
		case errors.Is(err, io.EOF):
			return nil, nil
		case err != nil:
			return err, nil
		}
	}
}

// The kernel could move the bytes itself (splice), but that holds a kernel pipe,
// two descriptors, for each direction of each connection, idle or not; tells
// neither the bytes until the end nor which side failed; and was no faster than
// this buffer, between TCP and TCP or a unix socket alike.
const bufferSize = 128 << 10

type buffer = *[bufferSize]byte

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// reader reads from a connection with a buffer that it takes only when there is
// something to read: thousands of idle connections cost no buffers.
type reader struct {
	conn  net.Conn
	raw   syscall.RawConn // nil: not a socket, such as a channel of SSH
	ready func(fd uintptr) bool

	buf buffer
	n   int
	err error
}

func newReader(conn net.Conn) *reader {
	r := &reader{conn: conn}
	if sc, ok := conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			r.raw, r.ready = raw, r.tryRead
		}
	}
	return r
}

// read returns a buffer of the pool, the number of bytes in it, and io.EOF at
// the end.
func (r *reader) read() (buffer, int, error) {
	if r.raw == nil {
		buf := buffers.Get().(buffer)
		n, err := r.conn.Read(buf[:])
		return buf, n, err //nolint:wrapcheck // io.EOF must stay io.EOF
	}
	r.buf, r.n, r.err = nil, 0, nil
	if err := r.raw.Read(r.ready); err != nil {
		return nil, 0, err //nolint:wrapcheck // as above
	}
	return r.buf, r.n, r.err
}

func (r *reader) tryRead(fd uintptr) bool {
	buf := buffers.Get().(buffer)
	n, err := retryInterrupted(func() (int, error) { return unix.Read(int(fd), buf[:]) })
	switch {
	case errors.Is(err, unix.EAGAIN):
		buffers.Put(buf)
		return false
	case err != nil:
		r.err = err
	case n == 0:
		r.err = io.EOF
	}
	r.buf, r.n = buf, max(n, 0)
	return true
}

// hangUp waits until the peer of a connection that has ended its writing also
// takes no more, or broke; or until the connection is closed here. It says
// whether the peer did it. For what is not a socket it says no at once.
func hangUp(conn net.Conn) bool {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	return raw.Read(hungUp) == nil
}

// hungUp asks the kernel whether both directions of a socket are over.
func hungUp(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd)}} //nolint:gosec // descriptors are small
	n, err := retryInterrupted(func() (int, error) { return unix.Poll(fds, 0) })
	return err == nil && n > 0 && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
}

func retryInterrupted(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// reset makes the coming close of a TCP connection an abortion.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // fails only on a connection that is closed already
	}
}

// isClosed says whether an error is nothing but the other way of saying that a
// connection has ended.
func isClosed(err error) bool {
	return err == nil || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.ENOTCONN)
}

// bare returns the connection below an upgraded one.
func bare(conn net.Conn) net.Conn {
	if up, ok := conn.(*upgraded); ok {
		return up.Conn
	}
	return conn
}

// name tells a connection in an error.
func name(conn net.Conn) string {
	if addr := conn.RemoteAddr(); addr != nil && addr.String() != "" && addr.String() != "@" {
		return addr.String()
	}
	return "the peer"
}

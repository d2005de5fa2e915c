package link

import (
	"context"
	"fmt"
	"net"
	"time"
)

// line is a place for a connection that carries bulk data: dialled when it is
// needed, closed when nobody used it for a while.
type line struct {
	wire    *wire
	dialing *dialing
	users   int       // that wait for dialing
	bad     time.Time // when it could not be dialled
}

// dialing is a dial that several wait for.
type dialing struct {
	done chan struct{}
	wire *wire
	err  error
}

const (
	idleLine = time.Minute
	// badLine is how long a line is left alone that could not be dialled: a server
	// or a firewall may allow only so many.
	badLine = 15 * time.Second
)

// load is how many use the line or are about to.
func (l *line) load() int {
	if l.wire.alive() {
		return l.users + int(l.wire.open.Load())
	}
	return l.users
}

// bulk opens a connection to the worker over the line that is used least, or
// over the control connection when no line can be had.
func (m *machine) bulk(ctx context.Context) (net.Conn, error) {
	return m.overLine(ctx, func(w *wire) (net.Conn, error) { return w.dialUnix(ctx, m.socket) })
}

func (m *machine) overLine(ctx context.Context, open func(*wire) (net.Conn, error)) (net.Conn, error) {
	for {
		control := m.current()
		m.mu.Lock()
		best := m.bestLine()
		if best == nil || !best.wire.alive() && !control.alive() {
			m.mu.Unlock()
			if control.alive() {
				return open(control)
			}
			return nil, errDown
		}
		w, d := best.wire, (*dialing)(nil)
		if !w.alive() {
			d = m.dialLine(best)
		}
		best.users++
		m.mu.Unlock()

		var err error
		if d != nil {
			select {
			case <-d.done:
				w, err = d.wire, d.err
			case <-ctx.Done():
			}
		}
		var conn net.Conn
		if err == nil && ctx.Err() == nil {
			conn, err = open(w)
			d = nil
		}
		m.mu.Lock()
		best.users--
		m.mu.Unlock()
		switch {
		case ctx.Err() != nil && conn == nil:
			return nil, context.Cause(ctx) //nolint:wrapcheck // says it all
		case d == nil:
			return conn, err
		}
		m.log.Debug("no connection for bulk data", "error", err)
	}
}

// bestLine returns the line with the least users, nil when all are bad. The
// caller holds the lock.
func (m *machine) bestLine() *line {
	var best *line
	for _, l := range m.lines {
		if !l.wire.alive() && time.Since(l.bad) < badLine {
			continue
		}
		if best == nil || l.load() < best.load() || l.load() == best.load() && l.wire.alive() && !best.wire.alive() {
			best = l
		}
	}
	return best
}

// dialLine starts to dial a line, unless that goes on. The caller holds the lock.
func (m *machine) dialLine(l *line) *dialing {
	if l.dialing != nil {
		return l.dialing
	}
	d := &dialing{done: make(chan struct{})}
	l.dialing = d
	if !m.tasks.run(func() {
		w, err := m.newLine()
		m.mu.Lock()
		if err == nil && m.ctx.Err() != nil {
			w.end(net.ErrClosed)
			err = net.ErrClosed
		}
		d.wire, d.err, l.dialing = w, err, nil
		if err != nil {
			l.bad = time.Now()
		} else {
			l.wire = w
		}
		m.mu.Unlock()
		close(d.done)
	}) {
		l.dialing = nil
		d.err = net.ErrClosed
		l.bad = time.Now()
		close(d.done)
	}
	return d
}

func (m *machine) newLine() (*wire, error) {
	reach := m.reach
	if m.via != nil {
		reach = func(ctx context.Context) (net.Conn, error) {
			return m.via.overLine(ctx, func(w *wire) (net.Conn, error) { return w.dialTCP(ctx, m.ep.host, m.port) })
		}
	}
	w, err := m.handshake(m.ctx, reach, longestHandshake)
	if err != nil {
		return nil, fmt.Errorf("connect once more: %w", err)
	}
	w.idle.Store(int64(idleLine))
	return w, nil
}

// warmLines has lines at hand before the first transfer, when transfers are what
// comes next: each takes seven round trips to dial. While other nodes fetch the
// worker from this one it is one line only: a server takes few logins at once.
func (m *machine) warmLines() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.lines {
		if !l.wire.alive() && time.Since(l.bad) >= badLine {
			m.dialLine(l)
		}
		if len(m.link.nodes) > 1 {
			return
		}
	}
}

package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// machine is the route to a node behind an SSH server. One connection, the
// control, carries the calls, the watch stream and forwarded ports; lines carry
// bulk data. Compute nodes are reached through the connections of the main node.
type machine struct {
	link   *Link
	index  int
	name   string
	log    *slog.Logger
	ep     endpoint
	port   uint32
	via    *machine // nil: dialled directly
	config *ssh.ClientConfig
	socket string

	ctx    context.Context //nolint:containedctx // ends with close
	cancel context.CancelFunc
	tasks  tasks

	mu      sync.Mutex
	control *wire
	changed chan struct{} // closed when control is another
	lines   []*line

	// Of ready, which one goroutine calls.
	failures   int           // in a row, of one kind
	failing    error         // the kind
	limit      time.Duration // of the next handshake
	unanswered int           // how often the worker was said to run, and did not answer

	fetching chan struct{} // of main: a token for each node that fetches the worker from it
}

// fetchers bounds how many nodes fetch the worker from the main node at once:
// its SSH server drops connections when more than 10 of them have not logged in
// yet (MaxStartups), and there are others.
const fetchers = 6

func (l *Link) newMachine(i int, ep endpoint) (*machine, error) {
	node := l.opts.Nodes[i]
	port, err := strconv.ParseUint(ep.port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("endpoint %q: %w", node.Endpoint, err)
	}
	config, err := l.clientConfig(i, ep.user)
	if err != nil {
		return nil, err
	}
	m := &machine{
		link: l, index: i, name: node.Name, log: l.log.With("node", node.Name), ep: ep, port: uint32(port), config: config,
		socket: ep.dir + "/worker.sock", changed: make(chan struct{}), limit: shortestHandshake,
	}
	lines := l.opts.Bulk
	if i > 0 {
		var ok bool
		if m.via, ok = l.nodes[0].route.(*machine); !ok {
			return nil, errors.New("the main node is on this machine, but this one is reached by SSH")
		}
		if node.Address != "" {
			m.ep.host = node.Address
		}
		lines = 1 // through one of the main node's
	} else {
		m.fetching = make(chan struct{}, fetchers)
	}
	for range lines {
		m.lines = append(m.lines, &line{})
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m, nil
}

// close ends every connection at once and waits for what went on over them.
func (m *machine) close() {
	m.cancel()
	m.mu.Lock()
	wires := []*wire{m.control}
	for _, l := range m.lines {
		wires = append(wires, l.wire)
	}
	m.mu.Unlock()
	for _, w := range wires {
		if w != nil {
			w.end(net.ErrClosed)
		}
	}
	m.tasks.close()
}

// ready connects, if need be, and sees to it that the right worker runs.
func (m *machine) ready(ctx context.Context) error {
	w := m.current()
	if !w.alive() {
		var err error
		if w, err = m.connect(ctx); err != nil {
			return m.later(err)
		}
	}
	if err := m.setup(ctx, w); err != nil {
		return m.later(err)
	}
	m.failures = 0
	m.unanswered++
	return nil
}

// mostUnanswered is after how many watch streams without an answer a worker that
// seems to run is started anew.
const mostUnanswered = 5

// answered is called when a watch stream told everything.
func (m *machine) answered() { m.unanswered = 0 }

// connect makes the control connection.
func (m *machine) connect(ctx context.Context) (*wire, error) {
	reach := m.reach
	if m.via != nil {
		via, err := m.via.await(ctx)
		if err != nil {
			return nil, err
		}
		reach = func(ctx context.Context) (net.Conn, error) { return via.dialTCP(ctx, m.ep.host, m.port) }
	}
	w, err := m.handshake(ctx, reach, m.limit)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	if m.ctx.Err() != nil {
		m.mu.Unlock()
		w.end(net.ErrClosed)
		return nil, net.ErrClosed
	}
	m.control = w
	close(m.changed)
	m.changed = make(chan struct{})
	m.mu.Unlock()
	return w, nil
}

// current is the control connection, alive or not.
func (m *machine) current() *wire {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.control
}

// await waits until there is a control connection.
func (m *machine) await(ctx context.Context) (*wire, error) {
	for {
		m.mu.Lock()
		w, changed := m.control, m.changed
		m.mu.Unlock()
		if w.alive() {
			return w, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx) //nolint:wrapcheck // says it all
		}
	}
}

// errDown is what callers hear while there is no connection.
var errDown = errors.New("there is no connection to the node")

// dial opens a connection to the worker beside others.
func (m *machine) dial(ctx context.Context) (net.Conn, error) {
	w := m.current()
	if !w.alive() {
		return nil, errDown
	}
	return w.dialUnix(ctx, m.socket)
}

// How long a handshake may take: at first little, since a node that boots may
// take a connection and never speak; then enough for the worst of links.
const (
	shortestHandshake = 5 * time.Second
	longestHandshake  = 15 * time.Second
	// connecting bounds one round of trying to open a TCP connection.
	connecting = 15 * time.Second
)

// later says when to try again after a failure.
func (m *machine) later(err error) error {
	if errors.Is(err, ErrRefused) {
		return err
	}
	first, last, kind := 50*time.Millisecond, 250*time.Millisecond, error(nil)
	switch {
	case errors.Is(err, errAuth):
		// Servers lock out who is refused again and again.
		first, last, kind = 250*time.Millisecond, 5*time.Second, errAuth
	case errors.Is(err, errSlow):
		m.limit = min(m.limit*2, longestHandshake)
		kind = errSlow
	case errors.Is(err, errSSH), errors.Is(err, errSetup):
		last, kind = time.Second, errSSH
	case m.via != nil:
		first, last = 100*time.Millisecond, 500*time.Millisecond
	}
	if m.failures++; !errors.Is(m.failing, kind) {
		m.failures = 1 // it got further, or less far
	}
	m.failing = kind
	return &laterError{error: err, after: min(first<<min(m.failures-1, 10), last)}
}

// handshake makes an SSH connection over what reach opens.
func (m *machine) handshake(ctx context.Context, reach func(context.Context) (net.Conn, error), limit time.Duration) (*wire, error) {
	start := time.Now()
	conn, err := race(ctx, &m.tasks, connecting, reach)
	if err != nil {
		return nil, err
	}
	dialled := time.Since(start)
	tune(conn, silence)
	w, err := m.shake(ctx, conn, limit)
	if err != nil {
		return nil, err
	}
	m.log.Debug("connected by SSH", "address", m.address(), "dialled", dialled, "authenticated", time.Since(start)-dialled)
	return w, nil
}

func (m *machine) address() string { return net.JoinHostPort(m.ep.host, m.ep.port) }

// reach opens a TCP connection to the node's SSH server.
func (m *machine) reach(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: quiet, Interval: quiet, Count: 3}}
	return d.DialContext(ctx, "tcp", m.address()) //nolint:wrapcheck // says what and on what
}

// race opens a connection by several tries that overlap: a packet to a machine
// that is not there yet is lost, and the kernel sends it again ever more seldom.
func race(ctx context.Context, t *tasks, limit time.Duration, try func(context.Context) (net.Conn, error)) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s", limit))
	defer cancel()
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result)
	wait := time.Second
	for {
		if !t.run(func() {
			conn, err := try(ctx)
			select {
			case results <- result{conn, err}:
			case <-ctx.Done():
				if err == nil {
					_ = conn.Close() // another was faster
				}
			}
		}) {
			return nil, net.ErrClosed
		}
		timer := time.NewTimer(wait)
		select {
		case r := <-results:
			timer.Stop()
			return r.conn, r.err
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx) //nolint:wrapcheck // says it all
		case <-timer.C:
			wait += 500 * time.Millisecond
		}
	}
}

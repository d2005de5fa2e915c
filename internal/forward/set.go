package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openworkload/skyport"
)

const defaultMaxConns = 4096

// Config says what a [Set] forwards and how it reaches the job.
type Config struct {
	// Address is the user's side of the in ports: an address of the job's own.
	Address string
	// Further are more addresses for the same in ports, for users on other hosts.
	Further []string
	Ports   []skyport.Port

	// Connect makes a connection to an in port of the job. It fails while the
	// job does not listen.
	Connect func(ctx context.Context, port int) (net.Conn, error)
	// Dial, unless nil, makes a connection to where the job listens on its node, by
	// a shorter way than Connect, which is asked when Dial fails.
	Dial func(ctx context.Context, host string, port int) (net.Conn, error)
	// Accept waits for the next connection of the job to an out port.
	Accept func(ctx context.Context, port int) (net.Conn, error)
	// SubmissionAddress is the host where out ports lead. Empty: 127.0.0.1.
	SubmissionAddress string

	// SharedNetwork says that the job lives in this machine's own network stack:
	// see the package comment.
	SharedNetwork bool

	// Patience is how long a user's connection waits for the job to listen. 0: 10 s.
	Patience time.Duration
	// MaxConns bounds the connections of the whole set at one time; further
	// ones wait. 0: 4096.
	MaxConns int
	Logger   *slog.Logger // nil: slog.Default()
}

// PortStatus says how a forwarded port is doing.
type PortStatus struct {
	Port      int               `json:"port"`
	Direction skyport.Direction `json:"direction" enum:"in,out"`
	// Address is where the port answers: host and port of the user's side.
	Address string `json:"address"`
	// Job is the address where the job listens, as the worker said; empty: not yet.
	Job string `json:"job,omitempty"`
	// Open says that a connection to the port is taken now: by us, or on a
	// shared network by the job itself.
	Open bool `json:"open"`
	// Error says why the port is not open, when something is wrong.
	Error       string        `json:"error,omitempty"`
	Connections int           `json:"connections" doc:"Connections now"`
	Total       int64         `json:"total" doc:"Connections so far"`
	In          skyport.Bytes `json:"in" doc:"Bytes to the job"`
	Out         skyport.Bytes `json:"out" doc:"Bytes from the job"`
}

// Forwarded returns the ports of a job that need forwarding: all, but for out
// ports to this very machine on a shared network, which the job reaches anyway.
// The worker must listen only for out ports that are among them.
func Forwarded(ports []skyport.Port, sharedNetwork bool, submissionAddress string) []skyport.Port {
	return slices.DeleteFunc(slices.Clone(ports), func(p skyport.Port) bool {
		return p.Direction == skyport.Out && sharedNetwork && thisMachine(submissionAddress)
	})
}

// Set is all forwards of one job, at core.
type Set struct {
	cfg    Config
	ports  []*port
	places chan struct{}
	ctx    context.Context //nolint:containedctx // ends with Close
	stop   context.CancelFunc
	all    sync.WaitGroup
}

// port is one forward. The mutex guards what changes.
type port struct {
	skyport.Port
	forwarded bool
	traffic   traffic

	mu        sync.Mutex
	closed    bool
	job       string
	target    string // where the job is dialled on a shared network; empty: it does not listen
	listeners []net.Listener
	itself    bool // the job itself answers at the user's side
	failure   error
	news      chan struct{} // closed and replaced when job changes
}

// Open opens the forwards. On a remote network all in ports listen when it
// returns; on a shared network they open as [Set.Listening] brings the news.
// The context bounds only the opening. A port that cannot be had is
// CodeConflict, and then nothing stays open.
func Open(ctx context.Context, cfg Config) (*Set, error) {
	if cfg.Patience <= 0 {
		cfg.Patience = 10 * time.Second
	}
	if cfg.MaxConns <= 0 {
		cfg.MaxConns = defaultMaxConns
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.SubmissionAddress == "" {
		cfg.SubmissionAddress = "127.0.0.1"
	}
	s := &Set{cfg: cfg, places: make(chan struct{}, cfg.MaxConns)}
	s.ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	needed := Forwarded(cfg.Ports, cfg.SharedNetwork, cfg.SubmissionAddress)
	for i, p := range cfg.Ports {
		if slices.Contains(cfg.Ports[:i], p) {
			continue
		}
		s.ports = append(s.ports, &port{Port: p, forwarded: slices.Contains(needed, p), news: make(chan struct{})})
	}
	for _, p := range s.ports {
		switch {
		case !p.forwarded:
		case p.Direction == skyport.Out:
			s.all.Go(func() { s.reverse(p) })
		case !cfg.SharedNetwork:
			if err := s.listen(ctx, p); err != nil {
				return nil, errors.Join(err, s.Close())
			}
		}
	}
	return s, nil
}

// Listening brings the news where the job listens for an in port: the address
// as the kernel tells it, or empty when it does not. An error is CodeConflict: the
// user's side of the port cannot be had; it is also in the status. News of
// other ports, and after Close, are ignored.
func (s *Set) Listening(number int, address string) error {
	for _, p := range s.ports {
		if p.Number == number && p.Direction == skyport.In {
			return s.listening(p, address)
		}
	}
	return nil
}

// ListeningAt brings the news of all in ports at once: where the job listens, by
// port. For those that are missing it does not listen. Errors are those of
// [Set.Listening], joined.
func (s *Set) ListeningAt(addresses map[int]string) error {
	var failures []error
	for _, p := range s.ports {
		if p.Direction == skyport.In {
			failures = append(failures, s.listening(p, addresses[p.Number]))
		}
	}
	return errors.Join(failures...)
}

func (s *Set) listening(p *port, address string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.job == address && p.failure == nil {
		return nil
	}
	p.job = address
	close(p.news)
	p.news = make(chan struct{})
	if !s.cfg.SharedNetwork {
		return nil
	}
	closeAll(p.listeners)
	p.listeners, p.itself, p.failure, p.target = nil, false, nil, ""
	if address == "" {
		return nil
	}
	p.failure = s.follow(p, address)
	return p.failure
}

// follow does the least that lets a job of a shared network that listens at an
// address be reached at the job's own address. p.mu is held.
func (s *Set) follow(p *port, address string) error {
	at, err := netip.ParseAddr(address)
	if err != nil {
		return skyport.Errorf(skyport.CodeInvalid, "the job listens for port %d at %q, which is no address", p.Number, skyport.Abbreviate(address, 60))
	}
	at = at.Unmap()
	own := net.JoinHostPort(s.cfg.Address, strconv.Itoa(p.Number))
	switch {
	case at == netip.IPv4Unspecified(), at.String() == s.cfg.Address:
		p.itself, p.target = true, own
		return nil
	case at == netip.IPv6Unspecified():
		// Whether this socket is for IPv4 too only the kernel knows: if it is,
		// then our address is taken, by it.
		probe, err := listen(s.ctx, own)
		if errors.Is(err, syscall.EADDRINUSE) {
			p.itself, p.target = true, own
			return nil
		}
		if err != nil {
			return err
		}
		closeAll([]net.Listener{probe})
		at = netip.IPv6Loopback()
	}
	p.target = net.JoinHostPort(at.String(), strconv.Itoa(p.Number))
	return s.listenLocked(s.ctx, p, at)
}

func (s *Set) listen(ctx context.Context, p *port) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return s.listenLocked(ctx, p, netip.Addr{})
}

// listenLocked opens the user's side of an in port at all its addresses, but
// for the one where the job itself listens.
func (s *Set) listenLocked(ctx context.Context, p *port, job netip.Addr) error {
	var opened []net.Listener
	for _, host := range append([]string{s.cfg.Address}, s.cfg.Further...) {
		if job.IsValid() && host == job.String() {
			continue
		}
		listener, err := listen(ctx, net.JoinHostPort(host, strconv.Itoa(p.Number)))
		if err != nil {
			closeAll(opened)
			return err
		}
		opened = append(opened, listener)
	}
	p.listeners = opened
	for _, listener := range opened {
		s.all.Go(func() { s.serve(p, listener) })
	}
	return nil
}

// serve takes the connections of the user at one address.
func (s *Set) serve(p *port, listener net.Listener) {
	for {
		conn, err := acceptNext(s.ctx, listener, s.cfg.Logger)
		if err != nil {
			return
		}
		select {
		case s.places <- struct{}{}:
		case <-s.ctx.Done():
			_ = conn.Close() // the set is closing
			return
		}
		s.all.Go(func() {
			defer func() { <-s.places }()
			s.forward(p, conn)
		})
	}
}

// forward leads one connection of the user to the job.
func (s *Set) forward(p *port, user net.Conn) {
	defer p.traffic.enter()()
	job, err := s.reach(p, user)
	if err != nil {
		reset(user) // nothing answered: that is no proper end
		_ = user.Close()
		if s.ctx.Err() == nil && !errors.Is(err, errGone) {
			s.cfg.Logger.Info("the job does not answer at a forwarded port", "port", p.Number, "error", err)
		}
		return
	}
	if err := join(s.ctx, user, job, &p.traffic.in, &p.traffic.out); err != nil && s.ctx.Err() == nil {
		s.cfg.Logger.Debug("forwarded connection broke", "port", p.Number, "error", err)
	}
}

var errGone = errors.New("the user went away")

// reach connects to the job. While the job does not listen it tries again, at
// once when there is news, as long as the user stays and patience lasts.
func (s *Set) reach(p *port, user net.Conn) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.Patience)
	defer cancel()
	job, err := s.connect(ctx, p)
	if err == nil {
		return job, nil
	}
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	defer watch(user, func() { leave(errGone) })()
	pause := newBackoff(firstBackoff, lastBackoff/2)
	for {
		p.mu.Lock()
		news := p.news
		p.mu.Unlock()
		if !pause.wait(ctx, news) {
			if errors.Is(context.Cause(ctx), errGone) {
				return nil, errGone
			}
			return nil, err
		}
		if job, err = s.connect(ctx, p); err == nil {
			return job, nil
		}
	}
}

func (s *Set) connect(ctx context.Context, p *port) (net.Conn, error) {
	p.mu.Lock()
	target, at := p.target, p.job
	p.mu.Unlock()
	if s.cfg.SharedNetwork {
		if target == "" {
			return nil, skyport.Errorf(skyport.CodeUnavailable, "the job does not listen at port %d any more", p.Number)
		}
		return dialTCP(ctx, target)
	}
	if at, err := netip.ParseAddr(at); err == nil && s.cfg.Dial != nil {
		for _, host := range reachable(at) {
			if conn, err := s.cfg.Dial(ctx, host, p.Number); err == nil {
				return conn, nil
			}
		}
	}
	conn, err := s.cfg.Connect(ctx, p.Number)
	if err != nil {
		return nil, fmt.Errorf("connect to port %d of the job: %w", p.Number, err)
	}
	return conn, nil
}

// reachable are the addresses at which somebody who listens at at may answer on
// the same machine, in the order to try. A socket for all addresses of IPv6 mostly
// is for those of IPv4 too, and there are nodes without the former.
func reachable(at netip.Addr) []string {
	switch at = at.Unmap(); at {
	case netip.IPv4Unspecified():
		return []string{"127.0.0.1"}
	case netip.IPv6Unspecified():
		return []string{"::1", "127.0.0.1"}
	}
	return []string{at.String()}
}

// reverse serves one out port.
func (s *Set) reverse(p *port) {
	target := net.JoinHostPort(s.cfg.SubmissionAddress, strconv.Itoa(p.Number))
	Reverse(s.ctx,
		func(ctx context.Context) (net.Conn, error) { return s.cfg.Accept(ctx, p.Number) },
		func(ctx context.Context) (net.Conn, error) { return dialTCP(ctx, target) },
		ReverseOptions{MaxConns: s.cfg.MaxConns, Logger: s.cfg.Logger.With("port", p.Number), traffic: &p.traffic})
}

// Status tells how each port is doing, in the order of the request.
func (s *Set) Status() []PortStatus {
	all := make([]PortStatus, 0, len(s.ports))
	for _, p := range s.ports {
		all = append(all, s.status(p))
	}
	return all
}

func (s *Set) status(p *port) PortStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	host := s.cfg.Address
	open := p.itself || len(p.listeners) > 0
	if p.Direction == skyport.Out {
		host, open = s.cfg.SubmissionAddress, true
	}
	st := PortStatus{
		Port: p.Number, Direction: p.Direction, Address: net.JoinHostPort(host, strconv.Itoa(p.Number)),
		Job: p.job, Open: open && !p.closed,
		Connections: int(p.traffic.now.Load()), Total: p.traffic.total.Load(),
		In: skyport.Bytes(p.traffic.in.Load()), Out: skyport.Bytes(p.traffic.out.Load()),
	}
	if p.failure != nil {
		st.Error = p.failure.Error()
	}
	return st
}

// Close ends all listeners and connections and returns when everything that the
// set started has ended. Calling it again is harmless.
func (s *Set) Close() error {
	for _, p := range s.ports {
		p.mu.Lock()
		p.closed = true
		closeAll(p.listeners)
		p.listeners = nil
		p.mu.Unlock()
	}
	s.stop()
	s.all.Wait()
	return nil
}

func closeAll(listeners []net.Listener) {
	for _, listener := range listeners {
		_ = listener.Close() // a listener that is closed already is as good
	}
}

// listen opens a listener and explains why it cannot.
func listen(ctx context.Context, address string) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	listener, err := lc.Listen(ctx, "tcp", address)
	if err == nil {
		return listener, nil
	}
	_, number, _ := net.SplitHostPort(address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, skyport.Errorf(skyport.CodeConflict, "port %s is taken at %s: %w", number, address, err).
			WithHint("another program listens there or on all addresses; see who: ss -ltnp 'sport = :%s'", number)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, skyport.Errorf(skyport.CodeConflict, "port %s cannot be opened at %s: this machine has no such address: %w", number, address, err).
			WithHint("correct the configured address of the forwarded ports")
	case errors.Is(err, syscall.EACCES):
		return nil, skyport.Errorf(skyport.CodeConflict, "port %s cannot be opened at %s: %w", number, address, err).
			WithHint("ports below 1024 need a privilege: let the job use a higher one")
	}
	return nil, fmt.Errorf("listen at %s: %w", address, err)
}

func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	return conn, nil
}

// thisMachine says whether a host is this machine as seen from itself.
func thisMachine(host string) bool {
	if host == "" || strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	addr = addr.Unmap().WithZone("")
	if addr.IsLoopback() || addr.IsUnspecified() {
		return true
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(own, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr().Unmap().WithZone("") == addr
	})
}

// watch calls gone when the user's connection ends before it said anything, or
// breaks. The function that it returns ends the watching and leaves the
// connection as it was.
func watch(conn net.Conn, gone func()) (stop func()) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return func() {}
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return func() {}
	}
	var done sync.WaitGroup
	done.Go(func() {
		if raw.Read(ended) == nil {
			gone()
		}
	})
	return func() {
		// Errors here mean that the connection is closed, which Pipe will see.
		_ = conn.SetReadDeadline(time.Unix(1, 0))
		done.Wait()
		_ = conn.SetReadDeadline(time.Time{})
	}
}

// ended says whether a socket broke, or ended with nothing left to read.
func ended(fd uintptr) bool {
	var one [1]byte
	n, err := retryInterrupted(func() (int, error) {
		n, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return n, err //nolint:wrapcheck // only compared
	})
	return err == nil && n == 0 || hungUp(fd)
}

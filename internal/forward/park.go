package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/openworkload/skyport"
)

// ParkOptions bound what waits at a [Park]. The zero value is useful.
type ParkOptions struct {
	// Waiting is the highest number of connections that wait for core; further
	// ones wait in the kernel. 0: 256.
	Waiting int
	// Patience is how long a connection waits for core before it is closed. 0: 30 s.
	Patience time.Duration
	Logger   *slog.Logger // nil: slog.Default()
}

// Park is the worker's end of an out port: it listens on the job's loopback and
// keeps the connections of the job until core asks for them.
type Park struct {
	listener net.Listener
	opts     ParkOptions
	offers   chan net.Conn
	stop     context.CancelFunc
	ctx      context.Context //nolint:containedctx // ends with Close

	mu     sync.Mutex // guards closed, and all against growing after it
	closed bool
	all    sync.WaitGroup
}

// NewPark listens on 127.0.0.1:port. A port that is taken is CodeConflict.
func NewPark(port int, opts ParkOptions) (*Park, error) {
	if opts.Waiting <= 0 {
		opts.Waiting = 256
	}
	if opts.Patience <= 0 {
		opts.Patience = 30 * time.Second
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	listener, err := listen(context.Background(), net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &Park{listener: listener, opts: opts, offers: make(chan net.Conn), stop: stop, ctx: ctx}
	p.all.Go(p.accept)
	return p, nil
}

// Addr is where the job finds the port.
func (p *Park) Addr() net.Addr { return p.listener.Addr() }

// Next waits for the next connection of the job. It belongs to the caller. A
// closed park is CodeNotFound.
func (p *Park) Next(ctx context.Context) (net.Conn, error) {
	select {
	case conn := <-p.offers:
		return conn, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for a connection to %s: %w", p.Addr(), context.Cause(ctx))
	case <-p.ctx.Done():
		return nil, p.gone()
	}
}

func (p *Park) gone() error {
	return skyport.Errorf(skyport.CodeNotFound, "out port %s is closed", p.Addr())
}

// Serve answers an accept request of core: it waits for the next connection,
// upgrades the request to it and moves the bytes until both have ended. An
// error means that nothing was answered yet and no connection was lost: the
// caller answers it.
func (p *Park) Serve(w http.ResponseWriter, r *http.Request) error {
	if !p.enter() {
		return p.gone()
	}
	defer p.all.Done()
	conn, err := p.Next(r.Context())
	if err != nil {
		return err
	}
	peer, err := Upgrade(w, r)
	if err != nil {
		// Core went away in this very moment: its next request gets the connection.
		p.all.Go(func() { p.offer(conn) })
		return unanswered(err)
	}
	p.pipe(r.Context(), peer, conn)
	return nil
}

// enter counts a goroutine of a caller that Close waits for.
func (p *Park) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.all.Add(1)
	}
	return !p.closed
}

func (p *Park) pipe(ctx context.Context, peer, conn net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)() //nolint:contextcheck // whichever ends first, call or park
	if _, err := Pipe(ctx, peer, conn); err != nil && ctx.Err() == nil {
		p.opts.Logger.Debug("forwarded connection broke", "port", p.Addr().String(), "error", err)
	}
}

// Close stops listening and ends the connections that wait or are served here.
// It returns when the goroutines of the park have ended; calling it again is harmless.
func (p *Park) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.stop()
	err := p.listener.Close()
	p.all.Wait()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close out port %s: %w", p.Addr(), err)
	}
	return nil
}

func (p *Park) accept() {
	places := make(chan struct{}, p.opts.Waiting)
	for {
		select {
		case places <- struct{}{}:
		case <-p.ctx.Done():
			return
		}
		conn, err := acceptNext(p.ctx, p.listener, p.opts.Logger)
		if err != nil {
			return
		}
		p.all.Go(func() {
			p.offer(conn)
			<-places
		})
	}
}

// offer hands a connection to whoever asks next. Who waits longest is served
// first, for senders of a channel are served in their order.
func (p *Park) offer(conn net.Conn) {
	late := time.NewTimer(p.opts.Patience)
	defer late.Stop()
	select {
	case p.offers <- conn:
		return
	case <-late.C:
		p.opts.Logger.Warn("nobody fetched a connection of the job to an out port", "port", p.Addr().String(), "waited", p.opts.Patience)
	case <-p.ctx.Done():
	}
	_ = conn.Close() // given up
}

// ServeConnect answers a connect request of core: it dials the job, upgrades
// the request and moves the bytes until both have ended, or r's context ends.
// An error means that nothing was answered yet: the caller answers it. An
// error of dial without a code becomes CodeUnavailable: core tries again.
func ServeConnect(w http.ResponseWriter, r *http.Request, dial func(ctx context.Context) (net.Conn, error)) error {
	conn, err := dial(r.Context())
	if errors.Is(err, syscall.ECONNREFUSED) {
		return skyport.Errorf(skyport.CodeUnavailable, "the job does not listen yet: %w", err)
	}
	if coded := new(skyport.Error); errors.As(err, &coded) {
		return err
	}
	if err != nil {
		return skyport.Errorf(skyport.CodeUnavailable, "connect to the job: %w", err)
	}
	peer, err := Upgrade(w, r)
	if err != nil {
		_ = conn.Close() // never spoke to anybody
		return unanswered(err)
	}
	if _, err := Pipe(r.Context(), peer, conn); err != nil {
		slog.Debug("forwarded connection ended early", "path", r.URL.Path, "error", err)
	}
	return nil
}

// unanswered drops an error of [Upgrade] that came after the connection was
// taken over: core has gone, and there is nobody to answer.
func unanswered(err error) error {
	if skyport.CodeOf(err) == skyport.CodeUnavailable {
		return nil
	}
	return err
}

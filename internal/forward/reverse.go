package forward

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// ReverseOptions tune [Reverse]. The zero value is useful.
type ReverseOptions struct {
	// Parked is the number of accept requests that wait at the worker, so that
	// a burst of connections does not wait for round trips. 0: 4.
	Parked int
	// MaxConns bounds the connections at one time; further ones wait at the
	// worker. 0: 4096.
	MaxConns int
	Logger   *slog.Logger // nil: slog.Default()

	traffic *traffic // counts, when a Set asks
}

const (
	firstBackoff = 20 * time.Millisecond
	lastBackoff  = time.Second
	dialTime     = 10 * time.Second
)

// Reverse is core's end of an out port: it fetches the connections of the job
// with accept and joins each with one of dial. It tries again after every
// error for as long as ctx lives, and returns when ctx has ended and everything
// that it started with it.
func Reverse(ctx context.Context, accept, dial func(ctx context.Context) (net.Conn, error), opts ReverseOptions) {
	if opts.Parked <= 0 {
		opts.Parked = 4
	}
	if opts.MaxConns <= 0 {
		opts.MaxConns = defaultMaxConns
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if opts.traffic == nil {
		opts.traffic = &traffic{}
	}
	var all sync.WaitGroup
	defer all.Wait()
	r := reverse{dial: dial, opts: opts, places: make(chan struct{}, opts.MaxConns), all: &all}
	for range opts.Parked {
		all.Go(func() { r.fetch(ctx, accept) })
	}
}

type reverse struct {
	dial   func(ctx context.Context) (net.Conn, error)
	opts   ReverseOptions
	places chan struct{}
	all    *sync.WaitGroup
}

// fetch keeps one accept request parked.
func (r *reverse) fetch(ctx context.Context, accept func(ctx context.Context) (net.Conn, error)) {
	pause := newBackoff(firstBackoff, lastBackoff)
	for {
		// A place first: a connection that is not fetched waits at the worker,
		// where the job sees it waiting.
		select {
		case r.places <- struct{}{}:
		case <-ctx.Done():
			return
		}
		conn, err := accept(ctx)
		if err != nil {
			<-r.places
			if ctx.Err() != nil {
				return
			}
			r.opts.Logger.Debug("cannot fetch connections of the job", "error", err)
			if !pause.wait(ctx, nil) {
				return
			}
			continue
		}
		pause.reset()
		r.all.Go(func() {
			defer func() { <-r.places }()
			r.serve(ctx, conn)
		})
	}
}

func (r *reverse) serve(ctx context.Context, conn net.Conn) {
	defer r.opts.traffic.enter()()
	dialCtx, cancel := context.WithTimeout(ctx, dialTime)
	target, err := r.dial(dialCtx)
	cancel()
	if err != nil {
		_ = conn.Close() // the job sees it as a connection that is closed
		if ctx.Err() == nil {
			r.opts.Logger.Warn("the user's side of an out port does not answer", "error", err)
		}
		return
	}
	// In and out are seen from the job.
	if err := join(ctx, target, conn, &r.opts.traffic.in, &r.opts.traffic.out); err != nil && ctx.Err() == nil {
		r.opts.Logger.Debug("forwarded connection broke", "error", err)
	}
}

// traffic counts the connections and bytes of one port. In is towards the job.
type traffic struct {
	now, total, in, out atomic.Int64
}

// enter counts a connection until the function that it returns is called.
func (t *traffic) enter() func() {
	t.now.Add(1)
	t.total.Add(1)
	return func() { t.now.Add(-1) }
}

// backoff waits longer each time, up to a limit.
type backoff struct{ first, last, next time.Duration }

func newBackoff(first, last time.Duration) backoff {
	return backoff{first: first, last: last, next: first}
}

func (b *backoff) reset() { b.next = b.first }

// wait says whether ctx still lives when the time has passed, or when news came
// before.
func (b *backoff) wait(ctx context.Context, news <-chan struct{}) bool {
	timer := time.NewTimer(b.next)
	defer timer.Stop()
	b.next = min(2*b.next, b.last)
	select {
	case <-timer.C:
	case <-news:
		b.reset()
	case <-ctx.Done():
		return false
	}
	return ctx.Err() == nil
}

// acceptNext accepts a connection and survives what passes by, such as
// running out of descriptors. It fails when the listener is closed.
func acceptNext(ctx context.Context, listener net.Listener, logger *slog.Logger) (net.Conn, error) {
	pause := newBackoff(5*time.Millisecond, lastBackoff)
	for {
		conn, err := listener.Accept()
		if err == nil {
			return conn, nil
		}
		if isClosed(err) || ctx.Err() != nil {
			return nil, fmt.Errorf("accept at %s: %w", listener.Addr(), err)
		}
		logger.Warn("cannot accept a connection, trying again", "address", listener.Addr().String(), "error", err)
		if !pause.wait(ctx, nil) {
			return nil, fmt.Errorf("accept at %s: %w", listener.Addr(), context.Cause(ctx))
		}
	}
}

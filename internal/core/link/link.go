package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// Options say whom to reach and whom to tell.
type Options struct {
	// Node is the partition's main node.
	Node skyport.Node
	// Changed is called, from the link's goroutine, when the status of a run
	// changed, and with an empty name when the link came up or went down.
	Changed func(run string)
	Logger  *slog.Logger
}

// Link is an open link.
type Link struct {
	opts   Options
	client *protocol.Client
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu     sync.Mutex
	runs   map[string]protocol.RunStatus
	up     bool // the watch stream has told everything
	failed error
	since  time.Time // of up or of being down
}

// Open prepares the link and starts to dial. It fails only when the node's
// endpoint cannot be understood. Close must be called.
func Open(opts Options) (*Link, error) {
	dial, err := Dial(opts.Node.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", opts.Node.Name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &Link{
		opts: opts, client: protocol.NewClient(dial), cancel: cancel,
		runs: map[string]protocol.RunStatus{}, since: time.Now(),
	}
	l.done.Go(func() { l.keep(ctx) })
	return l, nil
}

// Dial returns how an endpoint is dialled.
func Dial(endpoint string) (func(ctx context.Context) (net.Conn, error), error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, fmt.Errorf("endpoint %q: %w", endpoint, err)
	}
	switch {
	case u.Scheme == "unix" && u.Path != "":
		return func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", u.Path)
		}, nil
	default:
		return nil, fmt.Errorf("endpoint %q: this version reaches unix:///path only", endpoint)
	}
}

// Worker is the client of the worker. Its calls fail while the link is down.
func (l *Link) Worker() *protocol.Client { return l.client }

// Up says whether the worker answers and every run's status is known; if not,
// since when and why.
func (l *Link) Up() (up bool, since time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up, l.since, l.failed
}

// Status returns the latest status of a run. known is false when the worker
// has no such run; it means something only while the link is up.
func (l *Link) Status(run string) (status protocol.RunStatus, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	status, known = l.runs[run]
	return status, known
}

// Runs returns the names of all runs that the worker has.
func (l *Link) Runs() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	names := make([]string, 0, len(l.runs))
	for name := range maps.Keys(l.runs) {
		names = append(names, name)
	}
	return names
}

// Close ends the link and returns when its goroutine has ended. The worker
// and its runs go on.
func (l *Link) Close() {
	l.cancel()
	l.done.Wait()
	l.client.Close()
}

// The waits between two dials: short, since a node that is about to answer is
// what everybody waits for.
const (
	shortestWait = 5 * time.Millisecond
	longestWait  = time.Second
)

// keep holds a watch stream open.
func (l *Link) keep(ctx context.Context) {
	wait := shortestWait
	for ctx.Err() == nil {
		synced, err := l.watch(ctx)
		if synced {
			wait = shortestWait
		}
		if ctx.Err() != nil {
			return
		}
		l.down(err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, longestWait)
	}
}

// watch follows one stream to its end.
func (l *Link) watch(ctx context.Context) (synced bool, err error) {
	fresh := map[string]protocol.RunStatus{}
	err = l.client.Watch(ctx, func(e protocol.Event) error {
		switch {
		case !synced && e.Status != nil:
			fresh[e.Status.Run] = *e.Status
		case !synced && e.Removed != "":
			delete(fresh, e.Removed)
		case e.Synced:
			synced = true
			l.sync(fresh)
		case e.Status != nil:
			l.set(*e.Status)
		case e.Removed != "":
			l.remove(e.Removed)
		}
		return nil
	})
	if err == nil {
		err = errors.New("the worker ended the watch stream")
	}
	return synced, err
}

// sync takes what a new stream told as the whole truth: the worker may be
// another process now, whose versions start anew.
func (l *Link) sync(fresh map[string]protocol.RunStatus) {
	l.mu.Lock()
	l.runs, l.up, l.failed, l.since = fresh, true, nil, time.Now()
	l.mu.Unlock()
	l.opts.Changed("")
}

func (l *Link) set(s protocol.RunStatus) {
	l.mu.Lock()
	if old, ok := l.runs[s.Run]; ok && old.Version > s.Version {
		l.mu.Unlock()
		return
	}
	l.runs[s.Run] = s
	l.mu.Unlock()
	l.opts.Changed(s.Run)
}

// Note takes a status that a call to the worker answered with, which may be
// ahead of the watch stream.
func (l *Link) Note(s protocol.RunStatus) {
	if up, _, _ := l.Up(); up {
		l.set(s)
	}
}

func (l *Link) remove(run string) {
	l.mu.Lock()
	delete(l.runs, run)
	l.mu.Unlock()
	l.opts.Changed(run)
}

func (l *Link) down(err error) {
	l.mu.Lock()
	was := l.up
	if was {
		l.since = time.Now()
	}
	l.up, l.failed = false, err
	l.mu.Unlock()
	if was {
		if l.opts.Logger != nil {
			l.opts.Logger.Warn("lost the worker", "node", l.opts.Node.Name, "error", err)
		}
		l.opts.Changed("")
	}
}

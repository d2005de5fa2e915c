package link

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// node is one node of the partition: the way to its worker, and what the worker
// last told.
type node struct {
	skyport.Node
	link   *Link
	route  route
	client *protocol.Client

	mu     sync.Mutex
	runs   map[string]protocol.RunStatus
	up     bool // the watch stream has told everything
	failed error
	since  time.Time // of up or of being down
}

// route is a way to a worker.
type route interface {
	// ready returns when the worker can be dialled, as far as one can know. It
	// dials, installs and starts what is needed for that.
	ready(ctx context.Context) error
	// dial and bulk open a connection to the worker, the latter for bulk data.
	dial(ctx context.Context) (net.Conn, error)
	bulk(ctx context.Context) (net.Conn, error)
	// answered is told, by who calls ready, that the worker did answer.
	answered()
	// close ends everything at once; the other methods fail from then on.
	close()
}

func (l *Link) newNode(i int) (*node, error) {
	n := &node{
		Node: l.opts.Nodes[i], link: l, runs: map[string]protocol.RunStatus{},
		since: time.Now(), failed: errors.New("not reached yet"),
	}
	var err error
	if n.route, err = l.newRoute(i); err != nil {
		return nil, err
	}
	n.client = protocol.NewClientWithBulk(n.route.dial, n.route.bulk)
	return n, nil
}

// The waits between two tries: short, since a node that is about to answer is
// what everybody waits for.
const (
	shortestWait = 5 * time.Millisecond
	longestWait  = time.Second
)

// keep holds a watch stream open until ctx ends or the node is refused.
func (n *node) keep(ctx context.Context) {
	wait := shortestWait
	for ctx.Err() == nil {
		synced, err := n.once(ctx)
		if synced {
			n.route.answered()
			wait = shortestWait
		}
		if ctx.Err() != nil {
			return
		}
		n.down(err)
		if errors.Is(err, ErrRefused) {
			return
		}
		pause := wait
		var later *laterError
		if errors.As(err, &later) {
			pause = later.after
		} else {
			wait = min(2*wait, longestWait)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// laterError is the error of a route that knows when to try again.
type laterError struct {
	error
	after time.Duration
}

func (e *laterError) Unwrap() error { return e.error }

func (n *node) once(ctx context.Context) (synced bool, err error) {
	if err := n.route.ready(ctx); err != nil {
		return false, err
	}
	return n.watch(ctx)
}

// watch follows one stream to its end.
func (n *node) watch(ctx context.Context) (synced bool, err error) {
	fresh := map[string]protocol.RunStatus{}
	err = n.client.Watch(ctx, func(e protocol.Event) error {
		switch {
		case !synced && e.Status != nil:
			if len(fresh) >= maxRuns {
				return fmt.Errorf("the worker says that it has more than %d runs", maxRuns)
			}
			fresh[e.Status.Run] = *e.Status
		case !synced && e.Removed != "":
			delete(fresh, e.Removed)
		case e.Synced:
			synced = true
			n.sync(fresh)
		case e.Status != nil:
			return n.set(*e.Status)
		case e.Removed != "":
			n.remove(e.Removed)
		}
		return nil
	})
	if err == nil {
		err = errors.New("the worker ended the watch stream")
	}
	return synced, err
}

// maxRuns bounds what a worker can make core remember.
const maxRuns = 100_000

// state is what [Link.Up] is made of.
func (n *node) state() (up bool, since time.Time, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.up, n.since, n.failed
}

func (n *node) status(run string) (status protocol.RunStatus, known bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	status, known = n.runs[run]
	return status, known
}

func (n *node) names() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Collect(maps.Keys(n.runs))
}

// sync takes what a new stream told as the whole truth: the worker may be
// another process now, whose versions start anew.
func (n *node) sync(fresh map[string]protocol.RunStatus) {
	count := len(fresh)
	n.mu.Lock()
	took := time.Since(n.since)
	n.runs, n.up, n.failed, n.since = fresh, true, nil, time.Now()
	n.mu.Unlock()
	n.link.log.Info("the worker answers", "node", n.Name, "runs", count, "after", took)
	n.link.opts.Changed("")
}

func (n *node) set(s protocol.RunStatus) error {
	n.mu.Lock()
	old, ok := n.runs[s.Run]
	switch {
	case ok && old.Version > s.Version:
		n.mu.Unlock()
		return nil
	case !ok && len(n.runs) >= maxRuns:
		n.mu.Unlock()
		return fmt.Errorf("the worker says that it has more than %d runs", maxRuns)
	}
	n.runs[s.Run] = s
	n.mu.Unlock()
	n.link.opts.Changed(s.Run)
	return nil
}

func (n *node) note(s protocol.RunStatus) {
	if up, _, _ := n.state(); up {
		_ = n.set(s) // what is too much, the watch stream tells
	}
}

func (n *node) remove(run string) {
	n.mu.Lock()
	delete(n.runs, run)
	n.mu.Unlock()
	n.link.opts.Changed(run)
}

func (n *node) down(err error) {
	refused := errors.Is(err, ErrRefused)
	n.mu.Lock()
	was := n.up
	if was {
		n.since = time.Now()
	}
	n.up, n.failed = false, err
	n.mu.Unlock()
	switch {
	case refused:
		n.link.log.Error("the node is refused", "node", n.Name, "error", err)
	case was:
		n.link.log.Warn("lost the worker", "node", n.Name, "error", err)
	default:
		n.link.log.Debug("the worker does not answer yet", "node", n.Name, "error", err)
		return
	}
	n.link.opts.Changed("")
}

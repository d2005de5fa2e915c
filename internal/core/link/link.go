package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/bootstrap"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// ErrRefused is what the error of [Link.Up] matches when the link can never come
// up, however long anybody waits: a node has another host key than it must have,
// or an architecture that no worker was built for. Such a node is not dialled again.
var ErrRefused = errors.New("refused for good")

// Options say whom to reach and whom to tell.
type Options struct {
	// Nodes are the partition's nodes, main first, with the addresses and
	// endpoints that the site gave them.
	Nodes []skyport.Node
	// Keys are the keys of the partition. Endpoints of the scheme ssh need them,
	// others do not.
	Keys *bootstrap.Keys
	// Changed is called, from goroutines of the link, when the status of a run
	// changed on any node, and with an empty name when a node came up, went down,
	// or was refused. It must not block for long.
	Changed func(run string)
	Logger  *slog.Logger // nil: nothing is logged
	// Join returns the script by which a node that is reached by SSH is joined with
	// the others, run by its login user; nil: that of bootstrap.Join.
	Join func(node int) string
	// Bulk is how many SSH connections to the main node carry bulk data, beside
	// the one for all else; 0: 4.
	Bulk int

	binaries binaries // nil: those that this program carries
}

// Link is an open link.
type Link struct {
	opts   Options
	log    *slog.Logger
	nodes  []*node
	byName map[string]*node
	cancel context.CancelFunc
	done   sync.WaitGroup
	close  sync.Once
}

// Open prepares the link and starts to dial. It fails only when an endpoint or
// a key cannot be understood. Close must be called.
func Open(opts Options) (*Link, error) {
	if len(opts.Nodes) == 0 {
		return nil, errors.New("link: there are no nodes")
	}
	if opts.Changed == nil {
		opts.Changed = func(string) {}
	}
	if opts.Bulk <= 0 {
		opts.Bulk = defaultBulk
	}
	if opts.binaries == nil {
		opts.binaries = carried{}
	}
	l := &Link{opts: opts, log: opts.Logger, byName: make(map[string]*node, len(opts.Nodes))}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	for i := range opts.Nodes {
		n, err := l.newNode(i)
		if err != nil {
			return nil, fmt.Errorf("node %s: %w", opts.Nodes[i].Name, err)
		}
		l.nodes = append(l.nodes, n)
		l.byName[n.Name] = n
	}
	if l.opts.Join == nil {
		l.opts.Join = l.join
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	for _, n := range l.nodes {
		l.done.Go(func() { n.keep(ctx) })
	}
	return l, nil
}

// defaultBulk is how many connections carry bulk data: on a long way each has a
// window of its own, and one that lost a packet does not stop the others.
const defaultBulk = 4

// Close ends the link and returns when its goroutines have ended. The workers
// and their runs go on.
func (l *Link) Close() {
	l.close.Do(func() {
		l.cancel()
		for _, n := range l.nodes {
			n.route.close()
		}
		l.done.Wait()
		for _, n := range l.nodes {
			n.client.Close()
		}
	})
}

// Worker is the client of the main node's worker. Its calls fail while the link is down.
func (l *Link) Worker() *protocol.Client { return l.nodes[0].client }

// Node is the client of the worker on the node with this index.
func (l *Link) Node(i int) *protocol.Client { return l.nodes[i].client }

// DialMain opens a connection to a TCP port as the main node's SSH server reaches
// it: to the node itself, at a loopback address, or beyond. It is
// errors.ErrUnsupported where there is no such server.
func (l *Link) DialMain(ctx context.Context, host string, port int) (net.Conn, error) {
	m, ok := l.nodes[0].route.(*machine)
	if !ok || port <= 0 || port > 65535 {
		return nil, fmt.Errorf("connect to %s port %d: %w", host, port, errors.ErrUnsupported)
	}
	w := m.current()
	if !w.alive() {
		return nil, errDown
	}
	return w.dialTCP(ctx, host, uint32(port))
}

// Named is the client of the worker on the node with this name.
func (l *Link) Named(name string) (client *protocol.Client, ok bool) {
	n, ok := l.byName[name]
	if !ok {
		return nil, false
	}
	return n.client, true
}

// Up says whether every node's worker answers and the status of all its runs is
// known. If not, since says since when, and err why, naming the node: a node
// that was refused for good before others (errors.Is(err, [ErrRefused])), then
// the first in order.
func (l *Link) Up() (up bool, since time.Time, err error) {
	var down, refused error
	var upSince, downSince time.Time
	for _, n := range l.nodes {
		nodeUp, nodeSince, failed := n.state()
		switch {
		case nodeUp:
			if nodeSince.After(upSince) {
				upSince = nodeSince
			}
			continue
		case downSince.IsZero() || nodeSince.Before(downSince):
			downSince = nodeSince
		}
		failed = fmt.Errorf("node %s: %w", n.Name, failed)
		if down == nil {
			down = failed
		}
		if refused == nil && errors.Is(failed, ErrRefused) {
			refused = failed
		}
	}
	switch {
	case refused != nil:
		return false, downSince, refused
	case down != nil:
		return false, downSince, down
	}
	return true, upSince, nil
}

// NodeUp is [Link.Up] of one node alone; err does not name it.
func (l *Link) NodeUp(i int) (up bool, since time.Time, err error) { return l.nodes[i].state() }

// Status returns the latest status of a run on the main node. known is false
// when the worker has no such run; it means something only while the link is up.
func (l *Link) Status(run string) (status protocol.RunStatus, known bool) {
	return l.nodes[0].status(run)
}

// NodeStatus is [Link.Status] of another node.
func (l *Link) NodeStatus(i int, run string) (status protocol.RunStatus, known bool) {
	return l.nodes[i].status(run)
}

// Runs returns the names of all runs that the main node's worker has.
func (l *Link) Runs() []string { return l.nodes[0].names() }

// NodeRuns is [Link.Runs] of another node.
func (l *Link) NodeRuns(i int) []string { return l.nodes[i].names() }

// Note takes a status that a call to the main node's worker answered with, which
// may be ahead of the watch stream.
func (l *Link) Note(s protocol.RunStatus) { l.nodes[0].note(s) }

// NodeNote is [Link.Note] of another node.
func (l *Link) NodeNote(i int, s protocol.RunStatus) { l.nodes[i].note(s) }

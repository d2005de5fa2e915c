package worker

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/forward"
	"github.com/openworkload/skyport/internal/session"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// passOn joins a session with the worker of another node of the run. An error
// means that nothing was said to the caller.
func (w *Worker) passOn(conn net.Conn, r *run, c protocol.Command) error {
	if r == nil {
		return skyport.Errorf(skyport.CodeInvalid, "this is node %s, not %s", w.opts.Node, skyport.Abbreviate(c.Node, 80))
	}
	var peer *protocol.Peer
	for _, p := range r.peers() {
		if p.Name == c.Node {
			peer = &p
			break
		}
	}
	if peer == nil {
		return skyport.Errorf(skyport.CodeNotFound, "the job has no node %s", skyport.Abbreviate(c.Node, 80))
	}
	ctx, leave, err := r.enter(w.ctx, conn) // it ends with the run, wherever it is
	if err != nil {
		return err
	}
	defer leave()
	there, done, err := w.tunnels.dial(ctx, *peer, r.name)
	if err != nil {
		return skyport.Errorf(skyport.CodeUnavailable, "reach node %s: %w", peer.Name, err).WithHint("%s", skyport.HintOf(err))
	}
	defer done()
	c.Node = ""
	if err := session.WriteOpen(there, c); err != nil {
		_ = there.Close() // the error says it
		return skyport.Errorf(skyport.CodeUnavailable, "reach node %s: %w", peer.Name, err)
	}
	if _, err := forward.Pipe(ctx, conn, there); err != nil {
		w.log.Debug("a session with another node broke", "node", peer.Name, "error", err)
	}
	return nil
}

const (
	// maxOpening bounds the SSH connections that are being made at one time.
	maxOpening = 8
	// tunnelTime is how long making one may take, tunnelIdle how long one is kept
	// that nobody uses.
	tunnelTime = 45 * time.Second
	tunnelIdle = time.Minute
)

// tunnels are the ways to the workers of other nodes: one SSH connection each,
// through which any number of sessions go as forwarded connections, so that
// neither MaxSessions nor MaxStartups of a stock server is met.
type tunnels struct {
	dir     string // of the worker
	opening chan struct{}

	mu     sync.Mutex
	closed bool
	made   int
	open   map[string]*tunnel // by node
	all    sync.WaitGroup
}

// tunnelPrefix begins the names of the sockets, in the ssh directory.
const tunnelPrefix = "to-"

func newTunnels(dir string) *tunnels {
	if old, err := filepath.Glob(filepath.Join(dir, "ssh", tunnelPrefix+"*")); err == nil {
		for _, path := range old {
			_ = os.Remove(path) // of a worker that was killed; in nobody's way
		}
	}
	return &tunnels{dir: dir, opening: make(chan struct{}, maxOpening), open: make(map[string]*tunnel)}
}

// tunnel is one SSH client that forwards a socket of ours to the other worker's.
type tunnel struct {
	node, socket string
	stop         context.CancelFunc
	ready        chan struct{} // closed when it can be dialed, or err is set
	ended        chan struct{}
	err          error

	users int         // guarded by tunnels.mu
	idle  *time.Timer // as well; nil while there are users
}

// dial opens a session with the worker of a peer, for commands of one run. done
// is called when the session is over.
func (t *tunnels) dial(ctx context.Context, peer protocol.Peer, run string) (conn net.Conn, done func(), err error) {
	if socket, ok := strings.CutPrefix(peer.Endpoint, "unix://"); ok {
		conn, err = command(ctx, socket, run)
		return conn, func() {}, err
	}
	tun, err := t.enter(ctx, peer.Name)
	if err != nil {
		return nil, nil, err
	}
	done = func() { t.leave(tun) }
	select {
	case <-tun.ready:
		err = tun.err
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err == nil {
		conn, err = command(ctx, tun.socket, run)
	}
	if err != nil {
		done()
		return nil, nil, err
	}
	return conn, done, nil
}

func command(ctx context.Context, socket, run string) (net.Conn, error) {
	client := protocol.NewClient(protocol.DialUnix(socket))
	defer client.Close()
	return client.CommandIn(ctx, run)
}

// enter returns the tunnel to a node, a new one when there is none.
func (t *tunnels) enter(ctx context.Context, node string) (*tunnel, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, skyport.Errorf(skyport.CodeUnavailable, "the worker is ending")
	}
	tun := t.open[node]
	if tun == nil {
		t.made++
		// It serves whoever comes next as well, so it does not end with ctx.
		life, stop := context.WithCancel(context.WithoutCancel(ctx))
		tun = &tunnel{
			node: node, socket: filepath.Join(t.dir, "ssh", tunnelPrefix+strconv.Itoa(t.made)),
			stop: stop, ready: make(chan struct{}), ended: make(chan struct{}),
		}
		t.open[node] = tun
		t.all.Go(func() { t.run(life, tun) })
	}
	tun.users++
	if tun.idle != nil {
		tun.idle.Stop()
		tun.idle = nil
	}
	return tun, nil
}

func (t *tunnels) leave(tun *tunnel) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if tun.users--; tun.users > 0 {
		return
	}
	tun.idle = time.AfterFunc(tunnelIdle, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if tun.users == 0 {
			t.forget(tun)
			tun.stop()
		}
	})
}

// forget lets the next one who wants to go there make a tunnel of its own. t.mu
// is held.
func (t *tunnels) forget(tun *tunnel) {
	if t.open[tun.node] == tun {
		delete(t.open, tun.node)
	}
}

// run is the life of a tunnel.
func (t *tunnels) run(ctx context.Context, tun *tunnel) {
	defer tun.stop()
	tun.err = t.begin(ctx, tun)
	if tun.err == nil {
		close(tun.ready)
		<-tun.ended
	}
	t.mu.Lock()
	t.forget(tun)
	t.mu.Unlock()
	if tun.err != nil {
		close(tun.ready)
	}
	_ = os.Remove(tun.socket) // the client's own doing, mostly
}

// begin starts a tunnel when it is its turn.
func (t *tunnels) begin(ctx context.Context, tun *tunnel) error {
	select {
	case t.opening <- struct{}{}:
		defer func() { <-t.opening }()
		return t.start(ctx, tun)
	case <-ctx.Done():
		return skyport.Errorf(skyport.CodeUnavailable, "the worker is ending")
	}
}

// start starts the SSH client and waits until its socket can be dialed.
func (t *tunnels) start(ctx context.Context, tun *tunnel) error {
	config := filepath.Join(t.dir, "ssh", "config")
	if _, err := os.Stat(config); err != nil {
		return skyport.Errorf(skyport.CodeUnavailable, "this node has no way to the others by SSH: %w", err).
			WithHint("core sets it up when the partition starts, and says in its log what went wrong")
	}
	said := &beginning{}
	exited := make(chan error, 1)
	t.all.Go(func() { // the thread must live as long as the client: see Pdeathsig
		defer close(tun.ended)
		runtime.LockOSThread()
		cmd := exec.CommandContext(ctx, "ssh", "-F", config, "-N", "-T", "-n", //nolint:gosec // the node's name is core's
			"-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes", "-o", "StreamLocalBindUnlink=yes",
			"-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3",
			"-o", "ControlMaster=no", "-o", "ControlPath=none",
			"-L", tun.socket+":"+filepath.Join(t.dir, "worker.sock"), "--", tun.node)
		cmd.Stderr = said
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setsid: true}
		exited <- cmd.Run()
	})
	late := time.NewTimer(tunnelTime)
	defer late.Stop()
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		conn, err := protocol.DialUnix(tun.socket)(ctx)
		if err == nil {
			return conn.Close() //nolint:wrapcheck // never fails: nothing was written
		}
		again := time.NewTimer(pause)
		select {
		case err := <-exited:
			again.Stop()
			text := strings.TrimSpace(said.String())
			return skyport.Errorf(skyport.CodeUnavailable, "ssh ended: %w: %s", err, skyport.Abbreviate(text, 500))
		case <-late.C:
			again.Stop()
			tun.stop()
			return skyport.Errorf(skyport.CodeUnavailable, "no SSH connection within %s", tunnelTime)
		case <-again.C: // ssh tells nobody when it listens
		}
	}
}

// close ends all tunnels and waits for them.
func (t *tunnels) close() {
	t.mu.Lock()
	t.closed = true
	for _, tun := range t.open {
		if tun.idle != nil {
			tun.idle.Stop()
		}
		tun.stop()
	}
	t.mu.Unlock()
	t.all.Wait()
}

// beginning keeps the first bytes of what a program says.
type beginning struct{ bytes.Buffer }

func (b *beginning) Write(p []byte) (int, error) {
	const most = 4096
	b.Buffer.Write(p[:min(len(p), max(0, most-b.Len()))])
	return len(p), nil
}

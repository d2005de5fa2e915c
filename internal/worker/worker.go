package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/worker/proc"
	"github.com/openworkload/skyport/internal/worker/runtime"
	"github.com/openworkload/skyport/internal/worker/shim"
	"github.com/openworkload/skyport/internal/worker/task"
)

// Options say where a worker lives and who it is.
type Options struct {
	// Dir holds everything that is durable. It is made with mode 0700.
	Dir string
	// Node is the name of the node; empty: the host name.
	Node string
	// Socket is the path that the worker listens on; empty: worker.sock in Dir.
	Socket string
	// Version is the build version.
	Version string
	// Shim is the command that becomes a shim when the run's directory is
	// appended; empty: this program with the argument shim.
	Shim []string
	// Runtime runs the scripts; nil: runtime.Node.
	Runtime runtime.Runtime
	Logger  *slog.Logger // nil: slog.Default()
}

// Worker is the agent of one node. Open it, then Serve.
type Worker struct {
	opts        Options
	log         *slog.Logger
	runs        string // directory of the runs
	socket      string
	shimCommand []string
	bootID      string
	started     time.Time
	lock        *os.File
	listener    net.Listener
	runtime     runtime.Runtime
	board       *board
	counts      *counts
	notify      *notifier // of the runs' own files: told at once
	logNotify   *notifier // of the logs: told together
	observer    *observer
	sessions    *sessions // commands beside scripts
	tunnels     *tunnels
	usage       *usage
	files       *files

	ctx  context.Context //nolint:containedctx // ends with Close
	stop context.CancelFunc
	all  sync.WaitGroup

	mu     sync.Mutex
	byName map[string]*run
	making map[string]*sync.Mutex // one request at a time makes or removes a run

	storage sync.Mutex // while a storage is mounted or unmounted
}

// Open takes possession of a worker's directory and carries on with the runs
// in it. A second worker on the same directory is CodeConflict. The worker
// listens when Open returns; Serve answers. Close it when Serve is not called.
func Open(opts Options) (*Worker, error) {
	w, err := prepare(opts)
	if err != nil {
		return nil, fmt.Errorf("open worker in %s: %w", opts.Dir, err)
	}
	if err := w.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open worker in %s: %w", opts.Dir, err), w.Close())
	}
	return w, nil
}

func prepare(opts Options) (*Worker, error) {
	dir, err := filepath.Abs(opts.Dir)
	if err != nil || opts.Dir == "" {
		return nil, errors.Join(errors.New("a worker needs a directory"), err)
	}
	opts.Dir = dir
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if opts.Node == "" {
		if opts.Node, err = os.Hostname(); err != nil {
			return nil, err //nolint:wrapcheck // Open wraps
		}
	}
	w := &Worker{
		opts: opts, log: opts.Logger, started: time.Now().UTC(),
		runs: filepath.Join(dir, "runs"), socket: opts.Socket, shimCommand: opts.Shim, runtime: opts.Runtime,
		byName: make(map[string]*run), making: make(map[string]*sync.Mutex),
	}
	if w.socket == "" {
		w.socket = filepath.Join(dir, "worker.sock")
	}
	if len(w.shimCommand) == 0 {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find the worker's own binary: %w", err)
		}
		w.shimCommand = []string{self, "shim"}
	}
	if w.bootID, err = proc.BootID(); err != nil {
		return nil, err
	}
	w.ctx, w.stop = context.WithCancel(context.Background())
	w.observer = newObserver(w)
	w.counts = newCounts(opts.Version)
	w.sessions, w.tunnels = newSessions(), newTunnels(dir)
	w.usage, w.files = newUsage(opts.Node, dir), newFiles()
	return w, nil
}

func (w *Worker) open() error {
	if err := os.MkdirAll(w.runs, 0o700); err != nil {
		return err //nolint:wrapcheck // Open wraps
	}
	if err := os.Chmod(w.opts.Dir, 0o700); err != nil { //nolint:gosec // a directory
		return err //nolint:wrapcheck // Open wraps
	}
	if err := w.lockDir(); err != nil {
		return err
	}
	epoch, err := w.nextEpoch()
	if err != nil {
		return err
	}
	if err := w.install(); err != nil {
		return err
	}
	w.board = newBoard(epoch)
	if w.runtime == nil {
		node, err := runtime.NewNode(w.opts.Dir, w.shimCommand[0], w.log)
		if err != nil {
			return err
		}
		w.runtime = node
	}
	w.notify, w.logNotify = newNotifier(0, w.log), newNotifier(logPause, w.log)
	w.all.Go(func() { w.notify.run(w.refreshAll) })
	w.all.Go(func() { w.logNotify.run(w.refreshAll) })
	w.all.Go(func() { w.observer.run(w.ctx) })
	if err := w.adopt(); err != nil {
		return err
	}
	return w.listen()
}

// logPause is how long growth of logs gathers before it is told.
const logPause = 25 * time.Millisecond

// lockDir makes sure that this is the only worker of the directory.
func (w *Worker) lockDir() error {
	f, err := os.OpenFile(filepath.Join(w.opts.Dir, "worker.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err //nolint:wrapcheck // Open wraps
	}
	w.lock = f
	deadline := time.Now().Add(lockTime)
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		case time.Now().After(deadline):
			return skyport.Errorf(skyport.CodeConflict, "another worker lives in %s", w.opts.Dir)
		}
		time.Sleep(5 * time.Millisecond) // nobody tells when a lock becomes free, and waiting for it has no deadline
	}
}

// lockTime is how long a worker waits for the lock of one that was killed: a
// shim that was just being forked holds it until it is a program of its own.
const lockTime = time.Second

// nextEpoch counts the workers of this directory, so that the versions of
// statuses go on growing whatever the clock does.
func (w *Worker) nextEpoch() (uint32, error) {
	path := filepath.Join(w.opts.Dir, "epoch")
	var epoch uint64
	data, err := os.ReadFile(path)
	if err == nil {
		if epoch, err = strconv.ParseUint(strings.TrimSpace(string(data)), 10, 32); err != nil {
			return 0, fmt.Errorf("read %s: %w", path, err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return 0, err //nolint:wrapcheck // Open wraps
	}
	epoch++
	next := []byte(strconv.FormatUint(epoch, 10) + "\n")
	if err := errors.Join(os.WriteFile(path+".tmp", next, 0o600), os.Rename(path+".tmp", path)); err != nil {
		return 0, err
	}
	return uint32(epoch), nil //nolint:gosec // counts starts of a worker
}

// adopt goes on with the runs of an earlier worker and removes what it had not
// finished making or removing.
func (w *Worker) adopt() error {
	entries, err := os.ReadDir(w.runs)
	if err != nil {
		return err //nolint:wrapcheck // Open wraps
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			if err := removeAll(filepath.Join(w.runs, e.Name())); err != nil {
				w.log.Warn("remains of a removed run", "error", err)
			}
			continue
		}
		if _, err := w.openRun(e.Name()); err != nil {
			return err
		}
	}
	// Beside all else: a container engine may be slow, or not up yet.
	w.all.Go(func() {
		err := w.runtime.Sweep(w.ctx, func(run string) bool { return shim.Exists(w.runs, run) })
		if err != nil && w.ctx.Err() == nil {
			w.log.Warn("remains of removed runs", "error", err)
		}
	})
	return nil
}

func (w *Worker) listen() error {
	if len(w.socket) > task.MaxSocketPath {
		return skyport.Errorf(skyport.CodeInvalid, "the socket's path %s is longer than %d bytes", w.socket, task.MaxSocketPath).
			WithHint("choose a shorter one with --socket")
	}
	// We hold the directory's lock: a socket that is there is of a dead worker.
	if err := os.Remove(w.socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err //nolint:wrapcheck // Open wraps
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(w.ctx, "unix", w.socket)
	if err != nil {
		return err //nolint:wrapcheck // Open wraps
	}
	w.listener = listener
	return os.Chmod(w.socket, 0o600) //nolint:wrapcheck // Open wraps
}

// Socket is the path that the worker listens on.
func (w *Worker) Socket() string { return w.socket }

// Serve answers requests until ctx ends, then closes the worker. The runs go
// on without it.
func (w *Worker) Serve(ctx context.Context) error {
	server := &http.Server{
		Handler:           w.handler(),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(w.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return w.ctx },
	}
	defer context.AfterFunc(ctx, func() {
		w.stop() // streams end
		// Requests that change something are short; the rest can be made again.
		last, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(last) != nil {
			_ = server.Close() // said enough
		}
	})()
	w.log.Info("worker listens", "socket", w.socket, "node", w.opts.Node, "version", w.opts.Version)
	err := server.Serve(w.listener)
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return errors.Join(err, w.Close())
}

// Close stops looking after the runs and lets go of the directory.
func (w *Worker) Close() error {
	w.stop()
	var failed error
	if w.listener != nil {
		if err := w.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			failed = err
		}
	}
	w.sessions.close()
	w.tunnels.close()
	for _, n := range []*notifier{w.notify, w.logNotify} {
		if n != nil {
			n.close()
		}
	}
	w.all.Wait()
	w.files.close()
	w.mu.Lock()
	for _, r := range w.byName {
		failed = errors.Join(failed, r.inputs.Close())
	}
	w.mu.Unlock()
	if closer, ok := w.runtime.(io.Closer); ok {
		failed = errors.Join(failed, closer.Close())
	}
	if w.lock != nil {
		failed = errors.Join(failed, w.lock.Close())
	}
	return failed
}

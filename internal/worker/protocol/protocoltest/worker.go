package protocoltest

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/session"
	"github.com/openworkload/skyport/internal/transfer"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// Worker is a worker under the test's control. Its methods may be called from
// many goroutines, also while it is down.
type Worker struct {
	t      testing.TB
	dir    string // of the runs' work directories
	socket string

	mu       sync.Mutex
	server   *http.Server
	ended    chan struct{} // closed when server has ended
	runs     map[string]*run
	version  uint64
	changed  chan struct{}
	started  int
	stubborn bool
	onStart  func(w *Worker, spec protocol.RunSpec)
	refuse   error
	held     chan struct{} // closed: transfers go on; nil: nothing holds them

	onCommand func(ctx context.Context, c protocol.Command, s *session.Served) session.Exit
	usage     protocol.NodeUsage
	samples   []protocol.Sample
	places    map[string]*transfer.Receiver
}

type run struct {
	spec   protocol.RunSpec
	status protocol.RunStatus
	logs   map[string][]byte
	inputs *transfer.Receiver
}

// New makes a worker that answers on a socket of its own until the test ends.
func New(t testing.TB) *Worker {
	t.Helper()
	// Not below t.TempDir: the path of a socket is short.
	dir, err := os.MkdirTemp("", "spw")
	if err != nil {
		t.Fatal(err)
	}
	w := &Worker{t: t, dir: dir, socket: filepath.Join(dir, "s"), runs: map[string]*run{}, changed: make(chan struct{}), places: map[string]*transfer.Receiver{}}
	w.Up()
	t.Cleanup(func() {
		w.Release() // a server does not see that the peer of an unread body is gone
		w.Down()
		for _, place := range w.places {
			_ = place.Close() // what it has open is forgotten
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return w
}

// Endpoint is what a node with this worker has as its endpoint.
func (w *Worker) Endpoint() string { return "unix://" + w.socket }

// Up lets the worker answer, again.
func (w *Worker) Up() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.server != nil {
		return
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "unix", w.socket)
	if err != nil {
		w.t.Error(err)
		return
	}
	server := &http.Server{Handler: w.routes(), ReadHeaderTimeout: time.Minute}
	ended := make(chan struct{})
	w.server, w.ended = server, ended
	go func() {
		defer close(ended)
		_ = server.Serve(listener) // Down ends it
	}()
}

// Down breaks all connections and answers nobody any more. Its runs go on.
func (w *Worker) Down() {
	w.mu.Lock()
	server, ended := w.server, w.ended
	w.server = nil
	w.mu.Unlock()
	if server != nil {
		_ = server.Close() // the listener is gone either way
		<-ended            // and its socket
	}
}

// Reboot loses every run that runs, and starts the versions anew.
func (w *Worker) Reboot() {
	w.Down()
	w.mu.Lock()
	w.version = 0
	for _, r := range w.runs {
		w.version++
		r.status.Version = w.version
		if r.status.State == protocol.RunRunning {
			r.status.State, r.status.Details = protocol.RunLost, "the node booted"
		}
	}
	w.mu.Unlock()
	w.Up()
}

// OnStart has f called when a run starts, before anybody hears of it.
func (w *Worker) OnStart(f func(w *Worker, spec protocol.RunSpec)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.onStart = f
}

// Refuse lets every Prepare fail with the error; nil lets it succeed.
func (w *Worker) Refuse(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refuse = err
}

// Hold lets transfers of inputs and outputs wait until [Worker.Release].
func (w *Worker) Hold() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held == nil {
		w.held = make(chan struct{})
	}
}

// Release lets transfers go on.
func (w *Worker) Release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held != nil {
		close(w.held)
		w.held = nil
	}
}

// wait waits while transfers are held.
func (w *Worker) wait(req *http.Request) error {
	w.mu.Lock()
	held := w.held
	w.mu.Unlock()
	if held == nil {
		return nil
	}
	select {
	case <-held:
		return nil
	case <-req.Context().Done():
		return req.Context().Err()
	}
}

// Stubborn lets runs that are told to stop go on.
func (w *Worker) Stubborn() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stubborn = true
}

// Started tells how many runs were started, each counted once.
func (w *Worker) Started() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.started
}

// Runs names the runs that the worker has, sorted.
func (w *Worker) Runs() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for name := range w.runs {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Spec is what the run was prepared with.
func (w *Worker) Spec(name string) (protocol.RunSpec, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r := w.runs[name]; r != nil {
		return r.spec, true
	}
	return protocol.RunSpec{}, false
}

// Status is how far the run is.
func (w *Worker) Status(name string) (protocol.RunStatus, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r := w.runs[name]; r != nil {
		return r.status, true
	}
	return protocol.RunStatus{}, false
}

// Work is the work directory of a run.
func (w *Worker) Work(name string) string { return filepath.Join(w.dir, name) }

// Change changes the status of a run and tells the watchers.
func (w *Worker) Change(name string, change func(*protocol.RunStatus)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.runs[name]
	if r == nil {
		w.t.Errorf("the worker has no run %s", name)
		return
	}
	change(&r.status)
	w.told(r)
}

// End ends a run with an exit code.
func (w *Worker) End(name string, code int) {
	w.Change(name, func(s *protocol.RunStatus) {
		s.State, s.ExitCode, s.Ended = protocol.RunEnded, code, time.Now().UTC()
	})
}

// Write appends to the standard output of a run.
func (w *Worker) Write(name, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r := w.runs[name]; r != nil {
		r.logs["stdout"] = append(r.logs["stdout"], text...)
		r.status.Stdout = skyport.Bytes(len(r.logs["stdout"]))
		w.told(r)
	}
}

// told marks a change of a run. w.mu is held.
func (w *Worker) told(r *run) {
	w.version++
	r.status.Version = w.version
	w.wake()
}

func (w *Worker) wake() {
	close(w.changed)
	w.changed = make(chan struct{})
}

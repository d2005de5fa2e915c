package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/forward"
	"github.com/openworkload/skyport/internal/session"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// commandsFile says in a run's directory that commands were run beside its
// script: something of them may be left.
const commandsFile = "commands"

// maxCommands bounds the commands of a worker at one time, those included that
// it passes on to others.
const maxCommands = 1024

// commandsEnd is how long commands are given to end with their run, HUP, TERM
// and KILL included, before nobody listens to them any more.
const commandsEnd = 10 * time.Second

// sessions counts the commands of a worker.
type sessions struct {
	mu     sync.Mutex
	count  int
	closed bool
	idle   chan struct{} // closed when closed and count is 0
}

func newSessions() *sessions { return &sessions{idle: make(chan struct{})} }

// begin takes a place. Who gets one gives it back by end.
func (s *sessions) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return skyport.Errorf(skyport.CodeUnavailable, "the worker is ending")
	case s.count >= maxCommands:
		return skyport.Errorf(skyport.CodeUnavailable, "%d commands run on this node already", s.count).
			WithHint("wait until some have ended")
	}
	s.count++
	return nil
}

func (s *sessions) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count--; s.count == 0 && s.closed {
		close(s.idle)
	}
}

// close lets none begin any more and waits for those that are there.
func (s *sessions) close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		if s.count == 0 {
			close(s.idle)
		}
	}
	s.mu.Unlock()
	<-s.idle
}

// serveCommand becomes the session of one command.
func (w *Worker) serveCommand(rw http.ResponseWriter, req *http.Request) {
	if err := w.sessions.begin(); err != nil {
		protocol.WriteProblem(rw, err)
		return
	}
	defer w.sessions.end()
	query := req.URL.Query()
	if run := query.Get("run"); run != "" { // a refusal that is no session
		if _, err := w.known(run); err != nil {
			protocol.WriteProblem(rw, err)
			return
		}
	}
	conn, err := forward.Upgrade(rw, req)
	if err != nil {
		protocol.WriteProblem(rw, err)
		return
	}
	w.serveSession(conn, query.Get("run"), query.Get("node"))
}

// serveSession serves one session: here, or by the worker of the node that is
// meant. A run or node that is given counts more than those of the first frame.
func (w *Worker) serveSession(conn net.Conn, runName, node string) {
	defer context.AfterFunc(w.ctx, func() { _ = conn.Close() })()
	open, err := session.ReadOpen(conn)
	if err != nil {
		w.log.Debug("a session without a command", "error", err)
		_ = conn.Close() // whoever it is
		return
	}
	var c protocol.Command
	if err := json.Unmarshal(open, &c); err != nil {
		w.failSession(conn, skyport.Errorf(skyport.CodeInvalid, "read the command: %w", err))
		return
	}
	if runName != "" {
		c.Run = runName
	}
	if node != "" {
		c.Node = node
	}
	if err := checkCommand(c); err != nil {
		w.failSession(conn, err)
		return
	}
	var r *run
	if c.Run != "" {
		if r, err = w.known(c.Run); err != nil {
			w.failSession(conn, err)
			return
		}
	}
	if c.Node != "" && c.Node != w.opts.Node {
		if err := w.passOn(conn, r, c); err != nil {
			w.failSession(conn, err)
		}
		return
	}
	err = session.ServeOpened(conn, open, func(ctx context.Context, _ json.RawMessage, s *session.Served) session.Exit {
		return w.exec(ctx, conn, r, c, s)
	})
	if err != nil {
		w.log.Debug("a command whose caller went away", "run", c.Run, "error", err)
	}
}

// failSession tells the caller of a session why there is no command.
func (w *Worker) failSession(conn net.Conn, err error) {
	failed := session.ServeOpened(conn, nil, func(context.Context, json.RawMessage, *session.Served) session.Exit {
		return session.Failed(err)
	})
	if failed != nil {
		w.log.Debug("a caller that went away", "error", failed)
	}
}

// checkCommand refuses what no program can be started with.
func checkCommand(c protocol.Command) error {
	for _, arg := range append(c.Argv[:len(c.Argv):len(c.Argv)], c.Dir) {
		if strings.Contains(arg, "\x00") {
			return skyport.Errorf(skyport.CodeInvalid, "an argument of the command has a null byte")
		}
	}
	if len(c.Argv) > 0 && c.Argv[0] == "" {
		return skyport.Errorf(skyport.CodeInvalid, "the command has no name")
	}
	return checkEnv(c.Env)
}

// exec runs a command on this node.
func (w *Worker) exec(ctx context.Context, conn net.Conn, r *run, c protocol.Command, s *session.Served) session.Exit {
	if r == nil {
		return w.runtime.Exec(ctx, nil, c, s)
	}
	ctx, leave, err := r.enter(ctx, conn)
	if err != nil {
		return session.Failed(err)
	}
	defer leave()
	s.Started = func(pid int) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.beside[pid] = 0
	}
	if err := os.MkdirAll(r.rt.Work, 0o700); err != nil {
		return session.Failed(diskError("make the work directory", err))
	}
	exit := w.runtime.Exec(ctx, &r.rt, c, s)
	if errors.Is(context.Cause(ctx), errRunOver) && exit.Error == "" {
		exit.Error, exit.ErrorCode = "the command was ended with its job", skyport.CodeConflict
	}
	return exit
}

// errRunOver is why commands end with their run.
var errRunOver = errors.New("the run is over")

// visit is one command of a run.
type visit struct {
	cancel context.CancelCauseFunc
	conn   net.Conn
	gone   chan struct{}
}

// enter counts a command in: it ends when the run does. Commands can be run as
// long as the run's directory is there: while it is being prepared, to look at
// the inputs, while it runs, and after it has ended, to look at what it left.
func (r *run) enter(ctx context.Context, conn net.Conn) (context.Context, func(), error) {
	r.mu.Lock()
	for r.ending != nil { // it would be taken for what has to end
		ending := r.ending
		r.mu.Unlock()
		select {
		case <-ending:
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("run a command beside %s: %w", r.name, ctx.Err())
		}
		r.mu.Lock()
	}
	defer r.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	v := &visit{cancel: cancel, conn: conn, gone: make(chan struct{})}
	if r.removed {
		cancel(nil)
		return nil, nil, skyport.Errorf(skyport.CodeNotFound, "run %s is being removed", r.name)
	}
	if err := touch(r.dir, commandsFile); err != nil {
		cancel(nil)
		return nil, nil, diskError("run a command beside "+r.name, err)
	}
	r.visits[v] = struct{}{}
	return ctx, func() {
		r.mu.Lock()
		delete(r.visits, v)
		r.mu.Unlock()
		cancel(nil)
		close(v.gone)
	}, nil
}

// endCommands ends the commands of the run and waits for them.
func (r *run) endCommands() {
	r.mu.Lock()
	visits := make([]*visit, 0, len(r.visits))
	for v := range r.visits {
		visits = append(visits, v)
	}
	r.mu.Unlock()
	for _, v := range visits {
		v.cancel(errRunOver)
	}
	late := time.NewTimer(commandsEnd)
	defer late.Stop()
	for i := 0; i < len(visits); {
		select {
		case <-visits[i].gone:
			i++
		case <-late.C:
			for _, v := range visits[i:] {
				_ = v.conn.Close() // its caller does not listen
			}
		}
	}
}

// afterEnd ends what goes on beside a script that has ended, and what commands
// have left behind.
func (r *run) afterEnd() {
	r.endCommands()
	defer r.w.oneAtATime(r.name)()
	r.mu.Lock()
	removed := r.removed
	r.mu.Unlock()
	if removed {
		return
	}
	if err := r.w.runtime.Clean(r.w.ctx, r.rt); err != nil && r.w.ctx.Err() == nil {
		r.log.Warn("remains of the commands of a run", "error", err)
	}
}

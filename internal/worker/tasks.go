package worker

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/openworkload/skyport/internal/worker/task"
)

// taskServer serves the socket by which the processes of a run start others.
type taskServer struct {
	listener net.Listener
	all      sync.WaitGroup
}

// openTasks makes the task directory and serves its socket, until close.
func (r *run) openTasks() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tasks != nil {
		return nil
	}
	if err := r.surroundings().Write(r.rt.Task); err != nil {
		return diskError("prepare for tasks", err)
	}
	listener, err := task.Listen(r.rt.Task)
	if err != nil {
		return diskError("prepare for tasks", err)
	}
	r.tasks = &taskServer{listener: listener}
	r.tasks.all.Go(func() { r.serveTasks(listener) })
	return nil
}

func (r *run) serveTasks(listener net.Listener) {
	for pause := 5 * time.Millisecond; ; {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors: a moment later there are some
			r.log.Warn("a task is not taken", "error", err)
			time.Sleep(pause) // nobody tells when there are
			pause = min(2*pause, time.Second)
			continue
		}
		pause = 5 * time.Millisecond
		if err := r.w.sessions.begin(); err != nil {
			go r.w.failSession(conn, err) // short: it says one thing and closes
			continue
		}
		go func() { // Close waits for it
			defer r.w.sessions.end()
			r.w.serveSession(conn, r.name, "")
		}()
	}
}

// close takes no more tasks. Those that are there end with the run.
func (t *taskServer) close() {
	if t == nil {
		return
	}
	_ = t.listener.Close() // an error would say that it is closed
	t.all.Wait()
}

package worker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/forward"
	"github.com/openworkload/skyport/internal/worker/protocol"
	"github.com/openworkload/skyport/internal/worker/shim"
)

// live drives the run until it has ended. When the worker ends first it
// returns, and the shim goes on without a worker.
func (r *run) live(ctx context.Context) {
	defer r.settle()
	state, err := r.w.notify.add(r.dir, unix.IN_MOVED_TO, r.refresh)
	if err != nil {
		r.log.Error("cannot watch the run; its changes are seen late", "error", err)
	} else {
		defer r.w.notify.drop(state)
	}
	r.refresh() // what came before the watch
	// And what comes until its end: a watch that is dropped tells no more of what
	// it has seen, such as the end of a script that ended just now.
	defer r.refresh()
	if err := r.prepare(ctx); err != nil {
		r.refuse(ctx, err)
		return
	}
	if !r.awaitStart(ctx) {
		return
	}
	r.observe()
	for attempt := 1; ctx.Err() == nil; attempt++ {
		done, err := r.attend(ctx, attempt)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			r.refuse(ctx, err)
			return
		case done:
			return
		}
	}
}

// prepare makes the runtime ready for the run, unless it is to be stopped before.
func (r *run) prepare(ctx context.Context) error {
	if shim.Exists(r.dir, shim.LaunchFile) || shim.Exists(r.dir, shim.ExitFile) || shim.Exists(r.dir, shim.StopFile) {
		return r.forgetLogins()
	}
	preparing, cancel := context.WithCancel(ctx)
	defer cancel()
	prepared := make(chan error, 1)
	go func() {
		err := r.mountStorage(preparing)
		if err == nil {
			err = r.w.runtime.Prepare(preparing, r.rt, func(details string) {
				r.change(func(s *protocol.RunStatus) { s.Details = details })
			})
		}
		if err == nil {
			err = r.awaitShared(preparing)
		}
		prepared <- err
	}()
	for {
		select {
		case err := <-prepared:
			if shim.Exists(r.dir, shim.StopFile) {
				return r.forgetLogins()
			}
			if err == nil { // what was told of the way there is over
				r.change(func(s *protocol.RunStatus) {
					if s.State == protocol.RunStaging {
						s.Details = ""
					}
				})
			}
			return errors.Join(err, r.forgetLogins())
		case <-r.wake:
			if shim.Exists(r.dir, shim.StopFile) {
				cancel()
			}
		}
	}
}

// forgetLogins removes what was needed only for the image and the storage.
func (r *run) forgetLogins() error {
	select {
	case <-r.w.ctx.Done():
		return nil // the next worker may need them
	default:
	}
	for _, name := range []string{loginsFile, storageFile} {
		if err := os.Remove(r.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget what opens registries and storages: %w", err)
		}
	}
	return nil
}

// awaitStart waits until the start is asked for, and says whether it was. A
// stop may come first.
func (r *run) awaitStart(ctx context.Context) bool {
	for {
		switch {
		case shim.Exists(r.dir, shim.ExitFile):
			return false
		case shim.Exists(r.dir, shim.LaunchFile):
			return true // by an earlier worker: a shim may live
		case shim.Exists(r.dir, shim.StopFile):
			r.conclude(ctx, shim.Exit{Stopped: true, Ended: time.Now().UTC()})
			return false
		case shim.Exists(r.dir, startFile):
			return true
		}
		select {
		case <-r.wake:
		case <-ctx.Done():
			return false
		}
	}
}

// maxShims is how often a shim is started that does not get as far as begin.
const maxShims = 3

// attend brings the run one step on: it waits for the shim that lives, or
// starts one when none did so far. It says whether the run is over.
func (r *run) attend(ctx context.Context, attempt int) (done bool, err error) {
	lock, err := shim.TryLock(r.dir)
	if err != nil {
		return false, err
	}
	if lock != nil {
		defer func() { _ = lock.Close() }()
		// Nobody holds the lock, so nobody writes these files any more.
		switch {
		case shim.Exists(r.dir, shim.ExitFile):
			return true, nil
		case shim.Exists(r.dir, shim.BeganFile):
			if r.holds() && r.heldSince() {
				return true, r.hold(ctx)
			}
			r.lose(ctx)
			return true, nil
		}
		if err := r.launch(); err != nil {
			return false, err
		}
		if r.holds() {
			return true, r.hold(ctx)
		}
		if attempt > maxShims {
			return false, fmt.Errorf("the shim does not start: %s", r.complaint())
		}
		_ = lock.Close() // the shim's now
	}
	p, err := r.shimProcess(lock == nil)
	if err != nil || p == nil {
		return false, err
	}
	defer p.close()
	if shim.Exists(r.dir, shim.StopFile) {
		r.tell(shim.StopSignal) // asked for while no worker was there
	}
	err = p.wait(ctx)
	r.refresh()
	return false, err
}

// shimProcess finds the shim that lives, or starts one. When one lives but has
// not yet begun, another is started that waits behind it: should the first die
// without having begun, the second takes over at once.
func (r *run) shimProcess(lives bool) (*process, error) {
	var began shim.Began
	if lives && shim.Read(r.dir, shim.BeganFile, &began) == nil {
		p, err := find(began)
		if errors.Is(err, os.ErrProcessDone) {
			return nil, nil // a moment ago: look again
		}
		return p, err
	}
	return spawn(r.w.shimCommand, r.dir)
}

// launch writes down what the shim executes and opens the out ports.
func (r *run) launch() error {
	if err := r.openParks(); err != nil {
		return err
	}
	if err := r.openTasks(); err != nil {
		return err
	}
	if shim.Exists(r.dir, shim.LaunchFile) {
		return nil
	}
	if err := os.MkdirAll(r.rt.Work, 0o700); err != nil {
		return diskError("make the work directory", err)
	}
	launch, err := r.w.runtime.Launch(r.rt)
	if err != nil {
		return err
	}
	for _, path := range []string{r.rt.Stdout, r.rt.Stderr} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), create(path)); err != nil {
			return diskError("make the log "+path, err)
		}
	}
	r.watchLogs()
	return shim.Write(r.dir, shim.LaunchFile, launch)
}

// observe looks after a run that an earlier worker started.
func (r *run) observe() {
	if !shim.Exists(r.dir, shim.LaunchFile) {
		return
	}
	r.watchLogs()
	if err := r.openParks(); err != nil {
		r.log.Warn("an out port of a running job is closed", "error", err)
	}
	if err := r.openTasks(); err != nil {
		r.log.Warn("a running job can start no tasks", "error", err)
	}
}

// openParks listens for the job on its out ports.
func (r *run) openParks() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.spec.Request.Ports {
		if p.Direction != skyport.Out || r.spec.Member || r.parks[p.Number] != nil {
			continue
		}
		park, err := forward.NewPark(p.Number, forward.ParkOptions{Logger: r.log})
		if err != nil {
			return fmt.Errorf("out port %d of the job: %w", p.Number, err)
		}
		r.parks[p.Number] = park
	}
	return nil
}

// watchLogs has the kernel tell when the logs grow.
func (r *run) watchLogs() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.watches) > 0 {
		return
	}
	for _, path := range []string{r.rt.Stdout, r.rt.Stderr} {
		watch, err := r.w.logNotify.add(path, unix.IN_MODIFY, r.refresh)
		if err != nil {
			r.log.Warn("growth of a log is seen late", "error", err)
			continue
		}
		r.watches = append(r.watches, watch)
	}
}

// settle ends what goes on around the run and is of use only while it lives.
func (r *run) settle() {
	r.mu.Lock()
	parks, watches, tasks := r.parks, r.watches, r.tasks
	r.parks, r.watches, r.tasks = make(map[int]*forward.Park), nil, nil
	r.mu.Unlock()
	tasks.close()
	for _, watch := range watches {
		r.w.logNotify.drop(watch)
	}
	for port, park := range parks {
		if err := park.Close(); err != nil {
			r.log.Warn("close an out port", "port", port, "error", err)
		}
	}
}

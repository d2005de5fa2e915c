package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/worker/protocol"
	"github.com/openworkload/skyport/internal/worker/shim"
)

// lose says that the shim died without a record of the end. The script may
// have run, so it is not run again; what is left of it is killed.
func (r *run) lose(ctx context.Context) {
	if err := r.w.runtime.Clean(ctx, r.rt); err != nil && ctx.Err() == nil {
		r.log.Error("remains of a lost run", "error", err)
	}
	details := "the processes of the run vanished without a record of its end"
	var began shim.Began
	if shim.Read(r.dir, shim.BeganFile, &began) == nil && began.BootID != r.w.bootID {
		details = "the node booted while the script ran"
	}
	if c := r.complaint(); c != "" {
		details += ": " + c
	}
	r.log.Warn("run lost", "details", details)
	r.change(func(s *protocol.RunStatus) {
		s.State, s.Details, s.Started = protocol.RunLost, details, began.Time
	})
}

// refuse says that the run cannot be started here.
func (r *run) refuse(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	r.log.Warn("run refused", "error", err)
	why := err.Error()
	if hint := skyport.HintOf(err); hint != "" {
		why += " (" + hint + ")"
	}
	r.conclude(ctx, shim.Exit{Refused: why, Ended: time.Now().UTC()})
}

// conclude writes the end of a run that never began. Only with the lock in
// hand, for a shim of an earlier worker may be on its way.
func (r *run) conclude(ctx context.Context, exit shim.Exit) {
	lock, err := r.lock(ctx, func() {})
	if ctx.Err() != nil {
		return // the next worker comes to the same end
	}
	if err == nil {
		defer func() { _ = lock.Close() }()
		if !shim.Exists(r.dir, shim.BeganFile) && !shim.Exists(r.dir, shim.ExitFile) {
			err = shim.Write(r.dir, shim.ExitFile, exit)
		}
	}
	if err != nil {
		// Such as a full disk: it holds as long as this worker lives.
		r.log.Error("cannot write down the end of a run", "error", err)
		r.change(func(s *protocol.RunStatus) { conclude(s, exit) })
		return
	}
	r.refresh()
}

// complaint is the last line that a shim wrote before it gave up.
func (r *run) complaint() string {
	data, err := os.ReadFile(filepath.Join(r.dir, shim.LogFile))
	if err != nil {
		return ""
	}
	data = bytes.TrimSpace(data[max(0, len(data)-4096):])
	return skyport.Abbreviate(strings.TrimSpace(string(data[bytes.LastIndexByte(data, '\n')+1:])), 500)
}

// stop asks for the run to end. The file is found by a shim that has not yet
// begun; one that has is told by a signal.
func (r *run) stop() error {
	if err := touch(r.dir, shim.StopFile); err != nil {
		return diskError("stop run "+r.name, err)
	}
	r.nudge()
	r.tell(shim.StopSignal)
	return nil
}

// tell sends a signal to the shim, if one has begun.
func (r *run) tell(sig syscall.Signal) {
	var began shim.Began
	if shim.Read(r.dir, shim.BeganFile, &began) != nil || began.BootID != r.w.bootID {
		return
	}
	p, err := find(began)
	if err != nil {
		return // it has ended
	}
	defer p.close()
	if err := p.signal(sig); err != nil {
		r.log.Error("cannot tell the shim", "error", err)
	}
}

// remove ends what lives of the run and forgets it. When it returns nothing is
// left but the user's own work directory, if the job named one.
func (r *run) remove(ctx context.Context) error {
	r.mu.Lock()
	r.removed = true
	r.mu.Unlock()
	if err := touch(r.dir, shim.StopFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return diskError("remove run "+r.name, err)
	}
	r.cancel() // live returns; the shim has its own life
	<-r.ended
	r.endCommands()
	lock, err := r.kill(ctx)
	if err != nil {
		return err
	}
	// With the lock in hand: a shim that waits for it finds nothing to do.
	defer func() { _ = lock.Close() }()
	// A container outlives the end of its run when its engine was away then.
	left := !shim.Exists(r.dir, shim.ExitFile) || shim.Exists(r.dir, shim.ContainerFile)
	if left && shim.Exists(r.dir, shim.LaunchFile) || shim.Exists(r.dir, commandsFile) {
		if err := r.w.runtime.Clean(ctx, r.rt); err != nil {
			return err
		}
	}
	r.releaseStorage(ctx)
	if err := r.inputs.Close(); err != nil {
		r.log.Warn("close the inputs", "error", err)
	}
	r.w.files.forget(r.name)
	if r.shared != "" && !r.spec.Member {
		if err := removeAll(r.shared); err != nil {
			return diskError("remove run "+r.name, err)
		}
	}
	trash := filepath.Join(r.w.runs, fmt.Sprintf(".trash-%s-%d", r.name, time.Now().UnixNano()))
	if err := os.Rename(r.dir, trash); err != nil {
		return fmt.Errorf("remove run %s: %w", r.name, err)
	}
	r.w.forget(r)
	return removeAll(trash)
}

// killTime is how long a shim is given to kill its tree before it is killed
// itself.
const killTime = 10 * time.Second

// kill ends the shim, its tree first, and returns its lock.
func (r *run) kill(ctx context.Context) (*os.File, error) {
	deadline := time.Now().Add(killTime)
	lock, err := r.lock(ctx, func() {
		if time.Now().Before(deadline) {
			r.tell(shim.KillSignal)
		} else {
			r.tell(syscall.SIGKILL)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("end run %s: %w", r.name, err)
	}
	return lock, nil
}

// lock takes the lock of the run's directory and calls waiting before each new
// attempt. Nobody tells when a lock becomes free; and the kernel's own waiting
// cannot be ended.
func (r *run) lock(ctx context.Context, waiting func()) (*os.File, error) {
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		lock, err := shim.TryLock(r.dir)
		if err != nil || lock != nil {
			return lock, err
		}
		waiting()
		again := time.NewTimer(pause)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return nil, ctx.Err() //nolint:wrapcheck // the caller's own
		}
	}
}

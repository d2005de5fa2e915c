package worker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/worker/protocol"
	"github.com/openworkload/skyport/internal/worker/shim"
)

// A member is a run without a script: a compute node's part of a job. Where it
// has surroundings to keep up, such as a container, a shim does so as for any
// run; else there is no process at all, and it runs from its start until it is
// told to stop, as long as the node does not boot.

// sharedTime is how long a member waits for the work directory that the main
// node makes.
const sharedTime = 2 * time.Minute

// awaitShared waits until the work directory that all nodes share is there.
func (r *run) awaitShared(ctx context.Context) error {
	if r.shared == "" || !r.spec.Member {
		return nil
	}
	late := time.NewTimer(sharedTime)
	defer late.Stop()
	dir := filepath.Join(r.shared, workDir)
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return nil
		}
		r.change(func(s *protocol.RunStatus) { s.Details = "waits for the work directory of the main node" })
		again := time.NewTimer(pause) // a file server tells nobody what another client makes
		select {
		case <-again.C:
		case <-late.C:
			again.Stop()
			return skyport.Errorf(skyport.CodeUnavailable, "the shared work directory %s did not appear within %s", dir, sharedTime).
				WithHint("the main node exports it, this node mounts it: core's log says what went wrong")
		case <-ctx.Done():
			again.Stop()
			return fmt.Errorf("wait for the work directory: %w", ctx.Err())
		}
	}
}

// holds says whether the run is a member with nothing to keep up.
func (r *run) holds() bool {
	var launch shim.Launch
	return r.spec.Member && shim.Read(r.dir, shim.LaunchFile, &launch) == nil && len(launch.Argv) == 0
}

// heldSince says whether it has been held since the node booted.
func (r *run) heldSince() bool {
	var began shim.Began
	return shim.Read(r.dir, shim.BeganFile, &began) == nil && began.BootID == r.w.bootID
}

// hold lets a member without a process run until it is stopped. The run's lock
// is the caller's.
func (r *run) hold(ctx context.Context) error {
	began := shim.Began{BootID: r.w.bootID, Time: time.Now().UTC()}
	if !shim.Exists(r.dir, shim.BeganFile) {
		if err := shim.Write(r.dir, shim.BeganFile, began); err != nil {
			return diskError("begin the member "+r.name, err)
		}
	} else if err := shim.Read(r.dir, shim.BeganFile, &began); err != nil {
		return err
	}
	r.refresh()
	for !shim.Exists(r.dir, shim.StopFile) {
		select {
		case <-r.wake:
		case <-ctx.Done():
			return nil // the next worker goes on
		}
	}
	r.endCommands()
	exit := shim.Exit{Stopped: true, Started: began.Time, Ended: time.Now().UTC()}
	if err := shim.Write(r.dir, shim.ExitFile, exit); err != nil {
		// Such as a full disk: it holds as long as this worker lives.
		r.log.Error("cannot write down the end of a member", "error", err)
		r.change(func(s *protocol.RunStatus) { conclude(s, exit) })
		return nil
	}
	r.refresh()
	return nil
}

// isReady says whether commands can be run in a member that has begun, and has
// that found out. r.mu is held.
func (r *run) isReady() bool {
	if !r.asked {
		r.asked = true
		r.w.all.Go(r.awaitReady)
	}
	return r.ready
}

// awaitReady waits until commands can be run. A member in which they never can
// is stopped.
func (r *run) awaitReady() {
	ctx, cancel := context.WithCancel(r.w.ctx)
	defer cancel()
	go func() { // ends with the run or with us
		select {
		case <-r.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := r.w.runtime.Ready(ctx, r.rt)
	if err != nil && ctx.Err() != nil {
		return
	}
	if err != nil {
		r.log.Warn("a member cannot be used", "error", err)
		r.change(func(s *protocol.RunStatus) { s.Details = err.Error() })
		if err := r.stop(); err != nil {
			r.log.Error("cannot stop a member", "error", err)
		}
		return
	}
	r.mu.Lock()
	r.ready = true
	r.mu.Unlock()
	r.refresh()
}

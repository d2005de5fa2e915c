package worker

import (
	"os"
	"reflect"
	"slices"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/worker/protocol"
	"github.com/openworkload/skyport/internal/worker/shim"
)

// refresh brings the status up to what lies on disk and tells it, if it is new.
// It is called whenever something may have changed, by whoever noticed.
func (r *run) refresh() {
	r.change(r.read)
}

// change lets f change the status and tells it, if it is new.
func (r *run) change(f func(*protocol.RunStatus)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.removed {
		return
	}
	before := r.status
	f(&r.status)
	if r.status.Version == 0 || !reflect.DeepEqual(before, r.status) {
		r.status = r.w.board.put(r.status)
		r.w.counts.moved(before, r.status)
	}
	if (before.State == protocol.RunRunning) != (r.status.State == protocol.RunRunning) {
		r.w.observer.nudge()
	}
	if !over(before.State) && over(r.status.State) && shim.Exists(r.dir, commandsFile) {
		ending := make(chan struct{})
		r.ending = ending
		r.w.all.Go(func() {
			r.afterEnd()
			r.mu.Lock()
			r.ending = nil
			r.mu.Unlock()
			close(ending)
		})
	}
}

// over says whether nothing of the run's script runs any more.
func over(state protocol.RunState) bool {
	return state == protocol.RunEnded || state == protocol.RunLost || state == protocol.RunRefused
}

// read reads the files of the run into its status. r.mu is held.
func (r *run) read(s *protocol.RunStatus) {
	switch s.State {
	case protocol.RunLost, protocol.RunRefused:
		return // known better than the files do
	case protocol.RunEnded:
		r.readLogs(s) // somebody else's process may still write; rare
		return
	case protocol.RunStaging:
		if shim.Read(r.dir, shim.BeganFile, &r.began) == nil && (!r.spec.Member || r.isReady()) {
			s.State, s.Started, s.Details = protocol.RunRunning, r.began.Time, r.began.Limits
		}
	case protocol.RunRunning:
	}
	ended := shim.Exists(r.dir, shim.ExitFile)
	r.readLogs(s) // after the look for the end: then they are complete
	if !ended {
		return
	}
	var exit shim.Exit
	if err := shim.Read(r.dir, shim.ExitFile, &exit); err != nil {
		r.log.Error("the record of a run's end cannot be read", "error", err)
		exit = shim.Exit{Refused: err.Error(), Ended: time.Now().UTC()}
	}
	r.record.finish(exit)
	conclude(s, exit)
	s.Usage = r.record.usage(exit.CPUSeconds)
	s.Ports = nil
}

// conclude writes the end into a status.
func conclude(s *protocol.RunStatus, exit shim.Exit) {
	if exit.Refused != "" {
		s.State, s.Details, s.Started, s.Ended = protocol.RunRefused, exit.Refused, time.Time{}, exit.Ended
		return
	}
	s.State = protocol.RunEnded
	s.Started, s.Ended = exit.Started, exit.Ended
	s.ExitCode, s.Signal = exit.ExitCode, exit.Signal
	s.TimedOut, s.OutOfMem, s.Stopped = exit.TimedOut, exit.OutOfMem, exit.Stopped
	if exit.Lost {
		s.State = protocol.RunLost
	}
	why := ""
	switch {
	case exit.OutOfMem:
		why = "killed for its memory limit"
	case exit.TimedOut:
		why = "stopped by its time limit"
	case exit.Stopped && exit.Started.IsZero():
		why = "stopped before it started"
	case exit.Stopped:
		why = "stopped on request"
	case exit.Note != "":
		why = exit.Note
	}
	switch {
	case why != "" && s.Details != "":
		s.Details = why + "; " + s.Details
	case why != "":
		s.Details = why
	}
}

func (r *run) readLogs(s *protocol.RunStatus) {
	s.Stdout, s.Stderr = sizeOf(r.rt.Stdout), sizeOf(r.rt.Stderr)
}

func sizeOf(path string) skyport.Bytes {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return 0 // not yet there, or /dev/null
	}
	return skyport.Bytes(info.Size())
}

// current returns the status.
func (r *run) current() protocol.RunStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.status
	s.Ports = slices.Clone(s.Ports)
	return s
}

package shim

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// EndVariable tells a command that stands for a container, when it is started
// again, what it was told before: "term" or "kill".
const EndVariable = "SKYPORT_END"

// maxContained is how often a command that stands for a container is started.
const maxContained = 20

// contain runs the command that stands for a container until it has left a
// result. It may be killed at any moment, the container is not: then another
// takes its place. Only the engine ends a container, so nothing is killed here.
func (r *run) contain(told <-chan os.Signal) {
	if err := r.emptyLogs(); err != nil {
		r.exit.Refused = err.Error()
		return
	}
	r.ran = true
	var timeLimit, grace <-chan time.Time
	if r.launch.TimeLimit > 0 {
		timeLimit = time.After(r.launch.TimeLimit)
	}
	end := "" // what the command was told last
	for attempt := range maxContained {
		pid, err := r.spawnContained(end)
		if err != nil {
			r.exit.Note = err.Error() // the worker removes the container
			break
		}
		tell := func(what string, sig syscall.Signal) {
			end = what
			_ = syscall.Kill(pid, sig) // one that has just ended has a successor, who is told
		}
		terminate := func() {
			if grace == nil {
				grace = time.After(r.launch.Grace)
				tell("term", StopSignal)
			}
		}
		reaped := make(chan child)
		go reap(reaped)
		for lives := true; lives; {
			select {
			case _, lives = <-reaped:
			case sig := <-told:
				r.told()
				terminate()
				if sig == KillSignal {
					grace = time.After(0)
				}
			case <-timeLimit:
				r.exit.TimedOut = true
				terminate()
			case <-grace:
				grace = time.After(time.Second) // until it is heard
				tell("kill", KillSignal)
			}
		}
		if Exists(".", ResultFile) {
			break
		}
		// It may have been killed for a lack of memory.
		time.Sleep(min(time.Duration(attempt)*50*time.Millisecond, time.Second))
	}
	r.readResult()
}

// readResult takes over what the command found out about the container.
func (r *run) readResult() {
	var res Result
	if err := Read(".", ResultFile, &res); err != nil {
		fmt.Fprintln(os.Stderr, err)
		r.exit.ExitCode, r.exit.Signal = 128+int(syscall.SIGKILL), int(syscall.SIGKILL)
		r.exit.Lost, r.exit.Note = !r.exit.Stopped && !r.exit.TimedOut, "nothing is known of the end of its container"
		return
	}
	if res.Refused != "" && !r.exit.Stopped {
		r.exit.Refused = res.Refused
		return
	}
	r.exit.ExitCode, r.exit.Signal, r.exit.OutOfMem = res.ExitCode, res.Signal, res.OutOfMem
	r.exit.PeakMemory, r.exit.CPUSeconds = res.PeakMemory, res.CPUSeconds
	if res.Note != "" {
		r.exit.Note = res.Note
	}
	r.exit.Lost = r.exit.Lost || res.Lost && !r.exit.Stopped && !r.exit.TimedOut
}

// emptyLogs makes the logs of the script, which the container appends to.
func (r *run) emptyLogs() error {
	for _, path := range []string{r.launch.Stdout, r.launch.Stderr} {
		f, err := openLog(path, 0)
		if err == nil {
			if err = f.Truncate(0); errors.Is(err, syscall.EINVAL) {
				err = nil // not a plain file
			}
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			return fmt.Errorf("open the log %s: %w", path, err)
		}
	}
	return nil
}

// spawnContained starts the command; what it says goes where the shim's own
// complaints go.
func (r *run) spawnContained(end string) (int, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", r.launch.Argv[0], err)
	}
	defer func() { _ = null.Close() }() // the command has its own
	attr := &syscall.ProcAttr{
		Env:   append(r.launch.Env[:len(r.launch.Env):len(r.launch.Env)], EndVariable+"="+end),
		Files: []uintptr{null.Fd(), null.Fd(), os.Stderr.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
	}
	pid, err := syscall.ForkExec(r.launch.Argv[0], r.launch.Argv, attr) //nolint:gosec // the worker's own binary
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", r.launch.Argv[0], err)
	}
	return pid, nil
}

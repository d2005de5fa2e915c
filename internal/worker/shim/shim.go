package shim

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openworkload/skyport/internal/worker/cgroup"
	"github.com/openworkload/skyport/internal/worker/proc"
)

// The signals that a shim is told to end its run by: with the grace, or at
// once. One that comes too early kills the shim, which has not begun then: the
// next one finds the stop file.
const (
	StopSignal = syscall.SIGTERM
	KillSignal = syscall.SIGUSR1
)

// Main is the whole life of a shim for the run in dir. It returns nil when the
// run has ended, whether by this shim or by another. Only a process of its own
// may call it: it changes the process's signals, directory and children.
func Main(dir string) error {
	// From here on names are relative: a directory that is being removed is
	// renamed first, and its shim must not meet the next one of that name.
	if err := os.Chdir(dir); err != nil {
		return fmt.Errorf("enter the run's directory: %w", err)
	}
	lock, err := Lock(".")
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // the end of the process lets it go as well
	if Exists(".", BeganFile) || Exists(".", ExitFile) {
		return nil
	}
	var launch Launch
	if err := Read(".", LaunchFile, &launch); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil // the run was removed while we waited
		}
		return err
	}
	r := run{launch: launch, group: launch.Base.Group(launch.Group)}
	return r.live()
}

// run is what a shim knows of its run.
type run struct {
	launch Launch
	group  cgroup.Group
	limits string
	ran    bool // the script was started
	exit   Exit
}

// live runs the script from its first instruction to the record of its end.
func (r *run) live() error {
	// The thread that forks must live as long as the script: its death would
	// kill the script (see Pdeathsig).
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the reaper of the run: %w", err)
	}
	told := make(chan os.Signal, 4)
	// Not ignored: the script would ignore them, too.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGPIPE)
	signal.Notify(told, StopSignal, KillSignal)

	if err := Reserve(".", ExitFile); err != nil {
		return err
	}
	if r.launch.Contained {
		if err := Reserve(".", ResultFile); err != nil {
			return err
		}
	}
	if err := r.limit(); err != nil {
		return err
	}
	if err := r.begin(); err != nil {
		return err
	}
	// A stop that was asked for before began could be read finds its file only
	// now; one after it finds us by a signal.
	if Exists(".", StopFile) {
		r.exit.Stopped = true
		return r.end()
	}
	if r.launch.Contained {
		r.contain(told)
		return r.end()
	}
	pid, err := r.spawn()
	if err != nil {
		r.exit.Refused = err.Error()
		return r.end()
	}
	r.ran = true
	r.wait(pid, told)
	r.account()
	return r.end()
}

// begin writes down that the script may run from now on.
func (r *run) begin() error {
	boot, err := proc.BootID()
	if err != nil {
		return err
	}
	self, err := proc.Read(os.Getpid())
	if err != nil {
		return err
	}
	r.exit.Started = time.Now().UTC()
	return Write(".", BeganFile, Began{
		BootID: boot, PID: self.PID, Start: self.Start, Time: r.exit.Started, Limits: r.limits,
	})
}

// end writes down how the run ended. Nothing of it lives any more.
func (r *run) end() error {
	if err := r.group.Remove(); err != nil {
		fmt.Fprintln(os.Stderr, err) // the worker sweeps it
	}
	r.exit.Ended = time.Now().UTC()
	if !r.ran {
		r.exit.Started = time.Time{}
	}
	return Write(".", ExitFile, r.exit)
}

// limit makes the run's cgroup, and falls back to what can be had without.
func (r *run) limit() error {
	l := &r.launch
	if l.Contained {
		r.limits = l.Enforced
		return nil
	}
	if l.CPUs == 0 && l.Memory == 0 {
		return nil
	}
	var said []string
	cpuErr, memoryErr := r.group.Limit(l.CPUs, l.Memory)
	switch {
	case l.CPUs == 0:
	case cpuErr == nil:
		said = append(said, fmt.Sprintf("cpu limit %d by cgroup", l.CPUs))
	default:
		said = append(said, fmt.Sprintf("cpu limit not enforced: %v", cpuErr))
	}
	switch {
	case l.Memory == 0:
	case memoryErr == nil:
		said = append(said, fmt.Sprintf("memory limit %s by cgroup", mebibytes(l.Memory)))
	default:
		// The shell sets the limit and becomes the script. RLIMIT_DATA counts
		// what a process can write to, unlike RLIMIT_AS, which programs with
		// large reservations run into without using anything.
		set := fmt.Sprintf(`ulimit -d %d && exec "$@"`, l.Memory/1024)
		l.Argv = append([]string{"/bin/sh", "-c", set, "sh"}, l.Argv...)
		said = append(said, fmt.Sprintf("memory limit %s per process by rlimit (%v)", mebibytes(l.Memory), memoryErr))
	}
	r.limits = strings.Join(said, ", ")
	return nil
}

func mebibytes(n int64) string { return strconv.FormatInt(n>>20, 10) + " MiB" }

// spawn starts the script.
func (r *run) spawn() (int, error) {
	l := r.launch
	stdin, err := os.Open(l.Stdin)
	if err != nil {
		return 0, fmt.Errorf("open standard input: %w", err)
	}
	defer func() { _ = stdin.Close() }() // the script has its own
	stdout, err := openLog(l.Stdout, os.O_TRUNC)
	if err != nil {
		return 0, fmt.Errorf("open standard output: %w", err)
	}
	defer func() { _ = stdout.Close() }()
	stderr, err := openLog(l.Stderr, 0)
	if err != nil {
		return 0, fmt.Errorf("open standard error: %w", err)
	}
	defer func() { _ = stderr.Close() }()
	if l.Stderr != l.Stdout {
		if err := stderr.Truncate(0); err != nil && !errors.Is(err, syscall.EINVAL) { // EINVAL: not a plain file
			return 0, fmt.Errorf("open standard error: %w", err)
		}
	}
	syscall.Umask(0o022) // the worker's own is tighter
	attr := &syscall.ProcAttr{
		Dir:   l.Dir,
		Env:   l.Env,
		Files: []uintptr{stdin.Fd(), stdout.Fd(), stderr.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
	}
	pid, err := r.group.Spawn(attr.Sys, func() (int, error) {
		return syscall.ForkExec(l.Argv[0], l.Argv, attr) //nolint:gosec // to run what a user says is its purpose
	})
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", l.Argv[0], err)
	}
	return pid, nil
}

func openLog(path string, flag int) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err //nolint:wrapcheck // the caller wraps
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|flag, 0o600) //nolint:wrapcheck // the caller wraps
}

// wait waits for the script and ends its whole tree: when the script has
// ended, when it is told to stop, or when its time is up.
func (r *run) wait(script int, told <-chan os.Signal) {
	reaped := make(chan child)
	go reap(reaped)

	var timeLimit, grace, again <-chan time.Time
	if r.launch.TimeLimit > 0 {
		timeLimit = time.After(r.launch.TimeLimit)
	}
	terminate := func() {
		if grace == nil {
			grace = time.After(r.launch.Grace)
			signalTree(syscall.SIGTERM)
		}
	}
	pause := 5 * time.Millisecond
	kill := func() {
		signalTree(syscall.SIGKILL)
		// Who forked while the table was read is found the next time. Some
		// cannot be killed for a while (a dead disk or file server).
		pause = min(2*pause, time.Second)
		again = time.After(pause)
	}
	for {
		select {
		case c, more := <-reaped:
			if !more {
				r.overheard(told)
				return
			}
			if c.pid == script {
				r.exit.ExitCode, r.exit.Signal = outcome(c.status)
				timeLimit = nil
				// What it left behind goes without a grace. Mostly there is
				// nothing, which reap tells before this little time is over.
				grace = time.After(time.Millisecond)
			}
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
			grace = make(chan time.Time) // once, and never again a TERM
			kill()
		case <-again:
			kill()
		}
	}
}

// told looks who wants the end: somebody who has left a file, or the node, which
// tells everybody when it ends itself.
func (r *run) told() {
	r.exit.Stopped = Exists(".", StopFile)
	r.exit.Lost = !r.exit.Stopped
	if r.exit.Lost {
		r.exit.Note = "the node ended it, as nodes do that are shut down"
	}
}

// overheard listens a little longer after a script that ended by TERM: a node that
// is shut down sends it to all, in no order.
func (r *run) overheard(told <-chan os.Signal) {
	if r.exit.ExitCode != 128+int(syscall.SIGTERM) || r.exit.Stopped || r.exit.TimedOut || r.exit.Lost {
		return
	}
	select {
	case <-told:
		r.told()
	case <-time.After(100 * time.Millisecond):
	}
}

// child is a process of the tree that ended.
type child struct {
	pid    int
	status syscall.WaitStatus
}

// reap waits for every child, the adopted ones included, and closes the
// channel when there are no more: then the whole tree is gone, since this
// process adopts whatever loses its parent.
func reap(reaped chan<- child) {
	defer close(reaped)
	for {
		var c child
		pid, err := syscall.Wait4(-1, &c.status, syscall.WALL, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return // ECHILD
		}
		c.pid = pid
		reaped <- c
	}
}

func outcome(status syscall.WaitStatus) (code, sig int) {
	if status.Signaled() {
		return 128 + int(status.Signal()), int(status.Signal())
	}
	return status.ExitStatus(), 0
}

func signalTree(sig syscall.Signal) {
	table, err := proc.Snapshot()
	if err != nil {
		fmt.Fprintln(os.Stderr, err) // tried again
		return
	}
	for _, pid := range table.Descendants(os.Getpid()) {
		_ = syscall.Kill(pid, sig) // it may have ended by itself
		if sig == syscall.SIGTERM {
			_ = syscall.Kill(pid, syscall.SIGCONT) // a stopped process cannot end
		}
	}
}

// account reads what the tree used, all of it having been waited for.
func (r *run) account() {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &usage); err == nil {
		r.exit.CPUSeconds = float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
		r.exit.PeakMemory = usage.Maxrss * 1024 // of the largest process
	}
	peak, killed := r.group.Memory()
	r.exit.PeakMemory = max(r.exit.PeakMemory, peak)
	r.exit.OutOfMem = killed > 0
}

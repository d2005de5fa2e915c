package runtime

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/session"
	"github.com/openworkload/skyport/internal/worker/cgroup"
	"github.com/openworkload/skyport/internal/worker/proc"
)

// How long a command that has to end is given after HUP, and then after TERM.
const (
	hangupTime = 2 * time.Second
	termTime   = 5 * time.Second
)

// quietTime is how long the output of a command that has ended must be quiet to
// be over, when something that it left behind holds it open.
const quietTime = 200 * time.Millisecond

// running is one command on the node.
type running struct {
	ctx    context.Context //nolint:containedctx // lives as long as one call
	served *session.Served
	path   string
	argv   []string
	env    []string
	dir    string
	group  cgroup.Group
	tty    bool
	size   session.Size

	terminal *os.File      // our end
	ended    chan struct{} // closed when the command has
	woken    chan struct{} // closed when no read of output began before that

	mu     sync.Mutex
	pid    int
	reaped bool
}

// run runs the command from its start to the end of its output.
func (c *running) run() session.Exit {
	c.ended, c.woken = make(chan struct{}), make(chan struct{})
	files, err := c.open()
	if err != nil {
		return session.Failed(skyport.Errorf(skyport.CodeUnavailable, "start %s: %w", c.argv[0], err))
	}
	defer files.closeOurs()
	started, exited := make(chan error, 1), make(chan session.Exit, 1)
	go c.hold(files, started, exited)
	if err := <-started; err != nil {
		files.closeTheirs()
		return notFound(skyport.Errorf(skyport.CodeUnavailable, "start %s in %s: %w", c.argv[0], c.dir, err))
	}
	files.closeTheirs() // the command has its own
	if c.served.Started != nil {
		c.served.Started(c.pid)
	}

	var streams sync.WaitGroup
	for _, o := range files.outputs {
		streams.Go(func() { c.copyOutput(o) })
	}
	var control sync.WaitGroup
	control.Go(func() { c.copyInput(files.stdin) })
	control.Go(c.control)
	control.Go(func() { c.wake(files) })

	exit := <-exited
	streams.Wait()
	if closer, ok := c.served.Stdin.(io.Closer); ok {
		_ = closer.Close()                           // frees copyInput; what comes is for nobody
		_ = files.stdin.SetWriteDeadline(time.Now()) // closed: nobody writes
		control.Wait()
	}
	return exit
}

// hold starts the command and waits for it. The thread is given up with the
// goroutine: it has a file mode mask of its own, may have been in another
// cgroup, and its death is the command's (see Pdeathsig).
func (c *running) hold(files *ends, started chan<- error, exited chan<- session.Exit) {
	runtime.LockOSThread()
	if unix.Unshare(unix.CLONE_FS) == nil {
		unix.Umask(0o022) // the script's; the worker's own is tighter
	}
	attr := &syscall.ProcAttr{
		Dir: c.dir, Env: c.env, Files: files.theirs(),
		Sys: &syscall.SysProcAttr{Setsid: true, Setctty: c.tty, Pdeathsig: syscall.SIGKILL},
	}
	pid, err := c.group.Spawn(attr.Sys, func() (int, error) {
		return syscall.ForkExec(c.path, c.argv, attr) //nolint:gosec // to run what a user says is its purpose
	})
	if err != nil {
		started <- err
		return
	}
	c.mu.Lock()
	c.pid = pid
	c.mu.Unlock()
	started <- nil
	var info unix.Siginfo
	for errors.Is(unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil), syscall.EINTR) {
	}
	exited <- c.reap()
}

// reap takes the end of the command. Until then its number is its own.
func (c *running) reap() session.Exit {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		_ = syscall.Kill(-c.pid, syscall.SIGKILL) // what it leaves goes without a grace; mostly nothing
	}
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(c.pid, &status, 0, nil)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	c.reaped = true
	close(c.ended)
	if status.Signaled() {
		return session.Exit{Code: 128 + int(status.Signal()), Signal: int(status.Signal())}
	}
	return session.Exit{Code: status.ExitStatus()}
}

// signal sends a signal to the command's process group; with a terminal, to the
// one in the foreground.
func (c *running) signal(sig syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reaped {
		return
	}
	group := c.pid
	if c.terminal != nil {
		if raw, err := c.terminal.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { // without it the session's own group is meant
				if front, err := unix.IoctlGetInt(int(fd), unix.TIOCGPGRP); err == nil && front > 1 {
					group = front
				}
			})
		}
	}
	if syscall.Kill(-group, sig) != nil { // it may have left its group
		_ = syscall.Kill(c.pid, sig)
	}
	if sig == syscall.SIGHUP || sig == syscall.SIGTERM {
		_ = syscall.Kill(-group, syscall.SIGCONT) // a stopped process cannot end
	}
}

// control passes on signals and sizes, and ends the command when it has to.
func (c *running) control() {
	resize, signals := c.served.Resize, c.served.Signals
	for {
		select {
		case <-c.ended:
			return
		case size, ok := <-resize:
			if !ok {
				resize = nil
			} else if c.terminal != nil {
				_ = pty.Setsize(c.terminal, winsize(size)) // a terminal that has hung up
			}
		case sig, ok := <-signals:
			if !ok {
				signals = nil
			} else {
				c.signal(sig)
			}
		case <-c.ctx.Done():
			c.end()
			return
		}
	}
}

// end ends the command.
func (c *running) end() {
	for _, step := range []struct {
		sig  syscall.Signal
		wait time.Duration
	}{{syscall.SIGHUP, hangupTime}, {syscall.SIGTERM, termTime}} {
		c.signal(step.sig)
		timer := time.NewTimer(step.wait)
		select {
		case <-c.ended:
			timer.Stop()
			return
		case <-timer.C:
		}
	}
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		c.killTree()
		timer := time.NewTimer(pause) // who forked while the table was read is found the next time
		select {
		case <-c.ended:
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

func (c *running) killTree() {
	table, err := proc.Snapshot()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reaped {
		return
	}
	if err == nil {
		for _, pid := range table.Descendants(c.pid) {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
		}
	}
	_ = syscall.Kill(-c.pid, syscall.SIGKILL) // as above
	_ = syscall.Kill(c.pid, syscall.SIGKILL)
}

// endOfInput is what a terminal takes for the end of the input (VEOF).
const endOfInput = 4

// copyInput gives the command its input. A command that does not want it, or
// has ended, ends the copying.
func (c *running) copyInput(to *os.File) {
	if c.served.Stdin != nil {
		_, err := io.Copy(to, c.served.Stdin)
		if err != nil && c.tty {
			return
		}
	}
	if c.tty {
		_, _ = to.Write([]byte{endOfInput}) // the terminal has hung up
		return
	}
	_ = to.Close() // told to the command
}

// copyOutput passes on output until its end, or until the command has ended and
// what it left behind is quiet.
func (c *running) copyOutput(o output) {
	buf := make([]byte, 32<<10)
	for {
		last := false
		select {
		case <-c.woken:
			last = o.from.SetReadDeadline(time.Now().Add(quietTime)) == nil
		default:
		}
		n, err := o.from.Read(buf)
		if n > 0 {
			if _, failed := o.to.Write(buf[:n]); failed != nil {
				_ = o.from.Close() // the command learns that nobody listens
				return
			}
		}
		if errors.Is(err, os.ErrDeadlineExceeded) && !last {
			continue
		}
		if err != nil {
			return // also EIO: a terminal whose other end is closed
		}
	}
}

// wake ends the reads of output that began before the command ended.
func (c *running) wake(files *ends) {
	<-c.ended
	for _, o := range files.outputs {
		_ = o.from.SetReadDeadline(time.Now()) // closed: nobody reads
	}
	close(c.woken)
}

// output is our end of a stream of the command, and where it leads.
type output struct {
	from *os.File
	to   io.Writer
}

// ends are both ends of a command's streams.
type ends struct {
	stdin   *os.File
	outputs []output
	child   []*os.File // standard input, output and error
}

// open makes the streams: a terminal, or three pipes.
func (c *running) open() (*ends, error) {
	stdout, stderr := c.served.Stdout, c.served.Stderr
	if c.tty {
		ours, theirs, err := pty.Open()
		if err != nil {
			return nil, err //nolint:wrapcheck // the caller wraps
		}
		c.terminal = ours
		if c.size != (session.Size{}) {
			_ = pty.Setsize(ours, winsize(c.size)) // it has a size, if not this one
		}
		return &ends{stdin: ours, outputs: []output{{ours, stdout}}, child: []*os.File{theirs, theirs, theirs}}, nil
	}
	files := &ends{}
	for i := range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			files.closeOurs()
			files.closeTheirs()
			return nil, err //nolint:wrapcheck // the caller wraps
		}
		switch i {
		case 0:
			files.stdin, files.child = w, append(files.child, r)
		case 1:
			files.outputs, files.child = append(files.outputs, output{r, stdout}), append(files.child, w)
		case 2:
			files.outputs, files.child = append(files.outputs, output{r, stderr}), append(files.child, w)
		}
	}
	return files, nil
}

// theirs are the command's ends; to ask for the descriptors makes them block.
func (e *ends) theirs() []uintptr {
	var fds []uintptr
	for _, f := range e.child {
		fds = append(fds, f.Fd())
	}
	return fds
}

func (e *ends) closeTheirs() { closeFiles(e.child) }

func (e *ends) closeOurs() {
	closeFiles([]*os.File{e.stdin})
	for _, o := range e.outputs {
		closeFiles([]*os.File{o.from})
	}
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close() // a second time is harmless, and nothing is buffered
		}
	}
}

func winsize(s session.Size) *pty.Winsize {
	return &pty.Winsize{Rows: uint16(s.Rows), Cols: uint16(s.Cols)} //nolint:gosec // two bytes each in their frames
}

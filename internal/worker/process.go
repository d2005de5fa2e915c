package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/openworkload/skyport/internal/worker/proc"
	"github.com/openworkload/skyport/internal/worker/shim"
)

// process is a handle on a process that stays right when its number is used
// again. Waiting on it costs a goroutine, no thread.
type process struct {
	pid  int
	file *os.File // the pidfd
}

// spawn starts a shim for the run's directory. It belongs to no one from its
// first moment: a session of its own, nothing of the worker's but the binary.
func spawn(command []string, dir string) (*process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("start shim: %w", err)
	}
	defer func() { _ = null.Close() }() // the shim has its own
	complaints, err := os.OpenFile(filepath.Join(dir, shim.LogFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start shim: %w", err)
	}
	defer func() { _ = complaints.Close() }() // as above
	pidfd := -1
	attr := &syscall.ProcAttr{
		Dir: "/",
		// One processor is enough for waiting; it keeps the shim small.
		Env:   []string{"GOMAXPROCS=1", "GOTRACEBACK=single"},
		Files: []uintptr{null.Fd(), null.Fd(), complaints.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd},
	}
	argv := append(append([]string(nil), command...), dir)
	pid, err := syscall.ForkExec(argv[0], argv, attr) //nolint:gosec // the worker's own command
	if err != nil {
		return nil, fmt.Errorf("start shim %s: %w", argv[0], err)
	}
	if pidfd < 0 { // a kernel without CLONE_PIDFD; the child is not reaped, so its number is its own
		return openProcess(pid)
	}
	return newProcess(pid, pidfd)
}

// find opens the shim that wrote began, if it still lives.
func find(began shim.Began) (*process, error) {
	p, err := openProcess(began.PID)
	if err != nil {
		return nil, err
	}
	// Only now the number cannot be given to another process unnoticed.
	if !proc.Alive(began.PID, began.Start) {
		p.close()
		return nil, fmt.Errorf("shim %d: %w", began.PID, os.ErrProcessDone)
	}
	return p, nil
}

func openProcess(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil, fmt.Errorf("shim %d: %w", pid, os.ErrProcessDone)
	}
	if err != nil {
		return nil, fmt.Errorf("open shim %d: %w", pid, err)
	}
	return newProcess(pid, fd)
}

func newProcess(pid, fd int) (*process, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(fmt.Errorf("open shim %d: %w", pid, err), unix.Close(fd))
	}
	return &process{pid: pid, file: os.NewFile(uintptr(fd), "pidfd")}, nil
}

// wait returns when the process has ended, or with an error when ctx has.
func (p *process) wait(ctx context.Context) error {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("wait for shim %d: %w", p.pid, err)
	}
	defer context.AfterFunc(ctx, p.close)()
	err = raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}} //nolint:gosec // descriptors are small
		n, err := unix.Poll(fds, 0)
		return err == nil && n > 0
	})
	if ctx.Err() != nil {
		return ctx.Err() //nolint:wrapcheck // the caller knows
	}
	if err != nil {
		return fmt.Errorf("wait for shim %d: %w", p.pid, err)
	}
	// If it is our child, this frees its number; if not, it is another's to do.
	_, _ = syscall.Wait4(p.pid, nil, syscall.WNOHANG, nil)
	return nil
}

func (p *process) signal(sig syscall.Signal) error {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("signal shim %d: %w", p.pid, err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
	if err = errors.Join(err, failed); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal shim %d: %w", p.pid, err)
	}
	return nil
}

func (p *process) close() { _ = p.file.Close() }

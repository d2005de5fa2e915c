package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/worker/proc"
)

// mark is the name of the environment entry by which a node's processes are
// known; its value is the node's directory.
const mark = "SKYPORT_NODE_DIR"

// largestLog is when a worker's log is put aside at its next start.
const largestLog = 8 << 20

// worker is a running worker process, started by us or by a provider before.
type worker struct {
	pid   int
	pidfd *os.File
}

// launch starts the worker of a node in a session of its own, with nothing of
// ours but the log: no terminal, no descriptors, no environment.
func (p *Provider) launch(part *partition, n *node, faults Faults) (*worker, error) {
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return nil, fmt.Errorf("directory of node %s: %w", n.name, err)
	}
	path := part.log(n)
	if info, err := os.Stat(path); err == nil && info.Size() > largestLog {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, fmt.Errorf("log of node %s: %w", n.name, err)
		}
	}
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log of node %s: %w", n.name, err)
	}
	defer func() { _ = log.Close() }() // the worker has its own descriptor

	cmd := exec.Command(p.options.WorkerBinary, "serve", "--dir", n.dir, "--node", n.name, "--socket", n.socket) //nolint:gosec,noctx // it outlives us
	cmd.Dir = n.dir
	cmd.Env = append(environment(), p.options.Env...)
	cmd.Env = append(cmd.Env, mark+"="+n.dir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("worker of node %s: %w", n.name, err)
	}
	pid := cmd.Process.Pid
	w, err := watchPID(pid)
	if err != nil {
		return nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	// From here on the worker is known by its pidfd, as adopted ones are.
	if err := cmd.Process.Release(); err != nil {
		return nil, fmt.Errorf("worker of node %s: %w", n.name, err)
	}
	p.log.Info("worker started", "node", n.name, "pid", pid)
	if faults.DieAtBoot {
		w.kill()
	}
	return w, nil
}

// environment is what a login would give; nothing else of the gate's own
// environment, which may hold credentials, reaches a node.
func environment() []string {
	var env []string
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		switch name {
		case "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR", "XDG_RUNTIME_DIR":
			env = append(env, entry)
		default:
			if strings.HasPrefix(name, "LC_") {
				env = append(env, entry)
			}
		}
	}
	return env
}

// adopt finds the worker of a node that an earlier provider has started.
func (p *Provider) adopt(n *node) *worker {
	table, err := proc.Snapshot()
	if err != nil {
		p.log.Error("running workers cannot be looked for", "error", err)
		return nil
	}
	for _, pid := range table.Marked(mark + "=" + n.dir) {
		row, ok := table.Process(pid)
		if !ok || row.Zombie || !isWorker(pid) {
			continue // a shim, which has the mark too
		}
		w, err := watchPID(pid)
		if err != nil {
			continue // ended meanwhile
		}
		if !proc.Alive(pid, row.Start) {
			w.close()
			continue
		}
		p.log.Info("worker adopted", "node", n.name, "pid", pid)
		return w
	}
	return nil
}

func isWorker(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil {
		return false
	}
	args := strings.Split(string(bytes.TrimSuffix(text, []byte{0})), "\x00")
	return len(args) > 1 && args[1] == "serve" && slices.Contains(args, "--node")
}

// watchPID opens a process. As long as a worker is open its number means it.
func watchPID(pid int) (*worker, error) {
	// Not blocking: Go's poller waits for it.
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	return &worker{pid: pid, pidfd: os.NewFile(uintptr(fd), "pidfd of "+strconv.Itoa(pid))}, nil
}

// ended returns a channel that is closed when the worker has ended or ctx has.
// stop ends the waiting and returns when it has ended.
func (w *worker) ended(ctx context.Context) (ended <-chan struct{}, stop func()) {
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	unhook := context.AfterFunc(ctx, func() {
		_ = w.pidfd.SetReadDeadline(time.Unix(1, 0)) // wakes the read below; closed is as good
	})
	go func() {
		defer close(done)
		conn, err := w.pidfd.SyscallConn()
		if err == nil {
			err = conn.Read(func(fd uintptr) bool { return hasEnded(int(fd)) })
		}
		if err == nil {
			w.reap()
		}
	}()
	return done, func() {
		unhook()
		cancel()
		_ = w.pidfd.SetReadDeadline(time.Unix(1, 0)) // as above
		<-done
	}
}

func hasEnded(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}} //nolint:gosec // a descriptor is small
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

// reap takes the exit status of a worker that is our child.
func (w *worker) reap() {
	conn, err := w.pidfd.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Control(func(fd uintptr) {
		var info unix.Siginfo
		_ = unix.Waitid(unix.P_PIDFD, int(fd), &info, unix.WEXITED|unix.WNOHANG, nil)
	}) // somebody else's child: its parent reaps it
}

// verdict says that the worker ended.
func (w *worker) verdict() error { return fmt.Errorf("worker (process %d) ended", w.pid) }

// log is the path of what a node's worker says.
func (part *partition) log(n *node) string { return filepath.Join(part.dir, n.name+".log") }

// lastWords returns the last line of a log, "" when there is none.
func lastWords(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }() // only read
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return ""
	}
	text := make([]byte, min(end, 4096))
	if _, err := f.ReadAt(text, end-int64(len(text))); err != nil {
		return ""
	}
	text = bytes.TrimSpace(text)
	return skyport.Abbreviate(strings.ToValidUTF8(string(text[bytes.LastIndexByte(text, '\n')+1:]), "?"), 500)
}

// kill ends the worker at once.
func (w *worker) kill() {
	conn, err := w.pidfd.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Control(func(fd uintptr) {
		_ = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) // it may have ended by itself
	}) // closed: nothing to kill
}

func (w *worker) close() { _ = w.pidfd.Close() } // holds nothing that could be lost

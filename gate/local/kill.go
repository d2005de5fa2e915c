package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openworkload/skyport/internal/worker/cgroup"
	"github.com/openworkload/skyport/internal/worker/proc"
	"github.com/openworkload/skyport/internal/worker/shim"
)

// endTime is how long processes get to vanish after KILL; one that the kernel
// holds (a dead disk) takes longer, and the removal is tried again.
const endTime = 5 * time.Second

// endProcesses kills everything that belongs to the partition in dir: workers,
// shims, and what jobs started, wherever it went. It returns when nothing of
// it is left, and an error when something stays.
func endProcesses(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, endTime)
	defer cancel()
	t := traces(dir)
	for {
		// Everything is stopped before anything is killed: a process that does
		// not run makes no children, and a child keeps its parent to be found by.
		stopped := map[int]uint64{}
		for again := true; again; {
			found, err := t.find()
			if err != nil {
				return err
			}
			again = false
			for pid, start := range found {
				if _, ok := stopped[pid]; !ok {
					signal(pid, start, unix.SIGSTOP)
					stopped[pid] = start
					again = true
				}
			}
		}
		if len(stopped) == 0 {
			return t.removeGroups()
		}
		for pid, start := range stopped {
			signal(pid, start, unix.SIGKILL)
		}
		for pause := time.Millisecond; anyAlive(stopped); pause = min(2*pause, 50*time.Millisecond) {
			if !rest(ctx, pause) {
				return fmt.Errorf("processes %v do not end: %w", slices.Sorted(maps.Keys(stopped)), ctx.Err())
			}
		}
		for pid := range stopped {
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil) // takes the status if it was our child
		}
	}
}

// trace is what gives the processes of a partition away.
type trace struct {
	dir    string
	marks  [][]byte       // entries of environments, or their beginnings
	groups []cgroup.Group // control groups of runs
}

// traces reads what the runs under dir have left. A run's directory is one
// level below a directory of its node; which one tells how far it is.
func traces(dir string) *trace {
	t := &trace{dir: dir, marks: [][]byte{[]byte(mark + "=" + dir + "/")}}
	files, err := filepath.Glob(filepath.Join(dir, "*", "*", "*", shim.LaunchFile))
	if err != nil {
		return t // only a wrong pattern
	}
	for _, file := range files {
		var launch shim.Launch
		if shim.Read(filepath.Dir(file), shim.LaunchFile, &launch) != nil {
			continue // half written: its script has not begun
		}
		if launch.Group != "" {
			t.groups = append(t.groups, launch.Base.Group(launch.Group))
		}
		for _, entry := range launch.Env {
			if strings.HasPrefix(entry, "SWM_RUN=") {
				t.marks = append(t.marks, append([]byte(entry), 0))
			}
		}
	}
	return t
}

// find lists the processes of the partition that live now, with their start.
func (t *trace) find() (map[int]uint64, error) {
	table, err := proc.Snapshot()
	if err != nil {
		return nil, fmt.Errorf("processes of the partition: %w", err)
	}
	found := map[int]uint64{}
	add := func(pid int) {
		if row, ok := table.Process(pid); ok && !row.Zombie && pid != os.Getpid() {
			found[pid] = row.Start
		}
	}
	for _, g := range t.groups {
		for _, pid := range g.Processes() {
			add(pid)
		}
	}
	for _, pid := range table.Processes() {
		if pid > 1 && t.gives(pid) {
			add(pid)
		}
	}
	for pid := range maps.Clone(found) {
		for _, child := range table.Descendants(pid) {
			add(child)
		}
	}
	return found, nil
}

// gives says whether a process gives itself away: by its environment, or by
// working in the partition's directory without a terminal. With a terminal it
// is a person who looks around there.
func (t *trace) gives(pid int) bool {
	at := "/proc/" + strconv.Itoa(pid)
	if env, err := os.ReadFile(at + "/environ"); err == nil {
		env = append([]byte{0}, append(env, 0)...)
		for _, m := range t.marks {
			if bytes.Contains(env, append([]byte{0}, m...)) {
				return true
			}
		}
	}
	for _, link := range []string{"/cwd", "/exe"} {
		target, err := os.Readlink(at + link)
		if err == nil && (target == t.dir || strings.HasPrefix(target, t.dir+"/")) {
			return !hasTerminal(pid)
		}
	}
	return false
}

func hasTerminal(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	// After the name, which may hold anything: state, parent, group, session, terminal.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	return len(fields) > 4 && fields[4] != "0"
}

// removeGroups removes the control groups, which outlive their processes.
func (t *trace) removeGroups() error {
	var failed error
	for _, g := range t.groups {
		failed = errors.Join(failed, g.Remove())
	}
	if failed != nil {
		return fmt.Errorf("control groups of the partition: %w", failed)
	}
	return nil
}

// signal reaches the process that was meant, or none.
func signal(pid int, start uint64, sig unix.Signal) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return // ended
	}
	defer func() { _ = unix.Close(fd) }() // a handle only
	if proc.Alive(pid, start) {
		_ = unix.PidfdSendSignal(fd, sig, nil, 0) // it may have ended by itself
	}
}

func anyAlive(processes map[int]uint64) bool {
	for pid, start := range processes {
		if proc.Alive(pid, start) {
			return true
		}
	}
	return false
}

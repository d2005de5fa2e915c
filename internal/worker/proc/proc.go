package proc

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Process is one row of the table.
type Process struct {
	PID    int
	Parent int
	// Start is when the process started, in clock ticks since boot. With the
	// boot id it tells a process from a later one of the same number.
	Start uint64
	// CPU is the time used by the process itself, Reaped that of the children
	// it has waited for (and of theirs).
	CPU, Reaped time.Duration
	// Memory is the resident memory in bytes.
	Memory int64
	// Zombie is set for a process that has ended and was not yet waited for.
	Zombie bool
}

// tick is the unit of times in /proc: USER_HZ, which is 100 on every
// architecture that Go and Linux share.
const tick = 10 * time.Millisecond

// Read returns the row of one process; an error matching os.ErrNotExist when
// there is no such process.
func Read(pid int) (Process, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return Process{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	return parse(data)
}

// Alive says whether the process is there, has not ended, and is the one that
// started at start.
func Alive(pid int, start uint64) bool {
	p, err := Read(pid)
	return err == nil && p.Start == start && !p.Zombie
}

var pageSize = int64(os.Getpagesize())

// parse reads a stat line. The name in parentheses may hold anything, blanks
// and parentheses too, so the fields are counted from the last one.
func parse(line []byte) (Process, error) {
	open, end := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if open < 1 || end < open {
		return Process{}, fmt.Errorf("stat line %q has no name", line)
	}
	fields := bytes.Fields(line[end+1:])
	if len(fields) < 22 {
		return Process{}, fmt.Errorf("stat line %q is cut short", line)
	}
	var failed error
	number := func(s []byte) int64 {
		n, err := strconv.ParseInt(string(s), 10, 64)
		failed = errors.Join(failed, err)
		return n
	}
	p := Process{
		PID:    int(number(bytes.TrimSpace(line[:open]))),
		Parent: int(number(fields[1])),
		CPU:    time.Duration(number(fields[11])+number(fields[12])) * tick,
		Reaped: time.Duration(number(fields[13])+number(fields[14])) * tick,
		Start:  uint64(number(fields[19])), //nolint:gosec // the kernel writes no negative time
		Memory: number(fields[21]) * pageSize,
		Zombie: fields[0][0] == 'Z' || fields[0][0] == 'X',
	}
	if failed != nil {
		return Process{}, fmt.Errorf("stat line %q: %w", line, failed)
	}
	return p, nil
}

// Table is a look at all processes, by number.
type Table struct {
	rows     map[int]Process
	children map[int][]int
}

// Snapshot reads the whole table.
func Snapshot() (*Table, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("read processes: %w", err)
	}
	names, err := dir.Readdirnames(-1)
	_ = dir.Close() // was only read
	if err != nil {
		return nil, fmt.Errorf("read processes: %w", err)
	}
	t := &Table{rows: make(map[int]Process, len(names)), children: make(map[int][]int)}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue // not a process
		}
		p, err := Read(pid)
		if err != nil {
			continue // ended since the directory was read
		}
		t.rows[pid] = p
		t.children[p.Parent] = append(t.children[p.Parent], pid)
	}
	return t, nil
}

// Process returns one row.
func (t *Table) Process(pid int) (Process, bool) {
	p, ok := t.rows[pid]
	return p, ok
}

// Processes lists all processes, those included whose parent ended while the
// table was read: it is in no row, and nobody's descendant.
func (t *Table) Processes() []int { return slices.Sorted(maps.Keys(t.rows)) }

// Descendants lists the children of a process, their children and so on,
// parents before children. The process itself is not among them.
func (t *Table) Descendants(pid int) []int {
	all := append([]int(nil), t.children[pid]...)
	for i := 0; i < len(all); i++ {
		all = append(all, t.children[all[i]]...)
	}
	return all
}

// Tree sums up the descendants of a process: the cpu time that they and those
// whom they or the process itself waited for have used, and their memory.
func (t *Table) Tree(pid int) (cpu time.Duration, memory int64) {
	if root, ok := t.rows[pid]; ok {
		cpu = root.Reaped
	}
	for _, d := range t.Descendants(pid) {
		p := t.rows[d]
		cpu += p.CPU + p.Reaped
		memory += p.Memory
	}
	return cpu, memory
}

// Marked lists the processes whose environment has the entry name=value. It
// sees only processes of the caller's own user, or all when that is root.
func (t *Table) Marked(entry string) []int {
	var found []int
	for pid := range t.rows {
		env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
		if err != nil {
			continue // somebody else's, or ended
		}
		for e := range bytes.SplitSeq(env, []byte{0}) {
			if string(e) == entry {
				found = append(found, pid)
				break
			}
		}
	}
	return found
}

// Sockets returns the inodes of the sockets that a process has open.
func Sockets(pid int) []uint64 {
	path := "/proc/" + strconv.Itoa(pid) + "/fd"
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil // ended, or not ours to look at
	}
	var inodes []uint64
	for _, e := range entries {
		target, err := os.Readlink(path + "/" + e.Name())
		if err != nil {
			continue
		}
		number, ok := strings.CutPrefix(target, "socket:[")
		if !ok {
			continue
		}
		if inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64); err == nil {
			inodes = append(inodes, inode)
		}
	}
	return inodes
}

// BootID returns a name for the time since the node booted. Nodes that are
// containers share their kernel's boot id, so the start of process 1 belongs
// to it.
func BootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	id := strings.TrimSpace(string(data))
	if first, err := Read(1); err == nil {
		id += "." + strconv.FormatUint(first.Start, 10)
	}
	return id, nil
}

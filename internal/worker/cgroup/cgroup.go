package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Base is where groups can be made. It is plain data, so that one process can
// find it and another use it. The zero value has neither limit.
type Base struct {
	Version int `json:"version,omitempty"`
	// CPU and Memory are the directories in which a group's own is made; equal
	// under version 2, empty when that limit cannot be had.
	CPU    string `json:"cpu,omitempty"`
	Memory string `json:"memory,omitempty"`
	// Reason says why a directory is empty.
	Reason string `json:"reason,omitempty"`
}

// Group is one group under a base.
type Group struct {
	base Base
	name string
}

// Group names a group; it need not exist.
func (b Base) Group(name string) Group { return Group{base: b, name: name} }

// List names the groups under the base that begin with prefix.
func (b Base) List(prefix string) []string {
	var names []string
	for _, dir := range b.dirs() {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if e.IsDir() && strings.HasPrefix(e.Name(), prefix) && !slices.Contains(names, e.Name()) {
				names = append(names, e.Name())
			}
		}
	}
	return names
}

func (b Base) dirs() []string {
	var dirs []string
	for _, dir := range []string{b.Memory, b.CPU} {
		if dir != "" && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// period is the time over which the kernel counts a cpu limit, in microseconds.
const period = 100_000

// Limit makes the group and sets its limits; 0 means none. It returns errors
// for each limit on its own, since one may hold without the other.
func (g Group) Limit(cpus int, memory int64) (cpuErr, memoryErr error) {
	if cpus > 0 {
		cpuErr = g.limitCPU(cpus)
	}
	if memory > 0 {
		memoryErr = g.limitMemory(memory)
	}
	return cpuErr, memoryErr
}

func (g Group) limitCPU(cpus int) error {
	if g.base.CPU == "" {
		return errors.New(g.base.Reason)
	}
	dir, err := g.mkdir(g.base.CPU)
	if err != nil {
		return err
	}
	if g.base.Version == 2 {
		return set(dir, "cpu.max", fmt.Sprintf("%d %d", cpus*period, period))
	}
	return errors.Join(
		set(dir, "cpu.cfs_period_us", strconv.Itoa(period)),
		set(dir, "cpu.cfs_quota_us", strconv.Itoa(cpus*period)),
	)
}

func (g Group) limitMemory(memory int64) error {
	if g.base.Memory == "" {
		return errors.New(g.base.Reason)
	}
	dir, err := g.mkdir(g.base.Memory)
	if err != nil {
		return err
	}
	limit := strconv.FormatInt(memory, 10)
	if g.base.Version == 2 {
		if err := set(dir, "memory.max", limit); err != nil {
			return err
		}
		// Without it a job would swap in place of being told; kernels without swap have no such file.
		return optional(set(dir, "memory.swap.max", "0"))
	}
	if err := set(dir, "memory.limit_in_bytes", limit); err != nil {
		return err
	}
	return optional(set(dir, "memory.memsw.limit_in_bytes", limit))
}

func (g Group) mkdir(parent string) (string, error) {
	dir := filepath.Join(parent, g.name)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) { //nolint:gosec // the kernel decides the modes of its files
		return "", fmt.Errorf("make cgroup: %w", err)
	}
	return dir, nil
}

func set(dir, file, value string) error {
	// O_WRONLY without O_CREATE: a missing file means that the kernel lacks the limit.
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("set cgroup limit: %w", err)
	}
	_, err = f.WriteString(value)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("set cgroup limit: %w", err)
	}
	return nil
}

func optional(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Spawn calls start, which must fork exactly one process, so that this process
// is in the group from its first instruction. The caller must have locked its
// goroutine to its thread. attr is what start forks with.
func (g Group) Spawn(attr *syscall.SysProcAttr, start func() (int, error)) (int, error) {
	dirs := g.existing()
	if len(dirs) == 0 {
		return start()
	}
	if g.base.Version == 2 {
		dir, err := os.Open(dirs[0])
		if err != nil {
			return 0, fmt.Errorf("enter cgroup: %w", err)
		}
		defer func() { _ = dir.Close() }() // was only read
		attr.UseCgroupFD, attr.CgroupFD = true, int(dir.Fd())
		return start()
	}
	// Version 1 places threads: this one goes in, forks, and comes back. Moving
	// only the own thread spares the kernel a grace period of ten milliseconds.
	for _, dir := range dirs {
		if err := set(dir, "tasks", "0"); err != nil {
			return 0, fmt.Errorf("enter cgroup: %w", err)
		}
		defer func() { _ = set(filepath.Dir(dir), "tasks", "0") }() // Remove tells when it failed
	}
	return start()
}

func (g Group) existing() []string {
	var dirs []string
	for _, base := range g.base.dirs() {
		dir := filepath.Join(base, g.name)
		if _, err := os.Stat(dir); err == nil {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// Processes lists who is in the group.
func (g Group) Processes() []int {
	var pids []int
	for _, dir := range g.existing() {
		data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			continue // removed meanwhile
		}
		for field := range strings.FieldsSeq(string(data)) {
			if pid, err := strconv.Atoi(field); err == nil && !slices.Contains(pids, pid) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// Kill sends KILL to all processes of the group. Under version 2 none escapes;
// under version 1 one that forks just then may, so call it until Processes is
// empty.
func (g Group) Kill() {
	if g.base.Version == 2 {
		for _, dir := range g.existing() {
			if set(dir, "cgroup.kill", "1") == nil {
				return
			}
		}
	}
	for _, pid := range g.Processes() {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
	}
}

// Memory returns the highest memory use in bytes, page cache included, and
// how many processes the kernel killed for the limit; zeroes when the group
// does not limit memory.
func (g Group) Memory() (peak int64, killed int) {
	if g.base.Memory == "" {
		return 0, 0
	}
	dir := filepath.Join(g.base.Memory, g.name)
	peakFile, killFile := "memory.peak", "memory.events"
	if g.base.Version == 1 {
		peakFile, killFile = "memory.max_usage_in_bytes", "memory.oom_control"
	}
	if data, err := os.ReadFile(filepath.Join(dir, peakFile)); err == nil {
		peak, _ = strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64) // 0 when the kernel says something else
	}
	if data, err := os.ReadFile(filepath.Join(dir, killFile)); err == nil {
		for line := range strings.Lines(string(data)) {
			if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
				killed, _ = strconv.Atoi(strings.TrimSpace(n)) // as above
			}
		}
	}
	return peak, killed
}

// Remove removes the group. It must be empty; the last process may still be on
// its way out, so it is tried for a short while.
func (g Group) Remove() error {
	var failed error
	for _, dir := range g.existing() {
		failed = errors.Join(failed, remove(dir))
	}
	return failed
}

func remove(dir string) error {
	deadline := time.Now().Add(time.Second)
	for {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("remove cgroup: %w", err)
		}
		time.Sleep(2 * time.Millisecond) // the kernel tells nobody when a group has become empty
	}
}

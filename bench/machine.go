package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/openworkload/skyport"
)

// machine is where a run took place. What cannot be found out is empty.
type machine struct {
	CPU        string        `json:"cpu"`
	Cores      int           `json:"cores"`
	Memory     skyport.Bytes `json:"memory"`
	Kernel     string        `json:"kernel"`
	System     string        `json:"system"`
	FileSystem string        `json:"file_system"` // of the measured directory
	Go         string        `json:"go"`
	LoadBefore string        `json:"load_before"` // averages over 1, 5 and 15 minutes
	LoadAfter  string        `json:"load_after"`
}

func lookAtMachine(dir string) machine {
	m := machine{
		CPU: valueIn("/proc/cpuinfo", "model name", ":"), Cores: runtime.NumCPU(), Go: runtime.Version() + " " + runtime.GOARCH,
		System:     strings.Trim(valueIn("/etc/os-release", "PRETTY_NAME", "="), `"`),
		FileSystem: fileSystemOf(dir), LoadBefore: load(),
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.Memory = skyport.Bytes(uint64(info.Totalram) * uint64(info.Unit)) //nolint:unconvert // 32 bits elsewhere
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	return m
}

// load is the load of the machine now: others may be using it.
func load() string {
	text, _ := os.ReadFile("/proc/loadavg") // empty when it is not there
	fields := strings.Fields(string(text))
	return strings.Join(fields[:min(3, len(fields))], " ")
}

// valueIn finds the value of the first line with a key.
func valueIn(path, key, separator string) string {
	text, _ := os.ReadFile(path)
	for line := range strings.Lines(string(text)) {
		if name, value, found := strings.Cut(line, separator); found && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// fileSystemOf tells the type of the file system that a directory is on: of
// the mount with the longest name above it.
func fileSystemOf(dir string) string {
	text, _ := os.ReadFile("/proc/mounts") // empty when it is not there
	best, kind := "", ""
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 3 || len(f[1]) < len(best) {
			continue
		}
		if f[1] == "/" || dir == f[1] || strings.HasPrefix(dir, f[1]+"/") {
			best, kind = f[1], f[2]
		}
	}
	return kind
}

func versionOf(ctx context.Context, program string) string {
	out, err := exec.CommandContext(ctx, program, "version", "--json").Output()
	if err != nil {
		return ""
	}
	var v struct {
		Version string `json:"version"`
	}
	if json.NewDecoder(bytes.NewReader(out)).Decode(&v) != nil || v.Version == "" {
		return strings.TrimSpace(string(out))
	}
	return v.Version
}

package local

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// Names of what the site offers.
const (
	flavorOne  = "local.1"
	flavorHalf = "local.half"
	flavorAll  = "local.all"
	imageHost  = "host"
)

// machine is what this machine lets us use.
type machine struct {
	cpus    int           // by affinity and cgroup
	memory  skyport.Bytes // by cgroup
	storage skyport.Bytes
	system  string // name of the operating system, for people
}

func thisMachine() (machine, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return machine{}, fmt.Errorf("memory of this machine: %w", err)
	}
	m := machine{
		cpus:   runtime.NumCPU(),                                 // by affinity
		memory: skyport.Bytes(info.Totalram * uint64(info.Unit)), //nolint:gosec // memories fit
		system: systemName(),
	}
	m.confine("/proc/self/cgroup", "/sys/fs/cgroup")
	m.memory -= m.memory % (1 << 20)
	return m, nil
}

// confine lowers cpus and memory to what the cgroups (version 2) above this
// process allow: containers and user slices have limits of their own.
func (m *machine) confine(self, root string) {
	text, err := os.ReadFile(self)
	if err != nil {
		return // no cgroups
	}
	for line := range strings.Lines(string(text)) {
		own, ok := strings.CutPrefix(strings.TrimSpace(line), "0::/")
		if !ok {
			continue
		}
		for dir := filepath.Join(root, own); strings.HasPrefix(dir, root); dir = filepath.Dir(dir) {
			if quota, period, ok := strings.Cut(firstLine(filepath.Join(dir, "cpu.max")), " "); ok {
				q, errQ := strconv.Atoi(quota) // "max": no limit
				t, errT := strconv.Atoi(period)
				if errQ == nil && errT == nil && t > 0 {
					m.cpus = min(m.cpus, max(1, q/t))
				}
			}
			if most, err := strconv.ParseInt(firstLine(filepath.Join(dir, "memory.max")), 10, 64); err == nil {
				m.memory = min(m.memory, skyport.Bytes(most))
			}
		}
	}
}

func firstLine(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	return string(line)
}

// flavors of the machine: memory goes with the cpus. On a machine with one cpu
// all three are the same size.
func (m machine) flavors(site string, price float64) []skyport.Flavor {
	flavor := func(name string, cpus int) skyport.Flavor {
		memory := m.memory / skyport.Bytes(m.cpus) * skyport.Bytes(cpus)
		return skyport.Flavor{
			ID: gate.StableID(Kind, site, "flavor", name), Name: name, Site: site,
			CPUs: cpus, Memory: memory, Storage: m.storage, Price: price * float64(cpus), Arch: runtime.GOARCH,
		}
	}
	return []skyport.Flavor{
		flavor(flavorOne, 1),
		flavor(flavorHalf, max(1, m.cpus/2)),
		flavor(flavorAll, m.cpus),
	}
}

func (m machine) image(site string) skyport.Image {
	return skyport.Image{
		ID: gate.StableID(Kind, site, "image", imageHost), Name: imageHost, Site: site,
		Kind: skyport.ImageCloud, Comment: "This machine as it is: " + m.system,
	}
}

func systemName() string {
	f, err := os.Open("/etc/os-release")
	if err != nil {
		return "Linux"
	}
	defer func() { _ = f.Close() }() // only read
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, ok := strings.CutPrefix(lines.Text(), "PRETTY_NAME="); ok {
			return strings.Trim(name, `"'`)
		}
	}
	return "Linux"
}

// exceeds says which limit n nodes of a flavor would break, or nothing. A
// limit below zero means that nothing is left; zero means no limit.
func exceeds(l skyport.Limits, n int, f skyport.Flavor) string {
	over := func(what string, want, limit int64) string {
		if limit == 0 || want <= limit {
			return ""
		}
		return fmt.Sprintf("%d %s wanted, %d left", want, what, max(0, limit))
	}
	for _, why := range []string{
		over("nodes", int64(n), int64(l.Nodes)),
		over("cpus", int64(n)*int64(f.CPUs), int64(l.CPUs)),
		over("bytes of memory", int64(n)*int64(f.Memory), int64(l.Memory)),
	} {
		if why != "" {
			return why
		}
	}
	return ""
}

// take lowers a limit by what is used. Nothing left is below zero, because
// zero means no limit.
func take[T int | skyport.Bytes](limit, used T) T {
	if limit == 0 {
		return 0
	}
	if limit-used <= 0 {
		return min(limit-used, -1)
	}
	return limit - used
}

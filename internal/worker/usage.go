package worker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// leaseFile holds until when the node lives, in seconds since 1970: the node's
// own loop looks at it and powers the node off.
const leaseFile = "lease"

type leaseInput struct{ Body protocol.Lease }

func (w *Worker) putLease(_ context.Context, in *leaseInput) (*struct{}, error) {
	if in.Body.Until.IsZero() {
		return nil, problem(skyport.Errorf(skyport.CodeInvalid, "a lease needs a time"))
	}
	path := filepath.Join(w.opts.Dir, leaseFile)
	text := strconv.FormatInt(in.Body.Until.Unix(), 10) + "\n"
	w.mu.Lock() // one at a time
	defer w.mu.Unlock()
	if err := errors.Join(os.WriteFile(path+".tmp", []byte(text), 0o600), os.Rename(path+".tmp", path)); err != nil {
		return nil, problem(diskError("write the lease", err))
	}
	return nil, nil
}

func (w *Worker) getUsage(ctx context.Context, _ *struct{}) (*answer[protocol.NodeUsage], error) {
	return &answer[protocol.NodeUsage]{w.usage.read(ctx)}, nil
}

// usage reads what a node uses. What cannot be read is 0.
type usage struct {
	node, dir string

	mu   sync.Mutex // one asks the GPUs at a time
	gpus []protocol.GPUUsage
	at   time.Time
}

func newUsage(node, dir string) *usage { return &usage{node: node, dir: dir} }

func (u *usage) read(ctx context.Context) protocol.NodeUsage {
	n := protocol.NodeUsage{Time: time.Now().UTC(), Node: u.node, CPUs: runtime.NumCPU()}
	eachLine("/proc/stat", func(f []string) {
		if f[0] == "cpu" && len(f) > 8 {
			// user nice system idle iowait irq softirq steal; guests are part of user.
			n.CPUBusy = (number(f[1]) + number(f[2]) + number(f[3]) + number(f[6]) + number(f[7]) + number(f[8])) / 100
		}
	})
	memory := map[string]float64{}
	eachLine("/proc/meminfo", func(f []string) {
		if len(f) > 1 {
			memory[f[0]] = number(f[1]) * 1024
		}
	})
	n.MemoryAll = skyport.Bytes(memory["MemTotal:"])
	n.Memory = n.MemoryAll - min(n.MemoryAll, skyport.Bytes(memory["MemAvailable:"]))
	var fs unix.Statfs_t
	if unix.Statfs(u.dir, &fs) == nil {
		n.DiskAll = skyport.Bytes(fs.Blocks) * skyport.Bytes(fs.Bsize)       //nolint:gosec // sizes of disks
		n.Disk = n.DiskAll - skyport.Bytes(fs.Bfree)*skyport.Bytes(fs.Bsize) //nolint:gosec // as above
	}
	eachLine("/proc/diskstats", func(f []string) {
		if len(f) > 9 && wholeDisk(f[2]) {
			n.DiskRead += skyport.Bytes(number(f[5]) * 512)
			n.DiskWrite += skyport.Bytes(number(f[9]) * 512)
		}
	})
	eachLine("/proc/net/dev", func(f []string) {
		if name, ok := strings.CutSuffix(f[0], ":"); ok && name != "lo" && len(f) > 9 && physical(name) {
			n.NetIn += skyport.Bytes(number(f[1]))
			n.NetOut += skyport.Bytes(number(f[9]))
		}
	})
	n.GPUs = u.readGPUs(ctx)
	return n
}

// eachLine calls f with the fields of each line of a file of the kernel's.
func eachLine(path string, f func(fields []string)) {
	file, err := os.Open(path)
	if err != nil {
		return
	}
	defer func() { _ = file.Close() }() // was only read
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 0 {
			f(fields)
		}
	}
}

func number(s string) float64 {
	n, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return 0
	}
	return n
}

// wholeDisk tells disks from their parts and from what is made of other disks,
// which would be counted twice.
func wholeDisk(name string) bool {
	if strings.HasPrefix(name, "loop") || strings.HasPrefix(name, "ram") || strings.HasPrefix(name, "zram") {
		return false
	}
	// Only disks have this directory below /sys/block; only real ones a device.
	_, err := os.Stat(filepath.Join("/sys/block", name, "device"))
	return err == nil
}

// physical tells the ways out of a node from those inside, such as the bridges
// and pairs of containers, whose bytes go through one of the others too. In a
// container the node's own way out is one half of a pair.
func physical(name string) bool {
	for _, prefix := range []string{"veth", "docker", "br-", "virbr", "cni", "podman", "tap", "dummy"} {
		if strings.HasPrefix(name, prefix) {
			return false
		}
	}
	return true
}

const (
	gpuTime  = 2 * time.Second // how long nvidia-smi may take
	gpuFresh = time.Second     // how long an answer of it is good
)

// readGPUs asks the driver's own tool, where there is one.
func (u *usage) readGPUs(ctx context.Context) []protocol.GPUUsage {
	u.mu.Lock()
	defer u.mu.Unlock()
	if time.Since(u.at) < gpuFresh {
		return u.gpus
	}
	path, err := exec.LookPath("nvidia-smi")
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, gpuTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--format=csv,noheader,nounits", //nolint:gosec // the driver's own tool
		"--query-gpu=index,name,utilization.gpu,memory.used,memory.total").Output()
	u.gpus, u.at = nil, time.Now()
	if err == nil {
		u.gpus = parseGPUs(out)
	}
	return u.gpus
}

// maxGPUs is more than a node has.
const maxGPUs = 64

func parseGPUs(out []byte) []protocol.GPUUsage {
	rows := csv.NewReader(bytes.NewReader(out))
	rows.TrimLeadingSpace, rows.FieldsPerRecord = true, 5
	var gpus []protocol.GPUUsage
	for len(gpus) < maxGPUs {
		f, err := rows.Read()
		if err != nil {
			break
		}
		gpus = append(gpus, protocol.GPUUsage{
			Index: int(number(f[0])), Name: skyport.Abbreviate(f[1], 80), Busy: number(f[2]),
			Memory: skyport.Bytes(number(f[3])) << 20, MemoryAll: skyport.Bytes(number(f[4])) << 20,
		})
	}
	return gpus
}

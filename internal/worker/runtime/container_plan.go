package runtime

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/worker/shim"
)

// planFile is the file of a run's directory that tells what its container is
// made of.
const planFile = "plan.json"

// containerPlan is all that who stands for a container needs to know.
type containerPlan struct {
	Engine string                `json:"engine"` // the host of its API
	Image  string                `json:"image"`  // as the job has it
	Name   string                `json:"name"`
	Config *container.Config     `json:"config"`
	Host   *container.HostConfig `json:"host"`
	// GPUs is how many are wanted: which ones is decided when the container is made.
	GPUs int `json:"gpus,omitempty"`
	// Worker is the worker's directory, Box that of the init.
	Worker string `json:"worker"`
	Box    string `json:"box"`
}

// plan says what the container of a run is made of, and for people which limits
// the engine keeps.
func (c *Container) plan(e *engine, run Run, image foundImage) (*containerPlan, string, error) {
	box := boxDir(run.Dir)
	for _, dir := range []string{box, run.Work, filepath.Join(run.Dir, "tmp"), run.Task} {
		if dir == "" {
			continue
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, "", fmt.Errorf("make a directory of the container: %w", err)
		}
	}
	mounts, err := c.mounts(run, box)
	if err != nil {
		return nil, "", err
	}
	orders := initOrders{
		Image: image.Name, Run: run.Dir, Script: run.Script, Work: run.Work, Member: run.Spec.Member,
		Stdin: run.Stdin, Stdout: run.Stdout, Stderr: run.Stderr, User: userName(), Bin: run.Bin,
	}
	for name := range run.Spec.Env { // what the job sets is not for the init to decide
		if name == "HOME" || name == "USER" {
			orders.Given = append(orders.Given, name)
		}
	}
	if err := shim.Write(box, ordersFile, orders); err != nil {
		return nil, "", fmt.Errorf("order the container's init: %w", err)
	}
	host := &container.HostConfig{
		NetworkMode: "host",
		Mounts:      mounts,
		CapDrop:     []string{"ALL"},
		SecurityOpt: []string{"no-new-privileges"},
		LogConfig:   container.LogConfig{Type: "none"}, // the init writes the logs itself
		ShmSize:     sharedMemory(run.Spec.Memory, e.info.MemTotal),
	}
	if e.podman && e.rootless {
		host.UsernsMode = "keep-id"
	}
	enforced := limit(&host.Resources, e, run)
	host.Ulimits = ulimits(e)
	host.Devices = rdmaDevices()
	return &containerPlan{
		Engine: e.host, Image: image.Name, Name: c.containerName(run.Spec.Run),
		Worker: c.opts.Dir, Box: box, GPUs: run.Spec.GPUs, Host: host,
		Config: &container.Config{
			Image:       image.ID,
			User:        e.user(),
			Env:         containerEnv(run, image),
			WorkingDir:  run.Work,
			Entrypoint:  []string{c.opts.Self, "init", box},
			Cmd:         []string{},
			Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
			Labels:      map[string]string{labelRun: run.Spec.Run, labelDir: c.opts.Dir},
		},
	}, enforced, nil
}

// mounts lists what the container sees of the node, all at the same paths.
func (c *Container) mounts(run Run, box string) ([]mount.Mount, error) {
	var list []mount.Mount
	add := func(path string, readOnly bool) {
		for _, m := range list {
			if m.Target == path {
				return
			}
		}
		list = append(list, mount.Mount{Type: mount.TypeBind, Source: path, Target: path, ReadOnly: readOnly})
	}
	if run.Work == "/" {
		return nil, skyport.Errorf(skyport.CodeUnsupported, "a job in a container cannot have / as its work directory").
			WithHint("name another directory with workdir, or leave it out")
	}
	add(run.Work, false)
	add(filepath.Join(run.Dir, "tmp"), false)
	add(box, false)
	if !run.Spec.Member {
		add(run.Script, true)
	}
	if run.Task != "" {
		add(run.Task, false)
	}
	if run.Bin != "" {
		if _, err := os.Stat(run.Bin); err == nil {
			add(run.Bin, true)
		}
	}
	if run.Bin == "" || filepath.Dir(c.opts.Self) != run.Bin {
		add(c.opts.Self, true)
	}
	if name := run.Spec.Request.Storage; name != "" {
		add(StorageDir(name), true)
	}
	for _, path := range []string{run.Stdout, run.Stderr} {
		if beneath(run.Work, path) || strings.HasPrefix(path, "/dev/") {
			continue
		}
		f, err := openForAppend(path)
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			return nil, fmt.Errorf("make the log %s: %w", path, err)
		}
		add(path, false)
	}
	if !beneath(run.Work, run.Stdin) && !strings.HasPrefix(run.Stdin, "/dev/") && !run.Spec.Member {
		if _, err := os.Stat(run.Stdin); err != nil {
			return nil, skyport.Errorf(skyport.CodeNotFound, "open standard input: %w", err)
		}
		add(run.Stdin, true)
	}
	return list, nil
}

func beneath(dir, path string) bool { return strings.HasPrefix(path, dir+"/") }

func openForAppend(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err //nolint:wrapcheck // the caller wraps
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600) //nolint:wrapcheck // the caller wraps
}

// containerEnv is what the script gets beside what its image sets.
func containerEnv(run Run, image foundImage) []string {
	env := map[string]string{"TMPDIR": filepath.Join(run.Dir, "tmp")}
	maps.Copy(env, run.Spec.Env)
	path, ok := env["PATH"]
	if !ok {
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
		for _, entry := range image.Env {
			if value, found := strings.CutPrefix(entry, "PATH="); found && value != "" {
				path = value
			}
		}
	}
	if run.Bin != "" {
		path = run.Bin + ":" + path
	}
	env["PATH"] = path
	name, value, _ := strings.Cut(mark(run.Spec.Run), "=")
	env[name] = value
	list := entries(env)
	slices.Sort(list)
	return list
}

// leastMemory is what an engine takes as a limit at least, with room for the init.
const leastMemory = 32 << 20

// limit sets the limits of the run as far as the engine keeps them, and says so.
func limit(r *container.Resources, e *engine, run Run) string {
	var said []string
	who := "docker"
	if e.podman {
		who = "podman"
	}
	if cpus := run.Spec.CPUs; cpus > 0 {
		switch {
		case !e.info.CPUCfsQuota:
			said = append(said, "cpu limit not enforced: "+who+" cannot on this node")
		default:
			said = append(said, fmt.Sprintf("cpu limit %d by %s", cpus, who))
			if cpus < e.info.NCPU { // else it is the whole node, and more is refused
				r.NanoCPUs = int64(cpus) * 1e9
			}
		}
	}
	if memory := int64(run.Spec.Memory); memory > 0 {
		switch {
		case !e.info.MemoryLimit:
			said = append(said, "memory limit not enforced: "+who+" cannot on this node")
		default:
			r.Memory = max(memory, leastMemory)
			r.MemorySwap = r.Memory
			said = append(said, fmt.Sprintf("memory limit %d MiB by %s", r.Memory>>20, who))
		}
	}
	return strings.Join(said, ", ")
}

// sharedMemory is the size of /dev/shm: half of the memory that the run may use.
func sharedMemory(limit skyport.Bytes, total int64) int64 {
	if limit == 0 {
		limit = skyport.Bytes(total)
	}
	return max(int64(limit)/2, 64<<20)
}

// ulimits allows what RDMA and programs with many files need, as far as this may
// be given.
func ulimits(e *engine) []*container.Ulimit {
	if !mayRaiseLimits() {
		return nil // those of the engine hold
	}
	list := []*container.Ulimit{
		{Name: "memlock", Soft: -1, Hard: -1},
		{Name: "nofile", Soft: 1 << 20, Hard: 1 << 20},
	}
	if !e.rootless {
		return list
	}
	for i, kind := range []int{unix.RLIMIT_MEMLOCK, unix.RLIMIT_NOFILE} {
		var ours unix.Rlimit
		if unix.Getrlimit(kind, &ours) != nil {
			return nil
		}
		hard := int64(-1)
		if ours.Max != unix.RLIM_INFINITY {
			hard = int64(ours.Max) //nolint:gosec // limits of files and bytes are below
		}
		list[i].Soft, list[i].Hard = hard, hard
	}
	return list
}

// mayRaiseLimits says whether anybody on this node can: where the node itself is
// a container, often nobody can, and an engine that tries starts nothing.
func mayRaiseLimits() bool {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		if set, ok := strings.CutPrefix(line, "CapBnd:"); ok {
			mask, err := strconv.ParseUint(strings.TrimSpace(set), 16, 64)
			return err == nil && mask&(1<<unix.CAP_SYS_RESOURCE) != 0
		}
	}
	return false
}

// rdmaDir holds the devices of InfiniBand and RoCE.
const rdmaDir = "/dev/infiniband"

// rdmaDevices lists what the node has for RDMA.
func rdmaDevices() []container.DeviceMapping {
	var list []container.DeviceMapping
	err := filepath.WalkDir(rdmaDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Type()&fs.ModeCharDevice != 0 {
			list = append(list, container.DeviceMapping{PathOnHost: path, PathInContainer: path, CgroupPermissions: "rwm"})
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil // the job sees that there are none
	}
	return list
}

// passwd finds a user in the database of the image, if it has one.
func passwd(uid int) (name, home string) {
	f, err := os.Open("/etc/passwd")
	if err != nil {
		return "", ""
	}
	defer func() { _ = f.Close() }() // was only read
	for in := bufio.NewScanner(f); in.Scan(); {
		fields := strings.Split(in.Text(), ":")
		if len(fields) >= 6 && fields[2] == strconv.Itoa(uid) {
			return fields[0], fields[5]
		}
	}
	return "", ""
}

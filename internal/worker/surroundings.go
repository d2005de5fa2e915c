package worker

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/openworkload/skyport/internal/worker/protocol"
	noderuntime "github.com/openworkload/skyport/internal/worker/runtime"
	"github.com/openworkload/skyport/internal/worker/task"
)

const (
	binDir    = "bin"    // of the worker: swm-task and swm-rsh
	sharedDir = "shared" // of the worker: one directory on all nodes of the partition
	taskDir   = "task"   // of a run
)

// The names that the worker's binary goes by.
const (
	workerName = "skyport-worker"
	taskName   = "swm-task"
	rshName    = "swm-rsh"
)

// install puts the programs for jobs into the worker's directory: other names of
// its own binary.
func (w *Worker) install() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the worker's own binary: %w", err)
	}
	bin := filepath.Join(w.opts.Dir, binDir)
	if err := os.MkdirAll(bin, 0o755); err != nil { //nolint:gosec // the directory above it is closed
		return diskError("make "+bin, err)
	}
	binary := filepath.Join(bin, workerName)
	if err := place(self, binary); err != nil {
		return diskError("make "+binary, err)
	}
	for _, name := range []string{taskName, rshName} {
		path := filepath.Join(bin, name)
		if target, err := os.Readlink(path); err == nil && target == workerName {
			continue
		}
		temp := path + ".tmp"
		err := os.Remove(temp)
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		// Relative: the directory may be seen elsewhere, in a container.
		if err := errors.Join(err, os.Symlink(workerName, temp), os.Rename(temp, path)); err != nil {
			return diskError("make "+path, err)
		}
	}
	return nil
}

// place gives a file another name, or makes a copy where that cannot be.
func place(from, to string) error {
	source, err := os.Stat(from)
	if err != nil {
		return err //nolint:wrapcheck // the caller wraps
	}
	if there, err := os.Stat(to); err == nil && os.SameFile(source, there) {
		return nil
	}
	temp := to + ".tmp"
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err //nolint:wrapcheck // as above
	}
	if os.Link(from, temp) != nil { // another file system
		if err := duplicate(from, temp); err != nil {
			return err
		}
	}
	return os.Rename(temp, to) //nolint:wrapcheck // as above
}

func duplicate(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err //nolint:wrapcheck // the caller wraps
	}
	defer func() { _ = source.Close() }()                                     // was only read
	target, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755) //nolint:gosec // a program
	if err != nil {
		return err //nolint:wrapcheck // as above
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}

// surroundings are what the run's programs know of the run.
func (r *run) surroundings() task.Surroundings {
	slots := r.spec.CPUs
	if slots <= 0 {
		slots = runtime.NumCPU()
	}
	s := task.Surroundings{Run: r.name, Node: r.w.opts.Node, Work: r.rt.Work}
	for _, p := range r.peers() {
		s.Nodes = append(s.Nodes, task.Node{Name: p.Name, Address: p.Address, Slots: slots})
	}
	return s
}

// peers are the nodes of the run, main first; this one when nobody named any.
func (r *run) peers() []protocol.Peer {
	switch {
	case len(r.spec.Peers) > 0:
		return r.spec.Peers
	case len(r.spec.Nodes) == 1:
		return []protocol.Peer{{Name: r.spec.Nodes[0]}}
	}
	return []protocol.Peer{{Name: r.w.opts.Node}}
}

// environment is the run's, with what leads to the nodes and to the programs
// that start something there.
func (r *run) environment() map[string]string {
	env := maps.Clone(r.spec.Env)
	if env == nil {
		env = make(map[string]string)
	}
	hosts := filepath.Join(r.rt.Task, task.HostFile)
	env[task.HostFileEnv] = hosts
	if name := r.spec.Request.Storage; name != "" {
		env[storageEnv] = noderuntime.StorageDir(name)
	}
	if len(r.spec.Peers) < 2 {
		return env
	}
	rsh := filepath.Join(r.rt.Bin, rshName)
	leads := map[string]string{
		// Open MPI up to 4, and PRRTE, which Open MPI has since 5.
		"OMPI_MCA_orte_default_hostfile": hosts,
		"OMPI_MCA_plm_rsh_agent":         rsh,
		"PRTE_MCA_prte_default_hostfile": hosts,
		"PRTE_MCA_plm_ssh_agent":         rsh,
		"HYDRA_HOST_FILE":                filepath.Join(r.rt.Task, task.MachineFile), // MPICH
		"HYDRA_LAUNCHER":                 "ssh",
		"HYDRA_LAUNCHER_EXEC":            rsh,
	}
	if strings.HasPrefix(r.spec.Peers[0].Endpoint, "unix://") {
		// All nodes are this machine and have one name: Open MPI would mix up what
		// they share in memory.
		leads["OMPI_MCA_btl"], leads["OMPI_MCA_btl_tcp_if_include"] = "self,tcp", "lo"
	}
	for _, p := range r.spec.Peers {
		if p.Name == r.w.opts.Node {
			maps.Copy(leads, onNetworkOf(p.Address))
		}
	}
	for key, value := range leads {
		if _, ok := env[key]; !ok { // the user knows better
			env[key] = value
		}
	}
	return env
}

// onNetworkOf keeps programs that pick networks by themselves on the one that the
// node's address is in: bridges of container engines have the same address on
// every node, and who takes them for a way to the others talks to itself.
func onNetworkOf(address string) map[string]string {
	own, err := netip.ParseAddr(address)
	if err != nil {
		return nil
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil
	}
	for _, i := range interfaces {
		addresses, err := i.Addrs()
		if err != nil {
			continue // it has just gone
		}
		for _, a := range addresses {
			prefix, err := netip.ParsePrefix(a.String())
			if err != nil || prefix.Addr().Unmap() != own.Unmap() {
				continue
			}
			network := prefix.Masked().String()
			return map[string]string{
				"OMPI_MCA_btl_tcp_if_include": network, // Open MPI
				"OMPI_MCA_oob_tcp_if_include": network, // its launcher up to 4
				"PRTE_MCA_prte_if_include":    network, // its launcher since 5
				"HYDRA_IFACE":                 i.Name,  // MPICH
				"NCCL_SOCKET_IFNAME":          i.Name,
				"GLOO_SOCKET_IFNAME":          i.Name, // PyTorch
			}
		}
	}
	return nil
}

// sharedWork is the run's directory that all nodes of its partition have, or
// empty when there is none.
func (w *Worker) sharedWork(spec protocol.RunSpec) string {
	if len(spec.Peers) < 2 {
		return ""
	}
	dir := filepath.Join(w.opts.Dir, sharedDir)
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return ""
	}
	return filepath.Join(dir, spec.Run)
}

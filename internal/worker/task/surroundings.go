package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/session"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// The files of a run's task directory; see the package comment.
const (
	HostFile    = "hostfile"
	MachineFile = "machines"
	nodesFile   = "nodes.json"
	socketFile  = "sock"
)

// HostFileEnv names the entry of the job's environment that leads to the task
// directory: to the host file in it.
const HostFileEnv = "SWM_JOB_HOSTFILE"

// Surroundings are what a run's programs know of the run.
type Surroundings struct {
	Run  string `json:"run"`
	Node string `json:"node"` // this one
	Work string `json:"work"` // the run's work directory on this node
	// Nodes are all nodes of the run, main first.
	Nodes []Node `json:"nodes"`
}

// Node is one node of a run.
type Node struct {
	Name    string `json:"name"`
	Address string `json:"address,omitempty"`
	Slots   int    `json:"slots"`
}

// Write makes the files of a task directory. Whatever user the job's processes
// have must be able to read them.
func (s Surroundings) Write(dir string) error {
	var hosts, machines strings.Builder
	for _, n := range s.Nodes {
		fmt.Fprintf(&hosts, "%s slots=%d\n", n.Name, n.Slots)
		fmt.Fprintf(&machines, "%s:%d\n", n.Name, n.Slots)
	}
	data, err := json.Marshal(s)
	if err == nil {
		err = os.MkdirAll(dir, 0o755) //nolint:gosec // the run's directory above it is closed
	}
	if err == nil {
		err = os.Chmod(dir, 0o755) //nolint:gosec // as above; whatever the worker's mask is
	}
	for name, content := range map[string]string{HostFile: hosts.String(), MachineFile: machines.String(), nodesFile: string(data)} {
		if err == nil {
			err = replace(filepath.Join(dir, name), content)
		}
	}
	if err != nil {
		return fmt.Errorf("write what the run's programs know: %w", err)
	}
	return nil
}

func replace(path, content string) error {
	temp := path + ".tmp"
	return errors.Join(os.WriteFile(temp, []byte(content), 0o600), os.Chmod(temp, 0o644), os.Rename(temp, path)) //nolint:gosec // see Write
}

// Job is the run that this process belongs to.
type Job struct {
	Surroundings

	dir string
}

// OpenJob finds the run of this process by its environment.
func OpenJob() (*Job, error) {
	path := os.Getenv(HostFileEnv)
	if path == "" {
		return nil, skyport.Errorf(skyport.CodeInvalid, "%s is not set: this is no process of a job", HostFileEnv).
			WithHint("call it in a job's script, or with skyport exec")
	}
	j := &Job{dir: filepath.Dir(path)}
	data, err := os.ReadFile(filepath.Join(j.dir, nodesFile))
	if err == nil {
		err = json.Unmarshal(data, &j.Surroundings)
	}
	if err == nil && len(j.Nodes) == 0 {
		err = errors.New("no nodes")
	}
	if err != nil {
		return nil, fmt.Errorf("read the nodes of the job: %w", err)
	}
	return j, nil
}

// Find returns the node of a name or an address; a name may lack or have a domain.
func (j *Job) Find(host string) (Node, bool) {
	short, _, _ := strings.Cut(host, ".")
	for _, n := range j.Nodes {
		if host == n.Name || (n.Address != "" && host == n.Address) {
			return n, true
		}
	}
	for _, n := range j.Nodes {
		if name, _, _ := strings.Cut(n.Name, "."); name == short && net.ParseIP(host) == nil {
			return n, true
		}
	}
	if host == "localhost" || host == "127.0.0.1" || host == "::1" {
		for _, n := range j.Nodes {
			if n.Name == j.Node {
				return n, true
			}
		}
	}
	return Node{}, false
}

// Run runs a command of the job on one of its nodes.
func (j *Job) Run(ctx context.Context, c protocol.Command, with session.Caller) (session.Exit, error) {
	conn, err := dial(ctx, filepath.Join(j.dir, socketFile))
	if err != nil {
		return session.Exit{}, skyport.Errorf(skyport.CodeUnavailable, "reach the worker of this node: %w", err).
			WithHint("the job may be about to end, or its worker is being restarted: try again")
	}
	c.Run = j.Surroundings.Run
	return session.Call(ctx, conn, c, with)
}

// here is the working directory as it is on every node: relative where it lies
// in the run's work directory.
func (j *Job) here() string {
	dir, err := os.Getwd()
	if err != nil {
		return ""
	}
	for _, base := range []string{j.Work, resolved(j.Work)} {
		if rel, err := filepath.Rel(base, dir); err == nil && filepath.IsLocal(rel) {
			return rel
		}
	}
	return dir
}

func resolved(path string) string {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	return path
}

// MaxSocketPath is how long a path of a socket the kernel has room for.
const MaxSocketPath = 107

// Listen opens the socket of a task directory. To close the listener removes it.
func Listen(dir string) (net.Listener, error) {
	path := filepath.Join(dir, socketFile)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("listen for the job's tasks: %w", err)
	}
	short, done, err := shorten(path)
	if err != nil {
		return nil, err
	}
	defer done()
	l, err := new(net.ListenConfig).Listen(context.Background(), "unix", short)
	if err != nil {
		return nil, fmt.Errorf("listen for the job's tasks: %w", err)
	}
	if unix, ok := l.(*net.UnixListener); ok {
		unix.SetUnlinkOnClose(false) // its name may be good no more
	}
	if err := os.Chmod(path, 0o666); err != nil { //nolint:gosec // see Write
		return nil, errors.Join(fmt.Errorf("listen for the job's tasks: %w", err), l.Close())
	}
	return l, nil
}

func dial(ctx context.Context, path string) (net.Conn, error) {
	short, done, err := shorten(path)
	if err != nil {
		return nil, err
	}
	defer done()
	return new(net.Dialer).DialContext(ctx, "unix", short) //nolint:wrapcheck // the caller wraps
}

// shorten gives a path that the kernel has room for, good until done is called.
func shorten(path string) (short string, done func(), err error) {
	if len(path) <= MaxSocketPath {
		return path, func() {}, nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, fmt.Errorf("open the task directory: %w", err)
	}
	short = "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + filepath.Base(path)
	return short, func() { _ = dir.Close() }, nil // was only read
}

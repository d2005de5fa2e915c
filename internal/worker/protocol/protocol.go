package protocol

import (
	"time"

	"github.com/openworkload/skyport"
)

// Info says who a worker is.
type Info struct {
	Version string    `json:"version" doc:"Build version of the worker"`
	Node    string    `json:"node" doc:"Name of the node"`
	Arch    string    `json:"arch" doc:"Architecture, such as amd64"`
	BootID  string    `json:"boot_id" doc:"Changes when the node boots: runs started before are lost"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
}

// RunSpec is all that a worker needs to know to run one attempt of a job.
type RunSpec struct {
	Run     string          `json:"run" doc:"Name, chosen by core: job id, dot, attempt"`
	Job     skyport.JobID   `json:"job"`
	Attempt int             `json:"attempt"`
	Script  []byte          `json:"script" doc:"The job script, executed by its #! line or /bin/sh"`
	Request skyport.Request `json:"request"`
	// Nodes are the names of the partition's nodes, main first.
	Nodes []string `json:"nodes"`
	// Env is the complete SWM_… environment and what the job adds.
	Env map[string]string `json:"env"`
	// CPUs, Memory and GPUs are what the run may use on this node; 0: no limit.
	CPUs   int           `json:"cpus,omitempty"`
	Memory skyport.Bytes `json:"memory,omitempty"`
	GPUs   int           `json:"gpus,omitempty"`
	// Address is the user's side of the in ports, for SWM_JOB_ADDRESS.
	Address string `json:"address,omitempty"`
	// Grace is how long TERM is given before KILL, in seconds; 0: the worker's default of 10.
	Grace skyport.Seconds `json:"grace,omitempty"`
	// Start asks to start at once: there are no inputs to wait for.
	Start bool `json:"start,omitempty"`
	// Member asks for a compute node's part of the run: no script is started, but
	// commands of the run can be, in its container when it has one. The run is
	// running when they can, and ends when it is stopped.
	Member bool `json:"member,omitempty"`
	// Peers are the partition's nodes as the nodes reach each other, main first;
	// empty when there is one node.
	Peers []Peer `json:"peers,omitempty"`
	// Registries are logins for the registries of the job's image. They are no part
	// of what makes two specifications the same, and the worker keeps them only
	// until the image is there.
	Registries []Registry `json:"registries,omitempty"`
	// Storage is what opens the storage of the site that the job asks for. It is no
	// part of the specification either, and kept only until it is mounted.
	Storage *Storage `json:"storage,omitempty"`
}

// Storage is a container of blobs to mount read-only.
type Storage struct {
	Name      string    `json:"name" doc:"Small letters, digits and dashes"`
	Account   string    `json:"account"`
	Container string    `json:"container"`
	Endpoint  string    `json:"endpoint" doc:"URL of the account's blob service"`
	SAS       string    `json:"sas" doc:"Shared access signature"`
	Expires   time.Time `json:"expires"`
}

// Peer is a node as the others of its partition see it.
type Peer struct {
	Name    string `json:"name"`
	Address string `json:"address,omitempty" doc:"IP address inside the partition's network"`
	// Endpoint is how its worker is reached: unix:///path on this machine, or
	// empty: by SSH under its name, with the configuration in the worker's directory.
	Endpoint string `json:"endpoint,omitempty"`
}

// Registry is what a container registry wants to know.
type Registry struct {
	Host     string `json:"host" doc:"Host and port, such as registry.example.org:5000"`
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
	CA       string `json:"ca,omitempty" doc:"PEM of the certificate authority that signed its certificate; empty: a public one"`
}

// Command is a command that runs beside a script, in the job's container where
// there is one: the first frame of a session (see package session).
type Command struct {
	Run  string            `json:"run,omitempty" doc:"Run whose surroundings it gets; empty: the node's own shell"`
	Argv []string          `json:"argv,omitempty" doc:"Empty: the login shell"`
	Env  map[string]string `json:"env,omitempty" doc:"Beside the run's environment"`
	Dir  string            `json:"dir,omitempty" doc:"Working directory; empty: the run's, relative: below it"`
	TTY  bool              `json:"tty,omitempty" doc:"With a terminal: standard output and error are one"`
	Rows int               `json:"rows,omitempty"`
	Cols int               `json:"cols,omitempty"`
	// Node is the peer that the command runs on, for commands that a node asks
	// another to run; empty: this one.
	Node string `json:"node,omitempty"`
}

// NodeUsage is what a node uses as a whole at one moment.
type NodeUsage = skyport.NodeUsage

// GPUUsage is one GPU of a node.
type GPUUsage = skyport.GPUUsage

// RunState is how far a run is on its worker.
type RunState string

const (
	RunStaging RunState = "staging" // directory made, waits for inputs and start
	RunRunning RunState = "running" // the script runs
	RunEnded   RunState = "ended"   // the script ended: ExitCode and Signal tell how
	RunLost    RunState = "lost"    // its processes vanished without an exit record (node rebooted, shim killed)
	RunRefused RunState = "refused" // it could not be started; Details says why
)

// RunStatus is a snapshot of a run. Version grows with each change on a worker.
type RunStatus struct {
	Run     string    `json:"run"`
	Version uint64    `json:"version"`
	State   RunState  `json:"state"`
	Details string    `json:"details,omitempty" doc:"For people: limits in force, why it was stopped"`
	Started time.Time `json:"started,omitzero"`
	Ended   time.Time `json:"ended,omitzero"`

	ExitCode int  `json:"exit_code"`
	Signal   int  `json:"signal"`
	TimedOut bool `json:"timed_out,omitempty" doc:"Stopped by the wall-clock limit"`
	OutOfMem bool `json:"out_of_memory,omitempty" doc:"Killed for its memory limit"`
	Stopped  bool `json:"stopped,omitempty" doc:"Stopped by a stop request"`

	Stdout skyport.Bytes `json:"stdout" doc:"Size of the log so far"`
	Stderr skyport.Bytes `json:"stderr" doc:"Size of the log so far"`
	Ports  []PortStatus  `json:"ports,omitempty" doc:"In ports of the job that something of the job listens on"`
	Usage  Usage         `json:"usage"`
}

// PortStatus says where the job listens for one of its in ports.
type PortStatus struct {
	Port int `json:"port"`
	// Address is the listening address as the kernel tells it: 127.0.0.1,
	// 0.0.0.0, ::, …; empty while nothing of the job listens.
	Address string `json:"address,omitempty"`
}

// Usage sums up the samples of a run.
type Usage = skyport.Usage

// Sample is one measurement of a run's process tree.
type Sample = skyport.Sample

// Event is one line of the watch stream: the status of a run that changed, or
// the name of one that was removed. After connecting the stream tells all runs
// that there are, then a line with Synced true, then every change. A line with
// nothing set is a sign of life, sent every few seconds.
type Event struct {
	Status  *RunStatus `json:"status,omitempty"`
	Removed string     `json:"removed,omitempty"`
	Synced  bool       `json:"synced,omitempty"`
}

package protocol

import (
	"time"

	"github.com/openworkload/skyport"
)

// Info says who a worker is.
type Info struct {
	Version string    `json:"version" doc:"Build version of the worker"`
	Node    string    `json:"node" doc:"Name of the node"`
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
}

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

// Sample is one measurement of a run's process tree, over Seconds.
type Sample struct {
	Time    time.Time     `json:"time"`
	Seconds float64       `json:"seconds"`
	CPU     float64       `json:"cpu" doc:"Percent of one cpu"`
	Memory  skyport.Bytes `json:"memory" doc:"Resident memory"`
}

// Event is one line of the watch stream: the status of a run that changed, or
// the name of one that was removed. After connecting the stream tells all runs
// that there are, then a line with Synced true, then every change. A line with
// nothing set is a sign of life, sent every few seconds.
type Event struct {
	Status  *RunStatus `json:"status,omitempty"`
	Removed string     `json:"removed,omitempty"`
	Synced  bool       `json:"synced,omitempty"`
}

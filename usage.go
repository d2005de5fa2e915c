package skyport

import "time"

// Metrics sum up what a job used. Nil means: no samples.
type Metrics struct {
	CPUPercent *AvgMax `json:"cpu_percent" doc:"Percent of one cpu"`
	MemBytes   *AvgMax `json:"mem_bytes" doc:"Resident memory in bytes"`
	GPUPercent *AvgMax `json:"gpu_util_percent" doc:"Percent of one GPU"`
	GPUBytes   *AvgMax `json:"gpu_mem_bytes" doc:"GPU memory in bytes"`
}

// AvgMax is an average and a maximum.
type AvgMax struct {
	Avg float64 `json:"avg"`
	Max float64 `json:"max"`
}

// Sample is one measurement of a job's process tree on a node, over Seconds.
type Sample struct {
	Time    time.Time `json:"time"`
	Seconds float64   `json:"seconds"`
	CPU     float64   `json:"cpu" doc:"Percent of one cpu"`
	Memory  Bytes     `json:"memory" doc:"Resident memory"`
}

// NodeUsage is what a node uses as a whole at one moment. Counters grow since
// its boot; rates are for who reads twice.
type NodeUsage struct {
	Time      time.Time  `json:"time"`
	Node      string     `json:"node" doc:"Name of the node"`
	CPUs      int        `json:"cpus" doc:"How many it has"`
	CPUBusy   float64    `json:"cpu_busy" doc:"Seconds of all CPUs together, since boot"`
	Memory    Bytes      `json:"memory" doc:"In use, without caches"`
	MemoryAll Bytes      `json:"memory_all" doc:"That it has"`
	Disk      Bytes      `json:"disk" doc:"In use on the file system of the jobs"`
	DiskAll   Bytes      `json:"disk_all" doc:"Size of that file system"`
	DiskRead  Bytes      `json:"disk_read" doc:"Since boot"`
	DiskWrite Bytes      `json:"disk_write" doc:"Since boot"`
	NetIn     Bytes      `json:"net_in" doc:"Since boot, without loopback"`
	NetOut    Bytes      `json:"net_out" doc:"Since boot, without loopback"`
	GPUs      []GPUUsage `json:"gpus,omitempty"`
}

// GPUUsage is one GPU of a node.
type GPUUsage struct {
	Index     int     `json:"index"`
	Name      string  `json:"name"`
	Busy      float64 `json:"busy" doc:"Percent"`
	Memory    Bytes   `json:"memory"`
	MemoryAll Bytes   `json:"memory_all"`
}

// JobUsage is what the nodes of a job use at one moment, and what of it is the
// job's.
type JobUsage struct {
	Job   JobID          `json:"job" format:"uuid"`
	Nodes []JobNodeUsage `json:"nodes" doc:"Main first"`
}

// JobNodeUsage is one node of a [JobUsage].
type JobNodeUsage struct {
	Node  string     `json:"node" doc:"Name of the node"`
	Role  Role       `json:"role" enum:"main,compute"`
	Usage *NodeUsage `json:"usage,omitempty" doc:"Of the node as a whole; absent when it did not answer"`
	Job   *Sample    `json:"job,omitempty" doc:"Newest measurement of the job there; absent before the first"`
	Error string     `json:"error,omitempty" doc:"Why the node did not answer"`
}

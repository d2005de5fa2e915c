package skyport

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

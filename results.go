package skyport

// LogStream names a log of a job.
type LogStream string

const (
	Stdout LogStream = "stdout"
	Stderr LogStream = "stderr"
)

// Results say which outputs of a job arrived.
type Results struct {
	Files   []ResultFile `json:"files" doc:"What arrived, sorted by path"`
	Count   int          `json:"count" doc:"Number of regular files"`
	Bytes   Bytes        `json:"bytes" doc:"Size of their content"`
	Missing []string     `json:"missing" doc:"Outputs that the script named and did not leave"`
}

// ResultFile is one file, directory or symlink of the results.
type ResultFile struct {
	Path  string `json:"path" doc:"Relative to the work directory, with slashes"`
	Kind  string `json:"kind" enum:"file,dir,symlink"`
	Bytes Bytes  `json:"bytes"`
	Mode  uint32 `json:"mode" doc:"Permission bits"`
}

// JobPort is a forwarded port of a job and where it answers.
type JobPort struct {
	Number    int       `json:"number"`
	Direction Direction `json:"direction" enum:"in,out"`
	Address   string    `json:"address,omitempty" doc:"host:port at which an in port answers; where an out port leads"`
	Open      bool      `json:"open" doc:"The forwarding is in place"`
}

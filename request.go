package skyport

import (
	"fmt"
	"math"
	"time"
)

// Request is what a job asks for: the directives of its script, normalised.
// The zero value of a field means "not asked for" unless said otherwise; the
// jobscript package fills the defaults (Nodes 1, Relocatable true).
type Request struct {
	Name    string `json:"name,omitempty" doc:"Name for people"`
	Comment string `json:"comment,omitempty" doc:"Free text"`
	Account string `json:"account,omitempty" doc:"Account that pays; selects the sites"`

	Site           string  `json:"site,omitempty" doc:"Site to run at; empty: any site of the account"`
	Flavor         string  `json:"flavor,omitempty" doc:"Flavor of the nodes; empty: the cheapest that fits"`
	CloudImage     string  `json:"cloud_image,omitempty" doc:"Image that the nodes boot"`
	ContainerImage string  `json:"container_image,omitempty" doc:"Container image that the script runs in"`
	Nodes          int     `json:"nodes,omitempty" doc:"Number of nodes" minimum:"0"`
	CPUs           int     `json:"cpus,omitempty" doc:"CPUs per node; 0: one, or the whole node when a flavor is named" minimum:"0"`
	Memory         Bytes   `json:"memory,omitempty" doc:"Memory per node in bytes" minimum:"0"`
	GPUs           int     `json:"gpus,omitempty" doc:"GPUs per node" minimum:"0"`
	MaxPrice       float64 `json:"max_price,omitempty" doc:"Highest price per hour of the whole partition" minimum:"0"`
	Spot           Spot    `json:"spot,omitempty" enum:"no,yes,prefer" doc:"Whether the nodes may be such that the site takes back when it wants; default no"`

	TimeLimit     Seconds `json:"time_limit,omitempty" doc:"Wall-clock limit of the script in seconds; 0: none" minimum:"0"`
	Priority      int     `json:"priority,omitempty" doc:"Higher runs earlier; default 0"`
	Retries       int     `json:"retries,omitempty" doc:"New attempts after a node or a site failed" minimum:"0"`
	KeepAlive     Seconds `json:"keep_alive,omitempty" doc:"How long the partition waits idle for a next job, in seconds" minimum:"0"`
	KeepResources bool    `json:"keep_resources,omitempty" doc:"Do not delete the partition at the end"`
	Relocatable   bool    `json:"relocatable" doc:"The job may run at a remote site"`

	InputFiles  []string          `json:"input_files,omitempty" doc:"Paths that land in the work directory under their base names"`
	OutputFiles []string          `json:"output_files,omitempty" doc:"Paths, relative to the work directory, that come back"`
	WorkDir     string            `json:"workdir,omitempty" doc:"Work directory; empty: one of the job's own"`
	Stdin       string            `json:"stdin,omitempty" doc:"File for standard input, relative to the work directory"`
	Stdout      string            `json:"stdout,omitempty" doc:"File of standard output; default stdout.log"`
	Stderr      string            `json:"stderr,omitempty" doc:"File of standard error; default stderr.log"`
	Env         map[string]string `json:"env,omitempty" doc:"Additional environment"`

	Ports             []Port `json:"ports,omitempty" doc:"Ports to forward"`
	SubmissionAddress string `json:"submission_address,omitempty" doc:"Where out ports lead; empty: the address the job was submitted from"`
	Storage           string `json:"storage,omitempty" doc:"Name of a storage of the site to mount"`

	Checkpoint         bool    `json:"checkpoint,omitempty" doc:"The application writes checkpoints"`
	CheckpointDir      string  `json:"checkpoint_dir,omitempty" doc:"Directory of the checkpoints"`
	CheckpointInterval Seconds `json:"checkpoint_interval,omitempty" doc:"Seconds between checkpoints" minimum:"0"`
}

// Spot says whether a job's nodes may be spot: cheaper, and the site takes them
// back when it wants.
type Spot string

const (
	SpotNo     Spot = "no"     // never; the same as empty
	SpotYes    Spot = "yes"    // only spot
	SpotPrefer Spot = "prefer" // spot where it is to be had, else on demand
)

// Direction says which side listens for a forwarded port.
type Direction string

const (
	// In is a port of the job, offered to the user.
	In Direction = "in"
	// Out is a port at the user's side, offered to the job.
	Out Direction = "out"
)

// Port is one forwarded port. The protocol is always TCP; the script may say so.
type Port struct {
	Number    int       `json:"number" minimum:"1" maximum:"65535"`
	Direction Direction `json:"direction" enum:"in,out"`
}

// String returns the spelling of the ports directive, such as 8888/tcp/in.
func (p Port) String() string { return fmt.Sprintf("%d/tcp/%s", p.Number, p.Direction) }

// Bytes is a size in bytes.
type Bytes int64

// String returns the size for people, in binary units with one decimal.
func (b Bytes) String() string {
	const unit = 1024
	if -unit < b && b < unit {
		return fmt.Sprintf("%d B", int64(b))
	}
	value, exp := float64(b)/unit, 0
	// What would be rounded to 1024.0 is one of the next unit.
	for math.Abs(value) >= unit-0.05 && exp < 5 {
		value /= unit
		exp++
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTPE"[exp])
}

// Seconds is a duration on the wire: a whole number of seconds.
type Seconds int64

// Duration converts to the type that code computes with.
func (s Seconds) Duration() time.Duration { return time.Duration(s) * time.Second }

// String returns the duration for people, such as 1h30m0s.
func (s Seconds) String() string { return s.Duration().String() }

package skyport

import (
	"slices"
	"strconv"
	"time"
)

// JobState is the letter of a job's state: a contract with existing terminals.
type JobState string

const (
	JobQueued       JobState = "Q" // waits for a decision of the scheduler
	JobWaiting      JobState = "W" // has a partition; waits for its nodes
	JobTransferring JobState = "T" // inputs go up, or results come down
	JobRunning      JobState = "R" // the script runs
	JobFinished     JobState = "F" // the script ended, whatever its exit code
	JobCanceled     JobState = "C" // somebody canceled it
	JobFailed       JobState = "E" // Sky Port or the site failed, not the script
)

// jobMoves is the only table of legal moves of a job. A move to the same state
// (new details) is always legal and not listed.
var jobMoves = map[JobState][]JobState{
	JobQueued:       {JobWaiting, JobCanceled, JobFailed},
	JobWaiting:      {JobTransferring, JobRunning, JobQueued, JobCanceled, JobFailed},
	JobTransferring: {JobRunning, JobFinished, JobQueued, JobCanceled, JobFailed},
	JobRunning:      {JobTransferring, JobFinished, JobQueued, JobCanceled, JobFailed},
	JobFinished:     {JobQueued},
	JobCanceled:     {JobQueued},
	JobFailed:       {JobQueued},
}

// CanMove says whether a job may go from s to the state to.
func (s JobState) CanMove(to JobState) bool { return slices.Contains(jobMoves[s], to) }

// Terminal says whether nothing more happens to a job in this state by itself.
func (s JobState) Terminal() bool {
	return s == JobFinished || s == JobCanceled || s == JobFailed
}

// Valid says whether s is one of the seven states.
func (s JobState) Valid() bool { _, ok := jobMoves[s]; return ok }

// Word returns the state as a word for people, such as "queued".
func (s JobState) Word() string {
	switch s {
	case JobQueued:
		return "queued"
	case JobWaiting:
		return "waiting"
	case JobTransferring:
		return "transferring"
	case JobRunning:
		return "running"
	case JobFinished:
		return "finished"
	case JobCanceled:
		return "canceled"
	case JobFailed:
		return "error"
	}
	return string(s)
}

// JobStates lists the states in the order of a job's life.
func JobStates() []JobState {
	return []JobState{JobQueued, JobWaiting, JobTransferring, JobRunning, JobFinished, JobCanceled, JobFailed}
}

// Details are the beginnings of a job's details line that existing terminals
// recognise (their progress bars read them). More text may follow each.
const (
	DetailsQueued             = "Waiting in the queue"
	DetailsNewPartition       = "Initiate a new partition"
	DetailsPartitionNotYet    = "Partition has not been created yet"
	DetailsPartitionSpawned   = "Partition spawned"
	DetailsWaitingForSSH      = "Waiting for ssh provisioning port"
	DetailsUploadingWorker    = "Uploading the worker"
	DetailsSecuredTunnel      = "Start secured tunnel"
	DetailsConnected          = "Sky Port connected"
	DetailsPortReadiness      = "Waiting for Sky Port port readiness"
	DetailsDataUploading      = "Uploading data"
	DetailsDataUploaded       = "Data uploaded"
	DetailsRunning            = "Running"
	DetailsResultsDownloading = "Downloading results"
)

// Job is one piece of user work with its request and where it stands.
type Job struct {
	ID      JobID    `json:"id" doc:"Id of the job" format:"uuid"`
	Number  int64    `json:"number" doc:"Position in the order of submission"`
	Owner   UserID   `json:"owner" doc:"Id of the user who submitted it" format:"uuid"`
	Account string   `json:"account" doc:"Account that pays"`
	Name    string   `json:"name" doc:"Name for people"`
	State   JobState `json:"state" enum:"Q,W,T,R,F,C,E" doc:"State letter"`
	Details string   `json:"details" doc:"What is going on, for people"`
	Request Request  `json:"request" doc:"What the job asks for"`

	Attempt     int           `json:"attempt" doc:"Number of the current attempt, from 1; 0 before the first"`
	Partition   PartitionID   `json:"partition,omitempty" doc:"Partition of the current attempt"`
	Site        string        `json:"site,omitempty" doc:"Site of the current attempt"`
	Flavor      string        `json:"flavor,omitempty" doc:"Flavor of the current attempt's nodes"`
	NodeNames   []string      `json:"node_names" doc:"Nodes of the current attempt, main first"`
	Address     string        `json:"address,omitempty" doc:"Address at which the job's in ports answer, under their own numbers"`
	ExitCode    int           `json:"exit_code" doc:"Exit code of the script; 0 until it ended"`
	Signal      int           `json:"signal" doc:"Signal that ended the script, or 0"`
	Warnings    []string      `json:"warnings,omitempty" doc:"What went less than well, such as a missing output"`
	ResultBytes Bytes         `json:"result_bytes,omitempty" doc:"Size of the outputs that arrived"`
	Inputs      []StagedInput `json:"inputs,omitempty" doc:"Inputs that were staged to core"`
	Retried     int           `json:"retried,omitempty" doc:"New attempts made since the last requeue because a node or a site failed"`
	Misplaced   int           `json:"misplaced,omitempty" doc:"Attempts in a row that ended before the script began"`
	NotBefore   time.Time     `json:"not_before,omitzero" doc:"Is not placed before this moment, after a failure"`
	Origin      string        `json:"origin,omitempty" doc:"Address that the job was submitted from; out ports lead there"`
	Purged      bool          `json:"-"` // to be forgotten as soon as nothing of it is left

	SubmitTime time.Time `json:"submit_time" doc:"When the job was accepted"`
	StartTime  time.Time `json:"start_time,omitzero" doc:"When the script of the current attempt started"`
	EndTime    time.Time `json:"end_time,omitzero" doc:"When the job came to a terminal state"`
}

// Duration is how long the script ran, or has been running by now. It is not
// below zero, though clocks were set back or differ.
func (j *Job) Duration(now time.Time) time.Duration {
	switch {
	case j.StartTime.IsZero():
		return 0
	case j.EndTime.IsZero():
		return max(0, now.Sub(j.StartTime))
	default:
		return max(0, j.EndTime.Sub(j.StartTime))
	}
}

// StagedInput is one input that a terminal staged to core before submitting:
// a file or a directory, known by the hash of its manifest.
type StagedInput struct {
	Name     string `json:"name" doc:"Base name in the work directory"`
	Manifest string `json:"manifest" doc:"Hash of the staged manifest (BLAKE3, hex)"`
	Bytes    Bytes  `json:"bytes" doc:"Size of the content"`
	Files    int    `json:"files" doc:"Number of files"`
}

// Attempt is one run of a job on one partition. It holds its room on the
// partition until it is released, which is when the worker has forgotten it.
type Attempt struct {
	Job       JobID       `json:"job"`
	Number    int         `json:"number"`
	Partition PartitionID `json:"partition"`
	CPUs      int         `json:"cpus" doc:"CPUs held on each node"`
	Memory    Bytes       `json:"memory" doc:"Memory held on each node"`
	GPUs      int         `json:"gpus" doc:"GPUs held on each node"`
	Address   string      `json:"address,omitempty" doc:"Address of the in ports"`
	Phase     Phase       `json:"phase" doc:"How far the attempt has come"`
	ExitCode  int         `json:"exit_code"`
	Signal    int         `json:"signal"`
	Outcome   string      `json:"outcome,omitempty" doc:"Why the attempt ended, when not by its script"`
	Usage     Usage       `json:"usage" doc:"What its processes used"`
	Created   time.Time   `json:"created"`
	Started   time.Time   `json:"started,omitzero"`
	Ended     time.Time   `json:"ended,omitzero"`
}

// Usage sums up the samples of what a run's processes used: average and
// highest. Without samples (Count 0) the rest means nothing.
type Usage struct {
	Count      int     `json:"count" doc:"Number of samples"`
	CPUAvg     float64 `json:"cpu_avg" doc:"Percent of one cpu"`
	CPUMax     float64 `json:"cpu_max" doc:"Percent of one cpu"`
	MemoryAvg  Bytes   `json:"memory_avg"`
	MemoryMax  Bytes   `json:"memory_max"`
	CPUSeconds float64 `json:"cpu_seconds" doc:"CPU time used in all"`
}

// Phase is how far an attempt has come. It only ever grows.
type Phase int

const (
	PhaseAssigned Phase = iota // has room on a partition
	PhaseStaging               // inputs go up
	PhaseStarting              // everything is there; the start was asked for
	PhaseRunning               // the script runs
	PhaseEnded                 // the script ended; results come down
	PhaseDone                  // core has what it wants, the room is free; the worker must forget it
	PhaseReleased              // the worker has forgotten it
)

// String returns the phase as a word.
func (p Phase) String() string {
	words := [...]string{"assigned", "staging", "starting", "running", "ended", "done", "released"}
	if p < 0 || int(p) >= len(words) {
		return "unknown"
	}
	return words[p]
}

// RunName is the name of an attempt on its worker. It is chosen by core, so a
// start that is tried again meets the first one.
func RunName(job JobID, attempt int) string { return string(job) + "." + strconv.Itoa(attempt) }

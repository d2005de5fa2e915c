package skyport

import "time"

// EventKind says what an event tells.
type EventKind string

const (
	EventState    EventKind = "state"    // a job or a partition came to a state
	EventDetails  EventKind = "details"  // same state, new details
	EventTransfer EventKind = "transfer" // a transfer ended: Bytes and Millis say how much and how long
	EventProgress EventKind = "progress" // a transfer goes on; live only, never stored, Seq 0
	EventWarning  EventKind = "warning"  // something went less than well
)

// Event is one thing that happened, in order. Events of jobs and partitions
// share one sequence; a stored event was written in the transaction of the
// move that it tells of.
type Event struct {
	Seq       int64       `json:"seq" doc:"Position in the one order of all events; 0 for live progress"`
	Time      time.Time   `json:"time"`
	Kind      EventKind   `json:"kind" enum:"state,details,transfer,progress,warning"`
	Job       JobID       `json:"job,omitempty"`
	Owner     UserID      `json:"owner,omitempty" doc:"Owner of the job"`
	Attempt   int         `json:"attempt,omitempty"`
	Partition PartitionID `json:"partition,omitempty"`
	State     string      `json:"state,omitempty" doc:"State after the event"`
	Text      string      `json:"text,omitempty" doc:"For people"`
	Transfer  *Transfer   `json:"transfer,omitempty"`
}

// Transfer tells of data on its way.
type Transfer struct {
	Name  string `json:"name" doc:"What is moved: inputs, outputs or worker"`
	Done  Bytes  `json:"done" doc:"Bytes that are there"`
	Total Bytes  `json:"total" doc:"Bytes in all"`
	Wire  Bytes  `json:"wire" doc:"Bytes that crossed the wire"`
	Files int    `json:"files" doc:"Files in all"`
}

// Step is one stretch of a job's life, for its timeline.
type Step struct {
	Name  string    `json:"name" doc:"queued, nodes, upload, run, download or removal"`
	Start time.Time `json:"start"`
	End   time.Time `json:"end,omitzero" doc:"Zero while it goes on"`
	Bytes Bytes     `json:"bytes" doc:"Bytes moved in it"`
	Note  string    `json:"note,omitempty" doc:"Such as: reused a ready partition"`
}

package api

import (
	"context"
	"io"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/transfer"
)

// The words that core and terminals share; see package skyport.
type (
	// User is who calls, as the certificate says.
	User = skyport.User
	// Directive is a keyword with its argument, as a line of the script would say it.
	Directive = skyport.Directive
	// Plan is the normalised job and where it would go now.
	Plan = skyport.Plan
	// LogStream names a log of a job.
	LogStream = skyport.LogStream
	// Metrics sum up what the job used.
	Metrics = skyport.Metrics
	// AvgMax is an average and a maximum.
	AvgMax = skyport.AvgMax
	// Orphan is something at a site that the store does not know, or that
	// should be gone and is not.
	Orphan = skyport.Orphan
)

// The logs of a job.
const (
	Stdout = skyport.Stdout
	Stderr = skyport.Stderr
)

// Backend is all that the API needs of core. Every method answers from the
// store or from memory: none waits for a gate, a node or a transfer. Errors
// carry a [skyport.Code]. Methods that take a job id do not check the owner:
// the API does, with the job that it has read.
type Backend interface {
	CostBackend

	// Submit accepts all submissions or none: when it returns, they are
	// durable. With a key, the same call again returns the same jobs; the same
	// key with another body is CodeKeyReused.
	Submit(ctx context.Context, caller User, key string, subs []Submission) ([]skyport.Job, error)
	// Plan says what Submit would do now, without doing it.
	Plan(ctx context.Context, caller User, sub Submission) (Plan, error)

	Job(ctx context.Context, id skyport.JobID) (skyport.Job, error)
	Jobs(ctx context.Context, q JobQuery) (JobPage, error)
	Script(ctx context.Context, id skyport.JobID) ([]byte, error)
	Attempts(ctx context.Context, id skyport.JobID) ([]skyport.Attempt, error)
	Timeline(ctx context.Context, id skyport.JobID) ([]skyport.Step, error)
	Metrics(ctx context.Context, id skyport.JobID) (Metrics, error)
	// PortsOpen tells which of the job's ports a connection is taken on now.
	PortsOpen(id skyport.JobID) map[int]bool

	// Cancel moves the job to C at once; what runs is stopped behind it.
	// Canceling a job that has ended is CodeConflict.
	Cancel(ctx context.Context, id skyport.JobID) error
	// Requeue moves the job to Q at once, from any state, as a new attempt.
	Requeue(ctx context.Context, id skyport.JobID) error
	// Purge cancels the jobs, removes what they have and forgets them.
	Purge(ctx context.Context, ids []skyport.JobID) error

	// Events returns stored events after q.After, oldest first, at most q.Limit.
	Events(ctx context.Context, q EventQuery) ([]skyport.Event, error)
	// LastEvent is the seq of the newest stored event, or 0: the place where a
	// stream that begins from now begins.
	LastEvent(ctx context.Context) (int64, error)
	// Subscribe sends every event that matches q and happens from now on, live
	// progress included. A reader that falls behind loses its channel (it is
	// closed) and must resume with Events. Stop must be called.
	Subscribe(q EventQuery) (events <-chan skyport.Event, stop func())

	// Log opens what core has of a log. CodeNotFound: there is nothing yet.
	Log(ctx context.Context, id skyport.JobID, attempt int, stream LogStream) (Log, error)

	// Results opens the outputs that arrived; CodeNotFound before.
	Results(ctx context.Context, id skyport.JobID) (Results, error)
	// Staging is where a user's inputs are kept until jobs need them.
	Staging(user skyport.UserID) (*transfer.Depot, error)

	Sites(ctx context.Context) ([]skyport.Site, error)
	Flavors(ctx context.Context) ([]skyport.Flavor, error)
	Images(ctx context.Context) ([]skyport.Image, error)
	Accounts(ctx context.Context) ([]skyport.Account, error)
	Partitions(ctx context.Context, all bool) ([]skyport.Partition, error)

	// Reach is the way to the nodes that a job is on now: CodeConflict without
	// any, CodeUnavailable while they do not answer.
	Reach(id skyport.JobID) (Reach, error)
	// ReachPartition is the way to the nodes of a partition; CodeNotFound when
	// there is none.
	ReachPartition(id skyport.PartitionID) (Reach, error)
	// UsersOf tells whose jobs hold a partition now or, when none does, whose was
	// the last one that did.
	UsersOf(ctx context.Context, id skyport.PartitionID) ([]skyport.UserID, error)

	// Secrets of a user, sorted by kind and name, without their values.
	Secrets(ctx context.Context, owner skyport.UserID) ([]skyport.Secret, error)
	Secret(ctx context.Context, owner skyport.UserID, kind, name string) (skyport.Secret, error)
	// PutSecret keeps a value, sealed, in place of the one before.
	PutSecret(ctx context.Context, owner skyport.UserID, kind, name string, value SecretValue) (skyport.Secret, error)
	DeleteSecret(ctx context.Context, owner skyport.UserID, kind, name string) error

	// Sweep compares a site, or with an empty name all, with the store and removes
	// what the store does not know; dry only tells. CodeUnknownSite when there is
	// no such site.
	Sweep(ctx context.Context, site string, dry bool) ([]Orphan, error)
	// Ready says why core cannot work properly now, or nil.
	Ready(ctx context.Context) error
}

// Submission is one job to be.
type Submission struct {
	Script     []byte
	Directives []Directive // override those of the script
	Inputs     []skyport.StagedInput
	// ReadPaths allows input paths of core's own machine: the API sets it for
	// scripts posted to /user/job; core still refuses unless it runs as the caller.
	ReadPaths bool
	// Address is where the submission came from, for out ports.
	Address string
}

// JobQuery selects jobs. The zero value of a field does not restrict.
type JobQuery struct {
	Owner     skyport.UserID
	States    []skyport.JobState
	Account   string
	Site      string
	Name      string // substring of the name
	IDPrefix  string // beginning of the id, in any case
	Partition skyport.PartitionID
	Ascending bool // oldest first; default newest first
	Limit     int
	Cursor    string // JobPage.Next of the page before
}

// JobPage is one page of a list.
type JobPage struct {
	Jobs []skyport.Job
	Next string // empty on the last page
}

// EventQuery selects events.
type EventQuery struct {
	Owner skyport.UserID
	Job   skyport.JobID
	After int64
	Limit int
}

// Log is what core has of a log. The file grows while the job runs.
type Log interface {
	io.ReaderAt
	io.Closer
	// Size tells the size now, whether more may come, and a channel that is
	// closed when either changes.
	Size() (size int64, more bool, changed <-chan struct{})
}

// Results are the outputs of a job, as a source of a transfer.
type Results interface {
	transfer.Source
	Missing() []string
}

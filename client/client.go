package client

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"time"

	"github.com/openworkload/skyport"
)

// Options say where core is and who calls.
type Options struct {
	// URL of core, such as https://localhost:8443 (the default).
	URL string
	// CAFile holds the certificates that core's must chain to, in PEM.
	CAFile string
	// CertFile and KeyFile are the caller's certificate and key, in PEM.
	CertFile, KeyFile string
	// HTTPClient replaces the transport made from the files above.
	HTTPClient *http.Client
	// UserAgent of the calls; default skyport-client.
	UserAgent string
	// Patience is how long a call that may be repeated is tried again while
	// core cannot be reached; default 30 s, negative: tried once. Streams
	// go on until their context ends.
	Patience time.Duration
	// Logger hears of calls that are tried again; nil: silent.
	Logger *slog.Logger
}

// Client speaks to one core as one user.
type Client struct{}

// New checks the options and reads the certificates; it does not connect.
func New(opts Options) (*Client, error) { return nil, errTODO }

// Close drops idle connections. Streams end with their contexts.
func (c *Client) Close() {}

var errTODO = errors.New("not yet")

// Submission is one job to be.
type Submission struct {
	// Script is the job script, at most 16 MiB.
	Script []byte
	// Directives override those of the script.
	Directives []skyport.Directive
	// InputPaths are files and directories of this machine, which are staged
	// to core. Nil: the input files that script and directives name. Their
	// base names are the names in the job's work directory and must differ.
	InputPaths []string
	// Dir is what relative input paths are relative to; empty: the directory
	// of the process.
	Dir string
	// Key makes the submission idempotent over runs of the program: the same
	// key with the same submission is the same job. Empty: a fresh one.
	Key string
	// Progress hears of the staging, if not nil, from one goroutine at a time.
	Progress func(skyport.Transfer)
}

// Submit stages the inputs, submits the job and returns it once it is durable.
func (c *Client) Submit(ctx context.Context, sub Submission) (skyport.Job, error) {
	return skyport.Job{}, errTODO
}

// SubmitBatch submits all jobs or none, at most 1000. The keys of the
// submissions are not used: key is that of the batch; empty: a fresh one.
func (c *Client) SubmitBatch(ctx context.Context, key string, subs []Submission) ([]skyport.Job, error) {
	return nil, errTODO
}

// Plan says what Submit would do now, without doing it. Inputs are not staged.
func (c *Client) Plan(ctx context.Context, sub Submission) (skyport.Plan, error) {
	return skyport.Plan{}, errTODO
}

// JobFilter selects jobs. The zero value of a field does not restrict.
type JobFilter struct {
	States    []skyport.JobState
	Account   string
	Site      string
	Name      string // substring of the name
	Partition skyport.PartitionID
	Ascending bool // oldest first; default newest first
	Limit     int  // most jobs in all; 0: every one
}

// Jobs yields the caller's jobs, page by page as they are consumed. It ends at
// the first error.
func (c *Client) Jobs(ctx context.Context, filter JobFilter) iter.Seq2[skyport.Job, error] {
	return func(yield func(skyport.Job, error) bool) { yield(skyport.Job{}, errTODO) }
}

// Job returns one job.
func (c *Client) Job(ctx context.Context, id skyport.JobID) (skyport.Job, error) {
	return skyport.Job{}, errTODO
}

// Find returns the one job whose id begins with prefix, for what people type:
// CodeNotFound when there is none, CodeConflict when there are several.
func (c *Client) Find(ctx context.Context, prefix string) (skyport.Job, error) {
	return skyport.Job{}, errTODO
}

// Script returns the script of a job as it was submitted.
func (c *Client) Script(ctx context.Context, id skyport.JobID) ([]byte, error) { return nil, errTODO }

// Attempts returns the runs of a job, oldest first.
func (c *Client) Attempts(ctx context.Context, id skyport.JobID) ([]skyport.Attempt, error) {
	return nil, errTODO
}

// Timeline returns the stretches of a job's life with durations and bytes.
func (c *Client) Timeline(ctx context.Context, id skyport.JobID) ([]skyport.Step, error) {
	return nil, errTODO
}

// Metrics sums up what a job used.
func (c *Client) Metrics(ctx context.Context, id skyport.JobID) (skyport.Metrics, error) {
	return skyport.Metrics{}, errTODO
}

// Ports returns the forwarded ports of a job and where they answer.
func (c *Client) Ports(ctx context.Context, id skyport.JobID) ([]skyport.JobPort, error) {
	return nil, errTODO
}

// Cancel moves a job to C. A job that has ended is CodeConflict.
func (c *Client) Cancel(ctx context.Context, id skyport.JobID) (skyport.Job, error) {
	return skyport.Job{}, errTODO
}

// Requeue moves a job to Q, whatever its state, as a new attempt.
func (c *Client) Requeue(ctx context.Context, id skyport.JobID) (skyport.Job, error) {
	return skyport.Job{}, errTODO
}

// Purge cancels a job, removes what it has and forgets it.
func (c *Client) Purge(ctx context.Context, id skyport.JobID) error { return errTODO }

// PurgeAll purges the caller's jobs that the filter selects and returns how
// many. Limit and Ascending of the filter are not used.
func (c *Client) PurgeAll(ctx context.Context, filter JobFilter) (int, error) { return 0, errTODO }

// Wait returns the job once it has come to a terminal state. It hears of it by
// an event, and goes on over restarts of core until the context ends.
func (c *Client) Wait(ctx context.Context, id skyport.JobID) (skyport.Job, error) {
	return skyport.Job{}, errTODO
}

// EventFilter selects events: those of one job, or of all the caller's.
type EventFilter struct {
	Job skyport.JobID
}

// FromNow as the position of Events skips what is stored.
const FromNow int64 = -1

// Events yields the caller's events after a position (0: all stored ones,
// FromNow: none), then those that happen, live progress included, until the
// context ends. Stored events come in order, each once, over restarts of core.
// It ends at the first error that trying again cannot mend.
func (c *Client) Events(ctx context.Context, filter EventFilter, after int64) iter.Seq2[skyport.Event, error] {
	return func(yield func(skyport.Event, error) bool) { yield(skyport.Event{}, errTODO) }
}

// StoredEvents yields the stored events after a position and ends.
func (c *Client) StoredEvents(ctx context.Context, filter EventFilter, after int64) iter.Seq2[skyport.Event, error] {
	return func(yield func(skyport.Event, error) bool) { yield(skyport.Event{}, errTODO) }
}

// LogOptions say which part of a log to read.
type LogOptions struct {
	Follow  bool  // goes on until the log ends
	Attempt int   // 0: the current one
	Offset  int64 // skip so many bytes
	Tail    int   // only the last so many lines; not with Offset
}

// Logs opens a log of a job. With Follow it waits for a log that has not
// begun, dials again after a lost connection and continues at the byte where
// it was. Without, CodeNotFound says that there is nothing yet. Close it.
func (c *Client) Logs(ctx context.Context, id skyport.JobID, stream skyport.LogStream, opts LogOptions) (io.ReadCloser, error) {
	return nil, errTODO
}

// ResultList says which outputs of a job arrived; CodeNotFound before.
func (c *Client) ResultList(ctx context.Context, id skyport.JobID) (skyport.Results, error) {
	return skyport.Results{}, errTODO
}

// Results downloads the outputs of a job into a directory, which is made when
// it is not there. What lies there already is not sent again; every file is
// checked and comes in place atomically. Progress may be nil; it is called
// from one goroutine at a time.
func (c *Client) Results(ctx context.Context, id skyport.JobID, dir string, progress func(skyport.Transfer)) (skyport.Results, error) {
	return skyport.Results{}, errTODO
}

// ResultFile opens one file of the results. Close it.
func (c *Client) ResultFile(ctx context.Context, id skyport.JobID, path string) (io.ReadCloser, error) {
	return nil, errTODO
}

// Sites returns the sites that jobs may run at.
func (c *Client) Sites(ctx context.Context) ([]skyport.Site, error) { return nil, errTODO }

// Flavors returns the flavors of all sites.
func (c *Client) Flavors(ctx context.Context) ([]skyport.Flavor, error) { return nil, errTODO }

// Images returns the images of all sites.
func (c *Client) Images(ctx context.Context) ([]skyport.Image, error) { return nil, errTODO }

// Nodes returns the nodes of the partitions that there are.
func (c *Client) Nodes(ctx context.Context) ([]skyport.NodeStatus, error) { return nil, errTODO }

// Accounts returns the accounts that the caller may spend from.
func (c *Client) Accounts(ctx context.Context) ([]skyport.Account, error) { return nil, errTODO }

// Partitions returns the partitions that there are; with all, also those that
// were deleted.
func (c *Client) Partitions(ctx context.Context, all bool) ([]skyport.Partition, error) {
	return nil, errTODO
}

// Sweep compares the sites with the store and removes what the store does not
// know; dry only tells.
func (c *Client) Sweep(ctx context.Context, dry bool) ([]skyport.Orphan, error) { return nil, errTODO }

// Whoami returns the user that core takes the caller for.
func (c *Client) Whoami(ctx context.Context) (skyport.User, error) { return skyport.User{}, errTODO }

// Version returns the version of core.
func (c *Client) Version(ctx context.Context) (skyport.Version, error) {
	return skyport.Version{}, errTODO
}

// Ready says why core cannot work properly now, or nil. It is tried once.
func (c *Client) Ready(ctx context.Context) error { return errTODO }

package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/openworkload/skyport"
)

// JobFilter selects jobs. The zero value of a field does not restrict.
type JobFilter struct {
	States    []skyport.JobState
	Account   string
	Site      string
	Name      string // substring of the name
	IDPrefix  string // beginning of the id, in any case
	Partition skyport.PartitionID
	Ascending bool // oldest first; default newest first
	Limit     int  // most jobs in all; 0: every one
}

func (f JobFilter) query() url.Values {
	q := url.Values{}
	letters := make([]string, len(f.States))
	for i, s := range f.States {
		letters[i] = string(s)
	}
	for name, value := range map[string]string{
		"state":     strings.Join(letters, ","),
		"account":   f.Account,
		"site":      f.Site,
		"name":      f.Name,
		"partition": string(f.Partition),
		"id":        f.IDPrefix,
	} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return q
}

// pageSize is how many jobs one call asks for; core may give fewer.
const pageSize = 1000

// Jobs yields the caller's jobs, page by page as they are consumed. It ends at
// the first error.
func (c *Client) Jobs(ctx context.Context, filter JobFilter) iter.Seq2[skyport.Job, error] {
	return func(yield func(skyport.Job, error) bool) {
		query, left := filter.query(), filter.Limit
		if filter.Ascending {
			query.Set("sort", "number")
		}
		for {
			size := pageSize
			if filter.Limit > 0 {
				size = min(left, size)
			}
			query.Set("limit", strconv.Itoa(size))
			var page struct {
				Jobs []skyport.Job `json:"jobs"`
				Next string        `json:"next"`
			}
			if _, err := c.do(ctx, call{method: http.MethodGet, path: "/v1/jobs", query: query, out: &page}); err != nil {
				yield(skyport.Job{}, err)
				return
			}
			for _, job := range page.Jobs {
				if !yield(job, nil) {
					return
				}
			}
			left -= len(page.Jobs)
			if page.Next == "" || filter.Limit > 0 && left <= 0 {
				return
			}
			query.Set("cursor", page.Next)
		}
	}
}

// Job returns one job.
func (c *Client) Job(ctx context.Context, id skyport.JobID) (skyport.Job, error) {
	var job skyport.Job
	_, err := c.do(ctx, call{method: http.MethodGet, path: jobPath(id), out: &job})
	return job, err
}

// Find returns the one job whose id begins with prefix, for what people type:
// CodeNotFound when there is none, CodeConflict when there are several.
func (c *Client) Find(ctx context.Context, prefix string) (skyport.Job, error) {
	if id, err := skyport.ParseJobID(prefix); err == nil {
		return c.Job(ctx, id)
	}
	var found *skyport.Job
	for job, err := range c.Jobs(ctx, JobFilter{IDPrefix: prefix, Limit: 2}) {
		if err != nil {
			return skyport.Job{}, err
		}
		if prefix == "" {
			break
		}
		if found != nil {
			return skyport.Job{}, skyport.Errorf(skyport.CodeConflict, "several jobs begin with %q: %s and %s", prefix, found.ID, job.ID).
				WithHint("give more characters of the id")
		}
		found = &job
	}
	if found == nil {
		return skyport.Job{}, skyport.Errorf(skyport.CodeNotFound, "no job begins with %q", skyport.Abbreviate(prefix, 60)).
			WithHint("list jobs with: skyport jobs")
	}
	return *found, nil
}

// Script returns the script of a job as it was submitted.
func (c *Client) Script(ctx context.Context, id skyport.JobID) ([]byte, error) {
	var script []byte
	_, err := c.do(ctx, call{method: http.MethodGet, path: jobPath(id, "script"), out: &script})
	return script, err
}

// Attempts returns the runs of a job, oldest first.
func (c *Client) Attempts(ctx context.Context, id skyport.JobID) ([]skyport.Attempt, error) {
	var answer struct {
		Attempts []skyport.Attempt `json:"attempts"`
	}
	_, err := c.do(ctx, call{method: http.MethodGet, path: jobPath(id, "attempts"), out: &answer})
	return answer.Attempts, err
}

// Timeline returns the stretches of a job's life with durations and bytes.
func (c *Client) Timeline(ctx context.Context, id skyport.JobID) ([]skyport.Step, error) {
	var answer struct {
		Steps []skyport.Step `json:"steps"`
	}
	_, err := c.do(ctx, call{method: http.MethodGet, path: jobPath(id, "timeline"), out: &answer})
	return answer.Steps, err
}

// Metrics sums up what a job used.
func (c *Client) Metrics(ctx context.Context, id skyport.JobID) (skyport.Metrics, error) {
	var m skyport.Metrics
	_, err := c.do(ctx, call{method: http.MethodGet, path: jobPath(id, "metrics"), out: &m})
	return m, err
}

// Ports returns the forwarded ports of a job and where they answer.
func (c *Client) Ports(ctx context.Context, id skyport.JobID) ([]skyport.JobPort, error) {
	var answer struct {
		Ports []skyport.JobPort `json:"ports"`
	}
	_, err := c.do(ctx, call{method: http.MethodGet, path: jobPath(id, "ports"), out: &answer})
	return answer.Ports, err
}

// Cancel moves a job to C. A job that has ended is CodeConflict.
func (c *Client) Cancel(ctx context.Context, id skyport.JobID) (skyport.Job, error) {
	var job skyport.Job
	tries, err := c.do(ctx, call{method: http.MethodPost, path: jobPath(id, "cancel"), out: &job})
	if tries > 1 && skyport.CodeOf(err) == skyport.CodeConflict && err != nil {
		// Perhaps the try whose answer was lost did it.
		if now, again := c.Job(ctx, id); again == nil && now.State == skyport.JobCanceled {
			return now, nil
		}
	}
	return job, err
}

// Requeue moves a job to Q, whatever its state, as a new attempt. It is tried
// once: a second try could make a second attempt.
func (c *Client) Requeue(ctx context.Context, id skyport.JobID) (skyport.Job, error) {
	var job skyport.Job
	_, err := c.do(ctx, call{method: http.MethodPost, path: jobPath(id, "requeue"), out: &job, once: true})
	return job, err
}

// Purge cancels a job, removes what it has and forgets it.
func (c *Client) Purge(ctx context.Context, id skyport.JobID) error {
	tries, err := c.do(ctx, call{method: http.MethodDelete, path: jobPath(id)})
	if tries > 1 && skyport.CodeOf(err) == skyport.CodeNotFound {
		return nil // the try whose answer was lost did it
	}
	return err
}

// PurgeAll purges the caller's jobs that the filter selects and returns how
// many. Limit and Ascending of the filter are not used.
func (c *Client) PurgeAll(ctx context.Context, filter JobFilter) (int, error) {
	var answer struct {
		Purged int `json:"purged"`
	}
	_, err := c.do(ctx, call{method: http.MethodDelete, path: "/v1/jobs", query: filter.query(), out: &answer})
	return answer.Purged, err
}

// jobPath is the route of a job, or of something of it.
func jobPath(id skyport.JobID, rest ...string) string {
	path := "/v1/jobs/" + url.PathEscape(string(id))
	for _, part := range rest {
		path += "/" + part
	}
	return path
}

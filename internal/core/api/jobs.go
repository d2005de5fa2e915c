package api

import (
	"cmp"
	"context"
	"encoding/base64"
	"net"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/openworkload/skyport"
)

// BatchLimit is how many jobs one batch may carry.
const BatchLimit = 1000

// jobRoutes are /v1/jobs.
func (a *api) jobRoutes() {
	jobs := []string{"Jobs"}
	// JSON escapes at worst six bytes for one.
	submitBytes := 6*a.MaxScript + 1<<20

	operation(a, huma.Operation{
		OperationID: "submit-job", Method: http.MethodPost, Path: "/v1/jobs", Tags: jobs,
		Summary: "Submit a job", DefaultStatus: http.StatusCreated, MaxBodyBytes: submitBytes,
		Description: "The answer comes when the job is durable. With an Idempotency-Key the same call again " +
			"answers with the same job.",
	}, func(ctx context.Context, in *struct {
		SubmitHeader
		Body submission
	},
	) (*jobAnswer, error) {
		jobs, err := a.submit(ctx, in.SubmitHeader, []submission{in.Body})
		if err != nil {
			return nil, err
		}
		return &jobAnswer{Body: jobs[0], Location: "/v1/jobs/" + string(jobs[0].ID)}, nil
	})

	operation(a, huma.Operation{
		OperationID: "submit-batch", Method: http.MethodPost, Path: "/v1/jobs/batch", Tags: jobs,
		Summary: "Submit many jobs, all or none", DefaultStatus: http.StatusCreated, MaxBodyBytes: submitBytes,
	}, func(ctx context.Context, in *struct {
		SubmitHeader
		Body struct {
			Jobs []submission `json:"jobs" minItems:"1" maxItems:"1000"`
		}
	},
	) (*jobsAnswer, error) {
		jobs, err := a.submit(ctx, in.SubmitHeader, in.Body.Jobs)
		if err != nil {
			return nil, err
		}
		out := &jobsAnswer{}
		out.Body.Jobs = jobs
		return out, nil
	})

	operation(a, huma.Operation{
		OperationID: "plan-job", Method: http.MethodPost, Path: "/v1/jobs/plan", Tags: jobs,
		Summary: "Say what submitting would do now, without doing it", MaxBodyBytes: submitBytes,
	}, func(ctx context.Context, in *struct {
		Body submission
	},
	) (*body[Plan], error) {
		sub, err := a.submission(ctx, in.Body)
		if err != nil {
			return nil, err
		}
		return answerWith(a.Backend.Plan(ctx, callerOf(ctx), sub))
	})

	operation(a, huma.Operation{
		OperationID: "list-jobs", Method: http.MethodGet, Path: "/v1/jobs", Tags: jobs,
		Summary: "List the caller's jobs, page by page",
	}, func(ctx context.Context, in *struct {
		JobFilter
		Sort   string `query:"sort" enum:"number,-number" default:"-number" doc:"Order of submission: oldest or newest first"`
		Limit  int    `query:"limit" minimum:"1" default:"100" doc:"Most jobs on the page; core may give fewer"`
		Cursor string `query:"cursor" maxLength:"200" doc:"next of the page before"`
	},
	) (*jobsAnswer, error) {
		query := in.query(callerOf(ctx))
		query.Ascending = in.Sort == "number"
		query.Limit = min(in.Limit, a.MaxLimit)
		query.Cursor = in.Cursor
		page, err := a.Backend.Jobs(ctx, query)
		if err != nil {
			return nil, err
		}
		out := &jobsAnswer{}
		out.Body.Jobs, out.Body.Next = notNil(page.Jobs), page.Next
		return out, nil
	})

	operation(a, huma.Operation{
		OperationID: "purge-jobs", Method: http.MethodDelete, Path: "/v1/jobs", Tags: jobs,
		Summary:     "Purge the caller's jobs",
		Description: "Cancels the jobs that the filter selects (without one: all), removes what they have and forgets them.",
	}, func(ctx context.Context, in *JobFilter) (*body[purged], error) {
		ids, err := a.purge(ctx, in.query(callerOf(ctx)))
		return &body[purged]{Body: purged{Purged: len(ids)}}, err
	})

	operation(a, huma.Operation{
		OperationID: "get-job", Method: http.MethodGet, Path: "/v1/jobs/{id}", Tags: jobs,
		Summary: "One job",
	}, func(ctx context.Context, _ *jobPath) (*jobAnswer, error) {
		return &jobAnswer{Body: jobOf(ctx)}, nil
	})

	operation(a, huma.Operation{
		OperationID: "purge-job", Method: http.MethodDelete, Path: "/v1/jobs/{id}", Tags: jobs,
		Summary: "Cancel a job, remove what it has and forget it", DefaultStatus: http.StatusNoContent,
	}, func(ctx context.Context, _ *jobPath) (*struct{}, error) {
		return nil, a.Backend.Purge(ctx, []skyport.JobID{jobOf(ctx).ID})
	})

	operation(a, huma.Operation{
		OperationID: "cancel-job", Method: http.MethodPost, Path: "/v1/jobs/{id}/cancel", Tags: jobs,
		Summary: "Cancel a job", Description: "It is in state C at once; what runs is stopped behind it.",
	}, func(ctx context.Context, _ *jobPath) (*jobAnswer, error) {
		return a.changed(ctx, a.Backend.Cancel)
	})

	operation(a, huma.Operation{
		OperationID: "requeue-job", Method: http.MethodPost, Path: "/v1/jobs/{id}/requeue", Tags: jobs,
		Summary: "Run a job again as a new attempt", Description: "From any state; it is in state Q at once.",
	}, func(ctx context.Context, _ *jobPath) (*jobAnswer, error) {
		return a.changed(ctx, a.Backend.Requeue)
	})

	operation(a, huma.Operation{
		OperationID: "get-script", Method: http.MethodGet, Path: "/v1/jobs/{id}/script", Tags: jobs,
		Summary: "The script as it was submitted",
	}, func(ctx context.Context, _ *jobPath) (*textAnswer, error) {
		script, err := a.Backend.Script(ctx, jobOf(ctx).ID)
		return &textAnswer{ContentType: textPlain, Body: script}, err
	})

	operation(a, huma.Operation{
		OperationID: "list-attempts", Method: http.MethodGet, Path: "/v1/jobs/{id}/attempts", Tags: jobs,
		Summary: "The runs of a job, oldest first",
	}, func(ctx context.Context, _ *jobPath) (*body[attempts], error) {
		list, err := a.Backend.Attempts(ctx, jobOf(ctx).ID)
		return &body[attempts]{Body: attempts{notNil(list)}}, err
	})

	operation(a, huma.Operation{
		OperationID: "get-timeline", Method: http.MethodGet, Path: "/v1/jobs/{id}/timeline", Tags: jobs,
		Summary: "The stretches of a job's life with durations and bytes",
	}, func(ctx context.Context, _ *jobPath) (*body[timeline], error) {
		list, err := a.Backend.Timeline(ctx, jobOf(ctx).ID)
		return &body[timeline]{Body: timeline{notNil(list)}}, err
	})

	operation(a, huma.Operation{
		OperationID: "get-metrics", Method: http.MethodGet, Path: "/v1/jobs/{id}/metrics", Tags: jobs,
		Summary: "What a job used; null without samples",
	}, func(ctx context.Context, _ *jobPath) (*body[Metrics], error) {
		return answerWith(a.Backend.Metrics(ctx, jobOf(ctx).ID))
	})

	operation(a, huma.Operation{
		OperationID: "list-ports", Method: http.MethodGet, Path: "/v1/jobs/{id}/ports", Tags: jobs,
		Summary: "The forwarded ports of a job and where they answer",
	}, func(ctx context.Context, _ *jobPath) (*body[ports], error) {
		job := jobOf(ctx)
		return &body[ports]{Body: ports{portsOf(&job, a.Backend.PortsOpen(job.ID))}}, nil
	})
}

// The shapes of /v1/jobs.
type (
	submission struct {
		Script       string                `json:"script,omitempty" doc:"The job script"`
		ScriptBase64 string                `json:"script_base64,omitempty" doc:"The job script, when it is no valid UTF-8" contentEncoding:"base64"`
		Directives   []Directive           `json:"directives,omitempty" maxItems:"1000" doc:"Override those of the script"`
		Inputs       []skyport.StagedInput `json:"inputs,omitempty" maxItems:"10000" doc:"Inputs that were staged before"`
	}
	SubmitHeader struct {
		Key string `header:"Idempotency-Key" maxLength:"255" doc:"Makes the call safe to repeat"`
	}
	jobPath struct {
		ID string `path:"id" doc:"Id of the job" format:"uuid"`
	}
	JobFilter struct {
		State     []skyport.JobState `query:"state" enum:"Q,W,T,R,F,C,E" doc:"State letters, comma-separated"`
		Account   string             `query:"account" maxLength:"200" doc:"Account that pays"`
		Site      string             `query:"site" maxLength:"200" doc:"Site of the current attempt"`
		Name      string             `query:"name" maxLength:"200" doc:"Part of the name"`
		Partition string             `query:"partition" maxLength:"36" doc:"Id of the partition"`
		IDPrefix  string             `query:"id" maxLength:"36" doc:"Beginning of the id"`
	}
	jobAnswer struct {
		Location string `header:"Location"`
		Body     skyport.Job
	}
	jobsAnswer struct {
		Body struct {
			Jobs []skyport.Job `json:"jobs"`
			Next string        `json:"next,omitempty" doc:"Cursor of the next page; absent on the last"`
		}
	}
	textAnswer struct {
		ContentType string `header:"Content-Type"`
		Body        []byte
	}
	body[T any] struct{ Body T }

	purged struct {
		Purged int `json:"purged" doc:"Number of jobs"`
	}
	attempts struct {
		Attempts []skyport.Attempt `json:"attempts"`
	}
	timeline struct {
		Steps []skyport.Step `json:"steps"`
	}
	ports struct {
		Ports []skyport.JobPort `json:"ports"`
	}
)

func (a *api) submit(ctx context.Context, header SubmitHeader, in []submission) ([]skyport.Job, error) {
	key, err := idempotencyKey(header.Key)
	if err != nil {
		return nil, err
	}
	subs := make([]Submission, len(in))
	for i, s := range in {
		if subs[i], err = a.submission(ctx, s); err != nil {
			if len(in) > 1 {
				err = skyport.Errorf(skyport.CodeOf(err), "job %d of %d: %w", i+1, len(in), err).WithHint("%s", skyport.HintOf(err))
			}
			return nil, err
		}
	}
	return a.Backend.Submit(ctx, callerOf(ctx), key, subs)
}

func (a *api) submission(ctx context.Context, in submission) (Submission, error) {
	sub := Submission{Directives: in.Directives, Inputs: in.Inputs, Address: callOf(ctx).address()}
	switch {
	case in.Script != "" && in.ScriptBase64 != "":
		return sub, skyport.Errorf(skyport.CodeInvalid, "both script and script_base64 are given")
	case in.Script != "":
		sub.Script = []byte(in.Script)
	case in.ScriptBase64 != "":
		script, err := base64.StdEncoding.DecodeString(in.ScriptBase64)
		if err != nil {
			return sub, skyport.Errorf(skyport.CodeInvalid, "script_base64 cannot be decoded: %w", err)
		}
		sub.Script = script
	default:
		return sub, skyport.Errorf(skyport.CodeInvalid, "the job script is empty")
	}
	if int64(len(sub.Script)) > a.MaxScript {
		return sub, a.errScriptTooLarge()
	}
	return sub, nil
}

func (f *JobFilter) query(caller User) JobQuery {
	return JobQuery{
		Owner: caller.ID, States: f.State, Account: f.Account, Site: f.Site, Name: f.Name,
		Partition: skyport.PartitionID(f.Partition), IDPrefix: f.IDPrefix,
	}
}

// purge purges all jobs that a query selects, in steps that each are small.
func (a *api) purge(ctx context.Context, query JobQuery) ([]skyport.JobID, error) {
	var all []skyport.JobID
	query.Limit = 500
	for {
		page, err := a.Backend.Jobs(ctx, query)
		if err != nil {
			return nil, err
		}
		ids := make([]skyport.JobID, len(page.Jobs))
		for i := range page.Jobs {
			ids[i] = page.Jobs[i].ID
		}
		if len(ids) > 0 {
			if err := a.Backend.Purge(ctx, ids); err != nil {
				return nil, err
			}
		}
		all = append(all, ids...)
		if page.Next == "" {
			return all, nil
		}
		query.Cursor = page.Next
	}
}

// changed does something to the job of the route and answers with it as it is then.
func (a *api) changed(ctx context.Context, do func(context.Context, skyport.JobID) error) (*jobAnswer, error) {
	id := jobOf(ctx).ID
	if err := do(ctx, id); err != nil {
		return nil, err
	}
	job, err := a.Backend.Job(ctx, id)
	return &jobAnswer{Body: job}, err
}

func portsOf(job *skyport.Job, open map[int]bool) []skyport.JobPort {
	list := make([]skyport.JobPort, 0, len(job.Request.Ports))
	for _, p := range job.Request.Ports {
		port := skyport.JobPort{Number: p.Number, Direction: p.Direction, Open: open[p.Number]}
		host := job.Address
		if p.Direction == skyport.Out {
			host = cmp.Or(job.Request.SubmissionAddress, job.Origin)
		}
		if host != "" {
			port.Address = net.JoinHostPort(host, strconv.Itoa(p.Number))
		}
		list = append(list, port)
	}
	return list
}

func answerWith[T any](v T, err error) (*body[T], error) { return &body[T]{Body: v}, err }

// notNil makes an empty list of none: lists are never null in our answers.
func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

package client

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/transfer"
	"github.com/openworkload/skyport/jobscript"
)

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
	body, err := c.stage(ctx, sub)
	if err != nil {
		return skyport.Job{}, err
	}
	var job skyport.Job
	_, err = c.do(ctx, call{
		method: http.MethodPost, path: "/v1/jobs", header: keyHeader(sub.Key), in: body, out: &job,
	})
	return job, err
}

// SubmitBatch submits all jobs or none, at most 1000. The keys of the
// submissions are not used: key is that of the batch; empty: a fresh one.
func (c *Client) SubmitBatch(ctx context.Context, key string, subs []Submission) ([]skyport.Job, error) {
	var in struct {
		Jobs []submissionBody `json:"jobs"`
	}
	for _, sub := range subs {
		body, err := c.stage(ctx, sub)
		if err != nil {
			return nil, err
		}
		in.Jobs = append(in.Jobs, body)
	}
	var answer struct {
		Jobs []skyport.Job `json:"jobs"`
	}
	_, err := c.do(ctx, call{
		method: http.MethodPost, path: "/v1/jobs/batch", header: keyHeader(key), in: in, out: &answer,
	})
	return answer.Jobs, err
}

// Plan says what Submit would do now, without doing it. Inputs are not staged.
func (c *Client) Plan(ctx context.Context, sub Submission) (skyport.Plan, error) {
	var plan skyport.Plan
	_, err := c.do(ctx, call{method: http.MethodPost, path: "/v1/jobs/plan", in: bodyOf(sub), out: &plan})
	return plan, err
}

// submissionBody is a submission as core takes it.
type submissionBody struct {
	Script       string                `json:"script,omitempty"`
	ScriptBase64 []byte                `json:"script_base64,omitempty"`
	Directives   []skyport.Directive   `json:"directives,omitempty"`
	Inputs       []skyport.StagedInput `json:"inputs,omitempty"`
}

func bodyOf(sub Submission) submissionBody {
	body := submissionBody{Directives: sub.Directives}
	if utf8.Valid(sub.Script) {
		body.Script = string(sub.Script)
	} else {
		body.ScriptBase64 = sub.Script
	}
	return body
}

// keyHeader makes every submission safe to repeat.
func keyHeader(key string) http.Header {
	if key == "" {
		key = uuid.NewString()
	}
	return http.Header{"Idempotency-Key": {key}}
}

// stage sends to core what of the inputs it does not have yet.
func (c *Client) stage(ctx context.Context, sub Submission) (submissionBody, error) {
	body := bodyOf(sub)
	paths, err := inputPaths(sub)
	if err != nil || len(paths) == 0 {
		return body, err
	}
	names := make(map[string]string, len(paths))
	trees := make([]*transfer.Tree, len(paths))
	total := skyport.Transfer{Name: "inputs"}
	for i, path := range paths {
		name := filepath.Base(path)
		if other, taken := names[name]; taken {
			return body, skyport.Errorf(skyport.CodeInvalid, "inputs %s and %s would both be %q in the work directory", other, path, name).
				WithHint("rename one of them")
		}
		names[name] = path
		if trees[i], err = transfer.ScanInputs(ctx, []string{path}); err != nil {
			return body, err
		}
		m := trees[i].Manifest()
		body.Inputs = append(body.Inputs, skyport.StagedInput{Name: name, Manifest: m.Hash(), Bytes: m.Bytes(), Files: m.Files()})
		total.Total += m.Bytes()
		total.Files += m.Files()
	}
	for i := range trees {
		sum := total
		options := transfer.Options{Name: sum.Name, Attempts: pushAttempts}
		if sub.Progress != nil {
			options.Progress = func(t skyport.Transfer) {
				now := sum
				now.Done += t.Done
				now.Wire += t.Wire
				sub.Progress(now)
			}
		}
		sent, err := transfer.Push(ctx, c.http, c.base+"/v1/staging", trees[i], options)
		if err != nil {
			return body, skyport.Errorf(skyport.CodeOf(err), "stage %s: %w", paths[i], err).WithHint("%s", skyport.HintOf(err))
		}
		total.Done += sent.Done
		total.Wire += sent.Wire
	}
	return body, nil
}

// pushAttempts is how often a transfer dials again without getting any further.
const pushAttempts = 10

// inputPaths finds the inputs of a submission on this machine.
func inputPaths(sub Submission) ([]string, error) {
	paths := sub.InputPaths
	if paths == nil {
		request, err := jobscript.Parse(sub.Script, jobscript.Options{Overrides: sub.Directives})
		if err != nil {
			return nil, err
		}
		paths = request.InputFiles
	}
	found := make([]string, len(paths))
	for i, path := range paths {
		if rest, ok := strings.CutPrefix(path, "~/"); ok {
			home, err := os.UserHomeDir()
			if err != nil {
				return nil, skyport.Errorf(skyport.CodeInputUnreadable, "input %s: %w", path, err)
			}
			path = filepath.Join(home, rest)
		}
		if !filepath.IsAbs(path) {
			path = filepath.Join(sub.Dir, path)
		}
		absolute, err := filepath.Abs(path)
		if err != nil {
			return nil, skyport.Errorf(skyport.CodeInputUnreadable, "input %s: %w", path, err)
		}
		found[i] = absolute
	}
	return found, nil
}

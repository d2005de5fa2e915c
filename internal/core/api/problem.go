package api

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/openworkload/skyport"
)

// Problem is how /v1 tells an error: RFC 9457 with members of our own. Terminals
// decide by Code.
type Problem struct {
	Type   string          `json:"type" doc:"urn:skyport:error: and the code" example:"urn:skyport:error:not_found"`
	Title  string          `json:"title" doc:"The HTTP status in words"`
	Status int             `json:"status" doc:"The HTTP status"`
	Detail string          `json:"detail" doc:"What failed, on what"`
	Code   skyport.Code    `json:"code" doc:"Stable name of the error"`
	Hint   string          `json:"hint,omitempty" doc:"What to do next"`
	Line   int             `json:"line,omitempty" doc:"Line in the job script, from 1"`
	Column int             `json:"column,omitempty" doc:"Column in the job script, from 1"`
	Errors []ProblemDetail `json:"errors,omitempty" doc:"Each thing that is wrong, when there are several"`
	// RequestID finds a mistake of ours in the log of core.
	RequestID string `json:"request_id,omitempty" doc:"Names the entry in the log of core"`
}

// ProblemDetail is one thing that is wrong with a request.
type ProblemDetail struct {
	Message  string `json:"message"`
	Location string `json:"location,omitempty" doc:"Such as body.inputs[0].name or query.limit"`
	Hint     string `json:"hint,omitempty" doc:"What to do next"`
	Line     int    `json:"line,omitempty" doc:"Line in the job script, from 1"`
	Column   int    `json:"column,omitempty" doc:"Column in the job script, from 1"`
}

// Error returns what failed.
func (p *Problem) Error() string { return p.Detail }

// GetStatus is how huma asks for the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is how huma asks for the media type.
func (p *Problem) ContentType(string) string { return problemJSON }

const problemJSON = "application/problem+json"

// problem makes a Problem of any error. An error without a code is a mistake
// of ours: it is logged under a request id and its text stays here.
func (a *api) problem(ctx context.Context, err error) *Problem {
	var known *skyport.Error
	if !errors.As(err, &known) || known.Code == skyport.CodeInternal {
		if ctx.Err() != nil { // the caller went away and took the work with it
			known = skyport.Errorf(skyport.CodeUnavailable, "the request was given up")
			return newProblem(known, known.Message)
		}
		id := rand.Text()[:12]
		a.Logger.ErrorContext(ctx, "request failed", "request_id", id, "error", err)
		p := newProblem(skyport.Errorf(skyport.CodeInternal, ""), "core made a mistake")
		p.Hint = "look for request_id " + id + " in the log of core"
		p.RequestID = id
		return p
	}
	p := newProblem(known, err.Error())
	var several interface{ Unwrap() []error }
	if errors.As(err, &several) && len(several.Unwrap()) > 1 {
		for _, one := range several.Unwrap() {
			if e, ok := errors.AsType[*skyport.Error](one); ok {
				p.Errors = append(p.Errors, ProblemDetail{Message: one.Error(), Hint: e.Hint, Line: e.Line, Column: e.Column})
			}
		}
	}
	return p
}

func newProblem(err *skyport.Error, detail string) *Problem {
	status := err.Code.Status()
	return &Problem{
		Type:   "urn:skyport:error:" + string(err.Code),
		Title:  http.StatusText(status),
		Status: status,
		Detail: detail,
		Code:   err.Code,
		Hint:   err.Hint,
		Line:   err.Line,
		Column: err.Column,
	}
}

// writeProblem answers with an error in the shape of the route: what terminals
// of /user know, or a problem.
func (a *api) writeProblem(w http.ResponseWriter, r *http.Request, err error) {
	p := a.problem(r.Context(), err)
	if isUserRoute(r.URL.Path) {
		writeUserError(w, p)
		return
	}
	writeJSON(w, p.Status, problemJSON, p)
}

func writeJSON(w http.ResponseWriter, status int, contentType string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("api: an answer cannot be encoded: %v", err))
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // the peer went away: nobody is left to tell
}

// asProblem turns what huma finds wrong by itself into a problem.
func asProblem(ctx huma.Context, _ string, v any) (any, error) {
	found, ok := v.(huma.StatusError)
	if !ok {
		return v, nil
	}
	if p, ok := v.(*Problem); ok {
		return p, nil
	}
	code := skyport.CodeInvalid
	switch found.GetStatus() {
	case http.StatusRequestEntityTooLarge:
		code = skyport.CodeTooLarge
	case http.StatusInternalServerError:
		code = skyport.CodeUnavailable // huma could not read the body: the peer stopped sending
	}
	p := newProblem(skyport.Errorf(code, ""), found.Error())
	var model *huma.ErrorModel
	if errors.As(found, &model) {
		for _, e := range model.Errors {
			p.Errors = append(p.Errors, ProblemDetail{Message: skyport.Abbreviate(e.Message, 500), Location: e.Location})
		}
	}
	if len(p.Errors) > 0 {
		first := p.Errors[0]
		p.Detail = strings.TrimPrefix(first.Location+": "+first.Message, ": ")
	}
	if c, ok := ctx.(*problemStatus); ok {
		c.status = p.Status
		c.SetHeader("Content-Type", problemJSON)
	}
	return p, nil
}

// problemStatus lets asProblem correct the status that huma decided on before.
type problemStatus struct {
	humaContext
	status int
}

type humaContext = huma.Context

func withProblemStatus(ctx huma.Context, next func(huma.Context)) {
	next(&problemStatus{humaContext: ctx})
}

// SetStatus sends the status of the problem, when there is one.
func (c *problemStatus) SetStatus(status int) {
	if c.status != 0 {
		status = c.status
	}
	c.humaContext.SetStatus(status)
}

// Unwrap returns the context below, for humago.
func (c *problemStatus) Unwrap() huma.Context { return c.humaContext }

// describeErrors says in the description that every error is a Problem.
func (a *api) describeErrors(op *huma.Operation) {
	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{}
	}
	op.Responses["default"] = &huma.Response{
		Description: "Problem; decide by its code",
		Content: map[string]*huma.MediaType{
			problemJSON: {Schema: a.schemaOf(Problem{})},
		},
	}
}

// logPanic tells of a mistake that a handler did not survive.
func (a *api) logPanic(r *http.Request, recovered any, stack []byte) *Problem {
	id := rand.Text()[:12]
	a.Logger.LogAttrs(r.Context(), slog.LevelError, "request panicked",
		slog.String("request_id", id), slog.String("method", r.Method), slog.String("route", r.Pattern),
		slog.Any("panic", recovered), slog.String("stack", string(stack)))
	p := newProblem(skyport.Errorf(skyport.CodeInternal, ""), "core made a mistake")
	p.Hint = "look for request_id " + id + " in the log of core"
	p.RequestID = id
	return p
}

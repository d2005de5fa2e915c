package gate

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/openworkload/skyport"
)

// Problem is the body of every error answer (RFC 9457).
type Problem struct {
	Type      string       `json:"type" doc:"Always about:blank: the code says more"`
	Title     string       `json:"title" doc:"Text of the HTTP status"`
	Status    int          `json:"status" doc:"HTTP status"`
	Detail    string       `json:"detail" doc:"What failed and on what"`
	Code      skyport.Code `json:"code" doc:"Stable name of the error"`
	Hint      string       `json:"hint,omitempty" doc:"What to do next"`
	Permanent bool         `json:"permanent,omitempty" doc:"Trying again cannot help"`
}

// Error returns the detail.
func (p *Problem) Error() string { return p.Detail }

// GetStatus lets huma find the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType lets huma announce a problem as one.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// problemOf says an error of a provider, or of ours, in the words of the API.
func problemOf(err error) *Problem {
	code, permanent := skyport.CodeUnavailable, errors.Is(err, ErrPermanent)
	var coded *skyport.Error
	switch {
	case errors.Is(err, ErrNotFound):
		code = skyport.CodeNotFound
	case errors.Is(err, ErrConflict):
		code = skyport.CodeConflict
	case errors.As(err, &coded):
		code = coded.Code
	case permanent:
		code = skyport.CodeUnsupported
	case errors.Is(err, context.Canceled):
		code = skyport.CodeUnavailable
	}
	return &Problem{
		Type:      "about:blank",
		Title:     http.StatusText(code.Status()),
		Status:    code.Status(),
		Detail:    err.Error(),
		Code:      code,
		Hint:      skyport.HintOf(err),
		Permanent: permanent,
	}
}

// Err is the error that the problem tells of, as a caller of the provider
// itself would have got it: it matches ErrNotFound, ErrConflict and
// ErrPermanent where that one did, and carries the code and the hint.
func (p *Problem) Err() error {
	err := &skyport.Error{Code: p.Code, Message: p.Detail, Hint: p.Hint}
	switch {
	case p.Code == skyport.CodeNotFound:
		err.Cause = ErrNotFound
	case p.Code == skyport.CodeConflict && p.Permanent:
		err.Cause = ErrConflict
	case p.Permanent:
		err.Cause = ErrPermanent
	}
	return err
}

// sayProblem is a huma transformer: what huma itself refuses (a wrong
// parameter, a body too large) is said in our words too.
func sayProblem(_ huma.Context, _ string, body any) (any, error) {
	refusal, ok := body.(huma.StatusError)
	if !ok {
		return body, nil
	}
	if p, ok := body.(*Problem); ok {
		return p, nil
	}
	detail := refusal.Error()
	if model, ok := body.(*huma.ErrorModel); ok {
		for _, e := range model.Errors {
			detail += ": " + e.Error()
		}
	}
	status := refusal.GetStatus()
	p := &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail, Code: skyport.CodeInvalid, Permanent: true}
	switch {
	case status == http.StatusRequestEntityTooLarge:
		p.Code = skyport.CodeTooLarge
	case status == http.StatusNotFound:
		p.Code = skyport.CodeNotFound
	case status >= http.StatusInternalServerError:
		p.Code, p.Permanent = skyport.CodeInternal, false
	}
	return p, nil
}

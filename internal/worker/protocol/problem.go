package protocol

import (
	"encoding/json"
	"io"
	"net/http"

	"github.com/openworkload/skyport"
)

// Problem is an error on the wire (RFC 9457), with the stable code.
type Problem struct {
	Title  string       `json:"title"`
	Status int          `json:"status"`
	Detail string       `json:"detail"`
	Code   skyport.Code `json:"code"`
	Hint   string       `json:"hint,omitempty"`
}

// NewProblem puts an error on the wire.
func NewProblem(err error) *Problem {
	code := skyport.CodeOf(err)
	return &Problem{
		Title: http.StatusText(code.Status()), Status: code.Status(),
		Detail: err.Error(), Code: code, Hint: skyport.HintOf(err),
	}
}

// Error returns the detail.
func (p *Problem) Error() string { return p.Detail }

// GetStatus is what huma asks for.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is what huma asks for.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// WriteProblem answers a request with an error.
func WriteProblem(w http.ResponseWriter, err error) {
	p := NewProblem(err)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the peer has gone, if this fails
}

const maxProblem = 64 << 10

// readProblem turns an answer that is no success into an error with its code.
func readProblem(resp *http.Response) error {
	var p Problem
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxProblem)).Decode(&p); err != nil || (p.Detail == "" && p.Title == "") {
		p = Problem{Detail: "the worker answered " + resp.Status}
	}
	if p.Detail == "" {
		p.Detail = p.Title
	}
	if p.Code == "" {
		p.Code = codeOf(resp.StatusCode)
	}
	e := skyport.Errorf(p.Code, "%s", skyport.Abbreviate(p.Detail, 2000))
	e.Hint = skyport.Abbreviate(p.Hint, 2000)
	return e
}

// codeOf guesses the code of an answer that was not made by our handlers, such
// as the refusal of a malformed body.
func codeOf(status int) skyport.Code {
	switch status {
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return skyport.CodeInvalid
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return skyport.CodeNotFound
	case http.StatusConflict:
		return skyport.CodeConflict
	case http.StatusRequestEntityTooLarge:
		return skyport.CodeTooLarge
	case http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusGatewayTimeout:
		return skyport.CodeUnavailable
	}
	return skyport.CodeInternal
}

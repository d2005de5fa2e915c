package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/openworkload/skyport"
)

// A call is one request to core that is answered with JSON or nothing.
type call struct {
	method string
	path   string
	query  url.Values
	header http.Header
	in     any // sent as JSON, if not nil
	out    any // filled from JSON, if not nil
	// once: the call must not be repeated when it may have arrived.
	once bool
}

const (
	callTimeout = 60 * time.Second // of one attempt; core answers within 5 s
	firstWait   = 100 * time.Millisecond
	longestWait = 3 * time.Second
	answerLimit = 256 << 20 // bytes of one JSON answer
)

// do makes a call, again and again while that is safe and core cannot be
// reached, and returns how often it was tried.
func (c *Client) do(ctx context.Context, call call) (tries int, err error) {
	var body []byte
	if call.in != nil {
		if body, err = json.Marshal(call.in); err != nil {
			return 0, skyport.Errorf(skyport.CodeInvalid, "%s %s: encode the request: %w", call.method, call.path, err)
		}
	}
	err = c.persist(ctx, c.patience, func() error {
		tries++
		return c.try(ctx, call, body)
	})
	return tries, err
}

// persist repeats what fails for a moment until it succeeds, fails for good,
// or patience is over.
func (c *Client) persist(ctx context.Context, patience time.Duration, try func() error) error {
	wait, giveUp := firstWait, time.Now().Add(patience)
	for {
		err := try()
		var passing *passingError
		if err == nil || !errors.As(err, &passing) {
			return err
		}
		if ctx.Err() != nil || time.Now().Add(wait).After(giveUp) {
			return passing.err
		}
		c.log.DebugContext(ctx, "core cannot be reached; trying again", "error", passing.err, "wait", wait)
		if err := sleep(ctx, wait/2+rand.N(wait)); err != nil { //nolint:gosec // spreads the tries
			return passing.err
		}
		wait = min(2*wait, longestWait)
	}
}

// passingError is an error that trying again may mend.
type passingError struct{ err error }

func (p *passingError) Error() string { return p.err.Error() }

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err() //nolint:wrapcheck // the caller drops it
	case <-timer.C:
		return nil
	}
}

func (c *Client) try(ctx context.Context, call call, body []byte) error {
	limited, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	response, err := c.send(limited, call, body)
	if err != nil {
		return err
	}
	defer drain(response.Body)
	if call.out == nil {
		return nil
	}
	if text, ok := call.out.(*[]byte); ok {
		*text, err = io.ReadAll(io.LimitReader(response.Body, answerLimit))
	} else {
		err = json.NewDecoder(io.LimitReader(response.Body, answerLimit)).Decode(call.out)
	}
	if err != nil {
		return c.broken(ctx, call, fmt.Errorf("read the answer of %s %s: %w", call.method, call.path, err))
	}
	return nil
}

// send makes one attempt and returns an answer that is no error.
func (c *Client) send(ctx context.Context, call call, body []byte) (*http.Response, error) {
	target := c.base + call.path
	if len(call.query) > 0 {
		target += "?" + call.query.Encode()
	}
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	request, err := http.NewRequestWithContext(ctx, call.method, target, reader)
	if err != nil {
		return nil, skyport.Errorf(skyport.CodeInvalid, "%s %s: %w", call.method, call.path, err)
	}
	for name, values := range call.header {
		request.Header[name] = values
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.broken(ctx, call, err)
	}
	if response.StatusCode >= 300 {
		defer drain(response.Body)
		return nil, refusal(call, response)
	}
	return response, nil
}

// broken explains a call that got no answer, and says whether it may be repeated.
func (c *Client) broken(ctx context.Context, call call, err error) error {
	if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%s %s: %w", call.method, call.path, ctx.Err())
	}
	var untrusted *tls.CertificateVerificationError
	var op *net.OpError
	isOp := errors.As(err, &op)
	switch {
	case errors.As(err, &untrusted):
		return skyport.Errorf(skyport.CodeUnauthorized, "core at %s is not the one that is expected: %w", c.base, err).
			WithHint("check the URL and the CA file; see: skyport doctor")
	case isOp && op.Op == "remote error": // a TLS alert
		return skyport.Errorf(skyport.CodeUnauthorized, "core at %s refuses the certificate: %w", c.base, err).
			WithHint("list certificates with: skyport cert list")
	}
	unavailable := skyport.Errorf(skyport.CodeUnavailable, "core at %s cannot be reached: %w", c.base, err).
		WithHint("is it running? start it with: skyport up")
	if call.once && (!isOp || op.Op != "dial") {
		unavailable.Hint = "the call may have arrived: look before you repeat it"
		return unavailable
	}
	return &passingError{unavailable}
}

// problem is how core tells an error; see RFC 9457.
type problem struct {
	Detail string       `json:"detail"`
	Code   skyport.Code `json:"code"`
	Hint   string       `json:"hint"`
	Line   int          `json:"line"`
	Column int          `json:"column"`
	Errors []struct {
		Message  string `json:"message"`
		Location string `json:"location"`
		Hint     string `json:"hint"`
		Line     int    `json:"line"`
		Column   int    `json:"column"`
	} `json:"errors"`
}

// refusal makes an error of an answer that is one.
func refusal(call call, response *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	var p problem
	if err != nil || json.Unmarshal(text, &p) != nil || p.Code == "" {
		// Not core: a proxy, or another service under this address.
		p = problem{Code: codeOf(response.StatusCode), Detail: fmt.Sprintf("%s %s: %s", call.method, call.path, response.Status)}
	}
	refused := skyport.Errorf(p.Code, "%s", p.Detail)
	refused.Hint, refused.Line, refused.Column = p.Hint, p.Line, p.Column
	var each []error
	for _, e := range p.Errors {
		one := skyport.Errorf(p.Code, "%s", e.Message)
		one.Hint, one.Line, one.Column = e.Hint, e.Line, e.Column
		each = append(each, one)
	}
	refused.Cause = errors.Join(each...)
	switch response.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		if !call.once {
			return &passingError{refused}
		}
	}
	return refused
}

// codeOf guesses the code of an answer that has none.
func codeOf(status int) skyport.Code {
	for _, code := range []skyport.Code{
		skyport.CodeInvalid, skyport.CodeUnauthorized, skyport.CodeForbidden, skyport.CodeNotFound,
		skyport.CodeConflict, skyport.CodeTooLarge, skyport.CodeUnavailable,
	} {
		if code.Status() == status {
			return code
		}
	}
	switch {
	case status == http.StatusBadGateway, status == http.StatusGatewayTimeout:
		return skyport.CodeUnavailable
	case status < 500:
		return skyport.CodeInvalid
	}
	return skyport.CodeInternal
}

// drain reads the rest of a small answer, so that its connection can be used again.
func drain(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, 64<<10) // only to be polite to the connection
	_ = body.Close()                          // it was only read
}

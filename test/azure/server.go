package azuretest

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/openworkload/skyport/test/azure/template"
)

// maxBody bounds what is read: Resource Manager takes 4 MiB.
const maxBody = 4 << 20

// request is a call that was let in.
type request struct {
	method   string
	path     string
	host     string // that the caller asked
	segments []string
	query    url.Values
	body     []byte
	header   http.Header
	version  string // api-version
}

// response is what is answered. A nil body is none.
type response struct {
	status int
	header http.Header
	body   any
}

func answer(status int, body any) (*response, error) {
	return &response{status: status, header: http.Header{}, body: body}, nil
}

// Call is a call that was made.
type Call struct {
	Time   time.Time     `json:"time"`
	Method string        `json:"method"`
	Path   string        `json:"path"`
	Query  string        `json:"query,omitempty"`
	Status int           `json:"status"` // 0: cut
	Fault  Fault         `json:"fault,omitempty"`
	Took   time.Duration `json:"took"`
}

// maxCalls are kept.
const maxCalls = 100_000

// Calls tells the calls that were made, oldest first.
func (e *Emulator) Calls() []Call {
	e.chance.Lock()
	defer e.chance.Unlock()
	return append([]Call(nil), e.chance.calls...)
}

func (e *Emulator) note(c Call) {
	e.chance.Lock()
	defer e.chance.Unlock()
	if len(e.chance.calls) >= maxCalls {
		e.chance.calls = append(e.chance.calls[:0], e.chance.calls[maxCalls/2:]...)
	}
	e.chance.calls = append(e.chance.calls, c)
}

// serve answers a call, or spoils it.
func (e *Emulator) serve(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	if e.closing {
		e.mu.Unlock()
		hangUp(w)
		return
	}
	e.calls.Add(1)
	e.mu.Unlock()
	defer e.calls.Done()
	if strings.HasPrefix(r.URL.Path, "/emulator/") {
		e.control(w, r)
		return
	}
	call := Call{Time: time.Now(), Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		e.write(w, &response{status: http.StatusRequestEntityTooLarge, body: wrapped(
			problem(http.StatusRequestEntityTooLarge, "RequestContentTooLarge", "The request content size exceeds the maximum size of 4 MB."))})
		return
	}
	manager := strings.HasPrefix(strings.ToLower(r.URL.Path), "/subscriptions") || strings.HasPrefix(strings.ToLower(r.URL.Path), "/providers")
	fault := e.decide(r, manager)
	call.Fault = fault.Do
	out := e.spoiled(w, r, body, manager, fault)
	if out != nil {
		call.Status = out.status
		e.write(w, out)
	}
	call.Took = time.Since(call.Time)
	e.note(call)
	e.log.DebugContext(r.Context(), "call", "method", call.Method, "path", call.Path, "status", call.Status, "fault", call.Fault)
}

// spoiled answers with a fault; nil means that the connection was cut.
func (e *Emulator) spoiled(w http.ResponseWriter, r *http.Request, body []byte, manager bool, fault Rule) *response {
	failed := &response{status: cmp.Or(fault.Status, http.StatusInternalServerError), header: http.Header{}, body: wrapped(&Problem{
		Code:    cmp.Or(fault.Code, "InternalServerError"),
		Message: cmp.Or(fault.Message, "Encountered internal server error. Diagnostic information: emulated."),
	})}
	switch fault.Do {
	case FaultThrottle:
		return e.throttled(r, fault.Delay)
	case FaultError:
		return failed
	case FaultCutBefore:
		hangUp(w)
		return nil
	case FaultSlow:
		rest(r.Context(), fault.Delay)
	case FaultDuplicate:
		e.dispatch(r, body, manager)
	}
	out := e.dispatch(r, body, manager)
	switch fault.Do {
	case FaultErrorAfter:
		return failed
	case FaultCutAfter:
		hangUp(w)
		return nil
	}
	return out
}

// hangUp ends the connection without an answer.
func hangUp(w http.ResponseWriter) {
	h, ok := w.(http.Hijacker)
	if !ok {
		return
	}
	conn, _, err := h.Hijack()
	if err != nil {
		return
	}
	_ = conn.Close() // it is to be gone
}

// throttled is 429 as Resource Manager says it.
// https://learn.microsoft.com/azure/azure-resource-manager/management/request-limits-and-throttling
func (e *Emulator) throttled(r *http.Request, after time.Duration) *response {
	after = cmp.Or(after, e.o.RetryAfter)
	what := "reads"
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		what = "writes"
	}
	out := &response{status: http.StatusTooManyRequests, header: http.Header{}, body: wrapped(problem(0, "SubscriptionRequestsThrottled",
		"Number of '%s' requests for subscription '%s' and principal exceeded the limit. Please try again after '%d' seconds after additional tokens are available. "+
			"Refer to https://aka.ms/arm-throttling for additional information.", what, e.o.Subscription, int(math.Ceil(after.Seconds()))))}
	retryAfter(out.header, after)
	out.header.Set("X-Ms-Ratelimit-Remaining-Subscription-"+what, "0")
	return out
}

func retryAfter(h http.Header, after time.Duration) {
	h.Set("Retry-After", strconv.Itoa(int(math.Ceil(after.Seconds()))))
	if after < time.Second || after%time.Second != 0 {
		h.Set("X-Ms-Retry-After-Ms", strconv.FormatInt(after.Milliseconds(), 10))
	}
}

func wrapped(p *Problem) any { return map[string]any{"error": p} }

// dispatch does what is asked for.
func (e *Emulator) dispatch(r *http.Request, body []byte, manager bool) *response {
	req := &request{
		method: r.Method, path: strings.TrimSuffix(r.URL.Path, "/"), query: r.URL.Query(), body: body, header: r.Header, host: r.Host,
		version: r.URL.Query().Get("api-version"),
	}
	req.segments = strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	var out *response
	var err error
	switch {
	case manager || strings.EqualFold(req.path, "/tenants"):
		out, err = e.manage(req)
	case strings.EqualFold(req.path, "/api/retail/prices"):
		out, err = e.prices(req)
	case req.path == "/oauth2/exchange":
		out, err = e.exchange(req)
	case r.URL.Query().Get("comp") == "userdelegationkey":
		out, err = e.delegate(req)
	default:
		out, err = e.login(req)
	}
	if err != nil {
		out = refusal(err)
	}
	if manager {
		for _, kind := range []string{"Reads", "Writes", "Deletes"} {
			if key := "X-Ms-Ratelimit-Remaining-Subscription-" + kind; out.header.Get(key) == "" && kind == quotaOf(r.Method) {
				out.header.Set(key, "249")
			}
		}
	}
	return out
}

func quotaOf(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead:
		return "Reads"
	case http.MethodDelete:
		return "Deletes"
	}
	return "Writes"
}

// refusal tells an error.
func refusal(err error) *response {
	var p *Problem
	var t *template.Error
	switch {
	case errors.As(err, &p):
	case errors.As(err, &t):
		p = problem(http.StatusBadRequest, t.Code, "%s", t.Message)
	default:
		p = problem(http.StatusInternalServerError, "InternalServerError", "the emulator failed: %v", err)
	}
	out := &response{status: cmp.Or(p.Status, http.StatusBadRequest), header: http.Header{}, body: wrapped(p)}
	if out.status == http.StatusUnauthorized {
		out.header.Set("WWW-Authenticate", `Bearer authorization_uri="https://login.windows.net/", error="invalid_token", error_description="`+p.Message+`"`)
	}
	return out
}

func (e *Emulator) write(w http.ResponseWriter, out *response) {
	h := w.Header()
	for key, values := range out.header {
		h[key] = values
	}
	id := rand.Text()
	h.Set("X-Ms-Request-Id", id)
	h.Set("X-Ms-Correlation-Request-Id", id)
	h.Set("Cache-Control", "no-cache")
	if out.body == nil {
		w.WriteHeader(out.status)
		return
	}
	if text, ok := out.body.(xmlBody); ok {
		h.Set("Content-Type", "application/xml")
		w.WriteHeader(out.status)
		_, _ = io.WriteString(w, `<?xml version="1.0" encoding="utf-8"?>`+string(text)) // whoever went away needs no answer
		return
	}
	h.Set("Content-Type", "application/json; charset=utf-8")
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(out.body); err != nil {
		e.log.Error("an answer cannot be encoded", "error", err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.WriteHeader(out.status)
	_, _ = w.Write(text.Bytes()) // whoever went away needs no answer
}

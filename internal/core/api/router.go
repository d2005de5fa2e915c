package api

import (
	"context"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/openworkload/skyport"
)

// ServeHTTP settles who calls and hands over to the route. Whatever goes wrong
// in a handler ends here.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{remote: r.RemoteAddr}
	out := &answer{ResponseWriter: w, controller: http.NewResponseController(w), api: a}
	out.Header().Set("X-Content-Type-Options", "nosniff")
	out.deadline(time.Time{}) // an earlier request on this connection may have left one
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &pacedBody{body: r.Body, controller: out.controller}
	}
	r = r.WithContext(context.WithValue(r.Context(), callKey{}, c))
	out.request = r
	began := time.Now()
	defer func() {
		recovered := recover()
		if recovered != nil && recovered != http.ErrAbortHandler { //nolint:errorlint // net/http compares like this
			p := a.logPanic(r, recovered, debug.Stack())
			if out.status == 0 {
				a.writeAny(out, r, p)
				recovered = nil
			} else {
				recovered = http.ErrAbortHandler // half an answer must not look like a whole one
			}
		}
		a.metrics.answered(r, out, time.Since(began))
		if recovered != nil {
			panic(recovered)
		}
	}()

	if !needsNoCertificate(r.URL.Path) {
		caller, err := a.Authenticate(r)
		if err != nil || caller.ID == "" {
			a.Logger.DebugContext(r.Context(), "caller refused", "remote", r.RemoteAddr, "error", err)
			a.writeProblem(out, r, skyport.Errorf(skyport.CodeUnauthorized, "unauthorized").
				WithHint("call with a client certificate that this core's authority issued"))
			return
		}
		c.user = caller
	}
	a.mux.ServeHTTP(out, r)
}

func (a *api) writeAny(w http.ResponseWriter, r *http.Request, p *Problem) {
	if isUserRoute(r.URL.Path) {
		writeUserError(w, p)
		return
	}
	writeJSON(w, p.Status, problemJSON, p)
}

func needsNoCertificate(path string) bool { return path == "/healthz" || path == "/readyz" }

func isUserRoute(path string) bool { return path == "/user" || strings.HasPrefix(path, "/user/") }

// call is what is known of a request: who, and on job routes which job.
type call struct {
	user   User
	job    skyport.Job
	remote string // host:port that the request came from
}

// address is the host that the request came from.
func (c *call) address() string {
	host, _, err := net.SplitHostPort(c.remote)
	if err != nil {
		return c.remote
	}
	return host
}

type callKey struct{}

// callerOf returns who calls.
func callerOf(ctx context.Context) User { return callOf(ctx).user }

// jobOf returns the job of a job route, as it was when the request came. That
// it is the caller's has been checked.
func jobOf(ctx context.Context) skyport.Job { return callOf(ctx).job }

func callOf(ctx context.Context) *call {
	c, ok := ctx.Value(callKey{}).(*call)
	if !ok {
		panic("api: a handler was called past the router")
	}
	return c
}

// router is where every route is added, ours and huma's alike, so that none
// can be without its guard.
type router struct{ *api }

// HandleFunc is called by huma for each operation.
func (h router) HandleFunc(pattern string, handle func(http.ResponseWriter, *http.Request)) {
	h.handle(pattern, handle)
}

// ServeHTTP makes router what huma takes for a mux.
func (h router) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.api.ServeHTTP(w, r) }

// handle adds a route. A pattern with a job's id is guarded: its handler runs
// only for the job's owner and finds the job in the context.
func (a *api) handle(pattern string, handle http.HandlerFunc) {
	a.routes = append(a.routes, pattern)
	if strings.Contains(pattern, "/job/{id}") || strings.Contains(pattern, "/jobs/{id}") {
		handle = a.guard(handle)
	}
	a.mux.HandleFunc(pattern, handle)
}

// guard is the only place where the owner of a job is checked.
func (a *api) guard(handle http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c := callOf(r.Context())
		id, err := skyport.ParseJobID(r.PathValue("id"))
		if err != nil { // what is no id names no job
			a.writeProblem(w, r, errNoJob())
			return
		}
		job, err := a.Backend.Job(r.Context(), id)
		switch {
		case skyport.CodeOf(err) == skyport.CodeNotFound && err != nil:
			a.writeProblem(w, r, errNoJob())
		case err != nil:
			a.writeProblem(w, r, err)
		case job.Owner != c.user.ID:
			a.writeProblem(w, r, skyport.Errorf(skyport.CodeForbidden, "forbidden").
				WithHint("the job belongs to another user"))
		default:
			c.job = job
			handle(w, r)
		}
	}
}

func errNoJob() *skyport.Error { return skyport.Errorf(skyport.CodeNotFound, "job not found") }

// A connection makes progress or ends.
const (
	readPatience  = 30 * time.Second
	writePatience = 60 * time.Second
)

// answer watches over what is written: its status, its deadlines, and that the
// mux's own refusals have the shape of all others.
type answer struct {
	http.ResponseWriter
	controller *http.ResponseController
	api        *api
	request    *http.Request
	status     int
	armed      time.Time // when the write deadline was set last
	replaced   bool      // the mux's refusal was replaced; what it writes is dropped
	stream     bool      // takes as long as the peer likes
}

// WriteHeader notes the status.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 && a.request.Pattern == "" && !a.replaced {
		switch status {
		case http.StatusNotFound:
			a.replace(skyport.Errorf(skyport.CodeNotFound, "no such route: %s", skyport.Abbreviate(a.request.URL.Path, 100)))
			return
		case http.StatusMethodNotAllowed:
			p := newProblem(skyport.Errorf(skyport.CodeInvalid, ""), a.request.Method+" does not go with this route")
			p.Status, p.Title = status, http.StatusText(status)
			a.replaceBy(p)
			return
		}
	}
	if a.status == 0 && status >= http.StatusOK {
		a.status = status
	}
	a.arm()
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) replace(err *skyport.Error) { a.replaceBy(newProblem(err, err.Message)) }

func (a *answer) replaceBy(p *Problem) {
	a.replaced = true
	a.status = p.Status
	a.arm()
	a.Header().Del("Content-Length")
	a.api.writeAny(a.ResponseWriter, a.request, p)
}

// Write moves the deadline as long as there is progress.
func (a *answer) Write(p []byte) (int, error) {
	if a.replaced {
		return len(p), nil
	}
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	a.arm()
	return a.ResponseWriter.Write(p) //nolint:wrapcheck // passes through
}

// Flush is FlushError for those who do not ask.
func (a *answer) Flush() { _ = a.FlushError() } // the next write tells

// FlushError sends what was written and lets the connection rest without a deadline.
func (a *answer) FlushError() error {
	a.armed = time.Time{}
	a.arm()
	err := a.controller.Flush()
	a.deadline(time.Time{})
	a.armed = time.Time{}
	return err //nolint:wrapcheck // passes through
}

// Unwrap is how http.ResponseController finds the real writer.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *answer) arm() {
	now := time.Now()
	if now.Sub(a.armed) > time.Second {
		a.armed = now
		a.deadline(now.Add(writePatience))
	}
}

func (a *answer) deadline(t time.Time) {
	_ = a.controller.SetWriteDeadline(t) // not every writer in tests has deadlines
}

// pacedBody refuses to wait for ever for a peer that sends nothing.
type pacedBody struct {
	body interface {
		Read([]byte) (int, error)
		Close() error
	}
	controller *http.ResponseController
	armed      time.Time
}

func (b *pacedBody) Read(p []byte) (int, error) {
	if now := time.Now(); now.Sub(b.armed) > time.Second {
		b.armed = now
		_ = b.controller.SetReadDeadline(now.Add(readPatience)) // see deadline
	}
	n, err := b.body.Read(p)
	if err != nil {
		// The connection must not die of this deadline while the answer is made.
		_ = b.controller.SetReadDeadline(time.Time{})
	}
	return n, err
}

func (b *pacedBody) Close() error {
	_ = b.controller.SetReadDeadline(time.Time{})
	return b.body.Close()
}

// streaming marks the answer as one that lasts as long as the peer likes.
func streaming(w http.ResponseWriter) {
	if out, ok := w.(*answer); ok {
		out.stream = true
	}
}

package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/openworkload/skyport"
)

// userRoutes are the contract with terminals that exist already: their paths,
// texts and JSON are not ours to change.
func (a *api) userRoutes() {
	a.handle("GET /user", func(w http.ResponseWriter, _ *http.Request) {
		writeBytes(w, userJSON, []byte(`{"api_version": 1}`))
	})
	a.handle("GET /user/remote", a.userRemotes)
	a.handle("GET /user/flavor", a.userFlavors)
	a.handle("GET /user/image", a.userImages)
	a.handle("GET /user/node", a.userNodes)
	a.handle("GET /user/job", a.userJobs)
	a.handle("POST /user/job", a.userSubmit)
	a.handle("DELETE /user/job", a.userPurge)
	a.handle("GET /user/job/{id}", a.userJob)
	a.handle("DELETE /user/job/{id}", a.userCancel)
	a.handle("PATCH /user/job/{id}", a.userModify)
	a.handle("GET /user/job/{id}/stdout", a.userLog(Stdout))
	a.handle("GET /user/job/{id}/stderr", a.userLog(Stderr))
	a.handle("GET /user/job/{id}/metrics", a.userMetrics)
}

const userJSON = "application/json; charset=utf-8"

// userError is how /user tells an error.
type userError struct {
	Error  string       `json:"error"`
	Code   skyport.Code `json:"code,omitempty"`
	Line   int          `json:"line,omitempty"`
	Column int          `json:"column,omitempty"`
	Hint   string       `json:"hint,omitempty"`
}

// writeUserError answers with an error. Three of them have texts by contract,
// to the byte.
func writeUserError(w http.ResponseWriter, p *Problem) {
	e := userError{Error: p.Detail}
	switch {
	case p.Status == http.StatusUnauthorized, p.Status == http.StatusForbidden:
	case p.Status == http.StatusNotFound && p.Detail == errNoJob().Message:
	default:
		e.Code, e.Line, e.Column, e.Hint = p.Code, p.Line, p.Column, p.Hint
	}
	body, err := json.Marshal(e)
	if err != nil {
		panic(fmt.Sprintf("api: an error cannot be encoded: %v", err))
	}
	w.Header().Set("Content-Type", userJSON)
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // the peer went away: nobody is left to tell
}

// userSubmit takes a script, raw or as the form value script_content, and
// answers with the bare id.
func (a *api) userSubmit(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Has("path") {
		a.writeProblem(w, r, skyport.Errorf(skyport.CodeInvalid, "core reads no job script by path").
			WithHint("send the text of the script as the body"))
		return
	}
	script, err := a.readScript(w, r)
	if err != nil {
		a.writeProblem(w, r, err)
		return
	}
	key, err := idempotencyKey(r.Header.Get("Idempotency-Key"))
	if err != nil {
		a.writeProblem(w, r, err)
		return
	}
	jobs, err := a.Backend.Submit(r.Context(), callerOf(r.Context()), key, []Submission{{
		Script:    script,
		ReadPaths: true,
		Address:   callOf(r.Context()).address(),
	}})
	if err != nil {
		a.writeProblem(w, r, err)
		return
	}
	writeBytes(w, textPlain, []byte(jobs[0].ID))
}

// readScript reads the script out of the body, whichever way it was sent.
func (a *api) readScript(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	const formOverhead = 64 << 10 // boundaries, headers and other parts of a form
	if r.ContentLength > a.MaxScript+formOverhead {
		return nil, a.errScriptTooLarge()
	}
	body := io.Reader(http.MaxBytesReader(w, r.Body, a.MaxScript+formOverhead))
	mediaType, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err == nil && mediaType == "multipart/form-data" {
		if body, err = scriptPart(body, params["boundary"]); err != nil {
			return nil, a.bodyError(err)
		}
	}
	script, err := readBounded(body, a.MaxScript, r.ContentLength)
	if err != nil {
		return nil, a.bodyError(err)
	}
	if len(bytes.TrimSpace(script)) == 0 {
		return nil, skyport.Errorf(skyport.CodeInvalid, "the job script is empty").
			WithHint("send the script as the body, or as the form value script_content")
	}
	return script, nil
}

// scriptPart finds the part script_content. Terminals send it with or without
// a file name.
func scriptPart(body io.Reader, boundary string) (io.Reader, error) {
	if boundary == "" {
		return nil, skyport.Errorf(skyport.CodeInvalid, "multipart/form-data without a boundary")
	}
	form := multipart.NewReader(body, boundary)
	for {
		part, err := form.NextRawPart()
		if errors.Is(err, io.EOF) {
			return nil, skyport.Errorf(skyport.CodeInvalid, "the form has no part script_content")
		}
		if err != nil {
			return nil, err //nolint:wrapcheck // bodyError wraps it
		}
		if part.FormName() == "script_content" {
			return part, nil
		}
	}
}

// readBounded reads all of r, at most limit bytes. Want is the size that the
// peer announced, or -1.
func readBounded(r io.Reader, limit, want int64) ([]byte, error) {
	buf := bytes.NewBuffer(make([]byte, 0, min(max(want, 512), limit, 1<<20)+bytes.MinRead))
	n, err := buf.ReadFrom(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err //nolint:wrapcheck // bodyError wraps it
	}
	if n > limit {
		return nil, &http.MaxBytesError{Limit: limit}
	}
	return buf.Bytes(), nil
}

func (a *api) errScriptTooLarge() *skyport.Error {
	return skyport.Errorf(skyport.CodeTooLarge, "the job script is larger than %s", skyport.Bytes(a.MaxScript)).
		WithHint("name large data in input-files instead of carrying it in the script")
}

// bodyError says what went wrong while a body was read.
func (a *api) bodyError(err error) error {
	var tooLarge *http.MaxBytesError
	var timeout net.Error
	var known *skyport.Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &tooLarge):
		return a.errScriptTooLarge()
	case errors.As(err, &timeout) && timeout.Timeout():
		return skyport.Errorf(skyport.CodeInvalid, "the body did not arrive in time")
	default:
		return skyport.Errorf(skyport.CodeInvalid, "the body cannot be read: %w", err)
	}
}

// idempotencyKey accepts what fits in a column and in a log line.
func idempotencyKey(key string) (string, error) {
	if len(key) > 255 || strings.ContainsFunc(key, func(c rune) bool { return c < 0x20 || c > 0x7e }) {
		return "", skyport.Errorf(skyport.CodeInvalid, "the Idempotency-Key is not 1 to 255 printable ASCII characters")
	}
	return key, nil
}

// userJobs streams the caller's jobs, newest first, page by page: the contract
// knows no pages, and a user may have very many.
func (a *api) userJobs(w http.ResponseWriter, r *http.Request) {
	left, err := limitOf(r)
	if err != nil {
		a.writeProblem(w, r, err)
		return
	}
	names, err := a.names(r.Context())
	if err != nil {
		a.writeProblem(w, r, err)
		return
	}
	const pageSize = 500
	query := JobQuery{Owner: callerOf(r.Context()).ID, Limit: pageSize}
	list := newListWriter(w)
	for left > 0 {
		query.Limit = min(left, pageSize)
		page, err := a.Backend.Jobs(r.Context(), query)
		if err != nil {
			list.fail(a, r, err)
			return
		}
		for i := range page.Jobs {
			list.add(names.job(&page.Jobs[i]))
		}
		left -= len(page.Jobs)
		if page.Next == "" || len(page.Jobs) == 0 {
			break
		}
		query.Cursor = page.Next
	}
	list.end()
}

// limitOf reads the limit of a list; without one there is none.
func limitOf(r *http.Request) (int, error) {
	text := r.URL.Query().Get("limit")
	if text == "" {
		return int(^uint(0) >> 1), nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, skyport.Errorf(skyport.CodeInvalid, "limit is not a whole number: %q", skyport.Abbreviate(text, 40))
	}
	return n, nil
}

func (a *api) userJob(w http.ResponseWriter, r *http.Request) {
	job := jobOf(r.Context())
	names, err := a.names(r.Context())
	if err != nil {
		a.writeProblem(w, r, err)
		return
	}
	script, err := a.Backend.Script(r.Context(), job.ID)
	if err != nil {
		a.writeProblem(w, r, err)
		return
	}
	answer := names.job(&job)
	text := strings.ToValidUTF8(string(script), "�")
	answer.Script = &text
	writeJSON(w, http.StatusOK, userJSON, answer)
}

// userCancel answers Canceled also for a job that has ended: existing
// terminals stop what they started without looking first.
func (a *api) userCancel(w http.ResponseWriter, r *http.Request) {
	job := jobOf(r.Context())
	err := a.Backend.Cancel(r.Context(), job.ID)
	if err != nil && skyport.CodeOf(err) != skyport.CodeConflict {
		a.writeProblem(w, r, err)
		return
	}
	writeBytes(w, textPlain, fmt.Appendf(nil, "Canceled: %s\nNot found: ", job.ID))
}

func (a *api) userModify(w http.ResponseWriter, r *http.Request) {
	switch modification := r.Header.Get("modification"); modification {
	case "requeue":
	case "":
		a.writeProblem(w, r, skyport.Errorf(skyport.CodeInvalid, "the header modification is missing").
			WithHint("send the header modification: requeue"))
		return
	default:
		a.writeProblem(w, r, skyport.Errorf(skyport.CodeInvalid, "unknown modification %q", skyport.Abbreviate(modification, 40)).
			WithHint("send the header modification: requeue"))
		return
	}
	job := jobOf(r.Context())
	if err := a.Backend.Requeue(r.Context(), job.ID); err != nil {
		a.writeProblem(w, r, err)
		return
	}
	writeBytes(w, textPlain, fmt.Appendf(nil, "Requeued: %s\nNot found: ", job.ID))
}

func (a *api) userPurge(w http.ResponseWriter, r *http.Request) {
	purged, err := a.purge(r.Context(), JobQuery{Owner: callerOf(r.Context()).ID})
	if err != nil {
		a.writeProblem(w, r, err)
		return
	}
	words := make([]string, len(purged))
	for i, id := range purged {
		words[i] = string(id)
	}
	writeBytes(w, textPlain, fmt.Appendf(nil, "Purged %d job(s): %s", len(purged), strings.Join(words, ", ")))
}

func (a *api) userLog(stream LogStream) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		job := jobOf(r.Context())
		log, err := a.Backend.Log(r.Context(), job.ID, job.Attempt, stream)
		if err != nil {
			a.writeProblem(w, r, err)
			return
		}
		defer func() { _ = log.Close() }() // it was only read
		size, _, _ := log.Size()
		if size == 0 && !job.State.Terminal() {
			a.writeProblem(w, r, skyport.Errorf(skyport.CodeNotFound, "there is no %s yet", stream))
			return
		}
		serveLog(w, r, log, size)
	}
}

func (a *api) userMetrics(w http.ResponseWriter, r *http.Request) {
	job := jobOf(r.Context())
	m, err := a.Backend.Metrics(r.Context(), job.ID)
	if err != nil && skyport.CodeOf(err) != skyport.CodeNotFound {
		a.writeProblem(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, userJSON, struct {
		JobID skyport.JobID `json:"job_id"`
		Metrics
	}{job.ID, m})
}

func (a *api) userRemotes(w http.ResponseWriter, r *http.Request) {
	serveList(a, w, r, func(n *names) ([]userRemote, error) { return n.remotes(callerOf(r.Context())), nil })
}

func (a *api) userFlavors(w http.ResponseWriter, r *http.Request) {
	serveList(a, w, r, func(n *names) ([]userFlavor, error) { return n.flavorList(), nil })
}

func (a *api) userImages(w http.ResponseWriter, r *http.Request) {
	serveList(a, w, r, func(n *names) ([]userImage, error) { return n.imageList(), nil })
}

func (a *api) userNodes(w http.ResponseWriter, r *http.Request) {
	serveList(a, w, r, func(*names) ([]userNode, error) {
		partitions, err := a.Backend.Partitions(r.Context(), false)
		if err != nil {
			return nil, err
		}
		return nodeList(partitions), nil
	})
}

func serveList[T any](a *api, w http.ResponseWriter, r *http.Request, list func(*names) ([]T, error)) {
	limit, err := limitOf(r)
	if err != nil {
		a.writeProblem(w, r, err)
		return
	}
	n, err := a.names(r.Context())
	if err != nil {
		a.writeProblem(w, r, err)
		return
	}
	all, err := list(n)
	if err != nil {
		a.writeProblem(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, userJSON, all[:min(limit, len(all))])
}

// listWriter writes a JSON array as it is made, so that a long one needs no
// memory and begins at once.
type listWriter struct {
	w       http.ResponseWriter
	buffer  bytes.Buffer
	encoder *json.Encoder
	begun   bool
	sent    bool
}

func newListWriter(w http.ResponseWriter) *listWriter {
	l := &listWriter{w: w}
	l.encoder = json.NewEncoder(&l.buffer)
	l.encoder.SetEscapeHTML(false)
	return l
}

func (l *listWriter) add(v any) {
	l.separate()
	if err := l.encoder.Encode(v); err != nil {
		panic(fmt.Sprintf("api: an answer cannot be encoded: %v", err))
	}
	if l.buffer.Len() > 32<<10 {
		l.send()
	}
}

func (l *listWriter) separate() {
	if l.begun {
		l.buffer.WriteByte(',')
		return
	}
	l.begun = true
	l.buffer.WriteByte('[')
}

func (l *listWriter) send() {
	if !l.sent {
		l.sent = true
		l.w.Header().Set("Content-Type", userJSON)
	}
	_, _ = l.w.Write(l.buffer.Bytes()) // the peer went away: the request's context ends the loop
	l.buffer.Reset()
}

func (l *listWriter) end() {
	if !l.begun {
		l.buffer.WriteByte('[')
	}
	l.buffer.WriteByte(']')
	l.send()
}

// fail answers with the error, or breaks the connection when half the list is
// out already: half a list must not look like a whole one.
func (l *listWriter) fail(a *api, r *http.Request, err error) {
	if l.sent {
		_ = a.problem(r.Context(), err) // for the log
		panic(http.ErrAbortHandler)
	}
	a.writeProblem(l.w, r, err)
}

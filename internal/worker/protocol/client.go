package protocol

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/forward"
)

// Dialer opens a connection to a worker, by whatever way leads there.
type Dialer func(ctx context.Context) (net.Conn, error)

// DialUnix dials a worker on this machine.
func DialUnix(socket string) Dialer {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
}

// Client speaks to one worker. Every call can be made again after a lost
// answer. A refusal by the worker is a *skyport.Error with its code; any other
// error means that the worker was not reached or the connection broke. Safe for
// concurrent use.
type Client struct {
	dial Dialer
	http *http.Client
	bulk *http.Client
}

// NewClient returns a client that dials as often as it needs to. Close it.
func NewClient(dial func(ctx context.Context) (net.Conn, error)) *Client {
	return NewClientWithBulk(dial, dial)
}

// NewClientWithBulk returns a client whose transfers go over connections of
// their own, by another dialer: nothing else waits behind them.
func NewClientWithBulk(dial, bulk func(ctx context.Context) (net.Conn, error)) *Client {
	return &Client{dial: dial, http: newHTTP(dial), bulk: newHTTP(bulk)}
}

func newHTTP(dial Dialer) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true, // transfers compress where it helps
		ReadBufferSize:      64 << 10,
		WriteBufferSize:     64 << 10,
	}}
}

// Close lets go of idle connections. Calls that are under way go on.
func (c *Client) Close() {
	c.http.CloseIdleConnections()
	c.bulk.CloseIdleConnections()
}

// HTTP is the client that transfers use, with [Client.InputsURL] and [Client.OutputsURL].
func (c *Client) HTTP() *http.Client { return c.bulk }

// InputsURL is where transfer.Push sends the inputs of a run.
func (c *Client) InputsURL(run string) string { return runURL(run) + "/inputs" }

// OutputsURL is where transfer.Pull gets the outputs of a run, after it ended.
func (c *Client) OutputsURL(run string) string { return runURL(run) + "/outputs" }

// base is the worker's address as far as HTTP is concerned: the dialer knows the real one.
const base = "http://worker/v1"

func runURL(run string) string { return base + "/runs/" + url.PathEscape(run) }

// Info asks who the worker is.
func (c *Client) Info(ctx context.Context) (Info, error) {
	var info Info
	return info, c.call(ctx, http.MethodGet, base+"/worker", nil, &info)
}

// Prepare makes the run's directory; with spec.Start it also starts the run.
// Preparing again with the same spec changes nothing; with another one it is
// CodeConflict.
func (c *Client) Prepare(ctx context.Context, spec RunSpec) (RunStatus, error) {
	var status RunStatus
	return status, c.call(ctx, http.MethodPut, runURL(spec.Run), spec, &status)
}

// Start starts the script, once, however often it is called.
func (c *Client) Start(ctx context.Context, run string) (RunStatus, error) {
	var status RunStatus
	return status, c.call(ctx, http.MethodPost, runURL(run)+"/start", nil, &status)
}

// Status tells how far a run is; CodeNotFound when the worker does not know it.
func (c *Client) Status(ctx context.Context, run string) (RunStatus, error) {
	var status RunStatus
	return status, c.call(ctx, http.MethodGet, runURL(run), nil, &status)
}

// Stop asks the run to end: TERM, the grace, KILL. It returns when the request
// is kept; the end shows in the watch stream.
func (c *Client) Stop(ctx context.Context, run string) error {
	return c.call(ctx, http.MethodPost, runURL(run)+"/stop", nil, nil)
}

// Remove kills what is left of the run and forgets it. Removing what is not
// there is no error.
func (c *Client) Remove(ctx context.Context, run string) error {
	return c.call(ctx, http.MethodDelete, runURL(run), nil, nil)
}

// Metrics returns the samples of a run, oldest first.
func (c *Client) Metrics(ctx context.Context, run string) ([]Sample, error) {
	var metrics struct {
		Samples []Sample `json:"samples"`
	}
	err := c.call(ctx, http.MethodGet, runURL(run)+"/metrics", nil, &metrics)
	return metrics.Samples, err
}

// Silence is how long a watch stream may say nothing before it is taken for
// dead; the worker sends a sign of life every [Heartbeat].
const (
	Heartbeat = 5 * time.Second
	Silence   = 12 * time.Second
)

// maxLine bounds one line of the watch stream.
const maxLine = 1 << 20

// Watch calls event for each line of the watch stream, in order, until ctx
// ends, event fails (its error is returned), or the stream breaks, which is an
// error always: the caller connects again. Signs of life are told too.
func (c *Client) Watch(ctx context.Context, event func(Event) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(Silence, func() { cancel(errors.New("the worker said nothing for " + Silence.String())) })
	defer silence.Stop()

	resp, err := c.do(ctx, http.MethodGet, base+"/watch", nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // was only read
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	for lines.Scan() {
		silence.Reset(Silence)
		var e Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("watch the worker: %w", err)
		}
		if err := event(e); err != nil {
			return err
		}
	}
	err = lines.Err()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("watch the worker: %w", err)
}

// Log copies what there is of a log from offset on to w, and returns how many
// bytes that was. It never waits for more; when an answer is as long as the
// worker's bound, there may be more at once: ask again until it is 0.
func (c *Client) Log(ctx context.Context, run, stream string, offset int64, w io.Writer) (int64, error) {
	resp, err := c.do(ctx, http.MethodGet, runURL(run)+"/logs/"+url.PathEscape(stream)+"?offset="+strconv.FormatInt(offset, 10), nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }() // was only read
	n, err := io.Copy(w, io.LimitReader(resp.Body, MaxLog))
	if err != nil {
		return n, fmt.Errorf("read %s of run %s: %w", stream, run, err)
	}
	return n, nil
}

// MaxLog is the most bytes of a log in one answer.
const MaxLog = 4 << 20

// Connect opens a connection to the port of the job where it listens. It is
// CodeUnavailable while nothing of the job listens there.
func (c *Client) Connect(ctx context.Context, run string, port int) (net.Conn, error) {
	return c.raw(ctx, run, "connect", port)
}

// Accept waits for the next connection that the job makes to one of its out
// ports.
func (c *Client) Accept(ctx context.Context, run string, port int) (net.Conn, error) {
	return c.raw(ctx, run, "accept", port)
}

func (c *Client) raw(ctx context.Context, run, route string, port int) (net.Conn, error) {
	path := fmt.Sprintf("/v1/runs/%s/%s?port=%d", url.PathEscape(run), route, port)
	conn, err := forward.DialUpgrade(ctx, c.dial, path, nil)
	if err != nil {
		return nil, fmt.Errorf("%s port %d of run %s: %w", route, port, run, err)
	}
	return conn, nil
}

// maxAnswer bounds a JSON answer.
const maxAnswer = 16 << 20

func (c *Client) call(ctx context.Context, method, url string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("ask the worker: %w", err)
		}
		body = bytes.NewReader(data)
	}
	resp, err := c.do(ctx, method, url, body)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // was only read
	if out == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
	} else {
		err = json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out)
	}
	if err != nil {
		return fmt.Errorf("read the worker's answer to %s %s: %w", method, resp.Request.URL.Path, err)
	}
	return nil
}

// do sends a request and returns the answer if it is a success.
func (c *Client) do(ctx context.Context, method, url string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, skyport.Errorf(skyport.CodeInvalid, "ask the worker: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the worker: %w", err)
	}
	if resp.StatusCode >= 300 {
		defer func() { _ = resp.Body.Close() }() // was only read
		return nil, readProblem(resp)
	}
	return resp, nil
}

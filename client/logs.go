package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/openworkload/skyport"
)

// LogOptions say which part of a log to read.
type LogOptions struct {
	Follow  bool  // goes on until the log ends
	Attempt int   // 0: the current one
	Offset  int64 // skip so many bytes
	Tail    int   // only the last so many lines; not with Offset
}

// Logs opens a log of a job. With Follow it waits for a log that has not
// begun, dials again after a lost connection and continues at the byte where
// it was. Without, CodeNotFound says that there is nothing yet. Close it.
func (c *Client) Logs(ctx context.Context, id skyport.JobID, stream skyport.LogStream, opts LogOptions) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	log := &logReader{client: c, ctx: ctx, cancel: cancel, path: jobPath(id, "logs", url.PathEscape(string(stream))), opts: opts}
	if err := c.persist(ctx, c.patience, log.dial); err != nil {
		cancel()
		return nil, err
	}
	return log, nil
}

// logReader reads a log over as many connections as it takes.
type logReader struct {
	client *Client
	ctx    context.Context //nolint:containedctx // of Logs: a reader's methods take none
	cancel context.CancelFunc
	path   string
	opts   LogOptions // Offset and Attempt move on with what was read
	body   io.ReadCloser
}

func (l *logReader) dial() error {
	query := url.Values{
		"follow":  {strconv.FormatBool(l.opts.Follow)},
		"attempt": {strconv.Itoa(l.opts.Attempt)},
		"offset":  {strconv.FormatInt(l.opts.Offset, 10)},
	}
	if l.opts.Tail > 0 {
		query.Set("tail", strconv.Itoa(l.opts.Tail))
	}
	response, err := l.client.send(l.ctx, call{method: http.MethodGet, path: l.path, query: query}, nil)
	if err != nil {
		return err
	}
	l.body = response.Body
	// From here on the place is known: a further dial asks for the very next byte.
	l.opts.Tail = 0
	l.opts.Offset = number(response, "Skyport-Log-Offset", l.opts.Offset)
	l.opts.Attempt = int(number(response, "Skyport-Log-Attempt", int64(l.opts.Attempt)))
	return nil
}

func number(response *http.Response, header string, otherwise int64) int64 {
	n, err := strconv.ParseInt(response.Header.Get(header), 10, 64)
	if err != nil {
		return otherwise
	}
	return n
}

// Read implements [io.Reader]. It fails only when dialling again cannot help.
func (l *logReader) Read(p []byte) (int, error) {
	for {
		n, err := l.body.Read(p)
		l.opts.Offset += int64(n)
		if n > 0 || len(p) == 0 {
			return n, nil // an error comes again with the next read
		}
		switch {
		case err == nil:
			continue
		case errors.Is(err, io.EOF): // core ends an answer so only at the end of the log
			return 0, io.EOF
		case l.ctx.Err() != nil:
			return 0, l.ctx.Err() //nolint:wrapcheck // says all
		}
		l.client.log.DebugContext(l.ctx, "the log broke off; dialling again", "error", err, "offset", l.opts.Offset)
		_ = l.body.Close() // it is broken
		patience := l.client.patience
		if l.opts.Follow {
			patience = forever
		}
		if err := l.client.persist(l.ctx, patience, l.dial); err != nil {
			l.body = http.NoBody
			return 0, err
		}
	}
}

// Close ends the reading; a Read that waits returns.
func (l *logReader) Close() error {
	l.cancel()
	return l.body.Close() //nolint:wrapcheck // passes through
}

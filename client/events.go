package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/openworkload/skyport"
)

// EventFilter selects events: those of one job, or of all the caller's.
type EventFilter struct {
	Job skyport.JobID
}

func (f EventFilter) path() string {
	if f.Job != "" {
		return jobPath(f.Job, "events")
	}
	return "/v1/events"
}

// FromNow as the position of Events skips what is stored.
const FromNow int64 = -1

// silence is how long a stream may be quiet: core gives a sign of life every 15 s.
const silence = 45 * time.Second

// forever is the patience of a stream that was connected once.
const forever = 1 << 62

// Events yields the caller's events after a position (0: all stored ones,
// FromNow: none), then those that happen, live progress included, until the
// context ends. Stored events come in order, each once, over restarts of core.
// It ends at the first error that trying again cannot mend.
func (c *Client) Events(ctx context.Context, filter EventFilter, after int64) iter.Seq2[skyport.Event, error] {
	return func(yield func(skyport.Event, error) bool) {
		err := c.follow(ctx, filter, after, func() error { return nil }, func(e skyport.Event) bool { return yield(e, nil) })
		if err != nil {
			yield(skyport.Event{}, err)
		}
	}
}

// StoredEvents yields the stored events after a position and ends.
func (c *Client) StoredEvents(ctx context.Context, filter EventFilter, after int64) iter.Seq2[skyport.Event, error] {
	return func(yield func(skyport.Event, error) bool) {
		for {
			var page struct {
				Events []skyport.Event `json:"events"`
				Next   int64           `json:"next"`
				More   bool            `json:"more"`
			}
			query := url.Values{"follow": {"false"}, "after": {strconv.FormatInt(after, 10)}}
			if _, err := c.do(ctx, call{method: http.MethodGet, path: filter.path(), query: query, out: &page}); err != nil {
				yield(skyport.Event{}, err)
				return
			}
			for _, e := range page.Events {
				if !yield(e, nil) {
					return
				}
			}
			if !page.More || page.Next <= after {
				return
			}
			after = page.Next
		}
	}
}

// Wait returns the job once it has come to a terminal state. It hears of it by
// an event, and goes on over restarts of core until the context ends.
func (c *Client) Wait(ctx context.Context, id skyport.JobID) (skyport.Job, error) {
	var job skyport.Job
	look := func() error {
		now, err := c.Job(ctx, id)
		if err != nil {
			return err
		}
		if job = now; job.State.Terminal() {
			return errEnough
		}
		return nil
	}
	for {
		// The stream is open before the job is read, so the event that ends the
		// wait cannot fall between.
		err := c.follow(ctx, EventFilter{Job: id}, FromNow, look, func(e skyport.Event) bool {
			return e.Kind != skyport.EventState || !skyport.JobState(e.State).Terminal()
		})
		if err == nil { // the event came; a look tells whether it still holds
			err = look()
		}
		switch {
		case errors.Is(err, errEnough):
			return job, nil
		case err != nil && (ctx.Err() != nil || skyport.CodeOf(err) != skyport.CodeUnavailable || job.ID == ""):
			return job, err
		}
	}
}

// errEnough ends a stream early.
var errEnough = errors.New("enough")

// follow passes events on until take says no (then it returns nil), connected
// says no (then it returns that error), or there is an error that dialling
// again cannot mend. Connected is called after each dial, when from then on
// every event will be heard.
func (c *Client) follow(ctx context.Context, filter EventFilter, last int64, connected func() error, take func(skyport.Event) bool) error {
	patience := c.patience
	for {
		var stream *eventStream
		err := c.persist(ctx, patience, func() (err error) {
			stream, err = c.openEvents(ctx, filter, last)
			return err
		})
		if err != nil {
			return err
		}
		patience = forever
		if err := connected(); err != nil {
			stream.close()
			return err
		}
		enough, err := stream.each(&last, take)
		stream.close()
		switch {
		case enough:
			return nil
		case ctx.Err() != nil:
			return ctx.Err() //nolint:wrapcheck // says all
		}
		c.log.DebugContext(ctx, "the stream of events broke; dialling again", "error", err, "after", last)
		if err := sleep(ctx, firstWait); err != nil {
			return err
		}
	}
}

// eventStream is one connection that events come over.
type eventStream struct {
	body     io.ReadCloser
	lines    *bufio.Reader
	watchdog *time.Timer
	cancel   context.CancelFunc
}

func (c *Client) openEvents(ctx context.Context, filter EventFilter, last int64) (*eventStream, error) {
	ctx, cancel := context.WithCancel(ctx)
	header := http.Header{"Accept": {"text/event-stream"}}
	query := url.Values{"after": {strconv.FormatInt(last, 10)}}
	// The watchdog also guards the dial: a core that hangs is a core that is gone.
	watchdog := time.AfterFunc(silence, cancel)
	request := call{method: http.MethodGet, path: filter.path(), query: query, header: header}
	response, err := c.send(ctx, request, nil)
	if err != nil {
		hung := !watchdog.Stop()
		cancel()
		if hung {
			err = &passingError{skyport.Errorf(skyport.CodeUnavailable, "core at %s does not answer", c.base)}
		}
		return nil, err
	}
	return &eventStream{
		body: response.Body, lines: bufio.NewReaderSize(response.Body, 64<<10), watchdog: watchdog, cancel: cancel,
	}, nil
}

func (s *eventStream) close() {
	s.watchdog.Stop()
	s.cancel()
	_ = s.body.Close() // it was only read
}

// each passes events on and keeps the position in last. It returns true when
// take has had enough, else why the stream ended.
func (s *eventStream) each(last *int64, take func(skyport.Event) bool) (bool, error) {
	var data []byte
	position := *last
	for {
		line, err := s.line()
		if err != nil {
			return false, err
		}
		s.watchdog.Reset(silence)
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch {
		case len(line) > 0 && string(field) == "data":
			data = append(append(data, value...), '\n')
		case len(line) > 0 && string(field) == "id":
			position, _ = strconv.ParseInt(string(value), 10, 64) // nonsense is 0, which moves nothing
		case len(line) == 0 && len(data) == 0:
			// An id without data: the position of a stream that skipped the past.
			*last = max(*last, position)
		case len(line) == 0 && len(data) > 0:
			var e skyport.Event
			if err := json.Unmarshal(data, &e); err != nil {
				return false, fmt.Errorf("read an event: %w", err)
			}
			data = data[:0]
			if e.Seq != 0 {
				if e.Seq <= *last {
					continue
				}
				*last = e.Seq
			}
			if !take(e) {
				return true, nil
			}
		}
	}
}

// line reads one line, at most a megabyte of it.
func (s *eventStream) line() ([]byte, error) {
	var line []byte
	for {
		part, more, err := s.lines.ReadLine()
		if err != nil {
			return nil, err //nolint:wrapcheck // only logged
		}
		if !more && line == nil {
			return part, nil
		}
		if line = append(line, part...); len(line) > 1<<20 {
			return nil, errors.New("a line of the stream is too long")
		}
		if !more {
			return line, nil
		}
	}
}

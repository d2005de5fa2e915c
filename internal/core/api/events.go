package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/openworkload/skyport"
)

// FromNow as the position of a stream of events skips what is stored.
const FromNow = -1

const (
	eventPage = 1000
	heartbeat = 15 * time.Second
)

// eventRoutes tell what happens: stored events first, then live ones.
func (a *api) eventRoutes() {
	describe := func(id, path, summary string) huma.Operation {
		return huma.Operation{
			OperationID: id, Method: http.MethodGet, Path: path, Tags: []string{"Events"}, Summary: summary,
			Description: "A stream of server-sent events: stored events after the position, each with its seq as id, " +
				"then those that happen, live progress (without id) included. Resume with Last-Event-ID or after. " +
				"With follow=false a JSON page of stored events.",
			Responses: map[string]*huma.Response{"200": {
				Description: "Events",
				Content: map[string]*huma.MediaType{
					"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}},
					"application/json":  {Schema: a.schemaOf(events{})},
				},
			}},
		}
	}
	operation(a, describe("list-events", "/v1/events", "Events of all the caller's jobs"),
		func(ctx context.Context, in *EventsInput) (*huma.StreamResponse, error) {
			return a.events(ctx, EventQuery{Owner: callerOf(ctx).ID}, in)
		})
	operation(a, describe("list-job-events", "/v1/jobs/{id}/events", "Events of one job"),
		func(ctx context.Context, in *struct {
			jobPath
			EventsInput
		},
		) (*huma.StreamResponse, error) {
			return a.events(ctx, EventQuery{Job: jobOf(ctx).ID}, &in.EventsInput)
		})
}

type (
	// EventsInput says which events to send, and how.
	EventsInput struct {
		After  int64 `query:"after" minimum:"-1" doc:"Seq of the last event that is known; 0: none; -1: only what happens from now on"`
		LastID int64 `header:"Last-Event-ID" minimum:"0" doc:"The same, as event sources send it; goes before after"`
		Follow bool  `query:"follow" default:"true" doc:"Go on with what happens; false: one JSON page of stored events"`
		Limit  int   `query:"limit" minimum:"1" default:"1000" doc:"With follow=false: most events on the page"`
	}
	events struct {
		Events []skyport.Event `json:"events"`
		Next   int64           `json:"next" doc:"Pass it as after for the next page"`
		More   bool            `json:"more" doc:"There may be more already"`
	}
)

func (a *api) events(ctx context.Context, query EventQuery, in *EventsInput) (*huma.StreamResponse, error) {
	query.After = in.After
	if in.LastID > 0 {
		query.After = in.LastID
	}
	if !in.Follow {
		query.After = max(query.After, 0)
		query.Limit = min(in.Limit, 10*eventPage)
		list, err := a.Backend.Events(ctx, query)
		if err != nil {
			return nil, err
		}
		page := events{Events: notNil(list), Next: query.After, More: len(list) == query.Limit}
		if len(list) > 0 {
			page.Next = list[len(list)-1].Seq
		}
		return &huma.StreamResponse{Body: func(ctx huma.Context) {
			_, w := humago.Unwrap(ctx)
			writeJSON(w, http.StatusOK, "application/json", page)
		}}, nil
	}
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		_, w := humago.Unwrap(ctx)
		a.metrics.streams.Inc()
		defer a.metrics.streams.Dec()
		streaming(w)
		s := eventStream{api: a, w: w, query: query, last: query.After}
		s.run(ctx.Context())
	}}, nil
}

// eventStream sends events to one follower.
type eventStream struct {
	api   *api
	w     http.ResponseWriter
	query EventQuery
	last  int64 // seq of the last stored event that was sent
}

// run sends until the follower or its job goes away. It subscribes before it
// reads what is stored, so nothing falls between; what is told twice is known
// by its seq. A follower too slow for the live channel loses it and reads what
// it missed from the store.
func (s *eventStream) run(ctx context.Context) {
	for begun := false; ; begun = true {
		live, stop := s.api.Backend.Subscribe(EventQuery{Owner: s.query.Owner, Job: s.query.Job})
		if !begun {
			// Only now: whoever sees the header may rely on hearing everything from here on.
			s.w.Header().Set("Content-Type", "text/event-stream")
			s.w.Header().Set("Cache-Control", "no-store")
			s.w.WriteHeader(http.StatusOK)
			s.write("retry: 1000\n\n")
			s.findPlace(ctx)
			s.flush()
		}
		again := s.sendStored(ctx) && s.sendLive(ctx, live)
		stop()
		if !again {
			return
		}
	}
}

// findPlace gives a stream that skips the past the position that it skips to:
// an id without data, which a follower keeps and does not take for an event.
func (s *eventStream) findPlace(ctx context.Context) {
	if s.last != FromNow {
		return
	}
	if seq, err := s.api.Backend.LastEvent(ctx); err == nil {
		s.last = seq
		s.write("id: " + strconv.FormatInt(seq, 10) + "\n\n")
	}
}

// sendStored sends what is stored after the last event that was sent.
func (s *eventStream) sendStored(ctx context.Context) bool {
	if s.last == FromNow {
		return true
	}
	query := s.query
	query.Limit = eventPage
	for {
		query.After = s.last
		page, err := s.api.Backend.Events(ctx, query)
		if err != nil {
			if ctx.Err() == nil {
				s.api.Logger.WarnContext(ctx, "a stream of events ends", "error", err)
			}
			return false // the follower dials again and resumes
		}
		for i := range page {
			if !s.send(&page[i]) {
				return false
			}
		}
		if len(page) > 0 && !s.flush() {
			return false
		}
		if len(page) < eventPage {
			return true
		}
	}
}

// sendLive sends what happens until the channel is lost, which it tells by true.
func (s *eventStream) sendLive(ctx context.Context, live <-chan skyport.Event) bool {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-beat.C:
			if s.query.Job != "" {
				if _, err := s.api.Backend.Job(ctx, s.query.Job); skyport.CodeOf(err) == skyport.CodeNotFound && err != nil {
					return false // purged; the follower hears 404 when it dials again
				}
			}
			if !s.write(": alive\n\n") || !s.flush() {
				return false
			}
		case e, open := <-live:
			for open { // what is there already goes out in one piece
				if !s.send(&e) {
					return false
				}
				select {
				case e, open = <-live:
					continue
				default:
				}
				break
			}
			if !s.flush() {
				return false
			}
			if !open {
				return true
			}
		}
	}
}

// send writes one event, unless it was sent before.
func (s *eventStream) send(e *skyport.Event) bool {
	if e.Seq != 0 && e.Seq <= s.last {
		return true
	}
	data, err := json.Marshal(e)
	if err != nil {
		panic(fmt.Sprintf("api: an event cannot be encoded: %v", err))
	}
	frame := make([]byte, 0, len(data)+64)
	if e.Seq != 0 {
		s.last = e.Seq
		frame = append(frame, "id: "...)
		frame = strconv.AppendInt(frame, e.Seq, 10)
		frame = append(frame, '\n')
	}
	frame = append(frame, "event: "...)
	frame = append(frame, e.Kind...)
	frame = append(frame, "\ndata: "...)
	frame = append(frame, data...)
	frame = append(frame, "\n\n"...)
	_, err = s.w.Write(frame)
	return err == nil
}

func (s *eventStream) write(text string) bool {
	_, err := s.w.Write([]byte(text))
	return err == nil
}

func (s *eventStream) flush() bool {
	return http.NewResponseController(s.w).Flush() == nil
}

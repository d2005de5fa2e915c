package core

import (
	"sync"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/api"
)

// hub sends events to those who follow. A follower that does not keep up loses
// its channel: it resumes from the store, so that nobody waits for it.
type hub struct {
	mu        sync.Mutex
	followers map[*follower]struct{}
}

type follower struct {
	query  api.EventQuery
	events chan skyport.Event
}

// backlog is how many events a follower may be behind.
const backlog = 1024

func (h *hub) subscribe(q api.EventQuery) (<-chan skyport.Event, func()) {
	f := &follower{query: q, events: make(chan skyport.Event, backlog)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.followers == nil {
		h.followers = map[*follower]struct{}{}
	}
	h.followers[f] = struct{}{}
	return f.events, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.drop(f)
	}
}

// publish sends events in order to every follower that they concern.
func (h *hub) publish(events ...skyport.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for f := range h.followers {
		for _, e := range events {
			if !f.wants(&e) {
				continue
			}
			select {
			case f.events <- e:
			default:
				h.drop(f)
			}
			if _, there := h.followers[f]; !there {
				break
			}
		}
	}
}

func (h *hub) drop(f *follower) {
	if _, there := h.followers[f]; there {
		delete(h.followers, f)
		close(f.events)
	}
}

func (f *follower) wants(e *skyport.Event) bool {
	return (f.query.Owner == "" || f.query.Owner == e.Owner) && (f.query.Job == "" || f.query.Job == e.Job) &&
		(e.Seq == 0 || e.Seq > f.query.After)
}

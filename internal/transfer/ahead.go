package transfer

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/openworkload/skyport"
)

// With Options.Ahead the streams of a push begin together with its manifest:
// what they bring waits at the receiver for the manifest to be opened. That
// spares two round trips and, more, the time in which each connection finds out
// how fast the way is. What is sent so early may turn out to be there already:
// it is a small tree, or a small part of a large one.
const (
	aheadWhole = 64 << 20 // trees up to this size go ahead as a whole
	aheadPart  = 8 << 20  // of larger ones

	// awaitOpen is how long a stream waits for its manifest.
	awaitOpen  = 15 * time.Second
	aheadQuery = "ahead"
)

// ahead is the first attempt of a push that goes ahead.
func (p *push) ahead(whole context.Context, m *Manifest, encoded []byte) error {
	ctx, cancel := context.WithCancel(whole)
	defer cancel()
	x := m.indexed()
	q := newQueue(x, x.spans(func(uint32) bool { return true }))
	q.planned, q.allowed = make(chan struct{}), aheadPart
	if q.left <= aheadWhole {
		q.allowed = q.left
	}
	var reply planReply
	var failed error
	var plan sync.WaitGroup
	query := "?" + aheadQuery + "=" + rand.Text()
	plan.Go(func() {
		reply, failed = p.send(ctx, manifestRoute+query, encoded, newQueue(x, nil), longestReply(m))
		if failed == nil {
			failed = p.lacks(m, reply)
		}
		if failed != nil || reply.Committed {
			cancel()
			return
		}
		q.plan(reply.Missing)
	})
	committed, err := p.carry(ctx, m, q, query)
	plan.Wait()
	switch {
	case failed != nil:
		return failed
	case committed || reply.Committed:
		p.there(0)
		return nil
	case err == nil || errors.Is(err, errAgain):
		return p.attempt(whole) // the plan took its time, or the last chunk has not come to an end everywhere
	}
	return err
}

// plan tells what the receiver lacks: nothing else goes any more.
func (q *queue) plan(missing []Span) {
	q.mu.Lock()
	defer q.mu.Unlock()
	lacking, waiting := q.x.marked(missing), q.x.marked(q.spans)
	rest := q.x.spans(func(n uint32) bool { return lacking[n] && waiting[n] })
	q.spans, q.left = nil, q.x.bytesOf(rest)
	q.x.batches(rest, func(s Span) bool { q.spans = append(q.spans, s); return true })
	close(q.planned)
	q.planned = nil
}

// marked turns spans into a mark for each chunk.
func (x *index) marked(spans []Span) []bool {
	marks := make([]bool, len(x.chunks))
	for _, s := range spans {
		for n := s.First; n < s.First+s.Count; n++ {
			marks[n] = true
		}
	}
	return marks
}

// meetings is where streams that went ahead wait for their manifest. Each push
// has a name of its own for it: an older transfer of the same tree is none of theirs.
type meetings struct {
	mu    sync.Mutex
	named map[string]*meeting
}

type meeting struct {
	ready chan struct{} // closed when the manifest was opened, or never will be
	once  sync.Once
	sink  Sink // nil: it was not
}

func (m *meetings) at(name string) *meeting {
	m.mu.Lock()
	defer m.mu.Unlock()
	one := m.named[name]
	if one == nil {
		one = &meeting{ready: make(chan struct{})}
		if m.named == nil {
			m.named = map[string]*meeting{}
		}
		m.named[name] = one
		time.AfterFunc(2*awaitOpen, func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			delete(m.named, name)
		})
	}
	return one
}

// settle lets the streams go on; nil: they were in vain.
func (m *meeting) settle(sink Sink) {
	m.once.Do(func() {
		m.sink = sink
		close(m.ready)
	})
}

// resume finds the sink of a stream. One that goes ahead waits for its manifest.
func (h *receiveHandler) resume(r *http.Request, place Place, hash string) (Sink, error) {
	ctx, name := r.Context(), r.URL.Query().Get(aheadQuery)
	if name == "" {
		return place.Resume(ctx, hash)
	}
	timer := time.NewTimer(awaitOpen)
	defer timer.Stop()
	one := h.ahead.at(name)
	select {
	case <-one.ready:
	case <-timer.C:
	case <-ctx.Done():
	}
	select {
	case <-one.ready:
		if one.sink != nil && one.sink.Manifest().Hash() == hash {
			return one.sink, nil
		}
	default:
	}
	return nil, skyport.Errorf(skyport.CodeNotFound, "no manifest came for what went ahead of it")
}

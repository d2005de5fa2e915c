package worker

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/openworkload/skyport/internal/worker/protocol"
)

// board holds the latest status of every run and tells readers what changed.
// Readers learn the latest, not every step: a reader that is slow gets fewer
// events and holds up nobody.
type board struct {
	mu      sync.Mutex
	version uint64
	latest  map[string]protocol.RunStatus
	readers map[*reader]struct{}
}

type reader struct {
	changed map[string]struct{} // names to tell, gone runs included
	wake    chan struct{}       // holds one
}

// newBoard returns a board whose versions begin after those of every earlier
// worker of the directory.
func newBoard(epoch uint32) *board {
	return &board{
		version: uint64(epoch) << 32,
		latest:  make(map[string]protocol.RunStatus),
		readers: make(map[*reader]struct{}),
	}
}

// put makes s the status of its run, under a new version.
func (b *board) put(s protocol.RunStatus) protocol.RunStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.version++
	s.Version = b.version
	b.latest[s.Run] = s
	b.tell(s.Run)
	return s
}

// remove forgets a run.
func (b *board) remove(run string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.latest[run]; ok {
		delete(b.latest, run)
		b.tell(run)
	}
}

func (b *board) tell(run string) {
	for r := range b.readers {
		r.changed[run] = struct{}{}
		select {
		case r.wake <- struct{}{}:
		default: // it knows already
		}
	}
}

// watch calls send with all runs that there are, then Synced, then each
// change, until ctx ends or send fails. beat is a source of signs of life.
func (b *board) watch(ctx context.Context, beat <-chan time.Time, send func([]protocol.Event) error) error {
	r := &reader{changed: make(map[string]struct{}), wake: make(chan struct{}, 1)}
	b.mu.Lock()
	b.readers[r] = struct{}{}
	first := make([]protocol.Event, 0, len(b.latest)+1)
	for _, name := range slices.Sorted(maps.Keys(b.latest)) {
		status := b.latest[name]
		first = append(first, protocol.Event{Status: &status})
	}
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.readers, r)
		b.mu.Unlock()
	}()

	if err := send(append(first, protocol.Event{Synced: true})); err != nil {
		return err
	}
	for {
		var events []protocol.Event
		select {
		case <-ctx.Done():
			return ctx.Err() //nolint:wrapcheck // the end of the stream is no failure
		case <-beat:
			events = []protocol.Event{{}}
		case <-r.wake:
			events = b.take(r)
		}
		if err := send(events); err != nil {
			return err
		}
	}
}

func (b *board) take(r *reader) []protocol.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	events := make([]protocol.Event, 0, len(r.changed))
	for _, name := range slices.Sorted(maps.Keys(r.changed)) {
		if status, ok := b.latest[name]; ok {
			events = append(events, protocol.Event{Status: &status})
		} else {
			events = append(events, protocol.Event{Removed: name})
		}
	}
	clear(r.changed)
	return events
}

package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"sync"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// find returns a run, or nil.
func (w *Worker) find(name string) *run {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.byName[name]
}

func (w *Worker) forget(r *run) {
	w.mu.Lock()
	delete(w.byName, r.name)
	w.mu.Unlock()
	w.board.remove(r.name)
	w.counts.forgot(r.current())
}

func (w *Worker) each() []*run {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]*run, 0, len(w.byName))
	for _, r := range w.byName {
		all = append(all, r)
	}
	return all
}

func (w *Worker) running() []*run {
	all := w.each()
	live := all[:0]
	for _, r := range all {
		if r.current().State == protocol.RunRunning {
			live = append(live, r)
		}
	}
	return live
}

func (w *Worker) refreshAll() {
	for _, r := range w.each() {
		r.refresh()
	}
}

// oneAtATime makes requests that make or remove the same run wait for one
// another. The returned function ends the turn.
func (w *Worker) oneAtATime(name string) func() {
	w.mu.Lock()
	turn := w.making[name]
	if turn == nil {
		turn = &sync.Mutex{}
		w.making[name] = turn
	}
	w.mu.Unlock()
	turn.Lock()
	return turn.Unlock
}

// put makes a run, or finds the one that was made by the same request before.
func (w *Worker) put(spec protocol.RunSpec) (*run, error) {
	if err := check(spec); err != nil {
		return nil, err
	}
	defer w.oneAtATime(spec.Run)()
	r := w.find(spec.Run)
	if r == nil {
		if err := w.makeRun(spec); err != nil {
			return nil, err
		}
		return w.openRun(spec.Run)
	}
	if !same(r.spec, spec) {
		return nil, skyport.Errorf(skyport.CodeConflict, "run %s is there with another specification", spec.Run)
	}
	if spec.Start {
		return r, r.start()
	}
	return r, nil
}

// same compares what was asked for; whether to start and logins are no part of it.
func same(a, b protocol.RunSpec) bool {
	a.Start, b.Start = false, false
	a.Registries, b.Registries = nil, nil
	a.Storage, b.Storage = nil, nil
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// remove ends and forgets a run. One that is not there is no error.
func (w *Worker) remove(ctx context.Context, name string) error {
	if !validName(name) {
		return skyport.Errorf(skyport.CodeInvalid, "%q is not the name of a run", skyport.Abbreviate(name, 80))
	}
	done := w.oneAtATime(name)
	defer done()
	r := w.find(name)
	if r == nil {
		return nil
	}
	if err := r.remove(ctx); err != nil {
		return err
	}
	w.mu.Lock()
	delete(w.making, name) // who waits for this turn finds nothing
	w.mu.Unlock()
	return nil
}

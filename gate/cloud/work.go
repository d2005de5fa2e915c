package cloud

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// work is a creation or a removal that is under way in this process. Calls for
// the same partition join it.
type work struct {
	removes bool
	known   bool // of a removal: there was something, or may have been
	plan    Plan // of a creation
	cancel  context.CancelFunc
	before  *work         // what a removal has overtaken
	marked  chan struct{} // of a removal: closed when the mark is set, or could not be set at once
	done    chan struct{}

	// Guarded by the site's mutex.
	details string
	refused error // why the mark is not set yet
	cleared bool  // of a removal: nothing is left
}

// begin starts work on a partition. The site's mutex is held.
func (s *site) begin(r *record, w *work, run func(context.Context)) bool {
	ctx, cancel := context.WithCancel(s.ctx)
	w.cancel, w.done, w.before = cancel, make(chan struct{}), r.work
	started := s.p.spawn(func() {
		defer close(w.done)
		defer cancel()
		run(ctx)
	})
	if !started {
		cancel()
		return false
	}
	r.work = w
	return true
}

// teller tells what a work does, as long as it is the one.
func (s *site) teller(r *record, w *work) func(string) {
	return func(text string) {
		s.mu.Lock()
		news := r.work == w && w.details != text
		if news {
			w.details = text
		}
		s.mu.Unlock()
		if news {
			s.p.notify()
		}
	}
}

// change makes one call that changes a partition, in its turn.
func (s *site) change(ctx context.Context, r *record, f func(context.Context) error) error {
	release, err := s.take(ctx, r)
	if err != nil {
		return err
	}
	defer release()
	return s.ask(ctx, f)
}

// build carries a creation to its end.
func (s *site) build(ctx context.Context, r *record, w *work) {
	tell := s.teller(r, w)
	limited, stop := context.WithTimeoutCause(ctx, s.o.CreateLimit, errTooLong)
	defer stop()
	err := s.insist(limited, tell, func(ctx context.Context) error {
		return s.change(ctx, r, func(ctx context.Context) error { return s.cloud.Make(ctx, w.plan, tell) })
	})
	w.plan.UserData = nil // it holds keys
	if ctx.Err() != nil {
		return // a removal, or the next process, goes on
	}
	s.mu.Lock()
	if r.work != w {
		s.mu.Unlock()
		return
	}
	if err == nil {
		r.made, r.ours, r.work, r.found = true, true, nil, nil // what was listed before is half of it
		s.alter(r)
		s.mu.Unlock()
		s.log.InfoContext(ctx, "partition made", "partition", r.id, "nodes", len(w.plan.Nodes))
		s.p.notify()
		wake(s.kicked)
		wake(s.moved)
		return
	}
	r.failure = err
	s.mu.Unlock()
	s.log.ErrorContext(ctx, "partition failed, what was made is removed", "partition", r.id, "error", err)
	s.p.notify()
	s.clear(ctx, r, w)
}

var errTooLong = errors.New("it took too long")

// insist calls f until it works, cannot work, or the time is over.
func (s *site) insist(ctx context.Context, tell func(string), f func(context.Context) error) error {
	var last error
	for failures := 0; ; {
		if s.hold(ctx, tell) {
			err := f(ctx)
			var throttled *Throttled
			switch {
			case err == nil || errors.Is(err, gate.ErrPermanent):
				return err
			case ctx.Err() == nil:
				last = err
			}
			if ctx.Err() == nil && !errors.As(err, &throttled) {
				pause := grown(s.o.Retry, failures)
				failures++
				s.log.WarnContext(ctx, "the cloud will be asked again", "error", err, "pause", pause)
				tell(fmt.Sprintf("Trying again: %v", err))
				rest(ctx, pause)
			}
		}
		if ctx.Err() == nil {
			continue
		}
		if !errors.Is(context.Cause(ctx), errTooLong) {
			return fmt.Errorf("site %s: %w", s.name, ctx.Err())
		}
		tooLong := skyport.Errorf(skyport.CodeUnavailable, "site %s did not make it within %s", s.name, s.o.CreateLimit)
		if last != nil {
			tooLong = skyport.Errorf(codeOf(last), "site %s did not make it within %s: %w", s.name, s.o.CreateLimit, last)
		}
		return tooLong
	}
}

// codeOf is the code of an error of a cloud; one that says none is passing.
func codeOf(err error) skyport.Code {
	if code := skyport.CodeOf(err); code != skyport.CodeInternal {
		return code
	}
	return skyport.CodeUnavailable
}

// startRemoval starts the removal of a partition; a creation is overtaken. The
// site's mutex is held.
func (s *site) startRemoval(r *record) (*work, bool) {
	w := &work{removes: true, known: r.known(), marked: make(chan struct{}), details: "Removing"}
	return w, s.begin(r, w, func(ctx context.Context) {
		if w.before != nil {
			w.before.cancel()
			<-w.before.done // it ends soon after its context
		}
		s.clear(ctx, r, w)
	})
}

// startClearing starts the removal of what is marked already, or has no business
// to be there. The site's mutex is held.
func (s *site) startClearing(r *record, w *work) {
	w.details = "Removing"
	pause := time.Duration(0)
	if r.removed || r.failure != nil { // it was removed already, and lists may only lag
		pause = grown(s.o.Retry, r.echoes)
		r.echoes++
	}
	s.begin(r, w, func(ctx context.Context) {
		if pause == 0 || rest(ctx, pause) {
			s.clear(ctx, r, w)
		}
	})
}

// clear marks a partition as one to be removed, and removes until the cloud's
// lists agree, however long it takes.
func (s *site) clear(ctx context.Context, r *record, w *work) {
	tell := s.teller(r, w)
	refuse := func(err error) { s.release(w, err) }
	s.relentless(ctx, r, tell, refuse, callLimit, func(ctx context.Context) error { return s.cloud.Condemn(ctx, r.id) })
	if ctx.Err() != nil {
		refuse(s.isClosed())
		return
	}
	refuse(nil)
	s.p.notify()
	nobody := func(error) {}
	s.relentless(ctx, r, tell, nobody, clearTime, func(ctx context.Context) error { return s.cloud.Clear(ctx, r.id, tell) })
	if ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	w.cleared = true
	if r.work == w {
		r.work, r.found, r.whole, r.made, r.ours, r.lease, r.sources = nil, nil, nil, false, false, time.Time{}, ""
		if w.removes {
			r.removed, r.failure = true, nil
		}
		s.alter(r)
	}
	s.mu.Unlock()
	s.log.InfoContext(ctx, "partition removed", "partition", r.id)
	s.p.notify()
	wake(s.kicked)
}

// release lets those go on who wait for the mark of a removal.
func (s *site) release(w *work, err error) {
	if w.marked == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w.refused = err
	select {
	case <-w.marked:
	default:
		close(w.marked)
	}
}

// relentless makes a step of a removal until it is done, each try within limit.
// It tells, and tells refuse, why that takes long.
func (s *site) relentless(
	ctx context.Context, r *record, tell func(string), refuse func(error), limit time.Duration, step func(context.Context) error,
) {
	for failures := 0; ctx.Err() == nil; {
		if left, err := s.quiet(); left > 0 {
			refuse(err)
		}
		if !s.hold(ctx, tell) {
			return
		}
		bounded, cancel := context.WithTimeout(ctx, limit)
		err := s.change(bounded, r, step)
		cancel()
		if err == nil || ctx.Err() != nil {
			return
		}
		refuse(fmt.Errorf("removal of partition %s: %w", r.id, err))
		tell(fmt.Sprintf("Not removed yet: %v", err))
		pause := grown(s.o.Retry, failures)
		failures++
		s.log.WarnContext(ctx, "partition not removed yet", "partition", r.id, "error", err, "pause", pause)
		if !rest(ctx, pause) {
			return
		}
	}
}

// remove starts a removal, or joins the one that is under way.
func (s *site) remove(ctx context.Context, id skyport.PartitionID) error {
	if _, err := skyport.ParsePartitionID(string(id)); err != nil {
		return nil // nothing can be there under such an id
	}
	if err := s.look(ctx, 0, forever); err != nil {
		s.log.DebugContext(ctx, "removal without a list", "partition", id, "error", err)
	}
	s.mu.Lock()
	r := s.record(id)
	w := r.work
	if w == nil || !w.removes {
		var started bool
		if w, started = s.startRemoval(r); !started {
			s.mu.Unlock()
			return s.isClosed()
		}
	}
	s.mu.Unlock()
	s.p.notify()
	late := func() error {
		return skyport.Errorf(skyport.CodeUnavailable, "the removal of partition %s is under way: %w", id, ctx.Err())
	}
	if w.marked != nil {
		select {
		case <-w.marked:
		case <-ctx.Done():
			return late()
		}
		s.mu.Lock()
		refused := w.refused
		s.mu.Unlock()
		if refused != nil {
			return refused
		}
	}
	if w.known {
		return nil
	}
	select {
	case <-w.done:
		s.mu.Lock()
		defer s.mu.Unlock()
		if !w.cleared {
			return s.isClosed()
		}
		return nil
	case <-ctx.Done():
		return late()
	}
}

const forever = time.Duration(1<<63 - 1)

// extend writes the new end of a lease.
func (s *site) extend(ctx context.Context, id skyport.PartitionID, until time.Time) error {
	status, err := s.status(ctx, id)
	if err != nil {
		return err
	}
	until = until.UTC().Truncate(time.Second)
	s.mu.Lock()
	r := s.record(id)
	if status.State == gate.StateDeleting || r.removed {
		s.mu.Unlock()
		return skyport.Errorf(skyport.CodeConflict, "partition %s is being removed", id)
	}
	failed := r.failed()
	if failed { // nothing of it is there: its reason is all that lives on
		r.lease = until
	}
	s.mu.Unlock()
	if failed {
		return nil
	}
	if left, why := s.quiet(); left > 0 {
		return why
	}
	if err := s.change(ctx, r, func(ctx context.Context) error { return s.cloud.Extend(ctx, id, until) }); err != nil {
		return fmt.Errorf("extend partition %s: %w", id, err)
	}
	s.mu.Lock()
	r.lease, r.leaseUntil = until, time.Now().Add(s.lag)
	s.mu.Unlock()
	s.p.notify()
	return nil
}

package gate

import (
	"context"
	"errors"
	"sync"
	"time"
)

// How soon the sweeper comes back to what did not work, or is not gone yet.
const (
	firstRetry = time.Second
	calmRetry  = time.Minute
)

// leases is the earliest end of a lease that is known of a provider's
// partitions: when the sweeper has to look next.
type leases struct {
	mu    sync.Mutex
	next  time.Time     // zero: none known
	moved chan struct{} // has one element when next came nearer
}

func newLeases() *leases { return &leases{moved: make(chan struct{}, 1)} }

// note takes in the end of a lease that was given or extended.
func (l *leases) note(end time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if end.IsZero() || (!l.next.IsZero() && !end.Before(l.next)) {
		return
	}
	l.next = end
	select {
	case l.moved <- struct{}{}:
	default:
	}
}

// reset forgets what was noted, before the sites are asked.
func (l *leases) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = time.Time{}
}

func (l *leases) earliest() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}

// sweep removes a provider's partitions when their leases have passed. It asks
// the sites when the next lease ends, when something failed (with backoff), and
// after Resync at the latest: lists may lag, and clocks may jump.
func (s *Server) sweep(ctx context.Context, h *house) {
	absence := newAbsence(s.options.Grace)
	retry := time.Duration(0)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.leases.moved:
		case <-timer.C:
			h.leases.reset()
			if s.sweepOnce(ctx, h, absence.cutoff(time.Now())) {
				retry = 0
			} else {
				retry = min(max(firstRetry, 2*retry), calmRetry)
			}
		}
		wait := s.options.Resync
		if end := h.leases.earliest(); !end.IsZero() {
			wait = min(wait, max(0, time.Until(end)))
		}
		if retry > 0 {
			wait = min(max(wait, 0), retry)
		}
		timer.Reset(max(wait, absence.left(time.Now()), time.Millisecond))
	}
}

// sweepOnce looks at all sites of a provider once. It is not clean when a call
// failed or when something past its lease was there: then it must look again.
func (s *Server) sweepOnce(ctx context.Context, h *house, now time.Time) (clean bool) {
	kind := h.provider.Kind()
	if err := s.refresh(ctx, h); err != nil {
		return false
	}
	clean = true
	for _, site := range h.known() {
		all, err := call(ctx, s, h, "list", func(ctx context.Context) ([]PartitionStatus, error) {
			return h.provider.List(ctx, site.Name, "")
		})
		if err != nil {
			s.log.WarnContext(ctx, "leases cannot be checked", "kind", kind, "site", site.Name, "error", err)
			clean = false
			continue
		}
		s.metrics.counted(site.Name, all)
		for _, p := range all {
			switch {
			case p.Lease.IsZero():
			case now.Before(p.Lease):
				h.leases.note(p.Lease)
			default:
				s.expire(ctx, h, p)
				clean = false
			}
		}
	}
	return clean
}

// expire removes one partition whose lease has passed. A partition that was
// extended since it was listed is asked for once more and stays.
func (s *Server) expire(ctx context.Context, h *house, listed PartitionStatus) {
	log := s.log.With("partition", listed.ID, "site", listed.Site, "owner", listed.Owner, "lease", listed.Lease)
	p, err := call(ctx, s, h, "status", func(ctx context.Context) (PartitionStatus, error) {
		return h.provider.Status(ctx, listed.Site, listed.ID)
	})
	switch {
	case errors.Is(err, ErrNotFound):
		return
	case err != nil:
		log.WarnContext(ctx, "partition past its lease cannot be looked at", "error", err)
		return
	case p.Lease.After(listed.Lease):
		return
	}
	if p.State != StateDeleting {
		log.WarnContext(ctx, "lease has passed: removing the partition", "state", p.State)
		s.metrics.expired.WithLabelValues(p.Site).Inc()
	}
	_, err = call(ctx, s, h, "delete", done(func(ctx context.Context) error {
		return h.provider.Delete(ctx, listed.Site, listed.ID)
	}))
	if err != nil {
		log.WarnContext(ctx, "partition past its lease not removed, will be tried again", "error", err)
	}
}

// absence keeps the sweeper's hands off for a while after the gate itself was
// away: it was just started, or the machine slept. Core was away too, perhaps,
// and gets the time to renew what it still wants.
type absence struct {
	grace time.Duration
	until time.Time // with a monotonic reading
	last  time.Time
}

func newAbsence(grace time.Duration) *absence {
	now := time.Now()
	return &absence{grace: max(0, grace), until: now.Add(max(0, grace)), last: now}
}

// cutoff is the moment whose past leases may be removed: now, or no moment
// at all while the time to renew runs.
func (a *absence) cutoff(now time.Time) time.Time {
	a.look(now)
	if now.Before(a.until) {
		return time.Time{}
	}
	return now
}

// left is how long the time to renew still runs.
func (a *absence) left(now time.Time) time.Duration {
	a.look(now)
	return max(0, a.until.Sub(now))
}

// look notices sleep: the clock on the wall went on, the monotonic one did
// not. A clock that was set forward looks the same and deserves the same.
func (a *absence) look(now time.Time) {
	wall := now.Round(0).Sub(a.last.Round(0))
	if wall-now.Sub(a.last) > 10*time.Second {
		a.until = now.Add(a.grace)
	}
	a.last = now
}

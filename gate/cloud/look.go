package cloud

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// flight is one listing under way; all who want to know wait for it.
type flight struct {
	seq  uint64 // the site's clock when it began
	done chan struct{}
	err  error // set before done is closed
}

// listing is when the site was listed last.
type listing struct {
	seq    uint64
	at     time.Time
	failed bool // a later one has
}

// staleLimit is how long old lists are told while the cloud wants to be left alone.
const staleLimit = 15 * time.Minute

// brief is for how long a listing serves while something moves.
func (s *site) brief() time.Duration { return min(s.o.Poll, time.Second) }

// look makes sure that the lists that are known began at seq of the site's clock
// or later, and are not older than age. One listing serves all who wait.
func (s *site) look(ctx context.Context, seq uint64, age time.Duration) error {
	for {
		s.mu.Lock()
		if s.listed.seq > 0 && s.listed.seq >= seq && time.Since(s.listed.at) <= age {
			s.mu.Unlock()
			return nil
		}
		f := s.flight
		if f == nil {
			s.clock++
			f = &flight{seq: s.clock, done: make(chan struct{})}
			if !s.p.spawn(func() { s.fly(f) }) {
				s.mu.Unlock()
				return s.isClosed()
			}
			s.flight = f
		}
		s.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
			return skyport.Errorf(skyport.CodeUnavailable, "site %s has not told its partitions yet: %w", s.name, ctx.Err())
		}
		if f.seq >= seq {
			return f.err
		}
	}
}

// fresh is the number that a listing has which begins from now on.
func (s *site) fresh() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clock + 1
}

func (s *site) isClosed() error {
	return skyport.Errorf(skyport.CodeUnavailable, "site %s is closed", s.name)
}

// fly lists everything once.
func (s *site) fly(f *flight) {
	began := time.Now()
	var found []Found
	_, err := s.quiet()
	if err == nil {
		ctx, cancel := context.WithTimeout(s.ctx, callLimit)
		err = s.ask(ctx, func(ctx context.Context) (err error) { found, err = s.survey(ctx, f.seq); return err })
		cancel()
		if err != nil {
			err = fmt.Errorf("list partitions at site %s: %w", s.name, err)
		}
	}
	s.mu.Lock()
	changed := false
	if err == nil {
		// Who was told of an error may wait for a change before asking again.
		changed = s.absorb(found, f.seq) || s.listed.failed
		s.listed = listing{seq: f.seq, at: began}
	} else {
		s.listed.failed = true
	}
	f.err = err
	s.flight = nil
	s.mu.Unlock()
	close(f.done)
	if changed {
		s.p.notify()
	}
}

// survey lists all, and asks once more, by id, for what was there and is not listed.
func (s *site) survey(ctx context.Context, seq uint64) ([]Found, error) {
	found, err := s.cloud.Find(ctx, "")
	if err != nil {
		return nil, err
	}
	shown := map[skyport.PartitionID]bool{}
	for _, f := range found {
		shown[f.Tags.Partition] = true
	}
	var lost []skyport.PartitionID
	s.mu.Lock()
	for id, r := range s.records {
		if !shown[id] && r.work == nil && r.whole != nil && r.seq <= seq {
			lost = append(lost, id)
		}
	}
	s.mu.Unlock()
	for _, id := range lost {
		again, err := s.cloud.Find(ctx, id)
		if err != nil {
			return nil, err
		}
		found = append(found, again...)
	}
	return found, nil
}

// absorb takes in what a listing has shown. Removals that it shows to be wanted
// are started. It says whether anything that is told of partitions has changed.
// The site's mutex is held.
func (s *site) absorb(found []Found, seq uint64) bool {
	before := s.tellAll()
	now := time.Now()
	shown := map[skyport.PartitionID]*Found{}
	for _, f := range found {
		if f.Tags.Partition == "" || f.Tags.Owner == "" {
			s.log.Warn("the cloud told of something without our tags", "resources", len(f.Resources))
			continue
		}
		if first, ok := shown[f.Tags.Partition]; ok {
			f = joined(*first, f)
		}
		shown[f.Tags.Partition] = &f
	}
	for id, f := range shown {
		r := s.record(id)
		if r.seq > seq {
			continue // what has changed since is not in it
		}
		r.found = f
		if r.work == nil {
			s.follow(r, f, now)
		}
	}
	for id, r := range s.records {
		if shown[id] == nil && r.seq <= seq {
			if r.made && !r.removed && now.Before(r.settled) {
				continue // made a moment ago: lists lag
			}
			r.found = nil
			if r.work == nil && r.failure == nil && !r.removed {
				r.made, r.ours, r.whole = false, false, nil
			}
		}
		if r.idle(now) {
			delete(s.records, id)
		}
	}
	return !reflect.DeepEqual(before, s.tellAll())
}

// follow acts on what a listing shows of a partition for which no work is under way.
func (s *site) follow(r *record, f *Found, now time.Time) {
	lagging := now.Before(r.settled)
	switch {
	case r.failure != nil:
		s.log.Warn("something of a creation that failed has come up late and is removed", "partition", r.id)
		s.startClearing(r, &work{})
	case r.removed:
		s.log.Warn("something of a removed partition is still listed and is removed again", "partition", r.id)
		s.startClearing(r, &work{removes: true, known: true})
	case f.Tags.Condemned && (!r.ours || !lagging):
		s.log.Info("removal goes on", "partition", r.id, "owner", f.Tags.Owner)
		r.tags = f.Tags
		s.startClearing(r, &work{removes: true, known: true})
	default:
		if !f.Tags.Condemned {
			r.tags = f.Tags
		}
		if f.Made {
			if !r.made && now.Sub(f.Created) < s.o.CreateLimit { // lists may be from before yet
				r.settled = now.Add(s.lag)
			}
			r.made, r.whole = true, f
		}
		if !r.lease.IsZero() && (f.Tags.Lease.Equal(r.lease) || !now.Before(r.leaseUntil)) {
			r.lease = time.Time{}
		}
	}
}

// joined is one partition of two halves that a cloud told apart.
func joined(a, b Found) Found {
	a.Tags = a.Tags.Merge(b.Tags)
	if a.Created.IsZero() || (!b.Created.IsZero() && b.Created.Before(a.Created)) {
		a.Created = b.Created
	}
	for _, n := range b.Nodes {
		if !slices.ContainsFunc(a.Nodes, func(other Node) bool { return other.Name == n.Name }) {
			a.Nodes = append(slices.Clip(a.Nodes), n)
		}
	}
	a.Made = a.Made || b.Made
	if a.Failure == nil {
		a.Failure = b.Failure
	}
	a.Resources = append(slices.Clip(a.Resources), b.Resources...)
	return a
}

// tellAll is all that there is to tell. The site's mutex is held.
func (s *site) tellAll() map[skyport.PartitionID]gate.PartitionStatus {
	all := make(map[skyport.PartitionID]gate.PartitionStatus, len(s.records))
	for id, r := range s.records {
		if status, ok := s.told(r); ok {
			all[id] = status
		}
	}
	return all
}

// status tells of one partition. That nothing is there is said only by lists
// that are newer than its last change.
func (s *site) status(ctx context.Context, id skyport.PartitionID) (gate.PartitionStatus, error) {
	if _, err := skyport.ParsePartitionID(string(id)); err != nil {
		return gate.PartitionStatus{}, fmt.Errorf("partition %q: %w", skyport.Abbreviate(string(id), 60), gate.ErrNotFound)
	}
	seq, age := uint64(0), s.brief()
	for looked := false; ; looked = true { // a listing that was waited for counts, however long it took
		s.mu.Lock()
		r, old := s.records[id], time.Since(s.listed.at)
		if r != nil {
			seq = max(seq, r.seq)
			status, there := s.told(r)
			if there && status.State == gate.StateUp {
				age = 2 * s.o.Poll
			}
			if there && (r.work != nil || r.failed() || (s.listed.seq >= seq && (looked || old <= age))) {
				s.mu.Unlock()
				return status, nil
			}
		}
		if s.listed.seq > 0 && s.listed.seq >= seq && (looked || old <= age) {
			s.mu.Unlock()
			return gate.PartitionStatus{}, fmt.Errorf("partition %s at site %s: %w", id, s.name, gate.ErrNotFound)
		}
		s.mu.Unlock()
		if err := s.look(ctx, seq, age); err != nil {
			return s.remembered(id, err)
		}
	}
}

// remembered is what was told last, if the cloud only wants to be left alone.
func (s *site) remembered(id skyport.PartitionID, err error) (gate.PartitionStatus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.records[id]; r != nil && s.mayBeStale(err) {
		if status, there := s.told(r); there {
			return status, nil
		}
	}
	return gate.PartitionStatus{}, err
}

func (s *site) mayBeStale(err error) bool {
	var throttled *Throttled
	return errors.As(err, &throttled) && s.listed.seq > 0 && time.Since(s.listed.at) < staleLimit
}

// list tells all partitions of an owner, oldest first.
func (s *site) list(ctx context.Context, owner string) ([]gate.PartitionStatus, error) {
	err := s.look(ctx, 0, s.brief())
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && !s.mayBeStale(err) {
		return nil, err
	}
	all := []gate.PartitionStatus{}
	for _, status := range s.tellAll() {
		if owner == "" || status.Owner == owner {
			all = append(all, status)
		}
	}
	slices.SortFunc(all, func(a, b gate.PartitionStatus) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return all, nil
}

// poll lists the site while there is something that could change: soon after
// changes of our own, then calmly.
func (s *site) poll() {
	timer := time.NewTimer(0) // once at the start: earlier removals go on
	defer timer.Stop()
	failures, pause := 0, time.Duration(0)
	var admitting sync.Once
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.kicked:
			pause = 0
		case <-timer.C:
		}
		if err := s.look(s.ctx, s.fresh(), 0); err != nil {
			if failures == 0 && s.ctx.Err() == nil {
				s.log.Warn("partitions cannot be listed, will be tried again", "error", err)
			}
			left, _ := s.quiet() // the error is the one that is logged above
			timer.Reset(max(grown(s.o.Retry, failures), left))
			failures++
			continue
		}
		failures = 0
		admitting.Do(func() { wake(s.moved) }) // sources may have changed since an earlier process opened to them
		moving, live := s.motion()
		switch {
		case moving:
			pause = min(max(pause*3/2, s.o.Retry/4), 5*time.Second, s.o.Poll)
			timer.Reset(pause)
		case live:
			timer.Reset(s.o.Poll)
		default:
			timer.Stop()
		}
	}
}

// motion says whether something is about to change at the site by itself, and
// whether there is anything that may.
func (s *site) motion() (moving, live bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.records {
		live = true
		if status, there := s.told(r); there && r.work == nil && status.State == gate.StateBooting {
			moving = true
		}
	}
	return moving, live
}

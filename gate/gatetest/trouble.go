package gatetest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// neverUnknown: from the answer of Create on, the partition is never said to be
// unknown, however far the site's lists are behind.
func (e *exercise) neverUnknown() {
	spec := e.spec(1)
	e.create(spec)
	e.until("up", func() (bool, error) {
		s, err := e.Provider.Status(e.Context(), e.Site, spec.ID)
		if errors.Is(err, gate.ErrNotFound) {
			e.Fatal("a partition that was created is said not to be there")
		}
		return err == nil && s.State == gate.StateUp, err
	})
	for range 50 {
		if _, err := e.Provider.Status(e.Context(), e.Site, spec.ID); errors.Is(err, gate.ErrNotFound) {
			e.Fatal("a partition that is up is said not to be there")
		}
	}
	e.remove(e.Context(), spec.ID)
}

// createDuring: while a deletion is under way, Create fails in passing or, when
// nothing is left, begins anew. It never revives what is being deleted.
func (e *exercise) createDuring() {
	spec := e.spec(1)
	e.create(spec)
	e.awaitUp(spec)
	e.delete(spec.ID)
	for range 5 {
		if err := e.Provider.Create(e.Context(), spec); errors.Is(err, gate.ErrPermanent) || errors.Is(err, gate.ErrNotFound) {
			e.Fatalf("create while deleting: got %v, want nil or a passing error", err)
		}
	}
	e.create(spec) // again and again, until the deletion is over
	e.awaitUp(spec)
	e.remove(e.Context(), spec.ID)
	e.stays(spec.ID)
}

// race: whatever order creations and deletions come in, the last word counts.
func (e *exercise) race() {
	spec := e.spec(1)
	e.made[spec.ID] = true
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if err := e.Provider.Create(e.Context(), spec); errors.Is(err, gate.ErrPermanent) {
				e.Errorf("create: %v", err)
			}
		})
		all.Go(func() {
			if err := e.Provider.Delete(e.Context(), e.Site, spec.ID); errors.Is(err, gate.ErrPermanent) || errors.Is(err, gate.ErrNotFound) {
				e.Errorf("delete: %v", err)
			}
		})
	}
	all.Wait()
	e.remove(e.Context(), spec.ID)
	e.stays(spec.ID)
}

// lostAnswers: who did not hear the answer asks again, and there is one
// partition; who did not hear that it is deleted asks again, and there is none.
func (e *exercise) lostAnswers() {
	spec := e.spec(e.Nodes)
	e.made[spec.ID] = true
	deaf := func(call func(context.Context) error) {
		for _, patience := range []time.Duration{0, time.Microsecond, 100 * time.Microsecond, time.Millisecond, 10 * time.Millisecond} {
			ctx, cancel := context.WithTimeout(e.Context(), patience)
			if err := call(ctx); errors.Is(err, gate.ErrPermanent) {
				e.Errorf("a call whose caller has gone: %v", err)
			}
			cancel()
		}
	}
	deaf(func(ctx context.Context) error { return e.Provider.Create(ctx, spec) })
	e.create(spec)
	up := e.awaitUp(spec)
	deaf(func(ctx context.Context) error { return e.Provider.Create(ctx, spec) })
	if again := e.awaitUp(spec); !slices.Equal(up.Nodes, again.Nodes) {
		e.Errorf("asking again made other nodes: %+v, then %+v", up.Nodes, again.Nodes)
	}
	deaf(func(ctx context.Context) error { return e.Provider.Delete(ctx, e.Site, spec.ID) })
	e.remove(e.Context(), spec.ID)
	e.stays(spec.ID)
}

// deadlines: every method comes back after its context has ended.
func (e *exercise) deadlines() {
	spec := e.spec(1)
	e.create(spec)
	e.awaitUp(spec)
	ctx, cancel := context.WithCancel(e.Context())
	cancel()
	for name, call := range map[string]func(){
		"sites":   func() { _, _ = e.Provider.Sites(ctx) },
		"flavors": func() { _, _ = e.Provider.Flavors(ctx, e.Site) },
		"images":  func() { _, _ = e.Provider.Images(ctx, e.Site) },
		"create":  func() { _ = e.Provider.Create(ctx, spec) },
		"status":  func() { _, _ = e.Provider.Status(ctx, e.Site, spec.ID) },
		"list":    func() { _, _ = e.Provider.List(ctx, e.Site, "") },
		"extend":  func() { _ = e.Provider.Extend(ctx, e.Site, spec.ID, spec.Lease) },
	} {
		back := make(chan struct{})
		go func() { defer close(back); call() }()
		select {
		case <-back:
		case <-time.After(e.Patience):
			e.Errorf("%s does not come back after its context has ended", name)
			<-back
		}
	}
	e.awaitUp(spec) // and harms nothing
	e.remove(e.Context(), spec.ID)
}

// names: long names of nodes and owners, and users whose names no cloud takes.
func (e *exercise) names() {
	spec := e.spec(1)
	spec.Owner += "-" + strings.Repeat("o", 40)
	spec.Job = skyport.NewJobID()
	spec.User = "Zoë O'Brien <用户@пример.рф> \"\\\x7f" + strings.Repeat("ü", 300)
	e.create(spec)
	e.awaitUp(spec)
	later := spec
	later.User = "somebody" // a tag for people: the spec is the same
	e.create(later)
	e.until("list", func() (bool, error) {
		all, err := e.Provider.List(e.Context(), e.Site, spec.Owner)
		return len(all) == 1 && all[0].ID == spec.ID, err
	})
	e.remove(e.Context(), spec.ID)

	long := e.spec(1)
	most := 63 // of a label of a host's name
	if e.NameMost > 0 {
		most = e.NameMost
	}
	for i, name := range long.Nodes {
		long.Nodes[i] = name + strings.Repeat("x", most-len(name))
	}
	e.create(long)
	e.awaitUp(long)
	e.remove(e.Context(), long.ID)
}

// spot: where a flavor can be had as spot it comes up; where it cannot the
// site says so for good.
func (e *exercise) spot() {
	flavors, err := e.Provider.Flavors(e.Context(), e.Site)
	if err != nil {
		e.Fatal(err)
	}
	has := slices.IndexFunc(flavors, func(f skyport.Flavor) bool { return f.SpotPrice > 0 })
	if has < 0 {
		e.Skip("the site has no spot nodes")
	}
	spec := e.spec(1)
	spec.Spot, spec.Flavor = true, flavors[has].Name
	e.create(spec)
	e.awaitUp(spec)
	plain := spec
	plain.Spot = false
	e.until("conflict", func() (bool, error) {
		err := e.Provider.Create(e.Context(), plain)
		return errors.Is(err, gate.ErrConflict), err
	})
	e.remove(e.Context(), spec.ID)

	lacks := slices.IndexFunc(flavors, func(f skyport.Flavor) bool { return f.SpotPrice == 0 })
	if lacks < 0 {
		return
	}
	spec = e.spec(1)
	spec.Spot, spec.Flavor = true, flavors[lacks].Name
	e.made[spec.ID] = true
	if err := e.Provider.Create(e.Context(), spec); !errors.Is(err, gate.ErrPermanent) || skyport.CodeOf(err) != skyport.CodeUnsupported {
		e.Errorf("spot of a flavor without a spot price: got %v, want ErrPermanent and %s", err, skyport.CodeUnsupported)
	}
}

// refused: a creation that the site refuses half way fails with a code and a
// reason, is rolled back whole before it is deleted, and is told until then.
func (e *exercise) refused() {
	if e.Refuse == nil {
		e.Skip("the fixture's site cannot be made to refuse")
	}
	for _, code := range []skyport.Code{skyport.CodeNoCapacity, skyport.CodeQuota} {
		spec := e.spec(e.Nodes)
		e.Refuse(e.T, code)
		e.create(spec)
		s := e.await(spec, gate.StateFailed)
		if s.Code != code || s.Details == "" {
			e.Errorf("failed with code %q, details %q; want code %q and a reason", s.Code, s.Details, code)
		}
		if e.Left != nil {
			e.until("rolled back", func() (bool, error) {
				return !slices.ContainsFunc(e.Left(e.T), func(name string) bool { return !slices.Contains(e.before, name) }), nil
			})
		}
		e.create(spec) // changes nothing
		if s = e.await(spec, gate.StateFailed); s.Code != code {
			e.Errorf("the code became %q", s.Code)
		}
		e.remove(e.Context(), spec.ID)
	}
}

// takenBack: nodes that the site takes back make a partition fail, with the
// code that lets core start its jobs anew.
func (e *exercise) takenBack() {
	if e.TakeBack == nil {
		e.Skip("the fixture's site takes nothing back")
	}
	spec := e.spec(1)
	e.create(spec)
	e.awaitUp(spec)
	e.TakeBack(e.T, spec.ID)
	if s := e.await(spec, gate.StateFailed); s.Code != skyport.CodeInterrupted || s.Details == "" {
		e.Errorf("failed with code %q, details %q; want code %q and a reason", s.Code, s.Details, skyport.CodeInterrupted)
	}
	e.remove(e.Context(), spec.ID)
}

// vanished: what somebody else has removed is gone, or has failed.
func (e *exercise) vanished() {
	if e.Vanish == nil {
		e.Skip("nothing vanishes from the fixture's site")
	}
	spec := e.spec(1)
	e.create(spec)
	e.awaitUp(spec)
	e.Vanish(e.T, spec.ID)
	e.until("noticed", func() (bool, error) {
		s, err := e.Provider.Status(e.Context(), e.Site, spec.ID)
		return errors.Is(err, gate.ErrNotFound) || (err == nil && s.State == gate.StateFailed), err
	})
	e.remove(e.Context(), spec.ID)
}

// trouble: whole lives at a site that fails in passing, loses answers and lists
// what was, also over a restart in the middle.
func (e *exercise) trouble() {
	if e.Trouble == nil {
		e.Skip("the fixture's site makes no trouble")
	}
	e.Trouble(e.T, true)
	defer e.Trouble(e.T, false)
	for range 3 {
		spec := e.spec(e.Nodes)
		e.create(spec)
		if e.Remake != nil {
			e.remake()
			e.create(spec)
		}
		e.awaitUp(spec)
		e.delete(spec.ID)
		if e.Remake != nil {
			e.remake()
		}
		e.remove(e.Context(), spec.ID)
	}
}

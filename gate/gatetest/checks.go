package gatetest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// catalogue: names are unique, ids are stable UUIDs, figures make sense, and
// what a site calls its default exists.
func (e *exercise) catalogue() {
	type catalogue struct {
		Sites   []skyport.Site
		Flavors map[string][]skyport.Flavor
		Images  map[string][]skyport.Image
	}
	read := func() catalogue {
		c := catalogue{Flavors: map[string][]skyport.Flavor{}, Images: map[string][]skyport.Image{}}
		var err error
		if c.Sites, err = e.Provider.Sites(e.Context()); err != nil {
			e.Fatal(err)
		}
		for _, s := range c.Sites {
			if c.Flavors[s.Name], err = e.Provider.Flavors(e.Context(), s.Name); err != nil {
				e.Fatal(err)
			}
			if c.Images[s.Name], err = e.Provider.Images(e.Context(), s.Name); err != nil {
				e.Fatal(err)
			}
		}
		return c
	}
	c := read()
	ids := map[string]bool{}
	identify := func(what, id, name string, others map[string]bool) {
		if !validUUID(id) || ids[id] {
			e.Errorf("%s %s: id %q is no UUID or used twice", what, name, id)
		}
		if name == "" || others[name] {
			e.Errorf("%s %q: name is empty or used twice", what, name)
		}
		ids[id], others[name] = true, true
	}
	siteNames := map[string]bool{}
	for _, s := range c.Sites {
		identify("site", s.ID, s.Name, siteNames)
		if s.Kind != e.Provider.Kind() || s.Kind == "" {
			e.Errorf("site %s is of kind %q, its provider of %q", s.Name, s.Kind, e.Provider.Kind())
		}
		flavors, images := map[string]bool{}, map[string]bool{}
		for _, f := range c.Flavors[s.Name] {
			identify("flavor", f.ID, f.Name, flavors)
			if f.Site != s.Name || f.CPUs < 1 || f.Memory <= 0 || f.GPUs < 0 || f.Storage < 0 || f.Price < 0 {
				e.Errorf("flavor makes no sense: %+v", f)
			}
		}
		for _, i := range c.Images[s.Name] {
			identify("image", i.ID, i.Name, images)
			if i.Site != s.Name || (i.Kind != skyport.ImageCloud && i.Kind != skyport.ImageContainer) {
				e.Errorf("image makes no sense: %+v", i)
			}
		}
		if len(flavors) == 0 {
			e.Errorf("site %s has no flavors", s.Name)
		}
		if s.DefaultFlavor != "" && !flavors[s.DefaultFlavor] {
			e.Errorf("site %s: default flavor %q does not exist", s.Name, s.DefaultFlavor)
		}
		if s.DefaultImage != "" && !images[s.DefaultImage] {
			e.Errorf("site %s: default image %q does not exist", s.Name, s.DefaultImage)
		}
	}
	if e.Remake != nil {
		e.remake()
		if diff := cmp.Diff(c, read()); diff != "" {
			e.Errorf("the catalogue changed by a restart:\n%s", diff)
		}
	}
}

// wholeLife: a partition comes up, is listed, and is removed. It never goes
// back to an earlier state than it had.
func (e *exercise) wholeLife() {
	spec := e.spec(1)
	e.create(spec)
	s := e.awaitUp(spec)
	if s.State != gate.StateUp {
		e.Fatal(s.State)
	}
	e.until("list", func() (bool, error) {
		all, err := e.Provider.List(e.Context(), e.Site, spec.Owner)
		return has(all, spec.ID), err
	})
	e.remove(e.Context(), spec.ID)
}

// createAgain: the second call changes nothing, before and after it is up.
func (e *exercise) createAgain() {
	spec := e.spec(1)
	e.create(spec)
	e.create(spec)
	before := e.awaitUp(spec)
	later := spec
	later.Lease = spec.Lease.Add(time.Hour)
	e.create(later)
	after := e.awaitUp(spec) // also says that the lease is the first one
	if diff := cmp.Diff(before, after); diff != "" {
		e.Errorf("a second create changed the partition:\n%s", diff)
	}
	e.remove(e.Context(), spec.ID)
}

// createTogether: many calls at once make one partition.
func (e *exercise) createTogether() {
	spec := e.spec(1)
	e.made[spec.ID] = true
	for _, err := range together(func() error { return e.Provider.Create(e.Context(), spec) }) {
		if err != nil && errors.Is(err, gate.ErrPermanent) {
			e.Errorf("create: %v", err)
		}
	}
	e.create(spec)
	e.awaitUp(spec)
	all, err := e.Provider.List(e.Context(), e.Site, spec.Owner)
	if err != nil || len(all) != 1 {
		e.Errorf("listed: %v, %v", all, err)
	}
	e.remove(e.Context(), spec.ID)
}

// conflict: another spec under the id of a partition is refused and changes nothing.
func (e *exercise) conflict() {
	spec := e.spec(1)
	e.create(spec)
	before := e.awaitUp(spec)
	for name, change := range map[string]func(*gate.PartitionSpec){
		"owner": func(s *gate.PartitionSpec) { s.Owner = "somebody-else" },
		"nodes": func(s *gate.PartitionSpec) { s.Nodes = []string{"swm-other-main"} },
	} {
		other := spec
		change(&other)
		err := e.Provider.Create(e.Context(), other)
		if !errors.Is(err, gate.ErrConflict) {
			e.Errorf("another %s under the same id: got %v, want ErrConflict", name, err)
		}
	}
	if diff := cmp.Diff(before, e.awaitUp(spec)); diff != "" {
		e.Errorf("a refused create changed the partition:\n%s", diff)
	}
	e.remove(e.Context(), spec.ID)
}

// severalNodes: all come up, main first (see sane).
func (e *exercise) severalNodes() {
	spec := e.spec(e.Nodes)
	e.create(spec)
	e.awaitUp(spec)
	e.remove(e.Context(), spec.ID)
}

// unknownNames: what does not exist is refused for good, and nothing is left.
func (e *exercise) unknownNames() {
	for name, change := range map[skyport.Code]func(*gate.PartitionSpec){
		skyport.CodeUnknownFlavor: func(s *gate.PartitionSpec) { s.Flavor = "no-such-flavor" },
		skyport.CodeUnknownImage:  func(s *gate.PartitionSpec) { s.Image = "no-such-image" },
		skyport.CodeUnknownSite:   func(s *gate.PartitionSpec) { s.Site = "no-such-site" },
	} {
		spec := e.spec(1)
		change(&spec)
		e.made[spec.ID] = true
		e.until("answer to create", func() (bool, error) {
			err := e.Provider.Create(e.Context(), spec)
			if err == nil {
				e.Fatalf("%s: got a partition, want ErrPermanent", name)
			}
			if code := skyport.CodeOf(err); errors.Is(err, gate.ErrPermanent) && code != name {
				e.Errorf("%v: has code %s, want %s", err, code, name)
			}
			return errors.Is(err, gate.ErrPermanent), err
		})
		e.until("nothing left after "+string(name), func() (bool, error) { return e.gone(e.Context(), spec.ID) })
	}
	if _, err := e.Provider.Flavors(e.Context(), "no-such-site"); !errors.Is(err, gate.ErrPermanent) {
		e.Errorf("flavors of an unknown site: got %v, want ErrPermanent", err)
	}
	if _, err := e.Provider.Images(e.Context(), "no-such-site"); !errors.Is(err, gate.ErrPermanent) {
		e.Errorf("images of an unknown site: got %v, want ErrPermanent", err)
	}
}

// absent: calls about a partition that never was.
func (e *exercise) absent() {
	id := skyport.NewPartitionID()
	if _, err := e.Provider.Status(e.Context(), e.Site, id); !errors.Is(err, gate.ErrNotFound) {
		e.Errorf("status: got %v, want ErrNotFound", err)
	}
	if err := e.Provider.Extend(e.Context(), e.Site, id, time.Now().Add(time.Hour)); !errors.Is(err, gate.ErrNotFound) {
		e.Errorf("extend: got %v, want ErrNotFound", err)
	}
	if err := e.Provider.Delete(e.Context(), e.Site, id); err != nil {
		e.Errorf("delete: got %v, want nil", err)
	}
	if all, err := e.Provider.List(e.Context(), e.Site, "nobody-"+id.Short()); err != nil || len(all) != 0 {
		e.Errorf("list of an unknown owner: %v, %v", all, err)
	}
}

func (e *exercise) deleteTwice() {
	spec := e.spec(1)
	e.create(spec)
	e.awaitUp(spec)
	for range 3 {
		e.delete(spec.ID)
	}
	e.remove(e.Context(), spec.ID)
	e.delete(spec.ID) // of what is gone
	e.stays(spec.ID)
}

// deleteEarly: a deletion that comes before the partition is up wins.
func (e *exercise) deleteEarly() {
	spec := e.spec(1)
	e.create(spec)
	e.remove(e.Context(), spec.ID)
	e.stays(spec.ID)
}

// stays looks a while longer whether something that is gone comes back. What a
// list that lags shows again may be told, but only as being deleted.
func (e *exercise) stays(id skyport.PartitionID) {
	e.Helper()
	for range 20 {
		s, err := e.Provider.Status(e.Context(), e.Site, id)
		if err == nil && s.State != gate.StateDeleting {
			e.Fatalf("partition came back after its removal: %s %s", s.State, s.Details)
		}
	}
	e.until("gone again", func() (bool, error) { return e.gone(e.Context(), id) })
}

func (e *exercise) deleteTogether() {
	spec := e.spec(1)
	e.create(spec)
	for _, err := range together(func() error { return e.Provider.Delete(e.Context(), e.Site, spec.ID) }) {
		if errors.Is(err, gate.ErrPermanent) || errors.Is(err, gate.ErrNotFound) {
			e.Errorf("delete: %v", err)
		}
	}
	e.remove(e.Context(), spec.ID)
}

func (e *exercise) createAfterDelete() {
	spec := e.spec(1)
	for range 2 {
		e.create(spec)
		e.awaitUp(spec)
		e.remove(e.Context(), spec.ID)
	}
}

// owners: a list tells the owner's partitions and no others; deleting one
// owner's leaves the other's alone.
func (e *exercise) owners() {
	if e.Nodes < 2 {
		e.Skip("needs room for two partitions")
	}
	mine, theirs := e.spec(1), e.spec(1)
	e.create(mine)
	e.create(theirs)
	e.awaitUp(mine)
	before := e.awaitUp(theirs)
	e.until("list by owner", func() (bool, error) {
		all, err := e.Provider.List(e.Context(), e.Site, mine.Owner)
		if has(all, theirs.ID) {
			e.Fatal("a list by owner tells somebody else's partition")
		}
		return has(all, mine.ID), err
	})
	e.until("list of all", func() (bool, error) {
		all, err := e.Provider.List(e.Context(), e.Site, "")
		return has(all, mine.ID) && has(all, theirs.ID), err
	})
	e.remove(e.Context(), mine.ID)
	if diff := cmp.Diff(before, e.awaitUp(theirs)); diff != "" {
		e.Errorf("a foreign deletion changed the partition:\n%s", diff)
	}
	e.remove(e.Context(), theirs.ID)
}

// lease: extending moves it, in status and list, forth and back.
func (e *exercise) lease() {
	spec := e.spec(1)
	e.create(spec)
	e.awaitUp(spec)
	for _, by := range []time.Duration{2 * time.Hour, -30 * time.Minute} {
		spec.Lease = spec.Lease.Add(by)
		e.until("extend", func() (bool, error) {
			err := e.Provider.Extend(e.Context(), e.Site, spec.ID, spec.Lease)
			if errors.Is(err, gate.ErrPermanent) || errors.Is(err, gate.ErrNotFound) {
				e.Fatalf("extend: %v", err)
			}
			return err == nil, err
		})
		e.until("lease in status", func() (bool, error) {
			s, err := e.Provider.Status(e.Context(), e.Site, spec.ID)
			return s.Lease.Truncate(time.Second).Equal(spec.Lease), err
		})
		e.until("lease in list", func() (bool, error) {
			all, err := e.Provider.List(e.Context(), e.Site, spec.Owner)
			return len(all) == 1 && all[0].Lease.Truncate(time.Second).Equal(spec.Lease), err
		})
	}
	if e.Remake != nil {
		e.remake()
		e.awaitUp(spec)
	}
	e.remove(e.Context(), spec.ID)
}

// limits: what the site's limits forbid is refused, and leaves nothing.
func (e *exercise) limits() {
	sites, err := e.Provider.Sites(e.Context())
	if err != nil {
		e.Fatal(err)
	}
	flavors, err := e.Provider.Flavors(e.Context(), e.Site)
	if err != nil {
		e.Fatal(err)
	}
	limits := sites[slices.IndexFunc(sites, func(s skyport.Site) bool { return s.Name == e.Site })].Limits
	flavor := flavors[slices.IndexFunc(flavors, func(f skyport.Flavor) bool { return f.Name == e.Flavor })]
	most := 0
	for _, n := range []int{limits.Nodes, limits.CPUs / flavor.CPUs, int(limits.Memory / flavor.Memory)} {
		if n > 0 && (most == 0 || n < most) {
			most = n
		}
	}
	if most == 0 || most > 50 {
		e.Skip("the site has no limits that a test could reach")
	}
	spec := e.spec(most + 1)
	e.made[spec.ID] = true
	if err := e.Provider.Create(e.Context(), spec); !errors.Is(err, gate.ErrPermanent) {
		e.Errorf("%d nodes where %d are allowed: got %v, want ErrPermanent", most+1, most, err)
	}
	e.until("nothing left of what was too much", func() (bool, error) { return e.gone(e.Context(), spec.ID) })
}

// endedContext: a call whose context has ended comes back; its work may be
// done or not, and can be done again.
func (e *exercise) endedContext() {
	ctx, cancel := context.WithCancel(e.Context())
	cancel()
	spec := e.spec(1)
	e.made[spec.ID] = true
	if err := e.Provider.Create(ctx, spec); errors.Is(err, gate.ErrPermanent) {
		e.Errorf("create with an ended context: %v", err)
	}
	e.create(spec)
	e.awaitUp(spec)
	e.remove(e.Context(), spec.ID)
}

// changes: a provider that tells of changes tells of every one: who takes the
// channel first and asks then misses nothing.
func (e *exercise) changes() {
	w, ok := e.Provider.(gate.Watcher)
	if !ok {
		e.Skip("the provider tells of no changes")
	}
	follow := func(what string, reached func() bool) {
		e.Helper()
		end := time.After(e.Patience)
		for {
			changed := w.Changed()
			if reached() {
				return
			}
			select {
			case <-changed:
			case <-end:
				e.Fatalf("%s: not told within %s", what, e.Patience)
			}
		}
	}
	spec := e.spec(1)
	e.create(spec)
	follow("up", func() bool {
		s, err := e.Provider.Status(e.Context(), e.Site, spec.ID)
		return err == nil && s.State == gate.StateUp
	})
	e.delete(spec.ID)
	follow("gone", func() bool {
		_, err := e.Provider.Status(e.Context(), e.Site, spec.ID)
		return errors.Is(err, gate.ErrNotFound)
	})
}

var _ testing.TB = (*exercise)(nil)

package gatetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// Fixture is a provider to be checked and what the suite must know of it.
type Fixture struct {
	Provider gate.Provider
	// Site and Flavor name what partitions are made of; empty: the first
	// site, its default flavor or its cheapest.
	Site, Flavor string
	// Nodes is how many nodes fit at once; 0: 2. Tests that need two
	// partitions are left out when it is 1.
	Nodes int
	// Remake closes the provider and makes it anew from what its site and its
	// disk hold, as after a kill of the gate. Nil leaves those tests out.
	Remake func(t *testing.T) gate.Provider
	// Patience is how long a partition may take to come up, a deletion to be
	// complete, and a list to catch up; 0: 30 seconds.
	Patience time.Duration

	// NameMost is how long names of nodes may be; 0: 63, as everywhere.
	NameMost int

	// The rest lets the suite look behind the provider, and do at the site what
	// providers do not. Nil leaves those tests out.

	// Left names all that is at the site, resource by resource, whoever made it.
	// When it is given, nothing may be left after a check but what was there before.
	Left func(t *testing.T) []string
	// Trouble switches on that the site fails now and then in passing, loses
	// answers, and lists what was; or off.
	Trouble func(t *testing.T, on bool)
	// Refuse lets the site refuse the next creation for good, half way, in its
	// own words for this code (such as [skyport.CodeNoCapacity]).
	Refuse func(t *testing.T, code skyport.Code)
	// TakeBack lets the site take back the nodes of a partition, as sites do
	// with spot.
	TakeBack func(t *testing.T, id skyport.PartitionID)
	// Vanish removes what belongs to a partition, as somebody else would.
	Vanish func(t *testing.T, id skyport.PartitionID)
}

// Exercise checks that a provider keeps the promises of [gate.Provider]. Each
// check gets a fresh fixture from open; whatever it made it deletes.
func Exercise(t *testing.T, open func(t *testing.T) Fixture) {
	t.Helper()
	for name, check := range map[string]func(*exercise){
		"catalogue":                      (*exercise).catalogue,
		"whole life":                     (*exercise).wholeLife,
		"create again":                   (*exercise).createAgain,
		"create at the same time":        (*exercise).createTogether,
		"another spec under the id":      (*exercise).conflict,
		"several nodes":                  (*exercise).severalNodes,
		"unknown names":                  (*exercise).unknownNames,
		"what is not there":              (*exercise).absent,
		"delete twice":                   (*exercise).deleteTwice,
		"delete while creating":          (*exercise).deleteEarly,
		"delete at the same time":        (*exercise).deleteTogether,
		"create again after the removal": (*exercise).createAfterDelete,
		"owners":                         (*exercise).owners,
		"lease":                          (*exercise).lease,
		"limits":                         (*exercise).limits,
		"ended context":                  (*exercise).endedContext,
		"restart":                        (*exercise).restart,
		"restart while creating":         (*exercise).restartEarly,
		"restart while deleting":         (*exercise).restartDeleting,
		"changes are told":               (*exercise).changes,
		"never unknown while it is":      (*exercise).neverUnknown,
		"create while deleting":          (*exercise).createDuring,
		"create and delete together":     (*exercise).race,
		"lost answers":                   (*exercise).lostAnswers,
		"deadlines":                      (*exercise).deadlines,
		"names of all kinds":             (*exercise).names,
		"spot":                           (*exercise).spot,
		"refused half way":               (*exercise).refused,
		"taken back":                     (*exercise).takenBack,
		"vanished":                       (*exercise).vanished,
		"trouble":                        (*exercise).trouble,
	} {
		t.Run(name, func(t *testing.T) {
			e := &exercise{T: t, Fixture: open(t)}
			e.prepare()
			// Not as a cleanup: those of a remade provider would come first.
			defer e.removeAll()
			if e.Left != nil {
				e.before = e.Left(t)
			}
			check(e)
		})
	}
}

// exercise is one check under way.
type exercise struct {
	*testing.T
	Fixture
	made   map[skyport.PartitionID]bool
	before []string // what was at the site
}

func (e *exercise) prepare() {
	e.Helper()
	e.Patience = max(e.Patience, 0)
	if e.Patience == 0 {
		e.Patience = 30 * time.Second
	}
	if e.Nodes == 0 {
		e.Nodes = 2
	}
	sites, err := e.Provider.Sites(e.Context())
	if err != nil || len(sites) == 0 {
		e.Fatalf("no site: %v, %v", sites, err)
	}
	if e.Site == "" {
		e.Site = sites[0].Name
	}
	if e.Flavor == "" {
		e.Flavor = sites[slices.IndexFunc(sites, func(s skyport.Site) bool { return s.Name == e.Site })].DefaultFlavor
	}
	if e.Flavor == "" {
		flavors, err := e.Provider.Flavors(e.Context(), e.Site)
		if err != nil || len(flavors) == 0 {
			e.Fatalf("no flavors: %v", err)
		}
		e.Flavor = slices.MinFunc(flavors, func(a, b skyport.Flavor) int { return int(1000 * (a.Price - b.Price)) }).Name
	}
	e.made = map[skyport.PartitionID]bool{}
}

// removeAll removes what a check has left.
func (e *exercise) removeAll() {
	for id := range e.made {
		e.remove(e.Context(), id)
	}
	if e.Left == nil {
		return
	}
	e.until("nothing left at the site", func() (bool, error) {
		left := slices.DeleteFunc(e.Left(e.T), func(name string) bool { return slices.Contains(e.before, name) })
		if len(left) > 0 {
			return false, fmt.Errorf("there are %d resources, such as %s", len(left), left[0])
		}
		return true, nil
	})
}

// spec asks for n nodes under a fresh id.
func (e *exercise) spec(n int) gate.PartitionSpec {
	id := skyport.NewPartitionID()
	return gate.PartitionSpec{
		ID: id, Owner: "owner-" + id.Short(), Site: e.Site, Flavor: e.Flavor,
		Nodes: skyport.NodeNames(id, n),
		Lease: time.Now().Add(time.Hour).UTC().Truncate(time.Second),
	}
}

// create makes a partition. Passing errors are tried again, as core does.
func (e *exercise) create(spec gate.PartitionSpec) {
	e.Helper()
	e.made[spec.ID] = true
	e.until("create", func() (bool, error) {
		err := e.Provider.Create(e.Context(), spec)
		if errors.Is(err, gate.ErrPermanent) || errors.Is(err, gate.ErrNotFound) {
			e.Fatalf("create: %v", err)
		}
		return err == nil, err
	})
}

// awaitUp waits until the partition is up and returns what it has.
func (e *exercise) awaitUp(spec gate.PartitionSpec) gate.PartitionStatus {
	e.Helper()
	return e.await(spec, gate.StateUp)
}

func (e *exercise) await(spec gate.PartitionSpec, state gate.State) (status gate.PartitionStatus) {
	e.Helper()
	e.until("state "+string(state), func() (bool, error) {
		var err error
		status, err = e.Provider.Status(e.Context(), spec.Site, spec.ID)
		if errors.Is(err, gate.ErrPermanent) {
			e.Fatalf("status: %v", err)
		}
		if err == nil {
			e.sane(spec, status)
			if status.State == gate.StateFailed && state != gate.StateFailed {
				e.Fatalf("partition failed: %s", status.Details)
			}
			if lease := status.Lease.Truncate(time.Second); status.State == gate.StateUp && !lease.Equal(spec.Lease) {
				return false, fmt.Errorf("lease ends %v, want %v", lease, spec.Lease)
			}
			if status.State == state {
				return true, nil
			}
			err = errors.New("state is " + string(status.State) + " " + status.Details)
		}
		return false, err
	})
	return status
}

// sane checks what holds of every status of a partition that is not deleted.
func (e *exercise) sane(spec gate.PartitionSpec, s gate.PartitionStatus) {
	e.Helper()
	if s.ID != spec.ID || s.Owner != spec.Owner || s.Site != spec.Site {
		e.Fatalf("status is of %s, owner %s, site %s; want %s, %s, %s", s.ID, s.Owner, s.Site, spec.ID, spec.Owner, spec.Site)
	}
	if !slices.Contains([]gate.State{gate.StateCreating, gate.StateBooting, gate.StateUp, gate.StateFailed, gate.StateDeleting}, s.State) {
		e.Fatalf("state %q is none", s.State)
	}
	if s.State != gate.StateUp {
		return
	}
	if s.Created.IsZero() {
		e.Error("an up partition has no creation time")
	}
	if len(s.Nodes) != len(spec.Nodes) {
		e.Fatalf("%d nodes, want %d", len(s.Nodes), len(spec.Nodes))
	}
	endpoints := map[string]bool{}
	for i, n := range s.Nodes {
		role := skyport.RoleCompute
		if i == 0 {
			role = skyport.RoleMain
		}
		if n.Name != spec.Nodes[i] || n.Role != role {
			e.Errorf("node %d is %s, %s; want %s, %s", i, n.Name, n.Role, spec.Nodes[i], role)
		}
		if n.Address == "" || n.Endpoint == "" || endpoints[n.Endpoint] {
			e.Errorf("node %s is up at address %q, endpoint %q: want both, and an endpoint of its own", n.Name, n.Address, n.Endpoint)
		}
		endpoints[n.Endpoint] = true
	}
}

// remove deletes and waits for the site's confirmation.
func (e *exercise) remove(ctx context.Context, id skyport.PartitionID) {
	e.Helper()
	e.untilIn(ctx, "removal", func() (bool, error) {
		if err := e.Provider.Delete(ctx, e.Site, id); err != nil {
			return false, err
		}
		return e.gone(ctx, id)
	})
}

// delete asks for a removal, again when the answer is a passing error.
func (e *exercise) delete(id skyport.PartitionID) {
	e.Helper()
	e.until("delete", func() (bool, error) {
		err := e.Provider.Delete(e.Context(), e.Site, id)
		if errors.Is(err, gate.ErrPermanent) || errors.Is(err, gate.ErrNotFound) {
			e.Fatalf("delete: %v", err)
		}
		return err == nil, err
	})
}

// gone says whether nothing is left, by status and by list.
func (e *exercise) gone(ctx context.Context, id skyport.PartitionID) (bool, error) {
	status, err := e.Provider.Status(ctx, e.Site, id)
	if err == nil {
		return false, errors.New("state is " + string(status.State) + " " + status.Details)
	}
	if !errors.Is(err, gate.ErrNotFound) {
		return false, err
	}
	all, err := e.Provider.List(ctx, e.Site, "")
	if has(all, id) {
		return false, errors.New("still listed")
	}
	return err == nil, err
}

func has(all []gate.PartitionStatus, id skyport.PartitionID) bool {
	return slices.ContainsFunc(all, func(s gate.PartitionStatus) bool { return s.ID == id })
}

// until asks again and again until f is true, or patience is at its end.
func (e *exercise) until(what string, f func() (bool, error)) {
	e.Helper()
	e.untilIn(e.Context(), what, f)
}

func (e *exercise) untilIn(ctx context.Context, what string, f func() (bool, error)) {
	e.Helper()
	end := time.NewTimer(e.Patience)
	defer end.Stop()
	for pause := time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		ok, err := f()
		if ok {
			return
		}
		again := time.NewTimer(pause)
		select {
		case <-again.C:
		case <-end.C:
			e.Fatalf("%s: not within %s: %v", what, e.Patience, err)
		case <-ctx.Done():
			e.Fatalf("%s: %v: %v", what, ctx.Err(), err)
		}
	}
}

// together calls f from several goroutines at the same time.
func together(f func() error) []error {
	const callers = 8
	errs := make([]error, callers)
	start := make(chan struct{})
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			<-start
			errs[i] = f()
		})
	}
	close(start)
	all.Wait()
	return errs
}

func (e *exercise) remake() {
	e.Helper()
	if e.Remake == nil {
		e.Skip("the fixture cannot remake its provider")
	}
	e.Provider = e.Remake(e.T)
}

func validUUID(s string) bool { return uuid.Validate(s) == nil && len(s) == 36 }

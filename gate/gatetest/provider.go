package gatetest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// Script says how a [Provider] behaves. The zero value is a site "test" with a
// flavor "small", where everything happens at once.
type Script struct {
	Kind    string // empty: "test"
	Sites   []skyport.Site
	Flavors []skyport.Flavor
	Images  []skyport.Image

	CreateDelay time.Duration // from Create to booting
	BootDelay   time.Duration // from booting to up
	DeleteDelay time.Duration // from Delete to gone

	// Endpoint tells where a node that is up can be reached; nil: made-up
	// addresses that lead nowhere.
	Endpoint func(id skyport.PartitionID, node string) (address, endpoint string)
}

// Provider is a provider in memory that follows a script. It tells of changes
// ([gate.Watcher]); a test that wants one that does not embeds it as a plain
// [gate.Provider]. It starts no goroutines and works in a synctest bubble.
type Provider struct {
	script Script

	mu         sync.Mutex
	partitions map[skyport.PartitionID]*partition
	changed    chan struct{}
	faults     map[string][]error
	stalled    bool
	calls      map[string]int
}

var (
	_ gate.Provider = (*Provider)(nil)
	_ gate.Watcher  = (*Provider)(nil)
)

// partition of a Provider, guarded by its mutex.
type partition struct {
	status gate.PartitionStatus
	spec   gate.PartitionSpec
	timer  *time.Timer // of the next step
	step   int         // number of the next step: a timer that fired too late has an older one
}

// NewProvider makes a provider that follows the script.
func NewProvider(s Script) *Provider {
	s.Kind = cmp.Or(s.Kind, "test")
	if s.Sites == nil {
		s.Sites = []skyport.Site{{
			ID: gate.StableID(s.Kind, "test"), Name: "test", Kind: s.Kind,
			DefaultFlavor: "small", DefaultImage: "plain", Limits: skyport.Limits{Nodes: 8},
		}}
	}
	if s.Flavors == nil {
		for _, site := range s.Sites {
			for i, name := range []string{"small", "large"} {
				s.Flavors = append(s.Flavors, skyport.Flavor{
					ID: gate.StableID(s.Kind, site.Name, "flavor", name), Name: name, Site: site.Name,
					CPUs: 2 + 6*i, Memory: skyport.Bytes(4+12*i) << 30, Price: 0.1 * float64(1+3*i), Arch: "amd64",
				})
			}
		}
	}
	if s.Images == nil {
		for _, site := range s.Sites {
			s.Images = append(s.Images, skyport.Image{
				ID: gate.StableID(s.Kind, site.Name, "image", "plain"), Name: "plain", Site: site.Name, Kind: skyport.ImageCloud,
			})
		}
	}
	if s.Endpoint == nil {
		s.Endpoint = func(_ skyport.PartitionID, node string) (string, string) {
			return "192.0.2.1", "ssh://nobody@" + node + ".invalid:22"
		}
	}
	return &Provider{
		script:     s,
		partitions: map[skyport.PartitionID]*partition{},
		changed:    make(chan struct{}),
		faults:     map[string][]error{},
		calls:      map[string]int{},
	}
}

// Fail lets the next calls of a method fail with these errors, one each, before
// they do anything. The method is named as in [gate.Provider]: "Create".
func (p *Provider) Fail(method string, errs ...error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults[method] = append(p.faults[method], errs...)
}

// Stall lets partitions stay as they are, whatever their delays, until it is
// called again with false: they never come up, or never go.
func (p *Provider) Stall(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stalled = on
	if !on {
		for id, part := range p.partitions {
			p.next(id, part)
		}
	}
}

// Vanish removes a partition as if somebody else had deleted it at the site.
func (p *Provider) Vanish(id skyport.PartitionID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if part, ok := p.partitions[id]; ok {
		p.forget(id, part)
	}
}

// Break lets a partition fail for good, for the given reason.
func (p *Provider) Break(id skyport.PartitionID, details string) { p.BreakBy(id, "", details) }

// BreakBy lets a partition fail for good, with a code and the given reason: as
// when a site takes back spot nodes.
func (p *Provider) BreakBy(id skyport.PartitionID, code skyport.Code, details string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if part, ok := p.partitions[id]; ok && part.status.State != gate.StateDeleting {
		if part.timer != nil {
			part.timer.Stop()
		}
		part.step++
		part.status.State, part.status.Details, part.status.Code = gate.StateFailed, details, code
		p.notify()
	}
}

// Say lets a partition tell what is going on, in its state.
func (p *Provider) Say(id skyport.PartitionID, details string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if part, ok := p.partitions[id]; ok {
		part.status.Details = details
		p.notify()
	}
}

// Calls tells how often a method was called.
func (p *Provider) Calls(method string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[method]
}

// Kind tells the kind of the script.
func (p *Provider) Kind() string { return p.script.Kind }

// Sites tells those of the script.
func (p *Provider) Sites(context.Context) ([]skyport.Site, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.enter("Sites"); err != nil {
		return nil, err
	}
	return slices.Clone(p.script.Sites), nil
}

// Flavors tells those of the script.
func (p *Provider) Flavors(_ context.Context, site string) ([]skyport.Flavor, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := cmp.Or(p.enter("Flavors"), p.knows(site)); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(p.script.Flavors), func(f skyport.Flavor) bool { return f.Site != site }), nil
}

// Images tells those of the script.
func (p *Provider) Images(_ context.Context, site string) ([]skyport.Image, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := cmp.Or(p.enter("Images"), p.knows(site)); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(p.script.Images), func(i skyport.Image) bool { return i.Site != site }), nil
}

// Create begins a partition and lets its delays run.
func (p *Provider) Create(_ context.Context, spec gate.PartitionSpec) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := cmp.Or(p.enter("Create"), p.knows(spec.Site)); err != nil {
		return err
	}
	if part, ok := p.partitions[spec.ID]; ok {
		switch {
		case part.status.State == gate.StateDeleting:
			return fmt.Errorf("partition %s is being deleted", spec.ID)
		case part.spec.Fingerprint() != spec.Fingerprint():
			return fmt.Errorf("partition %s: %w", spec.ID, gate.ErrConflict)
		}
		return nil
	}
	if err := p.checked(spec); err != nil {
		return err
	}
	part := &partition{spec: spec, status: gate.PartitionStatus{
		ID: spec.ID, Owner: spec.Owner, Site: spec.Site, State: gate.StateCreating, Lease: spec.Lease, Created: time.Now().UTC(),
	}}
	for i, name := range spec.Nodes {
		role := skyport.RoleCompute
		if i == 0 {
			role = skyport.RoleMain
		}
		part.status.Nodes = append(part.status.Nodes, skyport.Node{Name: name, Role: role})
	}
	p.partitions[spec.ID] = part
	p.next(spec.ID, part)
	p.notify()
	return nil
}

// checked refuses what the script's site does not have.
func (p *Provider) checked(spec gate.PartitionSpec) error {
	site := p.script.Sites[slices.IndexFunc(p.script.Sites, func(s skyport.Site) bool { return s.Name == spec.Site })]
	switch {
	case !slices.ContainsFunc(p.script.Flavors, func(f skyport.Flavor) bool { return f.Site == spec.Site && f.Name == spec.Flavor }):
		return permanent(skyport.CodeUnknownFlavor, "no flavor %q at site %s", spec.Flavor, spec.Site)
	case spec.Image != "" && !slices.ContainsFunc(p.script.Images, func(i skyport.Image) bool { return i.Site == spec.Site && i.Name == spec.Image }):
		return permanent(skyport.CodeUnknownImage, "no image %q at site %s", spec.Image, spec.Site)
	case site.Limits.Nodes > 0 && len(spec.Nodes) > site.Limits.Nodes:
		return permanent(skyport.CodeUnsatisfiable, "%d nodes where %d are allowed", len(spec.Nodes), site.Limits.Nodes)
	}
	used := len(spec.Nodes)
	for _, other := range p.partitions {
		if other.spec.Site == spec.Site {
			used += len(other.spec.Nodes)
		}
	}
	if site.Limits.Nodes > 0 && used > site.Limits.Nodes {
		return skyport.Errorf(skyport.CodeUnavailable, "site %s is full", spec.Site)
	}
	return nil
}

// Status tells how far a partition is.
func (p *Provider) Status(_ context.Context, site string, id skyport.PartitionID) (gate.PartitionStatus, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := cmp.Or(p.enter("Status"), p.knows(site)); err != nil {
		return gate.PartitionStatus{}, err
	}
	part, ok := p.partitions[id]
	if !ok || part.spec.Site != site {
		return gate.PartitionStatus{}, fmt.Errorf("partition %s: %w", id, gate.ErrNotFound)
	}
	return part.told(), nil
}

// List tells the partitions of an owner, oldest first.
func (p *Provider) List(_ context.Context, site, owner string) ([]gate.PartitionStatus, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := cmp.Or(p.enter("List"), p.knows(site)); err != nil {
		return nil, err
	}
	var all []gate.PartitionStatus
	for _, part := range p.partitions {
		if part.spec.Site == site && (owner == "" || part.spec.Owner == owner) {
			all = append(all, part.told())
		}
	}
	slices.SortFunc(all, func(a, b gate.PartitionStatus) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return all, nil
}

// Extend moves the end of a lease.
func (p *Provider) Extend(_ context.Context, site string, id skyport.PartitionID, until time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := cmp.Or(p.enter("Extend"), p.knows(site)); err != nil {
		return err
	}
	part, ok := p.partitions[id]
	if !ok {
		return fmt.Errorf("partition %s: %w", id, gate.ErrNotFound)
	}
	part.status.Lease = until.UTC()
	p.notify()
	return nil
}

// Delete begins the removal of a partition and lets its delay run.
func (p *Provider) Delete(_ context.Context, site string, id skyport.PartitionID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := cmp.Or(p.enter("Delete"), p.knows(site)); err != nil {
		return err
	}
	if part, ok := p.partitions[id]; ok && part.status.State != gate.StateDeleting {
		part.status.State, part.status.Details = gate.StateDeleting, ""
		p.next(id, part)
		p.notify()
	}
	return nil
}

// Changed returns a channel that is closed at the next change.
func (p *Provider) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// The rest is called with the mutex held.

// next sets the timer for a partition's next step, or takes the step at once
// when it has no delay.
func (p *Provider) next(id skyport.PartitionID, part *partition) {
	if part.timer != nil {
		part.timer.Stop()
	}
	part.step++
	number := part.step
	step := func(delay time.Duration, f func()) {
		if delay <= 0 && !p.stalled {
			f()
			return
		}
		part.timer = time.AfterFunc(delay, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.partitions[id] == part && part.step == number && !p.stalled {
				f()
			}
		})
	}
	switch part.status.State {
	case gate.StateCreating:
		step(p.script.CreateDelay, func() {
			part.status.State = gate.StateBooting
			p.notify()
			p.next(id, part)
		})
	case gate.StateBooting:
		step(p.script.BootDelay, func() {
			part.status.State = gate.StateUp
			for i := range part.status.Nodes {
				n := &part.status.Nodes[i]
				n.Address, n.Endpoint = p.script.Endpoint(id, n.Name)
			}
			p.notify()
		})
	case gate.StateDeleting:
		step(p.script.DeleteDelay, func() { p.forget(id, part) })
	case gate.StateUp, gate.StateFailed:
	}
}

func (p *Provider) forget(id skyport.PartitionID, part *partition) {
	if part.timer != nil {
		part.timer.Stop()
	}
	delete(p.partitions, id)
	p.notify()
}

func (p *Provider) notify() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// enter counts a call and takes the error that is next in its script.
func (p *Provider) enter(method string) error {
	p.calls[method]++
	if len(p.faults[method]) == 0 {
		return nil
	}
	err := p.faults[method][0]
	p.faults[method] = p.faults[method][1:]
	return err
}

func (p *Provider) knows(site string) error {
	if slices.ContainsFunc(p.script.Sites, func(s skyport.Site) bool { return s.Name == site }) {
		return nil
	}
	return permanent(skyport.CodeUnknownSite, "no site %q", site)
}

func permanent(code skyport.Code, format string, args ...any) error {
	err := skyport.Errorf(code, format, args...)
	err.Cause = gate.ErrPermanent
	return err
}

// told is a copy that the caller may keep.
func (part *partition) told() gate.PartitionStatus {
	s := part.status
	s.Nodes = slices.Clone(s.Nodes)
	return s
}

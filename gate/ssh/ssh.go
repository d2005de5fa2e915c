package ssh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// Kind is the kind of the sites.
const Kind = "ssh"

// Provider makes partitions of hosts that are there. Make it with [New]; Close it.
type Provider struct {
	options Options
	log     *slog.Logger
	journal journal
	sites   []*site

	ctx    context.Context //nolint:containedctx // ends with Close; looks, creations and removals live in it
	stop   context.CancelFunc
	work   sync.WaitGroup
	life   sync.Mutex
	closed bool // guarded by life: nothing is begun any more

	saving sync.Mutex // of the facts

	mu         sync.Mutex
	partitions map[skyport.PartitionID]*partition
}

var _ gate.Provider = (*Provider)(nil)

// New checks the hosts' configuration, reads what was begun, and carries
// removals on. It asks no host anything; hosts that are away are no error.
func New(o Options) (*Provider, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("hosts by SSH: %w", err)
	}
	p := &Provider{options: o, log: o.Logger, journal: journal(o.Dir), partitions: map[skyport.PartitionID]*partition{}}
	p.ctx, p.stop = context.WithCancel(context.Background())
	for _, s := range o.Sites {
		mine := &site{name: s.Name}
		for _, c := range s.Hosts {
			key, err := c.complete()
			if err == nil && mine.host(c.Name) != nil {
				err = skyport.Errorf(skyport.CodeInvalid, "host %s is there twice", c.Name)
			}
			if err != nil {
				p.stop()
				return nil, fmt.Errorf("site %s: %w", s.Name, err)
			}
			h := &host{config: c, site: s.Name, key: key, spawn: p.spawn, ctx: p.ctx, changing: make(chan struct{}, 1)}
			h.wire = newWire(&h.config, key, &p.work)
			mine.hosts = append(mine.hosts, h)
		}
		p.sites = append(p.sites, mine)
	}
	records, err := p.journal.load()
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("hosts by SSH: %w", err)
	}
	p.loadFacts()
	for _, r := range records {
		s, err := p.site(r.Spec.Site)
		if err != nil {
			p.log.Warn("a partition of a site that is not in the configuration any more is left alone: its hosts remove it when its lease ends",
				"partition", r.Spec.ID, "site", r.Spec.Site)
			continue
		}
		p.partitions[r.Spec.ID] = newPartition(s, r)
	}
	for _, part := range p.partitions {
		if part.record.Deleting {
			p.remove(part)
		}
	}
	return p, nil
}

// Close ends what is under way and the connections. Partitions stay.
func (p *Provider) Close() error {
	p.life.Lock()
	p.closed = true
	p.life.Unlock()
	p.stop()
	for _, s := range p.sites {
		for _, h := range s.hosts {
			h.wire.close()
		}
	}
	p.work.Wait()
	return nil
}

// spawn lets something run that Close waits for; it is false after Close.
func (p *Provider) spawn(f func()) bool {
	p.life.Lock()
	defer p.life.Unlock()
	if p.closed {
		return false
	}
	p.work.Go(f)
	return true
}

// Kind returns "ssh".
func (p *Provider) Kind() string { return Kind }

func (p *Provider) site(name string) (*site, error) {
	for _, s := range p.sites {
		if s.name == name {
			return s, nil
		}
	}
	return nil, permanent(skyport.CodeUnknownSite, "no site %q here", skyport.Abbreviate(name, 60))
}

// Create claims hosts for the partition: as many as it has nodes, or none. It
// ends early with ctx, but what it has begun goes on.
func (p *Provider) Create(ctx context.Context, spec gate.PartitionSpec) error {
	s, err := p.site(spec.Site)
	if err != nil {
		return err
	}
	keys, err := checkSpec(&spec)
	if err != nil {
		return err
	}
	spec.UserData = nil // hosts are as they are, and it holds private keys
	if spec.Image != "" && spec.Image != imageHost {
		return permanent(skyport.CodeUnknownImage, "no image %q at site %s", skyport.Abbreviate(spec.Image, 60), s.name)
	}
	if err := p.refresh(ctx, s, lookAge); err != nil {
		return err
	}
	p.saveFacts()
	part, err := p.reserve(s, spec)
	if skyport.CodeOf(err) == skyport.CodeUnavailable {
		// A host may have been given back since it was looked at.
		if err := p.refresh(ctx, s, 0); err != nil {
			return err
		}
		part, err = p.reserve(s, spec)
	}
	if err != nil {
		return err
	}
	return p.await(ctx, part, keys)
}

// await lets a reserved partition be established, unless it is, and waits for it.
func (p *Provider) await(ctx context.Context, part *partition, keys []string) error {
	p.mu.Lock()
	if part.record.Settled {
		p.mu.Unlock()
		return nil
	}
	creating := part.creating
	if creating == nil {
		creating = make(chan struct{})
		part.creating = creating
		if !p.spawn(func() { p.establish(part, keys) }) {
			part.creating = nil
			p.mu.Unlock()
			return skyport.Errorf(skyport.CodeUnavailable, "the gate ends")
		}
	}
	p.mu.Unlock()
	select {
	case <-creating:
	case <-ctx.Done():
		return fmt.Errorf("the hosts of partition %s are being claimed: %w", part.id, ctx.Err())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return part.createErr
}

// reserve chooses hosts for a partition, or finds the one of the same id.
func (p *Provider) reserve(s *site, spec gate.PartitionSpec) (*partition, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if part, ok := p.partitions[spec.ID]; ok {
		switch {
		case part.record.Spec.Fingerprint() != spec.Fingerprint():
			return nil, fmt.Errorf("partition %s: %w", spec.ID, gate.ErrConflict)
		case part.record.Deleting:
			return nil, skyport.Errorf(skyport.CodeConflict, "partition %s is being removed", spec.ID)
		}
		return part, nil
	}
	members := s.members()[spec.Flavor]
	switch {
	case len(members) == 0 && slices.ContainsFunc(s.hosts, func(h *host) bool { _, known := h.size(); return !known }):
		return nil, skyport.Errorf(skyport.CodeUnavailable, "no host of flavor %q at site %s is known yet, but not all have told their size",
			skyport.Abbreviate(spec.Flavor, 60), s.name)
	case len(members) == 0:
		return nil, permanent(skyport.CodeUnknownFlavor, "no flavor %q at site %s", skyport.Abbreviate(spec.Flavor, 60), s.name)
	case len(spec.Nodes) > len(members):
		return nil, permanent(skyport.CodeUnsatisfiable, "%d nodes of %s can never be had at site %s: it has %d such hosts",
			len(spec.Nodes), spec.Flavor, s.name, len(members))
	}
	free, why := p.free(members, len(spec.Nodes))
	if why != nil {
		return nil, fmt.Errorf("site %s: %w", s.name, why)
	}
	r := record{Version: recordVersion, Spec: spec, Created: time.Now().UTC()}
	for _, h := range free {
		r.Hosts = append(r.Hosts, h.config.Name)
	}
	part := newPartition(s, r)
	part.reserved = true
	p.partitions[spec.ID] = part
	return part, nil
}

// free chooses n hosts that nobody has, or says why there are not so many. When
// removals under way will make enough room the error is a passing one; else it
// is for good, so that core looks elsewhere and asks again later. Callers hold p.mu.
func (p *Provider) free(members []*host, n int) (chosen []*host, why error) {
	leaving := 0
	var reasons []error
	for _, h := range members {
		holder, going := p.holder(h)
		h.mu.Lock()
		seen, err, at := h.seen, h.err, h.at
		h.mu.Unlock()
		refuse := func(format string, args ...any) {
			reasons = append(reasons, fmt.Errorf("host "+h.config.Name+": "+format, args...))
		}
		switch {
		case h.config.Drain:
			refuse("takes no more partitions")
		case holder != "":
			if going {
				leaving++
			}
			refuse("partition %s has it", holder)
		case err != nil:
			reasons = append(reasons, err)
		case at.IsZero():
			refuse("has not answered yet")
		case seen.skew > maxSkew || seen.skew < -maxSkew:
			refuse("its clock is off by %s; leases would end at the wrong time", seen.skew.Round(time.Second))
		case seen.claimed && (seen.claim.Partition == "" || seen.lease.After(time.Now().Add(seen.skew))):
			refuse("%s has it", holderOf(&seen))
		default:
			chosen = append(chosen, h)
		}
	}
	if len(chosen) >= n {
		return chosen[:n], nil
	}
	busy := skyport.Errorf(skyport.CodeUnavailable, "%d of %d hosts are free, %d are wanted: %w", len(chosen), len(members), n, errors.Join(reasons...)).
		WithHint("wait until a partition is removed, or add hosts")
	if len(chosen)+leaving < n {
		busy.Cause = gate.ErrPermanent
	}
	return nil, busy
}

// holder is the partition that has a host, and whether it is on its way out.
// Callers hold p.mu.
func (p *Provider) holder(h *host) (id skyport.PartitionID, going bool) {
	for _, part := range p.partitions {
		if part.site.name == h.site && slices.Contains(part.record.Hosts, h.config.Name) && !part.cleared[h.config.Name] {
			return part.id, part.record.Deleting
		}
	}
	return "", false
}

// establish claims the hosts of a partition, one after the other: of two gates
// that want the same ones the second learns it at the first host.
func (p *Provider) establish(part *partition, keys []string) {
	p.mu.Lock()
	r := part.record
	p.mu.Unlock()
	err := p.journal.write(r)
	asked := err == nil
	for i := 0; err == nil && i < len(r.Hosts); i++ {
		h := part.site.host(r.Hosts[i])
		if h == nil {
			err = fmt.Errorf("host %s is not in the configuration any more", r.Hosts[i])
			break
		}
		p.mu.Lock()
		if part.record.Deleting {
			err = skyport.Errorf(skyport.CodeConflict, "partition %s is being removed", part.id)
		}
		p.mu.Unlock()
		if err == nil {
			err = h.claim(p.ctx, &r, i, joinLines(keys))
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	defer func() { close(part.creating); part.creating, part.reserved = nil, false }()
	if err == nil && !part.record.Deleting {
		part.record.Settled, part.createErr = true, nil
		// Without this mark a restart only claims the hosts again.
		if err := p.journal.write(part.record); err != nil {
			p.log.Warn("creation not written down", "partition", part.id, "error", err)
		}
		p.log.Info("hosts claimed", "partition", part.id, "site", part.site.name, "hosts", r.Hosts)
		return
	}
	part.createErr = cmp.Or(err, error(skyport.Errorf(skyport.CodeConflict, "partition %s is being removed", part.id)))
	switch {
	case p.ctx.Err() != nil:
		return // the next gate goes on
	case !asked:
		delete(p.partitions, part.id)
	case !part.record.Deleting:
		// All or none. What was claimed is given back.
		p.log.Warn("hosts not claimed, giving back those that were", "partition", part.id, "error", err)
		part.record.Deleting = true
		p.remove(part)
	}
	if errors.Is(err, errShared) {
		part.createErr = errors.Join(err, gate.ErrPermanent)
	}
}

// Status tells how far a partition is, by looks at its hosts.
func (p *Provider) Status(ctx context.Context, name string, id skyport.PartitionID) (gate.PartitionStatus, error) {
	part, err := p.find(ctx, name, id)
	if err != nil {
		return gate.PartitionStatus{}, err
	}
	return p.status(ctx, part)
}

// List tells the partitions of an owner, oldest first.
func (p *Provider) List(ctx context.Context, name, owner string) ([]gate.PartitionStatus, error) {
	s, err := p.site(name)
	if err != nil {
		return nil, err
	}
	if err := p.refresh(ctx, s, lookAge); err != nil {
		return nil, err
	}
	p.mu.Lock()
	var parts []*partition
	for _, part := range p.partitions {
		if part.site == s && (owner == "" || part.record.Spec.Owner == owner) {
			parts = append(parts, part)
		}
	}
	p.mu.Unlock()
	var all []gate.PartitionStatus
	for _, part := range parts {
		switch status, err := p.status(ctx, part); {
		case err == nil:
			all = append(all, status)
		case !errors.Is(err, gate.ErrNotFound):
			return nil, err
		}
	}
	slices.SortFunc(all, func(a, b gate.PartitionStatus) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return all, nil
}

// Extend moves the end of the lease on all hosts of the partition.
func (p *Provider) Extend(ctx context.Context, name string, id skyport.PartitionID, until time.Time) error {
	part, err := p.find(ctx, name, id)
	if err != nil {
		return err
	}
	p.mu.Lock()
	if part.record.Deleting {
		p.mu.Unlock()
		return fmt.Errorf("partition %s is being removed: %w", id, gate.ErrNotFound)
	}
	part.record.Spec.Lease = until.UTC()
	r := part.record
	err = p.journal.write(r)
	p.mu.Unlock()
	if err != nil {
		return err
	}
	errs := make([]error, len(r.Hosts))
	var hosts sync.WaitGroup
	for i, hostName := range r.Hosts {
		if h := part.site.host(hostName); h != nil {
			hosts.Go(func() { errs[i] = h.extend(ctx, id, until) })
		}
	}
	hosts.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("lease of partition %s: %w", id, err)
	}
	return nil
}

// Delete writes the decision down and starts the removal.
func (p *Provider) Delete(ctx context.Context, name string, id skyport.PartitionID) error {
	part, err := p.find(ctx, name, id)
	if errors.Is(err, gate.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.partitions[id] != part || part.record.Deleting {
		return nil
	}
	part.record.Deleting = true
	if err := p.journal.write(part.record); err != nil {
		// The removal goes on; after a restart core asks for it again.
		p.log.WarnContext(ctx, "removal goes on without a record of it", "partition", id, "error", err)
	}
	p.remove(part)
	return nil
}

package cloud

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// Options say of what a provider is made. Kind and Clouds are needed.
type Options struct {
	// Kind is the kind of all its sites, such as "azure".
	Kind string
	// Clouds are the sites. The provider closes them.
	Clouds []Cloud
	// Dir is where flavors and images are kept for the next start; empty: nowhere.
	Dir string
	// Sources tell from where core comes, where a Cloud does not ([Sited]).
	Sources Sources
	// CatalogueLife is the age at which flavors, prices and images are asked for
	// again, in the background; 0: 6 hours. Older ones are served until then.
	CatalogueLife time.Duration
	// Poll is how often live partitions are listed for changes; 0: 15 seconds.
	Poll time.Duration
	// Retry is the first pause before something that failed is tried again; 0: 1
	// second. Pauses grow to a minute. For 120 times as long a cloud's lists may
	// lag behind: what the provider has just done counts more than they do.
	Retry time.Duration
	// CreateLimit is how long a creation may take before it is given up; 0: 20 minutes.
	CreateLimit time.Duration
	Logger      *slog.Logger // nil: slog.Default()
}

const (
	calmPause = time.Minute      // the longest pause between two tries
	callLimit = time.Minute      // one listing, one extension
	clearTime = 30 * time.Minute // one try of a removal
	lagTimes  = 120              // lists may lag for so many first pauses
)

// Provider makes partitions at the sites of one kind. Make it with [New]; Close it.
type Provider struct {
	kind  string
	sites []*site
	stop  context.CancelFunc
	jobs  sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every change
	closed  bool
}

var (
	_ gate.Provider = (*Provider)(nil)
	_ gate.Watcher  = (*Provider)(nil)
	_ gate.Checker  = (*Provider)(nil)
	_ gate.Lender   = (*Provider)(nil)
)

// New makes a provider. It waits for no cloud; removals that an earlier process
// has left go on as soon as the clouds tell of them.
func New(o Options) (*Provider, error) {
	if o.Kind == "" || len(o.Clouds) == 0 {
		return nil, skyport.Errorf(skyport.CodeInvalid, "a provider of clouds needs a kind and at least one site")
	}
	o.CatalogueLife = or(o.CatalogueLife, 6*time.Hour)
	o.Poll = or(o.Poll, 15*time.Second)
	o.Retry = or(o.Retry, time.Second)
	o.CreateLimit = or(o.CreateLimit, 20*time.Minute)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	seen := map[string]bool{}
	for _, c := range o.Clouds {
		described := c.Site()
		switch {
		case described.Name == "":
			return nil, skyport.Errorf(skyport.CodeInvalid, "a site of kind %s has no name", o.Kind)
		case seen[described.Name]:
			return nil, skyport.Errorf(skyport.CodeInvalid, "two sites are named %q", described.Name).WithHint("give one of them another name")
		case described.Kind != o.Kind:
			return nil, skyport.Errorf(skyport.CodeInvalid, "site %s is of kind %q, its provider of %q", described.Name, described.Kind, o.Kind)
		}
		seen[described.Name] = true
		if err := sourcesOf(c, o.Sources).valid(); err != nil {
			return nil, fmt.Errorf("site %s: %w", described.Name, err)
		}
	}
	p := &Provider{kind: o.Kind, changed: make(chan struct{})}
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	for _, c := range o.Clouds {
		p.sites = append(p.sites, newSite(ctx, p, c, o))
	}
	for _, s := range p.sites {
		p.spawn(func() { s.flavors.load.Do(s.flavors.read); s.images.load.Do(s.images.read) })
		p.spawn(s.poll)
		p.spawn(s.watchSources)
	}
	return p, nil
}

func or(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return d
}

// Close ends what is under way, which the next provider carries on, and closes
// the clouds. Nodes go on.
func (p *Provider) Close() error {
	p.mu.Lock()
	closed := p.closed
	p.closed = true
	p.mu.Unlock()
	p.stop()
	p.jobs.Wait()
	if closed {
		return nil
	}
	var failed error
	for _, s := range p.sites {
		if err := s.cloud.Close(); err != nil {
			failed = errors.Join(failed, fmt.Errorf("site %s: %w", s.name, err))
		}
	}
	return failed
}

// spawn starts a goroutine that Close waits for; false: it is closed already.
func (p *Provider) spawn(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.jobs.Go(f)
	return true
}

// Kind tells the kind of the sites.
func (p *Provider) Kind() string { return p.kind }

// Sites describes the sites, from memory.
func (p *Provider) Sites(context.Context) ([]skyport.Site, error) {
	all := make([]skyport.Site, 0, len(p.sites))
	for _, s := range p.sites {
		all = append(all, s.cloud.Site())
	}
	return all, nil
}

// Flavors tells the flavors of a site, from the cache where there is one.
func (p *Provider) Flavors(ctx context.Context, site string) ([]skyport.Flavor, error) {
	s, err := p.site(site)
	if err != nil {
		return nil, err
	}
	return s.flavors.get(ctx)
}

// Images tells the images of a site, from the cache where there is one.
func (p *Provider) Images(ctx context.Context, site string) ([]skyport.Image, error) {
	s, err := p.site(site)
	if err != nil {
		return nil, err
	}
	return s.images.get(ctx)
}

// Create holds a partition against the catalogue and lets it be made.
func (p *Provider) Create(ctx context.Context, spec gate.PartitionSpec) error {
	s, err := p.site(spec.Site)
	if err != nil {
		return err
	}
	return s.create(ctx, spec)
}

// Status tells how far a partition is: from memory while it is being made or
// removed, else by the site's lists, which callers share.
func (p *Provider) Status(ctx context.Context, site string, id skyport.PartitionID) (gate.PartitionStatus, error) {
	s, err := p.site(site)
	if err != nil {
		return gate.PartitionStatus{}, err
	}
	return s.status(ctx, id)
}

// List tells the partitions of an owner, oldest first.
func (p *Provider) List(ctx context.Context, site, owner string) ([]gate.PartitionStatus, error) {
	s, err := p.site(site)
	if err != nil {
		return nil, err
	}
	return s.list(ctx, owner)
}

// Extend moves the end of a lease, at the site. It waits for a creation that is
// under way as long as its context lasts.
func (p *Provider) Extend(ctx context.Context, site string, id skyport.PartitionID, until time.Time) error {
	s, err := p.site(site)
	if err != nil {
		return err
	}
	return s.extend(ctx, id, until)
}

// Delete marks a partition at the site as one to be removed and lets the removal
// run until the site agrees. Of what nobody knows it waits for the end.
func (p *Provider) Delete(ctx context.Context, site string, id skyport.PartitionID) error {
	s, err := p.site(site)
	if err != nil {
		return err
	}
	return s.remove(ctx, id)
}

// Check asks the cloud what is missing, and whether core's address is known.
func (p *Provider) Check(ctx context.Context, site string) ([]gate.Finding, error) {
	s, err := p.site(site)
	if err != nil {
		return nil, err
	}
	return s.check(ctx)
}

// Changed returns a channel that is closed at the next change of any partition.
func (p *Provider) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

func (p *Provider) notify() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Provider) site(name string) (*site, error) {
	for _, s := range p.sites {
		if s.name == name {
			return s, nil
		}
	}
	return nil, Permanent(skyport.CodeUnknownSite, "no site %q of kind %s", skyport.Abbreviate(name, 60), p.kind)
}

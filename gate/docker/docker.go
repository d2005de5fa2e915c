package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/moby/moby/client"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// Kind is the kind of the sites.
const Kind = "docker"

// DefaultImage is the node image that `make node-image` builds.
const DefaultImage = "skyport-node:dev"

// Options say which engine is used, and what may be had of it. The zero value
// is a site "docker" on the engine that the docker command would use.
type Options struct {
	// Site is the name of the site; empty: "docker". Several providers may
	// share an engine under different names.
	Site string
	// Host is the engine, such as unix:///var/run/docker.sock; empty: what
	// DOCKER_HOST says, else the usual socket.
	Host string
	// Image is the node image; empty: DefaultImage. Images are further ones that
	// jobs may name. The engine must have them: they are not pulled.
	Image  string
	Images []string
	// NoEngine leaves the container engine inside of the nodes out.
	NoEngine bool
	// Limits bound what may exist at once. Zero fields are no limit: cpus are
	// shared between nodes, so there may be more of them than the engine has.
	Limits skyport.Limits
	// Flavors are the kinds of nodes; nil: small, medium and large, made from
	// the engine's size. Only Name, CPUs, Memory and Price count.
	Flavors []skyport.Flavor
	// Env is added to the environment of the nodes' first process.
	Env []string
	// Labels are put on everything that is made, beside the provider's own.
	Labels map[string]string
	// Faults are switched on from the start; see [Provider.SetFaults].
	Faults Faults
	Logger *slog.Logger // nil: slog.Default()
}

// Provider makes partitions on a Docker engine. Make it with [New]; Close it.
type Provider struct {
	options Options
	log     *slog.Logger
	engine  *client.Client

	ctx  context.Context //nolint:containedctx // ends with Close; creations, removals and the events live in it
	stop context.CancelFunc
	jobs sync.WaitGroup

	admission sync.Mutex // held from counting what exists until the new record is written
	trial     sync.Mutex // held by the node that tries whether the engine makes privileged containers

	mu      sync.Mutex
	size    *size // nil: the engine has not told yet
	works   map[skyport.PartitionID]*work
	writing map[skyport.PartitionID]*turn
	knocks  map[string]*knock // by container
	removed int               // how many removals have ended
	changed chan struct{}     // closed and replaced at every change
	faults  Faults
	limited bool // the engine cannot make privileged containers
	learned bool // that limited is true to the engine
	closed  bool
}

var (
	_ gate.Provider = (*Provider)(nil)
	_ gate.Watcher  = (*Provider)(nil)
)

// New makes a provider. It does not wait for the engine, which may come later.
func New(o Options) (*Provider, error) {
	o.Site = cmp.Or(o.Site, "docker")
	o.Image = cmp.Or(o.Image, DefaultImage)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	settings := []client.Opt{client.FromEnv, client.WithUserAgent("skyport-gate")}
	if o.Host != "" {
		settings = append(settings, client.WithHost(o.Host))
	}
	engine, err := client.New(settings...)
	if err != nil {
		return nil, skyport.Errorf(skyport.CodeInvalid, "site %s: the Docker engine %q: %w", o.Site, o.Host, err).
			WithHint("docker.host wants an address such as unix:///var/run/docker.sock or tcp://10.0.0.5:2376")
	}
	p := &Provider{
		options: o,
		log:     o.Logger.With("site", o.Site),
		engine:  engine,
		works:   map[skyport.PartitionID]*work{},
		writing: map[skyport.PartitionID]*turn{},
		knocks:  map[string]*knock{},
		changed: make(chan struct{}),
		faults:  o.Faults,
	}
	p.ctx, p.stop = context.WithCancel(context.Background())
	p.jobs.Go(p.follow)
	return p, nil
}

// Close stops watching. Nodes go on; what was under way is carried on by the
// next provider.
func (p *Provider) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.stop()
	p.jobs.Wait()
	if err := p.engine.Close(); err != nil {
		return fmt.Errorf("site %s: %w", p.options.Site, err)
	}
	return nil
}

// Kind returns "docker".
func (p *Provider) Kind() string { return Kind }

// Sites tells the one site of this provider, from memory.
func (p *Provider) Sites(context.Context) ([]skyport.Site, error) {
	site := skyport.Site{
		ID: gate.StableID(Kind, p.options.Site), Name: p.options.Site, Kind: Kind,
		Container: !p.options.NoEngine, DefaultImage: p.options.Image, DefaultFlavor: flavorSmall,
		Server: "localhost", Limits: p.options.Limits,
	}
	if len(p.options.Flavors) > 0 {
		site.DefaultFlavor = p.options.Flavors[0].Name
	}
	if u, err := url.Parse(p.engine.DaemonHost()); err == nil && u.Hostname() != "" && u.Scheme != "unix" {
		site.Server = u.Hostname()
		if n, err := strconv.Atoi(u.Port()); err == nil {
			site.Port = n
		}
	}
	return []skyport.Site{site}, nil
}

// Create notes the partition down and lets its nodes be made, all side by side.
func (p *Provider) Create(ctx context.Context, spec gate.PartitionSpec) error {
	if err := p.ours(spec.Site); err != nil {
		return err
	}
	flavor, image, err := p.checked(ctx, spec)
	if err != nil {
		return err
	}
	w, err := p.begin(spec, flavor, image)
	if err != nil {
		return err
	}
	return w.answer(ctx)
}

// Status tells how far a partition is, as the engine has it.
func (p *Provider) Status(ctx context.Context, site string, id skyport.PartitionID) (gate.PartitionStatus, error) {
	if err := p.ours(site); err != nil {
		return gate.PartitionStatus{}, err
	}
	if _, err := skyport.ParsePartitionID(string(id)); err != nil {
		return gate.PartitionStatus{}, fmt.Errorf("partition %q: %w", skyport.Abbreviate(string(id), 60), gate.ErrNotFound)
	}
	all, err := p.statuses(ctx, id)
	if err != nil {
		return gate.PartitionStatus{}, err
	}
	if len(all) == 0 {
		return gate.PartitionStatus{}, fmt.Errorf("partition %s at site %s: %w", id, site, gate.ErrNotFound)
	}
	return all[0], nil
}

// List tells the partitions of an owner, oldest first.
func (p *Provider) List(ctx context.Context, site, owner string) ([]gate.PartitionStatus, error) {
	if err := p.ours(site); err != nil {
		return nil, err
	}
	all, err := p.statuses(ctx, "")
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(s gate.PartitionStatus) bool { return owner != "" && s.Owner != owner })
	slices.SortFunc(all, func(a, b gate.PartitionStatus) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return all, nil
}

// Extend notes the new end of the lease down. The nodes' own end of life is
// moved by who speaks to them.
func (p *Provider) Extend(ctx context.Context, site string, id skyport.PartitionID, until time.Time) error {
	if err := p.ours(site); err != nil {
		return err
	}
	missing := fmt.Errorf("partition %s at site %s: %w", id, site, gate.ErrNotFound)
	if _, err := skyport.ParsePartitionID(string(id)); err != nil {
		return missing
	}
	release, err := p.take(ctx, id)
	if err != nil {
		return err
	}
	defer release()
	seen, err := p.look(ctx, id)
	if err != nil {
		return err
	}
	v, ok := seen[id]
	switch {
	case !ok || !v.recorded:
		return missing
	case v.deleting || p.removing(id):
		return skyport.Errorf(skyport.CodeConflict, "partition %s is being removed", id)
	}
	labels := v.record.labels(site, kindLease)
	labels[labelLease] = until.UTC().Format(time.RFC3339Nano)
	labels[labelSerial] = strconv.Itoa(v.serial + 1)
	if err := p.note(ctx, noteName(id, kindLease)+"-"+labels[labelSerial], labels); err != nil {
		return err
	}
	for _, old := range v.leases {
		if err := p.removeVolume(ctx, old); err != nil {
			p.log.WarnContext(ctx, "an old lease stays for now", "partition", id, "error", err) // the newest counts
		}
	}
	p.notify()
	return nil
}

// Delete notes the decision down and starts the removal.
func (p *Provider) Delete(ctx context.Context, site string, id skyport.PartitionID) error {
	if err := p.ours(site); err != nil {
		return err
	}
	if _, err := skyport.ParsePartitionID(string(id)); err != nil {
		return nil //nolint:nilerr // what cannot exist is not there
	}
	p.mu.Lock()
	err := p.faults.delete()
	p.mu.Unlock()
	if err != nil {
		return err
	}
	w, err := p.end(id)
	if err != nil {
		return err
	}
	return w.answer(ctx)
}

// Changed returns a channel that is closed at the next change of a partition.
func (p *Provider) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// notify tells watchers.
func (p *Provider) notify() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.changed)
	p.changed = make(chan struct{})
}

// ours refuses sites of others.
func (p *Provider) ours(site string) error {
	if site != p.options.Site {
		return permanent(skyport.CodeUnknownSite, "no site %q here", skyport.Abbreviate(site, 60))
	}
	return nil
}

// permanent is an error that trying again cannot mend.
func permanent(code skyport.Code, format string, args ...any) *skyport.Error {
	err := skyport.Errorf(code, format, args...)
	if err.Cause == nil {
		err.Cause = gate.ErrPermanent
	} else {
		err.Cause = errors.Join(gate.ErrPermanent, err.Cause)
	}
	return err
}

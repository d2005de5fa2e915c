package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// Kind is the kind of the site.
const Kind = "local"

// Options say where nodes live and how many there may be. Dir and WorkerBinary
// are needed.
type Options struct {
	// Dir keeps the partitions; it is made with mode 0700.
	Dir string
	// WorkerBinary is the path of skyport-worker for this machine.
	WorkerBinary string
	// Site is the name of the site; empty: "local".
	Site string
	// Limits bound what may exist at once. A zero field means what the machine
	// has: its cpus, its memory, and as many nodes as they allow.
	Limits skyport.Limits
	// Price is per cpu and hour.
	Price float64
	// BootDelay passes before a node's worker is started for the first time.
	BootDelay time.Duration
	// Env is added to the environment of the workers, which otherwise get
	// only what a login would give them (PATH, HOME, LANG and the like).
	Env []string
	// Faults are switched on from the start; see [Provider.SetFaults].
	Faults Faults
	Logger *slog.Logger // nil: slog.Default()
}

// Provider makes partitions on this machine. Make it with [New]; Close it.
type Provider struct {
	options Options
	log     *slog.Logger
	machine machine
	socket  sockets
	lock    *os.File

	ctx  context.Context //nolint:containedctx // ends with Close; supervisors and removals live in it
	stop context.CancelFunc
	work sync.WaitGroup

	mu         sync.Mutex
	partitions map[skyport.PartitionID]*partition
	changed    chan struct{} // closed and replaced at every change
	faults     Faults
	closed     bool // nothing is started any more
}

var (
	_ gate.Provider = (*Provider)(nil)
	_ gate.Watcher  = (*Provider)(nil)
)

// New opens the directory, takes over the workers that run there, and carries
// on what was under way. It fails when another provider holds the directory or
// when a newer version has written to it.
func New(o Options) (*Provider, error) {
	o.Site = cmp.Or(o.Site, "local")
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("local site: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("local site: %w", err)
	}
	// One spelling of the directory: processes are found by it.
	if o.Dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, fmt.Errorf("local site: %w", err)
	}
	machine, err := thisMachine()
	if err != nil {
		return nil, fmt.Errorf("local site: %w", err)
	}
	lock, err := hold(filepath.Join(o.Dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("local site: %w", err)
	}
	p := &Provider{
		options:    o,
		log:        o.Logger.With("site", o.Site),
		machine:    machine,
		socket:     sockets{dir: o.Dir},
		lock:       lock,
		partitions: map[skyport.PartitionID]*partition{},
		changed:    make(chan struct{}),
		faults:     o.Faults,
	}
	p.ctx, p.stop = context.WithCancel(context.Background())
	if err := p.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("local site: %w", err), p.Close())
	}
	return p, nil
}

// Close stops watching over the workers and gives the directory free. The
// workers go on.
func (p *Provider) Close() error {
	p.mu.Lock()
	p.closed = true
	empty := len(p.partitions) == 0
	p.mu.Unlock()
	p.stop()
	p.work.Wait()
	if empty {
		p.socket.tidy()
	}
	if err := release(p.lock); err != nil {
		return fmt.Errorf("local site: %w", err)
	}
	return nil
}

// hold takes the lock that says: this directory has a provider. A provider that
// was killed while it started a worker leaves the lock to the newborn process,
// which lets it go a moment later: hence the patience.
func hold(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	for wait := time.Millisecond; ; wait *= 2 {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if wait > 500*time.Millisecond || !rest(context.Background(), wait) {
			_ = f.Close() // nothing was written
			return nil, skyport.Errorf(skyport.CodeConflict, "another gate holds %s: %w", filepath.Dir(path), err).
				WithHint("stop the other gate, or give this one a spool of its own")
		}
	}
}

// release lets the lock go, also for processes that are being born just now.
func release(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_UN)
	if errors.Is(err, unix.EBADF) {
		return nil // closed before
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	return nil
}

// Kind returns "local".
func (p *Provider) Kind() string { return Kind }

// Sites tells the one site: this machine.
func (p *Provider) Sites(context.Context) ([]skyport.Site, error) {
	return []skyport.Site{{
		ID:            gate.StableID(Kind, p.options.Site),
		Name:          p.options.Site,
		Kind:          Kind,
		Server:        "localhost",
		Local:         true,
		DefaultFlavor: flavorOne,
		DefaultImage:  imageHost,
		Limits:        p.limits(),
	}}, nil
}

// Flavors tells a slice of the machine with one cpu, half of it, and all.
func (p *Provider) Flavors(_ context.Context, site string) ([]skyport.Flavor, error) {
	if err := p.ours(site); err != nil {
		return nil, err
	}
	return p.machine.flavors(p.options.Site, p.options.Price), nil
}

// Images tells the one image that nodes have: the system of this machine.
func (p *Provider) Images(_ context.Context, site string) ([]skyport.Image, error) {
	if err := p.ours(site); err != nil {
		return nil, err
	}
	return []skyport.Image{p.machine.image(p.options.Site)}, nil
}

// Create writes the partition down and lets its nodes start.
func (p *Provider) Create(ctx context.Context, spec gate.PartitionSpec) error {
	if err := p.ours(spec.Site); err != nil {
		return err
	}
	flavor, err := p.checked(spec)
	if err != nil {
		return err
	}
	part, first, err := p.reserve(spec, flavor)
	if err != nil {
		return err
	}
	if !first {
		return part.awaitRecord(ctx)
	}
	err = part.record.write(part.dir)
	p.mu.Lock()
	if err != nil {
		part.recordErr = err
		delete(p.partitions, spec.ID)
	}
	close(part.recorded)
	p.notify()
	p.mu.Unlock()
	if err != nil {
		return errors.Join(err, os.RemoveAll(part.dir))
	}
	p.start(part, false)
	return nil
}

// checked says no to what can never be had here, and tells the flavor.
func (p *Provider) checked(spec gate.PartitionSpec) (skyport.Flavor, error) {
	if _, err := skyport.ParsePartitionID(string(spec.ID)); err != nil {
		return skyport.Flavor{}, permanent(skyport.CodeInvalid, "%v", err)
	}
	if len(spec.Nodes) == 0 {
		return skyport.Flavor{}, permanent(skyport.CodeInvalid, "a partition needs a node")
	}
	for i, name := range spec.Nodes {
		if name == "" || name == "." || name == ".." || filepath.Base(name) != name || slices.Contains(spec.Nodes[:i], name) {
			return skyport.Flavor{}, permanent(skyport.CodeInvalid, "node name %q is not usable", skyport.Abbreviate(name, 70))
		}
		if !p.socket.fits(spec.ID, name) {
			return skyport.Flavor{}, permanent(skyport.CodeInvalid, "node name %q makes the path of its socket too long", skyport.Abbreviate(name, 70))
		}
	}
	if spec.Image != "" && spec.Image != imageHost {
		return skyport.Flavor{}, permanent(skyport.CodeUnknownImage, "no image %q at site %s", skyport.Abbreviate(spec.Image, 60), p.options.Site)
	}
	for _, f := range p.machine.flavors(p.options.Site, p.options.Price) {
		if f.Name == spec.Flavor {
			if why := exceeds(p.limits(), len(spec.Nodes), f); why != "" {
				return f, permanent(skyport.CodeUnsatisfiable, "%d nodes of %s can never be had at site %s: %s", len(spec.Nodes), f.Name, p.options.Site, why)
			}
			return f, nil
		}
	}
	return skyport.Flavor{}, permanent(skyport.CodeUnknownFlavor, "no flavor %q at site %s", skyport.Abbreviate(spec.Flavor, 60), p.options.Site)
}

// reserve takes room for a partition, or finds the one of the same id.
func (p *Provider) reserve(spec gate.PartitionSpec, flavor skyport.Flavor) (part *partition, first bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, false, skyport.Errorf(skyport.CodeUnavailable, "site %s is closed", p.options.Site)
	}
	if part, ok := p.partitions[spec.ID]; ok {
		switch {
		case part.record.Deleting:
			return nil, false, skyport.Errorf(skyport.CodeConflict, "partition %s is being removed", spec.ID)
		case part.record.Spec.Fingerprint() != spec.Fingerprint():
			return nil, false, fmt.Errorf("partition %s: %w", spec.ID, gate.ErrConflict)
		}
		return part, false, nil
	}
	if err := p.faults.create(); err != nil {
		return nil, false, err
	}
	if why := p.full(len(spec.Nodes), flavor); why != "" {
		return nil, false, skyport.Errorf(skyport.CodeUnavailable, "site %s is full: %s", p.options.Site, why).
			WithHint("wait until a partition is removed")
	}
	part = p.newPartition(record{Version: recordVersion, Spec: spec, CPUs: flavor.CPUs, Memory: flavor.Memory, Created: time.Now().UTC()})
	part.recorded = make(chan struct{})
	p.partitions[spec.ID] = part
	return part, true, nil
}

// full says why n more nodes of a flavor do not fit now, or nothing. Callers
// hold p.mu. A partition takes its room until it is gone.
func (p *Provider) full(n int, flavor skyport.Flavor) string {
	left := p.limits()
	for _, other := range p.partitions {
		have := len(other.record.Spec.Nodes)
		left.Nodes = take(left.Nodes, have)
		left.CPUs = take(left.CPUs, have*other.record.CPUs)
		left.Memory = take(left.Memory, skyport.Bytes(have)*other.record.Memory)
	}
	return exceeds(left, n, flavor)
}

// limits are those of the options, completed by what the machine has.
func (p *Provider) limits() skyport.Limits {
	l := p.options.Limits
	l.CPUs = cmp.Or(l.CPUs, p.machine.cpus)
	l.Memory = cmp.Or(l.Memory, p.machine.memory)
	return l
}

// Status tells how far a partition is, from memory.
func (p *Provider) Status(_ context.Context, site string, id skyport.PartitionID) (gate.PartitionStatus, error) {
	if err := p.ours(site); err != nil {
		return gate.PartitionStatus{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	part, ok := p.partitions[id]
	if !ok {
		return gate.PartitionStatus{}, fmt.Errorf("partition %s at site %s: %w", id, site, gate.ErrNotFound)
	}
	return part.status(), nil
}

// List tells the partitions of an owner, oldest first.
func (p *Provider) List(_ context.Context, site, owner string) ([]gate.PartitionStatus, error) {
	if err := p.ours(site); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []gate.PartitionStatus
	for _, part := range p.partitions {
		if owner == "" || part.record.Spec.Owner == owner {
			all = append(all, part.status())
		}
	}
	slices.SortFunc(all, func(a, b gate.PartitionStatus) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return all, nil
}

// Extend writes the new end of the lease down.
func (p *Provider) Extend(ctx context.Context, site string, id skyport.PartitionID, until time.Time) error {
	return p.amend(ctx, site, id, func(r *record) { r.Spec.Lease = until.UTC() })
}

// Delete writes the decision down and starts the removal.
func (p *Provider) Delete(ctx context.Context, site string, id skyport.PartitionID) error {
	p.mu.Lock()
	err := p.faults.delete()
	p.mu.Unlock()
	if err != nil {
		return err
	}
	begun := false
	err = p.amend(ctx, site, id, func(r *record) { begun, r.Deleting = !r.Deleting, true })
	switch {
	case errors.Is(err, gate.ErrNotFound):
		return nil
	case begun:
		// Even when it could not be written down (the disk may be full): the
		// removal itself makes room.
		if err != nil {
			p.log.WarnContext(ctx, "removal goes on without a record of it", "partition", id, "error", err)
		}
		p.remove(id)
		return nil
	}
	return err
}

// Changed returns a channel that is closed at the next change of a partition.
func (p *Provider) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// notify tells watchers. Callers hold p.mu.
func (p *Provider) notify() {
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
func permanent(code skyport.Code, format string, args ...any) error {
	err := skyport.Errorf(code, format, args...)
	err.Cause = gate.ErrPermanent
	return err
}

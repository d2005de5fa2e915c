package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

const site = "example"

// provider keeps a directory for each partition. Its record is written before
// anything is started, and says, renamed, that the partition is being removed:
// a kill at any moment leaves what the next start understands. All that it does
// takes milliseconds, so its calls do it themselves, one at a time.
type provider struct {
	dir string
	mu  sync.Mutex
}

func (p *provider) Kind() string { return "example" }

func (p *provider) Sites(context.Context) ([]skyport.Site, error) {
	return []skyport.Site{{
		ID: gate.StableID("example", site), Name: site, Kind: "example", DefaultFlavor: "small", DefaultImage: "host",
		Limits: skyport.Limits{Nodes: 4},
	}}, nil
}

func (p *provider) Flavors(_ context.Context, name string) ([]skyport.Flavor, error) {
	small := skyport.Flavor{ID: gate.StableID("example", site, "flavor", "small"), Name: "small", Site: site, CPUs: 1, Memory: 1 << 30}
	return []skyport.Flavor{small}, known(name)
}

func (p *provider) Images(_ context.Context, name string) ([]skyport.Image, error) {
	host := skyport.Image{ID: gate.StableID("example", site, "image", "host"), Name: "host", Site: site, Kind: skyport.ImageCloud}
	return []skyport.Image{host}, known(name)
}

func known(name string) error {
	if name != site {
		return never(skyport.CodeUnknownSite, "there is no site %q", name)
	}
	return nil
}

// never says no for good, with a code that core decides by.
func never(code skyport.Code, format string, args ...any) error {
	err := skyport.Errorf(code, format, args...)
	err.Cause = gate.ErrPermanent
	return err
}

// Create makes what a partition lacks, so it may be called again.
func (p *provider) Create(ctx context.Context, spec gate.PartitionSpec) error {
	switch {
	case spec.Site != site:
		return known(spec.Site)
	case spec.Flavor != "small":
		return never(skyport.CodeUnknownFlavor, "site %s has no flavor %q", site, spec.Flavor)
	case spec.Image != "" && spec.Image != "host":
		return never(skyport.CodeUnknownImage, "site %s has no image %q", site, spec.Image)
	case len(spec.Nodes) != 1:
		return never(skyport.CodeUnsatisfiable, "site %s has no partitions of several nodes", site)
	case spec.Spot:
		return never(skyport.CodeUnsupported, "site %s has no spot nodes", site)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	r, err := p.read(spec.ID)
	switch {
	case errors.Is(err, gate.ErrNotFound):
		if r, err = p.prepare(ctx, spec); err != nil {
			return err
		}
	case err != nil:
		return err
	case r.removed:
		return skyport.Errorf(skyport.CodeUnavailable, "partition %s is being removed", spec.ID)
	case r.Spec.Fingerprint() != spec.Fingerprint():
		return fmt.Errorf("partition %s: %w", spec.ID, gate.ErrConflict)
	}
	if r.Started {
		return nil
	}
	return p.start(ctx, r) // the first time, or because a kill came before it
}

func (p *provider) Status(_ context.Context, _ string, id skyport.PartitionID) (gate.PartitionStatus, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, err := p.read(id)
	return p.status(r), err
}

func (p *provider) List(_ context.Context, _, owner string) (all []gate.PartitionStatus, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	dirs, err := filepath.Glob(filepath.Join(p.dir, "*-*-*-*-*"))
	for _, dir := range dirs {
		r, err := p.read(skyport.PartitionID(filepath.Base(dir)))
		switch {
		case errors.Is(err, gate.ErrNotFound): // half made: nothing of it runs
		case err != nil:
			return nil, err
		case owner == "" || owner == r.Spec.Owner:
			all = append(all, p.status(r))
		}
	}
	return all, err
}

func (p *provider) Extend(_ context.Context, _ string, id skyport.PartitionID, until time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, err := p.read(id)
	if err != nil || r.removed {
		return err // the removal goes on whatever the lease
	}
	r.Spec.Lease = until
	return p.write(r)
}

// Delete decides the removal by one rename, then does it. Where it fails core
// asks again, until Status says that nothing is there.
func (p *provider) Delete(ctx context.Context, _ string, id skyport.PartitionID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	dir := p.path(id)
	err := os.Rename(filepath.Join(dir, alive), filepath.Join(dir, removed))
	if err == nil || errors.Is(err, os.ErrNotExist) {
		err = kill(ctx, dir)
	}
	if err == nil {
		err = os.RemoveAll(p.node(id))
	}
	if err == nil {
		err = os.RemoveAll(dir) // with the record, which goes last
	}
	if err != nil {
		return fmt.Errorf("remove partition %s: %w", id, err)
	}
	return nil
}

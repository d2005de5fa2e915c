package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/internal/spool"
)

// cloudKind is the provider of all sites of one kind of cloud. Its sites come,
// change and go while it serves.
type cloudKind struct {
	kind string
	log  *slog.Logger

	mu       sync.RWMutex
	sites    []*cloudSite
	troubles []error
	changed  chan struct{} // closed and replaced at every change
}

// cloudSite is one of the sites. Its provider is nil while it is exchanged.
type cloudSite struct {
	config    spool.CloudSite
	described skyport.Site
	provider  cloudProvider
	leaving   bool // no more in the file, but not empty yet
	calls     sync.WaitGroup
	stop      chan struct{} // ends the watcher
	watcher   sync.WaitGroup
}

var (
	_ gate.Provider = (*cloudKind)(nil)
	_ gate.Watcher  = (*cloudKind)(nil)
	_ gate.Troubled = (*cloudKind)(nil)
)

func newCloudKind(kind string, log *slog.Logger) *cloudKind {
	return &cloudKind{kind: kind, log: log, changed: make(chan struct{})}
}

// take opens, exchanges and closes sites until they are the wanted ones. It is
// called by one goroutine at a time. It has settled when nothing is left to try
// again: neither a site that could not be opened, nor one that is leaving.
func (k *cloudKind) take(ctx context.Context, wanted []spool.CloudSite, open cloudOpener) (settled bool, err error) {
	var errs []error
	for _, config := range wanted {
		if err := k.put(config, open); err != nil {
			errs = append(errs, err)
		}
	}
	settled = len(errs) == 0
	for _, s := range k.snapshot() {
		if slices.ContainsFunc(wanted, func(c spool.CloudSite) bool { return c.Name == s.config.Name }) {
			continue
		}
		if err := k.leave(ctx, s); err != nil {
			settled = false
			errs = append(errs, err)
		}
	}
	return settled, errors.Join(errs...)
}

func (k *cloudKind) snapshot() []*cloudSite {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return slices.Clone(k.sites)
}

// put makes a site what the configuration says. When that cannot be opened, an
// old one goes on as it was.
func (k *cloudKind) put(config spool.CloudSite, open cloudOpener) error {
	var old *cloudSite
	for _, s := range k.snapshot() {
		if s.config.Name == config.Name {
			old = s
		}
	}
	if old != nil && old.provider != nil && reflect.DeepEqual(old.config, config) {
		k.mu.Lock()
		defer k.mu.Unlock()
		old.leaving = false
		return nil
	}
	start, err := open(config)
	if err != nil {
		return err
	}
	s := &cloudSite{config: config, stop: make(chan struct{})}
	if old != nil {
		// Two providers of one site would do the same work twice.
		s.described = old.described
		k.exchange(old, s)
		if err := old.close(); err != nil {
			k.log.Warn("site not closed", "site", config.Name, "error", err)
		}
	}
	provider, err := start()
	if err != nil {
		return err
	}
	if described, err := provider.Sites(context.Background()); err == nil && len(described) == 1 { // from memory
		s.described = described[0]
	}
	changed := provider.Changed() // before anybody calls it
	k.mu.Lock()
	s.provider = provider
	if old == nil {
		k.sites = append(k.sites, s)
	}
	k.mu.Unlock()
	s.watcher.Go(func() { k.watch(s, provider, changed) })
	k.notify()
	k.log.Info("site is open", "kind", k.kind, "site", config.Name, "again", old != nil)
	return nil
}

// exchange puts a site in the place of another, or with nil nothing.
func (k *cloudKind) exchange(old, with *cloudSite) {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := slices.Index(k.sites, old)
	if with == nil {
		k.sites = slices.Delete(slices.Clone(k.sites), i, i+1)
		return
	}
	k.sites = slices.Clone(k.sites)
	k.sites[i] = with
}

// leave gives a site up that the file does not name any more, once nothing of
// ours is there: else it would cost money and nobody would remove it.
func (k *cloudKind) leave(ctx context.Context, s *cloudSite) error {
	k.mu.Lock()
	s.leaving = true
	k.mu.Unlock()
	if s.provider != nil {
		ctx, cancel := context.WithTimeout(ctx, leavingLimit)
		defer cancel()
		there, err := s.provider.List(ctx, s.config.Name, "")
		if err != nil {
			return fmt.Errorf("site %s is not in the file any more, and does not say whether it is empty (a new start of the gate gives it up): %w", s.config.Name, err)
		}
		if len(there) > 0 {
			return skyport.Errorf(skyport.CodeConflict, "site %s is not in the file any more, but has %s: it is kept until they are gone",
				s.config.Name, count(len(there), "partition"))
		}
	}
	k.exchange(s, nil)
	k.log.Info("site is given up", "kind", k.kind, "site", s.config.Name)
	return s.close()
}

// close ends a site that nobody finds any more, after the calls under way.
func (s *cloudSite) close() error {
	s.calls.Wait()
	close(s.stop)
	s.watcher.Wait()
	if s.provider == nil {
		return nil
	}
	if err := s.provider.Close(); err != nil {
		return fmt.Errorf("close site %s: %w", s.config.Name, err)
	}
	return nil
}

// watch passes on that something of a site has changed.
func (k *cloudKind) watch(s *cloudSite, p cloudProvider, next <-chan struct{}) {
	for {
		select {
		case <-s.stop:
			return
		case <-next:
			next = p.Changed() // before others look: no change is lost
			k.notify()
		}
	}
}

func (k *cloudKind) notify() {
	k.mu.Lock()
	defer k.mu.Unlock()
	close(k.changed)
	k.changed = make(chan struct{})
}

func (k *cloudKind) trouble(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.troubles = nil
	if err != nil {
		k.troubles = []error{err}
	}
}

// Troubles are what keeps the sites from being as configured.
func (k *cloudKind) Troubles() []error {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if len(k.sites) == 0 {
		return nil
	}
	return k.troubles
}

// Close closes all sites.
func (k *cloudKind) Close() error {
	k.mu.Lock()
	all := k.sites
	k.sites = nil
	k.mu.Unlock()
	var errs []error
	for _, s := range all {
		errs = append(errs, s.close())
	}
	return errors.Join(errs...)
}

// Kind is the kind of the sites.
func (k *cloudKind) Kind() string { return k.kind }

// Changed is closed at the next change at any site.
func (k *cloudKind) Changed() <-chan struct{} {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.changed
}

// Sites describes the sites, from memory.
func (k *cloudKind) Sites(ctx context.Context) ([]skyport.Site, error) {
	sites := []skyport.Site{}
	for _, s := range k.snapshot() {
		described, err := onSite(k, s.config.Name, func(s *cloudSite) ([]skyport.Site, error) { return s.provider.Sites(ctx) })
		if err != nil || len(described) != 1 {
			described = []skyport.Site{s.described} // it is being exchanged
		}
		sites = append(sites, described[0])
	}
	return sites, nil
}

// onSite makes a call of a site's provider, which is not closed meanwhile.
func onSite[T any](k *cloudKind, name string, call func(*cloudSite) (T, error)) (T, error) {
	var none T
	k.mu.RLock()
	i := slices.IndexFunc(k.sites, func(s *cloudSite) bool { return s.config.Name == name })
	if i < 0 {
		k.mu.RUnlock()
		unknown := skyport.Errorf(skyport.CodeUnknownSite, "there is no site %q", skyport.Abbreviate(name, 60))
		unknown.Cause = gate.ErrPermanent
		return none, unknown
	}
	s := k.sites[i]
	if s.provider == nil {
		k.mu.RUnlock()
		return none, skyport.Errorf(skyport.CodeUnavailable, "site %s is being opened anew", name)
	}
	s.calls.Add(1)
	k.mu.RUnlock()
	defer s.calls.Done()
	return call(s)
}

// Flavors are those of the site; one that is leaving offers none.
func (k *cloudKind) Flavors(ctx context.Context, site string) ([]skyport.Flavor, error) {
	return onSite(k, site, func(s *cloudSite) ([]skyport.Flavor, error) {
		if k.isLeaving(s) {
			return nil, nil
		}
		return s.provider.Flavors(ctx, site)
	})
}

func (k *cloudKind) isLeaving(s *cloudSite) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return s.leaving
}

// Images are those of the site.
func (k *cloudKind) Images(ctx context.Context, site string) ([]skyport.Image, error) {
	return onSite(k, site, func(s *cloudSite) ([]skyport.Image, error) { return s.provider.Images(ctx, site) })
}

// Create starts a partition, but no new one at a site that is leaving.
func (k *cloudKind) Create(ctx context.Context, spec gate.PartitionSpec) error {
	return doOnSite(k, spec.Site, func(s *cloudSite) error {
		if k.isLeaving(s) {
			if _, err := s.provider.Status(ctx, spec.Site, spec.ID); errors.Is(err, gate.ErrNotFound) {
				gone := skyport.Errorf(skyport.CodeUnknownSite, "site %s is not in the gate's file any more: it takes no new partitions", spec.Site)
				gone.Cause = gate.ErrPermanent
				return gone
			}
		}
		return s.provider.Create(ctx, spec)
	})
}

// Status is that of the site's provider.
func (k *cloudKind) Status(ctx context.Context, site string, id skyport.PartitionID) (gate.PartitionStatus, error) {
	return onSite(k, site, func(s *cloudSite) (gate.PartitionStatus, error) { return s.provider.Status(ctx, site, id) })
}

// List is that of the site's provider.
func (k *cloudKind) List(ctx context.Context, site, owner string) ([]gate.PartitionStatus, error) {
	return onSite(k, site, func(s *cloudSite) ([]gate.PartitionStatus, error) { return s.provider.List(ctx, site, owner) })
}

// Extend is that of the site's provider.
func (k *cloudKind) Extend(ctx context.Context, site string, id skyport.PartitionID, until time.Time) error {
	return doOnSite(k, site, func(s *cloudSite) error { return s.provider.Extend(ctx, site, id, until) })
}

// Delete is that of the site's provider.
func (k *cloudKind) Delete(ctx context.Context, site string, id skyport.PartitionID) error {
	return doOnSite(k, site, func(s *cloudSite) error { return s.provider.Delete(ctx, site, id) })
}

func doOnSite(k *cloudKind, site string, call func(*cloudSite) error) error {
	_, err := onSite(k, site, func(s *cloudSite) (struct{}, error) { return struct{}{}, call(s) })
	return err
}

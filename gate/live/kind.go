package live

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
)

// kind is the provider of all sites of one kind.
type kind struct {
	name string
	open func(Site) (func() (Provider, error), error)
	log  *slog.Logger

	mu      sync.RWMutex
	sites   []*site
	trouble error
	changed chan struct{} // closed and replaced at every change
}

// site is one of the sites. Its provider is nil while it is exchanged.
type site struct {
	Site
	described skyport.Site
	provider  Provider
	leaving   bool // wanted no more, but not empty yet
	calls     sync.WaitGroup
	stop      chan struct{} // ends the watcher
	watcher   sync.WaitGroup
}

var (
	_ gate.Provider = (*kind)(nil)
	_ gate.Watcher  = (*kind)(nil)
	_ gate.Troubled = (*kind)(nil)
	_ gate.Lender   = (*kind)(nil)
)

// take opens, exchanges and closes sites until they are the wanted ones. It is
// called by one goroutine at a time. An error says what is left to try again:
// a site that could not be opened, or one that is leaving.
func (k *kind) take(ctx context.Context, wanted []Site) error {
	var errs []error
	for _, w := range wanted {
		errs = append(errs, k.put(w))
	}
	for _, s := range k.snapshot() {
		if !slices.ContainsFunc(wanted, func(w Site) bool { return w.Name == s.Name }) {
			errs = append(errs, k.leave(ctx, s))
		}
	}
	return errors.Join(errs...)
}

func (k *kind) snapshot() []*site {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return slices.Clone(k.sites)
}

// find is the site of a name, or nil. Call it with the lock.
func (k *kind) find(name string) *site {
	if i := slices.IndexFunc(k.sites, func(s *site) bool { return s.Name == name }); i >= 0 {
		return k.sites[i]
	}
	return nil
}

// put makes a site what is wanted. When that cannot be opened, an old one goes
// on as it was.
func (k *kind) put(wanted Site) error {
	k.mu.Lock()
	old := k.find(wanted.Name)
	if old != nil && old.provider != nil && reflect.DeepEqual(old.Site, wanted) {
		old.leaving = false
		k.mu.Unlock()
		return nil
	}
	k.mu.Unlock()
	start, err := k.open(wanted)
	if err != nil {
		return err
	}
	s := &site{Site: wanted, stop: make(chan struct{})}
	if old != nil {
		// Two providers of one site would do the same work twice.
		s.described = old.described
		k.exchange(old, s)
		if err := old.close(); err != nil {
			k.log.Warn("site not closed", "site", wanted.Name, "error", err)
		}
	}
	provider, err := start()
	if err != nil {
		return err
	}
	described, err := provider.Sites(context.Background()) // from memory
	changed := provider.Changed()                          // before anybody calls it
	k.mu.Lock()
	if err == nil && len(described) == 1 {
		s.described = described[0]
	}
	s.provider = provider
	if old == nil {
		k.sites = append(slices.Clone(k.sites), s)
	}
	k.mu.Unlock()
	s.watcher.Go(func() { k.watch(s, provider, changed) })
	k.notify()
	k.log.Info("site is open", "kind", k.name, "site", wanted.Name, "again", old != nil)
	return nil
}

// exchange puts a site in the place of another, or with nil nothing.
func (k *kind) exchange(old, with *site) {
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
func (k *kind) leave(ctx context.Context, s *site) error {
	k.mu.Lock()
	s.leaving = true
	k.mu.Unlock()
	if s.provider != nil {
		ctx, cancel := context.WithTimeout(ctx, leavingLimit)
		defer cancel()
		there, err := s.provider.List(ctx, s.Name, "")
		if err != nil {
			return fmt.Errorf("site %s is not in the file any more, and does not say whether it is empty (a new start of the gate gives it up): %w", s.Name, err)
		}
		if len(there) > 0 {
			return skyport.Errorf(skyport.CodeConflict, "site %s is not in the file any more, but has partitions (%d): it is kept until they are gone",
				s.Name, len(there))
		}
	}
	k.exchange(s, nil)
	k.log.Info("site is given up", "kind", k.name, "site", s.Name)
	return s.close()
}

// close ends a site that nobody finds any more, after the calls under way.
func (s *site) close() error {
	s.calls.Wait()
	close(s.stop)
	s.watcher.Wait()
	if s.provider == nil {
		return nil
	}
	if err := s.provider.Close(); err != nil {
		return fmt.Errorf("close site %s: %w", s.Name, err)
	}
	return nil
}

// watch passes on that something of a site has changed.
func (k *kind) watch(s *site, p Provider, next <-chan struct{}) {
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

func (k *kind) notify() {
	k.mu.Lock()
	defer k.mu.Unlock()
	close(k.changed)
	k.changed = make(chan struct{})
}

func (k *kind) setTrouble(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.trouble = err
}

// Troubles are what keeps the sites from being as wanted.
func (k *kind) Troubles() []error {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if len(k.sites) == 0 || k.trouble == nil {
		return nil
	}
	return []error{k.trouble}
}

func (k *kind) close() error {
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
func (k *kind) Kind() string { return k.name }

// Changed is closed at the next change at any site.
func (k *kind) Changed() <-chan struct{} {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.changed
}

// Sites describes the sites, from memory.
func (k *kind) Sites(ctx context.Context) ([]skyport.Site, error) {
	sites := []skyport.Site{}
	for _, s := range k.snapshot() {
		described, err := onSite(k, s.Name, func(s *site) ([]skyport.Site, error) { return s.provider.Sites(ctx) })
		if err != nil || len(described) != 1 {
			k.mu.RLock()
			described = []skyport.Site{s.described} // it is being exchanged
			k.mu.RUnlock()
		}
		sites = append(sites, described[0])
	}
	return sites, nil
}

// onSite makes a call of a site's provider, which is not closed meanwhile.
func onSite[T any](k *kind, name string, call func(*site) (T, error)) (T, error) {
	var none T
	k.mu.RLock()
	s := k.find(name)
	if s == nil {
		k.mu.RUnlock()
		unknown := skyport.Errorf(skyport.CodeUnknownSite, "there is no site %q", skyport.Abbreviate(name, 60))
		unknown.Cause = gate.ErrPermanent
		return none, unknown
	}
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
func (k *kind) Flavors(ctx context.Context, name string) ([]skyport.Flavor, error) {
	return onSite(k, name, func(s *site) ([]skyport.Flavor, error) {
		if k.isLeaving(s) {
			return nil, nil
		}
		return s.provider.Flavors(ctx, name)
	})
}

func (k *kind) isLeaving(s *site) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return s.leaving
}

// Images are those of the site.
func (k *kind) Images(ctx context.Context, name string) ([]skyport.Image, error) {
	return onSite(k, name, func(s *site) ([]skyport.Image, error) { return s.provider.Images(ctx, name) })
}

// Create starts a partition, but no new one at a site that is leaving.
func (k *kind) Create(ctx context.Context, spec gate.PartitionSpec) error {
	return doOnSite(k, spec.Site, func(s *site) error {
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
func (k *kind) Status(ctx context.Context, name string, id skyport.PartitionID) (gate.PartitionStatus, error) {
	return onSite(k, name, func(s *site) (gate.PartitionStatus, error) { return s.provider.Status(ctx, name, id) })
}

// List is that of the site's provider.
func (k *kind) List(ctx context.Context, name, owner string) ([]gate.PartitionStatus, error) {
	return onSite(k, name, func(s *site) ([]gate.PartitionStatus, error) { return s.provider.List(ctx, name, owner) })
}

// Extend is that of the site's provider.
func (k *kind) Extend(ctx context.Context, name string, id skyport.PartitionID, until time.Time) error {
	return doOnSite(k, name, func(s *site) error { return s.provider.Extend(ctx, name, id, until) })
}

// Delete is that of the site's provider.
func (k *kind) Delete(ctx context.Context, name string, id skyport.PartitionID) error {
	return doOnSite(k, name, func(s *site) error { return s.provider.Delete(ctx, name, id) })
}

// Registry asks the site's provider, where it is a lender.
func (k *kind) Registry(ctx context.Context, site, host string) (gate.Login, error) {
	return borrow(k, site, func(l gate.Lender) (gate.Login, error) { return l.Registry(ctx, site, host) })
}

// Storage asks the site's provider, where it is a lender.
func (k *kind) Storage(ctx context.Context, site, name string, life time.Duration) (gate.Mount, error) {
	return borrow(k, site, func(l gate.Lender) (gate.Mount, error) { return l.Storage(ctx, site, name, life) })
}

func borrow[T any](k *kind, name string, call func(gate.Lender) (T, error)) (T, error) {
	return onSite(k, name, func(s *site) (T, error) {
		if l, ok := s.provider.(gate.Lender); ok {
			return call(l)
		}
		var none T
		return none, fmt.Errorf("site %s lends nothing: %w", name, gate.ErrNotFound)
	})
}

func doOnSite(k *kind, name string, call func(*site) error) error {
	_, err := onSite(k, name, func(s *site) (struct{}, error) { return struct{}{}, call(s) })
	return err
}

package cloud

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// site is one Cloud with what the provider knows of it.
type site struct {
	p     *Provider
	cloud Cloud
	name  string
	o     Options
	log   *slog.Logger
	ctx   context.Context //nolint:containedctx // ends with Close; all work lives in it
	lag   time.Duration   // how long the cloud's lists may be behind

	flavors *shelf[skyport.Flavor]
	images  *shelf[skyport.Image]
	sources *address
	kicked  chan struct{} // wakes the poller
	moved   chan struct{} // wakes who watches the sources

	mu      sync.Mutex
	clock   uint64 // counts listings begun and changes made
	records map[skyport.PartitionID]*record
	flight  *flight
	listed  listing
	hushed  hush
}

// hush is how long a cloud wants to be left alone.
type hush struct {
	until time.Time
	err   error
	times int // in a row
}

func newSite(ctx context.Context, p *Provider, c Cloud, o Options) *site {
	name := c.Site().Name
	s := &site{
		p: p, cloud: c, name: name, o: o, ctx: ctx, log: o.Logger.With("kind", o.Kind, "site", name),
		lag: lagTimes * o.Retry, kicked: make(chan struct{}, 1), moved: make(chan struct{}, 1),
		records: map[skyport.PartitionID]*record{},
	}
	file := func(what string) string {
		if o.Dir == "" {
			return ""
		}
		return filepath.Join(o.Dir, url.PathEscape(o.Kind+"-"+name)+"."+what+".json")
	}
	s.sources = newAddress(sourcesOf(c, o.Sources))
	s.flavors = newShelf(s, "flavors", file("flavors"), c.Flavors, func(f *skyport.Flavor) string {
		f.Site = name
		if f.ID == "" {
			f.ID = gate.StableID(o.Kind, name, "flavor", f.Name)
		}
		return f.Name
	})
	s.images = newShelf(s, "images", file("images"), c.Images, func(i *skyport.Image) string {
		i.Site = name
		if i.Kind == "" {
			i.Kind = skyport.ImageCloud
		}
		if i.ID == "" {
			i.ID = gate.StableID(o.Kind, name, "image", i.Name)
		}
		return i.Name
	})
	return s
}

// ask makes one call of the cloud. It notes when the cloud wants no more of
// them, and makes an error of a panic.
func (s *site) ask(ctx context.Context, f func(context.Context) error) (err error) {
	defer func() {
		if trouble := recover(); trouble != nil {
			s.log.ErrorContext(ctx, "cloud panicked", "panic", trouble, "stack", string(debug.Stack()))
			err = skyport.Errorf(skyport.CodeInternal, "the provider of site %s panicked", s.name)
		}
		s.heed(err)
	}()
	return f(ctx)
}

// heed takes in whether a call was one too many.
func (s *site) heed(err error) {
	var throttled *Throttled
	is := errors.As(err, &throttled)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !is {
		if err == nil {
			s.hushed.times = 0
		}
		return
	}
	after := throttled.After
	if after <= 0 {
		after = grown(s.o.Retry, s.hushed.times)
	}
	s.hushed.times++
	s.hushed.err = err
	if until := time.Now().Add(after); until.After(s.hushed.until) {
		s.hushed.until = until
	}
}

// quiet says how long the cloud is to be left alone yet, and what it said.
func (s *site) quiet() (time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := time.Until(s.hushed.until)
	if left <= 0 {
		return 0, nil
	}
	return left, fmt.Errorf("site %s: %w", s.name, s.hushed.err)
}

// hold waits until the cloud may be asked, and a little longer, that not all who
// waited ask at the same moment. It tells what it waits for.
func (s *site) hold(ctx context.Context, tell func(string)) bool {
	for {
		left, err := s.quiet()
		if left == 0 {
			return ctx.Err() == nil
		}
		tell("Waiting: " + err.Error())
		if !rest(ctx, left+rand.N(left/8+time.Millisecond)) { //nolint:gosec // spreads load, keeps no secret
			return false
		}
	}
}

// rest waits; it is false when the context ended first.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// grown is the pause after so many failures in a row.
func grown(first time.Duration, failures int) time.Duration {
	pause := first
	for range failures {
		if pause = 2 * pause; pause >= calmPause {
			return calmPause
		}
	}
	return pause
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// check asks the cloud, and adds what the kit itself needs.
func (s *site) check(ctx context.Context) ([]gate.Finding, error) {
	var found []gate.Finding
	err := s.ask(ctx, func(ctx context.Context) (err error) { found, err = s.cloud.Check(ctx); return err })
	if err != nil {
		return nil, fmt.Errorf("site %s: %w", s.name, err)
	}
	from := gate.Finding{Subject: "sources", Level: gate.LevelOK}
	if prefixes, err := s.sources.find(ctx, 0); err != nil {
		from.Level, from.Text, from.Fix = gate.LevelFailure, err.Error(), skyport.HintOf(err)
	} else {
		from.Text = fmt.Sprintf("port 22 of nodes opens to %s", spell(prefixes))
		for _, prefix := range prefixes {
			if prefix.Bits() == 0 {
				from.Level, from.Text = gate.LevelWarning, "port 22 of nodes opens to the whole world, as configured"
				from.Fix = "set ssh_from to the networks that core comes from"
			}
		}
	}
	found = append(found, from)
	for i := range found {
		if found[i].Site == "" {
			found[i].Site = s.name
		}
	}
	return found, nil
}

package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/store"
)

// Gate is what the catalogue asks of the gate; gate.Client has it.
type Gate interface {
	Sites(ctx context.Context) ([]skyport.Site, error)
	Flavors(ctx context.Context, site string) ([]skyport.Flavor, error)
	Images(ctx context.Context, site string) ([]skyport.Image, error)
}

// Options of a catalogue; Store and Gate are needed.
type Options struct {
	Store    *store.Store
	Gate     Gate
	Accounts []skyport.Account
	// Every is the time between two looks at the gate; default 5 min.
	Every time.Duration
	// Changed is called when something is different from before.
	Changed func()
	Logger  *slog.Logger
}

// Catalog is what there is. Its methods may be called from many goroutines; the
// slices that they return must not be changed.
type Catalog struct {
	opts Options

	mu       sync.RWMutex
	known    listing
	accounts []skyport.Account
	blind    string // why the gate does not answer
	loaded   chan struct{}
	once     sync.Once
}

// listing is what the gate tells, and what is remembered of it.
type listing struct {
	Sites   []skyport.Site   `json:"sites"`
	Flavors []skyport.Flavor `json:"flavors"`
	Images  []skyport.Image  `json:"images"`
}

// factName is where the store remembers the listing.
const factName = "catalog"

// New makes a catalogue of what the store remembers.
func New(ctx context.Context, opts Options) (*Catalog, error) {
	if opts.Every == 0 {
		opts.Every = 5 * time.Minute
	}
	if opts.Changed == nil {
		opts.Changed = func() {}
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	c := &Catalog{opts: opts, blind: "the gate has not been reached yet", loaded: make(chan struct{})}
	for _, a := range opts.Accounts {
		if a.ID == "" {
			a.ID = uuid.NewSHA1(uuid.NameSpaceURL, []byte("skyport:account/"+a.Name)).String()
		}
		c.accounts = append(c.accounts, a)
	}
	fact, err := opts.Store.Fact(ctx, factName)
	if err != nil {
		return nil, err
	}
	if fact != "" {
		if err := json.Unmarshal([]byte(fact), &c.known); err != nil {
			return nil, fmt.Errorf("catalogue in the store: %w", err)
		}
	}
	return c, nil
}

// Run looks at the gate again and again until ctx ends: often while it does
// not answer, seldom when it does.
func (c *Catalog) Run(ctx context.Context) {
	const soonest, latest = 20 * time.Millisecond, 15 * time.Second
	wait := soonest
	for {
		next := c.opts.Every
		if err := c.refresh(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			next = wait
			wait = min(2*wait, latest)
			c.opts.Logger.Debug("the gate does not tell all that there is", "error", err)
		} else {
			wait = soonest
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(next):
		}
	}
}

// Loaded is closed when the gate has answered for the first time.
func (c *Catalog) Loaded() <-chan struct{} { return c.loaded }

// refresh asks the gate for everything. A site that does not tell keeps what
// was known of it, and is an error: it is asked again soon.
func (c *Catalog) refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var fresh listing
	sites, err := c.opts.Gate.Sites(ctx)
	if err != nil {
		c.fail(err)
		return fmt.Errorf("list the sites: %w", err)
	}
	fresh.Sites = sites
	old := c.listing()
	var silent []error
	for _, site := range sites {
		flavors, err := c.opts.Gate.Flavors(ctx, site.Name)
		images, imagesErr := c.opts.Gate.Images(ctx, site.Name)
		if err := errors.Join(err, imagesErr); err != nil {
			silent = append(silent, fmt.Errorf("list what site %s has: %w", site.Name, err))
			flavors, images = old.of(site.Name)
		}
		fresh.Flavors, fresh.Images = append(fresh.Flavors, flavors...), append(fresh.Images, images...)
	}
	return errors.Join(c.take(ctx, fresh), errors.Join(silent...))
}

// take makes a listing the known one, and remembers it.
func (c *Catalog) take(ctx context.Context, fresh listing) error {
	fact, err := json.Marshal(fresh)
	if err != nil {
		return fmt.Errorf("remember the catalogue: %w", err)
	}
	before, err := json.Marshal(c.listing())
	if err != nil {
		return fmt.Errorf("remember the catalogue: %w", err)
	}
	c.mu.Lock()
	wasBlind := c.blind != ""
	c.known, c.blind = fresh, ""
	c.mu.Unlock()
	c.once.Do(func() { close(c.loaded) })
	if string(fact) == string(before) && !wasBlind {
		return nil
	}
	c.opts.Changed()
	return c.opts.Store.Update(ctx, func(tx *store.Tx) error { return tx.SetFact(factName, string(fact)) })
}

func (c *Catalog) fail(err error) {
	c.mu.Lock()
	was := c.blind
	c.blind = "the gate cannot be reached: " + err.Error()
	c.mu.Unlock()
	if was == "" {
		c.opts.Changed()
	}
}

func (c *Catalog) listing() listing {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.known
}

func (l *listing) of(site string) (flavors []skyport.Flavor, images []skyport.Image) {
	for _, f := range l.Flavors {
		if f.Site == site {
			flavors = append(flavors, f)
		}
	}
	for _, i := range l.Images {
		if i.Site == site {
			images = append(images, i)
		}
	}
	return flavors, images
}

// Sites lists the sites.
func (c *Catalog) Sites() []skyport.Site { return c.listing().Sites }

// Flavors lists the flavors of all sites.
func (c *Catalog) Flavors() []skyport.Flavor { return c.listing().Flavors }

// Images lists the images of all sites.
func (c *Catalog) Images() []skyport.Image { return c.listing().Images }

// Accounts lists the accounts.
func (c *Catalog) Accounts() []skyport.Account { return c.accounts }

// Blind says why the gate does not answer now, "" when it does.
func (c *Catalog) Blind() string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.blind
}

package gate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openworkload/skyport"
)

// Options say what a server offers and to whom. Only Providers is needed.
type Options struct {
	Providers []Provider

	// Authorize admits a request or says why not. Only core may come in:
	//
	//	func(r *http.Request) error { _, err := reloader.Verify(*r.TLS, pki.RoleCore); return err }
	//
	// Nil admits peers whose certificate crypto/tls itself has verified
	// (tls.RequireAndVerifyClientCert), and nobody else. /healthz and
	// /readyz, which tell nothing, are open.
	Authorize func(*http.Request) error

	// CallTimeout bounds one call of a provider; 0: 30 seconds. An answer that
	// is not there by then is CodeUnavailable, and the work may have been done.
	CallTimeout time.Duration
	// Grace is how long core may renew leases that passed while the gate was
	// away (not running, or the machine asleep); 0: 2 minutes, negative: none.
	Grace time.Duration
	// Resync is the longest that the sweeper goes without asking the sites,
	// whatever it thinks to know; 0: 5 minutes.
	Resync time.Duration

	// Registry takes the metrics and is served under /metrics; nil: a new one.
	Registry *prometheus.Registry
	Logger   *slog.Logger // nil: slog.Default()
	Version  string       // build version, for the API description
}

const (
	// sitesTimeout bounds asking for sites, which may be told from memory.
	sitesTimeout = 5 * time.Second
	// hangTime is what a provider gets to notice that its context ended.
	hangTime = 100 * time.Millisecond
)

// Server offers providers over HTTP. Make it with [NewServer], serve Handler,
// and run Run beside it. All methods may be called from many goroutines.
type Server struct {
	options  Options
	log      *slog.Logger
	metrics  *metrics
	houses   []*house
	handler  http.Handler
	stopping chan struct{} // closed when Run ends: long polls answer at once
	stopOnce sync.Once
}

// house is one provider with what the server remembers of it.
type house struct {
	provider Provider
	leases   *leases

	mu    sync.Mutex
	asked bool           // Sites has answered at least once
	sites []skyport.Site // its last answer
}

// NewServer prepares a server; it starts nothing.
func NewServer(o Options) *Server {
	if o.CallTimeout == 0 {
		o.CallTimeout = 30 * time.Second
	}
	if o.Grace == 0 {
		o.Grace = 2 * time.Minute
	}
	if o.Resync == 0 {
		o.Resync = 5 * time.Minute
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Authorize == nil {
		o.Authorize = verifiedPeer
	}
	s := &Server{
		options:  o,
		log:      o.Logger,
		metrics:  newMetrics(o.Registry),
		stopping: make(chan struct{}),
	}
	for _, p := range o.Providers {
		s.houses = append(s.houses, &house{provider: p, leases: newLeases()})
	}
	s.handler = s.routes()
	return s
}

// Handler serves the API, the health checks and the metrics.
func (s *Server) Handler() http.Handler { return s.handler }

// Run removes what is past its lease until ctx ends. Then it tells waiting
// long polls to answer, and returns nil when its own goroutines have ended.
// It is called once.
func (s *Server) Run(ctx context.Context) error {
	defer s.stopOnce.Do(func() { close(s.stopping) })
	var sweepers sync.WaitGroup
	for _, h := range s.houses {
		sweepers.Go(func() { s.sweep(ctx, h) })
	}
	<-ctx.Done()
	s.stopOnce.Do(func() { close(s.stopping) })
	sweepers.Wait()
	return nil
}

// allSites lists the sites of all providers. A provider that does not answer is
// represented by its last answer; problems tells of it.
func (s *Server) allSites(ctx context.Context) (sites []skyport.Site, problems []SiteProblem) {
	errs := make([]error, len(s.houses))
	var asking sync.WaitGroup
	for i, h := range s.houses {
		asking.Go(func() { errs[i] = s.refresh(ctx, h) })
	}
	asking.Wait()

	seen := map[string]bool{}
	for i, h := range s.houses {
		kind := h.provider.Kind()
		if errs[i] != nil {
			problems = append(problems, SiteProblem{Kind: kind, Details: errs[i].Error()})
		}
		for _, site := range h.known() {
			if seen[site.Name] {
				problems = append(problems, SiteProblem{Kind: kind, Details: "a second site named " + site.Name + " is ignored"})
				continue
			}
			seen[site.Name] = true
			sites = append(sites, site)
		}
	}
	return sites, problems
}

// houseOf finds the provider of a site. Sites that are not known yet are asked
// for; one that is still unknown then is the caller's mistake only when every
// provider has told its sites.
func (s *Server) houseOf(ctx context.Context, site string) (*house, error) {
	for _, h := range s.houses {
		if h.has(site) {
			return h, nil
		}
	}
	_, problems := s.allSites(ctx)
	silent := false
	for _, h := range s.houses {
		if h.has(site) {
			return h, nil
		}
		h.mu.Lock()
		silent = silent || !h.asked
		h.mu.Unlock()
	}
	if silent {
		return nil, skyport.Errorf(skyport.CodeUnavailable, "the gate does not know yet whether there is a site %q: %v",
			skyport.Abbreviate(site, 60), problems)
	}
	unknown := skyport.Errorf(skyport.CodeUnknownSite, "no site %q at this gate", skyport.Abbreviate(site, 60))
	unknown.Cause = ErrPermanent
	return nil, unknown
}

// refresh asks a provider for its sites and remembers the answer.
func (s *Server) refresh(ctx context.Context, h *house) error {
	sites, err := call(ctx, s, h, "sites", h.provider.Sites)
	if err != nil {
		s.log.WarnContext(ctx, "provider does not tell its sites", "kind", h.provider.Kind(), "error", err)
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sites, h.asked = slices.Clone(sites), true
	return nil
}

func (h *house) known() []skyport.Site {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.sites)
}

func (h *house) has(site string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(h.sites, func(s skyport.Site) bool { return s.Name == site })
}

// call makes one call of a provider with a deadline and measures it. A provider
// that ignores the deadline is left behind: the answer is an error then, and
// nobody waits. A panic of the provider is an error too.
func call[T any](ctx context.Context, s *Server, h *house, method string, f func(context.Context) (T, error)) (T, error) {
	kind, timeout := h.provider.Kind(), s.options.CallTimeout
	if method == "sites" {
		timeout = min(timeout, sitesTimeout)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	type result struct {
		answer T
		err    error
	}
	results := make(chan result, 1)
	start := time.Now()
	go func() {
		var r result
		defer func() {
			if p := recover(); p != nil {
				s.log.Error("provider panicked", "kind", kind, "method", method, "panic", p, "stack", string(debug.Stack()))
				r.err = skyport.Errorf(skyport.CodeInternal, "provider %s panicked in %s", kind, method)
			}
			results <- r
		}()
		r.answer, r.err = f(ctx)
	}()

	var r result
	select {
	case r = <-results:
	case <-ctx.Done():
		select {
		case r = <-results: // it did notice
		case <-time.After(hangTime):
			r.err = ctx.Err()
		}
	}
	s.metrics.called(kind, method, time.Since(start), r.err)
	switch {
	case r.err == nil:
		return r.answer, nil
	case errors.Is(r.err, context.DeadlineExceeded):
		return r.answer, skyport.Errorf(skyport.CodeUnavailable, "%s: no answer to %s within %s: %w", kind, method, timeout, r.err)
	}
	return r.answer, fmt.Errorf("%s: %w", kind, r.err)
}

// done adapts a provider's method without an answer to call.
func done(f func(context.Context) error) func(context.Context) (struct{}, error) {
	return func(ctx context.Context) (struct{}, error) { return struct{}{}, f(ctx) }
}

// verifiedPeer is the default of Options.Authorize.
func verifiedPeer(r *http.Request) error {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return skyport.Errorf(skyport.CodeUnauthorized, "the gate admits nobody without a certificate of this grid")
	}
	return nil
}

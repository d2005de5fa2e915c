package cloud

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openworkload/skyport"
)

// Sources tell from where core comes to the nodes: port 22 opens to that alone.
type Sources struct {
	// Fixed are known networks; nothing is asked then. The whole world is open
	// only when it stands here.
	Fixed []netip.Prefix
	// Service is a URL that answers with the caller's address as text, HTTPS
	// unless it is on this machine; empty: none.
	Service string
	// Route is a host:port whose route tells the outgoing address; used when
	// there is no Service. No packet is sent.
	Route string
	// Client asks the Service; nil: an own one, which prefers IPv4.
	Client *http.Client
}

// Sited is implemented by a Cloud that has Sources of its own. Empty ones stand
// for those of [Options].
type Sited interface{ Sources() Sources }

const (
	sourcesLife  = time.Minute      // for how long an own address is believed
	sourcesStale = 10 * time.Minute // and served while it is looked up again
	sourcesWait  = 15 * time.Second // for the service
)

func (s Sources) empty() bool { return len(s.Fixed) == 0 && s.Service == "" && s.Route == "" }

func sourcesOf(c Cloud, otherwise Sources) Sources {
	if sited, ok := c.(Sited); ok {
		if own := sited.Sources(); !own.empty() {
			if own.Client == nil {
				own.Client = otherwise.Client
			}
			return own
		}
	}
	return otherwise
}

// valid says what is wrong with the configuration.
func (s Sources) valid() error {
	for _, prefix := range s.Fixed {
		if !prefix.IsValid() {
			return skyport.Errorf(skyport.CodeInvalid, "ssh_from holds what is no network")
		}
	}
	if s.Service == "" {
		return nil
	}
	u, err := url.Parse(s.Service)
	if err != nil || u.Host == "" {
		return skyport.Errorf(skyport.CodeInvalid, "the service that tells the own address is no URL: %q", skyport.Abbreviate(s.Service, 100))
	}
	if local := net.ParseIP(u.Hostname()); u.Scheme != "https" && (u.Scheme != "http" || local == nil || !local.IsLoopback()) {
		return skyport.Errorf(skyport.CodeInvalid, "the service that tells the own address must be asked over https: %q", skyport.Abbreviate(s.Service, 100))
	}
	return nil
}

// address finds out and remembers where core comes from.
type address struct {
	sources Sources
	client  *http.Client

	asking sync.Mutex // one at a time asks
	mu     sync.Mutex
	known  []netip.Prefix
	at     time.Time
}

func newAddress(s Sources) *address {
	a := &address{sources: s, client: s.Client}
	if a.client == nil && s.Service != "" {
		dialer := &net.Dialer{Timeout: 5 * time.Second}
		a.client = &http.Client{
			Timeout: sourcesWait,
			Transport: &http.Transport{
				Proxy: http.ProxyFromEnvironment,
				DialContext: func(ctx context.Context, _, to string) (net.Conn, error) {
					conn, err := dialer.DialContext(ctx, "tcp4", to) // nodes have public IPv4 addresses
					if err != nil {
						conn, err = dialer.DialContext(ctx, "tcp", to)
					}
					return conn, err //nolint:wrapcheck // net says what failed, and on what
				},
				TLSHandshakeTimeout: 5 * time.Second, DisableKeepAlives: true,
			},
		}
	}
	if a.client != nil {
		strict := *a.client
		strict.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		a.client = &strict
	}
	return a
}

// find tells the sources, not older than age if there is any other way; an
// address that was right some minutes ago is better than none.
func (a *address) find(ctx context.Context, age time.Duration) ([]netip.Prefix, error) {
	if len(a.sources.Fixed) > 0 {
		return masked(a.sources.Fixed), nil
	}
	if a.sources.Service == "" && a.sources.Route == "" {
		return nil, skyport.Errorf(skyport.CodeUnavailable, "it is not known from which address core comes, to open port 22 to it").
			WithHint("set ssh_from in gate.yaml to the address or network that core comes from")
	}
	if known := a.cached(age); known != nil {
		return known, nil
	}
	a.asking.Lock()
	defer a.asking.Unlock()
	if known := a.cached(age); known != nil { // the one before has asked
		return known, nil
	}
	addr, err := a.ask(ctx)
	if err != nil {
		if known := a.cached(sourcesStale); known != nil && age > 0 {
			return known, nil
		}
		return nil, skyport.Errorf(skyport.CodeUnavailable, "it cannot be found out from which address core comes, to open port 22 to it: %w", err).
			WithHint("set ssh_from in gate.yaml to the address or network that core comes from")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known, a.at = []netip.Prefix{netip.PrefixFrom(addr, addr.BitLen())}, time.Now()
	return slices.Clone(a.known), nil
}

func (a *address) cached(age time.Duration) []netip.Prefix {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known == nil || time.Since(a.at) > age {
		return nil
	}
	return slices.Clone(a.known)
}

func (a *address) ask(ctx context.Context) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, sourcesWait)
	defer cancel()
	if a.sources.Service != "" {
		return a.byService(ctx)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", a.sources.Route)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("no route to %s: %w", a.sources.Route, err)
	}
	defer conn.Close() //nolint:errcheck // nothing was sent
	local, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok {
		return netip.Addr{}, errors.New("the route has no address")
	}
	return usable(local.AddrPort().Addr())
}

func (a *address) byService(ctx context.Context) (netip.Addr, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.sources.Service, nil)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("ask %s: %w", a.sources.Service, err)
	}
	request.Header.Set("Accept", "text/plain")
	answer, err := a.client.Do(request)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("ask %s: %w", a.sources.Service, err)
	}
	defer answer.Body.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(io.LimitReader(answer.Body, 64))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("ask %s: %w", a.sources.Service, err)
	}
	if answer.StatusCode != http.StatusOK {
		return netip.Addr{}, fmt.Errorf("%s answered %s", a.sources.Service, answer.Status)
	}
	addr, err := netip.ParseAddr(strings.TrimSpace(string(text)))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%s did not answer with an address", a.sources.Service)
	}
	return usable(addr)
}

// usable refuses what is no address of a machine.
func usable(addr netip.Addr) (netip.Addr, error) {
	addr = addr.Unmap().WithZone("")
	if !addr.IsValid() || addr.IsUnspecified() || addr.IsMulticast() || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return netip.Addr{}, fmt.Errorf("%s is no address of a machine", addr)
	}
	return addr, nil
}

func masked(all []netip.Prefix) []netip.Prefix {
	clean := make([]netip.Prefix, 0, len(all))
	for _, prefix := range all {
		clean = append(clean, prefix.Masked())
	}
	return clean
}

func spell(prefixes []netip.Prefix) string {
	all := make([]string, 0, len(prefixes))
	for _, prefix := range prefixes {
		all = append(all, prefix.String())
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// watchSources opens live partitions to where core comes from now.
func (s *site) watchSources() {
	timer := time.NewTimer(sourcesLife)
	defer timer.Stop()
	warned := false
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.moved:
		case <-timer.C:
		}
		err := s.admit(s.ctx)
		if err != nil && !warned && s.ctx.Err() == nil {
			s.log.Warn("partitions may be closed to core's address, will be tried again", "error", err)
		}
		warned = err != nil
		timer.Reset(sourcesLife)
	}
}

// admit opens those live partitions that are open to other sources.
func (s *site) admit(ctx context.Context) error {
	if len(s.live(func(*record) bool { return true })) == 0 {
		return nil
	}
	prefixes, err := s.sources.find(ctx, sourcesLife/2)
	if err != nil {
		return err
	}
	now := spell(prefixes)
	var failed error
	for _, r := range s.live(func(r *record) bool { return r.sources != now }) {
		if left, err := s.quiet(); left > 0 {
			return errors.Join(failed, err)
		}
		bounded, cancel := context.WithTimeout(ctx, callLimit)
		err := s.change(bounded, r, func(ctx context.Context) error { return s.cloud.Admit(ctx, r.id, prefixes) })
		cancel()
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("open partition %s: %w", r.id, err))
			continue
		}
		s.log.Info("partition is open to core", "partition", r.id, "sources", now)
		s.mu.Lock()
		r.sources = now
		s.mu.Unlock()
	}
	return failed
}

// live are those of the partitions that are there for which want is true.
func (s *site) live(want func(*record) bool) []*record {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*record
	for _, r := range s.records {
		if r.work == nil && r.failure == nil && !r.removed && r.made && want(r) {
			all = append(all, r)
		}
	}
	return all
}

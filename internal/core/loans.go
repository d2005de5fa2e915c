package core

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// loans are what sites open for the jobs that run there, with credentials of
// their own. It is asked for when a run is prepared, and kept nowhere.
type loans struct {
	secrets *secrets
	gate    gate.Lender
	sites   func() []skyport.Site
}

// registriesFor returns the login for the registry of a container image: the
// user's own, else the one that the job's site lends, else none.
func (l *loans) registriesFor(ctx context.Context, owner skyport.UserID, site, image string) ([]protocol.Registry, error) {
	own, err := l.secrets.registriesFor(ctx, owner, image)
	if err != nil || len(own) > 0 {
		return own, err
	}
	host, err := registryOf(image)
	if err != nil {
		return nil, err
	}
	// Most registries are nobody's: the gate is asked for those that the site tells.
	opens := func(s skyport.Site) bool {
		return s.Name == site && slices.ContainsFunc(s.Registries, func(r string) bool { return strings.EqualFold(r, host) })
	}
	if !slices.ContainsFunc(l.sites(), opens) {
		return nil, nil
	}
	login, err := l.gate.Registry(ctx, site, host)
	switch {
	case errors.Is(err, gate.ErrNotFound):
		return nil, nil // the site has just been told to open it no more
	case err != nil:
		return nil, err
	}
	return []protocol.Registry{{Host: host, Username: login.Username, Password: login.Password}}, nil
}

// storage returns what opens a storage of the job's site.
func (l *loans) storage(ctx context.Context, site, name string, life time.Duration) (protocol.Storage, error) {
	m, err := l.gate.Storage(ctx, site, name, life)
	switch {
	case errors.Is(err, gate.ErrNotFound):
		return protocol.Storage{}, skyport.Errorf(skyport.CodeUnsupported, "site %s has no storage %s any more", site, name).
			WithHint("skyport sites --json tells the storages of sites")
	case err != nil:
		return protocol.Storage{}, err
	}
	return protocol.Storage{Name: name, Account: m.Account, Container: m.Container, Endpoint: m.Endpoint, SAS: m.SAS, Expires: m.Expires}, nil
}

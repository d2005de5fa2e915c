package cloud

import (
	"context"
	"fmt"
	"time"

	"github.com/openworkload/skyport/gate"
)

// Lender is implemented by clouds whose credentials open container registries
// and storages for jobs: see [gate.Lender].
type Lender interface {
	Registry(ctx context.Context, host string) (gate.Login, error)
	Storage(ctx context.Context, name string, life time.Duration) (gate.Mount, error)
}

// Registry asks the cloud of a site for a login of a registry.
func (p *Provider) Registry(ctx context.Context, site, host string) (gate.Login, error) {
	l, err := p.lender(site)
	if err != nil {
		return gate.Login{}, err
	}
	return l.Registry(ctx, host)
}

// Storage asks the cloud of a site for what opens a storage.
func (p *Provider) Storage(ctx context.Context, site, name string, life time.Duration) (gate.Mount, error) {
	l, err := p.lender(site)
	if err != nil {
		return gate.Mount{}, err
	}
	return l.Storage(ctx, name, life)
}

func (p *Provider) lender(name string) (Lender, error) {
	s, err := p.site(name)
	if err != nil {
		return nil, err
	}
	if l, ok := s.cloud.(Lender); ok {
		return l, nil
	}
	return nil, fmt.Errorf("site %s lends nothing: %w", s.name, gate.ErrNotFound)
}

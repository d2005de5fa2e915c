package gate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/openworkload/skyport"
)

// Lender is implemented by providers whose sites' own credentials open container
// registries and storages for the jobs that run there. What it gives ends by
// itself, opens no more than is asked for, and is for the nodes of one job: a
// caller neither stores nor logs it.
type Lender interface {
	// Registry returns a login of a container registry, for pulling. ErrNotFound
	// means that the site has no such registry.
	Registry(ctx context.Context, site, host string) (Login, error)
	// Storage returns what opens a storage of the site, for reading, for a life at
	// most. ErrNotFound means that the site has no storage of that name.
	Storage(ctx context.Context, site, name string, life time.Duration) (Mount, error)
}

// Login opens a container registry for some hours.
type Login struct {
	Username string `json:"username"`
	Password string `json:"password" doc:"A token, most of the time; never logged"`
}

// String says who, and not by what.
func (l Login) String() string { return l.Username + " (password hidden)" }

// GoString is String.
func (l Login) GoString() string { return l.String() }

// Mount is what a node needs to mount a storage read-only.
type Mount struct {
	Account   string    `json:"account" doc:"Storage account"`
	Container string    `json:"container" doc:"Container of blobs in it"`
	Endpoint  string    `json:"endpoint" doc:"URL of the account's blob service"`
	SAS       string    `json:"sas" doc:"Shared access signature that may read and list the container; never logged"`
	Expires   time.Time `json:"expires" doc:"When the signature ends"`
}

// String says what, and not how it is opened.
func (m Mount) String() string {
	return fmt.Sprintf("%s/%s until %s", m.Endpoint, m.Container, m.Expires.UTC().Format(time.RFC3339))
}

// GoString is String.
func (m Mount) GoString() string { return m.String() }

type (
	registryInput struct {
		Site string `path:"site" doc:"Name of the site"`
		Host string `path:"host" maxLength:"255" doc:"Host of the registry, as it stands before the first slash of an image"`
	}
	loginAnswer struct {
		CacheControl string `header:"Cache-Control"`
		Body         Login
	}
	storageInput struct {
		Site string `path:"site" doc:"Name of the site"`
		Name string `path:"name" maxLength:"63" doc:"Name of the storage"`
		Body storageBody
	}
	storageBody struct {
		Life skyport.Seconds `json:"life" minimum:"1" doc:"How long it is needed, in seconds"`
	}
	mountAnswer struct {
		CacheControl string `header:"Cache-Control"`
		Body         Mount
	}
)

// noStore keeps answers that open something out of caches.
const noStore = "no-store"

func (s *Server) registry(ctx context.Context, in *registryInput) (*loginAnswer, error) {
	login, err := lent(ctx, s, in.Site, "registry", func(ctx context.Context, l Lender) (Login, error) {
		return l.Registry(ctx, in.Site, in.Host)
	})
	if err != nil {
		return nil, err
	}
	s.log.InfoContext(ctx, "login of a registry lent", "site", in.Site, "registry", skyport.Abbreviate(in.Host, 100))
	return &loginAnswer{CacheControl: noStore, Body: login}, nil
}

func (s *Server) storage(ctx context.Context, in *storageInput) (*mountAnswer, error) {
	life := time.Duration(in.Body.Life) * time.Second
	mount, err := lent(ctx, s, in.Site, "storage", func(ctx context.Context, l Lender) (Mount, error) {
		return l.Storage(ctx, in.Site, in.Name, life)
	})
	if err != nil {
		return nil, err
	}
	s.log.InfoContext(ctx, "storage opened", "site", in.Site, "storage", skyport.Abbreviate(in.Name, 100), "until", mount.Expires)
	return &mountAnswer{CacheControl: noStore, Body: mount}, nil
}

// lent asks a provider that may be a lender.
func lent[T any](ctx context.Context, s *Server, site, method string, f func(context.Context, Lender) (T, error)) (T, error) {
	return atSite(ctx, s, site, method, func(ctx context.Context, p Provider) (T, error) {
		if lender, ok := p.(Lender); ok {
			return f(ctx, lender)
		}
		var none T
		return none, errors.Join(skyport.Errorf(skyport.CodeNotFound, "sites of kind %s lend nothing", p.Kind()), ErrNotFound)
	})
}

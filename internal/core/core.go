package core

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/internal/core/api"
	"github.com/openworkload/skyport/internal/core/archive"
	"github.com/openworkload/skyport/internal/core/catalog"
	"github.com/openworkload/skyport/internal/core/lifecycle"
	"github.com/openworkload/skyport/internal/core/store"
	"github.com/openworkload/skyport/internal/forward"
	"github.com/openworkload/skyport/internal/pki"
	"github.com/openworkload/skyport/internal/seal"
	"github.com/openworkload/skyport/internal/serve"
	"github.com/openworkload/skyport/internal/spool"
)

// Options of core.
type Options struct {
	Spool   *spool.Spool
	Version string
	Logger  *slog.Logger
	// Ready is called once core answers, with its URL; nil is fine.
	Ready func(url string)
}

// Run runs core until ctx ends, and returns when all of it has stopped.
// Partitions, nodes and jobs go on without it. Another core on the same spool
// is CodeConflict.
func Run(ctx context.Context, opts Options) (err error) {
	s, log := opts.Spool, opts.Logger
	lock, err := s.Lock("core")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()

	certificates, err := pki.NewReloader(s.CoreFiles(), log)
	if err != nil {
		return fmt.Errorf("certificates of core: %w", err)
	}
	addresses, err := forward.ParseAddresses(s.Config.Forward.Address)
	if err != nil {
		return fmt.Errorf("forward.address in %s: %w", s.ConfigFile(), err)
	}

	// The store tells of commits before there is an engine to hear of them;
	// the engine reads what it missed when it runs.
	h := &hub{}
	var engine *lifecycle.Engine
	db, err := store.Open(ctx, store.Options{Path: s.Database(), Logger: log, OnCommit: func(c store.Commit) {
		if engine != nil {
			engine.Committed(c)
		}
		h.publish(c.Events...)
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()

	toGate := gateHTTP(certificates, s)
	defer toGate.CloseIdleConnections() // a gate that stops waits for them
	speak := gate.NewClient(s.GateURL(), toGate)
	cat, err := catalog.New(ctx, catalog.Options{
		Store: db, Gate: speak, Accounts: accounts(s.Config.Accounts), Logger: log,
		Changed: func() {
			if engine != nil {
				engine.Wake()
			}
		},
	})
	if err != nil {
		return err
	}
	b := &backend{
		store: db, catalog: cat, archive: archive.New(s.Jobs()), hub: h,
		staging: staging{dir: s.Inputs()}, person: person(),
	}
	defer func() { err = errors.Join(err, b.staging.close()) }()
	sealer, err := seal.Open(s.SealingKey())
	if err != nil {
		return err
	}
	b.secrets = &secrets{store: db, sealer: sealer}
	lent := &loans{secrets: b.secrets, gate: speak, sites: cat.Sites}
	engine = lifecycle.New(lifecycle.Options{
		Sealer: sealer, Registries: lent.registriesFor, Storage: lent.storage,
		Store: db, Gate: speak, Catalog: cat, Archive: b.archive, Staging: b.Staging, Owner: s.Owner,
		Addresses: addresses, KeepAlive: s.Config.KeepAlive, Live: func(e skyport.Event) { h.publish(e) },
		Limits: lifecycle.Limits{JobLog: s.Config.Limits.JobLog}, Logger: log,
	})
	b.engine = engine
	if err := engine.Load(ctx); err != nil {
		return err
	}

	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		lifecycle.NewCollector(engine), lifecycle.NewCostCollector(engine),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "skyport_certificate_expiry_seconds", Help: "Seconds until core's certificate expires.",
		}, func() float64 { return time.Until(certificates.Expires()).Seconds() }),
	)
	handler := api.New(api.Options{
		Backend: b, Authenticate: authenticate(certificates), Logger: log, Registerer: registry, Gatherer: registry,
		Version: opts.Version, MaxScript: int64(s.Config.Limits.Script),
	})
	server := serve.Server(handler, log)
	server.TLSConfig = certificates.ServerTLS()

	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", s.Config.Core.Listen)
	if err != nil {
		return skyport.Errorf(skyport.CodeUnavailable, "core cannot listen on %s: %w", s.Config.Core.Listen, err).
			WithHint("stop what listens there, or set core.listen in %s", s.ConfigFile())
	}

	ctx, stop := context.WithCancel(ctx)
	var loops sync.WaitGroup
	defer loops.Wait()
	defer stop()
	failed := make(chan error, 1)
	loops.Go(func() { cat.Run(ctx) })
	loops.Go(func() { certificates.Renew(ctx, pki.Renewal{Issuer: s.ClusterCA(), Life: s.Config.CertificateLife}) })
	loops.Go(func() { renewUsers(ctx, s, log) })
	loops.Go(func() { b.keepHouse(ctx, s.Config.Limits.Retention, log) })
	loops.Go(func() { engine.Run(ctx) })
	loops.Go(func() {
		if err := serve.TLS(ctx, server, listener); err != nil {
			failed <- err
			stop()
		}
	})
	url := spool.URLOf(listener.Addr().String())
	if err := lock.Announce(url); err != nil {
		return err
	}
	log.Info("core is ready", "url", url, "spool", s.Dir, "version", opts.Version)
	if opts.Ready != nil {
		opts.Ready(url)
	}
	<-ctx.Done()
	loops.Wait()
	log.Info("core has stopped")
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// gateHTTP is how core speaks to the gate: as core, and to nobody but a gate.
// The address is looked up at each dial: a gate on a port of its choice may
// come back on another.
func gateHTTP(certificates *pki.Reloader, s *spool.Spool) *http.Client {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if s.Config.Gate.URL == "" {
				if now, err := s.Announced("gate"); err == nil {
					if host := hostOf(now.URL); host != "" {
						address = host
					}
				}
			}
			return dialer.DialContext(ctx, network, address) //nolint:wrapcheck // the client says on what
		},
		TLSClientConfig:       certificates.ClientTLS(pki.RoleGate),
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       time.Minute,
		ForceAttemptHTTP2:     true,
		ResponseHeaderTimeout: 90 * time.Second, // longer than the longest long poll
	}}
}

// authenticate tells who calls from the client certificate.
func authenticate(certificates *pki.Reloader) func(*http.Request) (api.User, error) {
	return func(r *http.Request) (api.User, error) {
		if r.TLS == nil {
			return api.User{}, errors.New("no TLS")
		}
		id, name, err := certificates.User(*r.TLS)
		return api.User{ID: id, Name: name}, err
	}
}

// person is the user whose certificate lies in the home directory of the
// account that core runs as, with a key that core can read.
func person() skyport.UserID {
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	pair := spool.HomePair(home)
	key, err := os.Open(pair.Key)
	if err != nil {
		return ""
	}
	_ = key.Close() // it is enough that it can be opened
	chain, err := pki.ReadCertificates(pair.Cert)
	if err != nil || len(chain) == 0 {
		return ""
	}
	id, _, err := pki.UserOf(chain[0])
	if err != nil {
		return ""
	}
	return id
}

// renewUsers renews the certificates of users before they end, where the CA's
// key is on this machine: at the start and then daily.
func renewUsers(ctx context.Context, s *spool.Spool, log *slog.Logger) {
	home, err := os.UserHomeDir()
	if err != nil {
		home = ""
	}
	for {
		renewed, err := s.RenewDue(ctx, home)
		if err != nil && ctx.Err() == nil {
			log.Warn("certificates of users were not renewed", "error", err)
		}
		if len(renewed) > 0 {
			log.Info("renewed certificates", "users", renewed)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(24 * time.Hour):
		}
	}
}

func accounts(settings []spool.AccountConfig) []skyport.Account {
	list := make([]skyport.Account, len(settings))
	for i, a := range settings {
		list[i] = skyport.Account{Name: a.Name, Users: a.Users, Sites: a.Sites, Budget: a.Budget.Budget()}
	}
	return list
}

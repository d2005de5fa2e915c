package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/docker"
	"github.com/openworkload/skyport/gate/local"
	"github.com/openworkload/skyport/gate/ssh"
	"github.com/openworkload/skyport/internal/pki"
	"github.com/openworkload/skyport/internal/serve"
	"github.com/openworkload/skyport/internal/spool"
	"github.com/openworkload/skyport/internal/workerbin"
)

func newGateCommand(a *app) *cobra.Command {
	var opts daemonOptions
	cmd := &cobra.Command{
		Use:   "gate [flags]",
		Short: "Run the gate, which speaks to the sites",
		Long: `Run the gate of the spool in the foreground, apart from core: it makes nodes at
the sites and removes them, and is called by core only. It ends cleanly on
Ctrl-C; what runs on nodes goes on. skyport up runs it together with core.

Clouds are described in ~/.swm/gate.yaml: skyport gate example prints one, and
skyport gate check tries it. The gate takes changes of that file in as it runs.`,
		Example:           lines("skyport gate", "skyport gate --log-format json --log-level debug"),
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, log, err := opts.open(a)
			if err != nil {
				return err
			}
			return runGate(cmd.Context(), s, log, nil)
		},
	}
	opts.addFlags(cmd)
	cmd.AddCommand(newGateCheckCommand(a), newGateExampleCommand(a), newGateSchemaCommand(a))
	return cmd
}

// runGate is the gate of a spool, until ctx ends. It calls ready, if not nil,
// with its URL once it can be called.
func runGate(ctx context.Context, s *spool.Spool, log *slog.Logger, ready func(url string)) (err error) {
	lock, err := s.Lock("gate")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()

	providers, closeProviders, err := openProviders(s, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeProviders()) }()
	clouds, err := openClouds(ctx, s, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, clouds.Close()) }()

	certificate, err := pki.NewReloader(s.GateFiles(), log)
	if err != nil {
		return fmt.Errorf("start the gate: %w", err)
	}
	server := gate.NewServer(gate.Options{
		Providers: append(providers, clouds.Providers()...),
		Authorize: func(r *http.Request) error { return onlyCore(certificate, r) },
		Logger:    log,
		Version:   readVersion().Version,
	})
	front := serve.Server(server.Handler(), log)
	front.TLSConfig = certificate.StrictServerTLS(pki.RoleCore)
	listener, err := net.Listen("tcp", s.Config.Gate.Listen)
	if err != nil {
		return skyport.Errorf(skyport.CodeConflict, "start the gate: %w", err).
			WithHint("skyport doctor looks for the reason; gate.listen in %s sets the address", s.ConfigFile())
	}
	url := spool.URLOf(listener.Addr().String())
	if err := lock.Announce(url); err != nil {
		return errors.Join(err, listener.Close())
	}
	log.Info("gate is ready", "url", url)
	if ready != nil {
		ready(url)
	}
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return server.Run(ctx) })
	parts.Go(func() error {
		certificate.Renew(ctx, pki.Renewal{Issuer: s.ClusterCA(), Life: s.Config.CertificateLife})
		return nil
	})
	parts.Go(func() error {
		clouds.Run(ctx)
		return nil
	})
	parts.Go(func() error {
		return serve.TLS(ctx, front, listener)
	})
	return parts.Wait()
}

// opened is a provider that can be closed.
type opened interface {
	gate.Provider
	Close() error
}

// openProviders opens the sites that the configuration names.
func openProviders(s *spool.Spool, log *slog.Logger) (providers []gate.Provider, closeAll func() error, err error) {
	var all []opened
	closeAll = func() error {
		var errs []error
		for _, p := range all {
			errs = append(errs, p.Close())
		}
		return errors.Join(errs...)
	}
	openers := []struct {
		wanted bool
		open   func(*spool.Spool, *slog.Logger) (opened, error)
	}{
		{s.Config.Local.Enabled, openLocal},
		{s.Config.Docker.Enabled, openDocker},
		{len(s.Config.SSH) > 0, openSSH},
	}
	for _, o := range openers {
		if !o.wanted {
			continue
		}
		p, err := o.open(s, log)
		if err != nil {
			return nil, nil, errors.Join(err, closeAll())
		}
		all, providers = append(all, p), append(providers, p)
	}
	return providers, closeAll, nil
}

func openLocal(s *spool.Spool, log *slog.Logger) (opened, error) {
	worker, err := workerbin.Install(filepath.Join(s.GateState(), "workers"), runtime.GOARCH)
	if err != nil {
		return nil, fmt.Errorf("install the worker: %w", err)
	}
	c := s.Config.Local
	return local.New(local.Options{
		Dir:          s.Local(),
		WorkerBinary: worker,
		Limits:       skyport.Limits{Nodes: c.Nodes, CPUs: c.CPUs, Memory: c.Memory},
		Price:        c.Price,
		Logger:       log,
	})
}

// openDocker opens the site whose nodes are containers.
func openDocker(s *spool.Spool, log *slog.Logger) (opened, error) {
	return newDocker(s.Config.Docker, log)
}

func newDocker(c spool.DockerConfig, log *slog.Logger) (*docker.Provider, error) {
	faults, err := docker.ParseFaults(os.Getenv(docker.FaultsVariable), spool.ParseBytes)
	if err != nil {
		return nil, err
	}
	var flavors []skyport.Flavor
	for _, f := range c.Flavors {
		flavors = append(flavors, skyport.Flavor{Name: f.Name, CPUs: f.CPUs, Memory: f.Memory, Price: f.Price})
	}
	return docker.New(docker.Options{
		Site:     c.Site,
		Host:     c.Host,
		Image:    c.Image,
		NoEngine: !c.Engine,
		Limits:   skyport.Limits{Nodes: c.Nodes},
		Flavors:  flavors,
		Faults:   faults,
		Logger:   log,
	})
}

// openSSH opens the sites of hosts that are there already.
func openSSH(s *spool.Spool, log *slog.Logger) (opened, error) {
	o := ssh.Options{Dir: filepath.Join(s.GateState(), "ssh"), Logger: log}
	for _, c := range s.Config.SSH {
		site := ssh.Site{Name: c.Name}
		for _, h := range c.Hosts {
			address, _, err := net.SplitHostPort(h.Address)
			if err != nil {
				address = h.Address // without a port
			}
			site.Hosts = append(site.Hosts, ssh.Host{
				Name: cmp.Or(h.Name, address), Address: h.Address, InternalAddress: h.InternalAddress,
				User: cmp.Or(h.User, c.User), KeyFile: cmp.Or(h.Key, c.Key), HostKey: cmp.Or(h.HostKey, c.HostKey),
				Labels: h.Labels, CPUs: h.CPUs, Memory: h.Memory, GPUs: h.GPUs, Price: h.Price, Dir: h.Dir, Drain: h.Drain,
			})
		}
		o.Sites = append(o.Sites, site)
	}
	p, err := ssh.New(o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.ConfigFile(), err)
	}
	return p, nil
}

// onlyCore admits the one caller that the gate has.
func onlyCore(certificate *pki.Reloader, r *http.Request) error {
	if r.TLS == nil {
		return skyport.Errorf(skyport.CodeUnauthorized, "the gate answers over TLS only")
	}
	_, err := certificate.Verify(*r.TLS, pki.RoleCore)
	return err
}

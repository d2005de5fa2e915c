package main

import (
	"log/slog"
	"os"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate/docker"
	"github.com/openworkload/skyport/internal/spool"
)

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

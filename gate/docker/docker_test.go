package docker_test

import (
	"testing"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/docker"
	"github.com/openworkload/skyport/gate/gatetest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	gatetest.Exercise(t, func(t *testing.T) gatetest.Fixture {
		o := options(t)
		o.Limits = skyport.Limits{Nodes: 3}
		p := open(t, o)
		return gatetest.Fixture{
			Provider: p, Patience: patience,
			Remake: func(t *testing.T) gate.Provider {
				if err := p.Close(); err != nil {
					t.Error(err)
				}
				p = open(t, o)
				return p
			},
		}
	})
}

var _ gate.Watcher = (*docker.Provider)(nil)

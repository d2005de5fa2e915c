package ssh_test

import (
	"testing"

	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/gatetest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	gatetest.Exercise(t, func(t *testing.T) gatetest.Fixture {
		t.Parallel()
		all, key := machines(t, 3)
		o := options(t, key, all...)
		p := open(t, o)
		return gatetest.Fixture{Provider: p, Nodes: 3, Patience: patience, Remake: func(t *testing.T) gate.Provider {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			p = open(t, o)
			return p
		}}
	})
}

package gatetest_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/gatetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The scripted provider passes the suite, with delays and without: what it
// stands in for it can be trusted to resemble.
func TestConformance(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]gatetest.Script{
		"at once":     {},
		"with delays": {CreateDelay: 2 * time.Millisecond, BootDelay: 2 * time.Millisecond, DeleteDelay: 2 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gatetest.Exercise(t, func(*testing.T) gatetest.Fixture {
				p := gatetest.NewProvider(script)
				return gatetest.Fixture{Provider: p, Remake: func(*testing.T) gate.Provider { return p }}
			})
		})
	}
}

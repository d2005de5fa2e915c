package cloud_test

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
	"github.com/openworkload/skyport/gate/cloud/cloudtest"
	"github.com/openworkload/skyport/gate/gatetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, c cloud.Cloud, change ...func(*cloud.Options)) *cloud.Provider {
	t.Helper()
	o := cloud.Options{
		Kind: c.Site().Kind, Clouds: []cloud.Cloud{c}, Poll: 20 * time.Millisecond, Retry: 2 * time.Millisecond,
		Sources: cloud.Sources{Fixed: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}, Logger: slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&o)
	}
	p, err := cloud.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// The kit over a cloud in memory keeps the promises of a provider, whatever the
// cloud does, and leaves nothing.
func TestConformance(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]cloudtest.Options{
		"at once":  {},
		"slow":     {Step: time.Millisecond, Boot: 5 * time.Millisecond},
		"lag":      {Boot: 2 * time.Millisecond, Faults: cloudtest.Faults{Lag: 30 * time.Millisecond}},
		"errors":   {Faults: cloudtest.Faults{Error: 0.1, Lost: 0.1, Twice: 0.1}},
		"throttle": {Faults: cloudtest.Faults{Throttle: 0.1, Quiet: 5 * time.Millisecond}},
		"all":      {Step: 100 * time.Microsecond, Boot: time.Millisecond, Faults: cloudtest.Faults{Lag: 20 * time.Millisecond, Error: 0.05, Lost: 0.05, Late: 0.05, Twice: 0.05, Throttle: 0.05}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gatetest.Exercise(t, func(t *testing.T) gatetest.Fixture {
				w := cloudtest.NewWorld(o)
				c := w.Open()
				p := open(t, c)
				return gatetest.Fixture{
					Provider: p, Nodes: 3, Patience: 20 * time.Second,
					Remake: func(t *testing.T) gate.Provider {
						c.Kill()
						if err := p.Close(); err != nil {
							t.Fatal(err)
						}
						c = w.Open()
						p = open(t, c)
						return p
					},
					Left: func(*testing.T) (names []string) {
						for _, r := range w.Resources() {
							names = append(names, r.Name)
						}
						if w.Pending() {
							names = append(names, "late work")
						}
						return names
					},
					Trouble: func(_ *testing.T, on bool) {
						f := o.Faults
						if on {
							f = cloudtest.Faults{Lag: 20 * time.Millisecond, Error: 0.1, Lost: 0.1, Late: 0.05, Twice: 0.1, Throttle: 0.05}
						}
						w.SetFaults(f)
					},
					Refuse: func(_ *testing.T, code skyport.Code) {
						w.Refuse(cloud.Permanent(code, "the cloud says no"))
					},
					TakeBack: func(_ *testing.T, id skyport.PartitionID) { w.TakeBack(id) },
					Vanish:   func(_ *testing.T, id skyport.PartitionID) { w.Vanish(id) },
				}
			})
		})
	}
}

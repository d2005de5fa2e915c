package openstack_test

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
	"github.com/openworkload/skyport/gate/gatetest"
	"github.com/openworkload/skyport/gate/openstack"
)

// TestReal runs the conformance suite in a real project, which is empty of
// partitions of ours before and after:
//
//	OS_CLIENT_CONFIG_FILE=clouds.yaml SKYPORT_TEST_OPENSTACK=cloud [SKYPORT_TEST_OPENSTACK_FLAVOR=m1.tiny]
//	[SKYPORT_TEST_OPENSTACK_IMAGE=cirros] go test -run TestReal ./gate/openstack
func TestReal(t *testing.T) {
	name := os.Getenv("SKYPORT_TEST_OPENSTACK")
	if name == "" || os.Getenv("OS_CLIENT_CONFIG_FILE") == "" {
		t.Skip("no real OpenStack: set OS_CLIENT_CONFIG_FILE and SKYPORT_TEST_OPENSTACK to an entry of it, as make test-openstack does")
	}
	flavor, image := os.Getenv("SKYPORT_TEST_OPENSTACK_FLAVOR"), os.Getenv("SKYPORT_TEST_OPENSTACK_IMAGE")
	if flavor == "" {
		flavor = "m1.tiny"
	}
	if image == "" {
		image = "cirros"
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	site := func(t *testing.T) cloud.Cloud {
		c, err := openstack.New(openstack.Options{
			Name: "real", Cloud: name, DefaultFlavor: flavor, DefaultImage: image,
			SSHFrom: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, Logger: log,
		})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	t.Run("check", func(t *testing.T) {
		c := site(t)
		findings, err := c.Check(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range findings {
			t.Logf("%-8s %-18s %s [%s]", f.Level, f.Subject, f.Text, f.Fix)
			if f.Level == gate.LevelFailure {
				t.Errorf("%s: %s", f.Subject, f.Text)
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Run("what a killed run has left", func(t *testing.T) {
		c := site(t)
		left, err := c.Find(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range left {
			if !strings.HasPrefix(f.Tags.Owner, "owner-") {
				continue
			}
			if err := c.Clear(t.Context(), f.Tags.Partition, func(text string) { t.Log(text) }); err != nil {
				t.Error(err)
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Run("exercise", func(t *testing.T) {
		dir := t.TempDir()
		gatetest.Exercise(t, func(t *testing.T) gatetest.Fixture {
			var last *cloud.Provider
			open := func(t *testing.T) gate.Provider {
				if last != nil {
					if err := last.Close(); err != nil {
						t.Error(err)
					}
				}
				var err error
				last, err = cloud.New(cloud.Options{
					Kind: "openstack", Clouds: []cloud.Cloud{site(t)}, Dir: dir, Poll: 5 * time.Second, Logger: log,
				})
				if err != nil {
					t.Fatal(err)
				}
				return last
			}
			t.Cleanup(func() { _ = last.Close() }) // a second end of it does no harm
			return gatetest.Fixture{Provider: open(t), Site: "real", Nodes: 2, Patience: 8 * time.Minute, Remake: open}
		})
	})
	t.Run("a flavor that finds no host", func(t *testing.T) {
		c := site(t)
		p := plan(1)
		p.Owner, p.Tags.Owner = "owner-nowhere", "owner-nowhere"
		p.NodeFlavor.Name, p.NodeImage.Name = "g1.large", image // asks for a GPU that no host of the reference cloud has
		err := c.Make(t.Context(), p, func(text string) { t.Log(text) })
		if skyport.CodeOf(err) == skyport.CodeUnknownFlavor {
			t.Skip("this cloud has no flavor g1.large")
		}
		if skyport.CodeOf(err) != skyport.CodeNoCapacity || !errors.Is(err, gate.ErrPermanent) {
			t.Errorf("got %v", err)
		}
		found, err := c.Find(t.Context(), p.ID)
		if err != nil || len(found) != 1 || skyport.CodeOf(found[0].Failure) != skyport.CodeNoCapacity || found[0].Tags != p.Tags {
			t.Errorf("found %+v, %v", found, err)
		}
		if err := c.Clear(t.Context(), p.ID, func(text string) { t.Log(text) }); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Run("nothing is left", func(t *testing.T) {
		c := site(t)
		left, err := c.Find(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range left {
			if !strings.HasPrefix(f.Tags.Owner, "owner-") {
				continue // of another test in the same project
			}
			t.Errorf("left: %s of %s: %v", f.Tags.Partition, f.Tags.Owner, f.Resources)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

package aws

import (
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
	"github.com/openworkload/skyport/gate/gatetest"
)

// ubuntu is an image that moto has.
const ubuntu = "ami-1e749f67"

// open makes a site over moto.
func open(t *testing.T, w *wire, change ...func(*Options)) *Cloud {
	t.Helper()
	url, err := moto()
	if err != nil {
		t.Skip("there is no moto:", err)
	}
	o := Options{
		Name: "aws", Region: "us-east-1", AccessKey: "AKIAEXAMPLE", SecretKey: "secret", Endpoint: url, HTTP: &http.Client{Transport: w},
		DefaultFlavor: "c5.large", DefaultImage: "test", Images: map[string]string{"test": ubuntu}, Flavors: []string{"c5.large", "t3.micro", "m6g.large"},
		Poll: 10 * time.Millisecond, ExtraTags: map[string]string{"project": "test"}, Logger: slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&o)
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c.(*Cloud) //nolint:errcheck,forcetypeassert // what New makes
}

func provide(t *testing.T, c cloud.Cloud) *cloud.Provider {
	t.Helper()
	p, err := cloud.New(cloud.Options{
		Kind: Kind, Clouds: []cloud.Cloud{c}, Poll: 100 * time.Millisecond, Retry: 10 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
		Sources: cloud.Sources{Fixed: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
	})
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

// A provider of AWS over moto keeps the promises of a provider.
func TestConformance(t *testing.T) {
	t.Parallel()
	gatetest.Exercise(t, func(t *testing.T) gatetest.Fixture {
		w := newWire(t)
		limits := func(o *Options) { o.Limits.Nodes = 6 }
		p := provide(t, open(t, w, limits))
		return gatetest.Fixture{Provider: p, Nodes: 3, Patience: time.Minute, Remake: func(t *testing.T) gate.Provider {
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			p = provide(t, open(t, w, limits))
			return p
		}}
	})
}

var _ = errors.Is

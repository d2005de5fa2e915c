package azure_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/azure"
	"github.com/openworkload/skyport/gate/cloud"
	"github.com/openworkload/skyport/gate/gatetest"
	azuretest "github.com/openworkload/skyport/test/azure"
)

// emulator starts Azure on this machine, in a hurry.
func emulator(t *testing.T, change func(*azuretest.Options)) *azuretest.Emulator {
	t.Helper()
	o := azuretest.Options{RetryAfter: 10 * time.Millisecond, Boot: 50 * time.Millisecond, Latency: 5 * time.Millisecond, Removal: 20 * time.Millisecond}
	if change != nil {
		change(&o)
	}
	e, err := azuretest.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// open is a site at the emulator.
func open(t *testing.T, e *azuretest.Emulator) cloud.Cloud {
	t.Helper()
	c, err := azure.New(azure.Options{
		Name: "az", Region: e.Location(), Subscription: e.Subscription(), Tenant: e.Tenant(), ClientID: e.ClientID(), ClientSecret: e.ClientSecret(),
		Endpoint: e.URL(), Authority: e.Authority(), PricesURL: e.PricesURL(), HTTP: e.Client(), Poll: 10 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
		SSHFrom: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func provider(t *testing.T, e *azuretest.Emulator, dir string) *cloud.Provider {
	t.Helper()
	p, err := cloud.New(cloud.Options{
		Kind: azure.Kind, Clouds: []cloud.Cloud{open(t, e)}, Dir: dir, Poll: 100 * time.Millisecond, Retry: 20 * time.Millisecond,
		Logger: slog.New(slog.DiscardHandler),
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

func TestConformance(t *testing.T) {
	t.Parallel()
	gatetest.Exercise(t, func(t *testing.T) gatetest.Fixture {
		t.Helper()
		e, dir := emulator(t, nil), t.TempDir()
		return gatetest.Fixture{
			Provider: provider(t, e, dir), Remake: func(t *testing.T) gate.Provider { t.Helper(); return provider(t, e, dir) },
			Nodes: 3, Patience: 30 * time.Second,
		}
	})
}

// plan asks for n nodes of a size.
func plan(t *testing.T, size string, n int, spot bool) cloud.Plan {
	t.Helper()
	id := skyport.NewPartitionID()
	spec := gate.PartitionSpec{
		ID: id, Owner: "owner", Site: "az", Flavor: size, Nodes: skyport.NodeNames(id, n), Lease: time.Now().Add(time.Hour), Spot: spot,
		Keys: []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHyQ1bYw0z0dPSDW0dF2m6xX5rJwV3m3m1m9b8oXw0Zq core"},
	}
	for range spec.Nodes {
		spec.UserData = append(spec.UserData, "#cloud-config\n")
	}
	return cloud.Plan{
		PartitionSpec: spec, Name: "swm-" + string(id), NodeFlavor: skyport.Flavor{Name: size, CPUs: 4, Arch: "amd64"},
		Tags: cloud.TagsOf(spec), Sources: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")},
	}
}

func make1(ctx context.Context, c cloud.Cloud, p cloud.Plan) ([]string, error) {
	var told []string
	err := c.Make(ctx, p, func(text string) { told = append(told, text) })
	return told, err
}

func find1(t *testing.T, c cloud.Cloud, id skyport.PartitionID) *cloud.Found {
	t.Helper()
	for _, wanted := range []skyport.PartitionID{id, ""} {
		all, err := c.Find(t.Context(), wanted)
		if err != nil {
			t.Fatal(err)
		}
		at := slices.IndexFunc(all, func(f cloud.Found) bool { return f.Tags.Partition == id })
		if wanted == "" {
			if at < 0 {
				return nil
			}
			return &all[at]
		}
	}
	return nil
}

// TestLife takes a partition of three nodes from its creation to its removal.
func TestLife(t *testing.T) {
	t.Parallel()
	e := emulator(t, nil)
	c := open(t, e)
	p := plan(t, "Standard_D4s_v5", 3, false)
	told, err := make1(t.Context(), c, p)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"resource group " + p.Name, "virtual machine " + p.Nodes[2] + ": made"} {
		if !slices.ContainsFunc(told, func(text string) bool { return strings.Contains(text, want) }) {
			t.Errorf("nobody is told of %q: %q", want, told)
		}
	}
	if _, err := make1(t.Context(), c, p); err != nil {
		t.Errorf("made again: %v", err)
	}
	f := find1(t, c, p.ID)
	if f == nil || !f.Made || f.Failure != nil || len(f.Nodes) != 3 || f.Created.IsZero() || f.Tags.Fingerprint != p.Tags.Fingerprint {
		t.Fatalf("found %+v", f)
	}
	for i, n := range f.Nodes {
		if n.Name != p.Nodes[i] || n.Address == "" || !strings.HasPrefix(n.Endpoint, "ssh://skyport@") || (n.Role == skyport.RoleMain) != (i == 0) {
			t.Errorf("node %d is %+v", i, n)
		}
	}
	until := time.Now().Add(5 * time.Hour).UTC().Truncate(time.Second)
	if err := c.Extend(t.Context(), p.ID, until); err != nil {
		t.Fatal(err)
	}
	if err := c.Admit(t.Context(), p.ID, []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}); err != nil {
		t.Fatal(err)
	}
	if f = find1(t, c, p.ID); !f.Tags.Lease.Equal(until) || !f.Made {
		t.Errorf("after the lease was moved: %+v", f)
	}
	if err := c.Condemn(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	if f = find1(t, c, p.ID); !f.Tags.Condemned {
		t.Errorf("it is not condemned: %+v", f)
	}
	if err := c.Clear(t.Context(), p.ID, func(string) {}); err != nil {
		t.Fatal(err)
	}
	if f = find1(t, c, p.ID); f != nil {
		t.Errorf("it is there: %+v", f)
	}
	if err := c.Clear(t.Context(), p.ID, func(string) {}); err != nil {
		t.Errorf("cleared again: %v", err)
	}
	if err := c.Extend(t.Context(), p.ID, until); !errors.Is(err, gate.ErrNotFound) {
		t.Errorf("a lease of nothing: %v", err)
	}
	if err := c.Condemn(t.Context(), p.ID); err != nil {
		t.Errorf("nothing is condemned: %v", err)
	}
}

// TestFailures sees each trouble as what it is.
func TestFailures(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change    func(*azuretest.Options)
		image     string
		code      skyport.Code
		permanent bool
	}{
		"sold out":     {func(o *azuretest.Options) { o.Faults.SoldOut = []string{"Standard_D4s_v5"} }, "", skyport.CodeNoCapacity, true},
		"unavailable":  {func(o *azuretest.Options) { o.Faults.Unavailable = []string{"Standard_D4s_v5"} }, "", skyport.CodeNoCapacity, true},
		"quota":        {func(o *azuretest.Options) { o.Quotas = map[string]int{"cores": 1} }, "", skyport.CodeQuota, true},
		"image":        {nil, "nobody:nothing:none:1.0.0", skyport.CodeUnknownImage, true},
		"unregistered": {func(o *azuretest.Options) { o.Unregistered = []string{"Microsoft.DevTestLab"} }, "", skyport.CodeCredentials, true},
		"denied":       {func(o *azuretest.Options) { o.Faults.Deny = []string{"Microsoft.Compute/virtualMachines/write"} }, "", skyport.CodeCredentials, true},
		"refused":      {func(o *azuretest.Options) { o.Faults.NoClient = true }, "", skyport.CodeCredentials, true},
		"throttled": {
			func(o *azuretest.Options) { o.Faults.Throttle, o.Faults.RetryAfter = 1, time.Minute }, "", skyport.CodeThrottled, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			site := open(t, emulator(t, c.change))
			p := plan(t, "Standard_D4s_v5", 2, false)
			p.Image = c.image
			_, err := make1(t.Context(), site, p)
			if skyport.CodeOf(err) != c.code || errors.Is(err, gate.ErrPermanent) != c.permanent {
				t.Errorf("%q, permanent %v: %v", skyport.CodeOf(err), errors.Is(err, gate.ErrPermanent), err)
			}
			if c.permanent && skyport.HintOf(err) == "" {
				t.Errorf("nobody is told what to do: %v", err)
			}
		})
	}
}

// TestCheck finds nothing wrong with a good subscription, and names what is.
func TestCheck(t *testing.T) {
	t.Parallel()
	findings, err := open(t, emulator(t, nil)).Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		if f.Level != gate.LevelOK {
			t.Errorf("%+v", f)
		}
	}
	findings, err = open(t, emulator(t, func(o *azuretest.Options) {
		o.Quotas, o.Unregistered = map[string]int{"cores": 1}, []string{"Microsoft.DevTestLab"}
		o.Faults.Deny = []string{"Microsoft.Resources/tags/write"}
	})).Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wrong := map[string]gate.Finding{}
	for _, f := range findings {
		if f.Level == gate.LevelFailure {
			wrong[f.Subject] = f
		}
	}
	for subject, fix := range map[string]string{
		"quota": "az quota update", "provider Microsoft.DevTestLab": "az provider register", "permissions": "az role assignment create",
	} {
		if !strings.Contains(wrong[subject].Fix, fix) {
			t.Errorf("%s: %+v", subject, wrong[subject])
		}
	}
}

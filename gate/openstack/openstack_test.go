package openstack_test

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
	"github.com/openworkload/skyport/gate/gatetest"
	"github.com/openworkload/skyport/gate/openstack"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site makes a site of the fake.
func (f *fake) site(t *testing.T, change ...func(*openstack.Options)) cloud.Cloud {
	t.Helper()
	o := openstack.Options{
		Name: "fake", AuthURL: f.URL + "/identity/v3", Username: "demo", Password: "secret", Project: "demo",
		DefaultFlavor: "m1.tiny", DefaultImage: "cirros", SSHFrom: []netip.Prefix{netip.MustParsePrefix("198.51.100.7/32")},
		Poll: 4 * time.Millisecond, Prices: map[string]float64{"m1.tiny": 0.02}, Currency: "EUR",
	}
	for _, c := range change {
		c(&o)
	}
	c, err := openstack.New(o)
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

// plan asks for n nodes.
func plan(n int) cloud.Plan {
	id := skyport.NewPartitionID()
	spec := gate.PartitionSpec{
		ID: id, Owner: "owner-of-it", Site: "fake", Flavor: "m1.tiny", Nodes: skyport.NodeNames(id, n),
		Lease: time.Now().Add(time.Hour).UTC().Truncate(time.Second), UserData: []string{"#cloud-config\nhostname: main\n"}, Job: skyport.NewJobID(), User: "ada",
	}
	return cloud.Plan{
		PartitionSpec: spec, Name: "swm-" + string(id), NodeFlavor: skyport.Flavor{Name: "m1.tiny"}, NodeImage: skyport.Image{Name: "cirros"},
		Tags: cloud.TagsOf(spec), Sources: []netip.Prefix{netip.MustParsePrefix("198.51.100.7/32")},
	}
}

func quietly(string) {}

// TestConformance runs the suite over HTTP.
func TestConformance(t *testing.T) {
	t.Parallel()
	gatetest.Exercise(t, func(t *testing.T) gatetest.Fixture {
		f := newFake(t)
		f.page = 2
		dir := t.TempDir()
		var last *cloud.Provider
		open := func(t *testing.T) gate.Provider {
			if last != nil {
				if err := last.Close(); err != nil {
					t.Error(err)
				}
			}
			var err error
			last, err = cloud.New(cloud.Options{
				Kind: "openstack", Clouds: []cloud.Cloud{f.site(t, func(o *openstack.Options) { o.Limits.Nodes = 4 })},
				Dir: dir, Poll: 20 * time.Millisecond, Retry: time.Millisecond, Logger: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				t.Fatal(err)
			}
			return last
		}
		t.Cleanup(func() {
			_ = last.Close() // a second end does no harm
			if left := f.left(); len(left) > 0 {
				t.Errorf("left in the cloud: %v", left)
			}
		})
		return gatetest.Fixture{Provider: open(t), Site: "fake", Remake: open}
	})
}

// TestWays makes partitions in the ways that the options offer.
func TestWays(t *testing.T) {
	t.Parallel()
	no := false
	for name, way := range map[string]struct {
		change   func(*openstack.Options)
		kinds    string // those in place, sorted
		endpoint string // of main begins with
	}{
		"own network":      {func(*openstack.Options) {}, "floating IP,network,port,port,router,security group,server,server,server group,subnet", "ssh://skyport@203.0.113."},
		"provider network": {func(o *openstack.Options) { o.Network = "public" }, "port,port,security group,server,server,server group", "ssh://skyport@192.0.2."},
		"no floating IP":   {func(o *openstack.Options) { o.FloatingIP = &no }, "network,port,port,router,security group,server,server,server group,subnet", "ssh://skyport@10."},
		"boot volume": {
			func(o *openstack.Options) { o.BootVolume, o.VolumeType = true, "ssd" },
			"floating IP,network,port,port,router,security group,server,server,server group,subnet,volume,volume", "ssh://skyport@203.0.113.",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			c := f.site(t, way.change)
			p := plan(2)
			for range 2 { // the second time all is there
				if err := c.Make(t.Context(), p, quietly); err != nil {
					t.Fatal(err)
				}
			}
			found, err := c.Find(t.Context(), "")
			if err != nil || len(found) != 1 {
				t.Fatal(found, err)
			}
			got := found[0]
			var kinds []string
			for _, r := range got.Resources {
				kinds = append(kinds, r.Kind)
			}
			slices.Sort(kinds)
			if strings.Join(kinds, ",") != way.kinds {
				t.Errorf("made %s\nwant %s", strings.Join(kinds, ","), way.kinds)
			}
			if !got.Made || got.Failure != nil || got.Tags != p.Tags || got.Created.IsZero() {
				t.Errorf("found %+v\nwant tags %+v", got, p.Tags)
			}
			if len(got.Nodes) != 2 || got.Nodes[0].Name != p.Nodes[0] || !strings.HasPrefix(got.Nodes[0].Endpoint, way.endpoint) {
				t.Errorf("nodes %+v", got.Nodes)
			}
			if err := c.Condemn(t.Context(), p.ID); err != nil {
				t.Fatal(err)
			}
			if found, err = c.Find(t.Context(), p.ID); err != nil || len(found) != 1 || !found[0].Tags.Condemned {
				t.Errorf("condemned: %+v, %v", found, err)
			}
			if err := c.Clear(t.Context(), p.ID, quietly); err != nil {
				t.Fatal(err)
			}
			if left := f.left(); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// TestForeign leaves alone what others have made, whatever it is called.
func TestForeign(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	p := plan(1)
	for many, o := range map[string]object{
		"networks":         {"name": p.Name},
		"security-groups":  {"name": p.Name, "description": "skyport: partition=nonsense;owner=x", "security_group_rules": []object{}},
		"routers":          {"name": "mine", "description": "skyport: partition=" + string(p.ID) + ";owner=owner-of-it"},
		"servers":          {"name": p.Name + "-main", "metadata": object{}, "status": "ACTIVE"},
		"os-server-groups": {"name": p.Name},
		"floatingips":      {"description": ""},
	} {
		o["id"] = "foreign-" + many
		f.add(many, o)
	}
	c := f.site(t)
	if err := c.Make(t.Context(), p, quietly); err != nil {
		t.Fatal(err)
	}
	if err := c.Clear(t.Context(), p.ID, quietly); err != nil {
		t.Fatal(err)
	}
	foreign := 0
	for key := range f.objects {
		if strings.Contains(key, "/foreign-") {
			foreign++
		}
	}
	if left := f.left(); len(left) > 0 || foreign != 6 {
		t.Errorf("left %v, and %d of 6 foreign things", left, foreign)
	}
}

// TestAdmit replaces the sources.
func TestAdmit(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	c, p := f.site(t), plan(1)
	if err := c.Make(t.Context(), p, quietly); err != nil {
		t.Fatal(err)
	}
	sources := func() (all []string) {
		for _, g := range f.all("security-groups", nil) {
			for _, r := range g["security_group_rules"].([]object) {
				if r["direction"] == "ingress" && r["remote_group_id"] == nil {
					all = append(all, r["remote_ip_prefix"].(string))
					if r["port_range_min"] != 22.0 || r["port_range_max"] != 22.0 || r["protocol"] != "tcp" {
						t.Errorf("opens more than SSH: %v", r)
					}
				}
			}
		}
		slices.Sort(all)
		return all
	}
	if got := sources(); !slices.Equal(got, []string{"198.51.100.7/32"}) {
		t.Errorf("made with %v", got)
	}
	if err := c.Admit(t.Context(), p.ID, []netip.Prefix{netip.MustParsePrefix("192.0.2.9/24"), netip.MustParsePrefix("2001:db8::/32")}); err != nil {
		t.Fatal(err)
	}
	if got := sources(); !slices.Equal(got, []string{"192.0.2.0/24", "2001:db8::/32"}) {
		t.Errorf("now %v", got)
	}
	if err := c.Clear(t.Context(), p.ID, quietly); err != nil {
		t.Fatal(err)
	}
}

// TestCloudsFile logs in by clouds.yaml and secure.yaml, and anew when they change.
func TestCloudsFile(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "clouds.yaml")
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("clouds.yaml", "clouds:\n  one:\n    auth: {auth_url: '"+f.URL+"/identity/v3', application_credential_id: cred}\n    region_name: RegionOne\n")
	write("secure.yaml", "clouds:\n  one:\n    auth: {application_credential_secret: wrong}\n")
	var log strings.Builder
	c := f.site(t, func(o *openstack.Options) {
		o.AuthURL, o.Cloud, o.CloudsFile, o.Logger = "", "one", file, slog.New(slog.NewTextHandler(&log, nil))
	})
	if _, err := c.Flavors(t.Context()); skyport.CodeOf(err) != skyport.CodeCredentials || !errors.Is(err, gate.ErrPermanent) {
		t.Fatalf("a wrong secret: %v", err)
	}
	write("secure.yaml", "clouds:\n  one:\n    auth: {application_credential_secret: secret}\n")
	if _, err := c.Flavors(t.Context()); err != nil {
		t.Fatalf("after the file was mended: %v", err)
	}
	if _, ok := f.auth["auth"].(object)["identity"].(object)["application_credential"]; !ok {
		t.Errorf("logged in by %v", f.auth)
	}
	findings, err := c.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]gate.Level{"in 2 days": gate.LevelWarning, "routers: 3 of 3": gate.LevelFailure, "servers: 10 of 10": gate.LevelFailure, "floating IPs: 1 of 2": gate.LevelWarning}
	for text, level := range want {
		if !slices.ContainsFunc(findings, func(g gate.Finding) bool { return strings.Contains(g.Text, text) && g.Level == level && g.Fix != "" }) {
			t.Errorf("no %s with %q in %+v", level, text, findings)
		}
	}
	if !strings.Contains(log.String(), "ends soon") || strings.Contains(log.String(), "secret") {
		t.Errorf("logged %q", log.String())
	}
	f.mu.Lock()
	f.token = "renewed meanwhile" // what we hold is not valid any more
	f.mu.Unlock()
	if _, err := c.Flavors(t.Context()); err != nil {
		t.Errorf("after the token has ended: %v", err)
	}
	if c.Site().Region != "RegionOne" {
		t.Errorf("site %+v", c.Site())
	}
}

// TestAuthority trusts the cloud's own authority when it is told to.
func TestAuthority(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	secure := httptest.NewTLSServer(f)
	t.Cleanup(secure.Close)
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	file := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	at := func(o *openstack.Options) { o.AuthURL = secure.URL + "/identity/v3" }
	if _, err := f.site(t, at).Flavors(t.Context()); skyport.CodeOf(err) != skyport.CodeCredentials || !strings.Contains(skyport.HintOf(err), "ca_file") {
		t.Errorf("an unknown authority: %v", err)
	}
	if _, err := f.site(t, at, func(o *openstack.Options) { o.CAFile = file }).Flavors(t.Context()); err != nil {
		t.Errorf("a known authority: %v", err)
	}
}

// TestEnvironment logs in by what an openrc file sets.
func TestEnvironment(t *testing.T) {
	f := newFake(t)
	for _, name := range []string{"OS_CLOUD", "OS_USER_ID", "OS_PROJECT_ID", "OS_DOMAIN_NAME", "OS_CACERT", "OS_APPLICATION_CREDENTIAL_SECRET", "OS_TOKEN"} {
		t.Setenv(name, "")
	}
	for name, value := range map[string]string{
		"OS_AUTH_URL": f.URL + "/identity/v3", "OS_USERNAME": "demo", "OS_PASSWORD": "secret", "OS_PROJECT_NAME": "demo",
		"OS_USER_DOMAIN_NAME": "people", "OS_PROJECT_DOMAIN_NAME": "projects", "OS_REGION_NAME": "RegionOne",
	} {
		t.Setenv(name, value)
	}
	c := f.site(t, func(o *openstack.Options) { o.AuthURL = "" })
	if _, err := c.Images(t.Context()); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(f.auth)
	if err != nil || !strings.Contains(string(text), `"domain":{"name":"people"}`) || !strings.Contains(string(text), `"domain":{"name":"projects"}`) {
		t.Errorf("logged in by %s, %v", text, err)
	}
	t.Setenv("OS_PASSWORD", "")
	if _, err := openstack.New(openstack.Options{Name: "x"}); skyport.CodeOf(err) != skyport.CodeCredentials || skyport.HintOf(err) == "" {
		t.Errorf("without a password: %v", err)
	}
}

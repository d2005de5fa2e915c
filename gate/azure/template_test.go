package azure

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"flag"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
)

var update = flag.Bool("update", false, "write the golden files anew")

func testPlan() cloud.Plan {
	spec := gate.PartitionSpec{
		ID: "0b0e9b5c-2f4c-4f0e-9d0a-3f1f2a9b8c7d", Owner: "core-1", Site: "az", Flavor: "Standard_D4s_v5", Nodes: []string{"swm-0b0e9b5c-main", "swm-0b0e9b5c-compute1"},
		Lease: time.Date(2030, 1, 2, 13, 30, 1, 0, time.UTC), Spot: true, Keys: []string{"ssh-ed25519 AAAAC3 core\n", "ssh-ed25519 AAAAC4 inner"},
		UserData: []string{"#cloud-config\nmain\n", "#cloud-config\ncompute\n"}, Job: "j", User: "Ann",
	}
	return cloud.Plan{
		PartitionSpec: spec, Name: group(spec.ID), NodeFlavor: skyport.Flavor{Name: spec.Flavor, CPUs: 4, Arch: "amd64"}, Tags: cloud.TagsOf(spec),
		Sources: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("198.51.100.9/24")},
	}
}

func TestParameters(t *testing.T) {
	t.Parallel()
	s := testSite(t, func(o *Options) { o.ExtraTags = map[string]string{"cost-center": "42", cloud.TagOwner: "never"} })
	plan := testPlan()
	plan.Tags.Fingerprint = "of the spec" // its wording is not ours
	got, err := s.parameters(&plan, time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.MarshalIndent(got, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	// What compression makes of the user data may change with Go.
	for i, packed := range dataOf(t, got) {
		text = bytes.ReplaceAll(text, []byte(packed), []byte("data of node "+string(rune('0'+i))))
		if unpack(t, packed) != plan.UserData[i] {
			t.Errorf("node %d gets other user data", i)
		}
	}
	golden(t, "testdata/parameters.json", append(text, '\n'))
}

func dataOf(t *testing.T, parameters map[string]any) []string {
	t.Helper()
	var all struct {
		UserData struct {
			Value struct{ Nodes []string }
		}
	}
	if err := unmarshal(parameters, &all); err != nil {
		t.Fatal(err)
	}
	return all.UserData.Value.Nodes
}

func unpack(t *testing.T, packed string) string {
	t.Helper()
	r, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, strings.NewReader(packed)))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(io.LimitReader(r, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs (-update writes it):\n%s", name, diff)
	}
}

// TestTemplate holds what must be true of the template whatever it makes.
func TestTemplate(t *testing.T) {
	t.Parallel()
	var all struct {
		Parameters map[string]struct{ Type string }
		Resources  []struct {
			Type, Name, Location, Tags, APIVersion string
			DependsOn                              []string
		}
	}
	if err := json.Unmarshal(templateText, &all); err != nil {
		t.Fatal(err)
	}
	s, plan := testSite(t, nil), testPlan()
	filled, err := s.parameters(&plan, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name := range all.Parameters {
		if filled[name] == nil {
			t.Errorf("parameter %s gets no value", name)
		}
	}
	for name := range filled {
		if all.Parameters[name].Type == "" {
			t.Errorf("value for %s, which is no parameter", name)
		}
	}
	if kind := all.Parameters["userData"].Type; kind != "secureObject" {
		t.Errorf("user data is a %s: anybody who reads the deployment reads private keys", kind)
	}
	for _, r := range all.Resources {
		if !strings.Contains(r.Tags, "parameters('tags')") || r.Location != "[parameters('location')]" || r.APIVersion == "" {
			t.Errorf("%s has tags %q, location %q, version %q", r.Type, r.Tags, r.Location, r.APIVersion)
		}
		if describe(r.Type) == r.Type {
			t.Errorf("%s has no name for people", r.Type)
		}
	}
	for _, must := range []string{`"deleteOption": "Delete"`, `'Spot'`, `"disablePasswordAuthentication": true`, `"ComputeVmShutdownTask"`} {
		if !bytes.Contains(templateText, []byte(must)) {
			t.Errorf("the template has no %s", must)
		}
	}
}

func TestShutdownTime(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)
	for lease, want := range map[time.Duration]string{
		time.Hour: "1300", time.Hour + time.Second: "1301", 13 * time.Hour: "0100", 24 * time.Hour: "1130", 1000 * time.Hour: "1130",
	} {
		if got := shutdownTime(now.Add(lease).In(time.FixedZone("east", 3600)), now); got != want {
			t.Errorf("a lease of %v ends at %s, not %s", lease, got, want)
		}
	}
}

func TestWrongPlans(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*cloud.Plan)
		code   skyport.Code
	}{
		"no IPv4 source": {func(p *cloud.Plan) { p.Sources = p.Sources[1:2] }, skyport.CodeInvalid},
		"unknown image":  {func(p *cloud.Plan) { p.Image = "windows" }, skyport.CodeUnknownImage},
	} {
		plan := testPlan()
		c.change(&plan)
		if _, err := testSite(t, nil).parameters(&plan, time.Now()); skyport.CodeOf(err) != c.code || !permanent(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestImages(t *testing.T) {
	t.Parallel()
	mine := "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/galleries/x/images/y/versions/1.0.0"
	s := testSite(t, func(o *Options) {
		o.Images = map[string]string{"mine": mine, "debian-12": "Debian:debian-12:12-backports-gen2:latest"}
	})
	for _, c := range []struct {
		image  string
		flavor skyport.Flavor
		want   map[string]any
		plain  bool
	}{
		{"", skyport.Flavor{Arch: "amd64"}, map[string]any{"publisher": "Canonical", "offer": "ubuntu-24_04-lts", "sku": "server", "version": "latest"}, true},
		{"", skyport.Flavor{Arch: "arm64"}, map[string]any{"publisher": "Canonical", "offer": "ubuntu-24_04-lts", "sku": "server-arm64", "version": "latest"}, true},
		{"", skyport.Flavor{Arch: "amd64", GPUs: 1}, map[string]any{"publisher": "microsoft-dsvm", "offer": "ubuntu-hpc", "sku": "2204", "version": "latest"}, false},
		{"mine", skyport.Flavor{}, map[string]any{"id": mine}, false},
		{"debian-12", skyport.Flavor{}, map[string]any{"publisher": "Debian", "offer": "debian-12", "sku": "12-backports-gen2", "version": "latest"}, false},
		{"a:b:c:1.2.3", skyport.Flavor{}, map[string]any{"publisher": "a", "offer": "b", "sku": "c", "version": "1.2.3"}, false},
	} {
		plan := cloud.Plan{PartitionSpec: gate.PartitionSpec{Image: c.image}, NodeFlavor: c.flavor}
		got, plain, err := s.imageOf(&plan)
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" || plain != c.plain {
			t.Errorf("image %q of %+v: %v, %v\n%s", c.image, c.flavor, plain, err, diff)
		}
	}
}

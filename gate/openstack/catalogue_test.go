package openstack_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
	"github.com/openworkload/skyport/gate/openstack"
)

// TestCatalogue reads flavors and images, over several pages.
func TestCatalogue(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.page = 2
	site := f.site(t, func(o *openstack.Options) { o.Images = map[string]string{"ours": "cirros", "lost": "no such"} })
	flavors, err := site.Flavors(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]skyport.Flavor{}
	for _, flavor := range flavors {
		got[flavor.Name] = flavor
	}
	if len(got) != 4 || got["m1.tiny"].Price != 0.02 || got["m1.tiny"].Unpriced || !got["m1.large"].Unpriced || got["m1.large"].Arch != "arm64" ||
		got["m1.large"].Memory != 8<<30 || got["m1.large"].Storage != 80<<30 {
		t.Errorf("flavors %+v", got)
	}
	if g := got["g1.a100"]; g.GPUs != 2 || g.GPUModel != "A100" {
		t.Errorf("GPUs %+v", g)
	}
	if g := got["g1.v"]; g.GPUs != 1 || g.GPUModel != "" {
		t.Errorf("GPUs %+v", g)
	}
	images, err := site.Images(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	comments := map[string]string{}
	for _, image := range images {
		comments[image.Name] = image.Comment + " " + image.Arch
	}
	want := map[string]string{
		"cirros": "cirros", "Ubuntu 24.04 LTS": "Ubuntu 24.04 LTS", "ubuntu-noble-24.04-amd64": "ubuntu-noble", "debian-12-genericcloud": "debian-12",
		"ours": "cirros", "ubuntu-24.04": "ubuntu-noble", "debian-12": "debian-12-genericcloud",
	}
	for name, of := range want {
		if !strings.HasPrefix(comments[name], of) {
			t.Errorf("image %s is %q, want %s", name, comments[name], of)
		}
	}
	if len(comments) != len(want) || !strings.HasSuffix(comments["ubuntu-24.04"], "amd64") {
		t.Errorf("images %q", comments)
	}
	id := f.all("images", nil)[0]["id"].(string)
	if image, err := site.(cloud.Resolver).ResolveImage(t.Context(), id); err != nil || image.Name != id || image.Comment[:6] != "cirros" {
		t.Errorf("image by id %+v, %v", image, err)
	}
	if _, err := site.(cloud.Resolver).ResolveImage(t.Context(), "no such"); skyport.CodeOf(err) != skyport.CodeUnknownImage || !errors.Is(err, gate.ErrPermanent) {
		t.Errorf("no such image: %v", err)
	}
	some := f.site(t, func(o *openstack.Options) { o.Flavors = []string{"g1.*"} })
	if flavors, err = some.Flavors(t.Context()); err != nil || len(flavors) != 2 {
		t.Errorf("chosen flavors %+v, %v", flavors, err)
	}
}

// TestTooSmall says early what the cloud would say late.
func TestTooSmall(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	site, p := f.site(t), plan(1)
	p.NodeImage.Name = "ubuntu-24.04"
	if err := site.Make(t.Context(), p, quietly); skyport.CodeOf(err) != skyport.CodeInvalid || !errors.Is(err, gate.ErrPermanent) || !strings.Contains(err.Error(), "5 GiB") {
		t.Errorf("got %v", err)
	}
	if left := f.left(); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

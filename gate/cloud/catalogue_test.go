package cloud_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
	"github.com/openworkload/skyport/gate/cloud/cloudtest"
)

// offline is a cloud whose catalogue can be out of reach.
type offline struct {
	*cloudtest.Cloud
	down  atomic.Bool
	asked atomic.Int32
}

func (o *offline) Flavors(ctx context.Context) ([]skyport.Flavor, error) {
	o.asked.Add(1)
	if o.down.Load() {
		return nil, errors.New("no route to host")
	}
	return o.Cloud.Flavors(ctx)
}

func (o *offline) Images(ctx context.Context) ([]skyport.Image, error) {
	if o.down.Load() {
		return nil, errors.New("no route to host")
	}
	return o.Cloud.Images(ctx)
}

func spec(site string, nodes int) gate.PartitionSpec {
	id := skyport.NewPartitionID()
	return gate.PartitionSpec{
		ID: id, Owner: "core", Site: site, Flavor: "small", Nodes: skyport.NodeNames(id, nodes),
		Lease: time.Now().Add(time.Hour).UTC().Truncate(time.Second),
	}
}

// The catalogue is there at once after a restart while the cloud is not, it is
// asked for again in the background, and its file is readable by its owner only.
func TestCatalogueOffline(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "clouds")
	w := cloudtest.NewWorld(cloudtest.Options{})
	keep := func(o *cloud.Options) { o.Dir, o.Retry = dir, time.Second }

	c := &offline{Cloud: w.Open()}
	c.down.Store(true)
	p := open(t, c, keep)
	_, err := p.Flavors(t.Context(), "test")
	if err == nil || errors.Is(err, gate.ErrPermanent) || skyport.HintOf(err) == "" || !strings.Contains(err.Error(), "no route") {
		t.Errorf("flavors that nobody knows: %v, want a passing error with its reason and a hint", err)
	}
	c.down.Store(false)
	p = open(t, c, keep)
	first, err := p.Flavors(t.Context(), "test")
	if err != nil || len(first) != 2 || first[0].ID == "" || first[0].Site != "test" {
		t.Fatal(first, err)
	}
	if _, err := p.Images(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", f, info.Mode(), err)
		}
	}

	c = &offline{Cloud: w.Open()}
	c.down.Store(true)
	p = open(t, c, keep)
	again, err := p.Flavors(t.Context(), "test")
	if err != nil || len(again) != 2 || again[0] != first[0] {
		t.Errorf("after a restart without the cloud: %v, %v", again, err)
	}
	s := spec("test", 1)
	if err := p.Create(t.Context(), s); err != nil {
		t.Errorf("create by the cached catalogue: %v", err)
	}
	// What the cache lacks may exist by now: the answer has to wait for the cloud.
	s = spec("test", 1)
	s.Flavor = "newer"
	if err := p.Create(t.Context(), s); err == nil || errors.Is(err, gate.ErrPermanent) {
		t.Errorf("a flavor that an old catalogue lacks: %v, want a passing error", err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}

	for _, text := range []string{"{", `{"version":99}`, `{"version":1,"at":"2020-01-01T00:00:00Z"}`} {
		for _, f := range files {
			if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		p := open(t, w.Open(), keep)
		if all, err := p.Flavors(t.Context(), "test"); err != nil || len(all) != 2 {
			t.Errorf("with the damaged cache %s: %v, %v", text, all, err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Old flavors are served while new ones are fetched; a cloud that fails is asked
// again with growing pauses.
func TestCatalogueLife(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &offline{Cloud: cloudtest.NewWorld(cloudtest.Options{}).Open()}
		p := open(t, c, func(o *cloud.Options) { o.CatalogueLife, o.Retry = time.Hour, time.Second })
		defer p.Close()
		get := func() {
			t.Helper()
			if all, err := p.Flavors(t.Context(), "test"); err != nil || len(all) != 2 {
				t.Fatal(all, err)
			}
			synctest.Wait()
		}
		get()
		time.Sleep(59 * time.Minute)
		get()
		if n := c.asked.Load(); n != 1 {
			t.Errorf("asked %d times within the life", n)
		}
		c.down.Store(true)
		time.Sleep(2 * time.Minute)
		for range 600 {
			get() // for ten minutes, every second
			time.Sleep(time.Second)
		}
		if n := c.asked.Load(); n < 5 || n > 25 {
			t.Errorf("asked %d times while it failed", n)
		}
		c.down.Store(false)
		time.Sleep(2 * time.Minute)
		get()
		before := c.asked.Load()
		time.Sleep(30 * time.Minute)
		get()
		if c.asked.Load() != before {
			t.Error("asked again within the life")
		}
	})
}

// What cannot be made is refused at once, with what could be meant instead.
func TestRefusals(t *testing.T) {
	t.Parallel()
	c := cloudtest.NewWorld(cloudtest.Options{Limits: skyport.Limits{Nodes: 3, CPUs: 8}}).Open()
	p := open(t, c)
	for name, test := range map[string]struct {
		change func(*gate.PartitionSpec)
		code   skyport.Code
		hint   string
	}{
		"flavor": {func(s *gate.PartitionSpec) { s.Flavor = "smal" }, skyport.CodeUnknownFlavor, "small"},
		"image":  {func(s *gate.PartitionSpec) { s.Image = "Plain-ARM64" }, skyport.CodeUnknownImage, "plain-arm"},
		"arch":   {func(s *gate.PartitionSpec) { s.Flavor, s.Image = "arm", "plain" }, skyport.CodeUnsatisfiable, "plain-arm"},
		"spot":   {func(s *gate.PartitionSpec) { s.Flavor, s.Image, s.Spot = "arm", "plain-arm", true }, skyport.CodeUnsupported, "spot"},
		"nodes":  {func(s *gate.PartitionSpec) { s.Nodes = skyport.NodeNames(s.ID, 4) }, skyport.CodeUnsatisfiable, "limits"},
		"cpus": {func(s *gate.PartitionSpec) {
			s.Flavor, s.Image, s.Nodes = "arm", "plain-arm", skyport.NodeNames(s.ID, 3)
		}, skyport.CodeUnsatisfiable, "limits"},
		"id":        {func(s *gate.PartitionSpec) { s.ID = "../x" }, skyport.CodeInvalid, ""},
		"user data": {func(s *gate.PartitionSpec) { s.UserData = []string{"a", "b"} }, skyport.CodeInvalid, ""},
	} {
		s := spec("test", 1)
		test.change(&s)
		err := p.Create(t.Context(), s)
		if !errors.Is(err, gate.ErrPermanent) || skyport.CodeOf(err) != test.code || !strings.Contains(skyport.HintOf(err), test.hint) {
			t.Errorf("%s: %v (%s; %s)", name, err, skyport.CodeOf(err), skyport.HintOf(err))
		}
	}
}

// A thousand flavors are served in no time, also by a process that has just
// started while its cloud is out of reach.
func BenchmarkFlavors(b *testing.B) {
	o := cloudtest.Options{}
	for i := range 1000 {
		o.Flavors = append(o.Flavors, skyport.Flavor{
			Name: fmt.Sprintf("Standard_D%ds_v5", i), CPUs: 1 + i%64, Memory: skyport.Bytes(4+i) << 30, Price: float64(i) / 10, SpotPrice: float64(i) / 50, Arch: "amd64",
		})
	}
	dir := b.TempDir()
	c := &offline{Cloud: cloudtest.NewWorld(o).Open()}
	start := func() *cloud.Provider {
		p, err := cloud.New(cloud.Options{Kind: "memory", Clouds: []cloud.Cloud{c}, Dir: dir})
		if err != nil {
			b.Fatal(err)
		}
		return p
	}
	serve := func(b *testing.B, p *cloud.Provider) {
		if all, err := p.Flavors(b.Context(), "test"); err != nil || len(all) != 1000 {
			b.Fatal(len(all), err)
		}
	}
	p := start()
	serve(b, p)
	b.Run("running", func(b *testing.B) {
		for b.Loop() {
			serve(b, p)
		}
	})
	if err := p.Close(); err != nil {
		b.Fatal(err)
	}
	c.down.Store(true)
	b.Run("started", func(b *testing.B) {
		for b.Loop() {
			p := start()
			serve(b, p)
			if err := p.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

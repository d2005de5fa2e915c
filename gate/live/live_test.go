package live

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
	"github.com/openworkload/skyport/gate/cloud/cloudtest"
	"github.com/openworkload/skyport/gate/gatetest"
)

// worlds are clouds in memory, by the names of sites.
type worlds struct {
	mu     sync.Mutex
	worlds map[string]*cloudtest.World
	opened int
	refuse error
}

func (w *worlds) of(kind, name string) *cloudtest.World {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.worlds[name] == nil {
		w.worlds[name] = cloudtest.NewWorld(cloudtest.Options{Kind: kind, Name: name})
	}
	return w.worlds[name]
}

func (w *worlds) open(c Site) (func() (Provider, error), error) {
	w.mu.Lock()
	w.opened++
	refuse := w.refuse
	w.mu.Unlock()
	if refuse != nil {
		return nil, refuse
	}
	return func() (Provider, error) {
		return cloud.New(cloud.Options{
			Kind: c.Kind, Clouds: []cloud.Cloud{w.of(c.Kind, c.Name).Open()}, Poll: 20 * time.Millisecond, Retry: 2 * time.Millisecond,
			Sources: cloud.Sources{Fixed: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}, Logger: slog.New(slog.DiscardHandler),
		})
	}, nil
}

func open(t *testing.T, w *worlds, read func() ([]Site, error), log *slog.Logger) *Sites {
	t.Helper()
	l, err := Open(t.Context(), Options{Kinds: []string{"azure", "openstack", "aws"}, Read: read, Open: w.open, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// Sites that are exchanged under the feet of their callers keep the promises of
// a provider.
func TestSitesConform(t *testing.T) {
	t.Parallel()
	gatetest.Exercise(t, func(t *testing.T) gatetest.Fixture {
		config := 0
		l := open(t, &worlds{worlds: map[string]*cloudtest.World{}}, func() ([]Site, error) {
			config++ // something is another now
			return []Site{{"aws", "one", config}, {"aws", "two", nil}, {"azure", "three", nil}}, nil
		}, slog.New(slog.DiscardHandler))
		look := func(t *testing.T) gate.Provider {
			t.Helper()
			l.look(t.Context())
			if l.told != "" {
				t.Fatal(l.told)
			}
			return l.kinds[2]
		}
		return gatetest.Fixture{Provider: look(t), Site: "one", Nodes: 2, Remake: look, Patience: 20 * time.Second}
	})
}

// TestSitesFollow goes through what people do to the list of sites.
func TestSitesFollow(t *testing.T) {
	t.Parallel()
	w := &worlds{worlds: map[string]*cloudtest.World{}}
	var (
		log    bytes.Buffer
		wanted []Site
		failed = ErrAbsent
	)
	l := open(t, w, func() ([]Site, error) { return wanted, failed }, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelError})))
	aws := l.kinds[2]
	want := func(sites ...Site) {
		t.Helper()
		wanted, failed = sites, nil
		l.look(t.Context())
	}
	fail := func(err error) {
		t.Helper()
		wanted, failed = nil, err
		l.look(t.Context())
	}
	expect := func(what string, opened, logged int, sites ...string) {
		t.Helper()
		there, err := aws.Sites(t.Context())
		var names []string
		for _, site := range there {
			names = append(names, site.Name)
		}
		if err != nil || strings.Join(names, " ") != strings.Join(sites, " ") {
			t.Errorf("%s: sites are %q, %v", what, names, err)
		}
		if w.opened != opened {
			t.Errorf("%s: sites were opened %d times, want %d", what, w.opened, opened)
		}
		if n := strings.Count(log.String(), "level=ERROR"); n != logged {
			t.Errorf("%s: %d errors are logged, want %d:\n%s", what, n, logged, log.String())
		}
	}
	one, other, two := Site{"aws", "one", "r"}, Site{"aws", "one", "other"}, Site{"aws", "two", "r"}

	l.look(t.Context())
	expect("no list", 0, 0)
	want(one, two)
	expect("two sites", 2, 0, "one", "two")
	l.look(t.Context())
	expect("no change", 2, 0, "one", "two")

	id := skyport.NewPartitionID()
	spec := gate.PartitionSpec{
		ID: id, Owner: "us", Site: "one", Flavor: "small", Nodes: skyport.NodeNames(id, 1), Lease: time.Now().Add(time.Hour),
	}
	if flavors, err := aws.Flavors(t.Context(), "one"); err != nil || len(flavors) == 0 {
		t.Fatalf("flavors: %v, %v", flavors, err)
	} else {
		spec.Flavor = flavors[0].Name
	}
	if err := aws.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	awaitState(t, aws, spec, gate.StateUp)

	want(other, two)
	expect("one is another", 3, 0, "one", "two")
	awaitState(t, aws, spec, gate.StateUp) // also after the exchange

	for range 3 {
		fail(errors.New("the name is there twice"))
	}
	expect("a mistake", 3, 1, "one", "two")
	if troubles := aws.Troubles(); len(troubles) != 1 || !strings.Contains(troubles[0].Error(), "the name is there twice") {
		t.Errorf("the troubles are %v", troubles)
	}
	w.refuse = errors.New("no such certificate")
	for range 3 {
		want(Site{"aws", "one", "third"}, two)
	}
	expect("a site that cannot be opened", 6, 2, "one", "two")
	awaitState(t, aws, spec, gate.StateUp) // the old one serves on
	w.refuse = nil
	l.look(t.Context())
	expect("now it can", 7, 2, "one", "two")
	if troubles := aws.Troubles(); len(troubles) != 0 {
		t.Errorf("there are still troubles: %v", troubles)
	}

	fail(ErrAbsent)
	expect("the list is gone", 7, 3, "one", "two")

	want(two)
	expect("one is given up, but not empty", 7, 4, "one", "two")
	if flavors, err := aws.Flavors(t.Context(), "one"); err != nil || len(flavors) != 0 {
		t.Errorf("a site that is leaving offers %v, %v", flavors, err)
	}
	if err := aws.Create(t.Context(), spec); err != nil {
		t.Errorf("what is there is asked for again: %v", err)
	}
	fresh := spec
	fresh.ID = skyport.NewPartitionID()
	if err := aws.Create(t.Context(), fresh); !errors.Is(err, gate.ErrPermanent) {
		t.Errorf("a site that is leaving takes a new partition: %v", err)
	}
	if err := aws.Delete(t.Context(), "one", spec.ID); err != nil {
		t.Fatal(err)
	}
	awaitState(t, aws, spec, "")
	l.look(t.Context())
	expect("one is empty", 7, 4, "two")
	if _, err := aws.Flavors(t.Context(), "one"); skyport.CodeOf(err) != skyport.CodeUnknownSite {
		t.Errorf("a site that is gone: %v", err)
	}
	want()
	expect("no sites", 7, 4)
}

// awaitState waits for changes, as the gate does, until a partition has a
// state; an empty one is that it is gone.
func awaitState(t *testing.T, p *kind, spec gate.PartitionSpec, want gate.State) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		changed := p.Changed()
		status, err := p.Status(ctx, spec.Site, spec.ID)
		switch {
		case want == "" && errors.Is(err, gate.ErrNotFound):
			return
		case err == nil && status.State == want:
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("partition is %+v, %v; want %q", status, err, want)
		}
	}
}

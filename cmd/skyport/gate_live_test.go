package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
	"github.com/openworkload/skyport/gate/cloud/cloudtest"
	"github.com/openworkload/skyport/gate/gatetest"
	"github.com/openworkload/skyport/internal/spool"
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

func (w *worlds) open(c spool.CloudSite) (func() (cloudProvider, error), error) {
	w.mu.Lock()
	w.opened++
	refuse := w.refuse
	w.mu.Unlock()
	if refuse != nil {
		return nil, refuse
	}
	return func() (cloudProvider, error) {
		return cloud.New(cloud.Options{
			Kind: c.Kind, Clouds: []cloud.Cloud{w.of(c.Kind, c.Name).Open()}, Poll: 20 * time.Millisecond, Retry: 2 * time.Millisecond,
			Sources: cloud.Sources{Fixed: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}, Logger: slog.New(slog.DiscardHandler),
		})
	}, nil
}

func closeAtEnd(t *testing.T, l *liveClouds) {
	t.Helper()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Sites that are exchanged under the feet of their callers keep the promises of
// a provider.
func TestCloudsConform(t *testing.T) {
	t.Parallel()
	gatetest.Exercise(t, func(t *testing.T) gatetest.Fixture {
		w := &worlds{worlds: map[string]*cloudtest.World{}}
		l := newLiveClouds(nil, w.open, slog.New(slog.DiscardHandler))
		closeAtEnd(t, l)
		tag := "x"
		take := func(t *testing.T) gate.Provider {
			t.Helper()
			tag += "x" // something is another now
			l.take(t.Context(), spool.GateFile{Sites: []spool.CloudSite{
				{Kind: "aws", Name: "one", Tags: map[string]string{"a": tag}}, {Kind: "aws", Name: "two"}, {Kind: "azure", Name: "three"},
			}})
			if l.told != "" {
				t.Fatal(l.told)
			}
			return l.kinds[2]
		}
		return gatetest.Fixture{Provider: take(t), Site: "one", Nodes: 2, Remake: take, Patience: 20 * time.Second}
	})
}

// TestCloudsFollowTheFile goes through what people do to gate.yaml.
func TestCloudsFollowTheFile(t *testing.T) {
	t.Parallel()
	w := &worlds{worlds: map[string]*cloudtest.World{}}
	path := filepath.Join(t.TempDir(), "gate.yaml")
	s := &spool.Spool{Layout: spool.Layout{Dir: filepath.Dir(path)}}
	var log bytes.Buffer
	l := newLiveClouds(s.LoadGateFile, w.open, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelError})))
	closeAtEnd(t, l)
	aws := l.kinds[2]
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
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
	const one, two = "  - {kind: aws, name: one, region: r}\n", "  - {kind: aws, name: two, region: r}\n"

	l.look(t.Context())
	expect("no file", 0, 0)
	write("sites:\n" + one + two)
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

	write("sites:\n" + strings.Replace(one, "region: r", "region: other", 1) + two)
	expect("one is another", 3, 0, "one", "two")
	awaitState(t, aws, spec, gate.StateUp) // also after the exchange

	for range 3 {
		write("sites:\n" + one + one)
	}
	expect("a mistake", 3, 1, "one", "two")
	if troubles := aws.Troubles(); len(troubles) != 1 || !strings.Contains(troubles[0].Error(), "gate.yaml:3:23: sites.1.name: the name \"one\" is there twice") {
		t.Errorf("the troubles are %v", troubles)
	}
	w.refuse = errors.New("no such certificate")
	for range 3 {
		write("sites:\n" + strings.Replace(one, "region: r", "region: third", 1) + two)
	}
	expect("a site that cannot be opened", 6, 2, "one", "two")
	awaitState(t, aws, spec, gate.StateUp) // the old one serves on
	w.refuse = nil
	l.look(t.Context())
	expect("now it can", 7, 2, "one", "two")
	if troubles := aws.Troubles(); len(troubles) != 0 {
		t.Errorf("there are still troubles: %v", troubles)
	}

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	l.look(t.Context())
	expect("the file is gone", 7, 3, "one", "two")

	write("sites:\n" + two)
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
	write("sites: []\n")
	expect("no sites", 7, 4)
}

// awaitState waits for changes, as the gate does, until a partition has a
// state; an empty one is that it is gone.
func awaitState(t *testing.T, p *cloudKind, spec gate.PartitionSpec, want gate.State) {
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

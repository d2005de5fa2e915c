package catalog_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/catalog"
	"github.com/openworkload/skyport/internal/core/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gate is a gate whose answers the test changes.
type gate struct {
	mu     sync.Mutex
	away   error // of all calls
	silent error // of the calls for one site
	cpus   int
	calls  int
}

func (g *gate) set(away, silent error, cpus int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.away, g.silent, g.cpus = away, silent, cpus
}

func (g *gate) Sites(context.Context) ([]skyport.Site, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls++
	return []skyport.Site{{Name: "here"}}, g.away
}

func (g *gate) asked() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.calls
}

func (g *gate) Flavors(_ context.Context, site string) ([]skyport.Flavor, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return []skyport.Flavor{{Name: "small", Site: site, CPUs: g.cpus}}, g.silent
}

func (g *gate) Images(_ context.Context, site string) ([]skyport.Image, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return []skyport.Image{{Name: "plain", Site: site}}, g.silent
}

type fixture struct {
	*catalog.Catalog
	changes atomic.Int64
	stop    func()
}

// begin makes a catalogue on a store and runs it.
func begin(t *testing.T, g *gate, dir string) *fixture {
	t.Helper()
	db, err := store.Open(t.Context(), store.Options{Path: filepath.Join(dir, "db")})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{}
	f.Catalog, err = catalog.New(t.Context(), catalog.Options{
		Store: db, Gate: g, Every: 5 * time.Millisecond, Changed: func() { f.changes.Add(1) },
		Accounts: []skyport.Account{{Name: "lab"}, {Name: "named", ID: "x"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { f.Run(ctx) })
	f.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(f.stop)
	return f
}

func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func (f *fixture) cpus() int {
	if list := f.Flavors(); len(list) > 0 {
		return list[0].CPUs
	}
	return 0
}

func TestAGateThatComesLate(t *testing.T) {
	t.Parallel()
	g := &gate{}
	g.set(errors.New("connection refused"), nil, 2)
	f := begin(t, g, t.TempDir())
	if f.Blind() == "" || len(f.Sites()) > 0 {
		t.Errorf("before anything is known: blind %q, sites %v", f.Blind(), f.Sites())
	}
	until(t, "says why", func() bool { return strings.Contains(f.Blind(), "connection refused") })
	select {
	case <-f.Loaded():
		t.Error("it is loaded without an answer")
	default:
	}
	g.set(nil, nil, 2)
	<-f.Loaded()
	if f.Blind() != "" || f.cpus() != 2 || len(f.Images()) != 1 {
		t.Errorf("blind %q, %d cpus, images %v", f.Blind(), f.cpus(), f.Images())
	}
	until(t, "the change is told", func() bool { return f.changes.Load() == 1 })

	// What stays the same is not told again.
	seen := g.asked()
	until(t, "asked again", func() bool { return g.asked() > seen+2 })
	if n := f.changes.Load(); n != 1 {
		t.Errorf("nothing changed, and it was told %d times", n)
	}
	g.set(nil, nil, 4)
	until(t, "the new flavor", func() bool { return f.cpus() == 4 && f.changes.Load() == 2 })

	// A gate that goes away is told once, and what it said still counts.
	g.set(errors.New("broken pipe"), nil, 4)
	until(t, "blind", func() bool { return strings.Contains(f.Blind(), "broken pipe") })
	if f.cpus() != 4 || len(f.Sites()) != 1 {
		t.Error("it has forgotten what there is")
	}
	until(t, "told", func() bool { return f.changes.Load() == 3 })
	g.set(nil, nil, 4)
	until(t, "sees again", func() bool { return f.Blind() == "" && f.changes.Load() == 4 })
}

func TestWhatTheGateSaidIsRemembered(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	g := &gate{}
	g.set(nil, nil, 2)
	first := begin(t, g, dir)
	until(t, "told", func() bool { return first.changes.Load() == 1 })
	first.stop()

	g.set(errors.New("not up yet"), nil, 2)
	second := begin(t, g, dir)
	if second.cpus() != 2 || len(second.Sites()) != 1 || second.Blind() == "" {
		t.Errorf("after a restart: %d cpus, sites %v, blind %q", second.cpus(), second.Sites(), second.Blind())
	}
}

// A site that does not tell keeps its flavors, and is asked again soon.
func TestASilentSite(t *testing.T) {
	t.Parallel()
	g := &gate{}
	g.set(nil, nil, 2)
	f := begin(t, g, t.TempDir())
	<-f.Loaded()
	g.set(nil, errors.New("the site is away"), 9)
	seen := g.asked()
	until(t, "asked again", func() bool { return g.asked() > seen+2 })
	if f.cpus() != 2 || f.Blind() != "" {
		t.Errorf("the silent site has %d cpus, blind %q", f.cpus(), f.Blind())
	}
}

// A site that is silent from the start is asked again long before the next
// regular look.
func TestASiteThatIsSilentAtFirst(t *testing.T) {
	t.Parallel()
	g := &gate{}
	g.set(nil, errors.New("the site is away"), 2)
	db, err := store.Open(t.Context(), store.Options{Path: filepath.Join(t.TempDir(), "db")})
	if err != nil {
		t.Fatal(err)
	}
	c, err := catalog.New(t.Context(), catalog.Options{Store: db, Gate: g, Every: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { c.Run(ctx) })
	defer func() {
		cancel()
		running.Wait()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	<-c.Loaded()
	g.set(nil, nil, 2)
	until(t, "the flavors are known", func() bool { return len(c.Flavors()) == 1 })
}

func TestAccountsHaveStableIDs(t *testing.T) {
	t.Parallel()
	g := &gate{}
	a, b := begin(t, g, t.TempDir()), begin(t, g, t.TempDir())
	if x, y := a.Accounts(), b.Accounts(); len(x) != 2 || x[0].ID == "" || x[0].ID != y[0].ID || x[1].ID != "x" {
		t.Errorf("accounts %v and %v", x, y)
	}
}

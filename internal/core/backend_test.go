package core

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate/gatetest"
	"github.com/openworkload/skyport/internal/core/api"
	"github.com/openworkload/skyport/internal/core/archive"
	"github.com/openworkload/skyport/internal/core/catalog"
	"github.com/openworkload/skyport/internal/core/lifecycle"
	"github.com/openworkload/skyport/internal/core/store"
	"github.com/openworkload/skyport/internal/spool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var ada = api.User{ID: "0190c2f0-6f5e-4c3a-9b1d-2f6f0b8f5a11", Name: "ada"}

// newBackend is a backend whose engine decides nothing: it does not run.
func newBackend(t *testing.T) *backend {
	t.Helper()
	dir := t.TempDir()
	var engine *lifecycle.Engine
	db, err := store.Open(t.Context(), store.Options{Path: filepath.Join(dir, "db"), OnCommit: func(c store.Commit) { engine.Committed(c) }})
	if err != nil {
		t.Fatal(err)
	}
	site := gatetest.NewProvider(gatetest.Script{})
	cat, err := catalog.New(t.Context(), catalog.Options{
		Store: db, Gate: site, Logger: slog.New(slog.DiscardHandler), Accounts: []skyport.Account{{Name: "lab", Users: []string{"*"}, Sites: []string{"*"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	engine = lifecycle.New(lifecycle.Options{Store: db, Catalog: cat, Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { cat.Run(ctx) })
	<-cat.Loaded()
	b := &backend{
		store: db, engine: engine, catalog: cat, archive: archive.New(filepath.Join(dir, "jobs")), hub: &hub{},
		staging: staging{dir: filepath.Join(dir, "inputs")}, person: ada.ID,
	}
	if err := os.Mkdir(b.staging.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		running.Wait()
		if err := b.staging.close(); err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func sub(directives ...string) api.Submission {
	script := "#!/bin/sh\n"
	for _, d := range directives {
		script += "#SWM " + d + "\n"
	}
	return api.Submission{Script: []byte(script + "true\n")}
}

// The same submission under the same key is accepted once, however many come
// at the same time.
func TestTheSameKeyAtTheSameTime(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	const callers = 8
	answers := make([][]skyport.Job, callers)
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			var err error
			if answers[i], err = b.Submit(t.Context(), ada, "key", []api.Submission{sub("name one"), sub("name two")}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for i, jobs := range answers {
		if len(jobs) != 2 || jobs[0].ID != answers[0][0].ID || jobs[1].ID != answers[0][1].ID || jobs[0].Name != "one" || jobs[1].Name != "two" {
			t.Errorf("answer %d differs: %+v", i, jobs)
		}
	}
	if page, err := b.Jobs(t.Context(), api.JobQuery{}); err != nil || len(page.Jobs) != 2 {
		t.Errorf("%d jobs were accepted, %v", len(page.Jobs), err)
	}
	if _, err := b.Submit(t.Context(), ada, "key", []api.Submission{sub("name three")}); skyport.CodeOf(err) != skyport.CodeKeyReused {
		t.Errorf("another submission under the key: %v", err)
	}
	if jobs, err := b.Submit(t.Context(), api.User{ID: skyport.NewUserID(), Name: "bob"}, "key", []api.Submission{sub("name three")}); err != nil || len(jobs) != 1 {
		t.Errorf("the key of another user: %v", err)
	}
}

func TestAllSubmissionsOrNone(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	_, err := b.Submit(t.Context(), ada, "", []api.Submission{sub("name good"), sub("site moon")})
	if skyport.CodeOf(err) != skyport.CodeUnknownSite || skyport.HintOf(err) == "" {
		t.Errorf("says %v", err)
	}
	if page, err := b.Jobs(t.Context(), api.JobQuery{}); err != nil || len(page.Jobs) != 0 {
		t.Errorf("%d jobs were accepted, %v", len(page.Jobs), err)
	}
}

func TestPlan(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	plan, err := b.Plan(t.Context(), ada, sub("nodes 2", "input-files /not/staged"))
	if err != nil || plan.Site != "test" || plan.Flavor != "small" || plan.Nodes != 2 || plan.Price != 0.2 || plan.Reason != "" {
		t.Errorf("%+v, %v", plan, err)
	}
	if _, err := b.Plan(t.Context(), ada, sub("site moon")); skyport.CodeOf(err) != skyport.CodeUnknownSite {
		t.Errorf("an unknown site: %v", err)
	}
	p := skyport.Partition{
		ID: skyport.NewPartitionID(), State: skyport.PartitionPlanned, Account: "lab", Site: "test",
		Flavor: b.catalog.Flavors()[0], Nodes: make([]skyport.Node, 1),
	}
	if err := b.store.Update(t.Context(), func(tx *store.Tx) error { return tx.InsertPartition(&p) }); err != nil {
		t.Fatal(err)
	}
	if plan, err := b.Plan(t.Context(), ada, sub()); err != nil || plan.Partition != p.ID || plan.Flavor != "small" || plan.Price != 0.1 {
		t.Errorf("beside a partition: %+v, %v", plan, err)
	}
	if page, err := b.Jobs(t.Context(), api.JobQuery{}); err != nil || len(page.Jobs) != 0 {
		t.Errorf("a plan made %d jobs, %v", len(page.Jobs), err)
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	const jobs = 7
	for i := range jobs {
		if _, err := b.Submit(t.Context(), ada, "", []api.Submission{sub(fmt.Sprint("name n", i))}); err != nil {
			t.Fatal(err)
		}
	}
	for _, ascending := range []bool{false, true} {
		for limit := range jobs + 2 {
			var names []string
			q := api.JobQuery{Ascending: ascending, Limit: limit}
			for pages := 0; ; pages++ {
				page, err := b.Jobs(t.Context(), q)
				if err != nil || (limit > 0 && len(page.Jobs) > limit) || pages > jobs {
					t.Fatalf("a page of %d: %d jobs, %v", limit, len(page.Jobs), err)
				}
				for _, j := range page.Jobs {
					names = append(names, j.Name)
				}
				if q.Cursor = page.Next; q.Cursor == "" {
					break
				}
			}
			first, last := "n0", "n6"
			if !ascending {
				first, last = last, first
			}
			if len(names) != jobs || names[0] != first || names[jobs-1] != last {
				t.Errorf("pages of %d, ascending %v: %v", limit, ascending, names)
			}
		}
	}
	for _, bad := range []string{"x", "-1", "0", "9999999999999999999999"} {
		if _, err := b.Jobs(t.Context(), api.JobQuery{Cursor: bad}); skyport.CodeOf(err) != skyport.CodeInvalid {
			t.Errorf("cursor %q: %v", bad, err)
		}
	}
}

// Only the person as whom core runs may name files of this machine.
func TestPathsAreForOnePerson(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	file := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := sub("input-files " + file)
	s.ReadPaths = true
	if _, err := b.Submit(t.Context(), ada, "", []api.Submission{s}); err != nil {
		t.Errorf("of the person: %v", err)
	}
	if _, err := b.Submit(t.Context(), api.User{ID: skyport.NewUserID(), Name: "bob"}, "", []api.Submission{s}); skyport.CodeOf(err) != skyport.CodeInputNotStaged {
		t.Errorf("of somebody else: %v", err)
	}
	b.person = ""
	if _, err := b.Submit(t.Context(), api.User{Name: "nobody"}, "", []api.Submission{s}); skyport.CodeOf(err) != skyport.CodeInputNotStaged {
		t.Errorf("of nobody, to a core of nobody: %v", err)
	}
}

func TestStagingIsPerUser(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	for _, bad := range []skyport.UserID{"", "..", "../../etc", "a/b"} {
		if _, err := b.Staging(bad); skyport.CodeOf(err) != skyport.CodeInvalid {
			t.Errorf("user %q: %v", bad, err)
		}
	}
	first, err := b.Staging(ada.ID)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := b.Staging(ada.ID); err != nil || second != first {
		t.Errorf("a second depot, %v", err)
	}
	if users, err := b.staging.users(); err != nil || len(users) != 1 || users[0] != ada.ID {
		t.Errorf("users %v, %v", users, err)
	}
}

func TestReady(t *testing.T) {
	t.Parallel()
	if err := newBackend(t).Ready(t.Context()); err != nil {
		t.Error(err)
	}
}

// Core starts and stops again and again on one spool, and is alone on it.
func TestRun(t *testing.T) {
	dir, home := filepath.Join(t.TempDir(), "spool"), t.TempDir()
	t.Setenv("HOME", home)
	if _, err := spool.Setup(t.Context(), spool.Options{Dir: dir, Home: home, User: "ada", CoreListen: "127.0.0.1:0", GateListen: "127.0.0.1:0"}); err != nil {
		t.Fatal(err)
	}
	s, err := spool.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		ready, ended := make(chan string, 1), make(chan error, 1)
		go func() {
			ended <- Run(ctx, Options{Spool: s, Version: "test", Logger: slog.New(slog.DiscardHandler), Ready: func(url string) { ready <- url }})
		}()
		select {
		case url := <-ready:
			if url == "" || s.CoreURL() != url {
				t.Errorf("it answers at %q and announces %q", url, s.CoreURL())
			}
		case err := <-ended:
			t.Fatalf("it ended before it was ready: %v", err)
		}
		if person() == "" {
			t.Error("it does not know as whom it runs")
		}
		err := Run(ctx, Options{Spool: s, Version: "test", Logger: slog.New(slog.DiscardHandler)})
		if skyport.CodeOf(err) != skyport.CodeConflict {
			t.Errorf("a second core on the spool: %v", err)
		}
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("it ended with %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("it does not end")
		}
	}
}

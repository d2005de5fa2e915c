package lifecycle_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/gatetest"
	"github.com/openworkload/skyport/internal/core/archive"
	"github.com/openworkload/skyport/internal/core/lifecycle"
	"github.com/openworkload/skyport/internal/core/store"
	"github.com/openworkload/skyport/internal/forward"
	"github.com/openworkload/skyport/internal/seal"
	"github.com/openworkload/skyport/internal/transfer"
	"github.com/openworkload/skyport/internal/worker/protocol"
	"github.com/openworkload/skyport/internal/worker/protocol/protocoltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// house is a core without its doors: a store on disk and an engine, a site in
// memory, and a worker for each partition. It can be stopped and started again.
type house struct {
	*testing.T
	dir      string
	site     *gatetest.Provider
	archive  *archive.Archive
	limits   lifecycle.Limits
	ports    forward.Addresses
	newborn  func(*protocoltest.Worker) // done to each worker before it is dialled
	noAnswer bool                       // workers are down at first
	budget   *skyport.Budget            // of the account
	change   func(*lifecycle.Options)   // of the engine

	mu      sync.Mutex
	workers map[skyport.PartitionID]*protocoltest.Worker // of the main nodes
	nodes   map[string]*protocoltest.Worker
	live    []skyport.Event

	store  *store.Store
	engine *lifecycle.Engine
	stop   func()
}

// build makes a house and starts it.
func build(t *testing.T, change ...func(*house)) *house {
	t.Helper()
	h := &house{T: t, dir: t.TempDir(), workers: map[skyport.PartitionID]*protocoltest.Worker{}, nodes: map[string]*protocoltest.Worker{}}
	h.limits = lifecycle.Limits{Grace: time.Second, Drain: 50 * time.Millisecond}
	h.site = gatetest.NewProvider(gatetest.Script{Endpoint: h.endpoint})
	h.archive = archive.New(filepath.Join(h.dir, "jobs"))
	for _, c := range change {
		c(h)
	}
	h.start()
	t.Cleanup(func() { h.stop() })
	return h
}

func (h *house) endpoint(id skyport.PartitionID, node string) (string, string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := h.nodes[node]
	if w == nil {
		w = protocoltest.New(h.T)
		if h.noAnswer {
			w.Down()
		}
		if h.newborn != nil {
			h.newborn(w)
		}
		h.nodes[node] = w
		if strings.HasSuffix(node, "-main") {
			h.workers[id] = w
		}
	}
	return "127.0.0.1", w.Endpoint()
}

func (h *house) start() {
	h.Helper()
	var engine *lifecycle.Engine
	db, err := store.Open(context.Background(), store.Options{Path: filepath.Join(h.dir, "db"), OnCommit: func(c store.Commit) { engine.Committed(c) }})
	if err != nil {
		h.Fatal(err)
	}
	sealer, err := seal.Open(filepath.Join(h.dir, "sealing.key"))
	if err != nil {
		h.Fatal(err)
	}
	options := lifecycle.Options{
		Sealer: sealer,
		Store:  db, Gate: atOnce{h.site}, Catalog: listing{h.site, h.budget}, Archive: h.archive, Owner: "us", Limits: h.limits, Addresses: h.ports,
		Staging: func(skyport.UserID) (*transfer.Depot, error) {
			return nil, skyport.Errorf(skyport.CodeNotFound, "none")
		},
		Live: func(e skyport.Event) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.live = append(h.live, e)
		},
		Logger: slog.New(slog.NewTextHandler(testLog{h.T}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	if h.change != nil {
		h.change(&options)
	}
	engine = lifecycle.New(options)
	if err := engine.Load(context.Background()); err != nil {
		h.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); engine.Run(ctx) }()
	h.store, h.engine = db, engine
	h.stop = sync.OnceFunc(func() {
		cancel()
		<-done
		if err := db.Close(); err != nil {
			h.Error(err)
		}
	})
}

// restart is what a crash and a new start are to the rows.
func (h *house) restart() {
	h.Helper()
	h.stop()
	h.start()
}

// testLog writes to the log of a test.
type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// atOnce is a gate without HTTP between.
type atOnce struct{ *gatetest.Provider }

func (g atOnce) Wait(ctx context.Context, site string, id skyport.PartitionID, after string) (gate.PartitionStatus, string, error) {
	for {
		changed := g.Changed()
		status, err := g.Status(ctx, site, id)
		if err != nil {
			return status, "", err
		}
		version, err := json.Marshal(status)
		if err != nil || string(version) != after {
			return status, string(version), err
		}
		select {
		case <-ctx.Done():
			return status, after, ctx.Err()
		case <-changed:
		}
	}
}

// List tells what everybody has, as a gate may that does not look at owners.
func (g atOnce) List(ctx context.Context, site, _ string) ([]gate.PartitionStatus, error) {
	return g.Provider.List(ctx, site, "")
}

// listing is a catalogue that knows the site from the start.
type listing struct {
	p      *gatetest.Provider
	budget *skyport.Budget
}

func (l listing) Sites() []skyport.Site {
	sites, _ := l.p.Sites(context.Background())
	return sites
}

func (l listing) Flavors() []skyport.Flavor {
	flavors, _ := l.p.Flavors(context.Background(), "test")
	return flavors
}

func (l listing) Accounts() []skyport.Account {
	return []skyport.Account{{Name: "lab", Sites: []string{"*"}, Users: []string{"*"}, Budget: l.budget}}
}
func (listing) Blind() string { return "" }

// submit stores a job, as core does for one that was admitted.
func (h *house) submit(r skyport.Request) skyport.JobID {
	h.Helper()
	r.Nodes = max(1, r.Nodes)
	job := skyport.Job{ID: skyport.NewJobID(), Owner: "me", Account: "lab", State: skyport.JobQueued, Details: skyport.DetailsQueued, Request: r}
	if err := h.store.Update(h.Context(), func(tx *store.Tx) error { return tx.InsertJob(&job, []byte("#!/bin/sh\n")) }); err != nil {
		h.Fatal(err)
	}
	return job.ID
}

func (h *house) job(id skyport.JobID) skyport.Job {
	h.Helper()
	job, err := h.store.Job(h.Context(), id)
	if err != nil {
		h.Fatal(err)
	}
	return job
}

func (h *house) attempts(id skyport.JobID) []skyport.Attempt {
	h.Helper()
	rows, err := h.store.Attempts(h.Context(), id)
	if err != nil {
		h.Fatal(err)
	}
	return rows
}

func (h *house) partitions() []skyport.Partition {
	h.Helper()
	rows, err := h.store.Partitions(h.Context(), true, 0)
	if err != nil {
		h.Fatal(err)
	}
	return rows
}

// until waits for a condition.
func (h *house) until(what string, holds func() bool) {
	h.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); {
		if time.Now().After(deadline) {
			h.tellAll()
			h.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond) // between two looks
	}
}

// tellAll writes where everything stands.
func (h *house) tellAll() {
	jobs, _ := h.store.Jobs(h.Context(), store.JobFilter{})
	for _, j := range jobs {
		h.Logf("job %s %s %q attempts %+v", j.ID.Short(), j.State, j.Details, h.attempts(j.ID))
	}
	for _, p := range h.partitions() {
		h.Logf("partition %s %s %q", p.ID.Short(), p.State, p.Details)
	}
}

// comesTo waits until the job is in a state.
func (h *house) comesTo(id skyport.JobID, state skyport.JobState) skyport.Job {
	h.Helper()
	h.until("job in "+string(state), func() bool { return h.job(id).State == state })
	return h.job(id)
}

// runs waits until the job runs, and tells where and under what name.
func (h *house) runs(id skyport.JobID) (*protocoltest.Worker, string) {
	h.Helper()
	job := h.comesTo(id, skyport.JobRunning)
	return h.worker(job.Partition), skyport.RunName(id, job.Attempt)
}

func (h *house) worker(id skyport.PartitionID) *protocoltest.Worker {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.workers[id]
}

func (h *house) node(name string) *protocoltest.Worker {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.nodes[name]
}

func (h *house) everyWorker(do func(*protocoltest.Worker)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range h.workers {
		do(w)
	}
}

// inState tells how many partitions are in one of the states.
func (h *house) inState(states ...skyport.PartitionState) (n int) {
	for _, p := range h.partitions() {
		for _, s := range states {
			if p.State == s {
				n++
			}
		}
	}
	return n
}

// nothingIsLeft waits until the site is empty and no attempt holds anything.
func (h *house) nothingIsLeft() {
	h.Helper()
	h.until("nothing is left", func() bool {
		active, err := h.store.Active(h.Context())
		if err != nil {
			h.Fatal(err)
		}
		there, err := h.site.List(h.Context(), "test", "")
		if err != nil {
			h.Fatal(err)
		}
		return len(active.Jobs)+len(active.Attempts)+len(active.Partitions)+len(there) == 0
	})
}

func (h *house) log(id skyport.JobID, attempt int) string {
	h.Helper()
	log, err := h.archive.OpenLog(id, attempt, skyport.Stdout)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = log.Close() }() // was only read
	var text bytes.Buffer
	if _, err := io.Copy(&text, io.LimitReader(log, 1<<20)); err != nil {
		h.Error(err)
	}
	return text.String()
}

// input makes a file for a job to take along.
func (h *house) input(text string) string {
	h.Helper()
	path := filepath.Join(h.TempDir(), "input.txt")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		h.Fatal(err)
	}
	return path
}

// endsAtOnce has runs write a line and an output, and end.
func endsAtOnce(w *protocoltest.Worker) {
	w.OnStart(func(w *protocoltest.Worker, spec protocol.RunSpec) {
		if err := os.WriteFile(filepath.Join(w.Work(spec.Run), "out.txt"), []byte("result"), 0o600); err != nil {
			panic(err)
		}
		w.Write(spec.Run, "hello\n")
		w.End(spec.Run, 0)
	})
}

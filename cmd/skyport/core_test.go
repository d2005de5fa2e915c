package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/api"
	"github.com/openworkload/skyport/internal/core/api/apitest"
	"github.com/openworkload/skyport/internal/transfer"
)

// noon is when everything happens in these tests.
var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// fakeCore is core in memory behind the real API, and a user of it.
type fakeCore struct {
	*apitest.Backend
	t      *testing.T
	server *apitest.Server
	env    map[string]string
	spool  string
	names  []string // pairs of what is random and what golden files say instead
}

func newFakeCore(t *testing.T) *fakeCore {
	t.Helper()
	depot, err := transfer.OpenDepot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := depot.Close(); err != nil {
			t.Error(err)
		}
	})
	backend := &apitest.Backend{Depot: depot, Now: func() time.Time { return noon }}
	f := &fakeCore{Backend: backend, t: t, server: apitest.Serve(t, backend), spool: t.TempDir()}
	cert, key := f.server.User(skyport.User{ID: "0b5ab3a1-59e5-4a0c-8f0e-6d4a8d7a1b01", Name: "ada"})
	f.env = map[string]string{"SWM_CORE": f.server.URL(), "SWM_CERT": cert, "SWM_KEY": key, "SWM_CA": f.server.CAFile()}
	return f
}

// command is one run of the program against the core.
type command struct {
	f         *fakeCore
	done      chan struct{}
	code      int
	mu        sync.Mutex
	out, errs bytes.Buffer
	stop      context.CancelFunc
}

// locked lets a test read what a command writes meanwhile.
type locked struct {
	mu *sync.Mutex
	b  *bytes.Buffer
}

func (l locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (c *command) output() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.String()
}

func (f *fakeCore) start(args ...string) *command {
	ctx, cancel := context.WithCancel(f.t.Context())
	c := &command{f: f, done: make(chan struct{}), stop: cancel}
	a := newApp(strings.NewReader("#!/bin/sh\necho from standard input\n"), locked{&c.mu, &c.out}, locked{&c.mu, &c.errs})
	a.Now = func() time.Time { return noon.Add(5 * time.Minute) }
	a.Env = func(name string) string { return f.env[name] }
	go func() {
		defer close(c.done)
		defer cancel()
		c.code = run(ctx, a, append([]string{"--spool", f.spool}, args...))
	}()
	f.t.Cleanup(func() { cancel(); <-c.done })
	return c
}

// wait returns what the command said, with what is random replaced.
func (c *command) wait() (code int, out, errs string) {
	c.f.t.Helper()
	select {
	case <-c.done:
	case <-time.After(30 * time.Second):
		c.stop()
		<-c.done
		c.f.t.Fatalf("the command did not end; it said %q and %q", c.out.String(), c.errs.String())
	}
	tame := strings.NewReplacer(c.f.names...)
	return c.code, tame.Replace(c.out.String()), tame.Replace(c.errs.String())
}

func (f *fakeCore) sky(args ...string) (code int, out, errs string) {
	f.t.Helper()
	return f.start(args...).wait()
}

// submit makes a job, and a name for it in golden files.
func (f *fakeCore) submit(name string) skyport.JobID {
	f.t.Helper()
	code, out, errs := f.sky("submit", "--name", name, "--", "true")
	if code != 0 {
		f.t.Fatalf("submit ends with %d: %s", code, errs)
	}
	id := skyport.JobID(strings.TrimSpace(out))
	digit := fmt.Sprint(len(f.names)/4 + 1)
	tame := strings.Repeat(digit, 8)
	f.names = append(f.names, string(id), tame+"-0000-4000-8000-000000000000", id.Short(), tame)
	return id
}

// theJob waits until there is one, and returns its id.
func (f *fakeCore) theJob() skyport.JobID {
	f.t.Helper()
	var id skyport.JobID
	f.eventually("a job is submitted", func() bool {
		_, out, _ := f.sky("jobs", "--all", "--json")
		_, rest, found := strings.Cut(out, `"id": "`)
		if found {
			id = skyport.JobID(rest[:36])
		}
		return found
	})
	return id
}

func (f *fakeCore) eventually(what string, ok func() bool) {
	f.t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			f.t.Fatalf("waited in vain until %s", what)
		case <-tick.C:
		}
	}
}

// end brings a job to its end.
func (f *fakeCore) end(id skyport.JobID, state skyport.JobState, code, signal int) {
	f.Move(id, skyport.JobRunning)
	f.Change(id, func(j *skyport.Job) { j.ExitCode, j.Signal = code, signal })
	f.Move(id, state)
}

// TestLists holds what people and programs see of jobs and sites.
func TestLists(t *testing.T) {
	t.Parallel()
	f := newFakeCore(t)
	f.Catalog.Sites = []skyport.Site{
		{ID: "9a000000-0000-4000-8000-000000000001", Name: "local", Kind: "local", Server: "localhost", Local: true, DefaultFlavor: "local.1", Limits: skyport.Limits{Nodes: 4, CPUs: 2, Memory: 8 << 30}},
		{ID: "9a000000-0000-4000-8000-000000000002", Name: "west", Kind: "azure", Server: "management.azure.com", Port: 443, Container: true, Region: "westeurope", Currency: "USD"},
	}
	f.Catalog.Flavors = []skyport.Flavor{
		{ID: "9b000000-0000-4000-8000-000000000001", Name: "local.1", Site: "local", CPUs: 1, Memory: 4 << 30, Storage: 20 << 30, Arch: "amd64"},
		{ID: "9b000000-0000-4000-8000-000000000002", Name: "Standard_D4s_v5", Site: "west", CPUs: 4, Memory: 16 << 30, Price: 0.192, SpotPrice: 0.0384, Arch: "amd64"},
		{ID: "9b000000-0000-4000-8000-000000000003", Name: "Standard_ND96", Site: "west", CPUs: 96, Memory: 1 << 40, GPUs: 8, GPUModel: "A100", Price: 27.2, Arch: "amd64"},
		{ID: "9b000000-0000-4000-8000-000000000004", Name: "lab.gpu", Site: "local", CPUs: 8, Memory: 64 << 30, GPUs: 1, Unpriced: true, Arch: "arm64"},
	}
	f.Catalog.Images = []skyport.Image{
		{ID: "9c000000-0000-4000-8000-000000000001", Name: "host", Site: "local", Kind: skyport.ImageCloud, Comment: "the system of this machine"},
		{ID: "9c000000-0000-4000-8000-000000000002", Name: "python:3.13", Site: "west", Kind: skyport.ImageContainer},
	}
	f.Catalog.Partitions = []skyport.Partition{
		{
			ID: "9d000000-0000-4000-8000-000000000001", Name: "swm-9d000000", State: skyport.PartitionBusy, Details: "1 job", Account: "default",
			Site: "west", Flavor: f.Catalog.Flavors[1], Created: noon.Add(-time.Hour),
			Nodes: []skyport.Node{
				{Name: "swm-9d000000-main", Role: skyport.RoleMain, Address: "10.0.0.4"}, {Name: "swm-9d000000-compute1", Role: skyport.RoleCompute},
			},
		},
		{ID: "9d000000-0000-4000-8000-000000000003", State: skyport.PartitionDeleted, Site: "local", Flavor: f.Catalog.Flavors[0], Created: noon.Add(-48 * time.Hour), Nodes: []skyport.Node{}},
	}
	f.Catalog.Orphans = []skyport.Orphan{{Site: "west", Partition: "9e000000-0000-4000-8000-000000000001", Name: "swm-9e000000", Since: noon.Add(-time.Minute), Reason: "unknown to this core"}}

	done, running, queued := f.submit("Opticks"), f.submit("天気予報"), f.submit("nightly")
	f.end(done, skyport.JobFinished, 3, 0)
	f.Change(done, func(j *skyport.Job) {
		j.EndTime, j.ResultBytes, j.Warnings = noon.Add(75*time.Second), 4096, []string{"output plots is missing"}
	})
	f.SetMetrics(done, skyport.Metrics{CPUPercent: &skyport.AvgMax{Avg: 87.5, Max: 199.6}, MemBytes: &skyport.AvgMax{Avg: 1 << 20, Max: 3 << 20}})
	// Names of other terminals are not checked by us before they are shown.
	f.Change(queued, func(j *skyport.Job) { j.Name = "nightly\x1b[31m" })
	f.Move(running, skyport.JobRunning)
	f.Change(running, func(j *skyport.Job) {
		j.Site, j.Flavor, j.Details, j.Address, j.NodeNames = "west", "Standard_D4s_v5", "Running", "127.1.2.3", []string{"swm-9d000000-main"}
		j.Request.Ports = []skyport.Port{{Number: 8888, Direction: skyport.In}}
	})
	f.Spending.Of = func(q api.CostQuery) []skyport.Cost {
		switch {
		case q.Job == running:
			return []skyport.Cost{{Key: string(running), Currency: "USD", Amount: 0.0421, Running: 0.0021, NodeHours: 0.22}}
		case q.Job == done:
			return []skyport.Cost{{Key: string(done), Amount: 1.5, NodeHours: 3}, {Key: string(done), Currency: "EUR", Amount: 2}}
		case q.Job != "":
			return nil
		}
		return []skyport.Cost{
			{Key: "some " + string(q.By), Currency: "EUR", Amount: 1234.5, Running: 0.25, NodeHours: 4321.987},
			{Key: "some " + string(q.By) + " " + q.Since + " " + q.Until, Currency: "USD", Amount: 0.001, NodeHours: 0.01, Unpriced: true},
		}
	}
	f.Spending.Budgets = []skyport.BudgetStatus{
		{Account: "default", Budget: skyport.Budget{Amount: 100, Currency: "EUR", Period: skyport.BudgetMonth}, Spent: 81.2, Since: noon.AddDate(0, 0, 1-noon.Day()).Truncate(24 * time.Hour)},
		{Account: "lab", Budget: skyport.Budget{Amount: 5, Period: skyport.BudgetTotal, EndJobs: true}, Spent: 5.01, UsedUp: true},
		{Account: "theirs", Budget: skyport.Budget{Amount: 5, Period: skyport.BudgetTotal}, Spent: 4},
	}
	f.Catalog.Accounts = []skyport.Account{{Name: "default", Users: []string{"*"}}, {Name: "lab", Users: []string{"*"}}, {Name: "theirs", Users: []string{"somebody"}}}
	f.Write(done, 1, skyport.Stdout, "one\ntwo\nthree")
	f.Write(done, 1, skyport.Stderr, "trouble\n")

	for name, args := range map[string]string{
		"jobs":             "jobs",
		"jobs-all":         "jobs --all",
		"jobs-state":       "ps --state f",
		"jobs-name":        "jobs --all --name pti --limit 1",
		"show":             "show Opticks",
		"show-running":     "show " + running.Short(),
		"show-script":      "show --script @last",
		"logs":             "logs Opticks",
		"logs-tail":        "logs --tail 2 Opticks",
		"logs-stderr":      "logs --stderr Opticks",
		"logs-follow":      "logs -f Opticks",
		"events":           "events Opticks",
		"ports":            "ports " + string(running),
		"ports-none":       "ports -- -",
		"metrics":          "metrics Opticks",
		"metrics-none":     "metrics " + queued.Short()[:6],
		"sites":            "sites",
		"flavors":          "flavors",
		"flavors-west":     "flavors --site west",
		"flavors-gpu":      "flavors --gpu --max-price 30",
		"flavors-spot":     "flavors --spot",
		"images":           "images",
		"nodes":            "nodes",
		"partitions":       "partitions",
		"partitions-all":   "partitions --all",
		"cost":             "cost",
		"cost-month":       "cost --by month --since 2026-11 --until 2026-11-22",
		"gc":               "gc --dry-run",
		"gc-site":          "gc --site local",
		"dry-run":          "submit --dry-run --cpus 2 -- echo hello",
		"dry-run-standard": "submit --dry-run -",
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := f.sky(strings.Fields(args)...)
			if code != 0 || errs != "" {
				t.Errorf("%s ends with %d and says %q", args, code, errs)
			}
			golden(t, filepath.Join("lists", name+".txt"), out)
			code, out, errs = f.sky(append([]string{"--json"}, strings.Fields(args)...)...)
			if code != 0 || errs != "" {
				t.Errorf("--json %s ends with %d and says %q", args, code, errs)
			}
			golden(t, filepath.Join("lists", name+".json"), out)
		})
	}
}

// TestEmptyListsAreArrays holds for a core on which nothing has happened.
func TestEmptyListsAreArrays(t *testing.T) {
	t.Parallel()
	f := newFakeCore(t)
	for _, args := range []string{"jobs", "events", "sites", "flavors", "images", "nodes", "partitions", "gc"} {
		if code, out, errs := f.sky("--json", args); code != 0 || out != "[]\n" || errs != "" {
			t.Errorf("%s --json ends with %d and says %q, %q", args, code, out, errs)
		}
	}
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	f := newFakeCore(t)
	good, bad, killed, canceled, broken := f.submit("good"), f.submit("bad"), f.submit("killed"), f.submit("canceled"), f.submit("broken")
	f.submit("twin")
	f.submit("twin")
	f.end(good, skyport.JobFinished, 0, 0)
	f.end(bad, skyport.JobFinished, 7, 0)
	f.end(killed, skyport.JobFinished, 0, 9)
	f.end(canceled, skyport.JobCanceled, 0, 0)
	f.end(broken, skyport.JobFailed, 0, 0)
	for _, c := range []struct {
		args string
		code int
		errs string // beginning of what standard error says
	}{
		{"wait good", 0, ""},
		{"wait bad", 7, ""},
		{"wait killed", 137, ""},
		{"wait canceled", 125, ""},
		{"wait broken", 124, ""},
		{"wait good bad killed", 7, ""},
		{"--json wait killed bad", 137, ""},
		{"wait good nobody", 3, "skyport: find job \"nobody\""},
		{"show nobody", 3, "skyport: find job \"nobody\""},
		{"show ffffffff", 3, "skyport: find job \"ffffffff\""},
		{"show 00000000-0000-4000-8000-000000000000", 3, "skyport: "},
		{"show twin", 4, "skyport: find job \"twin\": 2 jobs have this name"},
		{"cancel good", 4, "skyport: "},
		{"cancel twin good nobody", 4, "skyport: find job \"twin\""},
		{"logs good", 3, "skyport: "},
		{"results good", 3, "skyport: "},
		{"purge good", 2, "skyport: this asks before"},
		{"events --after -1", 2, "skyport: --after"},
		{"logs --tail -1 good", 2, "skyport: --tail"},
	} {
		code, _, errs := f.sky(strings.Fields(c.args)...)
		if code != c.code || c.errs != "" && !strings.HasPrefix(errs, c.errs) {
			t.Errorf("%s ends with %d, want %d, and says %q", c.args, code, c.code, errs)
		}
	}
}

func TestCoreIsAway(t *testing.T) {
	t.Parallel()
	f := newFakeCore(t)
	f.server.Stop()
	code, out, errs := f.sky("sites")
	if code != exitUnreachable || out != "" || !strings.Contains(errs, "hint: ") {
		t.Errorf("without core it ends with %d and says %q, %q", code, out, errs)
	}
}

func TestInterrupted(t *testing.T) {
	t.Parallel()
	f := newFakeCore(t)
	f.submit("long")
	c := f.start("wait", "long")
	f.eventually("somebody listens", func() bool { return f.Subscribers() > 0 })
	c.stop()
	if code, _, errs := c.wait(); code != exitInterrupted || errs != "skyport: interrupted\n" {
		t.Errorf("interrupted, it ends with %d and says %q", code, errs)
	}
}

func TestChangeJobs(t *testing.T) {
	t.Parallel()
	f := newFakeCore(t)
	one, two := f.submit("one"), f.submit("two")
	code, out, errs := f.sky("cancel", "one", two.Short())
	if want := "11111111 (one): canceled\n22222222 (two): canceled\n"; code != 0 || out != want {
		t.Errorf("cancel ends with %d and says %q, %q, want %q", code, out, errs, want)
	}
	if code, out, errs = f.sky("requeue", string(one)); code != 0 || out != "11111111 (one): queued again\n" {
		t.Errorf("requeue ends with %d and says %q, %q", code, out, errs)
	}
	if code, out, errs = f.sky("purge", "--yes", "two"); code != 0 || out != "22222222 (two): purged\n" {
		t.Errorf("purge ends with %d and says %q, %q", code, out, errs)
	}
	if code, out, errs = f.sky("purge", "--yes", "--all", "--json"); code != 0 || out != "{\n  \"purged\": 1\n}\n" {
		t.Errorf("purge --all ends with %d and says %q, %q", code, out, errs)
	}
}

// TestFollow sees a job through its life.
func TestFollow(t *testing.T) {
	t.Parallel()
	for _, form := range []string{"text", "json"} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			f := newFakeCore(t)
			args := []string{"submit", "--follow", "--name", "poem", "-"}
			if form == "json" {
				args = append(args, "--json")
			}
			c := f.start(args...)
			id := f.theJob()
			f.names = append(f.names, string(id), "JOB", id.Short(), "SHORT")
			f.Move(id, skyport.JobWaiting)
			f.Emit(id, skyport.Event{Kind: skyport.EventDetails, Text: skyport.DetailsNewPartition + " local.1 at local"})
			f.Move(id, skyport.JobTransferring)
			f.Emit(id, skyport.Event{Kind: skyport.EventTransfer, Transfer: &skyport.Transfer{Name: "inputs", Done: 4096, Total: 4096, Files: 2}})
			f.Move(id, skyport.JobRunning)
			f.Write(id, 1, skyport.Stdout, "roses are red\n")
			f.eventually("the first line is shown", func() bool { return strings.Contains(c.output(), "roses") })
			f.Emit(id, skyport.Event{Kind: skyport.EventWarning, Text: "output plots is missing"})
			f.Write(id, 1, skyport.Stdout, "violets are blue\n")
			f.Change(id, func(j *skyport.Job) { j.ExitCode, j.ResultBytes = 5, 1<<20 })
			f.Move(id, skyport.JobFinished)
			code, out, errs := c.wait()
			if code != 5 {
				t.Errorf("follow ends with %d, want the job's 5", code)
			}
			if form == "text" {
				if want := "roses are red\nviolets are blue\n"; out != want {
					t.Errorf("standard output is %q, want %q", out, want)
				}
				golden(t, "follow.golden", errs)
				return
			}
			if errs != "" {
				t.Errorf("with --json standard error says %q", errs)
			}
			for _, want := range []string{`{"event":{"seq":1,`, `{"stream":"stdout","line":"violets are blue"}`, `{"job":{"id":"JOB"`} {
				if !strings.Contains(out, want) {
					t.Errorf("standard output lacks %s:\n%s", want, out)
				}
			}
		})
	}
}

func TestSubmitWaits(t *testing.T) {
	t.Parallel()
	f := newFakeCore(t)
	c := f.start("submit", "--wait", "--", "false")
	id := f.theJob()
	f.end(id, skyport.JobFinished, 1, 0)
	code, out, errs := c.wait()
	if code != 1 || out != string(id)+"\n" || !strings.Contains(errs, "finished, exit code 1") {
		t.Errorf("submit --wait ends with %d and says %q, %q", code, out, errs)
	}
}

// TestSubmitSends looks at what arrives at core.
func TestSubmitSends(t *testing.T) {
	t.Parallel()
	f := newFakeCore(t)
	dir := t.TempDir()
	input := filepath.Join(dir, "data.csv")
	script := filepath.Join(dir, "count.sh")
	for path, content := range map[string]string{input: "a,b\n", script: "#!/bin/sh\nwc -l data.csv\n"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	code, out, errs := f.sky("submit", "--input", input, "--nodes", "2", "--keep-resources", "--env", "A=1", "--env", "B=2", script)
	if code != 0 {
		t.Fatalf("submit ends with %d and says %q", code, errs)
	}
	if !strings.Contains(errs, "send inputs: 4 B") {
		t.Errorf("the sending of inputs is told as %q", errs)
	}
	sub := f.Submission(skyport.JobID(strings.TrimSpace(out)))
	if want := "#!/bin/sh\nwc -l data.csv\n"; string(sub.Script) != want {
		t.Errorf("the script is %q, want %q", sub.Script, want)
	}
	want := "[{input-files " + input + "} {nodes 2} {keep-resources yes} {env A=1} {env B=2} {name count.sh}]"
	if got := fmt.Sprint(sub.Directives); got != want {
		t.Errorf("the directives are %s, want %s", got, want)
	}
	if len(sub.Inputs) != 1 || sub.Inputs[0].Name != "data.csv" || sub.Inputs[0].Bytes != 4 {
		t.Errorf("the inputs are %+v", sub.Inputs)
	}
	_, out, _ = f.sky("submit", "--", "echo", "it's", "$HOME")
	sub = f.Submission(skyport.JobID(strings.TrimSpace(out)))
	if want := "#!/bin/sh\nexec echo 'it'\\''s' '$HOME'\n"; string(sub.Script) != want {
		t.Errorf("a command becomes the script %q, want %q", sub.Script, want)
	}
}

// TestCoreRefusesScript shows the mistakes that only core can find.
func TestCoreRefusesScript(t *testing.T) {
	t.Parallel()
	f := newFakeCore(t)
	script := filepath.Join(t.TempDir(), "job.sh")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n# WRONG\necho\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := f.sky("submit", script)
	if want := "line 3, column 6: unknown directive flavour\n  hint: did you mean flavor?\n"; code != exitRefused || out != "" || errs != want {
		t.Errorf("it ends with %d and says %q, %q, want %q", code, out, errs, want)
	}
}

func TestDirectoryOfResultsIsLeftAlone(t *testing.T) {
	t.Parallel()
	f := newFakeCore(t)
	f.end(f.submit("done"), skyport.JobFinished, 0, 0)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, errs := f.sky("results", "done", "--to", dir)
	if code != exitRefused || !strings.Contains(errs, "is not empty") || !strings.Contains(errs, "--force") {
		t.Errorf("a directory with files: it ends with %d and says %q", code, errs)
	}
}

// results are outputs in a directory, as core has them.
type results struct {
	transfer.Source
	missing []string
}

func (r results) Missing() []string { return r.missing }

func TestResults(t *testing.T) {
	t.Parallel()
	f := newFakeCore(t)
	outputs := t.TempDir()
	if err := errors.Join(
		os.Mkdir(filepath.Join(outputs, "plots"), 0o755),
		os.WriteFile(filepath.Join(outputs, "plots", "words.svg"), []byte("<svg/>"), 0o644),
		os.WriteFile(filepath.Join(outputs, "words.csv"), []byte("the,3\n"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	tree, err := transfer.Scan(t.Context(), transfer.ScanOptions{Root: outputs})
	if err != nil {
		t.Fatal(err)
	}
	id := f.submit("done")
	f.end(id, skyport.JobFinished, 0, 0)
	f.SetResults(id, results{tree, []string{"more.csv"}})

	code, out, errs := f.sky("results", "done", "--list")
	if code != 0 || errs != "warning: the job left no more.csv\n" {
		t.Errorf("--list ends with %d and says %q", code, errs)
	}
	golden(t, filepath.Join("lists", "results.txt"), out)
	_, out, _ = f.sky("results", "done", "--list", "--json")
	golden(t, filepath.Join("lists", "results.json"), out)

	dir := filepath.Join(t.TempDir(), "fresh")
	code, out, errs = f.sky("results", "done", "--to", dir)
	if want := "2 files, 12 B, in " + dir + "\n"; code != 0 || out != want {
		t.Errorf("results ends with %d and says %q, %q, want %q", code, out, errs, want)
	}
	got, err := os.ReadFile(filepath.Join(dir, "plots", "words.svg"))
	if err != nil || string(got) != "<svg/>" {
		t.Errorf("plots/words.svg is %q, %v", got, err)
	}
	if code, _, errs = f.sky("results", "done", "--to", dir, "--force"); code != 0 {
		t.Errorf("with --force it ends with %d and says %q", code, errs)
	}
}

func TestCompletionAsksCore(t *testing.T) {
	t.Parallel()
	f := newFakeCore(t)
	f.Catalog.Flavors = []skyport.Flavor{{Name: "local.1", Site: "local", CPUs: 1, Memory: 4 << 30}}
	f.submit("Opticks")
	for args, want := range map[string]string{
		"show|":            "11111111\tqueued Opticks",
		"submit|--flavor|": "local.1\tlocal, 1 cpu, 4.0 GiB, free",
	} {
		_, out, _ := f.sky(append([]string{"__complete"}, strings.Split(args, "|")...)...)
		if !strings.Contains(out, want+"\n") {
			t.Errorf("%s completes to %q, want %q", args, out, want)
		}
	}
}

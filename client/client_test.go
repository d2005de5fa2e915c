package client_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
	"github.com/openworkload/skyport/internal/core/api/apitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var ann = skyport.User{ID: "11111111-1111-4111-8111-111111111111", Name: "ann"}

const script = "#!/bin/sh\n#SWM name count\necho hello\n"

// core is the API over TLS with a backend in memory, and a client of it.
func core(t *testing.T, b *apitest.Backend, change ...func(*client.Options)) (*apitest.Server, *client.Client) {
	t.Helper()
	server := apitest.Serve(t, b)
	return server, connect(t, server, change...)
}

func connect(t *testing.T, server *apitest.Server, change ...func(*client.Options)) *client.Client {
	t.Helper()
	cert, key := server.User(ann)
	options := client.Options{URL: server.URL(), CAFile: server.CAFile(), CertFile: cert, KeyFile: key}
	for _, c := range change {
		c(&options)
	}
	c, err := client.New(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func submit(t *testing.T, c *client.Client) skyport.Job {
	t.Helper()
	job, err := c.Submit(t.Context(), client.Submission{Script: []byte(script)})
	if err != nil {
		t.Fatal(err)
	}
	return job
}

// eventually waits for a condition that no event tells of.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("never: %s", what)
		case <-tick.C:
		}
	}
}

func TestJobFromSubmissionToPurge(t *testing.T) {
	t.Parallel()
	b := &apitest.Backend{}
	_, c := core(t, b)
	ctx := t.Context()

	job := submit(t, c)
	if job.Owner != ann.ID || job.State != skyport.JobQueued {
		t.Errorf("submitted job: %+v", job)
	}
	if text, err := c.Script(ctx, job.ID); err != nil || string(text) != script {
		t.Errorf("script: %q, %v", text, err)
	}
	if canceled, err := c.Cancel(ctx, job.ID); err != nil || canceled.State != skyport.JobCanceled {
		t.Errorf("cancel: %+v, %v", canceled, err)
	}
	if _, err := c.Cancel(ctx, job.ID); skyport.CodeOf(err) != skyport.CodeConflict {
		t.Errorf("cancel again: %v, want conflict", err)
	}
	if again, err := c.Requeue(ctx, job.ID); err != nil || again.State != skyport.JobQueued || again.Attempt != 1 {
		t.Errorf("requeue: %+v, %v", again, err)
	}
	if attempts, err := c.Attempts(ctx, job.ID); err != nil || len(attempts) != 1 {
		t.Errorf("attempts: %+v, %v", attempts, err)
	}
	if steps, err := c.Timeline(ctx, job.ID); err != nil || len(steps) != 1 || steps[0].Name != "queued" {
		t.Errorf("timeline: %+v, %v", steps, err)
	}
	if found, err := c.Find(ctx, job.ID.Short()); err != nil || found.ID != job.ID {
		t.Errorf("find: %+v, %v", found, err)
	}
	if err := c.Purge(ctx, job.ID); err != nil {
		t.Errorf("purge: %v", err)
	}
	if _, err := c.Job(ctx, job.ID); skyport.CodeOf(err) != skyport.CodeNotFound {
		t.Errorf("purged job: %v, want not_found", err)
	}
}

func TestScriptOfAnyBytes(t *testing.T) {
	t.Parallel()
	b := &apitest.Backend{}
	_, c := core(t, b)
	text := []byte("#!/bin/sh\n\xff\xfe\x00 <&>\u2028\n")
	job, err := c.Submit(t.Context(), client.Submission{Script: text, InputPaths: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Script(t.Context(), job.ID); err != nil || string(got) != string(text) {
		t.Errorf("script came back as %q, %v", got, err)
	}
}

func TestErrorsTellTheirPlace(t *testing.T) {
	t.Parallel()
	b := &apitest.Backend{}
	_, c := core(t, b)
	_, err := c.Submit(t.Context(), client.Submission{Script: []byte("WRONG"), InputPaths: []string{}})
	var e *skyport.Error
	if !errors.As(err, &e) || e.Code != skyport.CodeInvalidScript || e.Line != 3 || e.Column != 6 || e.Hint == "" {
		t.Errorf("error: %#v", err)
	}
}

func TestJobsOverPages(t *testing.T) {
	t.Parallel()
	b := &apitest.Backend{}
	_, c := core(t, b)
	subs := make([]client.Submission, 1000)
	for i := range subs {
		subs[i] = client.Submission{Script: []byte(script), InputPaths: []string{}}
	}
	for range 2 {
		if jobs, err := c.SubmitBatch(t.Context(), "", subs); err != nil || len(jobs) != 1000 {
			t.Fatalf("batch: %d jobs, %v", len(jobs), err)
		}
	}
	submit(t, c)

	for name, test := range map[string]struct {
		filter client.JobFilter
		want   int
		first  int64
	}{
		"all, newest first": {client.JobFilter{}, 2001, 2001},
		"all, oldest first": {client.JobFilter{Ascending: true}, 2001, 1},
		"limited":           {client.JobFilter{Limit: 1500}, 1500, 2001},
		"none of that name": {client.JobFilter{Name: "nothing"}, 0, 0},
		"by state":          {client.JobFilter{States: []skyport.JobState{skyport.JobQueued, skyport.JobRunning}, Limit: 1}, 1, 2001},
	} {
		t.Run(name, func(t *testing.T) {
			var numbers []int64
			for job, err := range c.Jobs(t.Context(), test.filter) {
				if err != nil {
					t.Fatal(err)
				}
				numbers = append(numbers, job.Number)
			}
			if len(numbers) != test.want || test.want > 0 && numbers[0] != test.first {
				t.Errorf("%d jobs, first %v", len(numbers), numbers[:min(1, len(numbers))])
			}
			slices.Sort(numbers)
			if len(slices.Compact(numbers)) != test.want {
				t.Error("a job came twice")
			}
		})
	}
	if n, err := c.PurgeAll(t.Context(), client.JobFilter{}); err != nil || n != 2001 {
		t.Errorf("purged %d, %v", n, err)
	}
}

func TestSubmitIsRepeatedUntilCoreIsBack(t *testing.T) {
	t.Parallel()
	b := &apitest.Backend{}
	server, c := core(t, b)
	submit(t, c)
	server.Stop()
	var group sync.WaitGroup
	jobs := make(chan skyport.Job, 1)
	group.Go(func() {
		job, err := c.Submit(t.Context(), client.Submission{Script: []byte(script), Key: "k1"})
		if err != nil {
			t.Errorf("submit over a restart: %v", err)
		}
		jobs <- job
	})
	server.Start()
	group.Wait()
	job := <-jobs
	again, err := c.Submit(t.Context(), client.Submission{Script: []byte(script), Key: "k1"})
	if err != nil || again.ID != job.ID {
		t.Errorf("the same key made %s, want %s: %v", again.ID, job.ID, err)
	}
	_, err = c.Submit(t.Context(), client.Submission{Script: []byte(script + "#"), Key: "k1"})
	if skyport.CodeOf(err) != skyport.CodeKeyReused {
		t.Errorf("the key with another script: %v", err)
	}
}

func TestLostAnswerOfASubmissionMakesNoSecondJob(t *testing.T) {
	t.Parallel()
	b := &apitest.Backend{}
	server, c := core(t, b)
	var once sync.Once
	b.OnSubmitted = func() { once.Do(server.Cut) } // durable, and nobody hears it
	submit(t, c)
	var n int
	for range c.Jobs(t.Context(), client.JobFilter{}) {
		n++
	}
	if n != 1 {
		t.Errorf("%d jobs, want 1", n)
	}
}

func TestUnreachableCoreIsSaidSo(t *testing.T) {
	t.Parallel()
	server, c := core(t, &apitest.Backend{}, func(o *client.Options) { o.Patience = -1 })
	server.Stop()
	_, err := c.Version(t.Context())
	if skyport.CodeOf(err) != skyport.CodeUnavailable || !strings.Contains(skyport.HintOf(err), "skyport up") {
		t.Errorf("error: %v, hint %q", err, skyport.HintOf(err))
	}
	for _, err := range c.Events(t.Context(), client.EventFilter{}, 0) {
		if skyport.CodeOf(err) != skyport.CodeUnavailable {
			t.Errorf("events: %v", err)
		}
	}
}

func TestWhoIsNotKnown(t *testing.T) {
	t.Parallel()
	server, _ := core(t, &apitest.Backend{})
	other := apitest.Serve(t, &apitest.Backend{}) // of another authority
	cert, key := other.User(ann)
	c, err := client.New(client.Options{URL: server.URL(), CAFile: server.CAFile(), CertFile: cert, KeyFile: key})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Whoami(t.Context()); skyport.CodeOf(err) != skyport.CodeUnauthorized {
		t.Errorf("a foreign certificate: %v", err)
	}
	cert, key = server.User(ann)
	c, err = client.New(client.Options{URL: server.URL(), CAFile: other.CAFile(), CertFile: cert, KeyFile: key})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Whoami(t.Context()); skyport.CodeOf(err) != skyport.CodeUnauthorized {
		t.Errorf("a core of another authority: %v", err)
	}
}

func TestCatalogueAndCore(t *testing.T) {
	t.Parallel()
	b := &apitest.Backend{}
	b.Catalog.Sites = []skyport.Site{{Name: "local"}}
	b.Catalog.Flavors = []skyport.Flavor{{Name: "local.1", Site: "local"}}
	b.Catalog.Images = []skyport.Image{{Name: "debian", Site: "local"}}
	b.Catalog.Accounts = []skyport.Account{{Name: "mine", Users: []string{"ann"}}, {Name: "theirs", Users: []string{"bob"}}}
	b.Catalog.Partitions = []skyport.Partition{
		{ID: "p1", State: skyport.PartitionReady, Nodes: []skyport.Node{{Name: "n1"}}},
		{ID: "p2", State: skyport.PartitionDeleted},
	}
	b.Catalog.Orphans = []skyport.Orphan{{Name: "swm-1"}}
	_, c := core(t, b)
	ctx := t.Context()
	if list, err := c.Sites(ctx); err != nil || len(list) != 1 || list[0].Name != "local" {
		t.Errorf("sites: %+v, %v", list, err)
	}
	if list, err := c.Flavors(ctx); err != nil || len(list) != 1 {
		t.Errorf("flavors: %+v, %v", list, err)
	}
	if list, err := c.Images(ctx); err != nil || len(list) != 1 {
		t.Errorf("images: %+v, %v", list, err)
	}
	if list, err := c.Accounts(ctx); err != nil || len(list) != 1 || list[0].Name != "mine" {
		t.Errorf("accounts: %+v, %v", list, err)
	}
	if list, err := c.Partitions(ctx, false); err != nil || len(list) != 1 {
		t.Errorf("partitions: %+v, %v", list, err)
	}
	if list, err := c.Partitions(ctx, true); err != nil || len(list) != 2 {
		t.Errorf("all partitions: %+v, %v", list, err)
	}
	if list, err := c.Nodes(ctx); err != nil || len(list) != 1 || list[0].Name != "n1" || list[0].Partition != "p1" {
		t.Errorf("nodes: %+v, %v", list, err)
	}
	if list, err := c.Sweep(ctx, "", true); err != nil || len(list) != 1 || list[0].Removed {
		t.Errorf("dry sweep: %+v, %v", list, err)
	}
	if list, err := c.Sweep(ctx, "", false); err != nil || len(list) != 1 || !list[0].Removed {
		t.Errorf("sweep: %+v, %v", list, err)
	}
	if me, err := c.Whoami(ctx); err != nil || me != ann {
		t.Errorf("whoami: %+v, %v", me, err)
	}
	if v, err := c.Version(ctx); err != nil || v.Version != "test" || v.API != 1 {
		t.Errorf("version: %+v, %v", v, err)
	}
	if err := c.Ready(ctx); err != nil {
		t.Errorf("ready: %v", err)
	}
	if plan, err := c.Plan(ctx, client.Submission{Script: []byte(script)}); err != nil || plan.Site != "local" {
		t.Errorf("plan: %+v, %v", plan, err)
	}
}

func TestEventsOverCutsAndRestarts(t *testing.T) {
	t.Parallel()
	b := &apitest.Backend{}
	server, c := core(t, b)
	job := submit(t, c) // event 1
	const last = 200
	var group sync.WaitGroup
	group.Go(func() {
		for i := 2; i <= last; i++ {
			b.Emit(job.ID, skyport.Event{Kind: skyport.EventDetails})
			b.Emit(job.ID, skyport.Event{Kind: skyport.EventProgress})
			switch {
			case i == 100:
				server.Stop()
				server.Start()
			case i%20 == 0:
				server.Cut()
			}
		}
	})
	var seqs []int64
	for e, err := range c.Events(t.Context(), client.EventFilter{}, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Seq != 0 {
			seqs = append(seqs, e.Seq)
		}
		if e.Seq == last {
			break
		}
	}
	group.Wait()
	for i, seq := range seqs {
		if seq != int64(i)+1 {
			t.Fatalf("event %d has seq %d: lost, repeated or out of order", i+1, seq)
		}
	}
	if len(seqs) != last {
		t.Errorf("%d events, want %d", len(seqs), last)
	}
	eventually(t, "the stream's subscription ends", func() bool { return b.Subscribers() == 0 })
}

func TestEventsFromNowKeepTheirPlace(t *testing.T) {
	t.Parallel()
	b := &apitest.Backend{}
	server, c := core(t, b)
	job := submit(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var group sync.WaitGroup
	got := make(chan int64, 1)
	group.Go(func() {
		for e := range c.Events(ctx, client.EventFilter{Job: job.ID}, client.FromNow) {
			got <- e.Seq
			return
		}
	})
	eventually(t, "subscribed", func() bool { return b.Subscribers() == 1 })
	server.Stop()
	b.Emit(job.ID, skyport.Event{Kind: skyport.EventWarning}) // while nobody listens
	server.Start()
	if seq := <-got; seq != 2 {
		t.Errorf("first event has seq %d, want 2", seq)
	}
	group.Wait()
}

func TestStoredEvents(t *testing.T) {
	t.Parallel()
	b := &apitest.Backend{}
	_, c := core(t, b)
	job := submit(t, c)
	for range 2500 {
		b.Emit(job.ID, skyport.Event{Kind: skyport.EventDetails})
	}
	want := int64(11)
	for e, err := range c.StoredEvents(t.Context(), client.EventFilter{Job: job.ID}, 10) {
		if err != nil || e.Seq != want {
			t.Fatalf("event %d, %v, want %d", e.Seq, err, want)
		}
		want++
	}
	if want != 2502 {
		t.Errorf("ended before %d", want)
	}
}

func TestWaitOverARestart(t *testing.T) {
	t.Parallel()
	b := &apitest.Backend{}
	server, c := core(t, b)
	job := submit(t, c)
	var group sync.WaitGroup
	group.Go(func() {
		ended, err := c.Wait(t.Context(), job.ID)
		if err != nil || ended.State != skyport.JobFinished {
			t.Errorf("wait: %+v, %v", ended, err)
		}
	})
	eventually(t, "somebody waits", func() bool { return b.Subscribers() == 1 })
	b.Move(job.ID, skyport.JobRunning)
	server.Stop()
	b.Move(job.ID, skyport.JobFinished) // while nobody listens
	server.Start()
	group.Wait()

	if ended, err := c.Wait(t.Context(), job.ID); err != nil || ended.State != skyport.JobFinished {
		t.Errorf("wait for a job that has ended: %+v, %v", ended, err)
	}
	if _, err := c.Wait(t.Context(), skyport.NewJobID()); skyport.CodeOf(err) != skyport.CodeNotFound {
		t.Errorf("wait for no job: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Wait(ctx, job.ID); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled wait: %v", err)
	}
}

func TestLogFollowedOverCuts(t *testing.T) {
	t.Parallel()
	b := &apitest.Backend{}
	server, c := core(t, b)
	job := submit(t, c)
	log, err := c.Logs(t.Context(), job.ID, skyport.Stdout, client.LogOptions{})
	if skyport.CodeOf(err) != skyport.CodeNotFound {
		t.Fatalf("a log before it began: %v, %v", log, err)
	}
	var group sync.WaitGroup
	var got []byte
	group.Go(func() {
		log, err := c.Logs(t.Context(), job.ID, skyport.Stdout, client.LogOptions{Follow: true})
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = log.Close() }()
		if got, err = io.ReadAll(log); err != nil {
			t.Errorf("after %d bytes: %v", len(got), err)
		}
	})
	eventually(t, "the follower waits for the log", func() bool { return b.Subscribers() == 1 })
	b.Move(job.ID, skyport.JobRunning)
	var want strings.Builder
	for i := range 300 {
		line := strings.Repeat("x", i) + "\n"
		want.WriteString(line)
		b.Write(job.ID, 1, skyport.Stdout, line)
		if i%50 == 49 {
			server.Cut()
		}
	}
	server.Stop()
	server.Start()
	b.Move(job.ID, skyport.JobFinished)
	group.Wait()
	if string(got) != want.String() {
		t.Errorf("%d bytes arrived, want %d", len(got), want.Len())
	}
}

func TestLogParts(t *testing.T) {
	t.Parallel()
	b := &apitest.Backend{}
	_, c := core(t, b)
	job := submit(t, c)
	b.Move(job.ID, skyport.JobRunning)
	b.Write(job.ID, 1, skyport.Stderr, "one\ntwo\nthree\n")
	for name, test := range map[string]struct {
		opts client.LogOptions
		want string
	}{
		"all":              {client.LogOptions{}, "one\ntwo\nthree\n"},
		"offset":           {client.LogOptions{Offset: 4}, "two\nthree\n"},
		"past the end":     {client.LogOptions{Offset: 99}, ""},
		"tail":             {client.LogOptions{Tail: 2}, "two\nthree\n"},
		"tail of all":      {client.LogOptions{Tail: 9}, "one\ntwo\nthree\n"},
		"named attempt":    {client.LogOptions{Attempt: 1, Tail: 1}, "three\n"},
		"offset and tail?": {client.LogOptions{Offset: 1, Tail: 1}, "three\n"},
	} {
		t.Run(name, func(t *testing.T) {
			log, err := c.Logs(t.Context(), job.ID, skyport.Stderr, test.opts)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = log.Close() }()
			if text, err := io.ReadAll(log); err != nil || string(text) != test.want {
				t.Errorf("%q, %v, want %q", text, err, test.want)
			}
		})
	}
	if _, err := c.Logs(t.Context(), job.ID, skyport.Stderr, client.LogOptions{Attempt: 7}); skyport.CodeOf(err) != skyport.CodeNotFound {
		t.Errorf("log of no attempt: %v", err)
	}
}

func TestClosingALogEndsItsReader(t *testing.T) {
	t.Parallel()
	b := &apitest.Backend{}
	_, c := core(t, b)
	job := submit(t, c)
	b.Move(job.ID, skyport.JobRunning)
	b.Write(job.ID, 1, skyport.Stdout, "x")
	log, err := c.Logs(t.Context(), job.ID, skyport.Stdout, client.LogOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(log, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		if _, err := log.Read(make([]byte, 1)); err == nil {
			t.Error("read went on after Close")
		}
	})
	if err := log.Close(); err != nil {
		t.Error(err)
	}
	group.Wait()
}

func TestNewRefusesNonsense(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		options client.Options
		want    skyport.Code
	}{
		"no URL of ours": {client.Options{URL: "localhost:8443"}, skyport.CodeInvalid},
		"no CA":          {client.Options{CAFile: filepath.Join(dir, "none.pem")}, skyport.CodeUnauthorized},
		"empty CA":       {client.Options{CAFile: empty}, skyport.CodeUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			if c, err := client.New(test.options); skyport.CodeOf(err) != test.want || err == nil {
				t.Errorf("New: %v, %v", c, err)
			}
		})
	}
}

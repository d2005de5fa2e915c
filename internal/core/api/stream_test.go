package api_test

import (
	"bufio"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/api"
	"github.com/openworkload/skyport/internal/core/api/apitest"
	"github.com/openworkload/skyport/internal/transfer"
)

// follower is a reader of a stream that decides itself when it reads on.
type follower struct {
	header http.Header
	mu     sync.Mutex
	text   strings.Builder
	wrote  chan struct{} // one token for every write
	pause  chan struct{} // a write waits for it, if not nil
	cancel context.CancelFunc
	ended  chan struct{}
}

func follow(t *testing.T, h http.Handler, target string, pause chan struct{}, header ...string) *follower {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	f := &follower{header: http.Header{}, wrote: make(chan struct{}, 1<<16), pause: pause, cancel: cancel, ended: make(chan struct{})}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Test-User", "ann")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	go func() {
		defer close(f.ended)
		defer func() { _ = recover() }() // a stream that is broken off
		h.ServeHTTP(f, r)
	}()
	t.Cleanup(func() {
		cancel()
		<-f.ended
	})
	return f
}

func (f *follower) Header() http.Header { return f.header }
func (f *follower) WriteHeader(int)     {}
func (f *follower) Flush()              {}
func (f *follower) Write(p []byte) (int, error) {
	if f.pause != nil {
		<-f.pause
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.text.Write(p)
	f.wrote <- struct{}{}
	return len(p), nil
}

func (f *follower) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.text.String()
}

// until waits until the stream contains text.
func (f *follower) until(t *testing.T, text string) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for !strings.Contains(f.String(), text) {
		select {
		case <-f.wrote:
		case <-deadline:
			t.Fatalf("never came: %q in %q", text, f.String())
		}
	}
}

func (f *follower) ids() []int {
	var list []int
	scan := bufio.NewScanner(strings.NewReader(f.String()))
	for scan.Scan() {
		if id, ok := strings.CutPrefix(scan.Text(), "id: "); ok {
			n, _ := strconv.Atoi(id)
			list = append(list, n)
		}
	}
	return list
}

func TestEventStream(t *testing.T) {
	t.Parallel()
	b := &apitest.Backend{}
	h := newAPI(b)
	id := submit(t, h, "ann")    // 1
	other := submit(t, h, "bob") // 2
	b.Emit(id, skyport.Event{Kind: skyport.EventDetails, Text: "two\nlines"})
	f := follow(t, h, "/v1/jobs/"+string(id)+"/events", nil)
	f.until(t, "id: 3\n")
	b.Emit(other, skyport.Event{Kind: skyport.EventWarning})
	b.Emit(id, skyport.Event{Kind: skyport.EventProgress, Transfer: &skyport.Transfer{Name: "inputs", Done: 5}})
	b.Move(id, skyport.JobRunning)
	f.until(t, "id: 5\n")
	text := f.String()
	if got := f.header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("Content-Type %q", got)
	}
	if !strings.Contains(text, "\n\nevent: progress\ndata: {") {
		t.Errorf("no progress without an id: %s", text)
	}
	if strings.Contains(text, string(other)) || strings.Contains(text, "two\nlines") {
		t.Errorf("stream: %s", text)
	}
	for _, resume := range [][]string{
		{"/v1/events?after=3"},
		{"/v1/events", "Last-Event-ID", "3"},
		{"/v1/events?after=1", "Last-Event-ID", "3"},
	} {
		g := follow(t, h, resume[0], nil, resume[1:]...)
		g.until(t, "id: 5\n")
		if ids := g.ids(); len(ids) != 1 || ids[0] != 5 {
			t.Errorf("%v: ids %v, want 5 alone", resume, ids)
		}
	}
}

// TestSlowFollowerMissesNothing lets a follower lose its channel again and again.
func TestSlowFollowerMissesNothing(t *testing.T) {
	t.Parallel()
	b := &apitest.Backend{SubscriberRoom: 2}
	h := newAPI(b)
	id := submit(t, h, "ann")
	pause := make(chan struct{})
	f := follow(t, h, "/v1/events", pause)
	const last = 3000
	for i := 2; i <= last; i++ {
		b.Emit(id, skyport.Event{Kind: skyport.EventDetails})
		if i%7 == 0 {
			pause <- struct{}{}
		}
	}
	close(pause)
	f.until(t, "id: "+strconv.Itoa(last)+"\n")
	for i, got := range f.ids() {
		if got != i+1 {
			t.Fatalf("event %d has id %d", i+1, got)
		}
	}
}

func TestQuietStreamBeatsAndEndsWithItsJob(t *testing.T) {
	b := &apitest.Backend{}
	h := newAPI(b)
	id := submit(t, h, "ann")
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, h, "/v1/jobs/"+string(id)+"/events?after=-1", nil)
		time.Sleep(16 * time.Second) // of the bubble
		synctest.Wait()
		if !strings.HasSuffix(f.String(), ": alive\n\n") {
			t.Errorf("no sign of life: %q", f.String())
		}
		if err := b.Purge(t.Context(), []skyport.JobID{id}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(15 * time.Second)
		synctest.Wait()
		select {
		case <-f.ended:
		default:
			t.Error("the stream of a purged job goes on")
		}
	})
}

func TestLogRangesAndFollow(t *testing.T) {
	t.Parallel()
	b := &apitest.Backend{}
	h := newAPI(b)
	id := submit(t, h, "ann")
	target := "/v1/jobs/" + string(id) + "/logs/stdout"
	b.Move(id, skyport.JobRunning)
	b.Write(id, 1, skyport.Stdout, "0123456789")
	r := call(t, h, "ann", http.MethodGet, target, "", "Range", "bytes=2-4")
	if r.status != http.StatusPartialContent || r.body != "234" || r.header.Get("Content-Range") != "bytes 2-4/10" {
		t.Errorf("range: %+v", r)
	}
	if r := call(t, h, "ann", http.MethodGet, target, "", "Range", "bytes=-3"); r.body != "789" {
		t.Errorf("suffix: %+v", r)
	}
	if r := call(t, h, "ann", http.MethodGet, target, "", "Range", "bytes=99-"); r.status != http.StatusRequestedRangeNotSatisfiable {
		t.Errorf("range past the end: %+v", r)
	}
	f := follow(t, h, target+"?follow=true&offset=8", nil)
	f.until(t, "89")
	if f.header.Get("Skyport-Log-Offset") != "8" || f.header.Get("Skyport-Log-Attempt") != "1" {
		t.Errorf("header: %v", f.header)
	}
	b.Write(id, 1, skyport.Stdout, "abc")
	f.until(t, "89abc")
	b.Move(id, skyport.JobFinished)
	<-f.ended
	if f.String() != "89abc" {
		t.Errorf("followed: %q", f.String())
	}
}

func TestFollowedLogThatNeverBegan(t *testing.T) {
	t.Parallel()
	b := &apitest.Backend{}
	h := newAPI(b)
	id := submit(t, h, "ann")
	f := follow(t, h, "/v1/jobs/"+string(id)+"/logs/stdout?follow=true", nil)
	b.Move(id, skyport.JobCanceled)
	<-f.ended
	if f.String() != "" || f.header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("%v %q", f.header, f.String())
	}
}

// results are a scanned directory.
type results struct {
	*transfer.Tree
	missing []string
}

func (r results) Missing() []string { return r.missing }

var _ api.Results = results{}

func TestResults(t *testing.T) {
	t.Parallel()
	b := &apitest.Backend{}
	h := newAPI(b)
	id := submit(t, h, "ann")
	dir := t.TempDir()
	large := strings.Repeat("0123456789", 500_000)
	for name, text := range map[string]string{"a.txt": "hello", "sub/large.csv": large, "empty": ""} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := transfer.Scan(t.Context(), transfer.ScanOptions{Root: dir})
	if err != nil {
		t.Fatal(err)
	}
	b.SetResults(id, results{tree, []string{"figure.svg"}})
	base := "/v1/jobs/" + string(id) + "/results"
	r := call(t, h, "ann", http.MethodGet, base, "")
	for _, part := range []string{`"count":3`, `"bytes":5000005`, `"missing":["figure.svg"]`, `"path":"sub/large.csv","kind":"file"`} {
		if !strings.Contains(r.body, part) {
			t.Errorf("no %s in %s", part, r.body)
		}
	}
	if r := call(t, h, "ann", http.MethodGet, base+"/files/a.txt", ""); r.body != "hello" {
		t.Errorf("a file: %+v", r)
	}
	if r := call(t, h, "ann", http.MethodGet, base+"/files/empty", ""); r.status != 200 || r.body != "" {
		t.Errorf("an empty file: %+v", r)
	}
	if r := call(t, h, "ann", http.MethodGet, base+"/files/sub/large.csv", ""); r.body != large {
		t.Errorf("a large file: %d bytes", len(r.body))
	}
	if r := call(t, h, "ann", http.MethodGet, base+"/files/sub/large.csv", "", "Range", "bytes=4000003-4000006"); r.body != "3456" {
		t.Errorf("a range: %+v", r)
	}
	for _, path := range []string{"sub", "none", "../a.txt", "..%2Fa.txt"} {
		if r := call(t, h, "ann", http.MethodGet, base+"/files/"+path, ""); r.status == http.StatusOK {
			t.Errorf("%s: %+v", path, r)
		}
	}
}

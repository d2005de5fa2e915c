package transfer

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if kind := os.Getenv("TRANSFER_TEST_PEER"); kind != "" {
		fmt.Fprintln(os.Stderr, runPeer(kind))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// serve runs handlers on a unix socket and returns a client for it.
func serve(t testing.TB, handler http.Handler) *http.Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
		MaxIdleConnsPerHost: 16,
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = server.Close()
		<-done
	})
	return &http.Client{Transport: transport}
}

func receiving(place Place) http.Handler {
	return NewReceiveHandler(func(*http.Request) (Place, error) { return place, nil }, Limits{})
}

func sending(source Source) http.Handler {
	return NewSendHandler(func(*http.Request) (Source, error) { return source, nil })
}

const base = "http://peer/v1/here"

// plant writes a tree with everything that trees have.
func plant(t testing.TB, dir string) {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	big := make([]byte, 9<<20)
	for i := range big {
		big[i] = byte(random.Uint32())
	}
	text := bytes.Repeat([]byte("all work and no play makes a dull boy\n"), 100_000)
	for name, content := range map[string][]byte{
		"a/b/c.txt": []byte("hello"), "a/empty": nil, "big": big, "text": text, "a/twin": big[:3<<20], "run.sh": []byte("#!/bin/sh\n"),
		"a.b": {0}, "a-b": {1}, "\xff\xfe odd\nname": []byte("odd"), "read-only": []byte("x"),
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{
		os.Chmod(filepath.Join(dir, "run.sh"), 0o755), os.Chmod(filepath.Join(dir, "read-only"), 0o400),
		os.MkdirAll(filepath.Join(dir, "void/deep"), 0o755), os.Symlink("b/c.txt", filepath.Join(dir, "a/link")),
		os.Symlink("nowhere", filepath.Join(dir, "dangling")),
		os.Chtimes(filepath.Join(dir, "big"), time.Time{}, time.Unix(1234567890, 123456789)),
		os.Chmod(filepath.Join(dir, "void"), 0o555),
		os.Chtimes(filepath.Join(dir, "void"), time.Time{}, time.Unix(1e9, 5)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func scanned(t testing.TB, dir string) *Tree {
	t.Helper()
	tree, err := Scan(t.Context(), ScanOptions{Root: dir})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// same fails unless two directories hold the same tree, times and modes included.
func same(t testing.TB, want, got string) {
	t.Helper()
	a, b := scanned(t, want).Manifest(), scanned(t, got).Manifest()
	if a.Hash() == b.Hash() {
		return
	}
	for i := range min(len(a.Entries), len(b.Entries)) {
		x, y := a.Entries[i], b.Entries[i]
		if fmt.Sprint(x) != fmt.Sprint(y) {
			x.Chunks, y.Chunks = nil, nil
			t.Fatalf("the trees differ at\n%s %+v and\n%s %+v", x.Path, x, y.Path, y)
		}
	}
	t.Fatalf("the trees differ: %d and %d entries", len(a.Entries), len(b.Entries))
}

func mustNotExist(t testing.TB, dir, pattern string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(found) > 0 {
		t.Fatalf("%v is left behind (%v)", found, err)
	}
}

func TestPush(t *testing.T) {
	t.Parallel()
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "work")
	plant(t, from)
	r := NewReceiver(to, ReceiverOptions{})
	client := serve(t, receiving(r))
	tree := scanned(t, from)
	moved, err := Push(t.Context(), client, base, tree, Options{Name: "inputs"})
	if err != nil {
		t.Fatal(err)
	}
	same(t, from, to)
	mustNotExist(t, to, stagePrefix+"*")
	if moved.Done != moved.Total || moved.Total != tree.Manifest().Bytes() || moved.Files != tree.Manifest().Files() || moved.Wire == 0 {
		t.Errorf("told %+v", moved)
	}
	if moved.Wire > 10<<20 {
		t.Errorf("%s crossed the wire: text should be compressed and twins sent once", moved.Wire)
	}
	again, err := Push(t.Context(), client, base, scanned(t, from), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if again.Wire > 10<<10 {
		t.Errorf("pushing again sent %s", again.Wire)
	}
	same(t, from, to)
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestPull(t *testing.T) {
	t.Parallel()
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "results")
	plant(t, from)
	client := serve(t, sending(scanned(t, from)))
	for range 2 {
		moved, err := Pull(t.Context(), client, base, to, Options{Receiver: ReceiverOptions{Durable: true}})
		if err != nil {
			t.Fatal(err)
		}
		same(t, from, to)
		if moved.Done != moved.Total {
			t.Errorf("told %+v", moved)
		}
	}
	mustNotExist(t, to, stagePrefix+"*")
}

func TestDepot(t *testing.T) {
	t.Parallel()
	from, to, dir := t.TempDir(), t.TempDir(), t.TempDir()
	plant(t, from)
	depot, err := OpenDepot(dir)
	if err != nil {
		t.Fatal(err)
	}
	client := serve(t, receiving(depot))
	tree := scanned(t, from)
	if _, err := Push(t.Context(), client, base, tree, Options{}); err != nil {
		t.Fatal(err)
	}
	if err := depot.Close(); err != nil {
		t.Fatal(err)
	}
	if depot, err = OpenDepot(dir); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = depot.Close() }()
	source, err := depot.Source(tree.Manifest().Hash())
	if err != nil {
		t.Fatal(err)
	}
	worker := serve(t, receiving(NewReceiver(to, ReceiverOptions{Stage: filepath.Join(t.TempDir(), "stage")})))
	if _, err := Push(t.Context(), worker, base, source, Options{}); err != nil {
		t.Fatal(err)
	}
	same(t, from, to)
	if freed, err := depot.Sweep(t.Context(), func(string) bool { return true }, 0); err != nil || freed != 0 {
		t.Errorf("sweeping what is kept freed %s, %v", freed, err)
	}
	freed, err := depot.Sweep(t.Context(), func(string) bool { return false }, 0)
	if err != nil || freed < 9<<20 {
		t.Errorf("sweeping freed %s, %v", freed, err)
	}
	if _, err := depot.Source(tree.Manifest().Hash()); skyport.CodeOf(err) != skyport.CodeNotFound {
		t.Errorf("after the sweep: %v", err)
	}
	left, err := fs.Glob(os.DirFS(dir), "*.*")
	if err != nil || len(left) > 0 {
		t.Errorf("after the sweep there are %v (%v)", left, err)
	}
}

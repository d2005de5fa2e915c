package worker_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openworkload/skyport/internal/transfer"
	"github.com/openworkload/skyport/internal/worker"
	"github.com/openworkload/skyport/internal/worker/protocol"
	"github.com/openworkload/skyport/internal/workerbin/workertest"
)

// open serves a worker inside the test's process, where the race detector and
// the hunt for leaked goroutines see it.
func open(t testing.TB) *protocol.Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "spw")
	if err != nil {
		t.Fatal(err)
	}
	w, err := worker.Open(worker.Options{
		Dir: dir, Node: "node1", Version: "test", Shim: []string{workertest.Build(t), "shim"},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Serve(ctx) }()
	client := protocol.NewClient(protocol.DialUnix(w.Socket()))
	t.Cleanup(func() {
		entries, _ := os.ReadDir(filepath.Join(dir, "runs"))
		for _, e := range entries {
			if err := client.Remove(context.Background(), e.Name()); err != nil {
				t.Error(err)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		client.Close()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return client
}

func TestManyClients(t *testing.T) {
	t.Parallel()
	client := open(t)
	watching, stop := context.WithCancel(t.Context())
	var watchers sync.WaitGroup
	for range 3 {
		watchers.Go(func() {
			_ = client.Watch(watching, func(protocol.Event) error { return nil }) // ends with the test
		})
	}
	var all sync.WaitGroup
	for i := range 24 {
		all.Go(func() {
			spec := script("echo one; sleep 0.02; echo two")
			if i%3 == 0 {
				spec.Script = []byte("sleep 1000")
			}
			if _, err := client.Prepare(t.Context(), spec); err != nil {
				t.Error(err)
				return
			}
			if i%3 == 0 {
				if err := client.Stop(t.Context(), spec.Run); err != nil {
					t.Error(err)
				}
			}
			await(t, "the run is over", func() bool {
				s, err := client.Status(t.Context(), spec.Run)
				return err == nil && s.State == protocol.RunEnded
			})
			if _, err := client.Metrics(t.Context(), spec.Run); err != nil {
				t.Error(err)
			}
			if err := client.Remove(t.Context(), spec.Run); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	stop()
	watchers.Wait()
}

func TestInputsAndOutputs(t *testing.T) {
	t.Parallel()
	client := open(t)
	from, to := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(from, "data", "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(from, "data", "in.txt"), []byte("some input\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	tree, err := transfer.ScanInputs(t.Context(), []string{filepath.Join(from, "data")})
	if err != nil {
		t.Fatal(err)
	}
	spec := script("mkdir out; tr a-z A-Z < data/in.txt > out/result; test -d data/empty")
	spec.Start = false
	spec.Request.OutputFiles = []string{"out", "missing.csv"}
	if _, err := client.Prepare(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if _, err := transfer.Push(t.Context(), client.HTTP(), client.InputsURL(spec.Run), tree, transfer.Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := transfer.Pull(t.Context(), client.HTTP(), client.OutputsURL(spec.Run), to, transfer.Options{Attempts: 1}); err == nil {
		t.Error("outputs before the run has ended")
	}
	if _, err := client.Start(t.Context(), spec.Run); err != nil {
		t.Fatal(err)
	}
	await(t, "the run is over", func() bool {
		s, err := client.Status(t.Context(), spec.Run)
		return err == nil && s.State == protocol.RunEnded && s.ExitCode == 0
	})
	var missing []string
	if _, err := transfer.Pull(t.Context(), client.HTTP(), client.OutputsURL(spec.Run), to, transfer.Options{
		Manifest: func(m *transfer.Manifest) { missing = m.Missing },
	}); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(to, "out", "result")); err != nil || string(data) != "SOME INPUT\n" {
		t.Errorf("%q, %v", data, err)
	}
	if len(missing) != 1 || missing[0] != "missing.csv" {
		t.Errorf("missing %q", missing)
	}
	if entries, err := os.ReadDir(to); err != nil || len(entries) != 1 {
		t.Errorf("arrived %v, %v", entries, err)
	}
}

// slowReader gives a text in two halves with a pause between them.
type slowReader struct {
	halves []string
	pause  time.Duration
}

func (r *slowReader) Read(p []byte) (int, error) {
	if len(r.halves) == 0 {
		return 0, io.EOF
	}
	if len(r.halves) == 1 {
		time.Sleep(r.pause)
	}
	n := copy(p, r.halves[0])
	if r.halves[0] = r.halves[0][n:]; r.halves[0] == "" {
		r.halves = r.halves[1:]
	}
	return n, nil
}

// A large script behind a slow link takes longer than handlers usually wait for
// a body.
func TestASlowLinkMayTakeItsTime(t *testing.T) {
	t.Parallel()
	client := open(t)
	spec := script("true")
	body, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	half := len(body) / 2
	slow := &slowReader{halves: []string{string(body[:half]), string(body[half:])}, pause: 5500 * time.Millisecond}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, strings.TrimSuffix(client.InputsURL(spec.Run), "/inputs"), slow)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.HTTP().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%s %s, %v", resp.Status, text, err)
	}
}

package local_test

import (
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/gatetest"
	"github.com/openworkload/skyport/gate/local"
	"github.com/openworkload/skyport/internal/worker/protocol"
	"github.com/openworkload/skyport/internal/workerbin/workertest"
)

// TestMain is the worker too: the provider starts this test's own binary in
// place of skyport-worker.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		standIn(os.Args[2:])
		return
	}
	goleak.VerifyTestMain(m)
}

// standIn is a worker that answers who it is and does nothing else.
func standIn(args []string) {
	name, path := args[3], args[5]
	_ = os.Remove(path)
	l, err := net.Listen("unix", path)
	if err != nil {
		slog.Error("stand-in worker", "error", err)
		os.Exit(1)
	}
	http.HandleFunc("GET /v1/worker", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(protocol.Info{Node: name, PID: os.Getpid()})
	})
	slog.Error("stand-in worker", "error", http.Serve(l, nil))
}

// TestConformanceOfRealWorkers runs the suite on what users get.
func TestConformanceOfRealWorkers(t *testing.T) {
	t.Parallel()
	binary := workertest.Build(t)
	conform(t, local.Options{WorkerBinary: binary})
}

func open(t *testing.T, o local.Options) *local.Provider {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if o.WorkerBinary == "" {
		o.WorkerBinary = self
	}
	o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	p, err := local.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestConformance(t *testing.T) {
	t.Parallel()
	conform(t, local.Options{})
}

func conform(t *testing.T, o local.Options) {
	t.Helper()
	gatetest.Exercise(t, func(t *testing.T) gatetest.Fixture {
		t.Parallel()
		o := o
		o.Dir = t.TempDir()
		o.Limits = skyport.Limits{CPUs: 3, Memory: 1 << 50}
		p := open(t, o)
		return gatetest.Fixture{Provider: p, Flavor: "local.1", NameMost: 32, Remake: func(t *testing.T) gate.Provider {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			p = open(t, o)
			return p
		}}
	})
}

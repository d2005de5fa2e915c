package lifecycle_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/worker/protocol"
	"github.com/openworkload/skyport/internal/worker/protocol/protocoltest"
)

// TestStorm throws everything at core at once: commands, restarts, sites and
// workers that fail. Whatever happens, in the end every job is over, no run was
// started twice, and nothing is left anywhere.
func TestStorm(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			storm(t, rand.New(rand.NewPCG(seed, 42))) //nolint:gosec // a seed on purpose
		})
	}
}

func storm(t *testing.T, random *rand.Rand) {
	t.Helper()
	starts := map[string]int{}
	h := build(t, func(h *house) {
		h.limits.Lost, h.limits.Connect = 300*time.Millisecond, 300*time.Millisecond
		h.newborn = func(w *protocoltest.Worker) {
			w.OnStart(func(w *protocoltest.Worker, spec protocol.RunSpec) {
				h.mu.Lock()
				starts[spec.Run]++
				h.mu.Unlock()
				w.Write(spec.Run, "hello\n")
				if spec.Request.Name == "short" {
					w.End(spec.Run, 0)
				}
			})
		}
	})
	var ids []skyport.JobID
	input := h.input("data")
	some := func() skyport.JobID { return ids[random.IntN(len(ids))] }
	expected := func(err error) {
		t.Helper()
		switch skyport.CodeOf(err) {
		case skyport.CodeNotFound, skyport.CodeConflict: // it is purged, or over
		default:
			if err != nil {
				t.Error(err)
			}
		}
	}
	for range 60 {
		if len(ids) == 0 || random.IntN(4) == 0 {
			r := skyport.Request{Retries: random.IntN(3), KeepAlive: skyport.Seconds(random.IntN(2)), CPUs: random.IntN(2)}
			if random.IntN(2) == 0 {
				r.Name = "short"
			}
			if random.IntN(3) == 0 {
				r.InputFiles = []string{input}
			}
			if random.IntN(3) == 0 {
				r.OutputFiles = []string{"absent.txt"}
			}
			ids = append(ids, h.submit(r))
		}
		switch random.IntN(11) {
		case 0:
			expected(h.engine.Cancel(t.Context(), some()))
		case 1, 2:
			expected(h.engine.Requeue(t.Context(), some()))
		case 3:
			expected(h.engine.Purge(t.Context(), []skyport.JobID{some()}))
		case 4:
			h.restart()
		case 5:
			h.everyWorker((*protocoltest.Worker).Down)
		case 6:
			h.everyWorker((*protocoltest.Worker).Up)
		case 7:
			h.everyWorker((*protocoltest.Worker).Reboot)
		case 8:
			if list := h.partitions(); len(list) > 0 {
				h.site.Vanish(list[random.IntN(len(list))].ID)
			}
		case 9:
			for _, method := range []string{"Create", "Status", "Delete", "Extend"} {
				h.site.Fail(method, errors.New("a hiccup"))
			}
		default:
			n := h.site.Calls("Status")
			h.until("something goes on, or nothing has to", func() bool {
				there, err := h.store.Active(t.Context())
				return err == nil && (len(there.Partitions) == 0 || h.site.Calls("Status") > n || random.IntN(20) == 0)
			})
		}
	}
	// The storm is over: what still runs may end.
	h.until("every job is over", func() bool {
		h.everyWorker(func(w *protocoltest.Worker) {
			w.Up()
			for _, run := range w.Runs() {
				if s, ok := w.Status(run); ok && s.State == protocol.RunRunning {
					w.End(run, 0)
				}
			}
		})
		active, err := h.store.Active(t.Context())
		return err == nil && len(active.Jobs) == 0
	})
	h.nothingIsLeft()
	for run, n := range starts {
		if n > 1 {
			t.Errorf("run %s was started %d times", run, n)
		}
	}
}

package lifecycle_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/gatetest"
	"github.com/openworkload/skyport/internal/core/lifecycle"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// lends is a site with an engine for containers, a registry and a storage.
func (h *house) lends() {
	h.site = gatetest.NewProvider(gatetest.Script{Endpoint: h.endpoint, Sites: []skyport.Site{{
		ID: gate.StableID("test", "test"), Name: "test", Kind: "test", DefaultFlavor: "small", DefaultImage: "plain", Container: true,
		Registries: []string{"lab.azurecr.io"}, Storages: []string{"refdata"},
	}}})
}

// TestWhatSitesLendReachesTheNode: the first answer is a passing error, the second
// what opens the registry and the storage.
func TestWhatSitesLendReachesTheNode(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	h := build(t, func(h *house) {
		h.lends()
		h.change = func(o *lifecycle.Options) {
			o.Registries = func(_ context.Context, owner skyport.UserID, site, image string) ([]protocol.Registry, error) {
				if asked.Add(1) == 1 {
					return nil, skyport.Errorf(skyport.CodeUnavailable, "the gate does not answer")
				}
				return []protocol.Registry{{Host: "lab.azurecr.io", Username: string(owner) + " " + site, Password: image}}, nil
			}
			o.Storage = func(_ context.Context, site, name string, life time.Duration) (protocol.Storage, error) {
				return protocol.Storage{Name: name, Account: site, SAS: life.String()}, nil
			}
		}
	})
	id := h.submit(skyport.Request{ContainerImage: "lab.azurecr.io/x", Storage: "refdata", TimeLimit: 3600})
	w, run := h.runs(id)
	spec, _ := w.Spec(run)
	if asked.Load() < 2 || len(spec.Registries) != 1 || spec.Registries[0] != (protocol.Registry{Host: "lab.azurecr.io", Username: "me test", Password: "lab.azurecr.io/x"}) {
		t.Errorf("asked %d times, the worker was told %+v", asked.Load(), spec.Registries)
	}
	if spec.Storage == nil || *spec.Storage != (protocol.Storage{Name: "refdata", Account: "test", SAS: "3h0m0s"}) {
		t.Errorf("the storage is %+v", spec.Storage)
	}
	w.End(run, 0)
	h.comesTo(id, skyport.JobFinished)
	h.nothingIsLeft()
}

// TestWhatSitesDoNotLendFailsTheJob at once, with what to do about it.
func TestWhatSitesDoNotLendFailsTheJob(t *testing.T) {
	t.Parallel()
	refusal := skyport.Errorf(skyport.CodeCredentials, "the registry does not let us in").WithHint("give us the role AcrPull")
	refusal.Cause = gate.ErrPermanent
	h := build(t, func(h *house) {
		h.lends()
		h.change = func(o *lifecycle.Options) {
			o.Registries = func(context.Context, skyport.UserID, string, string) ([]protocol.Registry, error) {
				return nil, refusal
			}
		}
	})
	id := h.submit(skyport.Request{ContainerImage: "lab.azurecr.io/x"})
	job := h.comesTo(id, skyport.JobFailed)
	if !strings.Contains(job.Details, "does not let us in") || !strings.Contains(job.Details, "AcrPull") {
		t.Errorf("it failed with %q", job.Details)
	}
	h.nothingIsLeft()
}

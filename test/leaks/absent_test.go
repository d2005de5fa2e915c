package leaks

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
	"github.com/openworkload/skyport/gate/cloud"
	azuretest "github.com/openworkload/skyport/test/azure"
)

// lease is how long a partition lives without core; see lifecycle.Limits.
const lease = 12 * time.Hour

// TestNobodyComesBack kills core and the gate while a partition is there. At
// the lease's end the cloud itself shuts the machines down; a gate that comes
// back alone removes them, in the long form, for that takes some minutes.
func TestNobodyComesBack(t *testing.T) {
	t.Parallel()
	h := open(t, &azuretest.Nothing{})
	ctx := t.Context()
	h.cloud.plantForeign()
	job, err := h.user.Submit(ctx, client.Submission{Script: (&run{nodes: 2, cpus: 2}).script(), Key: "absent"})
	if err != nil {
		t.Fatal(err)
	}
	if !until(ctx, time.Minute, func() bool { return h.cloud.reached(job.ID, stageMade) }) {
		t.Fatalf("the partition is not made\n%s", h.logTail("", 40))
	}
	h.core.stop(syscall.SIGKILL)
	h.gate.stop(syscall.SIGKILL)

	h.cloud.e.Advance(lease - 10*time.Minute)
	if rest(ctx, 2*time.Second); len(h.running()) != 2 {
		t.Errorf("before the lease's end these run: %v", h.running())
	}
	h.cloud.e.Advance(12 * time.Minute)
	if !until(ctx, 30*time.Second, func() bool { return len(h.running()) == 0 }) {
		t.Errorf("the lease is over, and these still cost: %v", h.running())
	}

	if *runs >= 100 {
		h.gateAlone(job.ID)
	}
	h.gate.start()
	h.core.start()
	if _, err := h.user.Cancel(ctx, job.ID); err != nil {
		t.Error(err)
	}
	h.expectGone("after core and the gate came back")
	if !t.Failed() {
		h.close()
	}
}

// gateAlone has only the gate come back, after the lease. Its clock is that of
// this machine: so the end of the lease is moved.
func (h *house) gateAlone(job skyport.JobID) {
	past := time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)
	for _, id := range h.cloud.seen(job) {
		h.cloud.retag("swm-"+string(id), map[string]string{cloud.TagDeleteAt: past})
	}
	began := time.Now()
	h.gate.start()
	gone := until(h.t.Context(), 5*time.Minute, func() bool { return len(h.cloud.of(job, h.cloud.seen(job))) == 0 })
	if !gone {
		h.t.Errorf("the gate alone leaves\n%s\n%s", indent(strings.Join(h.cloud.of(job, nil), "\n")), h.logTail("", 40))
	}
	h.t.Logf("the gate alone has removed it %s after it came back", time.Since(began).Round(time.Second))
	h.gate.stop(syscall.SIGKILL)
}

// running are the machines that cost.
func (h *house) running() (all []string) {
	for _, r := range h.cloud.e.Resources() {
		if strings.HasSuffix(r.Kind, "/virtualMachines") && r.Power != "deallocated" {
			all = append(all, describe(r))
		}
	}
	return all
}

// expectGone waits until core has no partition and looks what the cloud has.
func (h *house) expectGone(when string) {
	h.t.Helper()
	ctx := h.t.Context()
	if !until(ctx, 2*time.Minute, func() bool { live, err := h.partitions(ctx); return err == nil && len(live) == 0 }) {
		h.t.Errorf("%s: core still has partitions\n%s", when, h.logTail("", 40))
	}
	if strangers, missing := h.cloud.strangers(); len(strangers)+len(missing) > 0 {
		h.t.Errorf("%s: the cloud has of ours\n%s\n  and misses of others\n%s", when,
			indent(strings.Join(strangers, "\n")), indent(strings.Join(missing, "\n")))
	}
}

// TestOrphans plants partitions that carry our tag and that core has never heard
// of: core removes them when it comes up, and skyport gc whenever it is asked to.
func TestOrphans(t *testing.T) {
	t.Parallel()
	h := open(t, &azuretest.Nothing{})
	ctx := t.Context()
	h.cloud.plantForeign()

	plant := func() skyport.PartitionID {
		id := skyport.NewPartitionID()
		h.cloud.plant("swm-"+string(id), map[string]string{
			cloud.TagOwner: h.owner(), cloud.TagPartition: string(id), cloud.TagNodes: "1",
			cloud.TagDeleteAt: time.Now().Add(lease).UTC().Format(time.RFC3339),
		})
		return id
	}
	there := func(id skyport.PartitionID) bool { return len(h.cloud.of("none", []skyport.PartitionID{id})) > 0 }
	first := plant()
	h.core.kill()
	if !until(ctx, time.Minute, func() bool { return !there(first) }) {
		t.Fatalf("core does not remove what it does not know\n%s", h.logTail(string(first), 40))
	}

	second := plant()
	shown := func(args ...string) bool {
		out, err := h.run(ctx, append([]string{"gc", "--site", siteName}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(out, second.Short()) && slices.Contains(strings.Fields(out), siteName)
	}
	if !until(ctx, 20*time.Second, func() bool { return shown("--dry-run") }) {
		t.Fatalf("skyport gc --dry-run does not show %s", second)
	}
	if !there(second) {
		t.Error("skyport gc --dry-run has removed something")
	}
	if !shown() {
		t.Error("skyport gc does not show what it removes")
	}
	if !until(ctx, time.Minute, func() bool { return !there(second) }) {
		t.Errorf("skyport gc does not remove %s\n%s", second, h.logTail(string(second), 40))
	}
	if !until(ctx, 20*time.Second, func() bool {
		out, err := h.run(ctx, "gc")
		return err == nil && strings.Contains(out, "Nothing is left over.")
	}) {
		t.Error("skyport gc does not say that nothing is left over")
	}
	h.expectGone("after skyport gc")
	if !t.Failed() {
		h.close()
	}
}

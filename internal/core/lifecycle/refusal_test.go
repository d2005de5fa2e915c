package lifecycle_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// refusal is what a site says of a partition that it will not make.
func refusal(code skyport.Code, text string) error {
	err := skyport.Errorf(code, "%s", text).WithHint("ask for more")
	err.Cause = gate.ErrPermanent
	return err
}

// What a site has none of is no failure of the job: it goes to the next flavor,
// however many there are before it.
func TestWithoutCapacityTheNextFlavorIsTaken(t *testing.T) {
	t.Parallel()
	for _, code := range []skyport.Code{skyport.CodeNoCapacity, skyport.CodeQuota} {
		h := build(t, func(h *house) {
			h.newborn = endsAtOnce
			h.limits.Misplaced = 1 // one that counted would end the job
			h.site.Fail("Create", refusal(code, "none of these left"))
		})
		id := h.submit(skyport.Request{})
		if job := h.comesTo(id, skyport.JobFinished); job.Flavor != "large" || job.Attempt != 2 {
			t.Errorf("%s: it ran on %s as attempt %d", code, job.Flavor, job.Attempt)
		}
		h.nothingIsLeft()
	}
}

// Without capacity anywhere the job waits, and says for what.
func TestWithoutCapacityAnywhereTheJobWaits(t *testing.T) {
	t.Parallel()
	h := build(t, func(h *house) {
		h.newborn = endsAtOnce
		no := refusal(skyport.CodeNoCapacity, "sold out")
		h.site.Fail("Create", no, no, no, no, no, no)
	})
	id := h.submit(skyport.Request{})
	h.until("it waits with a reason", func() bool {
		job := h.job(id)
		return job.State == skyport.JobQueued && job.Attempt == 2 && strings.Contains(h.engine.Reason(id), "sold out")
	})
}

// What the next try would meet again ends the job at once, with the site's words
// and what to do.
func TestWhatCannotBeMendedFailsFast(t *testing.T) {
	t.Parallel()
	for _, code := range []skyport.Code{skyport.CodeCredentials, skyport.CodeUnknownImage, skyport.CodeUnsupported} {
		h := build(t, func(h *house) {
			h.site.Fail("Create", refusal(code, "the site says no"), errors.New("asked again"))
		})
		id := h.submit(skyport.Request{})
		job := h.comesTo(id, skyport.JobFailed)
		if job.Attempt != 1 || !strings.Contains(job.Details, "the site says no") || !strings.Contains(job.Details, "ask for more") {
			t.Errorf("%s: attempt %d: %q", code, job.Attempt, job.Details)
		}
		h.nothingIsLeft()
	}
}

// A gate that was killed before its site had anything of the partition is asked
// for it again: the job waits, and loses nothing.
func TestWhatTheSiteHasNotYetIsAskedForAgain(t *testing.T) {
	t.Parallel()
	h := build(t, func(h *house) { h.newborn = endsAtOnce })
	h.site.Stall(true)
	id := h.submit(skyport.Request{})
	h.until("it is being created", func() bool { return h.site.Calls("Create") > 0 && h.inState(skyport.PartitionCreating) == 1 })
	h.site.Vanish(h.job(id).Partition)
	h.site.Stall(false)
	if job := h.comesTo(id, skyport.JobFinished); job.Attempt != 1 || h.site.Calls("Create") < 2 {
		t.Errorf("attempt %d, created %d times", job.Attempt, h.site.Calls("Create"))
	}
	h.nothingIsLeft()
}

// Nodes that were taken back cost a job that may be tried again one of its
// retries, and another job its life.
func TestTakenBack(t *testing.T) {
	t.Parallel()
	for _, retries := range []int{0, 1} {
		h := build(t, func(*house) {})
		id := h.submit(skyport.Request{Retries: retries})
		h.comesTo(id, skyport.JobRunning)
		first := h.job(id).Partition
		h.site.BreakBy(first, skyport.CodeInterrupted, "the cloud took the spot nodes back")
		if retries == 0 {
			if job := h.comesTo(id, skyport.JobFailed); !strings.Contains(job.Details, "took the spot nodes back") || !strings.Contains(job.Details, "retries") {
				t.Errorf("it ended with %q", job.Details)
			}
		} else {
			h.until("it runs again", func() bool {
				job := h.job(id)
				return job.State == skyport.JobRunning && job.Attempt == 2 && job.Partition != first && job.Retried == 1
			})
			if err := h.engine.Cancel(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		h.nothingIsLeft()
	}
}

// What the site is at is told where people look: on the job that waits for it.
func TestProgressOfACreationIsTold(t *testing.T) {
	t.Parallel()
	h := build(t, func(h *house) { h.newborn = endsAtOnce })
	h.site.Stall(true)
	id := h.submit(skyport.Request{})
	h.until("it is being created", func() bool { return h.inState(skyport.PartitionCreating) == 1 && h.site.Calls("Create") > 0 })
	for _, step := range []string{"made the network", "made 1 of 1 servers"} {
		h.site.Say(h.job(id).Partition, step)
		h.until(step, func() bool { return strings.Contains(h.job(id).Details, step) })
	}
	h.site.Stall(false)
	h.comesTo(id, skyport.JobFinished)
	h.nothingIsLeft()
}

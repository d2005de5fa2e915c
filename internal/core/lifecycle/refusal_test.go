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

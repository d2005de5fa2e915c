package azuretest

import (
	"crypto/sha256"
	"net/http"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/devtestlabs/armdevtestlabs"
)

func sumOf(text string) [32]byte { return sha256.Sum256([]byte(text)) }

// fillSchedule checks a shutdown and finds out when it is due.
// https://learn.microsoft.com/azure/templates/microsoft.devtestlab/schedules
func fillSchedule(e *Emulator, c *change) error {
	p := c.model.(*armdevtestlabs.Schedule).Properties
	switch {
	case p == nil || text(p.TaskType) != "ComputeVmShutdownTask":
		return problem(http.StatusBadRequest, "InvalidTaskType", "The task type of schedule %s must be ComputeVmShutdownTask.", c.new.Name)
	case p.TargetResourceID == nil || p.DailyRecurrence == nil || p.TimeZoneID == nil:
		return problem(http.StatusBadRequest, "InvalidScheduleProperties", "Schedule %s must have a target resource, a daily recurrence and a time zone.", c.new.Name)
	case e.get(*p.TargetResourceID) == nil:
		return problem(http.StatusNotFound, "TargetResourceNotFound", "The target resource '%s' of schedule %s was not found.", *p.TargetResourceID, c.new.Name)
	case !strings.EqualFold(c.new.Name, "shutdown-computevm-"+lastOf(*p.TargetResourceID)):
		return problem(http.StatusBadRequest, "InvalidScheduleName", "The schedule of virtual machine %s must be named shutdown-computevm-%s.", lastOf(*p.TargetResourceID), lastOf(*p.TargetResourceID))
	case *p.TimeZoneID != "UTC":
		return problem(http.StatusBadRequest, "InvalidTimeZoneId", "The emulator knows the time zone UTC only, not '%s'.", *p.TimeZoneID)
	}
	at, err := time.Parse("1504", text(p.DailyRecurrence.Time))
	if err != nil {
		return problem(http.StatusBadRequest, "InvalidDailyRecurrence", "The time '%s' must be of the form HHmm.", text(p.DailyRecurrence.Time))
	}
	now := e.now()
	due := time.Date(now.Year(), now.Month(), now.Day(), at.Hour(), at.Minute(), 0, 0, time.UTC)
	if !due.After(now) {
		due = due.AddDate(0, 0, 1)
	}
	c.new.Due = due
	if p.Status != nil && *p.Status == armdevtestlabs.EnableStatusDisabled {
		c.new.Due = time.Time{}
	}
	p.CreatedDate, p.UniqueIdentifier = to.Ptr(c.new.Created), to.Ptr(guidOf(c.new.ID, c.new.Created))
	return nil
}

// alarms deallocates machines whose schedules are due.
func (e *Emulator) alarms() {
	for {
		e.mu.Lock()
		now, ticked := e.now(), e.ticked
		next := time.Hour
		var ring []string
		for _, s := range e.list(0, func(r *resource) bool { return r.Kind == kindSchedule && !r.Due.IsZero() }) {
			if wait := s.Due.Sub(now); wait > 0 {
				next = min(next, wait)
				continue
			}
			again := s.clone()
			again.Due = s.Due.AddDate(0, 0, 1)
			e.put(again)
			ring = append(ring, text(model[armdevtestlabs.Schedule](s).Properties.TargetResourceID))
		}
		e.mu.Unlock()
		for _, vm := range ring {
			e.log.Info("a schedule shuts a machine down", "machine", lastOf(vm))
			if p := e.deallocate(e.ctx, vm, powerDeallocated); p != nil {
				e.log.Warn("a schedule could not shut a machine down", "machine", lastOf(vm), "error", p.Error())
			}
		}
		if len(ring) > 0 {
			continue
		}
		t := time.NewTimer(min(next, time.Second)) // new schedules are seen within a second
		select {
		case <-e.ctx.Done():
			t.Stop()
			return
		case <-ticked:
		case <-t.C:
		}
		t.Stop()
	}
}

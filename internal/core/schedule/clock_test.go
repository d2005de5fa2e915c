package schedule_test

import (
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/schedule"
)

// TestAClockThatWasSetBack: what was written by a clock that was set back since
// holds nothing up: no job waits for a moment far ahead, and no idle partition
// lives until then.
func TestAClockThatWasSetBack(t *testing.T) {
	t.Parallel()
	s := world()
	late := job(1, skyport.Request{})
	late.NotBefore = now.Add(2 * time.Second)
	s.Jobs = []schedule.Job{late}
	idle := partitionOf{id: "p1", state: skyport.PartitionReady, idle: time.Second}.at("near", "big")
	idle.Account = "poor" // so that the job does not go there
	s.Partitions = []schedule.Partition{idle}

	if d := schedule.Decide(s); len(d.Create) != 0 || len(d.Drain) != 0 || !d.WakeAt.Equal(late.NotBefore) {
		t.Fatalf("before: %+v", d)
	}
	s.Now = now.Add(-3 * time.Hour)
	if d := schedule.Decide(s); len(d.Create) != 1 || len(d.Drain) != 1 {
		t.Errorf("after: %+v", d)
	}
}

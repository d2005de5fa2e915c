package core

import (
	"time"

	"github.com/openworkload/skyport"
)

// timeline tells the stretches of a job's current attempt from the events of
// the job and of its partition: queued, nodes, upload, run, download, removal.
func timeline(job, partition []skyport.Event) []skyport.Step {
	var t steps
	ran := false
	for _, e := range job {
		switch e.Kind {
		case skyport.EventState:
			switch skyport.JobState(e.State) {
			case skyport.JobQueued:
				t, ran = steps{}, false
				t.begin("queued", e.Time)
			case skyport.JobWaiting:
				t.begin("nodes", e.Time)
			case skyport.JobTransferring:
				if ran {
					t.begin("download", e.Time)
				} else {
					t.begin("upload", e.Time)
				}
			case skyport.JobRunning:
				ran = true
				t.begin("run", e.Time)
			default:
				t.end(e.Time)
			}
		case skyport.EventTransfer:
			if e.Transfer != nil && len(t) > 0 {
				t[len(t)-1].Bytes += e.Transfer.Total
			}
		case skyport.EventDetails, skyport.EventProgress, skyport.EventWarning:
		}
	}
	t.readyPartition(partition)
	for _, e := range partition {
		if e.Kind != skyport.EventState {
			continue
		}
		switch skyport.PartitionState(e.State) {
		case skyport.PartitionDraining, skyport.PartitionFailed, skyport.PartitionDeleting:
			if len(t) == 0 || t[len(t)-1].Name != "removal" {
				t = append(t, skyport.Step{Name: "removal", Start: e.Time})
			}
		case skyport.PartitionDeleted:
			if len(t) > 0 && t[len(t)-1].Name == "removal" {
				t[len(t)-1].End = later(e.Time, t[len(t)-1].Start)
			}
		default:
		}
	}
	return t
}

type steps []skyport.Step

func (t *steps) begin(name string, at time.Time) {
	t.end(at)
	*t = append(*t, skyport.Step{Name: name, Start: at})
}

func (t *steps) end(at time.Time) {
	if n := len(*t); n > 0 && (*t)[n-1].End.IsZero() {
		(*t)[n-1].End = later(at, (*t)[n-1].Start)
	}
}

// later is the later of both: a clock that was set back makes no stretch end
// before it began.
func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// readyPartition says on the nodes step when the nodes were there before.
func (t steps) readyPartition(partition []skyport.Event) {
	for i := range t {
		if t[i].Name != "nodes" {
			continue
		}
		for _, e := range partition {
			if skyport.PartitionState(e.State).Connected() && e.Time.Before(t[i].Start) {
				t[i].Note = "onto a partition that was ready"
			}
		}
	}
}

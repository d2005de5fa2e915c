package crash

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
)

// A stage of a job's life, as its events tell it.
type stage string

const (
	stageSubmitting stage = "submitting" // the request is on its way
	stageAccepted   stage = "accepted"   // it was answered this very moment
	stageQueued     stage = "queued"
	stageCreating   stage = "creating" // its partition was decided, the gate is asked
	stageBooting    stage = "booting"  // the site has the nodes
	stageInputs     stage = "inputs"   // they go up
	stageStarting   stage = "starting" // everything is there
	stageRunning    stage = "running"
	stageEnding     stage = "ending"  // the script has ended
	stageResults    stage = "results" // they come down
	stageRemoval    stage = "removal" // the job is over, its partition is removed
	stageStopping   stage = "stopping"
)

var stages = []stage{
	stageSubmitting, stageAccepted, stageQueued, stageCreating, stageBooting, stageInputs, stageStarting,
	stageRunning, stageEnding, stageResults, stageRemoval, stageStopping,
}

// stageOf says which stage begins with an event; none: "".
func stageOf(e *skyport.Event) stage {
	state := skyport.JobState(e.State)
	switch {
	case e.Kind == skyport.EventProgress && e.Transfer != nil && e.Transfer.Name == "outputs":
		return stageResults
	case e.Kind == skyport.EventTransfer || e.Kind == skyport.EventProgress || e.Kind == skyport.EventWarning:
		return ""
	case state == skyport.JobQueued:
		return stageQueued
	case state == skyport.JobWaiting && strings.HasPrefix(e.Text, skyport.DetailsPartitionSpawned):
		return stageBooting
	case state == skyport.JobWaiting:
		return stageCreating
	case strings.HasPrefix(e.Text, skyport.DetailsDataUploading):
		return stageInputs
	case strings.HasPrefix(e.Text, skyport.DetailsDataUploaded):
		return stageStarting
	case strings.HasPrefix(e.Text, skyport.DetailsResultsDownloading):
		return stageEnding
	case state == skyport.JobRunning:
		return stageRunning
	case state == skyport.JobCanceled:
		return stageStopping
	case state.Terminal():
		return stageRemoval
	}
	return ""
}

// watch follows all events over restarts of core.
type watch struct {
	mu      sync.Mutex
	heard   map[skyport.JobID][]int64 // seqs of stored events, as they came
	waiting map[stage]chan struct{}   // closed when the stage begins next
	ended   error
}

func newWatch() *watch {
	return &watch{heard: map[skyport.JobID][]int64{}, waiting: map[stage]chan struct{}{}}
}

func (w *watch) follow(ctx context.Context, user *client.Client) {
	for e, err := range user.Events(ctx, client.EventFilter{}, 0) {
		w.mu.Lock()
		if err != nil {
			if ctx.Err() == nil {
				w.ended = err
			}
			w.mu.Unlock()
			return
		}
		if e.Seq != 0 && e.Job != "" {
			w.heard[e.Job] = append(w.heard[e.Job], e.Seq)
		}
		at := stageOf(&e)
		if c := w.waiting[at]; c != nil {
			close(c)
			delete(w.waiting, at)
		}
		w.mu.Unlock()
	}
}

// of returns the stored events that were heard of a job.
func (w *watch) of(id skyport.JobID) (seqs []int64, ended error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append(seqs, w.heard[id]...), w.ended
}

// await waits until a stage begins for some job. One that does not come for a
// while is not waited for.
func (w *watch) await(ctx context.Context, at stage, most time.Duration) {
	w.mu.Lock()
	c := w.waiting[at]
	if c == nil {
		c = make(chan struct{})
		w.waiting[at] = c
	}
	w.mu.Unlock()
	select {
	case <-c:
	case <-ctx.Done():
	case <-time.After(most):
	}
}

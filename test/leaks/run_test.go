package leaks

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
	azuretest "github.com/openworkload/skyport/test/azure"
)

// victim is what is killed together.
type victim string

const (
	nobody  victim = ""
	theCore victim = "core"
	theGate victim = "gate"
	both    victim = "both"
)

// run is a job with its trouble, all of it drawn from the seed and its number.
type run struct {
	number, batch int

	nodes int
	spot  bool
	cpus  int           // of each node, all that it has: jobs share no partition
	start time.Duration // after the batch's

	kill      victim
	killAt    stage
	killAfter time.Duration
	fault     *azuretest.Rule
	faultIs   string

	works    bool // the job runs and ends by itself
	purge    bool
	endAt    stage // then it is canceled, or purged
	endAfter time.Duration

	mu    sync.Mutex
	story []string // with times

	id         skyport.JobID
	killed     bool
	partitions []skyport.PartitionID // that it had
}

// patience is how long a stage is waited for that may never come.
const patience = 6 * time.Second

// goneLimit is how long a run's partitions may take to be gone after its end.
const goneLimit = 4 * time.Minute

func drawRun(number, batch, size int, works bool) *run {
	random := chance(1000 + number)
	r := &run{
		number: number, batch: batch, works: works, nodes: 1 + random.IntN(3), spot: random.IntN(4) == 0,
		cpus:  []int{2, 4, 8, 16}[random.IntN(4)],
		start: time.Duration(random.IntN(600)) * time.Millisecond,
		purge: random.IntN(6) == 0,
	}
	moment := func(stages []stage, most time.Duration) (stage, time.Duration) {
		return stages[random.IntN(len(stages))], time.Duration(random.Int64N(int64(most)))
	}
	r.endAt, r.endAfter = moment(stages[:stageRemoval], 400*time.Millisecond)
	if r.endAt == stageAsked && random.IntN(3) > 0 { // there the cloud often has nothing yet
		r.endAt = stageGroup
	}
	if n := random.IntN(100); n < 55 {
		r.kill = []victim{theCore, theGate, theGate, both}[random.IntN(4)]
		r.killAt, r.killAfter = moment(stages, 250*time.Millisecond)
		if r.killAt > r.endAt && r.killAt != stageRemoval {
			r.endAt = r.killAt // the end does not come before
			r.endAfter += r.killAfter
		}
	} else {
		rule, story := drawFault(size, random)
		r.fault, r.faultIs = &rule, story
	}
	if works {
		r.nodes, r.spot, r.cpus, r.purge = 1, false, 2, false
	}
	return r
}

func (r *run) String() string {
	said := []string{fmt.Sprintf("run %d of batch %d: %d nodes of %d CPUs", r.number, r.batch, r.nodes, r.cpus)}
	if r.spot {
		said = append(said, "spot")
	}
	if r.kill != nobody {
		said = append(said, fmt.Sprintf("%s killed %s after stage %s", r.kill, r.killAfter, r.killAt))
	}
	if r.fault != nil {
		said = append(said, r.faultIs)
	}
	switch {
	case r.works:
		said = append(said, "ends by itself")
	case r.purge:
		said = append(said, fmt.Sprintf("purged %s after stage %s", r.endAfter, r.endAt))
	default:
		said = append(said, fmt.Sprintf("canceled %s after stage %s", r.endAfter, r.endAt))
	}
	return strings.Join(said, ", ")
}

// tell adds to the story.
func (r *run) tell(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.story = append(r.story, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// script is the job's. Nobody runs it where machines are nothing.
func (r *run) script() []byte {
	text := fmt.Sprintf("#!/bin/sh\n#SWM name leaks-%d\n#SWM site %s\n#SWM flavor Standard_D%ds_v5\n#SWM nodes %d\n#SWM cpus %d\n#SWM memory 64M\n#SWM retries 9\n",
		r.number, siteName, r.cpus, r.nodes, r.cpus)
	if r.spot {
		text += "#SWM spot yes\n"
	}
	return []byte(text + "echo done\n")
}

// live lives a run to its end, and says what is wrong.
func (h *house) live(ctx context.Context, r *run) error {
	if !rest(ctx, r.start) {
		return nil
	}
	job, err := h.user.Submit(ctx, client.Submission{Script: r.script(), Key: fmt.Sprintf("leaks-%d-%d", *seed, r.number)})
	if err != nil {
		return fmt.Errorf("submit: %w", err)
	}
	r.id = job.ID
	r.tell("submitted as job %s", r.id)
	over, stop := context.WithCancel(ctx)
	var trouble sync.WaitGroup
	defer trouble.Wait()
	defer stop()
	trouble.Go(func() { h.strike(over, r) })
	if !r.works {
		if err := h.end(ctx, r); err != nil {
			return err
		}
	}
	return h.confirm(ctx, r)
}

// strike kills what the run has to kill, at its moment.
func (h *house) strike(ctx context.Context, r *run) {
	if r.kill == nobody {
		return
	}
	most := patience
	if r.works { // a boot takes its time
		most = time.Minute
	}
	if !until(ctx, most, func() bool { return h.cloud.reached(r.id, r.killAt) }) {
		r.tell("stage %s does not come", r.killAt)
	}
	if !rest(ctx, r.killAfter) {
		return
	}
	hit := false
	if r.kill != theGate {
		hit = h.core.kill()
	}
	if r.kill != theCore {
		hit = h.gate.kill() || hit
	}
	r.killed = hit
	r.tell("%s killed: %t", r.kill, hit)
}

// end has a job end as a person does, at its moment.
func (h *house) end(ctx context.Context, r *run) error {
	if !until(ctx, patience, func() bool { return h.cloud.reached(r.id, r.endAt) }) {
		r.tell("stage %s does not come", r.endAt)
	}
	if !rest(ctx, r.endAfter) {
		return nil
	}
	if r.purge {
		if job, err := h.user.Job(ctx, r.id); err == nil && job.Partition != "" {
			r.partitions = append(r.partitions, job.Partition)
		}
		err := h.user.Purge(ctx, r.id)
		r.tell("purged: %v", err)
		if err != nil {
			return fmt.Errorf("purge: %w", err)
		}
		return nil
	}
	_, err := h.user.Cancel(ctx, r.id)
	r.tell("canceled: %v", err)
	if err != nil {
		return fmt.Errorf("cancel: %w", err)
	}
	return nil
}

// confirm waits until core says that nothing is left, and looks whether it is so.
func (h *house) confirm(ctx context.Context, r *run) error {
	if !r.purge {
		waiting, cancel := context.WithTimeout(ctx, goneLimit)
		job, err := h.user.Wait(waiting, r.id)
		cancel()
		if err != nil {
			return fmt.Errorf("the job does not end: %w", err)
		}
		r.tell("job is %s: %s", job.State, job.Details)
		if job.Partition != "" {
			r.partitions = append(r.partitions, job.Partition)
		}
		if want := skyport.JobState(map[bool]string{true: "F", false: "C"}[r.works]); job.State != want {
			return fmt.Errorf("the job has ended as %s, want %s: %s", job.State, want, job.Details)
		}
	}
	states := map[skyport.PartitionID]skyport.PartitionState{}
	gone := until(ctx, goneLimit, func() bool {
		live, err := h.partitions(ctx)
		clear(states)
		for _, id := range append(h.cloud.seen(r.id), r.partitions...) {
			if state, ok := live[id]; ok {
				states[id] = state
			}
		}
		return err == nil && len(states) == 0
	})
	left := h.cloud.of(r.id, r.partitions)
	all := append(h.cloud.seen(r.id), r.partitions...)
	slices.Sort(all)
	r.partitions = slices.Compact(all)
	switch {
	case ctx.Err() != nil:
		return nil // the test is over already
	case !gone:
		return fmt.Errorf("partitions are not removed: %v; the cloud has\n%s", states, indent(strings.Join(left, "\n")))
	case len(left) > 0:
		return fmt.Errorf("core says that the partitions are gone, the cloud has\n%s", indent(strings.Join(left, "\n")))
	}
	r.tell("gone")
	return nil
}

// fail tells of a run with all there is about it. A few such reports are enough.
func (h *house) fail(ctx context.Context, r *run, err error) {
	h.mu.Lock()
	h.fails++
	n := h.fails
	h.mu.Unlock()
	if n > 3 || ctx.Err() != nil {
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %v\n  seed %d\n  story:\n", r, err, *seed)
	r.mu.Lock()
	for _, line := range r.story {
		fmt.Fprintf(&b, "    %s\n", line)
	}
	r.mu.Unlock()
	if job, err := h.user.Job(ctx, r.id); err == nil {
		text, _ := json.Marshal(job) // only to show
		fmt.Fprintf(&b, "  %s\n", text)
	}
	for _, id := range r.partitions {
		fmt.Fprintf(&b, "  partition %s, calls of the cloud:\n", id)
		var calls []string
		for _, c := range h.cloud.e.Calls() {
			if strings.Contains(c.Path, string(id)) {
				calls = append(calls, fmt.Sprintf("    %s %s %s %d %s", c.Time.Format("15:04:05.000"), c.Method, c.Path, c.Status, c.Fault))
			}
		}
		fmt.Fprintln(&b, strings.Join(calls[max(0, len(calls)-40):], "\n"))
		fmt.Fprintf(&b, "  logs:\n%s\n", indent(h.logTail(string(id), 40)))
	}
	h.t.Error(b.String())
	if n == 3 {
		h.giveUp()
	}
}

// chance is a source of chance for one thing.
func chance(of int) *rand.Rand { return rand.New(rand.NewPCG(*seed, uint64(of))) }

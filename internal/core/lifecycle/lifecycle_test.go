package lifecycle_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/gatetest"
	"github.com/openworkload/skyport/internal/core/store"
	"github.com/openworkload/skyport/internal/forward"
	"github.com/openworkload/skyport/internal/worker/protocol"
	"github.com/openworkload/skyport/internal/worker/protocol/protocoltest"
)

func TestAJobWithoutFiles(t *testing.T) {
	t.Parallel()
	h := build(t)
	id := h.submit(skyport.Request{Name: "plain", Env: map[string]string{"MINE": "yes"}})
	w, run := h.runs(id)
	spec, _ := w.Spec(run)
	if spec.Env["SWM_JOB_ID"] != string(id) || spec.Env["MINE"] != "yes" || !spec.Start || len(spec.Nodes) != 1 {
		t.Errorf("the worker was told %+v", spec)
	}
	w.Write(run, "one\n")
	h.until("the first line is here", func() bool { return h.log(id, 1) == "one\n" })
	w.Write(run, "two\n")
	w.End(run, 3)
	job := h.comesTo(id, skyport.JobFinished)
	if job.ExitCode != 3 || job.Details != "Finished: exit code 3" || job.StartTime.IsZero() || job.EndTime.IsZero() || len(job.NodeNames) != 1 {
		t.Errorf("ended as %+v", job)
	}
	if got := h.log(id, 1); got != "one\ntwo\n" {
		t.Errorf("its log is %q", got)
	}
	h.nothingIsLeft()
	h.until("followers of its log come to the end", func() bool {
		more, _ := h.archive.Growing(id, 1)
		return !more
	})
	if got := states(h, id); got != "Q W R F" {
		t.Errorf("it went through %s", got)
	}
}

func TestAJobWithInputsAndOutputs(t *testing.T) {
	t.Parallel()
	h := build(t, func(h *house) { h.newborn = endsAtOnce })
	id := h.submit(skyport.Request{InputFiles: []string{h.input("data")}, OutputFiles: []string{"out.txt", "absent.txt"}})
	job := h.comesTo(id, skyport.JobFinished)
	if job.ResultBytes != 6 || len(job.Warnings) != 1 || !strings.Contains(job.Warnings[0], "absent.txt") {
		t.Errorf("ended with %d bytes and warnings %q", job.ResultBytes, job.Warnings)
	}
	outputs, err := h.archive.Outputs(id, 1)
	if err != nil {
		t.Fatal(err)
	}
	if m := outputs.Manifest(); m.Files() != 1 || !slices.Equal(m.Missing, []string{"absent.txt"}) {
		t.Errorf("the manifest has %d files and misses %v", m.Files(), m.Missing)
	}
	h.nothingIsLeft()
	if got := states(h, id); got != "Q W T R T F" {
		t.Errorf("it went through %s", got)
	}
	var names []string
	h.mu.Lock()
	for _, e := range h.live {
		if e.Kind == skyport.EventProgress && !slices.Contains(names, e.Transfer.Name) {
			names = append(names, e.Transfer.Name)
		}
	}
	h.mu.Unlock()
	if !slices.Equal(names, []string{"inputs", "outputs"}) {
		t.Errorf("progress was told of %v", names)
	}
}

// states spells the states that the job's events tell.
func states(h *house, id skyport.JobID) string {
	h.Helper()
	events, err := h.store.Events(h.Context(), store.EventFilter{Job: id})
	if err != nil {
		h.Fatal(err)
	}
	var list []string
	for _, e := range events {
		if e.Kind == skyport.EventState {
			list = append(list, e.State)
		}
	}
	return strings.Join(list, " ")
}

func TestCreateIsTriedAgainUnderTheSameID(t *testing.T) {
	t.Parallel()
	h := build(t, func(h *house) {
		h.newborn = endsAtOnce
		h.site.Fail("Create", errors.New("a hiccup"), errors.New("another"))
	})
	id := h.submit(skyport.Request{})
	h.comesTo(id, skyport.JobFinished)
	if n := h.site.Calls("Create"); n < 3 {
		t.Errorf("the gate was asked %d times", n)
	}
	if n := len(h.partitions()); n != 1 {
		t.Errorf("%d partitions were planned", n)
	}
	if n := len(h.attempts(id)); n != 1 {
		t.Errorf("%d attempts were made", n)
	}
	h.nothingIsLeft()
}

func TestARefusedOfferIsNotAskedForAgain(t *testing.T) {
	t.Parallel()
	h := build(t, func(h *house) {
		h.newborn = endsAtOnce
		h.site.Fail("Create", fmt.Errorf("no quota: %w", gate.ErrPermanent))
	})
	id := h.submit(skyport.Request{})
	job := h.comesTo(id, skyport.JobFinished)
	if job.Flavor != "large" || job.Attempt != 2 || job.Misplaced != 0 {
		t.Errorf("it ran on %s as attempt %d, misplaced %d", job.Flavor, job.Attempt, job.Misplaced)
	}
	if first := h.attempts(id)[0]; !strings.Contains(first.Outcome, "no quota") || first.Ended.IsZero() {
		t.Errorf("of the first attempt is told: %+v", first)
	}
	h.nothingIsLeft()
}

func TestAJobThatIsRefusedEverywhereIsGivenUp(t *testing.T) {
	t.Parallel()
	h := build(t, func(h *house) {
		h.limits.Misplaced = 2
		no := fmt.Errorf("no quota: %w", gate.ErrPermanent)
		h.site.Fail("Create", no, no, no, no)
	})
	id := h.submit(skyport.Request{})
	job := h.comesTo(id, skyport.JobFailed)
	if !strings.Contains(job.Details, "Gave up after 2 attempts") || !strings.Contains(job.Details, "no quota") {
		t.Errorf("it ended with %q", job.Details)
	}
	h.nothingIsLeft()
}

// What does not come up in time is given up and removed; the job with it.
func TestDeadlines(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(*house)
		want   string
	}{
		"creation": {func(h *house) {
			h.limits.Create = 100 * time.Millisecond
			h.site = gatetest.NewProvider(gatetest.Script{Endpoint: h.endpoint, CreateDelay: time.Hour})
		}, "did not bring up the nodes within 100ms"},
		"boot": {func(h *house) {
			h.limits.Create = 100 * time.Millisecond
			h.site = gatetest.NewProvider(gatetest.Script{Endpoint: h.endpoint, BootDelay: time.Hour})
		}, "did not bring up the nodes within 100ms"},
		"connection": {func(h *house) { h.limits.Connect, h.noAnswer = 100*time.Millisecond, true }, "the worker did not answer within 100ms"},
		"endpoint":   {func(h *house) { h.site = gatetest.NewProvider(gatetest.Script{}) }, "is neither unix:///path nor ssh:"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := build(t, func(h *house) { h.limits.Misplaced = 1 }, test.change)
			id := h.submit(skyport.Request{})
			if job := h.comesTo(id, skyport.JobFailed); !strings.Contains(job.Details, test.want) {
				t.Errorf("it ended with %q", job.Details)
			}
			h.nothingIsLeft()
		})
	}
}

// Nodes that the site loses before they were ever reached are not waited for.
func TestLostWhileConnecting(t *testing.T) {
	t.Parallel()
	h := build(t, func(h *house) { h.limits.Misplaced, h.noAnswer = 1, true })
	id := h.submit(skyport.Request{})
	h.until("its partition connects", func() bool {
		p := h.job(id).Partition
		if p == "" {
			return false
		}
		row, err := h.store.Partition(t.Context(), p)
		return err == nil && row.State == skyport.PartitionConnecting
	})
	h.site.Break(h.job(id).Partition, "on fire")
	if job := h.comesTo(id, skyport.JobFailed); !strings.Contains(job.Details, "on fire") {
		t.Errorf("it ended with %q", job.Details)
	}
	h.nothingIsLeft()
}

// A running job whose node or site fails is tried again if it asked for that.
func TestLosses(t *testing.T) {
	t.Parallel()
	losses := map[string]struct {
		lose func(h *house, id skyport.JobID, w *protocoltest.Worker, run string)
		want string
	}{
		"the site removes the partition": {func(h *house, id skyport.JobID, _ *protocoltest.Worker, _ string) {
			h.site.Vanish(h.job(id).Partition)
		}, "the site has removed the partition"},
		"the site gives the partition up": {func(h *house, id skyport.JobID, _ *protocoltest.Worker, _ string) {
			h.site.Break(h.job(id).Partition, "on fire")
		}, "on fire"},
		"the node boots": {func(_ *house, _ skyport.JobID, w *protocoltest.Worker, _ string) { w.Reboot() }, "the node booted"},
		"the shim dies": {func(_ *house, _ skyport.JobID, w *protocoltest.Worker, run string) {
			w.Change(run, func(s *protocol.RunStatus) { s.State, s.Details = protocol.RunLost, "no exit record" })
		}, "no exit record"},
		"the worker stays away": {func(_ *house, _ skyport.JobID, w *protocoltest.Worker, _ string) { w.Down() }, "has not answered for"},
	}
	for name, loss := range losses {
		for _, retries := range []int{0, 1} {
			t.Run(fmt.Sprintf("%s, %d retries", name, retries), func(t *testing.T) {
				t.Parallel()
				h := build(t, func(h *house) { h.limits.Lost = 200 * time.Millisecond })
				id := h.submit(skyport.Request{Retries: retries})
				w, run := h.runs(id)
				w.Write(run, "so far\n")
				h.until("the log is here", func() bool { return h.log(id, 1) != "" })
				loss.lose(h, id, w, run)
				if retries == 0 {
					if job := h.comesTo(id, skyport.JobFailed); !strings.Contains(job.Details, loss.want) {
						t.Errorf("it ended with %q", job.Details)
					}
				} else {
					h.until("a second attempt", func() bool { return h.job(id).Attempt == 2 })
					w, run := h.runs(id)
					w.End(run, 0)
					if job := h.comesTo(id, skyport.JobFinished); job.Retried != 1 {
						t.Errorf("it says that it was tried again %d times", job.Retried)
					}
				}
				if first := h.attempts(id)[0]; !strings.Contains(first.Outcome, loss.want) || first.Ended.IsZero() {
					t.Errorf("of the first attempt is told: %+v", first)
				}
				if got := h.log(id, 1); got != "so far\n" {
					t.Errorf("the log of the lost attempt is %q", got)
				}
				h.everyWorker((*protocoltest.Worker).Up)
				h.nothingIsLeft()
			})
		}
	}
}

func TestARunThatCannotStart(t *testing.T) {
	t.Parallel()
	t.Run("refused by the worker", func(t *testing.T) {
		t.Parallel()
		h := build(t, func(h *house) {
			h.newborn = func(w *protocoltest.Worker) { w.Refuse(skyport.Errorf(skyport.CodeUnsupported, "no such runtime")) }
		})
		id := h.submit(skyport.Request{})
		if job := h.comesTo(id, skyport.JobFailed); !strings.Contains(job.Details, "no such runtime") {
			t.Errorf("it ended with %q", job.Details)
		}
		h.nothingIsLeft()
	})
	t.Run("refused by the node", func(t *testing.T) {
		t.Parallel()
		h := build(t)
		id := h.submit(skyport.Request{})
		w, run := h.runs(id)
		w.Change(run, func(s *protocol.RunStatus) { s.State, s.Details = protocol.RunRefused, "no such interpreter" })
		if job := h.comesTo(id, skyport.JobFailed); !strings.Contains(job.Details, "no such interpreter") {
			t.Errorf("it ended with %q", job.Details)
		}
		h.nothingIsLeft()
	})
	t.Run("input gone", func(t *testing.T) {
		t.Parallel()
		h := build(t)
		id := h.submit(skyport.Request{InputFiles: []string{filepath.Join(h.dir, "absent")}})
		if job := h.comesTo(id, skyport.JobFailed); !strings.Contains(job.Details, "inputs cannot be read") {
			t.Errorf("it ended with %q", job.Details)
		}
		h.nothingIsLeft()
	})
}

// ways are the places in a job's life where it can be stopped, or core can.
var ways = map[string]struct {
	reach   func(h *house) skyport.JobID
	release func(h *house)
}{
	"creating": {
		func(h *house) skyport.JobID {
			h.site.Stall(true)
			id := h.submit(skyport.Request{})
			h.until("creation is asked for", func() bool { return h.site.Calls("Create") == 1 })
			h.comesTo(id, skyport.JobWaiting)
			return id
		},
		func(h *house) { h.site.Stall(false) },
	},
	"connecting": {
		func(h *house) skyport.JobID {
			h.noAnswer = true
			id := h.submit(skyport.Request{})
			h.until("connecting", func() bool { return h.inState(skyport.PartitionConnecting) == 1 })
			return id
		},
		func(h *house) {
			h.mu.Lock()
			h.noAnswer = false
			h.mu.Unlock()
			h.everyWorker((*protocoltest.Worker).Up)
		},
	},
	"staging": {
		func(h *house) skyport.JobID {
			h.newborn = (*protocoltest.Worker).Hold
			id := h.submit(skyport.Request{InputFiles: []string{h.input("data")}})
			h.until("staging", func() bool {
				rows := h.attempts(id)
				return len(rows) == 1 && rows[0].Phase == skyport.PhaseStaging
			})
			return id
		},
		func(h *house) {
			h.mu.Lock()
			h.newborn = nil
			h.mu.Unlock()
			h.everyWorker((*protocoltest.Worker).Release)
		},
	},
	"running": {
		func(h *house) skyport.JobID {
			id := h.submit(skyport.Request{})
			w, run := h.runs(id)
			w.Write(run, "so far\n")
			return id
		},
		func(*house) {},
	},
	"ended": {
		func(h *house) skyport.JobID {
			h.newborn = (*protocoltest.Worker).Hold
			id := h.submit(skyport.Request{OutputFiles: []string{"out.txt"}})
			w, run := h.runs(id)
			if err := os.WriteFile(filepath.Join(w.Work(run), "out.txt"), []byte("result"), 0o600); err != nil {
				h.Fatal(err)
			}
			w.End(run, 0)
			h.comesTo(id, skyport.JobTransferring)
			return id
		},
		func(h *house) {
			h.mu.Lock()
			h.newborn = nil
			h.mu.Unlock()
			h.everyWorker((*protocoltest.Worker).Release)
		},
	},
}

func everyWay(t *testing.T, do func(t *testing.T, h *house, id skyport.JobID, release func(*house))) {
	t.Helper()
	t.Parallel()
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := build(t)
			do(t, h, way.reach(h), way.release)
		})
	}
}

func TestCancel(t *testing.T) {
	everyWay(t, func(t *testing.T, h *house, id skyport.JobID, release func(*house)) {
		if err := h.engine.Cancel(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if job := h.job(id); job.State != skyport.JobCanceled || job.EndTime.IsZero() {
			t.Errorf("it is %s at once", job.State)
		}
		if err := h.engine.Cancel(t.Context(), id); skyport.CodeOf(err) != skyport.CodeConflict {
			t.Errorf("a second cancel says %v", err)
		}
		release(h)
		h.nothingIsLeft()
		if job := h.job(id); job.State != skyport.JobCanceled {
			t.Errorf("in the end it is %s", job.State)
		}
		h.everyWorker(func(w *protocoltest.Worker) {
			if runs := w.Runs(); len(runs) > 0 {
				t.Errorf("the worker still has %v", runs)
			}
		})
		if first := h.attempts(id)[0]; !strings.Contains(first.Outcome, "canceled") || first.Ended.IsZero() {
			t.Errorf("of the attempt is told: %+v", first)
		}
	})
}

func TestCancelOfAQueuedJob(t *testing.T) {
	t.Parallel()
	h := build(t)
	id := h.submit(skyport.Request{Site: "elsewhere"})
	h.until("there is a reason", func() bool { return h.engine.Reason(id) != "" })
	if err := h.engine.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	h.nothingIsLeft()
	if h.engine.Reason(id) != "" {
		t.Errorf("it still waits because of %q", h.engine.Reason(id))
	}
	if err := h.engine.Cancel(t.Context(), skyport.NewJobID()); skyport.CodeOf(err) != skyport.CodeNotFound {
		t.Errorf("canceling a job that there is not says %v", err)
	}
}

// A transfer that stands still does not hold a canceled job's partition.
func TestCancelEndsTransfers(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"staging", "ended"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			h := build(t)
			id := ways[way].reach(h)
			if err := h.engine.Cancel(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			h.nothingIsLeft()
		})
	}
}

func TestTheLogOfACanceledRunIsKept(t *testing.T) {
	t.Parallel()
	h := build(t)
	id := h.submit(skyport.Request{})
	w, run := h.runs(id)
	w.Stubborn()
	if err := h.engine.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	h.until("it is told to stop", func() bool {
		stopped := false
		w.Change(run, func(s *protocol.RunStatus) { stopped = s.Stopped })
		return stopped
	})
	w.Write(run, "last words\n")
	w.End(run, 143)
	h.nothingIsLeft()
	if got := h.log(id, 1); got != "last words\n" {
		t.Errorf("its log is %q", got)
	}
}

func TestRequeue(t *testing.T) {
	everyWay(t, func(t *testing.T, h *house, id skyport.JobID, release func(*house)) {
		if err := h.engine.Requeue(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		release(h)
		h.until("a second attempt", func() bool { return h.job(id).Attempt == 2 })
		w, run := h.runs(id)
		w.End(run, 0)
		h.comesTo(id, skyport.JobFinished)
		h.nothingIsLeft()
		rows := h.attempts(id)
		if len(rows) != 2 || !strings.Contains(rows[0].Outcome, "requeued") || rows[0].Ended.IsZero() || rows[1].Outcome != "" {
			t.Errorf("its attempts are %+v", rows)
		}
		h.everyWorker(func(w *protocoltest.Worker) {
			if runs := w.Runs(); len(runs) > 0 {
				t.Errorf("the worker still has %v", runs)
			}
		})
	})
}

func TestRequeueOfAnEndedJobKeepsItsHistory(t *testing.T) {
	t.Parallel()
	h := build(t)
	id := h.submit(skyport.Request{})
	w, run := h.runs(id)
	w.Write(run, "first\n")
	w.End(run, 7)
	h.comesTo(id, skyport.JobFinished)
	if err := h.engine.Requeue(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	h.until("a second attempt", func() bool { return h.job(id).Attempt == 2 })
	w, run = h.runs(id)
	if job := h.job(id); job.ExitCode != 0 || !job.EndTime.IsZero() {
		t.Errorf("the new attempt begins with %+v", job)
	}
	w.Write(run, "second\n")
	w.End(run, 0)
	h.comesTo(id, skyport.JobFinished)
	rows := h.attempts(id)
	if len(rows) != 2 || rows[0].ExitCode != 7 || rows[1].ExitCode != 0 || h.log(id, 1) != "first\n" || h.log(id, 2) != "second\n" {
		t.Errorf("its attempts are %+v, their logs %q and %q", rows, h.log(id, 1), h.log(id, 2))
	}
	h.nothingIsLeft()
}

func TestPurge(t *testing.T) {
	everyWay(t, func(t *testing.T, h *house, id skyport.JobID, release func(*house)) {
		other := skyport.NewJobID() // one that there is not does no harm
		if err := h.engine.Purge(t.Context(), []skyport.JobID{other, id}); err != nil {
			t.Fatal(err)
		}
		if _, err := h.store.Job(t.Context(), id); skyport.CodeOf(err) != skyport.CodeNotFound {
			t.Errorf("it is seen still: %v", err)
		}
		release(h)
		h.nothingIsLeft()
		if rows := h.attempts(id); len(rows) > 0 {
			t.Errorf("attempts are left: %+v", rows)
		}
		if _, err := h.store.Script(t.Context(), id); skyport.CodeOf(err) != skyport.CodeNotFound {
			t.Errorf("its script is left: %v", err)
		}
		if left, _ := filepath.Glob(filepath.Join(h.dir, "jobs", "*")); len(left) > 0 {
			t.Errorf("files are left: %v", left)
		}
	})
}

func TestPurgeOfAnEndedJob(t *testing.T) {
	t.Parallel()
	h := build(t, func(h *house) { h.newborn = endsAtOnce })
	id := h.submit(skyport.Request{OutputFiles: []string{"out.txt"}})
	h.comesTo(id, skyport.JobFinished)
	h.nothingIsLeft()
	if err := h.engine.Purge(t.Context(), []skyport.JobID{id}); err != nil {
		t.Fatal(err)
	}
	h.until("its files are gone", func() bool {
		left, _ := filepath.Glob(filepath.Join(h.dir, "jobs", "*"))
		return len(left) == 0
	})
	h.nothingIsLeft()
}

// A core that starts again on the same rows goes on where it was.
func TestRestart(t *testing.T) {
	everyWay(t, func(t *testing.T, h *house, id skyport.JobID, release func(*house)) {
		h.restart()
		release(h)
		if h.job(id).State != skyport.JobTransferring || len(h.job(id).Request.OutputFiles) == 0 {
			w, run := h.runs(id)
			w.End(run, 5)
			if job := h.comesTo(id, skyport.JobFinished); job.ExitCode != 5 {
				t.Errorf("its exit code is %d", job.ExitCode)
			}
		}
		job := h.comesTo(id, skyport.JobFinished)
		if job.Attempt != 1 {
			t.Errorf("it took %d attempts", job.Attempt)
		}
		h.nothingIsLeft()
		started := 0
		h.everyWorker(func(w *protocoltest.Worker) { started += w.Started() })
		if started != 1 {
			t.Errorf("its script was started %d times", started)
		}
		if n := len(h.partitions()); n != 1 {
			t.Errorf("%d partitions were made", n)
		}
	})
}

// What happened while core was away is found out when it comes back.
func TestWhileCoreWasAway(t *testing.T) {
	t.Parallel()
	t.Run("the script ended", func(t *testing.T) {
		t.Parallel()
		h := build(t)
		id := h.submit(skyport.Request{})
		w, run := h.runs(id)
		h.stop()
		w.Write(run, "alone\n")
		w.End(run, 4)
		h.start()
		if job := h.comesTo(id, skyport.JobFinished); job.ExitCode != 4 || h.log(id, 1) != "alone\n" {
			t.Errorf("it ended with %d, log %q", job.ExitCode, h.log(id, 1))
		}
		h.nothingIsLeft()
	})
	t.Run("the partition vanished", func(t *testing.T) {
		t.Parallel()
		h := build(t)
		id := h.submit(skyport.Request{})
		h.runs(id)
		h.stop()
		h.site.Vanish(h.partitionOf(id))
		h.start()
		if job := h.comesTo(id, skyport.JobFailed); !strings.Contains(job.Details, "removed the partition") {
			t.Errorf("it ended with %q", job.Details)
		}
		h.nothingIsLeft()
	})
}

func (h *house) partitionOf(skyport.JobID) skyport.PartitionID {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id := range h.workers {
		return id
	}
	return ""
}

func TestAPartitionWaitsForTheNextJob(t *testing.T) {
	t.Parallel()
	h := build(t, func(h *house) { h.newborn = endsAtOnce })
	first := h.submit(skyport.Request{KeepAlive: 3600})
	h.comesTo(first, skyport.JobFinished)
	h.until("idle", func() bool { return h.inState(skyport.PartitionReady) == 1 })
	if p := h.partitions()[0]; p.IdleSince.IsZero() {
		t.Error("it does not say since when it is idle")
	}
	h.restart() // it waits on
	second := h.submit(skyport.Request{KeepAlive: 3600})
	job := h.comesTo(second, skyport.JobFinished)
	if job.Partition != h.job(first).Partition || len(h.partitions()) != 1 {
		t.Errorf("the second job ran on %s, the first on %s", job.Partition, h.job(first).Partition)
	}
	if got := states(h, second); got != "Q W R F" {
		t.Errorf("it went through %s", got)
	}
}

// A partition waits as long, and is kept, as any of its jobs asks: also one that
// came while it was booting.
func TestTheLongestKeepAliveCounts(t *testing.T) {
	t.Parallel()
	h := build(t)
	h.site.Stall(true)
	first := h.submit(skyport.Request{CPUs: 1, KeepAlive: 1, Flavor: "small"})
	h.comesTo(first, skyport.JobWaiting)
	second := h.submit(skyport.Request{CPUs: 1, KeepAlive: 3600, Flavor: "small"})
	h.comesTo(second, skyport.JobWaiting)
	if p := h.partitions(); len(p) != 1 || p[0].KeepAlive != 3600 {
		t.Errorf("while it boots: %+v", p)
	}
	h.site.Stall(false)
	for _, id := range []skyport.JobID{first, second} {
		w, run := h.runs(id)
		w.End(run, 0)
		h.comesTo(id, skyport.JobFinished)
	}
	h.until("idle", func() bool { return h.inState(skyport.PartitionReady) == 1 })
	third := h.submit(skyport.Request{KeepResources: true, KeepAlive: 7200})
	w, run := h.runs(third)
	if p := h.partitions(); len(p) != 1 || p[0].KeepAlive != 7200 || !p[0].KeepResources {
		t.Errorf("when it is used again: %+v", p)
	}
	w.End(run, 0)
	h.comesTo(third, skyport.JobFinished)
}

// A job for whose ports there is no address waits, and costs nothing.
func TestNoAddressForThePorts(t *testing.T) {
	t.Parallel()
	h := build(t, func(h *house) {
		var err error
		if h.ports, err = forward.ParseAddresses("127.77.0.0/31"); err != nil {
			t.Fatal(err)
		}
	})
	r := skyport.Request{Flavor: "small", Ports: []skyport.Port{{Number: 8888, Direction: skyport.In}}}
	var waits skyport.JobID
	for range 4 {
		waits = h.submit(r)
	}
	h.until("it says why it waits", func() bool { return strings.Contains(h.job(waits).Details, "address") })
	h.until("two have addresses and run", func() bool { return h.inState(skyport.PartitionBusy) == 2 })
	planned := h.site.Calls("Create")
	commits, err := h.store.LastEvent(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h.until("others go on", func() bool {
		w := h.submit(skyport.Request{Name: "plain"})
		worker, run := h.runs(w)
		worker.End(run, 0)
		return h.comesTo(w, skyport.JobFinished).State == skyport.JobFinished
	})
	if n := h.site.Calls("Create"); n > planned+1 {
		t.Errorf("%d partitions were asked for in vain", n-planned)
	}
	if after, err := h.store.LastEvent(t.Context()); err != nil || after > commits+60 {
		t.Errorf("%d events were written meanwhile, %v", after-commits, err)
	}
}

func TestAnIdlePartitionIsDrainedInTheEnd(t *testing.T) {
	t.Parallel()
	h := build(t, func(h *house) { h.newborn = endsAtOnce })
	id := h.submit(skyport.Request{KeepAlive: 1})
	ended := h.comesTo(id, skyport.JobFinished).EndTime
	h.nothingIsLeft()
	if p := h.partitions()[0]; p.DeletedAt.Sub(ended) < 900*time.Millisecond {
		t.Errorf("it was removed after %s", p.DeletedAt.Sub(ended))
	}
}

func TestAKeptPartitionStays(t *testing.T) {
	t.Parallel()
	h := build(t, func(h *house) { h.newborn = endsAtOnce })
	id := h.submit(skyport.Request{KeepResources: true})
	h.comesTo(id, skyport.JobFinished)
	other := h.submit(skyport.Request{Flavor: "large"})
	h.comesTo(other, skyport.JobFinished)
	h.until("only one is left", func() bool { return h.inState(skyport.PartitionDeleted) == 1 })
	if h.inState(skyport.PartitionReady) != 1 {
		t.Error("the kept partition is gone")
	}
}

// A worker that is silent when its partition is drained does not hold it up.
func TestDrainWithASilentWorker(t *testing.T) {
	t.Parallel()
	h := build(t)
	id := h.submit(skyport.Request{})
	w, _ := h.runs(id)
	w.Down()
	if err := h.engine.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	// The partition is still busy with the canceled attempt; nobody can tell the
	// worker. It goes when the worker counts as lost.
	h.until("canceled", func() bool { return h.job(id).State == skyport.JobCanceled })
	if err := h.store.Update(t.Context(), func(tx *store.Tx) error {
		p, err := tx.Partition(h.partitionOf(id))
		if err != nil {
			return err
		}
		return tx.MovePartition(&p, skyport.PartitionDraining, "by hand")
	}); err != nil {
		t.Fatal(err)
	}
	h.nothingIsLeft()
}

func TestDeletionIsAskedForUntilItIsTrue(t *testing.T) {
	t.Parallel()
	h := build(t, func(h *house) {
		h.newborn = endsAtOnce
		h.site.Fail("Delete", errors.New("a hiccup"), errors.New("another"))
	})
	id := h.submit(skyport.Request{})
	h.comesTo(id, skyport.JobFinished)
	h.nothingIsLeft()
	if h.site.Calls("Delete") < 3 {
		t.Errorf("the gate was asked %d times", h.site.Calls("Delete"))
	}
}

func TestTheLeaseIsExtended(t *testing.T) {
	t.Parallel()
	h := build(t, func(h *house) { h.limits.Lease = 400 * time.Millisecond })
	id := h.submit(skyport.Request{})
	w, run := h.runs(id)
	h.site.Fail("Extend", errors.New("a hiccup"))
	h.until("it is extended again and again", func() bool { return h.site.Calls("Extend") > 3 })
	w.End(run, 0)
	h.comesTo(id, skyport.JobFinished)
	h.nothingIsLeft()
}

func TestLogsAreBounded(t *testing.T) {
	t.Parallel()
	h := build(t, func(h *house) { h.limits.JobLog = 10 })
	id := h.submit(skyport.Request{})
	w, run := h.runs(id)
	w.Write(run, "12345")
	h.until("the first half is here", func() bool { return h.log(id, 1) == "12345" })
	w.Write(run, "6789012345")
	w.Write(run, "more")
	w.End(run, 0)
	job := h.comesTo(id, skyport.JobFinished)
	if got := h.log(id, 1); got != "1234567890" {
		t.Errorf("its log is %q", got)
	}
	if len(job.Warnings) != 1 || !strings.Contains(job.Warnings[0], "only the first 10 B of stdout") {
		t.Errorf("it warns %q", job.Warnings)
	}
	h.nothingIsLeft()
}

func TestSeveralJobsShareAPartition(t *testing.T) {
	t.Parallel()
	h := build(t)
	a, b := h.submit(skyport.Request{CPUs: 1, KeepAlive: 60, Flavor: "small"}), skyport.JobID("")
	h.runs(a)
	b = h.submit(skyport.Request{CPUs: 1, Flavor: "small"})
	w, runA := h.runs(a)
	_, runB := h.runs(b)
	if h.job(a).Partition != h.job(b).Partition {
		t.Fatal("they run apart")
	}
	w.End(runA, 0)
	h.comesTo(a, skyport.JobFinished)
	h.until("the first is let go", func() bool { return slices.Equal(w.Runs(), []string{runB}) })
	if h.inState(skyport.PartitionBusy) != 1 {
		t.Error("the partition is not busy any more")
	}
	w.End(runB, 0)
	h.comesTo(b, skyport.JobFinished)
	h.until("idle", func() bool { return h.inState(skyport.PartitionReady) == 1 })
}

// A worker that goes away for a moment is not lost.
func TestAShortSilence(t *testing.T) {
	t.Parallel()
	h := build(t)
	id := h.submit(skyport.Request{})
	w, run := h.runs(id)
	w.Down()
	w.Write(run, "alone\n")
	w.Up()
	h.until("its log goes on", func() bool { return h.log(id, 1) == "alone\n" })
	w.End(run, 0)
	if job := h.comesTo(id, skyport.JobFinished); job.Attempt != 1 {
		t.Errorf("it took %d attempts", job.Attempt)
	}
	h.nothingIsLeft()
}

// What carries our tag and has no row is removed; what is others' is left.
func TestSweep(t *testing.T) {
	t.Parallel()
	h := build(t)
	id := h.submit(skyport.Request{})
	w, run := h.runs(id)
	spec := func(owner string) gate.PartitionSpec {
		return gate.PartitionSpec{ID: skyport.NewPartitionID(), Owner: owner, Site: "test", Flavor: "small", Nodes: []string{"n"}, Lease: time.Now().Add(time.Hour)}
	}
	ours, theirs := spec("us"), spec("them")
	for _, s := range []gate.PartitionSpec{ours, theirs} {
		if err := h.site.Create(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	for _, dry := range []bool{true, false} {
		orphans, err := h.engine.Sweep(t.Context(), "test", dry)
		if err != nil || len(orphans) != 1 || orphans[0].Partition != ours.ID || orphans[0].Removed == dry || orphans[0].Reason != "unknown to this core" {
			t.Errorf("a sweep (dry %v) found %+v, %v", dry, orphans, err)
		}
		_, err = h.site.Status(t.Context(), "test", ours.ID)
		if errors.Is(err, gate.ErrNotFound) == dry {
			t.Errorf("after a sweep (dry %v) the orphan has status %v", dry, err)
		}
	}
	if _, err := h.site.Status(t.Context(), "test", theirs.ID); err != nil {
		t.Errorf("what is others' is gone: %v", err)
	}
	if _, err := h.engine.Sweep(t.Context(), "moon", false); skyport.CodeOf(err) != skyport.CodeUnknownSite || skyport.HintOf(err) != "there are: test" {
		t.Errorf("a site that is not there: %v, hint %q", err, skyport.HintOf(err))
	}
	h.site.Fail("List", errors.New("the site is away"))
	if _, err := h.engine.Sweep(t.Context(), "", false); err == nil {
		t.Error("a sweep that could not look says nothing")
	}
	w.End(run, 0)
	done := h.comesTo(id, skyport.JobFinished)

	// A site that forgot a removal has a partition again, past its lease.
	h.until("the partition is removed", func() bool {
		row, err := h.store.Partition(t.Context(), done.Partition)
		return err == nil && row.State == skyport.PartitionDeleted
	})
	again := ours
	again.ID, again.Lease = done.Partition, time.Now().Add(-time.Hour)
	if err := h.site.Create(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	orphans, err := h.engine.Sweep(t.Context(), "", false)
	if err != nil || len(orphans) != 1 || orphans[0].Reason != "was removed, and is still there, past its lease" || !orphans[0].Removed {
		t.Errorf("a sweep found %+v, %v", orphans, err)
	}
}

// Explain tells what would happen, and does nothing.
func TestExplain(t *testing.T) {
	t.Parallel()
	h := build(t)
	if _, c, reason := h.engine.Explain("lab", &skyport.Request{Nodes: 2}); c.Nodes != 2 || c.Flavor.Name != "small" || reason != "" {
		t.Errorf("two nodes: %+v %q", c, reason)
	}
	if _, _, reason := h.engine.Explain("lab", &skyport.Request{CPUs: 99}); !strings.Contains(reason, "no flavor has 99 CPUs") {
		t.Errorf("99 cpus: %q", reason)
	}
	id := h.submit(skyport.Request{KeepAlive: 60})
	w, run := h.runs(id)
	if p, _, _ := h.engine.Explain("lab", &skyport.Request{}); p.Partition != h.job(id).Partition {
		t.Errorf("beside a job: %+v", p)
	}
	if n := len(h.partitions()); n != 1 {
		t.Errorf("there are %d partitions", n)
	}
	w.End(run, 0)
	h.comesTo(id, skyport.JobFinished)
}

// A script that began and was lost before core heard of it has begun all the
// same: only retries run it again.
func TestLossUnseen(t *testing.T) {
	t.Parallel()
	h := build(t, func(h *house) {
		h.newborn = func(w *protocoltest.Worker) {
			w.OnStart(func(w *protocoltest.Worker, spec protocol.RunSpec) {
				w.Change(spec.Run, func(s *protocol.RunStatus) {
					s.State, s.Details, s.Started = protocol.RunLost, "the node booted", time.Now()
				})
			})
		}
	})
	id := h.submit(skyport.Request{})
	if job := h.comesTo(id, skyport.JobFailed); job.Attempt != 1 || !strings.Contains(job.Details, "the node booted") {
		t.Errorf("it ended with %q in attempt %d", job.Details, job.Attempt)
	}
	if row := h.attempts(id)[0]; row.Started.IsZero() {
		t.Errorf("of the attempt is told: %+v", row)
	}
	h.nothingIsLeft()
}

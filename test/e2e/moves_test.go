package e2e

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
)

// held is a job that is in a state and stays there until it is released.
type held struct {
	id      skyport.JobID
	release func()
}

// holds brings a job to a state in each way that there is. The job ends by
// itself, with 0, when its second attempt runs undisturbed.
var holds = map[string]func(h *house) held{
	"Q": func(h *house) held {
		blocker := h.submit("#SWM flavor local.all\nwhile [ ! -e " + h.work + "/free ]; do sleep 0.02; done")
		h.reach(blocker, skyport.JobRunning)
		id := h.submit("true")
		h.until("it waits", func() bool { return len(h.job(id).Details) > len(skyport.DetailsQueued) })
		return held{id, func() { h.write("free", "") }}
	},
	"W": func(h *house) held {
		gate := h.up[0].cmd.Process
		stop(h, gate.Pid)
		id := h.submit("true")
		h.reach(id, skyport.JobWaiting)
		return held{id, func() { resume(h, gate.Pid) }}
	},
	"T up": func(h *house) held {
		h.large("input", 64<<20)
		id, worker := h.freeze("#SWM input-files input\ntest $(wc -c < input) = 67108864", skyport.JobTransferring)
		return held{id, func() { resume(h, worker) }}
	},
	"R": func(h *house) held {
		id := h.submit("trap '' TERM\nif mkdir " + h.work + "/once; then sleep 600; fi")
		h.until("it runs", func() bool {
			_, err := os.Stat(filepath.Join(h.work, "once"))
			return err == nil && h.job(id).State == skyport.JobRunning
		})
		return held{id, func() {}}
	},
	"T down": func(h *house) held {
		large := h.large("result", 96<<20)
		id, worker := h.freeze("#SWM output-files result\ncp "+large+" .", skyport.JobRunning, skyport.JobTransferring)
		return held{id, func() { resume(h, worker) }}
	},
	"F": func(h *house) held {
		id := h.submit("true")
		h.finish(id, 0)
		return held{id, func() {}}
	},
	"C": func(h *house) held {
		id := h.submit("if mkdir " + h.work + "/once; then sleep 600; fi")
		h.until("it runs", func() bool { _, err := os.Stat(filepath.Join(h.work, "once")); return err == nil })
		h.ok("cancel", string(id))
		return held{id, func() {}}
	},
	"E": func(h *house) held {
		id := h.submit("if mkdir " + h.work + "/once; then sleep 600; fi")
		h.until("it runs", func() bool {
			_, err := os.Stat(filepath.Join(h.work, "once"))
			return err == nil && h.job(id).State == skyport.JobRunning
		})
		for _, signal := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
			for _, pid := range h.processes() {
				_ = syscall.Kill(pid, signal) // it may have ended with another
			}
		}
		if job := h.wait(id); job.State != skyport.JobFailed {
			h.t.Fatalf("%s: %s", job.State, job.Details)
		}
		return held{id, func() {}}
	},
}

// large makes a file that takes a moment to be moved.
func (h *house) large(name string, size int64) string {
	h.t.Helper()
	random, err := os.Open("/dev/urandom")
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = random.Close() }() // only read
	path := filepath.Join(h.work, name)
	f, err := os.Create(path)
	if err == nil {
		_, err = io.CopyN(f, random, size)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return path
}

func stop(h *house, pid int) {
	h.t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		h.t.Fatal(err)
	}
}

func resume(h *house, pid int) {
	h.t.Helper()
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
		h.t.Error(err)
	}
}

// freeze submits a job and stops its worker the moment that the job has gone
// through the states, in the middle of the transfer.
func (h *house) freeze(script string, states ...skyport.JobState) (id skyport.JobID, worker int) {
	h.t.Helper()
	id = h.submit(script)
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	for e, err := range h.client().Events(ctx, client.EventFilter{Job: id}, 0) {
		if err != nil {
			h.t.Fatal(err)
		}
		if len(states) > 0 && e.State == string(states[0]) {
			states = states[1:]
		}
		if len(states) == 0 {
			break
		}
	}
	workers := h.workers()
	if len(workers) != 1 {
		h.t.Fatalf("workers: %v", workers)
	}
	stop(h, workers[0])
	if job := h.job(id); job.State != skyport.JobTransferring {
		h.t.Fatalf("the transfer was too quick: the job is %s: %s", job.State, job.Details)
	}
	return id, workers[0]
}

// TestCancelAndRequeue: both are effective at once in every state, whoever
// hangs; what was under way is removed behind it, and a requeued job runs once.
func TestCancelAndRequeue(t *testing.T) {
	t.Parallel()
	for state, hold := range holds {
		for _, what := range []string{"cancel", "requeue", "purge"} {
			t.Run(strings.ReplaceAll(state, " ", "-")+"/"+what, func(t *testing.T) {
				t.Parallel()
				h := newHouse(t)
				h.start("gate")
				h.start("core")
				h.ready()
				it := hold(h)
				attempt := h.job(it.id).Attempt
				// Whatever happens, nobody stays frozen.
				t.Cleanup(it.release)

				ended := state == "F" || state == "C" || state == "E"
				start := time.Now()
				switch what {
				case "cancel":
					job, err := h.client().Cancel(t.Context(), it.id)
					if ended {
						if skyport.CodeOf(err) != skyport.CodeConflict || err == nil {
							t.Errorf("cancel of a job that has ended: %v", err)
						}
						return
					}
					if err != nil || job.State != skyport.JobCanceled {
						t.Errorf("cancel: %v, %s", err, job.State)
					}
				case "requeue":
					job, err := h.client().Requeue(t.Context(), it.id)
					// By the time of the answer it may have its next place.
					if err != nil || job.State != skyport.JobQueued && job.State != skyport.JobWaiting {
						t.Errorf("requeue: %v, %s", err, job.State)
					}
				case "purge":
					if err := h.client().Purge(t.Context(), it.id); err != nil {
						t.Error(err)
					}
					if _, err := h.client().Job(t.Context(), it.id); skyport.CodeOf(err) != skyport.CodeNotFound {
						t.Errorf("a purged job: %v", err)
					}
				}
				if took := time.Since(start); took > 5*time.Second {
					t.Errorf("%s took %s", what, took)
				}
				it.release()
				if what == "requeue" {
					job := h.finish(it.id, 0)
					if want := attempt + 1; job.Attempt != want {
						t.Errorf("it ended as attempt %d, want %d", job.Attempt, want)
					}
				}
				if what == "cancel" {
					h.until("its node is free", func() bool {
						attempts, err := h.client().Attempts(t.Context(), it.id)
						return err == nil && (len(attempts) == 0 || attempts[0].Phase == skyport.PhaseReleased)
					})
					if job := h.job(it.id); job.State != skyport.JobCanceled {
						t.Errorf("it did not stay canceled: %s", job.State)
					}
				}
			})
		}
	}
}

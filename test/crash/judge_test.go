package crash

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
)

// judge holds an ended job to what it should have come to.
func (h *house) judge(ctx context.Context, w *work, job *skyport.Job) {
	for _, look := range []func(context.Context, *work, *skyport.Job) error{
		h.judgeEnd, h.judgeRuns, h.judgeLogs, h.judgeResults, h.judgeEvents,
	} {
		if err := look(ctx, w, job); err != nil {
			h.fail(ctx, w, "%v", err)
			return
		}
	}
	h.mu.Lock()
	w.judged = true
	h.mu.Unlock()
}

// judgeEnd: state, exit code and signal are as without kills.
func (h *house) judgeEnd(ctx context.Context, w *work, job *skyport.Job) error {
	switch {
	case job.Name != w.name():
		return fmt.Errorf("its name is %q, not %q", job.Name, w.name())
	case w.canceled && job.State != skyport.JobCanceled:
		return fmt.Errorf("it was canceled and is %s: %s", job.State.Word(), job.Details)
	case w.canceled:
		return nil
	}
	switch givenUp, err := h.site.judgeAttempts(ctx, w, job); {
	case err != nil || givenUp:
		return err
	case job.State != skyport.JobFinished:
		return fmt.Errorf("it is %s: %s", job.State.Word(), job.Details)
	}
	code, sig := w.exit, 0
	if w.limit {
		sig = int(syscall.SIGTERM)
		code = 128 + sig
	}
	if job.ExitCode != code || job.Signal != sig {
		return fmt.Errorf("exit code %d and signal %d, not %d and %d: %s", job.ExitCode, job.Signal, code, sig, job.Details)
	}
	if w.limit != strings.Contains(job.Details, "time limit") {
		return fmt.Errorf("its details are %q", job.Details)
	}
	return nil
}

// judgeRuns: the script ran once per attempt, and the last one to its end.
func (h *house) judgeRuns(_ context.Context, w *work, job *skyport.Job) error {
	entries, err := w.read()
	if err != nil {
		return err
	}
	count := map[entry]int{}
	for _, e := range entries {
		if count[e]++; count[e] > 1 {
			return fmt.Errorf("its script came to its %s twice in attempt %d", e.word, e.attempt)
		}
		if e.attempt > job.Attempt || e.attempt < 1 {
			return fmt.Errorf("its script ran in attempt %d of %d", e.attempt, job.Attempt)
		}
	}
	// Each run after the first was asked for, or is one of the retries.
	if begun := len(w.begun()); begun > 1+w.retries+w.requeues {
		return fmt.Errorf("its script ran %d times, with %d retries", begun, w.retries)
	}
	if job.State == skyport.JobFinished {
		ends := 1
		if w.limit {
			ends = 0
		}
		if count[entry{"begin", job.Attempt}] != 1 || count[entry{"end", job.Attempt}] != ends {
			return fmt.Errorf("the last attempt is not in the ledger: %v", entries)
		}
	}
	h.mu.Lock()
	w.doneLines = len(entries)
	h.mu.Unlock()
	return nil
}

// judgeLogs: both logs are there to the last byte.
func (h *house) judgeLogs(ctx context.Context, w *work, job *skyport.Job) error {
	if job.State != skyport.JobFinished {
		return nil
	}
	for stream, word := range map[skyport.LogStream]string{skyport.Stdout: "out", skyport.Stderr: "err"} {
		log, err := h.user.Logs(ctx, w.id, stream, client.LogOptions{})
		if err != nil {
			return fmt.Errorf("%s: %w", stream, err)
		}
		got, err := io.ReadAll(log)
		if err := errors.Join(err, log.Close()); err != nil {
			return fmt.Errorf("%s: %w", stream, err)
		}
		if want := w.log(word); !bytes.Equal(got, want) {
			return fmt.Errorf("%s is not as it should be: %s", stream, difference(got, want))
		}
	}
	return nil
}

// judgeResults: what the script made is here, and nothing else.
func (h *house) judgeResults(ctx context.Context, w *work, job *skyport.Job) error {
	if job.State != skyport.JobFinished || w.input == 0 {
		return nil
	}
	dir := h.path("results", strconv.Itoa(w.number))
	results, err := h.user.Results(ctx, w.id, dir, nil)
	if err != nil {
		return fmt.Errorf("results: %w", err)
	}
	want := w.result()
	files := map[string][]byte{
		"result": want, filepath.Join("tree", "sum"): fmt.Appendf(nil, "%x  -\n", sha256.Sum256(want)),
	}
	for name, content := range files {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return fmt.Errorf("results: %w", err)
		}
		if !bytes.Equal(got, content) {
			return fmt.Errorf("result %s is not as it should be: %s", name, difference(got, content))
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "tree", "empty")); err != nil || !info.IsDir() {
		return fmt.Errorf("results: the empty directory: %w", err)
	}
	if w.missing != slices.Contains(results.Missing, "never") {
		return fmt.Errorf("missing results: %v", results.Missing)
	}
	warned := slices.ContainsFunc(job.Warnings, func(s string) bool { return strings.Contains(s, "never") })
	if w.missing != warned {
		return fmt.Errorf("warnings: %q", job.Warnings)
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return nil
}

// judgeEvents: they tell of legal moves only, in order, up to the state that
// the job is in.
func (h *house) judgeEvents(ctx context.Context, w *work, job *skyport.Job) error {
	var last skyport.Event
	state := skyport.JobState("")
	for e, err := range h.user.StoredEvents(ctx, client.EventFilter{Job: w.id}, 0) {
		if err != nil {
			return fmt.Errorf("events: %w", err)
		}
		now := skyport.JobState(e.State)
		switch {
		case e.Seq <= last.Seq || e.Attempt < last.Attempt || e.Time.Before(last.Time):
			return fmt.Errorf("event %d is out of order", e.Seq)
		case state == "" && (e.Kind != skyport.EventState || now != skyport.JobQueued):
			return fmt.Errorf("its first event is %+v", e)
		case state != "" && e.Kind == skyport.EventState && !state.CanMove(now):
			return fmt.Errorf("event %d tells of an illegal move from %s to %s", e.Seq, state, now)
		case state != "" && e.Kind != skyport.EventState && now != state:
			return fmt.Errorf("event %d is of state %s while the job is %s", e.Seq, now, state)
		}
		last, state = e, now
	}
	if state != job.State {
		return fmt.Errorf("its last event is of state %s, it is %s", state, job.State)
	}
	return nil
}

// difference tells where two texts begin to differ.
func difference(got, want []byte) string {
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	part := func(text []byte) []byte { return text[max(0, min(at-20, len(text))):min(at+60, len(text))] }
	return fmt.Sprintf("%d bytes, not %d; from byte %d on: %q, not %q", len(got), len(want), at, part(got), part(want))
}

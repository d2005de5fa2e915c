package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/link"
	"github.com/openworkload/skyport/internal/core/store"
	"github.com/openworkload/skyport/internal/forward"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// attempt is the loop of one attempt of a job on one partition.
type attempt struct {
	e      *Engine
	job    skyport.JobID
	number int
	wake   chan struct{}

	// Guarded by the engine's lock.
	row   skyport.Attempt
	leave context.CancelCauseFunc // ends the step under way when the job moves on

	// Used by the loop alone, but for forwards, which Engine.Ports reads.
	forwards  *forward.Set
	asked     bool // the worker has taken the request to start: it will
	warned    map[string]bool
	fruitless int       // downloads of outputs that failed though the node answered
	prepared  string    // what the node said last that it is at
	told      time.Time // when that was stored last
}

// view is what a step decides by: everything as of the last commit.
type view struct {
	row       skyport.Attempt
	job       skyport.Job // zero when it is not active any more
	partition skyport.Partition
	link      *link.Link // nil before the partition connects
	mine      bool       // the job is on this attempt and not over
}

// reconcile takes the attempt from step to step until it is released.
func (a *attempt) reconcile(ctx context.Context) {
	defer a.closeForwards()
	defer a.e.Archive.End(a.job, a.number)
	var tries backoff
	for ctx.Err() == nil {
		v := a.view()
		if v.row.Phase == skyport.PhaseReleased {
			return
		}
		progress, err := a.step(ctx, v)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !errors.Is(err, errMoved):
			a.e.log.Warn("attempt: trying again", "job", v.row.Job, "attempt", v.row.Number, "phase", v.row.Phase, "error", err)
			pause(ctx, a.wake, tries.next())
		case progress:
			tries.reset()
		case v.mine:
			select {
			case <-ctx.Done():
			case <-a.wake:
			}
		default: // what is over must not hold its partition for a piece of news that was lost
			pause(ctx, a.wake, lookAgain)
		}
	}
}

const (
	// lookAgain is how long an attempt that is over waits for the news of its end.
	lookAgain = 5 * time.Second
	// askTime is how long a worker may take to stop or to forget a run: it kills
	// what does not end.
	askTime = 45 * time.Second
)

// step takes the next step. It reports whether it may be called again at once;
// if not, something must change first.
func (a *attempt) step(ctx context.Context, v view) (progress bool, err error) {
	switch {
	case gone(v.partition.State):
		return true, a.lose(ctx, v, partitionLoss(&v.partition), skyport.PhaseReleased)
	case v.row.Phase == skyport.PhaseDone || (!v.mine && v.row.Phase < skyport.PhaseDone):
		return a.finish(ctx, v)
	case v.link == nil || !v.partition.State.Connected():
		return false, nil
	}
	if up, _, _ := v.link.Up(); !up {
		return false, nil
	}
	ctx, cancel := a.whileMine(ctx, &v.row)
	defer cancel()
	status, known := v.link.Status(skyport.RunName(v.row.Job, v.row.Number))
	if known && status.State == protocol.RunRunning {
		if lost := lostMember(&v); lost != nil {
			return true, a.lose(ctx, v, lost.text, skyport.PhaseDone)
		}
	}
	if why := a.e.overspent(v.job.Account); why != "" {
		if done, progress, err := a.endForBudget(ctx, v, status, known, why); done {
			return progress, err
		}
	}
	switch {
	case v.row.Phase < skyport.PhaseRunning && known && status.State == protocol.RunStaging && a.asked:
		a.preparing(ctx, status)
		return false, nil
	case v.row.Phase < skyport.PhaseRunning && (!known || status.State == protocol.RunStaging):
		return a.start(ctx, v)
	case !known, status.State == protocol.RunLost:
		if v.row.Started.IsZero() {
			v.row.Started = status.Started // while core was not there
		}
		return true, a.lose(ctx, v, "node "+v.partition.Nodes[0].Name+" lost the job's processes: "+orUnknown(status.Details), skyport.PhaseDone)
	case status.State == protocol.RunRefused:
		return true, a.refuse(ctx, v, status)
	case status.State == protocol.RunRunning:
		return false, a.follow(ctx, v, status)
	default:
		return true, a.collect(ctx, v, status)
	}
}

// follow brings core up to date with a script that runs.
func (a *attempt) follow(ctx context.Context, v view, status protocol.RunStatus) error {
	a.e.Archive.Begin(v.row.Job, v.row.Number)
	if v.row.Phase < skyport.PhaseRunning {
		// After a restart the forwards are opened again before R is said again.
		if err := a.openForwards(ctx, v); err != nil {
			return err
		}
		a.listening(status)
		if err := a.update(ctx, func(tx *store.Tx, row *skyport.Attempt, job *skyport.Job) error {
			return markRunning(tx, row, job, status)
		}); err != nil {
			return err
		}
	} else if a.forwards == nil {
		if err := a.openForwards(ctx, v); err != nil {
			a.warn(ctx, "ports: "+err.Error())
		}
	}
	a.listening(status)
	return a.fetchLogs(ctx, v, status)
}

// markRunning writes that the script has started.
func markRunning(tx *store.Tx, row *skyport.Attempt, job *skyport.Job, status protocol.RunStatus) error {
	if row.Phase >= skyport.PhaseRunning {
		return nil
	}
	row.Phase, row.Started = skyport.PhaseRunning, status.Started
	job.StartTime, job.Misplaced = status.Started, 0
	details := skyport.DetailsRunning
	if status.Details != "" {
		details += ": " + status.Details
	}
	if err := tx.UpdateAttempt(row); err != nil {
		return err
	}
	return tx.MoveJob(job, skyport.JobRunning, details)
}

// collect brings home what an ended script left and ends the job.
func (a *attempt) collect(ctx context.Context, v view, status protocol.RunStatus) error {
	if err := a.fetchLogs(ctx, v, status); err != nil {
		return err
	}
	a.closeForwards()
	var came outcome
	if len(v.job.Request.OutputFiles) > 0 {
		if err := a.update(ctx, func(tx *store.Tx, row *skyport.Attempt, job *skyport.Job) error {
			if err := markRunning(tx, row, job, status); err != nil {
				return err
			}
			if row.Phase < skyport.PhaseEnded {
				row.Phase = skyport.PhaseEnded
				if err := tx.UpdateAttempt(row); err != nil {
					return err
				}
			}
			return tx.MoveJob(job, skyport.JobTransferring, skyport.DetailsResultsDownloading)
		}); err != nil {
			return err
		}
		var err error
		came, err = a.fetchOutputs(ctx, v)
		switch skyport.CodeOf(err) {
		case skyport.CodeInvalid, skyport.CodeTooLarge: // of a worker that is none, or not as it should be
			return a.fail(ctx, fmt.Sprintf("node %s sent outputs that cannot be taken: %v", v.partition.Nodes[0].Name, err))
		}
		if err != nil {
			if up, _, _ := v.link.Up(); up {
				a.fruitless++
			}
			if a.fruitless >= mostFruitless {
				return a.fail(ctx, fmt.Sprintf("node %s answers, but its outputs do not come: %v", v.partition.Nodes[0].Name, err))
			}
			a.details(ctx, skyport.JobTransferring, skyport.DetailsResultsDownloading+": trying again: "+err.Error())
			return err
		}
	}
	if err := a.e.Archive.SyncLogs(v.row.Job, v.row.Number); err != nil {
		return err
	}
	return a.update(ctx, func(tx *store.Tx, row *skyport.Attempt, job *skyport.Job) error {
		if err := markRunning(tx, row, job, status); err != nil {
			return err
		}
		row.Phase, row.Ended, row.ExitCode, row.Signal, row.Usage = skyport.PhaseDone, status.Ended, status.ExitCode, status.Signal, status.Usage
		job.ExitCode, job.Signal = status.ExitCode, status.Signal
		job.ResultBytes = came.bytes
		if err := came.write(tx, job); err != nil {
			return err
		}
		if err := tx.UpdateAttempt(row); err != nil {
			return err
		}
		return tx.MoveJob(job, skyport.JobFinished, endingOf(row, &job.Request, status))
	})
}

// mostFruitless is how many downloads of outputs may fail while the node answers,
// each after several attempts of its own without any progress.
const mostFruitless = 10

// ending says in words how a script ended.
func ending(r *skyport.Request, s protocol.RunStatus) string {
	switch {
	case s.TimedOut:
		return fmt.Sprintf("Finished: stopped at its time limit of %s", r.TimeLimit)
	case s.OutOfMem:
		return fmt.Sprintf("Finished: killed for its memory limit of %s", r.Memory)
	case s.Signal != 0:
		return fmt.Sprintf("Finished: ended by signal %d", s.Signal)
	case s.ExitCode != 0:
		return fmt.Sprintf("Finished: exit code %d", s.ExitCode)
	}
	return "Finished"
}

// finish has the worker forget the attempt, stopping it first where the job
// has moved on without it, and frees its room.
func (a *attempt) finish(ctx context.Context, v view) (progress bool, err error) {
	a.closeForwards()
	run := skyport.RunName(v.row.Job, v.row.Number)
	if v.partition.ReadyAt.IsZero() && v.row.Phase < skyport.PhaseDone {
		// No worker was ever reached: nothing can have been started.
		return true, a.release(ctx, v)
	}
	if v.link == nil {
		return false, nil
	}
	if up, _, _ := v.link.Up(); !up {
		return false, nil
	}
	status, known := v.link.Status(run)
	ctx, cancel := context.WithTimeoutCause(ctx, askTime, fmt.Errorf("the worker did not end %s within %s", run, askTime))
	defer cancel()
	if known && status.Stopped && status.State == protocol.RunRunning {
		if now, err := v.link.Worker().Status(ctx, run); err == nil {
			v.link.Note(now)
			status = now
		}
	}
	if known && v.row.Phase < skyport.PhaseDone && status.State == protocol.RunRunning {
		if !status.Stopped {
			// The worker gives TERM, a grace and KILL; its news brings us back.
			if err := v.link.Worker().Stop(ctx, run); err != nil && skyport.CodeOf(err) != skyport.CodeNotFound {
				return false, fmt.Errorf("stop %s: %w", run, err)
			}
		}
		if err := a.fetchLogs(ctx, v, status); err != nil {
			a.e.log.Warn("the log of a stopped job is not complete", "job", v.row.Job, "error", err)
		}
		return false, nil
	}
	if known && v.row.Phase < skyport.PhaseDone {
		if err := a.fetchLogs(ctx, v, status); err != nil {
			a.e.log.Warn("the log of a stopped job is not complete", "job", v.row.Job, "error", err)
		}
	}
	if err := removeMembers(ctx, v.link, v.partition.Nodes, run); err != nil {
		return false, err
	}
	if err := v.link.Worker().Remove(ctx, run); err != nil && skyport.CodeOf(err) != skyport.CodeNotFound {
		return false, fmt.Errorf("remove %s: %w", run, err)
	}
	return true, a.release(ctx, v)
}

// release frees the room, and marks the partition idle when it was the last.
func (a *attempt) release(ctx context.Context, v view) error {
	if err := a.e.Archive.DropPartial(v.row.Job, v.row.Number); err != nil {
		return err
	}
	return a.e.Store.Update(ctx, func(tx *store.Tx) error { return a.releaseIn(tx, v.row) })
}

func (a *attempt) releaseIn(tx *store.Tx, key skyport.Attempt) error {
	row, err := tx.Attempt(key.Job, key.Number)
	if err != nil {
		return ignoreNotFound(err)
	}
	if row.Ended.IsZero() {
		row.Ended, row.Outcome = tx.Now(), "stopped: the job moved on without it"
		if job, err := tx.Job(row.Job); err == nil {
			row.Outcome = "stopped: the job was " + map[bool]string{true: "canceled", false: "requeued"}[job.State == skyport.JobCanceled]
		}
	}
	row.Phase = skyport.PhaseReleased
	if err := tx.UpdateAttempt(&row); err != nil {
		return err
	}
	held, err := tx.Held(row.Partition)
	if err != nil || held > 0 {
		return err
	}
	p, err := tx.Partition(row.Partition)
	if err != nil {
		return err
	}
	if p.State != skyport.PartitionBusy {
		return nil
	}
	p.IdleSince = tx.Now()
	return tx.MovePartition(&p, skyport.PartitionReady, "Idle")
}

// lose ends the attempt because the node or the site failed. The job gets a new
// attempt if it may, and ends in E if not.
func (a *attempt) lose(ctx context.Context, v view, reason string, phase skyport.Phase) error {
	a.closeForwards()
	if phase == skyport.PhaseReleased {
		if err := a.e.Archive.DropPartial(v.row.Job, v.row.Number); err != nil {
			return err
		}
	}
	return a.e.Store.Update(ctx, func(tx *store.Tx) error {
		row, err := tx.Attempt(v.row.Job, v.row.Number)
		if err != nil {
			return ignoreNotFound(err)
		}
		job, err := tx.Job(row.Job)
		if err != nil {
			return err
		}
		mine := isMine(&job, &row) && row.Phase < skyport.PhaseDone
		if row.Phase < skyport.PhaseDone {
			row.Outcome, row.Started, row.Ended = reason, v.row.Started, tx.Now()
		}
		before := row.Phase
		row.Phase = max(before, phase)
		if err := tx.UpdateAttempt(&row); err != nil {
			return err
		}
		if !mine {
			return nil
		}
		// Whether a script whose start was asked for has begun is not known when
		// the node is gone: it counts as begun, so that it never runs twice.
		asked := before >= skyport.PhaseStarting && phase == skyport.PhaseReleased
		began := !row.Started.IsZero() || asked || job.State == skyport.JobRunning
		return a.e.again(tx, &job, began, v.partition.Code, reason)
	})
}

// again puts a job that lost its attempt back into the queue, or gives it up.
func (e *Engine) again(tx *store.Tx, job *skyport.Job, began bool, code skyport.Code, reason string) error {
	switch {
	case began:
		if job.Retried >= job.Request.Retries {
			return tx.MoveJob(job, skyport.JobFailed, "The attempt was lost: "+reason+hintRetries(job))
		}
		job.Retried++
	case hopeless(code):
		return tx.MoveJob(job, skyport.JobFailed, reason)
	case elsewhere(code): // the scheduler knows what was refused, and looks further
	default:
		job.Misplaced++
		if job.Misplaced >= e.Limits.Misplaced {
			return tx.MoveJob(job, skyport.JobFailed, fmt.Sprintf("Gave up after %d attempts: %s", job.Misplaced, reason))
		}
		job.NotBefore = tx.Now().Add(time.Second << (job.Misplaced - 1))
	}
	backToQueue(job)
	return tx.MoveJob(job, skyport.JobQueued, skyport.DetailsQueued+": again after: "+reason)
}

func hintRetries(job *skyport.Job) string {
	if job.Request.Retries > 0 {
		return fmt.Sprintf(" (after %d retries)", job.Retried)
	}
	return " (#SWM retries N asks for new attempts)"
}

// backToQueue clears what belonged to the attempt; the attempts table keeps it.
func backToQueue(job *skyport.Job) {
	job.Partition, job.Site, job.Flavor, job.Address, job.NodeNames = "", "", "", "", nil
	job.ExitCode, job.Signal, job.ResultBytes, job.Warnings = 0, 0, 0, nil
	job.StartTime, job.EndTime = time.Time{}, time.Time{}
}

// refuse ends a job that its node could not start.
func (a *attempt) refuse(ctx context.Context, v view, status protocol.RunStatus) error {
	return a.fail(ctx, fmt.Sprintf("node %s could not start the job: %s", v.partition.Nodes[0].Name, orUnknown(status.Details)))
}

// fail ends the job in E: trying again cannot help.
func (a *attempt) fail(ctx context.Context, reason string) error {
	return a.update(ctx, func(tx *store.Tx, row *skyport.Attempt, job *skyport.Job) error {
		row.Phase, row.Outcome, row.Ended = skyport.PhaseDone, reason, tx.Now()
		if err := tx.UpdateAttempt(row); err != nil {
			return err
		}
		return tx.MoveJob(job, skyport.JobFailed, reason)
	})
}

// update changes attempt and job in a transaction, if the job is still on this
// attempt; else it does nothing and the next look finds out.
func (a *attempt) update(ctx context.Context, change func(*store.Tx, *skyport.Attempt, *skyport.Job) error) error {
	err := a.e.Store.Update(ctx, func(tx *store.Tx) error {
		row, err := tx.Attempt(a.job, a.number)
		if err != nil {
			return err
		}
		job, err := tx.Job(row.Job)
		if err != nil {
			return err
		}
		if !isMine(&job, &row) || row.Phase >= skyport.PhaseDone {
			return errMoved
		}
		return change(tx, &row, &job)
	})
	if err != nil {
		return fmt.Errorf("write attempt %d of job %s: %w", a.number, a.job, err)
	}
	return nil
}

// details writes a new details line, as long as the job is in the state.
func (a *attempt) details(ctx context.Context, state skyport.JobState, text string) {
	err := a.update(ctx, func(tx *store.Tx, _ *skyport.Attempt, job *skyport.Job) error {
		if job.State != state {
			return nil
		}
		return tx.MoveJob(job, state, text)
	})
	if err != nil && !errors.Is(err, errMoved) && ctx.Err() == nil {
		a.e.log.Warn("details were not written", "job", a.job, "error", err)
	}
}

// preparing shows what the node is at before it starts the script, such as the
// pull of an image. What comes often is not stored.
func (a *attempt) preparing(ctx context.Context, status protocol.RunStatus) {
	if status.Details == "" || status.Details == a.prepared {
		return
	}
	a.prepared = status.Details
	if time.Since(a.told) < detailsPause {
		return
	}
	a.told = time.Now()
	a.e.mu.Lock()
	job := a.e.jobs[a.job]
	var state skyport.JobState
	if job != nil {
		state = job.State
	}
	a.e.mu.Unlock()
	a.details(ctx, state, status.Details)
}

// detailsPause is how often at most the progress of a preparation is stored.
const detailsPause = 2 * time.Second

// warn puts a warning on the job, once.
func (a *attempt) warn(ctx context.Context, text string) {
	if a.warned[text] {
		return
	}
	if a.warned == nil {
		a.warned = map[string]bool{}
	}
	a.warned[text] = true
	err := a.update(ctx, func(tx *store.Tx, _ *skyport.Attempt, job *skyport.Job) error {
		if slices.Contains(job.Warnings, text) {
			return nil // core of before has said it
		}
		job.Warnings = append(job.Warnings, text)
		return tx.NoteJob(job, skyport.EventWarning, text, nil)
	})
	if err != nil && !errors.Is(err, errMoved) && ctx.Err() == nil {
		a.e.log.Warn("a warning was not written", "job", a.job, "warning", text, "error", err)
	}
}

// view looks at everything the next step depends on.
func (a *attempt) view() view {
	a.e.mu.Lock()
	defer a.e.mu.Unlock()
	v := view{row: a.row}
	if job := a.e.jobs[a.row.Job]; job != nil {
		v.job, v.mine = *job, isMine(job, &a.row)
	}
	v.partition.State = skyport.PartitionDeleted
	if p := a.e.partitions[a.row.Partition]; p != nil {
		v.partition, v.link = p.row, p.link
	}
	return v
}

// whileMine returns a context that ends when the job moves on to something else.
func (a *attempt) whileMine(ctx context.Context, row *skyport.Attempt) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	a.e.mu.Lock()
	defer a.e.mu.Unlock()
	a.leave = cancel
	if job := a.e.jobs[row.Job]; job == nil || !isMine(job, row) {
		cancel(errMoved)
	}
	return ctx, func() { cancel(nil) }
}

// jobChanged looks whether the job has moved on. The engine's lock is held.
func (a *attempt) jobChanged(job *skyport.Job) {
	if isMine(job, &a.row) {
		return // only what the attempt has written itself
	}
	if a.leave != nil {
		a.leave(errMoved)
	}
	wake(a.wake)
}

// isMine says whether the job is on this attempt and not over.
func isMine(job *skyport.Job, a *skyport.Attempt) bool {
	return job.Attempt == a.Number && job.State != skyport.JobQueued && !job.State.Terminal() && !job.Purged
}

// gone says whether the partition's nodes can no longer be counted on.
func gone(s skyport.PartitionState) bool {
	return s == skyport.PartitionFailed || s == skyport.PartitionDeleting || s == skyport.PartitionDeleted
}

func partitionLoss(p *skyport.Partition) string {
	if p.Details == "" {
		return "its partition is gone"
	}
	return "partition " + p.Name + ": " + p.Details
}

func orUnknown(details string) string {
	if details == "" {
		return "the worker has no more to say"
	}
	return details
}

func ignoreNotFound(err error) error {
	if skyport.CodeOf(err) == skyport.CodeNotFound {
		return nil
	}
	return err
}

package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/openworkload/skyport"
)

// Tx is one update of the store. It is valid inside the function given to
// [Store.Update] only. Load a row, change it, write it: nobody else writes in
// between.
type Tx struct {
	ctx     context.Context //nolint:containedctx // lives as long as the transaction
	w       *writer
	changes Commit
}

// Now is the time of the transaction's events.
func (tx *Tx) Now() time.Time { return tx.w.now().UTC().Truncate(time.Microsecond) }

// InsertJob stores a new job with its script and first event. It sets the
// job's number and submit time.
func (tx *Tx) InsertJob(job *skyport.Job, script []byte) error {
	tx.w.counters.job++
	job.Number, job.SubmitTime = tx.w.counters.job, tx.Now()
	if err := tx.exec(insertJob, jobArgs(job)...); err != nil {
		return err
	}
	// A nil slice would be NULL.
	if err := tx.exec(`INSERT INTO scripts (job, body) VALUES ($1, $2)`, job.ID, append([]byte{}, script...)); err != nil {
		return err
	}
	tx.changes.Jobs = append(tx.changes.Jobs, *job)
	return tx.jobEvent(job, skyport.EventState, job.Details, nil)
}

// Job loads a job, purged or not.
func (tx *Tx) Job(id skyport.JobID) (skyport.Job, error) {
	return one(tx.ctx, tx, scanJob, notFound("job", id), selectJob+` WHERE id = $1`, id)
}

// MoveJob writes the job with a new state and details, and the event of it.
// The state in job must be the one that the store has. An illegal move is
// CodeConflict.
func (tx *Tx) MoveJob(job *skyport.Job, to skyport.JobState, details string) error {
	kind := skyport.EventState
	switch {
	case job.State == to && job.Details == details:
		return tx.writeJob(job)
	case job.State == to:
		kind = skyport.EventDetails
	case !job.State.CanMove(to):
		return skyport.Errorf(skyport.CodeConflict, "job %s cannot go from %s to %s", job.ID, job.State.Word(), to.Word())
	}
	job.State, job.Details = to, details
	if to.Terminal() && kind == skyport.EventState {
		job.EndTime = tx.Now()
	}
	if err := tx.writeJob(job); err != nil {
		return err
	}
	return tx.jobEvent(job, kind, details, nil)
}

// NoteJob writes the job and an event that is no move: a transfer or a warning.
func (tx *Tx) NoteJob(job *skyport.Job, kind skyport.EventKind, text string, transfer *skyport.Transfer) error {
	if err := tx.writeJob(job); err != nil {
		return err
	}
	return tx.jobEvent(job, kind, text, transfer)
}

// ForgetJob deletes all that the store has of a job.
func (tx *Tx) ForgetJob(id skyport.JobID) error {
	for _, q := range []string{
		`DELETE FROM jobs WHERE id = $1`, `DELETE FROM scripts WHERE job = $1`,
		`DELETE FROM attempts WHERE job = $1`, `DELETE FROM events WHERE job = $1`,
	} {
		if err := tx.exec(q, id); err != nil {
			return err
		}
	}
	tx.changes.Forgotten = append(tx.changes.Forgotten, id)
	return nil
}

func (tx *Tx) writeJob(job *skyport.Job) error {
	if err := tx.exec(updateJob, jobArgs(job)...); err != nil {
		return err
	}
	tx.changes.Jobs = append(tx.changes.Jobs, *job)
	return nil
}

func (tx *Tx) jobEvent(job *skyport.Job, kind skyport.EventKind, text string, transfer *skyport.Transfer) error {
	return tx.event(skyport.Event{
		Kind: kind, Job: job.ID, Owner: job.Owner, Attempt: job.Attempt, Partition: job.Partition,
		State: string(job.State), Text: text, Transfer: transfer,
	})
}

// InsertAttempt stores a new attempt. From now on it pays for its partition.
func (tx *Tx) InsertAttempt(a *skyport.Attempt) error {
	a.Created = tx.Now()
	if err := tx.hold(a); err != nil {
		return err
	}
	return tx.writeAttempt(insertAttempt, a)
}

// Attempt loads an attempt.
func (tx *Tx) Attempt(job skyport.JobID, number int) (skyport.Attempt, error) {
	return one(tx.ctx, tx, scanAttempt, notFound("attempt", skyport.RunName(job, number)), selectAttempt+` WHERE job = $1 AND number = $2`, job, number)
}

// UpdateAttempt writes an attempt that was loaded before. Its phase never
// goes back.
func (tx *Tx) UpdateAttempt(a *skyport.Attempt) error {
	if a.Phase >= skyport.PhaseDone {
		if err := tx.letGo(a); err != nil {
			return err
		}
	}
	return tx.writeAttempt(updateAttempt, a)
}

func (tx *Tx) writeAttempt(query string, a *skyport.Attempt) error {
	if err := tx.exec(query, attemptArgs(a)...); err != nil {
		return err
	}
	tx.changes.Attempts = append(tx.changes.Attempts, *a)
	return nil
}

// InsertPartition stores a new partition with its first event.
func (tx *Tx) InsertPartition(p *skyport.Partition) error {
	p.Created = tx.Now()
	if err := tx.exec(insertPartition, partitionArgs(p)...); err != nil {
		return err
	}
	tx.changes.Partitions = append(tx.changes.Partitions, *p)
	return tx.partitionEvent(p, skyport.EventState)
}

// Partition loads a partition.
func (tx *Tx) Partition(id skyport.PartitionID) (skyport.Partition, error) {
	return one(tx.ctx, tx, scanPartition, notFound("partition", id), selectPartition+` WHERE id = $1`, id)
}

// MovePartition writes the partition with a new state and details, and the
// event of it. The same rules as for MoveJob hold. What a partition that is
// deleted has cost is settled with it.
func (tx *Tx) MovePartition(p *skyport.Partition, to skyport.PartitionState, details string) error {
	kind := skyport.EventState
	switch {
	case p.State == to && p.Details == details:
		return tx.writePartition(p)
	case p.State == to:
		kind = skyport.EventDetails
	case !p.State.CanMove(to):
		return skyport.Errorf(skyport.CodeConflict, "partition %s cannot go from %s to %s", p.ID, p.State, to)
	}
	if to == skyport.PartitionDeleted && kind == skyport.EventState {
		if err := tx.settle(p.ID); err != nil {
			return err
		}
	}
	p.State, p.Details = to, details
	if err := tx.writePartition(p); err != nil {
		return err
	}
	return tx.partitionEvent(p, kind)
}

func (tx *Tx) writePartition(p *skyport.Partition) error {
	if err := tx.exec(updatePartition, partitionArgs(p)...); err != nil {
		return err
	}
	tx.changes.Partitions = append(tx.changes.Partitions, *p)
	return nil
}

func (tx *Tx) partitionEvent(p *skyport.Partition, kind skyport.EventKind) error {
	return tx.event(skyport.Event{Kind: kind, Partition: p.ID, State: string(p.State), Text: p.Details})
}

func (tx *Tx) event(e skyport.Event) error {
	tx.w.counters.event++
	e.Seq, e.Time = tx.w.counters.event, tx.Now()
	if err := tx.exec(insertEvent, eventArgs(&e)...); err != nil {
		return err
	}
	tx.changes.Events = append(tx.changes.Events, e)
	return nil
}

// Submission looks up an earlier submission of owner under key. It returns
// nil when there is none, and CodeKeyReused when it had another hash.
func (tx *Tx) Submission(owner skyport.UserID, key, hash string) ([]skyport.JobID, error) {
	return submission(tx.queryRow(selectSubmission, owner, key), key, hash)
}

const selectSubmission = `SELECT hash, jobs FROM submissions WHERE owner = $1 AND key = $2`

func submission(row scanner, key, hash string) ([]skyport.JobID, error) {
	var had, list string
	err := row.Scan(&had, &list)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("store: submission %q: %w", key, err)
	case had != hash:
		return nil, skyport.Errorf(skyport.CodeKeyReused, "the Idempotency-Key %q was used for another submission", skyport.Abbreviate(key, 80)).
			WithHint("use a new key for a new submission")
	}
	var ids []skyport.JobID
	if err := json.Unmarshal([]byte(list), &ids); err != nil {
		return nil, fmt.Errorf("store: submission %q: %w", key, err)
	}
	return ids, nil
}

// RememberSubmission stores which jobs a submission made.
func (tx *Tx) RememberSubmission(owner skyport.UserID, key, hash string, ids []skyport.JobID) error {
	return tx.exec(`INSERT INTO submissions (owner, key, hash, jobs, time) VALUES ($1, $2, $3, $4, $5)`,
		owner, key, hash, toJSON(ids), micros(tx.Now()))
}

// ForgetSubmissions deletes what was remembered before a moment.
func (tx *Tx) ForgetSubmissions(before time.Time) error {
	return tx.exec(`DELETE FROM submissions WHERE time < $1`, micros(before))
}

// SetFact remembers a value under a name.
func (tx *Tx) SetFact(name, value string) error {
	return tx.exec(`INSERT INTO facts (name, value) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value)
}

func (tx *Tx) exec(query string, args ...any) error { return tx.w.exec(tx.ctx, query, args...) }

func (tx *Tx) queryRow(query string, args ...any) *sql.Row {
	stmt, err := tx.w.stmt(tx.ctx, query)
	if err != nil {
		return tx.w.conn.QueryRowContext(tx.ctx, query, args...)
	}
	return stmt.QueryRowContext(tx.ctx, args...)
}

func (tx *Tx) query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	stmt, err := tx.w.stmt(ctx, query)
	if err != nil {
		return nil, err
	}
	return stmt.QueryContext(ctx, args...) //nolint:wrapcheck // wrapped by its callers, one and all
}

// Held counts the attempts that hold room on a partition.
func (tx *Tx) Held(id skyport.PartitionID) (n int, err error) {
	err = tx.queryRow(`SELECT count(*) FROM attempts WHERE partition_id = $1 AND phase < 6`, id).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("store: attempts on partition %s: %w", id, err)
	}
	return n, nil
}
